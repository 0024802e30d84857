"""The programs as their users type them."""

import json
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from experiments.compare.config import Compare
from experiments.convex.config import Convex
from experiments.figures.config import Figures
from experiments.heterogeneity.config import Heterogeneity
from experiments.launch.cli import main
from experiments.robustness.config import Robustness
from experiments.run.config import Run
from experiments.run.job import prepare

ROOT = Path(__file__).parents[2]
RECORD = {
    "test_loss", "test_accuracy",
    "dataset", "epoch", "step", "train_loss_mean", "train_accuracy_mean", "test_loss_mean",
    "test_accuracy_mean", "test_accuracy_min", "test_accuracy_max", "test_accuracy_variance",
    "mean_params_test_accuracy", "consensus_distance", "bytes_sent", "seconds",
}  # fmt: skip


def experiment(name, *options, offline_home=None):
    env = os.environ | {"XLA_FLAGS": "", "COLUMNS": "200"}
    if offline_home:
        # No prepared copy of any data set, and no way out.
        env |= {"HOME": str(offline_home), "TFDS_DATA_DIR": str(offline_home)}
        env |= dict.fromkeys(("http_proxy", "https_proxy"), "http://127.0.0.1:9")
    return subprocess.run(
        [sys.executable, "-m", f"experiments.{name}", *map(str, options)],
        cwd=ROOT, env=env, capture_output=True, text=True, timeout=600,
    )  # fmt: skip


def records_of(out):
    (folder,) = out.iterdir()
    lines = (folder / "metrics.jsonl").read_text().splitlines()
    return folder, [json.loads(line) for line in lines]


