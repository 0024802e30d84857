"""The same steps in PyTorch and in other systems: ``python -m benchmarks.peers``.

Every program runs in a process of its own, all alive and warm, one at work at a time, in
alternating turns; ratios are medians over the turns. Each is first checked: its losses in the first
two steps and the distances that its parameters move must be cdjax's. Programs run with glibc's
allocator as it is, and with one that keeps its pages: PyTorch otherwise returns each large array to
the system, and waits until it gets another.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import median
from typing import Any, Literal, NamedTuple

import jax
import tyro

from benchmarks._peers.forms import FORMS, forms_for
from benchmarks._peers.problem import Problem
from benchmarks._peers.problems import rounds, steps
from benchmarks._peers.processes import Entrant, ProgramError, Times, compete
from benchmarks._peers.systems import SYSTEMS, entrant_of, is_installed, read_interpreters
from benchmarks._timing import print_table, ratio, write_json

Malloc = Literal["glibc", "kept"]


@dataclass(frozen=True)
class Options:
    """Times cdjax and its peers, in turn."""

    work: Literal["cnn", "mlp"] = "cnn"
    """The paper's CNN, or an MLP with layers of 784, 128, 64 and 10."""
    algorithm: Literal["cdsgd", "cdmsgd"] = "cdmsgd"
    """Of the steps in PyTorch."""
    agents: tuple[int, ...] = (16,)
    """Numbers of agents N."""
    batch: int | None = None
    """Samples per agent and step (default: 64 for the CNN, 32 for the MLP)."""
    forms: tuple[str, ...] = ()
    """Forms of the PyTorch program (default: all for this work and device). All programs stay in
    memory until the end; name some where it is short."""
    malloc: tuple[Malloc, ...] = ()
    """Allocators of all programs: glibc's as it is, and with its pages kept (default: both; on a
    GPU the first)."""
    systems: tuple[str, ...] = ()
    """Systems to time instead of PyTorch: decent-bench runs ATC of the MLP on a ring, and decent-dp
    CDSGD with one neighbour in turn; drjax, fedjax, blazefl and flwr run federated averaging."""
    clients: int = 100
    """Clients of federated averaging."""
    cohorts: tuple[int, ...] = (10, 100)
    """Numbers of clients in a round."""
    samples: int = 600
    """Samples of a client; a round goes through them once, in batches of 20."""
    interpreter: tuple[str, ...] = ()
    """Where a system is installed, if not here, such as decent-bench=/venv/bin/python; it needs
    neither cdjax nor, if the system does not, JAX. PyTorch is torch."""
    norms: bool = False
    """Also times cdjax when it measures the norms of gradients, which no peer does."""
    turns: int = 5
    """Turns per program."""
    seconds: float = 0.2
    """Minimum length of a turn."""
    json: Path | None = None
    """File for the results as JSON."""


# Systems by what they run; the options of a program beside the system's own.
ON_A_RING = {"decent-bench": "atc", "decent-dp": "cdsgd-pairs"}
FEDAVG: dict[str, dict[str, dict[str, Any]]] = {
    "drjax": {"drjax": {}},
    "fedjax": {"fedjax": {}},
    "blazefl": {"blazefl": {}, "blazefl, 2 threads": {"threads": 2}},
    "flwr": {"flwr": {}},
}
# ReLU and max pooling have kinks: where rounding moves one value across, norms of small batches
# change by 1e-3. Another algorithm moves by a tenth and more.
_TOLERANCE, _TOLERANCE_OF_TF32 = 5e-3, 2e-2


class Contest(NamedTuple):
    """Programs that do the same work; ``ours`` is the name of the function that makes cdjax's."""

    work: str
    ours: str
    problem: Problem
    peers: Sequence[Entrant]


def main(options: Options) -> None:
    """Prints the table; ends with an error if a program does not do its work."""
    # Children on the same GPU need memory too.
    os.environ.setdefault("XLA_PYTHON_CLIENT_PREALLOCATE", "false")
    _check(options)
    rows, wrong, peers = [], [], {}
    gpu = jax.default_backend() == "gpu"
    malloc = options.malloc or (("glibc",) if gpu else ("glibc", "kept"))
    tolerance = _TOLERANCE_OF_TF32 if gpu else _TOLERANCE
    for contest in _contests(options):
        ours = Entrant("cdjax", f"benchmarks._peers.ours:{contest.ours}", "jax")
        measuring = ours._replace(name="cdjax, with norms", options={"gradient_norm": True})
        ours_and_theirs = [ours, *[measuring] * options.norms, *contest.peers]
        entrants = _with_allocators(ours_and_theirs, malloc)
        try:
            times, failed = compete(
                contest.problem, entrants, turns=options.turns, seconds=options.seconds,
                tolerance=tolerance, say=lambda line: print(line, file=sys.stderr),
            )  # fmt: skip
        except ProgramError as error:
            sys.exit(f"{contest.work}: {error}")
        found = _rows(entrants, times)
        rows += [{"work": contest.work, **row} for row in found]
        # Versions are for the JSON: the names of the programs need the width.
        print_table(
            contest.work, [{k: x for k, x in row.items() if k != "version"} for row in found]
        )
        if peer := _the_peer(times):
            print(f"the peer: {peer}")
            peers[contest.work] = peer
        wrong += [f"{contest.work}: {label}: {reason}" for label, reason in failed.items()]
    if options.json:
        title = "cdjax and its peers, each program in a process of its own"
        write_json(title, rows, options.json, peers=peers, errors=wrong)
    if wrong:
        sys.exit("\n".join(["programs that failed, or compute something else:", *wrong]))


