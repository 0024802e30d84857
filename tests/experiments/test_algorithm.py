"""One row per algorithm: what follows from the rows."""

import re
import shutil
import subprocess
import sys
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import cdjax
from cdjax import mixing, topology
from experiments.run.algorithm import (
    ALGORITHMS,
    FAMILIES,
    algorithm_table,
    bytes_of_message,
    messages_per_step,
)
from experiments.run.algorithms.row import Setting
from experiments.run.config import Run, replaced
from experiments.run.errors import UsageError
from experiments.run.job import prepare

ROOT = Path(__file__).parents[2]
DOCS = ROOT / "docs" / "algorithms.md"


def setting(**changes):
    graph = topology.ring(5)
    base = Setting(
        topology=graph,
        mix=mixing.auto(graph),
        alpha=0.1,
        sizes=np.full(5, 40),
        own_steps=np.full(5, 4),
        size_weighted=False,
        num_steps=12,
        key=jax.random.key(0),
    )
    return base._replace(**changes)


def test_no_name_stands_for_two_algorithms():
    assert len(ALGORITHMS) == sum(map(len, FAMILIES))


def test_the_page_of_the_algorithms_holds_the_table_of_the_rows():
    _, _, rest = DOCS.read_text().partition("<!-- algorithms -->\n")
    found, _, _ = rest.partition("<!-- /algorithms -->")
    assert found.strip() == algorithm_table().strip(), "paste algorithm_table() between the marks"


@pytest.mark.parametrize(
    ("name", "options", "expected"),
    [
        ("cdsgd", {}, 10),  # two neighbours each
        ("cdmsgd", {}, 10),
        ("icdsgd", {"rounds": 3}, 30),
        ("cga", {}, 20),  # models there and gradients back
        ("gradient-tracking", {}, 20),  # parameters and estimates
        ("momentum-tracking", {}, 20),
        ("exact-diffusion", {}, 10),
        ("quasi-global", {}, 10),
        ("choco", {}, 10),
        ("beer", {}, 2 * 10),  # parameters and tracker
        ("power-gossip", {}, 10),
        ("demo", {}, 5 * 4),  # everybody to everybody
        ("sparse-loco", {"period": 10}, 5 * 4 / 10),
        ("centralized", {}, 10),  # up and down
        ("fedavg", {}, 10 / 4),  # an epoch of four steps
        ("fedavg", {"period": 2, "client_fraction": 0.4}, 2 * 2 / 2),  # the two that are drawn
        ("easgd", {}, 10 / 10),
        ("downpour", {"period": 5}, 10 / 5),
        ("gossip-push", {"period": 2}, 5 / 2),
        ("gossip-pair", {}, 4),  # a ring of five always has two disjoint pairs that talk
        ("gosgd", {}, 0.5),
        ("diloco", {"period": 5, "fragments": 5}, 10 / 5),  # all fragments once per round
        ("outer", {"period": 5}, 10 / 5),
        ("factored", {"period": 5}, 2 * 10 / 5),  # before and after the outer step
        ("noloco", {"period": 2}, 4 / 2),
        ("kgt", {"period": 5}, 2 * 10 / 5),  # parameters and gradients
        ("led", {"period": 5}, 10 / 5),
        ("push-sum", {}, 10),
        ("push-diging", {}, 20),
        ("relay", {}, 8),  # both ways on the four edges of a tree
    ],
)
def test_messages_per_step(name, options, expected):
    row = ALGORITHMS[name]
    found = messages_per_step(row, setting(), {**row.options, **options})
    assert found == pytest.approx(expected)
    alone = setting(topology=topology.ring(1))
    assert messages_per_step(row, alone, {**row.options, **options}) == 0


