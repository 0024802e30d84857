"""The paper's claims, each measured on the runs of its figure.

A claim *holds* when the run of every seed says so, *does not* when none does, and is *unclear*
otherwise.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from experiments.run.records import Entry

if TYPE_CHECKING:
    from experiments.figures.config import Figures

Columns = Mapping[str, Sequence[Entry]]


class Finding(NamedTuple):
    """A claim, under which schedule or setting, what was measured, and the verdict."""

    claim: str
    setting: str
    measured: str
    verdict: str


def report(config: Figures, drawn: Mapping[str, Columns]) -> str:
    """The page claims.md.

    Args:
        config: the options, with the preset's in.
        drawn: the entries of every column of every figure.

    Returns:
        Markdown: a table of all claims whose figures are drawn, and what follows from the schedule.
    """
    findings = [finding for name in drawn for finding in _CLAIMS.get(name, _no_claims)(drawn[name])]
    first = next(iter(next(iter(drawn.values())).values()))[0]
    size = config.train_samples or "all"
    lines = [
        "# The paper's claims, measured",
        "",
        f"Preset {config.preset}: {first.runs[0][0]['dataset']}, {config.model}, "
        f"{first.runs[0][-1]['epoch']} epochs of {size} training images, {config.seeds} seeds, "
        f"step size {config.learning_rate:g}, 5 agents on a complete graph unless said otherwise. "
        "*Speed* is the test accuracy averaged over all evaluations of a run. A claim *holds* when "
        "the run of every seed says so, *does not* when none does, and is *unclear* otherwise.",
        "",
        "| claim | schedule or setting | measured, means over the seeds | verdict |",
        "|---|---|---|---|",
        *(f"| {' | '.join(finding)} |" for finding in findings),
        "",
        *_by_schedule(findings),
    ]
    return "\n".join(lines)


def _by_schedule(findings: Sequence[Finding]) -> Iterator[str]:
    """Which claims depend on the schedule."""
    by_claim: dict[str, dict[str, str]] = {}
    for finding in findings:
        by_claim.setdefault(finding.claim, {})[finding.setting] = finding.verdict
    yield "## What follows from the schedule"
    yield ""
    yield (
        "*Synchronous* is Algorithm 1 of the paper. *Sequential* is the schedule of its released "
        "code: one agent after another trains for an epoch, against neighbours that stand still."
    )
    yield ""
    for claim, verdicts in by_claim.items():
        if {"synchronous", "sequential"} <= {*verdicts}:
            at_once, in_turn = verdicts["synchronous"], verdicts["sequential"]
            same = "either way" if at_once == in_turn else "depends on the schedule"
            yield f"- {claim}: {same} (synchronous: {at_once}; sequential: {in_turn})"
    yield ""


def _speed(entry: Entry) -> np.ndarray:
    """Test accuracy averaged over a run's evaluations, in percent; a number a seed."""
    return _over_runs(entry, lambda run: 100 * np.mean([r["test_accuracy_mean"] for r in run]))


def _final(entry: Entry, column: str = "test_accuracy_mean", factor: float = 100) -> np.ndarray:
    return _over_runs(entry, lambda run: factor * run[-1][column])


def _gap(entry: Entry) -> np.ndarray:
    """Train minus test accuracy at the end, in points."""
    return _final(entry, "train_accuracy_mean") - _final(entry)


