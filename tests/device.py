"""Arrays on a CUDA device for tests, of every library that is there; or in Numba's simulator."""

from __future__ import annotations

from importlib.util import find_spec
from typing import Any

import numpy as np

from fusedstep.backends.available import simulated, why_missing

MISSING = why_missing()
SIMULATED = MISSING is None and simulated()

LIBRARIES = (
    ["simulated"]
    if SIMULATED
    else [name for name in ("numba", "torch", "cupy") if find_spec(name) is not None]
)


class Plain:
    """What has `__cuda_array_interface__` and nothing else, as arrays of an unknown library."""

    def __init__(self, owner: Any, address: int, like: np.ndarray[Any, Any]) -> None:
        self.owner = owner
        self.__cuda_array_interface__ = {
            "version": 3,
            "shape": like.shape,
            "typestr": like.dtype.str,
            "strides": None if like.flags.c_contiguous else like.strides,
            "data": (address, not like.flags.writeable),
        }


class Placed:
    """A copy on the device of a NumPy array and of all the memory that it is a view of."""

    def __init__(
        self,
        view: np.ndarray[Any, Any],
        memory: np.ndarray[Any, Any] | None = None,
        library: str = LIBRARIES[0] if LIBRARIES else "numba",
    ) -> None:
        memory = view if memory is None else memory
        self.view = view
        self.offset = view.__array_interface__["data"][0] - memory.__array_interface__["data"][0]
        # 16 bytes more, so that what begins at a multiple of 16 bytes here does so there.
        self.shift = memory.__array_interface__["data"][0] % 16
        content = np.frombuffer(memory.tobytes(order="A"), np.uint8)
        self.raw = np.zeros(content.size + 32, np.uint8)
        if SIMULATED:
            self.raw = self.raw[-self.raw.ctypes.data % 16 :]
            start, self.on_device = self.raw.ctypes.data, self.raw
        else:
            from numba import cuda

            self.on_device = cuda.to_device(self.raw)
            start = self.on_device.__cuda_array_interface__["data"][0]
        self.write(content)
        address = start + self.shift + self.offset if view.size else 0
        self.array = wrap(Plain(self.on_device, address, view), library)

    def write(self, content: np.ndarray[Any, Any]) -> None:
        self.raw[self.shift : self.shift + content.size] = content
        if not SIMULATED:
            self.on_device.copy_to_device(self.raw)

    @property
    def memory(self) -> bytes:
        """All the memory as it is on the device now."""
        raw = self.raw if SIMULATED else self.on_device.copy_to_host()
        return bytes(raw.tobytes()[self.shift :])

    @property
    def host(self) -> np.ndarray[Any, Any]:
        """The array as it is on the device now."""
        memory = bytearray(self.memory)
        return np.ndarray(
            self.view.shape, self.view.dtype, memory, self.offset, self.view.strides
        ).copy()


def wrap(plain: Plain, library: str) -> Any:
    if library == "numba":
        from numba import cuda

        return cuda.as_cuda_array(plain)
    if library == "torch":
        import torch

        return torch.as_tensor(plain, device="cuda")
    if library == "cupy":
        import cupy

        return cupy.asarray(plain)
    return plain
