"""Runs that are interrupted in every way and resumed, through the command line."""

import json
import os
import random
import re
import shutil
import signal
import subprocess
import time
from pathlib import Path

import jax.numpy as jnp
import pytest

from cdjax import checkpoint
from cdjax.checkpoint._integrity import write_sums
from experiments.run import progress, resume
from experiments.run.config import FORMAT, Run, replaced
from experiments.run.job import prepare
from tests.slow import slow
from tests.system.forked import STEPS_PER_EPOCH, arrays_of, only_folder, records_of, start_server


@pytest.fixture(scope="module")
def uninterrupted(server, tmp_path_factory):
    """A folder of a run of six epochs that nothing happened to."""
    out = tmp_path_factory.mktemp("uninterrupted")
    server.run("--epochs", 6, "--checkpoint-every", 1, "--keep-checkpoints", 6, "--out", out)
    return only_folder(out)


@pytest.fixture
def half(uninterrupted, tmp_path):
    """A copy of its folder as it was after the third epoch."""
    folder = tmp_path / "half"
    shutil.copytree(uninterrupted, folder)
    for epoch in (4, 5, 6):
        shutil.rmtree(folder / "checkpoints" / str(epoch * STEPS_PER_EPOCH))
    return folder


def wait_until(condition, seconds=120):
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.002)


def kill_at_random(server, out, num_kills, *options, seed=0):
    """Kills a run that does not end by itself, and resumes it, again and again."""
    draw, resume = random.Random(seed), ["--out", out]
    for life in range(num_kills):
        before = {*out.glob("*/checkpoints/*")}
        process = server.start(*options, "--epochs", 10**6, *resume)
        wait_until(lambda: [*out.glob("*/config.json")])
        if life % 4:  # else it may die before it has saved anything
            wait_until(lambda: {*out.glob("*/checkpoints/*")} - before)  # noqa: B023
        time.sleep(draw.uniform(0, 0.3))
        os.kill(process, signal.SIGKILL)
        assert server.finish()[0] == -signal.SIGKILL
        resume = ["--resume", only_folder(out)]
    return only_folder(out)


def check_end_after_kills(server, out, num_kills, *options):
    """The options say how often to evaluate: by default a longer run is evaluated less often."""
    folder = kill_at_random(server, out / "killed", num_kills, *options)
    reached = max(int(path.name) for path in (folder / "checkpoints").glob("*[0-9]"))
    epochs = reached // STEPS_PER_EPOCH + 3
    server.run(*options, "--epochs", epochs, "--resume", folder)
    server.run(*options, "--epochs", epochs, "--out", out / "whole")
    whole, end = only_folder(out / "whole"), epochs * STEPS_PER_EPOCH
    assert records_of(folder) == records_of(whole)
    assert arrays_of(folder, end) == arrays_of(whole, end)
    return epochs


@pytest.mark.slow
def test_after_kill_9_at_twenty_random_moments_the_end_is_the_same_bit_by_bit(server, tmp_path):
    options = ("--checkpoint-every", 1, "--eval-every", 1)
    epochs = check_end_after_kills(server, tmp_path, 20, *options)
    assert epochs > 10  # most of the lives have got somewhere


@pytest.mark.slow
@pytest.mark.parametrize(
    "options",
    [
        "--algorithm easgd --period 3 --checkpoint-every 2 --eval-every 1",
        "--algorithm fedavg --checkpoint-every 3 --eval-every 2",
        "--algorithm gosgd --model mlp --checkpoint-every 1 --eval-every 1",
        "--algorithm cdsgd --turns sequential --checkpoint-every 1 --eval-every 1",
        "--algorithm atc --dtype bfloat16 --checkpoint-every 1 --keep-checkpoints 1 --eval-every 1",
    ],
)
def test_every_kind_of_run_survives_five_kills(options, server, tmp_path):
    check_end_after_kills(server, tmp_path, 5, *options.split())


