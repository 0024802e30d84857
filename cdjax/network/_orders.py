"""In which order an algorithm's agents compute and exchange, and for whom they wait.

An order is a few facts, which the clock (``_clock.py``) and the exact rate (``_pace.py``) read.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from types import MappingProxyType
from typing import Literal

from cdjax._checks import check_count

# One exchange: over all links of the graph, from agents to the server, from the server to agents,
# of each agent to the server and back without the others, or around a ring that sums up all agents.
Leg = Literal["links", "up", "down", "trip", "ring"]


@dataclass(frozen=True)
class Order:
    r"""What an agent does in a step that exchanges: exchanges, a gradient, exchanges.

    With E the time after an exchange, ``E(t)_j = max(t_j, max_l t_l + m_jl)``, c the seconds that a
    gradient takes, and t the time at which everybody has the parameters of the step,

    .. math:: t' = E^{before}(t), \quad t'' = \max(t' + c, E^{beside}(t')), \quad
              t^+ = E^{after}(t'')

    Attributes:
        before: exchanges that the gradient waits for.
        beside: exchanges that go on while the gradient is computed.
        after: exchanges of what the gradient has changed.
        messages: messages that each exchange sends over a link, or a fraction of one.
        lag: steps by which agents use late what they hear.
        period: steps from one exchange to the next; the others compute only.
        overlap: steps of the next round that agents compute before they need what they hear.
        waits: whether agents wait for what they hear; those that do not only wait until their own
            link has taken what they send.
    """

    before: tuple[Leg, ...] = ()
    beside: tuple[Leg, ...] = ()
    after: tuple[Leg, ...] = ()
    messages: float = 1
    lag: int = 0
    period: int = 1
    overlap: int = 0
    waits: bool = True

    @property
    def legs(self) -> tuple[Leg, ...]:
        """All exchanges of a step, one after another."""
        return (*self.before, *self.beside, *self.after)

    @property
    def has_server(self) -> bool:
        """Whether it goes by way of a server."""
        return bool({"up", "down", "trip"} & {*self.legs})


def consensus(rounds: int = 1) -> Order:
    """Gradient and mixing both at x: they overlap. CDSGD, CDMSGD, EXTRA, D-PSGD's own order.

    Over :func:`cdjax.network.server_links` it is synchronous EASGD, which is CDSGD on a star whose
    hub computes no gradient.

    Args:
        rounds: exchanges one after another, as of ``cdjax.icdsgd``.

    Reference: Jiang et al. (2017), eq. 5.
    """
    check_count("rounds", rounds, low=1)
    return Order(beside=("links",) * rounds)


def adapt_then_combine() -> Order:
    """A step, then mixing: neighbours wait for the gradient, then for the message.

    Reference: Chen, Sayed (2012).
    """
    return Order(after=("links",))


def combine_then_adapt() -> Order:
    """Mixing, then a gradient at what has been mixed.

    Reference: Chen, Sayed (2012).
    """
    return Order(before=("links",))


def gradient_tracking(form: Literal["diging", "semi-atc", "atc"] = "diging") -> Order:
    """Two trees per step: parameters and tracked gradients.

    In the form ``diging`` both are known when the step begins, so that they overlap with the
    gradient; ``atc`` sends what the gradient has changed, then the parameters that it has moved.

    Args:
        form: as of ``cdjax.gradient_tracking``.

    Reference: Nedić, Olshevsky, Shi (2017).
    """
    return TRACKING[form]


TRACKING: Mapping[str, Order] = MappingProxyType(
    {
        # y_k = Π y_(k-1) + g_k - g_(k-1) and x_(k+1) = Π x_k - α y_k read x_k and y_(k-1), both of
        # the step before.
        "diging": Order(beside=("links",), messages=2),
        # y_k as above, then x_(k+1) = Π(x_k - α y_k).
        "semi-atc": Order(beside=("links",), after=("links",)),
        # y_k = Π(y_(k-1) + g_k - g_(k-1)), then x_(k+1) = Π(x_k - α y_k).
        "atc": Order(after=("links", "links")),
    }
)


def delayed(order: Order, steps: int) -> Order:
    """The same where agents use what they hear so many steps late, as ``cdjax.delayed``.

    Args:
        order: with one exchange per step.
        steps: d, at least 0.

    Raises:
        ValueError: if the order has several exchanges, or d is below 0.
    """
    check_count("steps", steps, low=0)
    if steps and (len(order.legs) != 1 or not order.waits):
        raise ValueError(
            f"order has {len(order.legs)} exchanges per step; only one that agents wait for can be "
            "late"
        )
    return replace(order, lag=steps)


def every(period: int, order: Order) -> Order:
    """The same at the last of every ``period`` steps; the others compute only.

    Args:
        period: τ, at least 1.
        order: the order of the last step.
    """
    check_count("period", period, low=1)
    return replace(order, period=period * order.period)


def overlapped(order: Order, steps: int) -> Order:
    """The same where an exchange goes on beside the first steps of the next round.

    Streaming DiLoCo's fragments are on their way so long: ``delay`` of ``cdjax.outer``.

    Args:
        order: with a period, whose exchanges come after the gradient.
        steps: after how many steps of the next round what is heard is needed, below the period.

    Raises:
        ValueError: if the order has other exchanges, or there are too many steps.
    """
    check_count("steps", steps, low=0)
    late = {*order.after} <= {"links", "up", "down"} and order.legs == order.after and order.waits
    if steps and not (late and steps < order.period and not order.lag):
        raise ValueError(
            f"steps is {steps}; only what is exchanged after the gradient can be needed later, "
            f"within the period, here {order.period}"
        )
    return replace(order, overlap=steps)


def all_reduce() -> Order:
    r"""Averaged gradients by a ring all-reduce of 2(N − 1) messages of b/N bytes each.

    .. math:: t^+ = \max_j (t_j + c_j) + 2 (N - 1) \max_{jl} \Big( \tau_{jl} + \frac b N
              \max\Big(\frac 1 {\beta_{jl}}, \frac 1 {u_l}, \frac 1 {d_j}\Big) \Big)

    Each round goes on at the pace of the slowest link that it is given, which is exact for equal
    ones: give the links of the ring on which it runs.

    Reference: Patarasuk, Yuan (2009), *Bandwidth optimal all-reduce algorithms for clusters of
    workstations* (not verified).
    """
    return Order(after=("ring",))


def parameter_server() -> Order:
    """Everybody sends to the server, which waits for all, averages and answers all.

    Averaged gradients in every step; with :func:`every`, FedAvg, DiLoCo and Downpour's synchronous
    form. It needs :func:`cdjax.network.server_links`.
    """
    return Order(after=("up", "down"))


def asynchronous_server() -> Order:
    """Agents exchange with the server and wait for its answer, but for no other agent.

    Asynchronous EASGD and Downpour; which links are in use at a step is the ``heard`` of the clock.
    """
    return Order(after=("trip",))


def push() -> Order:
    """Agents send and never wait: GoSGD and push gossip.

    An agent only waits until its own link has taken its last message, since a network takes no more
    than its bandwidth.

    Reference: Jin et al. (2016), push-gossip; Blot et al. (2016).
    """
    return Order(after=("links",), waits=False)
