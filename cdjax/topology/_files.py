"""Files that hold graphs, as programs and people write them. Nothing in them is trusted.

Edge lists as of networkx, SNAP (https://snap.stanford.edu/data), KONECT (http://konect.cc),
decentralizepy (https://github.com/sacs-epfl/decentralizepy) and spreadsheets; GraphML; GML.
"""

from __future__ import annotations

import codecs
import csv
import io
import os
from collections.abc import Callable, Mapping
from pathlib import Path
from types import MappingProxyType
from typing import NamedTuple, NoReturn

import networkx as nx

from cdjax._contents import UnreadableError, kind_of, read

# A million edges take 14 MB. What unpacks to more than this might fill the memory.
_MOST_BYTES = 1 << 28
_UTF_16 = (codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)  # as PowerShell's > writes
_HEADERS = {"source", "target", "from", "to", "src", "dst", "fromnodeid", "tonodeid", "u", "v"}
# How other formats begin, and what reads them.
_FORMATS = {
    "<?xml": "XML; name it .graphml if that is what it is",
    "<graphml": "GraphML; name it .graphml",
    "graph [": "GML; name it .gml",
    "creator": "GML; name it .gml",
    "%%matrixmarket": "a Matrix Market file; give scipy.io.mmread(path) to from_matrix if it is Π",
    "*vertices": "a Pajek file; give nx.Graph(nx.read_pajek(path)) to from_graph",
    "strict graph": "a DOT file; write it as an edge list",
    "graph {": "a DOT file; write it as an edge list",
    "{": "JSON; give networkx.node_link_graph(json.load(file)) to from_graph",
    "[": "JSON; give networkx.Graph(json.load(file)) to from_graph if it is a list of edges",
}


class _Row(NamedTuple):
    """A line that is not empty: its number, counted from 1, its text and its words."""

    number: int
    text: str
    words: list[str]


def read_graph(path: str | os.PathLike[str], num_agents: int | None) -> nx.Graph:
    """The undirected graph in a file; nodes are numbers 0..N-1, or names.

    Raises:
        FileNotFoundError: if there is no such file.
        ValueError: if the file is of another kind, or its graph has another size.
    """
    text = _text(path)
    endings = Path(path).suffixes
    ending = next((x.lower() for x in reversed(endings) if x.lower() != ".gz"), "")
    if ending not in _READERS:
        return _edge_list(path, text, num_agents)
    try:
        graph = _READERS[ending](text)
    except Exception as error:  # damaged files raise anything
        message = (str(error).strip().splitlines() or [type(error).__name__])[0][:200]
        raise ValueError(f"{path} cannot be read as {ending.upper()[1:]}: {message}") from error
    return _checked(path, graph, num_agents)


def _text(path: str | os.PathLike[str]) -> str:
    try:
        content = read(path, _MOST_BYTES)
    except UnreadableError as error:
        raise ValueError(f"{path} is truncated or damaged: {error}") from error
    if len(content) > _MOST_BYTES:
        raise ValueError(f"{path} holds more than {_MOST_BYTES} bytes; give from_graph the graph")
    encoding = "utf-16" if content.startswith(_UTF_16) else "utf-8-sig"
    # Comments may be in any encoding; agents' names are looked at below.
    text = content.decode(encoding, errors="replace")
    if kind := kind_of(content):
        raise ValueError(f"{path} is {kind}; give a text file with two agents per line")
    if "\0" in text:
        raise ValueError(f"{path} is no text in UTF-8 or UTF-16; save it as one of them")
    return text


def _graphml(text: str) -> nx.Graph:
    # Entities could grow without bounds, and GraphML has no use for any. As text, not as bytes, the
    # document cannot hide them by declaring some other encoding.
    if "<!DOCTYPE" in text or "<!ENTITY" in text:
        raise ValueError("it has a document type; delete that line")
    return nx.parse_graphml(text)


def _gml(text: str) -> nx.Graph:
    lines = text.splitlines()
    try:
        return nx.parse_gml(lines)
    except nx.NetworkXError:  # nodes without labels, or two of the same
        return nx.parse_gml(lines, label="id")


_READERS: Mapping[str, Callable[[str], nx.Graph]] = MappingProxyType(
    {".graphml": _graphml, ".gml": _gml}
)


def _checked(path: str | os.PathLike[str], graph: nx.Graph, num_agents: int | None) -> nx.Graph:
    """Undirected, of the right size, and with numbers where the file has them as text."""
    size = graph.number_of_nodes()
    if not size:
        raise ValueError(f"{path} has no nodes; there must be at least 1 agent")
    if num_agents not in (None, size):
        raise ValueError(f"{path} names {size} agents, but num_agents is {num_agents}")
    if graph.is_directed():
        if not all(graph.has_edge(b, a) for a, b in graph.edges()):
            remedy = "give networkx's graph.to_undirected() to from_graph"
            raise ValueError(f"{path} holds a directed graph; {remedy}")
        graph = graph.to_undirected()
    numbers = {str(number): number for number in range(size)}
    return nx.relabel_nodes(graph, numbers) if set(graph) == set(numbers) else graph


