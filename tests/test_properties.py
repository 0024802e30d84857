"""Random graphs, sizes, dtypes and trees, thrown at topologies, mixers and transformations."""

import functools
import re

import hypothesis
import hypothesis.strategies as st
import jax
import jax.numpy as jnp
import networkx as nx
import numpy as np
import optax
import pytest

import cdjax
from cdjax import mixing, robust, topology
from tests.trees import random_connected_graph

# The type checks of cdjax look at random items of lists, in strategies too.
pytestmark = [
    pytest.mark.filterwarnings("ignore:Do not use the `random` module inside strategies"),
    pytest.mark.sampled(2),
]

KEY = jax.random.key(0)
ROUNDING = {"float32": 1e-5, "bfloat16": 2e-2, "float16": 2e-3}
DTYPES = [*ROUNDING, "int32", "uint8", "bool"]
SHAPES = [(), (3,), (2, 1), (0,)]


def examples(number):
    """The same examples in every run."""
    return hypothesis.settings(
        max_examples=number,
        derandomize=True,
        database=None,
        deadline=None,
        suppress_health_check=list(hypothesis.HealthCheck),
    )


@st.composite
def graphs(draw, sizes=(1, 2, 5)):
    """Connected graphs of any kind, with weights of any kind that suits them."""
    num_agents = draw(st.sampled_from(sizes))
    graph = random_connected_graph(num_agents, draw(st.integers(0, 20)))
    weights = draw(st.sampled_from(["metropolis_hastings", "max_degree", "laplacian", "lazy"]))
    return topology.from_graph(graph, weights)


@st.composite
def trees(draw, num_agents, dtypes=tuple(DTYPES)):
    """Stacked trees: empty, one array, nested in any container, with None and empty leaves."""
    rng = np.random.default_rng(draw(st.integers(0, 100)))

    def leaf(shape, dtype):
        return jnp.asarray(rng.normal(size=(num_agents, *shape)) * 3, dtype)

    leaves = st.builds(leaf, st.sampled_from(SHAPES), st.sampled_from(dtypes)) | st.none()
    inner = st.recursive(
        leaves,
        lambda children: (
            st.lists(children, max_size=2)
            | st.tuples(children, children)
            | st.dictionaries(st.sampled_from("abc"), children, max_size=2)
        ),
        max_leaves=4,
    )
    return draw(inner)


def same_kind(actual, expected):
    assert jax.tree.structure(actual) == jax.tree.structure(expected)
    for a, b in zip(jax.tree.leaves(actual), jax.tree.leaves(expected), strict=True):
        assert (a.shape, a.dtype) == (b.shape, b.dtype)


def wide(x):
    return np.asarray(x, np.float64)


def assert_mixed(actual, tree, matrix):
    """Floating-point leaves are the product with Π, in NumPy; all others unchanged."""
    same_kind(actual, tree)
    for mixed, x in zip(jax.tree.leaves(actual), jax.tree.leaves(tree), strict=True):
        if x.dtype.name in ROUNDING:
            expected = np.einsum("jl,l...->j...", matrix, wide(x))
            rounding = ROUNDING[x.dtype.name]
            np.testing.assert_allclose(wide(mixed), expected, rounding, 3 * rounding)
        else:
            np.testing.assert_array_equal(mixed, x)


@examples(40)
@hypothesis.given(graphs(sizes=(1, 2, 3, 4, 7, 12)))
def test_every_topology_satisfies_assumption_2(graph):
    matrix, num_agents = graph.mixing_matrix, graph.num_agents
    spectrum = np.linalg.eigvalsh(matrix)
    np.testing.assert_allclose(matrix, matrix.T, atol=1e-12)
    np.testing.assert_allclose(matrix.sum(axis=1), 1, atol=1e-12)
    assert not matrix[nx.to_numpy_array(nx.complement(graph.graph)) > 0].any()
    assert -1 < spectrum[0] and spectrum[-1] < 1 + 1e-12
    np.testing.assert_allclose(graph.eigenvalues[::-1], spectrum, atol=1e-12)
    assert num_agents == 1 or 0 < graph.spectral_gap <= 1


