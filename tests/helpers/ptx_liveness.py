"""The registers that a thread still needs after each step of its kernel."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field


@dataclass
class Step:
    """A statement on its way to C: its code, what it reads and writes, and what comes next."""

    code: str = ""
    reads: set[str] = field(default_factory=set)
    writes: set[str] = field(default_factory=set)
    guarded: bool = False
    """Whether it may be left out, and then what it writes keeps its value."""
    targets: list[int] = field(default_factory=list)
    """The steps to which it may go."""
    goes_on: bool = True
    """Whether the next step may come after it."""
    place: int = 0
    """The number of the place at which a thread waits here, from 1 on; 0: it does not."""


def live_after(steps: Sequence[Step]) -> list[set[str]]:
    """For each step the registers whose values may be read after it, before they are written."""
    before: list[set[str]] = [set() for _ in range(len(steps) + 1)]
    after: list[set[str]] = [set() for _ in steps]
    changed = True
    while changed:
        changed = False
        for k in reversed(range(len(steps))):
            step = steps[k]
            after[k] = set().union(
                before[k + 1] if step.goes_on else (), *(before[to] for to in step.targets)
            )
            kept = after[k] if step.guarded else after[k] - step.writes
            if not kept | step.reads <= before[k]:
                before[k] = kept | step.reads
                changed = True
    return after
