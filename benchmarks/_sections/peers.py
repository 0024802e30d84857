"""The same step in PyTorch, where it is installed."""

from __future__ import annotations

import importlib.util
from collections.abc import Callable
from statistics import median
from typing import Any

import numpy as np

from benchmarks._sections.setting import Row, Setting, failure
from benchmarks._timing import ratio
from benchmarks._torch import PLANS, torch_program
from benchmarks._training import cnn_operations, train_program
from cdjax import models

_LEAST_SECONDS = 5  # to import PyTorch and to compile cdjax's step


def torch(setting: Setting) -> None:
    """PyTorch: a loop in the layout channels last, ``torch.func.vmap``, and CUDA graphs."""
    if not importlib.util.find_spec("torch"):
        setting.record({"skipped": "PyTorch is not installed"})
        return
    if setting.time_left() < _LEAST_SECONDS:
        setting.record({"skipped": f"{setting.time_left():.1f} s are left"})
        return
    import torch

    # cdjax's products and convolutions are rounded to TF32 by default too.
    torch.backends.cuda.matmul.allow_tf32 = torch.backends.cudnn.allow_tf32 = True
    torch.backends.cudnn.benchmark = True
    device = "cuda" if torch.cuda.is_available() else "cpu"
    agents, batch = setting.sized((16, 64), (2, 4))
    facts = {"agents": agents, "batch": batch, "device": device, "tf32": device == "cuda"}
    ours = train_program(models.CNN(), agents, batch)
    losses = [float(np.mean(ours())) for _ in range(2)]
    for name, plan in PLANS.items():
        if plan.graph and device == "cpu":
            continue

        def measure(plan: Any = plan) -> Row:
            program = torch_program(torch, plan, agents=agents, batch_size=batch, device=device)
            return _compared(setting, ours, program, losses=losses, samples=agents * batch)

        setting.attempt({**facts, "program": f"torch {name}"}, measure)
    if device == "cuda":
        torch.cuda.empty_cache()


def _compared(
    setting: Setting,
    ours: Callable[[], Any],
    program: Callable[[], Any],
    *,
    losses: list[float],
    samples: int,
) -> Row:
    """The time of a program and cdjax's in turn; both losses before and after the first step."""
    found = [float(np.mean(program())) for _ in range(2)]
    row: Row = {
        "first_losses": found,
        "first_losses_of_cdjax": losses,
        "same": bool(np.allclose(found, losses, rtol=1e-2)),
    }
    try:
        times = setting.times({"cdjax": ours, "torch": program})
    except Exception as error:
        return row | failure(error)
    seconds = median(times["torch"])
    return row | {
        "seconds": seconds,
        "cdjax_seconds": median(times["cdjax"]),
        "times_cdjax": ratio(times, "torch", "cdjax"),
        "share_of_matmul_peak": samples * cnn_operations() / seconds / setting.peak("float32"),
    }
