"""An Equinox training script made decentralized: lines that end in # + are new, in # ~ changed.

Eight agents on a ring. Each has seen at most four of the ten digits, so none could tell more than
four apart without its neighbours. Dropout draws from a key of each agent's own.
"""

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import optax
from sklearn.datasets import load_digits

import cdjax  # +

AGENTS, BATCH, STEPS = 8, 32, 300


class Net(eqx.Module):
    """A perceptron of one hidden layer, with dropout."""

    hidden: eqx.nn.Linear
    dropout: eqx.nn.Dropout
    out: eqx.nn.Linear

    def __init__(self, key):
        first, second = jax.random.split(key)
        self.hidden = eqx.nn.Linear(64, 64, key=first)
        self.dropout = eqx.nn.Dropout(0.1)
        self.out = eqx.nn.Linear(64, 10, key=second)

    def __call__(self, x, key=None):
        """The logits of one image; without a key nothing is dropped."""
        x = jax.nn.relu(self.hidden(x))
        return self.out(self.dropout(x, key=key, inference=key is None))


def loss_fn(model, images, labels, key):
    """Of one batch; it does not change."""
    logits = jax.vmap(model)(images, jax.random.split(key, len(images)))
    return optax.softmax_cross_entropy_with_integer_labels(logits, labels).mean()


def accuracy(model, images, labels):
    """The share of images that a model labels right."""
    return jnp.mean(jax.vmap(model)(images).argmax(-1) == labels)


def main():
    """Trains, and prints what the agents have learned."""
    images, labels = load_digits(return_X_y=True)
    images = (images / 16).astype(np.float32)
    train, test = (images[:-360], labels[:-360]), (images[-360:], labels[-360:])

    mix = cdjax.mixing.auto(cdjax.topology.ring(AGENTS))  # +
    tx = optax.chain(
        optax.clip_by_global_norm(1.0),  # each agent's own norm
        optax.sgd(0.3),
        cdjax.consensus(cdjax.mixing.for_each(mix)),  # +
    )

    def train_step(model, state, batch, key):
        """One step, written for one agent; it does not change."""
        loss, grads = eqx.filter_value_and_grad(loss_fn)(model, *batch, key)
        updates, state = tx.update(grads, state, eqx.filter(model, eqx.is_inexact_array))
        return eqx.apply_updates(model, updates), state, loss

    def init(key):
        model = Net(key)
        return model, tx.init(eqx.filter(model, eqx.is_inexact_array))

    # Not cdjax.replicate, which would take the rate of dropout for a parameter.
    model, state = eqx.filter_vmap(init, in_axes=None, axis_size=AGENTS)(jax.random.key(0))  # ~
    parts = cdjax.data.partition(train[1], AGENTS, scheme="shards", seed=1)  # +
    own, sizes = cdjax.data.deal(train, parts)  # +
    order = cdjax.data.batch_indices(sizes, BATCH, first_step=0, num_steps=STEPS, seed=0)  # ~
    step = eqx.filter_jit(eqx.filter_vmap(train_step))  # ~
    for rows, key in zip(order, jax.random.split(jax.random.key(1), (STEPS, AGENTS)), strict=True):
        model, state, loss = step(model, state, cdjax.data.take_batch(own, rows), key)  # ~

    reached = eqx.filter_vmap(accuracy, in_axes=(eqx.if_array(0), None, None))(model, *test)  # ~
    distance = cdjax.metrics.consensus_distance(eqx.filter(model, eqx.is_inexact_array))  # =
    print(f"loss {loss.mean():.3f}, accuracy {reached.mean():.1%} ({reached.min():.1%} or more)")
    print(f"consensus distance {distance:.2f}")
    classes = max(len(np.unique(train[1][part])) for part in parts)
    assert classes <= 4 and reached.min() > 0.65


if __name__ == "__main__":
    main()
