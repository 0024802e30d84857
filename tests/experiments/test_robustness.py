"""Faults and attacks as options of the programs, and the comparison of mixers under attack."""

import re
import sys

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from cdjax import data, mixing, sharding, topology
from experiments.digits import Digits
from experiments.launch.cli import main
from experiments.robustness.config import Robustness
from experiments.robustness.study import compare
from experiments.run import algorithm as _algorithms
from experiments.run import runner as _run
from experiments.run import trouble as _faults
from experiments.run.config import RunConfig
from experiments.run.setup import prepare
from tests.system.forked import arrays_of, only_folder, records_of, start_server

server = pytest.fixture(scope="module")(start_server)
SMALL = {
    "dataset": "digits", "model": "softmax", "train_samples": 160, "test_samples": 60,
    "batch_size": 8, "epochs": 1,
}  # fmt: skip


def last_record(folder, **options):
    record = _run.run(RunConfig(**SMALL | options), folder=folder, quiet=True)[-1]
    return {name: value for name, value in record.items() if name != "seconds"}


def mixer_of(**options):
    graph, key = topology.create("complete", 5), jax.random.key(0)
    return _faults.disturbed(RunConfig(**options), graph, key, lambda: mixing.dense(graph))


def test_where_nothing_arrives_all_faults_are_the_same(tmp_path):
    options = {"agents": 4, "topology": "ring", "algorithm": "cdsgd"}
    faults = ("link_failure", "message_loss", "absence")
    cut = [last_record(tmp_path / name, **options, **{name: 1.0}) for name in faults]
    whole = last_record(tmp_path / "whole", **options)
    sent = [record.pop("bytes_sent") for record in (*cut, whole)]
    assert sent[0] == sent[2] == 0 < sent[1] == sent[3]  # what gets lost has been sent
    assert cut[0] == cut[1] == cut[2]
    assert cut[0]["consensus_distance"] > 1.1 * whole["consensus_distance"]


def test_several_faults_fail_more_links_than_one():
    ones = {"w": jnp.eye(5)}
    one, both = ({"link_failure": 0.5}, {"link_failure": 0.5, "message_loss": 0.5})
    lost_by = [
        jnp.mean(jax.vmap(mixer_of(**options), (None, 0))(ones, jnp.arange(200))["w"] == 0)
        for options in (one, both)
    ]
    # Of 25 weights the 20 off the diagonal vanish with their links.
    np.testing.assert_allclose(lost_by, [0.8 * 0.5, 0.8 * 0.75], atol=0.03)


@pytest.mark.parametrize("algorithm", ["cdmsgd", "cdmsgd-polyak", "atc"])
def test_every_algorithm_over_the_topology_may_lag(algorithm, x64):
    run = _algorithms.Run(
        topology.ring(4), sharding.agent_mesh(1), np.ones(4), 1, 9, jax.random.key(0)
    )
    found, expected = jnp.arange(4.0), jnp.arange(4.0)
    late, prompt = (
        _algorithms.transformation(RunConfig(algorithm=algorithm, lag=lag), run) for lag in (1, 0)
    )
    late_state, state = late.init(found), prompt.init(expected)
    for step in range(2):  # what is sent first is the start, at any lag
        updates, late_state = late.update(0 * found, late_state, found)
        found = found + updates
        updates, state = prompt.update(0 * expected, state, expected)
        expected = expected + updates
        assert jnp.allclose(found, expected) == (step == 0)


def test_over_a_link_that_fails_nothing_is_sent_and_a_lost_message_was():
    options = {"link_failure": 0.3, "absence": 0.2}
    weights = jax.vmap(mixer_of(**options), (None, 0))({"w": jnp.eye(5)}, jnp.arange(2000))["w"]
    off_diagonal = np.asarray(weights)[:, ~np.eye(5, dtype=bool)]
    found = _faults.share_sent(RunConfig(**options, message_loss=0.5))
    np.testing.assert_allclose(found, np.mean(off_diagonal != 0), atol=0.01)
    job = prepare(RunConfig(**SMALL, agents=5, **options))
    message = 4 * sum(x.size for x in jax.tree.leaves(job.state.params)) / 5
    assert job.bytes_a_step == pytest.approx(20 * message * found)


def test_lag_is_cdsgd_that_hears_the_past(x64):
    graph, lag, alpha = topology.ring(4), 2, 0.1
    run = _algorithms.Run(graph, sharding.agent_mesh(1), np.ones(4), 1, 9, jax.random.key(0))
    config = RunConfig(algorithm="cdsgd", learning_rate=alpha, lag=lag)
    tx = _algorithms.transformation(config, run)
    target, x = np.arange(4.0), jnp.zeros(4)
    state, past = tx.init(x), [np.zeros(4)]
    own = np.diag(np.diag(graph.mixing_matrix))
    for step in range(9):
        updates, state = tx.update(x - target, state, x)
        x = x + updates
        heard, now = past[max(0, step - lag)], past[-1]
        past.append((graph.mixing_matrix - own) @ heard + own @ now - alpha * (now - target))
    np.testing.assert_allclose(x, past[-1], rtol=1e-12)


