"""Validation at the edge, in one voice: argument, what came, what was expected, the remedy.

Code inside of the library, which is trusted, never calls these.
"""

from __future__ import annotations

import math
import warnings
from collections.abc import Iterable
from difflib import get_close_matches
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.core import Tracer
from jax.sharding import AxisType
from jaxtyping import Array, Int

from cdjax._coupling import coupling_parts, parts_of
from cdjax._trees import is_random_key
from cdjax._trees import leaf_name as _name
from cdjax._types import Params


def check_num_agents(num_agents: int) -> None:
    """Raises unless ``num_agents`` is a whole number of at least 1."""
    check_whole("num_agents", num_agents)
    if num_agents < 1:
        raise ValueError(f"num_agents is {num_agents}; there must be at least 1 agent")


def check_whole(name: str, value: Any) -> None:
    """Raises unless a concrete ``value`` is a whole number; traced values pass."""
    if isinstance(value, Tracer):
        return
    if np.ndim(value) or np.asarray(value).dtype.kind not in "iu":
        raise ValueError(f"{name} must be a whole number, not {value!r}")


def check_number(name: str, value: Any) -> None:
    """Raises unless ``value`` is one number or a schedule: an array would spread over some axis."""
    if not callable(value) and np.ndim(value):
        raise ValueError(f"{name} has shape {np.shape(value)}; give one number")


def check_scalar(name: str, value: Any, **bounds: Any) -> None:
    """Raises unless a concrete ``value`` is one number in the bounds of :func:`check_range`."""
    check_number(name, value)
    check_range(name, value, **bounds)


def check_per_agent(name: str, value: Any, **bounds: Any) -> None:
    """Raises unless ``value`` is one number, or one per agent, in bounds; schedules pass."""
    if not callable(value) and np.ndim(value) > 1:
        shape = np.shape(value)
        raise ValueError(f"{name} has shape {shape}; give one number, or one per agent, shape (N,)")
    check_range(name, value, **bounds)


def check_count(name: str, value: Any, *, low: int) -> None:
    """Raises unless a concrete ``value`` is a whole number of at least ``low``."""
    check_whole(name, value)
    check_range(name, value, low=low)


def check_indices(name: str, indices: Any, count: int, things: str) -> None:
    """Raises unless concrete ``indices`` are whole numbers in 0..count-1; traced ones pass.

    JAX takes the last of a table in place of an index beyond it, without a word.
    """
    if isinstance(indices, Tracer):
        return
    if isinstance(indices, jax.Array) and not indices.is_fully_addressable:
        return  # divided among processes
    found = np.asarray(indices)
    if found.dtype.kind not in "iu":
        raise ValueError(f"{name} are {found.dtype}; give whole numbers")
    if found.size and not 0 <= found.min() <= found.max() < count:
        raise ValueError(
            f"{name} reach from {found.min()} to {found.max()}; there are {count} {things}, "
            "numbered from 0"
        )


def check_probability(name: str, value: Any) -> None:
    """Raises unless a concrete ``value`` is one number in [0, 1]."""
    if np.ndim(value):
        raise ValueError(f"{name} must be one number, not {value!r}")
    check_range(name, value, low=0, high=1)


def check_choice(name: str, value: Any, choices: Iterable[str]) -> None:
    """Raises unless ``value`` is one of the choices; the message suggests the closest one."""
    choices = list(choices)
    if value not in choices:
        closest = get_close_matches(str(value), choices, n=1)
        hint = f" (did you mean {closest[0]!r}?)" if closest else ""
        raise ValueError(f"unknown {name} {value!r}{hint}; expected one of {', '.join(choices)}")


def check_positive(name: str, value: Any) -> None:
    """Raises unless a concrete ``value`` is above 0; schedules and traced values pass."""
    check_range(name, value, low=0, low_open=True)


def real_array(name: str, value: Any) -> np.ndarray:
    """``value`` in float64; not a copy if it already is such an array."""
    try:
        array = np.asarray(value)
        if np.iscomplexobj(array):  # NumPy would drop the imaginary parts
            raise TypeError("it is complex")
        return np.asarray(array, dtype=np.float64)
    except (TypeError, ValueError) as error:
        raise ValueError(f"{name} is no array of real numbers: {error}") from error


def per_step(name: str, values: Any, num_steps: int | None = None) -> np.ndarray:
    """``values`` in float64; raises unless they are one finite number of at least 0 per step."""
    array = real_array(name, values)
    if array.ndim != 1 or num_steps not in (None, len(array)):
        shape = "as np.full(num_steps, 0.1)" if num_steps is None else f"shape {(num_steps,)}"
        raise ValueError(f"{name} has shape {array.shape}; give one number per step, {shape}")
    check_range(name, array, low=0)
    return array


