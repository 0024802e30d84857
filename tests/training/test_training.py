from functools import partial

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

import cdjax
from cdjax import data, mixing, models, topology, training
from tests.trees import assert_trees_close

NUM_AGENTS = 3


class NormalisedDropout(nn.Module):
    """BatchNorm, dropout and a dense layer: state and randomness in a small model."""

    @nn.compact
    def __call__(self, images, *, train=False):
        x = images.reshape(len(images), -1)
        x = nn.BatchNorm(use_running_average=not train, momentum=0.5)(x)
        x = nn.Dropout(0.5, deterministic=not train)(x)
        return nn.Dense(4)(x)


def problem(model, num_samples=12):
    """Agents' data of floats, and the state and loss of a model on it."""
    keys = jax.random.split(jax.random.key(1), 3)
    images = jax.random.normal(keys[0], (NUM_AGENTS, num_samples, 4, 4, 1))
    labels = jax.random.randint(keys[1], (NUM_AGENTS, num_samples), 0, 4)
    tx = cdjax.cdmsgd(0.1, mixing.dense(topology.ring(NUM_AGENTS)))
    params, model_state = cdjax.replicate(models.init_model(model, keys[2], images[0]), NUM_AGENTS)
    state = training.init_state(params, tx, key=jax.random.key(2), model_state=model_state)
    return state, (images, labels), models.classification_loss(model), tx


def test_a_step_is_the_gradient_of_every_agent_then_the_optimizer():
    model = models.SoftmaxRegression(num_classes=4)
    state, batch, loss, tx = problem(model)
    stepped, metrics = jax.jit(training.train_step(loss, tx))(state, batch)
    key, grads, losses = jax.random.key(0), [], []
    value_and_grad = jax.jit(jax.value_and_grad(lambda p, b: loss(p, {}, b, key)[0]))
    for j in range(NUM_AGENTS):
        own = jax.tree.map(lambda x: x[j], (state.params, batch))  # noqa: B023
        value, grad = value_and_grad(*own)
        grads.append(grad)
        losses.append(value)
    grads = jax.tree.map(lambda *leaves: jnp.stack(leaves), *grads)
    updates, _ = tx.update(grads, state.opt_state, state.params)
    assert_trees_close(stepped.params, optax.apply_updates(state.params, updates))
    np.testing.assert_allclose(metrics["loss"], losses, rtol=1e-6)
    assert int(stepped.step) == 1


def test_batch_statistics_stay_each_agents_own():
    state, batch, loss, tx = problem(NormalisedDropout())
    stepped, _ = jax.jit(training.train_step(loss, tx))(state, batch)
    means = stepped.model_state["batch_stats"]["BatchNorm_0"]["mean"]
    expected = 0.5 * np.asarray(batch[0]).reshape(NUM_AGENTS, 12, 16).mean(axis=1)
    np.testing.assert_allclose(means, expected, atol=1e-6)


def test_dropout_keys_differ_by_agent_and_step():
    def loss(params, model_state, batch, key):
        return params.sum(), (model_state, {"draw": jax.random.uniform(key)})

    tx = optax.sgd(0.0)
    state = training.init_state(jnp.ones((NUM_AGENTS, 1)), tx, key=jax.random.key(0))
    step, draws = training.train_step(loss, tx), []
    for _ in range(4):
        state, metrics = step(state, jnp.zeros((NUM_AGENTS, 1)))
        draws.extend(map(float, metrics["draw"]))
    assert len(set(draws)) == 4 * NUM_AGENTS


@pytest.mark.parametrize("cuts", [[6], [1, 2, 3], [4, 2]])
@pytest.mark.sampled(3)
def test_a_loop_equals_single_steps_however_it_is_cut(cuts):
    state, samples, loss, tx = problem(NormalisedDropout())
    step = training.train_step(loss, tx)
    options = {"batch_size": 5, "seed": 3}
    expected, indices = state, data.batch_indices([12, 9, 12], first_step=0, num_steps=6, **options)
    one_step = jax.jit(step)
    for i in range(6):
        expected, _ = one_step(expected, data.take_batch(samples, indices[i]))

    loop, actual, first = training.train_loop(step), state, 0
    for num_steps in cuts:
        indices = data.batch_indices([12, 9, 12], first_step=first, num_steps=6, **options)
        actual, _ = loop(actual, samples, indices, num_steps)
        first += num_steps
    assert int(actual.step) == 6
    assert_trees_close(actual.params, expected.params, atol=1e-5)
    assert_trees_close(actual.model_state, expected.model_state, atol=1e-5)


