"""One table that every transformation joins with a row: what optax users expect of any of them."""

from functools import partial

import jax
import jax.numpy as jnp
import networkx as nx
import numpy as np
import optax
import pytest
from jax.sharding import AxisType, NamedSharding, PartitionSpec

import cdjax
from cdjax import compress, mixing, topology
from cdjax.mixing import pull, push, random_pairs, random_peers
from tests.trees import assert_trees_close, random_stacked_tree, with_cross_gradients

NUM_AGENTS = 8
MIX = mixing.dense(topology.ring(NUM_AGENTS))
KEY = jax.random.key(0)
PEERS = random_peers(topology.complete(NUM_AGENTS), KEY, probability=0.7)
PAIRS = random_pairs(topology.ring(NUM_AGENTS), KEY)
# Everybody sends to the next agent and to agent 0.
DIRECTED = nx.compose(nx.cycle_graph(NUM_AGENTS, nx.DiGraph), nx.star_graph(7).to_directed())
PUSH = mixing.dense(topology.from_digraph(DIRECTED))
NESTEROV = optax.sgd(0.7, 0.9, nesterov=True)


def crossed(tx):
    return with_cross_gradients(tx, cdjax.cross_gradients(gradient, topology.ring(NUM_AGENTS)))


# name: (a function from a learning rate to the transformation, whether it mixes parameters)
TABLE = {
    "cdsgd": (lambda lr: cdjax.cdsgd(lr, MIX), True),
    "cdmsgd": (lambda lr: cdjax.cdmsgd(lr, MIX), True),
    "cdmsgd-polyak": (lambda lr: cdjax.cdmsgd(lr, MIX, nesterov=False), True),
    "consensus after adam": (lambda lr: optax.chain(optax.adam(lr), cdjax.consensus(MIX)), True),
    "delayed cdmsgd": (
        lambda lr: cdjax.delayed(partial(cdjax.cdmsgd, lr), MIX, delays=np.arange(8) % 3),
        True,
    ),
    "adapt_then_combine": (lambda lr: cdjax.adapt_then_combine(optax.sgd(lr), MIX), True),
    "combine_then_adapt": (lambda lr: cdjax.combine_then_adapt(optax.sgd(lr), MIX), True),
    "icdsgd": (lambda lr: cdjax.icdsgd(lr, MIX), True),
    "gcdsgd": (lambda lr: cdjax.gcdsgd(lr, MIX, own_weight=0.2), True),
    "cga": (lambda lr: crossed(cdjax.cga(lr, MIX, momentum=0.5)), True),
    "gradient_tracking": (lambda lr: cdjax.gradient_tracking(lr, MIX), True),
    "gradient_tracking, atc": (lambda lr: cdjax.gradient_tracking(lr, MIX, form="atc"), True),
    "tracking before adam": (
        lambda lr: optax.chain(cdjax.tracking(MIX), optax.adam(lr), cdjax.consensus(MIX)),
        True,
    ),
    "momentum_tracking": (lambda lr: cdjax.momentum_tracking(lr, MIX), True),
    "exact_diffusion": (lambda lr: cdjax.exact_diffusion(lr, MIX), True),
    "d2": (lambda lr: cdjax.d2(lr, MIX, smallest_eigenvalue=-0.2), True),
    "extra": (lambda lr: cdjax.extra(lr, MIX), True),
    "suda": (lambda lr: cdjax.suda(lr, MIX, form="diging"), True),
    "decentlam": (lambda lr: cdjax.decentlam(lr, MIX), True),
    "quasi_global_momentum": (lambda lr: cdjax.quasi_global_momentum(lr, MIX), True),
    "quasi_global_adam": (lambda lr: cdjax.quasi_global_adam(lr, MIX), True),
    "personal leaves": (
        lambda lr: cdjax.cdmsgd(lr, mixing.personal(MIX, lambda path: path in ("bias", "count"))),
        True,
    ),
    "per_agent": (
        lambda lr: cdjax.per_agent(optax.chain(optax.clip_by_global_norm(1.0), optax.sgd(lr))),
        False,
    ),
    "scale_by_agent": (
        lambda lr: optax.chain(cdjax.scale_by_agent(jnp.arange(8.0)), optax.sgd(lr)),
        False,
    ),
    "average_updates": (
        lambda lr: optax.chain(cdjax.average_updates(jnp.arange(1.0, 9.0)), optax.sgd(lr)),
        False,
    ),
    "fedavg": (
        lambda lr: cdjax.fedavg(optax.sgd(lr, 0.9), local_steps=2, fraction=0.5, key=KEY),
        True,
    ),
    "fedavg with own steps": (
        lambda lr: cdjax.fedavg(optax.sgd(lr, 0.9), local_steps=np.arange(1, 9)),
        True,
    ),
    "easgd": (lambda lr: cdjax.easgd(lr, period=2), True),
    "easgd with clocks": (lambda lr: cdjax.easgd(lr, period=2, clocks=jnp.arange(8)), True),
    "eamsgd": (lambda lr: cdjax.eamsgd(lr, period=2), True),
    "downpour": (lambda lr: cdjax.downpour(lr, lr), True),
    "downpour with clocks": (
        lambda lr: cdjax.downpour(lr, lr, push_period=2, fetch_period=3, clocks=jnp.arange(8)),
        True,
    ),
    "pull gossip": (lambda lr: cdjax.gossip(optax.sgd(lr), pull(PEERS), period=2), True),
    "push gossip": (lambda lr: cdjax.gossip(optax.sgd(lr), push(PEERS)), True),
    "pair gossip": (lambda lr: cdjax.gossip(optax.sgd(lr), pull(PAIRS)), True),
    "gosgd": (lambda lr: cdjax.gosgd(optax.sgd(lr), PEERS), True),
    "choco": (
        lambda lr: cdjax.choco(optax.sgd(lr), MIX, compress.top_k(0.5), consensus_step=0.3),
        True,
    ),
    "choco with draws": (
        lambda lr: cdjax.choco(
            optax.sgd(lr), MIX, compress.quantize(4, key=KEY), consensus_step=0.5, known_start=True
        ),
        True,
    ),
    "beer": (lambda lr: cdjax.beer(lr, MIX, compress.sign(), consensus_step=0.2), True),
    "motef": (
        lambda lr: cdjax.beer(
            lr, MIX, compress.random_k(0.5, KEY), consensus_step=0.2, momentum=0.5
        ),
        True,
    ),
    "demo": (lambda lr: cdjax.demo(lr, compress.dct_top_k(2, 4)), True),
    "sparse_loco": (
        lambda lr: cdjax.sparse_loco(optax.sgd(lr), compress.chunk_top_k(2, 4), period=2),
        True,
    ),
    "power_gossip": (
        lambda lr: cdjax.power_gossip(
            optax.sgd(lr), topology.ring(NUM_AGENTS).mixing_matrix, key=KEY
        ),
        True,
    ),
    "error feedback": (
        lambda lr: optax.chain(
            optax.sgd(lr),
            compress.compressed_updates(compress.error_feedback(compress.sign(), decay=0.9)),
        ),
        False,
    ),
    "gosgd with delay": (lambda lr: cdjax.gosgd(optax.sgd(lr), PEERS, delay=2), True),
    "outer": (lambda lr: cdjax.outer(optax.adam(lr), NESTEROV, MIX, period=2), True),
    "outer of fragments": (
        lambda lr: cdjax.outer(
            optax.sgd(lr), optax.adam(0.1), MIX, period=4, fragments=2, delay=1, merge=0.5
        ),
        True,
    ),
    "outer, overlapped": (
        lambda lr: cdjax.outer(optax.sgd(lr), NESTEROV, MIX, period=2, overlapped=MIX),
        True,
    ),
    "accelerated_outer": (lambda lr: cdjax.accelerated_outer(optax.sgd(lr), MIX, period=2), True),
    "slowmo": (lambda lr: cdjax.slowmo(optax.sgd(lr), MIX, learning_rate=0.1, period=2), True),
    "kgt": (lambda lr: cdjax.kgt(optax.sgd(lr), MIX, period=2, learning_rate=0.5), True),
    "led": (lambda lr: cdjax.led(optax.sgd(lr), MIX, period=2, gain=1.0), True),
    "push_sum": (lambda lr: cdjax.push_sum(optax.sgd(lr), PUSH), True),
    "push_diging": (lambda lr: cdjax.push_diging(lr, PUSH), True),
    "relay": (lambda lr: cdjax.relay(optax.sgd(lr), topology.path(NUM_AGENTS)), True),
}


