import jax
import jax.numpy as jnp
import numpy as np
import pytest

from cdjax import theory, topology
from tests.theory.test_consensus import distance, run_cdsgd

pytestmark = pytest.mark.sampled(3)

LAZY_RING = topology.ring(5, "lazy")
ONE_AGENT = topology.ring(1)


def lyapunov_gaps(graph, curvatures, centers, points, step_sizes):
    """V(x_k, α_k) − V*(α_k) of f_j = ½ h_j (x − c_j)², from V's Hessian and minimiser."""
    gaps = []
    for x, step_size in zip(points, step_sizes, strict=True):
        hessian = np.diag(curvatures) + (np.eye(len(x)) - graph.mixing_matrix) / step_size
        error = x - np.linalg.solve(hessian, curvatures * centers)
        gaps.append(error @ hessian @ error / 2)
    return np.array(gaps)


def test_the_stated_rate_fails_on_the_lazy_ring_with_equal_losses():
    step_sizes = np.full(20, 0.1)
    points = run_cdsgd(LAZY_RING, lambda k, x: x, np.ones(5), step_sizes)
    gaps = lyapunov_gaps(LAZY_RING, np.ones(5), np.zeros(5), points, step_sizes)
    options = {
        "topology": LAZY_RING,
        "constants": theory.Constants(1.0, 1.0),
        "initial_gap": gaps[0],
    }
    stated, theorem = (
        theory.stated_lyapunov_bound(step_size=0.1, num_steps=20, form=form, **options)
        for form in ("definition", "theorem")
    )
    corrected = theory.lyapunov_bound(step_sizes=step_sizes, **options)
    assert theory.descent_limit(LAZY_RING, options["constants"], step_size=0.1) > 0.1
    ratios = [values[1:] / values[:-1] for values in (gaps, stated, theorem, corrected)]
    np.testing.assert_allclose(ratios[0], 0.81, rtol=1e-10)
    np.testing.assert_allclose(ratios[1], 0.7848362, rtol=1e-6)
    np.testing.assert_allclose(ratios[2], 0.6696723, rtol=1e-6)
    # 1 − α H c of Lemma 2, between the truth and the 1 − α H ζ₁ of the theorem's proof, 0.9.
    c = 2 - 0.1 - (1 - LAZY_RING.smallest_eigenvalue)
    np.testing.assert_allclose(ratios[3], 1 - 0.1 * c, rtol=1e-10)
    assert round(1 - 0.1 * c, 3) == 0.870


def test_the_stated_bound_is_its_formula():
    constants = theory.Constants(2.0, 0.5, noise=3.0, alignment=0.9)
    stated = theory.stated_lyapunov_bound(
        LAZY_RING, constants, step_size=0.1, initial_gap=7.0, num_steps=4
    )
    smoothness = 2 + (1 - LAZY_RING.smallest_eigenvalue) / 0.1
    rate = 1 - 0.1 * (0.5 + (1 - LAZY_RING.second_eigenvalue) / 0.2) * 0.9
    noise = 0.1**2 * smoothness * 3 / 2 * (1 + rate + rate**2 + rate**3)
    assert stated[3] == pytest.approx(rate**3 * 7 + noise, rel=1e-12)


def test_theorem_1_sums_as_many_terms_as_the_paper():
    """At x_k: k − 1 powers of the rate, and k terms of noise."""
    found = theory.stated_lyapunov_bound(
        LAZY_RING,
        theory.Constants(1.0, 1.0, noise=3.0),
        step_size=0.1,
        initial_gap=7.0,
        num_steps=3,
        form="theorem",
    )
    np.testing.assert_allclose(found, [7.105, 4.864, 3.363], atol=5e-4)


