"""Cross-gradient aggregation: the quadratic program, its directions, and whole runs."""

import itertools

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

import cdjax
from cdjax import mixing, topology
from cdjax.transforms._nonnegative import nonnegative_minimum
from tests.slow import slow
from tests.trees import quadratic_gradients, train, with_cross_gradients

pytestmark = pytest.mark.sampled(3)

GRAPHS = [topology.ring(5), topology.path(4), *slow(topology.star(5), topology.complete(4))]


def least(base, rows):
    """The shortest of all b + Σ u_l a_l with u ≥ 0, by trying every set of positive u."""
    found = []
    for some in itertools.product([False, True], repeat=len(rows)):
        a, u = rows[list(some)], np.zeros(len(rows))
        if len(a):
            u[list(some)] = np.linalg.lstsq(a.T, -base, rcond=None)[0]
        if u.min(initial=0) > -1e-11:
            found.append(base + u @ rows)
    return min(found, key=np.linalg.norm)


def programs(num_rows, size, *, dependent, count=20):
    rng = np.random.default_rng(num_rows + 10 * size)
    rows, base = rng.normal(size=(count, num_rows, size)), rng.normal(size=(count, size))
    if dependent:
        rows[:, 0], rows[:, -1] = 2 * rows[:, 1], 0
    return base, rows


@jax.jit
def solved(base, rows):
    gram = jnp.einsum("pid,pjd->pij", rows, rows, precision="highest")
    linear = jnp.einsum("pid,pd->pi", rows, base, precision="highest")
    u = nonnegative_minimum(gram, linear, jnp.linalg.norm(base, axis=1))
    return base + jnp.einsum("pi,pid->pd", u, rows, precision="highest")


# Three rows in two dimensions depend on each other; of eight rows there are 256 sets.
@pytest.mark.parametrize(
    ("num_rows", "size", "dependent"), [(1, 3, False), (3, 2, False), (3, 9, True), (8, 20, False)]
)
@pytest.mark.sampled(2)
def test_the_program_is_solved_as_by_trying_every_set_of_active_bounds(
    num_rows, size, dependent, x64
):
    base, rows = programs(num_rows, size, dependent=dependent)
    expected = [*map(least, base, rows)]
    np.testing.assert_allclose(solved(base, rows), expected, atol=1e-9)
    if (
        size > num_rows
    ):  # else its rows are nearly dependent, in what float32 keeps of their products
        single = solved(*(x.astype(np.float32) for x in (base, rows)))
        np.testing.assert_allclose(single, expected, atol=1e-5)


class Problem:
    """f_l(x) = ½ ‖A_l (x − c_l)‖² of a matrix and a vector, seven numbers in all."""

    def __init__(self, graph, seed=0):
        rng = np.random.default_rng(seed)
        self.pi, self.num_agents = graph.mixing_matrix, graph.num_agents
        self.factors = rng.normal(size=(graph.num_agents, 9, 7)) / 3
        self.centers = rng.normal(size=(graph.num_agents, 7))
        self.start = rng.normal(size=(graph.num_agents, 7))

    def neighbors(self, agent):
        return [other for other in np.flatnonzero(self.pi[agent]) if other != agent]

    def gradient(self, x, agent):
        a = self.factors[agent]
        return a.T @ (a @ (x - self.centers[agent]))

    @property
    def params(self):
        return self.tree(self.start)

    def tree(self, x):
        return {"w": jnp.asarray(x[:, :6].reshape(-1, 2, 3)), "b": jnp.asarray(x[:, 6])}

    def direction(self, x, agent, *, margin, parts):
        """g̃, with a program of its own for each part of the seven numbers."""
        neighbors = self.neighbors(agent)
        own = self.pi[agent, agent] * self.gradient(x, agent)
        rows = np.array([self.pi[agent, other] * self.gradient(x, other) for other in neighbors])
        return np.concatenate(
            [least(own[p] + margin * rows[:, p].sum(0), rows[:, p]) for p in parts]
        )


def loss(params, problem):
    factor, center = problem
    x = jnp.append(params["w"].ravel(), params["b"])
    return jnp.sum((factor @ (x - center)) ** 2) / 2


def stepped(problem, graph, tx, num_steps):
    data = jnp.asarray(problem.factors), jnp.asarray(problem.centers)
    cross = cdjax.cross_gradients(jax.grad(loss), graph)

    def step(carry, _):
        params, state = carry
        grads = cdjax.agent_map(jax.grad(loss))(params, data)
        updates, state = tx.update(grads, state, params, cross_gradients=cross(params, data))
        return (optax.apply_updates(params, updates), state), None

    start = problem.params, tx.init(problem.params)
    return jax.jit(lambda: jax.lax.scan(step, start, length=num_steps)[0][0])()


