"""Verdicts on paired runs, against SciPy, by hand, and on nothing but noise."""

import numpy as np
import pytest
from scipy import stats

from experiments.report.verdicts import holm, interval, paired, verdicts, with_interval


def test_a_paired_difference_is_students_t():
    rng = np.random.default_rng(0)
    ours, theirs = rng.normal(1.0, 1.0, 7), rng.normal(0.0, 1.0, 7)
    found, expected = paired(ours - theirs), stats.ttest_rel(ours, theirs)
    assert found.p_value == pytest.approx(expected.pvalue, rel=1e-12)
    low, high = expected.confidence_interval(0.95)
    ends = (found.mean - found.half_width, found.mean + found.half_width)
    assert ends == pytest.approx((low, high), rel=1e-12)
    shifted = paired(ours - theirs, hypothesis=0.5)
    assert shifted.p_value == pytest.approx(stats.ttest_1samp(ours - theirs, 0.5).pvalue)
    assert shifted[:3] == found[:3]  # the interval is that of the difference


def test_five_seeds_by_hand():
    # Mean 2, sample variance 1/2, so t = 2 √5 / √½ = 6.325 with four degrees of freedom.
    found = paired([1.0, 2.0, 2.0, 2.0, 3.0])
    assert found.half_width == pytest.approx(2.776445 * np.sqrt(0.5 / 5), rel=1e-6)
    assert found.p_value == pytest.approx(0.0032, abs=5e-5)
    assert interval(found) == "+2.00 (+1.12 to +2.88)"
    assert with_interval([1.0, 2.0, 2.0, 2.0, 3.0]) == "2.00 ± 0.88"


@pytest.mark.parametrize("differences", [[3.0], [1.0, 1.0], [0.0, 0.0], [2.0, np.nan, 2.1]])
def test_what_tells_no_deviation_shows_nothing(differences):
    assert verdicts([paired(differences)]) == ["no difference seen"]
    assert interval(paired([3.0])) == "+3.00 (no interval: n = 1)"
    assert with_interval([3.0]) == "3.00"


def test_holm_by_hand():
    # Four p-values: times 4, 3, 2, 1 in increasing order, and never less than the one before.
    assert holm([0.01, 0.04, 0.03, 0.005]) == pytest.approx([0.03, 0.06, 0.06, 0.02])
    assert holm([0.5, 0.9]) == [1.0, 1.0] and holm([]) == []


def test_verdicts_say_on_which_side():
    family = [paired([2.0, 2.1, 1.9]), paired([-2.0, -2.1, -1.9]), paired([-1.0, 0.1, 1.0])]
    assert verdicts(family) == ["above", "below", "no difference seen"]
    within_three = paired([-2.0, -2.1, -1.9], hypothesis=-3.0)
    assert verdicts([within_three]) == ["above"]


@pytest.mark.slow
def test_less_than_5_percent_of_families_of_pure_noise_get_a_verdict():
    """As many comparisons as a page of claims has, of five seeds, a thousand times."""
    noise = np.random.default_rng(0).normal(size=(1000, 60, 5))
    families = [[paired(differences) for differences in family] for family in noise]
    false = [any(v != "no difference seen" for v in verdicts(family)) for family in families]
    assert 0 < sum(false) < 50
    # Without the correction nearly every family has one.
    assert np.mean([min(one.p_value for one in family) < 0.05 for family in families]) > 0.9
