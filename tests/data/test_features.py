import numpy as np
import pytest

from cdjax.data import partition, skew_features

IMAGES = np.random.default_rng(0).integers(0, 256, (8, 5, 5, 3), np.uint8)
AGENTS = np.arange(8) % 4


def test_agents_see_images_turned_by_quarters():
    turned = skew_features(IMAGES, AGENTS, num_agents=4, kind="rotation")
    for image, found, agent in zip(IMAGES, turned, AGENTS, strict=True):
        np.testing.assert_array_equal(found, np.rot90(image, agent))
    # Eight agents are four pairs that see the same.
    pairs = skew_features(IMAGES, np.arange(8), num_agents=8, kind="rotation")
    np.testing.assert_array_equal(pairs[5], np.rot90(IMAGES[5], 2))


def test_a_tint_scales_each_channel_and_differs_between_agents():
    white = np.full((4, 2, 2, 3), 255, np.uint8)
    tinted = skew_features(white, np.arange(4), num_agents=4, kind="tint")
    assert tinted.dtype == np.uint8 and tinted[0, 0, 0, 0] == 255
    assert tinted.min() >= round(0.4 * 255)
    assert len({tuple(image[0, 0]) for image in tinted}) == 4
    assert (tinted == tinted[:, :1, :1]).all()


def test_what_cannot_be_skewed_is_named():
    with pytest.raises(ValueError, match="images are 4 × 5; only square ones can be turned"):
        skew_features(
            np.zeros((1, 4, 5, 1), np.uint8), np.zeros(1, int), num_agents=1, kind="rotation"
        )
    with pytest.raises(ValueError, match="unknown kind 'tilt'"):
        skew_features(IMAGES, AGENTS, num_agents=4, kind="tilt")


@pytest.mark.parametrize("power", [0.0, 1.0, 2.0])
def test_sizes_of_a_quantity_partition_follow_zipfs_law(power):
    parts = partition(np.zeros(10_000, int), 5, scheme="quantity", power=power)
    sizes = sorted((len(part) for part in parts), reverse=True)
    shares = (1.0 + np.arange(5)) ** -power
    np.testing.assert_allclose(sizes, 10_000 * shares / shares.sum(), atol=1)
    np.testing.assert_array_equal(np.sort(np.concatenate(parts)), np.arange(10_000))


def test_too_unequal_a_partition_is_named():
    with pytest.raises(ValueError, match="take a power smaller than 9, another seed or fewer"):
        partition(np.zeros(50, int), 10, scheme="quantity", power=9)
