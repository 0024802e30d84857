"""A max pooling whose gradient is cheap: XLA's is a scatter that a CPU walks through slowly."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import jax.numpy as jnp

if TYPE_CHECKING:
    from jaxtyping import Array, Float


def max_pool(
    images: Float[Array, "*batch height width channels"], window_shape: Sequence[int]
) -> Float[Array, "*batch out_height out_width channels"]:
    """Max pooling by windows that tile the image; a ragged border is dropped.

    Equal to ``flax.linen.max_pool(images, window_shape, strides=window_shape)`` in values and in
    gradients: of equal maxima the first gets the whole gradient.

    Args:
        images: shape (..., H, W, C).
        window_shape: rows and columns of a window.

    Returns:
        Shape (..., H // rows, W // columns, C).
    """
    rows, columns = window_shape
    *batch, height, width, channels = images.shape
    height, width = height // rows, width // columns
    tiles = images[..., : height * rows, : width * columns, :]
    tiles = tiles.reshape(*batch, height, rows, width, columns, channels)
    largest = tiles[..., 0, :, 0, :]
    for row in range(rows):
        for column in range(columns):
            other = tiles[..., row, :, column, :]
            # Written with where, not maximum, whose gradient splits among equals. A NaN wins.
            largest = jnp.where((largest < other) | jnp.isnan(other), other, largest)
    return largest