def _contests(options: Options) -> Iterator[Contest]:
    """What the options ask for, of the systems that are installed."""
    try:
        where = read_interpreters(options.interpreter)
    except ValueError as error:
        sys.exit(f"--interpreter: {error}")
    wanted = [name for name in options.systems or ("torch",) if is_installed(name, where)]
    if not wanted:
        sys.exit("there is nothing to compare with")
    for agents in options.agents:
        if "torch" in wanted:
            yield _pytorch(options, agents, where)
        for name in [name for name in wanted if name in ON_A_RING]:
            batch, algorithm = options.batch or 32, ON_A_RING[name]
            yield Contest(
                f"{algorithm.upper()}, mlp, {agents} agents, batch {batch}",
                "steps",
                steps("mlp", agents=agents, batch=batch, algorithm=algorithm),
                [entrant_of(name, "steps", where)],
            )
    if servers := [name for name in wanted if name in FEDAVG]:
        for cohort in options.cohorts:
            clients, samples = options.clients, options.samples
            yield Contest(
                f"FedAvg, mlp, {cohort} of {clients} clients, {samples} samples, batch 20",
                "rounds",
                rounds(clients=clients, cohort=cohort, samples=samples, batch=20),
                [
                    entrant_of(server, "rounds", where, title=title, options=own)
                    for server in servers
                    for title, own in FEDAVG[server].items()
                ],
            )


def _pytorch(options: Options, agents: int, where: Mapping[str, str]) -> Contest:
    batch = options.batch or (64 if options.work == "cnn" else 32)
    gpu = jax.default_backend() == "gpu"
    forms = [FORMS[name] for name in options.forms or forms_for(options.work, gpu=gpu)]
    return Contest(
        f"{options.algorithm.upper()}, {options.work}, {agents} agents, batch {batch}",
        "steps",
        steps(options.work, agents=agents, batch=batch, algorithm=options.algorithm),
        [
            entrant_of("torch", f.function, where, title=f"PyTorch, {f.title}", options=f.options)
            for f in forms
        ],
    )


def _with_allocators(entrants: Sequence[Entrant], malloc: Sequence[Malloc]) -> list[Entrant]:
    return [entrant._replace(malloc=kind) for entrant in entrants for kind in malloc]


def _rows(entrants: Sequence[Entrant], times: Mapping[str, Times]) -> list[dict[str, Any]]:
    """A row for each program that is right; the first one is the unit."""
    walls = {label: found.wall for label, found in times.items()}
    return [
        {
            "program": entrant.name,
            "pages": entrant.malloc,
            "seconds": median(times[entrant.label].wall),
            "cpu_seconds": median(times[entrant.label].cpu),
            "times_cdjax": ratio(walls, entrant.label, entrants[0].label),
            "version": times[entrant.label].version,
        }
        for entrant in entrants
        if entrant.label in times
    ]


def _the_peer(times: Mapping[str, Times]) -> str | None:
    """The fastest program that is not cdjax's, and its time relative to cdjax's fastest."""
    walls = {label: found.wall for label, found in times.items()}
    order = sorted(walls, key=lambda label: median(walls[label]))
    ours = next(label for label in order if label.startswith("cdjax"))
    theirs = [label for label in order if not label.startswith("cdjax")]
    if not theirs:
        return None
    return f"{theirs[0]}, {ratio(walls, theirs[0], ours):.3g} times as long as {ours}"


def _check(options: Options) -> None:
    """Ends with a message if an option names what does not exist."""
    if unknown := {*options.systems} - {*SYSTEMS}:
        sys.exit(f"--systems: {', '.join(sorted(unknown))} is none of {', '.join(SYSTEMS)}")
    if unknown := {*options.forms} - {*FORMS}:
        sys.exit(f"--forms: {', '.join(sorted(unknown))} is none of {', '.join(FORMS)}")
    if min(options.agents) < 3:
        sys.exit(f"--agents: {min(options.agents)} is no ring of equal weights; give 3 or more")
    if unfit := [name for name in options.forms if options.work not in FORMS[name].works]:
        sys.exit(f"--forms: {', '.join(unfit)} cannot do --work {options.work}")


if __name__ == "__main__":
    main(tyro.cli(Options))
