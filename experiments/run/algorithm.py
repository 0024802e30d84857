"""The algorithms of ``--algorithm``: one row each, and everything else reads the row.

Choices, help, validation, bytes, bounds, tables and the page docs/algorithms.md follow from it.
"""

from __future__ import annotations

import inspect
import math
from collections.abc import Callable, Mapping
from typing import Any, Literal, NamedTuple

import numpy as np

from experiments.report.tables import markdown_table
from experiments.run.errors import blame, flag
from experiments.run.lazy import LazyModule

cdjax, mixing = LazyModule("cdjax"), LazyModule("cdjax.mixing")
compress, theory = LazyModule("cdjax.compress"), LazyModule("cdjax.theory")
topology = LazyModule("cdjax.topology")
jax, jnp, optax = LazyModule("jax"), LazyModule("jax.numpy"), LazyModule("optax")


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
            where messages are as large as the model.
        weighting: what ``--size-weighted`` does: weigh each agent's ``loss``, weigh the
            ``gradients`` where they are averaged, or nothing since it is ``always`` so.
        own_passes: whether an epoch ends once every agent has been through its own data, and not
            once all have drawn as many samples as they hold together.
        loop: makes the training loop from a setting, the loss and, by keyword, the plan and the
            options, where that does less work than steps of all agents; for one device.
    """

    build: Callable[..., optax.GradientTransformation]
    messages: Callable[..., float]
    title: str
    reference: str
    over_topology: bool = False
    at_once: bool = False
    mixes_once: bool = True
    fixed_links: bool = False
    above_eigenvalue: float = -1.0
    talks: str = ""
    server: Literal["", "stateless", "stateful"] = ""
    recursion: Literal["", "plain", "polyak", "nesterov"] = ""
    compressor: Callable[..., compress.Compressor] | None = None
    weighting: Literal["loss", "gradients", "always"] = "loss"
    own_passes: bool = False
    loop: Callable[..., Callable[..., Any]] | None = None

    @property
    def options(self) -> dict[str, Any]:
        """The options that it reads, and their defaults."""
        _, *options = inspect.signature(self.build).parameters.values()
        return {option.name: option.default for option in options}


class CompressorRow(NamedTuple):
    """One way to compress messages; ``build`` makes it from a key and the options that it reads."""

    build: Callable[..., compress.Compressor]
    options: Mapping[str, Any] = {}


_FRACTION = {"fraction": 0.1}
COMPRESSORS: dict[str, CompressorRow] = {
    "top-k": CompressorRow(lambda key, fraction: compress.top_k(fraction), _FRACTION),
    "random-k": CompressorRow(lambda key, fraction: compress.random_k(fraction, key), _FRACTION),
    "sign": CompressorRow(lambda key: compress.sign()),
    "int8": CompressorRow(lambda key: compress.quantize(8)),
    "int4": CompressorRow(lambda key: compress.quantize(4, key=key)),
}


def transformation(
    row: Algorithm, setting: Setting, *, options: Mapping[str, Any], lag: int = 0
) -> optax.GradientTransformation:
    """An algorithm with the values of its options; ``lag`` steps late is what agents hear."""
    make = lambda mix: row.build(setting._replace(mix=mix), **options)  # noqa: E731
    if lag:
        tx = cdjax.delayed(make, setting.mix, delays=np.full(setting.num_agents, lag))
    else:
        tx = make(setting.mix)
    if setting.size_weighted and row.weighting == "loss":
        weights = jnp.asarray(setting.sizes / setting.sizes.mean())
        tx = optax.chain(cdjax.scale_by_agent(weights), tx)
    return tx


def messages_per_step(row: Algorithm, setting: Setting, options: Mapping[str, Any]) -> float:
    """Messages that all agents, and a server, send per step, on average."""
    return row.messages(setting, **options) if setting.num_agents > 1 else 0.0


def bytes_of_message(
    row: Algorithm, setting: Setting, options: Mapping[str, Any], params: Any
) -> int:
    """The bytes of a message: of the model's, or of what the algorithm makes of them."""
    if row.compressor is None:
        return cdjax.metrics.message_bytes(params)
    return row.compressor(setting, **options).message_bytes(params)


