"""Faults, attacks and robust mixers as options of a run."""

import re
import sys

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from cdjax import data, sharding, topology
from experiments.launch.cli import main
from experiments.run import display, network
from experiments.run.algorithm import ALGORITHMS, transformation
from experiments.run.algorithms.row import Setting
from experiments.run.checks import disturbances
from experiments.run.config import Run, option_values, replaced
from experiments.run.errors import UsageError
from experiments.run.evaluate import _of_agents
from experiments.run.job import prepare
from experiments.run.runner import run
from tests.system.forked import arrays_of, only_folder, records_of

pytestmark = pytest.mark.sampled(2)

SMALL = replaced(
    Run(), dataset="digits", model="softmax", train_samples=160, test_samples=60, batch_size=8,
    epochs=1,
)  # fmt: skip


def last_record(folder, **options):
    record = run(replaced(SMALL, **options), folder=folder, quiet=True)[-1]
    return {name: value for name, value in record.items() if name != "seconds"}


def mixer_of(**options):
    options = replaced(Run(), topology="complete", agents=5, **options)
    net = network.build(options.network, options.trouble)
    key, mesh = jax.random.key(0), sharding.agent_mesh(1)
    return network.build_mixer(net, mesh, trouble=options.trouble, key=key)


def transformation_of(graph, *, lag=0, **options):
    """The algorithm over a graph, built as a run does."""
    part = replaced(Run(), **options).algorithm
    row, mesh = ALGORITHMS[part.algorithm], sharding.agent_mesh(1)
    net = network.Network(graph, np.arange(graph.num_agents), graph, [])
    mix = network.build_mixer(net, mesh, trouble=Run().trouble, key=jax.random.key(0))
    sizes = np.ones(graph.num_agents)
    setting = Setting(graph, mix, part.learning_rate, sizes, False, 1, 9, jax.random.key(0))
    return transformation(row, setting, options=option_values(row.options, part), lag=lag)


@pytest.mark.slow
def test_where_nothing_arrives_all_faults_are_the_same(tmp_path):
    options = {"agents": 4, "topology": "ring", "algorithm": "cdsgd"}
    faults = ("link_failure", "message_loss", "absence")
    cut = [last_record(tmp_path / name, **options, **{name: 1.0}) for name in faults]
    whole = last_record(tmp_path / "whole", **options)
    sent = [record.pop("bytes_sent") for record in (*cut, whole)]
    assert sent[0] == sent[2] == 0 < sent[1] == sent[3]  # what gets lost has been sent
    assert cut[0] == cut[1] == cut[2]
    assert cut[0]["consensus_distance"] > 1.1 * whole["consensus_distance"]


@pytest.mark.slow
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
@pytest.mark.sampled(3)
def test_every_algorithm_over_the_topology_may_lag(algorithm, x64):
    found, expected = jnp.arange(4.0), jnp.arange(4.0)
    graph = topology.ring(4)
    late, prompt = (transformation_of(graph, algorithm=algorithm, lag=lag) for lag in (1, 0))
    late_state, state = late.init(found), prompt.init(expected)
    for step in range(2):  # what is sent first is the start, at any lag
        updates, late_state = late.update(0 * found, late_state, found)
        found = found + updates
        updates, state = prompt.update(0 * expected, state, expected)
        expected = expected + updates
        assert jnp.allclose(found, expected) == (step == 0)


@pytest.mark.slow
def test_over_a_link_that_fails_nothing_is_sent_and_a_lost_message_was():
    options = {"link_failure": 0.3, "absence": 0.2}
    weights = jax.vmap(mixer_of(**options), (None, 0))({"w": jnp.eye(5)}, jnp.arange(2000))["w"]
    off_diagonal = np.asarray(weights)[:, ~np.eye(5, dtype=bool)]
    found = network.share_sent(replaced(Run(), **options, message_loss=0.5).trouble)
    np.testing.assert_allclose(found, np.mean(off_diagonal != 0), atol=0.01)
    job = prepare(replaced(SMALL, agents=5, **options))
    message = 4 * sum(x.size for x in jax.tree.leaves(job.state.params)) / 5
    assert job.bytes_per_step == pytest.approx(20 * message * found)


