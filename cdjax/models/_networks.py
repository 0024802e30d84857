"""The networks of the experiments, as Flax Linen modules.

Each is called as ``model.apply(variables, images, train=...)`` on float images of shape
(batch, height, width, channels) and returns logits of shape (batch, num_classes). ``train`` has no
effect on them: there is no dropout and no BatchNorm. They compute in ``dtype``, while parameters
and logits stay float32.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial, reduce
from typing import Any, TypeAlias

import flax.linen as nn
import jax.numpy as jnp
from jaxtyping import Array, Float

from cdjax.models._conv import conv_general_dilated

Model: TypeAlias = nn.Module
Images: TypeAlias = Float[Array, "batch height width channels"]
Logits: TypeAlias = Float[Array, "batch classes"]


class CNN(nn.Module):
    """The paper's network: two blocks of two 3×3 convolutions and max pooling, two dense layers.

    Reference: Jiang et al. (2017), Section 5.
    """

    num_classes: int = 10
    dtype: Any = None

    @nn.compact
    def __call__(self, images: Images, *, train: bool = False) -> Logits:
        conv = partial(nn.Conv, kernel_size=(3, 3), conv_general_dilated=conv_general_dilated)
        x = images
        for features in (32, 64):
            for _ in range(2):
                x = nn.relu(conv(features, dtype=self.dtype)(x))
            x = _max_pool(x)
        x = nn.relu(nn.Dense(512, dtype=self.dtype)(x.reshape(len(x), -1)))
        return nn.Dense(self.num_classes, dtype=self.dtype)(x).astype(jnp.float32)


class MLP(nn.Module):
    """A multilayer perceptron with ReLU; ``hidden`` holds the widths of its hidden layers."""

    hidden: Sequence[int] = (256, 128)
    num_classes: int = 10
    dtype: Any = None

    @nn.compact
    def __call__(self, images: Images, *, train: bool = False) -> Logits:
        x = images.reshape(len(images), -1)
        for width in self.hidden:
            x = nn.relu(nn.Dense(width, dtype=self.dtype)(x))
        return nn.Dense(self.num_classes, dtype=self.dtype)(x).astype(jnp.float32)


class SoftmaxRegression(nn.Module):
    """One dense layer: a convex problem."""

    num_classes: int = 10
    dtype: Any = None

    @nn.compact
    def __call__(self, images: Images, *, train: bool = False) -> Logits:
        x = images.reshape(len(images), -1)
        return nn.Dense(self.num_classes, dtype=self.dtype)(x).astype(jnp.float32)


def _max_pool(images: Images) -> Float[Array, "batch half_height half_width channels"]:
    """2×2 max pooling with stride 2; an odd last row or column is cropped, as VALID does.

    Of equal maxima the first one receives the whole gradient, as in XLA. Ties are common, since
    ReLU makes flat areas of zeros: a reshape and ``jnp.max`` would split the gradient equally and
    change it at 6 % of the pixels behind a ReLU. On a CPU that takes three times as long as this,
    and ``nn.max_pool`` six times, whose gradient is a scatter.
    """
    height, width = (size // 2 * 2 for size in images.shape[1:3])
    corners = [images[:, row:height:2, column:width:2] for row in (0, 1) for column in (0, 1)]
    # where, since the gradient of maximum splits ties too. A NaN wins, so that divergence shows.
    return reduce(lambda x, y: jnp.where((x < y) | jnp.isnan(y), y, x), corners)
