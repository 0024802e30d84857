"""The table of fastest plans, from a machine's results: ``python -m benchmarks.plans RESULTS``.

``cdjax.agent_map(plan="auto")`` reads the table.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import tyro

from cdjax._json import to_json

TABLE = Path(__file__).parents[1] / "cdjax" / "plans.json"
_PLANS = ("vmap", "map", "unroll")


def main(results: tyro.conf.Positional[Path]) -> None:
    """Takes the plans of a backend from the results of ``python -m benchmarks.accelerator``.

    Args:
        results: the JSON that it wrote. The tables of other backends stay.
    """
    backend, table = table_of(results)
    tables = json.loads(TABLE.read_text()) if TABLE.exists() else {}
    TABLE.write_text(to_json(tables | {backend: table}, indent=2, ensure_ascii=False) + "\n")


def table_of(results: Path) -> tuple[str, dict[str, Any]]:
    """The backend of some results, and its table of fastest plans."""
    record = json.loads(results.read_text())
    _, _, backend = record["device"].rpartition("(")
    return backend.rstrip(")"), {
        "device": record["device"],
        "date": record["date"],
        "results": results.name,
        "agent_map": _fastest_plans(record["sections"]["cnn"]["rows"]),
    }


def _fastest_plans(rows: Sequence[Mapping[str, Any]]) -> dict[str, dict[str, str]]:
    """By kind of function and number of agents, the plan with the least time over all batches."""
    times: dict[tuple[str, int], dict[str, dict[int, float]]] = {}
    for row in rows:
        if row["plan"] in _PLANS and "seconds" in row:
            case = times.setdefault((f"convolution {row['dtype']}", row["agents"]), {})
            case.setdefault(row["plan"], {})[row["batch"]] = row["seconds"]
    table: dict[str, dict[str, str]] = {}
    for (kind, agents), plans in sorted(times.items()):
        # Only batches that every plan was timed with: time may have ended before the last.
        common = set.intersection(*map(set, plans.values()))
        total = {plan: sum(of_batch[b] for b in common) for plan, of_batch in plans.items()}
        if common and len(total) > 1:
            table.setdefault(kind, {})[str(agents)] = min(total, key=lambda plan: total[plan])
    return table


if __name__ == "__main__":
    tyro.cli(main)
