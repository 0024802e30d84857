import functools
import json
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

import cdjax
from benchmarks import plans
from cdjax import agents, mixing, topology
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
