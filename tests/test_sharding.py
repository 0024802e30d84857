import os
import socket
import subprocess
import sys
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import PartitionSpec

import cdjax
from benchmarks._collectives import collectives
from cdjax import agents, sharding
from tests.trees import assert_trees_close

BY_AGENT, WHOLE = PartitionSpec("agents"), PartitionSpec()


@pytest.mark.parametrize("num_devices", [1, 3, 8, None])
def test_a_mesh_has_as_many_devices_as_asked_for_and_all_by_default(num_devices):
    mesh = sharding.agent_mesh(num_devices)
    assert dict(mesh.shape) == {"agents": num_devices or 8}
    assert mesh.devices.tolist() == jax.devices()[:num_devices]


def test_more_devices_than_there_are_are_named():
    with pytest.raises(ValueError, match="num_devices is 9, but JAX finds 8; give at most 8"):
        sharding.agent_mesh(9)


@pytest.mark.parametrize("num_devices", [0, -1])
def test_a_mesh_has_a_device(num_devices):
    with pytest.raises(ValueError, match=rf"num_devices is {num_devices}; it must lie in"):
        sharding.agent_mesh(num_devices)


@pytest.mark.parametrize(
    ("num_agents", "remedy"),
    [
        (12, "12 agents do not divide among 8 devices; take 8 or 16 agents, or 6 devices"),
        (3, "3 agents do not divide among 8 devices; take 8 agents, or 3 devices"),
        (17, "17 agents do not divide among 8 devices; take 16 or 24 agents, or 1 device"),
    ],
)
def test_agents_that_do_not_divide_are_named_with_a_remedy(num_agents, remedy):
    with pytest.raises(ValueError, match=f"^{remedy}$"):
        sharding.block_size(num_agents, sharding.agent_mesh())
    with pytest.raises(ValueError, match=remedy):
        sharding.shard_agents(jnp.ones((num_agents, 2)), sharding.agent_mesh())


def test_every_device_holds_its_own_agents_and_whole_what_has_no_axes():
    tree = {"x": np.arange(32.0).reshape(16, 2), "step": jnp.zeros([], int)}
    tree["keys"], tree["key"] = jax.random.split(jax.random.key(0), 16), jax.random.key(1)
    placed = sharding.shard_agents(tree, sharding.agent_mesh())
    specs = jax.tree.map(lambda x: x.sharding.spec, placed)
    assert specs == {"x": BY_AGENT, "step": WHOLE, "keys": BY_AGENT, "key": WHOLE}
    blocks = {shard.device: np.asarray(shard.data) for shard in placed["x"].addressable_shards}
    for d, device in enumerate(jax.devices()):
        np.testing.assert_array_equal(blocks[device], tree["x"][2 * d : 2 * d + 2])


def test_a_server_beside_the_agents_is_whole_on_every_device():
    tree = {"x": jnp.ones((16, 3)), "server": jnp.ones(3)}
    shardings = sharding.agent_shardings(tree, sharding.agent_mesh(), num_agents=16)
    assert (shardings["x"].spec, shardings["server"].spec) == (BY_AGENT, WHOLE)
    with pytest.raises(ValueError, match="leaf '.*' has leading axis"):
        sharding.agent_shardings(tree, sharding.agent_mesh())


def test_a_state_made_under_jit_is_born_sharded():
    mesh, make = sharding.agent_mesh(), lambda: jax.random.normal(jax.random.key(0), (16, 3))
    shardings = sharding.agent_shardings(jax.eval_shape(make), mesh)
    program = jax.jit(make, out_shardings=shardings)
    assert not collectives(program.lower().compile().as_text())
    assert "f32[16,3]" not in program.lower().compile().as_text()
    np.testing.assert_array_equal(program(), make())


def test_every_device_builds_its_own_agents():
    asked = []

    def build(agents):
        asked.append(agents)
        return {"x": np.array(agents)[:, None] * np.ones(3), "y": np.array(agents)}

    built = sharding.build_agents(build, 16, mesh=sharding.agent_mesh(4))
    assert sorted(asked, key=min) == [range(j, j + 4) for j in (0, 4, 8, 12)]
    assert_trees_close(built, {"x": np.outer(np.arange(16.0), np.ones(3)), "y": np.arange(16)})
    assert built["x"].sharding.spec == BY_AGENT


def test_building_another_number_of_agents_is_named():
    with pytest.raises(ValueError, match=r"build gave 3 agents for range\(0, 2\); expected 2"):
        sharding.build_agents(lambda agents: np.ones(3), 16, mesh=sharding.agent_mesh())


def test_replicated_trees_are_whole_on_every_device():
    mesh = sharding.agent_mesh()
    tree = {"x": np.ones((3, 2)), "sharded": sharding.shard_agents(np.arange(8), mesh)}
    placed = sharding.replicate_on_devices(tree, mesh)
    assert {x.sharding.spec for x in jax.tree.leaves(placed)} == {WHOLE}
    assert len(placed["sharded"].addressable_shards) == 8
    assert_trees_close(jax.device_get(placed), jax.device_get(tree), rtol=0, atol=0)


