"""What users call beside transformations and mixers, where JAX may promote no dtypes by itself.

Transformations and mixers have a test of it in the tables that they share. Under strict promotion
two whole numbers of 32 and of 64 bits may not meet, nor a bool and a float.
"""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

import cdjax
from cdjax import mixing, models, network, robust, sharding, topology, training
from tests.trees import random_stacked_tree

KEY = jax.random.key(0)
RING = topology.ring(8)
MIX = mixing.dense(RING)


def mixed_on_devices(make):
    mesh = sharding.agent_mesh(4)
    return lambda x: make(mesh)(sharding.shard_agents(x, mesh), 1)


def faults(x):
    links = robust.failing_links(RING, 0.5, key=KEY), robust.lost_messages(RING, 0.5, key=KEY)
    absent = robust.absent_agents(RING, robust.random_absence(8, 0.5, key=KEY))
    return robust.faulty(RING, *links, absent)(x, 1)


def stepped_by_a_schedule(x):
    rate = optax.constant_schedule(0.1)
    tx = cdjax.slowmo(optax.sgd(rate), MIX, learning_rate=rate, period=3)
    return tx.update(x, tx.init(x), x)


def convolved(x):
    images = jnp.ones((2, 5, 5, 3), x["bias"].dtype)
    kernel = jnp.ones((3, 3, 3, 4), x["bias"].dtype)
    layout = ("NHWC", "HWIO", "NHWC")
    convolve = lambda *xk: models.conv_general_dilated(*xk, (1, 1), "SAME", None, None, layout)  # noqa: E731
    return jax.grad(lambda *xk: convolve(*xk).sum(), (0, 1))(images, kernel)


def in_turn(x):
    loss = lambda params, state, batch, key: (jnp.sum(params["bias"] * batch[0]), (state, {}))  # noqa: E731
    tx = cdjax.cdmsgd(0.1, MIX)
    state = training.init_state({"bias": x["bias"]}, tx, key=KEY)
    return training.sequential_loop(loss, tx)(
        state, x["bias"][:, None], np.zeros((2, 8, 1), int), 2
    )


def timed(x):
    del x
    wires = network.links(RING, latency=0.5, upload=10.0)
    heard = network.heard_from_peers(lambda step: jnp.asarray([1, 0, 2, 3, 4, 5, 6, 7]), wires)
    return network.clock(network.consensus(), wires, 1.0, 9.0, num_steps=2, heard=heard)


CALLS = {
    "a convolution and its gradients": convolved,
    "faults of links and agents": faults,
    "random matchings": lambda x: mixing.random_matchings(topology.matcha(RING, 0.5), KEY)(x, 1),
    "pulls on devices": mixed_on_devices(
        lambda mesh: mixing.pull(mixing.random_peers(RING, KEY), mesh=mesh)
    ),
    "pushes on devices": mixed_on_devices(
        lambda mesh: mixing.push(mixing.random_peers(RING, KEY), mesh=mesh)
    ),
    "slowmo of a schedule": stepped_by_a_schedule,
    "agents in turn": in_turn,
    "the network's clock": timed,
}


@pytest.mark.parametrize("name", CALLS)
@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_passes_where_jax_promotes_no_dtypes(name, dtype):
    with jax.enable_x64(dtype == "float64"), jax.numpy_dtype_promotion("strict"):
        results = CALLS[name](random_stacked_tree(8, dtype=dtype))
        for leaf in jax.tree.leaves(results):
            if jnp.issubdtype(jnp.result_type(leaf), jnp.floating):
                assert jnp.result_type(leaf) == dtype
                assert np.all(np.isfinite(leaf))
