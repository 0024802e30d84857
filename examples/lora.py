"""Low-rank adapters made decentralized: lines that end in # + are new, in # ~ changed.

A network that was trained on upright digits is adapted to digits that lie on their side, of which
each of eight agents has at most four kinds. The network itself is frozen: it is one for all
agents, without an agent axis, and never sent. The adapters A and B are learned and mixed.
"""

import jax
import jax.numpy as jnp
import numpy as np
import optax
from sklearn.datasets import load_digits

import cdjax  # +

AGENTS, RANK, BATCH, STEPS = 8, 8, 32, 300


def init(key):
    """A perceptron of one hidden layer."""
    first, second = jax.random.split(key)
    hidden = jax.random.normal(first, (64, 64)) / 8
    return {"hidden": hidden, "out": jax.random.normal(second, (64, 10)) / 8}


def init_adapters(key, base):
    """A small A and B = 0 for every matrix, so that the network starts as it is."""
    keys = dict(zip(base, jax.random.split(key, len(base)), strict=True))
    return {
        name: {
            "A": jax.random.normal(keys[name], (w.shape[0], RANK)) / 8,
            "B": jnp.zeros((RANK, w.shape[1])),
        }
        for name, w in base.items()
    }


def adapted(adapters, base):
    """The matrices W + AB."""
    return {name: w + adapters[name]["A"] @ adapters[name]["B"] for name, w in base.items()}


def predict(weights, images):
    """The logits."""
    return jax.nn.relu(images @ weights["hidden"]) @ weights["out"]


def cross_entropy(weights, batch):
    """Of a batch."""
    images, labels = batch
    logits = predict(weights, images)
    return optax.softmax_cross_entropy_with_integer_labels(logits, labels).mean()


def accuracy(weights, batch):
    """The share of images that are labelled right."""
    return jnp.mean(predict(weights, batch[0]).argmax(-1) == batch[1])


def pretrained(images, labels):
    """The base, trained in one place."""
    tx = optax.adam(1e-2)

    def step(carry, _):
        weights, state = carry
        grads = jax.grad(cross_entropy)(weights, (images, labels))
        updates, state = tx.update(grads, state)
        return (optax.apply_updates(weights, updates), state), None

    weights = init(jax.random.key(0))
    train = jax.jit(lambda carry: jax.lax.scan(step, carry, length=60)[0])
    return train((weights, tx.init(weights)))[0]


def loss_fn(adapters, batch, base):
    """Of one agent; it does not change."""
    return cross_entropy(adapted(adapters, base), batch)


def main():
    """Adapts, and compares before and after, and what is sent with what would be."""
    images, labels = load_digits(return_X_y=True)
    images = (images / 16).astype(np.float32)
    base = pretrained(images[:-360], labels[:-360])
    turned = np.rot90(images.reshape(-1, 8, 8), axes=(1, 2)).reshape(-1, 64)
    train, test = (turned[:-360], labels[:-360]), (turned[-360:], labels[-360:])

    mix = cdjax.mixing.auto(cdjax.topology.ring(AGENTS))  # +
    tx = optax.chain(optax.sgd(0.1), cdjax.consensus(mix))  # ~
    parts = cdjax.data.partition(train[1], AGENTS, scheme="shards", seed=1)  # +
    own, sizes = cdjax.data.deal(train, parts)  # +

    @jax.jit
    def step(adapters, state, batch):
        grads = cdjax.agent_map(jax.grad(loss_fn), num_shared=1)(adapters, batch, base)  # ~
        updates, state = tx.update(grads, state, adapters)
        return optax.apply_updates(adapters, updates), state

    adapters = cdjax.replicate(init_adapters(jax.random.key(1), base), AGENTS)  # ~
    state = tx.init(adapters)
    order = cdjax.data.batch_indices(sizes, BATCH, first_step=0, num_steps=STEPS, seed=0)  # ~
    for rows in order:
        adapters, state = step(adapters, state, cdjax.data.take_batch(own, rows))  # ~

    before = accuracy(base, test)
    of_each = jax.vmap(lambda own: accuracy(adapted(own, base), test))(adapters)  # ~
    of_mean = accuracy(adapted(cdjax.mean_params(adapters), base), test)  # =
    sent, whole = (sum(x.nbytes for x in jax.tree.leaves(tree)) for tree in (adapters, base))
    print(f"accuracy {before:.1%} before, {of_each.mean():.1%} after ", end="")
    print(f"({of_each.min():.1%} or more; {of_mean:.1%} of the mean of the adapters); ", end="")
    print(f"a message has {sent // AGENTS} bytes in place of {whole}")
    classes = max(len(np.unique(train[1][part])) for part in parts)
    assert classes <= 4 and before < 0.3 and of_each.min() > 0.5 and of_mean > 0.7


if __name__ == "__main__":
    main()
