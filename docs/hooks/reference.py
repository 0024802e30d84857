"""Reference pages: one for each public module, from its files' and its functions' docstrings.

Whatever a module makes public appears by itself.
"""

from __future__ import annotations

import ast
from itertools import groupby
from pathlib import Path
from typing import Any

from docstrings import PACKAGE, members, public_modules, public_paths, to_markdown
from mkdocs.structure.files import File, Files

# In the order in which data flows; modules that are not named come last.
ORDER = ["topology", "mixing", "robust", "network", "compress", "transforms", "agents", "sharding"]
ORDER += ["metrics", "theory", "models", "data", "training", "checkpoint"]


def modules() -> list[str]:
    """The public modules, in the order of the navigation."""
    known = [name for name in ORDER if name in public_modules()]
    return known + [name for name in public_modules() if name not in known]


def on_config(config: Any) -> Any:
    """Puts the pages at the end of the section of the navigation that is called Reference."""
    for section in config.nav:
        if "Reference" in section:
            section["Reference"] += [
                {f"cdjax.{name}": f"reference/{name}.md"} for name in modules()
            ]
    return config


def on_files(files: Files, config: Any) -> Files:
    """Adds the pages to those of docs/."""
    files.append(File.generated(config, "reference/index.md", content=index()))
    for name in modules():
        files.append(File.generated(config, f"reference/{name}.md", content=page(name)))
    return files


def index() -> str:
    """The page with all modules and the words that they share."""
    rows = [f"| [`cdjax.{name}`]({name}.md) | {heading(name)} |" for name in modules()]
    words = to_markdown(_docstring(PACKAGE / "_types.py"))
    table = "\n".join(["| module | what it has |", "| --- | --- |", *rows])
    return f"# Reference\n\n{table}\n\n## Words\n\n{words}\n"


def heading(module: str) -> str:
    """What a module is about, in a line."""
    return _docstring(_file(module)).partition("\n")[0].rstrip(".")


def page(module: str) -> str:
    """A module's page, in Markdown with mkdocstrings' blocks."""
    lines = [
        f"# cdjax.{module}",
        f"[](){{#cdjax.{module}}}",
        to_markdown(_docstring(_file(module)), module),
    ]
    constants = _constants(module)
    if constants:
        lines.append(f"Tables: {', '.join(f'`cdjax.{module}.{name}`' for name in constants)}.")
    for file, names in groupby(members(module), key=lambda member: member[1]):
        if file != _file(module):
            title, _, body = _docstring(file).partition("\n")
            lines += [f"## {title.rstrip('.')}", to_markdown(body.strip() + "\n", module)]
        # States last: they are of use to whoever reads a checkpoint.
        for name in sorted((name for name, _ in names), key=lambda name: name.endswith("State")):
            lines.append(
                f"::: {public_paths()[module, name]}\n    options:\n      heading_level: 3"
            )
    return "\n\n".join(lines) + "\n"


def _constants(module: str) -> list[str]:
    tree = ast.parse(_file(module).read_text())
    names = (alias.asname or "" for node in tree.body if isinstance(node, ast.ImportFrom)
             for alias in node.names)  # fmt: skip
    return [name for name in names if name.isupper()]


def _file(module: str) -> Path:
    folder = PACKAGE / module
    return folder / "__init__.py" if folder.is_dir() else folder.with_suffix(".py")


def _docstring(file: Path) -> str:
    return ast.get_docstring(ast.parse(file.read_text())) or ""
