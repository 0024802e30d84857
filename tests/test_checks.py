import jax
import jax.numpy as jnp
import numpy as np
import pytest

from cdjax import _checks


def test_a_stacked_tree_passes_and_another_size_names_path_sizes_and_remedy():
    tree = {"dense": {"kernel": np.ones((5, 2))}, "none": None}
    _checks.check_stacked(tree, 5)
    with pytest.raises(ValueError) as error:
        _checks.check_stacked(tree, 4)
    assert str(error.value) == (
        "leaf 'dense/kernel' has leading axis 5, but the topology has 4 agents; "
        "stack parameters with cdjax.replicate(params, 4)"
    )


def test_the_size_of_a_stacked_tree_is_its_leading_axis():
    assert _checks.stacked_size({"a": jnp.ones((3, 2)), "b": jnp.ones(3)}) == 3
    with pytest.raises(ValueError, match="no leaves"):
        _checks.stacked_size({})
    with pytest.raises(ValueError, match="leaf 'b' has leading axis 4"):
        _checks.stacked_size({"a": jnp.ones(3), "b": jnp.ones(4)})
    with pytest.raises(ValueError, match="leaf 'a' has no axes"):
        _checks.stacked_size({"a": 1.0})


def test_ranges_are_closed_unless_said():
    _checks.check_range("x", 0, low=0, high=1)
    with pytest.raises(ValueError, match=r"x is 0; it must lie in \(0, 1\]"):
        _checks.check_range("x", 0, low=0, high=1, low_open=True)
    with pytest.raises(ValueError, match=r"x is nan; it must lie in \(-inf, inf\)"):
        _checks.check_range("x", np.nan)


def test_traced_values_and_schedules_pass_the_ranges():
    _checks.check_range("x", lambda step: -1.0, low=0)
    jax.jit(lambda x: _checks.check_range("x", x, low=0))(-1.0)


@pytest.mark.parametrize("num_agents", [2.5, "4", True])
def test_the_number_of_agents_is_a_whole_number(num_agents):
    with pytest.raises(ValueError, match="num_agents must be a whole number, not"):
        _checks.check_num_agents.__wrapped__(num_agents)


@pytest.mark.parametrize("value", [2.0, "2", True, None, [2], np.ones(1, int)])
def test_counts_are_whole_numbers(value):
    with pytest.raises(ValueError, match="period must be a whole number, not"):
        _checks.check_count.__wrapped__("period", value, low=1)


@pytest.mark.parametrize("value", [2, np.int64(2), jnp.int32(2), np.array(2)])
def test_counts_may_come_from_any_library(value):
    _checks.check_count("period", value, low=1)
    with pytest.raises(ValueError, match=r"period is 2; it must lie in \[3, inf\)"):
        _checks.check_count("period", value, low=3)


@pytest.mark.parametrize("key", [jax.random.key(0), jax.random.PRNGKey(0)])
def test_keys_are_typed_or_raw_and_one(key):
    _checks.check_key(key)
    jax.jit(_checks.check_key)(key)
    with pytest.raises(ValueError, match="give one random key"):
        _checks.check_key(jax.random.split(key))


def test_booleans_among_the_parameters_are_named():
    with pytest.raises(ValueError, match="cdsgd: leaf 'a/b' holds booleans"):
        _checks.check_params({"a": {"b": jnp.ones(3, bool)}}, "cdsgd")
