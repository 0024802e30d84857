import jax
import jax.numpy as jnp
import numpy as np
import pytest

import cdjax
from cdjax import mixing, theory, topology

GRAPHS = [topology.ring(5), topology.ring(8, "lazy"), topology.star(6), topology.torus(16)]


def lyapunov_spectrum(graph, curvatures, step_size):
    """The eigenvalues of V's Hessian for f_j = ½ h_j x², rising."""
    identity = np.eye(graph.num_agents)
    return np.linalg.eigvalsh(curvatures * identity + (identity - graph.mixing_matrix) / step_size)


@pytest.mark.parametrize("graph", GRAPHS, ids=str)
def test_constants_of_lyapunov_are_its_extreme_eigenvalues_for_equal_curvatures(graph):
    spectrum = lyapunov_spectrum(graph, 3.0, 0.1)
    assert theory.lyapunov_smoothness(graph, 3.0, step_size=0.1) == pytest.approx(
        spectrum[-1], rel=1e-12
    )
    assert spectrum[0] == pytest.approx(3.0)  # the losses' own


@pytest.mark.parametrize("graph", GRAPHS, ids=str)
def test_theorem_1s_strong_convexity_is_the_second_smallest_eigenvalue(graph):
    theorem = theory.stated_strong_convexity(graph, 3.0, step_size=0.1, form="theorem")
    spectrum = lyapunov_spectrum(graph, 3.0, 0.1)
    assert theorem == pytest.approx(spectrum[1], rel=1e-12)
    definition = theory.stated_strong_convexity(graph, 3.0, step_size=0.1)
    assert definition == pytest.approx((3 + theorem) / 2, rel=1e-12)
    assert spectrum[0] + 0.4 < definition < theorem


def test_the_papers_two_strong_convexities_on_the_lazy_ring_of_five():
    values = [
        theory.stated_strong_convexity(topology.ring(5, "lazy"), 1.0, step_size=0.1, form=form)
        for form in ("definition", "theorem")
    ]
    np.testing.assert_allclose(values, [2.1516, 3.3033], atol=5e-5)


def test_one_agent_has_the_strong_convexity_of_its_loss():
    for form in ("definition", "theorem"):
        assert theory.stated_strong_convexity(topology.ring(1), 1.0, step_size=0.1, form=form) == 1


def test_eq_10_fails_in_consensus_and_holds_with_the_losses_convexity():
    graph, alpha = topology.ring(5, "lazy"), 0.1
    hessian = np.eye(5) + (np.eye(5) - graph.mixing_matrix) / alpha  # of V for f_j = ½ x²
    x = np.ones(5)
    gap, square = x @ hessian @ x / 2, np.sum((hessian @ x) ** 2)
    assert 2 * 1.0 * gap <= square * (1 + 1e-12)
    for form in ("definition", "theorem"):
        stated = theory.stated_strong_convexity(graph, 1.0, step_size=alpha, form=form)
        assert 2 * stated * gap > 2 * square


def test_the_necessary_limit_for_full_gradients_is_the_tight_one():
    for graph in GRAPHS:
        necessary = theory.necessary_step_limit(graph, theory.Constants(3.0))
        assert necessary == pytest.approx(theory.tight_step_limit(graph, 3.0), rel=1e-12)
    constants = theory.Constants(4.0, noise_growth=0.1, alignment=0.9, length=1.05)
    graph = topology.from_matrix([[0.95, 0.05], [0.05, 0.95]])
    limit = theory.necessary_step_limit(graph, constants)
    assert 2 * theory.descent_limit(graph, constants, step_size=limit) == pytest.approx(limit)
    descent = theory.guaranteed_descent(graph, constants, step_size=limit)
    assert descent == pytest.approx(0, abs=1e-12)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"alignment": 2.0}, "constants.length is 1.0; it must lie in"),
        ({"alignment": 0.0}, "constants.alignment is 0.0"),
        ({"noise": -1.0}, "constants.noise is -1.0"),
        ({"noise_growth": -1.0}, "constants.noise_growth is -1.0"),
    ],
)
def test_constants_that_assumption_3_excludes_are_named(options, message):
    constants = theory.Constants(1.0, 1.0, **options)
    for function in (theory.guaranteed_descent, theory.descent_limit):
        with pytest.raises(ValueError, match=message):
            function(topology.ring(5, "lazy"), constants, step_size=0.1)
    with pytest.raises(ValueError, match=message):
        theory.sufficient_step_limit(topology.ring(5, "lazy"), constants)
    with pytest.raises(ValueError, match=message):
        theory.stated_lyapunov_bound(
            topology.ring(5, "lazy"), constants, step_size=0.1, initial_gap=1.0, num_steps=2
        )