@pytest.mark.parametrize(
    ("options", "expected"),
    [
        ({"mixer": "trimmed-mean"}, [3.0] * 5),
        ({"mixer": "trimmed-mean", "num_trimmed": 0}, [22.0] * 5),
        ({"mixer": "median"}, [3.0] * 5),
        ({"mixer": "clipped", "clip_radius": 0.5}, [1.4, 2.2, 3.0, 3.8, 99.6]),
        ({"attack": "sign-flip", "attack_strength": 2.0}, [-38.0] * 4 + [22.0]),
        ({"attack": "alie", "attack_strength": 0.0}, [2.5] * 4 + [22.0]),
        ({"mixer": "median", "attack": "sign-flip"}, [2.0] * 4 + [3.0]),
    ],
)
def test_mixers_and_attacks_are_those_of_their_names(options, expected):
    values = {"w": jnp.array([1.0, 2.0, 3.0, 4.0, 100.0])}
    np.testing.assert_allclose(mixer_of(**options)(values, 0)["w"], expected, rtol=1e-6)


def test_only_honest_agents_are_looked_at():
    config = RunConfig(**SMALL, agents=5, attack="noise", malicious=2, init="independent")
    job = prepare(config)
    kernel = np.asarray(job.state.params["Dense_0"]["kernel"])
    lies = jax.tree.map(lambda x: x.at[3:].set(jnp.nan), job.state.params)
    view = job.view(job.state._replace(params=lies))
    model = view.model["Dense_0"]["kernel"][0]
    np.testing.assert_allclose(model, kernel[:3].mean(axis=0), rtol=1e-5, atol=1e-7)
    train = {name: np.array([1.0, 2.0, 3.0, np.nan, np.nan]) for name in ("loss", "accuracy")}
    record = _run._evaluated(job, job.state._replace(params=lies), train)
    assert record["train_loss_mean"] == record["train_accuracy_mean"] == 2
    assert all(np.isfinite(value) for value in record.values())
    apart = np.sqrt(np.sum(np.square(kernel[:3] - kernel[:3].mean(axis=0))) / 3)
    np.testing.assert_allclose(view.consensus_distance, apart, rtol=1e-5)


@pytest.mark.parametrize(
    ("without", "malicious"), [((), [3, 4]), ((1,), [2, 3]), ((4,), [3]), ((3, 4), [])]
)
def test_malicious_agents_keep_their_numbers_when_others_are_left_out(without, malicious):
    config = RunConfig(attack="alie", malicious=2, without_agents=without)
    assert _faults.malicious_agents(config, 5 - len(without)) == malicious


def test_a_line_says_what_is_wrong_with_the_network():
    config = RunConfig(link_failure=0.2, attack="alie", malicious=2, without_agents=(1,))
    line = "links fail with probability 0.2; alie of strength 1.5 by malicious agents 3, 4"
    assert _faults.trouble_line(config, 4) == line
    assert _faults.mixing_line(config) == "over the links that a step has"
    assert _faults.mixing_line(RunConfig(mixer="clipped")) == "clipped gossip, radius 1"
    assert _faults.trouble_line(RunConfig(), 4) == _faults.mixing_line(RunConfig()) == ""


@pytest.mark.parametrize(
    "options",
    [
        "--link-failure 0.3 --message-loss 0.1 --absence 0.2 --attack noise --malicious 2",
        "--mixer median --attack sign-flip --malicious 3 --algorithm atc",
        "--mixer clipped --clip-radius 0.1 --attack alie --link-failure 0.2",
        "--lag 2 --algorithm cdsgd",
    ],
)
def test_on_several_devices_it_is_the_same_run(options, server, tmp_path):
    words = [*options.split(), "--agents", 8, "--train-samples", 640, "--epochs", 2]
    for devices in (1, 4):
        out = tmp_path / str(devices)
        output = server.run(*words, "--devices", devices, "--out", out, devices=4)
        assert f"{devices} × cpu" in output
    one, four = (records_of(only_folder(tmp_path / name)) for name in ("1", "4"))
    for record, expected in zip(four, one, strict=True):
        assert record.pop("dataset") == expected.pop("dataset")
        assert record == pytest.approx(expected, rel=1e-4)


def test_a_run_with_faults_under_attack_resumes_bit_by_bit(server, tmp_path):
    options = "--algorithm cdsgd --link-failure 0.3 --absence 0.2 --attack noise".split()
    options += ["--checkpoint-every", 1]
    server.run(*options, "--epochs", 1, "--out", tmp_path / "half")
    server.run(*options, "--epochs", 2, "--resume", only_folder(tmp_path / "half"))
    server.run(*options, "--epochs", 2, "--out", tmp_path / "whole")
    half, whole = (only_folder(tmp_path / name) for name in ("half", "whole"))
    assert records_of(half) == records_of(whole)
    assert arrays_of(half, 20) == arrays_of(whole, 20)


