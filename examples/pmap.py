"""A training loop for ``jax.pmap`` made decentralized: lines marked # + are new, # ~ changed.

Lines that begin with # - are left out. In place of the mean of all devices' gradients, each device
takes its own and mixes parameters with its two neighbours. Each has seen at most five of the ten
digits, so none could tell more than five apart on its own.
"""

import jax
import jax.numpy as jnp
import numpy as np
import optax
from flax import jax_utils
from flax import linen as nn
from flax.training.train_state import TrainState
from sklearn.datasets import load_digits

import cdjax  # +

# Four devices of a CPU, for the example; leave these lines out where there are accelerators.
jax.config.update("jax_platforms", "cpu")
jax.config.update("jax_num_cpu_devices", 4)

BATCH, STEPS = 32, 200


class Net(nn.Module):
    """A perceptron of one hidden layer."""

    @nn.compact
    def __call__(self, x):
        """The logits of images."""
        return nn.Dense(10)(nn.relu(nn.Dense(64)(x)))


def train_step(state, batch):
    """One step of one device."""

    def loss_fn(params):
        logits = state.apply_fn(params, batch[0])
        return optax.softmax_cross_entropy_with_integer_labels(logits, batch[1]).mean()

    loss, grads = jax.value_and_grad(loss_fn)(state.params)
    # - grads = jax.lax.pmean(grads, axis_name="devices")
    loss = jax.lax.pmean(loss, axis_name="devices")
    return state.apply_gradients(grads=grads), loss


def main():
    """Trains, and prints what the devices have learned."""
    images, labels = load_digits(return_X_y=True)
    images = (images / 16).astype(np.float32)
    train, test_images, test_labels = (images[:-360], labels[:-360]), images[-360:], labels[-360:]
    num_devices = jax.local_device_count()

    mix = cdjax.mixing.ppermute(cdjax.topology.ring(num_devices), "devices")  # +
    tx = optax.chain(optax.sgd(0.3), cdjax.consensus(mix))  # ~
    model = Net()
    params = model.init(jax.random.key(0), images[:1])
    state = TrainState.create(apply_fn=model.apply, params=params, tx=tx)
    state = jax_utils.replicate(state)
    parts = cdjax.data.partition(train[1], num_devices, scheme="shards", seed=3)  # +
    own, sizes = cdjax.data.deal(train, parts)  # +
    order = cdjax.data.batch_indices(sizes, BATCH, first_step=0, num_steps=STEPS, seed=0)  # ~
    step = jax.pmap(train_step, axis_name="devices")
    for rows in order:
        state, loss = step(state, cdjax.data.take_batch(own, rows))  # ~

    def accuracy(params):
        logits = model.apply(params, test_images)
        return jnp.mean(logits.argmax(-1) == test_labels)

    reached = jax.pmap(accuracy)(state.params)
    print(f"loss {loss[0]:.3f}, accuracy {reached.mean():.1%} ({reached.min():.1%} or more)")
    classes = max(len(np.unique(train[1][part])) for part in parts)
    assert num_devices == 4 and classes <= 5 and reached.min() > 0.7


if __name__ == "__main__":
    main()