def check_topology(topology: Any) -> None:
    """Raises unless ``topology`` is a Topology."""
    remedy = "give a cdjax.Topology, such as cdjax.topology.ring(8)"
    if not hasattr(type(topology), "mixing_matrix"):  # of its type: reading it would make it
        raise ValueError(f"topology is {_kind(topology)}; {remedy}")


def check_callable(name: str, value: Any, remedy: str) -> None:
    """Raises unless ``value`` is a function; ``remedy`` says which one to give."""
    if not callable(value):
        raise ValueError(f"{name} is {_kind(value)}; give {remedy}")


def check_mixer(mix: Any) -> None:
    """Raises unless ``mix`` is a function."""
    check_callable("mix", mix, "a mixer, such as cdjax.mixing.auto(topology)")


def check_step(step: int | Int[Array, ""] | None, mixer: str) -> int | Int[Array, ""]:
    """The step; raises where a mixer that changes with it is called without.

    A default would have such a mixer draw the same peers, or lose the same messages, at every call.
    """
    if step is None:
        raise ValueError(f"{mixer} changes with the step: call mix(tree, step)")
    return step


def check_optimizer(name: str, value: Any) -> None:
    """Raises unless ``value`` is an optax transformation."""
    remedy = "give an optax optimizer, such as optax.sgd(0.1)"
    if not (hasattr(value, "init") and hasattr(value, "update")):
        raise ValueError(f"{name} is {_kind(value)}; {remedy}")


def check_inner(inner: Any, mix: Any = None) -> None:
    """Raises unless ``inner`` is an optax transformation, and ``mix``, if it is given, a mixer.

    Warns where a part of ``inner`` couples stacked agents; not where a mixer of
    ``mixing.for_each`` says that the transformation sees one agent at a time.
    """
    check_optimizer("inner", inner)
    if mix is not None:
        check_mixer(mix)
    if mix is None or "for_each" not in parts_of(mix):
        warn_of_coupling("inner", inner, stacklevel=4)


def warn_of_coupling(name: str, tx: Any, *, stacklevel: int) -> None:
    """Warns of the parts of a transformation that take stacked agents for one."""
    if found := coupling_parts(tx):
        warnings.warn(
            f"{name} has {', '.join(found)}, which takes the stacked parameters of all agents for "
            f"one agent's; wrap what is local: cdjax.per_agent({name})",
            stacklevel=stacklevel,
        )


def check_compressor(value: Any) -> None:
    """Raises unless ``value`` is a compressor."""
    if not (hasattr(value, "encode") and hasattr(value, "contraction")):
        remedy = "give a compressor, such as cdjax.compress.top_k(0.01)"
        raise ValueError(f"compressor is {_kind(value)}; {remedy}")


def check_key(key: Any) -> None:
    """Raises unless ``key`` is one of JAX's random keys, typed or raw."""
    is_typed = isinstance(key, jax.Array) and jnp.issubdtype(key.dtype, jax.dtypes.prng_key)
    is_raw = getattr(key, "dtype", None) == np.uint32 and np.ndim(key) == 1
    if not is_raw and not (is_typed and key.ndim == 0):
        raise ValueError(f"key is {key!r}; give one random key, such as jax.random.key(0)")


def check_stacked(
    tree: Params, num_agents: int, *, holder: str = "the topology", remedy: str = ""
) -> None:
    """Raises unless every leaf of ``tree`` leads with an agent axis of length ``num_agents``."""
    for path, leaf in jax.tree.leaves_with_path(tree):
        _check_array(path, leaf)
        shape = np.shape(leaf)
        if not shape or shape[0] != num_agents:
            leads = f"leading axis {shape[0]}" if shape else "no axes"
            remedy = remedy or f"stack parameters with cdjax.replicate(params, {num_agents})"
            raise ValueError(
                f"leaf '{_name(path)}' has {leads}, but {holder} has {num_agents} agents; {remedy}"
            )


def check_auto_axes(tree: Params) -> None:
    """Raises if a leaf is divided over mesh axes of the explicit kind."""
    for path, leaf in jax.tree.leaves_with_path(tree):
        sharding = getattr(jax.typeof(leaf), "sharding", None) if hasattr(leaf, "dtype") else None
        if sharding and any(sharding.spec) and AxisType.Explicit in sharding.mesh.axis_types:
            raise ValueError(
                f"leaf '{_name(path)}' is divided over a mesh with explicit axes, where JAX does "
                "not divide a mix; take cdjax.sharding.agent_mesh, or jax.make_mesh(..., "
                "axis_types=(AxisType.Auto, ...))"
            )


