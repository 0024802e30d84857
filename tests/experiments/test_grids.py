"""The choice of a step size from a grid that grows."""

import math

import pytest

from experiments.run.errors import UsageError
from experiments.run.grids import best_step_sizes, beyond


def test_a_grid_grows_where_its_end_is_the_best():
    assert beyond([0.01, 0.03, 0.1], [3.0, 1.0, 2.0]) == []
    assert beyond([0.01, 0.03, 0.1], [1.0, 2.0, 3.0]) == [0.003]
    assert beyond([0.01, 0.03, 0.1], [3.0, 2.0, 1.0]) == [0.3]
    assert beyond([0.1], [1.0]) == [0.03, 0.3]


def test_each_name_has_the_best_of_its_own_grid_and_nothing_is_tried_twice():
    optima, seen = {"small": 0.003, "large": 0.9, "within": 0.03}, []

    def losses(tried):
        seen.extend(tried)
        return [abs(math.log(rate / optima[name])) for name, rate in tried]

    chosen = best_step_sizes([*optima], (0.01, 0.03, 0.1), losses)
    assert chosen == optima
    assert len(seen) == len({*seen})
    assert {rate for name, rate in seen if name == "within"} == {0.01, 0.03, 0.1}


def test_a_grid_without_a_best_ends():
    with pytest.raises(UsageError, match="--learning-rates: no best one for X; give others"):
        best_step_sizes(["x"], (0.1,), lambda tried: [-r for _, r in tried], label=str.upper)


def test_a_name_that_diverges_everywhere_is_tried_with_smaller_steps():
    chosen = best_step_sizes(
        ["x"], (1.0, 3.0), lambda tried: [abs(r - 0.3) if r < 1 else math.inf for _, r in tried]
    )
    assert chosen == {"x": 0.3}
