"""Topologies too large for their matrix, and matrices of other kinds than float64 arrays."""

import copy
import pickle
import tracemalloc

import jax.numpy as jnp
import networkx as nx
import numpy as np
import pytest
from scipy import sparse

from cdjax import mixing, topology
from cdjax.topology._entries import entries_of
from cdjax.topology._spectrum import closed_form, extremes

pytestmark = pytest.mark.sampled(2)

LARGE = 100_000
CLOSED = [
    (family, num_agents, weights)
    for family in ("ring", "complete", "exponential", "path", "star", "torus", "grid", "hypercube")
    for num_agents in (4, 8, 16)
    for weights in ("max_degree", "laplacian")
]


@pytest.fixture(scope="module")
def large_ring():
    return topology.ring(LARGE)


@pytest.mark.parametrize(("family", "num_agents", "weights"), CLOSED)
def test_closed_forms_are_the_eigenvalues(family, num_agents, weights):
    graph = topology.create(family, num_agents, weights=weights)
    found = closed_form(graph.entries, graph.laplacian)
    np.testing.assert_allclose(np.sort(found), np.linalg.eigvalsh(graph.mixing_matrix), atol=1e-13)


@pytest.mark.parametrize("family", ["grid", "binary_tree", "random_regular", "star", "path"])
def test_lanczos_finds_the_ends_of_the_spectrum(family):
    graph = topology.create(family, 64)
    expected = np.linalg.eigvalsh(graph.mixing_matrix)
    found = extremes(graph.entries)
    assert found.second == pytest.approx(expected[-2], abs=1e-12)
    assert found.smallest == pytest.approx(expected[0], abs=1e-12)


def test_where_lanczos_is_slow_it_inverts(monkeypatch):
    monkeypatch.setattr("cdjax.topology._spectrum._MOST_RESTARTS", 1)
    graph = topology.path(1500)
    found = extremes(graph.entries)
    assert found.second == pytest.approx((1 + 2 * np.cos(np.pi / 1500)) / 3, abs=1e-12)
    assert found.smallest == pytest.approx((1 - 2 * np.cos(np.pi / 1500)) / 3, abs=1e-12)


def test_a_large_ring_has_its_spectrum_and_no_matrix(large_ring):
    assert large_ring.spectral_gap == pytest.approx(
        2 / 3 * (1 - np.cos(2 * np.pi / LARGE)), rel=1e-6
    )
    assert large_ring.smallest_eigenvalue == pytest.approx(-1 / 3)
    with pytest.raises(ValueError, match="100000 agents would take 80 GB; read topology.entries"):
        _ = large_ring.mixing_matrix
    with pytest.raises(ValueError, match="would take 80 GB"):
        mixing.dense(large_ring)


@pytest.mark.parametrize("plan", ["auto", "neighbors", "shifts"])
def test_a_large_ring_mixes(large_ring, plan):
    x = np.random.default_rng(0).normal(size=(LARGE, 2)).astype(np.float32)
    mixed = getattr(mixing, plan)(large_ring)({"x": jnp.asarray(x)})["x"]
    expected = (x + np.roll(x, 1, axis=0) + np.roll(x, -1, axis=0)) / 3
    np.testing.assert_allclose(mixed, expected, atol=1e-6)


def test_a_topology_holds_no_matrix_until_it_is_asked_for_one():
    tracemalloc.start()
    graph = topology.ring(3000)
    mixing.neighbors(graph)
    _, peak = tracemalloc.get_traced_memory()
    assert peak < 0.2 * 8 * 3000**2
    tracemalloc.reset_peak()
    _ = graph.mixing_matrix
    assert tracemalloc.get_traced_memory()[1] < 1.2 * 8 * 3000**2
    tracemalloc.stop()


@pytest.mark.parametrize("again", [copy.deepcopy, lambda x: pickle.loads(pickle.dumps(x))])
def test_a_copy_is_read_only_too(again):
    graph = topology.from_graph(nx.path_graph(["a", "b", "c"]))
    _ = graph.eigenvalues, graph.mixing_matrix
    other = again(graph)
    np.testing.assert_array_equal(other.mixing_matrix, graph.mixing_matrix)
    assert other.labels == graph.labels and other.name == graph.name
    for array in (other.mixing_matrix, other.eigenvalues, other.entries.weights):
        with pytest.raises(ValueError, match="read-only"):
            array[0] = 2


@pytest.mark.parametrize("num_agents", [3, 5, 7, 16, 34])
@pytest.mark.parametrize("make", [jnp.asarray, lambda matrix: matrix.astype(np.float32)])
def test_a_float32_matrix_is_made_exact(num_agents, make):
    exact = topology.ring(num_agents).mixing_matrix
    graph = topology.from_matrix(make(exact.astype(np.float32)))
    np.testing.assert_allclose(graph.mixing_matrix, exact, atol=1e-7)
    np.testing.assert_allclose(graph.mixing_matrix.sum(axis=1), 1, atol=1e-15)
    by_weights = topology.from_graph(nx.cycle_graph(num_agents), lambda g: make(np.float32(exact)))
    np.testing.assert_array_equal(by_weights.mixing_matrix, graph.mixing_matrix)


@pytest.mark.parametrize(
    ("matrix", "message"),
    [
        (np.float32([[0.6, 0.5], [0.5, 0.6]]), "row 0 sums to 1.1"),
        (np.float32([[0.5, 0.5], [0.4, 0.6]]), "not symmetric"),
        (np.float32([[1 / 3] * 3] * 3).astype(np.float64), "float32 has rounded it"),
        (np.array([[1j]]), "matrix is no array of real numbers: it is complex"),
        (np.ones(1), r"matrix has shape \(1,\)"),
        (np.ones((2, 1)), r"matrix has shape \(2, 1\)"),
        (np.float64(1), r"matrix has shape \(\)"),
        (sparse.csr_array(np.ones((2, 3))), r"matrix has shape \(2, 3\)"),
    ],
)
def test_other_matrices_are_refused(matrix, message, as_users_run_it):
    with pytest.raises(ValueError, match=message):
        topology.from_matrix(matrix)


def test_a_sparse_matrix_is_a_topology():
    torus = topology.torus(12)
    graph = topology.from_matrix(sparse.coo_array(np.asarray(torus.mixing_matrix)))
    np.testing.assert_array_equal(graph.mixing_matrix, torus.mixing_matrix)


def test_entries_are_the_matrix():
    rng = np.random.default_rng(0)
    matrix = rng.normal(size=(7, 7)) * (rng.random((7, 7)) < 0.4)
    entries = entries_of(matrix)
    np.testing.assert_array_equal(np.asarray(entries), matrix)
    np.testing.assert_array_equal(entries.diagonal, matrix.diagonal())
    np.testing.assert_allclose(entries.row_sums(), matrix.sum(axis=1), atol=1e-15)
    np.testing.assert_array_equal(entries.at(*np.indices((7, 7))), matrix)
    np.testing.assert_array_equal(entries.rows(np.array([6, 2])), matrix[[6, 2]])
    assert not entries.off_diagonal.diagonal.any()