def _edge_list(path: str | os.PathLike[str], text: str, num_agents: int | None) -> nx.Graph:
    start = text.lstrip().lower()
    if found := next((kind for first, kind in _FORMATS.items() if start.startswith(first)), None):
        raise ValueError(f"{path} is no edge list, but looks like {found}")
    rows = _rows(path, text)
    declared = None
    if rows and len(rows[0].words) == 1:
        declared = _number(rows[0].words[0])
        rows = rows if declared is None else rows[1:]
    rows = rows[_has_header(rows) :]
    if not rows:
        raise ValueError(f"{path} has no edges; write two agent numbers per line, as in '0 1'")
    is_numbered = all(_number(word) is not None for word in rows[0].words[:2])
    if any(len(row.words) != 2 for row in rows):
        _refuse_columns(path, rows, is_numbered)
    if declared is not None and num_agents not in (None, declared):
        raise ValueError(f"{path} says {declared} agents, but num_agents is {num_agents}")
    if is_numbered:
        says = "" if declared is None else f"its first line says {declared}: "
        return _numbered(path, rows, num_agents or declared, says=says)
    for row in rows:
        if any("�" in word for word in row.words):
            raise ValueError(f"{_place(path, row)}; its letters are not in UTF-8, save it as that")
    graph = nx.Graph([(row.words[0], row.words[1]) for row in rows])
    return _checked(path, graph, num_agents or declared)


def _rows(path: str | os.PathLike[str], text: str) -> list[_Row]:
    rows = []
    for number, line in enumerate(io.StringIO(text, newline=None), start=1):
        row = _Row(number, line.strip(), [])
        try:
            row.words.extend(_words(line))
        except csv.Error:
            _refuse(path, row, is_numbered=True)
        if row.words:
            rows.append(row)
    return rows


def _words(line: str) -> list[str]:
    """The words of a line without its comment; attributes as networkx writes them are one word."""
    line = line.partition("#")[0].partition("%")[0]
    line, brace, attributes = line.partition("{")
    line = line.strip()
    separator = next((separator for separator in ",;\t" if separator in line), None)
    if separator in (",", ";"):
        words = next(csv.reader([line], delimiter=separator, skipinitialspace=True))
    else:
        words = line.split(separator)
    words = [word.strip() for word in words]
    while words and not words[-1]:  # a spreadsheet's empty columns
        words.pop()
    return words if attributes.strip() in ("", "}") else [*words, brace + attributes.strip()]


def _number(word: str) -> int | None:
    """A whole number, also one that numpy.savetxt has written as a float; None for a name."""
    try:
        return int(word)
    except ValueError:
        try:
            return int(number) if (number := float(word)).is_integer() else None
        except ValueError:
            return None


def _has_header(rows: list[_Row]) -> bool:
    """Whether the first line names columns: by the usual names, or words above numbers."""
    words = rows[0].words[:2] if rows else []
    if any(_number(word) is not None for word in words) or len(words) < 2:
        return False
    numbers = (_number(word) for row in rows[1:] for word in row.words[:2])
    are_numbers = len(rows) > 1 and all(number is not None for number in numbers)
    return are_numbers or {word.lower() for word in words} <= _HEADERS


def _refuse_columns(path: str | os.PathLike[str], rows: list[_Row], is_numbered: bool) -> NoReturn:
    """Says what a file is in which some lines do not hold two words."""
    row = next(row for row in rows if len(row.words) != 2)
    widths, words = {len(row.words) for row in rows}, [word for row in rows for word in row.words]
    if max(widths) < 3:
        _refuse(path, row, is_numbered=is_numbered)
    row = next(row for row in rows if len(row.words) > 2)
    if widths == {len(rows)} and all(_is_float(word) for word in words):
        remedy = "give numpy.loadtxt(path) to from_matrix if it is Π"
        raise ValueError(f"{path} is a matrix of {len(rows)} rows and columns; {remedy}")
    are_agents = not is_numbered or all(_number(word) is not None for word in words)
    if len(widths) > 1 and are_agents and not any(word.startswith("{") for word in words):
        remedy = "give networkx.read_adjlist(path) to from_graph"
        raise ValueError(f"{_place(path, row)}, as in an adjacency list; {remedy}")
    raise ValueError(
        f"{path}, line {row.number} has a third column, {row.words[2][:40]!r}; edges' weights are "
        "not read: delete the column, or give Π to from_matrix"
    )


def _is_float(word: str) -> bool:
    try:
        float(word)
    except ValueError:
        return False
    return True


def _numbered(
    path: str | os.PathLike[str], rows: list[_Row], size: int | None, *, says: str
) -> nx.Graph:
    """The graph on 0..N-1; every agent has an edge."""
    edges = []
    for row in rows:
        first, second = map(_number, row.words)
        if first is None or second is None:
            _refuse(path, row, is_numbered=True)
        edges.append((first, second))
    agents = {agent for edge in edges for agent in edge}
    count = max(agents) + 1 if size is None else size
    expected = f"{says}number {count} agents 0 to {count - 1}"
    unknown = next((agent for agent in sorted(agents) if not 0 <= agent < count), None)
    if unknown is not None:
        raise ValueError(f"{path} names agent {unknown}; {expected}{_from_one(agents)}")
    missing = next((agent for agent in range(count) if agent not in agents), None)
    if missing is not None:
        raise ValueError(
            f"{path} has no edge of agent {missing}; {expected}, each with an edge"
            f"{_from_one(agents)}"
        )
    graph = nx.empty_graph(count)
    graph.add_edges_from(edges)
    return graph


def _from_one(agents: set[int]) -> str:
    starts_at_one = min(agents) == 1 and max(agents) == len(agents)
    return " (it counts from 1: subtract 1 from every number)" if starts_at_one else ""


def _refuse(path: str | os.PathLike[str], row: _Row, *, is_numbered: bool) -> NoReturn:
    wanted = "two agent numbers" if is_numbered else "two agents"
    raise ValueError(f"{_place(path, row)}; expected {wanted}, as in '0 1'")


def _place(path: str | os.PathLike[str], row: _Row) -> str:
    return f"{path}, line {row.number} is {row.text[:40]!r}"