@pytest.mark.parametrize("number", [signal.SIGTERM, *slow(signal.SIGINT)])
@pytest.mark.slow
def test_a_signal_saves_within_the_epoch_and_the_end_is_the_same(number, server, tmp_path):
    options = ("--epochs", 3, "--eval-every", 3, "--checkpoint-every", 2, "--log-every", 1)
    process = server.start(*options, "--out", tmp_path / "out", "--learning-rate", 0.02)
    wait_until(lambda: [*(tmp_path / "out").glob("*/metrics.jsonl")])
    os.kill(process, number)
    code, _, errors = server.finish()
    folder = only_folder(tmp_path / "out")
    line = rf"stopped: {number.name} after (\d+) steps; go on with --resume {folder}\n"
    assert code == 128 + number and (found := re.fullmatch(line, errors))
    assert int(found[1]) < 20 and records_of(folder) == []

    server.run(*options, "--learning-rate", 0.02, "--resume", folder)
    server.run(*options, "--learning-rate", 0.02, "--out", tmp_path / "whole")
    whole = only_folder(tmp_path / "whole")
    assert records_of(folder) == records_of(whole)
    assert arrays_of(folder, 30) == arrays_of(whole, 30)


@pytest.mark.slow
def test_a_damaged_checkpoint_is_named_and_the_run_goes_on_from_the_one_before(
    half, server, uninterrupted
):
    state = half / "checkpoints" / "30" / "state"
    largest = max((p for p in state.rglob("*") if p.is_file()), key=lambda p: p.stat().st_size)
    os.truncate(largest, largest.stat().st_size // 2)
    output = server.run("--epochs", 6, "--checkpoint-every", 1, "--resume", half)
    name = largest.relative_to(state.parent)
    assert f"checkpoint 30 is damaged ({name} has " in output
    assert f"resuming {half} at step 20" in output
    assert records_of(half) == records_of(uninterrupted)
    assert arrays_of(half, 60) == arrays_of(uninterrupted, 60)


@pytest.mark.slow
def test_a_run_goes_on_with_its_own_options(server, tmp_path):
    own = "--algorithm cdsgd --schedule diminishing --without-agents 2 --checkpoint-every 1".split()
    own += ["--seed", 3, "--data-dir", tmp_path, "--dataset", "digits"]
    server.run(*own, "--epochs", 1, "--out", tmp_path / "half")
    server.run(*own, "--epochs", 2, "--out", tmp_path / "whole")
    half, whole = (only_folder(tmp_path / name) for name in ("half", "whole"))
    server.run("--resume", half, "--epochs", 2, usual=())
    assert records_of(half) == records_of(whole)
    assert arrays_of(half, 20) == arrays_of(whole, 20)
    configs = [json.loads((folder / "config.json").read_text()) for folder in (half, whole)]
    assert {name for name, value in configs[0].items() if configs[1][name] != value} == {
        "out", "resume", "checksum"
    }  # fmt: skip


@pytest.mark.slow
def test_a_run_from_before_an_option_existed_has_its_default(half, server, uninterrupted):
    last = half / "checkpoints" / "30"
    for path in (half / "config.json", last / "notes" / "notes.json"):
        text = path.read_text()
        assert text.count('"lag": 0') == 1
        path.write_text(re.sub(r'"lag": 0,\s*|,\s*"checksum": \d+', "", text))
    write_sums(last, last.glob("*/**/*"))
    server.run("--resume", half, usual=())
    assert records_of(half) == records_of(uninterrupted)


def test_saves_that_would_make_training_wait_are_left_out_but_for_those_needed(
    tmp_path, monkeypatch
):
    options = {"agents": 2, "train_samples": 64, "test_samples": 10, "batch_size": 8}
    job = prepare(replaced(Run(), model="softmax", **options))
    start = progress.beginning(job)

    def saved_steps(waiting, always_saved):
        monkeypatch.setattr(resume, "_WAITING", waiting)
        monkeypatch.setattr(resume, "_ALWAYS_SAVED", always_saved)
        folder = tmp_path / f"{waiting}-{always_saved}"
        with checkpoint.writing(folder, keep=10) as checkpoints:
            save = resume.saver(checkpoints, job)
            for step in range(1, 6):
                save(job.state._replace(step=jnp.int32(step)), start, step == 4)
        return checkpoint.steps(folder)

    assert saved_steps(0, 0) == [1, 4]  # before the first nothing has waited
    assert saved_steps(0, 2) == [1, 2, 4]
    assert saved_steps(1, 0) == [1, 2, 3, 4, 5]


def test_what_is_saved_already_is_not_saved_again(tmp_path):
    job = prepare(replaced(Run(), model="softmax", train_samples=64, batch_size=8))
    with checkpoint.writing(tmp_path) as checkpoints:
        save = resume.saver(checkpoints, job)
        save(job.state, progress.beginning(job), True)
    assert checkpoint.steps(tmp_path) == []


def test_a_run_of_an_older_version_is_refused_in_a_line_that_says_so(tmp_path, server):
    (tmp_path / "config.json").write_text(json.dumps({"schedule": ["fixed"], "agents": 4}))
    server.start("--resume", tmp_path)
    code, _, errors = server.finish()
    assert code == 2 and FORMAT == 2
    assert errors == (
        f"error: --resume: {tmp_path}: it was made by an older version of cdjax, whose runs cannot "
        "be resumed; start it anew\n"
    )


@pytest.mark.slow
def test_without_a_checkpoint_it_starts_at_the_beginning(half, server, uninterrupted):
    assert json.loads((half / "config.json").read_text())["format"] == FORMAT
    shutil.rmtree(half / "checkpoints")
    output = server.run("--epochs", 6, "--checkpoint-every", 6, "--resume", half)
    assert "at the start (no checkpoint found)" in output
    assert records_of(half) == records_of(uninterrupted)
    assert arrays_of(half, 60) == arrays_of(uninterrupted, 60)


@pytest.mark.slow
def test_on_other_devices_and_by_another_plan_it_is_the_same_run(half, server, uninterrupted):
    free = ("--devices", 4, "--log-every", 3, "--agent-plan", "map", "--keep-checkpoints", 1)
    output = server.run("--epochs", 6, "--resume", half, *free, devices=4)
    assert "4 × cpu" in output
    for record, expected in zip(records_of(half), records_of(uninterrupted), strict=True):
        assert record.pop("dataset") == expected.pop("dataset")
        assert record == pytest.approx(expected, rel=1e-4)


@pytest.mark.slow
def test_records_do_not_depend_on_how_the_run_is_cut_into_dispatches(
    server, tmp_path, uninterrupted
):
    server.run("--epochs", 6, "--log-every", 7, "--out", tmp_path)
    assert records_of(only_folder(tmp_path)) == records_of(uninterrupted)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (
            "--seed 4 --learning-rate 0.02",
            "--resume: the run in .* has --learning-rate 0.01 .here 0.02., --seed 0 .here 4.; give",
        ),
        ("--agents 8", "--agents 4 .here 8."),
        ("--eval-every 2", "--eval-every 1 .here 2."),
        ("--epochs 2", "--epochs: 2 are fewer than the 3 that .* has behind it; give more"),
        ("--topology ring.edges", "--topology ring .here .*ring.edges."),
        ("--topology star", "--topology ring .here star."),
        ("--checkpoint-every 0", "--checkpoint-every: 0 is too few; give at least 1"),
        ("--keep-checkpoints 0", "--keep-checkpoints: 0 is too few"),
    ],
)
@pytest.mark.sampled(3)
def test_what_does_not_fit_the_checkpoint_is_one_line(options, message, half, server, tmp_path):
    (tmp_path / "ring.edges").write_text("0 1\n1 2\n2 3\n3 0\n")
    words = [str(tmp_path / w) if w == "ring.edges" else w for w in options.split()]
    before = (half / "metrics.jsonl").read_bytes()
    server.start("--epochs", 6, "--resume", half, *words)
    code, _, errors = server.finish()
    (line,) = errors.splitlines()
    assert code == 2 and re.search(message, line), line
    assert (half / "metrics.jsonl").read_bytes() == before


