"""One table of bad calls of public functions, and the message that each user reads.

The calls run in a process of their own, without the runtime type checks of the tests, as users
have it.
"""

import json
import re
import subprocess
import sys
from pathlib import Path

import pytest

PREAMBLE = """
import json, sys
import jax, jax.numpy as jnp, networkx as nx, numpy as np, optax
import cdjax
from cdjax import data, metrics, mixing, network, robust, sharding, topology

KEY, RING = jax.random.key(0), topology.ring(3)
MIX, SGD, PEERS = mixing.dense(RING), optax.sgd(0.1), mixing.random_peers(RING, KEY)
FAULT = robust.lost_messages(RING, 0.1, key=KEY)
THREE, FOUR = {"w": jnp.ones((3, 2))}, {"dense": {"kernel": jnp.ones((4, 2))}}

MODULE = {"w": jnp.ones((3, 2)), "act": jax.nn.relu}
LOSS = lambda params, model_state, batch, key: (params["w"].sum(), (model_state, {}))

def train(loss, params=THREE):
    state = cdjax.training.init_state(params, SGD, key=KEY)
    return cdjax.training.train_step(loss, SGD)(state, jnp.ones((3, 8)))

def evaluate(metrics_fn, samples=jnp.ones((3, 8, 2)), **options):
    return cdjax.training.evaluation(metrics_fn, **options)(THREE, {}, samples)

def step(tx, grads=THREE, params=THREE):
    return tx.update(grads, tx.init(params), params)

for call in json.load(sys.stdin):
    try:
        print(json.dumps(["no error", repr(eval(call))[:100]]))
    except Exception as error:
        print(json.dumps([type(error).__name__, str(error)]))
"""

NO_TOPOLOGY = "topology is .*; give a cdjax.Topology, such as cdjax.topology.ring"
NO_MIXER = r"mix is .*; give a mixer, such as cdjax.mixing.auto\(topology\)"
NO_OPTIMIZER = r"(inner|tx) is .*; give an optax optimizer, such as optax.sgd\(0.1\)"
NO_STEP = r"changes with the step: call mix\(tree, step\)"
NO_KEY = r"key is 0; give one random key, such as jax.random.key\(0\)"
FOUR_OF_THREE = (
    r"leaf 'dense/kernel' has leading axis 4, but the topology has 3 agents; "
    r"stack parameters with cdjax.replicate\(params, 3\)"
)

