"""One run, from its options to its results: the page to read first.

Options become a job (job.py), which is dispatched to the devices (dispatch.py), evaluated
(evaluate.py) and saved (resume.py) until its last epoch.
"""

from __future__ import annotations

import contextlib
import os
import shutil
from pathlib import Path
from typing import Any

import jax
from rich.console import Console

from cdjax import checkpoint
from experiments.report import plots
from experiments.run import alike, compiling, drop, files, loggers, page, resume
from experiments.run.config import Run
from experiments.run.dispatch import dispatcher, is_due, next_stop
from experiments.run.display import (
    evaluation_line,
    progress_bar,
    reporter,
    show_end,
    show_start,
)
from experiments.run.errors import RunEnded
from experiments.run.evaluate import evaluated
from experiments.run.interrupts import caught_signals
from experiments.run.job import Job, prepare
from experiments.run.progress import Progress, advanced, recorded, timed
from experiments.run.signals import agreed, check_alike, common_folder
from experiments.run.terminal import waiting


def run(options: Run, *, folder: Path | None = None, quiet: bool = False) -> list[dict[str, Any]]:
    """Runs one experiment and leaves its folder behind.

    Args:
        options: the options.
        folder: where; by default that of ``--resume``, or else a new one in ``--out``.
        quiet: whether to print and draw nothing.

    Returns:
        The records of metrics.jsonl. Of several processes only the first prints and writes.

    Raises:
        UsageError: for an option that cannot work; nothing has been written then.
        RunEnded: if a signal, divergence or a failing disk ends it early.
    """
    compiling.keep_compilations()
    console = Console(quiet=quiet or options.output.quiet or jax.process_index() > 0)
    with contextlib.ExitStack() as stack:
        if options.saving.resume and not jax.process_index():
            stack.enter_context(files.at_work(options.saving.resume, "--resume"))
        return _run(console, options, folder, draws=not quiet)


def _run(
    console: Console, options: Run, folder: Path | None, *, draws: bool
) -> list[dict[str, Any]]:
    found = resume.find(options)
    check_alike(alike.facts(options) | alike.of_settings(found and found.step))
    for line, style in resume.notices(options, found):
        console.print(line, style=style, markup=False, highlight=False, soft_wrap=True)
    with waiting(console, "preparing"):
        job = prepare(resume.without_dropped(options, found))
    job, progress = resume.resumed(job, found)
    return run_job(console, job, progress=progress, folder=folder, draws=draws)


def run_job(
    console: Console,
    job: Job,
    *,
    progress: Progress,
    folder: Path | None = None,
    draws: bool = True,
) -> list[dict[str, Any]]:
    """Runs what is prepared, and draws what it found unless it is told not to; see :func:`run`."""
    is_first, saving = not jax.process_index(), job.run.saving
    with contextlib.ExitStack() as stack:
        if is_first:
            folder = saving.resume or files.make_folder(job, folder)
            if not saving.resume:
                stack.enter_context(files.at_work(folder, "--out"))
                shutil.rmtree(files.checkpoints_of(folder), ignore_errors=True)
            if draws:
                shown = show_start(console, job, progress, folder)
                stack.enter_context(page.left_in(folder, job, shown=shown, console=console))
        if saving.checkpoint_every:
            folder = common_folder(folder)
        folder = folder or Path(os.devnull)
        stack.enter_context(resume.last_good_named(folder))
        if is_first:
            files.write_options(job, folder, dropped=progress.dropped)
            files.write_graph(job, folder)
            if draws:
                drawn = plots.class_counts(job.problem.class_counts, files.partition_title(job))
                drawn.savefig(folder / "partition.png", dpi=120)
        records = _train(console, job, progress, folder)
        if is_first and draws:
            plots.curves(records, files.title(job)).savefig(folder / "curves.png", dpi=120)
    show_end(console, job, records[-1], folder)
    return records


def _train(console: Console, job: Job, progress: Progress, folder: Path) -> list[dict[str, Any]]:
    """Trains to the last epoch; writes a record per evaluation, and checkpoints."""
    saving, end = job.run.saving, job.problem.num_steps
    may_save = saving.checkpoint_every or jax.process_count() == 1  # else no folder that all see
    with contextlib.ExitStack() as stack:
        signals = stack.enter_context(caught_signals())
        file = stack.enter_context(files.metrics_file(folder, progress.records))
        checkpoints = stack.enter_context(
            checkpoint.writing(files.checkpoints_of(folder), keep=saving.keep_checkpoints)
        )
        log = stack.enter_context(_logged(console, job, folder, step=progress.last_recorded))
        report = reporter(stack.enter_context(progress_bar(console)), job)
        advance, save = dispatcher(job, report, signals), resume.saver(checkpoints, job)
        state = job.state
        while True:
            step, stopped = int(state.step), agreed(signals)
            is_new = step > progress.last_recorded
            if is_new and not stopped and is_due(job, step, job.problem.eval_every):
                record, test = evaluated(job, state, progress)
                files.write_record(file, record)
                files.write_agents(job, folder, record, test)
                log(record)
                # A file gets one line, a narrow terminal several that break between words.
                is_file = not console.is_terminal
                console.print(evaluation_line(record), highlight=False, soft_wrap=is_file)
                progress = recorded(progress, record)
            if may_save and (stopped or is_due(job, step, saving.checkpoint_every)):
                save(state, progress, bool(stopped) or step == end)
            if stopped:
                checkpoint.wait(checkpoints)
                advice = f"go on with --resume {folder}" if may_save else "nothing is saved"
                line = f"{stopped.name} after {step} steps; {advice}"
                raise RunEnded(line, code=128 + stopped)
            if step == end:
                return progress.records
            state, rows, divergence = advance(state, next_stop(job, step) - step)
            progress = timed(job, advanced(progress, rows), rows)
            if divergence:
                checkpoint.wait(checkpoints)
                job, progress, line = drop.without_diverged(
                    job, state, progress=progress, divergence=divergence
                )
                console.print(line, style="bold yellow", highlight=False, soft_wrap=True)
                advance, save = dispatcher(job, report, signals), resume.saver(checkpoints, job)
                state = job.state


def _logged(
    console: Console, job: Job, folder: Path, *, step: int
) -> contextlib.AbstractContextManager[loggers.Write]:
    """What ``--log`` names, in the first process."""

    def warn(line: str) -> None:
        console.print(f"warning: {line}", style="bold yellow", markup=False, soft_wrap=True)

    names = () if jax.process_index() else job.run.output.log
    options = files.options_record(job) if names else {}
    return loggers.opened(names, folder=folder, options=options, step=step, warn=warn)
