"""The names of driver.py for Numba's simulator, whose device has the host's memory and no lag."""

from __future__ import annotations

import ctypes
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from types import ModuleType
from typing import Any

import numpy as np
from numba import cuda

from fusedstep._arrays.at_once import Call
from fusedstep._arrays.cuda_array import Array
from fusedstep._backends.cuda.ptx import parameters


class Memory:
    """An array as the libraries of a device have it: NumPy's functions do not take it."""

    def __init__(self, described: dict[str, Any], owner: Any) -> None:
        self.__cuda_array_interface__ = described
        self.owner = owner
        self.dtype = np.dtype(described["typestr"])

    def view(self, dtype: Any) -> Memory:
        made = Memory({**self.__cuda_array_interface__, "typestr": dtype.str}, self.owner)
        made.dtype = dtype
        return made

    def copy_to_host(self) -> Array:
        described = {"version": 3, **self.__cuda_array_interface__}
        return np.array(type("Holder", (), {"__array_interface__": described}))


def several() -> bool:
    return False


def ordinal(address: int) -> int:
    return 0


@contextmanager
def current(ordinal: int) -> Iterator[None]:
    yield


def allocate(shape: Sequence[int], dtype: np.dtype[Any]) -> Memory:
    size = int(np.prod(shape)) * dtype.itemsize
    raw = np.full(size + 16, 0xA5, np.uint8)
    start = -raw.ctypes.data % 16
    described = {
        "shape": tuple(shape),
        "typestr": dtype.str,
        "data": (raw.ctypes.data + start, False),
        "version": 3,
    }
    return Memory(described, raw)


def view(described: dict[str, Any], owner: Any) -> Memory:
    return Memory(described, owner)


def pinned(shape: tuple[int, ...]) -> Array:
    return np.zeros(shape, np.int64)


def zero(address: int, size: int, stream: int) -> None:
    ctypes.memset(address, 0, size)


def upload(address: int, source: Array, stream: int) -> None:
    ctypes.memmove(address, source.ctypes.data, source.nbytes)


def download(to: Array, address: int, stream: int) -> None:
    ctypes.memmove(to.ctypes.data, address, to.nbytes)


def synchronize(stream: int) -> None:
    pass


def recorded(stream: int) -> bool:
    return False


@contextmanager
def relaxed() -> Iterator[None]:
    yield


def upload_aside(address: int, source: Array) -> None:
    upload(address, source, 0)


def wait_for_all() -> None:
    pass


def check(code: int | None) -> None:
    pass


class Event:
    def record(self, stream: int) -> None:
        pass

    def recording(self, stream: int) -> Call:
        return partial(int)

    def wait(self) -> None:
        pass

    def is_over(self) -> bool:
        return True


class Kernel:
    def __init__(self, module: ModuleType, ordinal: int) -> None:
        self.run = cuda.jit(module.SIGNATURE)(module.run)
        self.types = [getattr(np, name) for name in parameters(module)]
        self.integers = self.types.count(np.int64)

    def launching(
        self, blocks: int, threads: int, stream: int, arguments: tuple[int | float, ...]
    ) -> Call:
        return partial(self.launch, blocks, threads, arguments)

    def launch(self, blocks: int, threads: int, arguments: tuple[int | float, ...]) -> None:
        with np.errstate(all="ignore"):
            typed = [
                int(value) if kind is np.int64 else kind(value)
                for kind, value in zip(self.types, arguments, strict=True)
            ]
        integers, scalars = typed[: self.integers], tuple(typed[self.integers :])
        self.run[blocks, threads](*integers, *([scalars] if scalars else []))