def gradient(params):
    return jax.tree.map(lambda x: x - 1, params)


def step_of(tx):
    def step(params, state):
        updates, state = tx.update(gradient(params), state, params)
        return optax.apply_updates(params, updates), state

    return step


def run(step, params, state, num_steps=5):
    for _ in range(num_steps):
        params, state = step(params, state)
    return params, state


@pytest.fixture(scope="module")
def params():
    # Two shapes: without jit every operation is a program for each shape, which takes the time.
    tree = random_stacked_tree(NUM_AGENTS)
    return {name: tree[name] for name in ("scalar", "bias")}


# Rows whose kind has another row; they run with the slow tests.
VARIANTS = {
    "cdmsgd-polyak", "tracking before adam", "gradient_tracking, atc", "icdsgd", "gcdsgd",
    "momentum_tracking", "d2", "suda", "quasi_global_adam", "personal leaves", "scale_by_agent",
    "fedavg with own steps", "downpour with clocks", "push gossip", "gosgd with delay",
    "choco with draws", "motef", "demo", "power_gossip", "error feedback", "outer of fragments",
    "outer, overlapped", "accelerated_outer", "slowmo", "led", "push_diging", "eamsgd",
    "consensus after adam", "delayed cdmsgd", "combine_then_adapt", "cga", "extra", "decentlam",
    "easgd with clocks", "pair gossip", "beer", "sparse_loco", "kgt", "relay", "exact_diffusion",
    "quasi_global_momentum", "average_updates", "easgd", "downpour", "pull gossip",
}  # fmt: skip


