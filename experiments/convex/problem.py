"""Softmax regression with L2, its constants, and its minima by Newton's method."""

from __future__ import annotations

import functools
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax

from cdjax import data, theory

# Images of a longer side are averaged over blocks, so that a run takes seconds.
_SIDE = 8


class Problem(NamedTuple):
    """Every agent's samples, stacked; parameters have the shape (N, d, C).

    ``features``, of shape (N, n, d), are centred, and the mean of all samples' squared norms is 1.
    ``labels`` and ``weights`` have the shape (N, n); these are 1/n_j on agent j's samples and 0 on
    the padding.
    """

    features: jax.Array
    labels: jax.Array
    weights: jax.Array
    l2: float
    num_classes: int

    @property
    def shape(self) -> tuple[int, int, int]:
        """The shape of the stacked parameters."""
        return (self.features.shape[0], self.features.shape[2], self.num_classes)


def build(dataset: data.Dataset, parts: Sequence[np.ndarray], *, l2: float) -> Problem:
    """The problem of agents that hold these parts of a data set's training samples."""
    features = _features(dataset.train_images)
    longest = max(map(len, parts))
    rows = np.stack([np.resize(part, longest) for part in parts])
    weights = np.stack([(np.arange(longest) < len(part)) / len(part) for part in parts])
    arrays = map(jnp.asarray, (features[rows], dataset.train_labels[rows], weights))
    return Problem(*arrays, l2, dataset.num_classes)


def losses(problem: Problem, params: jax.Array) -> jax.Array:
    """Every agent's mean cross entropy plus ½ l2 ‖x‖², shape (N,)."""
    logits = jnp.einsum("jid,jdc->jic", problem.features, params)
    entropies = optax.softmax_cross_entropy_with_integer_labels(logits, problem.labels)
    penalty = problem.l2 / 2 * jnp.sum(params**2, axis=(1, 2))
    return jnp.sum(problem.weights * entropies, axis=1) + penalty


@jax.jit
def gradients(problem: Problem, params: jax.Array) -> jax.Array:
    """Every agent's gradient of its loss, shaped like the parameters."""
    return jax.grad(lambda x: losses(problem, x).sum())(params)


def minibatch(problem: Problem, key: jax.Array, batch_size: int) -> Problem:
    """The problem of one minibatch per agent, drawn with replacement."""
    sizes = jnp.sum(problem.weights > 0, axis=1, keepdims=True)
    indices = jax.random.randint(key, (len(sizes), batch_size), 0, sizes)
    features, labels = data.take_batch((problem.features, problem.labels), indices)
    weights = jnp.full(labels.shape, 1 / batch_size)
    return problem._replace(features=features, labels=labels, weights=weights)


def smoothness_bound(problem: Problem) -> float:
    r"""The largest eigenvalue that any agent's Hessian has anywhere, or a little more.

    The Hessian in the logits, diag(p) − ppᵀ, is at most ½ I (Böhning, *Multinomial Logistic
    Regression Algorithm*, Annals of the Institute of Statistical Mathematics 1992), so γ_j is at
    most half of the largest eigenvalue of agent j's second moments, plus l2.
    """
    features, weights = np.asarray(problem.features), np.asarray(problem.weights)
    moments = np.einsum("jid,ji,jie->jde", features, weights, features)
    return float(np.linalg.eigvalsh(moments).max() / 2 + problem.l2)


@jax.jit
def largest_curvature(problem: Problem, params: jax.Array) -> jax.Array:
    """The largest eigenvalue of any agent's Hessian at its parameters, by power iteration."""

    def of_agent(samples: Sequence[jax.Array], x: jax.Array) -> jax.Array:
        alone = Problem(*(array[None] for array in samples), problem.l2, problem.num_classes)
        key = jax.random.key(0)
        return theory.hessian_extremes(lambda x: losses(alone, x[None])[0], x, key=key).largest

    return jnp.max(jax.vmap(of_agent)(problem[:3], params))


def minimise(
    value_fn: Callable[..., jax.Array], start: jax.Array, *args: Any, tolerance: float = 1e-9
) -> jax.Array:
    """The minimiser of a smooth, strongly convex function by Newton's method.

    ``value_fn`` is jitted, of the point and ``args``; ``tolerance`` is that of the gradient's norm.

    Raises:
        RuntimeError: if the gradient does not become so small in 100 steps.
    """
    # scipy.optimize.minimize judges its steps by the function's value, which rounding hides below a
    # gradient of 1e-8. On 9 Lyapunov functions of the ring "trust-ncg" missed 1e-9 twice and
    # "trust-krylov" always, in 76 and 83 s; this takes 2.2 s.
    point, (gradient, direction) = start, _newton(value_fn, start, *args)
    for _ in range(100):
        norm = float(jnp.linalg.norm(gradient))
        if norm <= tolerance:
            return point
        for halvings in range(20):
            # The gradient's norm falls along Newton's direction as the value does.
            new_point = point - 0.5**halvings * direction
            new_gradient, new_direction = _newton(value_fn, new_point, *args)
            if float(jnp.linalg.norm(new_gradient)) < norm:
                break
        point, gradient, direction = new_point, new_gradient, new_direction
    raise RuntimeError(f"Newton's method stopped at a gradient of norm {norm:.1e}")


@functools.partial(jax.jit, static_argnums=0)
def _newton(
    value_fn: Callable[..., jax.Array], point: jax.Array, *args: Any
) -> tuple[jax.Array, jax.Array]:
    """The gradient, and Newton's direction to three digits: close enough to keep it superlinear."""
    gradient, hessian_times = jax.linearize(jax.grad(lambda x: value_fn(x, *args)), point)
    return gradient, jax.scipy.sparse.linalg.cg(hessian_times, gradient, tol=1e-3)[0]


def _features(images: np.ndarray) -> np.ndarray:
    block = -(-images.shape[1] // _SIDE)
    height, width = (side // block * block for side in images.shape[1:3])
    grey = images[:, :height, :width].mean(axis=3)
    blocks = grey.reshape(len(grey), height // block, block, width // block, block)
    features = blocks.mean(axis=(2, 4)).reshape(len(grey), -1)
    features -= features.mean(axis=0)
    return features / np.sqrt(np.mean(np.sum(features**2, axis=1)))
