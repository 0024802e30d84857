"""The network's clock of a run."""

import dataclasses
import json

import jax
import numpy as np
import pytest

from cdjax import network
from cdjax._json import to_json
from experiments.report import plots
from experiments.run import clock
from experiments.run.config import Run, replaced
from experiments.run.errors import UsageError
from experiments.run.job import prepare
from experiments.run.runner import run

pytestmark = pytest.mark.sampled(3)

MESSAGE = 4 * (3072 * 10 + 10)
SMALL = replaced(
    Run(), dataset="digits", model="softmax", agents=6, topology="ring", train_samples=96,
    test_samples=16, batch_size=8, epochs=4, latency="50ms", bandwidth="1MB", compute_time="0.1s",
)  # fmt: skip
TRANSFER = 2 * MESSAGE / 1e6  # of two messages, which share an agent's link


def seconds_of(options):
    """Seconds per step, and what bounds it, of a run that is not made."""
    job = prepare(options)
    now = clock.started(job.run, job.problem, job.timing)
    return clock.seconds_per_step(job.timing, now.compute_seconds, random=False)


def simulated(folder):
    lines = (folder / "metrics.jsonl").read_text().splitlines()
    return [json.loads(line)["simulated_seconds"] for line in lines]


@pytest.mark.slow
def test_records_hold_the_seconds_of_the_network_and_a_resumed_run_the_same(tmp_path):
    drawn = replaced(SMALL, jitter=0.4, stragglers=0.2, link_failure=0.2, algorithm="cdsgd", lag=1,
                     checkpoint_every=1)  # fmt: skip
    whole = run(drawn, folder=tmp_path / "whole", quiet=True)
    run(replaced(drawn, epochs=2), folder=tmp_path / "cut", quiet=True)
    resumed = replaced(drawn, resume=tmp_path / "cut")
    run(resumed, folder=tmp_path / "cut", quiet=True)
    assert simulated(tmp_path / "cut") == simulated(tmp_path / "whole")
    job = prepare(drawn)
    times = network.clock(job.timing.order, job.timing.links,
                          lambda step: job.timing.compute(step, 0.1), MESSAGE, num_steps=8,
                          heard=job.timing.heard)  # fmt: skip
    found = [record["simulated_seconds"] for record in whole]
    np.testing.assert_allclose(found, times[1::2].max(axis=1), rtol=1e-12)
    figure = plots.curves(whole, "title")
    assert figure.axes[-1].get_xlabel() == "simulated seconds on the network"


@pytest.mark.parametrize(
    ("options", "expected", "bound"),
    [
        ({"algorithm": "cdmsgd"}, 0.05 + TRANSFER, "bandwidth"),
        ({"algorithm": "cdmsgd", "compute_time": "2s"}, 2.0, "compute"),
        ({"algorithm": "atc"}, 0.15 + TRANSFER, "bandwidth"),
        ({"algorithm": "gradient-tracking"}, 0.05 + 2 * TRANSFER, "bandwidth"),
        ({"algorithm": "centralized"}, 0.2 + 6 * TRANSFER, "server"),
        ({"algorithm": "fedavg", "period": 4}, 0.1 + (0.1 + 6 * TRANSFER) / 4, "server"),
        (
            {"algorithm": "centralized", "server_bandwidth": "10MB"},
            0.2 + 2 * MESSAGE / 1e6,  # as an agent's own link takes; the server's is ten times that
            "server",
        ),
        ({"algorithm": "cdsgd", "lag": 4}, TRANSFER, "bandwidth"),
        ({"algorithm": "gossip-push", "compute_time": "9s"}, 9.0, "compute"),
        ({"algorithm": "cdsgd", "topology": "one-peer-exponential"}, 0.05 + TRANSFER / 2, None),
        ({"algorithm": "cdsgd", "mix_fraction": 0.5}, 0.05 + TRANSFER / 2, "bandwidth"),
        ({"algorithm": "choco", "fraction": 0.1}, None, None),
        ({"algorithm": "easgd", "asynchronous": True, "period": 2}, None, None),
        ({"algorithm": "relay"}, None, None),
        # Nobody waits: a gradient, and a swap over links that each swap has for itself.
        ({"algorithm": "ad-psgd", "compute_time": "1s"}, 1.05 + MESSAGE / 1e6, "compute"),
    ],
)
@pytest.mark.sampled(4)
def test_each_algorithm_takes_the_time_of_its_order(options, expected, bound):
    seconds, found = seconds_of(replaced(SMALL, **options))
    assert np.isfinite(seconds) and seconds >= 0.1
    if expected is not None:
        assert seconds == pytest.approx(expected, rel=1e-6)
    if bound is not None:
        assert found == bound


