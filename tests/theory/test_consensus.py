import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

import cdjax
from cdjax import mixing, theory, topology
from tests.trees import quadratic_gradients

TWO_AGENTS = topology.from_matrix([[0.1, 0.9], [0.9, 0.1]])  # λ2 = λN = −0.8


def distance(x):
    return np.linalg.norm(x - np.mean(x, axis=0))


def run_cdsgd(graph, gradient, x, step_sizes):
    """All iterates of eq. 5 in NumPy, shape (K, N); ``gradient`` sees the step too."""
    points = []
    for k, step_size in enumerate(step_sizes):
        points.append(x)
        x = graph.mixing_matrix @ x - step_size * gradient(k, x)
    return np.array(points)


@pytest.mark.parametrize(
    ("graph", "eigenvalue"), [(topology.ring(8), -7), (TWO_AGENTS, 0), (topology.torus(16), 0)]
)
def test_the_consensus_bound_is_met_on_the_worst_eigenvector(graph, eigenvalue):
    """Against it, gradients push with the sign of the slowest eigenvalue, σ or −σ."""
    values, vectors = np.linalg.eigh(graph.mixing_matrix)
    index = np.argsort(np.abs(values))[-2] if eigenvalue == -7 else eigenvalue
    sign, direction = np.sign(values[index]), vectors[:, index]
    step_sizes = 0.1 / np.sqrt(1 + np.arange(30))
    points = run_cdsgd(
        graph, lambda k, x: -(sign ** (k + 1)) * 5 * direction, 2 * direction, step_sizes
    )
    bound = theory.consensus_bound(graph, step_sizes, gradient_bound=5.0, initial_distance=2.0)
    np.testing.assert_allclose([distance(x) for x in points], bound, rtol=1e-12)


def test_with_momentum_the_consensus_bound_is_met_by_gradients_of_the_worst_sign():
    """On a complete graph all eigenvalues but one are 0, so that all have one response h."""
    graph, mu, num_steps = topology.complete(4), 0.7, 25
    direction = np.array([1, -1, 0, 0]) / 2**0.5
    h = [0.0, 1.0]
    for _ in range(num_steps):
        h.append(mu * h[-1] - mu * h[-2])
    step_sizes = 0.1 / np.sqrt(1 + np.arange(num_steps))
    bound = theory.consensus_bound(graph, step_sizes, gradient_bound=5.0, momentum=mu)
    for last in (1, 2, 3, 7, num_steps - 1):
        x, v = np.zeros(4), np.zeros(4)
        for k in range(last):
            gradient = -5 * np.sign(h[1 + last - 1 - k]) * direction
            v = graph.mixing_matrix @ x - x + mu * v - step_sizes[k] * gradient
            x = x + v
        np.testing.assert_allclose(distance(x), bound[last], rtol=1e-12)


def test_with_momentum_no_random_run_passes_the_consensus_bound():
    graph, mu, rng = topology.ring(8), 0.9, np.random.default_rng(0)
    x, v = rng.normal(size=8), np.zeros(8)
    bound = theory.consensus_bound(
        graph, np.full(60, 0.1), gradient_bound=1.0, momentum=mu, initial_distance=distance(x)
    )
    for k in range(60):
        assert distance(x) <= bound[k] * (1 + 1e-12)
        gradient = rng.normal(size=8)
        v = graph.mixing_matrix @ x - x + mu * v - 0.1 * gradient / np.linalg.norm(gradient)
        x = x + v


def test_the_consensus_bound_of_a_fixed_step_rises_to_its_limit():
    bound = theory.consensus_bound(topology.star(4), np.full(200, 0.1), gradient_bound=3.0)
    assert bound[0] == 0 and bound[1] == pytest.approx(0.3)
    assert bound[-1] == pytest.approx(0.1 * 3 / 0.25, rel=1e-12)  # 1 − σ = 1/4


