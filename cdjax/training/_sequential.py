r"""Agents that train in turn, as in the released code of the paper.

Algorithm 1 of Jiang et al. (2017) moves all agents at once. The code that its authors released
(github.com/SCSLabISU/CDSGD, train.py) lets one agent after another run through an epoch of its
data, each against its neighbours' current parameters: those that had their turn have moved on. The
two algorithms have different findings; this one reproduces the released code's.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import optax
from jaxtyping import Array, Int

from cdjax._checks import stacked_size
from cdjax.data import take_batch
from cdjax.training._loop import Indices, empty_rows
from cdjax.training._step import LossFn, Outcome, TrainState, agent_key, gradient_fn, updated


def sequential_loop(loss_fn: LossFn, tx: optax.GradientTransformation) -> Callable[..., Outcome]:
    r"""Many steps of one agent after another, in one dispatch.

    In turn, for agent j = 0, …, N − 1 and then for each of its steps, with CDSGD for example:

    .. math:: x^j \leftarrow \sum_l \Pi_{jl} x^l - \alpha g_j(x^j), \quad x^l \text{ stays}, l \ne j

    Args:
        loss_fn: the loss of one agent, see :mod:`cdjax.training`.
        tx: any optax optimizer on stacked parameters. State that leads with the agent axis changes
            only in the agent's own turn; counters run through the same steps in every turn.

    Returns:
        A jitted function ``loop(state, data, indices, num_steps) -> (state, metrics)``, to be used
        as that of :func:`cdjax.training.train_loop`. Every agent takes its first ``num_steps``
        batches in one turn; ``state`` counts ``num_steps`` more; row k of the metrics is every
        agent's own step k.

    Example::

        agent_loss = lambda p, model_state, b, key: (loss_fn(p, b), (model_state, {}))
        loop = cdjax.training.sequential_loop(agent_loss, tx)
        indices = cdjax.data.batch_indices(sizes, 2, first_step=0, num_steps=2, seed=0)
        state, metrics = loop(cdjax.training.init_state(params, tx, key=key), batch, indices, 2)

    Reference: github.com/SCSLabISU/CDSGD, the schedule of train.py.
    """
    gradient = gradient_fn(loss_fn)

    def step(state: TrainState, agent: Int[Array, ""], batch: Any) -> Outcome:
        own = jax.tree.map(lambda x: x[agent], (state.params, state.model_state, batch))
        grad, model_state, metrics = gradient(*own, agent_key(state, agent))
        grads = jax.tree.map(lambda x, g: jnp.zeros_like(x).at[agent].set(g), state.params, grad)
        moved = updated(tx, state, grads)
        num_agents = stacked_size(grads)

        def one_moved(old: Array, moved: Array) -> Array:
            return old.at[agent].set(moved[agent]) if _stacked(old, num_agents) else moved

        params, opt_state = jax.tree.map(one_moved, (state.params, state.opt_state), moved)
        model_state = jax.tree.map(lambda x, y: x.at[agent].set(y), state.model_state, model_state)
        return TrainState(state.step + 1, params, opt_state, model_state, state.key), metrics

    def loop(start: TrainState, data: Any, indices: Indices, num_steps: Int[Array, ""]) -> Outcome:
        num_agents = stacked_size(start.params)

        def turn(agent: Int[Array, ""], carry: Outcome) -> Outcome:
            state, rows = carry
            # Every agent's turn passes through the same steps, so what counts them starts anew.
            pairs = state.opt_state, start.opt_state
            opt_state = jax.tree.map(lambda x, y: x if _stacked(x, num_agents) else y, *pairs)
            state = state._replace(step=start.step, opt_state=opt_state)

            def body(i: Int[Array, ""], carry: Outcome) -> Outcome:
                state, rows = carry
                state, metrics = step(state, agent, take_batch(data, indices[i]))
                rows = jax.tree.map(lambda rows, m: rows.at[i, agent].set(m), rows, metrics)
                return state, rows

            return jax.lax.fori_loop(0, num_steps, body, (state, rows))

        first_batch = take_batch(data, indices[0])
        _, shapes = jax.eval_shape(lambda s: step(s, jnp.int32(0), first_batch), start)
        rows = empty_rows(shapes, (len(indices), num_agents))
        return jax.lax.fori_loop(0, num_agents, turn, (start, rows))

    return jax.jit(loop, donate_argnums=0)


def _stacked(leaf: Array, num_agents: int) -> bool:
    return jnp.shape(leaf)[:1] == (num_agents,)
