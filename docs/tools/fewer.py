"""The tables of steps in fewer bytes: their speed and their quality, from files of bench/."""

from __future__ import annotations

import json
from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import Any

from marked import table

BENCH = Path(__file__).parent.parent.parent / "bench"

TRAINED = {
    "train loss": ".4f",
    "±": ".4f",
    "test loss": ".4f",
    "accuracy, %": ".2f",
    "largest update / lr": ".1f",
    "distance": ".3f",
}
FOLLOWED = {
    f"{when}: {what}": ".2f"
    for when in ("steady", "fallen")
    for what in ("median", "least", "most")
}
"""The columns of tables, and how their figures are written."""


@cache
def read(name: str) -> Any:
    return json.loads((BENCH / name).read_text("utf-8"))


def caption(name: str) -> str:
    """The machine on which a file was made."""
    here = read(name)["machine"]
    versions = ", ".join(f"{package} {version}" for package, version in here["versions"].items())
    threads = "1 thread" if here["threads"] == 1 else f"{here['threads']} threads"
    return f"{here['cpu']}, {threads}, {here['date']}: {versions}."


def speed(topic: str) -> Callable[[], str]:
    """A table of nanoseconds for each element and of times as fast as float32."""

    def made() -> str:
        rows = [row for row in read("bytes.json")["rows"] if row["topic"] == topic]
        sizes = [*dict.fromkeys(row["case"] for row in rows)]
        found = {(row["contestant"], row["case"]): row["median"] for row in rows}
        return table(
            ["ns an element", *(f"{int(size):,} elements" for size in sizes)],
            [
                [name, *(_with_ratio(found["float32", size], found[name, size]) for size in sizes)]
                for name in dict.fromkeys(row["contestant"] for row in rows)
            ],
            numbers=1,
        )

    return made


def _with_ratio(base: float, each: float) -> str:
    ratio = base / each
    return f"{each:.3f} ({ratio:.2f}×)" if ratio > 0.1 else f"{each:.1f} (1/{1 / ratio:.0f})"


def quality(topic: str, digits: dict[str, str]) -> Callable[[], str]:
    """A table of a topic's figures, one line for each way to keep parameters and state."""

    def made() -> str:
        rows = [row for row in read("quality.json")["rows"] if row["topic"] == topic]
        found = {(row["way"], row["what"]): row["value"] for row in rows}
        return table(
            ["kept", *digits],
            [
                [way, *(_written(found.get((way, what)), form) for what, form in digits.items())]
                for way in dict.fromkeys(row["way"] for row in rows)
            ],
            numbers=1,
        )

    return made


def _written(value: float | None, form: str) -> str:
    return "" if value is None else f"{value:{form}}"