@pytest.mark.parametrize("graph", GRAPHS, ids=str)
@pytest.mark.parametrize(
    ("margin", "per_leaf", "nesterov"), [(0.5, True, True), (0.0, False, False)]
)
@pytest.mark.sampled(2)
def test_a_run_is_the_loop_over_agents(graph, margin, per_leaf, nesterov, x64):
    problem, alpha, mu = Problem(graph), 0.1, 0.5
    parts = [slice(0, 6), slice(6, 7)] if per_leaf else [slice(0, 7)]
    x, m = problem.start, np.zeros_like(problem.start)
    for _ in range(40):
        found = [problem.direction(*pair, margin=margin, parts=parts)
                 for pair in zip(x, range(len(x)), strict=True)]  # fmt: skip
        m = mu * m + found
        x = problem.pi @ x - alpha * (found + mu * m if nesterov else m)

    options = {"momentum": mu, "margin": margin, "per_leaf": per_leaf, "nesterov": nesterov}
    tx = cdjax.cga(alpha, mixing.dense(graph), **options)
    found, expected = stepped(problem, graph, tx, 40), problem.tree(x)
    for name in ("w", "b"):
        np.testing.assert_allclose(found[name], expected[name], atol=1e-8)


@pytest.mark.parametrize("graph", GRAPHS, ids=str)
def test_cross_gradients_are_those_of_each_link(graph, x64):
    problem = Problem(graph)
    data = jnp.asarray(problem.factors), jnp.asarray(problem.centers)
    found = jax.jit(cdjax.cross_gradients(jax.grad(loss), graph))(problem.params, data)
    sort = lambda rows: np.array(sorted(map(tuple, np.round(rows, 9))))  # noqa: E731
    for agent in range(graph.num_agents):
        neighbors = problem.neighbors(agent)
        expected = [
            [problem.pi[agent, other], *problem.gradient(problem.start[agent], other)]
            for other in neighbors
        ]
        slots = found.weights[agent], *(found.gradients[name][agent] for name in ("w", "b"))
        rows = np.concatenate([np.reshape(x, (len(x), -1)) for x in slots], axis=1)
        unused = [[0.0] * 8] * (len(rows) - len(neighbors))
        np.testing.assert_allclose(sort(rows), sort(expected + unused), atol=1e-8)


def test_what_belongs_to_a_model_travels_with_it_and_what_to_the_data_stays():
    graph = topology.path(3)
    numbers = [jnp.arange(3.0) + shift for shift in (0, 10, 20, 30)]
    together = lambda *of_one: jnp.stack(of_one)  # noqa: E731
    found = cdjax.cross_gradients(together, graph, num_own=2)(*numbers)
    np.testing.assert_array_equal(found.gradients[1], [[1, 11, 20, 30], [1, 11, 22, 32]])
    np.testing.assert_array_equal(found.gradients[0], [[0, 10, 21, 31], [0, 0, 0, 0]])


def test_what_is_sent_back_can_be_compressed():
    graph, problem = topology.ring(5), Problem(topology.ring(5))
    data = jnp.asarray(problem.factors), jnp.asarray(problem.centers)
    sign = cdjax.compress.sign()
    plain, read = (
        jax.jit(cdjax.cross_gradients(jax.grad(loss), graph, sent=sent))(
            problem.params, data
        ).gradients["w"]
        for sent in (None, sign)
    )
    expected = jnp.stack([sign({"w": plain[:, k]})["w"] for k in range(2)], axis=1)
    np.testing.assert_allclose(read, expected, rtol=1e-5)


def aggregated(own, others, weights, **options):
    tx = cdjax.aggregate_cross_gradients(**options)

    @jax.jit
    def update(own, *cross):
        return tx.update(own, tx.init(own), cross_gradients=cdjax.CrossGradients(*cross))[0]

    return np.asarray(update(own, others, weights))


@pytest.mark.parametrize(("margin", "weight"), [(0.0, 0.0), (0.5, 0.5), (1.0, 1.0)])
def test_where_nobody_objects_it_is_the_weighted_mean_times_the_margin(margin, weight, x64):
    rng = np.random.default_rng(0)
    own, others = rng.uniform(size=(4, 6)), rng.uniform(size=(4, 3, 6))  # in one orthant
    weights = rng.dirichlet(np.ones(4), size=4)
    expected = weights[:, :1] * own
    expected += weight * np.einsum("jl,jld->jd", weights[:, 1:], others)
    np.testing.assert_allclose(aggregated(own, others, weights[:, 1:], margin=margin), expected)


@pytest.mark.parametrize("margin", [0.0, 0.5])
def test_no_neighbour_s_loss_grows_to_first_order(margin, x64):
    rng = np.random.default_rng(1)
    own, others = rng.normal(size=(50, 4)), rng.normal(size=(50, 3, 4))
    found = aggregated(own, others, np.full((50, 3), 0.25), margin=margin)
    assert np.einsum("jd,jld->jl", found, others).min() > -1e-9
    before = own / 4 + margin * others.sum(1) / 4
    assert np.einsum("jd,jld->jl", before, others).min() < -0.1


