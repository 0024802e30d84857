import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

import cdjax
from benchmarks._collectives import bytes_received, collectives
from cdjax import compress, mixing, sharding, topology
from tests.trees import quadratic_gradients, train, trajectory

pytestmark = pytest.mark.sampled(3)

RING = topology.ring(5)
MIX = mixing.dense(RING)
KEY = jax.random.key(0)
COMPRESSORS = {
    "top-k": compress.top_k(0.25),
    "random-k": compress.random_k(0.25, KEY),
    "sign": compress.sign(),
    "stochastic": compress.quantize(3, key=KEY),
    "dct": compress.dct_top_k(2, 8),
}


def gradient(x):
    centers = jnp.arange(5.0)[:, None] + jnp.arange(8.0)[None]
    return quadratic_gradients(centers, jnp.arange(1.0, 6.0)[:, None] / 3)(x)


@pytest.mark.parametrize("known_start", [False, True])
def test_without_compression_and_with_a_full_step_it_is_adapt_then_combine(known_start, x64):
    x, inner = jnp.ones((5, 8)), optax.sgd(0.1, momentum=0.9)
    tx = cdjax.choco(inner, MIX, compress.identity(), consensus_step=1.0, known_start=known_start)
    expected = train(cdjax.adapt_then_combine(inner, MIX), gradient, x, 50)[0]
    np.testing.assert_allclose(train(tx, gradient, x, 50)[0], expected, rtol=1e-14)


@pytest.mark.parametrize("compressor", COMPRESSORS.values(), ids=COMPRESSORS)
def test_whatever_is_sent_the_mean_moves_by_the_mean_gradient(compressor, x64):
    tx = cdjax.choco(optax.sgd(0.1), MIX, compressor, consensus_step=0.3)
    x, _ = trajectory(tx, gradient, jnp.zeros((5, 8)), 20)
    before = jnp.concatenate([jnp.zeros((1, 5, 8)), x[:-1]])
    expected = (before - 0.1 * jax.vmap(gradient)(before)).mean(axis=1)
    np.testing.assert_allclose(x.mean(axis=1), expected, rtol=1e-14, atol=1e-15)


@pytest.mark.parametrize("compressor", COMPRESSORS.values(), ids=COMPRESSORS)
def test_gossip_alone_ends_in_consensus_on_the_mean(compressor, x64):
    x = jnp.asarray(np.random.default_rng(0).normal(size=(5, 8)))
    tx = cdjax.choco(optax.sgd(0.0), MIX, compressor, consensus_step=0.1)
    after = train(tx, jnp.zeros_like, x, 3000)[0]
    np.testing.assert_allclose(after, np.tile(x.mean(axis=0), (5, 1)), atol=1e-9)


def test_agents_that_agree_stay_in_agreement():
    x = jnp.tile(jnp.asarray(np.random.default_rng(0).normal(size=8), jnp.float32)[None], (5, 1))
    tx = cdjax.choco(optax.sgd(0.1), MIX, compress.sign(), consensus_step=0.5)
    after = train(tx, lambda x: x, x, 50)[0]
    np.testing.assert_array_equal(after, np.tile(after[:1], (5, 1)))


def on_devices(graph, mesh, compressor, *, beer=False):
    mix = mixing.exchange(graph, mesh) if mesh else mixing.dense(graph)
    if beer:
        return cdjax.beer(0.05, mix, compressor, consensus_step=0.2)
    return cdjax.choco(optax.sgd(0.05), mix, compressor, consensus_step=0.3)


@pytest.mark.parametrize("known_start", [False, True])
@pytest.mark.parametrize("name", ["top-k", "stochastic"])
@pytest.mark.sampled(4)
def test_copies_summed_up_from_messages_are_the_copies_mixed(name, known_start, x64):
    graph, mesh = topology.exponential(16, directed=True), sharding.agent_mesh()
    centers = jnp.arange(16.0)[:, None] + jnp.arange(8.0)[None]
    results = []
    for mix in (mixing.exchange(graph, mesh), mixing.dense(graph)):
        tx = cdjax.choco(
            optax.sgd(0.05), mix, COMPRESSORS[name], consensus_step=0.3, known_start=known_start
        )
        results.append(train(tx, quadratic_gradients(centers), jnp.zeros((16, 8)), 30)[0])
    np.testing.assert_allclose(*results, atol=1e-12)


def permutes(tx, params, mesh):
    params = sharding.shard_agents(params, mesh)
    state = jax.jit(tx.init)(params)
    program = jax.jit(tx.update).lower(params, state, params).compile().as_text()
    assert {collective.kind for collective in collectives(program)} == {"collective-permute"}
    return program


@pytest.mark.parametrize(
    ("compressor", "dtypes"),
    [
        (compress.top_k(0.01), {"f32", "u8"}),
        (compress.quantize(8), {"f32", "u8"}),
        (compress.quantize(4, key=KEY), {"f32", "u8"}),
        (compress.random_k(0.01, KEY), {"f32", "u32"}),
    ],
    ids=lambda x: getattr(x, "name", ""),
)
@pytest.mark.sampled(4)
def test_the_compiled_program_permutes_the_bytes_that_are_counted(compressor, dtypes):
    mesh = sharding.agent_mesh()
    params = {"w": jnp.zeros((8, 64, 65)), "b": jnp.zeros((8, 70))}
    program = permutes(on_devices(topology.ring(8), mesh, compressor), params, mesh)
    assert bytes_received(program, 8) == [2 * compressor.message_bytes(params)] * 8
    lines = [line for line in program.splitlines() if " collective-permute" in line]
    assert {line.split("= ")[1].lstrip("(").split("[")[0] for line in lines} == dtypes


def test_a_chunk_of_sparse_loco_is_112_bytes_and_so_is_its_permute():
    mesh, compressor = sharding.agent_mesh(), compress.chunk_top_k(64, 64, value_bits=2)
    params = {"w": jnp.zeros((8, 64, 64))}
    program = permutes(on_devices(topology.ring(8), mesh, compressor), params, mesh)
    found = sorted(collective.num_bytes for collective in collectives(program))
    assert found == [16, 16, 112, 112]  # to either side: the chunk, and the means of four bins


def test_two_messages_of_beer_are_sent():
    mesh, params = sharding.agent_mesh(), {"w": jnp.zeros((8, 1000))}
    compressor = compress.sign()
    program = permutes(on_devices(topology.ring(8), mesh, compressor, beer=True), params, mesh)
    assert bytes_received(program, 8) == [2 * 2 * compressor.message_bytes(params)] * 8


def test_agents_divided_over_a_second_axis_are_refused():
    mesh = jax.make_mesh((4, 2), ("agents", "model"), axis_types=(jax.sharding.AxisType.Auto,) * 2)
    with pytest.raises(ValueError, match="mesh divides agents over model too, but a message is"):
        on_devices(topology.ring(4), mesh, compress.sign())


@pytest.mark.parametrize("consensus_step", [0.0, 1.5])
def test_a_consensus_step_out_of_range_is_named(consensus_step):
    match = rf"consensus_step is {consensus_step}; it must lie in \(0, 1\]"
    with pytest.raises(ValueError, match=match):
        cdjax.choco(optax.sgd(0.1), MIX, compress.sign(), consensus_step=consensus_step)
    with pytest.raises(ValueError, match=match):
        cdjax.beer(0.1, MIX, compress.sign(), consensus_step=consensus_step)