def check_arrays(tree: Params) -> None:
    """Raises unless every leaf of ``tree`` is an array of numbers or keys, or a number."""
    kinds = (np.number, np.bool_, jax.dtypes.prng_key)
    for path, leaf in jax.tree.leaves_with_path(tree):
        _check_array(path, leaf)
        dtype = getattr(leaf, "dtype", None)
        if dtype is not None and not any(jnp.issubdtype(dtype, kind) for kind in kinds):
            raise ValueError(f"leaf '{_name(path)}' holds {dtype}; give arrays or numbers")


def check_no_keys(tree: Params) -> None:
    """Raises if a leaf of a tree of one agent is a random key."""
    for path, leaf in jax.tree.leaves_with_path(tree):
        if is_random_key(leaf):
            raise ValueError(
                f"leaf '{_name(path)}' is a random key, with a copy of which all agents would draw "
                'the same; give keys="split" for a key per agent, or keys="same" for copies'
            )


def stacked_size(tree: Params, *, remedy: str = "") -> int:
    """The number of agents of a stacked tree; raises if its leaves disagree."""
    leaves = jax.tree.leaves_with_path(tree)
    if not leaves:
        raise ValueError("the tree has no leaves, so it has no agent axis")
    path, first = leaves[0]
    _check_array(path, first)
    num_agents = np.shape(first)[0] if np.ndim(first) else 0
    if not num_agents:
        found = "a leading axis of length 0" if np.ndim(first) else "no axes"
        raise ValueError(
            f"leaf '{_name(path)}' has {found}; every leaf leads with the agent axis, stack "
            "parameters with cdjax.replicate(params, num_agents)"
        )
    check_stacked(tree, num_agents, holder="the first leaf", remedy=remedy)
    return num_agents


def check_params(params: Params | None, transform: str, updates: Params | None = None) -> Params:
    """The parameters; raises if there are none, if they hold booleans, or if updates differ."""
    if params is None:
        raise ValueError(f"{transform} mixes parameters: call tx.update(grads, state, params)")
    for path, leaf in jax.tree.leaves_with_path(params):
        _check_array(path, leaf)
        if jnp.result_type(leaf) == np.bool_:
            raise ValueError(
                f"{transform}: leaf '{_name(path)}' holds booleans, which no optimizer steps; "
                "keep it out with optax.masked"
            )
    if updates is not None:
        _check_alike(updates, params, transform)
    return params


def check_range(
    name: str,
    value: Any,
    *,
    low: float = -math.inf,
    high: float = math.inf,
    low_open: bool = False,
    high_open: bool = False,
) -> None:
    """Raises unless a concrete ``value`` lies in the range; schedules and traced values pass."""
    if callable(value) or isinstance(value, Tracer):
        return
    values = np.asarray(value)
    if values.dtype.kind not in "biuf" and not jnp.issubdtype(values.dtype, jnp.floating):
        raise ValueError(f"{name} must be a number, not {value!r}")
    inside = np.isfinite(values) & (values > low if low_open else values >= low)
    inside = inside & (values < high if high_open else values <= high)
    if not np.all(inside):
        left = f"{'(' if low_open or low == -math.inf else '['}{low:g}"
        right = f"{high:g}{')' if high_open or high == math.inf else ']'}"
        raise ValueError(f"{name} is {value}; it must lie in {left}, {right}")


def _check_array(path: jax.tree_util.KeyPath, leaf: Any) -> None:
    if not hasattr(leaf, "dtype") and not isinstance(leaf, int | float | complex):
        remedy = "give arrays or numbers"
        if callable(leaf):  # an activation in a module
            remedy += ", such as equinox.filter(module, equinox.is_array)"
        raise ValueError(f"leaf '{_name(path)}' is {_kind(leaf)}; {remedy}")


def _check_alike(updates: Params, params: Params, transform: str) -> None:
    """Raises unless updates have the structure and the shapes of params."""
    found, wanted = jax.tree.structure(updates), jax.tree.structure(params)
    remedy = "give the gradients of these params"
    if found != wanted:
        differ = f"updates have the structure {found}, params {wanted}"
        raise ValueError(f"{transform}: {differ}; {remedy}")
    pairs = zip(jax.tree.leaves_with_path(params), jax.tree.leaves(updates), strict=True)
    for (path, param), update in pairs:
        if np.shape(param) != np.shape(update):
            raise ValueError(
                f"{transform}: leaf '{_name(path)}' of updates has shape {np.shape(update)}, of "
                f"params {np.shape(param)}; {remedy}"
            )


def _kind(value: Any) -> str:
    return "None" if value is None else f"of type {type(value).__name__}"
