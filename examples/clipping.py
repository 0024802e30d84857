"""Clipped gradients made decentralized: lines that end in # + are new, in # ~ changed.

One agent of eight has images of a hundred times the contrast, so its gradients are long. Clipped on
its own, each agent goes at most a step of length one. With the norm of all agents together, the
long gradients shorten everybody's: the other seven hardly move.
"""

import jax
import jax.numpy as jnp
import numpy as np
import optax
from sklearn.datasets import load_digits

import cdjax  # +

AGENTS, BATCH, STEPS = 8, 32, 100


def loss_fn(params, batch):
    """Of one agent; it does not change."""
    logits = batch[0] @ params["w"] + params["b"]
    return optax.softmax_cross_entropy_with_integer_labels(logits, batch[1]).mean()


def trained(own, sizes, *, together=False):
    """The agents' parameters, clipped by each one's norm or by that of all together."""
    mix = cdjax.mixing.auto(cdjax.topology.ring(AGENTS))  # +
    clipped = optax.chain(optax.clip_by_global_norm(1.0), optax.sgd(0.5))
    local = clipped if together else cdjax.per_agent(clipped)  # +
    tx = optax.chain(local, cdjax.consensus(mix))  # +

    @jax.jit
    def step(params, state, batch):
        grads = cdjax.agent_map(jax.grad(loss_fn))(params, batch)  # ~
        updates, state = tx.update(grads, state, params)
        return optax.apply_updates(params, updates), state

    params = cdjax.replicate({"w": jnp.zeros((64, 10)), "b": jnp.zeros(10)}, AGENTS)  # ~
    state = tx.init(params)
    order = cdjax.data.batch_indices(sizes, BATCH, first_step=0, num_steps=STEPS, seed=0)  # ~
    for rows in order:
        params, state = step(params, state, cdjax.data.take_batch(own, rows))  # ~
    return params


def main():
    """Trains in both ways."""
    images, labels = load_digits(return_X_y=True)
    images = (images / 16).astype(np.float32)
    train, test = (images[:-360], labels[:-360]), (images[-360:], labels[-360:])
    parts = cdjax.data.partition(train[1], AGENTS, scheme="shards", seed=1)  # +
    own, sizes = cdjax.data.deal(train, parts)  # +
    own[0][0] *= 100

    def accuracy(params):
        found = jax.vmap(lambda one: (test[0] @ one["w"] + one["b"]).argmax(-1))(params)
        return jnp.mean(found == test[1][None], axis=-1)

    each, together = accuracy(trained(own, sizes)), accuracy(trained(own, sizes, together=True))
    print(f"accuracy {each.mean():.1%} with each agent's own norm, ", end="")
    print(f"{together.mean():.1%} with the norm of all")
    assert each.mean() > 0.65 > together.mean() + 0.15


if __name__ == "__main__":
    main()
