r"""Agents that train in turn, as in the released code of the paper.

Algorithm 1 of Jiang et al. (2017) moves all agents at once. The code that its authors released
(github.com/SCSLabISU/CDSGD, train.py) lets one agent after another run through an epoch of its
data, each against its neighbours' current parameters: those that had their turn have moved on. The
two algorithms have different findings.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import optax
from jaxtyping import Array, Int

from cdjax._checks import stacked_size
from cdjax._trees import have_agent_axis, is_floating
from cdjax._types import OptState, Params
from cdjax.data import take_batch
from cdjax.training._loop import Indices, empty_rows, jitted_loop
from cdjax.training._step import LossFn, Outcome, TrainState, agent_key, gradient_fn
from cdjax.transforms import eval_params

# What these states hold, agents that stand still cannot keep in step.
_OF_ALL_AT_ONCE = (
    "EASGDState", "DownpourState", "GoSGDState", "CombineThenAdaptState", "TrackingState",
    "AdaptCorrectCombineState", "CorrectedConsensusState", "SUDAState", "DecentLaMState",
    "QuasiGlobalState", "QuasiGlobalAdamState", "OuterState", "KGTState", "LEDState",
    "PushSumState", "PushDIGingState", "RelayState",
)  # fmt: skip


def sequential_loop(loss_fn: LossFn, tx: optax.GradientTransformation) -> Callable[..., Outcome]:
    r"""Many steps of one agent after another, in one dispatch.

    In turn, for agent j = 0, …, N − 1 and then for each of its steps, with CDSGD for example:

    .. math:: x^j \leftarrow \sum_l \Pi_{jl} x^l - \alpha g_j(x^j), \quad x^l \text{ stays}, l \ne j

    Args:
        loss_fn: the loss of one agent, see :mod:`cdjax.training`.
        tx: any optax optimizer on stacked parameters. State that has the agent axis changes only in
            the agent's own turn; counters run through the same steps in every turn.

    Returns:
        A jitted function ``loop(state, data, indices, num_steps) -> (state, metrics)``, to be used
        as that of :func:`cdjax.training.train_loop`. Every agent takes its first ``num_steps``
        batches in one turn; ``state`` counts ``num_steps`` more; row k of the metrics is every
        agent's own step k.

    Raises:
        ValueError: from ``loop``, if ``tx`` has a server, sends messages, or holds what is right
            only if all agents move together, as corrections of bias do.

    Example::

        agent_loss = lambda p, model_state, b, key: (loss_fn(p, b), (model_state, {}))
        loop = cdjax.training.sequential_loop(agent_loss, tx)
        indices = cdjax.data.batch_indices(sizes, 2, first_step=0, num_steps=2, seed=0)
        state, metrics = loop(cdjax.training.init_state(params, tx, key=key), batch, indices, 2)

    Reference: github.com/SCSLabISU/CDSGD, the schedule of train.py.
    """
    gradient = gradient_fn(loss_fn)

    tx = optax.with_extra_args_support(tx)

    def step(state: TrainState, agent: Int[Array, ""], is_stacked: OptState, batch: Any) -> Outcome:
        """A step of one agent, of a state whose ``params`` are everybody's iterates x."""
        stored = _stored(state.opt_state, state.params)
        own = jax.tree.map(lambda x: x[agent], (stored, state.model_state, batch))
        grad, model_state, metrics = gradient(*own, agent_key(state, agent))
        grads = jax.tree.map(lambda x, g: jnp.zeros_like(x).at[agent].set(g), stored, grad)
        active = jnp.arange(stacked_size(stored), dtype=agent.dtype) == agent
        loss = metrics["loss"]
        updates, opt_state = tx.update(grads, state.opt_state, stored, active=active, value=loss)
        moved = eval_params(opt_state, optax.apply_updates(stored, updates))

        def one_moved(old: Array, moved: Array) -> Array:
            return old.at[agent].set(moved[agent])

        params = jax.tree.map(one_moved, state.params, moved)
        opt_state = jax.tree.map(
            lambda stacked, old, new: one_moved(old, new) if stacked else new,
            is_stacked,
            state.opt_state,
            opt_state,
        )
        model_state = jax.tree.map(lambda x, y: x.at[agent].set(y), state.model_state, model_state)
        return TrainState(state.step + 1, params, opt_state, model_state, state.key), metrics

    def loop(start: TrainState, data: Any, indices: Indices, num_steps: Int[Array, ""]) -> Outcome:
        num_agents = stacked_size(start.params)
        is_stacked = _which_are_stacked(tx, start)

        def turn(agent: Int[Array, ""], carry: Outcome) -> Outcome:
            state, rows = carry
            # Every agent's turn passes through the same steps, so what counts them starts anew.
            opt_state = jax.tree.map(
                lambda stacked, x, y: x if stacked else y,
                is_stacked,
                state.opt_state,
                start.opt_state,
            )
            state = state._replace(step=start.step, opt_state=opt_state)

            def body(i: Int[Array, ""], carry: Outcome) -> Outcome:
                state, rows = carry
                state, metrics = step(state, agent, is_stacked, take_batch(data, indices[i]))
                rows = jax.tree.map(lambda rows, m: rows.at[i, agent].set(m), rows, metrics)
                return state, rows

            return jax.lax.fori_loop(0, num_steps, body, (state, rows))

        first_batch = take_batch(data, indices[0])
        _, shapes = jax.eval_shape(lambda s: step(s, jnp.int32(0), is_stacked, first_batch), start)
        rows = empty_rows(shapes, (len(indices), num_agents))
        iterates = start._replace(params=eval_params(start.opt_state, start.params))
        state, rows = jax.lax.fori_loop(0, num_agents, turn, (iterates, rows))
        return state._replace(params=_stored(state.opt_state, state.params)), rows

    return jitted_loop(loop)


def _stored(opt_state: OptState, iterates: Params) -> Params:
    """The parameters that an optimizer in this state stores for these iterates.

    Those of Nesterov's form are look-ahead points x + μ v. The look-ahead that made them is one for
    all agents and changes with a schedule of μ, so agents that stand still are held by their
    iterates, and stored anew with the look-ahead of the agent whose turn it is.
    """
    lookahead = eval_params(opt_state, optax.tree.zeros_like(iterates))  # −μ v
    return jax.tree.map(lambda x, y: x - y if is_floating(x) else x, iterates, lookahead)


def _which_are_stacked(tx: optax.GradientTransformation, state: TrainState) -> Any:
    """For every leaf of the optimizer's state whether it has the agent axis."""
    for name in _OF_ALL_AT_ONCE:
        if optax.tree.get_all_with_path(state.opt_state, name):
            raise ValueError(
                f"tx has a {name}, of agents that exchange at the same time; agents that train in "
                "turn need an optimizer without server, rounds or messages, and without what "
                "corrects the bias of steps that all take together"
            )

    return have_agent_axis(tx.init, state.params)
