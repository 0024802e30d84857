"""One row per algorithm: what follows from the rows."""

from pathlib import Path

import jax
import numpy as np
import pytest

import cdjax
from cdjax import mixing, topology
from experiments.run.algorithm import ALGORITHMS, Setting, algorithm_table, messages_per_step

DOCS = Path(__file__).parents[2] / "docs" / "algorithms.md"


def setting(**changes):
    graph = topology.ring(5)
    base = Setting(
        topology=graph,
        mix=mixing.auto(graph),
        learning_rate=0.1,
        sizes=np.full(5, 40),
        size_weighted=False,
        steps_per_epoch=4,
        num_steps=12,
        key=jax.random.key(0),
    )
    return base._replace(**changes)


def test_the_page_of_the_algorithms_holds_the_table_of_the_rows():
    _, _, rest = DOCS.read_text().partition("<!-- algorithms -->\n")
    found, _, _ = rest.partition("<!-- /algorithms -->")
    assert found.strip() == algorithm_table().strip(), "paste algorithm_table() between the marks"


@pytest.mark.parametrize(
    ("name", "options", "expected"),
    [
        ("cdsgd", {}, 10),  # two neighbours each
        ("cdmsgd", {}, 10),
        ("centralized", {}, 10),  # up and down
        ("fedavg", {}, 10 / 4),  # an epoch of four steps
        ("fedavg", {"period": 2, "client_fraction": 0.4}, (2 + 5) / 2),
        ("easgd", {}, 10 / 10),
        ("downpour", {"period": 5}, 10 / 5),
        ("gossip-push", {"period": 2}, 5 / 2),
        ("gossip-pair", {}, 4),  # a ring of five always has two disjoint pairs that talk
        ("gosgd", {}, 0.5),
    ],
)
def test_messages_per_step(name, options, expected):
    row = ALGORITHMS[name]
    found = messages_per_step(row, setting(), {**row.options, **options})
    assert found == pytest.approx(expected)
    alone = setting(topology=topology.ring(1))
    assert messages_per_step(row, alone, {**row.options, **options}) == 0


@pytest.mark.parametrize("name", ALGORITHMS)
def test_every_row_builds_an_optimizer_of_stacked_parameters(name):
    row = ALGORITHMS[name]
    params = cdjax.replicate({"w": np.ones(3)}, 5)
    tx = row.build(setting(mix=setting().mix if row.over_topology else None), **row.options)
    updates, _ = tx.update(params, tx.init(params), params)
    assert jax.tree.map(np.shape, updates) == {"w": (5, 3)}
    assert (row.server == "stateful") == hasattr_server(tx.init(params))


def hasattr_server(state):
    try:
        cdjax.server_params(state)
    except ValueError:
        return False
    return True