def _variance(entry: Entry) -> np.ndarray:
    """Variance of accuracy over the agents, a mean over the run's second half."""
    return _over_runs(
        entry,
        lambda run: 1e4 * np.mean([r["test_accuracy_variance"] for r in run[len(run) // 2 :]]),
    )


def _over_runs(entry: Entry, value: Any) -> np.ndarray:
    return np.array([value(run) for run in entry.runs])


def _verdict(agreeing: np.ndarray) -> str:
    if np.all(agreeing):
        return "holds"
    return "unclear" if np.any(agreeing) else "does not"


def _listed(entries: Sequence[Entry], values: Sequence[np.ndarray], form: str, unit: str) -> str:
    pairs = zip(entries, values, strict=True)
    return ", ".join(f"{e.label} {np.mean(v):{form}}" for e, v in pairs) + f" {unit}".rstrip()


def _falling(claim: str, columns: Columns, measure: Any, form: str, unit: str) -> list[Finding]:
    """A claim that a measure is larger for the first curve of a column than for the last."""
    findings = []
    for setting, entries in columns.items():
        values = [measure(entry) for entry in entries]
        text = _listed(entries, values, form, unit)
        findings.append(Finding(claim, setting, text, _verdict(values[0] > values[-1])))
    return findings


def _only(columns: Columns, *labels: str) -> dict[str, list[Entry]]:
    """The columns with these curves alone, in this order."""
    by_label = {s: {entry.label: entry for entry in entries} for s, entries in columns.items()}
    return {s: [entries[label] for label in labels] for s, entries in by_label.items()}


def _fig1a(columns: Columns) -> list[Finding]:
    pair = _only(columns, "SGD, one machine", "CDSGD")
    same_steps = _only(columns, "SGD, gradients averaged", "CDSGD")
    speed = "% speed"
    findings = _falling(
        "Fig. 1a: an epoch of CDSGD brings less than one of SGD", pair, _speed, ".2f", speed
    )
    findings += _falling(
        "Fig. 1a, by steps: a step of CDSGD brings less than one of SGD on all agents' batches",
        same_steps, _speed, ".2f", speed,
    )  # fmt: skip
    findings += _falling(
        "Fig. 1a: CDSGD's generalization gap is smaller", pair, _gap, ".2f", "points"
    )
    return findings + _within("Fig. 1a: CDSGD ends within a point of SGD", pair, 1.0)


def _within(claim: str, columns: Columns, points: float) -> list[Finding]:
    """A claim that the second curve ends at most so many points below the first."""
    findings = []
    for setting, entries in columns.items():
        values = [_final(entry) for entry in entries]
        text = _listed(entries, values, ".2f", "%")
        findings.append(Finding(claim, setting, text, _verdict(values[1] >= values[0] - points)))
    return findings


def _fig1b(columns: Columns) -> list[Finding]:
    fedavg = "FedAvg, E = 1, C = 1"
    return [
        *_falling("Fig. 1b: CDMSGD is faster than CDSGD", _only(columns, "CDMSGD", "CDSGD"), _speed,
                  ".2f", "% speed"),
        *_falling("Fig. 1b: FedAvg is faster than CDSGD", _only(columns, fedavg, "CDSGD"), _speed,
                  ".2f", "% speed"),
        *_within("Fig. 1b: CDMSGD ends at or above FedAvg", _only(columns, fedavg, "CDMSGD"), 0.0),
        *_within("CDMSGD ends at most half a point below SGD",
                 _only(columns, "SGD, one machine", "CDMSGD"), 0.5),
        *_within("CDMSGD ends at most half a point below momentum SGD",
                 _only(columns, "momentum SGD, one machine", "CDMSGD"), 0.5),
    ]  # fmt: skip


def _fig2a(columns: Columns) -> list[Finding]:
    findings = _falling("Fig. 2a: more agents are slower", columns, _speed, ".2f", "% speed")
    claim = "Fig. 2a, by steps: after as many steps more agents are less accurate"
    for setting, entries in columns.items():
        step = min(entry.runs[0][-1]["step"] for entry in entries)

        def at_step(entry: Entry, step: float = step) -> np.ndarray:
            return _over_runs(entry, lambda run: 100 * _accuracy_at(run, step))

        findings += _falling(claim, {setting: entries}, at_step, ".2f", f"% after {step} steps")
    return findings


def _accuracy_at(run: Sequence[dict[str, Any]], step: float) -> float:
    """Test accuracy after so many steps, between evaluations by interpolation."""
    steps = [0, *(record["step"] for record in run)]
    guess = 1 / 10  # before the first step, all data sets here but CIFAR-100 having ten classes
    return float(np.interp(step, steps, [guess, *(r["test_accuracy_mean"] for r in run)]))


def _fig2b(columns: Columns) -> list[Finding]:
    from_sparse = {setting: entries[::-1] for setting, entries in columns.items()}
    return [
        *_falling("Fig. 2b: the sparser the graph, the faster", from_sparse, _speed, ".2f",
                  "% speed"),
        *_falling("Fig. 2b: the sparser the graph, the more the agents' accuracies vary",
                  from_sparse, _variance, ".3g", "%²"),
    ]  # fmt: skip


def _steps(columns: Columns) -> list[Finding]:
    findings = []
    for setting, (*fixed, diminishing) in columns.items():
        values = [_final(entry, "consensus_distance", 1) for entry in fixed]
        agreeing = values[0] < values[-1]
        text = _listed(fixed, values, ".2g", "distance")
        claim = "Prop. 1: the smaller the fixed step, the closer the agents"
        findings.append(Finding(claim, setting, text, _verdict(agreeing)))
        last = _final(diminishing, "consensus_distance", 1)
        most = _over_runs(diminishing, lambda run: max(r["consensus_distance"] for r in run))
        text = f"at most {np.mean(most):.2g}, at the end {np.mean(last):.2g}"
        claim = "Prop. 3: with diminishing steps the distance between the agents falls"
        findings.append(Finding(claim, setting, text, _verdict(last < most)))
    return findings


def _non_iid(columns: Columns) -> list[Finding]:
    order = ("FedAvg, E = 1, C = 1", "CDMSGD")
    claim = "Left for later in the paper: far from IID, CDMSGD ends at or above FedAvg"
    return _within(claim, _only(columns, *order), 0.0)


def _consensus(columns: Columns) -> list[Finding]:
    return _falling(
        "Left for later in the paper: the larger the step, the farther apart the agents",
        {setting: entries[::-1] for setting, entries in columns.items()},
        lambda entry: _final(entry, "consensus_distance", 1), ".2g", "distance",
    )  # fmt: skip


def _no_claims(columns: Columns) -> list[Finding]:
    del columns
    return []


_CLAIMS = {
    "fig1a": _fig1a, "fig1b": _fig1b, "fig2a": _fig2a, "fig2b": _fig2b, "steps": _steps,
    "non_iid": _non_iid, "consensus": _consensus,
}  # fmt: skip
