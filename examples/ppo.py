"""PPO in the style of PureJaxRL made decentralized: lines that end in # + are new, in # ~ changed.

The whole training is one function, as written for one agent: environment, rollouts, advantages and
updates. It was mapped over seeds; it is mapped over agents that exchange their networks' parameters
and never what they have seen. Each agent balances a pole of another length.
"""

from typing import NamedTuple

import jax
import jax.numpy as jnp
import optax
from flax import linen as nn
from flax.training.train_state import TrainState

import cdjax  # +

AGENTS = 4
ENVS, STEPS, UPDATES, EPOCHS, BATCHES = 8, 64, 40, 4, 4
DISCOUNT, TRACE, CLIP, ENTROPY, LONGEST = 0.99, 0.95, 0.2, 0.01, 200


class Pole(NamedTuple):
    """The cart's position and velocity, the pole's angle and its velocity, and the time."""

    motion: jax.Array
    time: jax.Array


def reset(key):
    """Poles that nearly stand, one for each environment."""
    motion = jax.random.uniform(key, (ENVS, 4), minval=-0.05, maxval=0.05)
    return Pole(motion, jnp.zeros(ENVS))


def env_step(start, pole, action, length):
    """Pushes the cart left or right for 0.02 s; starts again where the pole has fallen."""
    x, v, angle, spin = pole.motion
    sin, cos = jnp.sin(angle), jnp.cos(angle)
    force = jnp.where(action == 1, 10.0, -10.0)
    push = (force + 0.1 * length * spin**2 * sin) / 1.1
    turn = (9.8 * sin - cos * push) / (length * (4 / 3 - 0.1 * cos**2 / 1.1))
    pull = push - 0.1 * length * turn * cos / 1.1
    moved = pole.motion + 0.02 * jnp.stack([v, pull, spin, turn])
    moved = Pole(moved, pole.time + 1)
    fallen = (jnp.abs(moved.motion[0]) > 2.4) | (jnp.abs(moved.motion[2]) > 0.2095)
    done = fallen | (moved.time >= LONGEST)
    return jax.tree.map(lambda a, b: jnp.where(done, a, b), start, moved), done


class ActorCritic(nn.Module):
    """The logits of two actions, and the value of the state."""

    @nn.compact
    def __call__(self, x):
        """Of the motion of one pole."""
        logits = nn.Dense(2, kernel_init=nn.initializers.zeros)(nn.tanh(nn.Dense(32)(x)))
        return logits, nn.Dense(1)(nn.tanh(nn.Dense(32)(x))).squeeze(-1)


def advantages(done, value, last_value):
    """Generalized advantage estimation, with a reward of 1 per step."""

    def backwards(carry, step):
        advantage, next_value = carry
        done, value = step
        error = 1.0 + DISCOUNT * next_value * (1 - done) - value
        advantage = error + DISCOUNT * TRACE * (1 - done) * advantage
        return (advantage, value), advantage

    start = jnp.zeros_like(last_value), last_value
    return jax.lax.scan(backwards, start, (done, value), reverse=True)[1]


def make_train(mix):  # ~
    """The training of one agent, from its key and the length of its pole."""
    network = ActorCritic()

    def loss_fn(params, batch):
        motion, action, old_log_prob, advantage, target = batch
        logits, value = network.apply(params, motion)
        log_probs = jax.nn.log_softmax(logits)
        log_prob = jnp.take_along_axis(log_probs, action[:, None], axis=-1)[:, 0]
        ratio = jnp.exp(log_prob - old_log_prob)
        advantage = (advantage - advantage.mean()) / (advantage.std() + 1e-8)
        clipped = jnp.clip(ratio, 1 - CLIP, 1 + CLIP)
        actor = -jnp.minimum(ratio * advantage, clipped * advantage).mean()
        entropy = -(jnp.exp(log_probs) * log_probs).sum(-1).mean()
        return actor + 0.5 * jnp.square(value - target).mean() - ENTROPY * entropy

    def train(key, length):
        tx = optax.chain(
            optax.clip_by_global_norm(0.5),
            optax.adam(2.5e-3),
            cdjax.consensus(cdjax.mixing.for_each(mix)),  # +
        )
        params = network.init(jax.random.key(0), jnp.zeros(4))  # ~ one start for all agents
        state = TrainState.create(apply_fn=network.apply, params=params, tx=tx)
        key, key_reset = jax.random.split(key)
        poles = reset(key_reset)

        def update(carry, key):
            state, poles = carry
            key_rollout, key_shuffle = jax.random.split(key)

            def act(poles, key):
                key_action, key_env = jax.random.split(key)
                logits, value = network.apply(state.params, poles.motion)
                action = jax.random.categorical(key_action, logits)
                chosen = jnp.arange(2)[None] == action[:, None]
                log_prob = jnp.sum(jax.nn.log_softmax(logits) * chosen, axis=-1)
                starts = reset(key_env)
                moved, done = jax.vmap(env_step, (0, 0, 0, None))(starts, poles, action, length)
                return moved, (poles.motion, action, log_prob, value, done)

            keys = jax.random.split(key_rollout, STEPS)
            poles, (motion, action, log_prob, value, done) = jax.lax.scan(act, poles, keys)
            advantage = advantages(done, value, network.apply(state.params, poles.motion)[1])
            seen = motion, action, log_prob, advantage, advantage + value
            seen = jax.tree.map(lambda x: x.reshape(ENVS * STEPS, *x.shape[2:]), seen)

            def learn(state, rows):
                batch = jax.tree.map(lambda x: x[rows], seen)
                return state.apply_gradients(grads=jax.grad(loss_fn)(state.params, batch)), None

            rows = jnp.tile(jnp.arange(ENVS * STEPS)[None], (EPOCHS, 1))
            orders = jax.random.permutation(key_shuffle, rows, axis=1, independent=True)
            state, _ = jax.lax.scan(learn, state, orders.reshape(EPOCHS * BATCHES, -1))
            return (state, poles), ENVS * STEPS / jnp.maximum(done.sum(), 1)

        keys = jax.random.split(key, UPDATES)
        (state, _), lengths = jax.lax.scan(update, (state, poles), keys)
        return state.params, lengths

    return train


def main():
    """Trains, and prints for how long the agents keep their poles up."""
    mix = cdjax.mixing.auto(cdjax.topology.ring(AGENTS))  # +
    train = jax.jit(jax.vmap(make_train(mix)))  # ~
    lengths = jnp.array([0.3, 0.5, 0.7, 0.9])
    params, kept_up = train(jax.random.split(jax.random.key(1), AGENTS), lengths)
    distance = cdjax.metrics.consensus_distance(params)  # =
    print(f"steps until a pole falls: {kept_up[:, 0].mean():.0f} at first, ", end="")
    print(f"{kept_up[:, -5:].mean():.0f} at the end; consensus distance {distance:.3f}")
    assert kept_up[:, 0].mean() < 50 and kept_up[:, -5:].mean(axis=1).min() > 100
    assert distance < 0.5  # of agents on their own: about 5


if __name__ == "__main__":
    main()
