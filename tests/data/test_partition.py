import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from cdjax.data import PARTITIONS, partition

LABELS = np.random.default_rng(0).integers(10, size=600)


@given(scheme=st.sampled_from(PARTITIONS), num_agents=st.integers(1, 12), seed=st.integers(0, 1000))
def test_every_sample_goes_to_one_agent(scheme, num_agents, seed):
    parts = partition(LABELS, num_agents, scheme=scheme, seed=seed, alpha=5.0)
    assert len(parts) == num_agents
    np.testing.assert_array_equal(np.sort(np.concatenate(parts)), np.arange(600))


def test_iid_sizes_differ_by_one_sample_at_most():
    sizes = [len(part) for part in partition(LABELS, 7)]
    assert max(sizes) - min(sizes) == 1 and sum(sizes) == 600


@pytest.mark.parametrize("scheme", PARTITIONS)
def test_the_same_seed_is_the_same_deal(scheme):
    one, again, other = (partition(LABELS, 5, scheme=scheme, seed=seed) for seed in (1, 1, 2))
    assert all(map(np.array_equal, one, again))
    assert not all(map(np.array_equal, one, other))


def test_dirichlet_shares_have_the_mean_and_variance_of_the_distribution():
    labels, alpha, num_agents = np.zeros(10_000, int), 2.0, 4
    shares = [
        len(partition(labels, num_agents, scheme="dirichlet", seed=seed, alpha=alpha)[0]) / 10_000
        for seed in range(400)
    ]
    mean = 1 / num_agents
    variance = mean * (1 - mean) / (num_agents * alpha + 1)
    assert np.mean(shares) == pytest.approx(mean, abs=4 * np.sqrt(variance / 400))
    assert np.var(shares) == pytest.approx(variance, rel=0.3)


def test_a_small_alpha_is_further_from_iid():
    def largest_share(alpha):
        parts = partition(LABELS, 4, scheme="dirichlet", alpha=alpha, seed=3)
        return np.mean(
            [np.bincount(LABELS[part], minlength=10).max() / len(part) for part in parts]
        )

    assert largest_share(0.3) > 2 * largest_share(100.0)


def test_the_smallest_alphas_are_still_distributions():
    parts = partition(LABELS, 1, scheme="dirichlet", alpha=5e-324)
    assert len(parts[0]) == 600


@pytest.mark.parametrize("alpha", [1e-300, 0.01, 1.0, 1e6])
def test_equal_dirichlet_parts_are_of_equal_size_at_any_alpha(alpha):
    parts = partition(LABELS, 16, scheme="dirichlet-equal", alpha=alpha, seed=2)
    assert {len(part) for part in parts} == {600 // 16, 600 // 16 + 1}
    np.testing.assert_array_equal(np.sort(np.concatenate(parts)), np.arange(600))


def test_equal_dirichlet_mixes_have_the_mean_and_variance_of_the_distribution():
    # So few of so many samples that no class is used up: the first class's share of an agent's 100
    # samples is beta-binomial.
    labels, alpha, size, num_classes = np.arange(100_000) % 4, 0.5, 100, 4
    parts = partition(labels, 1000, scheme="dirichlet-equal", alpha=alpha, seed=0)
    shares = [np.mean(labels[part] == 0) for part in parts]
    mean, total = 1 / num_classes, alpha * num_classes
    variance = mean * (1 - mean) / size * (size + total) / (1 + total)
    assert np.mean(shares) == pytest.approx(mean, abs=1e-9)  # all samples are dealt
    assert np.var(shares) == pytest.approx(variance, rel=0.15)


def test_two_shards_hold_at_most_four_classes():
    for part in partition(np.sort(LABELS), 20, scheme="shards", shards_per_agent=2):
        assert len(np.unique(np.sort(LABELS)[part])) <= 4


def test_with_fewer_agents_than_classes_no_class_is_split():
    parts = partition(LABELS, 4, scheme="classes")
    holders = [{agent for agent in range(4) if c in LABELS[parts[agent]]} for c in range(10)]
    assert all(len(holder) == 1 for holder in holders)
    assert sorted(len(np.unique(LABELS[part])) for part in parts) == [2, 2, 3, 3]


def test_with_more_agents_than_classes_every_agent_has_one():
    parts = partition(LABELS, 25, scheme="classes")
    assert all(len(np.unique(LABELS[part])) == 1 for part in parts)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"num_agents": 0}, "num_agents is 0"),
        ({"num_agents": 601}, "num_agents is 601, more than the 600 samples; take fewer"),
        ({"scheme": "random"}, "unknown scheme 'random'; expected one of iid, dirichlet"),
        ({"scheme": "dirichlet", "alpha": 0.0}, r"alpha is 0.0; it must lie in \(0, inf\)"),
        ({"scheme": "dirichlet", "alpha": np.nan}, "alpha is nan"),
        (
            {"scheme": "shards", "shards_per_agent": 0},
            "shards_per_agent is 0; it must lie in",
        ),
        (
            {"scheme": "shards", "shards_per_agent": 400},
            "shards_per_agent is 400, .* 800 shards, but there are only 600 samples",
        ),
        (
            {"scheme": "dirichlet", "alpha": 1e-3, "num_agents": 30},
            r"agents \d+, .* and \d+ more have no samples; .* take an alpha larger than 0.001",
        ),
    ],
)
def test_errors_name_what_came_and_the_remedy(options, message):
    with pytest.raises(ValueError, match=message):
        partition(LABELS, **{"num_agents": 2} | options)


def test_one_hot_labels_are_refused():
    # With runtime shape checks on, as in these tests, those come first.
    with pytest.raises((ValueError, TypeError), match="labels"):
        partition(np.eye(10, dtype=int)[LABELS], 2)


def test_an_agent_left_empty_is_named():
    # Two agents share the class that has one sample, or the one that has two: as the seed says.
    with pytest.raises(
        ValueError, match="agent 2 has no samples; with scheme 'classes' take another"
    ):
        for seed in range(20):
            partition(np.array([0, 1, 1]), 3, scheme="classes", seed=seed)
