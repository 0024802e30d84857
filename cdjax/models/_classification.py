"""Classification of images: initial parameters, loss and metrics, each for one agent."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeAlias

import jax.numpy as jnp
import optax
from jaxtyping import Array, Float, Int, PRNGKeyArray

from cdjax._types import Params
from cdjax.models._networks import Model

Batch: TypeAlias = "tuple[Float[Array, 'batch height width channels'], Int[Array, ' batch']]"


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
