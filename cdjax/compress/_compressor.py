r"""What a compressor is: an agent's leaf becomes a small message, and is read again.

A compressor :math:`Q` contracts with :math:`\delta \in (0, 1]`:

.. math:: E \| Q(x) - x \|^2 \le (1 - \delta) \| x \|^2

Koloskova, Stich, Jaggi, *Decentralized Stochastic Optimization and Gossip Algorithms with
Compressed Communication*, ICML 2019, arXiv:1902.00340, Assumption 1 (number not verified).
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any, TypeAlias

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int, Integer, PRNGKeyArray, Shaped, UInt8, UInt32

from cdjax._checks import stacked_size
from cdjax._trees import floating_leaves, map_floats_together, sum_over_agents, widened
from cdjax._types import Params
from cdjax.mixing import Codec

# A pytree of arrays; what travels are these arrays, in their dtypes.
Message: TypeAlias = Any


# From a sparse message and the leaf's shape and dtype to all entries, with zeros for those that are
# not in it, and to which are.
Entries: TypeAlias = Callable[[Message, jax.ShapeDtypeStruct], tuple[Array, Array]]


@dataclass(frozen=True, eq=False)
class Compressor:
    r"""A compressor of one agent's leaves. Make one with ``cdjax.compress``.

    Called on a stacked tree it is :math:`Q`: the tree that others read from the agents' messages,
    in which every leaf of every agent is compressed on its own. It may be jitted and scanned. Its
    draws are a function of its key, the step, the leaf and the agent.

    Attributes:
        name: what errors and tables call it.
        encode: from a leaf of one agent and a random key (None without draws) to its message.
        decode: from a message and the leaf's shape and dtype to the leaf that is read from it.
        contraction: :math:`\delta` of a leaf's shape: a bound for every leaf, in expectation over
            the draws. It is 0 or less where there is no such bound.
        key: of all draws; None for a compressor without.
        entries: reads the entries of a sparse message; None for messages that hold all of them.
        rebuild: makes a leaf of all entries, where ``entries`` is given.
    """

    name: str
    encode: Callable[[Array, Any], Message]
    decode: Callable[[Message, jax.ShapeDtypeStruct], Array]
    contraction: Callable[[tuple[int, ...]], float]
    key: PRNGKeyArray | None = None
    entries: Entries | None = None
    rebuild: Callable[[Array, jax.ShapeDtypeStruct], Array] | None = None

    def __call__(self, tree: Params, step: int | Int[Array, ""] = 0) -> Params:
        """Q of a stacked tree; leaves that are not floating point pass unchanged."""

        def compressed(leaves: list[Array]) -> list[Array]:
            messages = self.codec.encode(leaves, jnp.arange(stacked_size(leaves)), step)
            return self.codec.decode(messages, _of_one_agent(leaves))

        return map_floats_together(compressed, tree) if floating_leaves(tree) else tree

    @property
    def codec(self) -> Codec:
        """Encodes and decodes the leaves of several agents, for ``cdjax.mixing.Exchange``."""

        def encode(
            leaves: list[Array], agents: Int[Array, " agents"], step: int | Int[Array, ""]
        ) -> list[Message]:
            return [self._encode_rows(x, agents, step, leaf) for leaf, x in enumerate(leaves)]

        def decode(messages: list[Message], likes: list[jax.ShapeDtypeStruct]) -> list[Array]:
            return [
                jax.vmap(lambda one, like=like: self.decode(one, like))(message)
                for message, like in zip(messages, likes, strict=True)
            ]

        return Codec(encode, decode)

    def _encode_rows(
        self,
        x: Shaped[Array, "agents ..."],
        agents: Int[Array, " agents"],
        step: int | Int[Array, ""],
        leaf: int,
    ) -> Message:
        if self.key is None:
            return jax.vmap(lambda x: self.encode(x, None))(x)
        key = jax.random.fold_in(jax.random.fold_in(self.key, step), leaf)
        return jax.vmap(lambda x, j: self.encode(x, jax.random.fold_in(key, j)))(x, agents)

    def redrawn(self, number: int) -> Compressor:
        """The same compressor with other draws, for a second message in the same step."""
        if self.key is None:
            return self
        return replace(self, key=jax.random.fold_in(self.key, number))

    def message_bytes(self, params: Params) -> int:
        """The bytes of one agent's message, counted from the arrays that are sent.

        Args:
            params: a stacked tree (or its shapes and dtypes), leaves of shape ``(N, ...)``.

        Raises:
            ValueError: if the leaves disagree about the number of agents.
        """
        stacked_size(params)
        key = None if self.key is None else jax.random.key(0)
        arrays = []
        for leaf in floating_leaves(params):
            like = jax.ShapeDtypeStruct(leaf.shape[1:], leaf.dtype)
            arrays += jax.tree.leaves(jax.eval_shape(lambda x: self.encode(x, key), like))
        return sum(math.prod(x.shape) * x.dtype.itemsize for x in arrays)

    def mean_of_senders(
        self, tree: Params, step: int | Int[Array, ""] = 0
    ) -> tuple[Params, Params]:
        """Q of a stacked tree, and its mean over the agents.

        The mean of an entry is over those that sent it, as in the released codes of DeMo and of
        SparseLoCo. For messages that hold all entries it is the mean over all agents.

        Returns:
            Two trees: Q, stacked, and the mean, of one agent. Of leaves that are not floating
            point the mean is the first agent's.
        """
        leaves = [jnp.asarray(x) for x in floating_leaves(tree)]
        likes, num_agents = _of_one_agent(leaves), stacked_size(tree)
        messages = self.codec.encode(leaves, jnp.arange(num_agents), step)
        heard, means = [], []
        for message, like in zip(messages, likes, strict=True):
            q, mean = self._read(message, like)
            heard.append(q)
            means.append(mean.astype(like.dtype))
        firsts = map_floats_together(lambda _: means, jax.tree.map(lambda x: x[0], tree))
        return map_floats_together(lambda _: heard, tree), firsts

    def _read(self, messages: Message, like: jax.ShapeDtypeStruct) -> tuple[Array, Array]:
        """All agents' leaves, and their mean over those that sent."""
        if self.entries is None or self.rebuild is None:
            q = jax.vmap(lambda message: self.decode(message, like))(messages)
            return q, sum_over_agents(widened(q)) / len(q)
        entries, rebuild = self.entries, self.rebuild
        values, sent = jax.vmap(lambda message: entries(message, like))(messages)
        values = widened(values)
        if jax.default_backend() == "cpu":
            # Agent by agent: the mask of all takes a byte per entry, a quarter of the parameters.
            def add(counts: Array, message: Message) -> tuple[Array, None]:
                return counts + entries(message, like)[1].astype(counts.dtype), None

            zeros = jnp.zeros(values.shape[1:], values.dtype)
            counts = jax.lax.scan(add, zeros, messages)[0]
        else:
            counts = sum_over_agents(sent.astype(values.dtype))
        mean = rebuild(sum_over_agents(values) / jnp.maximum(counts, 1), like)
        return jax.vmap(lambda one: rebuild(one, like))(values), mean