@examples(40)
@hypothesis.given(st.integers(1, 6), st.integers(0, 1000))
def test_a_matrix_is_a_topology_exactly_when_it_satisfies_assumption_2(num_agents, seed):
    rng = np.random.default_rng(seed)
    matrix = np.round(rng.dirichlet(np.ones(num_agents), size=num_agents), 2)
    matrix = (matrix + matrix.T) / 2 * (rng.random(matrix.shape) < 0.9)
    if seed % 2:
        np.fill_diagonal(matrix, matrix.diagonal() + 1 - matrix.sum(axis=1))
    spectrum = np.linalg.eigvals(matrix)
    holds = (
        np.allclose(matrix, matrix.T, rtol=0, atol=1e-8)
        and np.allclose(matrix.sum(axis=1), 1, rtol=0, atol=1e-8)
        and np.sum(np.abs(spectrum - 1) < 1e-8) == 1
        and np.all((spectrum.real > -1 + 1e-8) & (spectrum.real < 1 + 1e-8))
    )
    try:
        topology.from_matrix(matrix)
    except ValueError as error:
        assert not holds, error
        assert "mixing matrix" in str(error) or "connected" in str(error)
    else:
        assert holds


@pytest.mark.parametrize("make", [mixing.dense, mixing.shifts, mixing.neighbors, robust.faulty])
@examples(8)
@hypothesis.given(st.data())
@pytest.mark.sampled(2)
def test_every_mixer_is_the_product_with_the_matrix(make, data):
    graph = data.draw(graphs())
    tree = data.draw(trees(graph.num_agents))
    assert_mixed(make(graph)(tree), tree, graph.mixing_matrix)


@pytest.mark.slow
@pytest.mark.parametrize(
    "make",
    [
        lambda graph: robust.faulty(graph, robust.failing_links(graph, 0.4, key=KEY)),
        lambda graph: robust.clipped_gossip(graph, 0.7),
        lambda graph: mixing.pull(mixing.random_pairs(graph, KEY)),
        mixing.dense,
    ],
    ids=["failing links", "clipped gossip", "pairs", "dense"],
)
@examples(5)
@hypothesis.given(st.data())
def test_the_mean_is_conserved(make, data):
    graph = data.draw(graphs())
    tree = data.draw(trees(graph.num_agents))
    mixed = make(graph)(tree, data.draw(st.integers(0, 5)))
    same_kind(mixed, tree)
    for after, x in zip(jax.tree.leaves(mixed), jax.tree.leaves(tree), strict=True):
        rounding = 8 * ROUNDING.get(x.dtype.name, 0)
        np.testing.assert_allclose(wide(after).mean(0), wide(x).mean(0), rtol=0, atol=rounding)


@pytest.mark.slow
@pytest.mark.parametrize(
    "make",
    [
        robust.median,
        lambda graph: robust.trimmed_mean(graph, 0),
        lambda graph: robust.faulty(graph, robust.lost_messages(graph, 0.4, key=KEY)),
        lambda graph: mixing.push(mixing.random_peers(graph, KEY)),
    ],
    ids=["median", "trimmed mean", "lost messages", "push"],
)
@examples(5)
@hypothesis.given(st.data())
def test_nobody_leaves_the_range_of_all(make, data):
    graph = data.draw(graphs().filter(lambda graph: graph.mixing_matrix.min() >= 0))
    tree = data.draw(trees(graph.num_agents))
    mixed = make(graph)(tree, data.draw(st.integers(0, 5)))
    same_kind(mixed, tree)
    for after, x in zip(jax.tree.leaves(mixed), jax.tree.leaves(tree), strict=True):
        rounding = 4 * ROUNDING.get(x.dtype.name, 0)
        assert (wide(after) <= wide(x).max(0) + rounding).all()
        assert (wide(after) >= wide(x).min(0) - rounding).all()