TABLE = {
    # network
    "network.links(RING, latency=-1)": "latency is -1; it must be at least 0 seconds",
    "network.links(RING, bandwidth=0)": "bandwidth is 0; it must be above 0 bytes per second",
    "network.links('ring')": NO_TOPOLOGY,
    "network.compute_times(1.0, 3, law='normal')": "unknown law 'normal'",
    "network.compute_times(1.0, 3, jitter=0.1, key=0)": NO_KEY,
    "network.preset('lan', RING)": "unknown preset 'lan'",
    "network.clock(network.consensus(), network.links(RING), 1.0, 0)": "num_steps is None",
    "network.bytes_per_second('100Mb')": "leaves open whether it is of bits or bytes",
    "network.heard_through(0, network.links(RING))": NO_MIXER,
    "network.every(0, network.consensus())": "period is 0",
    "network.arrivals([0.0], 3)": "seconds_per_round is",
    # compress
    "cdjax.choco(SGD, MIX, 0.1, consensus_step=0.1)": (
        "compressor is of type float; give a compressor, such as cdjax.compress.top_k"
    ),
    "cdjax.beer(0.1, MIX, None, consensus_step=0.1)": "compressor is None; give a compressor",
    "cdjax.compress.error_feedback(0.1)": "compressor is of type float; give a compressor",
    "cdjax.compress.random_k(0.5, 0)": NO_KEY,
    "cdjax.compress.top_k('1%')": "fraction must be a number, not '1%'",
    # theory
    "cdjax.theory.stated_strong_convexity(RING, 1.0, step_size=0.1, form='line 2')": (
        "unknown form 'line 2'; expected one of definition, theorem"
    ),
    # topology
    "topology.create('rng', 3)": r"unknown topology 'rng' \(did you mean 'ring'\?\); expected one",
    "topology.create(3, 3)": "unknown topology 3; expected one of ring, complete",
    "topology.create(['ring'], 3)": r"unknown topology \['ring'\]",
    "topology.ring('3')": "num_agents must be a whole number, not '3'",
    "topology.ring(2.0)": "num_agents must be a whole number, not 2.0",
    "topology.ring(True)": "num_agents must be a whole number, not True",
    "topology.ring(0)": "num_agents is 0; there must be at least 1 agent",
    "topology.ring(3, weights=np.eye(3))": "weights is a ndarray; give a name or a function",
    "topology.grid(6, rows='2')": "rows must be a whole number, not '2'",
    "topology.grid(6, rows=4)": "rows is 4; it must divide num_agents, 6",
    "topology.torus(7)": "the nearest sizes that fit are 6 and 8",
    "topology.hypercube(6)": "power of two, not 6; the nearest are 4 and 8",
    "topology.erdos_renyi(5, probability='x')": "probability must be a number, not 'x'",
    "topology.erdos_renyi(5, seed=-1)": r"seed is -1; it must lie in \[0, inf\)",
    "topology.erdos_renyi(5, seed='a')": "seed must be a whole number, not 'a'",
    "topology.watts_strogatz(9, degree='x')": "degree must be a whole number, not 'x'",
    "topology.random_regular(9, degree=2.5)": "degree must be a whole number, not 2.5",
    "topology.from_graph([[1]])": "graph is of type list; give a networkx.Graph",
    "topology.from_graph(nx.DiGraph([(0, 1)]))": "graph is directed; give graph.to_undirected",
    "topology.from_graph(nx.path_graph(3), lambda graph: 'x')": "is no array of real numbers",
    "topology.from_graph(nx.path_graph(3), lambda graph: np.eye(2))": r"gave shape \(2, 2\)",
    "topology.from_matrix([[1, 2], [3]])": "matrix is no array of real numbers: .*inhomogeneous",
    "topology.from_matrix([[1j]])": "matrix is no array of real numbers",
    "topology.from_matrix([[1, 2]])": r"matrix has shape \(1, 2\); expected \(N, N\)",
    "topology.from_matrix([[np.nan]])": r"Π\[0, 0\] is nan; every weight is finite",
    "topology.from_matrix(np.eye(2))": "graph is not connected: its components are",
    # mixing
    "mixing.dense(np.eye(3))": "topology is of type ndarray; give a cdjax.Topology",
    "mixing.auto(None)": "topology is None; give a cdjax.Topology",
    "mixing.choose('ring')": NO_TOPOLOGY,
    "mixing.neighbors(nx.path_graph(3))": NO_TOPOLOGY,
    "mixing.shifts(3)": NO_TOPOLOGY,
    "mixing.ppermute(3, 'agents')": NO_TOPOLOGY,
    "mixing.exchange(3, sharding.agent_mesh(1))": NO_TOPOLOGY,
    "mixing.exchange(RING, None)": r"mesh is of type NoneType; give cdjax.sharding.agent_mesh\(\)",
    "MIX({'w': 3.0})": "leaf 'w' has no axes, but the topology has 3 agents; stack parameters",
    "MIX({'w': [1.0, 2.0, 3.0]})": "leaf 'w/0' has no axes",
    "MIX(FOUR)": FOUR_OF_THREE,
    "mixing.every(0, MIX)": r"period is 0; it must lie in \[1, inf\)",
    "mixing.every(1.5, MIX)": "period must be a whole number, not 1.5",
    "mixing.every(2, RING)": NO_MIXER,
    "mixing.cycle(MIX, 3)": NO_MIXER,
    "mixing.lazy(RING)": NO_MIXER,
    "mixing.lazy(MIX, 1.5)": r"weight is 1.5; it must lie in \[0, 1\]",
    "mixing.repeated(MIX, 0)": r"rounds is 0; it must lie in \[1, inf\)",
    "mixing.chebyshev(MIX, 2, sigma=1)": r"sigma is 1; it must lie in \[0, 1\)",
    "mixing.personal(MIX, 3)": "leaves is 3; give a regular expression of paths, or several",
    "mixing.personal(MIX, [])": r"leaves is \[\]; give a regular expression of paths, or several",
    "mixing.personal(MIX, '(')": r"leaves has '\(', which is no regular expression: missing",
    "mixing.personal(MIX, ['a', 3])": "leaves has 3, which is no regular expression",
    "mixing.personal(MIX, 'b')(THREE)": "leaves: 'b' matches none of 'w'",
    "mixing.cycle()": "cycle needs at least one mixer",
    "mixing.pull(3)": "peers is of type int; give a function of the step",
    "mixing.push(None)": "peers is None; give a function of the step",
    "mixing.random_peers(3, KEY)": NO_TOPOLOGY,
    "mixing.random_peers(RING, 0)": NO_KEY,
    "mixing.random_pairs(RING, 0)": NO_KEY,
    "mixing.random_peers(RING, KEY, probability=2)": r"probability is 2; it must lie in \[0, 1\]",
    "mixing.random_peers(RING, jax.random.split(KEY))": "give one random key",
    "robust.faulty(3)": NO_TOPOLOGY,
    "robust.faulty(RING, 3)": "fault is of type int; give a function of the step",
    "robust.faulty(RING, robust.lost_messages(topology.ring(9), 0.1, key=KEY))(THREE, 0)": (
        r"fault gave shape \(18,\), but the topology has 6 links; make it for this topology"
    ),
    "robust.failing_links(3, 0.1, key=KEY)": NO_TOPOLOGY,
    "robust.failing_links(RING, 0.1, key=0)": NO_KEY,
    "robust.failing_links(RING, [0.1], key=KEY)": r"probability must be one number, not \[0.1\]",
    "robust.lost_messages(RING, 'x', key=KEY)": "probability must be a number, not 'x'",
    "robust.absent_agents(RING, [0])": "absence is of type list; give a function of the step",
    "robust.random_absence(3, 0.1, key=KEY, duration=1.5)": "duration must be a whole number, not",
    "robust.scheduled_absence(3, [0])": r"schedule is \[0\]; give a dict from agents to stretches",
    "robust.scheduled_absence(3, {0: 5})": r"schedule gives agent 0 5; expected pairs of steps",
    "robust.trimmed_mean(RING, 1.5)": "num_trimmed must be a whole number, not 1.5",
    "robust.trimmed_mean(RING, 2)": "num_trimmed is 2, but agent 0 hears 3 agents, .* at most 1",
    "robust.trimmed_mean(RING, 1, 3)": "fault is of type int; give a function of the step",
    "robust.median('ring')": NO_TOPOLOGY,
    "robust.median(RING, 0.1)": "fault is of type float; give a function of the step",
    "robust.clipped_gossip(RING, 1.0, KEY)": "fault is of type .*; give a function of the step",
    "robust.clipped_gossip(RING, 'x')": "radius must be a number, not 'x'",
    "robust.clipped_gossip(RING, None)": "radius must be a number, not None",
    "robust.attacked(3, robust.sign_flip(), malicious=[0])": NO_MIXER,
    "robust.attacked(MIX, 3, malicious=[0])": "attack is of type int; give what malicious agents",
    "robust.attacked(MIX, robust.sign_flip(), malicious=0)": "malicious is 0; expected a list",
    "robust.attacked(MIX, robust.sign_flip(), malicious=[0.5])": r"malicious is \[0.5\]; expected",
    # mixers that change with the step
    "mixing.pull(PEERS)(THREE)": rf"pull {NO_STEP}",
    "mixing.push(PEERS)(THREE)": rf"push {NO_STEP}",
    "mixing.every(2, MIX)(THREE)": rf"every {NO_STEP}",
    "mixing.cycle(MIX, MIX)(THREE)": rf"cycle {NO_STEP}",
    "robust.faulty(RING, FAULT)(THREE)": rf"a mixer with faults {NO_STEP}",
    "robust.median(RING, FAULT)(THREE)": rf"a mixer with faults {NO_STEP}",
    "robust.clipped_gossip(RING, 1.0, FAULT)(THREE)": rf"a mixer with faults {NO_STEP}",
    "robust.clipped_gossip(RING, lambda step: 1.0)(THREE)": rf"with a schedule {NO_STEP}",
    "robust.attacked(MIX, robust.sign_flip(), malicious=[0])(THREE)": rf"attacked {NO_STEP}",
    # transforms
    "cdjax.cdsgd('x', MIX)": "learning_rate must be a number, not 'x'",
    "cdjax.cdsgd(None, MIX)": "learning_rate must be a number, not None",
    "cdjax.cdsgd(0.1, RING)": "mix is of type Topology; give a mixer, such as",
    "cdjax.cdsgd(MIX, 0.1)": NO_MIXER,
    "cdjax.cdmsgd(0.1, None)": "mix is None; give a mixer",
    "cdjax.cdmsgd(0.1, MIX, momentum='x')": "momentum must be a number, not 'x'",
    "cdjax.consensus(RING)": NO_MIXER,
    "cdjax.adapt_then_combine(SGD, RING)": NO_MIXER,
    "cdjax.adapt_then_combine(0.1, MIX)": "inner is of type float; give an optax optimizer",
    "cdjax.combine_then_adapt(SGD, RING)": NO_MIXER,
    "cdjax.adapt_correct_combine(MIX, MIX)": NO_OPTIMIZER,
    "cdjax.tracking(RING)": NO_MIXER,
    "cdjax.corrected_consensus(None)": NO_MIXER,
    "cdjax.gradient_tracking(0.1, MIX, form='act')": r"unknown form 'act' \(did you mean 'atc'",
    "cdjax.suda(0.1, MIX, form='d2')": "unknown form 'd2'; expected one of exact-diffusion, extra",
    "cdjax.d2(0.1, MIX, smallest_eigenvalue=-0.8)": (
        "smallest_eigenvalue is -0.8; d2 diverges unless it is above -1/3: take weights="
    ),
    "cdjax.d2(0.1, MIX, smallest_eigenvalue='x')": "smallest_eigenvalue must be a number, not 'x'",
    "cdjax.icdsgd(0.1, MIX, rounds=1.5)": "rounds must be a whole number, not 1.5",
    "cdjax.gcdsgd(0.1, MIX, own_weight=2)": r"own_weight is 2; it must lie in \[0, 1\]",
    "cdjax.gcdsgd(None, MIX)": "learning_rate must be a number, not None",
    "cdjax.quasi_global_momentum(0.1, MIX, buffer_decay=2)": "buffer_decay is 2; it must lie in",
    "cdjax.quasi_global_adam(0.1, MIX, eps=0)": r"eps is 0; it must lie in \(0, inf\)",
    "cdjax.quasi_global_adam(0.1, MIX, b2=1.0)": r"b2 is 1.0; it must lie in \[0, 1\)",
    "cdjax.gossip(MIX, MIX)": NO_OPTIMIZER,
    "cdjax.gossip(SGD, MIX, period=1.5)": "period must be a whole number, not 1.5",
    "cdjax.fedavg(None, local_steps=1)": NO_OPTIMIZER,
    "cdjax.fedavg(SGD, local_steps=1.5)": "local_steps must be a whole number, not 1.5",
    "cdjax.fedavg(SGD, local_steps=1, fraction=0.5)": "fraction is 0.5: give key=jax.random.key",
    "cdjax.fedavg(SGD, local_steps=1, key=0)": NO_KEY,
    "cdjax.fedavg(SGD, local_steps=1, weights=[0.0, 1.0])": r"weights is .*must lie in \(0, inf\)",
    "cdjax.average_updates([-1.0, 1.0])": r"weights is \[-1.0, 1.0\]; it must lie in \(0, inf\)",
    "cdjax.average_updates(['a'])": r"weights must be a number, not \['a'\]",
    "cdjax.scale_by_agent([1.0, np.nan])": r"weights is \[1.0, nan\]; it must lie in",
    "cdjax.easgd(0.1, period=1.5)": "period must be a whole number, not 1.5",
    "cdjax.easgd(0.1, clocks=[0.5, 1.0])": r"clocks is \[0.5, 1.0\]; expected one whole number pe",
    "cdjax.eamsgd(0.1, clocks='x')": "clocks is 'x'; expected one whole number per agent",
    "cdjax.elastic_averaging(None)": NO_OPTIMIZER,
    "cdjax.downpour(0.1, 0.1, fetch_period=1.5)": "fetch_period must be a whole number, not 1.5",
    "cdjax.downpour(0.1, 0.1, clocks=[[1]])": r"clocks is \[\[1\]\]; expected one whole number",
    "cdjax.gosgd(SGD, None)": "peers is None; give a function of the step, as of",
    "cdjax.gosgd(0.1, PEERS)": NO_OPTIMIZER,
    "cdjax.gosgd(SGD, PEERS, delay=1.5)": "delay must be a whole number, not 1.5",
    "cdjax.delayed(cdjax.consensus, RING, delays=[0, 0, 1])": NO_MIXER,
    "cdjax.delayed(SGD, MIX, delays=[0, 0, 1])": "make is .*; give the algorithm of a mixer",
    "cdjax.delayed(lambda mix: 0, MIX, delays=[0, 0, 1])": "make is of type int; give an optax",
    "cdjax.delayed(cdjax.consensus, MIX, delays=[0, 0.5, 1])": "delays is .*; expected one whole",
    "cdjax.diminishing_schedule('x')": "init_value must be a number, not 'x'",
    "cdjax.server_params(None)": "the optimizer has no server; average its agents",
    "step(cdjax.cdsgd(0.1, MIX), FOUR, FOUR)": FOUR_OF_THREE,
    "step(cdjax.cdmsgd(0.1, MIX), FOUR, FOUR)": FOUR_OF_THREE,
    "step(cdjax.adapt_then_combine(SGD, MIX), FOUR, FOUR)": FOUR_OF_THREE,
    "step(cdjax.gosgd(SGD, PEERS), FOUR, FOUR)": "leaf 'dense/kernel' .* 4, but peers has 3 agents",
    "step(cdjax.consensus(MIX), {'w': jnp.ones((3, 4))})": (
        r"consensus: leaf 'w' of updates has shape \(3, 4\), of params \(3, 2\); give the gradients"
    ),
    "step(cdjax.cdmsgd(0.1, MIX), {'v': jnp.ones((3, 2))})": (
        r"cdmsgd: updates have the structure PyTreeDef\({'v': \*}\), params PyTreeDef\({'w': \*}\)"
    ),
    "cdjax.easgd(0.1).init({'w': 1.0})": "leaf 'w' has no axes; every leaf leads with the agent ax",
    "cdjax.mean_params({})": "the tree has no leaves, so it has no agent axis",
    # agents, metrics, sharding
    "cdjax.replicate(THREE, 2.0)": "num_agents must be a whole number, not 2.0",
    "cdjax.replicate({'a': 'text'}, 2)": "leaf 'a' is of type str; give arrays or numbers",
    "cdjax.mean_params({'a': 1.0})": "leaf 'a' has no axes; every leaf leads with the agent axis",
    "cdjax.mean_params({'a': jnp.ones((0, 2))})": "leaf 'a' has a leading axis of length 0",
    "cdjax.mean_params({'a': jnp.ones(3), 'b': jnp.ones(2)})": "leaf 'b' has leading axis 2, but",
    "cdjax.agent_map(3)": "fn is of type int; give a function of one agent",
    "cdjax.agent_map(lambda x: x, plan='x')": "unknown plan 'x'; expected one of auto, vmap",
    "cdjax.per_agent(3)": NO_OPTIMIZER,
    "cdjax.per_agent(SGD).init({'a': 1.0})": "leaf 'a' has no axes; every leaf leads with the a",
    "metrics.consensus_distance({})": "the tree has no leaves, so it has no agent axis",
    "metrics.agent_statistics(jnp.ones((2, 2)))": r"values has shape \(2, 2\); expected one number",
    "metrics.bytes_sent(THREE, None)": NO_TOPOLOGY,
    "metrics.bytes_sent(FOUR, RING)": FOUR_OF_THREE,
    "sharding.agent_mesh('2')": "num_devices must be a whole number, not '2'",
    "sharding.agent_mesh(99)": "num_devices is 99, but JAX finds 8; give at most 8",
    "sharding.shard_agents(THREE, None)": "mesh is of type NoneType; give cdjax.sharding",
    # leaves that are no arrays
    **dict.fromkeys(
        (
            "cdjax.replicate(MODULE, 3)",
            "cdjax.mean_params(MODULE)",
            "cdjax.agent_map(lambda x: x)(MODULE)",
            "cdjax.per_agent(SGD).init(MODULE)",
            "cdjax.cdsgd(0.1, MIX).init(MODULE)",
            "cdjax.cdmsgd(0.1, MIX).init(MODULE)",
            "cdjax.adapt_then_combine(SGD, MIX).init(MODULE)",
            "cdjax.easgd(0.1).init(MODULE)",
            "cdjax.consensus(MIX).update(THREE, optax.EmptyState(), MODULE)",
            "cdjax.training.init_state(MODULE, SGD, key=KEY)",
            "metrics.consensus_distance(MODULE)",
            "MIX(MODULE)",
        ),
        "leaf '(0/)?act' is of type custom_jvp; give arrays or numbers, such as equinox.filter",
    ),
    # training
    "train(LOSS, {'w': jnp.ones((5, 2))})": (
        r"leaf 'w' has leading axis 5, but the batch has 3 agents; stack parameters with "
        r"cdjax.replicate\(params, 3\), and batches as \(agents, samples, ...\)"
    ),
    "train(lambda p, m, b, k: (LOSS(p, m, b, k)[0], {}))": (
        r"loss_fn returned \('\*', {}\); it returns loss, \(model_state, metrics\)"
    ),
    "train(lambda p, m, b, k: p['w'].sum())": r"loss_fn returned \*; it returns loss, \(model_st",
    "train(lambda p, m, b, k: (p['w'], (m, {})))": r"loss has shape \(2,\); give one number",
    "train(lambda p, m, b, k: (p['w'].sum(), (m, {'loss': 7.0})))": (
        "loss_fn's metrics have the name 'loss', which every step has; give another"
    ),
    "cdjax.training.train_step(LOSS, SGD, value='sum')": "unknown value 'sum'; expected one of",
    "evaluate(lambda p, m, b: {'e': b @ jnp.ones((2, 2)) @ p['w']})": (
        r"metrics_fn's 'e' has shape \(3, 8\); give one number per sample, \(3,\). .*stacked=True"
    ),
    "evaluate(lambda p, m, b: {'e': p['w'].sum()})": r"metrics_fn's 'e' has shape \(\); give one",
    "evaluate(None, jnp.ones((0, 2)))": r"samples has leaves of the shapes \(0, 2\); expected \(s",
    "evaluate(None, (jnp.ones(3), jnp.ones(2)))": r"samples has leaves of the shapes \(2,\), \(3",
    "evaluate(None, jnp.ones(3), stacked=True)": r"expected \(3, samples, ...\) in each",
    # checkpoint
    "cdjax.checkpoint.save(None, 2.5, THREE)": "step must be a whole number, not 2.5",
    "cdjax.checkpoint.save(None, None, THREE)": "step must be a whole number, not None",
    "cdjax.checkpoint.save(None, 1, THREE, score='0.9')": "score is '0.9'; give one number, or N",
    "cdjax.checkpoint.save(None, 1, THREE, score=1j)": "score is 1j; give one number, or None",
    "cdjax.checkpoint.save(None, 1, THREE, notes=print)": "notes are no JSON: .*; give numbers of",
    "cdjax.checkpoint.save(None, 1, {'a': print})": "leaf 'a' is of type .*; give arrays or num",
    "cdjax.checkpoint.restore('nowhere', '1', like=THREE)": "step must be a whole number, not '1'",
    "cdjax.checkpoint.restore('nowhere', 1, like=THREE)": "nowhere has no checkpoint 1; it has no",
    # data
    "data.load('x')": "unknown data set 'x'; expected one of cifar10",
    "data.partition('abc', 2)": "labels must be a whole number, not np.str_\\('abc'\\)",
    "data.partition(np.ones((2, 3)), 2)": r"the shape \(2, 3\); give one label per sample, or",
    "data.partition(np.arange(9.0), 2)": "labels are float64; give whole numbers",
    "data.partition(np.arange(9), 2, seed=-1)": r"seed is -1; it must lie in \[0, inf\)",
    "data.partition(np.arange(9), 20)": "num_agents is 20, more than the 9 samples",
    "data.stack_agents(np.ones((4, 2)), np.ones(3), partition=[np.arange(2)])": "4 images, but 3",
    "data.stack_agents(np.ones((4, 2)), np.ones(4), partition=[np.array([5])])": (
        "partition gives agent 0 samples 5 to 5; there are 4, numbered from 0"
    ),
    "data.batch_indices([3], 1.5, first_step=0, num_steps=1, seed=0)": "batch_size must be a whole",
    "data.batch_indices([3], 2, first_step=-1, num_steps=1, seed=0)": "first_step is -1; it must",
}


@pytest.fixture(scope="session")
def errors():
    """The kind and the message of every call's error."""
    result = subprocess.run(
        [sys.executable, "-c", PREAMBLE],
        input=json.dumps(list(TABLE)),
        cwd=Path(__file__).parents[1],
        capture_output=True,
        text=True,
        timeout=300,
    )
    assert result.returncode == 0, result.stderr
    lines = map(json.loads, result.stdout.splitlines())
    return dict(zip(TABLE, lines, strict=True))


@pytest.mark.parametrize("call", TABLE)
def test_a_bad_call_is_told_what_it_was_given_and_what_to_give(call, errors):
    kind, message = errors[call]
    assert kind == "ValueError", message
    assert re.search(TABLE[call], message), message
