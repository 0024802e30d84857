import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from cdjax import agent_map, models, replicate
from cdjax.models._networks import _relu_max_pool

pytestmark = pytest.mark.sampled(2)

KEY = jax.random.key(0)


class Toy(nn.Module):
    """A model with a state and with dropout."""

    @nn.compact
    def __call__(self, x, *, train=False):
        x = nn.Dense(8)(x.reshape(len(x), -1))
        x = nn.BatchNorm(use_running_average=not train, momentum=0.5)(x)
        return nn.Dense(3)(nn.Dropout(0.5, deterministic=not train)(x))


class PlainCNN(nn.Module):
    """The paper's network from Flax's own layers."""

    @nn.compact
    def __call__(self, x):
        for features in (32, 32, "pool", 64, 64, "pool"):
            if features == "pool":
                x = nn.max_pool(x, (2, 2), strides=(2, 2))
            else:
                x = nn.relu(nn.Conv(features, (3, 3))(x))
        x = nn.relu(nn.Dense(512)(x.reshape(len(x), -1)))
        return nn.Dense(10)(x)


def batch_of(size, shape=(4, 4, 1), num_classes=3, seed=0):
    rng = np.random.default_rng(seed)
    images = jnp.asarray(rng.normal(size=(size, *shape)), jnp.float32)
    return images, jnp.asarray(rng.integers(0, num_classes, size))


def init(model, images):
    return jax.jit(lambda: models.init_model(model, KEY, images))()


def num_parameters(params):
    return sum(leaf.size for leaf in jax.tree.leaves(params))


def abstract_params(model, shape):
    return jax.eval_shape(lambda: models.init_model(model, KEY, jnp.ones((1, *shape))))[0]


def test_cnn_has_the_papers_number_of_parameters():
    assert num_parameters(abstract_params(models.CNN(10), (32, 32, 3))) == 2_168_362


def test_resnet20_has_as_many_parameters_as_its_layers():
    kernels = [(3, 16), *6 * [(16, 16)], (16, 32), *5 * [(32, 32)], (32, 64), *5 * [(64, 64)]]
    norms = 2 * (7 * 16 + 6 * 32 + 6 * 64)
    expected = sum(9 * a * b for a, b in kernels) + norms + 64 * 10 + 10
    params = abstract_params(models.ResNet20(10), (32, 32, 3))
    assert num_parameters(params) == expected == 269_722


def test_resnet20_passes_images_on_where_its_blocks_are_zero():
    """With nothing from inside of the blocks, shortcuts leave the first features, halved twice."""
    model, (images, _) = models.ResNet20(5), batch_of(2, (16, 16, 3))
    params, _ = init(model, images)
    for name in params:
        number = int(name.rpartition("_")[2])
        if name.startswith("GroupNorm") and number and number % 2 == 0:  # behind the second of two
            params[name] = jax.tree.map(jnp.zeros_like, params[name])
    first = nn.Conv(16, (3, 3), use_bias=False).apply({"params": params["Conv_0"]}, images)
    first = nn.relu(nn.GroupNorm(2).apply({"params": params["GroupNorm_0"]}, first))
    features = jnp.pad(first[:, ::4, ::4].mean((1, 2)), [(0, 0), (0, 48)])
    expected = features @ params["Dense_0"]["kernel"] + params["Dense_0"]["bias"][None]
    np.testing.assert_allclose(model.apply({"params": params}, images), expected, atol=1e-5)


def test_parameters_have_the_names_of_flax():
    layers = {"Conv_0", "Conv_1", "Conv_2", "Conv_3", "Dense_0", "Dense_1"}
    params = abstract_params(models.CNN(10), (8, 8, 1))
    assert set(params) == layers
    assert all(set(layer) == {"kernel", "bias"} for layer in params.values())
    assert set(abstract_params(models.MLP((5, 4)), (8, 8, 1))) == {"Dense_0", "Dense_1", "Dense_2"}
    assert set(abstract_params(models.SoftmaxRegression(), (8, 8, 1))) == {"Dense_0"}


@pytest.mark.parametrize("shape", [(32, 32, 3), (28, 28, 1), (8, 8, 1)])
@pytest.mark.parametrize("dtype", [None, jnp.bfloat16])
def test_logits_are_float32(shape, dtype):
    for model in (
        models.CNN(7, dtype=dtype),
        models.ResNet20(7, dtype=dtype),
        models.MLP((16,), 7, dtype=dtype),
        models.SoftmaxRegression(7, dtype=dtype),
    ):
        logits, variables = jax.eval_shape(
            lambda model=model: model.init_with_output(KEY, jnp.ones((2, *shape)))
        )
        assert (logits.shape, logits.dtype) == ((2, 7), jnp.float32)
        assert {leaf.dtype for leaf in jax.tree.leaves(variables)} == {jnp.dtype("float32")}


