"""Which curves make which figure, in which order, and the presets."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

from cdjax import topology
from experiments.run.algorithm import ALGORITHMS


class Preset(NamedTuple):
    """Defaults of options that are not given, and data sets on which a part is run again."""

    options: Mapping[str, Any]
    others: Sequence[str] = ()


PRESETS = {
    "smoke": Preset({"dataset": "digits", "model": "softmax", "epochs": 3, "seeds": 1}),
    "fashion": Preset(
        {"dataset": "fashion_mnist", "model": "cnn", "epochs": 20, "seeds": 3}, ("digits",)
    ),
    "paper": Preset(
        {"dataset": "cifar10", "model": "cnn", "epochs": 100, "seeds": 3}, ("cifar100", "mnist")
    ),
}
TURNS = ("synchronous", "sequential")


class Curve(NamedTuple):
    """One line of a figure: its label, and the options in which it differs from the preset."""

    label: str
    options: Mapping[str, Any]


class Figure(NamedTuple):
    """A figure: for each column its curves; what its rows show; against what."""

    title: str
    columns: Mapping[str, Sequence[Curve]]
    rows: Sequence[str] = ("accuracy", "loss")
    x: str = "epoch"


# One machine that holds all data and takes the same batches: N times as many steps per epoch.
SGD = Curve("SGD, one machine", {"agents": 1, "algorithm": "cdsgd"})
MOMENTUM_SGD = Curve("momentum SGD, one machine", {"agents": 1, "algorithm": "cdmsgd"})
CENTRALIZED = Curve("SGD, gradients averaged", {"algorithm": "centralized"})
CDSGD = Curve("CDSGD", {"algorithm": "cdsgd"})
CDMSGD = Curve("CDMSGD", {"algorithm": "cdmsgd"})
FEDAVG = Curve("FedAvg, E = 1, C = 1", {"algorithm": "fedavg"})

_STEP_SIZES = (0.1, 1, 10)  # in units of the learning rate
_NETWORKS = ("complete", "hypercube", "ring", "path")


def specifications(learning_rate: float, *, others: Sequence[str] = ()) -> dict[str, Figure]:
    """Every figure, by name; of the other data sets, one each."""
    with_center, among_peers = [SGD, CENTRALIZED, CDSGD], [CDSGD, CDMSGD, FEDAVG]
    dirichlet = {"partition": "dirichlet", "dirichlet_alpha": 0.1}
    rates = [factor * learning_rate for factor in _STEP_SIZES]
    with_distance = ("accuracy", "distance")
    figures = {
        "fig1a": Figure(
            "CDSGD against centralized SGD", _both(with_center), ("accuracy", "loss", "gap")
        ),
        "fig1a_steps": Figure(
            "CDSGD against centralized SGD, by steps", {"synchronous": with_center}, x="step"
        ),
        "fig1b": Figure(
            "CDSGD and CDMSGD against FedAvg", _both([SGD, MOMENTUM_SGD, *among_peers])
        ),
        "fig2a": Figure("CDMSGD on complete graphs of N agents", _both(_sizes())),
        "fig2b": Figure(
            "CDMSGD, 8 agents, graphs of growing λ2", _both(_graphs()), ("accuracy", "variance")
        ),
        "steps": Figure(
            "Fixed and diminishing step sizes",
            {"synchronous": [*(_of(CDSGD, f"CDSGD, {r:g}", learning_rate=r) for r in rates),
                             _diminishing(learning_rate)]},
            ("accuracy", "loss", "distance"),
        ),
        "non_iid": Figure(
            "Data far from IID",
            {"Dirichlet(0.1)": [_of(curve, **dirichlet) for curve in among_peers],
             "whole classes": [_of(curve, partition="classes") for curve in among_peers]},
            with_distance,
        ),
        "consensus": Figure(
            "Step size against consensus, 8 agents on a ring",
            {curve.label: [_on_ring(curve, rate) for rate in rates] for curve in (CDSGD, CDMSGD)},
            with_distance,
        ),
    }  # fmt: skip
    for name in others:
        curves = [_of(curve, dataset=name) for curve in (SGD, *among_peers)]
        figures[name] = Figure(f"The same on {name}", _both(curves))
    return figures


def _of(curve: Curve, label: str = "", **options: Any) -> Curve:
    return Curve(label or curve.label, {**curve.options, **options})


def _sizes() -> list[Curve]:
    return [_of(CDMSGD, f"N = {size}", agents=size) for size in (2, 8, 16)]


def _graphs() -> list[Curve]:
    eigenvalues = {name: topology.create(name, 8).second_eigenvalue for name in _NETWORKS}
    return [
        _of(CDMSGD, f"{name}, λ2 = {value:.3f}", agents=8, topology=name)
        for name, value in eigenvalues.items()
    ]


def _diminishing(learning_rate: float) -> Curve:
    # At 50 times the rate it starts above the largest fixed one, and is below it after 18 steps.
    decay = {"schedule": "diminishing", "decay_offset": 5.0, "decay_power": 0.6}
    return _of(CDSGD, "CDSGD, diminishing", learning_rate=50 * learning_rate, **decay)


def _on_ring(curve: Curve, rate: float) -> Curve:
    return _of(curve, f"{rate:g}", agents=8, topology="ring", learning_rate=rate)


def _both(curves: Sequence[Curve]) -> dict[str, list[Curve]]:
    """A column per way to take turns; algorithms without neighbours are the same in both."""

    def in_turn(curve: Curve) -> Curve:
        has_neighbors = curve.options.get("agents") != 1
        over_topology = ALGORITHMS[curve.options["algorithm"]].over_topology
        return _of(curve, turns="sequential") if has_neighbors and over_topology else curve

    return dict(zip(TURNS, ([*curves], [in_turn(curve) for curve in curves]), strict=True))
