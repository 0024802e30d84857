"""What a person sees in the terminal: the start table, the progress bar, the end table."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import jax
import numpy as np
from rich.console import Console
from rich.panel import Panel
from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn
from rich.table import Table
from rich.text import Text

from cdjax import Topology, metrics, mixing
from experiments.run.algorithm import THROUGH_SERVER
from experiments.run.bounds import step_limits
from experiments.run.config import CONSENSUS
from experiments.run.setup import Job
from experiments.run.trouble import mixing_line, trouble_line, trouble_warning

# All eigenvalues take 2 s for so many agents, and time with the cube of their number.
_MOST_AGENTS_OF_SPECTRUM = 2000


def show_start(console: Console, job: Job, folder: Path) -> None:
    """Prints the notice of a stand-in, if any, and the table of all that the run is made of."""
    if console.quiet:
        return
    with console.status("measuring the curvature"):
        limits, warning = step_limits(job)
    if job.notice:
        notice = Text(job.notice)  # as it stands: Panel would take brackets in it for markup
        console.print(Panel(notice, title="stand-in data", style="bold yellow"))
    config, dataset, topology = job.config, job.dataset, job.topology
    num_agents = topology.num_agents
    num_params = sum(x.size for x in jax.tree.leaves(job.state.params)) // num_agents
    image = "×".join(map(str, dataset.train_images.shape[1:]))
    device = jax.devices()[0]
    _print_table(
        console,
        f"{config.algorithm} on {dataset.name}",
        {
            "data": f"{dataset.name}: {len(dataset.train_labels):,} training and "
            f"{len(dataset.test_labels):,} test images, {image}, {dataset.num_classes} classes",
            "partition": f"{config.partition}: {job.sizes.min():,} to {job.sizes.max():,} samples "
            "an agent",
            "topology": f"{topology.name}, {num_agents} agents, {config.weights} weights",
            "mixing": mixing_line(config)
            or (mixing.plan(topology) if job.mesh.size == 1 else "exchange between devices"),
            **({"trouble": line} if (line := trouble_line(config, num_agents)) else {}),
            "spectrum": _spectrum(topology),
            "model": f"{config.model}, {num_params:,} parameters an agent",
            "algorithm": f"{config.algorithm}, learning rate {config.learning_rate:g} "
            f"({config.step_sizes})" + _momentum(job),
            **({"step limits": limits} if limits else {}),
            "steps": f"{job.epochs} epochs × {job.steps_per_epoch} steps, batch {job.batch_size} "
            "an agent" + (", one agent after another" if config.sequential else ""),
            "sent": f"{byte_count(job.bytes_a_step)} a step by all{_by_agent_and_edge(job)}",
            "device": f"{job.mesh.size} × {device.device_kind} ({device.platform})",
            "folder": str(folder),
        },
    )
    for line in filter(None, [warning, trouble_warning(config)]):
        console.print(f"warning: {line}", style="bold yellow", soft_wrap=True)


def show_end(console: Console, record: dict[str, Any], folder: Path) -> None:
    """Prints the table of the last evaluation and where the results lie."""
    spread = f"{record['test_accuracy_min']:.2%} to {record['test_accuracy_max']:.2%}"
    _print_table(
        console,
        f"after {record['epoch']} epochs ({record['step']} steps) on {record['dataset']}",
        {
            "test accuracy": f"{record['test_accuracy_mean']:.2%} mean over agents ({spread})",
            "of the mean parameters": f"{record['mean_params_test_accuracy']:.2%}",
            "train accuracy": f"{record['train_accuracy_mean']:.2%}",
            "loss": f"{record['train_loss_mean']:.4f} train, {record['test_loss_mean']:.4f} test",
            "consensus distance": f"{record['consensus_distance']:.3e}"
            + _bound_text(record, ".3e"),
            "sent": byte_count(record["bytes_sent"]),
            "time": f"{record['seconds']:.1f} s",
        },
    )
    files = "config.json, metrics.jsonl, curves.png"
    console.print(f"results in {folder}: {files}", markup=False, highlight=False, soft_wrap=True)


def evaluation_line(record: dict[str, Any]) -> str:
    """One evaluation in one line."""
    return (
        f"epoch {record['epoch']:>3}  loss {record['train_loss_mean']:.4f}  "
        f"train {record['train_accuracy_mean']:.2%}  test {record['test_accuracy_mean']:.2%} "
        f"({record['test_accuracy_min']:.2%} to {record['test_accuracy_max']:.2%})  "
        f"distance {record['consensus_distance']:.1e}" + _bound_text(record, ".1e")
    )


def _bound_text(record: dict[str, Any], form: str) -> str:
    """What Proposition 1 allows, where it applies."""
    return f" (bound {record['consensus_bound']:{form}})" if "consensus_bound" in record else ""


def progress_bar(console: Console) -> Progress:
    """A bar with the speed, the loss, the accuracy and its spread, and the consensus distance."""
    return Progress(
        TextColumn("{task.description}"),
        BarColumn(bar_width=None),
        TextColumn("{task.completed:.0f}/{task.total:.0f}"),
        TextColumn("{task.fields[speed]}"),
        TextColumn("{task.fields[metrics]}"),
        TimeElapsedColumn(),
        TimeRemainingColumn(),
        console=console,
        transient=True,
    )


def speed_text(steps: int, seconds: float, samples_per_step: int) -> str:
    """The speed since the last update, in steps and samples a second."""
    return f"{steps / seconds:.1f} steps/s {steps * samples_per_step / seconds:,.0f} samples/s"


def metrics_text(losses: np.ndarray, accuracies: np.ndarray, distance: float) -> str:
    """The live metrics: mean loss, accuracy with its range over the agents, disagreement."""
    return (
        f"loss {np.mean(losses):.3f} acc {np.mean(accuracies):.1%} "
        f"({np.min(accuracies):.1%} to {np.max(accuracies):.1%}) distance {distance:.1e}"
    )


def config_record(job: Job) -> dict[str, Any]:
    """All options as they took effect, for config.json."""
    record = dataclasses.asdict(job.config) | {
        "agents": job.topology.num_agents + len(job.config.without_agents),
        "dataset": job.dataset.name,
        "batch_size": job.batch_size,
        "epochs": job.epochs,
    }
    return {name: str(v) if isinstance(v, Path) else v for name, v in record.items()}


def _spectrum(topology: Topology) -> str:
    if topology.num_agents > _MOST_AGENTS_OF_SPECTRUM:
        return f"not computed for more than {_MOST_AGENTS_OF_SPECTRUM:,} agents"
    return (
        f"λ2 = {_decimal(topology.second_eigenvalue)}, "
        f"λN = {_decimal(topology.smallest_eigenvalue)}, gap = {_decimal(topology.spectral_gap)}"
    )


def _by_agent_and_edge(job: Job) -> str:
    """Who talks to whom; along the edges, also what an agent and an edge carry."""
    if job.config.algorithm in THROUGH_SERVER:
        return ", agents to a server and back"
    if job.config.algorithm not in CONSENSUS:
        return ", agents to agents"
    by_edge = metrics.bytes_by_edge(job.state.params, job.topology)
    sent = by_edge.sum(axis=0)
    least = f"{byte_count(sent.min())} to " if sent.min() < sent.max() else ""
    return f", {least}{byte_count(sent.max())} by an agent, {byte_count(by_edge.max())} a message"


def _momentum(job: Job) -> str:
    return f", momentum {job.config.momentum:g}" if "msgd" in job.config.algorithm else ""


def _print_table(console: Console, title: str, rows: dict[str, str]) -> None:
    table = Table(title=title, show_header=False, title_justify="left")
    for row in rows.items():
        table.add_row(*row)
    console.print(table)


def _decimal(number: float) -> str:
    return f"{round(number, 6) + 0.0:.6f}"  # no -0.000000


def byte_count(count: float) -> str:
    """A number of bytes in a unit that suits it."""
    units: Sequence[str] = ("B", "kB", "MB", "GB", "TB")
    exponent = min(len(units) - 1, (len(str(int(count))) - 1) // 3)
    return f"{count / 1000**exponent:.4g} {units[exponent]}"
