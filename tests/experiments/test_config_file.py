"""Options from a file: whatever is printed is read again, and what is wrong is one line."""

import json
import re
import shutil
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest

from experiments.compare.config import Compare
from experiments.convex.config import Convex
from experiments.figures.config import Figures
from experiments.heterogeneity.config import Heterogeneity
from experiments.launch.cli import main
from experiments.launch.config_file import config_text, read_config
from experiments.launch.short_help import COMMON, completion
from experiments.robustness.config import Robustness
from experiments.run import alike
from experiments.run.config import FORMAT, Run, flat, replaced
from experiments.run.runner import run
from tests.experiments.test_page import SMALL

ROOT = Path(__file__).parents[2]
# One of every kind, none of them a default.
CHANGED = {
    "agents": 7, "learning_rate": 1e-5, "momentum": 0.25, "topology": 'a "b".edges',
    "nesterov": True, "without_agents": (1, "Oslo"), "personal": ("Dense_{0,1}/.*",),
    "data_dir": Path("data/é"), "log": ("tensorboard", "wandb"), "devices": "2", "seed": 3,
    "dataset": "digits",
}  # fmt: skip


def written(folder, text, name="run.yaml"):
    path = folder / name
    path.write_text(text, encoding="utf-8")
    return path


def parsed(monkeypatch, *words, default=None):
    """The options of a command line."""
    found = []
    monkeypatch.setattr("experiments.launch.processes.join", lambda *args, **kwargs: None)
    monkeypatch.setattr(sys, "argv", ["digits", *map(str, words)])
    main(default or Run(), found.append)
    return found[0]


@pytest.mark.parametrize(
    "config",
    [Run(), replaced(Run(), **CHANGED), Compare(), Convex(), Figures(), Heterogeneity(),
     Robustness(), replace(Compare(), algorithms=("atc", "easgd"), learning_rates=(1e-9, 0.5))],
    ids=lambda config: type(config).__name__,
)  # fmt: skip
def test_what_print_config_prints_is_read_again(config, tmp_path, monkeypatch, capsys):
    path = written(tmp_path, config_text(config))
    assert read_config(path, type(config)()) == config
    monkeypatch.setattr(sys, "argv", ["study", "--print-config", "--config", str(path)])
    with pytest.raises(SystemExit) as stop:
        main(type(config)())
    assert not stop.value.code
    assert read_config(written(tmp_path, capsys.readouterr().out), type(config)()) == config


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("flat.yaml", "agents: 7\nlearning-rate: 1e-3\nlog: tensorboard,wandb\n"),
        ("by-subject.yml", "network: {agents: 7}\nalgorithm:\n  learning_rate: 0.001\n"
         "output:\n  log: [tensorboard, wandb]\n"),
        ("flat.json", '{"agents": 7, "learning_rate": 0.001, "log": ["tensorboard", "wandb"]}'),
        ("mixed.json", '{"network": {"agents": "7"}, "learning_rate": 1e-3, '
         '"output": {"log": ["tensorboard", "wandb"]}}'),
    ],
)  # fmt: skip
def test_options_stand_alone_or_below_their_subject(name, text, tmp_path):
    wanted = replaced(Run(), agents=7, learning_rate=1e-3, log=("tensorboard", "wandb"))
    assert read_config(written(tmp_path, text, name), Run()) == wanted


@pytest.mark.parametrize(
    ("text", "wanted"),
    [
        ("personal: a{1,2}", {"personal": ("a{1,2}",)}),
        ("personal:", {"personal": ()}),
        ("without_agents: [1, Oslo]", {"without_agents": (1, "Oslo")}),
        ("log: wandb, tensorboard", {"log": ("wandb", "tensorboard")}),
        ("devices: 4", {"devices": "4"}),
        ("momentum: null", {"momentum": None}),
    ],
)
def test_values_are_those_that_the_options_take(text, wanted, tmp_path):
    assert read_config(written(tmp_path, text), Run()) == replaced(Run(), **wanted)


def test_the_file_of_the_documentation_is_read(tmp_path):
    (text,) = re.findall(r"```yaml\n(.*?)```", (ROOT / "docs/running.md").read_text(), re.S)
    wanted = {"agents": 16, "topology": "ring", "learning_rate": 0.01, "log": ("tensorboard",)}
    assert read_config(written(tmp_path, text), Run()) == replaced(Run(), **wanted)


def test_an_algorithm_is_an_option_and_a_subject(tmp_path):
    (by_name, by_subject) = (
        read_config(written(tmp_path, text), Run())
        for text in ("algorithm: atc\n", "algorithm: {algorithm: atc}\n")
    )
    assert by_name == by_subject == replaced(Run(), algorithm="atc")


