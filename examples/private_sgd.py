"""Private SGD made decentralized: lines that end in # + are new, in # ~ changed, in # = compare.

Each agent's gradients are per sample, clipped, with noise of its own.
``cdjax.per_agent`` folds the agent's number into the key of the noise. With one noise for all, a
neighbour that subtracts two messages would read the difference of two clean gradients.
"""

import jax
import numpy as np
import optax
from sklearn.datasets import load_digits

import cdjax  # +

AGENTS, BATCH, STEPS = 8, 32, 60


def loss_fn(params, image, label):
    """Of one sample."""
    logits = image @ params["w"] + params["b"]
    return optax.softmax_cross_entropy_with_integer_labels(logits, label)


def main():
    """Trains, and looks at the noise that the agents add."""
    images, labels = load_digits(return_X_y=True)
    images = (images / 16).astype(np.float32)
    train = images[:-360], labels[:-360]
    parts = cdjax.data.partition(train[1], AGENTS, scheme="shards")  # +
    own, sizes = cdjax.data.deal(train, parts)  # +

    mix = cdjax.mixing.auto(cdjax.topology.ring(AGENTS))  # +
    private = optax.contrib.differentially_private_aggregate(
        l2_norm_clip=1.0, noise_multiplier=1.0, key=jax.random.key(0)
    )
    tx = optax.chain(cdjax.per_agent(private), optax.sgd(1.0), cdjax.consensus(mix))  # ~

    of_samples = jax.vmap(jax.grad(loss_fn), in_axes=(None, 0, 0))
    of_agents = cdjax.agent_map(lambda params, batch: of_samples(params, *batch))  # ~

    @jax.jit
    def step(params, state, batch):
        updates, state = tx.update(of_agents(params, batch), state, params)
        return optax.apply_updates(params, updates), state

    params = {"w": np.zeros((64, 10), np.float32), "b": np.zeros(10, np.float32)}
    params = cdjax.replicate(params, AGENTS)  # +
    state = jax.jit(tx.init)(params)
    weights, nothing = params["w"], np.zeros((AGENTS, BATCH, 64, 10), np.float32)
    noises = cdjax.per_agent(private)  # =
    noise, _ = jax.jit(lambda x, w: noises.update(x, noises.init(w), w))(nothing, weights)
    correlation = np.abs(np.corrcoef(noise.reshape(AGENTS, -1)) - np.eye(AGENTS)).max()
    order = cdjax.data.batch_indices(sizes, BATCH, first_step=0, num_steps=STEPS, seed=0)  # ~
    for rows in order:
        params, state = step(params, state, cdjax.data.take_batch(own, rows))  # ~

    mean = jax.device_get(cdjax.mean_params(params))  # +
    accuracy = np.mean((images[-360:] @ mean["w"] + mean["b"]).argmax(-1) == labels[-360:])
    print(f"accuracy {accuracy:.1%}; noise of two agents correlates by {correlation:.2f} at most")
    assert accuracy > 0.7 and correlation < 0.3


if __name__ == "__main__":
    main()
