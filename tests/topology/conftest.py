import jaxtyping
import pytest


@pytest.fixture
def as_users_run_it():
    """Without the type checks of the tests, which stop a wrong type before our own errors do."""
    jaxtyping.config.update("jaxtyping_disable", True)
    yield
    jaxtyping.config.update("jaxtyping_disable", False)
