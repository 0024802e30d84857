"""Whatever can be known to be wrong with the options without data: found before a file is made."""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from experiments.run.algorithm import ALGORITHMS
from experiments.run.algorithms.compressed import COMPRESSORS
from experiments.run.algorithms.row import Algorithm
from experiments.run.config import PARTITIONS, SCHEDULES, Run, check_choices, flat
from experiments.run.disturbance import ATTACKS, FAULTS, MIXERS
from experiments.run.errors import UsageError, blame, flag
from experiments.run.lazy import LazyModule
from experiments.run.loggers import check_loggers
from experiments.run.varying import VARYING

cdjax = LazyModule("cdjax")

_CHANGES_LINKS = ("topology", "matcha_budget", "mix_fraction")
_LEAST = {
    "agents": 1, "batch_size": 1, "checkpoint_every": 1, "epochs": 1, "eval_every": 1,
    "keep_checkpoints": 1, "log_every": 1, "period": 1, "shards_per_agent": 1, "train_samples": 1,
    "test_samples": 1, "absence_duration": 1, "lag": 0, "num_trimmed": 0, "malicious": 1, "seed": 0,
    "rounds": 1, "fragments": 1, "delay": 0, "peers_per_step": 1,
    "rank": 1, "kept": 1, "chunk": 1, "value_bits": 1,
}  # fmt: skip
# Of a whole number: steps are counted in 32 bits. A seed has as many, and JAX ignores further ones.
_MOST, _MOST_OF_SEEDS = 2**31 - 1, 2**32 - 1
_INTERVALS = {
    "learning_rate": "[0, inf)", "momentum": "[0, 1)", "decay_power": "(0.5, 1]",
    "decay_offset": "(0, inf)", "dirichlet_alpha": "(0, inf)", "client_fraction": "[0, 1]",
    "talk_probability": "[0, 1]", "own_weight": "[0, 1]", "buffer_decay": "[0, 1]",
    "outer_learning_rate": "(0, inf)", "outer_momentum": "[0, 1)", "merge": "[0, 1)",
    "margin": "[0, inf)", "fraction": "(0, 1]", "consensus_step": "(0, 1]",
    "matcha_budget": "(0, 1]", "mix_fraction": "(0, 1]", "quantity_power": "[0, inf)",
    "jitter": "[0, inf)", "stragglers": "[0, 1]", "slowdown": "[1, inf)",
    **dict.fromkeys(FAULTS, "[0, 1]"),
}  # fmt: skip


def check_options(run: Run) -> None:
    """Raises a UsageError for an option that cannot work, whatever the data."""
    check_choices(run)
    check_loggers(run.output.log)
    _check_numbers(flat(run))
    _check_read(run)
    _check_over_topology(run)
    _check_varying(run)
    _check_clock(run)
    saving = run.saving
    _check_writable("--resume" if saving.resume else "--out", saving.resume or saving.out)


def disturbances(run: Run) -> list[str]:
    """The options by which agents do anything but take the same weighted mean in every step."""
    trouble, network = run.trouble, run.network
    names = ["topology"] * (network.topology in VARYING)
    names += ["matcha_budget"] * (network.matcha_budget is not None)
    names += ["mix_fraction"] * (network.mix_fraction < 1)
    names += [name for name in (*FAULTS, "lag") if getattr(trouble, name)]
    return names + ["mixer"] * (trouble.mixer != "auto") + ["attack"] * (trouble.attack != "none")


def _check_numbers(options: Mapping[str, Any]) -> None:
    given = {name: value for name, value in options.items() if value is not None}
    for name, least in _LEAST.items():
        if given.get(name, least) < least:
            raise UsageError(f"{flag(name)}: {given[name]} is too few; give at least {least}")
    for name, value in given.items():
        most = _MOST_OF_SEEDS if name == "seed" else _MOST
        if isinstance(value, int) and value > most:
            raise UsageError(f"{flag(name)}: {value} is too large; give at most {most}")
    for name, interval in _INTERVALS.items():
        if name in given and not _lies_in(given[name], interval):
            raise UsageError(f"{flag(name)}: {given[name]} is not in {interval}")
    devices = given["devices"]
    if devices not in ("auto", "all") and not devices.isdecimal():
        raise UsageError(f"--devices: {devices!r} is neither a number, all nor auto")


