"""AD-PSGD: agents that average in pairs, each in its own time, with gradients that are stale.

Lian, Zhang, Zhang, Liu, *Asynchronous Decentralized Parallel Stochastic Gradient Descent*, ICML
2018, arXiv:1710.06952.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax
from jaxtyping import Array, Int

from cdjax._checks import check_indices, check_optimizer, check_params, stacked_size
from cdjax._types import OptState, Params
from cdjax.network import Averagings
from cdjax.training._loop import Indices, empty_rows, jitted_loop
from cdjax.training._step import LossFn, Outcome, TrainState, gradient_fn


class ADPSGDState(NamedTuple):
    """State of :func:`ad_psgd`.

    Attributes:
        snapshots: the parameters at which each agent computes its gradient.
        inner: the inner optimizer's state of each agent.
    """

    snapshots: Params
    inner: OptState


def ad_psgd(inner: optax.GradientTransformation) -> optax.GradientTransformation:
    """The state of AD-PSGD, for ``cdjax.training.init_state``; :func:`ad_psgd_loop` trains.

    Args:
        inner: an optax optimizer of one agent.

    Returns:
        A transformation whose ``update`` raises: a step of all agents at once is none of AD-PSGD.

    Example: ``state = cdjax.training.ad_psgd(optax.sgd(0.1)).init(params)``
    """
    check_optimizer("inner", inner)

    def init(params: Params) -> ADPSGDState:
        return ADPSGDState(jax.tree.map(jnp.asarray, params), jax.vmap(inner.init)(params))

    def update(updates: Params, state: ADPSGDState, params: Params | None = None) -> Any:
        check_params(params, "ad_psgd")
        raise ValueError("ad_psgd has no step of all agents; train with ad_psgd_loop")

    return optax.GradientTransformation(init, update)  # pyright: ignore[reportArgumentType]


def ad_psgd_loop(
    loss_fn: LossFn,
    inner: optax.GradientTransformation,
    *,
    events: Averagings,
    sizes: Sequence[int] | Int[np.ndarray, " agents"],
) -> Callable[..., Outcome]:
    r"""Replays the events of AD-PSGD, one gradient of one agent each.

    .. math:: x^i, x^j \leftarrow \tfrac 1 2 (x^i + x^j), \qquad
              x^i \leftarrow x^i + u(g_i(\hat x^i)), \qquad \hat x^i \leftarrow x^i

    when agent i has computed its gradient at the snapshot :math:`\hat x^i`, which it took after its
    last event; others have averaged with it since, so that the gradient is stale. A step is N
    events: some agents then have several, others none.

    Args:
        loss_fn: the loss of one agent, see :mod:`cdjax.training`.
        inner: an optax optimizer of one agent, whose updates are u.
        events: who averages with whom, in which order, of :func:`cdjax.network.averagings`.
        sizes: the number of samples of each agent, shape (N,).

    Returns:
        A jitted function ``loop(state, data, indices, num_steps) -> (state, metrics)``, to be used
        as that of :func:`cdjax.training.train_loop`, with a state of :func:`ad_psgd`. Of
        ``indices`` only the shape counts: every event draws its batch from the agent's samples,
        with replacement, by ``fold_in(key, event)``. The metrics are sums over an agent's events in
        a step, and hold ``trained``, how many these are. Beyond the last event nothing happens.

    Raises:
        ValueError: if the optimizer is none, or an event names an agent that is none.

    Example::

        agent_loss = lambda p, model_state, b, key: (loss_fn(p, b), (model_state, {}))
        loop = cdjax.training.ad_psgd_loop(agent_loss, optax.sgd(0.1), events=events, sizes=sizes)
        tx = cdjax.training.ad_psgd(optax.sgd(0.1))
        indices = cdjax.data.batch_indices(sizes, 2, first_step=0, num_steps=8, seed=0)
        state, metrics = loop(cdjax.training.init_state(params, tx, key=key), batch, indices, 8)

    Reference: Lian et al. (2018), Algorithm 1 (number not verified).
    """
    check_optimizer("inner", inner)
    gradient = gradient_fn(loss_fn)
    agents, partners = jnp.asarray(events.agents), jnp.asarray(events.partners)
    num_samples = jnp.asarray(sizes)

    def loop(start: TrainState, data: Any, indices: Indices, num_steps: Int[Array, ""]) -> Outcome:
        num_agents = stacked_size(start.params)
        check_indices("events.agents", events.agents, num_agents, "agents")
        check_indices("events.partners", events.partners, num_agents, "agents")

        def of_one(tree: Any, agent: Int[Array, ""]) -> Any:
            return jax.tree.map(lambda x: x[agent], tree)

        def with_one(tree: Any, agent: Int[Array, ""], one: Any) -> Any:
            return jax.tree.map(lambda x, own: x.at[agent].set(own), tree, one)

        first, batch_size = start.step * num_agents, indices.shape[-1]

        def outcome(state: TrainState, event: Int[Array, ""]) -> Any:
            agent = agents[event]
            draw_key, key = jax.random.split(jax.random.fold_in(state.key, event))
            drawn = jax.random.randint(draw_key, (batch_size,), 0, num_samples[agent])
            batch = jax.tree.map(lambda x: x[agent, drawn], data)
            own = of_one((state.opt_state.snapshots, state.model_state), agent)
            return gradient(*own, batch, key)

        def one_event(event: Int[Array, ""], carry: Outcome) -> Outcome:
            state, rows = carry
            k = (event - first) // num_agents
            agent, partner = agents[event], partners[event]
            grads, model_state, metrics = outcome(state, event)
            mine, others = of_one(state.params, agent), of_one(state.params, partner)
            mean = jax.tree.map(lambda x, y: (x + y) / 2, mine, others)
            updates, own = inner.update(grads, of_one(state.opt_state.inner, agent), mean)
            params = with_one(state.params, partner, mean)
            stepped = optax.apply_updates(mean, updates)
            opt_state = ADPSGDState(
                with_one(state.opt_state.snapshots, agent, stepped),
                with_one(state.opt_state.inner, agent, own),
            )
            state = state._replace(
                params=with_one(params, agent, stepped),
                opt_state=opt_state,
                model_state=with_one(state.model_state, agent, model_state),
            )
            metrics |= {"trained": jnp.int32(1)}
            return state, jax.tree.map(lambda rows, x: rows.at[k, agent].add(x), rows, metrics)

        shapes = jax.eval_shape(lambda: outcome(start, first)[2])
        rows = empty_rows(shapes, (len(indices), num_agents))
        rows["trained"] = jnp.zeros((len(indices), num_agents), jnp.int32)
        until = jnp.minimum(first + num_steps * num_agents, len(events.agents))
        state, rows = jax.lax.fori_loop(first, until, one_event, (start, rows))
        return state._replace(step=start.step + num_steps), rows

    return jitted_loop(loop)
