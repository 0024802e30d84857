"""Runs of several processes, as their users start them."""

import json
import os
import re
import shutil
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

import pytest

from cdjax import checkpoint
from experiments.run.agreement import common_folder
from experiments.run.errors import UsageError

ROOT = Path(__file__).parents[2]
OPTIONS = "--agents 8 --topology ring --model softmax --batch-size 8".split()


def free_port():
    with socket.create_server(("127.0.0.1", 0)) as server:
        return server.getsockname()[1]


def start(*options, devices=1):
    flags = f"--xla_force_host_platform_device_count={devices}"
    return subprocess.Popen(
        [sys.executable, "-m", "experiments.digits", *OPTIONS, *map(str, options)],
        cwd=ROOT, env=os.environ | {"XLA_FLAGS": flags, "COLUMNS": "200"}, text=True,
        stdout=subprocess.PIPE, stderr=subprocess.PIPE, start_new_session=True,
    )  # fmt: skip


def start_all(num_processes, *options, devices=1):
    address = f"127.0.0.1:{free_port()}"
    common = ("--coordinator", address, "--num-processes", num_processes, *options)
    ids = range(num_processes)
    return [start(*common, "--process-id", i, devices=devices) for i in ids]


def finish(processes, seconds=120):
    """Exit code, output and errors of each; ends what is left, children and all."""
    deadline, results = time.monotonic() + seconds, []
    try:
        for process in processes:
            out, err = process.communicate(timeout=max(1, deadline - time.monotonic()))
            results.append((process.returncode, out, err))
    finally:
        for process in processes:
            if process.poll() is None:
                os.killpg(process.pid, signal.SIGKILL)
                process.wait()
    return results


def only_run(out):
    (folder,) = out.iterdir()
    records = [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]
    return [{k: v for k, v in record.items() if k != "seconds"} for record in records]


def test_two_processes_of_two_devices_record_what_one_process_does(tmp_path):
    options = ("--epochs", 2, "--algorithm", "cdmsgd")
    together = start_all(2, *options, "--out", tmp_path / "two", devices=2)
    (code, output, errors), (other_code, other_output, _) = finish(together)
    assert (code, other_code) == (0, 0), errors
    assert "4 × cpu" in output
    assert all(line.startswith("[Gloo]") for line in other_output.splitlines())
    ((code, _, errors),) = finish([start(*options, "--devices", 1, "--out", tmp_path / "one")])
    assert code == 0, errors
    two, one = only_run(tmp_path / "two"), only_run(tmp_path / "one")
    for record, expected in zip(two, one, strict=True):
        assert record.pop("dataset") == expected.pop("dataset") == "digits"
        assert record == pytest.approx(expected, rel=1e-4)


def test_processes_go_on_together_from_a_checkpoint_and_alone(tmp_path):
    options = ("--checkpoint-every", 1, "--keep-checkpoints", 9, "--algorithm", "cdmsgd")
    for name, devices in (("half", 1), ("whole", 2)):
        epochs = 3 if name == "half" else 6
        together = start_all(2, *options, "--epochs", epochs, "--out", tmp_path / name,
                             devices=devices)  # fmt: skip
        for code, _, errors in finish(together):
            assert code == 0, errors
    (half,), (whole,) = ((tmp_path / name).iterdir() for name in ("half", "whole"))
    shutil.copytree(half, tmp_path / "alone")
    assert checkpoint.steps(half / "checkpoints") == [22, 44, 66]

    for code, _, errors in finish(start_all(2, "--resume", half, "--epochs", 6)):
        assert code == 0, errors
    resumed = [start("--resume", tmp_path / "alone", "--epochs", 6, "--devices", 1)]
    ((code, output, errors),) = finish(resumed)
    assert code == 0 and "at step 66\n" in output, errors
    (tmp_path / "other").mkdir()
    (tmp_path / "alone").rename(tmp_path / "other" / "alone")
    for record, expected, by_one in zip(
        only_run(tmp_path / "half"), only_run(tmp_path / "whole"), only_run(tmp_path / "other"),
        strict=True,
    ):  # fmt: skip
        for each in (record, expected, by_one):
            assert each.pop("dataset") == "digits"
        assert record == pytest.approx(expected, rel=1e-4)
        assert by_one == pytest.approx(expected, rel=1e-4)


def test_a_folder_that_a_process_does_not_see_is_named(tmp_path):
    assert common_folder(tmp_path) == tmp_path
    with pytest.raises(UsageError, match="--out: process 0 does not see .*/nowhere; give a folder"):
        common_folder(tmp_path / "nowhere")