@pytest.mark.parametrize(
    ("options", "messages_per_epoch"),
    [
        # Five agents on a complete graph, each heard by its four neighbours.
        ({"algorithm": "cdsgd", "turns": "sequential"}, 20),  # once in its neighbours' turns
        ({"algorithm": "cdsgd"}, 17 * 20),  # in every step
        # Ten of a hundred clients, there and back.
        ({"algorithm": "fedavg", "agents": 100, "batch_size": 2, "client_fraction": 0.1}, 20),
    ],
)
@pytest.mark.sampled(3)
def test_messages_are_counted_that_are_sent(options, messages_per_epoch):
    job = prepare(replaced(Run(), dataset="digits", model="softmax", **options))
    sent = job.bytes_per_step * job.problem.steps_per_epoch
    assert sent == pytest.approx(messages_per_epoch * 4 * 30_730)


@pytest.mark.parametrize(
    ("options", "message_bytes"),
    [
        # A matrix of 64 × 10 and ten biases per agent, in float32.
        ({"compressor": "sign"}, 80 + 4 + 2 + 4),
        ({"compressor": "int8"}, 640 + 4 + 10 + 4),
        ({"compressor": "int4"}, 320 + 4 + 5 + 4),
        # 64 values and indices of 10 bits; one value and an index of 4.
        ({}, 64 * 4 + 80 + 4 + 1),
        ({"compressor": "random-k", "fraction": 0.5}, 320 * 4 + 8 + 5 * 4 + 8),
    ],
)
@pytest.mark.parametrize(("name", "messages"), [("choco", 1), ("beer", 2)])
def test_messages_that_are_compressed_count_as_many_bytes_as_they_have(
    name, messages, options, message_bytes
):
    row, params = ALGORITHMS[name], {"w": jnp.zeros((5, 64, 10)), "b": jnp.zeros((5, 10))}
    options = row.options | options
    assert bytes_of_message(row, setting(), options, params) == message_bytes
    assert messages_per_step(row, setting(), options) == 10 * messages


