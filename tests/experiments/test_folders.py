"""A run's folder: who may work in it, and what it holds."""

import json
import os
import signal
import subprocess
import sys
import threading
import zlib
from pathlib import Path
from typing import get_args, get_type_hints

import jax.numpy as jnp
import numpy as np
import pytest

from cdjax import checkpoint, metrics, topology
from experiments.compare.config import Compare
from experiments.convex.config import Convex
from experiments.figures.config import Figures
from experiments.robustness.config import Robustness
from experiments.run import display, files, resume
from experiments.run.config import Run, flat, paths_expanded, replaced
from experiments.run.errors import UsageError
from experiments.run.job import prepare
from experiments.run.progress import beginning

ROOT = Path(__file__).parents[2]
SQUARE = "0 1\n1 2\n2 3\n3 0\n"


@pytest.fixture(scope="module")
def job(tmp_path_factory):
    """A job on a graph that has a file."""
    edges = tmp_path_factory.mktemp("graph") / "square.edges"
    edges.write_text(SQUARE)
    small = {"train_samples": 64, "test_samples": 16, "batch_size": 8, "dataset": "digits"}
    return prepare(replaced(Run(), model="softmax", topology=str(edges), epochs=1, **small))


def begun(job, folder):
    """The folder of the job once it has started."""
    folder.mkdir()
    files.write_options(job, folder)
    files.write_graph(job, folder)
    return folder


