"""Agents on several devices: the agent axis of every stacked tree, split into blocks.

A *mesh* has an axis ``agents`` of D devices. Device d holds the block of N / D consecutive agents
that starts at d N / D: their parameters, optimizer state, data and keys, and no other agent's. One
device is the special case D = 1. In a run of several processes, all of them must call every
function here in the same way.

A mesh may have other axes beside, over which each agent's own arrays are divided (FSDP, tensor
parallelism), and the axis of the agents another name. Nothing here touches those axes.
"""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import AxisType, Mesh, NamedSharding, PartitionSpec

from cdjax._checks import check_count, check_num_agents, stacked_size
from cdjax._divisors import largest_divisor
from cdjax._types import Params

AXIS = "agents"


def agent_mesh(num_devices: int | None = None) -> Mesh:
    """A mesh of devices with the one axis ``agents``.

    Args:
        num_devices: D; by default all devices of all processes.

    Raises:
        ValueError: if there are fewer devices, or several processes do not ask for all of theirs.

    Example: ``mesh = cdjax.sharding.agent_mesh()``
    """
    found = jax.device_count()
    wanted = found if num_devices is None else num_devices
    check_count("num_devices", wanted, low=1)
    if wanted > found:
        raise ValueError(f"num_devices is {wanted}, but JAX finds {found}; give at most {found}")
    if wanted < found and jax.process_count() > 1:
        raise ValueError(
            f"num_devices is {wanted}, but {jax.process_count()} processes have {found} devices "
            "together and all of them take part; leave num_devices out"
        )
    # JAX's default, explicit axes, would make callers annotate their own code.
    return jax.make_mesh((wanted,), (AXIS,), (AxisType.Auto,), devices=jax.devices()[:wanted])


def block_size(num_agents: int, mesh: Mesh, *, axis: str = AXIS) -> int:
    """N / D: how many agents each device of the mesh holds.

    Args:
        num_agents: N.
        mesh: a mesh with an axis of that name.
        axis: the name of the agents' axis.

    Raises:
        ValueError: if D does not divide N, or the mesh is not like one of :func:`agent_mesh`.
    """
    check_num_agents(num_agents)
    if not isinstance(mesh, Mesh):
        raise ValueError(f"mesh is of type {type(mesh).__name__}; give cdjax.sharding.agent_mesh()")
    axes = dict(zip(mesh.axis_names, mesh.axis_types, strict=True))
    if axis not in axes or any(kind is not AxisType.Auto for kind in axes.values()):
        found = ", ".join(f"{name} ({kind.name})" for name, kind in axes.items()) or "no axes"
        raise ValueError(
            f"mesh has {found}; expected {axis} (Auto) and no explicit axes, see "
            "cdjax.sharding.agent_mesh and jax.make_mesh(axis_types=)"
        )
    num_devices = mesh.shape[axis]
    if num_agents % num_devices:
        fitting = largest_divisor(num_agents, num_devices)
        below = num_agents // num_devices * num_devices
        agents = " or ".join(str(n) for n in (below, below + num_devices) if n)
        raise ValueError(
            f"{num_agents} agents do not divide among {num_devices} devices; "
            f"take {agents} agents, or {fitting} device{'s' if fitting > 1 else ''}"
        )
    return num_agents // num_devices


def agent_shardings(
    tree: Params,
    mesh: Mesh,
    *,
    num_agents: int | None = None,
    specs: Any = None,
    axis: str = AXIS,
) -> Any:
    """Where each leaf of a tree belongs, for ``jax.jit``'s ``out_shardings``.

    Args:
        tree: leaves of shape ``(N, ...)``, or without axes (a step, a key); arrays or their shapes.
        mesh: a mesh with an axis for the agents.
        num_agents: N; needed if the tree has leaves with axes but no agent axis, as a server's.
        specs: how an agent's own leaves are divided over the mesh's other axes: a tree of
            ``PartitionSpec`` for the leaves of one agent, or one for a whole subtree. By default as
            they are, if they lie on such a mesh already, and else not at all.
        axis: the name of the agents' axis.

    Returns:
        A sharding per leaf: by the agent axis and its own, or whole on every device if the leaf has
        no agent axis.

    Raises:
        ValueError: if the leaves disagree about N, or the devices do not divide it.

    Example::

        make_params = lambda: jax.random.normal(key, (8, 3))
        shardings = cdjax.sharding.agent_shardings(jax.eval_shape(make_params), mesh)
        params = jax.jit(make_params, out_shardings=shardings)()  # no device ever holds all agents
    """
    if num_agents is None:
        with_axes = [x for x in jax.tree.leaves(tree) if np.ndim(x)]
        num_agents = stacked_size(with_axes) if with_axes else mesh.size
    block_size(num_agents, mesh, axis=axis)

    def place(x: Any, spec: PartitionSpec | None) -> NamedSharding:
        if np.shape(x)[:1] != (num_agents,):
            return NamedSharding(mesh, PartitionSpec())
        own = _spec_of_agent(x, mesh) if spec is None else spec
        return NamedSharding(mesh, PartitionSpec(axis, *own))

    if specs is None:
        return jax.tree.map(lambda x: place(x, None), tree)
    is_spec = lambda x: isinstance(x, PartitionSpec)  # noqa: E731
    return jax.tree.map(place, tree, jax.tree.broadcast(specs, tree, is_leaf=is_spec))


def _spec_of_agent(x: Any, mesh: Mesh) -> tuple[Any, ...]:
    """How a stacked array is divided along the axes behind the agents', on a mesh like this one."""
    sharding = getattr(x, "sharding", None)
    if not isinstance(sharding, NamedSharding) or sharding.mesh.axis_names != mesh.axis_names:
        return ()
    return tuple(sharding.spec[1:])


