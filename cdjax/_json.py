"""JSON that every parser reads.

The standard (RFC 8259) has no NaN and no infinity. Python writes them nevertheless, and strict
parsers then refuse the whole line.
"""

from __future__ import annotations

import json
from typing import Any


def to_json(value: Any, **options: Any) -> str:
    """A value as JSON, with null in place of the numbers that are not finite.

    Args:
        value: dicts, lists, tuples, strings, numbers of Python, truth values and None.
        **options: those of ``json.dumps``, such as ``indent``.

    Raises:
        TypeError: if a part of the value is of another type.
        ValueError: if the value contains itself.
    """
    try:
        return json.dumps(value, allow_nan=False, **options)
    except ValueError:  # a number that is not finite, or a circle, of which the next line tells
        text = json.dumps(value, **options)
    return json.dumps(json.loads(text, parse_constant=lambda name: None), **options)


def as_json(value: Any, **options: Any) -> Any:
    """A value as it comes back from JSON: lists for tuples, and strings for keys."""
    return json.loads(to_json(value, **options))
