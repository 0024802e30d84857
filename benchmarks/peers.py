"""The same steps in PyTorch: ``python -m benchmarks.peers``.

CDMSGD of the paper's CNN on a ring with the same network, images, parameters and equations,
written plainly as a loop over agents and as ``torch.func.vmap``. docs/speed.md says how much faster
PyTorch is at its best.
"""

from __future__ import annotations

import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from statistics import median
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import tyro

from benchmarks._timing import alternate, matmul_peak, ratio, report
from benchmarks._training import (
    LEARNING_RATE,
    MEAN,
    MOMENTUM,
    SHAPE,
    STD,
    cnn_operations,
    random_batches,
    train_program,
)
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
    for name, gradients in (("loop", _loop_gradients), ("vmap", _vmap_gradients)):
        programs[f"torch {name}"] = _torch_program(torch, gradients, options, device)
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


def _torch_program(
    torch: Any, gradients: Callable[..., Any], options: Options, device: str
) -> Callable[[], np.ndarray]:
    """A program that takes one step and returns the agents' losses."""
    params = _torch_params(torch, options.agents, device)
    velocity = {name: torch.zeros_like(y) for name, y in params.items()}
    batch = random_batches(options.agents, options.batch)
    samples = torch.tensor(batch.images, device=device)
    labels = torch.tensor(batch.labels, device=device).long()
    mean, std = (torch.tensor(x, device=device) for x in (MEAN, STD))

    def step() -> np.ndarray:
        images = ((samples.float() - mean) / std).movedim(-1, 2).contiguous()
        grads, losses = gradients(torch, params, images, labels)
        with torch.no_grad():
            for name, y in params.items():
                v, g = velocity[name], grads[name]
                x = y - MOMENTUM * v
                mixed = (x + x.roll(1, 0) + x.roll(-1, 0)) / 3
                v_next = mixed - x + MOMENTUM * v - LEARNING_RATE * g
                y += (1 + MOMENTUM) * v_next - MOMENTUM * v
                velocity[name] = v_next
        return losses.detach().cpu().numpy()

    return step


def _torch_params(torch: Any, num_agents: int, device: str) -> dict[str, Any]:
    """The initial parameters of cdjax's program in PyTorch's layout, a copy for every agent."""
    params, _ = models.init_model(models.CNN(), jax.random.key(0), jnp.zeros((1, *SHAPE)))
    tensors = {}
    for layer, leaves in params.items():
        for name, x in leaves.items():
            if name == "kernel":  # features and channels first
                x = np.moveaxis(np.asarray(x), (-1, -2), (0, 1))
            tensors[f"{layer}.{name}"] = torch.tensor(np.stack([x] * num_agents), device=device)
    return tensors


def _torch_loss(torch: Any, params: dict[str, Any], images: Any, labels: Any) -> Any:
    """One agent's mean cross entropy."""
    functional, x = torch.nn.functional, images
    for number in range(4):
        layer = f"Conv_{number}"
        kernel, bias = params[f"{layer}.kernel"], params[f"{layer}.bias"]
        x = torch.relu(functional.conv2d(x, kernel, bias, padding=1))
        if number % 2:
            x = functional.max_pool2d(x, 2)
    x = x.movedim(1, -1).flatten(1)
    for number in range(2):
        x = functional.linear(x, params[f"Dense_{number}.kernel"], params[f"Dense_{number}.bias"])
        x = x if number else torch.relu(x)
    return functional.cross_entropy(x, labels)


def _loop_gradients(torch: Any, params: Any, images: Any, labels: Any) -> tuple[Any, Any]:
    grads = {name: torch.empty_like(y) for name, y in params.items()}
    losses = []
    for agent in range(len(images)):
        own = {name: y[agent].detach().requires_grad_() for name, y in params.items()}
        loss = _torch_loss(torch, own, images[agent], labels[agent])
        for name, g in zip(own, torch.autograd.grad(loss, list(own.values())), strict=True):
            grads[name][agent] = g
        losses.append(loss)
    return grads, torch.stack(losses)


def _vmap_gradients(torch: Any, params: Any, images: Any, labels: Any) -> tuple[Any, Any]:
    def loss(own: dict[str, Any], images: Any, labels: Any) -> Any:
        return _torch_loss(torch, own, images, labels)

    return torch.func.vmap(torch.func.grad_and_value(loss))(params, images, labels)


if __name__ == "__main__":
    main(tyro.cli(Options))
