"""The agent axis: adding it, averaging over it, and mapping a function of one agent over it."""

from __future__ import annotations

import sys
from collections.abc import Callable, Collection
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
from jax.extend.core import Jaxpr, jaxprs_in_params
from jaxtyping import Array

from cdjax._checks import (
    check_arrays,
    check_callable,
    check_choice,
    check_count,
    check_no_keys,
    check_num_agents,
    check_optimizer,
    stacked_size,
)
from cdjax._plans import measured_plan
from cdjax._trees import (
    is_floating,
    is_leafless,
    is_random_key,
    key_per_agent,
    mean_over_agents,
    widened,
)
from cdjax._types import OptState, Params
from cdjax.sharding import AXIS

PLANS = ("auto", "vmap", "map", "unroll")

# On a CPU, agents that each read more bytes than this are faster one after another: together,
# their parameters and activations no longer fit in the cache.
_MAP_BYTES = 1 << 20

_NOT_SHARED = (
    "every argument leads with the agent axis, but for the last num_shared, which all agents share"
)


def replicate(params: Params, num_agents: int, *, keys: str | None = None) -> Params:
    """Gives every agent the same parameters, by adding the leading agent axis.

    Args:
        params: a pytree of one agent, leaves of shape ``(...)``.
        num_agents: the number of agents N.
        keys: what to do with random keys in the tree (of dropout, of noise): ``split`` folds the
            agent's number into each, so that agents draw independently; ``same`` copies them.

    Returns:
        The stacked tree, leaves of shape ``(N, ...)``.

    Raises:
        ValueError: if ``num_agents`` is not a whole number of at least 1, a leaf is no array, or
            one is a random key and ``keys`` does not say what to do with it.

    Example: ``params = cdjax.replicate({"w": jnp.ones(3)}, 16)  # w has shape (16, 3)``
    """
    check_num_agents(num_agents)
    check_arrays(params)
    if keys is None:
        check_no_keys(params)
    else:
        check_choice("keys", keys, ["split", "same"])

    def stacked(x: Any) -> Array:
        copies = jnp.broadcast_to(x, (num_agents, *jnp.shape(x)))
        return key_per_agent(copies) if keys == "split" and is_random_key(x) else copies

    return _with_axis_names(jax.tree.map(stacked, params), "add_axis")


def mean_params(params: Params) -> Params:
    r"""The mean over agents, :math:`\bar{x} = \frac{1}{N} \sum_j x^j`.

    Sums in float32 at least. Leaves that are not floating point are taken from agent 0.

    Args:
        params: a stacked tree, leaves of shape ``(N, ...)``.

    Returns:
        The tree of one agent, leaves of shape ``(...)``.

    Raises:
        ValueError: if the leaves disagree about the number of agents.
    """
    stacked_size(params)
    leaves, structure = jax.tree.flatten(params)
    return _with_axis_names(structure.unflatten(_means(leaves)), "remove_axis")


# One program for all leaves. With a program each, agents on several virtual devices of a CPU would
# wait for each other for ever, as JAX starts the programs in any order.
@jax.jit
def _means(leaves: list[Array]) -> list[Array]:
    return [
        mean_over_agents(widened(x)).astype(x.dtype) if is_floating(x) else x[0] for x in leaves
    ]


