"""When runs of several seeds allow to say that one thing is above another.

The runs of a seed share their data, their partition and their start, so numbers are compared seed
by seed. A verdict is a paired t-test; of all comparisons of a page together, at most 5 % of such
pages have a false one, by the step-down correction of Holm, *A simple sequentially rejective
multiple test procedure*, Scandinavian Journal of Statistics 6, 1979.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal, NamedTuple, TypeAlias

import numpy as np
from scipy import special

LEVEL = 0.05

Verdict: TypeAlias = Literal["above", "below", "no difference seen"]


class Difference(NamedTuple):
    """A paired difference over seeds.

    Attributes:
        mean: of the differences.
        half_width: of its 95 % interval, by Student's t with n − 1 degrees of freedom; infinite for
            one seed.
        num_seeds: n.
        p_value: of a mean difference as far from the hypothesis on either side, if that is true.
        is_above: whether the mean lies above the hypothesis.
    """

    mean: float
    half_width: float
    num_seeds: int
    p_value: float
    is_above: bool


def paired(differences: Sequence[float], *, hypothesis: float = 0.0) -> Difference:
    """The paired t-test of differences, one per seed, against a hypothesis on their mean.

    Differences that are not all finite, of what cannot be compared, show nothing.
    """
    values = np.asarray(differences, float)
    mean, n = float(np.mean(values)), len(values)
    if n < 2 or not np.isfinite(values).all():
        return Difference(mean, np.inf, n, 1.0, mean > hypothesis)
    error = float(np.std(values, ddof=1)) / np.sqrt(n)
    half_width = float(special.stdtrit(n - 1, 1 - LEVEL / 2)) * error
    distance = abs(mean - hypothesis)
    # Accuracies are multiples of 1/samples: seeds may agree by chance, which tells no deviation.
    surprise = distance / error if error else 0.0
    p_value = float(2 * special.stdtr(n - 1, -surprise))
    return Difference(mean, half_width, n, p_value, mean > hypothesis)


def holm(p_values: Sequence[float]) -> list[float]:
    """Holm's adjusted p-values: below 5 %, they are false in at most 5 % of all families."""
    order = np.argsort(p_values)
    factors = len(p_values) - np.arange(len(p_values))
    adjusted = np.empty(len(p_values))
    adjusted[order] = np.minimum(np.maximum.accumulate(factors * np.take(p_values, order)), 1)
    return adjusted.tolist()


def verdicts(family: Sequence[Difference]) -> list[Verdict]:
    """For every comparison of a family on which side of its hypothesis it lies, if that is seen."""
    return [
        "no difference seen" if p > LEVEL else "above" if difference.is_above else "below"
        for difference, p in zip(family, holm([one.p_value for one in family]), strict=True)
    ]


def against(reference: Sequence[float], others: Sequence[Sequence[float] | None]) -> list[str]:
    """Cells with the paired differences of others to a reference, one family; "" for None.

    A star says that Holm's correction leaves a difference significant.
    """
    family = [paired(np.subtract(other, reference)) for other in others if other is not None]
    shown = iter(zip(family, verdicts(family), strict=True))
    cells = []
    for other in others:
        cell = ""
        if other is not None:
            difference, verdict = next(shown)
            cell = interval(difference) + " *" * (verdict != "no difference seen")
        cells.append(cell)
    return cells


def with_interval(values: Sequence[float], form: str = ".2f") -> str:
    """The mean of one number per seed and half of its 95 % interval, as ``1.20 ± 0.40``."""
    found = paired(values)
    half = f" ± {found.half_width:{form}}" if np.isfinite(found.half_width) else ""
    return f"{found.mean:{form}}{half}"


def interval(difference: Difference, form: str = ".2f") -> str:
    """A difference and its 95 % interval, as ``1.20 (0.80 to 1.60)``."""
    mean, half = difference.mean, difference.half_width
    if not np.isfinite(half):
        return f"{mean:+{form}} (no interval: n = {difference.num_seeds})"
    return f"{mean:+{form}} ({mean - half:+{form}} to {mean + half:+{form}})"
