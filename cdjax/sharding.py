"""Agents on several devices: the agent axis of every stacked tree, cut into blocks.

A *mesh* has an axis ``agents`` of D devices. Device d holds the block of N / D consecutive agents
that starts at d N / D: their parameters, optimizer state, data and keys, and nobody else's. One
device is the special case D = 1. In a run of several processes every function here is to be called
by all of them alike.
"""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import AxisType, Mesh, NamedSharding, PartitionSpec

from cdjax._checks import check_num_agents, check_whole, stacked_size
from cdjax._types import Params

AXIS = "agents"


def agent_mesh(num_devices: int | None = None) -> Mesh:
    """A mesh of devices for agents.

    Args:
        num_devices: D; by default all devices of all processes.

    Returns:
        A mesh with the one axis ``agents``.

    Raises:
        ValueError: if there are not so many devices, or fewer are asked for than the processes of
            a run have.

    Example::

        mesh = cdjax.sharding.agent_mesh()
    """
    found = jax.device_count()
    wanted = found if num_devices is None else num_devices
    check_whole("num_devices", wanted)
    if wanted < 1:
        raise ValueError(f"num_devices is {wanted}; there must be at least 1")
    if wanted > found:
        raise ValueError(f"num_devices is {wanted}, but JAX finds {found}; give at most {found}")
    if wanted < found and jax.process_count() > 1:
        raise ValueError(
            f"num_devices is {wanted}, but {jax.process_count()} processes have {found} devices "
            "together; all take part, so leave num_devices out"
        )
    devices = jax.devices()[:wanted]
    # JAX's default, explicit axes, would ask callers to annotate their own code.
    return jax.make_mesh((wanted,), (AXIS,), axis_types=(AxisType.Auto,), devices=devices)


def block_size(num_agents: int, mesh: Mesh) -> int:
    """How many agents a device of the mesh holds.

    Args:
        num_agents: N.
        mesh: a mesh with an axis ``agents``.

    Returns:
        N / D.

    Raises:
        ValueError: if D does not divide N, or the mesh is of another kind than that of
            :func:`agent_mesh`.
    """
    check_num_agents(num_agents)
    if not isinstance(mesh, Mesh):
        raise ValueError(f"mesh is of type {type(mesh).__name__}; give cdjax.sharding.agent_mesh()")
    axes = dict(zip(mesh.axis_names, mesh.axis_types, strict=True))
    if axes.get(AXIS) is not AxisType.Auto:
        found = ", ".join(f"{name} ({kind.name})" for name, kind in axes.items()) or "no axes"
        raise ValueError(f"mesh has {found}; expected agents (Auto), see cdjax.sharding.agent_mesh")
    num_devices = mesh.shape[AXIS]
    if num_agents % num_devices:
        fitting = next(d for d in range(num_devices, 0, -1) if num_agents % d == 0)
        below = num_agents // num_devices * num_devices
        agents = " or ".join(str(n) for n in (below, below + num_devices) if n)
        raise ValueError(
            f"{num_agents} agents do not divide among {num_devices} devices; "
            f"take {agents} agents, or {fitting} device{'s' if fitting > 1 else ''}"
        )
    return num_agents // num_devices


def agent_shardings(tree: Params, mesh: Mesh, *, num_agents: int | None = None) -> Any:
    """Where each leaf of a tree belongs, for ``jax.jit``'s ``out_shardings``.

    Args:
        tree: leaves of shape ``(N, ...)``, or without axes (step counters, a run's key); arrays, or
            their shapes as of ``jax.eval_shape``.
        mesh: a mesh with an axis ``agents``.
        num_agents: N, where the tree has leaves with axes that are no agent's (a server's): those
            that do not lead with N.

    Returns:
        A sharding a leaf: by the agent axis, or, without one, whole on every device.

    Raises:
        ValueError: if the leaves disagree about N, or the devices do not divide it.

    Example::

        shardings = agent_shardings(jax.eval_shape(make_state), mesh)
        state = jax.jit(make_state, out_shardings=shardings)()  # no device ever holds all agents
    """
    if num_agents is None:
        with_axes = [x for x in jax.tree.leaves(tree) if np.ndim(x)]
        num_agents = stacked_size(with_axes) if with_axes else mesh.size
    block_size(num_agents, mesh)
    by_agent, whole = (NamedSharding(mesh, PartitionSpec(*axes)) for axes in ([AXIS], []))
    return jax.tree.map(lambda x: by_agent if np.shape(x)[:1] == (num_agents,) else whole, tree)


def shard_agents(tree: Params, mesh: Mesh) -> Params:
    """Puts every agent's part of a stacked tree on the agent's device.

    Args:
        tree: leaves of shape ``(N, ...)``, or without axes; the same in every process.
        mesh: a mesh with an axis ``agents``.

    Returns:
        The tree, sharded as :func:`agent_shardings` says. A leaf that already was is not copied.

    Raises:
        ValueError: if the leaves disagree about N, or the devices do not divide it.

    Example::

        params = shard_agents(cdjax.replicate(params, 16), mesh)
    """
    return jax.tree.map(_place, tree, agent_shardings(tree, mesh))