@pytest.mark.parametrize(
    ("margin", "start", "end"), [(0.5, 0.0, 4 / 3), (0.5, 4.0, 8 / 3), (0.5, 2.1, 2.1), (1, 0, 2)]
)
def test_one_parameter_stops_where_the_gradients_balance(margin, start, end, x64):
    """For minima at 0 and 4 agent 0 rests where |x| ≥ m |x − 4|, and agent 1 where it is the same.

    Its v can then make up for its own gradient; for m = 1 only the optimum of the mean is left.
    """
    graph = topology.complete(2)
    centers, cross = jnp.array([0.0, 4.0]), cdjax.cross_gradients(jnp.subtract, graph)
    tx = cdjax.cga(0.1, mixing.dense(graph), momentum=0.0, margin=margin)
    tx = with_cross_gradients(tx, lambda x: cross(x, centers))
    start = jnp.full(2, float(start))
    x = jax.jit(lambda: train(tx, quadratic_gradients(centers), start, 2000)[0])()
    np.testing.assert_allclose(x, end, atol=1e-6)


def test_one_agent_is_nesterov_s_sgd():
    alone, start = topology.ring(1), jnp.ones((1, 2))
    cross = cdjax.cross_gradients(lambda x: x, alone)(start)
    tx, plain = cdjax.cga(0.1, mixing.dense(alone)), optax.sgd(0.1, 0.9, nesterov=True)
    ours, _ = tx.update(jnp.sin(start), tx.init(start), start, cross_gradients=cross)
    theirs, _ = plain.update(jnp.sin(start), plain.init(start))
    np.testing.assert_array_equal(ours, theirs)


def test_on_several_devices_models_and_gradients_of_a_ring_are_permuted():
    graph, mesh = topology.ring(8), cdjax.sharding.agent_mesh(8)
    cross = cdjax.cross_gradients(jax.grad(loss), graph, mesh=mesh)
    problem = Problem(graph)
    data = jnp.asarray(problem.factors), jnp.asarray(problem.centers)
    args = cdjax.sharding.shard_agents((problem.params, data), mesh)
    compiled = jax.jit(cross).lower(*args).compile()
    assert "collective-permute" in (text := compiled.as_text())
    assert "all-gather" not in text and "all-to-all" not in text and "all-reduce" not in text
    plain = jax.jit(cdjax.cross_gradients(jax.grad(loss), graph))(problem.params, data)
    for found, expected in zip(*map(jax.tree.leaves, (compiled(*args), plain)), strict=True):
        np.testing.assert_allclose(found, expected, rtol=1e-5, atol=1e-6)


def test_a_train_step_computes_the_cross_gradients():
    graph, problem = topology.path(4), Problem(topology.path(4))
    tx = cdjax.cga(0.1, mixing.dense(graph))
    batch = jnp.asarray(problem.factors), jnp.asarray(problem.centers)
    of_agent = lambda p, model_state, b, key: (loss(p, b), (model_state, {}))  # noqa: E731
    step = jax.jit(cdjax.training.train_step(of_agent, tx, topology=graph))
    state = cdjax.training.init_state(problem.params, tx, key=jax.random.key(0))
    for _ in range(3):
        state, _ = step(state, batch)
    np.testing.assert_allclose(state.params["w"], stepped(problem, graph, tx, 3)["w"], atol=1e-5)
    with pytest.raises(ValueError, match="topology is for an optimizer that wants cross gradients"):
        cdjax.training.train_step(of_agent, cdjax.cdmsgd(0.1, mixing.dense(graph)), topology=graph)


def test_what_is_no_cross_gradient_is_refused():
    tx, x = cdjax.aggregate_cross_gradients(), {"w": jnp.ones((5, 3))}
    weights = jnp.ones((5, 2))
    for given, message in [
        (None, "cross_gradients is None; .* call tx.update.*cross_gradients="),
        (x, "cross_gradients is of type dict"),
        (cdjax.CrossGradients(jnp.ones((5, 2, 3)), weights), "have the structure"),
        (cdjax.CrossGradients({"w": jnp.ones((5, 3, 3))}, weights), r"'w' has shape \(5, 3, 3\)"),
    ]:
        with pytest.raises(ValueError, match=message):
            tx.update(x, tx.init(x), cross_gradients=given)
    with pytest.raises(ValueError, match=r"margin is -1; it must lie in \[0, inf\)"):
        cdjax.aggregate_cross_gradients(margin=-1)
    cross = cdjax.cross_gradients(jnp.add, topology.ring(4))
    with pytest.raises(ValueError, match="have 5 agents, but the topology has 4"):
        cross(jnp.ones(5), jnp.ones(5))
