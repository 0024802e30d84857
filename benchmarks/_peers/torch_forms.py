"""PyTorch in each of the forms that an expert would try. PyTorch and NumPy only.

All take the same step of CDSGD or CDMSGD on a ring with Metropolis weights, 1/3 each:
v ← μv + Πx − x − αg(x + μv), x ← x + v; CDSGD is the case μ = 0.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from functools import partial
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy

from benchmarks._peers.problem import Problem, Program
from benchmarks._peers.torch_modules import Batches, initial_params, module, problem_name

_CHUNK = 1 << 15  # columns of the array of all parameters that stay in a CPU's cache
_NUM_STREAMS = 8


class Point(NamedTuple):
    """y = x + μv, where gradients are taken, x and v; without momentum y is x."""

    y: Any
    x: Any
    v: Any


def plain(problem: Problem) -> Program:
    """Modules in PyTorch's own layout; the update is written as the equations, in fresh arrays."""
    device = _device()
    alpha, mu = problem.facts["learning_rate"], problem.facts["momentum"]
    agents = len(problem.images)
    modules = _modules(problem, device)
    batches = Batches(problem, device, channels_last=False)
    params = [list(own.parameters()) for own in modules]
    vs = [[torch.zeros_like(y) for y in own] for own in params]

    def step() -> np.ndarray:
        losses = []
        for own, (images, labels) in zip(modules, batches, strict=True):
            own.zero_grad()
            loss = cross_entropy(own(images), labels)
            loss.backward()
            losses.append(loss.detach())
        with torch.no_grad():
            points = zip(params, vs, strict=True)
            xs = [[y - mu * v for y, v in zip(*own, strict=True)] for own in points]
            for j in range(agents):
                for i, y in enumerate(params[j]):
                    mixed = (xs[j - 1][i] + xs[j][i] + xs[(j + 1) % agents][i]) / 3
                    vs[j][i] = mixed - xs[j][i] + mu * vs[j][i] - alpha * y.grad
                    y.copy_(xs[j][i] + (1 + mu) * vs[j][i])
        return torch.stack(losses).cpu().numpy()

    return Program(step, lambda: _stacked(modules))


def in_place(problem: Problem) -> Program:
    """Modules in the layout channels-last, updated in place."""
    device = _device()
    alpha, mu = problem.facts["learning_rate"], problem.facts["momentum"]
    agents = len(problem.images)
    modules = [own.to(memory_format=torch.channels_last) for own in _modules(problem, device)]
    batches = Batches(problem, device, channels_last=True)
    params = [list(own.parameters()) for own in modules]
    points = [[_point(y.data, mu) for y in own] for own in params]

    def step() -> np.ndarray:
        losses = []
        for own, (images, labels) in zip(modules, batches, strict=True):
            loss = cross_entropy(own(images), labels)
            loss.backward()
            losses.append(loss.detach())
        with torch.no_grad():
            for j in range(agents):
                around = points[j], points[j - 1], points[(j + 1) % agents]
                for y, own, left, right in zip(params[j], *around, strict=True):
                    _displace(own.v, own.x, left.x, right.x, mu)
                    own.v.add_(y.grad, alpha=-alpha)
                    y.grad = None
            for own in points:
                for point in own:
                    _move(point, mu)
        return torch.stack(losses).cpu().numpy()

    return Program(step, lambda: _stacked(modules))


def by_hand(problem: Problem, *, streams: bool = False, graph: bool = False) -> Program:
    """All parameters in one (N, P) array, of which the modules' are views.

    The consensus step goes over the array in chunks that stay in the cache. Then each agent's
    gradient is added into its row, and the row moves, while both are in the cache.

    Args:
        problem: the work.
        streams: whether agents take turns on several CUDA streams.
        graph: whether the whole step is captured as a CUDA graph and replayed.
    """
    device = _device()
    alpha, mu = problem.facts["learning_rate"], problem.facts["momentum"]
    agents = len(problem.images)
    modules, flat = _flat_modules(problem, device)
    point = _point(flat, mu)
    batches = Batches(problem, device, channels_last=True)
    params = [list(own.parameters()) for own in modules]
    gradient_sums = [_views(row, own) for row, own in zip(point.v, modules, strict=True)]
    rows = [Point(*row) for row in zip(*point, strict=True)]
    width = _CHUNK if device == "cpu" else flat.shape[1]
    chunks = list(zip(point.v.split(width, 1), point.x.split(width, 1), strict=True))
    losses = torch.zeros(agents, device=device)
    side = [torch.cuda.Stream() for _ in range(_NUM_STREAMS)] if streams else []

    def one_agent(j: int) -> None:
        images, labels = batches[j]
        loss = cross_entropy(modules[j](images), labels)
        grads = torch.autograd.grad(loss, params[j])
        with torch.no_grad():
            losses[j].copy_(loss.detach())
            torch._foreach_add_(  # pyright: ignore[reportPrivateImportUsage]
                gradient_sums[j], grads, alpha=-alpha
            )
            _move(rows[j], mu)

    def step() -> None:
        with torch.no_grad():
            for v, x in chunks:
                _displace_ring(v, x, mu)
        _on_streams([partial(one_agent, j) for j in range(agents)], side)

    run = _captured(step, {x.data_ptr(): x for x in point}.values()) if graph else step
    return _running(run, losses, lambda: _stacked(modules))


