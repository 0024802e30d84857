"""Decentralized algorithms and their centralized rivals: optax transformations of stacked trees."""

from cdjax.transforms._cdmsgd import CDMSGDState as CDMSGDState
from cdjax.transforms._cdmsgd import cdmsgd as cdmsgd
from cdjax.transforms._cdmsgd import eval_params as eval_params
from cdjax.transforms._cdsgd import cdsgd as cdsgd
from cdjax.transforms._consensus import AdaptThenCombineState as AdaptThenCombineState
from cdjax.transforms._consensus import ConsensusState as ConsensusState
from cdjax.transforms._consensus import adapt_then_combine as adapt_then_combine
from cdjax.transforms._consensus import consensus as consensus
from cdjax.transforms._delayed import DelayedState as DelayedState
from cdjax.transforms._delayed import delayed as delayed
from cdjax.transforms._downpour import DownpourState as DownpourState
from cdjax.transforms._downpour import downpour as downpour
from cdjax.transforms._easgd import EASGDState as EASGDState
from cdjax.transforms._easgd import eamsgd as eamsgd
from cdjax.transforms._easgd import easgd as easgd
from cdjax.transforms._easgd import elastic_averaging as elastic_averaging
from cdjax.transforms._fedavg import fedavg as fedavg
from cdjax.transforms._gosgd import GoSGDState as GoSGDState
from cdjax.transforms._gosgd import gosgd as gosgd
from cdjax.transforms._gossip import gossip as gossip
from cdjax.transforms._schedules import diminishing_schedule as diminishing_schedule
from cdjax.transforms._server import server_params as server_params
from cdjax.transforms._weighting import average_updates as average_updates
from cdjax.transforms._weighting import scale_by_agent as scale_by_agent
