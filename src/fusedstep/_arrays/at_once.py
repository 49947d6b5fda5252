"""Calls that no signal comes between, so that a step happens wholly or not at all.

Python handles Ctrl-C and other signals between two operations of Python code, and may raise
there. A function in C runs to its end. So whatever must not be cut in two is one call of C, or,
where it takes several, a chain of such calls that C functions make by themselves: `map` calls the
next one, `filter` drops its None, and `next` goes on to the end.
"""

from __future__ import annotations

import io
from collections import deque
from collections.abc import Sequence
from functools import partial
from typing import Any, TypeAlias

Call: TypeAlias = "partial[Any]"
"""A call with all of its arguments, of a function in C that returns nothing if it succeeds."""


def at_once(calls: Sequence[Call]) -> Any:
    """Make the calls, up to the first that returns something, and return that."""
    return next(filter(None, map(partial.__call__, calls)), None)


class Block(io.IOBase):
    """A block of `with` that is left by calls, to which no signal can come first.

    An `__exit__` in Python may be interrupted before its first line. That of a file is in C, and
    calls `close`, so this is a file in name alone. The calls may be filled in until they are made,
    which happens once: at the latest when nobody holds the block any more.
    """

    close = int  # type: ignore[assignment]  # a call that does nothing

    def __init__(self) -> None:
        self.leaving: list[Call] = []

    def begin(self) -> bool:
        """Have the block left by the calls; False, and nothing done, if it has begun before."""
        if "close" in vars(self):
            return False
        setattr(self, "close", partial(deque, map(partial.__call__, self.leaving), 0))  # noqa: B010
        return True
