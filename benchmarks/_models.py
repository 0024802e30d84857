"""Networks that are only timed: the paper's in Flax's own layers, and a block with attention."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp


class FlaxCNN(nn.Module):
    """The paper's network with Flax's own layers; its parameters are those of cdjax's."""

    dtype: Any = None

    @nn.compact
    def __call__(self, images: jax.Array, *, train: bool = False) -> jax.Array:
        """Logits."""
        x = images
        for features in (32, 64):
            for _ in range(2):
                x = nn.relu(nn.Conv(features, (3, 3), dtype=self.dtype)(x))
            x = nn.max_pool(x, (2, 2), strides=(2, 2))
        x = nn.relu(nn.Dense(512, dtype=self.dtype)(x.reshape(len(x), -1)))
        return nn.Dense(10, dtype=self.dtype)(x).astype(jnp.float32)


class AttentionClassifier(nn.Module):
    """One transformer block on an image's patches, between an embedding and a classifier."""

    width: int = 512
    heads: int = 8
    patch: int = 2
    dtype: Any = None

    @nn.compact
    def __call__(self, images: jax.Array, *, train: bool = False) -> jax.Array:
        """Logits."""
        batch, side = images.shape[0], images.shape[1] // self.patch
        x = images.reshape(batch, side, self.patch, side, self.patch, -1).swapaxes(2, 3)
        x = nn.Dense(self.width, dtype=self.dtype)(x.reshape(batch, side * side, -1))
        attention = nn.MultiHeadDotProductAttention(self.heads, dtype=self.dtype)
        x += attention(nn.LayerNorm(dtype=self.dtype)(x))
        hidden = nn.Dense(4 * self.width, dtype=self.dtype)(nn.LayerNorm(dtype=self.dtype)(x))
        x += nn.Dense(self.width, dtype=self.dtype)(nn.gelu(hidden))
        return nn.Dense(10, dtype=self.dtype)(x.mean(axis=1)).astype(jnp.float32)


def mlp_operations(widths: Sequence[int]) -> float:
    """Operations of a perceptron on one sample, its input first; see ``cnn_operations``."""
    products = [n * m for n, m in zip(widths, widths[1:], strict=False)]
    return 2.0 * (3 * sum(products) - products[0])


def attention_operations(model: AttentionClassifier, side: int, channels: int) -> float:
    """Operations of an attention classifier on one image; see ``cnn_operations``."""
    tokens, width = (side // model.patch) ** 2, model.width
    embedding = tokens * model.patch**2 * channels * width
    projections, products, perceptron = 4 * tokens * width**2, 2 * tokens**2 * width, 8 * width**2
    whole = embedding + projections + products + tokens * perceptron + 10 * width
    return 2.0 * (3 * whole - embedding)