def _cdsgd(run: Setting) -> optax.GradientTransformation:
    return cdjax.cdsgd(run.alpha, run.mix)


def _cdmsgd(run: Setting, *, momentum: float = 0.9) -> optax.GradientTransformation:
    return cdjax.cdmsgd(run.alpha, run.mix, momentum=momentum)


def _cdmsgd_polyak(run: Setting, *, momentum: float = 0.9) -> optax.GradientTransformation:
    return cdjax.cdmsgd(run.alpha, run.mix, momentum=momentum, nesterov=False)


def _cdmsgd_released(run: Setting, *, momentum: float = 0.95) -> optax.GradientTransformation:
    return optax.chain(_sgd(run, momentum), cdjax.consensus(run.mix))


def _atc(run: Setting, *, momentum: float = 0.0) -> optax.GradientTransformation:
    return cdjax.adapt_then_combine(_sgd(run, momentum), run.mix)


def _cta(run: Setting, *, momentum: float = 0.0) -> optax.GradientTransformation:
    return cdjax.combine_then_adapt(_sgd(run, momentum), run.mix)


def _icdsgd(
    run: Setting, *, rounds: int = 2, accelerated: bool = False
) -> optax.GradientTransformation:
    if accelerated:
        mix = mixing.chebyshev(run.mix, rounds, sigma=1 - run.topology.spectral_gap)
        return cdjax.cdsgd(run.alpha, mix)
    return cdjax.icdsgd(run.alpha, run.mix, rounds=rounds)


def _gcdsgd(run: Setting, *, own_weight: float = 0.5) -> optax.GradientTransformation:
    return cdjax.gcdsgd(run.alpha, run.mix, own_weight=own_weight)


def _gradient_tracking(
    run: Setting, *, tracking_form: str = "diging"
) -> optax.GradientTransformation:
    return cdjax.gradient_tracking(run.alpha, run.mix, form=tracking_form)


def _momentum_tracking(run: Setting, *, momentum: float = 0.9) -> optax.GradientTransformation:
    return cdjax.momentum_tracking(run.alpha, run.mix, momentum=momentum)


def _exact_diffusion(run: Setting) -> optax.GradientTransformation:
    return cdjax.exact_diffusion(run.alpha, run.mix)


def _d2(run: Setting) -> optax.GradientTransformation:
    smallest = run.topology.smallest_eigenvalue
    return cdjax.d2(run.alpha, run.mix, smallest_eigenvalue=smallest)


def _extra(run: Setting) -> optax.GradientTransformation:
    return cdjax.extra(run.alpha, run.mix)


def _decentlam(run: Setting, *, momentum: float = 0.9) -> optax.GradientTransformation:
    return cdjax.decentlam(run.alpha, run.mix, momentum=momentum)


def _quasi_global(
    run: Setting, *, momentum: float = 0.9, buffer_decay: float = 0.9, nesterov: bool = False
) -> optax.GradientTransformation:
    options = {"momentum": momentum, "buffer_decay": buffer_decay, "nesterov": nesterov}
    return cdjax.quasi_global_momentum(run.alpha, run.mix, **options)


def _quasi_global_adam(run: Setting) -> optax.GradientTransformation:
    return cdjax.quasi_global_adam(run.alpha, run.mix)


def _sgd(run: Setting, momentum: float) -> optax.GradientTransformation:
    """SGD, with Nesterov's momentum if there is any."""
    return optax.sgd(run.alpha, momentum=momentum or None, nesterov=bool(momentum))


def _to_neighbors(run: Setting, **options: Any) -> float:
    del options
    if run.messages is not None:
        return run.messages
    entries = run.topology.entries
    return float(np.count_nonzero(entries.receivers != entries.senders))


def _twice_to_neighbors(run: Setting, **options: Any) -> float:
    """The parameters and an estimate."""
    return 2 * _to_neighbors(run, **options)


def _in_rounds(run: Setting, rounds: int, **options: Any) -> float:
    return rounds * _to_neighbors(run, **options)


def _centralized(run: Setting, *, momentum: float = 0.0) -> optax.GradientTransformation:
    weights = run.sizes if run.size_weighted else None
    return optax.chain(cdjax.average_updates(weights), _sgd(run, momentum))