def test_constants_of_lyapunov_bound_its_spectrum_for_unequal_curvatures():
    graph, curvatures = topology.star(6), np.array([1.0, 2, 5, 3, 3, 4])
    spectrum = lyapunov_spectrum(graph, curvatures, 0.2)
    assert 1.0 <= spectrum[0]
    assert spectrum[-1] <= theory.lyapunov_smoothness(graph, 5.0, step_size=0.2)


def test_second_moment_is_noise_growth_plus_length_squared():
    assert theory.Constants(1.0).second_moment == 1
    assert theory.Constants(1.0, noise_growth=0.5, length=2.0).second_moment == 4.5


def test_the_sufficient_limit_solves_the_implicit_one():
    constants = theory.Constants(4.0, noise_growth=0.1, alignment=0.9, length=1.05)
    graph = topology.from_matrix([[0.95, 0.05], [0.05, 0.95]])
    limit = theory.sufficient_step_limit(graph, constants)
    assert limit > 0
    implicit = theory.descent_limit(graph, constants, step_size=limit)
    assert implicit == pytest.approx(limit, rel=1e-12)


def test_limits_on_a_lazy_ring_have_closed_forms():
    graph, constants = topology.ring(8, "lazy"), theory.Constants(2.0)
    assert theory.sufficient_step_limit(graph, constants) == pytest.approx(1 / 3 / 2)  # λN / γ
    assert theory.tight_step_limit(graph, 2.0) == pytest.approx(4 / 3 / 2)
    implicit = theory.descent_limit(graph, constants, step_size=0.1)
    assert implicit == pytest.approx(1 / (2 + 2 / 3 / 0.1))


@pytest.mark.parametrize("graph", [topology.complete(5), topology.ring(8), topology.torus(16)])
def test_no_step_meets_the_sufficient_limit_of_graphs_with_no_positive_spectrum(graph):
    assert theory.sufficient_step_limit(graph, theory.Constants(1.0)) <= 1e-12


def largest_growth(tx, graph, curvature):
    """The spectral radius of the linear map that a step is, on f_j = ½ γ x²."""
    num_agents = graph.num_agents
    state = tx.init(jnp.zeros(num_agents))

    def step(vector):
        x, velocity = jnp.split(vector, 2)
        momentum = state._replace(velocity=velocity) if hasattr(state, "velocity") else state
        updates, after = tx.update(curvature * x, momentum, x)
        return jnp.concatenate([x + updates, getattr(after, "velocity", 0 * x)])

    matrix = jax.jit(jax.jacobian(step))(jnp.zeros(2 * num_agents))
    return np.abs(np.linalg.eigvals(np.asarray(matrix))).max()


@pytest.mark.parametrize(
    ("make", "options"),
    [
        (cdjax.cdsgd, {}),
        (cdjax.cdmsgd, {"momentum": 0.9}),  # Nesterov's, by default of both
        (cdjax.cdmsgd, {"momentum": 0.5, "nesterov": True}),
        (cdjax.cdmsgd, {"momentum": 0.9, "nesterov": False}),
    ],
)
@pytest.mark.parametrize("graph", [topology.ring(5), topology.star(6)], ids=str)
@pytest.mark.sampled(4)
def test_the_tight_limit_is_where_steps_begin_to_diverge(graph, make, options, x64):
    mix, curvature = mixing.dense(graph), 3.0
    limit = theory.tight_step_limit(graph, curvature, **options)
    tx = lambda a: make(a, mix, **options)  # noqa: E731
    assert largest_growth(tx(limit * 0.999), graph, curvature) < 1
    assert largest_growth(tx(limit * 1.001), graph, curvature) > 1


def test_guaranteed_descent_falls_to_alignment_at_eq_15_and_zero_at_the_tight_limit():
    graph, constants = topology.ring(8, "lazy"), theory.Constants(2.0)
    sufficient = theory.sufficient_step_limit(graph, constants)
    tight = theory.tight_step_limit(graph, 2.0)
    descents = [
        theory.guaranteed_descent(graph, constants, step_size=step_size)
        for step_size in (0.1, sufficient, tight)
    ]
    np.testing.assert_allclose(descents, [2 - 0.1 * 2 - 2 / 3, 1, 0], atol=1e-12)


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (
            lambda g: theory.lyapunov_smoothness(g, 0.0, step_size=0.1),
            r"smoothness is 0.0; .* \(0, inf",
        ),
        (lambda g: theory.lyapunov_smoothness(g, 1.0, step_size=0.0), "step_size is 0.0"),
        (
            lambda g: theory.stated_strong_convexity(g, -1.0, step_size=0.1),
            "strong_convexity is -1.0",
        ),
        (lambda g: theory.tight_step_limit(g, 1.0, momentum=1.0), r"momentum is 1.0; .* \[0, 1\)"),
    ],
)
def test_an_argument_out_of_its_range_is_named(call, message):
    with pytest.raises(ValueError, match=message):
        call(topology.ring(5))
