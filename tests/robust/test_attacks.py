import jax
import jax.numpy as jnp
import numpy as np
import pytest

from cdjax import mixing, robust, topology
from cdjax.robust._attacks import (
    alie,
    attacked,
    gaussian_noise,
    largest_hidden_deviation,
    sign_flip,
)
from tests.trees import assert_trees_close, random_connected_graph, random_stacked_tree

pytestmark = pytest.mark.sampled(3)

KEY = jax.random.key(5)
GRAPH = topology.from_graph(random_connected_graph(9))
MIX = mixing.dense(GRAPH)
MALICIOUS = [2, 7]
HONEST = [j for j in range(9) if j not in MALICIOUS]
ATTACKS = {"sign": sign_flip(2.0), "noise": gaussian_noise(3.0, KEY), "alie": alie(1.5)}


@pytest.fixture(params=ATTACKS)
def attack(request):
    return ATTACKS[request.param]


def flipped(malicious):
    return attacked(MIX, sign_flip(), malicious=malicious)


def rows(tree, agents):
    return jax.tree.map(lambda x: x[np.asarray(agents)], tree)


def sent(attack, tree, step=0):
    """What the malicious agents send."""
    return rows(attack(tree, step, np.isin(np.arange(9), MALICIOUS)), MALICIOUS)


def test_the_honest_receive_false_parameters_and_the_malicious_true_ones(attack, x64):
    x = np.asarray(random_stacked_tree(9)["bias"])
    mixed = jax.jit(attacked(MIX, attack, malicious=MALICIOUS))(x, 4)
    received = x.copy()
    received[MALICIOUS] = sent(attack, jnp.asarray(x), 4)
    expected = GRAPH.mixing_matrix @ received
    expected[MALICIOUS] = (GRAPH.mixing_matrix @ x)[MALICIOUS]
    np.testing.assert_allclose(mixed, expected, rtol=1e-13, atol=1e-13)


def test_an_agent_without_a_malicious_neighbor_is_not_affected(attack, x64):
    graph, tree = topology.ring(9), random_stacked_tree(9)["bias"]
    mix = mixing.dense(graph)
    far = rows(attacked(mix, attack, malicious=[4])(tree, 0), [0, 1, 2, 6, 7, 8])
    assert_trees_close(far, rows(mix(tree), [0, 1, 2, 6, 7, 8]), rtol=0, atol=0)


def test_the_sign_is_flipped_and_scaled(x64):
    tree = random_stacked_tree(9)
    expected = jax.tree.map(lambda x: -2 * x, rows(tree, MALICIOUS))
    assert_trees_close(sent(sign_flip(2.0), tree), expected, rtol=0, atol=0)


def test_noise_has_its_deviation_and_is_fresh_in_every_step_leaf_and_agent(x64):
    tree = {"a": jnp.full((9, 2000), 7.0), "b": jnp.full((9, 2000), 7.0)}
    noises = [sent(gaussian_noise(3.0, KEY), tree, step) for step in (0, 1)]
    draws = np.concatenate([x for tree in noises for x in jax.tree.leaves(tree)]) - 7
    np.testing.assert_allclose(draws.mean(axis=1), 0, atol=5 * 3 / np.sqrt(2000))
    np.testing.assert_allclose(draws.std(axis=1), 3, rtol=5 / np.sqrt(4000))
    np.testing.assert_allclose(np.corrcoef(draws), np.eye(8), atol=5 / np.sqrt(2000))


def test_alie_sends_the_honest_mean_less_some_deviations(x64):
    x = np.asarray(random_stacked_tree(9)["layer"]["kernel"])
    expected = x[HONEST].mean(axis=0) - 1.5 * x[HONEST].std(axis=0)
    found = sent(alie(1.5), jnp.asarray(x))
    np.testing.assert_allclose(found, np.stack([expected] * 2), rtol=1e-12)


@pytest.mark.parametrize(
    ("num_agents", "num_malicious", "z"),
    # By hand: s = ⌊N/2 + 1⌋ − m and z = Φ⁻¹((N − m − s) / (N − m)), from a table of Φ.
    [(10, 2, 0.0), (50, 12, 0.3360), (50, 24, 1.4261), (5, 4, 0.0)],
)
def test_alies_deviations_are_those_of_its_paper_for_that_many_agents(num_agents, num_malicious, z):
    malicious = np.arange(num_agents) >= num_agents - num_malicious
    assert largest_hidden_deviation(malicious) == pytest.approx(z, abs=1e-4)


def test_what_the_malicious_hold_does_not_matter_to_alie(x64):
    x = random_stacked_tree(9)["bias"]
    other = x.at[np.array(MALICIOUS)].set(jnp.nan)
    np.testing.assert_array_equal(sent(alie(), x), sent(alie(), other))


def test_alie_gets_past_a_trimmed_mean_and_a_sign_flip_does_not(x64):
    graph, x = topology.complete(10), 5 + random_stacked_tree(10)["bias"]
    honest, within = x[1:].mean(axis=0), jnp.ptp(x[1:], axis=0).max()

    def distances(mix, attack):
        mixed = jax.jit(attacked(mix, attack, malicious=[0]))(x, 0)
        return jnp.abs(mixed[1:].mean(axis=0) - honest)

    trimmed = robust.trimmed_mean(graph, 1)
    flipped, little = (distances(trimmed, attack).max() for attack in (sign_flip(100.0), alie(1.0)))
    assert flipped < within and little < within
    assert distances(mixing.dense(graph), sign_flip(100.0)).min() > 10 * flipped


def test_nobody_malicious_is_the_mixer_itself():
    assert flipped([]) is MIX


def test_counters_pass_and_dtypes_stay(attack):
    tree = {"count": jnp.arange(9), "x": jnp.ones((9, 2), jnp.bfloat16)}
    mixed = attacked(MIX, attack, malicious=MALICIOUS)(tree, 0)
    np.testing.assert_array_equal(mixed["count"], np.arange(9))
    assert mixed["x"].dtype == jnp.bfloat16


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (
            lambda: flipped([1, 1]),
            r"malicious is \[1, 1\]; expected different",
        ),
        (lambda: flipped([-1]), r"malicious is \[-1\]; .* at least 0"),
        (
            lambda: flipped([9])(jnp.ones(9), 0),
            r"malicious names agents \[9\], but the tree has 9, 0 to 8",
        ),
        (
            lambda: flipped(range(9))(jnp.ones(9), 0),
            "give some of these, not all",
        ),
        (lambda: sign_flip(-1.0), "scale is -1.0"),
        (lambda: gaussian_noise(np.inf, KEY), "deviation is inf"),
        (lambda: alie(np.nan), "deviations is nan"),
    ],
)
def test_bad_arguments_are_named(call, message):
    with pytest.raises(ValueError, match=message):
        call()