def test_a_signal_to_one_saves_all_and_they_go_on_to_the_same_end(tmp_path):
    options = ("--checkpoint-every", 100, "--eval-every", 2, "--algorithm", "cdsgd")
    processes = start_all(2, *options, "--epochs", 100_000, "--out", tmp_path / "half")
    deadline = time.monotonic() + 100
    while not any(path.stat().st_size for path in tmp_path.rglob("metrics.jsonl")):
        assert time.monotonic() < deadline and all(p.poll() is None for p in processes)
        time.sleep(0.05)
    processes[1].terminate()
    results = finish(processes, seconds=60)
    (folder,) = (tmp_path / "half").iterdir()
    (step,) = checkpoint.steps(folder / "checkpoints")
    line = f"stopped: SIGTERM after {step} steps; go on with --resume {folder}"
    assert [code for code, _, _ in results] == [143, 143]
    for _, _, errors in results:
        lines = [line for line in errors.splitlines() if line and not line.startswith("[Gloo]")]
        assert lines == [line]

    more = ("--epochs", step // 22 + 3)
    for code, _, errors in finish(start_all(2, "--resume", folder, *more)):
        assert code == 0, errors
    for code, _, errors in finish(start_all(2, *options, *more, "--out", tmp_path / "whole")):
        assert code == 0, errors
    for record, expected in zip(
        only_run(tmp_path / "half"), only_run(tmp_path / "whole"), strict=True
    ):
        assert record.pop("dataset") == expected.pop("dataset")
        assert record == pytest.approx(expected, rel=1e-4)


@pytest.mark.parametrize("victim", [0, 1])
def test_the_death_of_a_process_ends_the_others_with_its_name(victim, tmp_path):
    keep = ("--checkpoint-every", 1) if victim else ()
    processes = start_all(2, "--epochs", 100_000, "--out", tmp_path, *keep)
    metrics = Path("metrics.jsonl")
    deadline = time.monotonic() + 100
    while not any(path.stat().st_size for path in tmp_path.rglob(metrics.name)):
        assert time.monotonic() < deadline and all(p.poll() is None for p in processes)
        time.sleep(0.1)
    processes[victim].kill()
    killed = time.monotonic()
    results = finish(processes, seconds=60)
    assert time.monotonic() - killed < 60
    code, _, errors = results[1 - victim]
    assert code == 1
    line = f"error: process {victim} has died, so the run cannot go on; the metrics so far are kept"
    line += "; start all processes again with --resume" if victim else ""
    assert errors.rstrip().endswith(line)


def test_an_option_wrong_in_every_process_is_each_ones_one_line(tmp_path):
    results = finish(start_all(2, "--agents", 5, "--out", tmp_path / "out"))
    for code, _, errors in results:
        lines = [line for line in errors.splitlines() if not line.startswith("[Gloo]")]
        assert code == 2
        assert lines == [
            "error: --devices: 5 agents do not divide among 2 devices; take 4 or 6 agents, or 1 "
            "device"
        ]
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ("--coordinator 127.0.0.1:1", "--coordinator: it takes --num-processes and --process-id"),
        ("--coordinator nowhere --num-processes 2 --process-id 0", "'nowhere' is not .* HOST:PORT"),
        (
            "--coordinator 127.0.0.1:9 --num-processes 2 --process-id 2",
            "--process-id: 2 is none of",
        ),
        ("--coordinator 127.0.0.1:9 --num-processes 0 --process-id 0", "--num-processes: 0 is too"),
        ("--coordinator 192.0.2.1:9 --num-processes 2 --process-id 0", "cannot listen at 192.0.2"),
        ("--devices 3", "--devices: num_devices is 3, but JAX finds 1; give at most 1"),
        ("--devices some", "--devices: 'some' is neither a number, all nor auto"),
    ],
)
def test_bad_input_is_one_line_that_names_the_option(options, message, tmp_path):
    ((code, _, errors),) = finish([start(*options.split(), "--out", tmp_path / "out")])
    assert code == 2
    (line,) = errors.splitlines()
    assert line.startswith("error: --") and re.search(message, line)


@pytest.mark.slow
@pytest.mark.parametrize("process_id", [0, 1])
def test_who_is_alone_gives_up_within_a_minute(process_id, tmp_path):
    address = f"127.0.0.1:{free_port()}"
    common = ("--coordinator", address, "--num-processes", 2, "--process-id", process_id)
    ((code, _, errors),) = finish([start(*common, "--out", tmp_path)], seconds=60)
    assert code == 2
    assert re.search("did not come within" if process_id == 0 else "cannot be reached", errors)
