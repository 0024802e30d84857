"""Agents whose loss or parameters are not finite: the run stops, or goes on without them."""

import json
import re
from types import SimpleNamespace

import numpy as np
import pytest

from experiments.run.config import Run, replaced
from experiments.run.dispatch import Divergence, find_divergence
from experiments.run.drop import without_diverged
from experiments.run.job import prepare
from experiments.run.progress import beginning
from experiments.run.resume import without_dropped
from tests.slow import slow
from tests.system.forked import arrays_of, only_folder, records_of

OPTIONS = ("--epochs", 3, "--checkpoint-every", 1)
KERNEL = "['params']['Dense_0']['kernel']"


def run_sick(server, step, *options, agent=2):
    server.start(*OPTIONS, *options, sick=[agent, step])
    return server.finish()


@pytest.mark.parametrize(
    ("step", "log_every"),
    [(13, 10), *slow((1, 1), (1, 10), (20, 10), (20, 3))],
)
@pytest.mark.slow
def test_a_run_stops_and_names_agent_and_step(step, log_every, server, tmp_path):
    code, _, errors = run_sick(server, step, "--log-every", log_every, "--out", tmp_path)
    assert code == 1
    (line,) = errors.splitlines()
    assert line.startswith(f"error: agent 2 diverged in step {step}: the loss is not finite; ")


@pytest.mark.slow
def test_records_up_to_there_are_kept_and_the_last_good_checkpoint_is_named(server, tmp_path):
    server.run(*OPTIONS, "--out", tmp_path / "whole")
    _, _, errors = run_sick(server, 25, "--out", tmp_path / "sick")
    folder = only_folder(tmp_path / "sick")
    assert errors.endswith(f"the last good checkpoint is {folder / 'checkpoints' / '20'}\n")
    assert records_of(folder) == records_of(only_folder(tmp_path / "whole"))[:2]


@pytest.mark.slow
def test_a_step_size_that_blows_up_names_every_agent(server, tmp_path):
    server.start("--learning-rate", 1e38, "--epochs", 1, "--out", tmp_path)
    code, _, errors = server.finish()
    assert code == 1
    assert re.fullmatch(
        r"error: agents 0, 1, 2, 3 diverged in step \d: .*; there is no checkpoint\n", errors
    )


@pytest.mark.slow
def test_ignored_it_goes_on_to_the_end(server, tmp_path):
    assert run_sick(server, 5, "--on-nan", "ignore", "--out", tmp_path)[0] == 0
    records = records_of(only_folder(tmp_path))
    assert len(records) == 3 and records[-1]["train_loss_mean"] is None


@pytest.mark.slow
def test_dropped_in_the_first_step_it_is_the_run_without_the_agent(server, tmp_path):
    code, output, _ = run_sick(server, 1, "--on-nan", "drop", "--out", tmp_path / "dropped")
    assert code == 0
    line = "agent 2 diverged in step 1: the loss is not finite; the run goes on without"
    assert line in output.splitlines()
    server.run(*OPTIONS, "--without-agents", 2, "--out", tmp_path / "without")
    dropped, without = (only_folder(tmp_path / name) for name in ("dropped", "without"))
    assert records_of(dropped) == records_of(without)
    assert arrays_of(dropped, 30) == arrays_of(without, 30)


def test_agents_are_dropped_by_name_and_from_what_the_run_holds(tmp_path):
    file = tmp_path / "square.edges"
    file.write_text("ada bob\nbob cy\ncy dee\ndee ada\n")
    run = replaced(
        Run(), dataset="digits", model="softmax", topology=str(file), on_nan="drop", epochs=2,
        feature_skew="rotation", without_agents=("dee",), checkpoint_every=1,
    )  # fmt: skip
    job = prepare(run)
    whole, start = job.problem, beginning(job)
    file.unlink()
    ill = Divergence(3, np.array([2]), "loss")
    job, progress, line = without_diverged(job, job.state, progress=start, divergence=ill)
    assert line == "agent cy diverged in step 3: the loss is not finite; the run goes on without"
    assert progress.dropped == ["cy"]
    assert job.run.trouble.without_agents == ("cy", "dee")
    assert job.network.names([0, 1]) == ["ada", "bob"]
    assert job.problem.dataset is whole.dataset
    for part, of_whole in zip(job.problem.parts, whole.parts, strict=False):
        np.testing.assert_array_equal(part, of_whole)
    np.testing.assert_allclose(job.network.topology.mixing_matrix, [[2 / 3, 1 / 3], [1 / 3, 2 / 3]])

    resumed = SimpleNamespace(notes={"progress": {"dropped": progress.dropped}})
    assert without_dropped(run, resumed).trouble == job.run.trouble


