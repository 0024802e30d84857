"""Every topology and order on a network: how long a step takes, and how fast agents agree."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from typing import NamedTuple

import jax
import numpy as np
from rich.console import Console
from rich.filesize import decimal
from rich.table import Table

import cdjax
from cdjax import mixing, network, topology
from cdjax._json import to_json
from experiments.advise.config import Advise
from experiments.report.network import Point, trade_off
from experiments.run.errors import UsageError, blame
from experiments.run.wires import (
    bound_of,
    described,
    drawn,
    has_file,
    is_random,
    links_around,
    links_between,
    links_to_server,
)

ORDERS: dict[str, Callable[[], network.Order]] = {
    "consensus": network.consensus,
    "adapt then combine": network.adapt_then_combine,
    "combine then adapt": network.combine_then_adapt,
    "gradient tracking": network.gradient_tracking,
}
_ONE_PEER = {
    "one-peer-exponential": topology.one_peer_exponential,
    "one-peer-hypercube": topology.one_peer_hypercube,
    "base-2": topology.base_graph,
}
# Beyond so many edges a table of all topologies would take minutes.
_MOST_EDGES = 500_000
_WARM_UP, _SIMULATED = 100, 400
_WIDTH = 110


class Choice(NamedTuple):
    """One topology with one order.

    Attributes:
        topology: its name; of a server or an all-reduce, that.
        order: the order's name.
        degree: the most neighbours of an agent; of a topology that changes, in a step.
        gap: the spectral gap; of a topology that changes, on average over its period, in the
            geometric mean.
        bytes_per_step: what the agent that sends the most sends.
        seconds_per_step: in the long run.
        bound: what takes most of it.
        steps_to_halve: mixes until the disagreement is at most half of what it was, at worst.
        seconds_to_halve: how long these take.
    """

    topology: str
    order: str
    degree: int
    gap: float
    bytes_per_step: float
    seconds_per_step: float
    bound: str
    steps_to_halve: float
    seconds_to_halve: float


class _Graph(NamedTuple):
    """A topology to look at: its links, its spectrum, and which links a step uses."""

    name: str
    topology: cdjax.Topology
    degree: int
    gap: float
    steps_to_halve: float
    mix: cdjax.Mixer | None = None


def advise(options: Advise) -> list[Choice]:
    """Prints the table, the best choices and why; draws the plot if it is asked for."""
    choices = choices_of(options)
    best = fastest(choices)
    if options.json:
        rows = [choice._asdict() for choice in choices]
        print(to_json({"choices": rows, "best": best._asdict(), "why": reasons(choices)}, indent=1))
    else:
        console = Console()
        console.width = max(console.width, _WIDTH)  # a line that a terminal breaks can be read
        console.print(_table(options, choices))
        for line in reasons(choices):
            console.print(line, highlight=False, soft_wrap=True)
    if options.out:
        _draw(options, choices)
    return choices


def choices_of(options: Advise) -> list[Choice]:
    """All topologies with all orders, a server and an all-reduce; the fastest to agree first."""
    if options.agents < 1:
        raise UsageError(f"--agents: {options.agents} is too few; give at least 1")
    if options.period < 1:
        raise UsageError(f"--period: {options.period} is too few; give at least 1")
    if options.clock.compute_time is None:
        raise UsageError("--compute-time: nothing is trained here to measure it; give it")
    with blame("--params"):
        message_bytes = network.count(options.params) * options.bytes_per_param
    found = [*_over_graphs(options, message_bytes), *_of_all(options, message_bytes)]
    return sorted(found, key=_slowness)


def fastest(choices: Sequence[Choice]) -> Choice:
    """Where disagreement halves in the least time."""
    return min(choices, key=_slowness)


def _slowness(choice: Choice) -> tuple[float, float]:
    return choice.seconds_to_halve, choice.seconds_per_step


def reasons(choices: Sequence[Choice]) -> list[str]:
    """What is best, and why, a line for each question."""
    by_step = sorted(choices, key=lambda choice: choice.seconds_per_step)
    best, quickest = fastest(choices), by_step[0]
    lines = [f"agents agree fastest with {_told(best)}"]
    graphs = [choice for choice in choices if choice.order != "averaged gradients"]
    if best not in graphs and graphs:
        lines.append(f"of the graphs, with {_told(fastest(graphs))}")
    lines.append(
        f"a step is shortest with {quickest.topology}, {quickest.order}: "
        f"{quickest.seconds_per_step:.4g} s, bounded by {quickest.bound}"
    )
    by_name = {(choice.topology, choice.order): choice for choice in choices}
    mine, other = (by_name.get((quickest.topology, o)) for o in ("consensus", "adapt then combine"))
    if mine and other and other.seconds_per_step > mine.seconds_per_step:
        saved = 1 - mine.seconds_per_step / other.seconds_per_step
        lines.append(
            f"on {quickest.topology}, consensus exchanges beside the gradient: its step takes "
            f"{saved:.0%} less than that of adapt then combine"
        )
    for choice in by_step:
        if choice.order == "averaged gradients":
            ratio = choice.seconds_per_step / quickest.seconds_per_step
            lines.append(
                f"averaged gradients by {choice.topology}: {choice.seconds_per_step:.4g} s per "
                f"step, {ratio:.3g} times that; bounded by {choice.bound}"
            )
    return lines


def _told(choice: Choice) -> str:
    steps = "one step" if choice.steps_to_halve == 1 else f"{choice.steps_to_halve:g} steps"
    return (
        f"{choice.topology}, {choice.order}: disagreement halves in {choice.seconds_to_halve:.4g} "
        f"s, {steps} of {choice.seconds_per_step:.4g} s, of which most is {choice.bound}"
    )


def _over_graphs(options: Advise, message_bytes: float) -> Iterator[Choice]:
    for graph in _graphs(options):
        links = links_between(options.clock, graph.topology)
        for name, make in ORDERS.items():
            order = network.every(options.period, make())
            seconds, bound = _pace(options, order, links, message_bytes, graph.mix)
            sent = graph.degree * message_bytes * order.messages / options.period
            steps = graph.steps_to_halve * options.period
            yield Choice(
                graph.name, name, graph.degree, graph.gap, sent, seconds, bound, steps,
                steps * seconds,
            )  # fmt: skip


def _of_all(options: Advise, message_bytes: float) -> Iterator[Choice]:
    """Those in which every step ends in agreement: a server, and an all-reduce."""
    number, whole = options.agents, topology.ring(options.agents)
    if has_file(options.clock):  # of the links of a graph
        return
    share = 2 * (number - 1) / number
    for name, order, links, sent in (
        ("server", network.parameter_server(), links_to_server(options.clock, number), 1.0),
        ("all-reduce", network.all_reduce(), links_around(options.clock, whole), share),
    ):
        order = network.every(options.period, order)
        seconds, bound = _pace(options, order, links, message_bytes)
        sent_bytes = sent * message_bytes / options.period
        degree = 1 if name == "server" else 2
        yield Choice(
            name, "averaged gradients", degree, 1.0, sent_bytes, seconds, bound, options.period,
            options.period * seconds,
        )  # fmt: skip


def _graphs(options: Advise) -> Iterator[_Graph]:
    number = options.agents
    names = options.topologies or (*topology.FAMILIES, *_ONE_PEER)
    for name in names:
        if name in _ONE_PEER:
            try:
                schedule = _ONE_PEER[name](number)
            except ValueError as error:
                if options.topologies:
                    raise UsageError(f"--topologies: {error}") from error
                continue
            if number <= 1024:  # by its matrices
                yield _of_schedule(name, schedule)
            continue
        if name == "complete" and number**2 > _MOST_EDGES and not options.topologies:
            continue
        try:
            graph = topology.create(name, number)
        except ValueError as error:
            if options.topologies:
                raise UsageError(f"--topologies: {error}") from error
            continue  # there is none of that size
        degree = max((d for _, d in graph.graph.degree), default=0)
        sigma = 1 - graph.spectral_gap
        steps = 1.0 if sigma < 0.5 else math.ceil(math.log(2) / -math.log(sigma) - 1e-9)
        yield _Graph(name, graph, degree, graph.spectral_gap, steps)


def _of_schedule(name: str, schedule: topology.Schedule) -> _Graph:
    size = schedule.num_agents
    mean, product, steps = np.full((size, size), 1 / size), np.eye(size), 0
    norm = 1.0
    while norm > 0.5 and steps < 10_000:
        product = schedule.mixing_matrix(steps) @ product
        norm, steps = float(np.linalg.norm(product - mean, 2)), steps + 1
    contraction = topology.contraction(schedule)
    return _Graph(
        name, schedule.mean(), schedule.senders.shape[2], 1 - contraction, steps,
        mixing.cycle(schedule),
    )  # fmt: skip


def _pace(
    options: Advise,
    order: network.Order,
    links: network.Links,
    message_bytes: float,
    mix: cdjax.Mixer | None = None,
) -> tuple[float, str]:
    """Seconds per step and what bounds them; simulated where something changes with the step."""
    clock = options.clock
    with blame("--compute-time"):
        compute = network.seconds(clock.compute_time or "0")
    steady = network.pace(order, links, compute, message_bytes)
    if not is_random(clock) and mix is None:
        return steady.seconds, steady.bound
    times_of = drawn(clock, compute, links.num_agents, key=jax.random.key(options.seed))
    heard = network.heard_through(mix, links) if mix else None
    # Of a topology that changes and nothing else, a few periods tell.
    num_steps = _WARM_UP + (_SIMULATED if is_random(clock) else 60)
    times = network.clock(order, links, times_of, message_bytes, num_steps=num_steps, heard=heard)
    seconds = float(times[-1].max() - times[_WARM_UP - 1].max()) / (num_steps - _WARM_UP)
    return seconds, bound_of(seconds, compute, steady)


def _table(options: Advise, choices: Sequence[Choice]) -> Table:
    """A row per topology, with the seconds per step of each order."""
    table = Table(title=_title(options), title_justify="left", box=None)
    orders = {"consensus": "consensus", "adapt then combine": "ATC, CTA",
              "gradient tracking": "tracking"}  # fmt: skip
    head = ("topology", "degree", "gap", "sent", *orders.values(), "halves in", "bound by")
    for name in head:
        left = name in ("topology", "bound by")
        table.add_column(name, justify="left" if left else "right", no_wrap=True)
    by_topology: dict[str, dict[str, Choice]] = {}
    for choice in choices:
        by_topology.setdefault(choice.topology, {})[choice.order] = choice
    for name, row in by_topology.items():
        first = next(iter(row.values()))
        seconds = [f"{row[o].seconds_per_step:.4g} s" if o in row else "" for o in orders]
        if "averaged gradients" in row:
            seconds[0] = f"{first.seconds_per_step:.4g} s"
        table.add_row(
            name, str(first.degree), f"{first.gap:.4f}", decimal(round(first.bytes_per_step)),
            *seconds, f"{first.seconds_to_halve:.5g} s", first.bound,
        )  # fmt: skip
    return table


def _title(options: Advise) -> str:
    clock = options.clock
    parts = [f"{options.agents} agents", f"{options.params} parameters", described(clock)]
    return ", ".join(filter(None, [*parts, f"compute {clock.compute_time}"]))


def _draw(options: Advise, choices: Sequence[Choice]) -> None:
    points = [
        Point(choice.topology, choice.order, choice.seconds_per_step, choice.steps_to_halve)
        for choice in choices
    ]
    with blame("--out"):
        trade_off(points, _title(options)).savefig(str(options.out), dpi=120)
