"""A Flax training script made decentralized: lines that end in # + are new, in # ~ changed.

Eight agents on a ring, each with its own part of scikit-learn's handwritten digits.
"""

import jax
import jax.numpy as jnp
import numpy as np
import optax
from flax import linen as nn
from flax.training.train_state import TrainState
from sklearn.datasets import load_digits

import cdjax  # +

AGENTS, BATCH, STEPS = 8, 16, 150


class Net(nn.Module):
    """A perceptron of one hidden layer."""

    @nn.compact
    def __call__(self, x):
        """The logits of images."""
        return nn.Dense(10)(nn.relu(nn.Dense(64)(x)))


def train_step(state, batch):
    """One step, written for one agent; it does not change."""

    def loss_fn(params):
        images, labels = batch
        logits = state.apply_fn(params, images)
        return optax.softmax_cross_entropy_with_integer_labels(logits, labels).mean()

    loss, grads = jax.value_and_grad(loss_fn)(state.params)
    return state.apply_gradients(grads=grads), loss


def main():
    """Trains, and prints what the agents and their mean have learned."""
    images, labels = load_digits(return_X_y=True)
    images = (images / 16).astype(np.float32)
    train = images[:-360], labels[:-360]
    test_images, test_labels = images[-360:], labels[-360:]

    model = Net()
    mix = cdjax.mixing.auto(cdjax.topology.ring(AGENTS))  # +
    tx = optax.chain(
        optax.clip_by_global_norm(1.0),  # each agent's own norm
        optax.adam(3e-3),
        cdjax.consensus(cdjax.mixing.for_each(mix)),  # +
    )
    params = model.init(jax.random.key(0), images[:1])
    state = TrainState.create(apply_fn=model.apply, params=params, tx=tx)
    state = cdjax.replicate(state, AGENTS)  # +
    parts = cdjax.data.partition(train[1], AGENTS, scheme="dirichlet", alpha=1.0)  # +
    own, sizes = cdjax.data.deal(train, parts)  # +
    order = cdjax.data.batch_indices(sizes, BATCH, first_step=0, num_steps=STEPS, seed=0)  # ~

    step = jax.jit(jax.vmap(train_step))  # ~
    for rows in order:
        state, loss = step(state, cdjax.data.take_batch(own, rows))  # ~

    def accuracy(params):
        return jnp.mean(model.apply(params, test_images).argmax(-1) == test_labels)

    of_agents = jax.vmap(accuracy)(state.params)  # ~
    of_mean = accuracy(cdjax.mean_params(state.params))  # =
    distance = cdjax.metrics.consensus_distance(state.params)  # =
    print(f"loss {loss.mean():.3f}, accuracy {of_agents.mean():.1%} of the agents, ", end="")
    print(f"{of_mean:.1%} of their mean, consensus distance {distance:.2f}")
    assert of_agents.min() > 0.8 and of_mean > 0.85


if __name__ == "__main__":
    main()
