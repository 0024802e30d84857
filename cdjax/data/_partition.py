"""Dealing a data set to agents: who privately holds which samples.

McMahan, Moore, Ramage, Hampson, Agüera y Arcas, *Communication-Efficient Learning of Deep Networks
from Decentralized Data*, AISTATS 2017, arXiv:1602.05629 (label-sorted shards).

Hsu, Qi, Brown, *Measuring the Effects of Non-Identical Data Distribution for Federated Visual
Classification*, arXiv:1909.06335 (Dirichlet: every agent's mix of classes is drawn, and all agents
have equally many samples).

Yurochkin et al., *Bayesian Nonparametric Federated Learning of Neural Networks*, ICML 2019,
arXiv:1905.12022 (Dirichlet: every class's mix of agents is drawn, so that agents differ in their
number of samples too).
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from jaxtyping import Int

from cdjax._checks import check_choice, check_count, check_num_agents, check_range

PARTITIONS = ("iid", "dirichlet", "dirichlet-equal", "shards", "classes", "quantity")


def partition(
    labels: Int[np.ndarray, " samples"] | int,
    num_agents: int,
    *,
    scheme: str = "iid",
    seed: int = 0,
    alpha: float = 0.5,
    shards_per_agent: int = 2,
    power: float = 1.0,
) -> list[Int[np.ndarray, " _"]]:
    """Deals all samples to the agents, each sample to exactly one of them.

    - ``iid``: at random; the agents' numbers of samples differ by at most one.
    - ``dirichlet``: of each class, the agents get shares drawn from Dir(α, ..., α).
    - ``dirichlet-equal``: each agent draws its mix of classes from Dir(α, ..., α) and then its
      samples, one by one, from the classes that are not used up; the agents' numbers of samples
      differ by at most one, so α may be as small as one likes.
    - ``shards``: the samples are sorted by label and cut into shards of equal size, which are dealt
      at random (McMahan et al., Section 3).
    - ``classes``: whole classes are dealt in turn. With more agents than classes, agents that get
      the same class split it.
    - ``quantity``: at random, but of unequal sizes, agent j's in proportion to
      :math:`1 / (1 + j)^p` in a random order of the agents, Zipf's law.

    Args:
        labels: the label of every sample, shape (n,); ``iid`` needs only their number n.
        num_agents: the number of agents N.
        scheme: ``iid``, ``dirichlet``, ``dirichlet-equal``, ``shards``, ``classes`` or
            ``quantity``.
        seed: of the random deal.
        alpha: α of both Dirichlet schemes; smaller values are further from iid.
        shards_per_agent: for ``shards``.
        power: p of ``quantity``, at least 0; with 0 it is ``iid`` but for rounding.

    Returns:
        The indices of each agent's samples: N disjoint arrays that cover all samples.

    Raises:
        ValueError: if an argument is out of its range, or an agent would have no samples.

    Example: ``parts = cdjax.data.partition(np.arange(100) % 10, 4, scheme="dirichlet", alpha=1.0)``
    """
    check_num_agents(num_agents)
    check_count("seed", seed, low=0)
    check_choice("scheme", scheme, PARTITIONS)
    labels = np.asarray(labels)
    if labels.ndim == 0 and scheme == "iid":
        check_count("labels", labels[()], low=1)
        labels = np.zeros(int(labels), int)
    instead = "or with scheme 'iid' the number of samples"
    if labels.ndim != 1:
        found = f"labels have the shape {labels.shape}"
        raise ValueError(f"{found}; give one label per sample, {instead}")
    if labels.dtype.kind not in "iu":
        raise ValueError(f"labels are {labels.dtype}; give whole numbers, {instead}")
    check_range("alpha", alpha, low=0, low_open=True)
    check_count("shards_per_agent", shards_per_agent, low=1)
    check_range("power", power, low=0)
    if num_agents > len(labels):
        raise ValueError(
            f"num_agents is {num_agents}, more than the {len(labels)} samples; take fewer agents"
        )
    rng = np.random.default_rng(seed)
    match scheme:
        case "iid":
            parts = np.array_split(rng.permutation(len(labels)), num_agents)
        case "dirichlet":
            parts = _dirichlet(labels, num_agents, alpha, rng)
        case "dirichlet-equal":
            parts = _dirichlet_equal(labels, num_agents, alpha, rng)
        case "shards":
            parts = _shards(labels, num_agents, shards_per_agent, rng)
        case "quantity":
            parts = _quantity(len(labels), num_agents, power, rng)
        case _:
            parts = _classes(labels, num_agents, rng)
    milder = {
        "dirichlet": f"an alpha larger than {alpha:g}, ",
        "quantity": f"a power smaller than {power:g}, ",
    }
    larger = milder.get(scheme, "")
    remedy = f"with scheme {scheme!r} take {larger}another seed or fewer agents"
    check_all_have_samples([len(part) for part in parts], remedy)
    return parts


def check_all_have_samples(sizes: Sequence[int] | np.ndarray, remedy: str) -> None:
    """Raises unless there are agents and each of them has samples."""
    if not len(sizes):
        raise ValueError("there are no agents; deal the samples to at least 1")
    empty = [str(agent) for agent, size in enumerate(sizes) if size < 1]
    if empty:
        names = ", ".join(empty[:5]) + (f" and {len(empty) - 5} more" if len(empty) > 5 else "")
        have = "agents {} have" if len(empty) > 1 else "agent {} has"
        raise ValueError(f"{have.format(names)} no samples; {remedy}")


def _dirichlet(
    labels: np.ndarray, num_agents: int, alpha: float, rng: np.random.Generator
) -> list[np.ndarray]:
    pieces = []  # pieces[label][agent]
    for label in np.unique(labels):
        members = rng.permutation(np.flatnonzero(labels == label))
        shares = rng.dirichlet(np.full(num_agents, alpha))
        # The sums are rounded, not the shares, so that no sample is lost or dealt twice.
        cuts = np.rint(np.cumsum(shares)[:-1] * len(members)).astype(int)
        pieces.append(np.split(members, cuts))
    return [np.concatenate(mine) for mine in zip(*pieces, strict=True)]


def _dirichlet_equal(
    labels: np.ndarray, num_agents: int, alpha: float, rng: np.random.Generator
) -> list[np.ndarray]:
    classes, counts = np.unique(labels, return_counts=True)
    members = [rng.permutation(np.flatnonzero(labels == label)) for label in classes]
    left = counts.copy()
    sizes = np.full(num_agents, len(labels) // num_agents)
    sizes[: len(labels) % num_agents] += 1
    parts = []
    for size in sizes:
        shares = rng.dirichlet(np.full(len(classes), alpha))
        taken = np.zeros_like(left)
        while missing := size - taken.sum():
            # What is drawn beyond a class's end is drawn again among the others: the same as one
            # sample after another.
            open_shares = np.where(left > taken, shares, 0.0)
            if not open_shares.any():  # a small alpha leaves the other classes no share at all
                open_shares = (left - taken).astype(float)
            drawn = rng.multinomial(missing, open_shares / open_shares.sum())
            taken = np.minimum(taken + drawn, left)
        dealt = zip(members, left, taken, strict=True)
        parts.append(np.concatenate([own[rest - take : rest] for own, rest, take in dealt]))
        left = left - taken
    return [parts[number] for number in rng.permutation(num_agents)]


def _shards(
    labels: np.ndarray, num_agents: int, shards_per_agent: int, rng: np.random.Generator
) -> list[np.ndarray]:
    num_shards = num_agents * shards_per_agent
    if num_shards > len(labels):
        raise ValueError(
            f"shards_per_agent is {shards_per_agent}, so {num_agents} agents need {num_shards} "
            f"shards, but there are only {len(labels)} samples; take fewer shards or agents"
        )
    # Shuffled first: the stable sort keeps that order among samples of one label.
    order = rng.permutation(len(labels))
    shards = np.array_split(order[np.argsort(labels[order], kind="stable")], num_shards)
    dealt = rng.permutation(num_shards).reshape(num_agents, shards_per_agent)
    return [np.concatenate([shards[shard] for shard in mine]) for mine in dealt]


def _quantity(
    num_samples: int, num_agents: int, power: float, rng: np.random.Generator
) -> list[np.ndarray]:
    shares = rng.permutation((1.0 + np.arange(num_agents)) ** -power)
    cuts = np.rint(np.cumsum(shares / shares.sum())[:-1] * num_samples).astype(int)
    return np.split(rng.permutation(num_samples), cuts)


def _classes(labels: np.ndarray, num_agents: int, rng: np.random.Generator) -> list[np.ndarray]:
    classes = rng.permutation(np.unique(labels))
    members = [rng.permutation(np.flatnonzero(labels == label)) for label in classes]
    if num_agents <= len(classes):
        return [np.concatenate(members[agent::num_agents]) for agent in range(num_agents)]
    parts = [np.empty(0, int)] * num_agents
    for number, samples in enumerate(members):
        num_holders = len(range(number, num_agents, len(classes)))
        parts[number :: len(classes)] = np.array_split(samples, num_holders)
    return parts
