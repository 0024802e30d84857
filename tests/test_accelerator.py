"""What a backend may get wrong, in few programs: products that it rounds, kernels of its own.

GPUs round the factors of float32 products to TF32 (11 bits), TPUs to bfloat16 (8 bits), unless the
precision is "highest". Errors are relative to the norm of the expectation, which is NumPy's in
float64.
"""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import cdjax
from cdjax import checkpoint, data, mixing, models, sharding, topology, training
from tests.test_transforms_common import NUM_AGENTS, TABLE, gradient
from tests.trees import assert_trees_close, random_stacked_tree, train

pytestmark = [pytest.mark.accelerator, pytest.mark.sampled(2)]

GRAPHS = {
    "ring": topology.ring(7),
    "star": topology.star(9),
    "complete": topology.complete(6),
    "random": topology.erdos_renyi(24, probability=0.3, seed=1),
    "torus": topology.torus(16),
    "directed": topology.exponential(16, directed=True),
}
PLANS = {
    "dense": mixing.dense,
    "neighbors": mixing.neighbors,
    "shifts": mixing.shifts,
    "ppermute": lambda graph: jax.vmap(mixing.ppermute(graph, "agents"), axis_name="agents"),
    "exchange": lambda graph: mixing.exchange(graph, sharding.agent_mesh(1)),
}
# Arithmetic: dtype, precision, and the largest error of sums of hundreds of products.
ARITHMETIC = {
    "float32 highest": ("float32", "highest", 2e-6),
    "float32": ("float32", None, 1e-2),
    "bfloat16": ("bfloat16", None, 2e-2),
}


def normal(shape, dtype, seed=0):
    return jnp.asarray(np.random.default_rng(seed).normal(size=shape), dtype)


def error(actual, expected):
    return np.linalg.norm(np.float64(actual) - expected) / np.linalg.norm(expected)


@pytest.mark.parametrize("plan", PLANS)
@pytest.mark.sampled(5)
def test_a_mix_is_the_product_with_the_matrix(plan):
    roundings = {"float32": 2**-21, "bfloat16": 2**-8, "float16": 2**-10}
    trees = {
        name: {dtype: normal((graph.num_agents, 300), dtype) for dtype in roundings}
        for name, graph in GRAPHS.items()
    }
    mixed = jax.jit(lambda trees: {n: PLANS[plan](GRAPHS[n])(tree) for n, tree in trees.items()})
    for name, tree in mixed(trees).items():
        for dtype, x in tree.items():
            expected = GRAPHS[name].mixing_matrix @ np.float64(trees[name][dtype])
            assert x.dtype == dtype
            np.testing.assert_allclose(
                np.float64(x),
                expected,
                rtol=roundings[dtype],
                atol=1e-6,
                err_msg=f"{name}, {dtype}",
            )


def shifted(images):
    """The images a pixel up, not at all, a pixel down, and so to the left, zeros at the edges."""
    padded = np.pad(images, ((0, 0), (1, 1), (1, 1), (0, 0)))
    height, width = images.shape[1:3]
    return [[padded[:, i : i + height, k : k + width] for k in range(3)] for i in range(3)]


def convolution_and_gradients(images, kernel, cotangent):
    """A 3×3 convolution of the same size, and its gradients, in NumPy."""
    views, backward = shifted(images), shifted(cotangent)
    pixels = [(i, k) for i in range(3) for k in range(3)]
    result = sum(views[i][k] @ kernel[i, k] for i, k in pixels)
    to_images = sum(backward[2 - i][2 - k] @ kernel[i, k].T for i, k in pixels)
    to_kernel = np.zeros(kernel.shape)
    for i, k in pixels:
        to_kernel[i, k] = np.einsum("bhwc,bhwf->cf", views[i][k], cotangent)
    return result, to_images, to_kernel


