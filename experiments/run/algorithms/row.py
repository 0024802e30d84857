"""What every algorithm's row is made of, and what rows of several families share."""

from __future__ import annotations

import dataclasses
import inspect
from collections.abc import Callable
from typing import Any, Literal, NamedTuple

import numpy as np

from experiments.run.lazy import LazyModule

cdjax, compress, network = (
    LazyModule(name) for name in ("cdjax", "cdjax.compress", "cdjax.network")
)
jax, optax = LazyModule("jax"), LazyModule("optax")


class Setting(NamedTuple):
    """What an algorithm is built from, beside its own options.

    Attributes:
        topology: the graph and its mixing matrix.
        mix: the run's mixer; None for an algorithm that does not mix over the topology.
        alpha: the step size, a number or a schedule of the step.
        sizes: the number of samples of each agent, shape (N,).
        own_steps: the whole batches of each agent's own samples, shape (N,).
        size_weighted: whether agents are weighted by it.
        num_steps: steps of the whole run.
        key: of all random draws of peers and clients.
        messages: how many all agents send per mix, on average, where the topology changes with the
            step; None where it does not.
        events: who averages with whom in which order, for a row that ``has_events``.
        mesh: the devices over which the agents are divided; None for one device.
    """

    topology: cdjax.Topology
    mix: cdjax.Mixer | None
    alpha: cdjax.ScalarOrSchedule
    sizes: np.ndarray
    own_steps: np.ndarray
    size_weighted: bool
    num_steps: int
    key: jax.Array
    messages: float | None = None
    events: network.Averagings | None = None
    mesh: jax.sharding.Mesh | None = None

    @property
    def num_agents(self) -> int:
        """The number of agents N."""
        return self.topology.num_agents


class Algorithm(NamedTuple):
    """One algorithm.

    Attributes:
        build: makes the optax transformation from a setting and, by keyword, the options that the
            algorithm reads; their defaults are those of the run.
        messages: how many messages several agents, and a server, send per step on
            average, from a setting and the options.
        title: how it is called in text.
        reference: where it comes from.
        order: in which order agents compute and exchange, and for whom they wait, from a setting
            and the options; those of a row with a server exchange with it.
        over_topology: whether agents mix with all neighbours in every step, so that links can fail,
            agents can lie, leaves can be personal, and agents can take turns.
        at_once: whether what agents do presumes that all of them move in every step, so that they
            cannot take turns.
        mixes_once: whether they do so once per step, so that messages can be late.
        fixed_links: whether the mixing matrix must be the same in every step.
        above_eigenvalue: what the smallest eigenvalue of the mixing matrix must exceed.
        talks: with whom, if neither ``over_topology`` nor ``server`` says it.
        server: whether there is one: ``stateless`` if it only averages, ``stateful`` if what is
            trained are its own parameters.
        recursion: how its disagreement evolves, for the theory's bounds; "" if they do not hold.
        compressor: makes what compresses an agent's messages from a setting and the options; None
            where messages are as large as the model, or ``message_bytes`` says how large.
        message_bytes: the bytes of a message on average, from stacked parameters and the options.
        holds_copies: whether agents hold copies of their neighbours, made of all they have heard.
        weighting: what ``--size-weighted`` does: weigh each agent's ``loss``, weigh the
            ``gradients`` where they are averaged, or nothing since it is ``always`` so; "" if it is
            refused.
        crosses: whether agents compute the gradients of their neighbours' models.
        own_passes: whether an epoch ends once every agent has been through its own data, and not
            once all have drawn as many samples as they hold together.
        heard: which links carry a message in a step, from a setting, the links and the options,
            where it is not all of them, or those of the run's mixer.
        trains: which agents compute in a step, from a setting and the options, where not all do.
        loop: makes the training loop from a setting, the loss and, by keyword, the plan and the
            options, where that does less work than steps of all agents; for one device.
        has_events: whether agents wait for nobody, so that the clock says what happens in which
            order; on one device only.
    """

    build: Callable[..., optax.GradientTransformation]
    messages: Callable[..., float]
    title: str
    reference: str
    order: Callable[..., network.Order]
    over_topology: bool = False
    at_once: bool = False
    mixes_once: bool = True
    fixed_links: bool = False
    above_eigenvalue: float = -1.0
    talks: str = ""
    server: Literal["", "stateless", "stateful"] = ""
    recursion: Literal["", "plain", "polyak", "nesterov"] = ""
    compressor: Callable[..., compress.Compressor] | None = None
    message_bytes: Callable[..., float] | None = None
    holds_copies: bool = False
    weighting: Literal["", "loss", "gradients", "always"] = "loss"
    crosses: bool = False
    own_passes: bool = False
    heard: Callable[..., network.Heard | None] | None = None
    trains: Callable[..., Callable[[jax.Array], jax.Array] | None] | None = None
    loop: Callable[..., Callable[..., Any]] | None = None
    has_events: bool = False

    @property
    def options(self) -> dict[str, Any]:
        """The options that it reads, and their defaults."""
        _, *options = inspect.signature(self.build).parameters.values()
        return {option.name: option.default for option in options}

    @property
    def talks_to_all(self) -> bool:
        """Whether agents send to all others, whatever the topology."""
        return self.messages is from_all_to_all


