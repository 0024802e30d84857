"""The paper's claims, each measured on the runs of its figure.

A claim *holds* when the run of every seed says so, *does not* when none does, and is *unclear*
otherwise.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, NamedTuple, TypeAlias

import numpy as np

from experiments.figures.config import Figures
from experiments.figures.curves import (
    CDMSGD,
    CDSGD,
    CENTRALIZED,
    FEDAVG,
    MOMENTUM_SGD,
    SGD,
    TURNS,
    Curve,
)
from experiments.report.plots import Line

Columns: TypeAlias = Mapping[str, Sequence[Line]]
Measure: TypeAlias = Callable[[Line], np.ndarray]  # one number per seed


class Finding(NamedTuple):
    """A claim, in which column of its figure, what was measured, and the verdict."""

    claim: str
    setting: str
    measured: str
    verdict: str


def report(config: Figures, drawn: Mapping[str, Columns]) -> str:
    """The page claims.md.

    Args:
        config: the options, with the preset's in.
        drawn: the lines of every column of every figure.

    Returns:
        Markdown: a table of all claims whose figures are drawn, and what follows from the schedule.
    """
    found = [finding for name in drawn for finding in findings(name, drawn[name])]
    some_run = next(iter(next(iter(drawn.values())).values()))[0].runs[0]
    size = config.data.train_samples or "all"
    lines = [
        "# The paper's claims, measured",
        "",
        f"Preset {config.preset}: {some_run[0]['dataset']}, {config.model}, "
        f"{some_run[-1]['epoch']} epochs of {size} training images, {config.seeds} seeds, step "
        f"size {config.learning_rate:g}, {config.network.agents or 5} agents on "
        f"{config.network.topology} unless said otherwise. *Speed* is the test accuracy averaged "
        "over all evaluations of a run. A claim *holds* when the run of every seed says so, *does "
        "not* when none does, and is *unclear* otherwise.",
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
    claims = {
        "fig1a": _fig1a, "fig1b": _fig1b, "fig2a": _fig2a, "fig2b": _fig2b, "steps": _steps,
        "non_iid": _non_iid, "consensus": _consensus,
    }  # fmt: skip
    return claims[figure](columns) if figure in claims else []


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
        if {*TURNS} <= {*verdicts}:
            at_once, in_turn = (verdicts[name] for name in TURNS)
            same = "either way" if at_once == in_turn else "depends on the schedule"
            yield f"- {claim}: {same} (synchronous: {at_once}; sequential: {in_turn})"
    yield ""


def _speed(line: Line) -> np.ndarray:
    """Test accuracy averaged over a run's evaluations, in percent."""
    return _over_runs(line, lambda run: 100 * np.mean([r["test_accuracy_mean"] for r in run]))


def _final(line: Line) -> np.ndarray:
    """Test accuracy at the end, in percent."""
    return _over_runs(line, lambda run: 100 * run[-1]["test_accuracy_mean"])


def _gap(line: Line) -> np.ndarray:
    """Train minus test accuracy at the end, in points."""
    return _over_runs(line, lambda run: 100 * run[-1]["train_accuracy_mean"]) - _final(line)


def _distance(line: Line) -> np.ndarray:
    """Consensus distance at the end."""
    return _over_runs(line, lambda run: run[-1]["consensus_distance"])


