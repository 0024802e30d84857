"""Outer steps: closed forms on quadratics, identities with other algorithms, fragments, absence."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

import cdjax
from cdjax import mixing, robust, topology
from tests.trees import (
    assert_trees_close,
    quadratic_gradients,
    random_stacked_tree,
    train,
    trajectory,
)

pytestmark = pytest.mark.sampled(3)

CENTERS, CURVATURES, ALPHA = np.arange(5.0), np.arange(1.0, 6.0) / 3, 0.1
GRADIENT = quadratic_gradients(CENTERS, CURVATURES)
R = 1 - ALPHA * CURVATURES  # what a step leaves of the distance from an agent's own optimum
COMPLETE, RING = mixing.dense(topology.complete(5)), mixing.dense(topology.ring(5))
INNER = optax.sgd(ALPHA)
OUTERS = {
    "nesterov": optax.sgd(0.7, momentum=0.9, nesterov=True),
    "heavy ball": optax.sgd(0.7, momentum=0.5),
    "sgd": optax.sgd(1.0),
}
# Of the ring with ten steps, whatever the outer optimizer.
ON_RING = [2.24488197, 1.65682551, 2.11928152, 2.94471113, 2.7973189]
START = np.zeros(5)


def slow_after(tx, num_steps=4000, gradient=GRADIENT, start=START):
    return cdjax.slow_params(train(tx, gradient, jnp.asarray(start), num_steps)[1])


def nothing(tree, step=0):
    return tree


@pytest.mark.parametrize("outer", OUTERS.values(), ids=OUTERS)
@pytest.mark.parametrize(("period", "expected"), [(10, 2.449333631497669), (50, 2.083272321330523)])
def test_a_complete_graph_ends_at_the_mean_weighted_by_progress(outer, period, expected, x64):
    p = 1 - R**period
    assert expected == pytest.approx(np.sum(p * CENTERS) / np.sum(p), abs=1e-14)
    tx = cdjax.outer(INNER, outer, COMPLETE, period=period)
    np.testing.assert_allclose(slow_after(tx, 300 * period), expected, atol=1e-13)


@pytest.mark.parametrize("outer", OUTERS.values(), ids=OUTERS)
def test_a_ring_ends_at_the_same_point_for_every_outer_optimizer(outer, x64):
    pi, q = topology.ring(5).mixing_matrix, R**10
    expected = np.linalg.solve(np.eye(5) - pi * q, pi @ ((1 - q) * CENTERS))
    np.testing.assert_allclose(expected, ON_RING, atol=1e-8)
    tx = cdjax.outer(INNER, outer, RING, period=10)
    np.testing.assert_allclose(slow_after(tx), expected, atol=1e-12)


def test_outer_sgd_of_step_one_is_federated_averaging(x64):
    ours = cdjax.outer(INNER, optax.sgd(1.0), COMPLETE, period=10)
    theirs = cdjax.fedavg(INNER, local_steps=10)
    found, expected = (trajectory(tx, GRADIENT, START, 60)[0] for tx in (ours, theirs))
    np.testing.assert_allclose(found, expected, atol=2e-15)


def test_outer_sgd_of_step_one_is_adapt_then_combine_every_period(x64):
    ours = cdjax.outer(optax.adam(0.1), optax.sgd(1.0), RING, period=10)
    theirs = cdjax.adapt_then_combine(optax.adam(0.1), mixing.every(10, RING))
    found, expected = (trajectory(tx, GRADIENT, START, 60)[0] for tx in (ours, theirs))
    np.testing.assert_allclose(found, expected, atol=4e-15)


def test_every_step_with_sgd_inside_is_nesterov_on_the_mean_gradient(x64):
    outer = cdjax.outer(INNER, OUTERS["nesterov"], COMPLETE, period=1)
    plain = optax.chain(
        cdjax.average_updates(), optax.sgd(0.7 * ALPHA, momentum=0.9, nesterov=True)
    )
    found, expected = (trajectory(tx, GRADIENT, START, 50)[0] for tx in (outer, plain))
    np.testing.assert_allclose(found, expected, atol=1e-13)


def test_one_agent_is_lookahead(x64):
    tx = cdjax.outer(optax.sgd(0.1), optax.sgd(0.5), nothing, period=6)
    fast = slow = np.array([3.0])
    for _ in range(10):
        for _ in range(6):
            fast = fast - 0.1 * np.sin(fast)
        fast = slow = slow + 0.5 * (fast - slow)
    np.testing.assert_allclose(slow_after(tx, 60, jnp.sin, [3.0]), slow, atol=1e-15)


@pytest.mark.slow
def test_muon_inside_steps_every_agent_by_itself(x64):
    inner, nesterov = optax.contrib.muon(0.05), optax.sgd(0.7, momentum=0.6, nesterov=True)
    targets = jnp.asarray(np.random.default_rng(0).normal(size=(3, 4, 4)))
    mean = mixing.dense(topology.complete(3))
    tx = cdjax.outer(cdjax.per_agent(inner), nesterov, mean, period=5)
    found = slow_after(tx, 15, lambda x: x - targets, np.zeros((3, 4, 4)))

    slow, momentum, states = jnp.zeros((4, 4)), 0, [inner.init(jnp.zeros((4, 4)))] * 3
    for _ in range(3):
        agents = [slow] * 3
        for j in range(3):
            for _ in range(5):
                updates, states[j] = inner.update(agents[j] - targets[j], states[j], agents[j])
                agents[j] = agents[j] + updates
        delta = slow - sum(agents) / 3
        momentum = 0.6 * momentum + delta
        slow = slow - 0.7 * (delta + 0.6 * momentum)
    np.testing.assert_allclose(found, jnp.stack([slow] * 3), atol=1e-12)


@pytest.mark.parametrize(("step_size", "converges"), [(1.357, True), (1.358, False)])
def test_the_limit_of_the_outer_step_is_tight(step_size, converges, x64):
    """At H = 500 agents are at their own optima at the end of a round, as after one step of 1."""
    np.testing.assert_allclose((1 - ALPHA) ** 500, 0, atol=1e-22)
    nesterov = optax.sgd(step_size, momentum=0.9, nesterov=True)
    tx = cdjax.outer(optax.sgd(1.0), nesterov, COMPLETE, period=1)
    carry = train(tx, quadratic_gradients(CENTERS), jnp.asarray(START), 20_000)
    later = train_on(tx, quadratic_gradients(CENTERS), *carry, 20_000)
    before, after = (jnp.max(jnp.abs(cdjax.slow_params(state) - 2)) for _, state in (carry, later))
    assert (after < before) == converges


def train_on(tx, gradient, x, state, num_steps):
    def step(_, carry):
        x, state = carry
        updates, state = tx.update(gradient(x), state, x)
        return optax.apply_updates(x, updates), state

    return jax.lax.fori_loop(0, num_steps, step, (x, state))


@pytest.mark.parametrize(("share", "converges"), [(0.99, True), (1.01, False)])
@pytest.mark.parametrize(
    ("graph", "limit"), [(topology.ring(5), 1.12531518), (topology.torus(16), 0.848214)]
)
def test_disagreement_on_a_graph_has_a_limit_of_its_own(graph, limit, share, converges, x64):
    nesterov = optax.sgd(share * limit, momentum=0.9, nesterov=True)
    tx = cdjax.outer(INNER, nesterov, mixing.dense(graph), period=1)
    start = jnp.asarray(np.random.default_rng(0).normal(size=graph.num_agents))
    slow = slow_after(tx, 6000, jnp.zeros_like, start)
    assert (jnp.ptp(slow) < 1e-6) if converges else (jnp.ptp(slow) > 1e6)


def test_random_pairs_with_heavy_ball_are_noloco(x64):
    """The mean is that of one agent; with β = γ its two messages are one, x."""
    pairs = mixing.random_pairs(topology.complete(4), jax.random.key(1))
    beta, mu, period = 0.7, 0.5, 5
    tx = cdjax.outer(INNER, optax.sgd(beta, momentum=mu), mixing.pull(pairs), period=period)
    centers = np.array([0.0, 1.0, 2.0, 3.0])
    found = slow_after(tx, 8 * period, quadratic_gradients(centers), np.zeros(4))

    slow, momentum = np.zeros(4), np.zeros(4)
    for number in range(8):
        x, peer = slow, np.asarray(pairs(number))
        for _ in range(period):
            x = x - ALPHA * (x - centers)
        delta = x - slow
        deltas, mean = (delta + delta[peer]) / 2, (slow + slow[peer]) / 2
        momentum = mu * momentum + beta * deltas + beta * (mean - slow)
        slow = slow + momentum
    np.testing.assert_allclose(found, slow, atol=1e-14)

    alone = cdjax.outer(INNER, optax.sgd(beta, momentum=mu), nothing, period=period)
    one = slow_after(alone, 8 * period, quadratic_gradients([1.5]), np.zeros(1))
    np.testing.assert_allclose(found.mean(), one[0], atol=1e-15)


def test_disagreement_in_random_pairs_follows_its_second_moments(x64):
    num_agents, gamma, mu, rounds = 4, 0.5, 0.5, 3
    moments = cdjax.theory.random_pairs_moments(num_agents, gamma, momentum=mu)
    start = jnp.array([1.0, -1.0, 2.0, -2.0])
    expected = np.linalg.matrix_power(moments, rounds) @ [10.0, 0, 0]
    # The three perfect matchings of four agents, drawn by the key.
    matchings = jnp.array([[1, 0, 3, 2], [2, 3, 0, 1], [3, 2, 1, 0]])

    def disagreement(key):
        draw = lambda step: matchings[jax.random.randint(jax.random.fold_in(key, step), (), 0, 3)]  # noqa: E731
        tx = cdjax.outer(INNER, optax.sgd(gamma, momentum=mu), mixing.pull(draw), period=1)
        return jnp.sum(slow_after(tx, rounds, jnp.zeros_like, start) ** 2)

    found = jax.vmap(disagreement)(jax.random.split(jax.random.key(0), 20_000))
    assert jnp.mean(found) == pytest.approx(expected[0], rel=0.01)


# torchft's published regression fixtures (BSD-3, diloco_regression_test.py, mocked updates): two
# fragments, H = 6, gradients 2 of step size 1, outer SGD of step size 2, from 1. By delay and
# merge: both fragments before every step, and what all agents share after every third.
LINE = [1.0 - 2 * k for k in range(16)]
PUBLISHED = {
    (0, 0.0): (
        [1, -1, -3, -11, -13, -15, -17, -19, -21, -35, -37, -39, -41, -43, -45, -59],
        [1, -1, -3, -5, -7, -9, -23, -25, -27, -29, -31, -33, -47, -49, -51, -53],
        [(-11, 1), (-11, -23), (-35, -23), (-35, -47)],
    ),
    (0, 0.5): (
        [1, -1, -3, -8, -10, -12, -14, -16, -18, -24.5, -26.5, -28.5, -30.5, -32.5, -34.5, -40.25],
        [1, -1, -3, -5, -7, -9, -17, -19, -21, -23, -25, -27, -32, -34, -36, -38],
        [(-11, 1), (-11, -23), (-29, -23), (-29, -35)],
    ),
    (0, 1.0): (LINE, LINE, [(-11, 1), (-11, -23), (-23, -23), (-23, -23)]),
    # By the same rule on paper; of the six this one's file was not at hand.
    (1, 0.0): (
        [1, -1, -3, -7, -9, -11, -13, -15, -17, -27, -29, -31, -33, -35, -37, -47],
        [1, -1, -3, -5, -7, -9, -19, -21, -23, -25, -27, -29, -39, -41, -43, -45],
        [(-7, 1), (-7, -19), (-27, -19), (-27, -39)],
    ),
    (1, 0.5): (
        [1, -1, -3, -6, -8, -10, -12, -14, -16, -21.5, -23.5, -25.5, -27.5, -29.5, -31.5, -35.75],
        [1, -1, -3, -5, -7, -9, -15, -17, -19, -21, -23, -25, -29, -31, -33, -35],
        [(-7, 1), (-7, -19), (-25, -19), (-25, -31), (-38, -31)],
    ),
    (1, 1.0): (LINE, LINE, [(-7, 1), (-7, -19), (-23, -19), (-23, -23)]),
}


@pytest.mark.parametrize(("delay", "merge"), PUBLISHED)
def test_the_published_sequences_of_torchft(delay, merge, x64):
    """With a merge of 1 agents hear nothing, which is refused; just below they hear no more."""
    below = min(merge, 1 - 1e-12)
    tx = cdjax.outer(
        optax.sgd(1.0), optax.sgd(2.0), nothing, period=6, fragments=2, delay=delay, merge=below
    )
    start = {"first": jnp.ones(1), "second": jnp.ones(1)}
    two = lambda tree: jax.tree.map(lambda x: jnp.full_like(x, 2), tree)  # noqa: E731
    found, states = trajectory(tx, two, start, 15)
    shared, (first, second, expected) = cdjax.slow_params(states), PUBLISHED[delay, merge]
    for name, own in {"first": first, "second": second}.items():
        np.testing.assert_allclose(found[name][:, 0], own[1:], rtol=0, atol=1e-10)
    thirds = [(shared["first"][k - 1, 0], shared["second"][k - 1, 0]) for k in range(3, 16, 3)]
    np.testing.assert_allclose(thirds[: len(expected)], expected, rtol=0, atol=1e-10)
    with pytest.raises(ValueError, match=r"merge is 1; it must lie in \[0, 1\)"):
        cdjax.outer(optax.sgd(1.0), optax.sgd(2.0), nothing, period=6, merge=1)


@pytest.mark.parametrize("delay", [1, 3])
def test_without_a_merge_the_steps_on_the_way_are_lost(delay, x64):
    """The slow parameters are those of rounds that are shorter by the delay, exactly."""
    # Halves of whole numbers have no rounding.
    inner, outer = optax.sgd(0.5), optax.sgd(1.0, momentum=0.5)
    gradient = quadratic_gradients(4 * CENTERS)
    late = cdjax.outer(inner, outer, nothing, period=6, delay=delay)
    short = cdjax.outer(inner, outer, nothing, period=6 - delay)
    for number in range(1, 5):
        np.testing.assert_array_equal(
            slow_after(late, 6 * number, gradient),
            slow_after(short, (6 - delay) * number, gradient),
        )


@pytest.mark.parametrize(
    ("merge", "delay", "expected"),
    [(0.5, 0, 2.3073173422), (0.5, 5, 2.3542160389), (0.25, 3, 2.4353185544)],
)
def test_a_merge_weighs_agents_by_their_own_progress(merge, delay, expected, x64):
    tx = cdjax.outer(INNER, OUTERS["nesterov"], COMPLETE, period=10, delay=delay, merge=merge)
    np.testing.assert_allclose(slow_after(tx), expected, atol=1e-9)


def test_fragments_of_separable_losses_are_runs_with_clocks_of_their_own(x64):
    tx = cdjax.outer(INNER, OUTERS["nesterov"], RING, period=6, fragments={"a": 0, "b": 1})
    start = {"a": jnp.asarray(CENTERS[::-1]), "b": jnp.asarray(CENTERS[::-1])}
    both = lambda tree: jax.tree.map(GRADIENT, tree)  # noqa: E731
    found = trajectory(tx, both, start, 40)[0]
    whole = cdjax.outer(INNER, OUTERS["nesterov"], RING, period=6)
    np.testing.assert_allclose(
        found["b"], trajectory(whole, GRADIENT, start["b"], 40)[0], atol=1e-14
    )

    # Fragment 0 is sent after three steps, and every six from there.
    first = cdjax.outer(INNER, OUTERS["nesterov"], RING, period=3)
    np.testing.assert_allclose(
        found["a"][:3], trajectory(first, GRADIENT, start["a"], 3)[0], atol=1e-14
    )
    assert jnp.ptp(found["a"][2]) < jnp.ptp(found["a"][5])


def test_fragments_are_of_equal_size_and_each_is_sent_once_per_round():
    sent = []

    def mix(tree, step=0):
        sizes = tuple(sorted(x.size for x in jax.tree.leaves(tree)))
        jax.debug.callback(lambda step: sent.append((int(step), sizes)), step)
        return tree

    tx = cdjax.outer(INNER, optax.sgd(1.0), mix, period=6, fragments=3)
    tree = {str(i): jnp.zeros((1, size)) for i, size in enumerate([1, 2, 3, 4, 5, 9])}
    train(tx, lambda tree: tree, tree, 12)
    jax.effects_barrier()
    assert sent == [(number, part) for number in (0, 1) for part in [(9,), (1, 2, 5), (3, 4)]]


@pytest.mark.parametrize(
    ("first", "last", "expected"),
    [
        (RING, RING, [2.35374319, 1.83079350, 2.18713985, 2.86419637, 2.67694169]),
        (RING, nothing, [1.64795575, 1.49563744, 2.08437865, 2.83799278, 3.22177732]),
        (nothing, RING, ON_RING),
    ],
    ids=["both", "CDSGD's order", "ATC's order"],
)
def test_an_overlapped_mix_has_the_fixed_point_of_its_order(first, last, expected, x64):
    tx = cdjax.outer(INNER, optax.sgd(1.0), last, period=10, overlapped=first)
    np.testing.assert_allclose(slow_after(tx), expected, atol=1e-8)


def test_an_overlapped_mix_moves_the_mean_by_the_outer_steps_alone(x64):
    start = jnp.asarray(np.random.default_rng(0).normal(size=5))
    tx = cdjax.outer(INNER, optax.sgd(0.7), RING, period=4, overlapped=RING)
    x = start
    for _ in range(4):
        x = x - ALPHA * GRADIENT(x)
    found = slow_after(tx, 4, GRADIENT, start)
    np.testing.assert_allclose(found.mean(), (start + 0.7 * (x - start)).mean(), atol=1e-15)


def test_the_first_round_has_as_many_steps_as_the_others(x64):
    tx = cdjax.outer(INNER, optax.sgd(1.0), COMPLETE, period=4)
    x, _ = trajectory(tx, GRADIENT, START, 12)
    np.testing.assert_array_equal(np.flatnonzero(np.ptp(x, axis=1) < 1e-14), [3, 7, 11])


def test_the_outer_step_goes_towards_what_was_learned(x64):
    tx = cdjax.outer(INNER, OUTERS["sgd"], COMPLETE, period=4)
    slow = slow_after(tx, 4)
    assert (slow > START).all() and (slow < CENTERS.mean()).all()


@pytest.fixture
def midway():
    """A state in the second round, with momentum in the buffers."""
    tx = cdjax.outer(optax.adam(0.1), optax.adam(0.3), RING, period=4)
    return tx, *train(tx, GRADIENT, jnp.asarray(CENTERS[::-1]), 7)


def test_a_round_in_which_nobody_is_present_leaves_everything_as_before(midway, x64):
    tx, x, state = midway
    updates, after = tx.update(GRADIENT(x), state, x, present=jnp.zeros(5, bool))
    for name in ("slow", "outer"):
        jax.tree.map(np.testing.assert_array_equal, getattr(after, name), getattr(state, name))
    np.testing.assert_allclose(optax.apply_updates(x, updates), state.slow, atol=1e-15)


def test_an_agent_that_is_not_present_loses_its_round_only(midway, x64):
    tx, x, state = midway
    _, everybody = tx.update(GRADIENT(x), state, x)
    present = jnp.arange(5) != 2
    _, after = tx.update(GRADIENT(x), state, x, present=present)
    moments = lambda state: (state.slow, state.outer[0][0].mu, state.outer[0][0].nu)  # noqa: E731
    for found, all_present, before in zip(*map(moments, (after, everybody, state)), strict=True):
        np.testing.assert_array_equal(found, np.where(present, all_present, before))
    assert after.outer[0][0].count == everybody.outer[0][0].count


def test_the_mean_of_those_present_is_a_run_without_the_others(x64):
    present = np.arange(5) < 4
    among = np.where(np.outer(present, present), 1 / 4, 0) + np.diag(~present)
    mix = mixing.dense(topology.from_matrix(among, validate=False))
    tx = cdjax.outer(INNER, OUTERS["nesterov"], mix, period=3)
    four = cdjax.outer(INNER, OUTERS["nesterov"], mixing.dense(topology.complete(4)), period=3)
    gradient = quadratic_gradients(CENTERS[:4], CURVATURES[:4])

    def step(_, carry):
        x, state = carry
        updates, state = tx.update(GRADIENT(x), state, x, present=jnp.asarray(present))
        return optax.apply_updates(x, updates), state

    x = jnp.asarray(START)
    _, state = jax.lax.fori_loop(0, 30, step, (x, tx.init(x)))
    expected = slow_after(four, 30, gradient, START[:4])
    np.testing.assert_allclose(cdjax.slow_params(state)[:4], expected, atol=1e-14)
    # An absent agent that counted as zeros would shrink what was learned by a fifth.
    assert abs(expected[0] * 4 / 5 - expected[0]) > 0.1


def test_a_run_that_resumes_in_the_middle_of_a_round_goes_on_bit_for_bit(x64):
    tx = cdjax.outer(
        optax.adam(0.1), OUTERS["nesterov"], RING, period=6, fragments=2, delay=1, merge=0.25
    )
    both = lambda tree: jax.tree.map(GRADIENT, tree)  # noqa: E731
    start = {"a": jnp.asarray(CENTERS), "b": jnp.asarray(START)}
    carry = (start, tx.init(start))
    for _ in range(2):
        x, state = jax.device_put(jax.device_get(carry))  # as a checkpoint does
        carry = jax.jit(lambda x, s: train_on(tx, both, x, s, 10))(x, state)
    whole = jax.jit(lambda x, s: train_on(tx, both, x, s, 20))(start, tx.init(start))
    jax.tree.map(np.testing.assert_array_equal, carry, whole)


def test_any_mixer_will_do_a_median_keeps_liars_out(x64):
    graph = topology.complete(5)
    lie = robust.sign_flip(10.0)
    honest = np.arange(4)
    x = jnp.asarray(CENTERS)
    for mix, stays in [(robust.trimmed_mean(graph, 1), True), (COMPLETE, False)]:
        attacked = robust.attacked(mix, lie, malicious=[4])
        tx = cdjax.outer(INNER, optax.sgd(1.0), attacked, period=1)
        slow = slow_after(tx, 1, jnp.zeros_like, x)[honest]
        inside = (slow >= CENTERS[honest].min()) & (slow <= CENTERS[honest].max())
        assert inside.all() == stays


def test_mixers_that_change_are_given_the_number_of_the_round(x64):
    steps = []

    def mix(tree, step=0):
        jax.debug.callback(lambda step: steps.append(int(step)), step)
        return tree

    tx = cdjax.outer(INNER, optax.sgd(1.0), mix, period=4)
    train(tx, GRADIENT, jnp.asarray(START), 13)
    jax.effects_barrier()
    assert steps == [0, 1, 2]


def test_evaluated_are_the_slow_parameters_wherever_they_stand(midway, x64):
    tx, x, state = midway
    np.testing.assert_array_equal(cdjax.eval_params(state, x), state.slow)
    chained = optax.chain(optax.clip(1.0), tx)
    np.testing.assert_array_equal(cdjax.slow_params(chained.init(x)), x)
    masked = optax.masked(tx, {"w": True, "fixed": False})
    tree = {"w": x, "fixed": jnp.ones(5)}
    state = masked.init({"w": x - 1, "fixed": jnp.ones(5)})
    assert_trees_close(cdjax.eval_params(state, tree), {"w": x - 1, "fixed": jnp.ones(5)})
    with pytest.raises(ValueError, match="no slow parameters"):
        cdjax.slow_params(optax.sgd(0.1).init(x))


def refuses(pattern, **options):
    make = functools.partial(cdjax.outer, INNER, optax.sgd(1.0), RING)
    with pytest.raises(ValueError, match=pattern):
        make(**options).init(random_stacked_tree(5))


def test_what_cannot_work_is_refused():
    refuses("no multiple of 3 fragments; give one that is, such as 12", period=10, fragments=3)
    refuses(r"period is 0; it must lie in \[1", period=0)
    refuses("delay is 5; .* every 5 steps .* at most 4", period=10, fragments=2, delay=5)
    refuses(r"merge is 1.0; it must lie in \[0, 1\)", period=10, merge=1.0)
    refuses("fragments is 5, but the parameters have 4 leaves", period=10, fragments=5)
    refuses("fragments has no path of leaf 'scalar'", period=10, fragments={"bias": 0, "layer": 1})
    named = {"bias": 0, "layer": 1, "scalar": 0}
    refuses("names 'head', but no leaf", period=10, fragments=named | {"head": 1})
    refuses(r"numbers \[0, 2\]; number them from 0", period=10, fragments={"bias": 0, "layer": 2})


def test_the_longest_path_decides_which_fragment_a_leaf_is_in():
    mixed = []

    def mix(tree, step=0):
        mixed.append(sorted(jax.tree_util.keystr(p) for p, _ in jax.tree.leaves_with_path(tree)))
        return tree

    labels = {"layer": 0, "layer/empty": 1, "bias": 1, "scalar": 1}
    tx = cdjax.outer(INNER, optax.sgd(1.0), mix, period=2, fragments=labels)
    tree = random_stacked_tree(5)
    jax.eval_shape(lambda tree: tx.update(tree, tx.init(tree), tree), tree)
    assert mixed == [["['layer']['kernel']"], ["['bias']", "['layer']['empty']", "['scalar']"]]
