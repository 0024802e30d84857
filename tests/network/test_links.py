import pickle

import numpy as np
import pytest

from cdjax import network, topology

RING = topology.ring(4)


def test_ends_are_shared_by_what_passes_at_once():
    graph = topology.star(5)  # agent 0 is the hub
    wires = network.links(graph, bandwidth=10.0, upload=12.0, download=16.0)
    to_hub, from_hub = wires.receivers == 0, wires.senders == 0
    np.testing.assert_allclose(wires.transfer(60.0)[from_hub], 60 / (12 / 4))
    np.testing.assert_allclose(wires.transfer(60.0)[to_hub], 60 / (16 / 4))
    alone = np.flatnonzero(to_hub)[:1]
    heard = np.isin(np.arange(8), alone)
    np.testing.assert_allclose(wires.transfer(60.0, heard)[alone], 60 / 10)


def test_latencies_are_one_number_one_per_link_or_a_matrix():
    matrix = np.arange(16.0).reshape(4, 4)
    wires = network.links(RING, latency=matrix)
    np.testing.assert_array_equal(wires.latency, matrix[wires.receivers, wires.senders])
    again = network.links(RING, latency=wires.latency)
    np.testing.assert_array_equal(again.latency, wires.latency)
    assert pickle.loads(pickle.dumps(wires)).latency.tolist() == wires.latency.tolist()


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"latency": -0.1}, "latency is -0.1; it must be at least 0 seconds"),
        ({"bandwidth": 0.0}, "bandwidth is 0; it must be above 0 bytes per second, and a link"),
        ({"upload": [1.0, 1.0, -1.0, 1.0]}, "upload is -1; it must be above 0"),
        ({"latency": np.zeros(3)}, r"latency has shape \(3,\); give one number, one per link"),
        ({"download": np.ones(3)}, r"download has shape \(3,\); give one number, or shape \(4,\)"),
        (
            {"latency": np.where(np.eye(4, k=1), np.nan, 0.1)},
            "latency has no number for the edge from 1 to 0; give each edge of the topology one",
        ),
        ({"latency": "50ms"}, "latency is no array of real numbers"),
    ],
)
def test_bad_links_are_named(options, message):
    with pytest.raises(ValueError, match=message):
        network.links(RING, **options)


def test_orders_and_links_must_fit():
    with pytest.raises(ValueError, match="by way of a server; give cdjax.network.server_links"):
        network.clock(network.parameter_server(), network.links(RING), 1.0, 1, num_steps=1)
    with pytest.raises(ValueError, match="sums up around a ring; give cdjax.network.links"):
        network.pace(network.all_reduce(), network.server_links(4), 1.0, 1)
    with pytest.raises(ValueError, match="order has 2 exchanges per step"):
        network.delayed(network.consensus(2), 1)
    with pytest.raises(ValueError, match="steps is 3; only what is exchanged after the gradient"):
        network.overlapped(network.every(3, network.adapt_then_combine()), 3)


@pytest.mark.parametrize(
    ("compute", "options", "message"),
    [
        (1.0, {}, r"num_steps is None, but compute has shape \(\)"),
        (np.ones(3), {"num_steps": 2}, r"compute has shape \(3,\); give one number, one per agent"),
        (np.ones((2, 4)), {"num_steps": 3}, r"compute has shape \(2, 4\)"),
        (lambda step: 1.0, {}, "num_steps is None, but compute is a function"),
        (-1.0, {"num_steps": 1}, "compute is -1.0"),
    ],
)
def test_bad_times_of_computation_are_named(compute, options, message):
    with pytest.raises(ValueError, match=message):
        network.clock(network.consensus(), network.links(RING), compute, 1, **options)


def test_drawn_times_need_a_key():
    with pytest.raises(ValueError, match="key is None; give one random key"):
        network.compute_times(1.0, 4, jitter=0.1)


def test_presets_say_where_they_come_from():
    for name, one in network.PRESETS.items():
        wires = network.preset(name, RING)
        assert wires.latency[0] == one.latency and wires.upload[0] == one.upload
        assert "Speedtest" in one.source or "Azure" in one.source
    with pytest.raises(ValueError, match="unknown preset 'wide-aera' .did you mean 'wide-area'"):
        network.preset("wide-aera", RING)


def test_regions_are_half_a_published_round_trip_apart():
    latency = network.latency_between(["East US", "West Europe", "East US"])
    assert latency[1, 0] == pytest.approx(83e-3 / 2)  # from East US to West Europe
    assert latency[0, 1] == pytest.approx(84e-3 / 2)
    assert latency[0, 2] == latency[2, 0] == pytest.approx(0.454e-3)
    assert (
        network.place(topology.ring(4), ["East US", "West Europe"])
        == ["East US"] * 2 + ["West Europe"] * 2
    )
    with pytest.raises(ValueError, match="unknown region 'Mars'"):
        network.latency_between(["Mars"])


def test_a_file_of_links_gives_each_edge_its_numbers(tmp_path):
    path = tmp_path / "links.csv"
    path.write_text(
        "from,to,latency,bandwidth\n0,1,50ms,100Mbit\n1,2,10ms,1GB\n2,3,7ms,8Mbit\n"
        "3,0,1s,8kbit\n0,3,2s,16kbit\n0,2,9s,1bit\n"
    )
    wires = network.read_links(path, RING)
    ends = dict(zip(zip(wires.senders, wires.receivers, strict=True), wires.latency, strict=True))
    assert ends[0, 1] == ends[1, 0] == 0.05
    assert (ends[3, 0], ends[0, 3]) == (1.0, 2.0)
    assert sorted({*wires.bandwidth}) == [1e3, 2e3, 1e6, 12.5e6, 1e9]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("0,1,5ms\n", "its first line names the columns"),
        ("from,to,latency\n0,1,5ms\n1,2,5ms\n2,3,5ms\n", "no number for the edge from 3 to 0"),
        ("from,to,latency\n0,9,5ms\n", "line 2: '9' is no agent of ring"),
        ("from,to,bandwidth\n0,1,100Mb\n", "line 2, bandwidth: '100Mb' leaves open"),
        ("from,to,latency\n0,1\n", "line 2 has 2 of 3 columns"),
        ("from,to,latency\n0,1,-5ms\n", "line 2, latency: '-5ms' is negative"),
    ],
)
def test_a_bad_file_of_links_is_told_by_its_line(tmp_path, text, message):
    path = tmp_path / "links.csv"
    path.write_text(text)
    with pytest.raises(ValueError, match=message):
        network.read_links(path, RING)
