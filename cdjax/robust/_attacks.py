"""Attacks: what malicious agents send in place of their parameters.

Baruch, Baruch, Goldberg, *A Little Is Enough: Circumventing Defenses For Distributed Learning*,
NeurIPS 2019, arXiv:1902.06156 (:func:`alie`).
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Protocol, runtime_checkable

import jax
import jax.numpy as jnp
import numpy as np
import numpy.typing as npt
from jaxtyping import Array, Bool, Int, PRNGKeyArray

from cdjax._checks import check_callable, check_key, check_mixer, check_range, stacked_size
from cdjax._trees import along_agents
from cdjax._types import Mixer, Params


@runtime_checkable
class Forge(Protocol):
    """Says what malicious agents send."""

    def __call__(
        self,
        tree: Params,
        step: int | Int[Array, ""],
        malicious: Bool[np.ndarray, " agents"],
    ) -> Params:
        """Returns a stacked tree whose malicious rows are sent; the other rows are not read.

        Args:
            tree: what all agents would send if they were honest, stacked.
            step: the step.
            malicious: which agents are, shape (N,).
        """
        ...


def attacked(mix: Mixer, forge: Forge, malicious: npt.ArrayLike) -> Mixer:
    r"""A mixer in whose network some agents lie.

    .. math::
        \text{mixed}^j &= \text{mix}(\tilde{x})^j \text{ if j is honest, else } \text{mix}(x)^j \\
        \tilde{x}^l &= x^l \text{ if l is honest, else } \text{forge}(x)^l

    Malicious agents know the truth, and each other: they mix what all agents have, as if nobody
    lied, and go on training. An honest agent's own parameters are not forged.

    Args:
        mix: the mixer that is attacked; it is called twice.
        forge: what malicious agents send, :func:`sign_flip`, :func:`gaussian_noise` or
            :func:`alie`.
        malicious: the numbers of the malicious agents.

    Returns:
        A mixer. It raises ValueError for a tree that has no such agent, or no honest one.

    Raises:
        ValueError: if ``malicious`` is not a list of different whole numbers.

    Example::

        mix = cdjax.robust.attacked(cdjax.robust.median(topology), cdjax.robust.sign_flip(), [0, 3])
        tx = cdjax.cdsgd(0.01, mix)
    """
    check_mixer(mix)
    check_callable("forge", forge, "what malicious agents send, as cdjax.robust.sign_flip()")
    agents = _checked(malicious)

    def mix_under_attack(tree: Params, step: int | Int[Array, ""] = 0) -> Params:
        num_agents = stacked_size(tree)
        if len(agents) >= num_agents or max(agents, default=0) >= num_agents:
            raise ValueError(
                f"malicious names agents {agents}, but the tree has {num_agents}, 0 to "
                f"{num_agents - 1}; give some of these, not all"
            )
        is_malicious = np.isin(np.arange(num_agents), agents)
        sent = _choose(is_malicious, forge(tree, step, is_malicious), tree)
        return _choose(is_malicious, mix(tree, step), mix(sent, step))

    return mix_under_attack if agents else mix


def sign_flip(scale: float = 1.0) -> Forge:
    r"""Malicious agents send :math:`-c \, x^l`.

    Args:
        scale: c, at least 0.

    Returns:
        A forge for :func:`attacked`.

    Raises:
        ValueError: if the scale is negative or not finite.
    """
    check_range("scale", scale, low=0)

    def forge(
        tree: Params, step: int | Int[Array, ""], malicious: Bool[np.ndarray, " agents"]
    ) -> Params:
        del step, malicious
        return _map_floats(lambda x: -jnp.asarray(scale, x.dtype) * x, tree)

    return forge


def gaussian_noise(deviation: float, key: PRNGKeyArray) -> Forge:
    r"""Malicious agents send :math:`x^l + s \, \xi`, with fresh normal numbers at each step.

    Args:
        deviation: s, the noise's standard deviation in the units of the parameters, at least 0.
        key: of all draws.

    Returns:
        A forge for :func:`attacked`.

    Raises:
        ValueError: if the deviation is negative or not finite.
    """
    check_range("deviation", deviation, low=0)
    check_key(key)

    def forge(
        tree: Params, step: int | Int[Array, ""], malicious: Bool[np.ndarray, " agents"]
    ) -> Params:
        del malicious
        leaves, structure = jax.tree.flatten(tree)
        keys = jax.random.split(jax.random.fold_in(key, step), len(leaves))
        keys = jax.tree.unflatten(structure, list(keys))
        return _map_floats(
            lambda x, leaf_key: (
                x + jnp.asarray(deviation, x.dtype) * jax.random.normal(leaf_key, x.shape, x.dtype)
            ),
            tree,
            keys,
        )

    return forge


def alie(deviations: float = 1.5) -> Forge:
    r"""A little is enough: malicious agents all send :math:`\mu - z \sigma`, number by number.

    :math:`\mu` and :math:`\sigma` are the mean and the standard deviation over the honest agents.
    What is sent lies within the spread of the honest values, so that medians and trimmed means take
    it in, and always on the same side.

    Args:
        deviations: z. The paper takes the largest that hides, with N agents and m malicious ones
            :math:`\Phi^{-1}((N - m - s) / (N - m))` with :math:`s = \lfloor N / 2 + 1 \rfloor - m`.

    Returns:
        A forge for :func:`attacked`.

    Raises:
        ValueError: if z is not finite.

    Reference: Baruch et al. (2019), Algorithm 3.
    """
    check_range("deviations", deviations)

    def forge(
        tree: Params, step: int | Int[Array, ""], malicious: Bool[np.ndarray, " agents"]
    ) -> Params:
        del step

        def leaf(x: Array) -> Array:
            honest = x[~malicious]
            deviation = jnp.std(honest, axis=0, keepdims=True).astype(x.dtype)
            sent = jnp.mean(honest, axis=0, keepdims=True) - deviations * deviation
            return jnp.broadcast_to(sent, x.shape)

        return _map_floats(leaf, tree)

    return forge


def _checked(malicious: npt.ArrayLike) -> list[int]:
    agents = np.asarray(malicious)
    if agents.size and (agents.ndim != 1 or not np.issubdtype(agents.dtype, np.integer)):
        raise ValueError(f"malicious is {malicious!r}; expected a list of agents' numbers")
    numbers = agents.ravel().tolist()
    if len(set(numbers)) < len(numbers) or min(numbers, default=0) < 0:
        raise ValueError(f"malicious is {numbers}; expected different numbers of at least 0")
    return numbers


def _choose(is_malicious: Bool[np.ndarray, " agents"], these: Params, those: Params) -> Params:
    """The malicious agents' rows of one tree, the other rows of another."""

    def leaf(a: Array, b: Array) -> Array:
        return jnp.where(along_agents(is_malicious, b), a, b).astype(b.dtype)

    return jax.tree.map(leaf, these, those)


def _map_floats(forge_leaf: Callable[..., Array], tree: Params, *rest: Params) -> Params:
    """Forges floating-point leaves, in float32 at least; counters pass unchanged."""

    def leaf(x: Array, *rest: Array) -> Array:
        if not jnp.issubdtype(x.dtype, jnp.inexact):
            return x
        return forge_leaf(jnp.asarray(x, jnp.promote_types(x.dtype, jnp.float32)), *rest)

    return jax.tree.map(leaf, tree, *rest)
