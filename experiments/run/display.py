"""What a person sees in the terminal: the start table, the progress bar, the end table."""

from __future__ import annotations

import sys
import time
from pathlib import Path
from typing import Any, NamedTuple

import jax
import numpy as np
from rich.console import Console
from rich.filesize import decimal
from rich.panel import Panel
from rich.progress import BarColumn, TextColumn, TimeElapsedColumn, TimeRemainingColumn
from rich.progress import Progress as Bars
from rich.text import Text

from cdjax import Topology, mixing
from experiments.report.tables import pairs
from experiments.run.algorithm import messages_per_step
from experiments.run.bounds import step_limits
from experiments.run.clock import fact
from experiments.run.config import Trouble, option_values
from experiments.run.dispatch import Report, Rows
from experiments.run.disturbance import ATTACKS, FAULTS, MIXERS
from experiments.run.job import Job
from experiments.run.network import Network
from experiments.run.progress import Progress, agent_means
from experiments.run.terminal import next_line, redraws, waiting

# All eigenvalues take 2 s for so many agents, and time with the cube of their number.
_MOST_AGENTS_OF_SPECTRUM = 2000
# Which parts of the progress bar a terminal shows that is narrower than so many columns; one that
# is as wide as the last shows all of them.
_COLUMNS = {60: (1, 2, 6), 80: (1, 2, 4, 6), 140: (1, 2, 3, 4, 6)}
_WIDE = max(_COLUMNS)


class Shown(NamedTuple):
    """What a run has begun with: the rows of its table, and what it has been warned of."""

    rows: dict[str, str]
    warnings: list[str]


def show_start(console: Console, job: Job, progress: Progress, folder: Path) -> Shown:
    """Prints the notice of a stand-in, if any, and the table of all that the run is made of."""
    with waiting(console, "measuring the curvature"):
        limits, warning = step_limits(job)
    if job.problem.notice and job.run.output.quiet:
        print(f"warning: {' '.join(job.problem.notice.split())}", file=sys.stderr)
    elif job.problem.notice:
        notice = Text(job.problem.notice)  # as it stands: Panel would take brackets for markup
        console.print(Panel(notice, title="stand-in data", style="bold yellow"))
    rows = _of_data(job) | _of_network(job) | _of_algorithm(job) | {"step limits": limits}
    rows |= _of_steps(job)
    if job.timing and progress.clock:
        rows["network"] = fact(job.run, job.timing, progress.clock)
    rows["folder"] = str(folder)
    rows = {name: text for name, text in rows.items() if text}
    console.print(pairs(f"{job.run.algorithm.algorithm} on {job.problem.dataset.name}", rows))
    warnings = [line for line in (warning, _trouble_warning(job)) if line]
    for line in warnings:
        console.print(f"warning: {line}", style="bold yellow", soft_wrap=True)
    return Shown(rows, [line for line in (job.problem.notice, *warnings) if line])


def _of_data(job: Job) -> dict[str, str]:
    dataset, sizes = job.problem.dataset, job.problem.sizes
    image = "×".join(map(str, dataset.train_images.shape[1:]))
    return {
        "data": f"{dataset.name}: {len(dataset.train_labels):,} training and "
        f"{len(dataset.test_labels):,} test images, {image}, {dataset.num_classes} classes",
        "partition": f"{job.run.data.partition}: {sizes.min():,} to {sizes.max():,} samples per "
        "agent",
    }


def _of_network(job: Job) -> dict[str, str]:
    graph, options = job.network.topology, job.run.network
    varying = job.network.varying
    weights = "changing with the step" if varying else f"{options.weights} weights"
    return {
        "topology": f"{graph.name}, {graph.num_agents} agents, {weights}",
        "mixing": _mixing(job),
        "trouble": _trouble(job.run.trouble, job.network),
        "spectrum": varying.fact if varying else _spectrum(graph),
    }


