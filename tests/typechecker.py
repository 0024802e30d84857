"""Beartype as the import hook of conftest calls it: a float argument may be given an int."""

from beartype import BeartypeConf, beartype

typechecker = beartype(conf=BeartypeConf(is_pep484_tower=True))
