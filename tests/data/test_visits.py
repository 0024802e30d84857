import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from cdjax import adapt_then_combine, mixing, topology
from cdjax.data import batch_indices, take_visited, visits

NUM_AGENTS, NUM_MODELS, NUM_STEPS = 9, 4, 6


def test_models_are_at_different_agents_and_a_step_is_replayed():
    visited = visits(NUM_AGENTS, NUM_MODELS, first_step=0, num_steps=40, seed=1)
    assert all(len(set(row)) == NUM_MODELS for row in visited.tolist())
    assert set(visited.ravel().tolist()) == set(range(NUM_AGENTS))
    later = visits(NUM_AGENTS, NUM_MODELS, first_step=30, num_steps=10, seed=1)
    np.testing.assert_array_equal(later, visited[30:])


def gradient(x, batch):
    return x * jnp.mean(batch) - jnp.sum(batch**2)


def test_teleportation_is_adapt_then_combine_with_other_batches_bitwise(x64):
    samples = jnp.asarray(np.random.default_rng(0).normal(size=(NUM_AGENTS, 10)))
    visited = visits(NUM_AGENTS, NUM_MODELS, first_step=0, num_steps=NUM_STEPS, seed=0)
    order = {"first_step": 0, "num_steps": NUM_STEPS, "seed": 0}
    indices = batch_indices([10] * NUM_AGENTS, 3, **order)
    mix = mixing.dense(topology.ring(NUM_MODELS))

    # As published: models lie at agents, train where they are, mix, and move on.
    agents = [None] * NUM_AGENTS
    for agent in visited[0]:
        agents[agent] = jnp.zeros(())
    for step in range(NUM_STEPS):
        for agent in visited[step]:
            batch = samples[agent][indices[step, agent]]
            agents[agent] = agents[agent] - 0.1 * gradient(agents[agent], batch)
        mixed = mix(jnp.stack([agents[agent] for agent in visited[step]]))
        agents = [None] * NUM_AGENTS
        for model, agent in enumerate(visited[min(step + 1, NUM_STEPS - 1)]):
            agents[agent] = mixed[model]

    tx, x = adapt_then_combine(optax.sgd(0.1), mix), jnp.zeros(NUM_MODELS)
    state = tx.init(x)
    for step in range(NUM_STEPS):
        batch = take_visited(samples, indices[step], visited=visited[step])
        grads = jnp.stack([gradient(x[model], batch[model]) for model in range(NUM_MODELS)])
        updates, state = tx.update(grads, state, x)
        x = optax.apply_updates(x, updates)
    np.testing.assert_array_equal(x, [agents[agent] for agent in visited[-1]])


def test_batches_of_a_tree_are_those_of_the_visited_agents():
    data = {"x": jnp.arange(12).reshape(3, 4), "y": jnp.arange(24).reshape(3, 4, 2)}
    indices, visited = np.array([[0, 1], [2, 3], [1, 1]]), np.array([2, 0])
    taken = jax.jit(take_visited)(data, indices, visited=visited)
    np.testing.assert_array_equal(taken["x"], [[9, 9], [0, 1]])
    assert taken["y"].shape == (2, 2, 2)


def test_more_models_than_agents_are_named():
    with pytest.raises(ValueError, match="num_models is 4, more than the 3 agents"):
        visits(3, 4, first_step=0, num_steps=1, seed=0)