def test_a_loop_returns_a_row_of_metrics_per_step():
    def loss(params, model_state, batch, key):
        return 3 * params.sum() + batch.mean(), (model_state, {"accuracy": batch.max()})

    tx = optax.sgd(0.0)
    state = training.init_state(jnp.zeros((2, 4)), tx, key=jax.random.key(0))
    samples = jnp.array([[1.0, 2.0, 3.0], [10.0, 20.0, 30.0]])
    indices = np.array([[[0], [0]], [[1], [2]], [[2], [2]]], np.int32)
    _, rows = training.train_loop(training.train_step(loss, tx))(state, samples, indices, 2)
    np.testing.assert_allclose(rows["loss"], [[1.0, 10.0], [2.0, 30.0], [0.0, 0.0]])
    np.testing.assert_allclose(rows["accuracy"], rows["loss"])
    np.testing.assert_allclose(rows["gradient_norm"], [[6.0, 6.0], [6.0, 6.0], [0.0, 0.0]])


def test_the_norm_of_gradients_is_measured_unless_it_is_not_wanted():
    state, samples, loss, tx = problem(models.SoftmaxRegression(num_classes=4))
    batch = jax.tree.map(lambda x: x[:, :2], samples)
    measured, plain = (
        training.train_step(loss, tx, gradient_norm=norm)(state, batch) for norm in (True, False)
    )
    assert set(measured[1]) - set(plain[1]) == {"gradient_norm"}
    assert_trees_close(plain[0].params, measured[0].params, rtol=1e-6)


def test_every_number_of_steps_is_one_compilation_and_the_state_is_donated():
    state, samples, loss, tx = problem(models.SoftmaxRegression(num_classes=4))
    loop = training.train_loop(training.train_step(loss, tx))
    indices = np.zeros((4, NUM_AGENTS, 2), np.int32)
    for num_steps in (1, 4, 2):
        before = state
        state, _ = loop(state, samples, indices, num_steps)
        assert before.params["Dense_0"]["kernel"].is_deleted()
    assert loop._cache_size() == 1


def test_a_loop_takes_no_more_steps_than_it_has_batches():
    state, samples, loss, tx = problem(models.SoftmaxRegression(num_classes=4))
    indices = np.zeros((2, NUM_AGENTS, 2), np.int32)
    for loop in (
        training.train_loop(training.train_step(loss, tx)),
        training.sequential_loop(loss, tx),
        training.fedavg_loop(loss, optax.sgd(0.1), local_steps=2),
    ):
        for too_many in (3, np.int32(3), jnp.int32(3)):
            with pytest.raises(ValueError, match="num_steps is 3, more than the 2 rows of indices"):
                loop(state, samples, indices, too_many)
    under_jit = jax.jit(lambda n: training.sequential_loop(loss, tx)(state, samples, indices, n)[0])
    assert_trees_close(under_jit(9).params, under_jit(2).params, rtol=0, atol=0)
    assert int(under_jit(9).step) == int(state.step) + 2


@pytest.mark.parametrize("batch_size", [1, 5, 7, 100])
@pytest.mark.sampled(4)
def test_evaluation_is_the_mean_over_all_samples_of_every_agent(batch_size):
    model = models.SoftmaxRegression(num_classes=4)
    state, (images, labels), _, _ = problem(model)
    params = jax.vmap(lambda key: models.init_model(model, key, images[0])[0])(
        jax.random.split(jax.random.key(5), NUM_AGENTS)
    )
    metrics_fn = models.classification_metrics(model)
    evaluate = training.evaluation(metrics_fn, batch_size=batch_size)
    result = evaluate(params, state.model_state, (images[0], labels[0]))
    for j in range(NUM_AGENTS):
        one = jax.tree.map(lambda x: x[j], params)  # noqa: B023
        expected = metrics_fn(one, {}, (images[0], labels[0]))
        np.testing.assert_allclose(result["loss"][j], np.mean(expected["loss"]), rtol=1e-5)
        np.testing.assert_allclose(result["accuracy"][j], np.mean(expected["accuracy"]))


def test_init_state_copies_so_that_donation_leaves_the_callers_parameters():
    params = {"w": jnp.ones((2, 3))}
    state = training.init_state(params, optax.sgd(0.1), key=jax.random.key(0))
    jax.jit(lambda s: s, donate_argnums=0)(state)
    np.testing.assert_array_equal(params["w"], 1.0)


