"""Graphs drawn afresh in every step, by ``fold_in(key, step)``.

De Vos, Farhadkhani, Guerraoui, Kermarrec, Pires, Sharma, *Epidemic Learning: Boosting Decentralized
Learning with Randomized Communication*, NeurIPS 2023, arXiv:2310.01972.

Song, Li, Jin, Shi, Yan, Yin, Yuan, *Communication-Efficient Topologies for Decentralized Learning
with O(1) Consensus Rate*, NeurIPS 2022, arXiv:2210.07881 (EquiTopo).

Wang, Sahu, Yang, Joshi, Kar, *MATCHA: Speeding Up Decentralized SGD via Matching Decomposition
Sampling*, 2019, arXiv:1905.09435.
"""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh
from jaxtyping import Array, Float, Int, PRNGKeyArray

from cdjax._checks import (
    check_count,
    check_key,
    check_num_agents,
    check_probability,
    check_stacked,
    check_step,
)
from cdjax._trees import along_agents, map_floats
from cdjax._types import Mixer, Params
from cdjax.mixing._exchange import exchange
from cdjax.mixing._peers import Peers
from cdjax.mixing._visits import is_divided, pulls_of_heard, pulls_of_senders
from cdjax.sharding import AXIS
from cdjax.topology import Matcha, from_matrix


def random_matching(num_agents: int, key: PRNGKeyArray) -> Peers:
    """Draws disjoint pairs among all agents: every agent has a partner, but for one if N is odd.

    All matchings have the same chance, as with :func:`random_pairs` on a complete graph, but in
    time and memory that grow with N and not with its square.

    Args:
        num_agents: N.
        key: of all draws.

    Returns:
        A function from the step to peers, shape (N,).

    Example: ``mix = cdjax.mixing.pull(cdjax.mixing.random_matching(16, key))``
    """
    check_num_agents(num_agents)
    check_key(key)
    half = num_agents // 2

    def peers(step: int | Int[Array, ""]) -> Int[Array, " agents"]:
        order = jax.random.permutation(jax.random.fold_in(key, step), num_agents)
        first, second = order[:half], order[half : 2 * half]
        return jnp.arange(num_agents).at[first].set(second).at[second].set(first)

    return peers


def random_epidemic(
    num_agents: int,
    key: PRNGKeyArray,
    *,
    count: int = 1,
    mesh: Mesh | None = None,
    axis: str = AXIS,
) -> Mixer:
    r"""Every agent sends to ``count`` random others, and averages what arrives with its own.

    .. math:: x^j \leftarrow \Big( x^j + \sum_{l : \, j \in S_l} x^l \Big)
              / (1 + |\{ l : j \in S_l \}|)

    with :math:`S_l` the s others to which agent l sends, all sets of s with the same chance and
    independent of each other. Rows sum to one, columns only on average, so the mean moves. Without
    gradients the disagreement with the mean before the step is, in expectation, multiplied by
    :math:`(1 - (1 - s / (N - 1))^N) / s - 1 / (N - 1)` in squares.

    Args:
        num_agents: N.
        key: of all draws.
        count: s, from 1 to N − 1.
        mesh: the devices over which the agents are divided, if they are: then one block of agents
            after another visits each device, which would otherwise gather all.
        axis: the name of the agents' axis of the mesh.

    Returns:
        A mixer; it needs the step.

    Raises:
        ValueError: if s is out of its range.

    Reference: De Vos et al. (2023), Algorithm 2, EL-Local (number not verified).
    """
    _check_others(num_agents, count, "count")
    check_key(key)

    def mix(tree: Params, step: int | Int[Array, ""] | None = None) -> Params:
        step_key = jax.random.fold_in(key, check_step(step, "random_epidemic"))
        check_stacked(tree, num_agents, holder="random_epidemic")
        receivers = _distinct_others(step_key, num_agents, count)
        num_terms = jnp.ones(num_agents).at[receivers].add(1.0)
        pulls = pulls_of_senders(tree, receivers, mesh, axis)  # differences: agents that agree stay
        return map_floats(lambda x, pull: x + pull / along_agents(num_terms, x), tree, pulls)

    return mix


