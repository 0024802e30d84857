"""What is typed, checked before it is parsed: a word that no option takes is told in one line."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from difflib import get_close_matches
from types import NoneType, UnionType
from typing import Any, Literal, NamedTuple, Union, get_args, get_origin, get_type_hints

import tyro

from experiments.run.config import option_hints
from experiments.run.errors import UsageError, flag, guess

_NUMBERS = {int: "whole number", float: "number"}


class _Given(NamedTuple):
    """An option as it is typed, if any, and the words after it; or its value after =."""

    option: str
    values: list[str]
    is_assigned: bool


def check_words(default: Any, words: Sequence[str]) -> None:
    """Raises for what the parser would not take, in the voice of all other errors.

    Args:
        default: the options that there are.
        words: the command line, without the options of the program itself.

    Raises:
        UsageError: for an unknown option, one that lacks its value, a word that belongs to none, an
            unknown choice, and what is no number where one belongs.
    """
    flags = {flag(name): hint for name, hint in option_hints(default).items()}
    flags |= {f"--no-{name[2:]}": bool for name, hint in flags.items() if hint is bool}
    free = _takes_words(default)
    for option, values, is_assigned in _given(words):
        if not option and free:
            continue
        if not option:
            raise UsageError(f"{values[0]!r} follows no option; options begin with --")
        hint = flags.get(option)
        if hint is None:
            close = get_close_matches(option, flags, n=1)
            remedy = f"did you mean {close[0]}?" if close else "--help-all lists all"
            raise UsageError(f"{option}: there is no such option; {remedy}")
        if hint is bool and is_assigned:
            raise UsageError(f"{option}: it takes no value; leave {values[0]!r} out")
        several = _is_tuple(hint) and not is_assigned
        most = 0 if hint is bool else len(values) if several else 1
        if len(values) > most and not free:
            raise UsageError(
                f"{values[most]!r} belongs to no option: {option} takes {_count(most)}"
            )
        if not values and hint is not bool and not several:
            raise UsageError(f"{option}: it lacks its value; give one")
        for value in values[:most]:
            _check_value(option, value, hint)


def _takes_words(default: Any) -> bool:
    """Whether the program takes words without an option, such as folders."""
    hints = get_type_hints(type(default), include_extras=True).values()
    return any(tyro.conf.Positional[Any].__metadata__[0] in get_args(hint) for hint in hints)


def _given(words: Sequence[str]) -> Iterator[_Given]:
    """The options in their order, each with what follows it."""
    found = _Given("", [], False)
    for word in words:
        if not word.startswith("--"):
            found.values.append(word)
            continue
        if found.option or found.values:
            yield found
        name, equals, value = word.partition("=")
        found = _Given(name.replace("_", "-"), [value] if equals else [], bool(equals))
    if found.option or found.values:
        yield found


def _count(most: int) -> str:
    return "one value" if most else "none"


def _check_value(option: str, value: str, hint: Any) -> None:
    """Raises if the value is of none of the types that the option has."""
    if value == "None" and NoneType in get_args(hint):
        return
    reasons = [_reason(value, kind) for kind in _kinds(hint)]
    if all(reasons):
        raise UsageError(f"{option}: {reasons[0]}")


def _kinds(hint: Any) -> list[Any]:
    """The types of a single value, without None."""
    if get_origin(hint) in (Union, UnionType):
        return [kind for one in get_args(hint) if one is not NoneType for kind in _kinds(one)]
    return _kinds(get_args(hint)[0]) if get_origin(hint) is tuple else [hint]


def _is_tuple(hint: Any) -> bool:
    return any(get_origin(one) is tuple for one in (hint, *get_args(hint)))


def _reason(value: str, kind: Any) -> str:
    """Why it is no value of the type; "" if it is one."""
    if get_origin(kind) is Literal:
        choices = [*map(str, get_args(kind))]
        if value in choices:
            return ""
        return f"unknown choice {value!r}{guess(value, choices)}; expected {', '.join(choices)}"
    if kind not in _NUMBERS:
        return ""
    try:
        kind(value)
    except ValueError:
        return f"{value!r} is no {_NUMBERS[kind]}"
    return ""
