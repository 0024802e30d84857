"""The one runner: trains, evaluates, shows and records."""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import time
from pathlib import Path
from typing import Any, TextIO

import jax
import numpy as np
from rich.console import Console

from cdjax import checkpoint, metrics, training
from experiments.report import plots
from experiments.run import resume as _checkpoints
from experiments.run.agreement import agreed, common_folder
from experiments.run.bounds import consensus_bound
from experiments.run.config import RunConfig
from experiments.run.dispatch import Divergence, dispatcher, fetched
from experiments.run.display import (
    config_record,
    evaluation_line,
    progress_bar,
    show_end,
    show_start,
)
from experiments.run.drop import bytes_sent, drop, numbers
from experiments.run.endings import Diverged, RunEnded, caught_signals
from experiments.run.errors import UsageError, blame
from experiments.run.resume import Progress
from experiments.run.setup import Job, prepare


def run(
    config: RunConfig, *, folder: Path | None = None, quiet: bool = False
) -> list[dict[str, Any]]:
    """Runs one experiment and leaves its folder behind.

    Args:
        config: the options.
        folder: where; by default that of ``config.resume``, or else a folder in ``config.out`` that
            tells what was run, and when.
        quiet: whether to print nothing.

    Returns:
        The records of metrics.jsonl, one an evaluation. Of several processes the first alone
        prints and writes.

    Raises:
        UsageError: for an option that cannot work; nothing has been written then.
        RunEnded: if a signal, divergence or a failing disk ends it early; what has been written is
            kept.
    """
    _keep_compilations()
    console = Console(quiet=quiet or jax.process_index() > 0)
    found = _checkpoints.find(config, console)
    with console.status("preparing"):
        job = prepare(_checkpoints.with_dropped(config, found))
    job, progress = _checkpoints.resumed(job, found)
    return run_job(console, job, progress, folder)


def run_job(
    console: Console, job: Job, progress: Progress, folder: Path | None = None
) -> list[dict[str, Any]]:
    """Runs what is prepared; see :func:`run`."""
    is_first = not jax.process_index()
    if is_first:
        folder = job.config.resume or _make_folder(job, folder)
        if not job.config.resume:
            shutil.rmtree(_checkpoints.checkpoints_of(folder), ignore_errors=True)
        show_start(console, job, folder)
    if job.config.checkpoint_every:
        folder = common_folder(folder)
    folder = folder or Path(os.devnull)
    with _checkpoints.write_errors(folder):
        if not is_first:
            return _train(console, job, progress, folder)
        _write(folder / "config.json", json.dumps(config_record(job), indent=2) + "\n")
        records = _train(console, job, progress, folder)
        title = f"{job.config.algorithm} on {job.dataset.name}, {job.topology.name}"
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


def _write(path: Path, text: str) -> None:
    """Writes a file that is the old one or the new one, whole, whenever the process dies."""
    draft = path.with_name(f"{path.name}.tmp")
    draft.write_text(text)
    draft.replace(path)


def _metrics_file(folder: Path, records: list[dict[str, Any]]) -> TextIO:
    """metrics.jsonl with the records so far, to be continued; of several processes by the first."""
    if jax.process_index():
        return open(os.devnull, "w")
    path = folder / "metrics.jsonl"
    _write(path, "".join(json.dumps(record) + "\n" for record in records))
    return path.open("a")


def _train(console: Console, job: Job, progress: Progress, folder: Path) -> list[dict[str, Any]]:
    """Trains to the last epoch; writes a record an evaluation, and checkpoints."""
    state, end, every = job.state, job.epochs * job.steps_per_epoch, job.config.checkpoint_every
    may_save = every or jax.process_count() == 1  # else there may be no folder that all see
    with contextlib.ExitStack() as stack:
        signals = stack.enter_context(caught_signals())
        file = stack.enter_context(_metrics_file(folder, progress.records))
        where = _checkpoints.checkpoints_of(folder)
        keep = job.config.keep_checkpoints
        checkpoints = stack.enter_context(checkpoint.writing(where, keep=keep))
        bars = stack.enter_context(progress_bar(console))
        saved = step = int(state.step)
        bar = bars.add_task("compiling", total=end, completed=step, speed="", metrics="")
        advance = dispatcher(job, bars, bar, signals)
        save = _checkpoints.saver(checkpoints, job)
        while True:
            last = progress.records[-1]["step"] if progress.records else 0
            stopped = agreed(signals)
            if step > last and _is_due(job, step, job.config.eval_every) and not stopped:
                bars.update(bar, description="evaluating")
                record = _record(job, state, progress, step - last)
                file.write(json.dumps(record) + "\n")
                file.flush()
                console.print(evaluation_line(record), highlight=False, soft_wrap=True)
                progress = progress._replace(records=[*progress.records, record], sums={})
            is_due = stopped or every and _is_due(job, step, every)
            if step != saved and may_save and is_due:
                if save(state, progress, bool(stopped) or step == end):
                    saved = step
            if stopped:
                checkpoint.wait(checkpoints)
                advice = f"go on with --resume {folder}" if may_save else "nothing is saved"
                line = f"{stopped.name} after {step} steps; {advice}"
                raise RunEnded(line, code=128 + stopped)
            if step == end:
                return progress.records
            state, sums, divergence = advance(state, progress.sums, _next_stop(job, step) - step)
            step, progress = int(state.step), progress._replace(sums=sums)
            if divergence:
                checkpoint.wait(checkpoints)
                job, progress = _answered(console, job, state, progress, divergence, where)
                state, advance = job.state, dispatcher(job, bars, bar, signals)
                save = _checkpoints.saver(checkpoints, job)


