"""Attacks: what malicious agents send in place of their parameters.

Baruch, Baruch, Goldberg, *A Little Is Enough: Circumventing Defenses For Distributed Learning*,
NeurIPS 2019, arXiv:1902.06156 (:func:`alie`).
"""

from __future__ import annotations

from statistics import NormalDist
from typing import Protocol, runtime_checkable

import jax
import jax.numpy as jnp
import numpy as np
import numpy.typing as npt
from jaxtyping import Array, Bool, Int, PRNGKeyArray

from cdjax._checks import (
    check_callable,
    check_key,
    check_mixer,
    check_scalar,
    check_step,
    stacked_size,
)
from cdjax._trees import along_agents, map_floats, mean_over_agents, scalar_like
from cdjax._types import Mixer, Params


@runtime_checkable
class Attack(Protocol):
    """Computes what malicious agents send."""

    def __call__(
        self, tree: Params, step: int | Int[Array, ""], malicious: Bool[np.ndarray, " agents"]
    ) -> Params:
        """Returns a stacked tree whose malicious rows are sent; its other rows are not read.

        ``tree`` is what all agents would send if they were honest; ``malicious`` has shape (N,).
        """
        ...


def attacked(mix: Mixer, attack: Attack, *, malicious: npt.ArrayLike) -> Mixer:
    r"""A mixer for a network in which some agents send false parameters.

    .. math::
        \text{mixed}^j &= \text{mix}(\tilde{x})^j \text{ if j is honest, else } \text{mix}(x)^j \\
        \tilde{x}^l &= x^l \text{ if l is honest, else } \text{attack}(x)^l

    Malicious agents know what everybody has, mix as if all agents were honest, and go on training.

    Args:
        mix: the mixer that is attacked; it is called twice.
        attack: what they send: :func:`sign_flip`, :func:`gaussian_noise` or :func:`alie`.
        malicious: the numbers of the malicious agents.

    Returns:
        A mixer; it needs the step. It raises ValueError for a tree that lacks one of these agents,
        or has no others. Without malicious agents it is ``mix`` itself.

    Raises:
        ValueError: if ``malicious`` is not a list of different whole numbers.

    Example: ``mix = cdjax.robust.attacked(mix, cdjax.robust.sign_flip(), malicious=[0, 3])``
    """
    check_mixer(mix)
    check_callable("attack", attack, "what malicious agents send, as cdjax.robust.sign_flip()")
    agents = np.asarray(malicious)
    if agents.size and (agents.ndim != 1 or not np.issubdtype(agents.dtype, np.integer)):
        raise ValueError(f"malicious is {malicious!r}; expected a list of agents' numbers")
    agents = agents.ravel().tolist()
    if len(set(agents)) < len(agents) or min(agents, default=0) < 0:
        raise ValueError(f"malicious is {agents}; expected different numbers of at least 0")

    def mix_under_attack(tree: Params, step: int | Int[Array, ""] | None = None) -> Params:
        step = check_step(step, "attacked")
        num_agents = stacked_size(tree)
        if len(agents) >= num_agents or max(agents, default=0) >= num_agents:
            raise ValueError(
                f"malicious names agents {agents}, but the tree has {num_agents}, 0 to "
                f"{num_agents - 1}; give some of these, not all"
            )
        is_malicious = np.isin(np.arange(num_agents), agents)
        sent = _choose(is_malicious, attack(tree, step, is_malicious), tree)
        return _choose(is_malicious, mix(tree, step), mix(sent, step))

    return mix_under_attack if agents else mix


def sign_flip(scale: float = 1.0) -> Attack:
    r"""Malicious agents send :math:`-c \, x^l`.

    Args:
        scale: c, at least 0.

    Returns:
        An attack for :func:`attacked`.

    Raises:
        ValueError: if the scale is negative or not finite.
    """
    check_scalar("scale", scale, low=0)
    return lambda tree, step, malicious: map_floats(lambda x: -scalar_like(scale, x) * x, tree)


def gaussian_noise(deviation: float, key: PRNGKeyArray) -> Attack:
    r"""Malicious agents send :math:`x^l + s \, \xi` with standard normal :math:`\xi`.

    The noise is drawn anew at each step, by ``fold_in(key, step)``.

    Args:
        deviation: s, the noise's standard deviation in the units of the parameters, at least 0.
        key: of all draws.

    Returns:
        An attack for :func:`attacked`.

    Raises:
        ValueError: if the deviation is negative or not finite.
    """
    check_scalar("deviation", deviation, low=0)
    check_key(key)

    def noisy(x: Array, leaf_key: PRNGKeyArray) -> Array:
        return x + scalar_like(deviation, x) * jax.random.normal(leaf_key, x.shape, x.dtype)

    def attack(tree: Params, step: int | Int[Array, ""], malicious: np.ndarray) -> Params:
        del malicious
        structure = jax.tree.structure(tree)
        keys = jax.random.split(jax.random.fold_in(key, step), structure.num_leaves)
        return map_floats(noisy, tree, structure.unflatten(keys))

    return attack


def alie(deviations: float | None = None) -> Attack:
    r"""A little is enough: malicious agents all send :math:`\mu - z \sigma`, number by number.

    :math:`\mu` and :math:`\sigma` are the mean and the standard deviation over the honest agents.
    What is sent lies on the same side at every step, near enough to the mean for medians and
    trimmed means to include it.

    Args:
        deviations: z. By default it is the paper's, the largest with which the malicious agents and
            the honest ones further out than they are a majority: with N agents of which m are
            malicious, :math:`z = \Phi^{-1}((N - m - s) / (N - m))` where
            :math:`s = \lfloor N / 2 + 1 \rfloor - m`. For N = 10 and m = 2 that is 0.

    Returns:
        An attack for :func:`attacked`.

    Raises:
        ValueError: if z is not finite.

    Reference: Baruch et al. (2019), Algorithm 3.
    """
    if deviations is not None:
        check_scalar("deviations", deviations)

    def sent(x: Array, malicious: Bool[np.ndarray, " agents"]) -> Array:
        honest = x[~malicious]
        z = largest_hidden_deviation(malicious) if deviations is None else deviations
        mean = mean_over_agents(honest)
        variance = mean_over_agents(jnp.square(jnp.abs(honest - mean[None])))
        return jnp.broadcast_to(mean - z * jnp.sqrt(variance).astype(x.dtype), x.shape)

    return lambda tree, step, malicious: map_floats(lambda x: sent(x, malicious), tree)


def largest_hidden_deviation(malicious: Bool[np.ndarray, " agents"]) -> float:
    """Baruch's z, the quantile at the share of the honest that need not lie further out."""
    num_honest = int((~malicious).sum())
    # One at least: where the malicious are a majority, any z stays hidden.
    supporters = max(len(malicious) // 2 + 1 - int(malicious.sum()), 1)
    share = (num_honest - supporters) / num_honest
    return NormalDist().inv_cdf(share) if share > 0 else 0.0


def _choose(is_malicious: Bool[np.ndarray, " agents"], these: Params, those: Params) -> Params:
    """The malicious agents' rows of one tree, the other rows of another."""
    return jax.tree.map(
        lambda a, b: jnp.where(along_agents(is_malicious, b), a, b).astype(b.dtype), these, those
    )
