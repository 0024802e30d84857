"""The idioms for leaves of stacked trees, each written once.

Floating-point leaves are computed in float32 at least. All other leaves (counters, booleans, random
keys) pass unchanged.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, ArrayLike, Int, Shaped

from cdjax._types import AgentScalarOrSchedule, Params


def is_floating(leaf: Any) -> bool:
    """Whether a leaf is real or complex floating point: what optimizers step and mixers mix."""
    return jnp.issubdtype(jnp.result_type(leaf), jnp.inexact)


def is_leafless(tree: Params) -> bool:
    """Whether a tree has no leaves.

    Such are the parameters of an empty group of ``optax.partition``, and what
    ``optax.tree.map_params`` gives to ``init`` in their place.
    """
    return not jax.tree.leaves(tree)


def leaf_name(path: jax.tree_util.KeyPath) -> str:
    """How errors and users call a leaf: its keys with slashes, such as ``dense/kernel``."""
    return jax.tree_util.keystr(path, simple=True, separator="/")


def is_random_key(leaf: Any) -> bool:
    """Whether a leaf of one agent is a random key: a typed one, or what raw ones look like."""
    dtype = getattr(leaf, "dtype", None)
    if dtype is not None and jnp.issubdtype(dtype, jax.dtypes.prng_key):
        return True
    return dtype == jnp.uint32 and jnp.shape(leaf) in [(2,), (4,)]


def key_per_agent(keys: Array) -> Array:
    """Stacked copies of a key, each with its agent's number folded in."""

    def fold_in(key: Array, agent: Int[Array, ""]) -> Array:
        if key.ndim and jnp.issubdtype(key.dtype, jax.dtypes.prng_key):  # several keys
            return jax.vmap(fold_in, (0, None))(key, agent)
        return jax.random.fold_in(key, agent)

    return jax.vmap(fold_in)(keys, jnp.arange(len(keys)))


def floating_leaves(tree: Params) -> list[Any]:
    """The floating-point leaves of a tree."""
    return [leaf for leaf in jax.tree.leaves(tree) if is_floating(leaf)]


def widened(leaf: ArrayLike) -> Array:
    """A leaf in float32 at least.

    The rows of a mixing matrix rounded to bfloat16 do not sum to one, so the mean would drift.
    """
    dtype = jnp.result_type(leaf)  # promoted by its size, as strict promotion refuses to
    is_wide = jnp.issubdtype(dtype, jnp.inexact) and jnp.finfo(dtype).bits >= 32
    return jnp.asarray(leaf, dtype if is_wide else jnp.float32)


def map_floats(fn: Callable[..., Array], tree: Params, *rest: Params) -> Params:
    """Maps ``fn`` over the floating leaves, widened, and casts its results back.

    Floating leaves of ``rest`` are widened too; all else passes as it is.
    """

    def leaf(x: Any, *others: Any) -> Any:
        if not is_floating(x):
            return x
        is_array = lambda o: isinstance(o, jax.Array | np.ndarray)  # noqa: E731
        wide = [widened(o) if is_array(o) and is_floating(o) else o for o in others]
        return fn(widened(x), *wide).astype(jnp.result_type(x))

    return jax.tree.map(leaf, tree, *rest)


def map_floats_together(fn: Callable[[list[Array]], list[Array]], tree: Params) -> Params:
    """Replaces all floating leaves by what ``fn`` makes of the list of them, dtypes included.

    For what needs all leaves at once: a common message, or a norm over the whole tree.
    """
    leaves, structure = jax.tree.flatten(tree)
    results = iter(fn([jnp.asarray(x) for x in leaves if is_floating(x)]))
    return structure.unflatten([next(results) if is_floating(x) else x for x in leaves])


def displacement(after: Params, before: Params) -> Params:
    """The updates that lead from one tree to the other: zeros for what is not floating point."""

    def leaf(a: Any, b: Any) -> Array:
        return a - b if is_floating(b) else jnp.zeros_like(b)

    return jax.tree.map(leaf, after, before)


def have_agent_axis(init: Callable[[Params], Any], params: Params) -> Any:
    """For every leaf of ``init(params)`` whether it has the agent axis of the stacked ``params``.

    Those leaves are longer for one agent more. Their length alone does not tell: that of a server's
    parameters may happen to be N.
    """

    def shapes(num_more: int) -> Any:
        more = lambda x: jax.ShapeDtypeStruct((len(x) + num_more, *x.shape[1:]), x.dtype)  # noqa: E731
        return jax.eval_shape(init, jax.tree.map(more, params))

    return jax.tree.map(lambda x, y: x.shape != y.shape, shapes(0), shapes(1))


def along_agents(numbers: ArrayLike, leaf: ArrayLike) -> Array:
    """``numbers``, of shape (N,), with as many axes as ``leaf`` has, of shape (N, ...).

    In the dtype of ``leaf``, as a float32 weight would widen a bfloat16 leaf; booleans stay. The
    numbers may have any leading axes of the leaf: none, if all agents have the same.
    """
    numbers = jnp.asarray(numbers)
    numbers = numbers.reshape(numbers.shape + (1,) * (jnp.ndim(leaf) - numbers.ndim))
    return numbers if numbers.dtype == bool else numbers.astype(jnp.result_type(leaf))


def sum_over_agents(leaf: Shaped[Array, "agents ..."]) -> Array:
    """The sum over the agent axis, as a product with ones.

    XLA:CPU takes 5 to 90 times as long for ``jnp.sum(leaf, axis=0)``, which adds numbers that lie
    far apart one by one; devices among which the agents are divided add what each has summed.
    """
    return jnp.tensordot(jnp.ones(len(leaf), leaf.dtype), leaf, axes=1, precision="highest")


def mean_over_agents(leaf: Shaped[Array, "agents ..."]) -> Array:
    """The mean over the agent axis, see :func:`sum_over_agents`."""
    return sum_over_agents(leaf) / len(leaf)


def scalar_like(scalar: ArrayLike, leaf: ArrayLike) -> Array:
    """The scalar in the leaf's dtype, so that a float32 step does not widen a bfloat16 leaf."""
    return jnp.asarray(scalar, jnp.result_type(leaf))


def value_at(value: AgentScalarOrSchedule, step: int | Int[Array, ""]) -> Any:
    """A number, or a schedule's value at a step."""
    return value(step) if callable(value) else value
