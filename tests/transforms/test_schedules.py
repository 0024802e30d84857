import numpy as np
import pytest

import cdjax


def test_diminishing_follows_the_formula(x64):
    schedule = cdjax.diminishing_schedule(0.1, power=0.75, offset=20)
    steps = np.array([0, 1, 10, 1000])
    np.testing.assert_allclose(schedule(steps), 0.1 * 20 / (steps**0.75 + 20), rtol=1e-12)


def test_diminishing_steps_stay_floats_beyond_the_largest_int32_power():
    assert float(cdjax.diminishing_schedule(0.1, power=1.0)(2_000_000_000)) > 0


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"power": 0.5}, r"power is 0.5; it must lie in \(0.5, 1\]"),
        ({"power": 1.1}, "power is 1.1"),
        ({"offset": 0.0}, r"offset is 0.0; it must lie in \(0, inf\)"),
        ({"init_value": -1.0}, "init_value is -1.0"),
    ],
)
def test_arguments_out_of_range_are_named(options, message):
    with pytest.raises(ValueError, match=message):
        cdjax.diminishing_schedule(**{"init_value": 0.1} | options)