@pytest.mark.slow
def test_a_graph_that_has_changed_in_its_file_is_refused(server, tmp_path):
    edges = tmp_path / "a.edges"
    edges.write_text("0 1\n1 2\n2 3\n3 0\n")
    options = ("--topology", edges, "--epochs", 1, "--checkpoint-every", 1)
    server.run(*options, "--out", tmp_path / "out")
    edges.write_text("0 1\n1 2\n2 3\n")
    server.start(*options, "--resume", only_folder(tmp_path / "out"))
    code, _, errors = server.finish()
    assert code == 2 and errors.startswith("error: --topology: not what the run in ")


def test_a_folder_that_is_no_runs_is_refused(server, tmp_path):
    server.start("--resume", tmp_path)
    code, _, errors = server.finish()
    assert code == 2
    assert errors == f"error: --resume: {tmp_path} is no run's folder: it has no config.json\n"


@pytest.mark.slow
def test_a_full_disk_ends_the_run_with_the_last_good_checkpoint_intact(half, server, uninterrupted):
    # Files of more than 100 kB cannot be written, as on a full disk; the state has 1 MB.
    options = ("--epochs", 6, "--checkpoint-every", 1, "--resume", half)
    server.start(*options, file_bytes=100_000)
    code, _, errors = server.finish()
    (line,) = [line for line in errors.splitlines() if line.startswith("error: ")]
    assert code == 1 and f"a checkpoint cannot be written into {half / 'checkpoints'}" in line
    assert line.endswith(f"the last good checkpoint is {half / 'checkpoints' / '30'}")
    server.run(*options)
    assert records_of(half) == records_of(uninterrupted)
    assert arrays_of(half, 60) == arrays_of(uninterrupted, 60)