def shard_agents(tree: Params, mesh: Mesh, *, specs: Any = None, axis: str = AXIS) -> Params:
    """Puts every agent's part of a stacked tree on the agent's device.

    Args:
        tree: leaves of shape ``(N, ...)``, or without axes; the same in every process.
        mesh: a mesh with an axis for the agents.
        specs: how an agent's own leaves are divided, see :func:`agent_shardings`.
        axis: the name of the agents' axis.

    Returns:
        The tree, sharded as :func:`agent_shardings` says. Leaves that already are, are kept.

    Raises:
        ValueError: if the leaves disagree about N, or the devices do not divide it.

    Example: ``params = cdjax.sharding.shard_agents(params, mesh)``
    """
    return jax.tree.map(_place, tree, agent_shardings(tree, mesh, specs=specs, axis=axis))


def build_agents(build: Callable[[range], Params], num_agents: int, *, mesh: Mesh) -> Params:
    """A sharded tree of which each process builds only the part of its own agents.

    Args:
        build: from the numbers of a device's agents to their stacked tree; called once per device.
        num_agents: N.
        mesh: a mesh with an axis ``agents``.

    Returns:
        The tree, leaves of shape ``(N, ...)``, sharded by the agent axis.

    Raises:
        ValueError: if the devices do not divide N, or ``build`` returns another number of agents.

    Example: ``numbers = cdjax.sharding.build_agents(np.array, 8, mesh=mesh)  # 0, 1, ..., 7``
    """
    size = block_size(num_agents, mesh)
    sharding = NamedSharding(mesh, PartitionSpec(AXIS))
    blocks = []
    for device, index in sharding.addressable_devices_indices_map((num_agents,)).items():
        agents = range(num_agents)[index[0]]  # pyright: ignore[reportOptionalSubscript]
        block = build(agents)
        found = stacked_size(block)
        if found != size:
            raise ValueError(f"build gave {found} agents for {agents}; expected {size}")
        blocks.append(jax.device_put(block, device))

    def assemble(*parts: jax.Array) -> jax.Array:
        shape = (num_agents, *parts[0].shape[1:])
        return jax.make_array_from_single_device_arrays(shape, sharding, list(parts))

    return jax.tree.map(assemble, *blocks)


def replicate_on_devices(tree: Params, mesh: Mesh) -> Params:
    """Puts a whole tree on every device: shared data, or results that the host reads.

    Args:
        tree: any arrays, the same in every process, or sharded over the mesh. In a run of several
            processes ``jax.device_get`` accepts sharded arrays only after this.
        mesh: the devices.

    Example: ``test_set = cdjax.sharding.replicate_on_devices(np.ones((100, 28, 28)), mesh)``
    """
    whole = NamedSharding(mesh, PartitionSpec())
    return jax.tree.map(lambda x: _place(x, whole), tree)


def sharded(
    fn: Callable[..., Any], mesh: Mesh, *, num_shared: int = 0, axis: str = AXIS
) -> Callable[..., Any]:
    """A function of stacked trees, run on each device's own block of agents.

    Without this, XLA gathers all agents on every device for some functions that only need a
    device's own agents: a loop over agents, or a convolution with one kernel per agent.

    Args:
        fn: a function of stacked trees that treats each agent independently, such as
            :func:`cdjax.agent_map` returns; all leaves of its results lead with the agent axis.
        mesh: a mesh with an axis ``agents``.
        num_shared: how many of the last arguments all agents share, whole on every device.
        axis: the name of the agents' axis. Along other axes of the mesh XLA divides the work as the
            arguments are divided.

    Raises:
        ValueError: if the stacked arguments disagree about N, or the devices do not divide it.

    Example::

        grads_fn = cdjax.sharding.sharded(cdjax.agent_map(jax.grad(loss_fn)), mesh)
        grads = jax.jit(grads_fn)(params, batch)
    """

    def on_all(*args: Any) -> Any:
        num_stacked = len(args) - num_shared
        block_size(stacked_size(args[:num_stacked]), mesh, axis=axis)
        by_agent, whole = PartitionSpec(axis), PartitionSpec()
        specs = (by_agent,) * num_stacked + (whole,) * num_shared
        # With check_vma, loops in fn would have to declare which carries differ between devices.
        mapped = jax.shard_map(
            fn, mesh=mesh, in_specs=specs, out_specs=by_agent, axis_names={axis}, check_vma=False
        )
        return mapped(*args)

    return on_all


# Cached, as jax.jit keeps its compiled programs per function object.
@functools.cache
def _identity(sharding: NamedSharding) -> Callable[[jax.Array], jax.Array]:
    return jax.jit(lambda x: x, out_shardings=sharding)


def _place(x: Any, sharding: NamedSharding) -> jax.Array:
    if sharding.is_fully_addressable:
        return jax.device_put(x, sharding)
    if isinstance(x, jax.Array) and not x.is_fully_addressable:
        # One program at a time: with several in flight, two processes may start them in different
        # orders, and each then waits for the other for ever.
        return jax.block_until_ready(_identity(sharding)(jax.block_until_ready(x)))
    if isinstance(x, jax.Array) and jnp.issubdtype(x.dtype, jax.dtypes.prng_key):
        # make_array_from_callback takes NumPy data, which typed keys cannot be.
        data = _place(jax.random.key_data(x), sharding)
        return jax.random.wrap_key_data(data, impl=jax.random.key_impl(x))
    # Not device_put, which would send all of x between the processes to compare it.
    return jax.make_array_from_callback(np.shape(x), sharding, lambda index: np.asarray(x)[index])
