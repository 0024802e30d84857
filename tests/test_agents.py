import functools
import json
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from flax import linen as nn
from flax import nnx
from jax.sharding import PartitionSpec

import cdjax
from benchmarks import plans
from cdjax import agents, mixing, topology
from tests.slow import slow
from tests.trees import assert_trees_close, random_stacked_tree


def dense_loss(params, x):
    return jnp.sum(jnp.tanh(x @ params["kernel"] + params["bias"][None]) ** 2)


def conv_loss(params, x):
    kernel = params["kernel"]
    y = jax.lax.conv(x[None, None], kernel[None, None], (1, 1), "SAME")
    return jnp.sum(y**2) + jnp.sum(params["bias"])


@functools.cache
def looped_over_agents(loss, num_agents):
    """The arguments, and the losses and gradients of one agent after another."""
    normal = np.random.default_rng(0).standard_normal
    shapes = {"kernel": (4, 4), "bias": (4,)}
    params = {k: normal((num_agents, *shape), np.float32) for k, shape in shapes.items()}
    x = normal((num_agents, 4, 4), np.float32)
    one = jax.jit(jax.value_and_grad(loss))
    results = [one({k: v[j] for k, v in params.items()}, x[j]) for j in range(num_agents)]
    return (params, x), jax.tree.map(lambda *leaves: np.stack(leaves), *results)


@pytest.mark.parametrize("plan", agents.PLANS)
@pytest.mark.parametrize("loss", [dense_loss, conv_loss])
@pytest.mark.parametrize("num_agents", [1, 3])
def test_every_plan_equals_a_loop_over_agents(plan, loss, num_agents):
    args, expected = looped_over_agents(loss, num_agents)
    result = jax.jit(agents.agent_map(jax.value_and_grad(loss), plan=plan))(*args)
    assert_trees_close(result, expected, rtol=1e-5, atol=1e-5)


def test_auto_on_a_cpu_unrolls_convolutions_and_loops_over_large_agents():
    small, large = jnp.ones((2, 8, 8)), jnp.ones((2, 1024, 1024))
    convolve = lambda x: jax.lax.conv(x[None, None], x[None, None], (1, 1), "SAME")  # noqa: E731
    describe = lambda fn, x: str(jax.make_jaxpr(agents.agent_map(fn))(x))  # noqa: E731
    assert describe(convolve, small).count("conv_general_dilated[") == 2
    assert "scan[" in describe(jnp.sin, large)
    assert "scan[" not in describe(jnp.sin, small)


@pytest.mark.parametrize(
    ("num_agents", "dtype", "plan"),
    [(4, "float32", "unroll"), (17, "float32", "map"), (99, "float32", "map"),
     (2, "bfloat16", "unroll"), (16, "bfloat16", "vmap"), (16, "float16", "vmap")],
)  # fmt: skip
def test_auto_on_a_gpu_takes_the_plan_that_was_measured_to_be_the_fastest(
    num_agents, dtype, plan, monkeypatch
):
    monkeypatch.setattr(jax, "default_backend", lambda: "gpu")
    image = jax.ShapeDtypeStruct((1, 1, 8, 8), dtype)
    convolve = lambda x: jax.lax.conv(x, x, (1, 1), "SAME")  # noqa: E731
    assert agents.choose_plan(convolve, (image,), num_agents=num_agents) == plan
    assert agents.choose_plan(jnp.sin, (image,), num_agents=num_agents) == "vmap"


def test_the_table_of_plans_is_that_of_the_committed_results():
    for backend, table in json.loads(plans.TABLE.read_text()).items():
        results = Path(plans.__file__).parent / "results" / table["results"]
        assert plans.table_of(results) == (backend, table)


def test_an_unknown_plan_is_named():
    with pytest.raises(ValueError, match="unknown plan 'pmap'.*one of auto, vmap, map, unroll"):
        agents.agent_map(jnp.sin, plan="pmap")


def test_arguments_of_different_sizes_are_named():
    with pytest.raises(ValueError, match="leaf '1' has leading axis 4, but .* has 3 agents"):
        agents.agent_map(jnp.add)(jnp.ones(3), jnp.ones(4))


def test_replicate_then_mean_is_the_identity():
    tree = {"w": jnp.arange(6.0).reshape(2, 3), "count": jnp.array(7)}
    assert_trees_close(cdjax.mean_params(cdjax.replicate(tree, 5)), tree)


@pytest.mark.parametrize("num_agents", [0, -1])
def test_replicate_needs_an_agent(num_agents):
    with pytest.raises(ValueError, match=f"num_agents is {num_agents}; there must be at least 1"):
        cdjax.replicate({"w": jnp.ones(2)}, num_agents)