def test_runs_that_start_in_one_instant_have_a_folder_each(job, tmp_path):
    for attempt in range(20):
        here = job._replace(run=replaced(job.run, out=tmp_path / str(attempt)))
        barrier, made = threading.Barrier(6), []

        def make(here=here, barrier=barrier, made=made):
            barrier.wait()
            made.append(files.make_folder(here, None))

        threads = [threading.Thread(target=make) for _ in range(6)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert len({*made}) == 6 and all(folder.is_dir() for folder in made)


def test_the_name_of_a_folder_is_no_longer_than_a_disk_allows(job, tmp_path):
    run = replaced(job.run, topology="x" * 250, out=tmp_path)
    assert files.make_folder(job._replace(run=run), None).is_dir()


def test_a_second_process_at_work_in_a_folder_is_refused(tmp_path):
    with files.at_work(tmp_path, "--resume"):
        with pytest.raises(UsageError, match="--resume: another process is at work in .*; wait"):
            with files.at_work(tmp_path, "--resume"):
                pass
        with files.at_work(tmp_path.parent, "--out"):
            pass
    with files.at_work(tmp_path, "--resume"):
        pass


@pytest.mark.slow
def test_the_folder_of_a_process_that_was_killed_is_free(tmp_path):
    program = (
        "import sys, time; from pathlib import Path; from experiments.run.files import at_work\n"
        "with at_work(Path(sys.argv[1]), '--out'): print('at work', flush=True); time.sleep(99)"
    )
    words = [sys.executable, "-c", program, str(tmp_path)]
    with subprocess.Popen(words, cwd=ROOT, stdout=subprocess.PIPE) as process:
        process.stdout.readline()
        with pytest.raises(UsageError, match="--out: another process"):
            with files.at_work(tmp_path, "--out"):
                pass
        process.send_signal(signal.SIGKILL)
    with files.at_work(tmp_path, "--out"):
        pass


def test_where_the_system_has_no_locks_nobody_is_refused(tmp_path, monkeypatch):
    monkeypatch.setattr(files, "fcntl", None)
    with files.at_work(tmp_path, "--out"), files.at_work(tmp_path, "--out"):
        assert not [*tmp_path.iterdir()]


def test_a_run_goes_on_with_the_graph_in_its_folder(job, tmp_path):
    folder = begun(job, tmp_path / "run")
    matrix = job.network.topology.mixing_matrix
    np.testing.assert_array_equal(files.read_mixing_matrix(folder), matrix)
    assert (folder / "graph" / "square.edges").read_text() == SQUARE
    moved = folder.rename(tmp_path / "moved")
    run = resume.recorded_options(moved)
    assert run.network.topology == str(moved / "graph" / "square.edges")

    again = prepare(replaced(run, resume=moved))
    again, progress = resume.resumed(again, None)
    assert progress.records == []
    np.testing.assert_array_equal(again.network.topology.mixing_matrix, matrix)
    before = (moved / "config.json").read_text()
    files.write_options(again, moved)
    files.write_graph(again, moved)
    written, before = json.loads((moved / "config.json").read_text()), json.loads(before)
    assert {name for name in before if written[name] != before[name]} == {"resume", "checksum"}
    assert written["topology"] == job.run.network.topology


def test_another_file_is_taken_if_it_has_the_same_graph_and_refused_otherwise(job, tmp_path):
    folder = begun(job, tmp_path / "run")
    run = replaced(resume.recorded_options(folder), resume=folder)
    (tmp_path / "other.edges").write_text("3 2\n0 3\n2 1\n1 0\n")
    resume.resumed(prepare(replaced(run, topology=str(tmp_path / "other.edges"))), None)
    (tmp_path / "other.edges").write_text("0 1\n1 2\n2 3\n")
    other = prepare(replaced(run, topology=str(tmp_path / "other.edges")))
    with pytest.raises(UsageError, match="--topology: not what the run in .* had; give the same"):
        resume.resumed(other, None)


@pytest.mark.parametrize("algorithm", ["choco", "beer"])
@pytest.mark.parametrize(
    ("before", "here", "remedy"), [(1, 4, "give --devices 1$"), (4, 1, "give --devices 4, or")]
)
@pytest.mark.sampled(4)
def test_compressed_messages_go_on_on_one_device_or_on_several_as_before(
    algorithm, before, here, remedy, job, tmp_path
):
    options = {"algorithm": algorithm, "momentum": None, "topology": "ring", "agents": 4}
    first = prepare(replaced(job.run, devices=str(before), **options))
    folder = begun(first, tmp_path / "run")
    with checkpoint.writing(files.checkpoints_of(folder)) as checkpoints:
        save = resume.saver(checkpoints, first)
        save(first.state._replace(step=jnp.int32(1)), beginning(first), True)
    again = replaced(first.run, resume=folder)
    found = resume.find(again)
    message = f"--devices: the run in .* was on {before}, and here is {here}; .* {remedy}"
    with pytest.raises(UsageError, match=message):
        resume.resumed(prepare(replaced(again, devices=str(here))), found)
    assert int(resume.resumed(prepare(again), found)[0].state.step) == 1


def test_what_tells_graphs_apart_needs_no_whole_matrix(monkeypatch):
    graph = topology.torus(12)
    whole, entries = graph.mixing_matrix, topology.torus(12).entries
    monkeypatch.setattr(topology.Topology, "mixing_matrix", property(lambda self: 1 / 0))
    assert entries.checksum() == zlib.crc32(np.ascontiguousarray(whole))
    assert entries.equals(graph.entries) and not entries.equals(topology.ring(12).entries)
    params = {"w": jnp.ones((12, 5))}
    assert metrics.bytes_sent(params, graph) == 20 * np.count_nonzero(
        whole - np.diag(whole.diagonal())
    )


@pytest.mark.slow
def test_a_run_never_makes_the_whole_matrix_of_a_sparse_graph(job, monkeypatch, tmp_path):
    monkeypatch.setattr(topology.Topology, "mixing_matrix", property(lambda self: 1 / 0))
    ring = prepare(replaced(job.run, topology="ring", agents=8))
    folder = begun(ring, tmp_path / "run")
    with checkpoint.writing(files.checkpoints_of(folder)) as checkpoints:
        resume.saver(checkpoints, ring)(
            ring.state._replace(step=jnp.int32(1)), beginning(ring), True
        )
    again = replaced(ring.run, resume=folder)
    resume.resumed(prepare(again), resume.find(again))
    resume.resumed(prepare(again), None)
    assert " by an agent, " in display._by_agent_and_edge(ring)


def test_the_graph_of_a_family_is_kept_too(job, tmp_path):
    star = prepare(replaced(job.run, topology="star", agents=3, without_agents=(2,)))
    folder = begun(star, tmp_path / "run")
    assert [path.name for path in (folder / "graph").iterdir()] == ["mixing_matrix.npz"]
    matrix = star.network.topology.mixing_matrix
    np.testing.assert_array_equal(files.read_mixing_matrix(folder), matrix)
    assert resume.recorded_options(folder).network.topology == "star"


@pytest.mark.parametrize(
    ("harm", "flaw"),
    [
        (lambda text: text[:100], "damaged: Unterminated|damaged: Expecting"),
        (lambda text: "", "damaged: Expecting value"),
        (lambda text: "[1, 2]", "damaged: it holds no options"),
        (lambda text: text.replace('"agents": 4', '"agents": 5'), "damaged: its checksum is not"),
        (lambda text: text.replace('"agents": 4,', ""), "damaged: its checksum is not"),
        (lambda text: "\udcff\udc80", "damaged: .*utf-8"),
    ],
)
def test_options_that_are_damaged_are_named(harm, flaw, job, tmp_path):
    folder = begun(job, tmp_path / "run")
    path = folder / "config.json"
    path.write_bytes(os.fsencode(harm(path.read_text())))
    with pytest.raises(UsageError, match=f"--resume: {path} is {flaw}"):
        resume.recorded_options(folder)


@pytest.mark.parametrize("study", [Run, Compare, Convex, Figures, Robustness])
def test_every_path_may_begin_with_the_home_of_a_user(study, monkeypatch, tmp_path):
    monkeypatch.setenv("HOME", str(tmp_path))

    def paths_of(part):
        hints = get_type_hints(type(part))
        own = [name for name, hint in hints.items() if Path in (hint, *get_args(hint))]
        inner = [getattr(part, name) for name in hints if hasattr(getattr(part, name), "__dict__")]
        return own + [name for one in inner if not isinstance(one, Path) for name in paths_of(one)]

    names = {*paths_of(study())}
    assert "out" in names
    given = {name: Path("~/a b") for name in names}
    expanded = flat(paths_expanded(replaced(study(), **given)))
    assert {name: expanded[name] for name in names} == {name: tmp_path / "a b" for name in names}


def test_the_file_of_a_graph_may_begin_with_the_home_of_a_user(monkeypatch, tmp_path):
    monkeypatch.setenv("HOME", str(tmp_path))
    run = paths_expanded(replaced(Run(), topology="~/g.edges"))
    assert run.network.topology == str(tmp_path / "g.edges")
    assert paths_expanded(Run()) == Run()
