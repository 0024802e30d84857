"""What claims are measured by, and their verdicts, on records that are made up."""

import collections

import numpy as np
import pytest

from experiments.figures import measures
from experiments.figures.claims import findings, judged
from experiments.figures.curves import CDMSGD, CDSGD, FEDAVG, specifications, with_momentum
from experiments.report.plots import Line


def record(accuracy, epoch=1, **columns):
    """One evaluation, made up."""
    made_up = dict.fromkeys(("test_accuracy_variance", "consensus_distance"), 0.5 / epoch)
    made_up |= {"dataset": "digits", "epoch": epoch, "step": 10 * epoch}
    trained = {"train_loss": 1 / epoch, "train_accuracy": 0.9, "test_accuracy": accuracy}
    return made_up | trained | columns


def line(label, *accuracies):
    """A line of runs that are evaluated once."""
    return Line(label, [[record(accuracy)] for accuracy in accuracies])


def verdicts_of(figure, lines):
    """The verdicts on the claims of one figure, by the end of their text."""
    found = findings(figure, {"": lines})
    return {f.claim.text: words for f, words in zip(found, judged(found), strict=True)}


def test_whole_curves_are_compared_by_epochs_and_by_the_steps_that_they_share():
    slow = [record(a, step=10 * k) for k, a in enumerate((0.2, 0.4, 0.6), 1)]
    fast = [record(a, step=20 * k) for k, a in enumerate((0.4, 0.6), 1)]
    assert measures.SPEED.values([slow, fast]) == pytest.approx([40.0, 50.0])
    # From step 20 to 30: 0.4 to 0.6 on one line, 0.4 to 0.5 on the other.
    assert measures.SPEED_BY_STEPS.values([slow, fast]) == pytest.approx([50.0, 45.0])
    apart = [record(0.5, step=100)]
    assert np.isnan(measures.SPEED_BY_STEPS.values([slow, apart])).all()


def test_gaps_are_compared_at_the_loss_at_which_the_last_one_ends():
    def run(*losses_train_test):
        columns = ("train_loss", "train_accuracy", "test_accuracy")
        return [dict(zip(columns, values, strict=True)) for values in losses_train_test]

    trained = run((1.0, 0.6, 0.6), (0.5, 0.8, 0.7), (0.25, 0.9, 0.7))
    less = run((1.5, 0.5, 0.5), (0.75, 0.7, 0.68))
    # At 0.75 the first is halfway from a gap of 0 to one of 10 points.
    assert measures.GAP.values([trained, less]) == pytest.approx([5.0, 2.0])
    starts_below = trained[1:]
    assert np.isnan(measures.GAP.values([starts_below, less])[0])


@pytest.mark.parametrize(
    ("gains", "verdict"),
    [
        ((5.0, 5.1, 4.9, 5.2, 4.8), "holds"),
        ((-5.0, -5.1, -4.9, -5.2, -4.8), "the opposite"),
        ((0.5, -0.1, 0.1, 0.9, -0.6), "no difference seen"),
    ],
)
def test_a_claim_holds_when_the_paired_interval_says_so(gains, verdict):
    bases = np.array([80.0, 82.0, 78.0, 85.0, 81.0])
    lines = [line(CDSGD.label, *bases / 100), line(FEDAVG.label, *(bases - gains) / 100)]
    (words,) = verdicts_of("non_iid", lines).values()
    assert words == [verdict]


@pytest.mark.parametrize(
    ("drop", "words"),
    [(0.5, ["holds", "holds"]), (1.5, ["the opposite", "holds"]), (1.0, ["not decided", "holds"])],
)
def test_every_member_of_a_family_is_compared_with_the_next_and_may_lie_within_the_margin(
    drop, words
):
    noise = np.array([0.02, -0.01, 0.0, 0.01, -0.02])
    accuracies = [80 + 0 * noise, 80 - drop + noise, 80 - drop - 0.1 - noise]
    names = ("N = 2", "N = 8", "N = 16")
    lines = [line(n, *a / 100) for n, a in zip(names, accuracies, strict=True)]
    by_text = verdicts_of("fig2a", lines)
    assert by_text["Section 5.2: more agents reach similar accuracy, at most a point less"] == words


def test_the_control_of_diminishing_steps_does_not_pass_their_test():
    rng = np.random.default_rng(0)

    def runs(power):
        return [
            [record(0.5, epoch=k, consensus_distance=k**power * rng.uniform(0.98, 1.02))
             for k in range(1, 11)]
            for _ in range(5)
        ]  # fmt: skip

    text = "Supplement, not verified: diminishing steps bring agents closer together, fixed ones "
    claim = f"{text}do not"

    def words(power):
        fixed, falling = Line("CDSGD, 0.1", runs(0.0)), Line("CDSGD, diminishing", runs(power))
        return verdicts_of("steps", [fixed, falling])[claim]

    assert words(-0.6) == ["holds"] and words(0.0) == ["no difference seen"]


def test_momentum_is_compared_with_momentum():
    noise = np.array([0.0, 0.001, 0.002, -0.001, -0.002])
    lines = [line(CDMSGD.label, *0.9 + noise), line(FEDAVG.label, *0.8 - noise)]
    assert verdicts_of("non_iid", lines) == {}
    lines.append(line(with_momentum(FEDAVG, 0.9).label, *0.85 - noise))
    (words,) = verdicts_of("non_iid", lines).values()
    assert words == ["holds"]


def noise(rng):
    """Runs of five seeds, of one epoch after another, that are alike but for chance."""
    columns = ("test_accuracy", "train_accuracy", "test_accuracy_variance", "consensus_distance")
    numbers = np.exp(0.02 * rng.normal(size=(5, 3, len(columns)))) / 2
    return [
        [
            record(0.5, k, **dict(zip(columns, values, strict=True)))
            for k, values in enumerate(run, 1)
        ]
        for run in numbers.tolist()
    ]


@pytest.mark.slow
def test_a_page_of_nothing_but_noise_gets_a_verdict_in_less_than_5_percent():
    rng, figures, false = np.random.default_rng(1), specifications(0.01), 0
    for _ in range(1000):
        runs = collections.defaultdict(lambda: noise(rng))  # one for all curves with its options
        found = [
            finding
            for name, figure in figures.items()
            for finding in findings(
                name,
                {
                    column: [Line(c.label, runs[str(sorted(c.options.items()))]) for c in curves]
                    for column, curves in figure.columns.items()
                },
            )
        ]
        words = [word for of_finding in judged(found) for word in of_finding]
        assert len(words) == 66
        # That all end within a margin is true of them.
        margins = [f.claim.margin is not None for f in found for _ in f.differences]
        verdicts = zip(words, margins, strict=True)
        false += any(w == "the opposite" or (w == "holds" and not m) for w, m in verdicts)
    assert false < 50
