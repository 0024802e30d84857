"""Many rounds in one dispatch: local steps within each agent, then what the agents do together.

A step of all agents goes over all parameters, so local steps of many agents read and write the
memory once a step. Here a block of agents whose parameters fit in the cache takes all local steps
of a round before the next block begins; and of federated averaging only the drawn clients train.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax
from jaxtyping import Array, ArrayLike, Int, PRNGKeyArray

from cdjax._checks import check_choice, check_count, check_mixer, check_optimizer, stacked_size
from cdjax._divisors import largest_divisor
from cdjax._trees import have_agent_axis
from cdjax._types import Mixer, OptState, Params
from cdjax.agents import PLANS, agent_map, choose_plan
from cdjax.training._loop import Indices, empty_rows, jitted_loop
from cdjax.training._step import (
    LossFn,
    Metrics,
    Outcome,
    TrainState,
    agent_key,
    gradient_fn,
)
from cdjax.transforms._consensus import AdaptThenCombineState
from cdjax.transforms._fedavg import RestingState, fedavg_rounds, of_active
from cdjax.transforms._weighting import agent_average

# On a CPU, the bytes of the parameters of the agents that step together: with as much for their
# gradients they stay in the cache. Of 100 MLPs of 0.44 MB on two busy cores, a round of 30 steps
# took 1.2–1.6, 1.0–1.1, 1.0, 1.0–1.1, 1.3 and 1.1–1.3 s for blocks of 1, 2, 5, 10, 20 and 100
# agents (the least of five turns, in two measurements).
_BLOCK_BYTES = 5 << 19

Agents = Int[Array, " clients"]


class _Rounds(NamedTuple):
    """A round: its length, who trains in it, for how many steps, and what ends it.

    ``clients(number, num_agents)`` are the agents that train, in ascending order; ``combine(params,
    agents, number)`` are the parameters of those agents after the round.
    """

    period: int
    clients: Callable[[Any, int], Agents]
    own_steps: Int[np.ndarray, ...]
    combine: Callable[[Params, Agents, Any], Params]


def local_loop(
    loss_fn: LossFn,
    inner: optax.GradientTransformation,
    *,
    mix: Mixer,
    period: int,
    plan: str = "auto",
    gradient_norm: bool = True,
) -> Callable[..., Outcome]:
    r"""Many rounds in one dispatch: local steps within each agent, then one mix.

    .. math:: x^+ = \Pi_k (x + u), \qquad \Pi_k = I \text{ unless } \tau \mid k + 1

    The state and, up to rounding, the numbers are those of :func:`cdjax.training.train_loop` with
    ``adapt_then_combine(inner, mixing.every(period, mix))``. Local steps of many agents are faster
    here, as an agent's parameters stay in the cache from one step to the next.

    Args:
        loss_fn: the loss of one agent, see :mod:`cdjax.training`.
        inner: an optax optimizer of single numbers, such as SGD or Adam, or else in
            :func:`cdjax.per_agent`: it steps some of the agents at a time. If it takes the extra
            argument ``value`` or ``grad``, it gets each agent's own, stacked.
        mix: a mixer; it is given the round as its step.
        period: τ, in steps, at least 1.
        plan: ``vmap`` steps all agents at once, ``map`` and ``unroll`` one after another, and
            ``auto`` as many as the cache holds.
        gradient_norm: whether to measure it, as for :func:`cdjax.training.train_step`.

    Returns:
        A jitted function ``loop(state, data, indices, num_steps) -> (state, metrics)``, to be used
        as that of :func:`cdjax.training.train_loop`.

    Raises:
        ValueError: if the period is below 1 or the plan is unknown.

    Example::

        agent_loss = lambda p, model_state, b, key: (loss_fn(p, b), (model_state, {}))
        loop = cdjax.training.local_loop(agent_loss, optax.sgd(0.1), mix=mix, period=5)
        tx = cdjax.adapt_then_combine(optax.sgd(0.1), cdjax.mixing.every(5, mix))
        indices = cdjax.data.batch_indices(sizes, 2, first_step=0, num_steps=20, seed=0)
        state, metrics = loop(cdjax.training.init_state(params, tx, key=key), batch, indices, 20)
    """
    check_mixer(mix)
    check_count("period", period, low=1)
    everybody = lambda number, num_agents: jnp.arange(num_agents)  # noqa: E731
    combine = lambda params, agents, number: mix(params, number)  # noqa: E731
    rounds = _Rounds(period, everybody, np.array(period), combine)
    gradient = gradient_fn(loss_fn, with_norm=gradient_norm)
    return _round_loop(gradient, inner, rounds, plan=plan)


def fedavg_loop(
    loss_fn: LossFn,
    inner: optax.GradientTransformation,
    *,
    local_steps: int | Int[np.ndarray, " agents"],
    fraction: float = 1.0,
    weights: ArrayLike | None = None,
    key: PRNGKeyArray | None = None,
    plan: str = "auto",
    gradient_norm: bool = True,
) -> Callable[..., Outcome]:
    """Many rounds of federated averaging in one dispatch, which train the drawn clients only.

    The state and, up to rounding, the parameters are those of :func:`cdjax.training.train_loop`
    with :func:`cdjax.fedavg`, whose arguments these are.

    Args:
        loss_fn: the loss of one agent, see :mod:`cdjax.training`.
        inner: as for :func:`local_loop`.
        local_steps: steps per round, one number or one for each agent.
        fraction: C in [0, 1], the share of agents that are clients in a round.
        weights: each agent's number of samples, shape (N,); equal by default.
        key: of the draws; needed if the fraction is below 1.
        plan: as for :func:`local_loop`.
        gradient_norm: whether to measure it, as for :func:`cdjax.training.train_step`.

    Returns:
        A jitted function ``loop(state, data, indices, num_steps) -> (state, metrics)``, to be used
        as that of :func:`cdjax.training.train_loop`. Where clients are drawn, the metrics hold
        ``trained``, True for an agent and step if the agent was a client; the other metrics of
        agents that were not are 0, and their ``model_state`` is untouched.

    Raises:
        ValueError: as for :func:`cdjax.fedavg`, or if the plan is unknown.

    Example::

        agent_loss = lambda p, model_state, b, key: (loss_fn(p, b), (model_state, {}))
        options = {"local_steps": 5, "fraction": 0.5, "key": key}
        loop = cdjax.training.fedavg_loop(agent_loss, optax.sgd(0.1), **options)
        tx = cdjax.fedavg(optax.sgd(0.1), **options)
        indices = cdjax.data.batch_indices(sizes, 2, first_step=0, num_steps=20, seed=0)
        state, metrics = loop(cdjax.training.init_state(params, tx, key=key), batch, indices, 20)

    Reference: McMahan et al. (2017), Algorithm 1.
    """
    drawn = fedavg_rounds(local_steps, fraction=fraction, weights=weights, key=key)

    def combine(params: Params, agents: Agents, number: Any) -> Params:
        del number
        sizes = None if drawn.weights is None else drawn.weights[agents]
        return agent_average(params, sizes)

    rounds = _Rounds(drawn.period, drawn.clients, drawn.own_steps, combine)
    gradient = gradient_fn(loss_fn, with_norm=gradient_norm)
    return _round_loop(gradient, inner, rounds, plan=plan)


class _Carry(NamedTuple):
    """What local steps change: the parameters of those who train; the states of all agents."""

    params: Params
    opt_state: OptState
    model_state: Params
    rows: Metrics


class _Part(NamedTuple):
    """Consecutive steps of one round: numbers in the dispatch, and of the first in its round."""

    first: Int[Array, ""]
    until: Int[Array, ""]
    position: Int[Array, ""]


def _round_loop(
    gradient: Callable[..., Any],
    inner: optax.GradientTransformation,
    rounds: _Rounds,
    *,
    plan: str,
) -> Callable[..., Outcome]:
    check_optimizer("inner", inner)
    check_choice("plan", plan, PLANS)
    inner = optax.with_extra_args_support(inner)

    def loop(start: TrainState, data: Any, indices: Indices, num_steps: Int[Array, ""]) -> Outcome:
        num_agents, first = stacked_size(start.params), _step(start.opt_state)
        local_steps = _local_steps(gradient, inner, rounds, start, data, indices, plan=plan)

        def part(carry: tuple[Any, ...]) -> tuple[Any, ...]:
            """The steps up to the end of a round, or of the dispatch."""
            done, any_ended, server, agents, block = carry
            number, position = jnp.divmod(first + done, rounds.period)
            until = jnp.minimum(done + rounds.period - position, num_steps)
            block = local_steps(block, agents, _Part(done, until, position))
            ended = position + until - done == rounds.period

            def combined(params: Params, server: Params, agents: Agents) -> tuple[Any, ...]:
                params = rounds.combine(params, agents, number)
                server = jax.tree.map(lambda x: x[0], params) if some_rest else None
                return params, server, rounds.clients(number + 1, num_agents)

            same = lambda *args: args  # noqa: E731
            args = (block.params, server, agents)
            params, server, agents = jax.lax.cond(ended, combined, same, *args)
            return until, any_ended | ended, server, agents, block._replace(params=params)

        agents = rounds.clients(first // rounds.period, num_agents)
        some_rest = len(agents) < num_agents
        shapes = jax.eval_shape(gradient, *_arguments(start, data, indices))[2]
        rows = empty_rows(shapes, (len(indices), num_agents))
        if some_rest:
            rows["trained"] = jnp.zeros((len(indices), num_agents), bool)
        params, server = start.params, None
        if some_rest:
            # All hold the server's parameters at the beginning of a round, but for the first.
            server = jax.tree.map(lambda x: x[0], params)
            params = jax.tree.map(lambda x: x[agents], params)
        block = _Carry(params, _inner_state(start.opt_state), start.model_state, rows)
        carry = (jnp.int32(0), jnp.bool_(False), server, agents, block)
        carry = jax.lax.while_loop(lambda carry: carry[0] < num_steps, part, carry)
        _, any_ended, server, agents, block = carry

        def of_all(x: Array, server: Array, before: Array) -> Array:
            return jnp.where(any_ended, server[None], before).at[agents].set(x)

        params = block.params
        if some_rest:
            params = jax.tree.map(of_all, params, server, start.params)
        opt_state = _with_inner_state(start.opt_state, block.opt_state, num_steps)
        state = TrainState(start.step + num_steps, params, opt_state, block.model_state, start.key)
        return state, block.rows

    return jitted_loop(loop)


def _local_steps(
    gradient: Callable[..., Any],
    inner: optax.GradientTransformationExtraArgs,
    rounds: _Rounds,
    start: TrainState,
    data: Any,
    indices: Indices,
    *,
    plan: str,
) -> Callable[[_Carry, Agents, _Part], _Carry]:
    """A function that takes the steps of a part, block by block of agents."""
    num_agents = stacked_size(start.params)
    is_stacked = have_agent_axis(inner.init, start.params)

    def one_step(block: _Carry, agents: Agents, part: _Part, k: Int[Array, ""]) -> _Carry:
        """A step of a block's agents, whose states are the block's own."""
        batch = jax.tree.map(lambda x: x[agents[:, None], indices[k, agents]], data)
        state = start._replace(step=start.step + k)
        keys = jax.vmap(lambda agent: agent_key(state, agent))(agents)
        mapped = agent_map(gradient, plan="vmap" if len(agents) > 1 else "unroll")
        grads, model_state, metrics = mapped(block.params, block.model_state, batch, keys)
        # Each agent's own: the mean is not known before the agents of other blocks have stepped.
        losses = {"value": metrics["loss"], "grad": grads}
        updates, opt_state = inner.update(grads, block.opt_state, block.params, **losses)
        if rounds.own_steps.ndim:
            active = part.position + k - part.first < jnp.asarray(rounds.own_steps)[agents]
            states = opt_state, block.opt_state
            updates, opt_state = of_active(active, updates, states, is_stacked)
        params = optax.apply_updates(block.params, updates)
        if "trained" in block.rows:
            metrics |= {"trained": jnp.ones(len(agents), bool)}
        rows = jax.tree.map(lambda rows, x: rows.at[k, agents].set(x), block.rows, metrics)
        return _Carry(params, opt_state, model_state, rows)

    def steps(carry: _Carry, agents: Agents, part: _Part) -> _Carry:
        num_clients = len(agents)
        size = _block_size(gradient, _arguments(start, data, indices), num_clients, plan=plan)
        before = carry.opt_state

        def of_block(number: Int[Array, ""] | int, carry: _Carry) -> _Carry:
            begin = number * size
            slice_of = lambda x: jax.lax.dynamic_slice_in_dim(x, begin, size)  # noqa: E731
            slice_back = lambda new, x: jax.lax.dynamic_update_slice_in_dim(x, new, begin, 0)  # noqa: E731
            take, put, own = slice_of, slice_back, slice_of(agents)
            if num_clients < num_agents:  # those of all agents, from which the clients' are taken
                take, put = lambda x: x[own], lambda new, x: x.at[own].set(new)

            # What is not stacked counts steps: every block counts the same ones.
            taken = lambda s, x, first: take(x) if s else first  # noqa: E731
            block = _Carry(
                jax.tree.map(slice_of, carry.params),
                jax.tree.map(taken, is_stacked, carry.opt_state, before),
                jax.tree.map(take, carry.model_state),
                carry.rows,
            )
            one = lambda k, block: one_step(block, own, part, k)  # noqa: E731
            block = jax.lax.fori_loop(part.first, part.until, one, block)
            counted = lambda s, new, x: put(new, x) if s else new  # noqa: E731
            return _Carry(
                jax.tree.map(slice_back, block.params, carry.params),
                jax.tree.map(counted, is_stacked, block.opt_state, carry.opt_state),
                jax.tree.map(put, block.model_state, carry.model_state),
                block.rows,
            )

        if size == num_clients:
            return of_block(0, carry)
        return jax.lax.fori_loop(0, num_clients // size, of_block, carry)

    return steps


def _block_size(
    gradient: Callable[..., Any], one_agent: tuple[Any, ...], num_clients: int, *, plan: str
) -> int:
    """How many agents step together; it divides their number."""
    chosen = choose_plan(gradient, one_agent, num_agents=num_clients) if plan == "auto" else plan
    if chosen != "vmap":
        return 1
    if plan == "vmap" or jax.default_backend() != "cpu":
        return num_clients
    num_bytes = sum(x.size * x.dtype.itemsize for x in jax.tree.leaves(one_agent[0]))
    return largest_divisor(num_clients, max(1, _BLOCK_BYTES // num_bytes))


def _arguments(state: TrainState, data: Any, indices: Indices) -> tuple[Any, ...]:
    """The shapes of one agent's arguments of the gradient."""

    def shapes() -> tuple[Any, ...]:
        batch = jax.tree.map(lambda x: x[0, indices[0, 0]], data)
        params, model_state = jax.tree.map(lambda x: x[0], (state.params, state.model_state))
        return params, model_state, batch, agent_key(state, 0)

    return jax.eval_shape(shapes)


def _step(opt_state: Any) -> Int[Array, ""]:
    """The step that tells the round."""
    if not isinstance(opt_state, AdaptThenCombineState):
        raise ValueError(
            f"state.opt_state is a {type(opt_state).__name__}; expected the state of the "
            "transformation with the same rounds, which init_state makes"
        )
    return opt_state.step


def _inner_state(opt_state: Any) -> OptState:
    """The inner optimizer's state."""
    inner = opt_state.inner
    return inner.inner if isinstance(inner, RestingState) else inner


def _with_inner_state(opt_state: Any, new: OptState, num_steps: Int[Array, ""]) -> OptState:
    """The whole state some steps later."""
    inner = opt_state.inner
    if isinstance(inner, RestingState):
        new = RestingState(inner.step + num_steps, new)
    return AdaptThenCombineState(opt_state.step + num_steps, new)
