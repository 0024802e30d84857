"""A Flax NNX training script made decentralized: lines that end in # + are new, in # ~ changed.

Batch statistics and dropout masks are each agent's own; parameters alone are mixed.
"""

import jax
import jax.numpy as jnp
import numpy as np
import optax
from flax import nnx
from sklearn.datasets import load_digits

import cdjax  # +

AGENTS, BATCH, STEPS = 8, 16, 150


class Net(nnx.Module):
    """A perceptron with batch normalization and dropout."""

    def __init__(self, rngs):
        self.hidden, self.norm = nnx.Linear(64, 64, rngs=rngs), nnx.BatchNorm(64, rngs=rngs)
        self.dropout, self.out = nnx.Dropout(0.2, rngs=rngs), nnx.Linear(64, 10, rngs=rngs)

    def __call__(self, x):
        """The logits of images."""
        return self.out(self.dropout(nnx.relu(self.norm(self.hidden(x)))))


def loss_fn(model, batch):
    """Of one agent; it does not change."""
    images, labels = batch
    return optax.softmax_cross_entropy_with_integer_labels(model(images), labels).mean()


@nnx.jit
def train_step(model, optimizer, batch):
    """One step of all agents."""
    loss, grads = cdjax.agent_map(nnx.value_and_grad(loss_fn))(model, batch)  # ~
    optimizer.update(model, grads)
    return loss


def main():
    """Trains, and prints what the agents have learned."""
    images, labels = load_digits(return_X_y=True)
    images = (images / 16).astype(np.float32)
    train = images[:-360], labels[:-360]

    mix = cdjax.mixing.auto(cdjax.topology.ring(AGENTS))  # +
    model = cdjax.replicate(Net(nnx.Rngs(0)), AGENTS, keys="split")  # ~
    optimizer = nnx.Optimizer(model, cdjax.cdmsgd(0.03, mix), wrt=nnx.Param)  # ~
    own, sizes = cdjax.data.deal(train, cdjax.data.partition(train[1], AGENTS))  # +
    order = cdjax.data.batch_indices(sizes, BATCH, first_step=0, num_steps=STEPS, seed=0)  # ~
    for rows in order:
        loss = train_step(model, optimizer, cdjax.data.take_batch(own, rows))  # ~

    nnx.update(model, cdjax.eval_params(optimizer.opt_state, nnx.state(model, nnx.Param)))  # +
    model.eval()
    logits = nnx.vmap(lambda model, x: model(x), in_axes=(0, None))(model, images[-360:])  # ~
    accuracy = jnp.mean(logits.argmax(-1) == labels[-360:][None], axis=-1)
    print(f"loss {loss.mean():.3f}, accuracy {accuracy.mean():.1%} ({accuracy.min():.1%} or more)")
    assert accuracy.min() > 0.87
    statistics = jax.device_get(model.norm.mean[...])
    assert np.ptp(statistics, axis=0).max() > 0  # each agent has seen other images


if __name__ == "__main__":
    main()
