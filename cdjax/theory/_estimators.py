"""Estimates of the theory's constants for a model and its data. Pure JAX: jit, vmap, shard."""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp
import optax
from jaxtyping import Array, Bool, Float, PRNGKeyArray

from cdjax._checks import check_count
from cdjax._trees import scalar_like
from cdjax._types import Params


class HessianExtremes(NamedTuple):
    """The smallest and the largest eigenvalue of a Hessian."""

    smallest: Float[Array, ""]
    largest: Float[Array, ""]


def hessian_extremes(
    loss_fn: Callable[[Params], Float[Array, ""]],
    params: Params,
    *,
    key: PRNGKeyArray,
    num_iterations: int = 100,
) -> HessianExtremes:
    r"""Estimates the extreme eigenvalues of a loss's Hessian by Lanczos' method.

    Of the Krylov space of a random vector :math:`v_0`, the span of :math:`\nabla^{2i} f \, v_0` for
    i below ``num_iterations``, it builds an orthonormal basis V one Hessian-vector product at a
    time, in which the Hessian is a tridiagonal matrix:

    .. math:: V^T \nabla^2 f \, V = T, \qquad
              \lambda_{\min}(T) \ge \lambda_{\min}(\nabla^2 f), \quad
              \lambda_{\max}(T) \le \lambda_{\max}(\nabla^2 f)

    Args:
        loss_fn: the loss of one agent; under ``jax.vmap`` of every agent.
        params: the point at which the Hessian is taken; a tree of floating-point leaves.
        key: of the random start.
        num_iterations: Hessian-vector products.

    Returns:
        Both eigenvalues, approached from inside the spectrum, up to rounding. An end that stands
        apart from its neighbours is found first.

    Raises:
        ValueError: if ``num_iterations`` is not a whole number of at least 1.

    Example::

        extremes = lambda x, b: cdjax.theory.hessian_extremes(lambda p: loss_fn(p, b), x, key=key)
        smoothness = jax.jit(cdjax.agent_map(extremes))(params, batch).largest.max()

    Reference: the constants :math:`\gamma_j` and :math:`H_j` of Assumption 1 of Jiang et al.
    (2017); on quadratics they are these eigenvalues.
    """
    check_count("num_iterations", num_iterations, low=1)
    # Linearized once, so that a product costs neither the gradient again nor its compilation.
    _, product = jax.linearize(jax.grad(loss_fn), params)
    start = optax.tree.random_like(key, params, sampler=jax.random.normal)
    start = optax.tree.scale(1 / optax.tree.norm(start), start)
    dtype = optax.tree.norm(start).dtype

    def extend(carry: _Lanczos, _: None) -> tuple[_Lanczos, tuple[Array, Array, Array]]:
        """The next column of T, and the next vector: three terms, since T is symmetric."""
        image = product(carry.vector)
        diagonal = jnp.asarray(optax.tree.vdot(carry.vector, image))
        rest = jax.tree.map(
            lambda w, v, u: w - scalar_like(diagonal, w) * v - scalar_like(carry.coupling, w) * u,
            image, carry.vector, carry.last,
        )  # fmt: skip
        coupling = optax.tree.norm(rest)
        scale = jnp.maximum(carry.scale, jnp.abs(diagonal) + coupling)
        # The space is exhausted: what comes after it in T is coupled to nothing.
        ends = carry.ended | (coupling <= 10 * jnp.finfo(dtype).eps * scale)
        inverse = jnp.where(ends, 0, 1 / jnp.where(ends, 1, coupling))
        following = jax.tree.map(lambda w: scalar_like(inverse, w) * w, rest)
        coupling = jnp.where(ends, 0, coupling)
        column = diagonal, coupling, carry.ended
        return _Lanczos(following, carry.vector, coupling, scale, ends), column

    nothing = jnp.zeros([], dtype)
    carry = _Lanczos(start, optax.tree.zeros_like(start), nothing, nothing, nothing > 0)
    diagonal, coupling, is_beyond = jax.lax.scan(extend, carry, length=num_iterations)[1]
    # Filled up with a number that is within the spectrum, and so is no end of it.
    diagonal, beside = jnp.where(is_beyond, diagonal[0], diagonal), coupling[:-1]
    values = jnp.linalg.eigvalsh(jnp.diag(diagonal) + jnp.diag(beside, 1) + jnp.diag(beside, -1))
    return HessianExtremes(values[0], values[-1])


class _Lanczos(NamedTuple):
    """Two basis vectors and what couples them, the size of T, and if the space is exhausted."""

    vector: Params
    last: Params
    coupling: Float[Array, ""]
    scale: Float[Array, ""]
    ended: Bool[Array, ""]


def gradient_bound(gradient_fn: Callable[[Params], Params], points: Params) -> Float[Array, ""]:
    r"""The largest norm of the stacked gradient over the given points: L of Proposition 1.

    Args:
        gradient_fn: all agents' gradients, from the stacked parameters.
        points: stacked parameters, such as a run visits, leaves of shape ``(P, N, ...)``.

    Returns:
        :math:`\max_p \| g(x_p) \|`, over all agents together. It bounds the gradient only at the
        given points; most losses of interest have no bounded gradient.

    Reference: Jiang et al. (2017), Proposition 1.
    """
    return jnp.max(jax.lax.map(lambda point: optax.tree.norm(gradient_fn(point)), points))


def gradient_noise(
    gradient_fn: Callable[[Params, PRNGKeyArray], Params],
    params: Params,
    *,
    key: PRNGKeyArray,
    num_draws: int = 100,
) -> Float[Array, ""]:
    r"""Estimates the variance of the stochastic gradient at a point: Q of Assumption 3.

    .. math:: Q \approx \frac{1}{M - 1} \sum_m \| g_m - \bar{g} \|^2

    The variance of S is the same, because mixing adds no noise. The gradients are not kept: this
    needs memory for three of them, whatever M is.

    Args:
        gradient_fn: all agents' gradients, from ``params`` and a key that draws the minibatches.
        params: the point at which gradients are drawn; a stacked tree.
        key: of the draws; draw m uses ``jax.random.fold_in(key, m)``.
        num_draws: M, at least 2.

    Returns:
        The unbiased variance, summed over all agents and parameters. Its largest value over the
        points of a run is Q for :math:`Q_V = 0`.

    Raises:
        ValueError: if ``num_draws`` is not a whole number of at least 2.

    Reference: Jiang et al. (2017), Assumption 3.
    """
    check_count("num_draws", num_draws, low=2)

    def add(draw: Array, moments: tuple[Params, Array]) -> tuple[Params, Array]:
        # Welford's update: the difference of a sum of squares and a squared sum would cancel.
        mean, squares = moments
        gradient = gradient_fn(params, jax.random.fold_in(key, draw))
        before = optax.tree.sub(gradient, mean)
        mean = optax.tree.add_scale(mean, 1 / (draw + 1), before)
        return mean, squares + optax.tree.vdot(before, optax.tree.sub(gradient, mean))

    zero = optax.tree.zeros_like(jax.eval_shape(gradient_fn, params, key))
    _, squares = jax.lax.fori_loop(0, num_draws, add, (zero, optax.tree.vdot(zero, zero)))
    return squares / (num_draws - 1)