def test_the_command_line_comes_before_the_file_and_the_file_before_the_defaults(
    tmp_path, monkeypatch
):
    path = written(tmp_path, "agents: 7\nseed: 5\nnesterov: true\n")
    for words in (["--config", path], [f"--config={path}"]):
        found = parsed(monkeypatch, "--agents", 9, *words, "--log", "tensorboard,wandb")
        wanted = {"agents": 9, "seed": 5, "nesterov": True, "log": ("tensorboard", "wandb")}
        assert found == replaced(Run(), **wanted)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("agnets: 4", "run.yaml has no option 'agnets'; did you mean 'agents'?"),
        ("network: {algoritm: atc}", "network has no option 'algoritm'; did you mean 'algorithm'"),
        ("network: {seed: 4}", "network has no option 'seed'; it belongs to another subject"),
        ("xyzzy: 4", "has no option 'xyzzy'; --print-config lists all"),
        ("agents: many", "agents: 'many' is not a whole number"),
        ("agents: 1.5", "agents: 1.5 is not a whole number"),
        ("agents: true", "agents: True is not a whole number"),
        ("agents: [4]", r"agents: \[4\] is not a whole number"),
        ("learning_rate: fast", "learning_rate: 'fast' is not a number"),
        ("nesterov: 1", "nesterov: 1 is not true or false"),
        ("algorithm: cdmsdg", r"unknown choice 'cdmsdg' \(did you mean 'cdmsgd'\?\); give cdmsgd,"),
        ("log: [tensorflow]", r"unknown choice 'tensorflow' \(did you mean 'tensorboard'\?\)"),
        ("seed: null", "seed: None is not a whole number"),
        ("agents: 4\nnetwork: {agents: 4}", "has agents twice"),
        ("- agents", r"holds no options, but \['agents'\]"),
        ("", "holds no options, but None"),
        ("agents: [", "run.yaml is no YAML: while parsing a flow node"),
        ("format: 1\nagents: 4", "was made by another version of cdjax"),
    ],
)
def test_what_is_wrong_in_a_file_is_one_line(text, message, tmp_path, monkeypatch, capsys):
    path = written(tmp_path, text)
    with pytest.raises(SystemExit) as stop:
        parsed(monkeypatch, "--config", path)
    (line,) = capsys.readouterr().err.splitlines()
    assert stop.value.code == 2 and re.search(f"^error: --config: .*{message}", line), line


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ("--config", "it lacks its value; give a file"),
        ("--config --agents 4", "it lacks its value; give a file"),
        ("--config nowhere.yaml", "there is no file nowhere.yaml"),
        ("--config ~no-such-user/x", "~no-such-user/x: no such user's home is known"),
        ("--config .", "there is no file config.json"),
        ("--config ok.json --resume .", "not together with --resume, which has its own"),
        ("--config ok.yaml", "ok.yaml needs PyYAML; pip install 'cdjax.yaml.', or give a .json"),
        ("--config bad.json", "Expecting property name"),
    ],
)
def test_a_file_that_cannot_be_had_is_one_line(words, message, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setitem(sys.modules, "yaml", None)
    written(tmp_path, "agents: 4", "ok.yaml")
    written(tmp_path, '{"agents": 4}', "ok.json")
    written(tmp_path, "{agents}", "bad.json")
    with pytest.raises(SystemExit):
        parsed(monkeypatch, *words.split())
    (line,) = capsys.readouterr().err.splitlines()
    assert re.search(f"^error: --config: {message}", line), line


@pytest.mark.slow
def test_a_finished_run_s_folder_runs_it_again_exactly(tmp_path, monkeypatch):
    graph = written(tmp_path, "a b\nb c\nc d\n", "line.edges")
    options = replaced(SMALL, topology=str(graph), agents=None, seed=3, out=tmp_path)
    first = run(options, folder=tmp_path / "first", quiet=True)
    graph.unlink()
    left = {path.name for path in (tmp_path / "first").iterdir()}
    assert "agents.json" in left and not left & {"report.html", "curves.png"}  # it is quiet
    record = json.loads((tmp_path / "first" / "config.json").read_text())
    assert record["format"] == FORMAT and record["eval_every"] == 1
    again = parsed(monkeypatch, "--config", tmp_path / "first")
    assert flat(again) | {"topology": record["topology"], "out": record["out"]} == flat(
        replaced(options, agents=4, eval_every=1)
    ) | {"out": record["out"]}
    second = run(again, folder=tmp_path / "second", quiet=True)

    def without_time(records):
        return [{k: v for k, v in one.items() if k != "seconds"} for one in records]

    assert without_time(second) == without_time(first)


def test_of_one_of_several_processes_another_run_takes_the_options_alone(tmp_path):
    record = json.loads(config_text_as_record(num_processes=2, process_id=1, coordinator="a:1"))
    path = written(tmp_path, json.dumps(record), "config.json")
    assert read_config(path, Run()) == replaced(Run(), agents=6)


def test_processes_compare_what_their_files_say_not_where_these_are(tmp_path, monkeypatch):
    (tmp_path / "other").mkdir()
    text = "topology: ring\nlearning_rate: 1e-2\nagents: 8\n"
    typed = parsed(monkeypatch, "--topology", "ring", "--agents", 8)
    for path in (written(tmp_path, text), written(tmp_path / "other", text, "o.yml")):
        assert alike.facts(parsed(monkeypatch, "--config", path)) == alike.facts(typed)
    differs = parsed(monkeypatch, "--config", written(tmp_path, text + "seed: 1\n"))
    line = alike.difference(alike.facts(typed), {1: alike.facts(differs)})
    assert line.startswith("--seed: 0 here, but 1 in process 1")


def config_text_as_record(**options):
    run = replaced(Run(), agents=6, **options)
    return json.dumps(flat(run) | {"format": FORMAT, "checksum": 1}, default=str)


def test_help_is_one_screen_of_the_common_options(monkeypatch, capsys):
    monkeypatch.setenv("COLUMNS", "80")
    assert {*COMMON} <= {*flat(Run())}
    for word in ("--help", "-h"):
        with pytest.raises(SystemExit) as stop:
            parsed(monkeypatch, word)
        lines = capsys.readouterr().out.splitlines()
        assert not stop.value.code and len(lines) <= 42 and max(map(len, lines)) <= 80
        for option in (*COMMON, "config", "help_all"):
            assert any(f"  --{option.replace('_', '-')}" in line for line in lines), option
        assert any("cnn, resnet20, mlp, softmax (default: cnn)" in line for line in lines)


@pytest.mark.parametrize("study", [Compare, Convex, Figures, Heterogeneity, Robustness])
def test_the_help_of_a_study_begins_with_its_own_options(study, monkeypatch, capsys):
    with pytest.raises(SystemExit):
        parsed(monkeypatch, "--help", default=study())
    out = capsys.readouterr().out
    assert out.index("study:") < out.index("start:") and "--help-all" in out


ZSH = "autoload -Uz compinit bashcompinit; compinit -u; bashcompinit; emulate sh\n"


def completed(script, words, shell="bash"):
    """What a shell offers for the last of some words."""
    listed = " ".join(f"'{word}'" for word in words)
    program = (
        f"{ZSH * (shell == 'zsh')}{script}\nCOMP_WORDS=({listed}); COMP_CWORD={len(words) - 1}\n"
        '_cdjax_experiments; printf "%s\\n" "${COMPREPLY[@]}"'
    )
    command = [shell, *["-f"] * (shell == "zsh"), "-c", program]
    result = subprocess.run(command, capture_output=True, text=True, check=True)
    offered = result.stdout.split()
    # What zsh's bashcompinit returns, zsh itself goes through.
    return [x for x in offered if shell == "bash" or x.startswith(words[-1])]


@pytest.mark.parametrize("shell", ["bash", "zsh"])
def test_shells_complete_options_and_their_choices(shell):
    if not shutil.which(shell):
        pytest.skip(f"{shell} is not installed")
    script, started = completion(Run()), ["python", "-m", "experiments.digits"]
    assert completed(script, [*started, "--learn"], shell) == ["--learning-rate"]
    assert completed(script, [*started, "--model", ""], shell) == [
        "cnn",
        "resnet20",
        "mlp",
        "softmax",
    ]
    assert completed(script, [*started, "--topology", "to"], shell) == ["torus"]
    offered = completed(script, [*started, "--print-"], shell)
    assert sorted(offered) == ["--print-completion", "--print-config"]
    assert completed(script, [*started, "--out", "x"], shell) == []  # the shell goes on with files
    assert completed(script, ["python", "-m", "pytest", "--mod"], shell) == []


def test_another_completion_of_python_is_kept():
    before = "theirs() { COMPREPLY=(kept); }\ncomplete -F theirs python\n"
    assert completed(before + completion(Run()), ["python", "x"]) == ["kept"]
    twice = before + 2 * completion(Run())
    assert completed(twice, ["python", "-m", "experiments.digits", "--see"]) == ["--seed"]
