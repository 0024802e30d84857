"""Topologies that change with the step, from the options to what is mixed and counted."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from cdjax import sharding, topology
from experiments.report import plots
from experiments.run import job, network
from experiments.run.bounds import is_bounded
from experiments.run.config import Run, replaced
from experiments.run.errors import UsageError
from experiments.run.varying import VARYING


def options(**given):
    return replaced(Run(), **{"algorithm": "atc", "agents": 8, **given})


@pytest.mark.parametrize("name", VARYING)
@pytest.mark.sampled(4)
def test_every_one_mixes_in_every_step_and_keeps_consensus(name):
    net = network.build(options(topology=name).network, Run().trouble)
    mesh = sharding.agent_mesh(1)
    mix = jax.jit(network.build_mixer(net, mesh, trouble=Run().trouble, key=jax.random.key(0)))
    x = jnp.arange(8.0)
    assert any(not np.array_equal(mix(x, step), x) for step in range(4))
    np.testing.assert_array_equal(mix(jnp.full(8, 0.1), 3), jnp.full(8, 0.1))


@pytest.mark.parametrize(
    ("given", "messages"),
    [
        ({"topology": "one-peer-exponential"}, 8),
        ({"topology": "epidemic", "peers_per_step": 3}, 24),
        ({"topology": "random-matching", "agents": 7}, 6),
        ({"topology": "ring", "matcha_budget": 0.5}, 8),
        ({"topology": "base-2", "agents": 6}, topology.base_graph(6).messages_per_step),
    ],
)
def test_messages_are_counted_as_sent_on_average(given, messages):
    net = network.build(options(**given).network, Run().trouble)
    assert net.varying.messages == pytest.approx(messages, abs=1e-6)


@pytest.mark.slow
def test_a_run_counts_its_bytes_and_claims_no_theory():
    small = {"dataset": "digits", "model": "softmax", "epochs": 1, "algorithm": "cdsgd"}
    whole = job.prepare(options(topology="base-2", devices="1", **small))
    assert not is_bounded(whole)
    agent_bytes = sum(x[0].nbytes for x in jax.tree.leaves(whole.state.params))
    assert whole.bytes_per_step == 8 * agent_bytes
    part = job.prepare(options(topology="base-2", devices="1", mix_fraction=0.25, **small))
    assert part.bytes_per_step == 2 * agent_bytes
    assert whole.problem.class_counts.sum() == len(whole.problem.dataset.train_labels)


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"topology": "base-2", "mixer": "median"}, "--mixer: not where --topology changes"),
        ({"topology": "base-2", "link_failure": 0.1}, "--link-failure: not where --topology"),
        ({"topology": "base-2", "weights": "lazy"}, "--weights: --topology has its own"),
        ({"topology": "base-2", "algorithm": "fedavg"}, "--topology: fedavg has none"),
        ({"topology": "base-2", "turns": "sequential"}, "--topology: not for agents that train"),
        ({"topology": "base-2", "matcha_budget": 0.5}, "--matcha-budget: base-2 changes by itself"),
        ({"topology": "epidemic", "peers_per_step": 8}, "--peers-per-step: 8 are more than the 7"),
        ({"topology": "ring", "peers_per_step": 2}, "--peers-per-step: topology ring has none"),
        ({"topology": "one-peer-hypercube", "agents": 6}, "--topology: .* power of two"),
        ({"topology": "ring", "matcha_budget": 1.5}, r"--matcha-budget: 1.5 is not in \(0, 1\]"),
        ({"mix_fraction": 0.5, "mixer": "clipped"}, "--mix-fraction: not with --mixer clipped"),
    ],
)
def test_what_does_not_fit_names_the_option(given, message):
    with pytest.raises(UsageError, match=message):
        job.check(options(**given))


def test_the_picture_of_classes_has_a_disc_per_agent_and_class_it_holds():
    counts = np.array([[3, 0], [1, 2]])
    (axes,) = plots.class_counts(counts, "title").axes
    np.testing.assert_array_equal(axes.collections[0].get_offsets(), [[0, 0], [1, 0], [1, 1]])
    areas = axes.collections[0].get_sizes()
    np.testing.assert_allclose(areas / areas[0], [1, 1 / 3, 2 / 3])
