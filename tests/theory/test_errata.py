"""Counterexamples to the paper: the points of docs/errata.md, by their numbers there."""

import re
from pathlib import Path

import numpy as np

from cdjax import data, theory, topology

DOC = Path(__file__).parents[2] / "docs" / "errata.md"


def test_1_a_strongly_convex_function_is_not_lipschitz():
    slopes = [((y + 1) ** 2 - y**2) / 2 for y in (1.0, 1e3, 1e6)]
    np.testing.assert_allclose(slopes, [1.5, 1000.5, 1000000.5])


def test_2_assumption_2_allows_negative_eigenvalues_and_negative_weights():
    ring = topology.ring(5)  # passes the check of Assumption 2
    np.testing.assert_allclose(ring.smallest_eigenvalue, -0.206, atol=5e-4)
    path = topology.from_matrix([[0.4, 0.6, 0.0], [0.6, -0.2, 0.6], [0.0, 0.6, 0.4]])
    assert path.mixing_matrix.min() < 0 and path.smallest_eigenvalue < 0
    np.testing.assert_allclose(path.mixing_matrix.sum(axis=0), 1)


def test_7_the_least_v_is_not_the_least_loss_in_consensus():
    graph, alpha, centers = topology.ring(5), 0.1, np.arange(5.0)
    coupling = (np.eye(5) - graph.mixing_matrix) / alpha
    x = np.linalg.solve(np.eye(5) + coupling, centers)
    losses = np.sum((x - centers) ** 2) / 2
    in_consensus = np.sum((centers - centers.mean()) ** 2) / 2
    found = [losses, losses + x @ coupling @ x / 2, in_consensus]
    np.testing.assert_allclose(found, [3.621, 4.249, 5], atol=5e-4)


def test_9_proposition_1_fails_for_two_agents():
    graph, alpha = topology.from_matrix([[0.1, 0.9], [0.9, 0.1]]), 1.0
    gradients = np.array([1.0, -1.0])  # against each other, and turned round in the second step
    x = -alpha * gradients
    x = graph.mixing_matrix @ x + alpha * gradients
    distance, norm = np.linalg.norm(x - x.mean()), np.linalg.norm(gradients)
    stated = theory.stated_consensus_bound(graph, alpha, gradient_bound=norm)
    corrected = theory.consensus_bound(graph, [alpha] * 3, gradient_bound=norm)
    assert stated < distance <= corrected[2] * (1 + 1e-12)


def test_15_the_second_batch_of_a_lap_is_what_the_first_has_left():
    indices = data.batch_indices([2], 1, first_step=0, num_steps=2, seed=0)
    assert sorted(np.ravel(indices)) == [0, 1]


def test_every_test_that_the_page_names_exists():
    names = re.findall(r"`(test_\w+)`", DOC.read_text())
    text = "".join(path.read_text() for path in Path(__file__).parent.glob("test_*.py"))
    assert len(names) == 3 and all(f"def {name}(" in text for name in names)
