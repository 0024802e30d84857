"""BlazeFL: its federated averaging. It needs BlazeFL, PyTorch and NumPy only."""

from __future__ import annotations

from itertools import count
from typing import Any

import numpy as np
import torch
from blazefl.contrib import (
    FedAvgBaseClientTrainer,
    FedAvgBaseServerHandler,
    FedAvgThreadPoolClientTrainer,
)
from torch import nn

from benchmarks._peers.problem import Problem, Program
from benchmarks._peers.torch_modules import initial_params, module, problem_name


def rounds(problem: Problem, *, threads: int = 1) -> Program:
    """Rounds of federated averaging, one client after another or ``threads`` at a time."""
    torch.set_num_threads(1)  # the products are small, and more threads slow them down
    facts, clients = problem.facts, len(problem.labels)
    cohort = problem.clients.shape[1]
    common: dict[str, Any] = {
        "model_selector": _Models(problem), "model_name": "mlp", "dataset": _Clients(problem),
        "device": "cpu", "num_clients": clients, "batch_size": facts["batch"], "seed": 0,
    }  # fmt: skip
    # Half a client more than asked for: the system rounds the product down.
    server = FedAvgBaseServerHandler(
        global_round=1 << 30, sample_ratio=(cohort + 0.5) / clients, **common
    )
    server.model.load_state_dict(initial_params(problem))
    trained: dict[str, Any] = {**common, "epochs": 1, "lr": facts["learning_rate"]}
    if threads > 1:
        trainer = FedAvgThreadPoolClientTrainer(num_parallels=threads, **trained)
    else:
        trainer = FedAvgBaseClientTrainer(**trained)
    numbers = count()

    def step() -> None:
        drawn = problem.clients[next(numbers) % len(problem.clients)]
        trainer.local_process(server.downlink_package(), drawn.tolist())
        for package in trainer.uplink_package():
            server.load(package)

    def current() -> dict[str, np.ndarray]:
        named = server.model.named_parameters()
        return {problem_name(name): x.detach().numpy()[None] for name, x in named}

    return Program(step, current)


class _Models:
    """Makes the network."""

    def __init__(self, problem: Problem) -> None:
        self._problem = problem

    def select_model(self, model_name: str) -> nn.Module:
        del model_name
        return module(self._problem)


class _Clients:
    """The clients' batches in their order, ready-made; BlazeFL asks for one client's iterator."""

    def __init__(self, problem: Problem) -> None:
        self._images = torch.from_numpy(problem.images).flatten(2)
        self._labels = torch.from_numpy(problem.labels).long()

    def get_dataloader(
        self, type_: str, cid: int, batch_size: int, generator: torch.Generator
    ) -> list[tuple[torch.Tensor, torch.Tensor]]:
        del type_, generator
        whole = self._labels.shape[1] // batch_size * batch_size
        own = (self._images[cid, :whole], self._labels[cid, :whole])
        return list(zip(*(x.split(batch_size) for x in own), strict=True))