@pytest.mark.slow
def test_a_drop_does_not_depend_on_how_the_run_is_cut_into_dispatches(server, tmp_path):
    for log_every in (1, 10):
        out = tmp_path / str(log_every)
        run_sick(server, 14, "--on-nan", "drop", "--log-every", log_every, "--out", out)
    one, ten = (only_folder(tmp_path / name) for name in ("1", "10"))
    assert records_of(one) == records_of(ten)
    assert arrays_of(one, 30) == arrays_of(ten, 30)


@pytest.mark.slow
def test_the_others_mix_on_from_where_they_stood_with_the_weights_given_back(server, tmp_path):
    options = "--algorithm cdsgd --learning-rate 0 --init independent --on-nan drop".split()
    run_sick(server, 16, *options, "--out", tmp_path)
    before, after = (
        np.frombuffer(arrays_of(only_folder(tmp_path), step)[KERNEL][1], np.float32)
        for step in (10, 20)
    )
    ring = np.array([[1, 1, 0, 1], [1, 1, 1, 0], [0, 1, 1, 1], [1, 0, 1, 1]]) / 3
    rest = np.array([[1, 1, 1], [1, 2, 0], [1, 0, 2]]) / 3  # agents 0, 1, 3
    mixed = np.linalg.matrix_power(ring, 5) @ before.reshape(4, -1)
    expected = np.linalg.matrix_power(rest, 5) @ mixed[[0, 1, 3]]
    np.testing.assert_allclose(after.reshape(3, -1), expected, rtol=1e-4, atol=1e-6)


@pytest.mark.slow
def test_a_run_that_has_dropped_an_agent_resumes_to_the_same_end(server, tmp_path):
    drop = ("--on-nan", "drop")
    run_sick(server, 8, *drop, "--out", tmp_path / "whole")
    run_sick(server, 8, *drop, "--epochs", 2, "--out", tmp_path / "half")
    whole, half = (only_folder(tmp_path / name) for name in ("whole", "half"))
    server.run(*OPTIONS, *drop, "--resume", half)
    assert records_of(half) == records_of(whole)
    assert arrays_of(half, 30) == arrays_of(whole, 30)
    # So that the options of either repeat the run, which began with all agents.
    for folder in (whole, half):
        assert json.loads((folder / "config.json").read_text())["without_agents"] == []


@pytest.mark.slow
def test_fewer_agents_send_less_from_the_drop_on(server, tmp_path):
    run_sick(server, 4, "--on-nan", "drop", "--out", tmp_path)
    message = 4 * (3072 * 10 + 10)
    # A ring of 4 has 8 messages per step, the path that is left 4.
    assert [record["bytes_sent"] for record in records_of(only_folder(tmp_path))] == [
        message * (3 * 8 + (step - 3) * 4) for step in (10, 20, 30)
    ]


@pytest.mark.slow
def test_a_graph_that_falls_apart_stops_the_run(server, tmp_path):
    options = ("--topology", "path", "--on-nan", "drop", "--out", tmp_path)
    code, _, errors = run_sick(server, 1, *options)
    assert code == 1
    assert "agent 2 diverged in step 1" in errors
    assert "without agents [2] the graph falls apart into {0, 1}, {3}" in errors


def test_the_first_bad_loss_counts_and_parameters_where_no_loss_is_bad():
    good, finite = np.ones((3, 4)), np.ones(4, bool)
    losses = good.copy()
    losses[1, [0, 3]] = np.inf, np.nan
    losses[2] = np.nan
    found = find_divergence(losses, finite, 10)
    assert (found.step, found.agents.tolist(), found.what) == (12, [0, 3], "loss")
    found = find_divergence(good, np.array([True, False, True, True]), 10)
    assert (found.step, found.agents.tolist(), found.what) == (13, [1], "parameters")
    assert find_divergence(good, finite, 10) is None
