import re
import subprocess
import sys

import jax
import jax.numpy as jnp
import networkx as nx
import numpy as np
import optax
import pytest

import cdjax
from cdjax import mixing, topology
from tests.trees import assert_trees_close, random_stacked_tree

N = 256
SHAPE = (N, 20, 50)
LEAF_BYTES = 4 * np.prod(SHAPE)
SPARSE = [
    "ring", "path", "grid", "torus", "hypercube", "exponential", "erdos_renyi", "watts_strogatz",
    "random_regular", "binary_tree",
]  # fmt: skip


def compiled_step(mix, make=cdjax.cdsgd):
    tx, params = make(0.1, mix), {"kernel": jnp.zeros(SHAPE)}

    def step(params, grads, state):
        updates, state = tx.update(grads, state, params)
        return optax.apply_updates(params, updates), state

    return jax.jit(step).lower(params, params, tx.init(params)).compile()


def passes(program):
    """The operations of the compiled program that write an array as large as the leaf."""
    entry = program.as_text().partition("\nENTRY ")[2]
    writes = re.findall(r" = f32\[([\d,]+)\]\S* ([\w-]+)\(", entry)
    passive = {"parameter", "bitcast", "get-tuple-element"}
    size = lambda shape: np.prod([int(axis) for axis in shape.split(",")])  # noqa: E731
    return [op for shape, op in writes if size(shape) >= np.prod(SHAPE) and op not in passive]


def temporary_share(program):
    """Temporary memory in units of the leaf."""
    return program.memory_analysis().temp_size_in_bytes / LEAF_BYTES


def test_dense_shows_what_the_other_tests_look_for():
    program = compiled_step(mixing.dense(topology.ring(N)))
    assert "dot_general" in program.as_text() and f"f32[{N},{N}]" in program.as_text()
    assert len(passes(program)) == 3  # the differences to an agent, their product, the step
    assert temporary_share(program) >= 1


@pytest.mark.parametrize(
    ("plan", "family"),
    [
        *((mixing.neighbors, f) for f in ("path", "exponential", "erdos_renyi", "random_regular")),
        *((mixing.shifts, f) for f in ("ring", "grid", "exponential")),
    ],
    ids=lambda x: getattr(x, "__name__", x),
)
@pytest.mark.sampled(3)
def test_a_step_on_a_sparse_graph_is_one_pass_without_a_product(plan, family):
    program = compiled_step(plan(topology.create(family, N)))
    assert "dot_general" not in program.as_text()
    assert passes(program) == ["fusion"]
    assert temporary_share(program) < 0.01


@pytest.mark.parametrize("family", ["star", "complete"])
def test_a_step_with_one_full_row_is_one_pass_behind_the_product_of_that_row(family):
    program = compiled_step(mixing.auto(topology.create(family, N)))
    assert f"f32[{N},{N}]" not in program.as_text()
    assert len(passes(program)) == 2  # the differences to an agent, the step
    assert temporary_share(program) < 1.01


@pytest.mark.parametrize("family", ["ring", "random_regular"])
def test_momentum_inside_of_consensus_takes_two_passes(family):
    program = compiled_step(mixing.auto(topology.create(family, N)), cdjax.cdmsgd)
    assert passes(program) == ["fusion", "fusion"]  # the velocity and the parameters
    assert temporary_share(program) < 0.01


@pytest.mark.parametrize(
    ("graph", "one_device", "eight_devices"),
    [
        (topology.ring(16), "neighbors", "shifts"),
        (topology.grid(16), "neighbors", "shifts"),
        (topology.exponential(16, directed=True), "neighbors", "shifts"),
        (topology.torus(16), "neighbors", "neighbors"),  # wraps within rows: two shifts more
        (topology.random_regular(64), "neighbors", "neighbors"),
        (topology.star(64), "neighbors", "neighbors"),
        (topology.complete(64), "neighbors", "neighbors"),
        (topology.complete(1), "neighbors", "shifts"),
        (topology.erdos_renyi(64, probability=0.5), "dense", "dense"),
        (topology.from_graph(nx.complete_bipartite_graph(32, 32)), "dense", "dense"),
    ],
    ids=str,
)
def test_the_plan_follows_from_the_graph_and_the_devices(
    graph, one_device, eight_devices, monkeypatch
):
    assert mixing.choose(graph) == eight_devices
    monkeypatch.setattr(jax, "device_count", lambda: 1)
    assert mixing.choose(graph) == one_device


@pytest.mark.parametrize("family", [*SPARSE, "star"])
def test_no_family_of_256_agents_is_mixed_by_the_whole_product(family):
    assert mixing.choose(topology.create(family, N)) != "dense"


def test_auto_carries_out_the_plan():
    x = jnp.ones((64, 3))
    for graph in (topology.ring(64), topology.star(64), topology.erdos_renyi(64, probability=0.5)):
        planned = getattr(mixing, mixing.choose(graph))(graph)
        program, expected = jax.make_jaxpr(mixing.auto(graph))(x), jax.make_jaxpr(planned)(x)
        assert str(program) == str(expected)


def test_auto_equals_dense():
    graph, tree = topology.erdos_renyi(9), random_stacked_tree(9)
    assert_trees_close(mixing.auto(graph)(tree), mixing.dense(graph)(tree))


def test_choosing_a_mixer_starts_no_backend():
    program = "import cdjax, jax; cdjax.mixing.auto(cdjax.topology.ring(8))"
    program += "; assert not jax._src.xla_bridge._backends"
    subprocess.run([sys.executable, "-c", program], check=True)
