"""Cases that take more than ten seconds, of tests whose other cases do not."""

import pytest


def slow(*cases):
    """The cases of a parametrized test, a tuple each where it has several names, marked as slow."""
    values = [case if isinstance(case, tuple) else (case,) for case in cases]
    return [pytest.param(*case, marks=pytest.mark.slow) for case in values]
