import json
import math

import pytest

from experiments.advise.config import Advise
from experiments.advise.study import advise, choices_of, fastest, reasons
from experiments.run.config import Clock
from experiments.run.errors import UsageError

LINK = Clock(compute_time="0.4s", latency="50ms", bandwidth="100Mbit")
OPTIONS = Advise(
    LINK, agents=8, params="124M", topologies=("ring", "complete", "one-peer-exponential")
)
TRANSFER = 4 * 124e6 / 12.5e6  # seconds of a message alone


def by_name(choices):
    return {(choice.topology, choice.order): choice for choice in choices}


def test_a_step_takes_its_closed_form():
    found = by_name(choices_of(OPTIONS))
    expected = {
        ("ring", "consensus"): 0.05 + 2 * TRANSFER,
        ("ring", "adapt then combine"): 0.45 + 2 * TRANSFER,
        ("ring", "combine then adapt"): 0.45 + 2 * TRANSFER,
        ("ring", "gradient tracking"): 0.05 + 4 * TRANSFER,
        ("complete", "consensus"): 0.05 + 7 * TRANSFER,
        ("one-peer-exponential", "adapt then combine"): 0.45 + TRANSFER,
        ("server", "averaged gradients"): 0.4 + 2 * (0.05 + 8 * TRANSFER),
        ("all-reduce", "averaged gradients"): 0.4 + 14 * (0.05 + TRANSFER / 8),
    }
    for name, seconds in expected.items():
        assert found[name].seconds_per_step == pytest.approx(seconds, rel=1e-6), name


def test_disagreement_halves_after_so_many_steps():
    found = by_name(choices_of(OPTIONS))
    sigma = 0.8047378541243649  # of a ring of 8
    assert found["ring", "consensus"].steps_to_halve == math.ceil(math.log(0.5) / math.log(sigma))
    assert found["complete", "consensus"].steps_to_halve == 1
    # The mean of pairs leaves one frequency as it is until the last of three rounds.
    assert found["one-peer-exponential", "consensus"].steps_to_halve == 3
    ring = found["ring", "consensus"]
    assert ring.seconds_to_halve == pytest.approx(ring.steps_to_halve * ring.seconds_per_step)


def test_rarer_exchanges_cost_their_share_of_a_step():
    options = Advise(LINK, agents=8, params="1M", topologies=("ring",), period=10)
    ring = by_name(choices_of(options))["ring", "adapt then combine"]
    assert ring.seconds_per_step == pytest.approx(0.4 + (0.05 + 2 * 0.32) / 10)
    assert ring.bytes_per_step == 2 * 4e6 / 10


@pytest.mark.slow
def test_stragglers_lengthen_a_step():
    clock = Clock(compute_time="0.4s", latency="1ms", stragglers=0.05, slowdown=10)
    slow = Advise(clock, agents=8, params="1k", topologies=("ring",))
    ring = by_name(choices_of(slow))
    mean = 0.4 * (1 + 9 * 0.05)
    everybody = ring["all-reduce", "averaged gradients"].seconds_per_step
    assert mean < ring["ring", "consensus"].seconds_per_step < everybody


def test_the_best_is_printed_with_its_reasons_as_json(capsys, tmp_path):
    options = Advise(LINK, agents=4, params="1M", topologies=("ring",), json=True,
                     out=tmp_path / "plot.png")  # fmt: skip
    choices = advise(options)
    printed = json.loads(capsys.readouterr().out)
    assert printed["best"] == json.loads(json.dumps(fastest(choices)._asdict()))
    assert printed["why"] == reasons(choices)
    assert "agents agree fastest with" in printed["why"][0]
    assert (tmp_path / "plot.png").stat().st_size > 5000


def test_a_table_has_a_row_per_topology(capsys):
    advise(Advise(LINK, agents=4, params="1M", topologies=("ring",)))
    printed = capsys.readouterr().out
    first = [line.split()[0] for line in printed.splitlines() if line.split()]
    assert first.index("topology") == 1 and {*first[2:5]} == {"ring", "server", "all-reduce"}
    assert "averaged gradients by server" in printed


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"params": "124 cats"}, "--params: '124 cats'"),
        ({"agents": 0}, "--agents: 0 is too few"),
        ({"topologies": ("rign",)}, "--topologies: unknown topology 'rign' .did you mean 'ring'"),
        ({"clock": Clock(compute_time="1s", bandwidth="100Mb")}, "--bandwidth: '100Mb' leaves"),
        ({"clock": Clock(compute_time="1s", latency="-1ms")}, "--latency: '-1ms' is negative"),
        ({"clock": Clock(compute_time="1", latency="1ms")}, "--compute-time: '1': it has no unit"),
        ({"clock": Clock(compute_time="1s", network="moon")}, "--network: 'moon' is neither one"),
        ({"clock": Clock(latency="1ms")}, "--compute-time: nothing is trained here"),
    ],
)
def test_bad_options_are_named(options, message):
    with pytest.raises(UsageError, match=message):
        choices_of(Advise(**{"clock": LINK, "agents": 4, "topologies": ("ring",), **options}))
