import jax
import jax.numpy as jnp
import numpy as np
import pytest

from cdjax import theory


@jax.jit
def extremes_of_quadratic(matrix):
    """Of ½ xᵀAx with a 6×6 matrix A, on a tree of two leaves; compiled once for all matrices."""

    def loss_fn(params):
        x = jnp.concatenate([params["a"], params["b"].ravel()])
        return x @ matrix @ x / 2

    params = {"a": jnp.ones(2), "b": jnp.ones((2, 2))}
    return theory.hessian_extremes(loss_fn, params, key=jax.random.key(0), num_iterations=300)


@pytest.mark.parametrize(
    "eigenvalues",
    [
        [0.5, 1, 2, 3, 4, 7],
        [-5.0, -1, 0, 1, 2, 3],
        [-7, -6.0, -4, -3, -2, -1],
        [-2.0, -1, 0, 0.5, 1, 2],
        [0.0, 0, 0, 0, 0, 0],
    ],
)
@pytest.mark.sampled(3)
def test_hessian_extremes_are_the_eigenvalues_of_a_quadratic(eigenvalues, x64):
    basis, _ = np.linalg.qr(np.random.default_rng(0).normal(size=(6, 6)))
    smallest, largest = extremes_of_quadratic(basis @ np.diag(eigenvalues) @ basis.T)
    assert float(smallest) == pytest.approx(min(eigenvalues), abs=1e-9)
    assert float(largest) == pytest.approx(max(eigenvalues), abs=1e-9)


def test_hessian_extremes_of_a_logistic_loss_are_numpys(x64):
    features = np.random.default_rng(1).normal(size=(30, 5))
    params = jnp.linspace(-1, 1, 5)
    chance = 1 / (1 + np.exp(-features @ np.asarray(params)))
    hessian = features.T @ (features * (chance * (1 - chance))[:, None]) / 30
    loss_fn = lambda w: jnp.mean(jnp.logaddexp(0, features @ w))  # noqa: E731
    estimate = jax.jit(lambda w: theory.hessian_extremes(loss_fn, w, key=jax.random.key(2)))
    smallest, largest = estimate(params)
    expected = np.linalg.eigvalsh(hessian)
    assert float(smallest) == pytest.approx(expected[0], rel=1e-6)
    assert float(largest) == pytest.approx(expected[-1], rel=1e-6)


def test_hessian_extremes_of_all_agents_at_once_under_vmap(x64):
    curvatures = jnp.array([[1.0, 2, 5], [0.1, 3, 4]])

    def of_agent(h):
        loss_fn = lambda x: jnp.sum(h * x**2) / 2  # noqa: E731
        return theory.hessian_extremes(loss_fn, jnp.ones(3), key=jax.random.key(0))

    extremes = jax.jit(jax.vmap(of_agent))(curvatures)
    np.testing.assert_allclose(extremes.smallest, [1, 0.1], atol=1e-8)
    np.testing.assert_allclose(extremes.largest, [5, 4], atol=1e-8)


def test_gradient_bound_is_the_largest_norm_over_all_agents(x64):
    points = {"w": jnp.arange(24.0).reshape(4, 3, 2), "b": -jnp.ones((4, 3))}
    gradient_fn = lambda x: {"w": 2 * x["w"], "b": x["b"]}  # noqa: E731
    expected = np.sqrt(np.sum((2 * np.arange(18, 24.0)) ** 2) + 3)
    bound = jax.jit(lambda p: theory.gradient_bound(gradient_fn, p))(points)
    assert float(bound) == pytest.approx(expected, rel=1e-14)


def test_gradient_noise_is_the_unbiased_variance_over_the_draws(x64):
    data = jnp.asarray(np.random.default_rng(0).normal(size=(3, 20, 2)))

    def gradient_fn(params, key):
        rows = jax.random.randint(key, (3, 4), 0, 20)
        batches = jax.vmap(lambda own, i: own[i].mean(axis=0))(data, rows)
        return {"x": 1e6 + params - batches}

    @jax.jit
    def noise_and_draws(params, key):
        keys = jax.vmap(jax.random.fold_in, (None, 0))(key, jnp.arange(50))
        draws = jax.vmap(gradient_fn, (None, 0))(params, keys)["x"]
        return theory.gradient_noise(gradient_fn, params, key=key, num_draws=50), draws

    noise, draws = noise_and_draws(jnp.zeros((3, 2)), jax.random.key(3))
    assert float(noise) == pytest.approx(np.var(np.asarray(draws), axis=0, ddof=1).sum(), rel=1e-8)


def test_gradient_noise_of_full_gradients_is_zero():
    params = {"x": jnp.ones((4, 3))}
    noise = theory.gradient_noise(lambda p, key: p, params, key=jax.random.key(0))
    assert float(noise) == 0


def test_estimators_name_a_count_that_is_too_small():
    key = jax.random.key(0)
    with pytest.raises(ValueError, match="num_iterations is 0"):
        theory.hessian_extremes(jnp.sum, jnp.ones(2), key=key, num_iterations=0)
    with pytest.raises(ValueError, match="num_draws is 1"):
        theory.gradient_noise(lambda p, k: p, jnp.ones(2), key=key, num_draws=1)