def random_regular(
    num_agents: int,
    key: PRNGKeyArray,
    *,
    degree: int = 1,
    mesh: Mesh | None = None,
    axis: str = AXIS,
) -> Mixer:
    r"""Every agent averages with ``degree`` others that a fresh random graph gives it.

    .. math:: \Pi_k = P_k^\top C P_k, \quad
              (C x)^i = \frac{1}{s + 1} \sum_{m = 0}^s x^{(i + m) \bmod N}

    with :math:`P_k` a random permutation: agents sit down in a random circle, and each hears the
    next s. So it hears, and is heard by, s others, any s of them with the same chance; the
    matrices are doubly stochastic, and the mean stays. Without gradients disagreement is, in
    expectation, multiplied by :math:`(1 - s / (N - 1)) / (s + 1)` in squares, as with any random
    graph in which every agent hears any s others with the same chance. The paper draws undirected
    s-regular graphs, which exist for even sN only.

    Args:
        num_agents: N.
        key: of all draws.
        degree: s, from 1 to N − 1.
        mesh: the devices over which the agents are divided, if they are: then one block of agents
            after another visits each device, which would otherwise gather all.
        axis: the name of the agents' axis of the mesh.

    Returns:
        A mixer; it needs the step.

    Raises:
        ValueError: if s is out of its range.

    Reference: De Vos et al. (2023), EL-Oracle, on directed graphs.
    """
    _check_others(num_agents, degree, "degree")
    check_key(key)

    def mix(tree: Params, step: int | Int[Array, ""] | None = None) -> Params:
        step_key = jax.random.fold_in(key, check_step(step, "random_regular"))
        check_stacked(tree, num_agents, holder="random_regular")
        seats = jax.random.permutation(step_key, num_agents)
        # The agent that sits m places after agent j, for every j.
        after = [
            jnp.zeros_like(seats).at[seats].set(jnp.roll(seats, -m)) for m in range(1, degree + 1)
        ]
        pulls = pulls_of_heard(tree, jnp.stack(after), mesh, axis)
        return map_floats(lambda x, pull: x + pull / (degree + 1), tree, pulls)

    return mix


def random_equitopo(
    num_agents: int,
    key: PRNGKeyArray,
    *,
    weight: float = 0.5,
    mesh: Mesh | None = None,
    axis: str = AXIS,
) -> Mixer:
    r"""Every agent hears the one at a random distance, the same for all in a step.

    .. math:: \Pi_k = (1 - \eta) I + \eta A^{(a_k)}, \quad
              A^{(a)} = \frac 1 N I + \frac{N - 1}{N} S^a, \quad (S x)^j = x^{(j + 1) \bmod N}

    with a drawn from 1..N−1. On average A is :math:`11^\top / N`, so that disagreement is, in
    expectation, multiplied by :math:`(1 - \eta)^2 + \eta^2 (1 - 2 / N)` in squares: by less than
    one half at η = 1/2, whatever N, at one message per agent.

    Args:
        num_agents: N.
        key: of all draws.
        weight: η in [0, 1].
        mesh: the devices over which the agents are divided, if they are: then two blocks of agents
            at most visit each, where otherwise all would be gathered.
        axis: the name of the agents' axis of the mesh.

    Returns:
        A mixer; it needs the step.

    Raises:
        ValueError: if the weight is out of its range.

    Reference: Song et al. (2022), Algorithm 3, OD-EquiDyn (number and η not verified).
    """
    check_num_agents(num_agents)
    check_key(key)
    check_probability("weight", weight)
    share = weight * (num_agents - 1) / num_agents

    def mix(tree: Params, step: int | Int[Array, ""] | None = None) -> Params:
        step_key = jax.random.fold_in(key, check_step(step, "random_equitopo"))
        check_stacked(tree, num_agents, holder="random_equitopo")
        distance = jax.random.randint(step_key, (), 1, max(2, num_agents))
        heard = (jnp.arange(num_agents) + distance) % num_agents
        pulls = pulls_of_heard(tree, heard[None], mesh, axis)
        return map_floats(lambda x, pull: x + share * pull, tree, pulls)

    return mix


