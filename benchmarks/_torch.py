"""CDMSGD of the paper's CNN on a ring in PyTorch: the plans, and the step that they share."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np

from benchmarks._training import (
    LEARNING_RATE,
    MEAN,
    MOMENTUM,
    STD,
    random_batches,
    random_params,
)
from cdjax import models


class Plan(NamedTuple):
    """How PyTorch computes the step.

    ``gradients(torch, params, images, labels)`` returns those of all agents and their losses;
    ``channels_last`` is the layout of images and kernels; with ``graph`` the whole step is captured
    as a CUDA graph and replayed.
    """

    gradients: Callable[..., tuple[Any, Any]]
    channels_last: bool = False
    graph: bool = False


def torch_program(
    torch: Any, plan: Plan, *, agents: int, batch_size: int, device: str
) -> Callable[[], np.ndarray]:
    """A program that takes one step of every agent and returns the losses."""
    params = _initial_params(torch, agents, device=device, channels_last=plan.channels_last)
    velocity = {name: torch.zeros_like(y) for name, y in params.items()}
    batch = random_batches(agents, batch_size)
    samples = torch.tensor(batch.images, device=device)
    labels = torch.tensor(batch.labels, device=device).long()
    losses = torch.zeros(agents, device=device)

    def step() -> None:
        images = ((samples.float() - float(MEAN)) / float(STD)).movedim(-1, 2)
        # The samples' channels are last already.
        images = images if plan.channels_last else images.contiguous()
        grads, found = plan.gradients(torch, params, images, labels)
        with torch.no_grad():
            losses.copy_(found)
            for name, y in params.items():
                _update(y, velocity[name], grads[name])

    run = _captured(torch, step, (params, velocity)) if plan.graph else step

    def program() -> np.ndarray:
        run()
        return losses.detach().cpu().numpy()

    return program


def _update(y: Any, v: Any, g: Any) -> None:
    """CDMSGD on a ring, in place: y = x + μv is what is stored."""
    x = y - MOMENTUM * v
    mixed = (x + x.roll(1, 0) + x.roll(-1, 0)) / 3
    v_next = mixed - x + MOMENTUM * v - LEARNING_RATE * g
    y += (1 + MOMENTUM) * v_next - MOMENTUM * v
    v.copy_(v_next)


def _captured(torch: Any, step: Callable[[], None], trees: Any) -> Callable[[], None]:
    """The replay of a step; the steps that warm it up are undone."""
    before = [{name: x.clone() for name, x in tree.items()} for tree in trees]
    side = torch.cuda.Stream()
    side.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(side):
        for _ in range(3):
            step()
    torch.cuda.current_stream().wait_stream(side)
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        step()
    for tree, old in zip(trees, before, strict=True):
        for name, x in tree.items():
            x.copy_(old[name])
    return graph.replay


def _initial_params(
    torch: Any, num_agents: int, *, device: str, channels_last: bool
) -> dict[str, Any]:
    """The initial parameters of cdjax's program in PyTorch's layout, a copy for every agent."""
    params = random_params(models.CNN())
    tensors = {}
    for layer, leaves in params.items():
        for name, x in leaves.items():
            x = np.stack([np.asarray(x)] * num_agents)
            if name == "bias":
                tensor = torch.tensor(x, device=device)
            elif channels_last and x.ndim == 5:  # height, width, channels, features
                order = np.ascontiguousarray(np.moveaxis(x, -1, 1))
                tensor = torch.tensor(order, device=device).movedim(-1, 2)
            else:  # features and channels first
                order = np.ascontiguousarray(np.moveaxis(x, (-1, -2), (1, 2)))
                tensor = torch.tensor(order, device=device)
            tensors[f"{layer}.{name}"] = tensor
    return tensors


def _loss(torch: Any, params: dict[str, Any], images: Any, labels: Any) -> Any:
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
        loss = _loss(torch, own, images[agent], labels[agent])
        for name, g in zip(own, torch.autograd.grad(loss, list(own.values())), strict=True):
            grads[name][agent] = g
        losses.append(loss.detach())
    return grads, torch.stack(losses)


def _vmap_gradients(torch: Any, params: Any, images: Any, labels: Any) -> tuple[Any, Any]:
    def loss(own: dict[str, Any], images: Any, labels: Any) -> Any:
        return _loss(torch, own, images, labels)

    return torch.func.vmap(torch.func.grad_and_value(loss))(params, images, labels)


PLANS = {
    "loop": Plan(_loop_gradients),
    "loop, channels last": Plan(_loop_gradients, channels_last=True),
    "vmap": Plan(_vmap_gradients),
    "graph of the loop": Plan(_loop_gradients, channels_last=True, graph=True),
}
