"""The calls of the CUDA driver that a step is made of, through NVIDIA's own bindings.

Numba's launcher takes 44 microseconds for 18 arguments, and streams of its own alone.
`cuLaunchKernel` takes the address of any stream, and 8 through the bindings, 4 of them to make C
of the arguments. But the bindings run Python code, where Ctrl-C could come between two launches
of a step, so this one function is called in the driver itself. Numba compiles the kernels and
allocates the memory. simulator.py has the same names over host memory.
"""

from __future__ import annotations

import ctypes
import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from functools import cache, partial
from types import ModuleType
from typing import Any

import numpy as np
from cuda.bindings import __version__ as bindings_version
from cuda.bindings import driver
from cuda.core import Linker, LinkerOptions, ObjectCode
from numba import __version__ as numba_version
from numba import cuda
from numba_cuda import __version__ as numba_cuda_version

from fusedstep._arrays.at_once import Call
from fusedstep._arrays.cuda_array import Array
from fusedstep._backends.cuda.ptx import compile_ptx, parameters
from fusedstep._compiler import files
from fusedstep._compiler.interrupts import delayed

LAUNCH: Any = (ctypes.c_void_p, *[ctypes.c_uint] * 7, *[ctypes.c_void_p] * 3)
RECORD: Any = (ctypes.c_void_p, ctypes.c_void_p)
"""The types of the arguments of `cuLaunchKernel` and `cuEventRecord`, which return an int."""

C_TYPES = {
    "int64": ctypes.c_longlong,
    "float32": ctypes.c_float,
    "float64": ctypes.c_double,
}


def _done(answer: tuple[Any, ...]) -> Any:
    error, *values = answer
    if error != driver.CUresult.CUDA_SUCCESS:
        raise RuntimeError(f"the CUDA driver refuses a call with {error.name}")
    return values[0] if values else None


# ---- devices ----


@cache
def several() -> bool:
    """Tell whether there is more than one device."""
    return len(cuda.gpus) > 1


def ordinal(address: int) -> int:
    """The number of the device whose memory is at an address."""
    attribute = driver.CUpointer_attribute.CU_POINTER_ATTRIBUTE_DEVICE_ORDINAL
    return int(_done(driver.cuPointerGetAttribute(attribute, address)))


@cache
def _context(ordinal: int) -> Any:
    """The primary context of a device, which torch, CuPy and Numba use as well."""
    return _done(driver.cuDevicePrimaryCtxRetain(_done(driver.cuDeviceGet(ordinal))))


@contextmanager
def current(ordinal: int) -> Iterator[None]:
    """Make a device the current one, if it is another."""
    context = _context(ordinal)
    if int(_done(driver.cuCtxGetCurrent())) == int(context):
        yield
        return
    _done(driver.cuCtxPushCurrent(context))
    try:
        yield
    finally:
        _done(driver.cuCtxPopCurrent())


# ---- memory ----


def allocate(shape: Sequence[int], dtype: np.dtype[Any]) -> Any:
    """A new array of Numba on the current device."""
    return cuda.device_array(tuple(shape), dtype)


def view(described: dict[str, Any], owner: Any) -> Any:
    """An array of Numba over memory that `owner` keeps in place."""
    return cuda.from_cuda_array_interface(described, owner=owner, sync=False)


def pinned(shape: tuple[int, ...]) -> Array:
    """A new array of int64 on the host, from which the device copies by itself."""
    array: Array = cuda.pinned_array(shape, np.int64)
    return array


def zero(address: int, size: int, stream: int) -> None:
    _done(driver.cuMemsetD8Async(address, 0, size, stream))


def upload(address: int, source: Array, stream: int) -> None:
    """Copy contiguous host memory to the device, in the order of the stream.

    The memory must stay as it is until then: a device that reads any host memory by itself
    need not have read it when this returns, whether it is pinned or not.
    """
    _done(driver.cuMemcpyHtoDAsync(address, source.ctypes.data, source.nbytes, stream))


def download(to: Array, address: int, stream: int) -> None:
    """Copy to contiguous host memory; `synchronize` before it is read."""
    _done(driver.cuMemcpyDtoHAsync(to.ctypes.data, address, to.nbytes, stream))


def synchronize(stream: int) -> None:
    _done(driver.cuStreamSynchronize(stream))


def recorded(stream: int) -> bool:
    """Tell whether work on the stream is not run but recorded, for a CUDA graph."""
    runs = driver.CUstreamCaptureStatus.CU_STREAM_CAPTURE_STATUS_NONE
    return bool(_done(driver.cuStreamIsCapturing(stream)) != runs)


@contextmanager
def relaxed() -> Iterator[None]:
    """Let this thread allocate, and work on streams that are not recorded, while another is."""
    mode = driver.CUstreamCaptureMode.CU_STREAM_CAPTURE_MODE_RELAXED
    before = _done(driver.cuThreadExchangeStreamCaptureMode(mode))
    try:
        yield
    finally:
        _done(driver.cuThreadExchangeStreamCaptureMode(before))


