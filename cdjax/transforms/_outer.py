r"""An outer optimizer on what agents have learned in a round of local steps, over any mixer.

Douillard et al., *DiLoCo: Distributed Low-Communication Training of Language Models*, 2023,
arXiv:2311.08105: Nesterov's momentum outside, AdamW inside, the mean over all agents.

Douillard et al., *Streaming DiLoCo with overlapping communication*, 2025, arXiv:2501.18512:
fragments that take turns, a delay, and a merge (the paper's text not verified; the rule is that of
github.com/meta-pytorch/torchft, local_sgd.py).

Kolehmainen et al., *NoLoCo: No-all-reduce Low Communication Training Method for Large Models*,
2025, arXiv:2506.10911: pairs in place of the mean (the rule is that of github.com/jkolehm/noloco).

*Factored Gossip DiLoCo: Reducing Blocking Communication in DiLoCo*, 2026, arXiv:2606.22768: a mix
of the round's start beside the local steps (abstract only, the paper's text not verified).

The slow parameters :math:`\varphi` are each agent's own. With the mean over all agents they are
equal; on a sparse graph they are not, and :math:`\varphi - \Pi x` then holds the consensus
displacement as well as what was learned. So the outer momentum acts on both, as CDMSGD's does.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple, TypeAlias

import jax
import jax.numpy as jnp
import numpy as np
import optax
from jaxtyping import Array, Bool, Int

from cdjax._checks import (
    check_count,
    check_inner,
    check_mixer,
    check_optimizer,
    check_params,
    check_scalar,
    check_whole,
)
from cdjax._trees import along_agents, displacement, have_agent_axis, is_floating, map_floats
from cdjax._types import Mixer, OptState, Params
from cdjax.transforms._cdmsgd import found_slow

Fragments: TypeAlias = int | Mapping[str, int]

# From a fragment's adapted and slow parameters, the outer state and the number of the round to the
# next slow parameters and outer state.
_Advance: TypeAlias = Callable[[Params, Params, OptState, Int[Array, ""]], tuple[Params, OptState]]


class OuterState(NamedTuple):
    """State of :func:`outer`: the step, the slow parameters φ, and the optimizers' states.

    ``outer`` has the outer optimizer's state of each fragment, whose rounds it counts.
    """

    step: Int[Array, ""]
    slow: Params
    outer: tuple[OptState, ...]
    inner: OptState


def outer(
    inner: optax.GradientTransformation,
    outer_optimizer: optax.GradientTransformation,
    mix: Mixer,
    *,
    period: int,
    fragments: Fragments = 1,
    delay: int = 0,
    merge: float = 0.0,
    overlapped: Mixer | None = None,
) -> optax.GradientTransformationExtraArgs:
    r"""Local steps, and after every H of them an outer step on every agent's slow parameters.

    .. math::
        \Delta = \varphi - \Pi x, \qquad
        \varphi^+ = \varphi + u(\Delta), \qquad x \leftarrow \varphi^+

    where u are the updates of the outer optimizer, for which :math:`\Delta` is the gradient. The
    inner optimizer's state stays with its agent, neither mixed nor reset. By the mixer it is

    - with the mean over all agents DiLoCo (outer Nesterov), SlowMo (heavy ball), FedAvg with a
      server's optimizer, and :func:`fedavg` (``optax.sgd(1.0)``);
    - with random pairs and heavy ball NoLoCo, which sends :math:`\varphi` beside x: with its
      :math:`\gamma = \beta` only their difference counts, and x is enough;
    - on any graph with ``optax.sgd(1.0)`` :func:`adapt_then_combine` with :func:`mixing.every`;
    - with one agent Lookahead.

    On a sparse graph it ends where :math:`\varphi = \Pi x(\varphi)`, whatever the outer optimizer.
    On agents with unlike losses that is not the optimum: see :func:`kgt` and :func:`led`.

    *Fragments.* With P of them the parameters are sent in parts, one every H/P steps. It takes a
    message τ steps to arrive: fragment f is sent τ steps before step (f + 1) H/P of the round, and
    at that step

    .. math:: x_f \leftarrow a \, x_f + (1 - a) \, \varphi_f^+

    With :math:`a = 0` the steps that agents take meanwhile are lost. Nothing reads
    :math:`\varphi_f` on its way, so the state has it when it is sent, and holds no copy for τ.

    *Overlapped.* A mixer :math:`\Pi_1` that takes the start of the round can do so beside the local
    steps. Then each agent's outer step is on what it has learned alone:

    .. math:: \varphi^+ = \Pi [\Pi_1 \varphi + u(\varphi - x)]

    which is CDSGD's order without the last mix (``mix=lambda tree, step=0: tree``).

    Args:
        inner: any optax optimizer, each agent's own.
        outer_optimizer: any optax optimizer, such as ``optax.sgd(0.7, 0.9, nesterov=True)``.
        mix: a mixer. It is given the number of the round in place of the step.
        period: H, the steps of a round, at least 1.
        fragments: P, a divisor of H: of about equal sizes, each of whole leaves. Or which fragment
            each leaf is in: a dict from a path, or the beginning of one, to a number from 0, as
            ``{"embed": 0, "layers/0": 1}``. An outer optimizer sees one fragment.
        delay: τ in steps, at least 0 and below H/P.
        merge: a in [0, 1), the weight of an agent's own parameters when a fragment arrives.
        overlapped: :math:`\Pi_1`, given the number of the round too.

    Returns:
        An optax transformation; its ``update`` needs ``params`` and passes on extra arguments. With
        ``present``, truth values of shape (N,), agents that are not present when a fragment is sent
        lose their round: neither their slow parameters nor their outer state change. The state
        holds the slow parameters, which are what to evaluate: see :func:`slow_params`.

    Raises:
        ValueError: if an argument is out of its range; from ``init``, if ``fragments`` does not fit
            the parameters.

    Example::

        nesterov = optax.sgd(0.7, momentum=0.9, nesterov=True)
        tx = cdjax.outer(optax.adamw(3e-4), nesterov, mix, period=100)

    Reference: Douillard et al. (2023), Algorithm 1, with Π in place of the mean.
    """
    check_optimizer("outer_optimizer", outer_optimizer)
    check_inner(inner, mix)
    outer_optimizer = optax.with_extra_args_support(outer_optimizer)

    def advance(
        x: Params, slow: Params, state: OptState, number: Int[Array, ""]
    ) -> tuple[Params, OptState]:
        updates, state = outer_optimizer.update(displacement(slow, mix(x, number)), state, slow)
        return optax.apply_updates(slow, updates), state  # φ + u(φ − Πx)

    def advance_alone(
        x: Params, slow: Params, state: OptState, number: Int[Array, ""]
    ) -> tuple[Params, OptState]:
        updates, state = outer_optimizer.update(displacement(slow, x), state, slow)
        start = overlapped(slow, number) if overlapped else slow
        return mix(optax.apply_updates(start, updates), number), state  # Π[Π₁φ + u(φ − x)]

    if overlapped is not None:
        check_mixer(overlapped)
    return outer_rounds(
        inner,
        outer_optimizer.init,
        advance_alone if overlapped else advance,
        period=period,
        fragments=fragments,
        delay=delay,
        merge=merge,
    )


def slow_params(state: OptState) -> Params:
    r"""The slow parameters :math:`\varphi` of :func:`outer` and its kin, anywhere in a chain.

    Those of :func:`sparse_loco` are its :math:`\theta`.

    Args:
        state: the optimizer's state.

    Returns:
        Stacked parameters: agents agree on them after a mean over all, and nearly so on a graph.

    Raises:
        ValueError: if no part of the state has slow parameters.

    Example::

        tx = cdjax.outer(optax.sgd(0.1), optax.sgd(0.7), mix, period=10)
        evaluated = cdjax.slow_params(tx.init(params))
    """
    if (slow := found_slow(state)) is not None:
        return slow
    raise ValueError("the optimizer has no slow parameters; evaluate cdjax.eval_params")


def outer_rounds(
    inner: optax.GradientTransformation,
    init_outer: Callable[[Params], OptState],
    advance: _Advance,
    *,
    period: int,
    fragments: Fragments = 1,
    delay: int = 0,
    merge: float = 0.0,
) -> optax.GradientTransformationExtraArgs:
    """Rounds of local steps that end in a step of the slow parameters, fragment by fragment."""
    check_optimizer("inner", inner)
    check_count("period", period, low=1)
    num_fragments = _check_fragments(fragments, period)
    window = period // num_fragments
    check_count("delay", delay, low=0)
    if delay >= window:
        raise ValueError(
            f"delay is {delay}; a fragment is sent every {window} steps and one is on its way at a "
            f"time, so give at most {window - 1}"
        )
    check_scalar("merge", merge, low=0, high=1, high_open=True)
    inner = optax.with_extra_args_support(inner)

    def init(params: Params) -> OuterState:
        labels = _labels(params, fragments)
        # A copy, so that params and state can be donated together.
        slow = jax.tree.map(jnp.copy, params)
        outer_states = (init_outer(_part(slow, labels, f)) for f in range(num_fragments))
        return OuterState(jnp.zeros([], jnp.int32), slow, (*outer_states,), inner.init(params))

    def update(
        updates: optax.Updates,
        state: OuterState,
        params: Params | None = None,
        present: Bool[Array, " agents"] | None = None,
        **extra_args: Any,
    ) -> tuple[optax.Updates, OuterState]:
        x = check_params(params, "outer", updates)
        updates, inner_state = inner.update(updates, state.inner, x, **extra_args)
        labels = _labels(x, fragments)
        next_step = state.step + 1
        # Windows of H/P steps; those that are being sent end τ steps before those that arrive.
        sends, arrives = (next_step + delay) % window == 0, next_step % window == 0
        sent, arrived = (next_step + delay) // window - 1, next_step // window - 1

        def pass_by(updates: Params, slow: Params, states: Any) -> tuple[Params, Params, Any]:
            return updates, slow, states

        def send(f: int, updates: Params, slow: Params, states: Any) -> tuple[Params, Params, Any]:
            own, own_updates, before = (_part(tree, labels, f) for tree in (x, updates, slow))
            stepped = optax.apply_updates(own, own_updates)
            after, outer_state = advance(stepped, before, states[f], sent // num_fragments)
            if present is not None:
                new, old = (after, outer_state), (before, states[f])
                is_stacked = have_agent_axis(lambda p: (p, init_outer(p)), before)
                after, outer_state = _of_present(present, new, old, is_stacked)
            slow = _with_part(slow, labels, f, after)
            if not delay:
                updates = arrive(f, updates, slow, states)[0]
            return updates, slow, (*states[:f], outer_state, *states[f + 1 :])

        def arrive(
            f: int, updates: Params, slow: Params, states: Any
        ) -> tuple[Params, Params, Any]:
            own, own_updates, target = (_part(tree, labels, f) for tree in (x, updates, slow))
            if merge:
                stepped = optax.apply_updates(own, own_updates)
                target = map_floats(lambda goal, x: goal + merge * (x - goal), target, stepped)
            moved = jax.tree.map(
                lambda d, u: d.astype(u.dtype), displacement(target, own), own_updates
            )
            return _with_part(updates, labels, f, moved), slow, states

        events, happens = [pass_by], jnp.where(sends, 1 + sent % num_fragments, 0)
        events += [functools.partial(send, f) for f in range(num_fragments)]
        if delay:
            events += [functools.partial(arrive, f) for f in range(num_fragments)]
            number = 1 + num_fragments + arrived % num_fragments
            happens = jnp.where(arrives, number, happens)
        updates, slow, outer_states = jax.lax.switch(
            happens, events, updates, state.slow, state.outer
        )
        return updates, OuterState(next_step, slow, outer_states, inner_state)

    return optax.GradientTransformationExtraArgs(init, update)  # pyright: ignore[reportArgumentType]


def _of_present(present: Bool[Array, " agents"], new: Any, old: Any, is_stacked: Any) -> Any:
    """Slow parameters and outer state, in which nothing has changed for agents not present.

    What counts the rounds has no agent axis, and counts those in which anybody is present.
    """

    def leaf(is_stacked: bool, new: Array, old: Array) -> Array:
        kept = along_agents(present, new) if is_stacked else jnp.any(present)
        return jnp.where(kept, new, old)

    return jax.tree.map(leaf, is_stacked, new, old)


def _check_fragments(fragments: Fragments, period: int) -> int:
    """The number of fragments P; raises unless it divides the period and numbers run from 0."""
    if isinstance(fragments, Mapping):
        for path, number in fragments.items():
            check_whole(f"fragments[{path!r}]", number)
        count = len({*fragments.values()})
        if {*fragments.values()} != {*range(count)} or not count:
            raise ValueError(
                f"fragments has the numbers {sorted({*fragments.values()})}; number them from 0 "
                "without gaps"
            )
    else:
        check_count("fragments", fragments, low=1)
        count = fragments
    if period % count:
        raise ValueError(
            f"period is {period}, no multiple of {count} fragments; give one that is, such as "
            f"{period + count - period % count}"
        )
    return count


def _labels(params: Params, fragments: Fragments) -> list[int | None]:
    """The fragment of each leaf, None for counters; raises if a fragment would have no leaf."""
    leaves = jax.tree.leaves_with_path(params)
    floating = [(path, x) for path, x in leaves if is_floating(x)]
    if isinstance(fragments, Mapping):
        numbers = iter(_named_labels([_path_name(path) for path, _ in floating], fragments))
    else:
        numbers = iter(_balanced_labels([x for _, x in floating], fragments))
    return [next(numbers) if is_floating(x) else None for _, x in leaves]


def _balanced_labels(leaves: list[Any], num_fragments: int) -> list[int]:
    """The largest leaf first, each to the fragment that is smallest so far."""
    if len(leaves) and num_fragments > len(leaves):
        raise ValueError(
            f"fragments is {num_fragments}, but the parameters have {len(leaves)} leaves, which "
            "are not divided; give at most as many"
        )
    labels, totals = [0] * len(leaves), np.zeros((num_fragments, 2), int)
    for i in np.argsort([-np.size(x) for x in leaves], kind="stable"):
        labels[i] = min(range(num_fragments), key=lambda f: tuple(totals[f]))
        totals[labels[i]] += (np.size(leaves[i]), 1)  # empty leaves count too
    return labels


def _named_labels(names: list[str], fragments: Mapping[str, int]) -> list[int]:
    labels, used = [], set()
    for name in names:
        fitting = [p for p in fragments if name == p or name.startswith(f"{p}/")]
        if not fitting:
            raise ValueError(f"fragments has no path of leaf {name!r}; name it, or how it begins")
        labels.append(fragments[max(fitting, key=len)])
        used.add(max(fitting, key=len))
    if unused := [path for path in fragments if path not in used]:
        raise ValueError(
            f"fragments names {unused[0]!r}, but no leaf is called so or begins so; the leaves are "
            f"{', '.join(names[:6])}"
        )
    return labels


def _path_name(path: jax.tree_util.KeyPath) -> str:
    return jax.tree_util.keystr(path, simple=True, separator="/")


def _part(tree: Params, labels: list[int | None], fragment: int) -> Params:
    """The tree with only the leaves of a fragment; the places of the others hold None."""
    leaves, structure = jax.tree.flatten(tree)
    own = [x if f == fragment else None for x, f in zip(leaves, labels, strict=True)]
    return structure.unflatten(own)


def _with_part(tree: Params, labels: list[int | None], fragment: int, part: Params) -> Params:
    """The tree with a fragment's leaves replaced by those of a part."""
    leaves, structure = jax.tree.flatten(tree)
    own = iter(jax.tree.leaves(part))
    return structure.unflatten(
        [next(own) if f == fragment else x for x, f in zip(leaves, labels, strict=True)]
    )
