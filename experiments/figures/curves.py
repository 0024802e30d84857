"""Which curves make which figure, in which order, and the presets."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

from cdjax import topology
from experiments.run.algorithm import ALGORITHMS


class Preset(NamedTuple):
    """Defaults of options that are not given, and data sets on which a part is run again."""

    dataset: str
    model: str
    epochs: int
    seeds: int
    others: Sequence[str] = ()


PRESETS = {
    "smoke": Preset("digits", "softmax", 3, 1),
    "fashion": Preset("fashion_mnist", "cnn", 20, 3, ("digits",)),
    "paper": Preset("cifar10", "cnn", 100, 3, ("cifar100", "mnist")),
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


def specifications(learning_rate: float, *, others: Sequence[str] = ()) -> dict[str, Figure]:
    """Every figure, by name; of the other data sets, one each."""
    with_center, among_peers = [SGD, CENTRALIZED, CDSGD], [CDSGD, CDMSGD, FEDAVG]
    sizes = [_of(CDMSGD, f"N = {size}", agents=size) for size in (2, 8, 16)]
    names = ("complete", "hypercube", "ring", "path")
    networks = {name: topology.create(name, 8).second_eigenvalue for name in names}
    graphs = [
        _of(CDMSGD, f"{name}, λ2 = {eigenvalue:.3f}", agents=8, topology=name)
        for name, eigenvalue in networks.items()
    ]
    rates = [factor * learning_rate for factor in (0.1, 1, 10)]
    by_rate = [_of(CDSGD, f"CDSGD, {rate:g}", learning_rate=rate) for rate in rates]
    # At 50 times the rate it starts above the largest fixed one, and is below it after 18 steps.
    decay = {"schedule": "diminishing", "decay_offset": 5.0, "decay_power": 0.6}
    by_rate.append(_of(CDSGD, "CDSGD, diminishing", learning_rate=50 * learning_rate, **decay))
    dirichlet = {"partition": "dirichlet", "dirichlet_alpha": 0.1}
    non_iid = {
        "Dirichlet(0.1)": [_of(curve, **dirichlet) for curve in among_peers],
        "whole classes": [_of(curve, partition="classes") for curve in among_peers],
    }
    ring = {"agents": 8, "topology": "ring"}
    on_ring = {
        curve.label: [_of(curve, f"{rate:g}", learning_rate=rate, **ring) for rate in rates]
        for curve in (CDSGD, CDMSGD)
    }
    at_once, with_distance = TURNS[0], ("accuracy", "distance")
    figures = {
        "fig1a": Figure(
            "CDSGD against centralized SGD", _both(with_center), ("accuracy", "loss", "gap")
        ),
        "fig1a_steps": Figure(
            "CDSGD against centralized SGD, by steps", {at_once: with_center}, x="step"
        ),
        "fig1b": Figure(
            "CDSGD and CDMSGD against FedAvg", _both([SGD, MOMENTUM_SGD, *among_peers])
        ),
        "fig2a": Figure("CDMSGD on complete graphs of N agents", _both(sizes)),
        "fig2b": Figure(
            "CDMSGD, 8 agents, graphs of growing λ2", _both(graphs), ("accuracy", "variance")
        ),
        "steps": Figure(
            "Fixed and diminishing step sizes", {at_once: by_rate}, ("accuracy", "loss", "distance")
        ),
        "non_iid": Figure("Data far from IID", non_iid, with_distance),
        "consensus": Figure(
            "Step size against consensus, 8 agents on a ring", on_ring, with_distance
        ),
    }
    for name in others:
        there = [_of(curve, dataset=name) for curve in (SGD, *among_peers)]
        figures[name] = Figure(f"The same on {name}", _both(there))
    return figures


def _of(curve: Curve, label: str = "", **options: Any) -> Curve:
    return Curve(label or curve.label, {**curve.options, **options})


def _both(curves: Sequence[Curve]) -> dict[str, Sequence[Curve]]:
    """A column per way to take turns; algorithms without neighbours are the same in both."""

    def in_turn(curve: Curve) -> Curve:
        over_topology = ALGORITHMS[curve.options["algorithm"]].over_topology
        alone = curve.options.get("agents") == 1
        return _of(curve, turns="sequential") if over_topology and not alone else curve

    return dict(zip(TURNS, (curves, [in_turn(curve) for curve in curves]), strict=True))
