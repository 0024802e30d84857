"""The networks of the experiments, as Flax Linen modules.

Each is called as ``model.apply(variables, images, train=...)`` on float images of shape
(batch, height, width, channels) and returns logits of shape (batch, num_classes). ``train`` has no
effect on them: there is no dropout and no BatchNorm. They compute in ``dtype``, while parameters
and logits stay float32.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from typing import Any, TypeAlias

import flax.linen as nn
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int8

from cdjax._stored import gradient_kept, kept
from cdjax.models._conv import conv_general_dilated

Model: TypeAlias = nn.Module
Images: TypeAlias = Float[Array, "batch height width channels"]
Pooled: TypeAlias = Float[Array, "batch half_height half_width channels"]
Numbers: TypeAlias = Int8[Array, "batch half_height half_width channels"]
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
            x = nn.relu(gradient_kept(conv(features, dtype=self.dtype)(x)))
            x = _relu_max_pool(gradient_kept(conv(features, dtype=self.dtype)(x)))
        x = nn.relu(nn.Dense(512, dtype=self.dtype)(x.reshape(len(x), -1)))
        return nn.Dense(self.num_classes, dtype=self.dtype)(x).astype(jnp.float32)


class ResNet20(nn.Module):
    """The residual network of 20 layers for small images, with GroupNorm in place of BatchNorm.

    A convolution, three stages of three blocks with 16, 32 and 64 features, and a mean over pixels.
    Shortcuts have no parameters: where a block halves the image, they leave out pixels and fill the
    new features with zeros. ``num_groups`` are those of GroupNorm, whose statistics are of a single
    image, so that agents have none to share or to keep.

    Reference: He, Zhang, Ren, Sun, *Deep Residual Learning for Image Recognition*, CVPR 2016, the
    network for CIFAR-10 with n = 3.
    """

    num_classes: int = 10
    dtype: Any = None
    num_groups: int = 2

    @nn.compact
    def __call__(self, images: Images, *, train: bool = False) -> Logits:
        conv = partial(
            nn.Conv, kernel_size=(3, 3), use_bias=False, kernel_init=nn.initializers.he_normal(),
            dtype=self.dtype, conv_general_dilated=conv_general_dilated,
        )  # fmt: skip
        norm = partial(nn.GroupNorm, num_groups=self.num_groups, dtype=self.dtype)
        x = nn.relu(norm()(conv(16)(images)))
        for features in (16, 32, 64):
            for block in range(3):
                stride = 2 if block == 0 and features > 16 else 1
                inner = nn.relu(norm()(conv(features, strides=stride)(x)))
                shortcut = x[:, ::stride, ::stride]
                new = features - shortcut.shape[3]
                shortcut = jnp.pad(shortcut, [(0, 0), (0, 0), (0, 0), (0, new)])
                x = nn.relu(norm()(conv(features)(inner)) + shortcut)
        x = jnp.mean(x, (1, 2))
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


@jax.custom_jvp
def _relu_max_pool(images: Images) -> Pooled:
    """ReLU and 2×2 max pooling with stride 2; an odd last row or column is cropped, as VALID does.

    Of equal maxima the first one receives the whole gradient, as in XLA. Ties are common in images
    with flat areas: a reshape and ``jnp.max`` would split the gradient equally. A NaN is the
    maximum, so that divergence shows.
    """
    return _largest(images)[0]


@_relu_max_pool.defjvp
def _relu_max_pool_jvp(primals: tuple[Images], tangents: tuple[Images]) -> tuple[Pooled, Pooled]:
    """The tangent is a sum over each window in which the largest pixel alone has weight.

    Its transpose is a product with that weight, for which XLA:CPU uses vector instructions. It
    does not for the transpose of strided slices, nor for numbers that are compared as int8. With
    ``nn.relu`` and slices, both layers of an agent took 13 ms in a step of the paper's CNN on two
    cores, and so they take 4 ms. The gradient of ``nn.max_pool``, a scatter, is slower than either.
    """
    pooled, number = _largest(primals[0])
    batch, height, width, channels = pooled.shape
    windows = tangents[0][:, : 2 * height, : 2 * width]
    windows = windows.reshape(batch, height, 2, width, 2, channels)
    own = jnp.arange(4, dtype=jnp.float32).reshape(1, 1, 2, 1, 2, 1)
    # Else XLA:CPU would compare all windows again, three times in a backward pass, in slow code.
    (number,) = kept([number], 3 - number[0, 0, 0, 0])  # none is above 3
    largest = number.astype(jnp.float32)[:, :, None, :, None] == own
    return pooled, jnp.sum(jnp.where(largest, windows, 0), (2, 4))


def _largest(images: Images) -> tuple[Pooled, Numbers]:
    """The largest pixel of each window, or zero, and the first one's number; -1 for zero."""
    height, width = (size // 2 * 2 for size in images.shape[1:3])
    first, *others = (
        images[:, row:height:2, column:width:2] for row in (0, 1) for column in (0, 1)
    )
    largest = jnp.maximum(first, 0)
    number = jnp.where(first <= 0, jnp.int8(-1), jnp.int8(0))
    for i, pixels in enumerate(others, 1):
        number = jnp.where(largest >= pixels, number, jnp.int8(i))
        largest = jnp.maximum(largest, pixels)
    return largest, number
