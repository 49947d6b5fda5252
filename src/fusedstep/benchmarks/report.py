"""`fusedstep bench` as the user sees it: a bar while it measures, and tables after it."""

from __future__ import annotations

import os
from argparse import Namespace
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

from fusedstep._backends.threads import get_num_threads, set_num_threads
from fusedstep.benchmarks import budget
from fusedstep.benchmarks.compare import compare
from fusedstep.benchmarks.records import Results
from fusedstep.benchmarks.show import (
    explain,
    explain_changes,
    tables,
    tabulate_changes,
)

if TYPE_CHECKING:
    from rich.console import Console


def run(options: Namespace) -> Results:
    """Measure as the program's `options` say, which are its arguments by name."""
    before = get_num_threads()
    set_num_threads(options.threads or before)
    try:
        with progress() as report:
            return budget.run(options.optimizer, options.dtype, options.seconds, report)
    finally:
        set_num_threads(before)


@contextmanager
def progress() -> Iterator[Callable[[str, float], object]]:
    """What says how far it is, where errors go: a bar in a terminal, else a line for each part."""
    from rich.console import Console
    from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn

    console = Console(stderr=True)
    if load := busy():
        suffering = "Times may suffer, and those of torch's threads a hundredfold."
        console.print(f"This machine has been busy: {load}. {suffering}", soft_wrap=True)
    if not console.is_terminal:
        yield Lines(console)
        return
    columns = TextColumn("{task.description:<42}"), BarColumn(), TimeElapsedColumn()
    with Progress(*columns, console=console, transient=True) as bar:
        task = bar.add_task("", total=1.0)
        yield lambda name, share: bar.update(task, description=name, completed=share)


def busy() -> str:
    """What was done here just before, if it took more than a quarter of the CPUs."""
    try:
        load, *_ = os.getloadavg()
    except (AttributeError, OSError):  # where the system does not say
        return ""
    cpus = os.cpu_count() or 1
    return f"a load of {load:.1f} on {cpus} CPUs in the last minute" if load > cpus / 4 else ""


class Lines:
    """Says once what it is at."""

    def __init__(self, console: Console) -> None:
        self.console, self.last = console, ""

    def __call__(self, name: str, share: float) -> None:
        if name != self.last:
            self.console.print(name, highlight=False, soft_wrap=True)
            self.last = name


def show(results: Results, old: Results | None) -> None:
    """Print what was found, and what changed since the old results."""
    from rich.console import Console
    from rich.text import Text

    console = Console()
    if not console.is_terminal:
        console.width = 120
    for table in tables(results, console):
        console.print(table)
    for line in explain(results):
        console.print(Text(line))
    if old is not None:
        comparison = compare(old, results)
        console.print(tabulate_changes(comparison))
        for line in explain_changes(comparison):
            console.print(Text(line))
