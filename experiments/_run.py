"""The one runner: trains, evaluates, shows and records."""

from __future__ import annotations

import json
import os
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import jax
import numpy as np
from rich.console import Console
from rich.progress import Progress, TaskID

from cdjax import data, metrics, sharding, training
from experiments import plots
from experiments._display import (
    config_record,
    evaluation_line,
    metrics_text,
    progress_bar,
    show_end,
    show_start,
    speed_text,
)
from experiments._errors import blame
from experiments._setup import Job, prepare
from experiments.config import RunConfig

# Long enough that the host costs nothing, short enough that the bar moves.
_SECONDS_A_DISPATCH = 0.5
_MAX_STEPS_A_DISPATCH = 100


def run(config: RunConfig, *, folder: Path | None = None) -> list[dict[str, Any]]:
    """Runs one experiment and leaves its folder behind.

    Args:
        config: the options.
        folder: where; by default a folder in ``config.out`` that tells what was run, and when.

    Returns:
        The records of metrics.jsonl, one an evaluation. Of several processes the first alone
        prints and writes.

    Raises:
        UsageError: for an option that cannot work; nothing has been written then.
    """
    _keep_compilations()
    console = Console(quiet=jax.process_index() > 0)
    with console.status("preparing"):
        job = prepare(config)
    if jax.process_index():
        return _train(console, job, Path(os.devnull))
    folder = _make_folder(job, folder)
    show_start(console, job, folder)
    (folder / "config.json").write_text(json.dumps(config_record(job), indent=2) + "\n")
    records = _train(console, job, folder / "metrics.jsonl")
    title = f"{config.algorithm} on {job.dataset.name}, {job.topology.name}"
    plots.curves(records, title).savefig(folder / "curves.png", dpi=120)
    show_end(console, records[-1], folder)
    return records


def _keep_compilations() -> None:
    """Keeps compiled programs on the disk, so that only the first run of a kind compiles."""
    if not jax.config.jax_compilation_cache_dir:
        caches = Path(os.environ.get("XDG_CACHE_HOME") or "~/.cache").expanduser()
        jax.config.update("jax_compilation_cache_dir", str(caches / "cdjax"))
        jax.config.update("jax_persistent_cache_min_compile_time_secs", 0.0)


def _make_folder(job: Job, folder: Path | None) -> Path:
    config = job.config
    with blame("--out"):
        if folder:
            folder.mkdir(parents=True, exist_ok=True)
            return folder
        topology = Path(config.topology).stem
        name = f"{job.dataset.name}-{config.algorithm}-{topology}-{job.topology.num_agents}"
        stem = f"{name}-{time.strftime('%Y%m%d-%H%M%S')}"
        for attempt in range(1000):
            folder = config.out / (f"{stem}-{attempt}" if attempt else stem)
            if not folder.exists():
                folder.mkdir(parents=True)
                return folder
    raise AssertionError("a thousand runs in one second")


def _train(console: Console, job: Job, path: Path) -> list[dict[str, Any]]:
    """Trains to the last epoch; writes a record an evaluation."""
    start, state, records = time.monotonic(), job.state, []
    with progress_bar(console) as progress, path.open("w") as file:
        bar = progress.add_task(
            "compiling", total=job.epochs * job.steps_per_epoch, speed="", metrics=""
        )
        advance = _dispatcher(job, progress, bar)
        epoch = 0
        while epoch < job.epochs:
            epochs = min(job.config.eval_every, job.epochs - epoch)
            state, train_metrics = advance(state, epochs * job.steps_per_epoch)
            epoch += epochs
            progress.update(bar, description="evaluating")
            record = {"dataset": job.dataset.name, "epoch": epoch}
            record |= _evaluated(job, state, train_metrics)
            record["seconds"] = time.monotonic() - start
            file.write(json.dumps(record) + "\n")
            file.flush()
            console.print(evaluation_line(record), highlight=False, soft_wrap=True)
            records.append(record)
    return records


def _dispatcher(job: Job, progress: Progress, bar: TaskID) -> Callable[..., Any]:
    """A function that runs a number of steps and keeps the progress bar moving meanwhile."""
    num_agents = job.topology.num_agents
    samples_per_step = num_agents * job.batch_size
    distance = jax.jit(lambda state: job.view(state).consensus_distance)
    log_every = job.config.log_every
    most = log_every or _MAX_STEPS_A_DISPATCH
    chunk = log_every or 1

    def advance(
        state: training.TrainState, num_steps: int
    ) -> tuple[training.TrainState, training.Metrics]:
        nonlocal chunk
        sums, done = {}, 0
        while done < num_steps:
            steps = min(chunk, num_steps - done)
            indices = np.zeros((most, num_agents, job.batch_size), np.int32)
            indices[:steps] = data.batch_indices(
                job.sizes,
                job.batch_size,
                first_step=int(state.step),
                num_steps=steps,
                seed=job.config.seed,
            )
            start = time.monotonic()
            state, means = job.loop(state, job.agent_data, indices, steps)
            means = _fetched(job, means)
            seconds = time.monotonic() - start
            sums = {name: sums.get(name, 0.0) + steps * value for name, value in means.items()}
            done += steps
            progress.update(
                bar,
                advance=steps,
                description="training",
                speed=speed_text(steps, seconds, samples_per_step),
                metrics=metrics_text(means["loss"], means["accuracy"], float(distance(state))),
            )
            if not log_every:
                wanted = int(steps * _SECONDS_A_DISPATCH / seconds)
                chunk = min(max(wanted, 1), 2 * chunk, most)
        return state, {name: value / num_steps for name, value in sums.items()}

    return advance


def _evaluated(
    job: Job, state: training.TrainState, train_metrics: training.Metrics
) -> dict[str, Any]:
    """The record of one evaluation; training metrics are means over the steps since the last."""
    # One program at a time: several at once can wait for each other for ever between processes.
    view = jax.block_until_ready(job.view(state))
    test = _fetched(job, job.evaluate(view.params, state.model_state, job.test_set))
    model_test = _fetched(job, job.evaluate_one(view.model, view.model_state, job.test_set))
    accuracy = metrics.agent_statistics(test["accuracy"])
    step = int(state.step)
    record = {
        "step": step,
        "train_loss_mean": np.mean(train_metrics["loss"]),
        "train_accuracy_mean": np.mean(train_metrics["accuracy"]),
        "test_loss_mean": np.mean(test["loss"]),
        "test_accuracy_mean": accuracy.mean,
        "test_accuracy_min": accuracy.min,
        "test_accuracy_max": accuracy.max,
        "test_accuracy_variance": accuracy.variance,
        "mean_params_test_accuracy": model_test["accuracy"][0],
        "consensus_distance": view.consensus_distance,
    }
    bytes_sent = round(step * job.bytes_a_step)
    return {name: float(v) for name, v in record.items()} | {"step": step, "bytes_sent": bytes_sent}


def _fetched(job: Job, tree: training.Metrics) -> training.Metrics:
    """Metrics on the host, all agents' in every process."""
    return jax.device_get(sharding.replicate_on_devices(tree, job.mesh))
