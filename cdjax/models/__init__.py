"""Flax models and their losses, each for one agent. Only this package imports Flax."""

from cdjax.models._classification import Batch as Batch
from cdjax.models._classification import classification_loss as classification_loss
from cdjax.models._classification import classification_metrics as classification_metrics
from cdjax.models._classification import init_model as init_model
from cdjax.models._conv import conv_general_dilated as conv_general_dilated
from cdjax.models._networks import CNN as CNN
from cdjax.models._networks import MLP as MLP
from cdjax.models._networks import Model as Model
from cdjax.models._networks import ResNet20 as ResNet20
from cdjax.models._networks import SoftmaxRegression as SoftmaxRegression
