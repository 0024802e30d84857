"""The notebooks of docs/notebooks/ as pages, run when the site is built."""

from __future__ import annotations

import ast
import contextlib
import functools
import io
import json
import warnings
from pathlib import Path
from typing import Any, NamedTuple

FOLDER = Path(__file__).parents[1] / "notebooks"


class Ran(NamedTuple):
    """A cell after its run: what it printed, the value of its last line, and its pictures."""

    kind: str
    source: str
    alt: str
    printed: str = ""
    value: Any = None
    pictures: tuple[bytes, ...] = ()


def run(path: Path) -> list[Ran]:
    """Runs a notebook's cells one after the other, as Jupyter does; an error raises.

    Without a kernel: the notebooks are plain Python, and whoever has no Jupyter can test them.
    """
    namespace: dict[str, Any] = {"__name__": "__main__"}
    return [_ran(cell, namespace) for cell in json.loads(path.read_text())["cells"]]


def _ran(cell: dict[str, Any], namespace: dict[str, Any]) -> Ran:
    source, alt = "".join(cell["source"]), cell["metadata"].get("alt", "")
    if cell["cell_type"] != "code":
        return Ran(cell["cell_type"], source, alt)
    tree = ast.parse(source)
    last = tree.body.pop() if isinstance(tree.body[-1], ast.Expr) else None
    value = None
    with contextlib.redirect_stdout(io.StringIO()) as printed, warnings.catch_warnings():
        warnings.filterwarnings("ignore", "FigureCanvasAgg is non-interactive")  # of plt.show
        exec(compile(tree, "<cell>", "exec"), namespace)
        if last:
            value = eval(compile(ast.Expression(last.value), "<cell>", "eval"), namespace)
    return Ran("code", source, alt, printed.getvalue(), value, _pictures())


def _pictures() -> tuple[bytes, ...]:
    """The figures that a cell has drawn."""
    import matplotlib.pyplot as plt

    found = []
    for number in plt.get_fignums():
        with io.BytesIO() as file:
            plt.figure(number).savefig(file, format="png", dpi=150)
            found.append(file.getvalue())
    plt.close("all")
    return tuple(found)


def on_files(files: Any, config: Any) -> Any:
    """Adds a page for each notebook, next to the notebook itself."""
    from mkdocs.structure.files import File

    for path in sorted(FOLDER.glob("*.ipynb")):
        text, pictures = page(path, path.stat().st_mtime)
        files.append(File.generated(config, f"notebooks/{path.stem}.md", content=text))
        for name, content in pictures.items():
            files.append(File.generated(config, f"notebooks/{name}", content=content))
    return files


@functools.cache
def page(path: Path, _changed: float) -> tuple[str, dict[str, bytes]]:
    """A notebook's text, code and output in Markdown, and its pictures by their names."""
    import matplotlib

    matplotlib.use("agg")
    parts, pictures = [], {}
    for number, cell in enumerate(run(path)):
        if cell.kind == "markdown":
            parts.append(cell.source)
            continue
        parts.append(f"```python\n{cell.source}\n```")
        output = cell.printed + ("" if cell.value is None else repr(cell.value))
        if output and not cell.pictures:
            parts.append(f"```text\n{output.rstrip()}\n```")
        for content in cell.pictures:
            name = f"{path.stem}-{number}.png"
            pictures[name] = content
            parts.append(f"![{cell.alt}]({name})")
    heading, *rest = parts[0].split("\n", 1)
    download = f'<a href="../{path.name}" download>Download this notebook</a>'
    return "\n\n".join([heading, download, *rest, *parts[1:]]) + "\n", pictures
