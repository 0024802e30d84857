"""Flower: federated averaging in its simulation by Ray; needs PyTorch and NumPy too."""

from __future__ import annotations

import os
import tempfile
from functools import cache
from itertools import count
from pathlib import Path
from queue import Queue
from threading import Thread
from typing import Any

import numpy as np
import torch
from flwr.app import ArrayRecord, ConfigRecord, Context, Message, MetricRecord, RecordDict
from flwr.clientapp import ClientApp
from flwr.serverapp import Grid, ServerApp
from flwr.serverapp.strategy import FedAvg
from flwr.simulation import run_simulation
from torch import nn

from benchmarks._peers.problem import Problem, Program, load, save
from benchmarks._peers.torch_modules import initial_params, module, problem_name

_FILE = "CDJAX_PEERS_PROBLEM"  # where the actors find the clients' samples
_ACTORS = 2


def rounds(problem: Problem) -> Program:
    """Rounds of federated averaging; two actors with one thread each train the clients."""
    file = Path(tempfile.mkdtemp()) / "problem.npz"
    save(problem, file)
    # The actors inherit these; Ray gives up on itself after 30 s, which a busy machine needs.
    os.environ.update({_FILE: str(file), "OMP_NUM_THREADS": "1"})
    os.environ.setdefault("RAY_raylet_start_wait_time_s", "300")
    wanted: Queue[list[int]] = Queue()
    found: Queue[dict[str, np.ndarray] | BaseException] = Queue()
    backend = {
        "client_resources": {"num_cpus": 1, "num_gpus": 0.0},
        "init_args": {"num_cpus": _ACTORS, "include_dashboard": False, "log_to_driver": False},
    }
    simulation: dict[str, Any] = {
        "server_app": _server(problem, wanted, found), "client_app": _client(),
        "num_supernodes": problem.clients.shape[1], "backend_config": backend,
    }  # fmt: skip

    def simulate() -> None:
        try:
            run_simulation(**simulation)
        except BaseException as error:  # Ray may not start
            found.put(error)

    def next_params() -> dict[str, np.ndarray]:
        answer = found.get()
        if isinstance(answer, BaseException):
            raise answer
        return answer

    Thread(target=simulate, daemon=True).start()
    params, numbers = next_params(), count()

    def step() -> None:
        nonlocal params
        wanted.put(problem.clients[next(numbers) % len(problem.clients)].tolist())
        params = next_params()

    def current() -> dict[str, np.ndarray]:
        return {problem_name(name): x[None] for name, x in params.items()}

    return Program(step, current)


def _server(
    problem: Problem,
    wanted: Queue[list[int]],
    found: Queue[dict[str, np.ndarray] | BaseException],
) -> ServerApp:
    """Asks the drawn clients and averages what they answer, for every round that is wanted."""
    app, strategy = ServerApp(), FedAvg()

    @app.main()
    def main(grid: Grid, context: Context) -> None:
        del context
        arrays = ArrayRecord(initial_params(problem))
        while len(nodes := list(grid.get_node_ids())) < problem.clients.shape[1]:
            pass
        number = 0
        while True:
            found.put({name: x.numpy() for name, x in arrays.items()})
            messages = [
                Message(
                    RecordDict({"arrays": arrays, "config": ConfigRecord({"client": client})}),
                    dst_node_id=node,
                    message_type="train",
                )
                for node, client in zip(nodes, wanted.get(), strict=True)
            ]
            number += 1
            arrays, _ = strategy.aggregate_train(number, grid.send_and_receive(messages))

    return app


def _client() -> ClientApp:
    """Trains the client that the message names: clients have no state, so any node does."""
    app = ClientApp()

    @app.train()
    def train(message: Message, context: Context) -> Message:
        del context
        problem, network = _problem(os.environ[_FILE])
        client, batch = message.content["config"]["client"], problem.facts["batch"]
        network.load_state_dict(message.content["arrays"].to_torch_state_dict())
        sgd = torch.optim.SGD(network.parameters(), problem.facts["learning_rate"])
        images = torch.from_numpy(problem.images[client]).flatten(1)
        labels = torch.from_numpy(problem.labels[client]).long()
        for first in range(0, len(labels) // batch * batch, batch):
            own = slice(first, first + batch)
            sgd.zero_grad()
            nn.functional.cross_entropy(network(images[own]), labels[own]).backward()
            sgd.step()
        answer = {
            "arrays": ArrayRecord(network.state_dict()),
            "metrics": MetricRecord({"num-examples": len(labels)}),
        }
        return Message(RecordDict(answer), reply_to=message)

    return app


@cache
def _problem(file: str) -> tuple[Problem, nn.Module]:
    """The clients' samples and a network, once in each actor."""
    torch.set_num_threads(1)
    problem = load(Path(file))
    return problem, module(problem)
