"""The clock held against what others have measured and printed."""

import numpy as np
import pytest

from cdjax import network, topology

# github.com/google-deepmind/asyncdiloco, AsyncLocalSGDToyExample.ipynb, its printed output: the
# time at which so many local steps are in, for four workers of these seconds per step, 20 steps
# between exchanges, and a grace period of half a second.
SECONDS_PER_STEP = np.array([0.58, 0.75, 1.51, 3.33])
PRINTED = [209.0, 406.4, 603.8, 801.4, 999.0, 1207.8, 1404.2, 1600.6, 1800.2, 1998.6]

# github.com/Adnan082/diloco-measured, August 2026: DiLoCo of four machines over links that tc
# limits, 30,846,720 parameters in float32. Bits per second by iperf3 and seconds of a
# synchronization (medians), then the share of time that computes for H = 1, 8, 32 (experiments/
# 01_cu_grid/NOTES.md, the first of three repeats).
BITS_PER_SECOND = np.array([49.6e6, 198.5e6, 992.7e6, 4964e6])
SECONDS_OF_SYNC = np.array([37.94, 8.256, 1.506, 0.3175])
SHARES = {
    1: [0.0007, 0.0032, 0.0174, 0.0776],
    8: [0.0055, 0.0248, 0.1235, 0.4024],
    32: [0.0241, 0.1001, 0.3601, 0.6810],
}
MESSAGE_BYTES = 4 * 30_846_720
COMPUTE_SECONDS = 0.0262


def test_asynchronous_diloco_takes_the_printed_times_to_the_last_digit():
    heard = network.arrivals(20 * SECONDS_PER_STEP, 400, grace=0.5)
    np.testing.assert_allclose(heard.seconds[39::40], PRINTED, atol=5e-3)


def test_an_infinite_grace_period_is_a_barrier():
    heard = network.arrivals(20 * SECONDS_PER_STEP, 12, grace=np.inf)
    np.testing.assert_allclose(heard.seconds[3::4], [66.6, 133.2, 199.8])
    assert heard.agents.tolist() == [0, 1, 2, 3] * 3
    server = network.every(20, network.parameter_server())
    wires = network.server_links(4)
    times = network.clock(server, wires, SECONDS_PER_STEP, 0, num_steps=60)
    np.testing.assert_allclose(times[19::20], [[66.6] * 4, [133.2] * 4, [199.8] * 4])


def test_without_grace_everybody_comes_in_its_own_rhythm():
    heard = network.arrivals([1.0, 2.5], 9)
    np.testing.assert_allclose(heard.seconds, [1, 2, 2.5, 3, 4, 5, 5, 6, 7])
    # While agent 1 works for 2.5 s, two results of agent 0 come in, then three.
    assert heard.staleness[heard.agents == 1].tolist() == [2, 3]


def test_a_measured_synchronization_takes_1_to_1_27_times_the_ring():
    predicted = []
    for bits in BITS_PER_SECOND:
        ring = network.links(topology.ring(4), upload=bits / 8, download=bits / 8)
        predicted.append(network.pace(network.all_reduce(), ring, 0.0, MESSAGE_BYTES).seconds)
    np.testing.assert_allclose(predicted, [29.85, 7.459, 1.4915, 0.2983], rtol=1e-3)
    np.testing.assert_allclose(SECONDS_OF_SYNC / predicted, [1.27, 1.11, 1.01, 1.06], atol=0.005)


@pytest.mark.parametrize("period", SHARES)
def test_the_share_of_time_that_computes_is_the_measured_one_but_for_slow_links(period):
    order = network.every(period, network.all_reduce())
    shares = []
    for bits in BITS_PER_SECOND:
        ring = network.links(topology.ring(4), upload=bits / 8, download=bits / 8)
        pace = network.pace(order, ring, COMPUTE_SECONDS, MESSAGE_BYTES)
        shares.append(COMPUTE_SECONDS / pace.seconds)
    deviation = np.array(shares) / SHARES[period] - 1
    assert np.all(np.abs(deviation[1:]) < 0.12)  # from 200 Mbit/s up
    assert abs(deviation[2]) < 0.02  # at 1 Gbit/s
    assert 0 < deviation[0] < 0.30  # at 50 Mbit/s the ring is too fast
