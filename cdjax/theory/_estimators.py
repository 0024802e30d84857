"""Estimates of the theory's constants for a model and its data. Pure JAX: jit, vmap, shard."""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp
import optax
from jaxtyping import Array, Float, PRNGKeyArray

from cdjax._checks import check_count
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
    r"""Estimates the extreme eigenvalues of a loss's Hessian by power iteration.

    Three runs of :math:`v \leftarrow M v / \|M v\|` with Hessian-vector products: on
    :math:`\nabla^2 f` for its spectral radius r, then on :math:`r I + \nabla^2 f` and
    :math:`r I - \nabla^2 f`, whose largest eigenvalues are those of the two ends.

    Args:
        loss_fn: the loss of one agent; under ``jax.vmap`` of every agent.
        params: the point at which the Hessian is taken; a tree of floating-point leaves.
        key: of the random start.
        num_iterations: Hessian-vector products of each run.

    Returns:
        Both eigenvalues, approached from inside the spectrum. The error falls with the
        2 ``num_iterations``-th power of the ratio of the two leading eigenvalues of M, so
        ``smallest`` converges slowly if many eigenvalues are close to it.

    Raises:
        ValueError: if ``num_iterations`` is not a whole number of at least 1.

    Example::

        extremes = lambda x, b: cdjax.theory.hessian_extremes(lambda p: loss_fn(p, b), x, key=key)
        smoothness = jax.jit(cdjax.agent_map(extremes))(params, batch).largest.max()

    Reference: the constants :math:`\gamma_j` and :math:`H_j` of Assumption 1 of Jiang et al.
    (2017); on quadratics they are these eigenvalues.
    """
    check_count("num_iterations", num_iterations, low=1)

    def run(shift: float | Array, sign: float | Array) -> tuple[Array, Array]:
        """Power iteration on ``shift I + sign ∇²f``: Rayleigh quotient, length of the image."""

        def image(vector: Params) -> Params:
            curved = jax.jvp(jax.grad(loss_fn), (params,), (vector,))[1]
            return jax.tree.map(lambda v, c: shift * v + sign * c, vector, curved)

        start = _unit(optax.tree.random_like(key, params, sampler=jax.random.normal))
        vector = jax.lax.fori_loop(0, num_iterations, lambda _, v: _unit(image(v)), start)
        quotient = jnp.asarray(optax.tree.vdot(vector, image(vector)))
        return quotient, jnp.asarray(optax.tree.norm(image(vector)))

    # Of ∇²f itself, power iteration finds the end of larger modulus, whose sign is unknown; shifted
    # by the radius, the spectrum has one sign, and the end sought is the one of largest modulus.
    _, radius = run(0.0, 1.0)
    ends, _ = jax.lax.map(lambda sign: run(radius, sign), jnp.array([-1.0, 1.0], radius.dtype))
    return HessianExtremes(radius - ends[0], ends[1] - radius)


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


def _unit(vector: Params) -> Params:
    norm = optax.tree.norm(vector)
    # The image under a zero Hessian is zero; without the guard its eigenvalues would be NaN.
    return optax.tree.scale(1 / jnp.where(norm > 0, norm, 1), vector)
