"""What each algorithm's row says of its order, for the clock."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from cdjax import network, topology
from cdjax.network._clock import carried_by
from experiments.run.algorithm import ALGORITHMS
from experiments.run.algorithms.row import Setting

RING = topology.ring(6)
SETTING = Setting(
    RING, None, 0.1, np.full(6, 10), np.full(6, 5), size_weighted=False, num_steps=600,
    key=jax.random.key(1),
)  # fmt: skip
# Options that change who talks when.
VARIANTS = [(name, {}) for name in ALGORITHMS] + [
    ("fedavg", {"client_fraction": 0.5}), ("easgd", {"asynchronous": True}),
    ("downpour", {"asynchronous": True, "period": 3}), ("outer", {"fragments": 5}),
    ("diloco", {"fragments": 2, "delay": 3}), ("icdsgd", {"rounds": 4}),
    ("gossip-pull", {"period": 3}), ("gradient-tracking", {"tracking_form": "atc"}),
]  # fmt: skip


def timed(name, options):
    row = ALGORITHMS[name]
    options = {**row.options, **options}
    graph = topology.complete(6) if row.talks_to_all else RING
    links = network.server_links(6) if row.server else network.links(graph)
    heard = row.heard(SETTING, links, **options) if row.heard else None
    return row, options, row.order(SETTING, **options), links, heard


@pytest.mark.parametrize(("name", "options"), VARIANTS)
@pytest.mark.sampled(3)
def test_the_clock_sends_as_many_messages_as_are_counted(name, options):
    row, options, order, links, heard = timed(name, options)
    used = sum(carried_by(leg, links).astype(int) for leg in order.legs)
    if heard is not None:
        used = used * jnp.mean(jax.vmap(heard)(jnp.arange(600 // order.period)), axis=0)
    counted = row.messages(SETTING, **options)
    sent = float(used.sum()) * order.messages / order.period
    assert sent == pytest.approx(counted, rel=0.1 if "gossip" in name or name == "gosgd" else 1e-6)


def test_orders_that_overlap_hide_a_message_and_others_do_not():
    links, seconds = network.links(RING, latency=0.25), {}
    for name in ("cdmsgd", "cdsgd", "extra", "atc", "cta", "d2", "gossip-push"):
        order = ALGORITHMS[name].order(SETTING, **ALGORITHMS[name].options)
        seconds[name] = network.seconds_per_step(order, links, 1.0, 0)
    assert {name for name, found in seconds.items() if found == 1.0} == {
        "cdmsgd", "cdsgd", "extra", "gossip-push"
    }  # fmt: skip
    assert {found for found in seconds.values()} == {1.0, 1.25}


def test_fragments_on_their_way_are_hidden_by_the_steps_beside_them():
    seconds = []
    for delay in (0, 1, 2):
        _, _, order, _, _ = timed("outer", {"period": 8, "fragments": 2, "delay": delay})
        links = network.links(RING, latency=1.5)
        seconds.append(4 * network.seconds_per_step(order, links, 1.0, 0))
    assert seconds == pytest.approx([5.5, 4.5, 4.0])


@pytest.mark.slow
def test_clients_that_rest_do_not_hold_up_the_server():
    row, options, order, links, heard = timed("fedavg", {"client_fraction": 0.5})
    trains = row.trains(SETTING, **options)
    compute = lambda step: jnp.where(trains(step), jnp.arange(6.0), 0)  # noqa: E731
    times = network.clock(order, links, compute, 0, num_steps=20, heard=heard)
    clients = np.array(jax.vmap(trains)(jnp.arange(0, 20, 5)))
    slowest = [5 * max(np.flatnonzero(row)) for row in clients]
    # After a round only the clients of the next one know its end.
    ends = [times[5 * i + 4][clients[i + 1]].min() for i in range(3)]
    np.testing.assert_allclose(ends, np.cumsum(slowest)[:3])
