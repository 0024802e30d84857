"""Which curves make which figure, in which order, and the presets."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

from cdjax import topology


class Preset(NamedTuple):
    """Defaults of options that are not given, and data sets on which a part is run again."""

    dataset: str
    model: str
    epochs: int
    seeds: int
    others: Sequence[str] = ()
    eval_every: int = 1


PRESETS = {
    "smoke": Preset("digits", "softmax", 3, 2),
    "fashion": Preset("fashion_mnist", "cnn", 20, 5, ("digits",)),
    "paper": Preset("cifar10", "cnn", 100, 5, ("cifar100", "mnist")),
}
# The paper's Algorithm 1, and the schedule of its released code.
TURNS = ("all at once", "one after another")


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
ATC = Curve("adapt then combine", {"algorithm": "atc"})
GOSSIP = Curve("gossip in pairs", {"algorithm": "gossip-pair"})
FEDAVG = Curve("FedAvg, E = 1, C = 1", {"algorithm": "fedavg"})
OUTSIDE = Curve("CDMSGD, momentum outside", {"algorithm": "cdmsgd-released"})
# What stands in for a curve where agents train one after another. The released code has its
# momentum outside of consensus, 0.95 by default.
IN_TURN = {
    "cdsgd": Curve("CDSGD, in turn", {"turns": "sequential"}),
    "cdmsgd": Curve(
        "CDMSGD, released code", {"algorithm": "cdmsgd-released", "turns": "sequential"}
    ),
}


def specifications(
    learning_rate: float, *, momentum: float = 0.9, others: Sequence[str] = ()
) -> dict[str, Figure]:
    """Every figure, by name; of the other data sets, one each."""
    with_center = [SGD, CENTRALIZED, CDSGD]
    among_peers = [SGD, MOMENTUM_SGD, CDSGD, CDMSGD, FEDAVG]
    figures = {
        "fig1a": Figure(
            "CDSGD against centralized SGD", _both(with_center), ("accuracy", "loss", "gap")
        ),
        "fig1a_steps": Figure(
            "CDSGD against centralized SGD, by steps", {TURNS[0]: with_center}, x="step"
        ),
        "fig1b": Figure("CDSGD and CDMSGD against FedAvg", _both(among_peers)),
        "fig2a": Figure("CDMSGD on complete graphs of N agents", _sizes()),
        "fig2b": Figure(
            "CDMSGD, 8 agents, graphs of growing λ2", _graphs(), ("accuracy", "variance")
        ),
        "clients": Figure("FedAvg with fewer clients", {"E = 1": _clients()}),
        "momentum": Figure(
            "Momentum at equal effective step size", _momentum(learning_rate, momentum)
        ),
        "steps": Figure(
            "Fixed and diminishing step sizes",
            {TURNS[0]: _rates(learning_rate)},
            ("accuracy", "loss", "distance"),
        ),
        "non_iid": Figure("Data far from IID", _non_iid(momentum), ("accuracy", "distance")),
        "consensus": Figure(
            "Step size against consensus, 8 agents on a ring",
            _on_ring(learning_rate),
            ("accuracy", "distance"),
        ),
    }
    for name in others:
        there = [_of(curve, dataset=name) for curve in (SGD, CDSGD, CDMSGD, FEDAVG)]
        figures[name] = Figure(f"The same on {name}", _both(there))
    return figures


def with_momentum(curve: Curve, momentum: float) -> Curve:
    """A rival with each agent's own momentum."""
    return _of(curve, f"{curve.label}, momentum", momentum=momentum)


def _sizes() -> dict[str, Sequence[Curve]]:
    return _both([_of(CDMSGD, f"N = {size}", agents=size) for size in (2, 8, 16)])


def _graphs() -> dict[str, Sequence[Curve]]:
    curves = []
    for name in ("complete", "hypercube", "ring", "path"):
        label = f"{name}, λ2 = {topology.create(name, 8).second_eigenvalue:.3f}"
        curves.append(_of(CDMSGD, label, agents=8, topology=name))
    return _both(curves)


def _clients() -> Sequence[Curve]:
    return [
        FEDAVG,
        *(_of(FEDAVG, f"FedAvg, E = 1, C = {c:g}", client_fraction=c) for c in (0.6, 0.2)),
    ]


def _momentum(rate: float, momentum: float) -> dict[str, Sequence[Curve]]:
    """With momentum μ a step of α leads as far as one of α / (1 − μ) without."""
    effective = rate / (1 - momentum)
    rivals = (CENTRALIZED, ATC, GOSSIP, FEDAVG)
    own = [CDMSGD, _of(OUTSIDE, momentum=momentum)]
    plain = [_of(curve, learning_rate=effective) for curve in (CDSGD, *rivals)]
    return {
        f"momentum {momentum:g}, step {rate:g}": [
            *own, *(with_momentum(curve, momentum) for curve in rivals)
        ],
        f"no momentum, step {effective:g}": plain,
        "CDSGD and CDMSGD": [CDSGD, _of(plain[0], f"CDSGD, step {effective:g}"), own[0]],
    }  # fmt: skip


def _rates(rate: float) -> Sequence[Curve]:
    by_rate = [_of(CDSGD, f"CDSGD, {r:g}", learning_rate=r) for r in _around(rate)]
    # At 50 times the rate it starts above the largest fixed one, and is below it after 18 steps.
    decay = {"schedule": "diminishing", "decay_offset": 5.0, "decay_power": 0.6}
    return [*by_rate, _of(CDSGD, "CDSGD, diminishing", learning_rate=50 * rate, **decay)]


def _on_ring(rate: float) -> dict[str, Sequence[Curve]]:
    ring = {"agents": 8, "topology": "ring"}
    return {
        curve.label: [_of(curve, f"{r:g}", learning_rate=r, **ring) for r in _around(rate)]
        for curve in (CDSGD, CDMSGD)
    }


def _around(rate: float) -> list[float]:
    return [factor * rate for factor in (0.1, 1, 10)]


def _non_iid(momentum: float) -> dict[str, Sequence[Curve]]:
    """All weigh agents by their data, as FedAvg always does."""
    weighted = [_of(curve, size_weighted=True) for curve in (CDSGD, CDMSGD)]
    curves = [*weighted, FEDAVG, with_momentum(FEDAVG, momentum)]
    dirichlet = {"partition": "dirichlet", "dirichlet_alpha": 0.1}
    return {
        "Dirichlet(0.1)": [_of(curve, **dirichlet) for curve in curves],
        "whole classes": [_of(curve, partition="classes") for curve in curves],
    }


def _of(curve: Curve, label: str = "", **options: Any) -> Curve:
    return Curve(label or curve.label, {**curve.options, **options})


def _both(curves: Sequence[Curve]) -> dict[str, Sequence[Curve]]:
    """A column per way to take turns; algorithms without neighbours are the same in both."""

    def in_turn(curve: Curve) -> Curve:
        other = IN_TURN.get(curve.options["algorithm"])
        if other is None or curve.options.get("agents") == 1:
            return curve
        label = other.label if curve.label in (CDSGD.label, CDMSGD.label) else curve.label
        return _of(curve, label, **other.options)

    return dict(zip(TURNS, (curves, [in_turn(curve) for curve in curves]), strict=True))
