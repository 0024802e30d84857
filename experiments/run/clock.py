"""The network's clock of a run: simulated seconds, beside the training."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

import cdjax
from cdjax import mixing, network, topology
from experiments.run.algorithms.row import Algorithm, Setting
from experiments.run.compiling import jit_once
from experiments.run.config import Run
from experiments.run.disturbance import FAULTS
from experiments.run.errors import UsageError, blame
from experiments.run.network import Network, faults_of
from experiments.run.problem import Problem
from experiments.run.wires import (
    bound_of,
    described,
    drawn,
    is_random,
    links_around,
    links_between,
    links_to_server,
)

_MEASURED_TIMES = 5
_SIMULATED_STEPS = 200


class Timing(NamedTuple):
    """How a run's clock goes on.

    ``advance`` takes a state, how many steps to go and the seconds of a gradient. ``order`` and
    ``links`` say what it waits for; ``heard`` is None where each exchange uses all links. Where
    nobody waits, ``ends`` are the seconds at which each step of N events ends.
    """

    order: network.Order
    links: network.Links
    message_bytes: float
    heard: network.Heard | None
    compute: Callable[[Any, Any], Any]
    init: Callable[[], network.ClockState]
    advance: Callable[[network.ClockState, int, float], network.ClockState]
    ends: np.ndarray | None = None


class Now(NamedTuple):
    """How late it is in a run: the clock's state, and the seconds of a gradient that it counts."""

    state: network.ClockState
    compute_seconds: float


def timing_of(
    run: Run,
    net: Network,
    row: Algorithm,
    *,
    setting: Setting,
    options: Mapping[str, Any],
    message_bytes: float,
) -> Timing | None:
    """The clock of a run; None without a network. Raises a UsageError for what is no network."""
    if not run.clock.is_on:
        return None
    order = row.order(setting, **options)
    if run.trouble.lag:
        order = network.delayed(order, run.trouble.lag)
    if "ring" in order.legs:
        links = links_around(run.clock, net.topology)
    elif row.server:
        links = links_to_server(run.clock, net.num_agents)
    else:
        graph = topology.complete(net.num_agents) if row.talks_to_all else net.topology
        links = links_between(run.clock, graph)
    if links.silent:
        sender, receiver = links.silent[0]
        raise UsageError(
            f"--network: the link from {sender} to {receiver} is silent, so that agents would wait "
            "for it for ever; leave its edge out of the topology"
        )
    if setting.events is not None:
        return _of_events(setting, order, links, message_bytes)
    heard = _heard(run, net, row, setting=setting, links=links, options=options)
    compute = _compute(run, row, setting=setting, options=options)
    size = message_bytes * run.network.mix_fraction
    ticks = network.clockwork(order, links, size, heard=heard)

    @jax.jit
    def advance(state: network.ClockState, steps: int, seconds: float) -> network.ClockState:
        body = lambda _, state: ticks.update(state, compute(state.step, seconds))  # noqa: E731
        return jax.lax.fori_loop(0, steps, body, state)

    return Timing(order, links, size, heard, compute, ticks.init, advance)


def events_of(
    run: Run, net: Network, *, num_events: int, message_bytes: float, key: jax.Array
) -> network.Averagings:
    """Who averages with whom in which order; without a network, everybody is as often the next."""
    peers = mixing.random_peers(net.topology, key)
    draw_key = jax.random.fold_in(key, _CLOCK)
    if not run.clock.is_on:
        links = network.links(net.topology)
        waits = network.compute_times(1.0, net.num_agents, law="exponential", key=draw_key)
        return network.averagings(links, waits, 0.0, peers=peers, num_events=num_events)
    if run.clock.compute_time is None:
        raise UsageError(
            "--compute-time: the order of events depends on it, and what is measured is never the "
            "same; give it"
        )
    with blame("--compute-time"):
        mean = network.seconds(run.clock.compute_time)
        share = drawn(run.clock, 1.0, net.num_agents, key=draw_key)
        return network.averagings(
            links_between(run.clock, net.topology), lambda step: mean * share(step),
            message_bytes, peers=peers, num_events=num_events,
        )  # fmt: skip


def started(run: Run, task: Problem, timing: Timing | None) -> Now | None:
    """Second 0 of a run's clock; a gradient takes what ``--compute-time`` says, or is measured."""
    if timing is None:
        return None
    if run.clock.compute_time is None:
        return Now(timing.init(), measured_seconds(task))
    with blame("--compute-time"):
        return Now(timing.init(), network.seconds(run.clock.compute_time))


def later(timing: Timing | None, now: Now | None, steps: int) -> Now | None:
    """The clock so many steps later."""
    if timing is None or now is None or not steps:
        return now
    return now._replace(state=timing.advance(now.state, steps, now.compute_seconds))


def simulated_seconds(timing: Timing, now: Now, agents: np.ndarray) -> float:
    """When the last of the agents has done all steps."""
    return float(network.seconds_of(now.state, timing.links)[agents].max())


def without(now: Now | None, kept: np.ndarray, timing: Timing | None) -> Now | None:
    """The clock of the agents that are kept, in which all links are free."""
    if now is None or timing is None:
        return None
    fresh = timing.init()
    nodes = np.append(kept, len(now.state.times.high) - 1) if timing.links.has_server else kept
    times = jax.tree.map(lambda part: part[nodes], now.state.times)
    return now._replace(state=fresh._replace(step=now.state.step, times=times))


