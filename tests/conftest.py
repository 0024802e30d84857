"""Eight virtual CPU devices, strict JAX settings, and runtime shape checks of cdjax itself."""

import os

os.environ["XLA_FLAGS"] = (
    os.environ.get("XLA_FLAGS", "") + " --xla_force_host_platform_device_count=8"
)
os.environ.setdefault("JAX_PLATFORMS", "cpu")

import flax.linen  # noqa: F401
import jax
import networkx  # noqa: F401
import optax  # noqa: F401
import pytest
from jaxtyping import install_import_hook

import tests.typechecker  # noqa: F401

with install_import_hook("cdjax", "tests.typechecker.typechecker"):
    import cdjax  # noqa: F401
    import cdjax.data
    import cdjax.models
    import cdjax.training  # noqa: F401

jax.config.update("jax_numpy_rank_promotion", "raise")


@pytest.fixture
def x64():
    """Float64 for the tests of mathematics."""
    with jax.enable_x64(True):
        yield
