"""Pages from outside of docs/: the examples, CONTRIBUTING.md, CHANGELOG.md, and files linked to.

On GitHub links lead from file to file of the repository; here they are led to the pages of these.
"""

from __future__ import annotations

import ast
import json
import posixpath
import re
from pathlib import Path
from typing import Any

from mkdocs.plugins import get_plugin_logger
from mkdocs.structure.files import File, Files

ROOT = Path(__file__).parents[2]
_LOG = get_plugin_logger(__name__)
COPIED = {"CONTRIBUTING.md": "contributing.md", "CHANGELOG.md": "changelog.md"}
# Files and folders of the repository that have a page under another name.
PAGES = COPIED | {
    "README.md": "index.md",
    "benchmarks/results": "benchmarks/results/index.md",
    "cdjax": "reference/index.md",
}
_LINK = re.compile(r"(\]\()(?!\w+:|#|/)([^)\s#]+)")
_FETCHED = re.compile(
    r"""<(?:script|link|img|iframe)\b[^>]*?(?:src|href)=["']?(https?://[^"'> ]+)"""
)
_FENCE = re.compile(r"(^ *```.*?^ *```$)", re.M | re.S)


def on_files(files: Files, config: Any) -> Files:
    """Adds the pages."""
    for source, name in COPIED.items():
        files.append(File.generated(config, name, content=(ROOT / source).read_text()))
    for script in sorted((ROOT / "examples").glob("*.py")):
        name = f"examples/{script.stem}.md"
        files.append(File.generated(config, name, content=example(script)))
    results = sorted((ROOT / "benchmarks" / "results").glob("*.json"))
    files.append(File.generated(config, PAGES["benchmarks/results"], content=list_of(results)))
    for path in [*results, ROOT / "cdjax" / "plans.json"]:
        uri = path.relative_to(ROOT).as_posix()
        files.append(File.generated(config, uri, content=path.read_bytes()))
    return files


def on_page_markdown(markdown: str, page: Any, **kwargs: Any) -> str:
    """Leads the links of a page to pages of the site."""
    uri = page.file.src_uri
    source = next((source for source, name in COPIED.items() if name == uri), f"docs/{uri}")
    parts = _FENCE.split(markdown)
    parts[::2] = (_LINK.sub(lambda match: match[1] + led(match[2], source), part)
                  for part in parts[::2])  # fmt: skip
    return "".join(parts)


def on_post_page(output: str, page: Any, **kwargs: Any) -> None:
    """Warns of what a reader's browser would fetch from other servers."""
    for address in _FETCHED.findall(output):
        _LOG.warning("%s fetches %s", page.file.src_uri, address)


def led(link: str, source: str) -> str:
    """A link of a file of the repository, as a link of its page."""
    target = posixpath.normpath(posixpath.join(posixpath.dirname(source), link))
    here = PAGES.get(source, source.removeprefix("docs/"))
    there = PAGES.get(target, target.removeprefix("docs/"))
    if re.match(r"examples/\w+\.py$", there) or there.endswith(".ipynb"):
        there = f"{there.rpartition('.')[0]}.md"
    elif module := re.match(r"cdjax/(\w+)(?:\.py)?$", there):
        there = f"reference/{module[1]}.md"
    return posixpath.relpath(there, posixpath.dirname(here) or ".")


def example(script: Path) -> str:
    """A script's page: what it is, and its lines, of which those that cdjax brings stand out."""
    code = script.read_text()
    title, _, rest = (ast.get_docstring(ast.parse(code)) or "").partition("\n")
    lines = code.splitlines()
    body = [line for line in lines[ast.parse(code).body[0].end_lineno :]]
    while body and not body[0].strip():
        del body[0]
    marked = [i for i, line in enumerate(body, 1) if re.search(r"  # [+~]( .*)?$|^ *# - ", line)]
    numbers = " ".join(map(str, marked))
    name = script.relative_to(ROOT).as_posix()
    text = (title + "\n" + rest).replace("``", "`")
    return (
        f"# {script.stem}\n\n{text}\n\n"
        f"Highlighted: the {len(marked)} lines that cdjax adds, changes or removes. "
        f"Run it with `python {name}`.\n\n"
        f'```python hl_lines="{numbers}"\n' + "\n".join(body) + "\n```\n"
    )


def list_of(results: list[Path]) -> str:
    """The files of measurements, with the commands that made them."""
    rows = []
    for path in results:
        found = json.loads(path.read_text())
        command = found.get("command", "") if isinstance(found, dict) else ""
        command = " ".join(command) if isinstance(command, list) else command
        rows.append(f"| [{path.name}]({path.name}) | {f'`{command}`' if command else ''} |")
    return "\n".join(["# Measurements", "", "| file | command |", "| --- | --- |", *rows, ""])