def compiled(problem: Problem) -> Program:
    """Loss, gradient and update of one (N, P) array through ``torch.compile``."""
    device = _device()
    alpha, mu = problem.facts["learning_rate"], problem.facts["momentum"]
    agents = len(problem.images)
    modules, flat = _flat_modules(problem, device)
    y, x, v = _point(flat, mu)
    batches = Batches(problem, device, channels_last=True)
    params = [dict(own.named_parameters()) for own in modules]
    g = torch.zeros_like(flat)
    gradients = [_views(row, own) for row, own in zip(g, modules, strict=True)]
    losses = torch.zeros(agents, device=device)

    @torch.compile
    def loss_of(params: dict[str, Any], images: Tensor, labels: Tensor) -> Tensor:
        return cross_entropy(torch.func.functional_call(modules[0], params, (images,)), labels)

    @torch.compile
    def update(y: Tensor, x: Tensor, v: Tensor, g: Tensor) -> None:
        mixed = (x + x.roll(1, 0) + x.roll(-1, 0)) / 3
        v_next = mu * v + mixed - x - alpha * g
        x_next = x + v_next
        v.copy_(v_next)
        x.copy_(x_next)
        if mu:
            y.copy_(x_next + mu * v_next)

    def step() -> None:
        for j in range(agents):
            loss = loss_of(params[j], *batches[j])
            grads = torch.autograd.grad(loss, list(params[j].values()))
            with torch.no_grad():
                losses[j].copy_(loss.detach())
                torch._foreach_copy_(  # pyright: ignore[reportPrivateImportUsage]
                    gradients[j], grads
                )
        with torch.no_grad():
            update(y, x, v, g)

    return _running(step, losses, lambda: _stacked(modules))


def vmap(problem: Problem, *, channels_last: bool = False) -> Program:
    """``torch.func.vmap`` of one agent's gradient; the stacks are updated in place."""
    device = _device()
    one = module(problem).to(device)

    def loss_of(params: dict[str, Any], images: Tensor, labels: Tensor) -> Tensor:
        return cross_entropy(torch.func.functional_call(one, params, (images,)), labels)

    gradients = torch.func.vmap(torch.func.grad_and_value(loss_of))
    batches = Batches(problem, device, channels_last=channels_last)
    return _of_stacks(problem, device, lambda ys: gradients(ys, *batches[:]))


def baddbmm(problem: Problem) -> Program:
    """The layers of all agents as one batched product each."""
    device = _device()
    images, labels = Batches(problem, device, channels_last=True)[:]
    agents, batch = labels.shape

    def gradients(ys: dict[str, Tensor]) -> tuple[dict[str, Tensor], Tensor]:
        leaves = {name: y.detach().requires_grad_() for name, y in ys.items()}
        layers = [name.removesuffix(".weight") for name in leaves if name.endswith("weight")]
        x = images
        for layer in layers:
            weight, bias = leaves[f"{layer}.weight"], leaves[f"{layer}.bias"]
            x = torch.baddbmm(bias[:, None], x, weight.transpose(1, 2))
            x = x if layer == layers[-1] else torch.relu(x)
        each = cross_entropy(x.flatten(0, 1), labels.flatten(), reduction="none")
        losses = each.view(agents, batch).mean(1)
        grads = torch.autograd.grad(losses.sum(), list(leaves.values()))
        return dict(zip(leaves, grads, strict=True)), losses

    return _of_stacks(problem, device, gradients)


def _device() -> str:
    """Where to compute, prepared: a GPU if there is one."""
    # cdjax's products and convolutions are rounded to TF32 by default too.
    torch.backends.cuda.matmul.allow_tf32 = torch.backends.cudnn.allow_tf32 = True
    torch.backends.cudnn.benchmark = True
    return "cuda" if torch.cuda.is_available() else "cpu"


