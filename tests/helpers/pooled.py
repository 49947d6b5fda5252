"""Arrays over the driver in memory, of a library that works on streams as CuPy and torch do.

Memory that is given back is handed out again at once: who works on the same stream comes after all
that was asked for before. Nothing here waits for a stream, and what was given back is spoilt in the
order of the stream, so whoever reads or writes too early, or too late, has other numbers.
"""

from __future__ import annotations

import ctypes
from collections.abc import Iterator
from contextlib import contextmanager
from random import Random
from typing import Any

import numpy as np
from cuda_in_memory import AT_ONCE, DRIVER
from device import Ndarray

BLOCK = 1 << 15
"""Bytes of what is handed out."""

SPOILT = 0x5A


def driver(name: str, *arguments: Any) -> None:
    """Call a function of the driver, which has to succeed."""
    given = [ctypes.c_uint64(each) if isinstance(each, int) else each for each in arguments]
    code = getattr(DRIVER.library, name)(*given)
    assert code == 0, (name, code)


@contextmanager
def put_off(mode: int, seed: int = 1) -> Iterator[None]:
    """Have work put off, for the time of a block."""
    DRIVER.mode(mode, seed)
    try:
        yield
    finally:
        DRIVER.mode(AT_ONCE)


def stream(ordinal: int = 0) -> int:
    """A new stream of a device, which does not wait for the default one."""
    return _made("cuStreamCreate", 1, ordinal)


def _made(name: str, flags: int, ordinal: int) -> int:
    from fusedstep._backends.cuda.device import driver as of_package

    made = ctypes.c_uint64()
    with of_package.current(ordinal):
        driver(name, ctypes.byref(made), flags)
    return made.value


def order(before: int, after: int, ordinal: int = 0) -> None:
    """Have all that comes on one stream wait for what another has by now."""
    made = _made("cuEventCreate", 2, ordinal)
    driver("cuEventRecord", made, before)
    driver("cuStreamWaitEvent", after, made, 0)


@contextmanager
def recording(stream: int) -> Iterator[list[int]]:
    """Record a stream's work, for the time of a block; the list has the number of pieces then.

    By relaxed rules, so that memory may be freed meanwhile; graphs.py has the strict ones.
    """
    found: list[int] = []
    driver("cuStreamBeginCapture", stream, 2)
    yield found
    graph = ctypes.c_uint64()
    driver("cuStreamEndCapture", stream, ctypes.byref(graph))
    found.append(int(DRIVER.library.fs_driver_recorded(graph)))


def wait(stream: int) -> None:
    """Wait for a stream alone."""
    driver("cuStreamSynchronize", stream)


def now(array: Any) -> np.ndarray[Any, Any]:
    """The numbers that an array has now, whatever is still to be done."""
    described = array.__cuda_array_interface__
    shape, dtype = described["shape"], np.dtype(described["typestr"])
    size = int(np.prod(shape)) * dtype.itemsize
    return np.frombuffer(ctypes.string_at(described["data"][0], size), dtype).reshape(shape)


def write(array: Any, values: Any, stream: int = 0) -> None:
    """Write numbers into an array, in the order of a stream."""
    source = np.array(values, order="C")
    _sources.append(source)
    driver(
        *("cuMemcpyHtoDAsync", array.__cuda_array_interface__["data"][0]),
        *(source.ctypes.data_as(ctypes.c_void_p), source.nbytes, stream),
    )


_sources: list[Any] = []
"""The memory that streams are still to read."""


class Block:
    """Memory of a pool, which gets it back."""

    def __init__(self, pool: Pool) -> None:
        self.pool = pool
        self.memory = pool.take()
        self.address = self.memory.__cuda_array_interface__["data"][0]

    def __del__(self) -> None:
        driver("cuMemsetD8Async", self.address, SPOILT, BLOCK, self.pool.stream)
        self.pool.free.append(self.memory)


def _block() -> Any:
    from numba import cuda

    return cuda.device_array(BLOCK, np.uint8)


class Pool:
    """The memory of a library on one stream, which hands out any of what is free."""

    LEAST = 12
    """Blocks that are there from the first: seldom is one at the same address as the last."""

    def __init__(self, stream: int = 0) -> None:
        self.stream = stream
        self.free = [_block() for _ in range(self.LEAST)]
        self.random = Random(0)

    def take(self) -> Any:
        return self.free.pop(self.random.randrange(len(self.free))) if self.free else _block()

    def array(self, values: Any, offset: int = 0) -> Ndarray:
        """An array with these numbers, so many elements behind a multiple of 16 bytes."""
        assert values.nbytes + 16 <= BLOCK
        block = Block(self)
        made = Ndarray(block, block.address + offset * values.itemsize, np.array(values, order="C"))
        write(made, values, self.stream)
        return made
