"""Checkpoints: whole states on disk, saved while training goes on. Orbax lives here alone.

A checkpoint is a folder named after its step. It gets that name when all of it is written, so a
process that dies in the middle of a save leaves nothing that could be taken for a checkpoint. Its
files are summed (CRC-32); one that was cut, garbled or lost afterwards is found out and passed by.

In a run of several processes all call these functions alike, with a folder that all of them see.

It needs ``orbax-checkpoint``.
"""

from cdjax.checkpoint._checkpoint import Checkpoints as Checkpoints
from cdjax.checkpoint._checkpoint import Found as Found
from cdjax.checkpoint._checkpoint import find as find
from cdjax.checkpoint._checkpoint import restore as restore
from cdjax.checkpoint._checkpoint import save as save
from cdjax.checkpoint._checkpoint import steps as steps
from cdjax.checkpoint._checkpoint import wait as wait
from cdjax.checkpoint._checkpoint import writing as writing
