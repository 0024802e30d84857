"""Decent-DP: a process for each agent. It needs Decent-DP, PyTorch and NumPy only.

Its ring is of one peer in turn: agents average with their right neighbour in one step and with the
left one in the next, and take the gradient where they stood before: CDSGD on a graph that changes.
"""

from __future__ import annotations

import os
import socket
from functools import partial
from multiprocessing.connection import Connection
from typing import Any

import numpy as np
import torch
import torch.distributed as dist
import torch.multiprocessing as mp
from decent_dp.ddp import DecentralizedDataParallel
from torch import nn

from benchmarks._peers.problem import Problem, Program
from benchmarks._peers.torch_modules import initial_params, module, problem_name


def steps(problem: Problem) -> Program:
    """Steps of all agents; each process has one thread."""
    num_agents = len(problem.labels)
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    context, agents = mp.get_context("spawn"), []
    for rank in range(num_agents):
        here, there = context.Pipe()
        own = problem._replace(images=problem.images[rank], labels=problem.labels[rank])
        arguments = (there, own, rank, num_agents, port)
        context.Process(target=_agent, args=arguments, daemon=True).start()
        agents.append(here)

    def ask(question: str) -> list[Any]:
        for agent in agents:
            agent.send(question)
        return [agent.recv() for agent in agents]

    def step() -> np.ndarray:
        return np.array(ask("step"))

    def current() -> dict[str, np.ndarray]:
        found = ask("params")
        return {name: np.stack([own[name] for own in found]) for name in found[0]}

    return Program(step, current)


def _agent(questions: Connection, problem: Problem, rank: int, num_agents: int, port: int) -> None:
    """Answers one agent's part until the questions end."""
    torch.set_num_threads(1)
    os.environ["LOCAL_WORLD_SIZE"] = str(num_agents)
    address = f"tcp://127.0.0.1:{port}"
    dist.init_process_group("gloo", init_method=address, rank=rank, world_size=num_agents)
    network = module(problem)
    network.load_state_dict(initial_params(problem))
    sgd = partial(torch.optim.SGD, lr=problem.facts["learning_rate"])
    model = DecentralizedDataParallel(
        network, lambda named: sgd([x for _, x in named]), topology="ring"
    )
    images = torch.from_numpy(problem.images).flatten(1)
    labels = torch.from_numpy(problem.labels).long()
    first = True
    while True:
        try:
            question = questions.recv()
        except EOFError:
            return
        if question == "step":
            loss = nn.functional.cross_entropy(model(images), labels)
            loss.backward()
            if first:  # the first update waits for the next pass forward: here it is
                first = False
                model.eval()
                model(images)
                model.train()
            questions.send(loss.item())
        else:
            named = network.named_parameters()
            found = {problem_name(name): x.detach().numpy().copy() for name, x in named}
            questions.send(found)
