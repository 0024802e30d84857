"""The page that a run leaves: whole, safe, readable without colours, and the run's own numbers."""

import html
import io
import math
import re
from html.parser import HTMLParser

import numpy as np
import pytest
from rich.console import Console

from experiments.report import svg
from experiments.report.page import Agent, Facts, page, size
from experiments.run import files
from experiments.run import page as run_page
from experiments.run.config import Run, replaced
from experiments.run.errors import Diverged, RunEnded
from experiments.run.runner import run

VOID = {"meta", "link", "br", "img", "input", "hr"}
SMALL = replaced(
    Run(), model="softmax", dataset="digits", train_samples=160, test_samples=40, batch_size=8,
    topology="ring", agents=4, epochs=1, devices="1",
)  # fmt: skip


class Tree(HTMLParser):
    """Checks that tags nest, and gathers what a test asks for."""

    def __init__(self, text):
        super().__init__(convert_charrefs=True)
        self.open, self.ids, self.tags, self.text = [], [], [], []
        self.feed(text)
        self.close()
        assert self.open == []

    def handle_starttag(self, tag, attributes):
        self.tags.append((tag, dict(attributes)))
        self.ids += [value for name, value in attributes if name == "id"]
        if tag not in VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag, attributes):
        self.tags.append((tag, dict(attributes)))

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, data):
        self.text.append(data)

    def all(self, tag):
        return [attributes for name, attributes in self.tags if name == tag]


def record(epoch, **changes):
    return {
        "dataset": "digits", "epoch": epoch, "step": 5 * epoch, "test_loss": 0.5,
        "train_loss_mean": 1 / epoch, "train_accuracy_mean": 0.9, "test_loss_mean": 0.5,
        "test_accuracy_mean": 0.8, "test_accuracy_min": 0.7, "test_accuracy_max": 0.9,
        "test_accuracy_variance": 0.01, "mean_params_test_accuracy": 0.85,
        "consensus_distance": 0.1, "consensus_bound": 2.0, "bytes_sent": 1000 * epoch,
        "seconds": 3.0 * epoch,
    } | changes  # fmt: skip


def facts(num_agents=3, *, records=None, **changes):
    agents = [Agent(f"a{j}", 0.7 + 0.1 * j, 0.5, 2, [3, j]) for j in range(num_agents)]
    places = np.stack([np.linspace(-1, 1, num_agents), np.zeros(num_agents)], axis=1)
    edges = [(j, j + 1) for j in range(num_agents - 1)]
    found = Facts(
        title="cdmsgd on digits, ring", warnings=[], agents=agents, places=places, edges=edges,
        records=[record(1), record(2)] if records is None else records,
        about={"topology": "ring, 3 agents"}, options={"network": {"agents": 3, "weights": "lazy"}},
        given=frozenset({"agents"}), versions={"jax": "0.10.2"},
    )  # fmt: skip
    return found._replace(**changes)


def checked(text):
    """The page as a tree, after what holds for every page."""
    tree = Tree(text)
    assert len(tree.ids) == len(set(tree.ids))
    assert not re.search(r"https?:|//[a-z]|url\(|@import", text)
    for _, attributes in tree.tags:
        assert not attributes.get("src") and not any(name.startswith("on") for name in attributes)
        target = attributes.get("href", "#content")
        assert target == "data:," or target.removeprefix("#") in tree.ids
    assert not tree.all("script")
    pictures = [a for a in tree.all("svg") if a.get("aria-hidden") != "true"]
    assert pictures or "There has been no evaluation" in text
    assert all(a["role"] == "img" and a["aria-label"] for a in pictures)
    for tag in ("path", "circle", "line", "rect", "polygon", "text"):
        for attributes in tree.all(tag):
            numbers = " ".join(str(value) for value in attributes.values())
            assert not re.search(r"\b(nan|inf)\b", numbers), attributes
    scrolled = [a for a in tree.all("div") if a.get("role") == "region"]
    assert all(a["tabindex"] == "0" and a["aria-label"] for a in scrolled)
    assert "prefers-color-scheme:dark" in text and tree.all("html") == [{"lang": "en"}]
    return tree


def test_a_page_says_the_last_numbers_and_draws_every_agent():
    text = page(facts())
    tree = checked(text)
    for found in ("80.00 %", "70.00 % to 90.00 %", "85.00 %", "bound 2", "2 kB", "6.0 s"):
        assert found in text
    labels = [a["aria-label"] for a in tree.all("svg") if "aria-label" in a]
    assert any("measured from 0.1 to 0.1; bound of Proposition 1 from 2 to 2" in x for x in labels)
    assert any("3 agents, 2 edges, from 70.00 % to 90.00 %" in label for label in labels)
    for tooltip in ("a1: 80.00 %", "a2, class 1: 2"):
        assert tooltip in tree.text
    assert re.search(r'<tr class=given><th scope="row">agents</th><td>3</td>', text)


def test_a_graph_is_shown_where_agents_talk_along_it_and_else_the_agents():
    title = "coloured by each one's test accuracy"
    assert f"Who talks to whom, {title}" in html.unescape(page(facts()))
    assert f"The agents, {title}" in html.unescape(page(facts(edges=[])))


