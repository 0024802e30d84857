r"""Mixing inside of ``jax.vmap`` over agents, where the code sees one agent's tree.

A *primitive* of JAX stands for the mix while a function of one agent is traced. Only its batching
rule does anything: it sees the leaves of all agents stacked, which is what a mixer takes. So any
mixer works there, without an axis name, and inside of ``lax.scan``, ``jax.jit`` and
``jax.checkpoint``.

Its derivatives are the same primitive with another function of stacked leaves: the mixer's tangent,
which is linear in some of its operands, and the transpose of that. So mixers that are not linear
(robust ones) have derivatives too, of any order.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Sequence
from typing import Any, NoReturn

import jax
import jax.numpy as jnp
from jax.extend.core import Primitive
from jax.interpreters import ad, batching, mlir
from jaxtyping import Array, Int

from cdjax._checks import check_mixer
from cdjax._trees import map_floats_together
from cdjax._types import Mixer, Params

# From operands of all agents, each led by the agent axis, to results of all agents.
_OfAll = Callable[..., list[Array]]


def for_each(mix: Mixer) -> Mixer:
    r"""A mixer for code under ``jax.vmap`` over agents, made of any mixer for stacked trees.

    With it a whole training step, or a whole training loop, stays written for one agent:
    clipping, schedules and states are each agent's own without further ado.

    The gradient of something that is mixed flows into the neighbours, since ``jax.grad`` inside of
    ``jax.vmap`` is the gradient of the *sum* of all agents' values.

    Args:
        mix: any mixer for stacked trees, time-varying, robust and sharded ones included.

    Returns:
        A mixer for the tree of one agent, without an agent axis. Leaves that are not floating point
        (counters, random keys) pass unchanged. All agents must be at the same step.

    Raises:
        ValueError: at the call, where no ``jax.vmap`` is around it or what it mixes is the same
            for all agents, so that there is nothing to see of the others.

    Example::

        def step(params):  # of one agent
            return cdjax.mixing.for_each(mix)(params)

        mixed = jax.vmap(step)(params)  # as mix(params)
    """
    check_mixer(mix)

    def mix_one(tree: Params, step: int | Int[Array, ""] | None = None) -> Params:
        steps = [] if step is None else [jnp.asarray(step)]

        def mix_leaves(leaves: list[Array]) -> list[Array]:
            results = tuple(jax.typeof(x) for x in leaves)
            return _for_each.bind(*leaves, *steps, of_all=_Mix(mix, len(leaves)), results=results)

        return map_floats_together(mix_leaves, tree)

    return mix_one


@dataclasses.dataclass(frozen=True)
class _Mix:
    """The mixer itself: the operands are leaves and, if it is known, each agent's step."""

    mix: Mixer
    num_leaves: int

    def __call__(self, *operands: Array) -> list[Array]:
        leaves, steps = list(operands[: self.num_leaves]), operands[self.num_leaves :]
        return self.mix(leaves, *(step[0] for step in steps))


@dataclasses.dataclass(frozen=True)
class _Tangent:
    """The tangent of a function: its own operands, then the tangents of the active ones."""

    of_all: _OfAll
    active: tuple[int, ...]

    def __call__(self, *operands: Array) -> list[Array]:
        primals = list(operands[: -len(self.active)])
        tangents = operands[-len(self.active) :]

        def of_active(*active: Array) -> list[Array]:
            return self.of_all(*_replaced(primals, self.active, active))

        return jax.jvp(of_active, [primals[i] for i in self.active], list(tangents))[1]


@dataclasses.dataclass(frozen=True)
class _Transpose:
    """The transpose of a function in its linear operands: the others, then the cotangents."""

    of_all: _OfAll
    linear: tuple[int, ...]
    shapes: tuple[Any, ...]  # of the linear operands, of one agent
    num_others: int

    def __call__(self, *operands: Array) -> list[Array]:
        others = list(operands[: self.num_others])
        cotangents = list(operands[self.num_others :])
        like = [jax.ShapeDtypeStruct((len(operands[0]), *x.shape), x.dtype) for x in self.shapes]

        def of_linear(*linear: Array) -> list[Array]:
            rest = iter(others)
            places = range(len(others) + len(linear))
            spread = [None if i in self.linear else next(rest) for i in places]
            return self.of_all(*_replaced(spread, self.linear, linear))

        return list(jax.linear_transpose(of_linear, *like)(cotangents))


def _replaced(values: Sequence[Any], places: Sequence[int], by: Sequence[Any]) -> list[Any]:
    new = list(values)
    for place, value in zip(places, by, strict=True):
        new[place] = value
    return new


def _batch(
    operands: Sequence[Any], axes: Sequence[int | None], *, of_all: _OfAll, results: Any
) -> tuple[list[Array], list[int]]:
    """All agents at once; an operand that all of them share is given to each."""
    num_agents = next(
        x.shape[axis] for x, axis in zip(operands, axes, strict=True) if axis is not None
    )
    stacked = [
        jnp.broadcast_to(x, (num_agents, *jnp.shape(x)))
        if axis is None
        else jnp.moveaxis(x, axis, 0)
        for x, axis in zip(operands, axes, strict=True)
    ]
    return of_all(*stacked), [0] * len(results)


def _jvp(
    primals: Sequence[Any], tangents: Sequence[Any], *, of_all: _OfAll, results: Any
) -> tuple[Any, Any]:
    active = tuple(i for i, t in enumerate(tangents) if not isinstance(t, ad.Zero))
    given = [tangents[i] for i in active]
    values = _for_each.bind(*primals, of_all=of_all, results=results)
    moved = _for_each.bind(*primals, *given, of_all=_Tangent(of_all, active), results=results)
    return values, moved


def _transpose(
    cotangents: Sequence[Any], *operands: Any, of_all: _OfAll, results: Any
) -> list[Any]:
    linear = tuple(i for i, x in enumerate(operands) if ad.is_undefined_primal(x))
    shapes = tuple(operands[i].aval for i in linear)
    others = [x for i, x in enumerate(operands) if i not in linear]
    given = [
        jnp.zeros(x.shape, x.dtype) if isinstance(ct, ad.Zero) else ct
        for ct, x in zip(cotangents, results, strict=True)
    ]
    transpose = _Transpose(of_all, linear, shapes, len(others))
    found = _for_each.bind(*others, *given, of_all=transpose, results=shapes)
    return _replaced([None] * len(operands), linear, found)


def _refuse(*args: Any, **params: Any) -> NoReturn:
    raise ValueError(
        "the mixer of mixing.for_each takes the tree of one agent, and sees the others only under "
        "jax.vmap over the agents: call jax.vmap(step)(states) around it, where the agents' trees "
        "differ; for stacked trees call the mixer itself"
    )


# Defined at import, since a primitive is its rules; no computation takes place here.
_for_each = Primitive("cdjax_for_each")
_for_each.multiple_results = True
_for_each.def_impl(_refuse)
_for_each.def_abstract_eval(lambda *operands, of_all, results: list(results))
mlir.register_lowering(_for_each, _refuse)
batching.primitive_batchers[_for_each] = _batch
ad.primitive_jvps[_for_each] = _jvp
ad.primitive_transposes[_for_each] = _transpose
