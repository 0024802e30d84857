"""Gradient accumulation made decentralized: lines that end in # + are new, in # ~ changed.

Two small batches make one step, and agents mix once per step. ``MultiSteps`` goes around the
optimizer only; consensus comes behind it, and ``mixing.every(2, mix)`` waits for the step.

Around everything, ``MultiSteps(chain(optimizer, consensus(mix)), 2)``, the numbers are the same;
the script compares them over a few steps. But optax runs what is inside at every small batch and
discards the result of all but the last, so every message is sent twice.
"""

import jax
import jax.numpy as jnp
import numpy as np
import optax
from flax import linen as nn
from flax.training.train_state import TrainState
from sklearn.datasets import load_digits

import cdjax  # +

AGENTS, BATCH, SMALL_BATCHES, STEPS = 8, 8, 2, 150


class Net(nn.Module):
    """A perceptron of one hidden layer."""

    @nn.compact
    def __call__(self, x):
        """The logits of images."""
        return nn.Dense(10)(nn.relu(nn.Dense(64)(x)))


def train_step(state, batch):
    """One small batch, written for one agent; it does not change."""

    def loss_fn(params):
        logits = state.apply_fn(params, batch[0])
        return optax.softmax_cross_entropy_with_integer_labels(logits, batch[1]).mean()

    return state.apply_gradients(grads=jax.grad(loss_fn)(state.params))


def mixed_inside(optimizer, mix):
    """For the comparison: accumulation around consensus too."""
    inside = optax.chain(optimizer, cdjax.consensus(cdjax.mixing.for_each(mix)))  # =
    return optax.MultiSteps(inside, SMALL_BATCHES).gradient_transformation()


def trained(mix, train, *, steps=STEPS, around=False):
    """The agents' parameters after a number of steps, each of several small batches."""
    sgd = optax.chain(optax.clip_by_global_norm(1.0), optax.sgd(0.3))
    tx = optax.MultiSteps(sgd, SMALL_BATCHES).gradient_transformation()
    rarely = cdjax.mixing.every(SMALL_BATCHES, mix)  # +
    tx = optax.chain(tx, cdjax.consensus(cdjax.mixing.for_each(rarely)))  # +
    if around:
        tx = mixed_inside(sgd, mix)

    model = Net()
    params = model.init(jax.random.key(0), train[0][:1])
    state = TrainState.create(apply_fn=model.apply, params=params, tx=tx)
    state = cdjax.replicate(state, AGENTS)  # +
    parts = cdjax.data.partition(train[1], AGENTS, scheme="shards", seed=1)  # +
    own, sizes = cdjax.data.deal(train, parts)  # +
    number = steps * SMALL_BATCHES
    order = cdjax.data.batch_indices(sizes, BATCH, first_step=0, num_steps=number, seed=0)  # ~
    step = jax.jit(jax.vmap(train_step))  # ~
    for rows in order:
        state = step(state, cdjax.data.take_batch(own, rows))  # ~
    return state.params


def main():
    """Trains in both ways, and counts how often the agents have talked."""
    images, labels = load_digits(return_X_y=True)
    images = (images / 16).astype(np.float32)
    train = images[:-360], labels[:-360]
    mix = cdjax.mixing.auto(cdjax.topology.ring(AGENTS))  # +
    counts = []

    def counted(tree, step=0):
        jax.debug.callback(lambda: counts.append(1))
        return mix(tree, step)

    def mixes(**options):
        counts.clear()
        params = trained(counted, train, steps=10, **options)
        jax.effects_barrier()
        return params, len(counts)

    (few, number), (same, needless) = mixes(), mixes(around=True)
    apart = max(jax.tree.leaves(jax.tree.map(lambda x, y: jnp.abs(x - y).max(), few, same)))
    print(f"10 steps take {number} mixes, inside of MultiSteps {needless}; apart by {apart:.0e}")
    assert number == 10 and needless == 10 * SMALL_BATCHES and apart < 1e-5

    params = trained(mix, train)
    logits = jax.vmap(Net().apply, (0, None))(params, images[-360:])
    accuracy = jnp.mean(logits.argmax(-1) == labels[-360:][None], axis=-1)
    print(f"accuracy {accuracy.mean():.1%} ({accuracy.min():.1%} or more) of the agents")
    assert accuracy.min() > 0.55  # with at most four of the ten digits each


if __name__ == "__main__":
    main()