def sparse(
    name: str,
    encode: Callable[[Array, Any], Message],
    entries: Entries,
    rebuild: Callable[[Array, jax.ShapeDtypeStruct], Array],
    *,
    contraction: Callable[[tuple[int, ...]], float],
    key: PRNGKeyArray | None = None,
) -> Compressor:
    """A compressor that sends some entries."""
    decode = lambda message, like: rebuild(entries(message, like)[0], like)  # noqa: E731
    return Compressor(name, encode, decode, contraction, key, entries, rebuild)


def identity() -> Compressor:
    """Sends every leaf as it is: δ = 1.

    Example::

        whole = cdjax.compress.identity()
        tx = cdjax.choco(optax.sgd(0.1), mix, whole, consensus_step=1.0)  # adapt then combine
    """
    return Compressor("identity", lambda x, _: x, lambda x, _: x, lambda shape: 1.0)


def _of_one_agent(leaves: list[Array]) -> list[jax.ShapeDtypeStruct]:
    return [jax.ShapeDtypeStruct(x.shape[1:], x.dtype) for x in leaves]


def size_of(shape: tuple[int, ...]) -> int:
    """The number of entries of a shape."""
    return math.prod(shape)


def pack(numbers: Integer[Array, " numbers"], width: int) -> UInt8[Array, " bytes"]:
    """Whole numbers below ``2 ** width`` in as few bytes as they fill, the lowest bit first."""
    shifts = np.arange(width, dtype=np.uint32)[None]
    bits = (numbers.astype(jnp.uint32)[:, None] >> shifts) & 1
    return jnp.packbits(bits.astype(jnp.uint8).ravel(), bitorder="little")


def unpack(packed: UInt8[Array, " bytes"], width: int, count: int) -> UInt32[Array, " numbers"]:
    """What :func:`pack` was given: ``count`` whole numbers below ``2 ** width``, uint32."""
    bits = jnp.unpackbits(packed, count=count * width, bitorder="little").reshape(count, width)
    shifts = np.arange(width, dtype=np.uint32)[None]
    return jnp.sum(bits.astype(jnp.uint32) << shifts, axis=1, dtype=jnp.uint32)


def index_width(size: int) -> int:
    """The bits of an index below ``size``."""
    return (size - 1).bit_length()


def as_scale(x: Float[Array, ""]) -> Float[Array, ""]:
    """A scale as it is divided by: 1 in place of 0, the scale of a leaf of zeros."""
    return jnp.where(x > 0, x, 1)
