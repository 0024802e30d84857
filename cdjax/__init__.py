"""Consensus-based distributed SGD in JAX: many agents, private data, fixed topology, no server."""

from __future__ import annotations

import importlib
from types import ModuleType
from typing import TYPE_CHECKING

from cdjax import compress as compress
from cdjax import data as data
from cdjax import metrics as metrics
from cdjax import mixing as mixing
from cdjax import network as network
from cdjax import robust as robust
from cdjax import sharding as sharding
from cdjax import theory as theory
from cdjax import topology as topology
from cdjax import training as training
from cdjax._types import Mixer as Mixer
from cdjax.agents import agent_map as agent_map
from cdjax.agents import mean_params as mean_params
from cdjax.agents import per_agent as per_agent
from cdjax.agents import replicate as replicate
from cdjax.topology import Topology as Topology
from cdjax.training import cross_gradients as cross_gradients
from cdjax.transforms import AdaptCorrectCombineState as AdaptCorrectCombineState
from cdjax.transforms import AdaptThenCombineState as AdaptThenCombineState
from cdjax.transforms import BEERState as BEERState
from cdjax.transforms import CDMSGDState as CDMSGDState
from cdjax.transforms import ChocoState as ChocoState
from cdjax.transforms import CombineThenAdaptState as CombineThenAdaptState
from cdjax.transforms import ConsensusState as ConsensusState
from cdjax.transforms import CorrectedConsensusState as CorrectedConsensusState
from cdjax.transforms import CrossGradients as CrossGradients
from cdjax.transforms import DecentLaMState as DecentLaMState
from cdjax.transforms import DelayedState as DelayedState
from cdjax.transforms import DeMoState as DeMoState
from cdjax.transforms import DownpourState as DownpourState
from cdjax.transforms import EASGDState as EASGDState
from cdjax.transforms import GoSGDState as GoSGDState
from cdjax.transforms import KGTState as KGTState
from cdjax.transforms import LEDState as LEDState
from cdjax.transforms import OuterState as OuterState
from cdjax.transforms import PowerGossipState as PowerGossipState
from cdjax.transforms import PushDIGingState as PushDIGingState
from cdjax.transforms import PushSumState as PushSumState
from cdjax.transforms import QuasiGlobalAdamState as QuasiGlobalAdamState
from cdjax.transforms import QuasiGlobalState as QuasiGlobalState
from cdjax.transforms import RelayState as RelayState
from cdjax.transforms import SparseLoCoState as SparseLoCoState
from cdjax.transforms import SUDAState as SUDAState
from cdjax.transforms import TrackingState as TrackingState
from cdjax.transforms import accelerated_outer as accelerated_outer
from cdjax.transforms import adapt_correct_combine as adapt_correct_combine
from cdjax.transforms import adapt_then_combine as adapt_then_combine
from cdjax.transforms import aggregate_cross_gradients as aggregate_cross_gradients
from cdjax.transforms import average_updates as average_updates
from cdjax.transforms import beer as beer
from cdjax.transforms import cdmsgd as cdmsgd
from cdjax.transforms import cdsgd as cdsgd
from cdjax.transforms import cga as cga
from cdjax.transforms import choco as choco
from cdjax.transforms import combine_then_adapt as combine_then_adapt
from cdjax.transforms import consensus as consensus
from cdjax.transforms import corrected_consensus as corrected_consensus
from cdjax.transforms import d2 as d2
from cdjax.transforms import decentlam as decentlam
from cdjax.transforms import delayed as delayed
from cdjax.transforms import demo as demo
from cdjax.transforms import diminishing_schedule as diminishing_schedule
from cdjax.transforms import downpour as downpour
from cdjax.transforms import eamsgd as eamsgd
from cdjax.transforms import easgd as easgd
from cdjax.transforms import elastic_averaging as elastic_averaging
from cdjax.transforms import eval_params as eval_params
from cdjax.transforms import exact_diffusion as exact_diffusion
from cdjax.transforms import extra as extra
from cdjax.transforms import fedavg as fedavg
from cdjax.transforms import gcdsgd as gcdsgd
from cdjax.transforms import gosgd as gosgd
from cdjax.transforms import gossip as gossip
from cdjax.transforms import gradient_tracking as gradient_tracking
from cdjax.transforms import icdsgd as icdsgd
from cdjax.transforms import kgt as kgt
from cdjax.transforms import led as led
from cdjax.transforms import momentum_tracking as momentum_tracking
from cdjax.transforms import outer as outer
from cdjax.transforms import power_gossip as power_gossip
from cdjax.transforms import push_diging as push_diging
from cdjax.transforms import push_sum as push_sum
from cdjax.transforms import quasi_global_adam as quasi_global_adam
from cdjax.transforms import quasi_global_momentum as quasi_global_momentum
from cdjax.transforms import relay as relay
from cdjax.transforms import scale_by_agent as scale_by_agent
from cdjax.transforms import server_params as server_params
from cdjax.transforms import slow_params as slow_params
from cdjax.transforms import slowmo as slowmo
from cdjax.transforms import sparse_loco as sparse_loco
from cdjax.transforms import suda as suda
from cdjax.transforms import tracking as tracking

__version__ = "0.2.0.dev0"

# Modules that need an extra, with the package that it brings: imported at first use, so that the
# core works without it.
_LAZY = {"checkpoint": "orbax", "models": "flax"}

if TYPE_CHECKING:
    from cdjax import checkpoint as checkpoint
    from cdjax import models as models
else:  # a type checker that saw this function would take every misspelled name for Any

    def __getattr__(name: str) -> ModuleType:
        if name not in _LAZY:
            raise AttributeError(f"module 'cdjax' has no attribute {name!r}")
        try:
            return importlib.import_module(f"cdjax.{name}")
        except ModuleNotFoundError as error:
            if (error.name or "").partition(".")[0] != _LAZY[name]:
                raise
            needs = f"cdjax.{name} needs {_LAZY[name]}; pip install 'cdjax[experiments]'"
            raise ImportError(needs) from error


def __dir__() -> list[str]:
    return sorted({*globals(), *_LAZY})
