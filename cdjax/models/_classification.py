"""Classification of images: initial parameters, loss and metrics, all of one agent."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeAlias

import jax
import jax.numpy as jnp
import optax
from jaxtyping import Array, Float, Int, PRNGKeyArray

from cdjax._types import Params
from cdjax.models._networks import Model

Batch: TypeAlias = "tuple[Float[Array, 'batch height width channels'], Int[Array, ' batch']]"


def init_model(
    model: Model, key: PRNGKeyArray, example: Float[Array, "batch height width channels"]
) -> tuple[Params, Params]:
    """Random parameters of one agent; the arguments are in the order of Flax's ``model.init``.

    Args:
        model: the model.
        key: a random key.
        example: images of the shape to be trained on; the size of the batch does not matter.

    Returns:
        The parameters, and the model state: all other collections, {} for most models.

    Example::

        model = cdjax.models.MLP((16,))
        params, model_state = cdjax.models.init_model(model, key, jnp.ones((1, 8, 8, 1)))
    """
    variables = dict(model.init(key, example, train=False))
    return variables.pop("params", {}), variables


def classification_loss(model: Model) -> Callable[..., Any]:
    r"""The loss of one agent: the mean cross entropy, in nats.

    .. math::
        f(x) = -\frac{1}{B} \sum_{i=1}^{B} \log \mathrm{softmax}(z(x, s_i))_{y_i}

    for logits :math:`z` of the images :math:`s_i` and their labels :math:`y_i`.

    Args:
        model: the model. It may change its model state (BatchNorm) and use a ``dropout`` key.

    Returns:
        ``loss_fn(params, model_state, batch, key) -> (loss, (model_state, metrics))`` with
        ``batch = (images, labels)`` and ``metrics = {"accuracy": ...}``; see
        :mod:`cdjax.training`.

    Example: ``loss_fn = cdjax.models.classification_loss(cdjax.models.MLP((16,)))``
    """

    def loss_fn(
        params: Params, model_state: Params, batch: Batch, key: PRNGKeyArray
    ) -> tuple[Float[Array, ""], tuple[Params, dict[str, Float[Array, ""]]]]:
        images, labels = batch
        variables, rngs = {"params": params, **model_state}, {"dropout": key}
        logits, model_state = model.apply(
            variables, images, train=True, rngs=rngs, mutable=list(model_state)
        )
        metrics = jax.tree.map(jnp.mean, _per_sample(logits, labels))
        return metrics.pop("loss"), (model_state, metrics)

    return loss_fn


def classification_metrics(model: Model) -> Callable[..., dict[str, Float[Array, " batch"]]]:
    """The evaluation of one agent, sample by sample.

    Args:
        model: the model; it is applied with ``train=False``.

    Returns:
        ``metrics_fn(params, model_state, batch)``, which returns the ``loss`` of every sample in
        nats and its ``accuracy`` of 0 or 1, both of shape (batch,).

    Example: ``metrics_fn = cdjax.models.classification_metrics(cdjax.models.MLP((16,)))``
    """

    def metrics_fn(
        params: Params, model_state: Params, batch: Batch
    ) -> dict[str, Float[Array, " batch"]]:
        images, labels = batch
        logits = model.apply({"params": params, **model_state}, images, train=False)
        return _per_sample(logits, labels)

    return metrics_fn


def _per_sample(logits: Any, labels: Array) -> dict[str, Array]:
    return {
        "loss": optax.softmax_cross_entropy_with_integer_labels(logits, labels),
        "accuracy": (jnp.argmax(logits, axis=-1) == labels).astype(jnp.float32),
    }
