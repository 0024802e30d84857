"""Mixers that are polynomials in another one."""

import jax.numpy as jnp
import numpy as np
import pytest
from numpy.polynomial import chebyshev

from cdjax import mixing, topology
from tests.trees import assert_trees_close, random_stacked_tree

GRAPH = topology.torus(16)  # the spectrum is not symmetric: 1 to -0.6
W, SIGMA = GRAPH.mixing_matrix, 1 - GRAPH.spectral_gap
MIX = mixing.dense(GRAPH)


def matrix_of(mix, step=0):
    return np.asarray(mix(jnp.eye(len(W)), step))


@pytest.mark.parametrize("weight", [0.0, 0.3, 1.0])
def test_lazy_is_between_the_identity_and_the_mixer(weight, x64):
    expected = weight * np.eye(16) + (1 - weight) * W
    np.testing.assert_allclose(matrix_of(mixing.lazy(MIX, weight)), expected, atol=1e-15)


@pytest.mark.parametrize("rounds", [1, 2, 5])
def test_repeated_is_a_power(rounds, x64):
    found = matrix_of(mixing.repeated(MIX, rounds))
    np.testing.assert_allclose(found, np.linalg.matrix_power(W, rounds), atol=1e-15)


@pytest.mark.parametrize("rounds", [1, 2, 3, 8])
@pytest.mark.parametrize("sigma", [SIGMA, 0.9])
def test_chebyshev_is_the_polynomial_that_it_says(rounds, sigma, x64):
    values, vectors = np.linalg.eigh(W)
    t = chebyshev.Chebyshev.basis(rounds)
    expected = vectors * (t(values / sigma) / t(1 / sigma)) @ vectors.T
    np.testing.assert_allclose(
        matrix_of(mixing.chebyshev(MIX, rounds, sigma=sigma)), expected, atol=1e-13
    )


@pytest.mark.parametrize("rounds", [1, 2, 3, 8])
def test_chebyshev_contracts_the_worst_eigenvector_by_exactly_its_bound(rounds, x64):
    values, vectors = np.linalg.eigh(W)
    worst = vectors[:, np.argmax(np.where(values < 1 - 1e-9, np.abs(values), 0))]
    mixed = mixing.chebyshev(MIX, rounds, sigma=SIGMA)(jnp.asarray(worst))
    bound = 1 / chebyshev.Chebyshev.basis(rounds)(1 / SIGMA)
    assert np.linalg.norm(mixed) == pytest.approx(bound, rel=1e-12)
    # No eigenvector is left with more of its length.
    matrix = matrix_of(mixing.chebyshev(MIX, rounds, sigma=SIGMA)) - 1 / 16
    assert np.linalg.norm(matrix, 2) == pytest.approx(bound, rel=1e-12)
    assert bound <= SIGMA**rounds


def test_on_a_complete_graph_chebyshev_is_one_mix(x64):
    mix = mixing.dense(topology.complete(16))
    np.testing.assert_allclose(matrix_of(mixing.chebyshev(mix, 4, sigma=0.0)), 1 / 16, atol=1e-15)


def test_agents_that_agree_stay_exactly_as_they_are():
    tree = {"x": jnp.full((16, 3), 0.1)}
    for mix in (mixing.lazy(MIX), mixing.repeated(MIX, 3), mixing.chebyshev(MIX, 5, sigma=SIGMA)):
        np.testing.assert_array_equal(mix(tree)["x"], tree["x"])


def test_rounds_go_through_a_changing_mixer_one_by_one(x64):
    mixers = [mixing.dense(topology.create(name, 16)) for name in ("ring", "star", "path")]
    tree = random_stacked_tree(16)
    found = mixing.repeated(mixing.cycle(*mixers), 2)(tree, 4)  # rounds 8 and 9
    assert_trees_close(found, mixers[0](mixers[2](tree)))


@pytest.mark.parametrize("wrap", [mixing.lazy, lambda mix: mixing.repeated(mix, 2)])
def test_a_mixer_that_needs_the_step_still_does(wrap):
    with pytest.raises(ValueError, match="cycle changes with the step"):
        wrap(mixing.cycle(MIX, MIX))({"x": jnp.zeros(16)})
