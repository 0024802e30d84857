"""The spectrum of a topology: ``python -m cdjax.topology ring --agents 16``."""

from __future__ import annotations

import argparse
import inspect
import os
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any, NoReturn

import networkx as nx
import numpy as np

from cdjax.topology import (
    FAMILIES,
    Schedule,
    Topology,
    base_graph,
    consensus_time,
    contraction,
    create,
    from_edge_list,
    one_peer_exponential,
    one_peer_hypercube,
)
from cdjax.topology._plot import save
from cdjax.topology._spectrum import MOST_SOLVED
from cdjax.topology._weights import DEFAULT, WEIGHTS

_EPILOG = """examples:
  python -m cdjax.topology torus --agents 16 --weights lazy
  python -m cdjax.topology graph.edges --plot graph.svg"""
# What a person reads on a screen; more distinct eigenvalues are cut in the middle.
_MOST_ROWS = 40
# Of a topology that changes with the step, whose table takes products of dense matrices.
_MOST_SCHEDULED = 500
# Those that change with the step, by the names that runs have for them.
_SCHEDULES: Mapping[str, Callable[[int], Schedule]] = {
    "one-peer-exponential": one_peer_exponential,
    "one-peer-hypercube": one_peer_hypercube,
    **{f"base-{base}": partial(base_graph, degree=base - 1) for base in range(2, 6)},
}
_OPTIONS = ("rows", "degree", "probability", "seed")  # of some families
_LEFT = 0.01


class _Parser(argparse.ArgumentParser):
    """A parser whose errors are one line."""

    def error(self, message: str) -> NoReturn:
        print(f"error: {' '.join(message.split())}", file=sys.stderr)
        sys.exit(2)


def main(words: Sequence[str] | None = None) -> None:
    """Prints the table of a topology and draws it if asked; exits with 2 on a usage error."""
    parser = _parser()
    options = parser.parse_args(words)
    try:
        topology = build(options)
        if options.plot:
            save(topology.mean() if isinstance(topology, Schedule) else topology, options.plot)
    except (ValueError, ImportError) as error:
        parser.error(str(error))
    except OSError as error:
        parser.error(f"{error.filename or options.plot}: {error.strerror or error}")
    if isinstance(topology, Schedule):
        print("\n".join(schedule_lines(topology)))
    else:
        print("\n".join(lines(topology, options.weights or DEFAULT)))
    if options.plot:
        print(f"\ndrawn in {options.plot}")


