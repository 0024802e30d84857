"""The clock of a network: when every agent has finished every step.

An agent goes on once its own gradient is computed and the last message that it needs has arrived.
All of that is sums and maxima, a recursion in the max-plus algebra: see Baccelli, Cohen, Olsder,
Quadrat, *Synchronization and Linearity*, Wiley 1992 (not verified).
"""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple, Protocol, TypeAlias, runtime_checkable

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, ArrayLike, Bool, Float, Int

from cdjax._checks import check_count, check_range, check_scalar
from cdjax.network import _instants
from cdjax.network._instants import Instants
from cdjax.network._links import Links
from cdjax.network._orders import Leg, Order


@runtime_checkable
class Heard(Protocol):
    """Names the links that carry a message in an exchange."""

    def __call__(self, step: int | Int[Array, ""]) -> Bool[Array, " links"]:
        """Returns whether each link does, shape (links,), in the order of the links.

        Of an order with a period, it is given the number of the exchange, ``step // period``, as a
        mixer is by ``cdjax.mixing.every``.
        """
        ...


@runtime_checkable
class Compute(Protocol):
    """Says how long agents compute in a step."""

    def __call__(self, step: int | Int[Array, ""]) -> Float[Array, "*agents"]:
        """Returns seconds, one number or one per agent, shape (N,)."""
        ...


# A number, one per agent, shape (N,), one per step and agent, shape (steps, N), or a function.
ComputeTimes: TypeAlias = ArrayLike | Compute


class ClockState(NamedTuple):
    """How far a clock has come.

    Attributes:
        step: the steps that are done.
        times: when each agent, and the server, has done them.
        free: when each link has taken what was sent over it.
        late: of an order with a lag, when the messages of the last steps arrive, shape (lag,
            links), the oldest first; of one that overlaps, those of the last exchange.
    """

    step: Int[Array, ""]
    times: Instants
    free: Instants
    late: Instants


class Clock(NamedTuple):
    """A clock that goes step by step, as an optax transformation does.

    Attributes:
        init: gives the state at second 0, at which everybody has the initial parameters.
        update: takes a state and the seconds that agents compute in its step, one number or shape
            (N,), and returns the next state.
    """

    init: Callable[[], ClockState]
    update: Callable[[ClockState, ArrayLike], ClockState]


def clock(
    order: Order,
    links: Links,
    compute: ComputeTimes,
    message_bytes: float,
    *,
    num_steps: int | None = None,
    heard: Heard | None = None,
) -> Float[np.ndarray, "steps agents"]:
    r"""When every agent has finished every step, in seconds since the start.

    For ``consensus``, with :math:`t_j(k)` the time at which agent j has done k steps,

    .. math:: t_j(k + 1) = \max\big( t_j(k) + c_j(k), \max_{l \in Nb(j)} t_l(k) + m_{jl} \big)

    and for ``adapt_then_combine``

    .. math:: t_j(k + 1) = \max_{l \in Nb(j) \cup \{j\}} t_l(k) + c_l(k) + m_{jl} [l \ne j]

    A link carries one message after another, so that one that finds it busy waits: without that, a
    link between agents who do not wait for each other would carry more than its bandwidth.

    Args:
        order: who computes and waits when, such as ``cdjax.network.consensus()``.
        links: what messages meet, of :func:`links` or :func:`server_links`.
        compute: c in seconds: one number, one per agent, shape (N,), one per step and agent, shape
            (steps, N), or a function of the step as of :func:`compute_times`.
        message_bytes: b, the bytes of a message; ``cdjax.metrics.message_bytes(params)``.
        num_steps: how many steps; by default as many as ``compute`` has rows.
        heard: which links carry a message in a step, where it is not all of them.

    Returns:
        Seconds, float64, shape (steps, N); infinite for agents that wait for ever, which a silent
        link makes of its receiver, and of those that wait for that one in turn.

    Raises:
        ValueError: if the links do not fit the order, or a time is negative.

    Example::

        wires = cdjax.network.links(cdjax.topology.ring(16), latency=0.05, bandwidth=12.5e6)
        order = cdjax.network.consensus()
        times = cdjax.network.clock(order, wires, 0.4, 8.7e6, num_steps=100)
    """
    of_step, num_steps = _compute_of(compute, links.num_agents, num_steps)
    init, update = clockwork(order, links, message_bytes, heard=heard)

    def advance(state: ClockState, step: Array) -> tuple[ClockState, Instants]:
        state = update(state, of_step(step))
        return state, jax.tree.map(lambda part: part[: links.num_agents], state.times)

    scan = jax.jit(lambda state: jax.lax.scan(advance, state, jnp.arange(num_steps)))
    return _instants.in_seconds(scan(init())[1])


