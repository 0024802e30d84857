"""What is stored keeps its values and derivatives, and costs less memory than what is not."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from cdjax._stored import stored
from tests.trees import assert_trees_close

TREE = {"x": jnp.arange(6.0).reshape(3, 2), "count": jnp.array([1, 2, 3])}
STEP = jnp.int32(7)


@pytest.mark.parametrize("transform", [lambda f: f, jax.jit, lambda f: jax.jit(jax.vmap(f))])
def test_values_and_dtypes_stay(transform):
    assert_trees_close(transform(lambda tree: stored(tree, STEP))(TREE), TREE, rtol=0)


def test_steps_may_differ_along_a_mapped_axis():
    found = jax.jit(jax.vmap(stored))(TREE, jnp.arange(3))
    assert_trees_close(found, TREE, rtol=0)


@pytest.mark.parametrize("derivative", [jax.grad, jax.jacfwd, lambda f: jax.grad(jax.grad(f))])
def test_derivatives_pass_through(derivative, x64):
    def cube(x, keep):
        kept = stored({"x": x**2}, STEP)["x"] if keep else x**2
        return kept * jnp.sin(x)

    found, expected = (
        jax.jit(derivative(lambda x, keep=keep: cube(x, keep)))(0.7) for keep in (True, False)
    )
    np.testing.assert_allclose(found, expected, rtol=1e-14)


def test_a_scan_and_its_gradient_are_those_without():
    def last(x, keep):
        def turn(carry, step):
            new = jnp.cos(carry) + step
            return (stored(new, step) if keep else new), None

        return jnp.sum(jax.lax.scan(turn, x, jnp.arange(4))[0])

    for find in (last, jax.grad(last)):
        kept, plain = (jax.jit(find, static_argnums=1)(TREE["x"], keep) for keep in (True, False))
        np.testing.assert_allclose(kept, plain, rtol=1e-6)


@pytest.mark.skipif(jax.default_backend() != "cpu", reason="elsewhere nothing is done")
def test_what_is_stored_can_be_written_over_what_it_was_computed_from():
    def step(x, c, number, keep):
        hold = stored if keep else lambda tree, number: tree
        message = hold(x + c, number)
        mixed = hold(sum(message[(np.arange(5) + i) % 5] for i in range(5)), number)
        return x + mixed, c + (mixed - message)

    def copies(keep):
        program = jax.jit(step, static_argnums=3, donate_argnums=(0, 1))
        x = jnp.ones((5, 1000))
        compiled = program.lower(x, x, STEP, keep).compile()
        return compiled.memory_analysis().temp_size_in_bytes / x.nbytes

    assert copies(keep=True) < 2.1 < 4 < copies(keep=False)  # the message and what comes of it
