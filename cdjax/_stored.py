"""Arrays that are computed once and kept, where XLA:CPU would compute them in each place of use.

What an algorithm sends is read by every neighbour, and what it receives by every part of its state.
XLA:CPU fuses such arrays into all that read them. Then the parameters and the state that they were
computed from have to stay, so that nothing can be written over them: a step holds a copy of each,
and of every neighbour's message. It drops ``jax.lax.optimization_barrier`` before it decides what
to fuse, but a loop it has to keep, even one that ends before its first turn.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any, TypeVar

import jax
import jax.numpy as jnp
from jax.core import Tracer
from jax.extend.core import Primitive
from jax.interpreters import ad, batching, mlir
from jaxtyping import Array, Int

from cdjax._trees import floating_leaves, map_floats_together

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


def gradient_kept(array: Array) -> Array:
    """The same array, whose gradient is written to memory once on a CPU, see :func:`kept`.

    The gradient of a layer's result is read more than once: for the bias, the kernel and the input.
    XLA:CPU would compute it for each of them. In a step of the paper's CNN, that took 2 to 5 % of
    the CPU time (medians of 13 alternating turns, on one core and on two).
    """
    return _identity.bind(array) if jax.default_backend() == "cpu" else array


def _keep_gradient(gradient: Any, _: Any) -> list[Any]:
    if type(gradient) is ad.Zero or 0 in gradient.shape:
        return [gradient]
    first = gradient[(0,) * gradient.ndim]
    return kept([gradient], (first != first).astype(jnp.int32))  # 0, but for NaN: 1


# A primitive, since a custom_vjp has no forward mode, and a custom_jvp no rule of transposition.
# Defined at import, since a primitive is its rules; no computation takes place here.
_identity = Primitive("cdjax_gradient_kept")
_identity.def_impl(lambda array: array)
_identity.def_abstract_eval(lambda array: array)
mlir.register_lowering(_identity, lambda _, array: [array])
ad.deflinear2(_identity, _keep_gradient)
batching.defvectorized(_identity)


def written_over(
    fn: Callable[[Tree, Any], Tree], tree: Tree, others: Any, step: int | Int[Array, ""]
) -> Tree:
    """``fn(tree, others)``, stored as by :func:`stored`, but in the memory of ``tree``.

    XLA:CPU writes what a loop keeps over nothing that it was computed from, unless the loop itself
    computes it. This one does, in its only turn.

    Args:
        fn: computes arrays of the shapes and dtypes of ``tree``, each entry from the same entry of
            ``tree``, and from any of ``others``.
        tree: arrays that nothing else reads.
        others: arrays that may be read elsewhere too.
        step: the number of the step, at least 0, which the compiler does not know.
    """

    def shapes(tree: Any) -> Any:
        return jax.tree.map(lambda x: (jnp.shape(x), jnp.result_type(x)), tree)

    is_traced = any(isinstance(leaf, Tracer) for leaf in jax.tree.leaves((tree, others)))
    is_fit = shapes(jax.eval_shape(fn, tree, others)) == shapes(tree)
    if jax.default_backend() != "cpu" or not (is_traced and is_fit):
        return stored(fn(tree, others), step)
    # What the function refers to, such as weights of a mixer, may be differentiated too.
    closed, constants = jax.closure_convert(fn, tree, others)
    with_constants = lambda tree, others: closed(tree, others[0], *others[1])  # noqa: E731
    return _written_over(with_constants, tree, (others, constants), jnp.asarray(step))


@partial(jax.custom_jvp, nondiff_argnums=(0,))
def _written_over(fn: Callable[[Tree, Any], Tree], tree: Tree, others: Any, number: Array) -> Tree:
    def goes_on(carry: tuple[Tree, Array]) -> Array:
        return carry[1] < 0

    def turn(carry: tuple[Tree, Array]) -> tuple[Tree, Array]:
        tree, number = carry
        # The same for all turns would be computed before the first, in memory of its own.
        read = [jnp.where(number < 0, x, 0) for x in floating_leaves(others)]
        return fn(tree, map_floats_together(lambda _: read, others)), -1 - number

    return jax.lax.while_loop(goes_on, turn, (tree, -1 - number))[0]


@_written_over.defjvp
def _(
    fn: Callable[[Any, Any], Any], primals: tuple[Any, ...], tangents: tuple[Any, ...]
) -> tuple[Any, Any]:
    return _written_over(fn, *primals), jax.jvp(fn, primals[:2], tangents[:2])[1]