def test_lag_is_cdsgd_that_hears_the_past(x64):
    graph, lag, alpha = topology.ring(4), 2, 0.1
    tx = transformation_of(graph, algorithm="cdsgd", learning_rate=alpha, lag=lag)
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
@pytest.mark.sampled(4)
def test_mixers_and_attacks_are_those_of_their_names(options, expected):
    values = {"w": jnp.array([1.0, 2.0, 3.0, 4.0, 100.0])}
    np.testing.assert_allclose(mixer_of(**options)(values, 0)["w"], expected, rtol=1e-6)


def test_only_honest_agents_are_looked_at():
    options = {"agents": 5, "attack": "noise", "malicious": 2, "init": "independent"}
    job = prepare(replaced(SMALL, **options))
    kernel = np.asarray(job.state.params["Dense_0"]["kernel"])
    lies = jax.tree.map(lambda x: x.at[3:].set(jnp.nan), job.state.params)
    view = job.programs.view(job.state._replace(params=lies))
    model = view.model["Dense_0"]["kernel"][0]
    np.testing.assert_allclose(model, kernel[:3].mean(axis=0), rtol=1e-5, atol=1e-7)
    train = {name: np.array([1.0, 2.0, 3.0, np.nan, np.nan]) for name in ("loss", "accuracy")}
    record, test = _of_agents(job, job.state._replace(params=lies), train, steps=1)
    assert test["accuracy"].shape == test["loss"].shape == (3,)
    assert record["train_loss_mean"] == record["train_accuracy_mean"] == 2
    assert all(np.isfinite(value) for value in record.values())
    apart = np.sqrt(np.sum(np.square(kernel[:3] - kernel[:3].mean(axis=0))) / 3)
    np.testing.assert_allclose(view.consensus_distance, apart, rtol=1e-5)


@pytest.mark.parametrize(
    ("without", "malicious"), [((), [3, 4]), ((1,), [2, 3]), ((4,), [3]), ((3, 4), [])]
)
def test_malicious_agents_keep_their_numbers_when_others_are_left_out(without, malicious):
    options = replaced(Run(), attack="alie", malicious=2, without_agents=without)
    net = network.build(options.network, options.trouble)
    assert net.malicious == malicious
    assert net.numbers.tolist() == [agent for agent in range(5) if agent not in without]
    assert sorted([*net.honest, *net.malicious]) == [*range(5 - len(without))]


@pytest.fixture
def named(tmp_path):
    """A square of agents with names, in a file."""
    file = tmp_path / "square.edges"
    file.write_text("ada bob\nbob cy\ncy dee\ndee ada\n")
    return replaced(SMALL, topology=str(file), agents=None)


@pytest.mark.parametrize("without", ["bob", 1])
def test_agents_of_a_file_are_known_by_its_names_and_by_their_numbers(without, named):
    run = replaced(named, attack="noise", malicious=2, without_agents=(without,))
    net = network.build(run.network, run.trouble)
    assert net.numbers.tolist() == [0, 2, 3] and net.malicious == [1, 2]
    assert net.names([0, 1]) == ["ada", "cy"]
    assert display._trouble(run.trouble, net) == "noise of strength 1 by malicious agents cy, dee"
    assert net.topology.name == "square.edges without [bob]"


def test_a_name_that_is_a_number_is_a_name(tmp_path):
    file = tmp_path / "path.gml"
    file.write_text(
        "graph [ node [ id 3 ] node [ id 1 ] node [ id 2 ] "
        "edge [ source 3 target 1 ] edge [ source 1 target 2 ] ]"
    )
    run = replaced(SMALL, topology=str(file), agents=None, without_agents=(3,))
    net = network.build(run.network, run.trouble)
    assert net.names(range(2)) == [1, 2] and net.numbers.tolist() == [1, 2]
    with pytest.raises(UsageError, match="--without-agents: '0' is no agent .* are 3, 1, 2"):
        network.build(run.network, replaced(run, without_agents=(0,)).trouble)


def test_a_topology_that_changes_with_the_step_keeps_the_names(named):
    run = replaced(named, matcha_budget=0.5)
    assert network.build(run.network, run.trouble).names([3]) == ["dee"]


