"""Leaves that stay with their agents."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

import cdjax
from cdjax import mixing, topology
from tests.trees import assert_trees_close, random_stacked_tree, train

pytestmark = pytest.mark.sampled(3)

MIX = mixing.dense(topology.ring(5))
TREE = random_stacked_tree(5)  # scalar, bias, layer/kernel, layer/empty


@pytest.mark.parametrize(
    "leaves", ["layer/.*|bias", ["bias", "layer/.*"], lambda path: path[0] in "lb"]
)
def test_personal_leaves_stay_and_are_not_sent(leaves):
    sent = []

    def recorded(tree, step=0):
        sent.append(tree)
        return MIX(tree, step)

    mixed = mixing.personal(recorded, leaves)(TREE)
    assert_trees_close(mixed, {**TREE, "scalar": MIX(TREE)["scalar"]})
    assert list(sent[0]) == ["scalar"]


def test_an_agent_trains_its_personal_leaves_alone(x64):
    centers = {"shared": jnp.arange(5.0), "head": {"w": jnp.arange(5.0)}}
    gradient = lambda x: jax.tree.map(lambda a, c: a - c, x, centers)  # noqa: E731
    mix = mixing.personal(MIX, "head/.*")
    start = jax.tree.map(jnp.zeros_like, centers)
    makes = [cdjax.cdmsgd, cdjax.gradient_tracking, cdjax.exact_diffusion, cdjax.extra]
    for make in (*makes, cdjax.decentlam, cdjax.quasi_global_momentum):
        x, state = train(make(0.1, mix), gradient, start, 600)
        x = cdjax.eval_params(state, x)
        np.testing.assert_allclose(x["head"]["w"], np.arange(5.0), atol=1e-9)
        assert np.ptp(x["shared"]) < 0.6


@pytest.mark.parametrize(
    ("leaves", "message"),
    [
        ("Dense_1/.*", r"leaves: 'Dense_1/\.\*' matches none of 'bias', 'layer/empty', 'layer"),
        (["bias", "kernel"], "leaves: 'kernel' matches none of"),
        (lambda path: False, "leaves: the function matches none of"),
    ],
)
def test_what_matches_no_leaf_is_an_error(leaves, message):
    with pytest.raises(ValueError, match=message):
        mixing.personal(MIX, leaves)(TREE)


def test_code_of_one_agent_names_its_leaves_outside_of_for_each():
    mix = mixing.personal(mixing.for_each(MIX), "bias")
    mixed = jax.vmap(lambda tree: mix(tree))(TREE)
    assert_trees_close(mixed, mixing.personal(MIX, "bias")(TREE))
    with pytest.raises(ValueError, match="leaves: 'bias' matches none of '0', '1'"):
        jax.vmap(mixing.for_each(mixing.personal(MIX, "bias")))(TREE)


def test_a_mask_around_consensus_says_the_same():
    mask = {"scalar": True, "bias": False, "layer": {"kernel": True, "empty": True}}
    masked = optax.chain(optax.adam(0.1), optax.masked(cdjax.consensus(MIX), mask))
    personal = optax.chain(optax.adam(0.1), cdjax.consensus(mixing.personal(MIX, "bias")))
    gradient = lambda x: jax.tree.map(jnp.sin, x)  # noqa: E731
    ours, theirs = (train(tx, gradient, TREE, 5)[0] for tx in (personal, masked))
    assert_trees_close(ours, theirs)
