"""The networks as PyTorch modules, with the problem's parameters. PyTorch and NumPy only."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Iterator
from math import isqrt
from typing import Any

import numpy as np
import torch
from torch import nn

from benchmarks._peers.problem import MEAN, STD, Problem


def module(problem: Problem) -> nn.Module:
    """The network, its parameters uninitialised: layers are named as in the problem."""
    layers: OrderedDict[str, nn.Module] = OrderedDict()
    is_image, names = problem.images.dtype == np.uint8, _torch_params(problem)
    last = [name for name in names if name.endswith("weight")][-1]
    for name, x in names.items():
        layer, leaf = name.split(".")
        if leaf != "weight":
            continue
        if x.ndim == 4:
            layers[layer] = nn.Conv2d(x.shape[1], x.shape[0], x.shape[2:], padding=1)
            layers[f"{layer}_relu"] = nn.ReLU()
            if int(layer[-1]) % 2:
                layers[f"{layer}_pool"] = nn.MaxPool2d(2)
        else:
            if is_image and "flatten" not in layers:
                layers["flatten"] = nn.Flatten()
            layers[layer] = nn.Linear(x.shape[1], x.shape[0])
            if name != last:
                layers[f"{layer}_relu"] = nn.ReLU()
    return nn.Sequential(layers)


def initial_params(problem: Problem) -> dict[str, torch.Tensor]:
    """One agent's parameters, by the module's names."""
    return {name: torch.from_numpy(x) for name, x in _torch_params(problem).items()}


def problem_name(name: str) -> str:
    """The problem's name of a module's parameter."""
    return name.replace("weight", "kernel")


class Batches:
    """Every agent's batch on the device.

    Images in bytes are normalised when asked for, and others are flat, for a perceptron.
    """

    def __init__(self, problem: Problem, device: str, *, channels_last: bool) -> None:
        self.images = torch.from_numpy(problem.images).to(device)
        self.labels = torch.from_numpy(problem.labels).to(device).long()
        self._channels_last = channels_last

    def __iter__(self) -> Iterator[tuple[Any, Any]]:
        """One agent's after another's."""
        return (self[agent] for agent in range(len(self.labels)))

    def __getitem__(self, agents: int | slice) -> tuple[Any, Any]:
        """The images, channels first or flat, and the labels of one agent or of several."""
        images = self.images[agents]
        if images.dtype == torch.uint8:
            images = ((images.float() - float(MEAN)) / float(STD)).movedim(-1, -3)
            # In memory the samples' channels are last.
            images = images if self._channels_last else images.contiguous()
        else:
            images = images.flatten(-3)
        return images, self.labels[agents]


def _torch_params(problem: Problem) -> dict[str, np.ndarray]:
    """The parameters in PyTorch's layout, convolutions first."""
    params, channels = {}, 0
    for name, x in problem.params.items():
        if x.ndim == 4:  # height, width, channels, features
            channels, x = x.shape[3], x.transpose(3, 2, 0, 1)
        elif x.ndim == 2:
            if channels:  # the module flattens channels first
                side = isqrt(len(x) // channels)
                x = x.reshape(side, side, channels, -1).transpose(2, 0, 1, 3).reshape(x.shape)
                channels = 0
            x = x.T
        params[name.replace("kernel", "weight")] = np.ascontiguousarray(x)
    return params