def test_cnn_computes_what_flaxs_own_layers_compute():
    images, _ = batch_of(3, (8, 8, 1))
    rng = np.random.default_rng(1)
    params = jax.tree.map(
        lambda x: jnp.asarray(rng.normal(size=x.shape) / np.sqrt(np.prod(x.shape[:-1])), x.dtype),
        abstract_params(models.CNN(), images.shape[1:]),
    )
    actual, expected = (
        jax.jit(model.apply)({"params": params}, images) for model in (models.CNN(), PlainCNN())
    )
    np.testing.assert_allclose(actual, expected, rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize("size", [(6, 8), (7, 9)])
def test_pooling_has_the_values_and_gradients_of_flax_at_ties_too(size):
    rng = np.random.default_rng(0)
    images = jnp.asarray(rng.integers(-2, 3, (3, *size, 2)), jnp.float32)
    actual, vjp = jax.vjp(_relu_max_pool, images)
    expected, vjp_of_flax = jax.vjp(lambda x: nn.max_pool(nn.relu(x), (2, 2), (2, 2)), images)
    np.testing.assert_array_equal(actual, expected)
    cotangent = jnp.asarray(rng.normal(size=actual.shape), jnp.float32)
    np.testing.assert_array_equal(vjp(cotangent)[0], vjp_of_flax(cotangent)[0])


@pytest.mark.parametrize("place", [(0, 0), (0, 1), (1, 0), (1, 1)])
def test_a_nan_anywhere_in_a_window_is_its_maximum(place):
    images = jnp.zeros((1, 4, 4, 1)).at[0, *place, 0].set(jnp.nan)
    is_nan = jnp.isnan(_relu_max_pool(images))[0, ..., 0]
    np.testing.assert_array_equal(is_nan, [[True, False], [False, False]])


def test_init_is_of_one_agent_and_splits_off_the_state():
    params, model_state = jax.eval_shape(
        lambda: models.init_model(Toy(), KEY, jnp.ones((2, 4, 4, 1)))
    )
    assert set(params) == {"Dense_0", "BatchNorm_0", "Dense_1"}
    assert set(model_state) == {"batch_stats"}
    assert models.init_model(models.SoftmaxRegression(), KEY, jnp.ones((2, 2, 2, 1)))[1] == {}


def test_loss_of_softmax_regression_has_the_textbook_gradient():
    images, labels = batch_of(6)
    params, _ = init(models.SoftmaxRegression(3), images)
    loss_fn = models.classification_loss(models.SoftmaxRegression(3))
    (loss, (state, metrics)), grads = jax.value_and_grad(loss_fn, has_aux=True)(
        params, {}, (images, labels), KEY
    )
    x = np.asarray(images).reshape(6, -1)
    layer = jax.tree.map(np.asarray, params["Dense_0"])
    scores = np.exp(x @ layer["kernel"] + layer["bias"])
    probabilities = scores / scores.sum(1, keepdims=True)
    np.testing.assert_allclose(loss, -np.log(probabilities[range(6), labels]).mean(), rtol=1e-5)
    np.testing.assert_allclose(
        grads["Dense_0"]["kernel"], x.T @ (probabilities - np.eye(3)[labels]) / 6, atol=1e-6
    )
    assert state == {}
    assert metrics["accuracy"] == np.mean(probabilities.argmax(1) == labels)


def test_metrics_of_every_sample_average_to_the_loss():
    batch = batch_of(5)
    model = models.MLP((6,), 3)
    params, _ = init(model, batch[0])
    loss, (_, metrics) = models.classification_loss(model)(params, {}, batch, KEY)
    per_sample = models.classification_metrics(model)(params, {}, batch)
    assert {value.shape for value in per_sample.values()} == {(5,)}
    np.testing.assert_allclose(per_sample["loss"].mean(), loss, rtol=1e-6)
    np.testing.assert_allclose(per_sample["accuracy"].mean(), metrics["accuracy"], rtol=1e-6)


@pytest.mark.parametrize("plan", ["vmap", "map"])
@pytest.mark.sampled(3)
def test_every_agent_has_a_state_and_dropout_of_its_own(plan):
    images, labels = batch_of(12)
    one_agent, one_state = init(Toy(), images)
    params, state = replicate(one_agent, 3), replicate(one_state, 3)
    batches = images.reshape(3, 4, 4, 4, 1), labels.reshape(3, 4)
    loss_fn = models.classification_loss(Toy())
    step = jax.jit(agent_map(jax.value_and_grad(loss_fn, has_aux=True), plan=plan))
    (_, (next_state, _)), _ = step(params, state, batches, jax.random.split(KEY, 3))

    hidden = images.reshape(3, 4, -1) @ one_agent["Dense_0"]["kernel"]
    np.testing.assert_allclose(
        next_state["batch_stats"]["BatchNorm_0"]["mean"], 0.5 * hidden.mean(1), atol=1e-6
    )
    losses = [loss_fn(one_agent, one_state, (images, labels), jax.random.key(s))[0] for s in (1, 2)]
    assert losses[0] != losses[1]


def test_evaluation_uses_the_running_statistics_and_no_dropout():
    batch = batch_of(6)
    params, state = init(Toy(), batch[0])
    metrics_fn = models.classification_metrics(Toy())
    whole = metrics_fn(params, state, batch)
    first = metrics_fn(params, state, jax.tree.map(lambda x: x[:1], batch))
    np.testing.assert_allclose(whole["loss"][:1], first["loss"], rtol=1e-5)