def test_the_comparison_tells_who_withstands_and_runs_nothing_twice(tmp_path, capsys, monkeypatch):
    config = Robustness(
        **SMALL | {"train_samples": 800, "epochs": 3}, agents=5, malicious=1, learning_rate=0.01,
        mixers=("auto", "median"), attacks=("none", "sign-flip"), faults=("link-failure",),
        seeds=1, out=tmp_path,
    )  # fmt: skip
    by_attack, by_fault = compare(config)
    monkeypatch.setattr("experiments._records.run", lambda *args, **kw: pytest.fail("runs again"))
    assert compare(config) == (by_attack, by_fault)
    accuracy = {row: {attack: runs[0][-1]["test_accuracy_mean"] for attack, runs in cells.items()}
                for row, cells in by_attack.items()}  # fmt: skip
    assert accuracy["weighted mean"]["sign-flip"] < 0.5 < accuracy["median"]["sign-flip"]
    assert [*by_fault] == ["no fault", "link-failure 0.2"]
    table = (tmp_path / "table.md").read_text()
    assert f"{100 * accuracy['median']['none']:.2f} ± 0.00" in table
    assert (tmp_path / "robustness.png").read_bytes().startswith(b"\x89PNG")


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ("--link-failure 1.1", "--link-failure: 1.1 is no probability; give 0 to 1"),
        ("--message-loss nan", "--message-loss: nan is no probability"),
        ("--absence -1", "--absence: -1.0 is no probability"),
        ("--absence-duration 0", "--absence-duration: 0 is too few; give at least 1"),
        ("--lag -1 --algorithm cdsgd", "--lag: -1 is too few; give at least 0"),
        ("--lag 2 --algorithm cdsgd --attack alie", "--lag: not together with --attack"),
        ("--lag 2 --algorithm cdsgd --mixer median", "--lag: only with --mixer auto, not with"),
        ("--link-failure 0.1 --algorithm fedavg", "--link-failure: only for cdmsgd, .* fedavg"),
        ("--mixer median --algorithm gosgd", "--mixer: only for cdmsgd, .*, not for gosgd"),
        ("--attack alie --algorithm easgd", "--attack: only for cdmsgd, .*, not for easgd"),
        ("--attack alie --schedule sequential", "--attack: not for agents that train in turn"),
        ("--mixer mean", "--mixer: unknown choice 'mean'; expected auto, trimmed-mean"),
        ("--mixer trimmed-mean --topology ring --num-trimmed 2", "--num-trimmed: .* at most 1"),
        ("--num-trimmed -1", "--num-trimmed: -1 is too few"),
        ("--mixer clipped --clip-radius -1", "--clip-radius: radius is -1"),
        ("--attack lies", "--attack: unknown choice 'lies'; expected none, sign-flip"),
        ("--attack alie --malicious 0", "--malicious: 0 is too few; give at least 1"),
        ("--attack alie --malicious 5", "--malicious: 5 leave nobody honest of the 5 agents"),
        ("--malicious 2", "--malicious: nobody attacks; give --attack too"),
        ("--attack-strength 2", "--attack-strength: nobody attacks"),
        ("--attack noise --attack-strength -1", "--attack-strength: deviation is -1"),
    ],
)
def test_what_does_not_go_together_is_one_line_that_names_the_option(
    options, message, monkeypatch, capsys, tmp_path
):
    # JAX has long started here, and can no longer look for other processes.
    monkeypatch.setattr("experiments._processes.join", lambda config: None)
    if "--devices" not in options:
        monkeypatch.setattr(data, "load", lambda *args: pytest.fail(f"loads data {args}"))
    monkeypatch.setattr(sys, "argv", ["digits", *options.split(), "--out", str(tmp_path / "runs")])
    with pytest.raises(SystemExit) as stop:
        main(Digits, prepare)
    out, err = capsys.readouterr()
    assert stop.value.code == 2 and not out and len(err.splitlines()) == 1
    assert re.search(f"error: {message}", err), err


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"mixers": ("best",)}, "--mixers: unknown .'best'.; expected of auto"),
        ({"attacks": ()}, "--mixers, --attacks: one or more"),
        ({"faults": ("fire",)}, "--faults: unknown .'fire'."),
        ({"mixer": "median"}, "--mixer: many are compared here; give --mixers"),
        ({"algorithm": "easgd"}, "--attack: only for cdmsgd, cdmsgd-polyak, cdsgd, atc"),
        ({"fault_topology": "rng"}, "--topology: 'rng' is neither"),
        ({"seeds": 0}, "--seeds: give at least 1"),
    ],
)
def test_a_comparison_that_cannot_be_runs_nothing(options, message, tmp_path):
    with pytest.raises(ValueError, match=message):
        compare(Robustness(**options, out=tmp_path / "runs"))
    assert not (tmp_path / "runs").exists()


def test_every_disturbance_is_known_as_one():
    assert not _faults.is_disturbed(RunConfig(num_trimmed=3, clip_radius=2.0, absence_duration=9))
    for options in ({"lag": 1}, {"absence": 0.1}, {"mixer": "median"}, {"attack": "noise"}):
        assert _faults.is_disturbed(RunConfig(**options))
