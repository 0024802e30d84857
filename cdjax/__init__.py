"""Consensus-based distributed SGD in JAX: many agents, private data, fixed topology, no server."""

from cdjax import metrics as metrics
from cdjax import mixing as mixing
from cdjax import topology as topology
from cdjax._types import Mixer as Mixer
from cdjax.agents import agent_map as agent_map
from cdjax.agents import mean_params as mean_params
from cdjax.agents import per_agent as per_agent
from cdjax.agents import replicate as replicate
from cdjax.topology import Topology as Topology
from cdjax.transforms import AdaptThenCombineState as AdaptThenCombineState
from cdjax.transforms import CDMSGDState as CDMSGDState
from cdjax.transforms import ConsensusState as ConsensusState
from cdjax.transforms import adapt_then_combine as adapt_then_combine
from cdjax.transforms import cdmsgd as cdmsgd
from cdjax.transforms import cdsgd as cdsgd
from cdjax.transforms import consensus as consensus
from cdjax.transforms import diminishing_schedule as diminishing_schedule
from cdjax.transforms import eval_params as eval_params
from cdjax.transforms import scale_by_agent as scale_by_agent