def _to_server_and_back(run: Setting, period: int = 1, **options: Any) -> float:
    del options
    return 2.0 * run.num_agents / period


def _fedavg(
    run: Setting,
    *,
    momentum: float = 0.0,
    period: int | None = None,
    client_fraction: float = 1.0,
) -> optax.GradientTransformation:
    return cdjax.fedavg(_sgd(run, momentum), **_fedavg_rounds(run, period, client_fraction))


def _fedavg_loop(
    run: Setting,
    loss: Callable[..., Any],
    *,
    plan: str,
    momentum: float,
    period: int | None,
    client_fraction: float,
) -> Callable[..., Any]:
    rounds = _fedavg_rounds(run, period, client_fraction)
    return cdjax.training.fedavg_loop(loss, _sgd(run, momentum), **rounds, plan=plan)


def _fedavg_rounds(run: Setting, period: int | None, client_fraction: float) -> dict[str, Any]:
    equal = np.ptp(run.own_steps) == 0
    return {
        "local_steps": period or (int(run.own_steps[0]) if equal else run.own_steps),
        "fraction": client_fraction,
        "weights": run.sizes,
        "key": run.key,
    }


def _to_clients_and_back(
    run: Setting, period: int | None, client_fraction: float, **options: Any
) -> float:
    del options
    num_clients = max(1, math.floor(client_fraction * run.num_agents + 1e-9))
    return 2.0 * num_clients / (period or int(run.own_steps.max()))


def _clocks(run: Setting, asynchronous: bool) -> np.ndarray | None:
    """One step apart for each agent."""
    return np.arange(run.num_agents) if asynchronous else None


def _easgd(
    run: Setting, *, period: int = 10, asynchronous: bool = False
) -> optax.GradientTransformation:
    return cdjax.easgd(run.alpha, period=period, clocks=_clocks(run, asynchronous))


def _eamsgd(
    run: Setting, *, momentum: float = 0.9, period: int = 10, asynchronous: bool = False
) -> optax.GradientTransformation:
    clocks = _clocks(run, asynchronous)
    return cdjax.eamsgd(run.alpha, momentum=momentum, period=period, clocks=clocks)


def _downpour(
    run: Setting, *, period: int = 1, asynchronous: bool = False
) -> optax.GradientTransformation:
    periods = {"push_period": period, "fetch_period": period}
    return cdjax.downpour(run.alpha, run.alpha, **periods, clocks=_clocks(run, asynchronous))


def _gossip_pair(
    run: Setting, *, momentum: float = 0.0, period: int = 1
) -> optax.GradientTransformation:
    pairs = mixing.random_pairs(run.topology, run.key)
    return cdjax.gossip(_sgd(run, momentum), mixing.pull(pairs), period=period)


