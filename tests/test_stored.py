"""What is stored keeps its values and derivatives, and costs less memory than what is not."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from cdjax._stored import gradient_kept, stored, written_over
from cdjax.models import conv_general_dilated
from tests.trees import assert_trees_close

TREE = {"x": jnp.arange(6.0).reshape(3, 2), "count": jnp.array([1, 2, 3])}
STEP = jnp.int32(7)
NHWC = ("NHWC", "HWIO", "NHWC")


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


def added(tree, others, step):
    """``tree + others``, in the memory of ``tree``."""
    return written_over(
        lambda tree, others: jax.tree.map(jnp.add, tree, others), tree, others, step
    )


@pytest.mark.parametrize("transform", [lambda f: f, jax.jit, lambda f: jax.jit(jax.vmap(f))])
@pytest.mark.parametrize("step", [0, STEP])
def test_what_is_written_over_its_input_has_the_values_of_the_function(transform, step):
    found = transform(lambda tree: added(tree, tree, step))(TREE)
    assert_trees_close(found, jax.tree.map(lambda x: 2 * x, TREE), rtol=0)


def test_it_may_be_of_other_dtypes_and_not_be_finite():
    tree = {"x": jnp.array([jnp.nan, jnp.inf]), "h": jnp.ones(2, jnp.bfloat16), "none": jnp.ones(0)}
    found = jax.jit(lambda tree, step: added(tree, tree, step))(tree, STEP)
    assert_trees_close(found, jax.tree.map(lambda x: x + x, tree), rtol=0)


def test_what_does_not_fit_its_input_is_computed_all_the_same():
    total = lambda step: written_over(lambda x, _: jnp.sum(x), TREE["x"], (), step)  # noqa: E731
    np.testing.assert_allclose(jax.jit(total)(STEP), 15)


@pytest.mark.parametrize("derivative", [jax.grad, jax.jacfwd, lambda f: jax.grad(jax.grad(f))])
def test_derivatives_pass_through_what_is_written_over(derivative, x64):
    def product(x, keep):
        # One factor is in the tree, one among the others, and one is what the function refers to.
        fn = lambda tree, other: tree * other * jnp.sin(x)  # noqa: E731
        return written_over(fn, x**2, x**3, STEP) if keep else fn(x**2, x**3)

    found, expected = (
        jax.jit(derivative(lambda x, keep=keep: product(x, keep)))(0.7) for keep in (True, False)
    )
    np.testing.assert_allclose(found, expected, rtol=1e-14)


@pytest.mark.parametrize(
    "derivative",
    [jax.grad, jax.jacfwd, jax.hessian, lambda f: jax.grad(lambda x: jax.grad(f)(x).sum())],
)
@pytest.mark.parametrize("transform", [lambda f: f, jax.jit])
def test_a_kept_gradient_is_the_same_gradient(derivative, transform, x64):
    def loss(x, keep):
        y = jnp.sin(x)
        return jnp.prod((gradient_kept(y) if keep else y) + 2)

    x = jnp.linspace(0.1, 0.5, 3)
    kept, plain = (transform(derivative(lambda x, k=k: loss(x, k)))(x) for k in (True, False))
    np.testing.assert_allclose(kept, plain, rtol=1e-13)
    stacked = jnp.stack([x, 2 * x])
    kept, plain = (jax.vmap(derivative(lambda x, k=k: loss(x, k)))(stacked) for k in (True, False))
    np.testing.assert_allclose(kept, plain, rtol=1e-13)
    assert jax.grad(loss)(jnp.ones(0), True).shape == (0,)


@pytest.mark.skipif(jax.default_backend() != "cpu", reason="elsewhere nothing is done")
def test_a_kept_gradient_is_computed_once():
    def loss(kernel, bias, images, keep):
        y = conv_general_dilated(images, kernel, (1, 1), "SAME", dimension_numbers=NHWC)
        y = y + bias[None, None, None]
        return jnp.sum(images * jax.nn.relu(gradient_kept(y) if keep else y))

    def selections(keep):
        gradients = jax.jit(jax.grad(loss, (0, 1, 2)), static_argnums=3)
        args = jnp.ones((3, 3, 4, 4)), jnp.ones(4), jnp.ones((8, 8, 8, 4))
        return gradients.lower(*args, keep).compile().as_text().count(" select(")

    assert selections(keep=True) == 1 < selections(keep=False)