@pytest.mark.parametrize(
    "changes",
    [
        {"num_agents": 1, "records": [record(1, bytes_sent=0, consensus_distance=0.0)]},
        {"records": []},
        {"records": [record(1)]},
        {"records": [record(1, train_loss_mean=math.nan), record(2, test_loss_mean=math.inf)]},
        {"records": [record(k, test_accuracy_min=math.nan) for k in (1, 2, 3)]},
        {"records": [{k: v for k, v in record(1).items() if k != "consensus_bound"}]},
        {"records": [record(k) for k in range(1, 5000)]},
        {"num_agents": 600},
        {"places": None},
        {"agents": [Agent("0", None, None, 0, [1, 2], "malicious")], "edges": [],
         "places": np.zeros((1, 2))},
        {"agents": [Agent("0", math.nan, math.inf, 0, [], "")], "edges": [],
         "places": np.zeros((1, 2))},
    ],
    ids=["one agent", "no record", "one record", "not finite", "gaps", "no bound", "long", "many",
         "no places", "malicious", "diverged"],
)  # fmt: skip
def test_whatever_a_run_has_or_lacks_its_page_is_whole(changes):
    text = page(facts(**changes))
    checked(text)
    assert len(text) < 1_000_000


def test_names_and_paths_cannot_write_the_page():
    bad = '<script>alert("1")</script>&'
    agents = [Agent(bad, 0.5, 0.5, 1, [1, 1], bad)] * 3
    options = {bad: {bad: bad}}
    made = facts(agents=agents, about={bad: bad}, options=options, versions={bad: bad})
    text = page(made._replace(title=bad, warnings=[bad], records=[record(1, dataset=bad)]))
    tree = checked(text)
    assert "<script" not in text and html.escape(bad) in text
    assert bad in tree.text


def test_a_band_and_lines_are_where_their_numbers_are():
    line = svg.Line("test", [0, 10], [0, 100], low=[0, 50], high=[0, 100])
    text = svg.chart([line], title="t", x_label="x", y_label="y")
    (path,) = re.findall(r'<path class="line c0 solid" d="([^"]+)"/><circle', text)
    (x0, y0), (x1, y1) = [map(float, point.split()) for point in re.split("[ML]", path)[1:]]
    assert x0 < x1 and y0 > y1  # upwards
    assert len(re.search(r'points="([^"]+)"', text).group(1).split()) == 8


@pytest.mark.parametrize("values", [[1e-3, 1e3], [0.5, 0.6], [3, 3], [1, 2, 4]])
def test_a_logarithmic_axis_has_at_least_two_numbers_within(values):
    line = svg.Line("loss", range(len(values)), values)
    text = svg.chart([line], title="t", x_label="x", y_label="y", log=True)
    ticks = [float(tick) for tick in re.findall(r'class="tick end"[^>]*>([^<]+)<', text)]
    if max(values) > 3 * min(values):
        assert len(ticks) >= 2
    assert all(min(values) / 1.3001 <= tick <= max(values) * 1.3001 for tick in ticks)


@pytest.mark.parametrize(
    ("number", "text"),
    [(0, "0 bytes"), (999, "999 bytes"), (27.8e9, "27.8 GB"), (1e21, "1e+06 PB")],
)
def test_bytes_are_read_in_their_unit(number, text):
    assert size(number) == text


def test_a_run_leaves_a_page_with_each_agent_s_own_accuracy(tmp_path, capsys):
    options = replaced(SMALL, out=tmp_path, attack="sign-flip", malicious=1, mixer="median")
    records = run(options, folder=tmp_path / "run")
    text = (tmp_path / "run" / "report.html").read_text(encoding="utf-8")
    checked(text)
    found = files.read_agents(tmp_path / "run")
    accuracies = [one["test_accuracy"] for one in found.values()]
    assert [*found] == ["0", "1", "2"]
    assert np.mean(accuracies) == pytest.approx(records[-1]["test_accuracy_mean"])
    assert min(accuracies) == pytest.approx(records[-1]["test_accuracy_min"])
    assert "<td>malicious</td>" in text and f"{accuracies[0]:.2%}".replace("%", " %") in text
    assert "report.html" in capsys.readouterr().out


@pytest.mark.slow
def test_a_run_that_ends_early_leaves_a_page_that_says_why(tmp_path, capsys):
    options = replaced(SMALL, learning_rate=1e38, momentum=0.99, epochs=20)
    with pytest.raises(Diverged):
        run(options, folder=tmp_path)
    text = (tmp_path / "report.html").read_text(encoding="utf-8")
    checked(text)
    assert re.search("Ended early: agents? .* diverged in step", text)


def test_a_page_that_fails_is_a_warning_and_the_run_ends_as_it_would(tmp_path, monkeypatch):
    monkeypatch.setattr(run_page, "facts_of", lambda *args, **options: 1 / 0)
    console, job, shown = Console(file=io.StringIO(), width=200), None, None
    with run_page.left_in(tmp_path, job, shown=shown, console=console):
        pass
    with pytest.raises(RunEnded, match="^diverged$"):
        with run_page.left_in(tmp_path, job, shown=shown, console=console):
            raise RunEnded("diverged")
    line = "warning: report.html could not be written (ZeroDivisionError: division by zero)"
    assert console.file.getvalue().splitlines() == [line, line]
    assert [*tmp_path.iterdir()] == []