def test_the_papers_two_limits_after_theorem_1_differ():
    constants = theory.Constants(2.0, 0.5, noise=3.0, alignment=0.9)
    first, second = (
        theory.stated_neighborhood(LAZY_RING, constants, step_size=0.1, form=form)
        for form in ("definition", "theorem")
    )
    low, high = 1 - LAZY_RING.second_eigenvalue, 1 - LAZY_RING.smallest_eigenvalue
    moved = (0.1 * 2 + high) * 3
    assert first == pytest.approx(moved / (2 * (0.5 + low / 0.2) * 0.9), rel=1e-12)
    assert second == pytest.approx(moved / (2 * (0.5 + low / 0.1 * 0.9)), rel=1e-12)
    bound = theory.stated_lyapunov_bound(
        LAZY_RING, constants, step_size=0.1, initial_gap=7.0, num_steps=1000
    )
    assert bound[-1] == pytest.approx(first, rel=1e-10)


@pytest.mark.parametrize("step_size", [0.6, 0.9])
def test_the_corrected_bound_is_exact_for_one_noisy_agent_beyond_eq_15(step_size):
    constants = theory.Constants(2.0, 2.0, noise=0.5)
    bound = theory.lyapunov_bound(
        ONE_AGENT, constants, step_sizes=np.full(10, step_size), initial_gap=9.0
    )
    gap = 9.0  # of f = x², x⁺ = x − α (2x + noise)
    for value in bound:
        assert value == pytest.approx(gap, rel=1e-12)
        gap = (1 - 2 * step_size) ** 2 * gap + step_size**2 * 0.5


def test_the_corrected_bound_under_eq_15_contracts_by_lemma_2():
    constants = theory.Constants(2.0, 0.5, noise=3.0, alignment=0.95)
    bound = theory.lyapunov_bound(LAZY_RING, constants, step_sizes=[0.05] * 2, initial_gap=7.0)
    assert theory.descent_limit(LAZY_RING, constants, step_size=0.05) > 0.05
    noise = 0.05**2 * theory.lyapunov_smoothness(LAZY_RING, 2.0, step_size=0.05) * 3 / 2
    descent = theory.guaranteed_descent(LAZY_RING, constants, step_size=0.05)
    assert bound[1] == pytest.approx((1 - 0.05 * 0.5 * descent) * 7 + noise, rel=1e-12)
    assert descent > 0.95  # under eq. 15 it is more than ζ₁


@pytest.mark.parametrize("decay", [0.0, 0.6, 1.0])
@pytest.mark.parametrize("graph", [topology.ring(8), topology.star(8)], ids=str)
@pytest.mark.sampled(3)
def test_the_corrected_bound_holds_for_unequal_losses_and_falling_steps(graph, decay):
    curvatures, centers = (np.arange(8) + 1) / 8, np.arange(8.0)
    step_sizes = 0.4 * 20 / (np.arange(400) ** decay + 19)

    def gradient(k, x):
        return curvatures * (x - centers)

    points = run_cdsgd(graph, gradient, np.zeros(8), step_sizes)
    gaps = lyapunov_gaps(graph, curvatures, centers, points, step_sizes)
    largest = max(np.linalg.norm(gradient(0, x)) for x in points)
    distances = theory.consensus_bound(graph, step_sizes, gradient_bound=largest)
    bound = theory.lyapunov_bound(
        graph,
        theory.Constants(1.0, 1 / 8),
        step_sizes=step_sizes,
        initial_gap=gaps[0],
        distances=distances,
    )
    assert all(distance(x) <= d * (1 + 1e-12) for x, d in zip(points, distances, strict=True))
    assert np.all(gaps <= bound * (1 + 1e-9)) and np.isfinite(bound[-1])


def test_the_corrected_bound_is_infinite_beyond_the_tight_limit():
    step_size = 1.01 * theory.tight_step_limit(LAZY_RING, 1.0)
    constants = theory.Constants(1.0, 1.0)
    bound = theory.lyapunov_bound(
        LAZY_RING, constants, step_sizes=np.full(3, step_size), initial_gap=1.0
    )
    np.testing.assert_array_equal(bound, [1, np.inf, np.inf])


