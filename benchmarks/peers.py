"""The same steps in PyTorch: ``python -m benchmarks.peers``.

CDMSGD of the paper's CNN on a ring with the same network, images, parameters and equations,
written plainly as a loop over agents and as ``torch.func.vmap``. docs/speed.md says how much faster
PyTorch is at its best.
"""

from __future__ import annotations

import sys
from dataclasses import dataclass
from pathlib import Path
from statistics import median

import numpy as np
import tyro

from benchmarks._timing import alternate, matmul_peak, ratio, report
from benchmarks._torch import PLANS, torch_program
from benchmarks._training import cnn_operations, train_program
from cdjax import models


@dataclass(frozen=True)
class Options:
    """Times CDMSGD steps of the paper's CNN in cdjax and in PyTorch, in turn."""

    agents: int = 16
    """Number of agents N."""
    batch: int = 64
    """Samples per agent and step."""
    turns: int = 5
    """Turns per program."""
    json: Path | None = None
    """File for the results as JSON."""


def main(options: Options) -> None:
    """Prints the table."""
    try:
        import torch
    except ImportError:
        sys.exit("PyTorch is not installed, so there is nothing to compare with: pip install torch")
    device = "cuda" if torch.cuda.is_available() else "cpu"
    peak = matmul_peak()
    ours = train_program(models.CNN(), options.agents, options.batch)
    programs = {"cdjax": ours}
    for plan in ("loop", "vmap"):
        programs[f"torch {plan}"] = torch_program(
            torch, PLANS[plan], agents=options.agents, batch_size=options.batch, device=device
        )
    first = {name: float(np.mean(programs[name]())) for name in programs}
    if not np.allclose(list(first.values()), first["cdjax"], rtol=1e-3):
        sys.exit(f"the programs do not compute the same losses in the first step: {first}")

    times = alternate(programs, turns=options.turns)
    operations = options.agents * options.batch * cnn_operations()
    rows = [
        {
            "program": name,
            "seconds": median(times[name]),
            "times_cdjax": ratio(times, name, "cdjax"),
            "share_of_matmul_peak": operations / median(times[name]) / peak,
        }
        for name in programs
    ]
    title = f"CDMSGD, {options.agents} agents, batch {options.batch}, on {device}"
    report(title, rows, options.json, torch_threads=torch.get_num_threads())


if __name__ == "__main__":
    main(tyro.cli(Options))