def _variance(line: Line) -> np.ndarray:
    """Variance of accuracy over the agents, averaged over the run's second half, in %²."""
    return _over_runs(
        line,
        lambda run: 1e4 * np.mean([r["test_accuracy_variance"] for r in run[len(run) // 2 :]]),
    )


def _over_runs(line: Line, value: Callable[[Any], float]) -> np.ndarray:
    return np.array([value(run) for run in line.runs])


def _verdict(agreeing: np.ndarray) -> str:
    if np.all(agreeing):
        return "holds"
    return "unclear" if np.any(agreeing) else "does not"


def _listed(lines: Sequence[Line], values: Sequence[np.ndarray], form: str, unit: str) -> str:
    pairs = zip(lines, values, strict=True)
    return ", ".join(f"{line.label} {np.mean(v):{form}}" for line, v in pairs) + f" {unit}"


def _falling(
    claim: str,
    columns: Columns,
    measure: Measure = _speed,
    *,
    form: str = ".2f",
    unit: str = "% speed",
) -> list[Finding]:
    """A claim that a measure is larger for the first line of a column than for the last."""
    found = []
    for setting, lines in columns.items():
        values = [measure(line) for line in lines]
        text = _listed(lines, values, form, unit)
        found.append(Finding(claim, setting, text, _verdict(values[0] > values[-1])))
    return found


def _within(claim: str, columns: Columns, points: float) -> list[Finding]:
    """A claim that the second line ends at most so many points below the first."""
    found = []
    for setting, lines in columns.items():
        values = [_final(line) for line in lines]
        text = _listed(lines, values, ".2f", "%")
        found.append(Finding(claim, setting, text, _verdict(values[1] >= values[0] - points)))
    return found


def _only(columns: Columns, *curves: Curve) -> dict[str, list[Line]]:
    """The columns with only these curves, in this order."""
    by_label = {name: {line.label: line for line in lines} for name, lines in columns.items()}
    return {name: [lines[curve.label] for curve in curves] for name, lines in by_label.items()}


def _fig1a(columns: Columns) -> list[Finding]:
    pair = _only(columns, SGD, CDSGD)
    same_steps = _only(columns, CENTRALIZED, CDSGD)
    by_steps = (
        "Fig. 1a, by steps: a step of CDSGD brings less than one of SGD on all agents' batches"
    )
    smaller = "Fig. 1a: CDSGD's generalization gap is smaller"
    return [
        *_falling("Fig. 1a: an epoch of CDSGD brings less than one of SGD", pair),
        *_falling(by_steps, same_steps),
        *_falling(smaller, pair, _gap, unit="points"),
        *_within("Fig. 1a: CDSGD ends within a point of SGD", pair, 1.0),
    ]


def _fig1b(columns: Columns) -> list[Finding]:
    below_momentum = "CDMSGD ends at most half a point below momentum SGD"
    return [
        *_falling("Fig. 1b: CDMSGD is faster than CDSGD", _only(columns, CDMSGD, CDSGD)),
        *_falling("Fig. 1b: FedAvg is faster than CDSGD", _only(columns, FEDAVG, CDSGD)),
        *_within("Fig. 1b: CDMSGD ends at or above FedAvg", _only(columns, FEDAVG, CDMSGD), 0.0),
        *_within("CDMSGD ends at most half a point below SGD", _only(columns, SGD, CDMSGD), 0.5),
        *_within(below_momentum, _only(columns, MOMENTUM_SGD, CDMSGD), 0.5),
    ]


def _fig2a(columns: Columns) -> list[Finding]:
    found = _falling("Fig. 2a: more agents are slower", columns)
    claim = "Fig. 2a, by steps: after as many steps more agents are less accurate"
    for setting, lines in columns.items():
        step = min(line.runs[0][-1]["step"] for line in lines)

        def at_step(line: Line, step: float = step) -> np.ndarray:
            return _over_runs(line, lambda run: 100 * _accuracy_at(run, step))

        found += _falling(claim, {setting: lines}, at_step, unit=f"% after {step} steps")
    return found


def _accuracy_at(run: Sequence[Mapping[str, Any]], step: float) -> float:
    """Test accuracy after so many steps, between evaluations by interpolation."""
    steps = [0, *(record["step"] for record in run)]
    guess = 1 / 10  # before the first step: all data sets here except CIFAR-100 have ten classes
    return float(np.interp(step, steps, [guess, *(r["test_accuracy_mean"] for r in run)]))


def _fig2b(columns: Columns) -> list[Finding]:
    from_sparse = {setting: lines[::-1] for setting, lines in columns.items()}
    claim = "Fig. 2b: the sparser the graph, the more the agents' accuracies vary"
    return [
        *_falling("Fig. 2b: the sparser the graph, the faster", from_sparse),
        *_falling(claim, from_sparse, _variance, form=".3g", unit="%²"),
    ]


def _steps(columns: Columns) -> list[Finding]:
    found = []
    for setting, (*fixed, diminishing) in columns.items():
        values = [_distance(line) for line in fixed]
        text = _listed(fixed, values, ".2g", "distance")
        claim = "Prop. 1: the smaller the fixed step, the closer the agents"
        found.append(Finding(claim, setting, text, _verdict(values[0] < values[-1])))
        last = _distance(diminishing)
        most = _over_runs(diminishing, lambda run: max(r["consensus_distance"] for r in run))
        text = f"at most {np.mean(most):.2g}, at the end {np.mean(last):.2g}"
        claim = "Prop. 3: with diminishing steps the distance between the agents falls"
        found.append(Finding(claim, setting, text, _verdict(last < most)))
    return found


def _non_iid(columns: Columns) -> list[Finding]:
    claim = "Left for later in the paper: far from IID, CDMSGD ends at or above FedAvg"
    return _within(claim, _only(columns, FEDAVG, CDMSGD), 0.0)


def _consensus(columns: Columns) -> list[Finding]:
    claim = "Left for later in the paper: the larger the step, the farther apart the agents"
    from_large = {setting: lines[::-1] for setting, lines in columns.items()}
    return _falling(claim, from_large, _distance, form=".2g", unit="distance")