def agent_map(
    fn: Callable[..., Any],
    *,
    plan: str = "auto",
    num_shared: int = 0,
    axis_name: str | None = None,
) -> Callable[..., Any]:
    """Maps a function of one agent over the agent axis of all its arguments and results.

    Every plan computes the same values, up to rounding:

    - ``vmap``: all agents at once, ``jax.vmap``;
    - ``map``: one agent after another, ``jax.lax.map``, with one agent's activations in memory;
    - ``unroll``: the function once per agent in the compiled program; compile time grows with N;
    - ``auto``: what was measured to be the fastest, which for convolutions on a GPU depends on the
      dtype and N; else ``vmap`` on accelerators. On a CPU, ``unroll`` for a function with XLA's own
      convolution, which is slow otherwise; ``map`` for agents above 1 MiB each; else ``vmap``.

    Args:
        fn: a function of one agent, on pytrees of arrays or modules of Flax NNX, in which it may
            change batch statistics and the like.
        plan: ``auto``, ``vmap``, ``map`` or ``unroll``.
        num_shared: how many of the last positional arguments all agents share, without an agent
            axis: a number, a key, a base model. They are given to ``fn`` as they are. Arguments by
            keyword are mapped.
        axis_name: a name of the agent axis for collectives in ``fn``, such as ``jax.lax.pmean``;
            agents that exchange run at once, so it needs the plan ``vmap`` or ``auto``.

    Raises:
        ValueError: if the plan is unknown or does not fit, or the arguments disagree about the
            number of agents.

    Example: ``losses, grads = cdjax.agent_map(jax.value_and_grad(loss_fn))(params, batch)``
    """
    check_callable("fn", fn, "a function of one agent")
    check_choice("plan", plan, PLANS)
    check_count("num_shared", num_shared, low=0)

    if axis_name is not None and plan not in ("auto", "vmap"):
        raise ValueError(
            f"plan is {plan!r} with axis_name {axis_name!r}; agents that exchange by collectives "
            "need plan='vmap'"
        )

    def mapped(*args: Any, **named: Any) -> Any:
        again = partial(agent_map, plan=plan, axis_name=axis_name)
        if num_shared:
            own, shared = args[:-num_shared], args[-num_shared:]
            return again(lambda *own, **named: fn(*own, *shared, **named))(*own, **named)
        if named:
            num = len(args)
            by_name = lambda *all: fn(*all[:num], **dict(zip(named, all[num:], strict=True)))  # noqa: E731
            return again(by_name)(*args, *named.values())
        if modules := _nnx_modules(args):
            return _map_modules(fn, args, modules, again=again)
        num_agents = stacked_size(args, remedy=_NOT_SHARED)
        if axis_name is not None:
            return jax.vmap(fn, axis_name=axis_name)(*args)
        match _choose_plan(fn, args) if plan == "auto" else plan:
            case "vmap":
                return jax.vmap(fn)(*args)
            case "map":
                return jax.lax.map(lambda one_agent: fn(*one_agent), args)
            case _:
                results = [fn(*jax.tree.map(lambda x: x[j], args)) for j in range(num_agents)]  # noqa: B023
                return jax.tree.map(lambda *leaves: jnp.stack(leaves), *results)

    return mapped


def _with_axis_names(tree: Params, change: str) -> Params:
    """With the agents' name added to, or removed from, the names of axes that Flax boxes carry."""
    meta: Any = sys.modules.get("flax.core.meta")
    is_box = lambda x: isinstance(x, meta.AxisMetadata)  # noqa: E731
    if meta is None or not any(map(is_box, jax.tree.leaves(tree, is_leaf=is_box))):
        return tree
    return getattr(meta, change)(tree, 0, {meta.PARTITION_NAME: AXIS})


def _nnx_modules(args: tuple[Any, ...]) -> list[int]:
    """Which arguments are modules of Flax NNX; none if that has not been imported."""
    nnx = sys.modules.get("flax.nnx")
    return [i for i, x in enumerate(args) if nnx and isinstance(x, nnx.Module)]


def _map_modules(
    fn: Callable[..., Any],
    args: tuple[Any, ...],
    places: list[int],
    *,
    again: Callable[..., Any],
) -> Any:
    """As ``nnx.vmap``: what the function changes in a module (batch statistics) stays changed."""
    nnx = sys.modules["flax.nnx"]
    modules = [args[i] for i in places]
    graph, states = nnx.split(modules)
    others = [x for i, x in enumerate(args) if i not in places]

    def pure(states: Any, others: list[Any]) -> tuple[Any, Any]:
        own, rest = iter(modules := nnx.merge(graph, states)), iter(others)
        given = [next(own) if i in places else next(rest) for i in range(len(args))]
        return fn(*given), nnx.state(modules)

    results, states = again(pure)(states, others)
    nnx.update(modules, states)
    return results


