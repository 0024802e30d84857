r"""Public copies: what all neighbours of an agent know of it, from compressed differences.

Koloskova, Stich, Jaggi, *Decentralized Stochastic Optimization and Gossip Algorithms with
Compressed Communication*, ICML 2019, arXiv:1902.00340.

Two forms give the same up to rounding. With any mixer the copies :math:`h` are mixed as they are:
one program holds all of them, so nothing travels. With :class:`cdjax.mixing.Exchange` the devices
hold them apart, and :math:`\Pi h` is summed up from the messages, :math:`\Pi h^+ = \Pi h + \Pi q`,
as :math:`\Pi` is fixed: only messages travel, at the price of one more copy of the parameters.
Where :math:`\Pi` changes with the step the first form holds, and presumes that every neighbour
hears every message, whatever its weight at that step.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp
import optax
from jaxtyping import Array, Int

from cdjax._trees import displacement, map_floats
from cdjax._types import Mixer, Params
from cdjax.compress._compressor import Compressor
from cdjax.mixing import Exchange


class PublicCopies(NamedTuple):
    """The public copies h of all agents, and Πh where devices hold them apart."""

    own: Params
    mixed: Params | None


class Publishing(NamedTuple):
    r"""How copies begin, follow what agents have, and pull at them.

    Attributes:
        init: from a stacked tree and whether all know it to the copies: of it, or zeros.
        update: from the copies, the tree that they follow and the step to :math:`h + Q(x - h)`.
        pull: from the copies and the step to :math:`(\Pi - I) h`.
    """

    init: Callable[[Params, bool], PublicCopies]
    update: Callable[[PublicCopies, Params, int | Int[Array, ""]], PublicCopies]
    pull: Callable[[PublicCopies, int | Int[Array, ""]], Params]


def publishing(mix: Mixer, compressor: Compressor) -> Publishing:
    """Public copies that follow by the messages of a compressor, in the form that suits the mixer.

    Args:
        mix: a mixer; a :class:`cdjax.mixing.Exchange` sends messages only.
        compressor: Q.
    """
    if isinstance(mix, Exchange):
        return _apart(mix, compressor)

    def init(tree: Params, known: bool) -> PublicCopies:
        return PublicCopies(_start(tree, known), None)

    def update(copies: PublicCopies, tree: Params, step: int | Int[Array, ""]) -> PublicCopies:
        return PublicCopies(_plus(copies.own, compressor(_gap(tree, copies.own), step)), None)

    def pull(copies: PublicCopies, step: int | Int[Array, ""]) -> Params:
        return displacement(mix(copies.own, step), copies.own)

    return Publishing(init, update, pull)


def _apart(mix: Exchange, compressor: Compressor) -> Publishing:
    send = mix.of_messages(compressor.codec)

    def init(tree: Params, known: bool) -> PublicCopies:
        own = _start(tree, known)
        return PublicCopies(own, mix(tree) if known else _start(tree, known))

    def update(copies: PublicCopies, tree: Params, step: int | Int[Array, ""]) -> PublicCopies:
        own, mixed = send(_gap(tree, copies.own), step)
        return PublicCopies(_plus(copies.own, own), _plus(copies.mixed, mixed))

    def pull(copies: PublicCopies, step: int | Int[Array, ""]) -> Params:
        del step
        return displacement(copies.mixed, copies.own)

    return Publishing(init, update, pull)


def _start(tree: Params, known: bool) -> Params:
    return jax.tree.map(jnp.copy, tree) if known else optax.tree.zeros_like(tree)


def _gap(tree: Params, copies: Params) -> Params:
    return map_floats(lambda x, h: x - h, tree, copies)


def _plus(copies: Params, sent: Params) -> Params:
    return map_floats(lambda h, q: h + q, copies, sent)
