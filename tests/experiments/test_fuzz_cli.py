"""Three hundred bad command lines: each names the culprit and exits with 2, before any work."""

import random
import subprocess
import sys
from pathlib import Path

import pytest

from cdjax import data
from experiments.launch import processes
from experiments.launch.cli import main
from experiments.run.config import Run
from experiments.run.job import prepare
from tests.slow import slow

ROOT = Path(__file__).parents[2]
NUM_CASES = 300
PROGRAMS = ("digits", "cifar10", "mnist")

GOOD = {
    "--agents": ["1", "2", "4", "16"],
    "--topology": ["ring", "complete", "star", "path", "exponential"],
    "--weights": ["metropolis_hastings", "max_degree", "lazy"],
    "--algorithm": ["cdsgd", "cdmsgd", "atc", "fedavg", "easgd", "gosgd"],
    "--learning-rate": ["0.1", "1e-3", "0"],
    "--batch-size": ["1", "32"],
    "--epochs": ["1", "20"],
    "--partition": ["iid", "dirichlet", "shards", "classes"],
    "--model": ["cnn", "mlp", "softmax"],
    "--seed": ["0", "12345"],
    "--eval-every": ["1", "7"],
    "--stand-in": [""],
}
WORDS = ["x", "best", "Ring", "cdmsgd2", "très", "🙂", "a b", "%s", "../..", "0x1", "None!"]
NOT_WHOLE = ["x", "1.5", "", "1e3", "nan", "½", "１x", "[3]", "3 4"]
NOT_REAL = ["x", "", "0,1", "1e", "--1", "1.2.3"]
TOO_SMALL = ["0", "-1", "-2147483648", "-99999999999999999999"]
NOT_FINITE = ["nan", "inf", "-inf", "1e999"]
BAD = {
    **dict.fromkeys(
        ["--topology", "--weights", "--algorithm", "--schedule", "--partition", "--model"], WORDS
    ),
    **dict.fromkeys(["--dtype", "--init", "--dataset", "--agent-plan", "--devices"], [*WORDS, ""]),
    **dict.fromkeys(
        ["--agents", "--batch-size", "--epochs", "--eval-every", "--log-every", "--period"],
        NOT_WHOLE + TOO_SMALL,
    ),
    **dict.fromkeys(["--train-samples", "--test-samples"], NOT_WHOLE + TOO_SMALL),
    "--seed": [*NOT_WHOLE, "-1", "-99999999999999999999"],
    "--shards-per-agent": NOT_WHOLE + TOO_SMALL,
    "--learning-rate": [*NOT_REAL, *NOT_FINITE, "-0.1"],
    "--momentum": [*NOT_REAL, *NOT_FINITE, "-0.1", "1", "2"],
    "--decay-power": [*NOT_REAL, *NOT_FINITE, "0.5", "1.1"],
    "--decay-offset": [*NOT_REAL, *NOT_FINITE, "0", "-3"],
    "--client-fraction": [*NOT_REAL, *NOT_FINITE, "-0.1", "1.1"],
    "--talk-probability": [*NOT_REAL, *NOT_FINITE, "-0.1", "1.1"],
    "--dirichlet-alpha": [*NOT_REAL, *NOT_FINITE, "0", "-1"],
    **dict.fromkeys(["--mixer", "--attack"], WORDS),
    **dict.fromkeys(["--malicious", "--absence-duration"], NOT_WHOLE + TOO_SMALL),
    **dict.fromkeys(["--lag", "--num-trimmed"], [*NOT_WHOLE, "-1"]),
    **dict.fromkeys(
        ["--link-failure", "--message-loss", "--absence"], [*NOT_REAL, *NOT_FINITE, "-0.1", "1.1"]
    ),
    "--coordinator": ["x", "host:", ":1", "host:port", "host:99999", "host:-1"],
}
MISFITS = {
    "--topology torus --agents 7": "--topology",
    "--topology grid --agents 5": "--topology",
    "--topology hypercube --agents 12": "--topology",
    "--topology star --weights uniform --agents 6": "--topology",
    "--turns sequential --algorithm easgd": "--turns",
    "--momentum 0.9 --algorithm easgd": "--momentum",
    "--num-trimmed 1 --mixer median": "--num-trimmed",
    "--attack-strength 1 --mixer median": "--attack-strength",
    "--absence-duration 3": "--absence-duration",
    "--shards-per-agent 3 --partition iid": "--shards-per-agent",
    "--coordinator localhost:1 --num-processes 2": "--process-id",
    "--coordinator localhost:1 --num-processes 2 --process-id 2": "--process-id",
    "--coordinator localhost:1 --num-processes 0 --process-id 0": "--num-processes",
    "--num-processes 2 --process-id 1": "--num-processes",
    "--secret-file secret": "--secret-file",
    "--out setup.cfg.txt": "--out",
    "--out setup.cfg.txt/runs": "--out",
}