@pytest.mark.parametrize(
    ("name", "options", "message_bytes"),
    [
        # A matrix of 64 × 10, its 64 or 10 numbers in turn, and ten biases whole.
        ("power-gossip", {}, 4 * (64 + 10) / 2 + 4 * 10),
        ("power-gossip", {"rank": 4}, 4 * 4 * (64 + 10) / 2 + 4 * 10),
        ("power-gossip", {"rank": 9}, 4 * (640 + 10)),  # the factors are not smaller
        # Chunks of 64 × 10 and of 10 entries, with indices of 10 and of 4 bits.
        ("demo", {}, 32 * 4 + 40 + 10 * 4),
        ("demo", {"kept": 5}, 5 * 4 + 7 + 5 * 4 + 3),
        # Two bits a value, and four means for each leaf.
        ("sparse-loco", {}, 64 * 10 // 8 + 16 + 16 + (5 + 3 + 16)),
    ],
)
def test_messages_of_factors_and_of_chunks_count_as_many_bytes_as_they_have(
    name, options, message_bytes
):
    row, params = ALGORITHMS[name], {"w": jnp.zeros((5, 64, 10)), "b": jnp.zeros((5, 10))}
    assert bytes_of_message(row, setting(), row.options | options, params) == message_bytes


def test_a_run_counts_the_bytes_of_its_compressed_messages():
    options = {"algorithm": "choco", "compressor": "int8", "topology": "ring", "model": "softmax"}
    job = prepare(replaced(Run(), dataset="digits", **options))
    parameters = sum(x[0].size for x in jax.tree.leaves(job.state.params))
    leaves = len(jax.tree.leaves(job.state.params))
    assert job.bytes_per_step == 10 * (parameters + 4 * leaves)


@pytest.mark.slow
def test_an_epoch_of_fedavg_is_a_pass_of_every_client_over_its_own_samples():
    unequal = {"partition": "dirichlet", "dirichlet_alpha": 0.5, "agents": 3, "model": "softmax"}
    job = prepare(replaced(Run(), dataset="digits", algorithm="fedavg", **unequal))
    own_steps = job.problem.sizes // 16
    assert len({*own_steps}) == 3 and job.problem.steps_per_epoch == own_steps.max()
    params, state = job.state.params, job.state.opt_state
    tx = ALGORITHMS["fedavg"].build(job.setting)
    moved = np.zeros(3, int)
    for _ in range(own_steps.max() - 1):  # the last step averages
        updates, state = tx.update(jax.tree.map(jnp.ones_like, params), state, params)
        moved += [bool(x.any()) for x in jax.tree.leaves(updates)[0]]
    np.testing.assert_array_equal(moved, np.minimum(own_steps, own_steps.max() - 1))


@pytest.mark.parametrize("name", [name for name, row in ALGORITHMS.items() if not row.has_events])
@pytest.mark.sampled(6)
def test_every_row_builds_an_optimizer_of_stacked_parameters(name):
    row = ALGORITHMS[name]
    params = cdjax.replicate({"w": np.ones(3)}, 5)
    tx = row.build(setting(mix=setting().mix if row.over_topology else None), **row.options)
    more = {}
    if row.crosses:
        cross = cdjax.cross_gradients(lambda params: params, setting().topology)
        more["cross_gradients"] = cross(params)
    updates, _ = tx.update(params, tx.init(params), params, **more)
    assert jax.tree.map(np.shape, updates) == {"w": (5, 3)}
    assert (row.server == "stateful") == hasattr_server(tx.init(params))


def hasattr_server(state):
    try:
        cdjax.server_params(state)
    except ValueError:
        return False
    return True


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"outer_learning_rate": 1.5}, "--outer-learning-rate: learning_rate is 1.5; with"),
        ({"period": 10, "fragments": 3}, "--fragments: period is 10, no multiple of 3 fragments"),
        ({"fragments": 2, "delay": 5}, "--delay: delay is 5; a fragment is sent every 5 steps"),
        ({"period": 3, "fragments": 3}, "--algorithm: fragments is 3, but the parameters have 2"),
        ({"lag": 1}, "--lag: outer has none; leave it out, or give --algorithm cdmsgd or"),
        ({"turns": "sequential"}, "--turns: outer has none"),
    ],
)  # fmt: skip
def test_rounds_that_cannot_be_are_refused(options, message):
    run = replaced(Run(), dataset="digits", model="softmax", algorithm="outer", **options)
    with pytest.raises(UsageError, match=message):
        prepare(run)


@pytest.mark.slow
def test_an_algorithm_is_added_in_the_three_places_that_contributing_shows(tmp_path):
    for part in ("cdjax", "experiments", "tests", "CONTRIBUTING.md", "pyproject.toml"):
        copy = shutil.copytree if (ROOT / part).is_dir() else shutil.copy
        copy(ROOT / part, tmp_path / part)
    text = (ROOT / "CONTRIBUTING.md").read_text()
    diff = "".join(re.findall(r"^```diff\n(.*?)^```", text, re.DOTALL | re.MULTILINE))
    subprocess.run(["git", "apply"], input=diff, text=True, cwd=tmp_path, check=True)

    def python(*words):
        command = [sys.executable, "-m", *words]
        return subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, timeout=600)

    options = "--model softmax --train-samples 80 --batch-size 8 --epochs 1 --out runs".split()
    run = python("experiments.digits", "--algorithm", "local-sgd", "--period", "2", *options)
    assert run.returncode == 0, run.stderr
    # Five agents on a complete graph, 20 messages of 123 kB in every second step.
    assert "local-sgd on digits" in run.stdout and "1.2 MB per step by all" in run.stdout
    refused = python("experiments.digits", "--algorithm", "local-sgd", "--momentum", "0.9")
    assert "--momentum: local-sgd has none" in refused.stderr
    rows = python("pytest", "-n", "0", "-q", "tests/test_transforms_common.py", "-k", "local-sgd")
    assert rows.returncode == 0 and " passed" in rows.stdout, rows.stdout