def transformations(graph):
    num_agents, mix, sgd = graph.num_agents, mixing.dense(graph), optax.sgd(0.1)
    peers = mixing.random_peers(graph, KEY)
    return {
        "cdsgd": cdjax.cdsgd(0.1, mix),
        "cdmsgd": cdjax.cdmsgd(0.1, mix),
        "polyak": cdjax.cdmsgd(0.1, mix, nesterov=False),
        "consensus": cdjax.consensus(mix),
        "adapt_then_combine": cdjax.adapt_then_combine(sgd, mix),
        "delayed": cdjax.delayed(cdjax.consensus, mix, delays=np.arange(num_agents) % 3),
        "gossip": cdjax.gossip(sgd, mixing.pull(peers), period=2),
        "fedavg": cdjax.fedavg(sgd, local_steps=2),
        "easgd": cdjax.easgd(0.1, period=2),
        "easgd with clocks": cdjax.easgd(0.1, clocks=np.arange(num_agents)),
        "eamsgd": cdjax.eamsgd(0.1),
        "downpour": cdjax.downpour(0.1, 0.1),
        "gosgd": cdjax.gosgd(sgd, peers),
        "average_updates": cdjax.average_updates(),
        "scale_by_agent": cdjax.scale_by_agent(np.ones(num_agents)),
        "per_agent": cdjax.per_agent(sgd),
    }


@functools.cache
def transformation(name, num_agents):
    graph = topology.from_graph(random_connected_graph(num_agents))
    return transformations(graph)[name]


NAMES = list(transformations(topology.ring(3)))


def updates_of(tx, tree):
    """The shapes and dtypes of one step's updates; what runs is the same for all shapes."""
    return jax.eval_shape(lambda tree: tx.update(tree, tx.init(tree), tree)[0], tree)


@pytest.mark.parametrize("name", NAMES)
@examples(12)
@hypothesis.given(st.data())
@pytest.mark.sampled(4)
def test_a_step_keeps_any_tree_of_floats_or_says_what_is_wrong(name, data):
    num_agents = data.draw(st.sampled_from([1, 2, 5]))
    tree = data.draw(trees(num_agents, tuple(ROUNDING)))
    tx = transformation(name, num_agents)
    try:
        updates = updates_of(tx, tree)
    except ValueError as error:
        assert not jax.tree.leaves(tree), error
        assert re.search("the tree has no leaves|mixes parameters: call tx.update", str(error))
    else:
        same_kind(updates, tree)


@pytest.mark.slow
@pytest.mark.parametrize("name", NAMES)
@examples(8)
@hypothesis.given(st.data())
def test_counters_keep_their_kind_or_are_named(name, data):
    """No optimizer steps whole numbers and booleans; optax.masked keeps them out."""
    num_agents = data.draw(st.sampled_from([2, 3]))
    tree = {"x": jnp.ones((num_agents, 2)), "counter": data.draw(trees(num_agents))}
    tx = transformation(name, num_agents)
    is_float = lambda tree: jax.tree.map(lambda x: x.dtype.name in ROUNDING, tree)  # noqa: E731
    for one in (tx, optax.masked(tx, is_float)):
        try:
            updates = updates_of(one, tree)
        except (TypeError, ValueError) as error:
            assert "leaf '" in str(error), error
            assert one is tx
        else:
            same_kind(jax.eval_shape(optax.apply_updates, tree, updates), tree)


@pytest.mark.parametrize("name", [n for n in NAMES if n not in ("fedavg", "per_agent")])
@examples(8)
@hypothesis.given(st.data())
@pytest.mark.sampled(4)
def test_another_number_of_agents_names_the_leaf(name, data):
    num_agents, other = data.draw(st.sampled_from([(2, 3), (3, 1), (5, 4)]))
    bad = data.draw(st.sampled_from(["layer/kernel", "layer/bias"]))
    tree = {
        "layer": {"kernel": jnp.ones((num_agents, 2)), "bias": jnp.ones(num_agents)},
    }
    tree["layer"][bad.split("/")[1]] = jnp.ones((other, 2))
    tx = transformation(name, num_agents)
    with pytest.raises(ValueError, match=r"leaf 'layer/(kernel|bias)' .*leading axis"):
        updates_of(tx, tree)
