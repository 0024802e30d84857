"""The networks of the experiments, as Flax Linen modules.

Each is called as ``model.apply(variables, images, train=...)`` on float images of shape
(batch, height, width, channels) and returns logits of shape (batch, classes).
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, TypeAlias

import flax.linen as nn
import jax.numpy as jnp
from jaxtyping import Array, Float

from cdjax.models._conv import conv_general_dilated
from cdjax.models._pool import max_pool

Model: TypeAlias = nn.Module


class CNN(nn.Module):
    """The paper's network: twice (two 3×3 convolutions, max pooling), then two dense layers.

    Reference: Jiang et al. (2017), Section 5.

    Attributes:
        num_classes: the number of logits.
        dtype: in which to compute; parameters and logits stay float32.
    """

    num_classes: int = 10
    dtype: Any = None

    @nn.compact
    def __call__(
        self, images: Float[Array, "batch height width channels"], *, train: bool = False
    ) -> Float[Array, "batch classes"]:
        """Logits; ``train`` changes nothing."""
        x = images
        for features in (32, 64):
            for _ in range(2):
                conv = nn.Conv(
                    features,
                    (3, 3),
                    dtype=self.dtype,
                    conv_general_dilated=conv_general_dilated,
                )
                x = nn.relu(conv(x))
            x = max_pool(x, (2, 2), strides=(2, 2))
        x = nn.relu(nn.Dense(512, dtype=self.dtype)(x.reshape(len(x), -1)))
        return nn.Dense(self.num_classes, dtype=self.dtype)(x).astype(jnp.float32)


class MLP(nn.Module):
    """A multilayer perceptron with ReLU.

    Attributes:
        hidden: the widths of the hidden layers.
        num_classes: the number of logits.
        dtype: in which to compute; parameters and logits stay float32.
    """

    hidden: Sequence[int] = (256, 128)
    num_classes: int = 10
    dtype: Any = None

    @nn.compact
    def __call__(
        self, images: Float[Array, "batch height width channels"], *, train: bool = False
    ) -> Float[Array, "batch classes"]:
        """Logits; ``train`` changes nothing."""
        x = images.reshape(len(images), -1)
        for width in self.hidden:
            x = nn.relu(nn.Dense(width, dtype=self.dtype)(x))
        return nn.Dense(self.num_classes, dtype=self.dtype)(x).astype(jnp.float32)


class SoftmaxRegression(nn.Module):
    """One dense layer: a convex problem.

    Attributes:
        num_classes: the number of logits.
        dtype: in which to compute; parameters and logits stay float32.
    """

    num_classes: int = 10
    dtype: Any = None

    @nn.compact
    def __call__(
        self, images: Float[Array, "batch height width channels"], *, train: bool = False
    ) -> Float[Array, "batch classes"]:
        """Logits; ``train`` changes nothing."""
        x = images.reshape(len(images), -1)
        return nn.Dense(self.num_classes, dtype=self.dtype)(x).astype(jnp.float32)