def per_agent(
    tx: optax.GradientTransformation, *, stacked: Collection[str] = ()
) -> optax.GradientTransformationExtraArgs:
    """Runs an optax transformation independently in every agent.

    Elementwise transformations (SGD, momentum, Adam) do not need this. Those that reduce over
    leaves or trees (clipping by the global norm, LAMB, LARS, Adafactor) would couple the agents, as
    they take the agent axis for one of the parameters. Consensus stays outside.

    Args:
        tx: an optax transformation for one agent.
        stacked: names of the extra arguments that lead with the agent axis, such as ``value`` for
            the agents' losses, of which each agent gets its own; of the others all get the same.

    Returns:
        The transformation on stacked trees. Every leaf of its state leads with the agent axis, and
        random keys in it (of noise) have the agent's number folded in. It passes extra arguments on
        to ``tx``.

    Example::

        local = optax.chain(optax.clip_by_global_norm(1.0), optax.sgd(0.1))
        tx = optax.chain(cdjax.per_agent(local), cdjax.consensus(mix))
    """
    check_optimizer("tx", tx)
    tx = optax.with_extra_args_support(tx)

    def init(params: Params) -> OptState:
        if is_leafless(params):
            return tx.init(params)
        stacked_size(params)
        one_agent = jax.eval_shape(tx.init, jax.tree.map(lambda x: x[0], params))
        return jax.tree.map(
            lambda x, one: key_per_agent(x) if is_random_key(one) else x,
            jax.vmap(tx.init)(params),
            one_agent,
        )

    def update(
        updates: Params, state: OptState, params: Params | None = None, **extra_args: Any
    ) -> tuple[Params, OptState]:
        own = {name: value for name, value in extra_args.items() if name in stacked}
        shared = {name: value for name, value in extra_args.items() if name not in stacked}
        if is_leafless(updates):
            return tx.update(updates, state, params, **extra_args)
        stacked_size((updates, own), remedy="give updates and what stacked names to every agent")
        of_one = lambda u, s, p, own: tx.update(u, s, p, **own, **shared)  # noqa: E731
        return jax.vmap(of_one)(updates, state, params, own)

    return optax.GradientTransformationExtraArgs(init, update)


def _choose_plan(fn: Callable[..., Any], args: tuple[Any, ...]) -> str:
    # Shapes suffice for a jaxpr, so that the arguments may be tracers and nothing is computed.
    one_agent = jax.tree.map(lambda x: jax.ShapeDtypeStruct(x.shape[1:], x.dtype), args)
    return choose_plan(fn, one_agent, num_agents=stacked_size(args))


def choose_plan(fn: Callable[..., Any], one_agent: tuple[Any, ...], *, num_agents: int) -> str:
    """The plan ``auto`` for a function of one agent, from the shapes of its arguments."""
    dtype = _convolution_dtype(jax.make_jaxpr(fn)(*one_agent).jaxpr)
    if dtype and (plan := measured_plan(f"convolution {dtype}", num_agents)):
        return plan
    if jax.default_backend() != "cpu":
        return "vmap"
    if dtype:
        return "unroll"
    num_bytes = sum(np.prod(x.shape) * x.dtype.itemsize for x in jax.tree.leaves(one_agent))
    return "map" if num_bytes > _MAP_BYTES else "vmap"


def _convolution_dtype(jaxpr: Jaxpr) -> str:
    """The dtype of XLA's own convolution in a program, or in the loops and calls inside of it."""
    for eqn in jaxpr.eqns:
        if eqn.primitive.name == "conv_general_dilated":
            return str(eqn.invars[0].aval.dtype)  # pyright: ignore[reportAttributeAccessIssue]
        for inner in jaxprs_in_params(eqn.params):
            if dtype := _convolution_dtype(inner):
                return dtype
    return ""
