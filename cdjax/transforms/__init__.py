"""Decentralized algorithms as optax gradient transformations on stacked parameters."""

from cdjax.transforms._cdmsgd import CDMSGDState as CDMSGDState
from cdjax.transforms._cdmsgd import cdmsgd as cdmsgd
from cdjax.transforms._cdmsgd import eval_params as eval_params
from cdjax.transforms._cdsgd import cdsgd as cdsgd
from cdjax.transforms._consensus import AdaptThenCombineState as AdaptThenCombineState
from cdjax.transforms._consensus import ConsensusState as ConsensusState
from cdjax.transforms._consensus import adapt_then_combine as adapt_then_combine
from cdjax.transforms._consensus import consensus as consensus
from cdjax.transforms._scale_by_agent import scale_by_agent as scale_by_agent
from cdjax.transforms._schedules import diminishing_schedule as diminishing_schedule
