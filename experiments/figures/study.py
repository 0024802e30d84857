"""Which runs make which figure, and how they are run and drawn."""

from __future__ import annotations

import csv
import dataclasses
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

from cdjax import topology
from experiments.figures import claims as _claims
from experiments.report import plots
from experiments.run.config import CONSENSUS, RunConfig, run_config
from experiments.run.errors import UsageError, check_choice
from experiments.run.records import Entry, run_once

if TYPE_CHECKING:
    from experiments.figures.config import Figures

PRESETS: Mapping[str, dict[str, Any]] = {
    "smoke": {
        "dataset": "digits", "others": (), "model": "softmax", "epochs": 3, "seeds": 1,
    },
    "fashion": {
        "dataset": "fashion_mnist", "others": ("digits",), "model": "cnn", "epochs": 20, "seeds": 3,
    },
    "paper": {
        "dataset": "cifar10", "others": ("cifar100", "mnist"), "model": "cnn", "epochs": 100,
        "seeds": 3,
    },
}  # fmt: skip
TURNS = ("synchronous", "sequential")


class Curve(NamedTuple):
    """One line of a figure: its label, and the options in which it differs from the preset."""

    label: str
    options: dict[str, Any]


class Figure(NamedTuple):
    """A figure: for each column its curves; what its rows show; against what."""

    title: str
    columns: Mapping[str, Sequence[Curve]]
    rows: Sequence[str] = ("accuracy", "loss")
    x: str = "epoch"


# One machine that holds all data and takes the same batches: N times as many steps an epoch.
SGD = Curve("SGD, one machine", {"agents": 1, "algorithm": "cdsgd"})
MOMENTUM_SGD = Curve("momentum SGD, one machine", {"agents": 1, "algorithm": "cdmsgd"})
CENTRALIZED = Curve("SGD, gradients averaged", {"algorithm": "centralized"})
CDSGD = Curve("CDSGD", {"algorithm": "cdsgd"})
CDMSGD = Curve("CDMSGD", {"algorithm": "cdmsgd"})
FEDAVG = Curve("FedAvg, E = 1, C = 1", {"algorithm": "fedavg"})

STEPS = (0.1, 1, 10)  # in units of the preset's step size
NETWORKS = ("complete", "hypercube", "ring", "path")


def specifications(config: Figures) -> dict[str, Figure]:
    """Every figure, by name."""
    rate = config.learning_rate
    sizes = [Curve(f"N = {n}", {"agents": n}) for n in (2, 8, 16)]
    graphs = [
        Curve(
            f"{name}, λ2 = {topology.create(name, 8).second_eigenvalue:.3f}",
            {"agents": 8, "topology": name},
        )
        for name in NETWORKS
    ]
    fixed = [_of(CDSGD, f"CDSGD, {m * rate:g}", learning_rate=m * rate) for m in STEPS]
    falling = {"learning_rate": 10 * 5 * rate, "decay_offset": 5.0, "decay_power": 0.6}
    falling["schedule"] = ("diminishing",)
    peers = [SGD, CDSGD, CDMSGD, FEDAVG]
    figures = {
        "fig1a": Figure(
            "CDSGD against centralized SGD",
            _both([SGD, CENTRALIZED, CDSGD]),
            ("accuracy", "loss", "gap"),
        ),
        "fig1a_steps": Figure(
            "CDSGD against centralized SGD, by steps",
            {"synchronous": [SGD, CENTRALIZED, CDSGD]},
            x="step",
        ),
        "fig1b": Figure(
            "CDSGD and CDMSGD against FedAvg",
            _both([SGD, MOMENTUM_SGD, CDSGD, CDMSGD, FEDAVG]),
        ),
        "fig2a": Figure("CDMSGD on complete graphs of N agents", _both(sizes)),
        "fig2b": Figure(
            "CDMSGD, 8 agents, graphs of growing λ2", _both(graphs), ("accuracy", "variance")
        ),
        "steps": Figure(
            "Fixed and diminishing step sizes",
            {"synchronous": [*fixed, _of(CDSGD, "CDSGD, diminishing", **falling)]},
            ("accuracy", "loss", "distance"),
        ),
        "non_iid": Figure(
            "Data far from IID",
            {
                "Dirichlet(0.1)": [_of(c, partition="dirichlet", dirichlet_alpha=0.1)
                                   for c in (CDSGD, CDMSGD, FEDAVG)],
                "whole classes": [_of(c, partition="classes") for c in (CDSGD, CDMSGD, FEDAVG)],
            },
            ("accuracy", "distance"),
        ),
        "consensus": Figure(
            "Step size against consensus, 8 agents on a ring",
            {
                "CDSGD": [_on_ring(CDSGD, m * rate) for m in STEPS],
                "CDMSGD": [_on_ring(CDMSGD, m * rate) for m in STEPS],
            },
            ("accuracy", "distance"),
        ),
    }  # fmt: skip
    for name in PRESETS[config.preset]["others"]:
        curves = [_of(curve, dataset=name) for curve in peers]
        figures[name] = Figure(f"The same on {name}", _both(curves))
    return figures


def _of(curve: Curve, label: str = "", **options: Any) -> Curve:
    return Curve(label or curve.label, curve.options | options)


def _on_ring(curve: Curve, rate: float) -> Curve:
    return _of(curve, f"{rate:g}", agents=8, topology="ring", learning_rate=rate)