def _of_algorithm(job: Job) -> dict[str, str]:
    model, options = job.run.model, job.run.algorithm
    num_params = sum(x.size for x in jax.tree.leaves(job.state.params)) // job.network.num_agents
    mu = job.options.get("momentum")
    momentum = f", momentum {mu:g}" if mu else ""
    personal = ", ".join(job.run.network.personal)
    at_home = f", of which {personal} stay with it" if personal else ""
    return {
        "model": f"{model.model}, {num_params:,} parameters per agent{at_home}",
        "algorithm": f"{options.algorithm}, learning rate {options.learning_rate:g} "
        f"({options.schedule}){momentum}",
    }


def _of_steps(job: Job) -> dict[str, str]:
    task, device = job.problem, jax.devices()[0]
    turns = ", one agent after another" if job.in_turns else ""
    return {
        "steps": f"{task.epochs} epochs × {task.steps_per_epoch} steps, batch {task.batch_size} "
        f"per agent{turns}",
        "sent": f"{decimal(round(job.bytes_per_step))} per step by all{_by_agent_and_edge(job)}",
        "device": f"{job.mesh.size} × {device.device_kind} ({device.platform})",
    }


def show_end(console: Console, job: Job, record: dict[str, Any], folder: Path) -> None:
    """Prints the table of the last evaluation and where the results lie."""
    spread = f"{record['test_accuracy_min']:.2%} to {record['test_accuracy_max']:.2%}"
    whose = "server" if job.algorithm.server else "mean parameters"
    table = pairs(
        f"after {record['epoch']} epochs ({record['step']} steps) on {record['dataset']}",
        {
            "test accuracy": f"{record['test_accuracy_mean']:.2%} mean over agents ({spread})",
            f"of the {whose}": f"{record['mean_params_test_accuracy']:.2%}",
            "train accuracy": f"{record['train_accuracy_mean']:.2%}",
            "loss": f"{record['train_loss_mean']:.4f} train, {record['test_loss_mean']:.4f} test",
            "consensus distance": f"{record['consensus_distance']:.3e}"
            + _bound_text(record, ".3e"),
            "sent": decimal(record["bytes_sent"]),
            **_simulated(record),
            "time": f"{record['seconds']:.1f} s",
        },
    )
    console.print(table)
    files = "report.html, config.json, metrics.jsonl, curves.png, partition.png"
    console.print(f"results in {folder}: {files}", markup=False, highlight=False, soft_wrap=True)


def _simulated(record: dict[str, Any]) -> dict[str, str]:
    """How long it would have taken on the network, if there is one."""
    if "simulated_seconds" not in record:
        return {}
    return {"on the network": f"{record['simulated_seconds']:,.1f} s"}


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


def progress_bar(console: Console) -> Bars:
    """A bar with the speed, the loss, the accuracy and its spread, and the consensus distance.

    It is drawn where a person looks at a terminal that can redraw a line, and holds as much as the
    terminal is wide.
    """
    columns = [
        TextColumn("{task.description}"),
        BarColumn(bar_width=None if console.width >= _WIDE else 10),
        TextColumn("{task.completed:.0f}/{task.total:.0f}"),
        TextColumn("{task.fields[speed]}"),
        TextColumn("{task.fields[metrics]}"),
        TimeElapsedColumn(),
        TimeRemainingColumn(),
    ]
    shown = next((places for width, places in _COLUMNS.items() if console.width < width), None)
    columns = columns if shown is None else [columns[i] for i in shown]
    return Bars(*columns, console=console, transient=True, disable=not redraws(console))