def random_matchings(
    matcha: Matcha, key: PRNGKeyArray, *, mesh: Mesh | None = None, axis: str = AXIS
) -> Mixer:
    r"""MATCHA: uses each matching of a graph with its own probability.

    .. math:: \Pi_k = I - a \sum_j B_j L_j, \quad B_j \sim \mathrm{Bernoulli}(p_j)

    Args:
        matcha: the matchings, their probabilities p and the edge weight a, see
            :func:`cdjax.topology.matcha`.
        key: of all draws.
        mesh: the devices over which the agents are divided, if they are; devices that hold no
            agents of a matching's pairs, or of none that is used, exchange nothing for it.
        axis: the name of the agents' axis of the mesh.

    Returns:
        A mixer; it needs the step.

    Example: ``mix = cdjax.mixing.random_matchings(cdjax.topology.matcha(topology, 0.5), key)``

    Reference: Wang et al. (2019), eq. 4 (number not verified).
    """
    if not isinstance(matcha, Matcha):
        raise ValueError(
            f"matcha is of type {type(matcha).__name__}; give that of "
            "cdjax.topology.matcha(topology, 0.5)"
        )
    check_key(key)
    divided = is_divided(mesh, axis)
    swaps = _swaps(matcha, mesh, axis) if mesh is not None and divided else []

    def weights_of(step: int | Int[Array, ""] | None) -> Float[Array, " matchings"]:
        step_key = jax.random.fold_in(key, check_step(step, "random_matchings"))
        active = jax.random.bernoulli(step_key, matcha.probabilities, matcha.probabilities.shape)
        return jnp.where(active, matcha.edge_weight, 0.0)

    def mix(tree: Params, step: int | Int[Array, ""] | None = None) -> Params:
        weights = weights_of(step)
        check_stacked(tree, matcha.num_agents, holder="the matchings")

        def mix_leaf(x: Array) -> Array:
            moved = jnp.zeros_like(x)
            for weight, partner in zip(weights, matcha.partners, strict=True):
                moved += along_agents(weight, x) * (x[partner] - x)
            return x + moved

        return map_floats(mix_leaf, tree)

    def mix_divided(tree: Params, step: int | Int[Array, ""] | None = None) -> Params:
        weights = weights_of(step)
        check_stacked(tree, matcha.num_agents, holder="the matchings")
        # What is not used is not exchanged, and its pull is zero.
        swapped = [
            jax.lax.cond(weight != 0, swap, lambda tree: tree, tree)
            for weight, swap in zip(weights, swaps, strict=True)
        ]

        def mix_leaf(x: Array, *others: Array) -> Array:
            moved = jnp.zeros_like(x)
            for weight, other in zip(weights, others, strict=True):
                moved += along_agents(weight, x) * (other - x)
            return x + moved

        return map_floats(mix_leaf, tree, *swapped)

    return mix_divided if divided else mix


def _swaps(matcha: Matcha, mesh: Mesh, axis: str) -> list[Mixer]:
    """For every matching, what gives all agents their partners' leaves."""
    identity = np.eye(matcha.num_agents)
    graphs = [from_matrix(identity[partner], validate=False) for partner in matcha.partners]
    return [exchange(graph, mesh, axis=axis) for graph in graphs]


def _check_others(num_agents: int, count: int, name: str) -> None:
    check_num_agents(num_agents)
    check_count(name, count, low=1)
    if count >= num_agents:
        raise ValueError(
            f"{name} is {count}, but of {num_agents} agents each has {num_agents - 1} others; give "
            "at most so many"
        )


def _distinct_others(key: Array, num_agents: int, count: int) -> Int[Array, "count agents"]:
    """For every agent ``count`` distinct others, all sets with the same chance, by Floyd's method.

    Of the first i + 1 of the N − 1 others, one is drawn; if it has been taken, it is the last of
    them, which cannot have been.
    """
    agents = jnp.arange(num_agents)
    taken: list[Array] = []
    for draw, last in enumerate(range(num_agents - 1 - count, num_agents - 1)):
        other = jax.random.randint(jax.random.fold_in(key, draw), (num_agents,), 0, last + 1)
        for earlier in taken.copy():
            other = jnp.where(other == earlier, last, other)
        taken.append(other)
    # Numbers of others skip the agent itself.
    return jnp.stack([jnp.where(other >= agents, other + 1, other) for other in taken])
