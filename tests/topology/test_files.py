import gzip
import io

import networkx as nx
import numpy as np
import pytest

from cdjax import topology


def written(tmp_path, content, name="graph.edges"):
    file = tmp_path / name
    file.write_bytes(content if isinstance(content, bytes) else content.encode())
    return file


PATH = [(0, 1), (1, 2)]


@pytest.mark.parametrize(
    "content",
    [
        b"\xef\xbb\xbf0 1\n1 2\n",  # Excel, Notepad
        "0 1\r\n1 2\r\n".encode("utf-16"),  # PowerShell
        gzip.compress(b"0 1\n1 2\n", mtime=0),
        "0,1\n1, 2,\n",
        "source;target\n0;1\n1;2\n",
        "# FromNodeId\tToNodeId\n0\t1\n1\t2\n",  # SNAP
        "% sym unweighted\n0 1\n1 2 % twice\n",  # KONECT
        "0 1 {}\n1 2 {}\n",  # networkx.write_edgelist
        "3\n0 1\n1 0\n1 2\n2 1\n",  # decentralizepy
        "0.000e+00 1.000e+00\n1.000e+00 2.000e+00\n",  # numpy.savetxt
        '"0","1"\n"2","1"\n',
        "0 1\r1 2\r",
    ],
)
def test_an_edge_list_is_read_as_programs_write_it(tmp_path, content):
    graph = topology.from_edge_list(written(tmp_path, content))
    assert sorted(graph.graph.edges) == PATH and graph.labels == (0, 1, 2)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("0 1\n1 2 0.5\n", r"line 2 has a third column, '0.5'; .* give Π to from_matrix"),
        ("0 1 {'weight': 3}\n1 2 {}\n", "line 1 has a third column, .*weight"),
        ("4\n0 1\n1 2\n", "its first line says 4: number 4 agents 0 to 3"),
        ("2\n0 1\n1 2\n", "names agent 2; its first line says 2"),
        ("1 2\n2 3\n", "counts from 1: subtract 1"),
        ("0 1 4\n1 2\n2 3\n3 4\n4\n", "line 1 is '0 1 4', as in an adjacency list; .*read_adjlist"),
        (".5 .5 0\n.5 0 .5\n0 .5 .5\n", "matrix of 3 rows and columns; give numpy.loadtxt"),
        ("%%MatrixMarket matrix\n3 3 2\n", "looks like a Matrix Market file"),
        ("*Vertices 3\n", "looks like a Pajek file"),
        ('{"nodes": []}', "looks like JSON"),
        (b"PK\x03\x04..", "is a zip archive"),
        (b"\x93NUMPY..", "is an array of numpy.save"),
        (b"\x00\x01\x02", "is no text in UTF-8"),
        (gzip.compress(b"0 1\n1 2\n", mtime=0)[:-9], "is truncated or damaged"),
        ("Zürich,Genf\n".encode("latin-1"), "line 1 is .* not in UTF-8"),
        ("<graphml/>", "looks like GraphML; name it .graphml"),
        ("Oslo Bergen\nRome Paris\n", r"\{Oslo, Bergen\}, \{Rome, Paris\}; join them"),
    ],
)
def test_a_file_of_another_kind_is_named_with_its_line(tmp_path, content, message):
    file = written(tmp_path, content)
    with pytest.raises(ValueError, match=message):
        topology.from_edge_list(file)


def test_agents_keep_the_names_of_a_file(tmp_path):
    graph = topology.from_edge_list(written(tmp_path, 'from,to\nOslo,Bergen\n"New York",Oslo\n'))
    assert graph.labels == ("Oslo", "Bergen", "New York")
    assert sorted(graph.graph.edges) == [(0, 1), (0, 2)]
    with pytest.raises(ValueError, match="names 3 agents, but num_agents is 4"):
        topology.from_edge_list(tmp_path / "graph.edges", num_agents=4)


@pytest.mark.parametrize(
    ("ending", "write"), [("graphml", nx.write_graphml), ("gml", nx.write_gml)]
)
@pytest.mark.parametrize("packed", [False, True])
def test_graphml_and_gml_are_read(tmp_path, ending, write, packed):
    content = io.BytesIO()
    graph = nx.Graph([(2, 0), (0, 1)])  # not in the order of its numbers
    write(graph, content)
    packing = gzip.compress if packed else bytes
    file = written(tmp_path, packing(content.getvalue()), f"graph.{ending}{'.gz' * packed}")
    found = topology.from_edge_list(file)
    assert sorted(found.graph.edges) == [(0, 1), (0, 2)] and found.labels == (0, 1, 2)


XML = '<graphml xmlns="http://graphml.graphdrawing.org/xmlns"><graph edgedefault="{}">{}</graph>'
EDGE = '<node id="a"/><node id="b"/><edge source="a" target="b"/>'


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("g.graphml", '<!DOCTYPE l [<!ENTITY a "x">]>' + XML, "document type; delete that line"),
        (
            "g.graphml",
            ('<?xml version="1.0" encoding="UTF-16"?><!DOCTYPE l>' + XML).encode("utf-16"),
            "document type",
        ),
        ("g.graphml", "<graphml", "cannot be read as GRAPHML: unclosed token"),
        ("g.graphml", XML.format("directed", EDGE) + "</graphml>", "directed graph; give"),
        ("g.graphml", XML.format("undirected", "") + "</graphml>", "has no nodes"),
        ("g.gml", "graph [ " * 50_000, "cannot be read as GML: maximum recursion"),
    ],
)
def test_a_damaged_or_hostile_graph_file_is_refused(tmp_path, name, content, message):
    with pytest.raises(ValueError, match=message):
        topology.from_edge_list(written(tmp_path, content, name))


def test_nodes_that_are_the_agents_numbers_keep_them():
    matrix = topology.from_graph(nx.Graph([(2, 0), (0, 1)])).mixing_matrix
    np.testing.assert_array_equal(matrix != 0, [[True, True, True], [True, True, False],
                                                [True, False, True]])  # fmt: skip


def test_those_who_remain_keep_their_names():
    graph = topology.from_graph(nx.path_graph(["a", "b", "c", "d"]))
    assert topology.without_agents(graph, [0]).labels == ("b", "c", "d")
    assert topology.without_agents(topology.ring(4), [1]).labels == (0, 2, 3)
    with pytest.raises(ValueError, match=r"falls apart into \{a\}, \{c, d\}"):
        topology.without_agents(graph, [1])