def rows(names):
    """Names of rows, the variants marked as slow."""
    return [name if name not in VARIANTS else pytest.param(name, marks=pytest.mark.slow)
            for name in names]  # fmt: skip


def test_the_variants_are_rows():
    assert VARIANTS <= TABLE.keys()


@pytest.fixture(scope="module", params=rows(TABLE))
def make(request):
    return TABLE[request.param][0]


@pytest.fixture(scope="module")
def plain(make, params):
    """Parameters and state after five steps without jit: what every other way has to give."""
    tx = make(0.1)
    return run(step_of(tx), params, tx.init(params))


@pytest.mark.sampled(3)
def test_jit_changes_nothing_in_one_trace_and_consumes_donated_buffers(make, params, plain):
    tx, traces = make(0.1), []
    step = lambda p, s: (traces.append(0), step_of(tx)(p, s))[1]  # noqa: E731
    start = jax.tree.map(jnp.copy, params)
    jitted = jax.jit(step, donate_argnums=(0, 1))
    after = run(jitted, start, tx.init(start))
    assert start["bias"].is_deleted()
    assert_trees_close(after, plain)
    run(jitted, *after)
    assert len(traces) == 1


def test_scan_equals_a_python_loop(make, params, plain):
    tx = make(0.1)
    body = lambda carry, _: (step_of(tx)(*carry), None)  # noqa: E731
    scanned, _ = jax.lax.scan(body, (params, tx.init(params)), length=5)
    assert_trees_close(scanned, plain)