def test_the_stated_consensus_bound_is_its_formula():
    stated = theory.stated_consensus_bound(topology.ring(8), 0.1, gradient_bound=3.0)
    assert stated == pytest.approx(0.3 / (1 - 0.804738), rel=1e-5)


def test_the_stated_consensus_bound_fails_by_27_percent_at_the_first_step():
    centers = np.array([1.0, -1.0])
    start, moved = run_cdsgd(TWO_AGENTS, lambda k, x: x - centers, np.zeros(2), [0.1, 0.1])
    gradient_bound = float(np.linalg.norm(start - centers))
    stated = theory.stated_consensus_bound(TWO_AGENTS, 0.1, gradient_bound=gradient_bound)
    assert abs(moved[0] - moved.mean()) / stated == pytest.approx(1.8 / np.sqrt(2))
    bound = theory.consensus_bound(TWO_AGENTS, [0.1, 0.1], gradient_bound=gradient_bound)
    assert distance(moved) <= bound[1]


def test_the_stated_consensus_bound_fails_for_a_start_that_is_not_in_consensus():
    graph, start = topology.ring(8), np.arange(8.0)
    points = run_cdsgd(graph, lambda k, x: 0 * x, start, np.full(6, 0.1))
    assert distance(points[5]) == pytest.approx(1.763901, rel=1e-6)  # DESIGN section 5
    assert theory.stated_consensus_bound(graph, 0.1, gradient_bound=0.0) == 0
    bound = theory.consensus_bound(
        graph, np.full(6, 0.1), gradient_bound=0.0, initial_distance=distance(start)
    )
    assert distance(points[5]) <= bound[5] == pytest.approx(42**0.5 * 0.804738**5, rel=1e-5)


def test_disagreement_rate_of_the_quadratic_on_a_ring_of_five_is_six():
    centers = {"x": np.arange(5.0)}
    assert theory.disagreement_rate(topology.ring(5), centers) == pytest.approx(6, rel=1e-14)
    assert theory.disagreement_rate(topology.ring(5, "lazy"), centers) == pytest.approx(12)


def test_disagreement_rate_is_the_pseudo_inverse(x64):
    graph = topology.erdos_renyi(7)
    gradients = np.random.default_rng(0).normal(size=(7, 3, 2))
    inverse = np.linalg.pinv(np.eye(7) - graph.mixing_matrix)
    expected = np.linalg.norm(np.einsum("jl,lab->jab", inverse, gradients))
    tree = {"a": gradients[..., 0], "b": jnp.asarray(gradients[..., 1])}
    assert theory.disagreement_rate(graph, tree) == pytest.approx(expected, rel=1e-12)


def test_diminishing_steps_lead_to_the_disagreement_rate(x64):
    schedule = cdjax.diminishing_schedule(0.1, power=0.9, offset=10.0)
    tx = cdjax.cdsgd(schedule, mixing.dense(topology.ring(5)))
    gradient = quadratic_gradients(np.arange(5.0))

    def step(carry, _):
        x, state = carry
        updates, state = tx.update(gradient(x), state, x)
        return (optax.apply_updates(x, updates), state), None

    start = jnp.zeros(5)
    (x, _), _ = jax.lax.scan(step, (start, tx.init(start)), length=100_000)
    # The next order: a fixed step of this size has (I − Π + αI)⁻¹ in place of (I − Π)⁺.
    assert distance(x) / float(schedule(100_000)) == pytest.approx(6, rel=2e-4)


def test_mean_error_bound_is_exact_for_one_noisy_agent():
    constants = theory.Constants(2.0, 2.0, noise=0.5)
    step_sizes = 0.3 / (1 + np.arange(20))
    bound = theory.mean_error_bound(
        topology.ring(1), constants, step_sizes=step_sizes, initial_error=3.0, distances=0.0
    )
    second_moment = [9.0]
    for a in step_sizes[:-1]:  # x⁺ = x − α (2x + noise)
        second_moment.append((1 - 2 * a) ** 2 * second_moment[-1] + a**2 * 0.5)
    np.testing.assert_allclose(bound**2, second_moment, rtol=1e-12)