@pytest.mark.slow
def test_a_run_of_events_is_the_same_however_it_is_cut(tmp_path):
    drawn = replaced(SMALL, jitter=0.4, stragglers=0.2, algorithm="ad-psgd", checkpoint_every=1)
    whole = run(drawn, folder=tmp_path / "whole", quiet=True)
    run(replaced(drawn, epochs=2), folder=tmp_path / "cut", quiet=True)
    again = run(replaced(drawn, resume=tmp_path / "cut"), folder=tmp_path / "cut", quiet=True)
    without = [{k: v for k, v in r.items() if k != "seconds"} for r in (whole[-1], again[-1])]
    assert without[0] == without[1]
    ends = prepare(drawn).timing.ends
    np.testing.assert_allclose([record["simulated_seconds"] for record in whole], ends[1::2])
    assert whole[-1]["test_loss_mean"] < whole[0]["test_loss_mean"]


def test_links_that_fail_are_not_waited_for():
    quick = seconds_of(replaced(SMALL, algorithm="atc", link_failure=0.9))[0]
    assert 0.1 < quick < 0.15 + TRANSFER


def test_a_gradient_is_measured_where_no_time_is_given():
    job = prepare(replaced(SMALL, compute_time=None))
    now = clock.started(job.run, job.problem, job.timing)
    assert 0 < now.compute_seconds < 10
    assert "as measured here" in clock.fact(job.run, job.timing, now)


def test_the_clock_of_those_who_are_left_goes_on():
    job = prepare(SMALL)
    now = clock.later(job.timing, clock.started(job.run, job.problem, job.timing), 5)
    kept = np.array([0, 1, 3, 4, 5])
    rest = prepare(replaced(SMALL, without_agents=(2,)), held=job)
    left = clock.without(now, kept, rest.timing)
    after = clock.later(rest.timing, left, 3)
    assert int(after.state.step) == 8
    seconds = clock.simulated_seconds(rest.timing, after, np.arange(5))
    assert seconds == pytest.approx(8 * (0.05 + TRANSFER), rel=1e-6)


def test_the_clock_is_kept_to_the_last_bit():
    job = prepare(replaced(SMALL, jitter=0.3, lag=2, link_failure=0.3, algorithm="cdsgd"))
    now = clock.later(job.timing, clock.started(job.run, job.problem, job.timing), 5)
    again = clock.restored(json.loads(to_json(clock.noted(now))), job.timing)
    for one, other in zip(jax.tree.leaves(now), jax.tree.leaves(again), strict=True):
        np.testing.assert_array_equal(one, other)


def test_without_a_network_there_are_no_simulated_seconds():
    bare = dataclasses.replace(SMALL, clock=dataclasses.replace(Run().clock))
    assert prepare(bare).timing is None


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"latency": None, "bandwidth": None}, "--compute-time: there is no network"),
        (
            {"algorithm": "ad-psgd", "compute_time": None},
            "--compute-time: the order of events depends on it",
        ),
        ({"slowdown": 5.0}, "--slowdown: nothing reads it without --stragglers"),
        ({"server_bandwidth": "1GB"}, "--server-bandwidth: cdmsgd has no server"),
        ({"turns": "sequential"}, "--network: not for agents that train in turn"),
        ({"stragglers": 1.5}, r"--stragglers: 1.5 is not in \[0, 1\]"),
        ({"network": "moon"}, "--network: 'moon' is neither one of datacenter"),
        ({"bandwidth": "100Mb"}, "--bandwidth: '100Mb' leaves open whether it is of bits or byt"),
    ],
)
def test_bad_options_are_named(options, message):
    with pytest.raises(UsageError, match=message):
        prepare(replaced(SMALL, **options))


def test_a_file_of_links_is_for_its_graph_alone(tmp_path):
    file = tmp_path / "links.csv"
    lines = [f"{j},{(j + 1) % 6},20ms,1MB" for j in range(6)]
    file.write_text("\n".join(["from,to,latency,bandwidth", *lines]))
    own = replaced(SMALL, latency=None, bandwidth=None, network=str(file))
    assert seconds_of(own)[0] == pytest.approx(0.02 + MESSAGE / 1e6, rel=1e-6)
    with pytest.raises(UsageError, match="has links from agent to agent only"):
        prepare(replaced(own, algorithm="centralized"))
    with pytest.raises(UsageError, match="--latency: the file .*links.csv says it"):
        prepare(replaced(own, latency="1ms"))
    file.write_text("\n".join(["from,to,latency", *[line[:8] for line in lines[1:]]]))
    with pytest.raises(UsageError, match="no number for the edge from 1 to 0"):
        prepare(own)
    file.write_text("from,to,latency\n0,1,inf\n" + "\n".join(x[:8] for x in lines[1:]))
    with pytest.raises(UsageError, match="the link from 1 to 0 is silent, so that agents would"):
        prepare(own)