@pytest.fixture
def small_disk(tmp_path, tmp_path_factory):
    """A server that sees a disk of 3 MB, its folder, the folder as we see it, and a remount."""
    folder = tmp_path / "disk"
    folder.mkdir()
    apart = ["unshare", "--map-root-user", "--mount"]
    mount = ["mount", "-t", "tmpfs", "-o", "size=3m", "tmpfs", str(folder)]
    if not shutil.which("unshare") or subprocess.run([*apart, *mount], capture_output=True).stderr:
        pytest.skip("this system lets no user mount a disk")
    then = ["sh", "-c", 'dir=$1; shift; mount -t tmpfs -o size=3m tmpfs "$dir"; exec "$@"', "sh"]
    for server in start_server(tmp_path_factory, *apart, *then, str(folder)):
        process = server.process.pid
        inside = [
            "nsenter",
            "--target",
            str(process),
            "--user",
            "--mount",
            "--preserve-credentials",
        ]

        def remount(options):
            command = [*inside, "mount", "-o", f"remount,{options}", str(folder)]  # noqa: B023
            subprocess.run(command, check=True, capture_output=True)

        yield server, folder, Path(f"/proc/{process}/root{folder}"), remount


@pytest.mark.slow
def test_a_small_disk_fills_up_turns_read_only_and_grows(small_disk, server, tmp_path):
    small, disk, seen, remount = small_disk
    options = "--epochs 12 --checkpoint-every 1 --keep-checkpoints 12".split()
    small.start(*options, "--out", disk)
    code, _, errors = small.finish()
    folder = disk / only_folder(seen).name
    line = f"error: a checkpoint cannot be written into {folder}/checkpoints: "
    line += f"No space left on device; the last good checkpoint is {folder}/checkpoints/"
    assert code == 1 and errors.count("\n") == 1 and errors.startswith(line), errors
    reached = errors.removeprefix(line).strip()
    assert 10 <= int(reached) < 120

    remount("ro,size=3m")
    small.start("--resume", folder, usual=())
    code, _, errors = small.finish()
    assert (code, errors) == (
        2,
        f"error: --resume: {folder} is not writable; give a folder that is\n",
    )
    small.start("--out", disk / "new")
    assert small.finish()[::2] == (
        2,
        f"error: --out: {disk} is not writable; give a folder that is\n",
    )

    remount("rw,size=30m")
    assert f"at step {reached}\n" in small.run("--resume", folder, usual=())
    server.run(*options, "--out", tmp_path / "whole")
    whole = only_folder(tmp_path / "whole")
    assert records_of(only_folder(seen)) == records_of(whole)
    assert arrays_of(only_folder(seen), 120) == arrays_of(whole, 120)


@pytest.mark.slow
def test_a_run_whose_checkpoints_cannot_be_written_ends_in_one_line(server, half):
    shutil.rmtree(half / "checkpoints")
    (half / "checkpoints").write_text("in the way")
    server.start("--epochs", 6, "--checkpoint-every", 1, "--resume", half)
    code, _, errors = server.finish()
    (line,) = errors.splitlines()
    assert code == 1 and line.endswith("; there is no checkpoint")
    assert "a checkpoint cannot be written into" in line
    assert len(records_of(half)) == 1
