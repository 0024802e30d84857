"""The paper's claims, each measured on the runs of its figure."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, NamedTuple, TypeAlias

import numpy as np

from experiments.figures import curves
from experiments.figures.config import Figures
from experiments.figures.curves import CDMSGD, CDSGD, CENTRALIZED, FEDAVG, MOMENTUM_SGD, SGD, Curve
from experiments.report.plots import Line

Columns: TypeAlias = Mapping[str, Sequence[Line]]
Records: TypeAlias = Sequence[Mapping[str, Any]]


class Measure(NamedTuple):
    """A number of one run, as of the last step that all compared runs reach, and its form."""

    value: Callable[[Records, int], float]
    unit: str
    form: str = ".2f"


class Claim(NamedTuple):
    """What a figure should show in each of its columns.

    It compares those lines of a column that ``pick`` chooses. For a seed it holds if the number of
    the last line is below that of the first, or with a ``margin``, at most so much below it.
    """

    figure: str
    text: str
    pick: Callable[[Sequence[Line]], Sequence[Line]]
    measure: Measure
    margin: float | None = None


class Finding(NamedTuple):
    """A claim, in which column of its figure, what was measured, and the verdict."""

    claim: str
    setting: str
    measured: str
    verdict: str


def report(config: Figures, drawn: Mapping[str, Columns]) -> str:
    """The page claims.md: all claims whose figures are drawn, and what follows from the schedule.

    The preset's options are in ``config``; ``drawn`` are the lines of every column of each figure.
    """
    found = [finding for name in drawn for finding in findings(name, drawn[name])]
    some_run = next(iter(next(iter(drawn.values())).values()))[0].runs[0]
    lines = [
        "# The paper's claims, measured",
        "",
        f"Preset {config.preset}: {some_run[0]['dataset']}, {config.model}, "
        f"{some_run[-1]['epoch']} epochs of {config.data.train_samples or 'all'} training images, "
        f"{config.seeds} seeds, step size {config.learning_rate:g}, {config.network.agents or 5} "
        f"agents on a {config.network.topology} graph unless said otherwise. *Speed* is the test "
        "accuracy averaged over all evaluations of a run. A claim *holds* when the run of every "
        "seed says so, *does not* when none does, and is *unclear* otherwise.",
        "",
        "| claim | schedule or setting | measured, means over the seeds | verdict |",
        "|---|---|---|---|",
        *(f"| {' | '.join(finding)} |" for finding in found),
        "",
        "## What follows from the schedule",
        "",
        "*Synchronous* is Algorithm 1 of the paper. *Sequential* is the schedule of its released "
        "code: one agent after another trains for an epoch, against neighbours that stand still.",
        "",
        *_by_schedule(found),
        "",
    ]
    return "\n".join(lines)


def findings(figure: str, columns: Columns) -> list[Finding]:
    """The claims that a figure makes, if any, as measured in each of its columns."""
    return [
        _finding(claim, setting, claim.pick(lines))
        for claim in _CLAIMS
        if claim.figure == figure
        for setting, lines in columns.items()
    ]


def _finding(claim: Claim, setting: str, lines: Sequence[Line]) -> Finding:
    value, unit, form = claim.measure
    step = min(line.runs[0][-1]["step"] for line in lines)
    values = [np.array([value(run, step) for run in line.runs]) for line in lines]
    pairs = zip(lines, values, strict=True)
    measured = ", ".join(f"{line.label} {np.mean(numbers):{form}}" for line, numbers in pairs)
    first, last = values[0], values[-1]
    agreeing = first > last if claim.margin is None else last >= first - claim.margin
    verdict = "holds" if np.all(agreeing) else "unclear" if np.any(agreeing) else "does not"
    return Finding(claim.text, setting, f"{measured} {unit.format(step=step)}", verdict)


def _by_schedule(found: Sequence[Finding]) -> Iterator[str]:
    """Which claims depend on the schedule."""
    verdicts = {(finding.claim, finding.setting): finding.verdict for finding in found}
    for claim in dict.fromkeys(finding.claim for finding in found):
        at_once, in_turn = (verdicts.get((claim, turns)) for turns in curves.TURNS)
        if at_once and in_turn:
            same = "either way" if at_once == in_turn else "depends on the schedule"
            yield f"- {claim}: {same} (synchronous: {at_once}; sequential: {in_turn})"


def _at_step(run: Records, step: int) -> float:
    """Test accuracy after so many steps, between evaluations by interpolation."""
    steps = [0, *(record["step"] for record in run)]
    guess = 1 / 10  # before the first step: all data sets here except CIFAR-100 have ten classes
    accuracies = [guess, *(record[_TEST] for record in run)]
    return 100 * float(np.interp(step, steps, accuracies))


_TEST, _TRAIN = "test_accuracy_mean", "train_accuracy_mean"
_OVER_AGENTS = "test_accuracy_variance"
_SPEED = Measure(lambda run, step: 100 * np.mean([record[_TEST] for record in run]), "% speed")
_FINAL = Measure(lambda run, step: 100 * run[-1][_TEST], "%")
_GAP = Measure(lambda run, step: 100 * (run[-1][_TRAIN] - run[-1][_TEST]), "points")
_ACCURACY_AT_STEP = Measure(_at_step, "% after {step} steps")
_DISTANCE = Measure(lambda run, step: run[-1]["consensus_distance"], "distance", ".2g")
# Averaged over the second half of the run.
_VARIANCE = Measure(
    lambda run, step: 1e4 * np.mean([r[_OVER_AGENTS] for r in run[len(run) // 2 :]]), "%²", ".3g"
)


def _of(*chosen: Curve) -> Callable[[Sequence[Line]], Sequence[Line]]:
    return lambda lines: [{line.label: line for line in lines}[c.label] for c in chosen]


def _largest_and_last(lines: Sequence[Line]) -> list[Line]:
    """Of the last line: where the agents are farthest apart, and the end."""
    runs = lines[-1].runs
    largest = [[max(run, key=lambda record: record["consensus_distance"])] for run in runs]
    return [Line("at most", largest), Line("at the end", runs)]


_CLAIMS = (
    Claim("fig1a", "Fig. 1a: an epoch of CDSGD brings less than one of SGD",
          _of(SGD, CDSGD), _SPEED),
    Claim("fig1a", "Fig. 1a, by steps: a step of CDSGD brings less than one of SGD on all agents' "
          "batches", _of(CENTRALIZED, CDSGD), _SPEED),
    Claim("fig1a", "Fig. 1a: CDSGD's generalization gap is smaller", _of(SGD, CDSGD), _GAP),
    Claim("fig1a", "Fig. 1a: CDSGD ends within a point of SGD", _of(SGD, CDSGD), _FINAL, 1.0),
    Claim("fig1b", "Fig. 1b: CDMSGD is faster than CDSGD", _of(CDMSGD, CDSGD), _SPEED),
    Claim("fig1b", "Fig. 1b: FedAvg is faster than CDSGD", _of(FEDAVG, CDSGD), _SPEED),
    Claim("fig1b", "Fig. 1b: CDMSGD ends at or above FedAvg", _of(FEDAVG, CDMSGD), _FINAL, 0.0),
    Claim("fig1b", "CDMSGD ends at most half a point below SGD", _of(SGD, CDMSGD), _FINAL, 0.5),
    Claim("fig1b", "CDMSGD ends at most half a point below momentum SGD",
          _of(MOMENTUM_SGD, CDMSGD), _FINAL, 0.5),
    Claim("fig2a", "Fig. 2a: more agents are slower", list, _SPEED),
    Claim("fig2a", "Fig. 2a, by steps: after as many steps more agents are less accurate",
          list, _ACCURACY_AT_STEP),
    Claim("fig2b", "Fig. 2b: the sparser the graph, the faster", lambda lines: lines[::-1], _SPEED),
    Claim("fig2b", "Fig. 2b: the sparser the graph, the more the agents' accuracies vary",
          lambda lines: lines[::-1], _VARIANCE),
    Claim("steps", "Prop. 1: the smaller the fixed step, the closer the agents",
          lambda lines: lines[-2::-1], _DISTANCE),
    Claim("steps", "Prop. 3: with diminishing steps the distance between the agents falls",
          _largest_and_last, _DISTANCE),
    Claim("non_iid", "Left for later in the paper: far from IID, CDMSGD ends at or above FedAvg",
          _of(FEDAVG, CDMSGD), _FINAL, 0.0),
    Claim("consensus", "Left for later in the paper: the larger the step, the farther apart the "
          "agents", lambda lines: lines[::-1], _DISTANCE),
)  # fmt: skip