def test_lines_say_what_is_wrong_with_the_network():
    broken = {"link_failure": 0.2, "attack": "alie", "malicious": 2, "without_agents": (1,)}
    job = prepare(replaced(SMALL, agents=5, **broken))
    assert display._trouble(job.run.trouble, job.network) == (
        "links fail with probability 0.2; alie by malicious agents 3, 4"
    )
    assert display._mixing(job) == "over the links that a step has"
    clipped = job._replace(run=replaced(SMALL, mixer="clipped"))
    assert display._mixing(clipped) == "clipped gossip, radius 1"
    assert display._trouble(SMALL.trouble, job.network._replace(malicious=[])) == ""


@pytest.mark.slow
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


@pytest.mark.slow
def test_a_run_with_faults_under_attack_resumes_bit_by_bit(server, tmp_path):
    options = "--algorithm cdsgd --link-failure 0.3 --absence 0.2 --attack noise".split()
    options += ["--checkpoint-every", 1]
    server.run(*options, "--epochs", 1, "--out", tmp_path / "half")
    server.run(*options, "--epochs", 2, "--resume", only_folder(tmp_path / "half"))
    server.run(*options, "--epochs", 2, "--out", tmp_path / "whole")
    half, whole = (only_folder(tmp_path / name) for name in ("half", "whole"))
    assert records_of(half) == records_of(whole)
    assert arrays_of(half, 20) == arrays_of(whole, 20)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ("--link-failure 1.1", "--link-failure: 1.1 is not in"),
        ("--message-loss nan", "--message-loss: nan is not in"),
        ("--absence -1", "--absence: -1.0 is not in"),
        ("--absence 0.1 --absence-duration 0", "--absence-duration: 0 is too few; give at least 1"),
        ("--lag -1 --algorithm cdsgd", "--lag: -1 is too few; give at least 0"),
        ("--lag 2 --algorithm cdsgd --attack alie", "--lag: not together with --attack"),
        ("--lag 2 --algorithm cdsgd --mixer median", "--lag: only with --mixer auto, not with"),
        ("--link-failure 0.1 --algorithm fedavg", "--link-failure: fedavg has none; .* cdmsgd or"),
        ("--mixer median --algorithm gosgd", "--mixer: gosgd has none; .* cdmsgd or"),
        ("--attack alie --algorithm easgd", "--attack: easgd has none; .* cdmsgd or"),
        ("--attack alie --turns sequential", "--attack: not for agents that train in turn"),
        ("--mixer trimmed-mean --topology ring --num-trimmed 2", "--num-trimmed: .* at most 1"),
        ("--num-trimmed -1", "--num-trimmed: -1 is too few"),
        ("--num-trimmed 1", "--num-trimmed: mixer auto has none; .* --mixer trimmed-mean"),
        ("--absence-duration 2", "--absence-duration: nothing reads it without --absence"),
        ("--mixer clipped --clip-radius -1", "--clip-radius: radius is -1"),
        ("--attack alie --malicious 0", "--malicious: 0 is too few; give at least 1"),
        ("--attack alie --malicious 5", "--malicious: 5 leave nobody honest of the 5 agents"),
        ("--malicious 2", "--malicious: attack none has none; leave it out, or give --attack sign"),
        ("--attack-strength 2", "--attack-strength: attack none has none"),
        ("--attack noise --attack-strength -1", "--attack-strength: deviation is -1"),
    ],
)
@pytest.mark.sampled(3)
def test_what_does_not_go_together_is_one_line_that_names_the_option(
    options, message, monkeypatch, capsys, tmp_path
):
    # JAX has long started here, and can no longer look for other processes.
    monkeypatch.setattr("experiments.launch.processes.join", lambda *args, **kwargs: None)
    if "--devices" not in options:
        monkeypatch.setattr(data, "load", lambda *args: pytest.fail(f"loads data {args}"))
    monkeypatch.setattr(sys, "argv", ["digits", *options.split(), "--out", str(tmp_path / "runs")])
    with pytest.raises(SystemExit) as stop:
        main(Run(), prepare, dataset="digits")
    out, err = capsys.readouterr()
    assert stop.value.code == 2 and not out and len(err.splitlines()) == 1
    assert re.search(f"error: {message}", err), err


def test_every_disturbance_is_known_as_one():
    assert not disturbances(Run())
    for options in ({"lag": 1}, {"absence": 0.1}, {"mixer": "median"}, {"attack": "noise"}):
        assert disturbances(replaced(Run(), **options)) == [*options]