def clockwork(
    order: Order, links: Links, message_bytes: float, *, heard: Heard | None = None
) -> Clock:
    """The clock of :func:`clock`, step by step, for a training loop.

    Args:
        order: who computes and waits when.
        links: what messages meet.
        message_bytes: b, the bytes of a message.
        heard: which links carry a message in a step, where it is not all of them.

    Returns:
        The clock; its state is a tree of arrays, and :func:`seconds_of` reads the times from it.

    Raises:
        ValueError: if the links do not fit the order.

    Example::

        ticks = cdjax.network.clockwork(cdjax.network.consensus(), wires, 8.7e6)
        state = ticks.update(ticks.init(), 0.4)
    """
    check_fit(order, links)
    check_scalar("message_bytes", message_bytes, low=0)
    num_nodes, num_links = links.num_nodes, len(links.receivers)
    receivers, senders = links.receivers, links.senders
    num_bytes = message_bytes * order.messages
    carries = {leg: carried_by(leg, links) for leg in order.legs}

    def init() -> ClockState:
        # What late messages bring first are the initial parameters, which everybody has.
        late = _instants.instants(0.0, (max(order.lag, order.overlap > 0), num_links))
        times, free = (_instants.instants(0.0, (size,)) for size in (num_nodes, num_links))
        return ClockState(jnp.zeros((), jnp.int32), times, free, late)

    def update(state: ClockState, compute: ArrayLike) -> ClockState:
        compute = jnp.broadcast_to(jnp.asarray(compute), (links.num_agents,))
        compute = jnp.pad(compute, (0, num_nodes - links.num_agents))  # the server's takes none

        def whole(state: ClockState) -> ClockState:
            in_use = None if heard is None else heard(state.step // order.period)
            for leg in order.before:
                state = exchange(state, leg, in_use)
            start = state.times
            for leg in order.beside:
                state = exchange(state, leg, in_use)
            computed = _instants.plus(start, compute)
            state = state._replace(times=_instants.later(computed, state.times))
            for number, leg in enumerate(order.after, start=1):
                needed = not (order.overlap and number == len(order.after))
                state = exchange(state, leg, in_use, needed=needed)
            return state

        def local(state: ClockState) -> ClockState:
            times = _instants.plus(state.times, compute)
            if order.overlap:
                arrived = jax.tree.map(lambda part: part[0], state.late)
                last = _instants.latest_by(arrived, receivers, num_nodes)
                is_needed = (state.step + 1) % order.period == order.overlap
                times = _instants.later(times, last).where(is_needed, times)
            return state._replace(times=times)

        if order.period == 1:
            state = whole(state)
        else:
            is_last = (state.step + 1) % order.period == 0
            state = jax.lax.cond(is_last, whole, local, state)
        return state._replace(step=state.step + 1)

    def exchange(
        state: ClockState, leg: Leg, in_use: Array | None, *, needed: bool = True
    ) -> ClockState:
        if leg == "ring":
            return state._replace(times=_around(links, num_bytes, state.times))
        if in_use is None:
            active = jnp.asarray(carries[leg])
            busy = jnp.asarray(links.transfer(num_bytes, carries[leg]))
        else:
            active = jnp.asarray(carries[leg]) & in_use
            busy = _transfer(links, num_bytes, active)
        never = _instants.instants(-jnp.inf, (num_links,))
        if leg == "trip":
            # There and back: the two links of an agent, each as busy as the others make it.
            there_and_back = jnp.where(active, busy + jnp.asarray(links.latency), 0)
            agents = jnp.asarray(np.minimum(receivers, senders))
            trips = jax.ops.segment_sum(there_and_back, agents, num_nodes)
            return state._replace(times=_instants.plus(state.times, trips))
        ready = jax.tree.map(lambda part: part[senders], state.times)
        sent = _instants.later(ready, state.free)
        taken = _instants.plus(sent, busy)
        arrived = _instants.plus(taken, jnp.asarray(links.latency)).where(active, never)
        state = state._replace(free=taken.where(active, state.free))
        if not order.waits:
            own = _instants.latest_by(sent.where(active, never), senders, num_nodes)
            return state._replace(times=_instants.later(state.times, own))
        if not needed:
            return state._replace(late=jax.tree.map(lambda part: part[None], arrived))
        if order.lag:
            pairs = zip(state.late, arrived, strict=True)
            queue = [jnp.concatenate([old, fresh[None]]) for old, fresh in pairs]
            arrived = Instants(*(moments[0] for moments in queue))
            state = state._replace(late=Instants(*(moments[1:] for moments in queue)))
        last = _instants.latest_by(arrived, receivers, num_nodes)
        return state._replace(times=_instants.later(state.times, last))

    return Clock(init, update)


def seconds_of(state: ClockState, links: Links) -> Float[np.ndarray, " agents"]:
    """When each agent has finished the steps of a clock's state, in seconds, float64.

    Args:
        state: of :func:`clockwork`.
        links: those of the clock.

    Example::

        state = cdjax.network.clockwork(cdjax.network.consensus(), wires, 8.7e6).init()
        seconds = cdjax.network.seconds_of(state, wires)
    """
    return _instants.in_seconds(state.times)[: links.num_agents]


def carried_by(leg: Leg, links: Links) -> Bool[np.ndarray, " links"]:
    """The links that an exchange uses."""
    server = links.num_agents
    chosen = {"up": links.receivers == server, "down": links.senders == server}
    return chosen.get(leg, np.ones(len(links.receivers), bool))


def check_fit(order: Order, links: Links) -> None:
    """Raises unless there is a server in the links where the order needs one."""
    if order.has_server and not links.has_server:
        raise ValueError(
            "links are from agent to agent, but the order goes by way of a server; give "
            "cdjax.network.server_links(num_agents, ...)"
        )
    if links.has_server and "ring" in order.legs:
        raise ValueError(
            "links are of a server, but the order sums up around a ring; give "
            "cdjax.network.links(cdjax.topology.ring(num_agents), ...)"
        )


def seconds_around(links: Links, message_bytes: float) -> float:
    """How long a ring all-reduce takes after its last agent has joined, see ``all_reduce``."""
    rounds = 2 * (links.num_agents - 1)
    if not rounds:
        return 0.0
    ends = [links.bandwidth, links.upload[links.senders], links.download[links.receivers]]
    chunk = message_bytes / links.num_agents / np.min(ends, axis=0)
    return rounds * float(np.max(links.latency + chunk))


def _around(links: Links, message_bytes: float, times: Instants) -> Instants:
    everybody = np.zeros(links.num_nodes, int)
    last = _instants.latest_by(times, everybody, 1)
    done = _instants.plus(last, seconds_around(links, message_bytes))
    return Instants(*(jnp.broadcast_to(part, (links.num_nodes,)) for part in done))


def _transfer(
    links: Links, message_bytes: float, active: Bool[Array, " links"]
) -> Float[Array, " links"]:
    """``Links.transfer`` for links that are known in the step only."""
    ends = (links.senders, links.upload), (links.receivers, links.download)
    per_byte = jnp.asarray(1 / links.bandwidth)
    for nodes, capacity in ends:
        count = jax.ops.segment_sum(active.astype(int), jnp.asarray(nodes), links.num_nodes)
        share = jnp.maximum(count, 1).astype(per_byte.dtype) * jnp.asarray(1 / capacity)
        per_byte = jnp.maximum(per_byte, share[nodes])
    return message_bytes * per_byte


def _compute_of(
    compute: ComputeTimes, num_agents: int, num_steps: int | None
) -> tuple[Callable[[Array], ArrayLike], int]:
    """The seconds of each step, and the number of steps."""
    if num_steps is not None:
        check_count("num_steps", num_steps, low=0)
    if callable(compute):
        if num_steps is None:
            raise ValueError("num_steps is None, but compute is a function; give how many steps")
        return compute, num_steps
    check_range("compute", compute, low=0)
    values = np.asarray(compute)
    if values.ndim < 2 and num_steps is None:
        raise ValueError(f"num_steps is None, but compute has shape {values.shape}; give one")
    fits = values.shape in ((), (num_agents,))
    fits |= values.ndim == 2 and values.shape[1] == num_agents
    if not fits or (values.ndim == 2 and num_steps not in (None, len(values))):
        raise ValueError(
            f"compute has shape {values.shape}; give one number, one per agent, shape "
            f"{(num_agents,)}, or one per step and agent, shape (steps, {num_agents})"
        )
    if values.ndim < 2:
        return lambda step: jnp.asarray(values), int(num_steps or 0)
    table = jnp.asarray(values)
    return lambda step: table[step], len(values)
