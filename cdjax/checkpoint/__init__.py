"""Checkpoints: whole states on disk, saved in the background. Only this package imports Orbax.

A checkpoint is a folder named after its step. It gets that name once all of it is written, so a
process that is killed during a save leaves nothing that could be mistaken for a checkpoint. CRC-32
checksums detect truncated, corrupted or missing files, and :func:`find` skips such checkpoints.

In a run of several processes, all of them call these functions alike, with a folder that all of
them see. It needs ``orbax-checkpoint``.
"""

from cdjax.checkpoint._restore import Found as Found
from cdjax.checkpoint._restore import find as find
from cdjax.checkpoint._restore import restore as restore
from cdjax.checkpoint._save import Checkpoints as Checkpoints
from cdjax.checkpoint._save import save as save
from cdjax.checkpoint._save import steps as steps
from cdjax.checkpoint._save import wait as wait
from cdjax.checkpoint._save import writing as writing
