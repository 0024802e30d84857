"""How long training waits for a checkpoint every epoch: ``python -m benchmarks.saving``."""

from __future__ import annotations

import statistics
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import jax
import tyro

from benchmarks._timing import report
from cdjax import checkpoint, data, training
from experiments.run.config import Run, replaced
from experiments.run.job import Job, prepare
from experiments.run.progress import beginning
from experiments.run.resume import saver

Epoch = Callable[[training.TrainState], training.TrainState]


@dataclass(frozen=True)
class Options:
    """Trains agents on the digits, in turns without checkpoints and with one every epoch."""

    models: tuple[str, ...] = ("softmax", "mlp", "cnn")
    """Models of the experiments, from the shortest epoch to the longest."""
    agents: int = 5
    """Number of agents N, on a ring."""
    seconds: float = 10
    """Length of a turn; the first two only warm up."""
    turns: int = 3
    """Counted turns with checkpoints; there are as many without."""
    json: Path | None = None
    """Where to write the results as JSON."""


def main(options: Options) -> None:
    """Prints the table."""
    rows = [_row(model, options) for model in options.models]
    report(f"A checkpoint every epoch, N = {options.agents}", rows, options.json)


def _row(model: str, options: Options) -> dict[str, Any]:
    job = prepare(replaced(Run(), model=model, agents=options.agents, topology="ring"))
    epoch = _epoch(job)
    state = epoch(job.state)
    epochs = max(2, round(options.seconds / _seconds(lambda: epoch(state))))
    plain, saving, waits = [], [], []
    for turn in range(options.turns + 1):
        without = _seconds(lambda: _train(epoch, state, epochs))
        start = time.perf_counter()
        waited = _train_and_save(job, epoch, state, epochs)
        if turn:
            plain.append(without)
            saving.append(time.perf_counter() - start)
            waits.append(waited)
    return {
        "model": model,
        "state_MB": sum(leaf.nbytes for leaf in jax.tree.leaves(state)) / 1e6,
        "epoch_seconds": statistics.median(plain) / epochs,
        "epochs": epochs,
        "saves": statistics.median(len(turn) for turn in waits),
        "wait_ms": 1e3 * statistics.median(wait for turn in waits for wait in turn),
        "share_waited": statistics.median(map(_share, waits, saving)),
        "time_with_to_without": statistics.median(
            a / b for a, b in zip(saving, plain, strict=True)
        ),
    }


def _epoch(job: Job) -> Epoch:
    """The steps of an epoch, always on the same samples."""
    task, seed = job.problem, job.run.training.seed
    steps = task.steps_per_epoch
    indices = data.batch_indices(
        task.sizes, task.batch_size, first_step=0, num_steps=steps, seed=seed
    )
    loop = jax.jit(lambda state: job.programs.loop(state, job.agent_data, indices, steps)[0])
    return lambda state: jax.block_until_ready(loop(state))


def _train(epoch: Epoch, state: training.TrainState, epochs: int) -> None:
    for _ in range(epochs):
        state = epoch(state)


def _train_and_save(job: Job, epoch: Epoch, state: training.TrainState, epochs: int) -> list[float]:
    """The seconds that training waited for each save, and at the end for the last to finish."""
    waits = []
    with tempfile.TemporaryDirectory() as folder:
        with checkpoint.writing(folder) as checkpoints:
            save, progress = saver(checkpoints, job), beginning(job)
            for done in range(1, epochs + 1):
                state, start = epoch(state), time.perf_counter()
                if save(state, progress, done == epochs):
                    waits.append(time.perf_counter() - start)
            start = time.perf_counter()
            checkpoint.wait(checkpoints)
            waits[-1] += time.perf_counter() - start
    return waits


def _share(waits: list[float], seconds: float) -> float:
    return sum(waits) / seconds


def _seconds(program: Callable[[], Any]) -> float:
    start = time.perf_counter()
    program()
    return time.perf_counter() - start


if __name__ == "__main__":
    main(tyro.cli(Options))