def _answered(
    console: Console,
    job: Job,
    state: training.TrainState,
    progress: Progress,
    divergence: Divergence,
    checkpoints: Path,
) -> tuple[Job, Progress]:
    """What goes on after a divergence; raises if nothing does."""
    described, reason = _described(job, divergence), ""
    if job.config.on_nan == "drop":
        try:
            rest, progress = drop(job, state, progress, divergence)
            line = f"{described}; the run goes on without"
            console.print(line, style="bold yellow", highlight=False, soft_wrap=True)
            return rest, progress
        except UsageError as error:
            reason = f"; {error}"
    raise Diverged(f"{described}{reason}; {_checkpoints.last_good(checkpoints)}")


def _described(job: Job, divergence: Divergence) -> str:
    """One line that names the agents and the step."""
    agents = numbers(job)[divergence.agents]
    who = f"agent {agents[0]}" if len(agents) == 1 else f"agents {', '.join(map(str, agents))}"
    when = "the turn from step" if job.config.sequential else "step"
    verb = "is" if divergence.what == "loss" else "are"
    return f"{who} diverged in {when} {divergence.step}: the {divergence.what} {verb} not finite"


def _is_due(job: Job, step: int, epochs: int) -> bool:
    """Whether at this step something is done that is done every so many epochs, and at the end."""
    steps = epochs * job.steps_per_epoch
    return step % steps == 0 or step == job.epochs * job.steps_per_epoch


def _next_stop(job: Job, step: int) -> int:
    """The step of the next evaluation or checkpoint, or the last."""
    end = job.epochs * job.steps_per_epoch
    cadences = (job.config.eval_every, job.config.checkpoint_every or job.epochs)
    steps = [epochs * job.steps_per_epoch for epochs in cadences]
    return min(end, *(step + every - step % every for every in steps))


def _record(job: Job, state: training.TrainState, progress: Progress, since: int) -> dict[str, Any]:
    """The line of metrics.jsonl; training metrics are means over the steps since the last."""
    means = {name: total / since for name, total in progress.sums.items()}
    record = {"dataset": job.dataset.name, "epoch": int(state.step) // job.steps_per_epoch}
    record |= _evaluated(job, state, means)
    bound = consensus_bound(job, state.opt_state, record["step"])
    record |= {} if bound is None else {"consensus_bound": bound}
    record["bytes_sent"] = round(bytes_sent(job, progress, record["step"]))
    return record | {"seconds": time.monotonic() - progress.started}


def _evaluated(
    job: Job, state: training.TrainState, train_metrics: training.Metrics
) -> dict[str, Any]:
    """Metrics of the honest agents and of the one model."""
    # One program at a time: several at once can wait for each other for ever between processes.
    view = jax.block_until_ready(job.view(state))
    test = fetched(job, job.evaluate(view.params, state.model_state, job.test_set))
    model_test = fetched(job, job.evaluate_one(view.model, view.model_state, job.test_set))
    accuracy = metrics.agent_statistics(test["accuracy"][job.honest])
    step = int(state.step)
    record = {
        "step": step,
        "train_loss_mean": np.mean(train_metrics["loss"][job.honest]),
        "train_accuracy_mean": np.mean(train_metrics["accuracy"][job.honest]),
        "test_loss_mean": np.mean(test["loss"][job.honest]),
        "test_accuracy_mean": accuracy.mean,
        "test_accuracy_min": accuracy.min,
        "test_accuracy_max": accuracy.max,
        "test_accuracy_variance": accuracy.variance,
        "mean_params_test_accuracy": model_test["accuracy"][0],
        "consensus_distance": view.consensus_distance,
    }
    return {name: float(v) for name, v in record.items()} | {"step": step}
