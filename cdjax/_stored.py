"""Arrays that are computed once and kept, where XLA:CPU would compute them in each place of use.

What an algorithm sends is read by every neighbour, and what it receives by every part of its state.
XLA:CPU fuses such arrays into all that read them. Then the parameters and the state that they were
computed from have to stay, so that nothing can be written over them: a step holds a copy of each,
and of every neighbour's message. It drops ``jax.lax.optimization_barrier`` before it decides what
to fuse, but a loop it has to keep, even one that ends before its first turn.
"""

from __future__ import annotations

from typing import Any, TypeVar

import jax
import jax.numpy as jnp
from jax.core import Tracer
from jaxtyping import Array, Int

from cdjax._trees import map_floats_together

Tree = TypeVar("Tree")


def stored(tree: Tree, step: int | Int[Array, ""]) -> Tree:
    """The same arrays, those of floats written to memory once, see :func:`kept`.

    Args:
        tree: any arrays.
        step: the number of the step, at least 0, which the compiler does not know.
    """
    # Outside of a program nothing is fused.
    if not any(isinstance(leaf, Tracer) for leaf in jax.tree.leaves(tree)):
        return tree
    return map_floats_together(lambda leaves: kept(leaves, jnp.asarray(step)), tree)


def kept(arrays: list[Array], number: Int[Array, ""]) -> list[Array]:
    """The same arrays, written to memory once on a CPU; elsewhere nothing is done.

    Args:
        arrays: arrays of numbers.
        number: any whole number that is at least 0, which the compiler does not know.
    """
    return _kept(arrays, number) if jax.default_backend() == "cpu" else arrays


@jax.custom_jvp
def _kept(arrays: list[Array], number: Array) -> list[Array]:
    def goes_on(carry: tuple[list[Array], Array]) -> Array:
        return carry[1] < 0

    def turn(carry: tuple[list[Array], Array]) -> tuple[list[Array], Array]:
        arrays, number = carry
        return [jnp.zeros_like(x) for x in arrays], number + 1

    return jax.lax.while_loop(goes_on, turn, (arrays, number))[0]


@_kept.defjvp
def _(primals: tuple[Any, ...], tangents: tuple[Any, ...]) -> tuple[Any, Any]:
    # A loop has no reverse mode, and what it keeps needs none.
    return _kept(*primals), tangents[0]