@pytest.mark.slow
def test_six_agents_on_a_ring_learn_the_digits(tmp_path):
    options = ("--agents", 6, "--topology", "ring", "--epochs", 3, "--batch-size", 32)
    result = experiment("digits", *options, "--out", tmp_path)
    assert result.returncode == 0, result.stderr
    for text in ("λ2 = 0.666667", "λN = -0.333333", "gap = 0.333333", "2,168,362 parameters"):
        assert text in result.stdout
    folder, records = records_of(tmp_path)
    assert folder.name.startswith("digits-cdmsgd-ring-6-")
    assert [record["epoch"] for record in records] == [1, 2, 3]
    assert all(set(record) == RECORD | {"consensus_bound"} for record in records)
    last = records[-1]
    assert last["test_accuracy_mean"] > 0.8
    assert last["test_accuracy_min"] <= last["test_accuracy_mean"] <= last["test_accuracy_max"]
    assert last["step"] == 3 * (1437 // (6 * 32))
    assert last["bytes_sent"] == last["step"] * 12 * 4 * 2_168_362
    assert json.loads((folder / "config.json").read_text())["agents"] == 6
    assert (folder / "curves.png").read_bytes().startswith(b"\x89PNG")


@pytest.mark.slow
def test_the_default_run_says_aloud_that_it_stands_in_digits(tmp_path):
    options = ("--agents", 4, "--topology", "ring", "--model", "softmax", "--epochs", 1)
    result = experiment("cifar10", *options, "--out", tmp_path / "runs", offline_home=tmp_path)
    assert result.returncode == 0, result.stderr
    assert "cifar10 is NOT available; training on the embedded DIGITS instead" in result.stdout
    folder, records = records_of(tmp_path / "runs")
    assert folder.name.startswith("digits-")
    assert {record["dataset"] for record in records} == {"digits"}
    assert json.loads((folder / "config.json").read_text())["dataset"] == "digits"


@pytest.mark.slow
def test_a_data_set_asked_for_and_missing_is_an_error_that_names_the_ways(tmp_path):
    options = ("--dataset", "cifar10", "--out", tmp_path / "runs")
    result = experiment("cifar10", *options, offline_home=tmp_path)
    assert result.returncode == 2
    for way in ("cifar-10-python.tar.gz", "--data-dir", "network", "digits"):
        assert way in result.stderr
    assert not (tmp_path / "runs").exists()


@pytest.mark.slow
@pytest.mark.parametrize(
    "options",
    [
        "--agents 1 --topology torus --eval-every 2 --dtype bfloat16",
        "--turns sequential --schedule cosine --train-samples 299 --test-samples 99",
        "--algorithm cdsgd --schedule diminishing --partition dirichlet --size-weighted",
        "--algorithm cdmsgd-polyak --schedule cosine --partition classes --weights lazy",
        "--algorithm choco --compressor int4 --topology ring --schedule cosine",
        "--algorithm sparse-loco --period 5 --kept 8 --chunk 16 --value-bits 4 --momentum 0.9",
        "--algorithm cga --topology path --margin 0.2 --partition classes",
        "--algorithm atc --partition shards --init independent --agent-plan map --log-every 3",
    ],
)
def test_every_option_runs(options, server, tmp_path):
    common = "--model softmax --epochs 2 --batch-size 8 --train-samples 320".split()
    server.run(*common, *options.split(), "--out", tmp_path, usual=())
    _, records = records_of(tmp_path)
    assert records[-1]["epoch"] == 2


@pytest.mark.slow
def test_agents_come_from_the_edge_list(server, tmp_path):
    edges = tmp_path / "square.edges"
    edges.write_text("0 1\n1 2\n2 3\n3 0\n")
    options = ("--topology", edges, "--model", "softmax", "--epochs", 1, "--out", tmp_path / "out")
    server.run(*options, usual=())
    folder, (record,) = records_of(tmp_path / "out")
    assert folder.name.startswith("digits-cdmsgd-square-4-")
    assert set(record) == RECORD | {"consensus_bound"}
    assert record["bytes_sent"] == record["step"] * 8 * 4 * (3072 * 10 + 10)
    assert json.loads((folder / "config.json").read_text())["agents"] == 4
    assert (folder / "curves.png").read_bytes().startswith(b"\x89PNG")


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ("--topology rng", "--topology: 'rng' is neither a family"),
        ("--agents 0", "--agents: 0 is too few; give at least 1"),
        ("--agents -3", "--agents: -3 is too few"),
        ("--topology torus --agents 7", "--topology: .* nearest sizes that fit are 6 and 8"),
        ("--topology hypercube --agents 12", "--topology: .* the nearest are 8 and 16"),
        ("--topology split.edges", r"--topology: graph is not connected.*\{0, 1\}, \{2, 3\}"),
        ("--topology star --weights uniform", "--topology: mixing matrix is not symmetric"),
        ("--agents 2000", "--agents: 2000 agents are more than the 1437 training samples"),
        ("--agents 40 --partition dirichlet --dirichlet-alpha 0.001", "--partition: .* alpha"),
        ("--batch-size 1000", "--batch-size: 1000 is more than the 287 samples of agent"),
        ("--batch-size 0", "--batch-size: 0 is too few"),
        ("--log-every 0", "--log-every: 0 is too few"),
        ("--turns sequential --algorithm fedavg", "--turns: fedavg has none; .* cdmsgd or"),
        ("--turns sequential --devices 2", "--devices: agents that train in turn share one"),
        ("--message-loss 0.1 --algorithm choco", "--message-loss: choco has none; .* cdmsgd or"),
        ("--fraction 0.1", "--fraction: cdmsgd has none; .* --algorithm choco or beer"),
        (
            "--algorithm choco --compressor sign --fraction 0.1",
            "--fraction: compressor sign has none; .* --compressor top-k or random-k",
        ),
        ("--algorithm beer --consensus-step 0", r"--consensus-step: 0.0 is not in \(0, 1\]"),
        ("--algorithm choco --on-nan drop", "--on-nan: choco has agents hold copies"),
        ("--momentum 0.9 --algorithm easgd", "--momentum: easgd has none; .* cdmsgd or"),
        ("--decay-power 0.6", "--decay-power: schedule fixed has none; .* --schedule diminishing"),
        ("--test-samples 361", "--test-samples: 361 are more than the 360 of digits"),
        ("--epochs -1", "--epochs: -1 is too few"),
        ("--learning-rate nan", r"--learning-rate: nan is not in \[0, inf\)"),
        ("--momentum 1", r"--momentum: 1.0 is not in \[0, 1\)"),
        ("--seed -1", "--seed: -1 is too few"),
        ("--seed 4294967296", "--seed: 4294967296 is too large; give at most 4294967295"),
        (f"--seed {10**40}", "--seed: 10{40} is too large"),
        (f"--agents {10**12}", "--agents: 10{12} is too large; give at most 2147483647"),
        ("--epochs 2147483647", "--epochs: 2147483647 are too many; give at most 1"),
        ("--epochs 1e1", "--epochs: '1e1' is no whole number"),
        ("--batch-size=1.5", "--batch-size: '1.5' is no whole number"),
        ("--learning-rate 0,01", "--learning-rate: '0,01' is no number"),
        ("--without-agents 1 x", "--without-agents: 'x' is no agent of complete; .* 0, 1, 2, 3, 4"),
        ("--without-agents 5", "--without-agents: '5' is no agent of complete"),
        ("--topology named.edges --without-agents 4", "'4' is no agent of named.edges; .* a, b, c"),
        ("--topology named.edges --without-agents b", r"without agents \[b\] .* \{a\}, \{c, d\}"),
        ("--topology named.edges --batch-size 1000", "--batch-size: .* samples of agent [abcd];"),
        (f"--out {'x' * 300}", "--out: .*File name too long"),
        (f"--resume {'x' * 300}", "--resume: .*File name too long"),
        (f"--topology {'x' * 300}", "--topology: .*File name too long"),
        ("--out dangling", "--out: .*/dangling is a link to nothing; give a folder"),
        ("--out dangling/runs", "--out: .*/dangling is a link to nothing; give a folder"),
        ("--out ~no-such-user/x", "--out: ~no-such-user/x: no such user's home is known"),
        ("--dataset mnist --data-dir truncated", "--data-dir: .*train-images.* bytes of data, not"),
        ("--dataset mnist --data-dir partial", "--data-dir: .* lacks train-labels-idx1-ubyte.gz"),
        ("--out file/runs", "--out: .*file is a file; give a folder"),
    ],
)
@pytest.mark.sampled(4)
def test_bad_input_is_one_line_that_names_the_option(
    options, message, tmp_path, monkeypatch, capsys
):
    (tmp_path / "split.edges").write_text("0 1\n2 3\n")
    (tmp_path / "named.edges").write_text("a b\nb c\nc d\n")
    (tmp_path / "file").write_text("")
    (tmp_path / "dangling").symlink_to(tmp_path / "nowhere")
    images = "train-images-idx3-ubyte"
    for folder in ("truncated", "partial"):
        (tmp_path / folder).mkdir()
        (tmp_path / folder / images).write_bytes(bytes([0, 0, 8, 3]))
    for name in ("train-labels-idx1", "t10k-images-idx3", "t10k-labels-idx1"):
        (tmp_path / "truncated" / f"{name}-ubyte").write_bytes(b"")
    words = [
        str(tmp_path / word) if word.split("/")[0] in os.listdir(tmp_path) else word
        for word in options.split()
    ]
    out = [] if "--out" in words else ["--out", tmp_path / "runs"]
    # JAX has long started here, and can no longer look for other processes.
    monkeypatch.setattr("experiments.launch.processes.join", lambda *args, **kwargs: None)
    monkeypatch.setattr(sys, "argv", ["digits", *words, *map(str, out)])
    with pytest.raises(SystemExit) as stop:
        main(Run(), prepare, dataset="digits")
    output, errors = capsys.readouterr()
    (line,) = errors.splitlines()
    assert stop.value.code == 2 and not output
    assert re.search(message, line), line
    assert not (tmp_path / "runs").exists()


