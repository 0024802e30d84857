"""Flax models and their losses, for one agent each. Flax lives here alone.

A *model* is a Linen module called as ``model.apply(variables, images, train=...)`` on float images
of shape (batch, height, width, channels); it returns logits of shape (batch, classes).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any, TypeAlias

import flax.linen as nn
import jax.numpy as jnp
import optax

from cdjax._conv import conv_general_dilated
from cdjax._pool import max_pool
from cdjax._types import Params

if TYPE_CHECKING:
    from jaxtyping import Array, Float, Int, PRNGKeyArray

Model: TypeAlias = nn.Module
Batch: TypeAlias = "tuple[Float[Array, 'batch height width channels'], Int[Array, ' batch']]"


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


def init_model(
    model: Model, key: PRNGKeyArray, example: Float[Array, "batch height width channels"]
) -> tuple[Params, Params]:
    """Random parameters of one agent.

    Args:
        model: the model.
        key: a random key.
        example: images of the right shape.

    Returns:
        The parameters, and the model state: all other collections, {} for most models.
    """
    variables = dict(model.init(key, example, train=False))
    return variables.pop("params", {}), variables


def classification_loss(model: Model) -> Callable[..., Any]:
    """The loss of one agent: mean cross entropy, in nats.

    Args:
        model: the model; it may change its model state (BatchNorm) and use the ``dropout`` key.

    Returns:
        ``loss_fn(params, model_state, batch, key) -> (loss, (model_state, metrics))`` with
        ``batch = (images, labels)`` and ``metrics = {"accuracy": ...}``; see
        :mod:`cdjax.training`.
    """

    def loss_fn(
        params: Params, model_state: Params, batch: Batch, key: PRNGKeyArray
    ) -> tuple[Float[Array, ""], tuple[Params, dict[str, Float[Array, ""]]]]:
        images, labels = batch
        logits, model_state = model.apply(
            {"params": params, **model_state},
            images,
            train=True,
            rngs={"dropout": key},
            mutable=list(model_state),
        )
        per_sample = _per_sample(logits, labels)
        return jnp.mean(per_sample["loss"]), (
            model_state,
            {"accuracy": jnp.mean(per_sample["accuracy"])},
        )

    return loss_fn


def classification_metrics(model: Model) -> Callable[..., dict[str, Float[Array, " batch"]]]:
    """The evaluation of one agent.

    Args:
        model: the model, applied with ``train=False``.

    Returns:
        ``metrics_fn(params, model_state, batch)``, which gives every sample's ``loss`` in nats and
        ``accuracy`` of 0 or 1, each of shape (batch,).
    """

    def metrics_fn(
        params: Params, model_state: Params, batch: Batch
    ) -> dict[str, Float[Array, " batch"]]:
        images, labels = batch
        return _per_sample(
            model.apply({"params": params, **model_state}, images, train=False), labels
        )

    return metrics_fn


def _per_sample(logits: Any, labels: Array) -> dict[str, Array]:
    return {
        "loss": optax.softmax_cross_entropy_with_integer_labels(logits, labels),
        "accuracy": (jnp.argmax(logits, axis=-1) == labels).astype(jnp.float32),
    }