def test_mean_params_keeps_dtypes_and_takes_the_first_counter():
    tree = {"w": jnp.ones((4, 2), jnp.bfloat16), "count": jnp.arange(4)}
    mean = cdjax.mean_params(tree)
    assert mean["w"].dtype == jnp.bfloat16 and mean["w"].shape == (2,)
    assert mean["count"] == 0


def test_clipping_couples_agents_unless_it_is_per_agent():
    grads = {"a": jnp.array([[3.0], [0.3]]), "b": jnp.array([[4.0], [0.4]])}
    norms = lambda tree: np.hypot(tree["a"], tree["b"]).ravel()  # noqa: E731
    clip = optax.clip_by_global_norm(1.0)
    coupled, _ = clip.update(grads, clip.init(grads))
    local, _ = cdjax.per_agent(clip).update(grads, cdjax.per_agent(clip).init(grads))
    np.testing.assert_allclose(norms(coupled), np.array([5, 0.5]) / np.hypot(5, 0.5), rtol=1e-6)
    np.testing.assert_allclose(norms(local), [1, 0.5], rtol=1e-6)


@pytest.mark.parametrize("make", [lambda: optax.lamb(0.1), lambda: optax.adafactor(0.1)])
def test_per_agent_equals_one_optimizer_per_agent(make):
    step = lambda tx: jax.jit(lambda x: tx.update(x, tx.init(x), x)[0])  # noqa: E731
    params, one = random_stacked_tree(3), step(make())
    updates = step(cdjax.per_agent(make()))(params)
    for j in range(3):
        expected = one(jax.tree.map(lambda x: x[j], params))  # noqa: B023
        assert_trees_close(jax.tree.map(lambda x: x[j], updates), expected)  # noqa: B023


def test_the_five_lines_of_the_readme_compose():
    mix = mixing.auto(topology.ring(4))
    local = cdjax.per_agent(optax.chain(optax.clip_by_global_norm(1.0), optax.sgd(0.1)))
    tx = optax.chain(local, cdjax.consensus(mix))
    params = cdjax.replicate({"w": jnp.ones(3)}, 4)
    updates, _ = tx.update(params, tx.init(params), params)
    np.testing.assert_allclose(updates["w"], -0.1 / np.sqrt(3), rtol=1e-6)


def test_replicate_refuses_random_keys_unless_told_what_to_do():
    tree = {"w": jnp.ones(3), "dropout": {"key": jax.random.key(0)}}
    with pytest.raises(ValueError, match="leaf 'dropout/key' is a random key.*keys=\"split\""):
        cdjax.replicate(tree, 4)
    with pytest.raises(ValueError, match="unknown keys 'copy'"):
        cdjax.replicate(tree, 4, keys="copy")


@pytest.mark.parametrize(
    "make",
    [
        lambda: jax.random.key(0),
        lambda: jax.random.PRNGKey(0),
        lambda: jax.random.split(jax.random.key(0), 3),
        lambda: jax.random.split(jax.random.key(0), (2, 3)),
        lambda: jax.random.key(0, impl="rbg"),
    ],
)
def test_keys_are_copied_or_one_per_agent(make):
    data = lambda keys: np.asarray(jax.random.key_data(keys))  # noqa: E731
    same = cdjax.replicate({"key": make()}, 4, keys="same")["key"]
    assert (data(same) == data(make())).all()
    split = cdjax.replicate({"key": make(), "w": jnp.ones(2)}, 4, keys="split")
    np.testing.assert_array_equal(split["w"], np.ones((4, 2)))
    assert split["key"].shape == same.shape and split["key"].dtype == same.dtype
    single = data(split["key"]).reshape(-1, data(make()).shape[-1])
    assert len(np.unique(single, axis=0)) == len(single)


@pytest.mark.parametrize(
    "make",
    [
        lambda: optax.add_noise(0.1, 0.5, jax.random.key(0)),
        lambda: optax.chain(optax.add_noise(0.1, 0.5, 0), optax.adam(0.1)),
    ],
)
def test_per_agent_gives_each_agent_noise_of_its_own(make):
    params = {"w": jnp.ones((4, 1000))}
    tx = cdjax.per_agent(make())
    state = tx.init(params)
    for _ in range(2):
        noise, state = tx.update(jax.tree.map(jnp.zeros_like, params), state, params)
        assert np.abs(np.corrcoef(noise["w"]) - np.eye(4)).max() < 0.2


def test_shared_arguments_have_no_agent_axis():
    def scaled(x, factor, names):
        return factor * x + len(names)

    mapped = cdjax.agent_map(scaled, num_shared=2)
    for given in (2.0, jnp.array(3.0)):
        np.testing.assert_array_equal(
            mapped(jnp.ones((4, 2)), given, ["a"]), given * np.ones((4, 2)) + 1
        )
    with pytest.raises(ValueError, match="num_shared is -1"):
        cdjax.agent_map(scaled, num_shared=-1)