def _parser() -> argparse.ArgumentParser:
    parser = _Parser(
        prog="python -m cdjax.topology",
        description="Prints how fast a topology mixes: the spectrum of its mixing matrix.",
        epilog=_EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    add = parser.add_argument
    names = ", ".join([*FAMILIES, *_SCHEDULES])
    add("topology", help=f"a family ({names}), or a file: edges, GraphML or GML")
    add(
        "--agents", type=int, metavar="N", help="how many (default: 16, or as many as the file has)"
    )
    rules = f"mixing weights: {', '.join(WEIGHTS)} (default: {DEFAULT})"
    add("--weights", choices=WEIGHTS, metavar="RULE", help=rules)
    add("--rows", type=int, help="rows of a grid or torus")
    add("--degree", type=int, help="neighbours in a random_regular or watts_strogatz graph")
    add("--probability", type=float, help="of an edge of erdos_renyi, of rewiring watts_strogatz")
    add("--seed", type=int, help="of a random family's draws")
    picture = "draw graph, mixing matrix, eigenvalues and decay into a file: png, svg or pdf"
    add("--plot", type=Path, metavar="FILE", help=picture)
    return parser


def build(options: argparse.Namespace) -> Topology | Schedule:
    """What the options ask for; raises a ValueError if there is no such topology."""
    name, given = options.topology, _given(options)
    agents = 16 if options.agents is None else options.agents
    if name in _SCHEDULES:
        for option in [*given, *["weights"] * (options.weights is not None)]:
            raise ValueError(f"--{option}: {name} has none; leave it out")
        if agents > _MOST_SCHEDULED:
            raise ValueError(
                f"--agents: {agents:,} are too many for the table of {name}; "
                f"give at most {_MOST_SCHEDULED:,}"
            )
        return _SCHEDULES[name](agents)
    weights = options.weights or DEFAULT
    if name in FAMILIES:
        read = inspect.signature(FAMILIES[name]).parameters
        for option in given:
            if option not in read:
                raise ValueError(f"--{option}: {name} has none; leave it out")
        return create(name, agents, weights=weights, **given)
    if not Path(name).is_file():
        raise ValueError(
            f"{name!r} is neither a family ({', '.join([*FAMILIES, *_SCHEDULES])}) nor a graph's "
            "file: an edge list, GraphML or GML"
        )
    for option in given:
        raise ValueError(f"--{option}: a graph from a file has none; leave it out")
    return from_edge_list(name, weights, num_agents=options.agents)


def _given(options: argparse.Namespace) -> dict[str, Any]:
    values = {name: getattr(options, name) for name in _OPTIONS}
    return {name: value for name, value in values.items() if value is not None}


def lines(topology: Topology, weights: str) -> Iterator[str]:
    """The table: the graph, the numbers that decide how fast it mixes, eigenvalues, names."""
    count = topology.num_agents
    yield f"{topology.name}, {count} agent{'s' if count > 1 else ''}, {weights} weights"
    yield ""
    rows = {**_of_graph(topology), **_of_mixing(topology)}
    width = max(map(len, rows))
    yield from (f"{name:<{width}}  {value}" for name, value in rows.items())
    if count <= MOST_SOLVED:
        yield ""
        yield from _eigenvalue_lines(topology)
    if topology.labels != tuple(range(count)):
        yield ""
        yield from _agent_lines(topology)


def schedule_lines(schedule: Schedule) -> Iterator[str]:
    """The table of a topology that changes with the step: what it sends, and how fast it mixes."""
    count, sigma = schedule.num_agents, contraction(schedule)
    yield f"{schedule.name}, {count} agent{'s' if count > 1 else ''}"
    yield ""
    left = consensus_time(schedule, _LEFT)
    steps = "never" if np.isinf(left) else f"{left:,}"
    rows = {
        "period": f"{schedule.period:,}",
        "messages per step and agent": f"{schedule.messages_per_step / count:.4g}",
        **{f"{name} over a period": x for name, x in _of_graph(schedule.mean()).items()},
        "σ per step, over a period": _decimal(sigma),
        f"mixes to {_LEFT:.0%} of a disagreement": steps,
        "mixes to exact means": f"{consensus_time(schedule):,}" if sigma == 0 else "never",
    }
    width = max(map(len, rows))
    yield from (f"{name:<{width}}  {value}" for name, value in rows.items())


def _of_graph(topology: Topology) -> dict[str, str]:
    graph = topology.graph
    degrees = [degree for _, degree in graph.degree]
    rows = {
        "edges": f"{graph.number_of_edges():,}",
        "degree": _range(min(degrees), max(degrees)),
    }
    if topology.num_agents <= MOST_SOLVED and nx.is_connected(graph):
        rows["diameter"] = str(nx.diameter(graph))
    return rows


def _of_mixing(topology: Topology) -> dict[str, str]:
    own = topology.entries.diagonal
    sigma = 1 - topology.spectral_gap
    # Rounding makes a little more than nothing of a matrix that averages at once.
    steps = int(np.ceil(np.log(_LEFT) / np.log(sigma) - 1e-9)) if sigma > 1e-12 else 1
    return {
        "own weight": _range(float(own.min()), float(own.max())),
        "λ2": _decimal(topology.second_eigenvalue),
        "λN": _decimal(topology.smallest_eigenvalue),
        "σ = max(|λ2|, |λN|)": _decimal(sigma),
        "spectral gap, 1 − σ": _decimal(topology.spectral_gap),
        f"mixes to {_LEFT:.0%} of a disagreement": f"{steps:,}" if topology.num_agents > 1 else "0",
    }


def _eigenvalue_lines(topology: Topology) -> Iterator[str]:
    values: np.ndarray = np.round(np.asarray(topology.eigenvalues), 9)
    distinct, times = np.unique(values, return_counts=True)
    order = np.argsort(-np.abs(distinct) if np.iscomplexobj(distinct) else -distinct, kind="stable")
    rows = [(_decimal(distinct[i].item()), int(times[i])) for i in order]
    yield "eigenvalue  times"
    for number, (value, how_often) in enumerate(rows):
        if len(rows) > _MOST_ROWS and _MOST_ROWS // 2 <= number < len(rows) - _MOST_ROWS // 2:
            if number == _MOST_ROWS // 2:
                yield f"... {len(rows) - _MOST_ROWS:,} more"
            continue
        yield f"{value:>10}  {how_often:>5}"


def _agent_lines(topology: Topology) -> Iterator[str]:
    """What the graph or its file calls the agents."""
    names = [str(label) for label in topology.labels]
    width = max(len("name"), *map(len, names))
    yield f"{'agent':>5}  {'name':<{width}}  degree"
    for agent, name in enumerate(names):
        yield f"{agent:>5}  {name:<{width}}  {topology.graph.degree[agent]:>6}"


def _range(low: float, high: float) -> str:
    ends = [f"{end:.6f}" if isinstance(end, float) else str(end) for end in (low, high)]
    return ends[0] if ends[0] == ends[1] else f"{ends[0]} to {ends[1]}"


def _decimal(number: complex) -> str:
    if isinstance(number, complex):
        return f"{number.real:.6f}{number.imag:+.6f}i"
    return f"{round(float(number), 6) + 0.0:.6f}"  # no -0.000000


if __name__ == "__main__":
    sys.stdout.reconfigure(errors="replace")  # pyright: ignore[reportAttributeAccessIssue]
    try:
        main()
        sys.stdout.flush()
    except BrokenPipeError:  # the reader has gone, as head does
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