@pytest.mark.parametrize("step_size", [0.05, 0.6])
def test_the_mean_stays_within_its_bound_for_unequal_curvatures(step_size):
    graph, curvatures, centers = topology.ring(8), (np.arange(8) + 1) / 8, np.arange(8.0)
    step_sizes = np.full(300, step_size)
    points = run_cdsgd(graph, lambda k, x: curvatures * (x - centers), np.zeros(8), step_sizes)
    optimum = curvatures @ centers / curvatures.sum()
    bound = theory.mean_error_bound(
        graph,
        theory.Constants(1.0, 1 / 8),
        step_sizes=step_sizes,
        initial_error=optimum,
        distances=[distance(x) for x in points],
    )
    errors = np.abs(points.mean(axis=1) - optimum)
    assert np.all(errors <= bound) and bound[-1] < 10 * optimum


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (
            lambda g: theory.stated_consensus_bound(g, -0.1, gradient_bound=1.0),
            "step_size is -0.1",
        ),
        (
            lambda g: theory.consensus_bound(g, 0.1, gradient_bound=1.0),
            r"step_sizes has shape \(\); give one number per step, as np.full",
        ),
        (
            lambda g: theory.consensus_bound(g, [0.1], gradient_bound=-1.0),
            "gradient_bound is -1.0",
        ),
        (lambda g: theory.disagreement_rate(g, np.ones(4)), "leading axis 4, but .* has 5 agents"),
        (
            lambda g: theory.mean_error_bound(
                g, theory.Constants(1.0), step_sizes=[0.1], initial_error=1.0, distances=[1.0, 1.0]
            ),
            r"distances has shape \(2,\); give one number per step, shape \(1,\)",
        ),
    ],
)
def test_a_bad_argument_is_named(call, message):
    with pytest.raises(ValueError, match=message):
        call(topology.ring(5))


@pytest.mark.parametrize(
    "bound",
    [
        lambda graph: theory.consensus_bound(graph, np.ones(3), gradient_bound=1.0),
        lambda graph: theory.stated_consensus_bound(graph, 0.1, gradient_bound=1.0),
        lambda graph: theory.tight_step_limit(graph, 1.0),
        lambda graph: theory.lyapunov_smoothness(graph, 1.0, step_size=0.1),
    ],
)
def test_a_matrix_that_the_theory_is_not_for_is_refused(bound):
    skew = np.array([[0.6, 0.4, 0.0], [0.0, 0.6, 0.4], [0.4, 0.0, 0.6]])
    graph = topology.from_matrix(skew, validate=False)
    with pytest.raises(ValueError, match="differs from its transpose by 0.4; the theory is for"):
        bound(graph)


@pytest.mark.parametrize("momentum", [0.0, 0.9])
@pytest.mark.sampled(2)
def test_many_steps_are_summed_as_few_are(momentum):
    """Against the double sum in NumPy, and 40,000 steps end at the geometric limit."""
    graph, rates = topology.ring(5, "lazy"), 0.1 / np.sqrt(1 + np.arange(300))
    found = theory.consensus_bound(graph, rates, gradient_bound=2.0, momentum=momentum)
    of_gradient = theory.consensus_bound(
        graph, np.append(1.0, np.zeros(300)), gradient_bound=1.0, momentum=momentum
    )[1:]
    expected = [2.0 * sum(rates[:k] * of_gradient[:k][::-1]) for k in range(300)]
    np.testing.assert_allclose(found, expected, rtol=1e-10, atol=1e-15)
    long = theory.consensus_bound(graph, np.full(40_000, 0.1), gradient_bound=2.0)
    np.testing.assert_allclose(long[-1], 0.2 / graph.spectral_gap, rtol=1e-12)
