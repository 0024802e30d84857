"""A run as one page that needs nothing else: no network, no script, no other file.

It is read in light and in dark, by keyboard, on paper and by screen readers: every picture has its
numbers in a table.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from html import escape
from typing import Any, NamedTuple

import numpy as np

from experiments.report import svg

# More discs or squares than these are no picture, and more rows no table.
MOST_DRAWN = 500
_MOST_EDGES = 5000
_MOST_ROWS = 100
_MOST_POINTS = 500

Record = Mapping[str, Any]


class Agent(NamedTuple):
    """One agent: its name, what the last evaluation found, its neighbours, its samples per class.

    ``note`` says why it has not been evaluated; accuracy is a share of 1.
    """

    name: str
    accuracy: float | None
    loss: float | None
    neighbors: int
    counts: Sequence[int]
    note: str = ""


class Facts(NamedTuple):
    """All that a page says of a run.

    ``warnings`` stand above all else; ``places`` are the agents' in [-1, 1]², None of too many;
    ``edges`` are pairs of positions in ``agents``, none where these talk to a server; ``about`` are
    the lines of the table that the run began with; ``options`` are by subject, and those in
    ``given`` differ from the defaults.
    """

    title: str
    warnings: Sequence[str]
    records: Sequence[Record]
    agents: Sequence[Agent]
    places: np.ndarray | None
    edges: Sequence[tuple[int, int]]
    about: Mapping[str, str]
    options: Mapping[str, Mapping[str, Any]]
    given: frozenset[str]
    versions: Mapping[str, str]


def page(facts: Facts) -> str:
    """The page, as HTML."""
    sections = [
        ("result", "Result", _result(facts)),
        ("curves", "Curves", _curves(facts.records)),
        ("agents", "Agents", _agents(facts)),
        ("data", "Data", _data(facts.agents)),
        ("about", "What was run", _pairs(facts.about)),
        ("options", "Options", _options(facts)),
        ("versions", "Versions", _pairs(facts.versions)),
    ]
    sections = [section for section in sections if section[2]]
    links = "".join(f'<li><a href="#{name}">{title}</a></li>' for name, title, _ in sections)
    body = "".join(
        f'<section id="{name}" aria-labelledby="{name}-title"><h2 id="{name}-title">{title}</h2>'
        f"{content}</section>"
        for name, title, content in sections
    )
    title = escape(facts.title)
    return (
        '<!DOCTYPE html>\n<html lang="en"><head><meta charset="utf-8">'
        '<meta name="viewport" content="width=device-width, initial-scale=1">'
        '<meta name="color-scheme" content="light dark">'
        f'<link rel="icon" href="data:,"><title>{title}</title><style>{_STYLE}</style></head>'
        f'<body><a class="skip" href="#content">Skip to the content</a><header><h1>{title}</h1>'
        f'<nav aria-label="Sections"><ul>{links}</ul></nav></header>'
        f'<main id="content" tabindex="-1">{body}</main></body></html>\n'
    )


def _result(facts: Facts) -> str:
    """The numbers of the last evaluation, below what the run warns of."""
    warnings = "".join(
        f'<p class="warning" role="status">{escape(line)}</p>' for line in facts.warnings
    )
    if not facts.records:
        return warnings + "<p>There has been no evaluation.</p>"
    last = facts.records[-1]
    low, high = _percent(last["test_accuracy_min"]), _percent(last["test_accuracy_max"])
    bound = last.get("consensus_bound")
    tiles = [
        (
            "test accuracy, mean over agents",
            _percent(last["test_accuracy_mean"]),
            f"{low} to {high}",
        ),
        ("of the agents' one model", _percent(last["mean_params_test_accuracy"]), ""),
        (
            "consensus distance",
            _number(last["consensus_distance"]),
            "" if bound is None else f"bound {_number(bound)}",
        ),
        ("sent by all", size(last["bytes_sent"]), ""),
        ("time", _duration(last["seconds"]), f"epoch {last['epoch']}, step {last['step']:,}"),
    ]
    items = "".join(
        f"<div><dt>{escape(name)}</dt><dd><strong>{escape(value)}</strong> "
        f"<small>{escape(more)}</small></dd></div>"
        for name, value, more in tiles
    )
    return f'{warnings}<dl class="tiles">{items}</dl>'


def _curves(records: Sequence[Record]) -> str:
    """Accuracy, loss, distance beside its bound, and accuracy against bytes; then the numbers."""
    if not records:
        return ""
    records = _thinned(records, _MOST_POINTS)
    epochs = _column(records, "epoch")

    def line(label: str, name: str, color: int, dash: str = "solid", factor: float = 1) -> svg.Line:
        return svg.Line(label, epochs, _column(records, name, factor), color, dash)

    low, high = (_column(records, f"test_accuracy_{end}", 100) for end in ("min", "max"))
    test = line("test, mean over agents", "test_accuracy_mean", 1, "dashed", 100)
    test = test._replace(low=low, high=high)
    accuracy = [
        line("train", "train_accuracy_mean", 0, factor=100),
        test,
        line("test, the agents' one model", "mean_params_test_accuracy", 2, "dotted", 100),
    ]
    loss = [line("train", "train_loss_mean", 0), line("test", "test_loss_mean", 1, "dashed")]
    distance = [line("measured", "consensus_distance", 3)]
    if any("consensus_bound" in record for record in records):
        distance.append(line("bound of Proposition 1", "consensus_bound", 0, "dashed"))
    sent = _column(records, "bytes_sent")
    most = max(sent)
    figures = [
        _figure(
            "Accuracy",
            svg.chart(accuracy, title="Accuracy", x_label="epoch", y_label="accuracy (%)"),
        ),
        _figure(
            "Loss", svg.chart(loss, title="Loss", x_label="epoch", y_label="loss (nats)", log=True)
        ),
        _figure(
            "Consensus distance",
            svg.chart(
                distance, title="Consensus distance", x_label="epoch", log=True,
                y_label="root mean square",
            ),
        ),
    ]  # fmt: skip
    if most > 0:
        factor, unit = _unit(most)
        against = test._replace(x=[value / factor for value in sent])
        figures.append(
            _figure(
                "Accuracy against what is sent",
                svg.chart(
                    [against], title="Accuracy against bytes sent", y_label="accuracy (%)",
                    x_label=f"sent by all ({unit})",
                ),
            )
        )  # fmt: skip
    else:
        figures.append("<p>Nothing is sent.</p>")
    return f'<div class="figures">{"".join(figures)}</div>{_record_table(records)}'


def _record_table(records: Sequence[Record]) -> str:
    records = _thinned(records, _MOST_ROWS)
    names = list(dict.fromkeys(name for record in records for name in record))
    head = [name.replace("_", " ") for name in names]
    rows = [[_cell(record.get(name)) for name in names] for record in records]
    return _details("The evaluations in numbers", _table(head, rows, "Evaluations"))


def _agents(facts: Facts) -> str:
    """The graph, coloured by accuracy, and a table."""
    agents, figures = facts.agents, ""
    if facts.places is not None and len(agents) <= MOST_DRAWN and len(facts.edges) <= _MOST_EDGES:
        values = [None if a.accuracy is None else 100 * a.accuracy for a in agents]
        title = "Who talks to whom" if facts.edges else "The agents"
        title += ", coloured by each one's test accuracy"
        drawn = svg.graph(
            facts.places, facts.edges, names=[agent.name for agent in agents], values=values,
            unit=" %", title=title,
        )  # fmt: skip
        figures = _figure(title, drawn)
    else:
        figures = f"<p>{len(agents):,} agents are too many to draw.</p>"
    head = ["agent", "test accuracy", "test loss", "neighbours", "samples"]
    head += ["note"] * any(agent.note for agent in agents)
    rows = [
        [
            agent.name,
            "" if agent.accuracy is None else _percent(agent.accuracy),
            "" if agent.loss is None else _number(agent.loss),
            str(agent.neighbors),
            f"{sum(agent.counts):,}",
            agent.note,
        ][: len(head)]
        for agent in agents
    ]
    return figures + _details("The agents in numbers", _table(head, rows, "Agents"))


def _data(agents: Sequence[Agent]) -> str:
    """Class counts per agent."""
    table = np.array([agent.counts for agent in agents], int)
    if not table.size:
        return ""
    names, classes = [agent.name for agent in agents], [str(k) for k in range(table.shape[1])]
    figure = "<p>There are too many agents or classes to draw.</p>"
    if max(table.shape) <= _MOST_ROWS:
        title = "Samples per agent (rows) and class (columns)"
        figure = _figure(title, svg.counts(table, rows=names, columns=classes, title=title))
    rows = [[name, *map(str, counts)] for name, counts in zip(names, table, strict=True)]
    counted = _table(["agent", *(f"class {k}" for k in classes)], rows, "Samples per class")
    return figure + _details("The counts in numbers", counted)


def _options(facts: Facts) -> str:
    """Every option by its subject; what is not a default stands out."""
    parts = []
    for subject, values in facts.options.items():
        rows = "".join(
            f"<tr{' class=given' * (name in facts.given)}>"
            f'<th scope="row">{escape(name)}</th><td>{escape(_cell(value))}</td></tr>'
            for name, value in values.items()
        )
        given = sum(name in facts.given for name in values)
        label = f"{subject} ({given} given)" if given else subject
        table = _scrolled(f"<table>{rows}</table>", subject)
        parts.append(_details(label, table, opened=bool(given)))
    return f'<p>What is not a default is in bold.</p><div class="options">{"".join(parts)}</div>'


def _pairs(rows: Mapping[str, str]) -> str:
    items = "".join(
        f'<tr><th scope="row">{escape(name)}</th><td>{escape(text)}</td></tr>'
        for name, text in rows.items()
    )
    return f'<div class="scroll"><table class="pairs">{items}</table></div>' if items else ""


def _figure(caption: str, content: str) -> str:
    return f"<figure><figcaption>{escape(caption)}</figcaption>{content}</figure>"


def _details(summary: str, content: str, *, opened: bool = False) -> str:
    is_open = " open" if opened else ""
    return f"<details{is_open}><summary>{escape(summary)}</summary>{content}</details>"


def _table(head: Sequence[str], rows: Sequence[Sequence[str]], name: str) -> str:
    """A table in a part of its own, which the keyboard scrolls; long ones are cut."""
    titles = "".join(f'<th scope="col">{escape(title)}</th>' for title in head)
    shown = "".join(
        "<tr>" + "".join(f"<td>{escape(cell)}</td>" for cell in row) + "</tr>"
        for row in rows[:_MOST_ROWS]
    )
    more = len(rows) - _MOST_ROWS
    note = f"<p>{more:,} further rows are left out.</p>" if more > 0 else ""
    table = f"<table><thead><tr>{titles}</tr></thead><tbody>{shown}</tbody></table>"
    return _scrolled(table, name) + note


def _scrolled(table: str, name: str) -> str:
    return (
        f'<div class="scroll" tabindex="0" role="region" aria-label="{escape(name)}">{table}</div>'
    )


def _thinned(records: Sequence[Record], most: int) -> Sequence[Record]:
    """The records, or so many of them at equal distances, the first and the last among them."""
    if len(records) <= most:
        return records
    return [records[i] for i in np.linspace(0, len(records) - 1, most).astype(int)]


def _column(records: Sequence[Record], name: str, factor: float = 1) -> list[float]:
    """A column of the records; NaN where one has none."""
    values = (record.get(name) for record in records)
    return [math.nan if value is None else factor * value for value in values]


def _cell(value: Any) -> str:
    if isinstance(value, float):
        return _number(value)
    if isinstance(value, list | tuple):
        return " ".join(map(str, value)) or "–"
    return "–" if value is None else f"{value}"


def _number(value: float) -> str:
    return f"{value:.4g}"


def _percent(share: float) -> str:
    return f"{share:.2%}".replace("%", " %") if math.isfinite(share) else str(share)


def _duration(seconds: float) -> str:
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    if hours:
        return f"{hours} h {minutes} min"
    return f"{minutes} min {rest} s" if minutes else f"{seconds:.1f} s"


def _unit(most: float) -> tuple[float, str]:
    """The unit in which bytes are read, and how many it has."""
    power = min(int(math.log10(max(most, 1)) // 3), 5)
    return 1000.0**power, ("bytes", "kB", "MB", "GB", "TB", "PB")[power]


def size(number: float) -> str:
    """A number of bytes as it is read."""
    factor, unit = _unit(number)
    return f"{number / factor:.3g} {unit}"


_STYLE = """
:root{--back:#fff;--ink:#1b1f24;--soft:#57606a;--rule:#d0d7de;--panel:#f6f8fa;--link:#0550ae;
--c0:#0b5cad;--c1:#b3541e;--c2:#6f42c1;--c3:#b42318;--warn:#7a4b00;--warnback:#fff4d6}
@media (prefers-color-scheme:dark){:root{--back:#0d1117;--ink:#e6edf3;--soft:#9aa5b1;
--rule:#30363d;--panel:#161b22;--link:#79b8ff;--c0:#6cb6ff;--c1:#f0a35e;--c2:#c8a6ff;--c3:#ff8f85;
--warn:#ffd98a;--warnback:#3a2d0b}}
*{box-sizing:border-box}
body{margin:0;background:var(--back);color:var(--ink);font:16px/1.5 system-ui,sans-serif}
header,main{max-width:1100px;margin:0 auto;padding:0 16px}
main:focus{outline:none}
h1{font-size:1.6rem;margin:1.2rem 0 .4rem;overflow-wrap:anywhere}
h2{font-size:1.25rem;margin:2rem 0 .6rem;border-bottom:1px solid var(--rule)}
a{color:var(--link)}
:focus-visible{outline:3px solid var(--link);outline-offset:2px}
.skip{position:absolute;left:-999px}.skip:focus{left:8px;top:8px;background:var(--back);padding:8px}
nav ul,.legend{list-style:none;display:flex;flex-wrap:wrap;gap:.3rem 1rem;padding:0;margin:.3rem 0}
.legend{font-size:.875rem;color:var(--soft);align-items:center}
.tiles{display:grid;grid-template-columns:repeat(auto-fit,minmax(170px,1fr));gap:12px;margin:0}
.tiles div{background:var(--panel);border:1px solid var(--rule);border-radius:6px;padding:10px 12px}
.tiles dt,small{color:var(--soft);font-size:.875rem}
.tiles dd{margin:0}.tiles strong{display:block;font-size:1.35rem}
.figures{display:grid;grid-template-columns:repeat(auto-fit,minmax(min(100%,420px),1fr));gap:16px}
figure{margin:0 0 12px}figcaption{font-weight:600;margin-bottom:4px}
figure>svg{width:100%;height:auto;display:block}
#agents figure{max-width:520px}
.options{display:grid;gap:0 16px;
grid-template-columns:repeat(auto-fill,minmax(min(100%,300px),1fr))}
.grid{stroke:var(--rule)}.edge{stroke:var(--soft);stroke-width:1.2}
.tick{fill:var(--soft);font-size:12px}.label{fill:var(--ink);font-size:13px}
.middle{text-anchor:middle}.end{text-anchor:end}.name{text-anchor:middle;font-size:12px}
.line{fill:none;stroke-width:2.2}.dashed{stroke-dasharray:8 4}.dotted{stroke-dasharray:2 3}
.c0{stroke:var(--c0)}.c1{stroke:var(--c1)}.c2{stroke:var(--c2)}.c3{stroke:var(--c3)}
.f0{fill:var(--c0)}.f1{fill:var(--c1)}.f2{fill:var(--c2)}.f3{fill:var(--c3)}
.band{fill-opacity:.18}.cell{fill:var(--c0);stroke:var(--rule);stroke-width:.5}
.hollow{fill:var(--back);stroke:var(--soft);stroke-dasharray:3 2}
.sample{width:28px;height:12px;margin-right:6px}.scale{width:180px;height:12px}
.scroll{overflow-x:auto}
table{border-collapse:collapse;font-size:.875rem;font-variant-numeric:tabular-nums}
th,td{text-align:left;padding:3px 12px 3px 0;vertical-align:top;border-bottom:1px solid var(--rule)}
th[scope=row]{font-weight:400;color:var(--soft);white-space:nowrap}
.given th,.given td{font-weight:700;color:var(--ink)}
details{margin:.4rem 0}summary{cursor:pointer;padding:4px 0}
.warning{background:var(--warnback);color:var(--warn);padding:10px 12px;border-radius:6px;
overflow-wrap:anywhere}
@media print{nav,.skip{display:none}}
"""
