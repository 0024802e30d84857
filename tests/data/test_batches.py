import contextlib

import jax
import jax.numpy as jnp
import jaxtyping
import numpy as np
import pytest

from cdjax import data

SIZES = [10, 7, 12]


def stream(num_steps, *, batch_size=4, first_step=0, seed=0):
    return data.batch_indices(
        SIZES, batch_size, first_step=first_step, num_steps=num_steps, seed=seed
    )


def test_an_agent_uses_up_its_samples_before_it_sees_one_again():
    indices = stream(105)
    for agent, size in enumerate(SIZES):
        laps = indices[:, agent].ravel()[: 30 * size].reshape(30, size)
        np.testing.assert_array_equal(np.sort(laps, axis=1), np.tile(np.arange(size), (30, 1)))
        assert len(np.unique(laps, axis=0)) == 30


@pytest.mark.parametrize("first_step", [0, 1, 5, 17])
def test_the_order_depends_on_the_step_not_on_how_a_run_is_cut(first_step):
    tail = stream(20 - first_step, first_step=first_step)
    np.testing.assert_array_equal(stream(20)[first_step:], tail)


def test_seeds_and_agents_have_orders_of_their_own():
    assert not np.array_equal(stream(5, seed=0), stream(5, seed=1))
    same_size = data.batch_indices([9, 9], 9, first_step=0, num_steps=1, seed=0)
    assert not np.array_equal(same_size[0, 0], same_size[0, 1])


def test_a_batch_may_be_larger_than_an_agents_data():
    indices = data.batch_indices([3], 7, first_step=0, num_steps=1, seed=0)
    assert indices.shape == (1, 1, 7) and set(indices.ravel()) == {0, 1, 2}


def test_stacked_agents_hold_only_their_own_samples():
    images = np.arange(12, dtype=np.uint8).reshape(12, 1, 1, 1)
    parts = [np.array([3, 1, 4, 5]), np.array([9, 2])]
    stacked = data.stack_agents(images, np.arange(12), partition=parts)
    np.testing.assert_array_equal(stacked.labels, [[3, 1, 4, 5], [9, 2, 9, 2]])
    np.testing.assert_array_equal(stacked.images[..., 0, 0, 0], stacked.labels)
    assert stacked.images.dtype == np.uint8 and stacked.labels.dtype == np.int32


@pytest.mark.parametrize(
    ("partition", "message"),
    [
        ([np.array([1]), np.array([], int)], "agent 1 has no samples; deal at least 1"),
        ([], "there are no agents"),
    ],
)
def test_agents_without_samples_are_refused(partition, message):
    with pytest.raises(ValueError, match=message):
        data.stack_agents(np.zeros((2, 1, 1, 1), np.uint8), np.zeros(2, int), partition=partition)


@pytest.mark.parametrize(
    ("sizes", "batch_size", "message"),
    [
        ([3, 0], 2, "agent 1 has no samples"),
        ([3], 0, r"batch_size is 0; it must lie in \[1, inf\)"),
    ],
)
def test_a_walk_needs_samples(sizes, batch_size, message):
    with pytest.raises(ValueError, match=message):
        data.batch_indices(sizes, batch_size, first_step=0, num_steps=1, seed=0)


def test_ten_thousand_agents_of_several_sizes():
    sizes = np.random.default_rng(0).integers(3, 8, size=10_000)
    indices = data.batch_indices(sizes, 4, first_step=1000, num_steps=10, seed=0)
    assert indices.shape == (10, 10_000, 4) and indices.dtype == np.int32
    assert (indices < sizes[:, None]).all() and (indices >= 0).all()


def test_every_permutation_is_as_likely():
    orders = data.batch_indices([3] * 6000, 3, first_step=0, num_steps=1, seed=0)[0]
    _, counts = np.unique(orders, axis=0, return_counts=True)
    # Six orders, 1,000 expected of each; five standard deviations are 144.
    assert len(counts) == 6 and np.abs(counts - 1000).max() < 144


