"""The progress of a command, on stderr: a bar in a terminal, else a line for each part."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from rich.console import Console


@contextmanager
def progress(*, timed: bool = True) -> Iterator[Callable[[str, float], object]]:
    """Show the progress. The function is told the name of the part and the share that is done.

    Where times are taken, a busy machine is remarked on.
    """
    from rich.console import Console
    from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn

    console = Console(stderr=True)
    if timed and (load := busy()):
        console.print(
            f"This machine has been busy: {load}. Times may be too long, and those of torch's "
            "threads a hundred times.",
            soft_wrap=True,
        )
    if not console.is_terminal:
        yield Lines(console)
        return
    columns = TextColumn("{task.description:<42}"), BarColumn(), TimeElapsedColumn()
    with Progress(*columns, console=console, transient=True) as bar:
        task = bar.add_task("", total=1.0)
        yield lambda name, share: bar.update(task, description=name, completed=share)


def busy() -> str:
    """The load of the last minute, if it was more than a quarter of the CPUs."""
    try:
        load, *_ = os.getloadavg()
    except (AttributeError, OSError):  # where the system does not say
        return ""
    cpus = os.cpu_count() or 1
    return f"a load of {load:.1f} on {cpus} CPUs in the last minute" if load > cpus / 4 else ""


class Lines:
    """Prints the name of each part once."""

    def __init__(self, console: Console) -> None:
        self.console, self.last = console, ""

    def __call__(self, name: str, share: float) -> None:
        if name != self.last:
            self.console.print(name, highlight=False, soft_wrap=True)
            self.last = name
