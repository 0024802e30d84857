"""Docstrings for the site: what they have of reStructuredText becomes Markdown.

``help()`` and editors show the docstrings as they stand; mkdocstrings reads Markdown.
"""

from __future__ import annotations

import ast
import functools
import re
import textwrap
from pathlib import Path
from typing import Any

import griffe

PACKAGE = Path(__file__).parents[2] / "cdjax"

_MATH_BLOCK = re.compile(r"^( *)\.\. math::(.*)(?:\n|\Z)((?:\n|\1 +.*\n?)*)", re.M)
_MATH = re.compile(r":math:`([^`]+)`")
_ROLE = re.compile(r":(?:func|class|mod|meth|attr|data):`~?([^`]+)`")
_LITERAL = re.compile(r"^(?!\.\. )(\S.*)::\n((?:\n|    .*\n?)+)", re.M)
_TABLE = re.compile(r"^=+(?:  +=+)+\n(.+\n)=+(?:  +=+)+\n((?:.+\n)+?)=+(?:  +=+)+$", re.M)


class Markdown(griffe.Extension):
    """The extension that mkdocs.yml names: each docstring is turned as it is collected."""

    def on_object(self, *, obj: griffe.Object, **kwargs: Any) -> None:
        """Turns the docstring of a module, class, function or attribute."""
        if obj.docstring:
            module = obj.canonical_path.split(".")[1:2]
            obj.docstring.value = to_markdown(obj.docstring.value, *module)


def to_markdown(text: str, module: str = "") -> str:
    """A docstring's text as Markdown; bare names are first looked for in the module."""
    text = _TABLE.sub(_table, text)
    text = _MATH_BLOCK.sub(_math_block, text)
    text = _MATH.sub(lambda match: f"${match[1]}$", text)
    text = _ROLE.sub(lambda match: _link(match[1], module), text)
    text = re.sub(r"^Example: ``(.+)``$", r"**Example**\n\n```python\n\1\n```\n", text, flags=re.M)
    text = _LITERAL.sub(_literal, text)
    return re.sub(r"^(References?):", r"**\1:**", text, flags=re.M)


def _math_block(match: re.Match[str]) -> str:
    indent, first, rest = match.groups()
    equation = f"{first.strip()}\n{textwrap.dedent(rest)}".strip()
    if r"\\" in equation or "&" in equation:  # as Sphinx does
        equation = rf"\begin{{aligned}}{equation}\end{{aligned}}"
    return textwrap.indent(f"\n$$\n{equation}\n$$\n\n", indent)


def _literal(match: re.Match[str]) -> str:
    heading, code = match.groups()
    heading = "**Example**" if heading == "Example" else f"{heading}:"
    return f"{heading}\n\n```python\n{textwrap.dedent(code).strip()}\n```\n\n"


def _table(match: re.Match[str]) -> str:
    rows = [re.split(r" {2,}", row.strip()) for row in (match[1] + match[2]).splitlines()]
    lines = [f"| {' | '.join(row)} |" for row in rows]
    return "\n".join([lines[0], "|" + " --- |" * len(rows[0]), *lines[1:]])


def _link(name: str, module: str) -> str:
    """A name of a docstring as a link to where the site documents it."""
    parts = name.removeprefix("cdjax.").split(".")
    if parts[0] in public_modules():
        module = parts.pop(0)
        if not parts:
            return f"[`{name}`][cdjax.{module}]"
    paths = public_paths()
    places = (place for place in paths if place[1] == parts[0])
    # The module's own name first, then whatever has it; sorting is stable.
    place = next(iter(sorted(places, key=lambda place: place[0] != module)), None)
    return f"[`{name}`][{paths[place]}]" if place and len(parts) == 1 else f"`{name}`"


@functools.cache
def public_paths() -> dict[tuple[str, str], str]:
    """The shortest path to each public function and class, by its module and name."""
    return {
        (module, name): f"cdjax.{name}" if _is_of_root(module, name) else f"cdjax.{module}.{name}"
        for module in public_modules()
        for name, _ in members(module)
    }


@functools.cache
def _names_of_root() -> dict[str, Path]:
    return dict(exported(PACKAGE / "__init__.py"))


def _is_of_root(module: str, name: str) -> bool:
    """Whether ``cdjax.name`` is the name of this module, and not another's."""
    file = _names_of_root().get(name)
    return bool(file) and file.relative_to(PACKAGE).parts[0].removesuffix(".py") == module


@functools.cache
def public_modules() -> tuple[str, ...]:
    """The public modules of cdjax: folders and files without a leading underscore."""
    found = (path for path in sorted(PACKAGE.iterdir()) if not path.name.startswith(("_", ".")))
    return tuple(
        path.stem for path in found if path.suffix == ".py" or (path / "__init__.py").exists()
    )


def members(module: str) -> list[tuple[str, Path]]:
    """The public functions and classes of a module, and the file that defines each."""
    folder = PACKAGE / module
    if not folder.is_dir():
        file = folder.with_suffix(".py")
        return [(name, file) for name in definitions(file) if not name.startswith("_")]
    return [
        (name, file) for name, file in exported(folder / "__init__.py") if name in definitions(file)
    ]


def exported(init: Path) -> list[tuple[str, Path]]:
    """What an ``__init__.py`` imports under its own name, and from which file."""
    found = []
    for node in ast.parse(init.read_text()).body:
        if isinstance(node, ast.ImportFrom) and (node.module or "").startswith("cdjax"):
            file = PACKAGE.parent.joinpath(*(node.module or "").split(".")).with_suffix(".py")
            found += [(alias.name, file) for alias in node.names if alias.asname == alias.name]
    return found


@functools.cache
def definitions(file: Path) -> tuple[str, ...]:
    """The functions and classes that a file defines."""
    if not file.exists():  # a folder, whose __init__.py gathers names
        return ()
    kinds = ast.FunctionDef | ast.ClassDef
    return tuple(node.name for node in ast.parse(file.read_text()).body if isinstance(node, kinds))