def build_agents(build: Callable[[range], Params], num_agents: int, mesh: Mesh) -> Params:
    """A sharded tree of which each process builds its own agents' part alone.

    Args:
        build: from the numbers of a device's agents to their stacked tree, leaves of shape
            ``(block, ...)``; called once for each device of this process.
        num_agents: N.
        mesh: a mesh with an axis ``agents``.

    Returns:
        The tree, leaves of shape ``(N, ...)``, sharded by the agent axis.

    Raises:
        ValueError: if the devices do not divide N, or ``build`` returns another number of agents.

    Example::

        data = build_agents(lambda agents: load(parts[agents.start : agents.stop]), 16, mesh)
    """
    size = block_size(num_agents, mesh)
    sharding = NamedSharding(mesh, PartitionSpec(AXIS))
    blocks: list[list[jax.Array]] = []
    structure = jax.tree.structure(())
    for device, index in sharding.addressable_devices_indices_map((num_agents,)).items():
        agents = range(num_agents)[index[0]]  # pyright: ignore[reportOptionalSubscript]
        block = build(agents)
        if stacked_size(block) != size:
            raise ValueError(
                f"build gave {stacked_size(block)} agents for {agents}; expected {size}"
            )
        leaves, structure = jax.tree.flatten(block)
        blocks.append([jax.device_put(x, device) for x in leaves])

    def assemble(*parts: jax.Array) -> jax.Array:
        shape = (num_agents, *parts[0].shape[1:])
        return jax.make_array_from_single_device_arrays(shape, sharding, list(parts))

    return jax.tree.unflatten(structure, [assemble(*parts) for parts in zip(*blocks, strict=True)])


def replicate_on_devices(tree: Params, mesh: Mesh) -> Params:
    """Puts all of a tree on every device: shared data, or results that the host is to read.

    Args:
        tree: any arrays, the same in every process, or sharded over the mesh. In a run of several
            processes ``jax.device_get`` takes sharded arrays only after this.
        mesh: the devices.

    Returns:
        The tree, every leaf whole on every device.
    """
    whole = NamedSharding(mesh, PartitionSpec())
    return jax.tree.map(lambda x: _place(x, whole), tree)


def sharded(fn: Callable[..., Any], mesh: Mesh, *, num_shared: int = 0) -> Callable[..., Any]:
    """Runs a function of stacked trees on every device's own block of agents.

    Left to itself, XLA gathers all agents on every device for some functions that need their own
    agents alone: a loop over agents, or convolutions with a kernel an agent.

    Args:
        fn: a function of stacked trees that treats every agent for itself, as of
            :func:`cdjax.agent_map`; all leaves of its results lead with the agent axis.
        mesh: a mesh with an axis ``agents``.
        num_shared: how many arguments, the last ones, are not stacked but the same for all agents;
            they are whole on every device.

    Returns:
        The function on stacked trees of all N agents.

    Raises:
        ValueError: if the stacked arguments disagree about N, or the devices do not divide it.

    Example::

        grads = sharded(cdjax.agent_map(jax.grad(loss_fn)), mesh)(params, batch)
    """

    def on_all(*args: Any) -> Any:
        num_stacked = len(args) - num_shared
        block_size(stacked_size(args[:num_stacked]), mesh)
        by_agent, whole = PartitionSpec(AXIS), PartitionSpec()
        # check_vma would ask that loops in fn say which of their carries differ between devices.
        on_blocks = jax.shard_map(
            fn,
            mesh=mesh,
            in_specs=(by_agent,) * num_stacked + (whole,) * num_shared,
            out_specs=by_agent,
            check_vma=False,
        )
        return on_blocks(*args)

    return on_all


@functools.cache
def _identity(sharding: NamedSharding) -> Callable[[jax.Array], jax.Array]:
    return jax.jit(lambda x: x, out_shardings=sharding)


def _place(x: Any, sharding: NamedSharding) -> jax.Array:
    if sharding.is_fully_addressable:
        return jax.device_put(x, sharding)
    if isinstance(x, jax.Array) and not x.is_fully_addressable:
        # One program at a time: of several, each process may start another one first, and wait.
        return jax.block_until_ready(_identity(sharding)(jax.block_until_ready(x)))
    if isinstance(x, jax.Array) and jnp.issubdtype(x.dtype, jax.dtypes.prng_key):
        data = _place(jax.random.key_data(x), sharding)
        return jax.random.wrap_key_data(data, impl=jax.random.key_impl(x))
    # Not device_put, which would send all of x around to compare it between processes.
    return jax.make_array_from_callback(np.shape(x), sharding, lambda index: np.asarray(x)[index])
