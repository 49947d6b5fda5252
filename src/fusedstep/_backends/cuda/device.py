"""A CUDA device as a place for arrays, and the stream on which it works."""

from __future__ import annotations

from collections.abc import Sequence
from functools import cache
from typing import Any, NoReturn

import numpy as np

from fusedstep._arrays import cuda_array
from fusedstep._arrays.at_once import Call, at_once
from fusedstep._arrays.cuda_array import Array
from fusedstep._arrays.dtypes import BFLOAT16, shown_bfloat16
from fusedstep._arrays.libraries import INTERFACE, TO_DEVICE, Library, glance, library
from fusedstep._arrays.plain import address
from fusedstep._arrays.structure import is_array
from fusedstep._backends.cuda import copies
from fusedstep._backends.cuda.available import simulated
from fusedstep._checks.wording import describe

if simulated():
    from fusedstep._backends.cuda import simulator as chosen
else:
    from fusedstep._backends.cuda import driver as chosen  # type: ignore[no-redef]

driver: Any = chosen
"""The calls of the CUDA driver, or the same names over host memory."""

THREADS = 256
"""Threads of a block. The tile that they step is 4 KiB of each array."""


class Device:
    """One device, with work on the current stream of the parameters' library: a `Place`."""

    backwards = False
    lasting = False

    def __init__(self, ordinal: int, library: Library) -> None:
        self.ordinal = ordinal
        self.library = library
        self.axes: dict[Any, tuple[int, int, Any]] = {}
        """Tables of axes that are on the device already, for copies between such layouts."""

    def stream(self) -> int:
        """The stream to work on now."""
        return int(self.library.stream(self.ordinal))

    def stream_of_step(self) -> int:
        """The same for a step; refused while its work is recorded, before it has any."""
        stream = self.stream()
        if driver.recorded(stream):
            refuse_recording()
        return stream

    def is_recorded(self) -> bool:
        """Whether the work of that stream is not run but recorded, for a CUDA graph."""
        return bool(driver.recorded(self.stream()))

    def current(self) -> Any:
        """Context in which this is the current device."""
        return driver.current(self.ordinal)

    def see(self, array: Any, name: str) -> Array:
        if not cuda_array.on_device(array):
            raise ValueError(
                f"{name} is {_described(array)}, the parameters are on CUDA device "
                f"{self.ordinal}; pass it there, by {TO_DEVICE}"
            )
        seen = cuda_array.see(array, name)
        found = ordinal(array) if seen.size else self.ordinal
        if found != self.ordinal:
            raise ValueError(
                f"{name} is on CUDA device {found}, the parameters are on CUDA device "
                f"{self.ordinal}; pass a copy there"
            )
        return seen

    see_written = see

    def see_argument(self, array: Any, p: Array | None, name: str) -> Array:
        return self.see_written(array, name)

    def see_gradient(self, g: Any, p: Array, name: str) -> Array:
        return self.see(g, name)

    def where(self, array: Any) -> tuple[int, Any]:
        return glance(array)

    def show(self, array: Array) -> Any:
        described = {
            "version": 3,
            "shape": array.shape,
            "strides": array.strides,
            "typestr": bits_of_bfloat16(array.dtype).str,
            "data": (address(array), False),
        }
        with self.current():
            made = driver.view(described, cuda_array.owner(array))
            return made.view(shown_bfloat16()) if array.dtype == BFLOAT16 else made

    def empty(self, shape: Sequence[int], dtype: np.dtype[Any]) -> Array:
        numbers = bits_of_bfloat16(dtype)
        with self.current():
            made = driver.allocate(shape, numbers)
        described = made.__cuda_array_interface__
        at = described["data"][0]
        return cuda_array.shadow(made, at, tuple(shape), None, numbers.str).view(dtype)

    def zeros(self, shape: Sequence[int], dtype: np.dtype[Any]) -> Array:
        made = self.empty(shape, dtype)
        if made.size:
            with self.current():
                stream = self.stream()
                driver.zero(address(made), made.nbytes, stream)
                driver.synchronize(stream)  # the first step may be on another stream
        return made

    def at_once(self, calls: Sequence[Call]) -> None:
        with self.current():
            driver.check(at_once(calls))

    def copy(self, to: Array, source: Array) -> None:
        self.at_once(self.copying(to, source))

    def copying(self, to: Array, source: Array) -> list[Call]:
        if not to.size:
            return []
        with self.current():
            stream = self.stream_of_step()
            count, axes = self._axes(to, source)
            copy = kernel(copies.module(to.dtype), self.ordinal)
        arguments = (axes, count, address(to), address(source), to.size)
        call = copy.launching(-(-to.size // THREADS), THREADS, stream, arguments)
        call.keeping = source  # the kernel gets its address alone
        return [call]

    def clearing(self, array: Array) -> list[Call]:
        return self.copying(array, self.zeros(array.shape, array.dtype))

    def writing(self, array: Array, source: Array) -> list[Call]:
        return self.copying(array, self.load(source))

    def _axes(self, to: Array, source: Array) -> tuple[int, int]:
        """The number of axes of a copy, and the address of their table, which is made once."""
        key = to.shape, to.strides, source.strides
        if key not in self.axes:
            table = self.load(np.array([*zip(*key, strict=True)][::-1], np.int64))
            self.axes[key] = len(table), address(table), table
        return self.axes[key][:2]

    def load(self, source: Array) -> Array:
        """Copy a NumPy array to the device, where any stream may read it."""
        made = self.empty(source.shape, source.dtype)
        self.write(made, source)
        return made

    def read(self, array: Array) -> Array:
        order = _order(array)
        laid = np.empty([array.shape[axis] for axis in order], array.dtype)
        if array.size:
            with self.current():
                stream = self.stream()
                driver.download(laid, address(array), stream)
                driver.synchronize(stream)
        return laid.transpose(np.argsort(order)).copy(order="C")

    def write(self, array: Array, source: Array | float) -> None:
        with np.errstate(over="ignore"):
            whole = np.broadcast_to(np.asarray(source, array.dtype), array.shape)
        laid = np.ascontiguousarray(whole.transpose(_order(array)))
        if array.size:
            with self.current():
                stream = self.stream()
                driver.upload(address(array), laid, stream)
                driver.synchronize(stream)


def refuse_recording() -> NoReturn:
    """Refuse to be part of a CUDA graph."""
    raise RuntimeError(
        "a step cannot be part of a CUDA graph, which would repeat it with the same t and "
        "learning rate; make the optimizer with capturable=True, and pass gradients without gaps, "
        "or step outside of the graph"
    )


def place(arrays: Sequence[tuple[str, Any]]) -> Device:
    """The device that all of these arrays live on."""
    found: dict[int, str] = {}
    for name, array in arrays:
        if cuda_array.see(array, name).size:
            found.setdefault(ordinal(array), name)
    if len(found) > 1:
        (first, one), (second, other), *_ = found.items()
        raise ValueError(
            f"{one} is on CUDA device {first}, {other} on CUDA device {second}; make an optimizer "
            "for each device"
        )
    return _device(next(iter(found), 0), library(arrays[0][1]))


_device = cache(Device)


def ordinal(array: Any) -> int:
    """The number of the device that holds a user's array, which is not empty."""
    known = library(array).ordinal
    return int(known(array) if known else driver.ordinal(getattr(array, INTERFACE)["data"][0]))


def bits_of_bfloat16(dtype: np.dtype[Any]) -> np.dtype[Any]:
    """The dtype in which Numba has arrays of a dtype: of bfloat16 it has the bits."""
    return np.dtype(np.uint16) if dtype == BFLOAT16 else dtype


@cache
def kernel(module: Any, ordinal: int) -> Any:
    """The kernel of a module, ready to launch."""
    return driver.Kernel(module, ordinal)


def _order(array: Array) -> list[int]:
    """The axes in which an array made here is contiguous."""
    return sorted(range(array.ndim), key=lambda axis: -array.strides[axis])


def _described(array: Any) -> str:
    return "on the CPU" if is_array(array) else describe(array)
