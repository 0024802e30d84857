"""Agents with unlike tasks: lines that end in # + are new, in # ~ changed.

Agent j labels the digits in its own way, by a permutation. No common model fits all of them; a
common hidden layer does, with a last layer that stays with each agent, by ``optax.masked``.
"""

import jax
import jax.numpy as jnp
import numpy as np
import optax
from flax import linen as nn
from sklearn.datasets import load_digits

import cdjax  # +

AGENTS, BATCH, STEPS = 8, 16, 200


class Net(nn.Module):
    """A perceptron of one hidden layer, the last one named head."""

    @nn.compact
    def __call__(self, x):
        """The logits of images."""
        return nn.Dense(10, name="head")(nn.relu(nn.Dense(64, name="hidden")(x)))


def trained(personal):
    """The mean test accuracy of the agents, each on its own labels."""
    images, labels = load_digits(return_X_y=True)
    images = (images / 16).astype(np.float32)
    codes = np.stack([np.random.default_rng(j).permutation(10) for j in range(AGENTS)])
    train = images[:-360], labels[:-360]
    own, sizes = cdjax.data.deal(train, cdjax.data.partition(train[1], AGENTS))  # +
    own = own[0], np.take_along_axis(codes, own[1], axis=1)

    model = Net()
    mix = cdjax.mixing.auto(cdjax.topology.ring(AGENTS))  # +
    is_mixed = {"params": {"hidden": True, "head": not personal}}  # +
    tx = optax.chain(optax.adam(3e-3), optax.masked(cdjax.consensus(mix), is_mixed))  # ~

    def loss_fn(params, batch):
        logits = model.apply(params, batch[0])
        return optax.softmax_cross_entropy_with_integer_labels(logits, batch[1]).mean()

    @jax.jit
    def step(params, state, batch):
        grads = cdjax.agent_map(jax.grad(loss_fn))(params, batch)  # ~
        updates, state = tx.update(grads, state, params)
        return optax.apply_updates(params, updates), state

    params = cdjax.replicate(model.init(jax.random.key(0), images[:1]), AGENTS)  # ~
    state = tx.init(params)
    order = cdjax.data.batch_indices(sizes, BATCH, first_step=0, num_steps=STEPS, seed=0)  # ~
    for rows in order:
        params, state = step(params, state, cdjax.data.take_batch(own, rows))  # ~
    found = jax.vmap(model.apply, (0, None))(params, images[-360:]).argmax(-1)  # ~
    return float(jnp.mean(found == codes[:, labels[-360:]]))


def main():
    """Compares common heads with personal ones."""
    common, personal = trained(personal=False), trained(personal=True)
    print(f"accuracy {common:.1%} with a common head, {personal:.1%} with personal heads")
    assert personal > 0.8 > common + 0.3


if __name__ == "__main__":
    main()
