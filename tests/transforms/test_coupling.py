"""Which transformations of optax couple stacked agents, and that per_agent parts all of them."""

import inspect
import re
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

import cdjax
from cdjax import mixing, topology, training
from cdjax._coupling import coupling_parts

PAGE = Path(__file__).parents[2] / "docs" / "your-code.md"
NUM_AGENTS = 3

# What the factories need; those of one argument, a step size, and those of none need no row.
NEEDED = {
    "adaptive_grad_clip": (0.01,),
    "apply_if_finite": (optax.sgd(0.1), 5),
    "clip": (0.1,),
    "clip_by_block_rms": (0.5,),
    "clip_by_global_norm": (1.0,),
    "ema": (0.9,),
    "lookahead": None,  # takes pairs of parameters
    "optimistic_adam": None,  # deprecated
    "scale": (0.1,),
    "scale_by_factored_rms": (),
    "scale_by_schedule": (lambda step: 0.1,),
    "trace": (0.9,),
    "contrib.mechanize": (optax.sgd(0.1),),
    "contrib.schedule_free": (optax.sgd(0.1), 0.1),
    "contrib.dog": (),
    "contrib.dowg": (),
    "contrib.scale_by_muon": None,  # takes the shapes of one agent's matrices
    "contrib.split_real_and_imaginary": (optax.sgd(0.1),),
    "add_decayed_weights": (0.1,),
}
# Not one transformation: they combine others, and couple agents if those do.
COMBINE = {
    "chain", "named_chain", "partition", "multi_transform", "masked", "freeze", "flatten",
    "selective_transform", "conditionally_mask", "conditionally_transform", "inject_hyperparams",
    "inject_stateful_hyperparams", "with_extra_args_support", "stateless",
    "stateless_with_tree_map", "snapshot", "measure_with_ema", "contrib.sam",
}  # fmt: skip
# They draw random numbers, and so differ from agent to agent only in per_agent: test_agents.py.
DRAW = {
    "add_noise", "noisy_sgd", "contrib.dpsgd", "contrib.differentially_private_aggregate",
}  # fmt: skip
# They take the loss, or the loss as a function: tests/training/test_extra_args.py.
TAKE_THE_LOSS = {
    "lbfgs", "polyak_sgd", "scale_by_polyak", "scale_by_backtracking_linesearch",
    "scale_by_zoom_linesearch", "contrib.momo", "contrib.momo_adam",
    "contrib.reduce_on_plateau", "contrib.sophia",
}  # fmt: skip


def factories():
    """The transformations by name, each a function without arguments."""
    for prefix, module in (("", optax), ("contrib.", optax.contrib)):
        for name, make in vars(module).items():
            full = prefix + name
            if not inspect.isfunction(make) or name.startswith("_"):
                continue
            if full in COMBINE | DRAW | TAKE_THE_LOSS or NEEDED.get(full, ()) is None:
                continue
            signature = inspect.signature(make)
            if "Transformation" not in str(signature.return_annotation) and full not in NEEDED:
                continue
            needed = [p.name for p in signature.parameters.values() if p.default is p.empty]
            args = NEEDED.get(full, (0.1,) if needed == ["learning_rate"] else ())
            yield full, lambda make=make, args=args: make(*args)


FACTORIES = dict(factories())


def tree(seed, *, with_nan=False):
    """Agents' leaves of very different sizes, so that a common norm shows."""
    rng = np.random.default_rng(seed)
    sizes = 4.0 ** np.arange(NUM_AGENTS)
    leaves = {
        "kernel": sizes[:, None, None] * rng.normal(size=(NUM_AGENTS, 4, 3)),
        "bias": sizes[:, None] * rng.normal(size=(NUM_AGENTS, 3)),
    }
    if with_nan:  # in the first agent
        leaves["bias"][0, 0] = np.nan
    return jax.tree.map(jnp.asarray, leaves)


PARAMS, GRADIENTS = tree(0), [tree(1), tree(2), tree(3), tree(4, with_nan=True)]


def updates_of(tx, params, grads):
    """The updates of some steps."""

    @jax.jit
    def steps(params, grads):
        state, found = tx.init(params), []
        for g in grads:
            updates, state = tx.update(g, state, params)
            params = optax.apply_updates(params, updates)
            found.append(updates)
        return found

    return steps(params, grads)


def are_equal(found, expected):
    """Relative to the largest number of each agent and leaf: the first steps of some are tiny."""

    def leaf(a, b):
        a, b = (np.asarray(x).reshape(NUM_AGENTS, -1) for x in (a, b))
        scale = np.nanmax(np.abs(b), axis=1, keepdims=True, initial=1e-30)
        return np.allclose(a / scale, b / scale, rtol=0, atol=1e-3, equal_nan=True)

    return all(map(leaf, jax.tree.leaves(found), jax.tree.leaves(expected)))


def couples(make):
    """Whether stacked agents do not step as each would alone; in per_agent they all do."""
    own = [
        updates_of(make(), *jax.tree.map(lambda x: x[j], (PARAMS, GRADIENTS)))  # noqa: B023
        for j in range(NUM_AGENTS)
    ]
    alone = jax.tree.map(lambda *xs: np.stack(xs), *own)
    assert are_equal(updates_of(cdjax.per_agent(make()), PARAMS, GRADIENTS), alone)
    try:
        return not are_equal(updates_of(make(), PARAMS, GRADIENTS), alone)
    except (TypeError, ValueError):
        return True


def listed(part):
    """What docs/your-code.md lists between two marks."""
    found = re.search(rf"<!-- {part} -->\n(.*?)<!-- /{part} -->", PAGE.read_text(), re.DOTALL)
    return re.findall(r"`(\S+)`", found[1])


@pytest.mark.slow
def test_the_page_lists_what_couples_agents():
    with jax.numpy_rank_promotion("allow"):  # which some of optax needs
        measured = {name: couples(make) for name, make in FACTORIES.items()}
    assert listed("coupling") == sorted(name for name in measured if measured[name])
    assert listed("elementwise") == sorted(name for name in measured if not measured[name])


def test_parts_that_couple_are_found_in_those_transformations_alone():
    found = {name for name, make in FACTORIES.items() if coupling_parts(make())}
    assert found == set(listed("coupling"))


CLIPPED = optax.chain(optax.clip_by_global_norm(1.0), optax.sgd(0.1))
MIX = mixing.dense(topology.ring(NUM_AGENTS))


@pytest.mark.parametrize(
    "make",
    [
        lambda tx: cdjax.adapt_then_combine(tx, MIX),
        lambda tx: cdjax.gossip(tx, MIX),
        lambda tx: cdjax.outer(tx, optax.sgd(1.0), MIX, period=2),
        lambda tx: cdjax.fedavg(tx, local_steps=2),
        lambda tx: training.train_step(lambda *args: 0.0, tx),
        lambda tx: training.train_step(lambda *args: 0.0, optax.chain(tx, cdjax.consensus(MIX))),
    ],
)
def test_who_sees_the_whole_optimizer_warns_of_it(make):
    with pytest.warns(UserWarning, match="clip_by_global_norm, which takes .* cdjax.per_agent"):
        make(CLIPPED)
    make(cdjax.per_agent(CLIPPED))  # a warning would be an error


@pytest.mark.parametrize("around", [lambda mix: mix, lambda mix: mixing.every(2, mix)])
def test_under_vmap_there_is_nothing_to_warn_of(around):
    cdjax.adapt_then_combine(CLIPPED, around(mixing.for_each(MIX)))
