"""The documentation site: its pages, links, reference, gallery and notebooks."""

import ast
import importlib.util
import json
import re
import warnings
import xml.etree.ElementTree as ElementTree
from pathlib import Path

import jax
import numpy as np
import pytest

import cdjax
from tests.test_package import MODULES, PUBLIC

ROOT = Path(__file__).parents[1]
DOCS = ROOT / "docs"
NOTEBOOKS = sorted((DOCS / "notebooks").glob("*.ipynb"))
PAGES = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", *sorted(DOCS.rglob("*.md"))]
HAS_MKDOCS = all(map(importlib.util.find_spec, ["mkdocs", "mkdocstrings", "latex2mathml"]))
NEEDS_MKDOCS = pytest.mark.skipif(not HAS_MKDOCS, reason="needs pip install 'cdjax[docs]'")
LINK = re.compile(r"\]\((?!\w+:)([^)\s#]*)#?([^)\s]*)\)")


@pytest.fixture
def hooks(monkeypatch):
    """The folder of hooks in front of the import path, as mkdocs has it."""
    monkeypatch.syspath_prepend(str(DOCS / "hooks"))


def anchors(page):
    """What GitHub and the site call the headings of a page."""
    headings = re.findall(r"^#+ (.+)$", page.read_text(), re.M)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_a_link_leads_to_a_file_and_a_heading(page):
    text = re.sub(r"^```.*?^```$", "", page.read_text(), flags=re.M | re.S)
    for link, anchor in LINK.findall(text):
        target = (page.parent / link).resolve() if link else page
        assert target.exists(), link
        assert not anchor or anchor in anchors(target), anchor


def test_every_page_is_in_the_navigation():
    text = (ROOT / "mkdocs.yml").read_text()
    for page in sorted(DOCS.rglob("*.md")):
        assert f" {page.relative_to(DOCS)}\n" in text
    for notebook in NOTEBOOKS:
        assert f" notebooks/{notebook.stem}.md\n" in text
    for script in (ROOT / "examples").glob("*.py"):
        assert f" examples/{script.stem}.md\n" in text


@NEEDS_MKDOCS
def test_every_public_module_has_a_page_with_all_of_its_functions_and_classes(hooks):
    import docstrings

    modules = [name.removeprefix("cdjax.") for name in MODULES[1:]]
    assert sorted(docstrings.public_modules()) == sorted(modules)
    documented = {path.removeprefix("cdjax.") for path in docstrings.public_paths().values()}
    assert set(PUBLIC) - {"Mixer"} <= documented  # a protocol, which the page of words explains


@NEEDS_MKDOCS
def test_the_reference_names_each_function_once(hooks):
    import docstrings
    import reference

    pages = "".join(map(reference.page, reference.modules()))
    for path in docstrings.public_paths().values():
        assert len(re.findall(rf"^::: {re.escape(path)}$", pages, re.M)) == 1
    assert set(docstrings.public_modules()) == set(reference.modules())


MARKDOWN = {
    "the weight :math:`\\Pi_{jl}`.": "the weight $\\Pi_{jl}$.",
    "A.\n\n.. math:: x^+ = \\Pi x\n          - \\alpha g\n\nB.": (
        "A.\n\n\n$$\nx^+ = \\Pi x\n- \\alpha g\n$$\n\nB."
    ),
    ".. math::\n    a &= b \\\\\n    c &= d\n": (
        "\n$$\n\\begin{aligned}a &= b \\\\\nc &= d\\end{aligned}\n$$\n\n"
    ),
    "see :func:`cdmsgd`": "see [`cdmsgd`][cdjax.cdmsgd]",
    "see :func:`cdjax.mixing.every`": "see [`cdjax.mixing.every`][cdjax.mixing.every]",
    "see :mod:`cdjax.training`": "see [`cdjax.training`][cdjax.training]",
    "see :func:`cdjax.mixing.random_regular`": (
        "see [`cdjax.mixing.random_regular`][cdjax.mixing.random_regular]"
    ),
    "see :class:`jax.Array`": "see `jax.Array`",
    "Example: ``f(1)``": "**Example**\n\n```python\nf(1)\n```\n",
    "Example::\n\n    x = 1\n    y = 2\n\nB": "**Example**\n\n```python\nx = 1\ny = 2\n```\n\nB",
    "Reference: eq. 5.": "**Reference:** eq. 5.",
    "====  ===\na     b\n====  ===\n1     2\n====  ===": "| a | b |\n| --- | --- |\n| 1 | 2 |",
}


@NEEDS_MKDOCS
@pytest.mark.parametrize(("text", "expected"), MARKDOWN.items(), ids=range(len(MARKDOWN)))
def test_a_docstring_becomes_markdown(text, expected, hooks):
    import docstrings

    assert docstrings.to_markdown(text) == expected