@cache
def _aside(ordinal: int) -> int:
    """A stream that no other waits for."""
    flag = driver.CUstream_flags.CU_STREAM_NON_BLOCKING
    return int(_done(driver.cuStreamCreate(int(flag))))


def upload_aside(address: int, source: Array) -> None:
    """Copy contiguous host memory to the device, past all streams, and wait until it is there."""
    stream = _aside(ordinal(address))
    upload(address, source, stream)
    synchronize(stream)


def wait_for_all() -> None:
    """Wait for all work of the current device."""
    _done(driver.cuCtxSynchronize())


class Event:
    """A point in a stream's work that the host can wait for."""

    def __init__(self) -> None:
        self.event = cuda.event(timing=False)
        self.handle = int(self.event.handle)

    def record(self, stream: int) -> None:
        _done(driver.cuEventRecord(self.handle, stream))

    def recording(self, stream: int) -> Call:
        """The call that records it; it returns 0, or an error's number."""
        return partial(_function("cuEventRecord", RECORD), self.handle, stream)

    def wait(self) -> None:
        _done(driver.cuEventSynchronize(self.handle))

    def is_over(self) -> bool:
        """Whether nobody needs to wait for it."""
        (answer,) = driver.cuEventQuery(self.handle)
        if answer != driver.CUresult.CUDA_ERROR_NOT_READY:
            _done((answer,))
        return bool(answer == driver.CUresult.CUDA_SUCCESS)


# ---- kernels ----


class Kernel:
    """The kernel of a module, compiled and loaded on one device."""

    def __init__(self, module: ModuleType, ordinal: int) -> None:
        with current(ordinal):
            # It stays loaded to the end of the process: there are few.
            image = np.frombuffer(cubin(module, ordinal), np.uint8)
            loaded = _done(driver.cuModuleLoadData(image.ctypes.data))
            self.function = int(_done(driver.cuModuleGetFunction(loaded, module.__name__.encode())))
        self.types = tuple(C_TYPES[name] for name in parameters(module))

    def launching(
        self, blocks: int, threads: int, stream: int, arguments: tuple[int | float, ...]
    ) -> Call:
        """The call that runs it, in the order of the stream; it returns 0, or an error's number.

        Floats are rounded to nearest even of their type.
        """
        grid = blocks, 1, 1, threads, 1, 1, 0
        launch = _function("cuLaunchKernel", LAUNCH)
        return partial(launch, self.function, *grid, stream, pack(self.types, arguments), None)


def pack(types: Sequence[Any], arguments: Sequence[int | float]) -> Any:
    """A C array of the addresses of the arguments, which it keeps."""
    values = [kind(value) for kind, value in zip(types, arguments, strict=True)]
    packed = (ctypes.c_void_p * len(values))(*map(ctypes.addressof, values))
    packed.keeping = values  # type: ignore[attr-defined]
    return packed


@cache
def _function(name: str, types: tuple[Any, ...]) -> Any:
    """A function of the driver's own: a call of the bindings' runs Python code as well."""
    library = ctypes.CDLL("nvcuda.dll" if os.name == "nt" else "libcuda.so.1")
    function = getattr(library, name)
    function.argtypes = types
    return function


FUNCTIONS = (
    *("cuLaunchKernel", "cuMemcpyHtoDAsync", "cuEventRecord", "cuEventSynchronize"),
    *("cuStreamIsCapturing", "cuCtxGetCurrent", "cuCtxPushCurrent", "cuCtxPopCurrent"),
)
"""The functions of the driver that C calls by itself, in the order of fs_driver in csrc/api.h."""


@cache
def functions() -> tuple[int, ...]:
    """Their addresses."""
    default = driver.CUdriverProcAddress_flags.CU_GET_PROC_ADDRESS_DEFAULT
    version = _done(driver.cuDriverGetVersion())
    found = (driver.cuGetProcAddress(name.encode(), version, default) for name in FUNCTIONS)
    return tuple(int(_done(answer[:2])) for answer in found)


def context(ordinal: int) -> int:
    """The address of the primary context of a device."""
    return int(_context(ordinal))


def check(code: int | None) -> None:
    """Raise the error that a launch returned, if it did."""
    if code:
        _done((driver.CUresult(code),))


def cubin(module: ModuleType, ordinal: int) -> bytes:
    """The machine code of a module's kernel for a device, kept for other processes.

    It is linked here and not by the driver, which cannot read PTX newer than itself, and
    without optimisation at link time, so it is what the PTX says. Neither can a driver load
    code that was linked for a later CUDA than its own, so the version of the bindings, which
    begins with CUDA's, is in the file's name, too.
    """
    cc = tuple(cuda.gpus[ordinal].compute_capability)
    arch = f"sm_{cc[0]}{cc[1]}"
    made_by = f"{numba_version}-{numba_cuda_version}-{bindings_version}"
    name = f"{module.__name__}.{made_by}.{arch}"
    kept = files.load(name)
    if kept is not None:
        return kept
    with delayed():
        code = ObjectCode.from_ptx(compile_ptx(module, cc).encode())
        linked = bytes(Linker(code, options=LinkerOptions(arch=arch)).link("cubin").code)
    files.save(name, linked)
    return linked
