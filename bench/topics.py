"""The command line that benchmarks have which are scripts: topics by name, tables, and JSON."""

from __future__ import annotations

import argparse
import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from fusedstep.benchmarks.machine import machine
from fusedstep.benchmarks.records import Machine
from fusedstep.benchmarks.tables import describe


class Row(NamedTuple):
    """One figure of one contestant, and the quartiles of its turns."""

    topic: str
    case: str
    contestant: str
    unit: str
    median: float
    low: float
    high: float
    turns: int


def parser_of(doc: str | None, topics: Mapping[str, Any]) -> argparse.ArgumentParser:
    """The parser of a script whose docstring begins with what it does, and which has topics."""
    parser = argparse.ArgumentParser(description=(doc or "").splitlines()[0])
    parser.add_argument("what", nargs="*", help=f"of {', '.join(topics)}; without it, everything")
    return parser


def with_out(parser: argparse.ArgumentParser) -> argparse.ArgumentParser:
    """The parser with an argument for a file of figures."""
    parser.add_argument("--out", type=Path, metavar="FILE", help="write the figures as JSON")
    return parser


def parsed(parser: argparse.ArgumentParser, topics: Mapping[str, Any]) -> argparse.Namespace:
    """The arguments, with all topics where none is named."""
    options = parser.parse_args()
    if unknown := [name for name in options.what if name not in topics]:
        parser.error(f"{', '.join(unknown)} is not one of {', '.join(topics)}")
    options.what = options.what or [*topics]
    return options


def described(packages: Sequence[str] = ()) -> Machine:
    """Describe this machine with those packages, and print it."""
    here = machine(packages)
    print(*describe(here), sep="\n")
    return here


def headed(
    what: Sequence[str], topics: Mapping[str, Callable[..., Any]]
) -> Iterator[Callable[..., Any]]:
    """The functions of topics, each after its docstring as a heading."""
    for topic in what:
        print(f"\n## {(topics[topic].__doc__ or topic).rstrip('.')}\n")
        yield topics[topic]


def head(unit: str, names: Sequence[str]) -> None:
    """Print the head of a table of figures, one column for each name."""
    print(f"| {unit} | {' | '.join(names)} |\n| --- |{' ---: |' * len(names)}")


def write(path: Path | None, here: Machine, rows: Sequence[Any]) -> None:
    """Write the figures, which are named tuples, as JSON, if a file was asked for."""
    if path is not None:
        results = {"machine": here._asdict(), "rows": [row._asdict() for row in rows]}
        path.write_text(json.dumps(results, indent=1, ensure_ascii=False) + "\n", "utf-8")
