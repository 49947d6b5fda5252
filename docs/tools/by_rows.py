"""The tables of steps over rows, from bench/rows.json."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import fewer
from marked import table

NAME = "rows.json"

LINE = [f"{k} rows" for k in (256, 1024, 4096, 16384, 65536)]
"""The topics that show how time goes with the rows of a batch."""


def topics() -> Any:
    return fewer.read(NAME)["topics"]


def caption() -> str:
    return fewer.caption(NAME)


def times(topic: str) -> Callable[[], str]:
    """The contestants of a topic, their times, and how often theirs fits into the dense step's."""

    def made() -> str:
        found = topics()[topic]
        rows = [[name, f"{us:,.0f}", f"{found['dense'] / us:,.1f}×"] for name, us in found.items()]
        return table(["step", "µs", "as fast as dense"], rows, numbers=1)

    return made


def line() -> str:
    """Frozen steps over batches of more and more rows: the time, and that of a row."""
    found = topics()
    rows = [
        [f"{int(name.split()[0]):,}", f"{us:,.0f}", f"{1000 * us / int(name.split()[0]):,.0f}"]
        for name, us in ((name, found[name]["frozen"]) for name in LINE)
    ]
    return table(["rows of a batch", "µs", "ns a row"], rows, numbers=0)


def short(others: list[str]) -> list[str]:
    """The row of the README's table: SparseAdam stands in the column of torch's fused step."""
    found = topics()["uniform"]
    ours = found["frozen"]
    cells = {"torch fused": f"{found['SparseAdam'] / ours:.1f}×"}
    name = "256 [rows](docs/guide/rows.md) of 100,000 × 64 (torch: SparseAdam)"
    return [name, *(cells.get(other, "") for other in others), f"{ours:,.0f}"]