def _lies_in(value: float, interval: str) -> bool:
    low, high = map(float, interval[1:-1].split(","))
    above = value >= low if interval[0] == "[" else value > low
    return above and (value <= high if interval[-1] == "]" else value < high)


def _check_read(run: Run) -> None:
    """Raises for an option that the chosen algorithm, mixer, attack, ... does not read."""
    algorithm, trouble = run.algorithm, run.trouble
    optional = [
        ("algorithm", algorithm.algorithm, _read_by(ALGORITHMS), algorithm),
        ("schedule", algorithm.schedule, SCHEDULES, algorithm),
        ("partition", run.data.partition, PARTITIONS, run.data),
        ("mixer", trouble.mixer, _read_by(MIXERS), trouble),
        ("attack", trouble.attack, _read_by(ATTACKS), trouble),
    ]
    if compressor := ALGORITHMS[algorithm.algorithm].options.get("compressor"):
        compressor = algorithm.compressor or compressor
        optional.append(("compressor", compressor, _read_by(COMPRESSORS), algorithm))
    for option, choice, rows, part in optional:
        for name in {name: None for read in rows.values() for name in read}:
            if name not in rows[choice] and getattr(part, name) not in (None, False):
                readers = " or ".join(other for other, read in rows.items() if name in read)
                subject = choice if option == "algorithm" else f"{option} {choice}"
                unread = f"{flag(name)}: {subject} has none"
                raise UsageError(f"{unread}; leave it out, or give {flag(option)} {readers}")
    for fault, row in FAULTS.items():
        for name in row.options:
            if getattr(trouble, name) is not None and not getattr(trouble, fault):
                raise UsageError(f"{flag(name)}: nothing reads it without {flag(fault)}")
    weighting = ALGORITHMS[algorithm.algorithm].weighting
    if run.training.size_weighted and weighting in ("", "always"):
        reason = "always is" if weighting else "has none"
        raise UsageError(f"--size-weighted: {algorithm.algorithm} {reason}; leave it out")


def _read_by(rows: Mapping[str, Any]) -> dict[str, Mapping[str, Any]]:
    return {name: row.options for name, row in rows.items()}


def _check_over_topology(run: Run) -> None:
    """Raises for turns, personal leaves and disturbances where they are not for the algorithm."""
    algorithm, trouble = run.algorithm, run.trouble
    disturbed = disturbances(run)
    in_turns = algorithm.turns == "sequential"
    asked = [*disturbed, *["turns"] * in_turns, *["personal"] * bool(run.network.personal)]
    for name in asked:
        able = [other for other, row in ALGORITHMS.items() if _allows(row, name)]
        if algorithm.algorithm not in able:
            reason = "has none"
            if name in _CHANGES_LINKS and ALGORITHMS[algorithm.algorithm].over_topology:
                reason = "needs neighbours that are the same in every step"
            unread = f"{flag(name)}: {algorithm.algorithm} {reason}"
            raise UsageError(f"{unread}; leave it out, or give --algorithm {' or '.join(able)}")
    if ALGORITHMS[algorithm.algorithm].holds_copies and trouble.on_nan == "drop":
        raise UsageError(
            f"--on-nan: {algorithm.algorithm} has agents hold copies of their neighbours, which do "
            "not drop them; give stop or ignore"
        )
    if disturbed and in_turns:
        raise UsageError(f"{flag(disturbed[0])}: not for agents that train in turn; leave it out")
    if trouble.lag and trouble.attack != "none":
        raise UsageError("--lag: not together with --attack; leave one out")
    if trouble.lag and trouble.mixer != "auto":
        raise UsageError(f"--lag: only with --mixer auto, not with {trouble.mixer}; leave one out")
    if trouble.lag and run.network.personal:
        raise UsageError("--lag: not together with --personal; leave one out")