@pytest.mark.slow
def test_a_vmapped_sweep_of_learning_rates_equals_single_runs(make, params, plain):
    def swept(rate):
        tx = make(rate)
        body = lambda _, carry: step_of(tx)(*carry)  # noqa: E731
        return jax.lax.fori_loop(0, 5, body, (params, tx.init(params)))[0]

    tx = make(0.0)
    single = run(step_of(tx), params, tx.init(params))[0], plain[0]
    expected = jax.tree.map(lambda *leaves: jnp.stack(leaves), *single)
    assert_trees_close(jax.jit(jax.vmap(swept))(jnp.array([0.0, 0.1])), expected)


def test_a_constant_schedule_equals_the_number(make, params, plain):
    tx = make(lambda step: 0.1)
    assert_trees_close(run(step_of(tx), params, tx.init(params))[0], plain[0])


@pytest.mark.slow
def test_sharded_over_eight_devices_equals_one_device(make, params, plain):
    tx = make(0.1)
    mesh = jax.make_mesh((8,), ("agents",), axis_types=(AxisType.Auto,))
    sharded = jax.device_put(params, NamedSharding(mesh, PartitionSpec("agents")))
    result, _ = run(jax.jit(step_of(tx)), sharded, tx.init(sharded))
    assert_trees_close(jax.device_get(result), jax.device_get(plain[0]))


@pytest.mark.parametrize("dtype", [jnp.bfloat16, jnp.float16, jnp.float32])
def test_keeps_shapes_and_dtypes(make, dtype):
    def init_and_step(params):
        tx = make(0.1)
        before = (params, tx.init(params))
        return before, step_of(tx)(*before)

    before, after = jax.eval_shape(init_and_step, random_stacked_tree(NUM_AGENTS, dtype=dtype))
    describe = lambda tree: jax.tree.map(lambda x: (x.shape, x.dtype), tree)  # noqa: E731
    assert describe(after) == describe(before)


# optax's own Adam, in the rows that are left out, does not pass.
WITH_ADAM = {"consensus after adam", "tracking before adam", "outer", "outer of fragments"}


@pytest.mark.parametrize("name", rows(name for name in TABLE if name not in WITH_ADAM))
@pytest.mark.parametrize("dtype", ["bfloat16", "float32", "float64"])
def test_passes_where_jax_promotes_no_dtypes(name, dtype):
    def init_and_step(params):
        tx = TABLE[name][0](0.1)
        return step_of(tx)(params, tx.init(params))

    with jax.enable_x64(dtype == "float64"), jax.numpy_dtype_promotion("strict"):
        jax.eval_shape(init_and_step, random_stacked_tree(NUM_AGENTS, dtype=dtype))


def test_uses_no_key_twice(make, params):
    tx = make(0.1)
    with jax.debug_key_reuse(True):
        jax.eval_shape(jax.jit(step_of(tx)), params, tx.init(params))


# What power_gossip keeps of each leaf belongs to the edges, and is not like the leaf; fragments
# hold some leaves each.
@pytest.mark.parametrize(
    "name", rows(sorted(TABLE.keys() - {"power_gossip", "outer of fragments"}))
)
def test_optax_maps_over_the_parameters_in_the_state(name, params):
    tx = TABLE[name][0](0.1)
    state = tx.init(params)
    same = optax.tree.map_params(tx, lambda x: x, state)
    assert_trees_close(same, state, rtol=0, atol=0)
    # The specification of each leaf's sharding, for which optax has the map.
    spec, other = PartitionSpec("agents"), PartitionSpec()
    specs = optax.tree.map_params(
        tx, lambda x, spec: spec, state, jax.tree.map(lambda x: spec, params),
        transform_non_params=lambda x: other,
    )  # fmt: skip
    assert jax.tree.structure(specs) == jax.tree.structure(state)