def noted(now: Now | None) -> dict[str, Any] | None:
    """The clock for a checkpoint's notes, in numbers that JSON keeps to the last bit."""
    if now is None:
        return None
    leaves = [np.asarray(leaf).tolist() for leaf in jax.tree.leaves(now.state)]
    return {"compute_seconds": now.compute_seconds, "state": leaves}


def restored(notes: Mapping[str, Any] | None, timing: Timing | None) -> Now | None:
    """The clock from a checkpoint's notes."""
    if timing is None or notes is None:
        return None
    leaves, structure = jax.tree.flatten(timing.init())
    filled = []
    for note, leaf in zip(notes["state"], leaves, strict=True):
        values = np.array(note, float)  # null, which JSON has for -inf, becomes NaN
        filled.append(jnp.asarray(np.where(np.isnan(values), -np.inf, values), leaf.dtype))
    return Now(structure.unflatten(filled), notes["compute_seconds"])


def fact(run: Run, timing: Timing, now: Now) -> str:
    """The network, and how long a step takes and why, for the start table."""
    seconds, bound = seconds_per_step(timing, now.compute_seconds, random=is_random(run.clock))
    source = "" if run.clock.compute_time else ", as measured here"
    return (
        f"{described(run.clock)}: {seconds:.3g} s per step, bound by {bound} "
        f"(a gradient takes {now.compute_seconds:.3g} s{source})"
    )


def seconds_per_step(timing: Timing, compute: float, *, random: bool) -> tuple[float, str]:
    """How long a step takes, and what bounds it; simulated where something is drawn."""
    if timing.ends is not None:
        seconds = float(timing.ends[-1]) / len(timing.ends)
        return seconds, "compute" if seconds < 2 * compute else "the network"
    steady = network.pace(timing.order, timing.links, compute, timing.message_bytes)
    if timing.heard is None and not random:
        return steady.seconds, steady.bound
    steps = _SIMULATED_STEPS - _SIMULATED_STEPS % timing.order.period or timing.order.period
    state = timing.advance(timing.init(), steps, compute)
    seconds = float(network.seconds_of(state, timing.links).max()) / steps
    return seconds, bound_of(seconds, compute, steady)


def measured_seconds(task: Problem) -> float:
    """How long this machine takes for one agent's gradient of one batch: the median of several."""
    images, labels = task.dataset.train_images, task.dataset.train_labels
    batch = (jnp.asarray(images[: task.batch_size]), jnp.asarray(labels[: task.batch_size]))
    key = jax.random.key(0)
    params, model_state = jit_once(task.initial)(key)
    gradient = jax.jit(jax.grad(lambda p: task.loss(p, model_state, batch, key)[0]))
    jax.block_until_ready(gradient(params))
    return float(np.median([_seconds_of(gradient, params) for _ in range(_MEASURED_TIMES)]))


def _seconds_of(gradient: Callable[[Any], Any], params: cdjax.Params) -> float:
    start = time.monotonic()
    jax.block_until_ready(gradient(params))
    return time.monotonic() - start


def _compute(
    run: Run, row: Algorithm, *, setting: Setting, options: Mapping[str, Any]
) -> Callable[[Any, Any], Any]:
    """The seconds that each agent computes in a step, from the step and the mean."""
    key = jax.random.fold_in(setting.key, _CLOCK)
    share = drawn(run.clock, 1.0, setting.num_agents, key=key)
    trains = row.trains(setting, **options) if row.trains else None

    def compute(step: Any, mean: Any) -> Any:
        seconds = mean * share(step)
        return jnp.where(trains(step), seconds, 0.0) if trains else seconds

    return compute


def _of_events(
    setting: Setting, order: network.Order, links: network.Links, message_bytes: float
) -> Timing:
    """The clock of agents that wait for nobody: a step ends with the last of its N events."""
    num_agents = setting.num_agents
    ends = setting.events.seconds[num_agents - 1 :: num_agents]
    init, _ = network.clockwork(order, links, message_bytes)

    def advance(state: network.ClockState, steps: int, seconds: float) -> network.ClockState:
        del seconds  # which the events have counted
        done = int(state.step) + steps
        times = network.instants(ends[done - 1], (num_agents,))
        return state._replace(step=jnp.int32(done), times=times)

    compute = lambda step, mean: mean  # noqa: E731
    return Timing(order, links, message_bytes, None, compute, init, advance, ends)


# Folded into the key of a run's peers, of which other draws have taken 0 and 1.
_CLOCK = 2


def _heard(
    run: Run,
    net: Network,
    row: Algorithm,
    *,
    setting: Setting,
    links: network.Links,
    options: Mapping[str, Any],
) -> network.Heard | None:
    """The links that a step uses: those of peers, of a topology that changes, or that hold."""
    if row.heard:
        return row.heard(setting, links, **options)
    if net.varying:
        # The key that build_mixer folds in, so that the clock waits for whom the mixer hears.
        mix = net.varying.mixer(jax.random.fold_in(setting.key, 0), None)
        return network.heard_through(mix, links)
    if not row.over_topology or not any(getattr(run.trouble, name) for name in FAULTS):
        return None
    faults = faults_of(net.topology, run.trouble, setting.key)

    def heard(step: Any) -> Any:
        return ~jnp.any(jnp.stack([fault(step) for fault in faults]), axis=0)

    return heard
