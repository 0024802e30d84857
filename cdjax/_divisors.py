"""Equal parts of a number of things, as large as fit."""

from __future__ import annotations


def largest_divisor(number: int, most: int) -> int:
    """The largest divisor of ``number`` that is at most ``most``; 1 if the number is 0.

    Args:
        number: a whole number, at least 0.
        most: at least 1.
    """
    return next(n for n in range(min(number, most), 0, -1) if number % n == 0) if number else 1
