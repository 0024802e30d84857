"""Communication graphs and their mixing matrices.

Jiang, Balu, Hegde, Sarkar, *Collaborative Deep Learning in Fixed Topology Networks*, NIPS 2017,
arXiv:1706.07880.
"""

from cdjax.topology._builders import from_edge_list as from_edge_list
from cdjax.topology._builders import from_graph as from_graph
from cdjax.topology._builders import from_matrix as from_matrix
from cdjax.topology._builders import without_agents as without_agents
from cdjax.topology._diagnostics import consensus_time as consensus_time
from cdjax.topology._diagnostics import contraction as contraction
from cdjax.topology._diagnostics import effective_neighbors as effective_neighbors
from cdjax.topology._directed import from_digraph as from_digraph
from cdjax.topology._directed import spanning_tree as spanning_tree
from cdjax.topology._directed import stochasticity as stochasticity
from cdjax.topology._equitopo import equistatic as equistatic
from cdjax.topology._families import FAMILIES as FAMILIES
from cdjax.topology._families import binary_tree as binary_tree
from cdjax.topology._families import complete as complete
from cdjax.topology._families import create as create
from cdjax.topology._families import erdos_renyi as erdos_renyi
from cdjax.topology._families import exponential as exponential
from cdjax.topology._families import grid as grid
from cdjax.topology._families import hypercube as hypercube
from cdjax.topology._families import path as path
from cdjax.topology._families import random_regular as random_regular
from cdjax.topology._families import ring as ring
from cdjax.topology._families import star as star
from cdjax.topology._families import torus as torus
from cdjax.topology._families import watts_strogatz as watts_strogatz
from cdjax.topology._matcha import Matcha as Matcha
from cdjax.topology._matcha import matcha as matcha
from cdjax.topology._schedules import SCHEDULES as SCHEDULES
from cdjax.topology._schedules import Schedule as Schedule
from cdjax.topology._schedules import base_graph as base_graph
from cdjax.topology._schedules import one_peer_exponential as one_peer_exponential
from cdjax.topology._schedules import one_peer_hypercube as one_peer_hypercube
from cdjax.topology._schedules import round_robin as round_robin
from cdjax.topology._topology import Topology as Topology