def test_arguments_by_keyword_are_mapped():
    mapped = cdjax.agent_map(lambda x, factor, *, shift: factor * x + shift, num_shared=1)
    x, shift = jnp.arange(3.0), jnp.array([1.0, 2.0, 3.0])
    np.testing.assert_array_equal(mapped(x, 2.0, shift=shift), 2 * x + shift)
    with pytest.raises(ValueError, match="leaf '1' has no axes, .*for the last num_shared, which"):
        cdjax.agent_map(jnp.multiply)(x, 2.0)


def test_agents_exchange_by_collectives_under_a_name():
    centred = cdjax.agent_map(lambda x: x - jax.lax.pmean(x, "agents"), axis_name="agents")
    np.testing.assert_array_equal(centred(jnp.arange(3.0)), [-1, 0, 1])
    with pytest.raises(ValueError, match="plan is 'map' with axis_name 'agents'; .*plan='vmap'"):
        cdjax.agent_map(jnp.sin, plan="map", axis_name="agents")


def test_a_group_of_optax_without_parameters_is_no_error():
    local = cdjax.per_agent(optax.adam(0.1))
    labels = {"w": "local", "b": "local"}
    tx = optax.partition({"local": local, "empty": cdjax.per_agent(optax.sgd(0.1))}, labels)
    params = {"w": jnp.ones((3, 2)), "b": jnp.ones(3)}
    updates, _ = tx.update(params, tx.init(params), params)
    assert_trees_close(updates, local.update(params, local.init(params), params)[0])


class Normed(nnx.Module):
    def __init__(self, rngs):
        self.norm, self.dropout = nnx.BatchNorm(6, rngs=rngs), nnx.Dropout(0.5, rngs=rngs)
        self.linear = nnx.Linear(6, 3, rngs=rngs)

    def __call__(self, x):
        return self.linear(self.dropout(self.norm(x)))


@pytest.mark.parametrize("plan", ["vmap", *slow(*(x for x in agents.PLANS if x != "vmap"))])
def test_modules_of_nnx_keep_what_changes_in_them(plan):
    make = lambda: cdjax.replicate(Normed(nnx.Rngs(0)), 3, keys="split")  # noqa: E731
    x = jnp.asarray(np.random.default_rng(0).normal(size=(3, 8, 6)), jnp.float32)
    grad = nnx.value_and_grad(lambda x, model: jnp.mean(jnp.square(model(x))), argnums=1)
    module, by_nnx = make(), make()
    actual = cdjax.agent_map(grad, plan=plan)(x, module)
    expected = nnx.vmap(grad)(x, by_nnx)
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, 1e-5, 1e-6), actual, expected)
    np.testing.assert_allclose(module.norm.mean[...], by_nnx.norm.mean[...], 1e-5)
    assert float(jnp.abs(module.norm.mean[...]).max()) > 0
    np.testing.assert_array_equal(module.dropout.rngs.count[...], [1, 1, 1])


@pytest.mark.slow
def test_means_of_agents_on_several_devices_are_one_program():
    mesh = cdjax.sharding.agent_mesh()
    params = {str(i): jnp.ones((2 * mesh.size, 8)) for i in range(60)}
    params = cdjax.sharding.shard_agents(params, mesh)
    for _ in range(20):
        distance, mean = cdjax.metrics.consensus_distance(params), cdjax.mean_params(params)
    assert float(distance) == 0
    np.testing.assert_array_equal(mean["0"], np.ones(8))


def test_stacked_extra_arguments_are_each_agents_own():
    plateau = optax.contrib.reduce_on_plateau(patience=1, cooldown=0)
    tx = cdjax.per_agent(plateau, stacked=["value"])
    params = {"w": jnp.ones((2, 3))}
    state = tx.init(params)
    for _ in range(4):  # agent 0 is stuck at a loss of 1, agent 1 gets better
        values = jnp.array([1.0, 1.0 / (1 + state.scale[1] + _)])
        updates, state = tx.update(params, state, params, value=values)
    assert float(state.scale[0]) < 1 and float(state.scale[1]) == 1
    np.testing.assert_allclose(updates["w"], state.scale[:, None] * np.ones((2, 3)))


def test_boxes_of_flax_name_the_agents_axis():
    params = {"w": nn.Partitioned(jnp.ones((8, 6)), ("data", None)), "b": jnp.ones(6)}
    stacked = cdjax.replicate(params, 4)
    assert nn.get_partition_spec(stacked)["w"] == PartitionSpec("agents", "data", None)
    mean = cdjax.mean_params(stacked)
    assert nn.get_partition_spec(mean)["w"] == PartitionSpec("data", None)
    assert mean["w"].value.shape == (8, 6) and mean["b"].shape == (6,)