def loss(kernel, image):
    # XLA's own convolution, of which GSPMD gathers all agents' kernels.
    return jnp.sum(jax.lax.conv(image[None, None], kernel[None, None], (1, 1), "SAME") ** 2)


@pytest.fixture(scope="module")
def on_one_device():
    """The arguments of all agents, and the plain function's results."""
    normal = np.random.default_rng(0).standard_normal
    args = normal((16, 3, 3), np.float32), normal((16, 6, 6), np.float32)
    return args, jax.device_get(jax.jit(jax.vmap(jax.value_and_grad(loss)))(*args))


@pytest.mark.parametrize("plan", [plan for plan in agents.PLANS if plan != "auto"])
def test_a_sharded_function_equals_the_plain_one_and_sends_nothing(plan, on_one_device):
    mesh, (args, expected) = sharding.agent_mesh(), on_one_device
    grads = sharding.sharded(cdjax.agent_map(jax.value_and_grad(loss), plan=plan), mesh)
    args = sharding.shard_agents(args, mesh)
    program = jax.jit(grads).lower(*args).compile()
    assert not collectives(program.as_text())
    assert_trees_close(jax.device_get(program(*args)), expected, rtol=1e-5, atol=1e-5)


def test_shared_arguments_are_whole_on_every_device():
    mesh = sharding.agent_mesh()
    scales = sharding.replicate_on_devices({"a": np.arange(5.0), "b": 2.0}, mesh)

    def scaled(weights, scales):
        doubled = jax.lax.map(lambda x: scales["b"] * x, scales["a"], batch_size=2)
        return weights * doubled.sum()

    result = jax.jit(sharding.sharded(scaled, mesh, num_shared=1))(jnp.arange(8.0), scales)
    np.testing.assert_allclose(result, 20 * np.arange(8.0))


def test_loops_in_a_sharded_function_need_no_annotations():
    cumulate = jax.vmap(lambda x: jax.lax.fori_loop(0, 3, lambda i, s: s + x, 0.0))
    result = jax.jit(sharding.sharded(cumulate, sharding.agent_mesh()))(jnp.arange(8.0))
    np.testing.assert_array_equal(result, 3 * np.arange(8))


def test_arguments_of_a_sharded_function_are_checked_as_a_whole():
    add = sharding.sharded(jnp.add, sharding.agent_mesh())
    with pytest.raises(ValueError, match="leaf '1' has leading axis 16, but .* has 8 agents"):
        add(jnp.ones(8), jnp.ones(16))
    with pytest.raises(ValueError, match="12 agents do not divide among 8 devices"):
        add(jnp.ones(12), jnp.ones(12))


TWO_PROCESSES = """
import sys
import jax, numpy as np
from cdjax import mixing, sharding, topology
from tests.trees import random_stacked_tree

process = int(sys.argv[2])
jax.distributed.initialize(sys.argv[1], num_processes=2, process_id=process)
mesh, asked = sharding.agent_mesh(), []
built = sharding.build_agents(lambda a: (asked.append(a), np.array(a, float))[1], 8, mesh=mesh)
assert sorted(asked, key=min) == [range(j, j + 2) for j in (4 * process, 4 * process + 2)]
assert jax.device_get(sharding.replicate_on_devices(built, mesh)).tolist() == [*range(8)]

graph = topology.erdos_renyi(8)
tree = {**jax.device_get(random_stacked_tree(8)), "step": 3, "key": jax.random.key(5)}
placed = sharding.shard_agents(tree, mesh)
own = [shard.data.shape for shard in placed["bias"].addressable_shards]
assert own == [(2, 3)] * 2
assert not placed["bias"].is_fully_addressable
same = sharding.replicate_on_devices(np.arange(5), mesh)
assert jax.device_get(same).tolist() == [*range(5)] and int(placed["step"]) == 3
keys = jax.jit(lambda key: jax.random.key_data(key))(placed["key"])
assert (jax.device_get(keys) == jax.random.key_data(tree["key"])).all()

mixed = jax.jit(mixing.exchange(graph, mesh))(placed["bias"])
mixed = jax.device_get(sharding.replicate_on_devices(mixed, mesh))
np.testing.assert_allclose(mixed, graph.mixing_matrix @ tree["bias"], atol=1e-6)
try:
    sharding.agent_mesh(2)
except ValueError as error:
    assert "2 processes have 4 devices together and all of them take part" in str(error)
print("checked")
"""


@pytest.mark.slow
def test_two_processes_hold_and_build_their_own_agents_alone():
    with socket.create_server(("127.0.0.1", 0)) as free:
        address = f"127.0.0.1:{free.getsockname()[1]}"
    # XLA's threads: with two devices on two cores, programs queue up behind one another for ever.
    flags = {"XLA_FLAGS": "--xla_force_host_platform_device_count=2", "NPROC": "16"}
    processes = [
        subprocess.Popen(
            [sys.executable, "-c", TWO_PROCESSES, address, str(process)],
            cwd=Path(__file__).parents[1],
            env=os.environ | flags,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )
        for process in range(2)
    ]
    for process in processes:
        output = process.communicate(timeout=100)[0]
        assert process.returncode == 0 and output.rstrip().endswith("checked"), output
