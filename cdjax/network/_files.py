"""Files of links: what was measured between agents, a line for each pair of them."""

from __future__ import annotations

import csv
import io
import math
import os
from collections.abc import Callable

import numpy as np

from cdjax._checks import check_topology
from cdjax._contents import UnreadableError, kind_of, read
from cdjax.network._links import Links, links
from cdjax.network._units import bytes_per_second, seconds
from cdjax.topology import Topology

_COLUMNS: dict[str, Callable[[str], float]] = {"latency": seconds, "bandwidth": bytes_per_second}
_MOST_BYTES = 1 << 28


def read_links(path: str | os.PathLike[str], topology: Topology) -> Links:
    r"""The links of a topology from a CSV file.

    The first line names the columns ``from``, ``to``, and ``latency``, ``bandwidth`` or both;
    quantities have their units, as in ``0,1,50ms,100Mbit``. A line holds in both directions unless
    another one gives the other direction. Pairs that are no edges of the topology are skipped.

    Args:
        path: the file.
        topology: the graph; agents are called by its labels, or else by their numbers.

    Raises:
        FileNotFoundError: if there is no such file.
        ValueError: if a line cannot be read, or an edge of the topology has none.

    Example::

        with open("links.csv", "w") as file:
            file.write("from,to,latency,bandwidth\n0,1,50ms,8Mbit\n1,2,9ms,1Gbit\n2,0,7ms,1GB\n")
        wires = cdjax.network.read_links("links.csv", cdjax.topology.ring(3))
    """
    check_topology(topology)
    rows = list(csv.reader(io.StringIO(_text(path)), skipinitialspace=True))
    rows = [(number, row) for number, row in enumerate(rows, start=1) if any(row)]
    header = [name.strip().lower() for name in rows[0][1]] if rows else []
    names = [name for name in header if name in _COLUMNS]
    if not {"from", "to"} <= {*header} or not names:
        raise ValueError(
            f"{path} begins with {','.join(header)!r}; its first line names the columns, as in "
            "from,to,latency,bandwidth"
        )
    numbers = {str(label): number for number, label in enumerate(topology.labels)}
    size = topology.num_agents
    tables = {name: np.full((size, size), math.nan) for name in names}
    backward = {name: np.full((size, size), math.nan) for name in names}
    for number, row in rows[1:]:
        cells = dict(zip(header, (cell.strip() for cell in row), strict=False))
        if len(row) < len(header):
            raise ValueError(f"{path}, line {number} has {len(row)} of {len(header)} columns")
        for end in ("from", "to"):
            if cells[end] not in numbers:
                raise ValueError(
                    f"{path}, line {number}: {cells[end]!r} is no agent of {topology.name}"
                )
        sender, receiver = numbers[cells["from"]], numbers[cells["to"]]
        for name in names:
            try:
                value = _COLUMNS[name](cells[name])
            except ValueError as error:
                raise ValueError(f"{path}, line {number}, {name}: {error}") from error
            tables[name][receiver, sender] = backward[name][sender, receiver] = value
    whole = {n: np.where(np.isnan(t), backward[n], t) for n, t in tables.items()}
    try:
        return links(topology, **whole)
    except ValueError as error:
        raise ValueError(f"{path}: {error}") from error


def _text(path: str | os.PathLike[str]) -> str:
    try:
        content = read(path, _MOST_BYTES)
    except UnreadableError as error:
        raise ValueError(f"{path} is truncated or damaged: {error}") from error
    if kind := kind_of(content):
        raise ValueError(f"{path} is {kind}; give a CSV file")
    try:
        return content.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise ValueError(f"{path} is no text in UTF-8; save it as that") from error
