"""Training N agents: a step, a loop of steps in one dispatch, and evaluation. Pure functions.

A *loss function* is written for one agent::

    loss_fn(params, model_state, batch, key) -> (loss, (model_state, metrics))

with ``model_state`` the non-trainable collections ({} for none), ``key`` a random key of this agent
and step only, and ``metrics`` a dict of scalars.
"""

from cdjax.training._sequential import sequential_loop as sequential_loop
from cdjax.training._training import LossFn as LossFn
from cdjax.training._training import Metrics as Metrics
from cdjax.training._training import StepFn as StepFn
from cdjax.training._training import TrainState as TrainState
from cdjax.training._training import evaluation as evaluation
from cdjax.training._training import init_state as init_state
from cdjax.training._training import train_loop as train_loop
from cdjax.training._training import train_step as train_step