@pytest.mark.parametrize("arithmetic", ARITHMETIC)
@pytest.mark.parametrize("plan", ["vmap", "map"])
@pytest.mark.sampled(3)
def test_each_agents_convolution_and_its_gradients_are_those_of_numpy(plan, arithmetic):
    dtype, precision, tolerance = ARITHMETIC[arithmetic]
    images, kernel = normal((3, 4, 8, 8, 16), dtype), normal((3, 3, 3, 16, 32), dtype, 1)
    cotangent = normal((3, 4, 8, 8, 32), dtype, 2)

    def one_agent(images, kernel, cotangent):
        convolve = lambda x, k: models.conv_general_dilated(  # noqa: E731
            x, k, (1, 1), "SAME", dimension_numbers=("NHWC", "HWIO", "NHWC"), precision=precision
        )
        result, vjp = jax.vjp(convolve, images, kernel)
        return result, *vjp(cotangent)

    actual = jax.jit(cdjax.agent_map(one_agent, plan=plan))(images, kernel, cotangent)
    for agent in range(3):
        arrays = (np.float64(x[agent]) for x in (images, kernel, cotangent))
        for x, y in zip(actual, convolution_and_gradients(*arrays), strict=True):
            assert x.dtype == dtype and error(x[agent], y) < tolerance


@pytest.mark.parametrize("arithmetic", ARITHMETIC)
def test_each_agents_product_and_its_gradient_are_those_of_numpy(arithmetic):
    dtype, precision, tolerance = ARITHMETIC[arithmetic]
    x, w = normal((5, 64, 300), dtype), normal((5, 300, 40), dtype, 1)

    def half_square(w, x):
        return 0.5 * jnp.sum(jnp.square(jnp.matmul(x, w, precision=precision).astype("float32")))

    actual = jax.jit(cdjax.agent_map(jax.grad(half_square)))(w, x)
    expected = [np.float64(x[j]).T @ (np.float64(x[j]) @ np.float64(w[j])) for j in range(5)]
    assert error(actual, np.array(expected)) < tolerance


@pytest.fixture(scope="module")
def five_steps():
    """Parameters after five steps of each transformation: on this backend, and on the CPU."""
    if jax.default_backend() == "cpu":
        pytest.skip("compares an accelerator with the CPU")
    tree = random_stacked_tree(NUM_AGENTS)
    params = {name: tree[name] for name in ("scalar", "bias")}

    @jax.jit
    def steps(params):
        txs = {name: make(0.1) for name, (make, _) in TABLE.items()}
        return {name: train(tx, gradient, params, 5)[0] for name, tx in txs.items()}

    cpu = jax.devices("cpu")[0]
    return jax.device_get((steps(params), steps(jax.device_put(params, cpu))))


@pytest.mark.parametrize("name", TABLE)
def test_five_steps_are_those_of_the_cpu(name, five_steps):
    here, on_cpu = five_steps
    assert_trees_close(here[name], on_cpu[name], rtol=1e-5, atol=1e-5)


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    """A loop of two steps of an MLP's CDMSGD, its arguments, its state after four and after two."""
    model = models.MLP((16,))
    loss = models.classification_loss(model)

    def loss_fn(params, model_state, batch, key):
        return loss(params, model_state, (batch.images, batch.labels), key)

    tx = cdjax.cdmsgd(0.05, mixing.auto(topology.ring(8)))
    params, _ = models.init_model(model, jax.random.key(0), jnp.zeros((1, 4, 4, 1)))
    loop = training.train_loop(training.train_step(loss_fn, tx))
    labels = jnp.arange(96, dtype=jnp.int32).reshape(8, 12) % 10
    samples = data.AgentData(normal((8, 12, 4, 4, 1), "float32"), labels)
    indices = np.random.default_rng(0).integers(12, size=(4, 8, 6)).astype(np.int32)

    def two_steps(state, steps):
        return loop(state, samples, indices[steps], 2)

    start = training.init_state(cdjax.replicate(params, 8), tx, key=jax.random.key(1))
    middle, first = two_steps(start, slice(0, 2))
    folder = tmp_path_factory.mktemp("trained")
    with checkpoint.writing(folder) as checkpoints:
        checkpoint.save(checkpoints, 2, middle)
    end, second = two_steps(middle, slice(2, 4))
    return two_steps, checkpoint.restore(folder, 2, like=end), end, (first, second)


def test_a_restored_state_goes_on_bit_by_bit(trained):
    two_steps, restored, end, (_, metrics) = trained
    again, metrics_again = two_steps(restored, slice(2, 4))
    for x, y in zip(jax.tree.leaves(again.params), jax.tree.leaves(end.params), strict=True):
        np.testing.assert_array_equal(x, y)
    np.testing.assert_array_equal(metrics_again["loss"], metrics["loss"])
    assert int(again.step) == int(end.step) == 4


def test_the_loss_falls(trained):
    first, second = trained[-1]
    assert float(second["loss"][-1].mean()) < float(first["loss"][0].mean())