def reporter(bars: Bars, job: Job) -> Report:
    """Adds the run to a progress bar; returns what moves it on after a dispatch.

    Where no bar is drawn, a line a minute says that the run goes on.
    """
    console = bars.console
    bar = bars.add_task(
        "compiling",
        total=job.problem.num_steps,
        completed=int(job.state.step),
        speed="",
        metrics="",
    )
    samples_per_step, due = job.network.num_agents * job.problem.batch_size, next_line()

    def report(steps: int, seconds: float, rows: Rows, distance: float) -> None:
        nonlocal due
        means = agent_means({name: values.sum(axis=0) for name, values in rows.items()}, steps)
        loss, accuracy = means["loss"], means["accuracy"]
        speed = f"{steps / seconds:.1f} steps/s"
        metrics = f"loss {loss.mean():.3f} acc {accuracy.mean():.1%}"
        if console.width >= _WIDE:
            speed += f" {steps * samples_per_step / seconds:,.0f} samples/s"
            metrics += f" ({accuracy.min():.1%} to {accuracy.max():.1%}) distance {distance:.1e}"
        bars.update(bar, advance=steps, description="training", speed=speed, metrics=metrics)
        if bars.disable and time.monotonic() >= due:
            done = bars.tasks[bar].completed
            line = f"step {done:.0f} of {job.problem.num_steps}  {speed}  {metrics}"
            console.print(line, highlight=False, soft_wrap=True)
            due = next_line()

    return report


def _mixing(job: Job) -> str:
    """How agents combine what they hear."""
    trouble = job.run.trouble
    row = MIXERS[trouble.mixer]
    if row.build is not None:
        return row.describe(**option_values(row.options, trouble))
    share = job.run.network.mix_fraction
    if share < 1:
        return f"a random share of {share:g} of all parameters"
    if job.network.varying:
        return "over the links of each step"
    if any(getattr(trouble, name) for name in FAULTS):
        return "over the links that a step has"
    return mixing.choose(job.network.topology) if job.mesh.size == 1 else "exchange between devices"


def _trouble(trouble: Trouble, network: Network) -> str:
    """The faults and the attack of a run; "" if there are none."""
    parts = [
        row.describe(probability, **option_values(row.options, trouble))
        for name, row in FAULTS.items()
        if (probability := getattr(trouble, name))
    ]
    if trouble.lag:
        parts.append(f"messages are {trouble.lag} steps late")
    if network.malicious:
        who = ", ".join(map(str, network.names(network.malicious)))
        strength = option_values(ATTACKS[trouble.attack].options, trouble)["attack_strength"]
        how = trouble.attack if strength is None else f"{trouble.attack} of strength {strength:g}"
        parts.append(f"{how} by malicious agents {who}")
    return "; ".join(parts)


def _trouble_warning(job: Job) -> str:
    """Which of a run's troubles its algorithm cannot bear; "" if none is known."""
    if job.run.trouble.lag and job.algorithm.recursion and job.options.get("momentum"):
        return (
            f"late messages make {job.run.algorithm.algorithm} diverge, unless its momentum is "
            "small: it adds to what is late; cdsgd and atc stay stable"
        )
    return ""


def _spectrum(topology: Topology) -> str:
    if topology.num_agents > _MOST_AGENTS_OF_SPECTRUM:
        return f"not computed for more than {_MOST_AGENTS_OF_SPECTRUM:,} agents"
    return (
        f"λ2 = {_decimal(topology.second_eigenvalue)}, "
        f"λN = {_decimal(topology.smallest_eigenvalue)}, gap = {_decimal(topology.spectral_gap)}"
    )


def _by_agent_and_edge(job: Job) -> str:
    """Who talks to whom; along the edges, also what an agent and an edge carry."""
    if job.algorithm.server:
        return ", agents to a server and back"
    if not job.algorithm.over_topology:
        return ", agents to agents"
    if varying := job.network.varying:
        share = varying.messages * job.run.network.mix_fraction / job.network.num_agents
        return f", {share:.3g} times the model by an agent, on average"
    links = job.network.topology.entries.off_diagonal
    num_messages = np.bincount(links.senders, minlength=links.num_agents)  # of each agent
    all_messages = messages_per_step(job.algorithm, job.setting, job.options)
    all_bytes = job.message_bytes * all_messages * job.run.network.mix_fraction
    by_edge = all_bytes / max(1, num_messages.sum())
    sent = np.rint(by_edge * num_messages).astype(int)
    least = f"{decimal(sent.min())} to " if sent.min() < sent.max() else ""
    return f", {least}{decimal(sent.max())} by an agent, {decimal(job.message_bytes)} a message"


def _decimal(number: float) -> str:
    return f"{round(number, 6) + 0.0:.6f}"  # no -0.000000