def sgd(
    learning_rate: cdjax.ScalarOrSchedule, momentum: float
) -> optax.GradientTransformationExtraArgs:
    """SGD, with Nesterov's momentum if there is any."""
    return optax.sgd(learning_rate, momentum=momentum or None, nesterov=bool(momentum))


def to_neighbors(run: Setting, *, period: int = 1, rounds: int = 1, **_: Any) -> float:
    """The messages of agents that mix ``rounds`` times in every ``period``-th step."""
    messages = run.messages
    if messages is None:
        entries = run.topology.entries
        messages = float(np.count_nonzero(entries.receivers != entries.senders))
    return rounds * messages / period


def from_all_to_all(run: Setting, *, period: int = 1, **_: Any) -> float:
    """The messages of agents that each send to all others, in every ``period``-th step."""
    return run.num_agents * (run.num_agents - 1) / period


def twice(messages: Callable[..., float]) -> Callable[..., float]:
    """The count of agents that send two trees wherever those of ``messages`` send one."""
    return lambda run, **options: 2 * messages(run, **options)


def overlaps(run: Setting, *, rounds: int = 1, **_: Any) -> network.Order:
    """Mixing goes on beside the gradient: both are of the parameters that a step begins with."""
    return network.consensus(rounds)


def combines(
    run: Setting, *, period: int = 1, fragments: int = 1, delay: int = 0, **_: Any
) -> network.Order:
    """Mixing waits for the gradient: it is of parameters that have stepped.

    In fragments, a part of the parameters goes out every so many steps, and may take some.
    """
    order = network.adapt_then_combine()
    return in_fragments(order, period=period, fragments=fragments, delay=delay)


def combines_twice(run: Setting, **options: Any) -> network.Order:
    """Mixing of two trees, both of which have stepped."""
    return dataclasses.replace(combines(run, **options), messages=2)


def in_fragments(
    order: network.Order, *, period: int, fragments: int = 1, delay: int = 0
) -> network.Order:
    """The exchanges of a round, each of a fragment of the parameters."""
    order = network.overlapped(network.every(period // fragments, order), delay)
    return dataclasses.replace(order, messages=order.messages / fragments)


def tracks(run: Setting, *, tracking_form: str = "diging", **_: Any) -> network.Order:
    """Parameters and tracked gradients."""
    return network.gradient_tracking(tracking_form)


# What rows have in common whose agents mix with all neighbours in every step; whose steps rely on
# those of all others; who sum up corrections, which cancel only if the matrix is fixed; who track.
MIXES: dict[str, Any] = {"messages": to_neighbors, "over_topology": True}
CORRECTS: dict[str, Any] = {**MIXES, "at_once": True}
SUMS_UP: dict[str, Any] = {**CORRECTS, "fixed_links": True}
TRACKS: dict[str, Any] = {**CORRECTS, "messages": twice(to_neighbors), "mixes_once": False}
