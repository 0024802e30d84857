"""Tables from records."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np


def over_seeds(values: Sequence[float], form: str) -> str:
    """Mean and standard deviation of a number per seed."""
    return f"{np.mean(values):{form}} ± {np.std(values):{form}}"


def markdown_table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """A table in Markdown."""
    lines = [head, ["---"] * len(head), *rows]
    return "".join(f"| {' | '.join(line)} |\n" for line in lines)
