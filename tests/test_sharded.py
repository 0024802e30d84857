"""Training on eight devices is training on one: the same numbers, and neighbours' messages only."""

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import PartitionSpec

import cdjax
from benchmarks._collectives import bytes_received, collectives
from cdjax import data, metrics, mixing, models, sharding, topology, training
from tests.mixing.test_exchange import rows_exchanged
from tests.slow import slow
from tests.trees import assert_trees_close

pytestmark = pytest.mark.sampled(3)

STEPS, BATCH, SAMPLES = 50, 2, 6
FAMILIES = ["ring", "torus", "hypercube", "exponential", "erdos_renyi"]


class SmallCNN(nn.Module):
    """A convolution and a dense layer: what can be gathered, of a network that compiles fast."""

    @nn.compact
    def __call__(self, images, *, train=False):
        conv = nn.Conv(8, (3, 3), conv_general_dilated=models.conv_general_dilated)
        x = nn.relu(conv(images))
        return nn.Dense(10)(x.reshape(len(x), -1))


CNN, SMALL, SOFTMAX = models.CNN(), SmallCNN(), models.SoftmaxRegression()
FAST = [("ring", 8, SMALL)]
SLOW = slow(
    *((family, 32, SMALL) for family in FAMILIES),
    ("erdos_renyi", 8, SMALL),
    ("torus", 8, CNN),
)


def problem(num_agents, tx, model):
    """The state before the first step, random images of 8×8 pixels and their labels."""
    key, rng = jax.random.key(0), np.random.default_rng(0)  # jax.random would compile for seconds
    images = jnp.asarray(rng.normal(size=(num_agents, SAMPLES, 8, 8, 1)))
    labels = jnp.asarray(rng.integers(10, size=(num_agents, SAMPLES)))
    shapes = jax.eval_shape(lambda: models.init_model(model, key, images[0])[0])
    params = jax.tree.map(lambda x: rng.normal(size=x.shape) / np.sqrt(x.size), shapes)
    params = cdjax.replicate(jax.tree.map(lambda x: x.astype(images.dtype), params), num_agents)
    return training.init_state(params, tx, key=key), (images, labels)


def indices(num_agents):
    sizes = [SAMPLES] * num_agents
    return data.batch_indices(sizes, BATCH, first_step=0, num_steps=STEPS, seed=0)


def on_one_device(graph, model):
    tx = cdjax.cdmsgd(0.005, mixing.dense(graph))
    loop = training.train_loop(training.train_step(models.classification_loss(model), tx))
    return loop, *problem(graph.num_agents, tx, model)


def on_devices(graph, mesh, model, trace=lambda: None):
    tx = cdjax.cdmsgd(0.005, mixing.exchange(graph, mesh))
    step = training.train_step(models.classification_loss(model), tx, mesh=mesh)
    loop = training.train_loop(lambda *args: (trace(), step(*args))[1], mesh=mesh)
    return loop, *sharding.shard_agents(problem(graph.num_agents, tx, model), mesh)


@pytest.mark.parametrize(("family", "num_agents", "model"), FAST + SLOW)
@pytest.mark.slow
def test_fifty_steps_of_cdmsgd_equal_the_dense_run_on_one_device(family, num_agents, model, x64):
    # In float32 two runs by different mixers part by 1e-3 on one device too: rounding flips ReLUs.
    graph, order = topology.create(family, num_agents), indices(num_agents)
    runs = []
    mesh = sharding.agent_mesh()
    for loop, state, samples in (on_one_device(graph, model), on_devices(graph, mesh, model)):
        state, rows = loop(state, samples, order, STEPS)
        runs.append(jax.device_get((cdjax.eval_params(state.opt_state, state.params), rows)))
    (expected, expected_rows), (params, rows) = runs
    assert_trees_close(params, expected, rtol=0, atol=1e-10)
    assert_trees_close(rows, expected_rows, rtol=1e-6)
    assert metrics.consensus_distance(expected) > 1e-3  # agents differ by far more than rounding


@pytest.mark.parametrize(("family", "num_agents", "model"), FAST + SLOW)
def test_a_training_program_sends_boundary_agents_and_gathers_nothing(family, num_agents, model):
    graph = topology.create(family, num_agents)
    loop, state, samples = on_devices(graph, sharding.agent_mesh(), model)
    program = loop.lower(state, samples, indices(num_agents), STEPS).compile().as_text()
    assert {collective.kind for collective in collectives(program)} == {"collective-permute"}
    rows = rows_exchanged(graph, 8).sum(axis=1)
    expected = rows * metrics.message_bytes(state.params)
    assert bytes_received(program, 8) == expected.tolist()


def test_every_agents_part_of_all_that_a_run_holds_stays_on_its_device():
    graph = topology.torus(16)
    loop, state, samples = on_devices(graph, sharding.agent_mesh(), SOFTMAX)
    state, _ = loop(state, samples, indices(16), 2)
    for x in jax.tree.leaves((state, samples)):
        assert x.sharding.spec == (PartitionSpec("agents") if x.ndim else PartitionSpec())
        blocks = {shard.device.id: shard.data.shape for shard in x.addressable_shards}
        assert blocks == dict.fromkeys(range(8), (2, *x.shape[1:]) if x.ndim else ())


def test_every_number_of_steps_is_one_trace():
    traces, counts = [], []
    graph, mesh = topology.ring(8), sharding.agent_mesh()
    loop, state, samples = on_devices(graph, mesh, SOFTMAX, trace=lambda: traces.append(0))
    for num_steps in (1, 3, 2):
        state, _ = loop(state, samples, indices(8), num_steps)
        jax.block_until_ready(state)
        counts.append(len(traces))
    assert counts[0] == counts[1] == counts[2]


def test_evaluation_on_devices_equals_one_device_and_sends_nothing():
    mesh, metrics_fn = sharding.agent_mesh(), models.classification_metrics(SMALL)
    test_set, keys = (jnp.ones((7, 8, 8, 1)), jnp.arange(7)), jax.random.split(jax.random.key(3), 8)
    params = jax.jit(jax.vmap(lambda key: models.init_model(SMALL, key, test_set[0])[0]))(keys)
    expected = training.evaluation(metrics_fn, batch_size=3)(params, {}, test_set)
    placed = sharding.shard_agents(params, mesh), {}, sharding.replicate_on_devices(test_set, mesh)
    evaluate = training.evaluation(metrics_fn, batch_size=3, mesh=mesh)
    assert not collectives(evaluate.lower(*placed).compile().as_text())
    assert_trees_close(jax.device_get(evaluate(*placed)), jax.device_get(expected), rtol=1e-4)


@pytest.mark.parametrize("num_devices", [1, 4])
@pytest.mark.sampled(2)
def test_fewer_devices_hold_more_agents(num_devices, x64):
    graph, mesh = topology.erdos_renyi(8), sharding.agent_mesh(num_devices)
    results = []
    for loop, state, samples in (on_one_device(graph, SOFTMAX), on_devices(graph, mesh, SOFTMAX)):
        state, _ = loop(state, samples, indices(8)[:3], 3)
        results.append(jax.device_get(state.params))
    assert_trees_close(*results, rtol=0, atol=1e-10)


def test_scattered_draws_of_data_reach_the_agents_that_own_them():
    mesh, samples = sharding.agent_mesh(), np.arange(48.0).reshape(16, 3)
    take = jax.jit(sharding.sharded(data.take_batch, mesh))
    order = np.random.default_rng(0).integers(3, size=(16, 2))
    taken = take(sharding.shard_agents(samples, mesh), order)
    np.testing.assert_array_equal(taken, np.take_along_axis(samples, order, axis=1))