@NEEDS_MKDOCS
def test_nothing_of_restructuredtext_is_left_in_a_docstring(hooks):
    import docstrings

    for path in sorted((ROOT / "cdjax").rglob("*.py")):
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.Module | ast.ClassDef | ast.FunctionDef):
                text = docstrings.to_markdown(ast.get_docstring(node) or "")
                text = re.sub(r"```.*?```|``?[^`]+``?", "", text, flags=re.S)
                assert not re.search(r":\w+:`|^ *\.\. |::$|^=+  ", text, re.M), (path, text)


@NEEDS_MKDOCS
def test_equations_become_mathml(hooks):
    import equations

    marked = r'<p>so <span class="arithmatex">\(\Pi x &lt; |\sigma|\)</span>.</p>'
    page = type("Page", (), {"file": type("File", (), {"src_uri": "page.md"})})
    turned = equations.on_page_content(marked, page)
    root = ElementTree.fromstring(turned)
    math = root.find("{http://www.w3.org/1998/Math/MathML}math")
    assert "".join(math.itertext()) == "Πx<|σ|"
    assert "\\" not in turned


def test_the_table_of_spectra_is_that_of_the_library(hooks):
    import gallery

    (written,) = gallery.TABLE.finditer(gallery.PAGE.read_text())
    assert written[0].removeprefix(written[1]).removesuffix(written[2]) == gallery.table(), (
        "python docs/hooks/gallery.py writes it"
    )


def test_steps_to_a_tenth_are_the_librarys_time_to_consensus(hooks):
    import gallery

    for graph in gallery.families(8).values():
        assert gallery.steps_to_a_tenth(graph) == cdjax.topology.consensus_time(graph, 0.1)


def test_a_picture_shows_each_agent_edge_and_eigenvalue(hooks):
    import gallery

    pictures = ElementTree.fromstring(gallery.pictures())
    figures = {figure.get("id"): figure for figure in pictures}
    assert set(figures) == set(cdjax.topology.FAMILIES)
    for name, figure in figures.items():
        graph = cdjax.topology.create(name, gallery.NUM_AGENTS)
        circles = [(float(c.get("cx")), float(c.get("cy"))) for c in figure.iter("circle")]
        assert len(set(circles)) == len(circles) == graph.num_agents
        assert np.min(circles) > 5 and np.max(circles) < gallery._WIDTH - 5
        edges, axis, *eigenvalues = figure.iter("path")
        assert edges.get("d").count("M") == graph.graph.number_of_edges()
        assert len(eigenvalues) == graph.num_agents
        assert f"σ = {1 - graph.spectral_gap:.3f}" in figure.find("svg").get("aria-label")


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
@pytest.mark.sampled(2)
def test_a_notebook_runs(path, hooks, monkeypatch):
    import matplotlib
    import notebooks

    matplotlib.use("agg")
    monkeypatch.chdir(path.parent)
    with jax.numpy_rank_promotion("allow"), warnings.catch_warnings():
        cells = notebooks.run(path)
    assert any(cell.printed for cell in cells)
    # A picture has a text for who cannot see it.
    assert all(cell.alt for cell in cells if cell.pictures)


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_a_notebook_is_plain_python_without_output(path):
    cells = json.loads(path.read_text())["cells"]
    code = ["".join(cell["source"]) for cell in cells if cell["cell_type"] == "code"]
    assert all(map(ast.parse, code))
    assert not any(cell.get("outputs") or cell.get("execution_count") for cell in cells)


LED = {
    ("docs/your-code.md", "../examples/ppo.py"): "examples/ppo.md",
    ("docs/index.md", "notebooks/first-run.ipynb"): "notebooks/first-run.md",
    ("docs/notebooks/own-algorithm.md", "../../CONTRIBUTING.md"): "../contributing.md",
    ("CONTRIBUTING.md", "docs/scale.md"): "scale.md",
    ("docs/speed.md", "../benchmarks/results"): "benchmarks/results/index.md",
    ("docs/topologies.md", "../cdjax/topology"): "reference/topology.md",
    ("docs/topologies.md", "../cdjax/metrics.py"): "reference/metrics.md",
    ("docs/speed.md", "../cdjax/plans.json"): "cdjax/plans.json",
    ("docs/figures/claims.md", "cnn/fig1a.png"): "cnn/fig1a.png",
}


@NEEDS_MKDOCS
@pytest.mark.parametrize(("source", "link"), LED)
def test_a_link_of_the_repository_leads_to_the_page_of_its_file(source, link, hooks):
    import outside

    assert outside.led(link, source) == LED[source, link]


@NEEDS_MKDOCS
def test_a_page_that_fetches_from_elsewhere_is_told(hooks, caplog):
    import outside

    page = type("Page", (), {"file": type("File", (), {"src_uri": "page.md"})})
    outside.on_post_page('<a href="https://a.org">a</a><img alt="" src="b.png">', page)
    assert not caplog.records
    outside.on_post_page('<script async src="https://c.org/c.js"></script>', page)
    assert "page.md fetches https://c.org/c.js" in caplog.text
