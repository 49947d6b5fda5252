"""Ctrl-C and other signals while Numba compiles or loads: they wait until that has ended.

Numba cannot be used again after an exception in some of its parts. It keeps generators, which
end for good. And where it is called from LLVM exceptions are lost: a kernel that is being loaded
is then not there, and the process crashes.
"""

from __future__ import annotations

import signal
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from threading import current_thread, main_thread
from types import FrameType
from typing import Any, TypeAlias

Handler: TypeAlias = Callable[[int, FrameType | None], Any]


@contextmanager
def delayed() -> Iterator[None]:
    """Call handlers of signals after the block: each once, however often its signal came."""
    if current_thread() is not main_thread():  # no handler is called here
        yield
        return
    handlers: dict[int, Handler] = {}
    for each in signal.valid_signals():
        found = signal.getsignal(each)
        if callable(found):
            handlers[each] = found
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