def test_any_stacked_tree_is_gathered():
    tree = {"x": jnp.arange(12.0).reshape(2, 3, 2), "y": [jnp.arange(6).reshape(2, 3)]}
    batch = data.take_batch(tree, np.array([[2], [0]]))
    assert jax.tree.structure(batch) == jax.tree.structure(tree)
    np.testing.assert_array_equal(batch["x"], [[[4, 5]], [[6, 7]]])
    np.testing.assert_array_equal(batch["y"][0], [[2], [3]])


def test_batches_are_gathered_agent_by_agent():
    samples = data.AgentData(
        np.arange(24, dtype=np.uint8).reshape(2, 3, 2, 2, 1), np.arange(6).reshape(2, 3)
    )
    indices = np.array([[2, 0], [1, 1]])
    batch = jax.jit(data.take_batch)(samples, indices)
    np.testing.assert_array_equal(batch.labels, [[2, 0], [4, 4]])
    np.testing.assert_array_equal(batch.images[0, 1], samples.images[0, 0])
    assert batch.images.dtype == jnp.uint8 and batch.images.shape == (2, 2, 2, 2, 1)


def test_normalised_images_have_zero_mean_and_unit_variance():
    images = np.random.default_rng(0).integers(256, size=(9000, 2, 2, 3), dtype=np.uint8)
    images[..., 2] = 7
    mean, std = data.channel_statistics(images)
    np.testing.assert_allclose(mean, images.mean(axis=(0, 1, 2)), rtol=1e-6)
    np.testing.assert_allclose(std, [*images.std(axis=(0, 1, 2))[:2], 1], rtol=1e-6)
    scaled = np.asarray(jax.jit(data.normalise)(jnp.asarray(images), mean=mean, std=std))
    assert scaled.dtype == np.float32
    np.testing.assert_allclose(scaled.mean(axis=(0, 1, 2), dtype=float), 0, atol=1e-5)
    np.testing.assert_allclose(scaled.std(axis=(0, 1, 2), dtype=float), [1, 1, 0], atol=1e-5)


@pytest.mark.parametrize("indices", [[[0, 3]], [[-1, 0]], [[0.0, 1.0]], [0, 1], [[0, 1], [0, 1]]])
def test_indices_that_do_not_exist_are_refused(indices):
    samples = np.zeros((1, 3))
    with jaxtyping_disabled(), pytest.raises(ValueError, match="indices"):
        data.take_batch(samples, np.array(indices))


@pytest.mark.parametrize("sizes", [3, [[3], [4]], [3.0, 4.0]])
def test_sizes_are_one_number_per_agent(sizes):
    with jaxtyping_disabled(), pytest.raises(ValueError, match="sizes are .* shape"):
        data.batch_indices(np.array(sizes), 2, first_step=0, num_steps=1, seed=0)


@pytest.mark.parametrize(
    "part", [np.array([True, False, True]), np.array([[0], [1]]), np.array([0.0, 1.0])]
)
def test_a_part_is_a_list_of_indices_and_no_mask(part):
    with jaxtyping_disabled(), pytest.raises(ValueError, match="gives agent 0 .* np.flatnonzero"):
        data.deal(np.zeros(3), [part])


def test_a_table_is_not_cut_below_the_largest_agent():
    with pytest.raises(ValueError, match="longest is 1, but an agent has 2 samples"):
        data.deal(np.zeros(3), [np.array([0, 1])], longest=1)


@pytest.mark.parametrize("mean", [np.zeros(1), np.zeros(4), np.zeros((3, 1)), np.float64(0)])
def test_a_mean_is_one_number_per_channel(mean):
    images = jnp.zeros((2, 4, 4, 3), jnp.uint8)
    with jaxtyping_disabled(), pytest.raises(ValueError, match=r"mean has shape .* \(3,\)"):
        data.normalise(images, mean=mean, std=np.ones(3))


@contextlib.contextmanager
def jaxtyping_disabled():
    """As users run it: without the type checks of the tests, which stop a wrong type before."""
    jaxtyping.config.update("jaxtyping_disable", True)
    try:
        yield
    finally:
        jaxtyping.config.update("jaxtyping_disable", False)
