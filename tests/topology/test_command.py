"""``python -m cdjax.topology``: the table, the picture, and errors in one line."""

import re
import subprocess
import sys

import numpy as np
import pytest

from cdjax import topology
from cdjax.topology import _plot
from cdjax.topology.__main__ import _SCHEDULES, main
from cdjax.topology._layout import positions
from experiments.run.varying import VARYING

pytestmark = pytest.mark.sampled(3)

DIRECTED = topology.exponential(8, directed=True)  # whose eigenvalues are complex


def table(capsys, *words):
    main([str(word) for word in words])
    return capsys.readouterr().out


@pytest.mark.parametrize(
    ("words", "second", "smallest"),
    [
        ("ring --agents 5", ".539345", "-0.206011"),
        ("ring", ".949253", "-0.333333"),
        ("path --agents 8", ".949253", None),
        ("grid", ".868641", None),
        ("torus", ".600000", "-0.600000"),
        ("torus --agents 16 --weights lazy", ".800000", "0.200000"),
        ("star --agents 4", ".750000", "0.000000"),
        ("complete", ".000000", "0.000000"),
    ],
)
def test_the_table_holds_the_published_eigenvalues(words, second, smallest, capsys):
    text = table(capsys, *words.split())
    assert re.search(rf"^λ2 +0{re.escape(second)}$", text, re.M), text
    if smallest:
        assert re.search(rf"^λN +{re.escape(smallest)}$", text, re.M), text


def test_eigenvalues_are_listed_once_with_how_often_they_occur(capsys):
    # Those of a hypercube of 16: 1 - w * 2k, binomial(4, k) times, with w = 1/5.
    rows = re.findall(r"^ *(-?\d\.\d{6}) +(\d+)$", table(capsys, "hypercube"), re.M)
    assert [(float(value), int(times)) for value, times in rows] == [
        (1.0, 1), (0.6, 4), (0.2, 6), (-0.2, 4), (-0.6, 1)
    ]  # fmt: skip


def test_the_mixes_it_states_are_the_fewest_that_leave_a_hundredth(capsys):
    text = table(capsys, "ring", "--agents", 8)
    steps = int(re.search(r"^mixes to 1% of a disagreement +(\d+)$", text, re.M).group(1))
    sigma = 0.804738
    assert sigma**steps <= 0.01 < sigma ** (steps - 1)


def test_a_file_s_agents_are_listed_by_name(tmp_path, capsys):
    (tmp_path / "offices.edges").write_text("Bonn Oslo\nOslo Rome\n")
    text = table(capsys, tmp_path / "offices.edges")
    assert "offices.edges, 3 agents" in text and re.search(r"^ +1 +Oslo +2$", text, re.M)


@pytest.mark.parametrize(
    ("words", "period", "exact"),
    [
        ("one-peer-exponential", 4, "4"),
        ("one-peer-exponential --agents 12", 4, "never"),
        ("one-peer-hypercube --agents 8", 3, "3"),
        ("base-2 --agents 6", 4, "4"),
        ("base-4 --agents 1", 1, "0"),
    ],
)
def test_the_table_of_a_schedule_says_when_means_are_exact(words, period, exact, capsys):
    text = table(capsys, *words.split())
    assert re.search(rf"^period +{period}$", text, re.M), text
    assert re.search(rf"^mixes to exact means +{exact}$", text, re.M), text
    assert re.search(r"^messages per step and agent +[01]", text, re.M), text


