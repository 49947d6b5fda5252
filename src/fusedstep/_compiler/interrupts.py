"""Ctrl-C while Numba compiles or loads: it waits until that has ended.

Numba cannot be used again after an exception in some of its parts. It keeps generators, which
end for good. And where it is called from LLVM exceptions are lost: a kernel that is being loaded
is then not there, and the process crashes.
"""

from __future__ import annotations

import signal
from collections.abc import Iterator
from contextlib import contextmanager
from threading import current_thread, main_thread
from types import FrameType


@contextmanager
def delayed() -> Iterator[None]:
    """Call the handler of Ctrl-C after the block. It is called once, however often that came."""
    handler = signal.getsignal(signal.SIGINT)
    if not callable(handler) or current_thread() is not main_thread():  # nothing is raised here
        yield
        return
    came: list[FrameType | None] = []
    try:
        signal.signal(signal.SIGINT, lambda number, frame: came.append(frame))
        yield
    finally:
        signal.signal(signal.SIGINT, handler)
        if came:
            handler(signal.SIGINT, came[0])
