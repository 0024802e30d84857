import numpy as np
import pytest

from cdjax import topology


@pytest.mark.parametrize(
    ("matrix", "message"),
    [
        (np.eye(3), r"not connected: its components are \{0\}, \{1\}, \{2\}"),
        ([[0.5, 0.5], [0.4, 0.6]], r"not symmetric: Π\[0, 1\] is 0.5, Π\[1, 0\] is 0.4"),
        (np.eye(20), r"\{2\}, \{3\} and 16 more; join them"),
        (np.kron(np.eye(2), np.ones((9, 9)) / 9), r"\{0, 1, 2, 3, 4, 5, ... 9 agents\}"),
        ([[0.5, 0.5], [0.5, 0.6]], r"row 1 sums to 1.1, not to 1; subtract the .* from Π\[1, 1\]"),
        ([[0.0, 1.0], [1.0, 0.0]], "λ_N is -1, not above -1; use weights 'lazy'"),
        ([[1.5, -0.5], [-0.5, 1.5]], "λ2 is 1, not below 1"),
        ([[1.0, np.nan], [np.nan, 1.0]], r"Π\[0, 1\] is nan"),
        (np.ones((2, 3)), r"shape \(2, 3\); expected \(N, N\)"),
    ],
)
def test_a_matrix_that_fails_assumption_2_says_where(matrix, message):
    with pytest.raises(ValueError, match=message):
        topology.from_matrix(np.asarray(matrix))


def test_validate_false_takes_any_square_finite_matrix():
    matrix = [[0.0, 3.0], [-1.0, 0.0]]
    assert topology.from_matrix(np.array(matrix), validate=False).mixing_matrix.tolist() == matrix
    with pytest.raises(ValueError, match="is inf"):
        topology.from_matrix(np.array([[np.inf]]), validate=False)


def test_negative_weights_pass_where_the_spectrum_allows_them():
    matrix = topology.star(9, "laplacian").mixing_matrix
    assert matrix.min() < 0
    assert topology.from_matrix(matrix).spectral_gap == topology.star(9, "laplacian").spectral_gap


def test_a_large_ring_is_checked_without_its_spectrum():
    graph = topology.ring(200)
    assert "eigenvalues" not in vars(graph)
    assert graph.spectral_gap == pytest.approx(2 / 3 * (1 - np.cos(2 * np.pi / 200)))
