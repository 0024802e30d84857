import pytest

from tests.system.soak import Options, soak


@pytest.mark.slow
def test_a_run_that_is_killed_at_random_ends_as_one_that_is_not():
    outcome = soak(Options(minutes=0.4, mean_life=8))
    assert outcome.kills and outcome.steps and outcome.differences == []