def _both(curves: Sequence[Curve]) -> dict[str, list[Curve]]:
    """A column a schedule; algorithms without neighbours are the same in both."""

    def in_turn(curve: Curve) -> Curve:
        alone = curve.options.get("agents") == 1
        by_edges = curve.options.get("algorithm", "cdmsgd") in CONSENSUS
        return curve if alone or not by_edges else _of(curve, schedule=("sequential",))

    return dict(zip(TURNS, ([*curves], [in_turn(curve) for curve in curves]), strict=True))


def draw(config: Figures) -> dict[str, dict[str, list[Entry]]]:
    """Runs what is missing; writes figures, curves.csv and claims.md.

    Args:
        config: the options.

    Returns:
        The entries of every column of every figure drawn.

    Raises:
        UsageError: for an option that cannot work.
    """
    config = _with_preset(config)
    wanted = specifications(config)
    if config.figures != ("all",):
        if unknown := sorted({*config.figures} - {*wanted}):
            raise UsageError(f"--figures: unknown {unknown}; expected all or of {[*wanted]}")
        wanted = {name: wanted[name] for name in config.figures}
    console = Console()
    runs = [
        (curve, seed)
        for figure in wanted.values()
        for curves in figure.columns.values()
        for curve in curves
        for seed in _seeds(config)
    ]
    console.print(f"{config.preset}: {len(wanted)} figures of {len(runs)} runs, some shared")
    with _progress(console) as progress:
        for curve, seed in progress.track(runs, description="runs"):
            _records(config, curve, seed)
    drawn = {}
    for name, figure in wanted.items():
        drawn[name] = {
            column: [_entry(config, curve) for curve in curves]
            for column, curves in figure.columns.items()
        }
        picture = plots.columns(
            drawn[name], figure.rows, x=figure.x, title=f"{figure.title} ({_data(drawn[name])})"
        )
        for form in ("png", "pdf"):
            picture.savefig(config.out / f"{name}.{form}", dpi=120)
    with (config.out / "curves.csv").open("w", newline="") as file:
        writer = csv.writer(file)
        writer.writerows(_csv_rows(drawn))
    (config.out / "claims.md").write_text(_claims.report(config, drawn))
    console.print(f"figures, curves.csv and claims.md in {config.out}", highlight=False)
    return drawn


def _with_preset(config: Figures) -> Figures:
    """The options, the preset's where none is given."""
    check_choice("--preset", config.preset, [*PRESETS])
    preset = dict(PRESETS[config.preset])
    preset.pop("others")
    chosen = {name: value for name, value in preset.items() if getattr(config, name) is None}
    config = dataclasses.replace(config, **chosen, out=config.out / config.preset)
    if config.seeds is None or config.seeds < 1:
        raise UsageError(f"--seeds: {config.seeds} is too few; give at least 1")
    return config


def _seeds(config: Figures) -> range:
    return range(config.seed, config.seed + (config.seeds or 1))


def _run_config(config: Figures, curve: Curve, seed: int) -> RunConfig:
    options = curve.options | {"seed": seed}
    if options.get("dataset", config.dataset) != config.dataset:
        options["data_dir"] = None if options["dataset"] == "digits" else config.data_dir
        options["batch_size"] = options["train_samples"] = options["test_samples"] = None
    return run_config(config, **options)


def _records(config: Figures, curve: Curve, seed: int) -> list[dict[str, Any]]:
    name = "-".join(f"{key}={_plain(value)}" for key, value in sorted(curve.options.items()))
    folder = config.out / "runs" / f"{name}-seed={seed}"
    return run_once(_run_config(config, curve, seed), folder, quiet=True)


def _plain(value: Any) -> str:
    return "+".join(map(str, value)) if isinstance(value, tuple) else str(value)


def _entry(config: Figures, curve: Curve) -> Entry:
    seeds = _seeds(config)
    runs = [_records(config, curve, seed) for seed in seeds]
    if not all(runs):
        raise UsageError(f"--learning-rate: {curve.label} diverges in its first epoch; give less")
    return Entry(curve.label, _run_config(config, curve, seeds[0]), runs)


def _data(columns: Mapping[str, Sequence[Entry]]) -> str:
    """What the curves were trained on, for the title."""
    entries = [entry for column in columns.values() for entry in column]
    config = entries[0].config
    seeds = len(entries[0].runs)
    dataset = entries[0].runs[0][0]["dataset"]
    return f"{dataset}, {config.model}, {seeds} seed{'s' if seeds > 1 else ''}"


def _csv_rows(drawn: Mapping[str, Mapping[str, Sequence[Entry]]]) -> Iterator[Iterable[Any]]:
    """A line a figure, column, curve, seed and evaluation."""
    rows = [
        ((figure, column, entry.label, seed), record)
        for figure, columns in drawn.items()
        for column, entries in columns.items()
        for entry in entries
        for seed, records in enumerate(entry.runs, entry.config.seed)
        for record in records
    ]
    header = list(dict.fromkeys(name for _, record in rows for name in record))
    yield ["figure", "column", "curve", "seed", *header]
    for place, record in rows:
        yield [*place, *(record.get(name, "") for name in header)]


def _progress(console: Console) -> Progress:
    return Progress(
        TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn(),
        console=console,
    )  # fmt: skip
