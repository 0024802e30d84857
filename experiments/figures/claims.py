"""The paper's claims, each measured on the runs of its figure."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import NamedTuple, TypeAlias

import numpy as np

from experiments.figures import curves
from experiments.figures.config import Figures
from experiments.figures.curves import (
    ATC,
    CDMSGD,
    CDSGD,
    CENTRALIZED,
    FEDAVG,
    GOSSIP,
    MOMENTUM_SGD,
    OUTSIDE,
    SGD,
    Curve,
)
from experiments.figures.measures import (
    CHANGE_OF_DISTANCE,
    DEVIATION,
    DISTANCE,
    FINAL,
    GAP,
    SPEED,
    SPEED_BY_STEPS,
    Measure,
)
from experiments.report.plots import Line
from experiments.report.verdicts import Difference, Verdict, interval, paired, verdicts

Columns: TypeAlias = Mapping[str, Sequence[Line]]


class Claim(NamedTuple):
    """What a figure should show in each of its columns.

    It compares those lines of a column that ``pick`` chooses, each with the next: the first is said
    to have the larger number, or with a ``margin``, the next to be at most so much below it. A
    column without such lines does not make the claim.
    """

    figure: str
    text: str
    pick: Callable[[Sequence[Line]], Sequence[Line]]
    measure: Measure
    margin: float | None = None


class Finding(NamedTuple):
    """A claim in one column of its figure: the means, and the difference of each pair of lines."""

    claim: Claim
    setting: str
    means: str
    differences: list[Difference]


def report(config: Figures, drawn: Mapping[str, Columns]) -> str:
    """The page claims.md: all claims whose figures are drawn, with intervals and verdicts.

    The preset's options are in ``config``; ``drawn`` are the lines of every column of each figure.
    """
    found = [finding for name in drawn for finding in findings(name, drawn[name])]
    some_run = next(iter(next(iter(drawn.values())).values()))[0].runs[0]
    num_comparisons = sum(len(finding.differences) for finding in found)
    agents = config.network.agents or 5
    lines = [
        "# The paper's claims, measured",
        "",
        f"Preset {config.preset}: {some_run[0]['dataset']}, {config.model}, "
        f"{some_run[-1]['epoch']} epochs of {config.data.train_samples or 'all'} training images, "
        f"n = {config.seeds} seeds, step size {config.learning_rate:g}, {agents} agents on a "
        f"{config.network.topology} graph unless said otherwise.",
        "",
        "Accuracies are on the test set, of what is trained: the mean over the agents, or the "
        "server's parameters. *On average* is the mean over the evaluations of a whole run. A "
        "difference is that of two runs with the same seed, its mean over the seeds with its 95 % "
        "interval (Student's t); a claim about several lines compares each with the next. For "
        "distances and deviations it is the factor between them.",
        "",
        f"The {num_comparisons} comparisons of this page are one family: by Holm's correction of "
        "the paired t-tests, a page without any true difference gives a verdict with a probability "
        "of at most 5 %. *Holds* and *the opposite* are such verdicts. *No difference seen* is "
        "none, and *not decided* is none on a claim that allows a margin; neither says that there "
        "is no difference.",
        "",
        "| claim | setting | means | difference (95 % interval) | verdict |",
        "|---|---|---|---|---|",
        *(f"| {' | '.join(row)} |" for row in _rows(found)),
        "",
        f"*{curves.TURNS[0].capitalize()}* is Algorithm 1 of the paper. "
        f"*{curves.TURNS[1].capitalize()}* is the schedule of its released code: an agent trains "
        "for an epoch against neighbours that stand still, then the next. *Released code* also has "
        "the momentum of that code, outside of consensus and 0.95.",
        "",
    ]
    return "\n".join(lines)


def findings(figure: str, columns: Columns) -> list[Finding]:
    """The claims that a figure makes, if any, as measured in each of its columns."""
    return [
        _finding(claim, setting, lines)
        for claim in _CLAIMS
        if claim.figure == figure
        for setting, column in columns.items()
        if (lines := claim.pick(column))
    ]


def judged(found: Sequence[Finding]) -> list[list[str]]:
    """The verdict on every difference of every finding, all of them one family."""
    each = iter(verdicts([difference for finding in found for difference in finding.differences]))
    return [
        [_worded(next(each), difference, finding.claim) for difference in finding.differences]
        for finding in found
    ]


def _rows(found: Sequence[Finding]) -> Iterator[list[str]]:
    for finding, words in zip(found, judged(found), strict=True):
        measure = finding.claim.measure
        shown = "; ".join(_shown(difference, measure) for difference in finding.differences)
        verdict = words[0] if len({*words}) == 1 else "; ".join(words)
        yield [finding.claim.text, finding.setting, finding.means, shown, verdict]


def _worded(verdict: Verdict, difference: Difference, claim: Claim) -> str:
    if np.isnan(difference.mean):
        return "not comparable"
    words = {"above": "holds", "below": "the opposite"}
    return words.get(verdict, "no difference seen" if claim.margin is None else "not decided")


def _shown(difference: Difference, measure: Measure) -> str:
    if np.isnan(difference.mean):
        return "–"
    if not measure.ratio:
        return interval(difference, measure.form)
    ends = [difference.mean + side * difference.half_width for side in (0, -1, 1)]
    if not np.isfinite(difference.half_width):
        return f"×{np.exp(difference.mean):.2f} (no interval: n = {difference.num_seeds})"
    return "×{:.2f} ({:.2f} to {:.2f})".format(*np.exp(ends))


def _finding(claim: Claim, setting: str, lines: Sequence[Line]) -> Finding:
    measure, sign = claim.measure, 1 if claim.margin is None else -1
    seeds = zip(*(line.runs for line in lines), strict=True)
    values = np.array([measure.values(runs) for runs in seeds])  # of shape (seeds, lines)
    named = zip(lines, values.mean(axis=0), strict=True)
    means = ", ".join(
        f"{line.label}: {f'{mean:{measure.form}}' if np.isfinite(mean) else '–'}"
        for line, mean in named
    )
    scale = np.log(np.maximum(values, np.finfo(float).tiny)) if measure.ratio else values
    apart = sign * (scale[:, :-1] - scale[:, 1:])
    differences = [paired(column, hypothesis=-(claim.margin or 0.0)) for column in apart.T]
    return Finding(claim, setting, f"{means} {measure.unit}", differences)


def _of(*chosen: Curve) -> Callable[[Sequence[Line]], Sequence[Line]]:
    """Picks the lines of these curves, or of what stands in for them, if a column has them all."""

    def pick(lines: Sequence[Line]) -> Sequence[Line]:
        found = [[line for line in lines if _shows(line, curve)] for curve in chosen]
        return [of_curve[0] for of_curve in found] if all(found) else []

    return pick


def _shows(line: Line, curve: Curve) -> bool:
    if curve.label in (CDSGD.label, CDMSGD.label):
        return line.label in (curve.label, curves.IN_TURN[curve.options["algorithm"]].label)
    return line.label == curve.label


def _momentum(*chosen: Curve) -> Callable[[Sequence[Line]], Sequence[Line]]:
    """Picks CDMSGD and rivals with momentum."""
    return _of(*(c if c is CDMSGD else curves.with_momentum(c, 0.9) for c in chosen))


def _at_equal_effective_step(lines: Sequence[Line]) -> Sequence[Line]:
    """Picks CDMSGD and CDSGD with the larger step, in the column that has both."""
    return [lines[2], lines[1]] if lines[-1].label == CDMSGD.label else []


def _reversed(lines: Sequence[Line]) -> Sequence[Line]:
    return lines[::-1]


_CLAIMS = (
    Claim("fig1a", "Section 5.1: CDSGD converges more slowly than SGD, per epoch",
          _of(SGD, CDSGD), SPEED),
    Claim("fig1a", "The same per step, SGD on all agents' batches",
          _of(CENTRALIZED, CDSGD), SPEED_BY_STEPS),
    Claim("fig1a", "Section 5.1: CDSGD ends within a point of SGD", _of(SGD, CDSGD), FINAL, 1.0),
    Claim("fig1a", "Section 5.1: CDSGD's generalization gap is smaller than SGD's",
          _of(SGD, CDSGD), GAP),
    Claim("fig1b", "Section 5.1: CDMSGD is faster than CDSGD", _of(CDMSGD, CDSGD), SPEED),
    Claim("fig1b", "Section 5.1: FedAvg is faster than CDMSGD", _of(FEDAVG, CDMSGD), SPEED),
    Claim("fig1b", "FedAvg is faster than CDSGD", _of(FEDAVG, CDSGD), SPEED),
    Claim("fig1b", "Section 5.1: CDMSGD ends above FedAvg", _of(CDMSGD, FEDAVG), FINAL),
    Claim("fig1b", "Section 5.1: CDMSGD ends at most half a point below SGD",
          _of(SGD, CDMSGD), FINAL, 0.5),
    Claim("fig1b", "CDMSGD ends at most half a point below momentum SGD",
          _of(MOMENTUM_SGD, CDMSGD), FINAL, 0.5),
    Claim("momentum", "At equal effective step momentum is faster",
          _at_equal_effective_step, SPEED),
    Claim("momentum", "At equal effective step CDMSGD ends above CDSGD",
          _at_equal_effective_step, FINAL),
    Claim("momentum", "With momentum, CDMSGD ends above FedAvg", _momentum(CDMSGD, FEDAVG), FINAL),
    Claim("momentum", "Without momentum, CDSGD ends above FedAvg",
          _of(CDSGD, FEDAVG), FINAL),
    Claim("momentum", "With momentum, CDMSGD ends at most half a point below averaged gradients",
          _momentum(CENTRALIZED, CDMSGD), FINAL, 0.5),
    Claim("momentum", "Without momentum, CDSGD ends at most half a point below averaged gradients",
          _of(CENTRALIZED, CDSGD), FINAL, 0.5),
    Claim("momentum", "With momentum, CDMSGD ends above adapt then combine",
          _momentum(CDMSGD, ATC), FINAL),
    Claim("momentum", "With momentum, CDMSGD ends above gossip in pairs",
          _momentum(CDMSGD, GOSSIP), FINAL),
    Claim("momentum", "Momentum outside of consensus ends above momentum inside",
          _of(OUTSIDE, CDMSGD), FINAL),
    Claim("fig2a", "Section 5.2: more agents converge more slowly, per epoch", list, SPEED),
    Claim("fig2a", "The same per step", list, SPEED_BY_STEPS),
    Claim("fig2a", "Section 5.2: more agents reach similar accuracy, at most a point less",
          list, FINAL, 1.0),
    Claim("fig2b", "Section 5.2: sparser graphs converge faster", _reversed, SPEED),
    Claim("fig2b", "Section 5.2: accuracy varies more over the agents of sparser graphs",
          _reversed, DEVIATION),
    Claim("clients", "Section 5.2: FedAvg with fewer clients converges faster", _reversed, SPEED),
    Claim("steps", "Proposition 1: the smaller the fixed step, the closer the agents",
          lambda lines: lines[-2::-1], DISTANCE),
    Claim("steps", "Supplement, not verified: diminishing steps bring agents closer together, "
          "fixed ones do not", lambda lines: lines[-2:], CHANGE_OF_DISTANCE),
    Claim("non_iid", "Left for later in the paper: far from IID, CDSGD ends above FedAvg",
          _of(CDSGD, FEDAVG), FINAL),
    Claim("non_iid", "Left for later in the paper: far from IID, CDMSGD ends above FedAvg with "
          "momentum", _momentum(CDMSGD, FEDAVG), FINAL),
    Claim("consensus", "Left for later in the paper: the larger the step, the farther apart the "
          "agents", _reversed, DISTANCE),
)  # fmt: skip
