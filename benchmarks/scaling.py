"""The cost of a sample as the number of agents grows: ``python -m benchmarks.scaling``."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from statistics import median

import jax
import tyro

from benchmarks._timing import alternate, ratio, report
from benchmarks._training import train_program
from cdjax import models

MODELS = {"cnn": models.CNN, "mlp": models.MLP, "softmax": models.SoftmaxRegression}


@dataclass(frozen=True)
class Options:
    """Times CDMSGD steps on a ring with the same number of samples for every number of agents."""

    model: str = "softmax"
    """cnn (the paper's), mlp or softmax (regression)."""
    agents: tuple[int, ...] = (1, 4, 16, 64, 256, 1024)
    """Numbers of agents N."""
    samples: int = 4096
    """Samples per step of all agents together; every agent takes at least one."""
    baseline: int = 4
    """The N to whose cost per sample all others are compared."""
    turns: int = 5
    """Turns per program."""
    json: Path | None = None
    """File for the results as JSON."""


def main(options: Options) -> None:
    """Prints the table."""
    batches = {n: max(1, options.samples // n) for n in sorted({*options.agents, options.baseline})}
    model = MODELS[options.model]()
    programs = {str(n): train_program(model, n, batch) for n, batch in batches.items()}
    times = alternate(programs, turns=options.turns)
    baseline = options.baseline * batches[options.baseline]
    rows = [
        {
            "agents": n,
            "batch": batch,
            "microseconds_per_sample": 1e6 * median(times[str(n)]) / (n * batch),
            f"times_of_{options.baseline}_agents": ratio(times, str(n), str(options.baseline))
            * baseline
            / (n * batch),
        }
        for n, batch in batches.items()
    ]
    title = f"cost per sample of {options.model}, {jax.devices()[0].platform}"
    report(title, rows, options.json)


if __name__ == "__main__":
    main(tyro.cli(Options))
