"""Options from a file and into one: YAML or JSON, flat or by subject, as a run leaves them."""

from __future__ import annotations

import json
import types
from collections.abc import Iterator, Mapping
from dataclasses import fields, is_dataclass
from difflib import get_close_matches
from pathlib import Path
from typing import Any, Literal, TypeVar, Union, get_args, get_origin

from experiments.run.config import FORMAT, flat, option_hints, replaced
from experiments.run.errors import UsageError, blame, guess
from experiments.run.lazy import LazyModule

_json = LazyModule("cdjax._json")  # and with it JAX

Config = TypeVar("Config")

# What config.json holds besides options, and what of a run is not another one's to repeat.
_OF_A_RECORD = {"format", "checksum"}
_OF_A_PROCESS = {"resume", "coordinator", "num_processes", "process_id", "secret_file"}


def read_config(path: Path, default: Config) -> Config:
    """The options in a file, or in the folder of a run, over those that are the default.

    Raises:
        UsageError: if there is no such file, it cannot be read, or holds what is no option.
    """
    with blame("--config"):
        try:
            path = path.expanduser()
        except RuntimeError as error:
            raise UsageError(f"--config: {path}: no such user's home is known") from error
        path = path / "config.json" if path.is_dir() else path
        if not path.is_file():
            raise UsageError(f"--config: there is no file {path}")
        content = _parsed(path)
        if not isinstance(content, Mapping):
            raise UsageError(f"--config: {path} holds no options, but {content!r:.40}")
        is_record = "format" in content
        if content.get("format", FORMAT) != FORMAT:
            raise UsageError(f"--config: {path} was made by another version of cdjax")
        hints, given = option_hints(default), {}
        for name, value in _by_name(path, content, default):
            if is_record and name in _OF_A_PROCESS:
                continue
            if name in given:
                raise UsageError(f"--config: {path} has {name} twice; leave one out")
            given[name] = _typed(f"{path}: {name}", value, hints[name])
    copy = path.parent / "graph" / Path(str(given.get("topology", ""))).name
    if is_record and copy.is_file():  # the graph's file as the run had it
        given["topology"] = str(copy)
    return replaced(default, **given)


def config_text(config: Any) -> str:
    """All options by subject, as YAML that :func:`read_config` turns back."""
    lines = []
    for part in fields(config):
        value = getattr(config, part.name)
        if is_dataclass(value):
            own = (f"  {name}: {_scalar(of)}" for name, of in vars(value).items())
            lines += [f"{part.name}:", *own]
        else:
            lines.append(f"{part.name}: {_scalar(value)}")
    return "\n".join(lines)


def _scalar(value: Any) -> str:
    """A value as JSON, of which every scalar and list is YAML."""
    return _json.to_json(value, default=str, ensure_ascii=False)


def _parsed(path: Path) -> Any:
    text = path.read_text(encoding="utf-8")
    if path.suffix == ".json":
        return json.loads(text)
    try:
        import yaml
    except ModuleNotFoundError as error:
        remedy = "pip install 'cdjax[yaml]', or give a .json file"
        raise UsageError(f"--config: {path} needs PyYAML; {remedy}") from error
    try:
        return yaml.safe_load(text)
    except yaml.YAMLError as error:
        raise UsageError(f"--config: {path} is no YAML: {error}") from error


def _by_name(path: Path, content: Mapping[Any, Any], default: Any) -> Iterator[tuple[str, Any]]:
    """Every option in a file by its name, whether it stands alone or below its subject."""
    parts = {
        part.name: getattr(default, part.name)
        for part in fields(default)
        if is_dataclass(getattr(default, part.name))
    }
    every = flat(default)
    for key, value in content.items():
        name = str(key).replace("-", "_")
        # The subject algorithm has an option of the same name.
        if name in parts and isinstance(value, Mapping):
            own = vars(parts[name])
            for inner, of_inner in value.items():
                option = str(inner).replace("-", "_")
                _check_known(f"{path}: {name}", option, own, every)
                yield option, of_inner
        elif name not in _OF_A_RECORD:
            _check_known(f"{path}", name, every, [*every, *parts])
            yield name, value


def _check_known(where: str, name: str, known: Any, nearest: Any) -> None:
    if name in known:
        return
    close = get_close_matches(name, [*nearest], n=1)
    hint = f"did you mean {close[0]!r}?" if close else "--print-config lists all"
    if name in nearest:
        hint = "it belongs to another subject; give it without one"
    raise UsageError(f"--config: {where} has no option {name!r}; {hint}")


def _typed(where: str, value: Any, hint: Any) -> Any:
    """A value of a file as its option takes it; raises a UsageError if it does not."""
    choices = get_args(hint)
    if get_origin(hint) in (Union, types.UnionType):
        if value is None and type(None) in choices:
            return None
        kinds = [kind for kind in choices if kind is not type(None)]
        if type(value) in kinds or len(kinds) == 1:
            return _typed(where, value, type(value) if type(value) in kinds else kinds[0])
        return _typed(where, value, str)
    if get_origin(hint) is tuple:
        return tuple(_typed(where, one, choices[0]) for one in _several(value, choices[0]))
    if get_origin(hint) is Literal:
        if value not in choices:
            names = [*map(str, choices)]
            raise UsageError(
                f"--config: {where}: unknown choice {value!r}{guess(str(value), names)}; give "
                f"{', '.join(names)}"
            )
        return value
    return _plain(where, value, hint)


def _several(value: Any, kind: Any) -> list[Any]:
    """A list, whether it is written as one, as one value or, of choices, between commas."""
    if isinstance(value, str) and get_origin(kind) is Literal:
        return [part.strip() for part in value.split(",")]
    return value if isinstance(value, list) else [] if value is None else [value]


def _plain(where: str, value: Any, kind: type) -> Any:
    wanted = {bool: "true or false", int: "a whole number", float: "a number"}
    error = UsageError(f"--config: {where}: {value!r} is not {wanted.get(kind, 'a text')}")
    if isinstance(value, bool) or kind is bool:
        if isinstance(value, bool) and kind is bool:
            return value
        raise error
    if isinstance(value, list | Mapping) or value is None:
        raise error
    try:
        # By way of text: YAML takes 1e-3, which lacks a point, for one. 1.5 is no whole number.
        return kind(str(value))
    except ValueError:
        raise error from None