@pytest.mark.parametrize("name", _SCHEDULES)
def test_schedules_have_the_names_and_links_that_runs_have(name):
    ours, theirs = _SCHEDULES[name](8).mean(), VARYING[name].build(8).graph
    np.testing.assert_array_equal(ours.mixing_matrix, theirs.mixing_matrix)


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ("base-2 --weights lazy", "--weights: base-2 has none; leave it out"),
        ("base-2 --degree 1", "--degree: base-2 has none; leave it out"),
        (
            "base-2 --agents 5000",
            "--agents: 5,000 are too many for the table of base-2; give at most 500",
        ),
        ("one-peer-hypercube --agents 7", "nearest are 4 and 8"),
        ("rng", "'rng' is neither a family .ring, .* nor a graph's file"),
        ("torus --agents 7", "nearest sizes that fit are 6 and 8"),
        ("ring --agents many", "argument --agents: invalid int value: 'many'"),
        ("ring --weights best", "argument --weights: invalid choice: 'best'"),
        ("ring --degree 4", "--degree: ring has none; leave it out"),
        ("star --weights uniform", "mixing matrix is not symmetric"),
        ("ring --plot picture.nonsense", "Format 'nonsense' is not supported"),
        ("ring --plot nowhere/picture.png", "nowhere/picture.png: No such file or directory"),
        ("ring --agents 2001 --plot a.png", "2001 agents, and a picture shows at most 2000"),
    ],
)
def test_bad_input_is_one_line(words, message, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(SystemExit) as stop:
        main(words.split())
    out, errors = capsys.readouterr()
    (line,) = errors.splitlines()
    assert stop.value.code == 2 and not out and re.search(f"^error: .*{message}", line), line


@pytest.mark.parametrize(
    ("command", "status"),
    [
        ("python -m cdjax.topology ring | true", "0 0"),
        ("PYTHONIOENCODING=ascii python -m cdjax.topology ring | grep -c 0.949253", "0 0"),
    ],
)
def test_a_reader_that_goes_away_and_another_encoding_are_no_error(command, status):
    command = command.replace("python", sys.executable, 1)
    words = ["bash", "-c", f'{command} > /dev/null; echo "${{PIPESTATUS[@]}}"']
    result = subprocess.run(words, capture_output=True, text=True, check=True)
    assert (result.stdout.strip(), result.stderr) == (status, "")


def test_without_matplotlib_there_is_a_table_and_one_line_for_a_picture(monkeypatch, capsys):
    for name in ("matplotlib", "matplotlib.figure"):
        monkeypatch.setitem(sys.modules, name, None)  # an import raises ModuleNotFoundError
    assert "0.949253" in table(capsys, "ring")
    with pytest.raises(SystemExit):
        main(["ring", "--plot", "a.png"])
    (line,) = capsys.readouterr().err.splitlines()
    assert line.endswith("needs matplotlib; pip install 'cdjax[experiments]'")


@pytest.mark.parametrize("name", ["ring", "star", "grid", "erdos_renyi"])
@pytest.mark.parametrize("num_agents", [1, 4, 100])
def test_agents_stand_apart_in_a_square_and_always_in_the_same_places(name, num_agents):
    graph = topology.create(name, num_agents)
    places = positions(graph)
    assert places.shape == (num_agents, 2) and np.max(np.abs(places)) <= 1 + 1e-12
    np.testing.assert_array_equal(places, positions(graph))
    apart = np.linalg.norm(places[:, None] - places, axis=-1) + np.eye(num_agents)
    assert apart.min() > 1e-3


def test_the_picture_shows_graph_matrix_eigenvalues_and_decay(tmp_path, capsys):
    ring = topology.ring(8)
    graph, matrix, spectrum, decay, *_ = _plot.draw(ring).axes
    assert {text.get_text() for text in graph.texts} == {*"01234567"}
    np.testing.assert_array_equal(matrix.images[0].get_array(), ring.mixing_matrix)
    np.testing.assert_array_equal(spectrum.lines[-1].get_ydata(), ring.eigenvalues)
    worst, impulse = decay.lines
    np.testing.assert_allclose(worst.get_ydata()[:3], 0.804738 ** np.arange(3), rtol=1e-6)
    assert np.all(impulse.get_ydata() <= worst.get_ydata() * (1 + 1e-9))
    text = table(capsys, "ring", "--plot", tmp_path / "ring.png")
    assert "drawn in" in text
    assert (tmp_path / "ring.png").read_bytes().startswith(b"\x89PNG")


@pytest.mark.parametrize("graph", [topology.ring(1), DIRECTED])
def test_one_agent_and_a_directed_graph_can_be_drawn(graph, tmp_path):
    _plot.save(graph, tmp_path / "picture.svg")
    assert (tmp_path / "picture.svg").read_text().count("<g id=") > 20


def test_the_disagreement_of_an_impulse_is_that_of_the_powers_of_the_matrix():
    star = topology.star(5)
    deviation = np.eye(5)[0] - 0.2
    powers = [np.linalg.matrix_power(star.mixing_matrix, k) @ deviation for k in range(4)]
    expected = np.linalg.norm(powers, axis=1) / np.linalg.norm(deviation)
    np.testing.assert_allclose(_plot.disagreement(star, 3), expected, atol=1e-15)