def _of_stacks(
    problem: Problem,
    device: str,
    gradients: Callable[[dict[str, Tensor]], tuple[dict[str, Tensor], Tensor]],
) -> Program:
    """A program of gradients of all agents at stacked parameters."""
    alpha, mu = problem.facts["learning_rate"], problem.facts["momentum"]
    points = {}
    for name, x in initial_params(problem).items():
        stack = x.to(device).expand(len(problem.images), *x.shape)
        points[name] = _point(stack.clone(memory_format=torch.contiguous_format), mu)
    ys = {name: point.y for name, point in points.items()}

    def step() -> np.ndarray:
        grads, losses = gradients(ys)
        with torch.no_grad():
            for name, point in points.items():
                _displace_ring(point.v, point.x, mu)
                point.v.add_(grads[name], alpha=-alpha)
                _move(point, mu)
        return losses.detach().cpu().numpy()

    return Program(step, lambda: {problem_name(n): y.cpu().numpy() for n, y in ys.items()})


def _point(y: Tensor, momentum: float) -> Point:
    return Point(y, y.clone() if momentum else y, torch.zeros_like(y))


def _displace(v: Tensor, x: Tensor, left: Tensor, right: Tensor, momentum: float) -> None:
    """In place, v ← μv + Πx − x."""
    if momentum:
        v.mul_(momentum).add_(left, alpha=1 / 3)
    else:
        torch.mul(left, 1 / 3, out=v)
    v.add_(right, alpha=1 / 3).add_(x, alpha=-2 / 3)


def _displace_ring(v: Tensor, x: Tensor, momentum: float) -> None:
    """The same for all agents, by slices: those with a neighbour on each side, first and last."""
    _displace(v[1:-1], x[1:-1], x[:-2], x[2:], momentum)
    _displace(v[0], x[0], x[-1], x[1], momentum)
    _displace(v[-1], x[-1], x[-2], x[0], momentum)


def _move(point: Point, momentum: float) -> None:
    """In place, x ← x + v and y ← x + μv."""
    point.x.add_(point.v)
    if momentum:
        torch.add(point.x, point.v, alpha=momentum, out=point.y)


def _modules(problem: Problem, device: str) -> list[nn.Module]:
    params = initial_params(problem)
    modules = [module(problem).to(device) for _ in problem.images]
    for own in modules:
        own.load_state_dict(params)
    return modules


def _flat_modules(problem: Problem, device: str) -> tuple[list[nn.Module], Tensor]:
    """Modules whose parameters are views of the rows of one array, kernels channels-last."""
    modules = _modules(problem, device)
    size = sum(y.numel() for y in modules[0].parameters())
    size += -size % 16  # so that all rows begin at a cache line
    flat = torch.zeros(len(modules), size, device=device)
    for own, row in zip(modules, flat, strict=True):
        for y, view in zip(own.parameters(), _views(row, own), strict=True):
            view.copy_(y.data)
            y.data = view
    return modules, flat


def _views(row: Tensor, own: nn.Module) -> list[Tensor]:
    """A row's parts in the shapes of a module's parameters."""
    params = list(own.parameters())
    sizes = [y.numel() for y in params]
    views = []
    for part, y in zip(row[: sum(sizes)].split(sizes), params, strict=True):
        if y.ndim == 4:
            features, channels, height, width = y.shape
            views.append(part.view(features, height, width, channels).movedim(-1, 1))
        else:
            views.append(part.view(y.shape))
    return views


def _stacked(modules: Iterable[nn.Module]) -> dict[str, np.ndarray]:
    """The parameters of all modules, by the problem's names."""
    named = [own.state_dict() for own in modules]
    return {
        problem_name(name): np.stack([own[name].cpu().numpy() for own in named])
        for name in named[0]
    }


def _running(step: Callable[[], None], losses: Tensor, params: Callable[[], Any]) -> Program:
    """The program of a step that leaves its losses in a tensor."""

    def run() -> np.ndarray:
        step()
        return losses.cpu().numpy().copy()

    return Program(run, params)


def _on_streams(tasks: Iterable[Callable[[], None]], streams: list[Any]) -> None:
    """Runs tasks, on the streams in turn if there are any."""
    if not streams:
        for task in tasks:
            task()
        return
    main = torch.cuda.current_stream()
    for stream in streams:
        stream.wait_stream(main)
    for i, task in enumerate(tasks):
        with torch.cuda.stream(streams[i % len(streams)]):
            task()
    for stream in streams:
        main.wait_stream(stream)


def _captured(step: Callable[[], None], state: Iterable[Tensor]) -> Callable[[], None]:
    """The replay of a step as a CUDA graph; the steps that warm it up are undone."""
    state = list(state)
    before = [x.clone() for x in state]
    side = torch.cuda.Stream()
    side.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(side):
        for _ in range(3):
            step()
    torch.cuda.current_stream().wait_stream(side)
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        step()
    for x, old in zip(state, before, strict=True):
        x.copy_(old)
    return graph.replay
