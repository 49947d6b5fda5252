"""Ctrl-C and other signals while Numba compiles or loads: they wait until that has ended.

Numba cannot be used again after an exception in some of its parts. It keeps generators, which
end for good. And where it is called from LLVM exceptions are lost: a kernel that is being loaded
is then not there, and the process crashes.
"""

from __future__ import annotations

import signal
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import FrameType
from typing import Any, TypeAlias

Handler: TypeAlias = Callable[[int, FrameType | None], Any]


def _handlers_called_here() -> dict[int, Handler]:
    """The handlers that Python may call in this thread, by their signals."""
    found = {number: signal.getsignal(number) for number in signal.valid_signals()}
    handlers: dict[int, Handler] = {
        number: handler for number, handler in found.items() if callable(handler)
    }
    try:
        for number, handler in handlers.items():
            signal.signal(number, handler)
    except ValueError:  # only the main thread of the main interpreter may set, and calls, any
        return {}
    return handlers


@contextmanager
def delayed() -> Iterator[None]:
    """Call handlers of signals after the block: each once, however often its signal came."""
    handlers = _handlers_called_here()
    came: dict[int, FrameType | None] = {}
    waiting = True

    def wait(number: int, frame: FrameType | None) -> None:
        if waiting:
            came.setdefault(number, frame)
        else:  # another handler, which raised, has kept its own from being put back
            handlers[number](number, frame)

    def call(numbers: Iterator[int]) -> None:
        for number in numbers:
            try:
                handlers[number](number, came[number])
            finally:
                call(numbers)

    try:
        for number in handlers:
            signal.signal(number, wait)
        yield
    finally:
        try:
            waiting = False
            for number, handler in handlers.items():
                signal.signal(number, handler)
        finally:
            call(iter([*came]))
