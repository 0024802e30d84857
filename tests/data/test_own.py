import numpy as np
import pytest

from cdjax import data


def test_a_tree_is_dealt_as_its_parts_say():
    samples = {"x": np.arange(20).reshape(10, 2), "y": np.arange(10.0)}
    parts = [np.array([3, 1, 4]), np.array([9])]
    stacked, sizes = data.deal(samples, parts)
    np.testing.assert_array_equal(sizes, [3, 1])
    np.testing.assert_array_equal(stacked["y"], [[3, 1, 4], [9, 9, 9]])
    np.testing.assert_array_equal(stacked["x"][0], [[6, 7], [2, 3], [8, 9]])
    assert data.deal(samples, parts[1:], longest=3)[0]["y"].shape == (1, 3)


def test_without_labels_samples_are_dealt_at_random_and_each_once():
    by_number, by_labels = data.partition(103, 4), data.partition(np.arange(103) % 7, 4)
    for a, b in zip(by_number, by_labels, strict=True):
        np.testing.assert_array_equal(a, b)
    np.testing.assert_array_equal(np.sort(np.concatenate(by_number)), np.arange(103))


@pytest.mark.parametrize("scheme", ["dirichlet", "shards", "classes"])
def test_other_schemes_need_whole_labels(scheme):
    with pytest.raises(ValueError, match="one label per sample, or with scheme 'iid' the number"):
        data.partition(100, 4, scheme=scheme)


def test_leaves_of_different_lengths_are_named():
    with pytest.raises(ValueError, match=r"different numbers of samples.*'x'.*3.*'y'.*4"):
        data.deal({"x": np.ones(3), "y": np.ones(4)}, [np.array([0])])


def test_a_leaf_without_samples_is_named():
    with pytest.raises(ValueError, match=r"leaf \['x'\]\[0\] is 1; every leaf leads with the sam"):
        data.deal({"x": [1, 2]}, [np.array([0])])


def test_an_index_that_does_not_exist_is_named():
    with pytest.raises(ValueError, match="agent 1 samples 0 to 3; there are 3"):
        data.deal(np.ones(3), [np.array([0]), np.array([0, 3])])


def test_batches_of_all_agents_are_stacked_until_one_has_none():
    def batches(agent, number):
        for step in range(number):
            yield {"x": np.full((2, 3), agent), "step": np.array(step)}

    found = [*data.zip_agents(batches(agent, 3 + agent) for agent in range(4))]
    assert len(found) == 3
    np.testing.assert_array_equal(found[1]["x"][:, 0, 0], [0, 1, 2, 3])
    np.testing.assert_array_equal(found[2]["step"], [2, 2, 2, 2])


def test_a_smaller_batch_is_named():
    with pytest.raises(
        ValueError, match=r"agent 1 has shapes \(1,\), that of agent 0 \(2,\); drop"
    ):
        next(data.zip_agents([[np.ones(2)], [np.ones(1)]]))