# optax's own clipping by the global norm, in per_agent's row, does not take whole numbers, and the
# one leaf that is stepped is not divided into fragments.
@pytest.mark.parametrize("name", rows(sorted(TABLE.keys() - {"per_agent", "outer of fragments"})))
def test_counters_pass_unchanged(name):
    tree = {"x": random_stacked_tree(NUM_AGENTS)["bias"], "count": jnp.arange(NUM_AGENTS)}
    tx, zeros = TABLE[name][0](0.1), jax.tree.map(jnp.zeros_like, tree)

    @jax.jit
    def step(params, state):
        updates, state = tx.update(zeros | {"x": params["x"]}, state, params)
        return optax.apply_updates(params, updates), state

    after, state = run(step, tree, tx.init(tree))
    for found in (after, cdjax.eval_params(state, after)):
        np.testing.assert_array_equal(found["count"], tree["count"])
        assert found["count"].dtype == tree["count"].dtype


def test_the_state_is_a_pytree_of_arrays(make, params):
    state = make(0.1).init(params)
    assert all(isinstance(leaf, jax.Array) for leaf in jax.tree.leaves(state))


@pytest.mark.parametrize("name", rows(name for name, (_, mixes) in TABLE.items() if mixes))
def test_missing_params_are_the_same_error(name, params):
    tx = TABLE[name][0](0.1)
    with pytest.raises(ValueError, match=r"mixes parameters: call tx.update\(grads, state, params"):
        tx.update(gradient(params), tx.init(params))


@pytest.mark.parametrize("learning_rate", [np.nan, -0.1, np.inf])
@pytest.mark.parametrize(
    "name",
    [
        "cdsgd",
        "cdmsgd",
        "cga",
        "easgd",
        "eamsgd",
        "downpour",
        "icdsgd",
        "gcdsgd",
        "gradient_tracking",
    ]
    + ["momentum_tracking", "exact_diffusion", "d2", "extra", "suda", "decentlam"]
    + ["quasi_global_momentum", "quasi_global_adam", "push_diging", "beer", "demo"],
)
def test_a_learning_rate_out_of_range_is_named(name, learning_rate):
    with pytest.raises(ValueError, match=f"learning_rate is {learning_rate}; it must lie in"):
        TABLE[name][0](learning_rate)


@pytest.mark.parametrize(
    "algorithm",
    [cdjax.cdmsgd, cdjax.cga, cdjax.momentum_tracking, cdjax.decentlam]
    + [cdjax.quasi_global_momentum],
)
@pytest.mark.parametrize("momentum", [1.0, -0.1, np.nan])
def test_a_momentum_out_of_range_is_named(momentum, algorithm):
    with pytest.raises(ValueError, match=rf"momentum is {momentum}; it must lie in \[0, 1\)"):
        algorithm(0.1, MIX, momentum=momentum)


def test_an_identity_matrix_is_independent_runs(params):
    mix = mixing.dense(topology.from_matrix(np.eye(NUM_AGENTS), validate=False))
    tx = optax.chain(optax.adam(0.1), cdjax.consensus(mix))
    assert_trees_close(
        run(step_of(tx), params, tx.init(params))[0],
        run(step_of(optax.adam(0.1)), params, optax.adam(0.1).init(params))[0],
    )


def test_inject_hyperparams_exposes_the_learning_rate(params):
    tx = optax.inject_hyperparams(cdjax.cdmsgd, static_args=("mix", "nesterov"))(0.1, mix=MIX)
    expected = run(step_of(cdjax.cdmsgd(0.1, MIX)), params, cdjax.cdmsgd(0.1, MIX).init(params))[0]
    result, state = run(step_of(tx), params, tx.init(params))
    assert_trees_close(result, expected)
    assert_trees_close(cdjax.eval_params(state, result), cdjax.eval_params(state[-1], result))
    assert float(state.hyperparams["learning_rate"]) == pytest.approx(0.1)
