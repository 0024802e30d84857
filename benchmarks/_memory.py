"""What a step of each algorithm must hold, and the compiled steps that should hold no more.

Counted are bytes, and reported in units of the stacked parameters. A step must hold

- the parameters and the optimizer's state, as ``tx.init`` makes it;
- one gradient, whose memory whatever comes after it may take;
- two agents' parameters: a mean or a new server, and the row that others are compared with;
- what agents exchange, a copy of the parameters for each word in ``Algorithm.exchange``:

  ``result``: Πx cannot be written over x, as other agents still read x;
  ``message``: what is sent, if the step neither stores it nor can write it over the gradient;
  ``late``: what arrives late, read from the history before it is overwritten there;
  ``differences``: those to one agent, or to the receiver, as the operand of a product or a
  scatter; sums of them, not of values, keep agents exact that agree (see ``mixing.dense``);
  ``pulls``: those of all agents towards a server;
  ``pushed``: accrued gradients that are pushed, while those of the next push take their place;
  ``read``: what others read of compressed messages, which its sender takes off what it keeps;
  ``transformed``: the coefficients of which the largest are sent;
  ``crossed``: the gradient of a neighbour's model that comes back from it, or that is sent back.

One algorithm holds more. ``Algorithm.spare`` is how much, so that it does not grow unseen, and
beside it stands why.

A plan of mixing may hold ``differences`` of its own.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax

import cdjax
from cdjax import compress, mixing, models, topology, training
from cdjax._types import Params

RATE = 0.1


class Plan(NamedTuple):
    """How to mix: ``make`` makes the mixer of a topology; ``exchange`` is what it holds itself."""

    make: Callable[[topology.Topology], cdjax.Mixer]
    exchange: tuple[str, ...] = ()


PLANS: Mapping[str, Plan] = {
    "neighbors": Plan(mixing.neighbors),
    "shifts": Plan(mixing.shifts),
    "dense": Plan(mixing.dense, ("differences",)),  # from 9 agents on
}


class Algorithm(NamedTuple):
    """An optimizer of stacked parameters, and what it holds beside them, see the module.

    ``spare`` is what its step holds beyond what it needs, in copies of the parameters;
    ``crossing`` is the graph along which it takes cross gradients.
    """

    tx: optax.GradientTransformation
    exchange: tuple[str, ...] = ()
    spare: float = 0.0
    crossing: topology.Topology | None = None


def mixing_algorithms(graph: topology.Topology, plan: str) -> dict[str, Algorithm]:
    """The algorithms that mix over a topology by a plan, with what the plan itself holds."""
    make, held = PLANS[plan]
    algorithms = _over(make(graph), graph.num_agents)
    return {
        name: algorithm._replace(exchange=(*algorithm.exchange, *held))
        for name, algorithm in algorithms.items()
    }


def _over(mix: cdjax.Mixer, num_agents: int) -> dict[str, Algorithm]:
    momentum = optax.sgd(RATE, 0.9, nesterov=True)
    late = partial(cdjax.delayed, mix=mix, delays=np.arange(num_agents) % 4)
    result = ("result",)
    return {
        "cdsgd": Algorithm(cdjax.cdsgd(RATE, mix), result),
        "cdmsgd": Algorithm(cdjax.cdmsgd(RATE, mix), ("message", "result")),
        "cdmsgd, polyak": Algorithm(cdjax.cdmsgd(RATE, mix, nesterov=False), result),
        "momentum, consensus": Algorithm(optax.chain(momentum, cdjax.consensus(mix)), result),
        "adam, consensus": Algorithm(optax.chain(optax.adam(RATE), cdjax.consensus(mix)), result),
        "atc sgd": Algorithm(cdjax.adapt_then_combine(optax.sgd(RATE), mix), result),
        "atc momentum": Algorithm(cdjax.adapt_then_combine(momentum, mix), result),
        "atc adam": Algorithm(cdjax.adapt_then_combine(optax.adam(RATE), mix), result),
        "delayed cdsgd": Algorithm(late(partial(cdjax.cdsgd, RATE)), ("late", "result")),
        "delayed cdmsgd": Algorithm(
            late(partial(cdjax.cdmsgd, RATE)), ("message", "late", "result")
        ),
    }


def other_algorithms(num_agents: int) -> dict[str, Algorithm]:
    """The algorithms with a server, with random peers, or without exchange."""
    key, sgd, momentum = jax.random.key(0), optax.sgd(RATE), optax.sgd(RATE, 0.9)
    complete, clocks = topology.complete(num_agents), np.arange(num_agents)
    peers, pairs = mixing.random_peers(complete, key), mixing.random_pairs(complete, key)
    pull, push = mixing.pull(peers), mixing.push(peers)
    result, scattered, averaged = ("result",), ("differences", "result"), ("differences",)
    some = cdjax.fedavg(momentum, local_steps=5, fraction=0.5, key=key)
    return {
        "sgd alone": Algorithm(sgd),
        "centralized": Algorithm(optax.chain(cdjax.average_updates(), momentum), averaged),
        "fedavg": Algorithm(cdjax.fedavg(sgd, local_steps=5), averaged),
        "fedavg, some clients": Algorithm(some, averaged),
        "easgd": Algorithm(cdjax.easgd(RATE), ("pulls",)),
        "easgd, clocks": Algorithm(cdjax.easgd(RATE, clocks=clocks), ("pulls",)),
        "eamsgd": Algorithm(cdjax.eamsgd(RATE), ("message", "pulls")),
        "downpour": Algorithm(cdjax.downpour(RATE, RATE), ("pushed",)),
        "gossip pull": Algorithm(cdjax.gossip(sgd, pull), result),
        "gossip pull, period 10": Algorithm(cdjax.gossip(sgd, pull, period=10), result),
        "gossip push": Algorithm(cdjax.gossip(sgd, push), scattered),
        "gossip pairs": Algorithm(cdjax.gossip(sgd, mixing.pull(pairs)), result),
        "gosgd": Algorithm(cdjax.gosgd(sgd, peers), scattered),
        "gosgd, delay 2": Algorithm(cdjax.gosgd(sgd, peers, delay=2), scattered),
    }


def further_algorithms(graph: topology.Topology) -> dict[str, Algorithm]:
    """Those with corrections, with rounds, and with compressed messages; all mix by neighbors."""
    mix, key = mixing.neighbors(graph), jax.random.key(0)
    push = mixing.neighbors(topology.from_digraph(graph.graph.to_directed()))
    sgd, outer_sgd, sign = optax.sgd(RATE), optax.sgd(0.7, 0.9, nesterov=True), compress.sign()
    result, message, read = ("result",), ("message", "result"), ("message", "read")
    tracking = {
        form: cdjax.gradient_tracking(RATE, mix, form=form)
        for form in ("diging", "semi-atc", "atc")
    }
    suda = {
        form: cdjax.suda(RATE, mix, form=form)
        for form in ("exact-diffusion", "extra", "atc-tracking", "diging")
    }
    tree = topology.spanning_tree(graph)
    around = ("crossed",) * max(dict(graph.graph.degree).values())
    return {
        "cta": Algorithm(cdjax.combine_then_adapt(sgd, mix), result),
        "icdsgd": Algorithm(cdjax.icdsgd(RATE, mix), result),
        "gcdsgd": Algorithm(cdjax.gcdsgd(RATE, mix, own_weight=0.5), result),
        "gradient tracking": Algorithm(tracking["diging"], result),
        "gradient tracking, semi-atc": Algorithm(tracking["semi-atc"], message),
        "gradient tracking, atc": Algorithm(tracking["atc"], message),
        "momentum tracking": Algorithm(cdjax.momentum_tracking(RATE, mix), result),
        "cga": Algorithm(cdjax.cga(RATE, mix), (*message, *around, *around), crossing=graph),
        # The gradient's memory takes what is received.
        "exact diffusion": Algorithm(cdjax.exact_diffusion(RATE, mix), ("message",)),
        "d2": Algorithm(cdjax.d2(RATE, mix, smallest_eigenvalue=-0.2), ("message",)),
        "extra": Algorithm(cdjax.extra(RATE, mix), result),
        "suda, exact diffusion": Algorithm(suda["exact-diffusion"], result),
        "suda, extra": Algorithm(suda["extra"], result),
        "suda, atc tracking": Algorithm(suda["atc-tracking"], result),
        "suda, diging": Algorithm(suda["diging"], result),
        "decentlam": Algorithm(cdjax.decentlam(RATE, mix), result),
        "quasi-global": Algorithm(cdjax.quasi_global_momentum(RATE, mix), result),
        "quasi-global adam": Algorithm(cdjax.quasi_global_adam(RATE, mix), result),
        "push-sum": Algorithm(cdjax.push_sum(sgd, push), result),
        "push-diging": Algorithm(cdjax.push_diging(RATE, push), message),
        "relay": Algorithm(cdjax.relay(sgd, tree), message),
        "outer": Algorithm(cdjax.outer(sgd, outer_sgd, mix, period=10), result),
        "outer, overlapped": Algorithm(
            cdjax.outer(sgd, outer_sgd, mix, period=10, overlapped=mix), message
        ),
        "accelerated": Algorithm(cdjax.accelerated_outer(sgd, mix, period=10), result),
        "slowmo": Algorithm(cdjax.slowmo(sgd, mix, learning_rate=RATE, period=10), result),
        "kgt": Algorithm(cdjax.kgt(sgd, mix, period=10), message),
        "led": Algorithm(cdjax.led(sgd, mix, period=10, gain=0.5), result),
        "choco": Algorithm(cdjax.choco(sgd, mix, sign, consensus_step=0.1), (*read, "result")),
        "beer": Algorithm(cdjax.beer(RATE, mix, sign, consensus_step=0.1), (*read, "result")),
        "power-gossip": Algorithm(
            cdjax.power_gossip(sgd, graph.mixing_matrix, key=key), ("differences", "result")
        ),
        "demo": Algorithm(cdjax.demo(RATE, compress.dct_top_k(32, 64)), ("transformed", "read")),
        # Spare is which entries one agent has sent, a byte each, for the mean over those that sent.
        "sparse-loco": Algorithm(
            cdjax.sparse_loco(sgd, compress.chunk_top_k(64, value_bits=2)), read, 0.02
        ),
    }


class Step(NamedTuple):
    """A step to compile: jitted, donating its first argument, the state, and all shapes."""

    function: Any
    shapes: tuple[Any, ...]
    params: Params

    def compiled(self) -> Any:
        """The compiled program."""
        return self.function.lower(*self.shapes).compile()


def update_step(algorithm: Algorithm, params: Params) -> Step:
    """An update after gradients that cost no other memory: products of two small factors.

    Args:
        algorithm: the optimizer, and along which graph it takes cross gradients.
        params: the shapes of stacked parameters, each leaf of shape (N, rows, columns).
    """
    tx = optax.with_extra_args_support(algorithm.tx)

    def step(state: tuple[Params, Any], factors: Params) -> tuple[Params, Any]:
        params, opt_state = state
        # Of two samples: an outer product would be computed anew for each reader.
        product = lambda x, pair: jnp.einsum("nbr,nbc->nrc", *pair)  # noqa: E731
        grads = jax.lax.optimization_barrier(jax.tree.map(product, params, factors))
        extra = {}
        if algorithm.crossing is not None:
            crossed = cdjax.cross_gradients(_residual_gradient, algorithm.crossing, plan="vmap")
            extra = {"cross_gradients": crossed(params, factors)}
        updates, opt_state = tx.update(grads, opt_state, params, **extra)
        return optax.apply_updates(params, updates), opt_state

    def factors(x: jax.ShapeDtypeStruct) -> tuple[jax.ShapeDtypeStruct, ...]:
        return tuple(jax.ShapeDtypeStruct((len(x), 2, n), x.dtype) for n in x.shape[1:])

    shapes = (params, jax.eval_shape(tx.init, params)), jax.tree.map(factors, params)
    return Step(jax.jit(step, donate_argnums=0), shapes, params)


def _residual_gradient(params: Params, factors: Params) -> Params:
    """A gradient of one agent that does read its parameters: of a linear model."""

    def of_leaf(x: jax.Array, pair: tuple[jax.Array, jax.Array]) -> jax.Array:
        inputs, outputs = pair
        return inputs.T @ (inputs @ x - outputs)

    return jax.tree.map(of_leaf, params, factors)


def train_step(algorithm: Algorithm, model: models.Model, num_agents: int, *, plan: str) -> Step:
    """A whole train step of two images of 28 × 28 per agent, by a plan of ``agent_map``."""
    tx, graph = algorithm.tx, algorithm.crossing
    images = jax.ShapeDtypeStruct((num_agents, 2, 28, 28, 1), jnp.float32)
    labels = jax.ShapeDtypeStruct((num_agents, 2), jnp.int32)

    def first_state(images: jax.Array) -> training.TrainState:
        params, _ = models.init_model(model, jax.random.key(0), images[0])
        return training.init_state(cdjax.replicate(params, num_agents), tx, key=jax.random.key(1))

    state = jax.eval_shape(first_state, images)
    loss_fn = models.classification_loss(model)
    step = training.train_step(loss_fn, tx, plan=plan, topology=graph)
    return Step(jax.jit(step, donate_argnums=0), (state, (images, labels)), state.params)


def needed_bytes(step: Step, exchange: tuple[str, ...]) -> int:
    """What a step must hold: its arguments (state and batch) and copies, see the module."""
    copies, one = num_bytes(step.params), jax.tree.leaves(step.params)[0]
    return num_bytes(step.shapes) + (1 + len(exchange)) * copies + 2 * copies // len(one)


def num_bytes(shapes: Any) -> int:
    """Bytes of a tree of arrays, or of their shapes."""
    return sum(x.size * x.dtype.itemsize for x in jax.tree.leaves(shapes))