@pytest.mark.slow
def test_agents_that_hold_different_classes_learn_them_all():
    dataset = data.load("digits")
    parts = data.partition(dataset.train_labels, 5, scheme="classes")
    samples = data.stack_agents(dataset.train_images, dataset.train_labels, partition=parts)
    scale = partial(data.normalise, mean=np.full(3, 128.0), std=np.full(3, 64.0))
    model = models.SoftmaxRegression()
    loss, metrics_fn = models.classification_loss(model), models.classification_metrics(model)
    tx = cdjax.cdmsgd(0.002, mixing.auto(topology.ring(5)))
    params, _ = models.init_model(model, jax.random.key(0), jnp.zeros((1, 32, 32, 3)))
    state = training.init_state(cdjax.replicate(params, 5), tx, key=jax.random.key(1))
    step = training.train_step(lambda p, s, b, k: loss(p, s, (scale(b[0]), b[1]), k), tx)
    indices = data.batch_indices(
        [len(part) for part in parts], 32, first_step=0, num_steps=150, seed=0
    )
    state, _ = training.train_loop(step)(state, samples, indices, 150)
    evaluate = training.evaluation(lambda p, s, b: metrics_fn(p, s, (scale(b[0]), b[1])))
    params = cdjax.eval_params(state.opt_state, state.params)
    result = evaluate(params, {}, (dataset.test_images, dataset.test_labels))
    assert min(result["accuracy"]) > 0.8  # an agent alone knows 2 classes of 10


@pytest.mark.parametrize("num_agents", [64, 1000])
@pytest.mark.sampled(2)
def test_a_loop_takes_little_more_memory_than_what_it_must_hold(num_agents):
    model, shape, num_samples = models.SoftmaxRegression(), (28, 28, 1), 6
    tx = cdjax.cdmsgd(0.1, mixing.auto(topology.ring(num_agents)))

    def make_state():
        params, _ = models.init_model(model, jax.random.key(0), jnp.zeros((1, *shape)))
        return training.init_state(cdjax.replicate(params, num_agents), tx, key=jax.random.key(1))

    def loss(params, model_state, batch, key):
        images = data.normalise(batch.images, mean=np.full(1, 128.0), std=np.full(1, 64.0))
        return models.classification_loss(model)(params, model_state, (images, batch.labels), key)

    state = jax.eval_shape(make_state)
    samples = data.AgentData(
        jax.ShapeDtypeStruct((num_agents, num_samples, *shape), jnp.uint8),
        jax.ShapeDtypeStruct((num_agents, num_samples), jnp.int32),
    )
    # Not of one sample, whose gradient is an outer product that XLA computes anew for each reader.
    indices = jax.ShapeDtypeStruct((10, num_agents, 4), jnp.int32)
    loop = training.train_loop(training.train_step(loss, tx))
    memory = loop.lower(state, samples, indices, 10).compile().memory_analysis()
    peak = memory.argument_size_in_bytes + memory.output_size_in_bytes
    peak += memory.temp_size_in_bytes - memory.alias_size_in_bytes
    size = lambda tree: sum(x.size * x.dtype.itemsize for x in jax.tree.leaves(tree))  # noqa: E731
    assert peak <= 1.3 * (3 * size(state.params) + size(samples))


@pytest.mark.parametrize("batch_size", [2, 4, 100])
@pytest.mark.parametrize("sizes", [None, [3, 1, 5]])
def test_agents_are_evaluated_on_samples_of_their_own(batch_size, sizes):
    rng = np.random.default_rng(0)
    params, samples = rng.normal(size=(3, 2)), rng.normal(size=(3, 5, 2))
    evaluate = training.evaluation(
        lambda p, model_state, x: {"product": x @ p}, batch_size=batch_size, stacked=True
    )
    counts = sizes or [5] * 3
    expected = [np.mean(samples[j, : counts[j]] @ params[j]) for j in range(3)]
    given = (jnp.asarray(x, jnp.float32) for x in (params, samples))
    found = evaluate(next(given), {}, next(given), *([] if sizes is None else [np.array(sizes)]))
    np.testing.assert_allclose(found["product"], expected, rtol=1e-5, atol=1e-6)


def test_an_error_in_the_metrics_says_what_the_batch_was():
    evaluate = training.evaluation(lambda p, model_state, x: {"e": x @ jnp.ones((7, 2)) @ p})
    with pytest.raises(TypeError, match="dot_general") as caught:
        evaluate(jnp.ones((3, 2)), {}, jnp.ones((3, 5, 4)))
    assert "leaves of the shapes (3, 5, 4). Samples of each agent's" in caught.value.__notes__[0]
