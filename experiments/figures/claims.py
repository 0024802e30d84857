"""The paper's claims, each measured on the runs of its figure."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, NamedTuple, TypeAlias

import numpy as np

from experiments.figures import curves
from experiments.figures.config import Figures
from experiments.report.plots import Line

Columns: TypeAlias = Mapping[str, Sequence[Line]]


class Claim(NamedTuple):
    """What a figure should show in each of its columns.

    Attributes:
        text: the claim.
        pick: the lines that it compares, of those of a column.
        measure: a number of one run; also of the last step that all picked lines have reached.
        holds: whether it does for each seed, from the numbers of the first line and of the last.
        form: how the numbers are written.
        unit: their unit.
    """

    text: str
    pick: Callable[[Sequence[Line]], Sequence[Line]]
    measure: Callable[[Sequence[Mapping[str, Any]], int], float]
    holds: Callable[[np.ndarray, np.ndarray], np.ndarray] = np.greater
    form: str = ".2f"
    unit: str = "%"


class Finding(NamedTuple):
    """A claim, in which column of its figure, what was measured, and the verdict."""

    claim: str
    setting: str
    measured: str
    verdict: str


def report(config: Figures, drawn: Mapping[str, Columns]) -> str:
    """The page claims.md: all claims whose figures are drawn, and what follows from the schedule.

    Args:
        config: the options, with the preset's in.
        drawn: the lines of every column of every figure.
    """
    found = [finding for name in drawn for finding in findings(name, drawn[name])]
    some_run = next(iter(next(iter(drawn.values())).values()))[0].runs[0]
    size = config.data.train_samples or "all"
    lines = [
        "# The paper's claims, measured",
        "",
        f"Preset {config.preset}: {some_run[0]['dataset']}, {config.model}, "
        f"{some_run[-1]['epoch']} epochs of {size} training images, {config.seeds} seeds, step "
        f"size {config.learning_rate:g}, {config.network.agents or 5} agents on a "
        f"{config.network.topology} graph unless said otherwise. *Speed* is the test accuracy "
        "averaged over all evaluations of a run. A claim *holds* when the run of every seed says "
        "so, *does not* when none does, and is *unclear* otherwise.",
        "",
        "| claim | schedule or setting | measured, means over the seeds | verdict |",
        "|---|---|---|---|",
        *(f"| {' | '.join(finding)} |" for finding in found),
        "",
        *_by_schedule(found),
    ]
    return "\n".join(lines)


def findings(figure: str, columns: Columns) -> list[Finding]:
    """The claims that a figure makes, if any, as measured in each of its columns."""
    return [
        _finding(claim, setting, claim.pick(lines))
        for claim in _CLAIMS.get(figure, ())
        for setting, lines in columns.items()
    ]


def _finding(claim: Claim, setting: str, lines: Sequence[Line]) -> Finding:
    step = min(line.runs[0][-1]["step"] for line in lines)
    values = [np.array([claim.measure(run, step) for run in line.runs]) for line in lines]
    pairs = zip(lines, values, strict=True)
    measured = ", ".join(f"{line.label} {np.mean(v):{claim.form}}" for line, v in pairs)
    agreeing = claim.holds(values[0], values[-1])
    verdict = "holds" if np.all(agreeing) else "unclear" if np.any(agreeing) else "does not"
    return Finding(claim.text, setting, f"{measured} {claim.unit.format(step=step)}", verdict)


def _by_schedule(found: Sequence[Finding]) -> Iterator[str]:
    """Which claims depend on the schedule."""
    by_claim: dict[str, dict[str, str]] = {}
    for finding in found:
        by_claim.setdefault(finding.claim, {})[finding.setting] = finding.verdict
    yield "## What follows from the schedule"
    yield ""
    yield (
        "*Synchronous* is Algorithm 1 of the paper. *Sequential* is the schedule of its released "
        "code: one agent after another trains for an epoch, against neighbours that stand still."
    )
    yield ""
    for claim, verdicts in by_claim.items():
        if {*curves.TURNS} <= {*verdicts}:
            at_once, in_turn = (verdicts[name] for name in curves.TURNS)
            same = "either way" if at_once == in_turn else "depends on the schedule"
            yield f"- {claim}: {same} (synchronous: {at_once}; sequential: {in_turn})"
    yield ""


def _speed(run: Sequence[Mapping[str, Any]], step: int) -> float:
    """Test accuracy averaged over the evaluations."""
    return 100 * float(np.mean([record["test_accuracy_mean"] for record in run]))


def _final(run: Sequence[Mapping[str, Any]], step: int) -> float:
    """Test accuracy at the end."""
    return 100 * run[-1]["test_accuracy_mean"]


def _gap(run: Sequence[Mapping[str, Any]], step: int) -> float:
    """Train minus test accuracy at the end."""
    return 100 * (run[-1]["train_accuracy_mean"] - run[-1]["test_accuracy_mean"])


def _distance(run: Sequence[Mapping[str, Any]], step: int) -> float:
    return run[-1]["consensus_distance"]


def _variance(run: Sequence[Mapping[str, Any]], step: int) -> float:
    """Variance of accuracy over the agents, averaged over the second half."""
    return 1e4 * np.mean([record["test_accuracy_variance"] for record in run[len(run) // 2 :]])


def _at_step(run: Sequence[Mapping[str, Any]], step: int) -> float:
    """Test accuracy after so many steps, between evaluations by interpolation."""
    steps = [0, *(record["step"] for record in run)]
    guess = 1 / 10  # before the first step: all data sets here except CIFAR-100 have ten classes
    accuracies = [guess, *(record["test_accuracy_mean"] for record in run)]
    return 100 * float(np.interp(step, steps, accuracies))


def _within(points: float) -> Callable[[np.ndarray, np.ndarray], np.ndarray]:
    return lambda first, last: last >= first - points


def _only(*chosen: curves.Curve) -> Callable[[Sequence[Line]], Sequence[Line]]:
    def pick(lines: Sequence[Line]) -> Sequence[Line]:
        by_label = {line.label: line for line in lines}
        return [by_label[curve.label] for curve in chosen]

    return pick


def _largest_and_last(lines: Sequence[Line]) -> list[Line]:
    """Of the last line: where the agents are farthest apart, and the end."""
    runs = lines[-1].runs
    largest = [[max(run, key=lambda record: record["consensus_distance"])] for run in runs]
    return [Line("at most", largest), Line("at the end", runs)]


_SPEED = "% speed"
_APART = {"measure": _distance, "form": ".2g", "unit": "distance"}
_CLAIMS = {
    "fig1a": (
        Claim("Fig. 1a: an epoch of CDSGD brings less than one of SGD",
              _only(curves.SGD, curves.CDSGD), _speed, unit=_SPEED),
        Claim("Fig. 1a, by steps: a step of CDSGD brings less than one of SGD on all agents' "
              "batches", _only(curves.CENTRALIZED, curves.CDSGD), _speed, unit=_SPEED),
        Claim("Fig. 1a: CDSGD's generalization gap is smaller",
              _only(curves.SGD, curves.CDSGD), _gap, unit="points"),
        Claim("Fig. 1a: CDSGD ends within a point of SGD",
              _only(curves.SGD, curves.CDSGD), _final, _within(1.0)),
    ),
    "fig1b": (
        Claim("Fig. 1b: CDMSGD is faster than CDSGD",
              _only(curves.CDMSGD, curves.CDSGD), _speed, unit=_SPEED),
        Claim("Fig. 1b: FedAvg is faster than CDSGD",
              _only(curves.FEDAVG, curves.CDSGD), _speed, unit=_SPEED),
        Claim("Fig. 1b: CDMSGD ends at or above FedAvg",
              _only(curves.FEDAVG, curves.CDMSGD), _final, _within(0.0)),
        Claim("CDMSGD ends at most half a point below SGD",
              _only(curves.SGD, curves.CDMSGD), _final, _within(0.5)),
        Claim("CDMSGD ends at most half a point below momentum SGD",
              _only(curves.MOMENTUM_SGD, curves.CDMSGD), _final, _within(0.5)),
    ),
    "fig2a": (
        Claim("Fig. 2a: more agents are slower", lambda lines: lines, _speed, unit=_SPEED),
        Claim("Fig. 2a, by steps: after as many steps more agents are less accurate",
              lambda lines: lines, _at_step, unit="% after {step} steps"),
    ),
    "fig2b": (
        Claim("Fig. 2b: the sparser the graph, the faster",
              lambda lines: lines[::-1], _speed, unit=_SPEED),
        Claim("Fig. 2b: the sparser the graph, the more the agents' accuracies vary",
              lambda lines: lines[::-1], _variance, form=".3g", unit="%²"),
    ),
    "steps": (
        Claim("Prop. 1: the smaller the fixed step, the closer the agents",
              lambda lines: lines[-2::-1], **_APART),
        Claim("Prop. 3: with diminishing steps the distance between the agents falls",
              _largest_and_last, **_APART),
    ),
    "non_iid": (
        Claim("Left for later in the paper: far from IID, CDMSGD ends at or above FedAvg",
              _only(curves.FEDAVG, curves.CDMSGD), _final, _within(0.0)),
    ),
    "consensus": (
        Claim("Left for later in the paper: the larger the step, the farther apart the agents",
              lambda lines: lines[::-1], **_APART),
    ),
}  # fmt: skip
