"""Data sets, their partition among agents, and batches."""

from cdjax.data._archives import DataCorruptError as DataCorruptError
from cdjax.data._batches import AgentData as AgentData
from cdjax.data._batches import batch_indices as batch_indices
from cdjax.data._batches import channel_statistics as channel_statistics
from cdjax.data._batches import normalise as normalise
from cdjax.data._batches import stack_agents as stack_agents
from cdjax.data._batches import take_batch as take_batch
from cdjax.data._features import SKEWS as SKEWS
from cdjax.data._features import skew_features as skew_features
from cdjax.data._own import deal as deal
from cdjax.data._own import zip_agents as zip_agents
from cdjax.data._partition import PARTITIONS as PARTITIONS
from cdjax.data._partition import partition as partition
from cdjax.data._sources import DATASETS as DATASETS
from cdjax.data._sources import DataNotFoundError as DataNotFoundError
from cdjax.data._sources import Dataset as Dataset
from cdjax.data._sources import load as load
from cdjax.data._sources import prepare as prepare
from cdjax.data._visits import take_visited as take_visited
from cdjax.data._visits import visits as visits