def test_theorem_2_is_its_formula_stated_and_corrected():
    constants = theory.Constants(2.0, noise=3.0, alignment=0.9)
    smoothness = theory.lyapunov_smoothness(LAZY_RING, 2.0, step_size=0.1)
    expected = 0.1 * smoothness * 3 / 0.9 + 2 * 7 / (50 * 0.1 * 0.9)
    stated = theory.stated_stationarity_bound(
        LAZY_RING, constants, step_size=0.1, initial_gap=7.0, num_steps=50
    )
    corrected = theory.stationarity_bound(
        LAZY_RING, constants, step_sizes=np.full(50, 0.1), initial_gap=7.0
    )
    assert stated == pytest.approx(expected, rel=1e-12)
    descent = theory.guaranteed_descent(LAZY_RING, constants, step_size=0.1)
    assert corrected == pytest.approx(expected * 0.9 / descent, rel=1e-12)


def test_beyond_eq_15_the_statement_of_theorem_2_fails_and_the_corrected_bound_is_met():
    step_sizes = np.full(200, 1.9)  # f = ½ x²: the limit of eq. 15 is 1, the tight one 2
    points = run_cdsgd(ONE_AGENT, lambda k, x: x, np.ones(1), step_sizes)
    options = {"topology": ONE_AGENT, "constants": theory.Constants(1.0), "initial_gap": 0.5}
    stated = theory.stated_stationarity_bound(step_size=1.9, num_steps=200, **options)
    corrected = theory.stationarity_bound(step_sizes=step_sizes, **options)
    assert np.mean(points**2) == pytest.approx(corrected, rel=1e-12)
    assert np.mean(points**2) == pytest.approx(10 * stated, rel=1e-12)


@pytest.mark.parametrize("decay", [0.0, 0.7])
def test_the_bound_on_the_gradient_holds_for_losses_that_are_not_convex(decay, x64):
    graph, phases = topology.ring(6), np.arange(6.0)
    step_sizes = 0.3 * 20 / (np.arange(200) ** decay + 20)

    def gradient(k, x):
        return np.cos(x + phases)  # of f_j = sin(x + j), at least −1 each

    points = run_cdsgd(graph, gradient, np.linspace(0, 3, 6), step_sizes)
    norms = [
        np.linalg.norm(gradient(0, x) + (x - graph.mixing_matrix @ x) / a)
        for x, a in zip(points, step_sizes, strict=True)
    ]
    constants = theory.Constants(1.0)
    losses_fn = lambda x: jnp.sin(x + phases)  # noqa: E731
    first = theory.lyapunov(losses_fn, jnp.asarray(points[0]), graph, step_size=step_sizes[0])
    bound = theory.stationarity_bound(
        graph,
        constants,
        step_sizes=step_sizes,
        initial_gap=float(first) + 6,
        distances=[distance(x) for x in points],
    )
    weights = [a * theory.guaranteed_descent(graph, constants, step_size=a) for a in step_sizes]
    assert np.average(np.square(norms), weights=weights) <= bound


@pytest.mark.parametrize("bound", [theory.lyapunov_bound, theory.stationarity_bound])
def test_bounds_for_falling_steps_name_what_is_wrong(bound):
    call = jax.tree_util.Partial(bound, topology.ring(5), theory.Constants(1.0), initial_gap=1.0)
    with pytest.raises(ValueError, match="step sizes differ; give distances"):
        call(step_sizes=[0.2, 0.1])
    with pytest.raises(ValueError, match=r"distances has shape \(\)"):
        call(step_sizes=[0.2, 0.1], distances=1.0)
    with pytest.raises(ValueError, match="step_sizes must be positive and never grow"):
        call(step_sizes=[0.1, 0.2])


def test_the_stated_bounds_name_an_argument_out_of_its_range():
    options = {"topology": LAZY_RING, "constants": theory.Constants(1.0), "step_size": 0.1}
    with pytest.raises(ValueError, match="initial_gap is -1.0"):
        theory.stated_lyapunov_bound(**options, initial_gap=-1.0, num_steps=3)
    with pytest.raises(ValueError, match="num_steps is 0"):
        theory.stated_stationarity_bound(**options, initial_gap=1.0, num_steps=0)