def _allows(row: Algorithm, name: str) -> bool:
    """Whether an algorithm's agents can take turns, hear late, or do anything else over links.

    Agents that send compressed differences presume that all neighbours hear all of them.
    """
    refused = {"turns": row.at_once, "lag": not row.mixes_once}
    refused |= dict.fromkeys(_CHANGES_LINKS, row.fixed_links)
    return row.over_topology and not row.holds_copies and not refused.get(name, False)


def check_spectrum(run: Run, graph: cdjax.Topology) -> None:
    """Raises for a topology on which the algorithm diverges, whatever the step size."""
    name, bound = run.algorithm.algorithm, ALGORITHMS[run.algorithm.algorithm].above_eigenvalue
    # A ring of 8 has -1/3 up to rounding. Nobody needs the eigenvalues where any will do.
    if bound > -1 and graph.smallest_eigenvalue <= bound + 1e-9:
        raise UsageError(
            f"--algorithm: {name} diverges on this topology, whose smallest eigenvalue is "
            f"{graph.smallest_eigenvalue:.3f} and not above {bound:.3f}; give --weights lazy"
        )


def _check_varying(run: Run) -> None:
    """Raises for options that need a fixed matrix where there is none, and unread ones."""
    network, trouble = run.network, run.trouble
    row = VARYING.get(network.topology)
    if network.peers_per_step is not None and not (row and "peers_per_step" in row.options):
        readers = " or ".join(name for name, other in VARYING.items() if other.options)
        unread = f"--peers-per-step: topology {network.topology} has none"
        raise UsageError(f"{unread}; leave it out, or give --topology {readers}")
    if row and network.matcha_budget is not None:
        raise UsageError(
            f"--matcha-budget: {network.topology} changes by itself; give a --topology that does "
            "not, such as ring"
        )
    if trouble.mixer == "clipped" and network.mix_fraction < 1:
        raise UsageError("--mix-fraction: not with --mixer clipped, which needs whole agents")
    if not row and network.matcha_budget is None:
        return
    source = "--topology" if row else "--matcha-budget"
    if network.weights != type(network)().weights:
        raise UsageError(f"--weights: {source} has its own; leave it out")
    fixed = [name for name in FAULTS if getattr(trouble, name)]
    fixed += ["mixer"] * (trouble.mixer != "auto") + ["attack"] * (trouble.attack != "none")
    fixed += ["without_agents"] * bool(trouble.without_agents)
    if fixed:
        raise UsageError(
            f"{flag(fixed[0])}: not where {source} changes the links in every step; leave one out"
        )


def _check_clock(run: Run) -> None:
    """Raises for what is said of a network that there is none of, and for agents in turn."""
    clock = run.clock
    said = [name for name in ("server_bandwidth", "compute_time") if getattr(clock, name)]
    said += [name for name in ("jitter", "stragglers") if getattr(clock, name)]
    if said and not clock.is_on:
        raise UsageError(
            f"{flag(said[0])}: there is no network; leave it out, or give --network or --latency"
        )
    if clock.slowdown is not None and not clock.stragglers:
        raise UsageError("--slowdown: nothing reads it without --stragglers")
    if clock.server_bandwidth and not ALGORITHMS[run.algorithm.algorithm].server:
        name = run.algorithm.algorithm
        raise UsageError(f"--server-bandwidth: {name} has no server; leave it out")
    if clock.is_on and run.algorithm.turns == "sequential":
        raise UsageError("--network: not for agents that train in turn; leave it out")


def _check_writable(option: str, out: Path) -> None:
    with blame(option):
        folder = _nearest_existing(option, out.absolute())
    if not folder.is_dir():
        raise UsageError(f"{option}: {folder} is a file; give a folder")
    if not os.access(folder, os.W_OK | os.X_OK):
        raise UsageError(f"{option}: {folder} is not writable; give a folder that is")


def _nearest_existing(option: str, path: Path) -> Path:
    """The path, or the nearest of its parents that exists.

    ``Path.exists`` would say no to a name that is too long, from Python 3.14 on; ``stat`` raises.
    """
    try:
        path.stat()
    except (FileNotFoundError, NotADirectoryError):
        if path.is_symlink():
            raise UsageError(f"{option}: {path} is a link to nothing; give a folder") from None
        return _nearest_existing(option, path.parent)
    return path
