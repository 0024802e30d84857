"""Compressors: an agent's leaves as small messages, with their bounds and their bytes."""

from cdjax.compress._compressor import Compressor as Compressor
from cdjax.compress._compressor import identity as identity
from cdjax.compress._feedback import ErrorFeedbackState as ErrorFeedbackState
from cdjax.compress._feedback import Feedback as Feedback
from cdjax.compress._feedback import compressed_updates as compressed_updates
from cdjax.compress._feedback import difference_feedback as difference_feedback
from cdjax.compress._feedback import error_feedback as error_feedback
from cdjax.compress._low_rank import low_rank as low_rank
from cdjax.compress._public import PublicCopies as PublicCopies
from cdjax.compress._public import Publishing as Publishing
from cdjax.compress._public import publishing as publishing
from cdjax.compress._quantizers import bin_means as bin_means
from cdjax.compress._quantizers import quantize as quantize
from cdjax.compress._quantizers import sign as sign
from cdjax.compress._sparse import chunk_top_k as chunk_top_k
from cdjax.compress._sparse import dct_top_k as dct_top_k
from cdjax.compress._sparse import random_k as random_k
from cdjax.compress._sparse import top_k as top_k