def misspelled(rng):
    """An option with one letter lost, doubled or swapped, or one that never was."""
    option = rng.choice([option for option in BAD if len(option) > 8])
    place = rng.randrange(3, len(option) - 1)
    return rng.choice(
        [
            option[:place] + option[place + 1 :],
            option[:place] + option[place] * 2 + option[place:],
            f"-{option[place]}9",
            option.upper(),
            "--" + "".join(rng.choices("abcxyz-", k=7)),
        ]
    )


def command_line(number):
    """A program and its options, of which exactly one thing is wrong, and what that is."""
    rng = random.Random(number)
    chosen = rng.sample(list(GOOD), rng.randrange(4))
    kind = rng.choice(["value"] * 6 + ["misfit", "name", "word", "nothing"])
    if kind == "value":
        wrong = rng.choice(list(BAD))
        words = [wrong, rng.choice(BAD[wrong])]
    elif kind == "misfit":
        misfit, wrong = rng.choice(list(MISFITS.items()))
        words = misfit.split()
    elif kind == "name":
        wrong = misspelled(rng)
        words = [wrong, rng.choice(["1", "ring", "0.5"])]
    elif kind == "word":
        wrong = rng.choice(["ring", "16", "train", "x=3"])
        words = [wrong]
    else:
        wrong = rng.choice([option for option in GOOD if option != "--stand-in"])
        words = [wrong]
    options = [
        word
        for option in chosen
        if option not in words
        for word in (option, rng.choice(GOOD[option]))
        if word
    ]
    # What lacks its value comes last, where no other word can be taken for it.
    options = words + options if kind in ("word", "name") else options + words
    return rng.choice(PROGRAMS), options, wrong


def meet(machine, kept, facts):
    """What joins processes, up to where it would call JAX."""
    processes._meet(machine, facts)


@pytest.fixture
def no_work(monkeypatch, tmp_path):
    """Any attempt to load data fails; the working directory holds one file and no folder."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "setup.cfg.txt").touch()
    # JAX has long started here, and can no longer look for other processes.
    monkeypatch.setattr(processes, "join", meet)
    monkeypatch.setenv("COLUMNS", "300")
    monkeypatch.setattr(data, "load", lambda *args: pytest.fail(f"loads data {args}"))
    return tmp_path


@pytest.mark.parametrize("first", [0, 20, *slow(*range(40, NUM_CASES, 20))])
@pytest.mark.sampled(2)
def test_a_bad_command_line_is_an_error_that_names_the_culprit(first, no_work, monkeypatch, capsys):
    for number in range(first, first + 20):
        program, options, wrong = command_line(number)
        monkeypatch.setattr(sys, "argv", [program, *options])
        with pytest.raises(SystemExit) as stop:
            main(Run(), prepare, dataset=program)
        out, err = capsys.readouterr()
        case = f"{number}: {program} {options}\n{out}{err}"
        assert stop.value.code == 2, case
        # What the parser cannot read it shows in its own way; all else is one line.
        assert not out and (len(err.splitlines()) == 1 or not err.startswith("error: ")), case
        assert "Traceback" not in err and wrong in err, case
    assert [path.name for path in no_work.iterdir()] == ["setup.cfg.txt"]


@pytest.mark.parametrize("number", [0, *slow(*range(60, NUM_CASES, 60))])
def test_the_same_as_a_process(number, tmp_path):
    program, options, wrong = command_line(number)
    result = subprocess.run(
        [sys.executable, "-m", f"experiments.{program}", *options],
        cwd=ROOT, capture_output=True, text=True, timeout=120,
    )  # fmt: skip
    assert result.returncode == 2, (options, result.stderr)
    assert wrong in result.stderr and "Traceback" not in result.stderr
