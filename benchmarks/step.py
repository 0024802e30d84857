"""The time of a whole train step by plan, N and batch: ``python -m benchmarks.step``."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from statistics import median

import tyro

from benchmarks._models import FlaxCNN
from benchmarks._timing import alternate, matmul_peak, ratio, report
from benchmarks._training import cnn_operations, train_program
from cdjax import models


@dataclass(frozen=True)
class Options:
    """Times CDMSGD steps of the paper's CNN on a ring, gradients, mixing and update together."""

    agents: tuple[int, ...] = (16,)
    """Numbers of agents N."""
    batches: tuple[int, ...] = (16, 64)
    """Samples per agent and step."""
    plans: tuple[str, ...] = ("auto", "vmap", "flax_vmap")
    """Plans of agent_map. flax_vmap is vmap of the same network with Flax's own layers, dispatched
    step by step."""
    turns: int = 5
    """Turns per program."""
    json: Path | None = None
    """File for the results as JSON."""


def main(options: Options) -> None:
    """Prints the table."""
    rows = []
    for num_agents in options.agents:
        for batch_size in options.batches:
            rows += _rows(num_agents, batch_size, options)
    report("CDMSGD steps of the paper's CNN on a ring", rows, options.json)


def _rows(num_agents: int, batch_size: int, options: Options) -> list[dict[str, object]]:
    peak = matmul_peak()
    programs = {}
    for plan in options.plans:
        # XLA:CPU's own convolutions are slower still inside loops, so Flax's are timed outside.
        in_loop = plan != "flax_vmap"
        model = models.CNN() if in_loop else FlaxCNN()
        plan_name = plan.removeprefix("flax_")
        programs[plan] = train_program(model, num_agents, batch_size, plan_name, in_loop=in_loop)
    times = alternate(programs, turns=options.turns)
    samples = num_agents * batch_size
    return [
        {
            "agents": num_agents,
            "batch": batch_size,
            "plan": plan,
            "seconds": median(times[plan]),
            "samples_per_second": samples / median(times[plan]),
            "times_auto": ratio(times, plan, options.plans[0]),
            "share_of_matmul_peak": samples * cnn_operations() / median(times[plan]) / peak,
        }
        for plan in options.plans
    ]


if __name__ == "__main__":
    main(tyro.cli(Options))
