"""Training N agents: a step, a loop of steps in one dispatch, and evaluation. Pure functions.

A *loss function* is written for one agent::

    loss_fn(params, model_state, batch, key) -> (loss, (model_state, metrics))

with ``model_state`` the non-trainable collections ({} for none), ``key`` a random key of this agent
and step only, and ``metrics`` a dict of scalars.
"""

from cdjax.training._asynchronous import ADPSGDState as ADPSGDState
from cdjax.training._asynchronous import ad_psgd as ad_psgd
from cdjax.training._asynchronous import ad_psgd_loop as ad_psgd_loop
from cdjax.training._cross_gradients import cross_gradients as cross_gradients
from cdjax.training._evaluation import evaluation as evaluation
from cdjax.training._loop import train_loop as train_loop
from cdjax.training._rounds import fedavg_loop as fedavg_loop
from cdjax.training._rounds import local_loop as local_loop
from cdjax.training._sequential import sequential_loop as sequential_loop
from cdjax.training._step import OF_EACH as OF_EACH
from cdjax.training._step import LossFn as LossFn
from cdjax.training._step import Metrics as Metrics
from cdjax.training._step import StepFn as StepFn
from cdjax.training._step import TrainState as TrainState
from cdjax.training._step import init_state as init_state
from cdjax.training._step import train_step as train_step