def _between_pairs(run: Setting, period: int, **options: Any) -> float:
    """Counted over the pairs that the run draws: both send."""
    del options
    rounds = jnp.arange(-(-run.num_steps // period))
    peers = jax.lax.map(mixing.random_pairs(run.topology, run.key), rounds)
    talks = peers != np.arange(run.num_agents)[None]
    return float(jnp.mean(jnp.sum(talks, axis=1))) / period


def _gossip_pull(
    run: Setting, *, momentum: float = 0.0, period: int = 1
) -> optax.GradientTransformation:
    peers = mixing.random_peers(run.topology, run.key)
    return cdjax.gossip(_sgd(run, momentum), mixing.pull(peers), period=period)


def _gossip_push(
    run: Setting, *, momentum: float = 0.0, period: int = 1
) -> optax.GradientTransformation:
    peers = mixing.random_peers(run.topology, run.key)
    return cdjax.gossip(_sgd(run, momentum), mixing.push(peers), period=period)


def _to_one_peer(run: Setting, period: int, **options: Any) -> float:
    del options
    return run.num_agents / period


def _gosgd(
    run: Setting, *, momentum: float = 0.0, talk_probability: float = 0.1
) -> optax.GradientTransformation:
    peers = mixing.random_peers(run.topology, run.key, probability=talk_probability)
    return cdjax.gosgd(_sgd(run, momentum), peers)


def _now_and_then(run: Setting, talk_probability: float, **options: Any) -> float:
    del options
    return run.num_agents * talk_probability


def _nesterov(learning_rate: float, momentum: float) -> optax.GradientTransformation:
    """The outer optimizer of DiLoCo."""
    return optax.sgd(learning_rate, momentum=momentum or None, nesterov=bool(momentum))


def _outer(
    run: Setting,
    *,
    momentum: float = 0.0,
    period: int = 10,
    outer_learning_rate: float = 0.7,
    outer_momentum: float = 0.9,
    fragments: int = 1,
    delay: int = 0,
    merge: float = 0.0,
) -> optax.GradientTransformation:
    with blame("--outer-learning-rate"):
        theory.check_outer_step(run.topology, outer_learning_rate, momentum=outer_momentum)
    inner, outer = _sgd(run, momentum), _nesterov(outer_learning_rate, outer_momentum)
    with blame("--delay" if period % fragments == 0 else "--fragments"):
        return cdjax.outer(
            inner, outer, run.mix, period=period, fragments=fragments, delay=delay, merge=merge
        )


def _diloco(
    run: Setting,
    *,
    momentum: float = 0.0,
    period: int = 10,
    outer_learning_rate: float = 0.7,
    outer_momentum: float = 0.9,
    fragments: int = 1,
    delay: int = 0,
    merge: float = 0.0,
) -> optax.GradientTransformation:
    return _outer(
        _with_mean(run),
        momentum=momentum,
        period=period,
        outer_learning_rate=outer_learning_rate,
        outer_momentum=outer_momentum,
        fragments=fragments,
        delay=delay,
        merge=merge,
    )


def _with_mean(run: Setting) -> Setting:
    """The setting with the mean over all agents for its mixer."""
    complete = topology.complete(run.num_agents)
    return run._replace(topology=complete, mix=mixing.auto(complete))


def _slowmo(
    run: Setting,
    *,
    momentum: float = 0.0,
    period: int = 10,
    outer_learning_rate: float = 1.0,
    outer_momentum: float = 0.5,
) -> optax.GradientTransformation:
    return cdjax.slowmo(
        _sgd(run, momentum),
        _with_mean(run).mix,
        learning_rate=run.alpha,
        period=period,
        momentum=outer_momentum,
        slow_learning_rate=outer_learning_rate,
    )


def _noloco(
    run: Setting,
    *,
    momentum: float = 0.0,
    period: int = 10,
    outer_learning_rate: float = 0.7,
    outer_momentum: float = 0.5,
) -> optax.GradientTransformation:
    pairs = mixing.random_pairs(run.topology, run.key)
    heavy_ball = optax.sgd(outer_learning_rate, momentum=outer_momentum)
    return cdjax.outer(_sgd(run, momentum), heavy_ball, mixing.pull(pairs), period=period)


def _factored(
    run: Setting,
    *,
    momentum: float = 0.0,
    period: int = 10,
    outer_learning_rate: float = 0.7,
    outer_momentum: float = 0.9,
) -> optax.GradientTransformation:
    outer = _nesterov(outer_learning_rate, outer_momentum)
    return cdjax.outer(_sgd(run, momentum), outer, run.mix, period=period, overlapped=run.mix)


def _accelerated(
    run: Setting,
    *,
    momentum: float = 0.0,
    period: int = 10,
    outer_learning_rate: float = 0.7,
    outer_momentum: float = 0.5,
) -> optax.GradientTransformation:
    return cdjax.accelerated_outer(
        _sgd(run, momentum),
        run.mix,
        period=period,
        learning_rate=outer_learning_rate,
        momentum=outer_momentum,
    )


def _kgt(
    run: Setting, *, momentum: float = 0.0, period: int = 10, outer_learning_rate: float = 1.0
) -> optax.GradientTransformation:
    inner = _sgd(run, momentum)
    return cdjax.kgt(inner, run.mix, period=period, learning_rate=outer_learning_rate)


def _led(run: Setting, *, momentum: float = 0.0, period: int = 10) -> optax.GradientTransformation:
    """With half of the gain that would be stable without gradients, at the first step size."""
    alpha = run.alpha(0) if callable(run.alpha) else run.alpha
    rate = float(alpha) / (1 - momentum) or 1.0  # agents that take no steps have nothing to correct
    limit = theory.led_gain_limit(run.topology, learning_rate=rate, period=period)
    gain = limit / 2 if math.isfinite(limit) else 1.0
    return cdjax.led(_sgd(run, momentum), run.mix, period=period, gain=gain)


def _to_neighbors_per_round(run: Setting, period: int, **options: Any) -> float:
    del options
    return _to_neighbors(run) / period


def _twice_to_neighbors_per_round(run: Setting, period: int, **options: Any) -> float:
    del options
    return 2 * _to_neighbors(run) / period


def _push_sum(run: Setting, *, momentum: float = 0.0) -> optax.GradientTransformation:
    return cdjax.push_sum(_sgd(run, momentum), mixing.auto(_directed(run)))


def _push_diging(run: Setting) -> optax.GradientTransformation:
    return cdjax.push_diging(run.alpha, mixing.auto(_directed(run)))


def _directed(run: Setting) -> cdjax.Topology:
    """The run's graph, on whose edges every agent deals what it has in equal parts."""
    return topology.from_digraph(run.topology.graph.to_directed())


def _along_edges(run: Setting, **options: Any) -> float:
    del options
    return 2.0 * run.topology.graph.number_of_edges()


def _twice_along_edges(run: Setting, **options: Any) -> float:
    del options
    return 4.0 * run.topology.graph.number_of_edges()


def _relay(run: Setting, *, momentum: float = 0.0) -> optax.GradientTransformation:
    return cdjax.relay(_sgd(run, momentum), topology.spanning_tree(run.topology))


def _along_tree(run: Setting, **options: Any) -> float:
    del options
    return 2.0 * (run.num_agents - 1)


def _compressor(
    run: Setting, *, compressor: str, fraction: float, **options: Any
) -> compress.Compressor:
    del options
    row = COMPRESSORS[compressor]
    return row.build(run.key, **({"fraction": fraction} if "fraction" in row.options else {}))


def _choco(
    run: Setting,
    *,
    momentum: float = 0.0,
    compressor: str = "top-k",
    fraction: float = _FRACTION["fraction"],
    consensus_step: float = 0.1,
) -> optax.GradientTransformation:
    return cdjax.choco(
        _sgd(run, momentum),
        run.mix,
        _compressor(run, compressor=compressor, fraction=fraction),
        consensus_step=consensus_step,
    )


def _beer(
    run: Setting,
    *,
    momentum: float = 0.0,
    compressor: str = "top-k",
    fraction: float = _FRACTION["fraction"],
    consensus_step: float = 0.1,
) -> optax.GradientTransformation:
    return cdjax.beer(
        run.alpha,
        run.mix,
        _compressor(run, compressor=compressor, fraction=fraction),
        consensus_step=consensus_step,
        momentum=momentum,
    )


_MIXES: dict[str, Any] = {"messages": _to_neighbors, "over_topology": True}
_CORRECTS: dict[str, Any] = {**_MIXES, "at_once": True}
_SUMS_UP: dict[str, Any] = {**_CORRECTS, "fixed_links": True}
_TRACKS: dict[str, Any] = {**_CORRECTS, "messages": _twice_to_neighbors, "mixes_once": False}
_SERVES: dict[str, Any] = {"messages": _to_server_and_back, "server": "stateful"}
_ROUNDS: dict[str, Any] = {
    **_SUMS_UP, "messages": _to_neighbors_per_round, "mixes_once": False,
    "talks": "with all neighbours, once per round",
}  # fmt: skip
_MEANS: dict[str, Any] = {"messages": _to_server_and_back, "server": "stateless"}
_PUSHES: dict[str, Any] = {"talks": "one way, with all neighbours"}
_JIANG = "Jiang, Balu, Hegde, Sarkar (2017)"
_MCMAHAN = "McMahan, Moore, Ramage, Hampson, Agüera y Arcas (2017)"
_DOUILLARD = "Douillard et al. (2023)"
_ZHANG = "Zhang, Choromanska, LeCun (2015)"
_JIN = "Jin, Yuan, Iandola, Keutzer (2016)"
_TRADE_OFFS = "Jiang, Balu, Hegde, Sarkar (2018)"
_TAKEZAWA = "Takezawa, Bao, Niwa, Sato, Yamada (2023)"
_LIN = "Lin, Karimireddy, Stich, Jaggi (2021)"
_TANG = "Tang, Lian, Yan, Zhang, Liu (2018)"
_YUAN = "Yuan, Chen, Huang, Zhang, Pan, Xu, Yin (2021)"

ALGORITHMS: dict[str, Algorithm] = {
    "cdmsgd": Algorithm(
        _cdmsgd, title="CDMSGD, Nesterov momentum", reference=f"{_JIANG}, Algorithm 3",
        recursion="nesterov", **_MIXES,
    ),
    "cdmsgd-polyak": Algorithm(
        _cdmsgd_polyak, title="CDMSGD, Polyak momentum", reference=f"{_JIANG}, Algorithm 2",
        recursion="polyak", **_MIXES,
    ),
    "cdsgd": Algorithm(
        _cdsgd, title="CDSGD", reference=f"{_JIANG}, eq. 5", recursion="plain", **_MIXES
    ),
    "cdmsgd-released": Algorithm(
        _cdmsgd_released, title="CDMSGD of the released code, momentum outside of consensus",
        reference="github.com/SCSLabISU/CDSGD, CDMSGD.py", **_MIXES,
    ),
    "atc": Algorithm(_atc, title="adapt then combine", reference="Chen, Sayed (2012)", **_MIXES),
    "cta": Algorithm(
        _cta, title="combine then adapt", reference="Chen, Sayed (2012)",
        **{**_MIXES, "at_once": True},
    ),
    "icdsgd": Algorithm(
        _icdsgd, title="i-CDSGD, several exchanges per step", reference=f"{_TRADE_OFFS}, i-CDSGD",
        **{**_MIXES, "messages": _in_rounds, "mixes_once": False},
    ),
    "gcdsgd": Algorithm(
        _gcdsgd, title="g-CDSGD", reference=f"{_TRADE_OFFS}, g-CDSGD", **_MIXES
    ),
    "gradient-tracking": Algorithm(
        _gradient_tracking, title="gradient tracking", reference="Nedić, Olshevsky, Shi (2017)",
        **_TRACKS,
    ),
    "momentum-tracking": Algorithm(
        _momentum_tracking, title="momentum tracking", reference=f"{_TAKEZAWA}, Algorithm 1",
        **_TRACKS,
    ),
    "exact-diffusion": Algorithm(
        _exact_diffusion, title="exact diffusion", reference="Yuan, Ying, Zhao, Sayed (2019)",
        **_SUMS_UP,
    ),
    "d2": Algorithm(
        _d2, title="D²", reference=f"{_TANG}, Algorithm 1", above_eigenvalue=-1 / 3, **_SUMS_UP
    ),
    "extra": Algorithm(
        _extra, title="EXTRA", reference="Shi, Ling, Wu, Yin (2015)", **_SUMS_UP
    ),
    "decentlam": Algorithm(
        _decentlam, title="DecentLaM", reference=f"{_YUAN}, Algorithm 2", **_CORRECTS
    ),
    "quasi-global": Algorithm(
        _quasi_global, title="quasi-global momentum", reference=f"{_LIN}, Algorithm 1", **_CORRECTS
    ),
    "quasi-global-adam": Algorithm(
        _quasi_global_adam, title="Adam with quasi-global moments",
        reference="github.com/epfml/quasi-global-momentum, decentralized_qg_adam.py", **_CORRECTS,
    ),
    "choco": Algorithm(
        _choco, title="CHOCO-SGD", reference="Koloskova, Stich, Jaggi (2019), Algorithm 2",
        compressor=_compressor, **_CORRECTS,
    ),
    "beer": Algorithm(
        _beer, title="BEER, and MoTEF with momentum",
        reference="Zhao, Li, Li, Richtárik, Chi (2022), Algorithm 1", compressor=_compressor,
        **_TRACKS,
    ),
    "centralized": Algorithm(
        _centralized, _to_server_and_back, "SGD, gradients averaged", "the optimizer's own",
        server="stateless", weighting="gradients",
    ),
    "fedavg": Algorithm(
        _fedavg, _to_clients_and_back, "FedAvg", f"{_MCMAHAN}, Algorithm 1",
        server="stateless", weighting="always", own_passes=True, loop=_fedavg_loop,
    ),
    "easgd": Algorithm(_easgd, title="EASGD", reference=f"{_ZHANG}, Algorithm 1", **_SERVES),
    "eamsgd": Algorithm(_eamsgd, title="EAMSGD", reference=f"{_ZHANG}, Algorithm 2", **_SERVES),
    "downpour": Algorithm(
        _downpour, title="Downpour SGD", reference="Dean et al. (2012), section 4.1", **_SERVES
    ),
    "gossip-pair": Algorithm(
        _gossip_pair, _between_pairs, "gossip in pairs", f"{_JIN}, with peers in disjoint pairs"
    ),
    "gossip-pull": Algorithm(_gossip_pull, _to_one_peer, "pull gossip", f"{_JIN}, pull-gossip"),
    "gossip-push": Algorithm(_gossip_push, _to_one_peer, "push gossip", f"{_JIN}, push-gossip"),
    "gosgd": Algorithm(_gosgd, _now_and_then, "GoSGD", "Blot, Picard, Cord, Thome (2016)"),
    "diloco": Algorithm(
        _diloco, title="DiLoCo", reference=f"{_DOUILLARD}, Algorithm 1", **_MEANS
    ),
    "slowmo": Algorithm(
        _slowmo, title="SlowMo", reference="Wang, Tantia, Ballas, Rabbat (2020), Algorithm 1",
        **_MEANS,
    ),
    "outer": Algorithm(
        _outer, title="DiLoCo on the graph", reference=f"{_DOUILLARD}, with Π for the mean",
        **_ROUNDS,
    ),
    "noloco": Algorithm(_noloco, _between_pairs, "NoLoCo", "Kolehmainen et al. (2025)"),
    "factored": Algorithm(
        _factored, title="factored gossip DiLoCo", reference="arXiv:2606.22768, the abstract",
        **_ROUNDS | {"messages": _twice_to_neighbors_per_round},
    ),
    "accelerated": Algorithm(
        _accelerated, title="accelerated gossip of rounds",
        reference="Cagnasso, Belilovsky, Oyallon (2026), not verified", **_ROUNDS,
    ),
    "kgt": Algorithm(
        _kgt, title="K-GT", reference="Liu, Lin, Koloskova, Stich (2023), Algorithm 1",
        **_ROUNDS | {"messages": _twice_to_neighbors_per_round, "fixed_links": False},
    ),
    "led": Algorithm(
        _led, title="local exact diffusion", reference="Alghunaim (2023), Algorithm 1", **_ROUNDS
    ),
    "push-sum": Algorithm(
        _push_sum, _along_edges, "stochastic gradient push",
        "Assran, Loizou, Ballas, Rabbat (2019), Algorithm 1", **_PUSHES,
    ),
    "push-diging": Algorithm(
        _push_diging, _twice_along_edges, "Push-DIGing",
        "Nedić, Olshevsky, Shi (2017), Algorithm 2", **_PUSHES,
    ),
    "relay": Algorithm(
        _relay, _along_tree, "RelaySGD", "Vogels et al. (2021), Algorithm 1",
        talks="with the neighbours on a spanning tree",
    ),
}  # fmt: skip


def algorithm_table() -> str:
    """The table of all algorithms, in Markdown, for docs/algorithms.md."""
    head = ("`--algorithm`", "name", "talks", "options it reads (default)", "reference")
    return markdown_table(head, [_described(name, row) for name, row in ALGORITHMS.items()])


def _described(name: str, row: Algorithm) -> list[str]:
    talks = "with a random peer"
    if row.talks:
        talks = row.talks
    elif row.over_topology:
        talks = "with all neighbours"
    elif row.server:
        talks = "through a server" + (", whose parameters are trained" * (row.server == "stateful"))
    options = [
        f"`{flag(option)}`" + (f" ({_default_text(default)})" if default is not False else "")
        for option, default in row.options.items()
    ]
    return [f"`{name}`", row.title, talks, ", ".join(options), row.reference]


def _default_text(default: float | str | None) -> str:
    if default is None:
        return "an epoch"
    return default if isinstance(default, str) else f"{default:g}"
