"""The limits of outer steps and momenta: closed forms against eigenvalues and enumeration."""

import numpy as np
import pytest

from cdjax import theory, topology


def radius(matrix):
    return np.max(np.abs(np.linalg.eigvals(matrix)))


@pytest.mark.parametrize("nesterov", [True, False])
@pytest.mark.parametrize("momentum", [0.0, 0.5, 0.9])
def test_the_limit_of_the_outer_step_is_where_the_recursion_ceases_to_contract(momentum, nesterov):
    graph = topology.torus(16)
    limit = theory.outer_step_limit(graph, momentum=momentum, nesterov=nesterov)

    def recursion(eta):
        g, ahead = 1 - graph.smallest_eigenvalue, momentum if nesterov else 0.0
        # v ← μv + gφ, φ ← φ − η(gφ + μv) with Nesterov's, or φ − ηv.
        v = np.array([g, momentum])
        moved = np.array([g, 0]) + ahead * v if nesterov else v
        return radius(np.array([np.array([1, 0]) - eta * moved, v]))

    assert recursion(0.999 * limit) < 1 < recursion(1.001 * limit)


def test_published_limits_of_the_outer_step():
    assert theory.outer_step_limit(topology.complete(5)) == pytest.approx(3.8 / 2.8)
    assert theory.outer_step_limit(topology.torus(16)) == pytest.approx(0.848214, abs=1e-6)
    assert theory.outer_step_limit(topology.ring(5)) == pytest.approx(1.12531518, abs=1e-8)
    # Agents that are at their own optima at the end of a round, and agents that have not moved.
    ring = topology.ring(5)
    assert theory.outer_step_limit(ring, contractions=np.zeros(5)) == pytest.approx(3.8 / 2.8)
    assert theory.outer_step_limit(ring, contractions=np.ones(5)) == pytest.approx(1.12531518)


@pytest.mark.parametrize(("num_agents", "nesterov"), [(4, False), (4, True), (6, False)])
def test_second_moments_in_random_pairs_are_those_of_all_matchings(num_agents, nesterov):
    gamma, mu = 0.4, 0.6
    rng = np.random.default_rng(0)
    x, v = rng.normal(size=(2, num_agents))
    x, v = x - x.mean(), v - v.mean()
    moments = lambda x, v: np.array([x @ x, x @ v, v @ v])  # noqa: E731
    found = []
    for pairs in matchings([*range(num_agents)]):
        apart = x.copy()
        for a, b in pairs:
            apart[[a, b]] -= (x[a] + x[b]) / 2
        after = mu * v + apart
        moved = apart + mu * after if nesterov else after
        found.append(moments(x - gamma * moved, after))
    matrix = theory.random_pairs_moments(num_agents, gamma, momentum=mu, nesterov=nesterov)
    np.testing.assert_allclose(matrix @ moments(x, v), np.mean(found, axis=0), atol=1e-13)


def matchings(agents):
    if not agents:
        yield []
    for other in agents[1:]:
        for rest in matchings([a for a in agents[1:] if a != other]):
            yield [(agents[0], other), *rest]


@pytest.mark.parametrize("momentum", [0.0, 0.5, 0.9])
@pytest.mark.parametrize("num_agents", [2, 4, 16, 10**9])
def test_the_limit_in_random_pairs_is_where_second_moments_cease_to_contract(num_agents, momentum):
    for nesterov in (False, True):
        options = {"momentum": momentum, "nesterov": nesterov}
        limit = theory.random_pairs_step_limit(num_agents, **options)
        below, above = (
            radius(theory.random_pairs_moments(num_agents, share * limit, **options))
            for share in (0.999, 1.001)
        )
        assert below < 1 < above


def test_published_limits_in_random_pairs():
    limit = theory.random_pairs_step_limit
    # NoLoCo's released default, μ = .9 and γ = .7, diverges; its runs' μ = .5 and DiLoCo's do not.
    assert limit(4, momentum=0.9) == pytest.approx(0.542857, abs=1e-6)
    assert limit(16, momentum=0.9) == pytest.approx(0.404, abs=1e-3)
    assert limit(4, momentum=0.5) == pytest.approx(1.8)
    nesterov = [limit(n, momentum=0.9, nesterov=True) for n in (4, 16, 10**9)]
    np.testing.assert_allclose(nesterov, [1.079, 0.900, 0.848], atol=1e-3)


def test_a_step_or_a_momentum_above_its_limit_is_refused_with_the_remedy():
    torus = topology.torus(16)
    theory.check_outer_step(torus, 0.84)
    with pytest.raises(ValueError, match="learning_rate is 0.85; .*torus.* 0.848214 on.*'lazy'"):
        theory.check_outer_step(torus, 0.85)
    theory.check_momentum_before_mix(torus, 0.333)
    with pytest.raises(ValueError, match="momentum is 0.334; before the mix .*'lazy'.*after"):
        theory.check_momentum_before_mix(torus, 0.334)
    theory.check_momentum_before_mix(topology.torus(16, weights="lazy"), 0.9)


def test_bad_arguments_are_named():
    with pytest.raises(ValueError, match="num_agents is 5; agents that all meet in pairs"):
        theory.random_pairs_step_limit(5)
    with pytest.raises(ValueError, match="contractions has shape .*one per agent, 5"):
        theory.outer_step_limit(topology.ring(5), contractions=[0.5])