@pytest.mark.parametrize(
    ("words", "several", "stands_in"), [("", False, True), ("", True, False),
                                        ("--stand-in", True, True), ("--data-dir x", False, False)]
)  # fmt: skip
def test_several_processes_train_on_a_stand_in_only_if_they_are_told_to(
    words, several, stands_in, monkeypatch
):
    found = []
    monkeypatch.setattr("experiments.launch.processes.join", lambda *args, **kwargs: None)
    monkeypatch.setattr("experiments.launch.processes.are_several", lambda: several)
    monkeypatch.setattr(sys, "argv", ["cifar10", *words.split()])
    main(Run(), found.append, dataset="cifar10")
    assert [(run.data.dataset, run.data.stand_in) for run in found] == [("cifar10", stands_in)]


@pytest.mark.parametrize(
    "words", ["--topolgy ring", "--agents many", "--dtype float16", "--algorithm adam", "stray"]
)
def test_what_cannot_be_parsed_is_named_by_the_parser(words, capsys, monkeypatch):
    monkeypatch.setattr(sys, "argv", ["digits", *words.split()])
    with pytest.raises(SystemExit) as stop:
        main(Run(), dataset="digits")
    assert stop.value.code == 2
    errors = capsys.readouterr().err
    assert words.split()[0] in errors and "Traceback" not in errors


def test_all_help_groups_the_options_by_subject_and_lists_their_choices(capsys, monkeypatch):
    monkeypatch.setattr(sys, "argv", ["digits", "--help-all"])
    with pytest.raises(SystemExit) as stop:
        main(Run(), dataset="digits", description="A run on the digits.")
    assert not stop.value.code
    out = capsys.readouterr().out
    subjects = ["network", "algorithm", "training", "data", "model", "trouble", "saving", "output"]
    subjects += ["machine"]
    places = [out.index(f"{subject} options") for subject in subjects]
    assert places == sorted(places)
    for option in ("--config FILE", "--print-config", "--print-completion"):
        assert option in out
    assert "A run on the digits." in out and "{fixed,diminishing,cosine}" in out


@pytest.mark.parametrize("study", [Compare, Convex, Figures, Heterogeneity, Robustness, Run])
def test_every_study_starts_from_the_command_line(study, monkeypatch):
    found = []
    monkeypatch.setattr("experiments.launch.processes.join", lambda *args, **kwargs: None)
    monkeypatch.setattr(sys, "argv", ["study"])
    main(study(), found.append)
    assert found == [study()]


def test_help_does_not_wait_for_jax():
    program = "import experiments.launch.cli, sys; assert 'jax' not in sys.modules"
    subprocess.run([sys.executable, "-c", program], cwd=ROOT, check=True)


@pytest.mark.skipif(
    not Path("/usr/share/datasets/fashion-mnist").exists(),
    reason="needs Debian's package dataset-fashion-mnist",
)
@pytest.mark.slow
def test_five_agents_learn_fashion_mnist_from_its_archive_files(tmp_path):
    options = ("--agents", 5, "--topology", "complete", "--model", "mlp", "--epochs", 6)
    folder = "/usr/share/datasets/fashion-mnist"
    result = experiment("fashion_mnist", *options, "--data-dir", folder, "--out", tmp_path)
    assert result.returncode == 0, result.stderr
    assert records_of(tmp_path)[1][-1]["test_accuracy_mean"] > 0.85
