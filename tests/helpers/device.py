"""Arrays on a CUDA device for tests, of every library that is there.

In Numba's simulator, and over a driver in the memory of the host, there are stand-ins for arrays of
torch and CuPy, which have as much of one as the backend asks for.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from importlib.util import find_spec
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from cases import differing_bits

from fusedstep._arrays.dtypes import BFLOAT16
from fusedstep._backends.cuda.available import simulated, why_missing

cuda = pytest.mark.cuda

MISSING = why_missing()
SIMULATED = MISSING is None and simulated()

IN_MEMORY = getattr(sys.modules.get("cuda_in_memory"), "DRIVER", None)
"""The driver over the memory of the host, if it is there in place of NVIDIA's."""

STANDINS = SIMULATED or IN_MEMORY is not None

in_memory = pytest.mark.skipif(
    IN_MEMORY is None, reason="for the driver in memory of the host; test_in_memory.py runs it"
)


def _there(library: str) -> bool:
    if MISSING is not None or find_spec(library) is None:
        return False
    if library == "torch":  # which may have been built for the CPU alone
        import torch

        return bool(torch.cuda.is_available())
    return True


LIBRARIES = (
    ["plain", *([] if SIMULATED else ["numba"]), "torch", "cupy"]
    if STANDINS
    else ["plain", *filter(_there, ("numba", "torch", "cupy"))]
)

STREAM = 77
"""The current stream of torch and CuPy in the simulator."""

_streams = [STREAM if SIMULATED else 0]


@contextmanager
def on_stream(handle: int) -> Iterator[None]:
    """Make a stream the current one of the stand-ins."""
    _streams.append(handle)
    try:
        yield
    finally:
        _streams.pop()


def ordinal_of(address: int) -> int:
    """The number of the device with the memory at an address."""
    if IN_MEMORY is None or not address:
        return 0
    from fusedstep._backends.cuda.device import driver

    return int(driver.ordinal(address))


class Plain:
    """An array of an unknown library: it has `__cuda_array_interface__` and nothing else."""

    def __init__(self, owner: Any, address: int, like: np.ndarray[Any, Any]) -> None:
        self.owner = owner
        self.__cuda_array_interface__ = {
            "version": 3,
            "shape": like.shape,
            "typestr": "<V2" if like.dtype == BFLOAT16 else like.dtype.str,
            "strides": None if like.flags.c_contiguous else like.strides,
            "data": (address, not like.flags.writeable),
        }
        if like.dtype == BFLOAT16:  # which the interface does not tell from other pairs of bytes
            self.dtype: Any = "bfloat16"


class Tensor(Plain):
    """A tensor of torch, as far as the backend looks at one."""

    is_cuda = True
    layout = "strided"

    def __init__(self, owner: Any, address: int, like: np.ndarray[Any, Any]) -> None:
        super().__init__(owner, address, like)
        self.like, self.address = like, address
        self.shape = like.shape
        self.dtype = "torch.bfloat16" if like.dtype == BFLOAT16 else like.dtype

    def data_ptr(self) -> int:
        return self.address

    def stride(self) -> tuple[int, ...]:
        return tuple(stride // self.like.itemsize for stride in self.like.strides)

    def get_device(self) -> int:
        return ordinal_of(self.address)

    def detach(self) -> Tensor:
        return Tensor(self.owner, self.address, self.like)

    def is_neg(self) -> bool:
        raise TypeError("can't convert cuda:0 device type tensor to numpy")


class Bfloat16:
    """The dtype of bfloat16, which CuPy has from ml_dtypes."""

    def __init__(self) -> None:
        self.str = "<V2"

    def __str__(self) -> Any:
        return "bfloat16"


class Ndarray(Plain):
    """An array of CuPy, as far as the backend looks at one."""

    def __init__(self, owner: Any, address: int, like: np.ndarray[Any, Any]) -> None:
        super().__init__(owner, address, like)
        self.device = SimpleNamespace(id=ordinal_of(address))
        self.data = SimpleNamespace(ptr=address)
        self.shape, self.strides = like.shape, like.strides
        self.dtype = Bfloat16() if like.dtype == BFLOAT16 else like.dtype


Tensor.__module__, Ndarray.__module__ = "torch", "cupy"

MODULES = {
    "torch": SimpleNamespace(
        strided="strided",
        cuda=SimpleNamespace(
            current_stream=lambda ordinal: SimpleNamespace(cuda_stream=_streams[-1])
        ),
    ),
    "cupy": SimpleNamespace(
        cuda=SimpleNamespace(get_current_stream=lambda ordinal: SimpleNamespace(ptr=_streams[-1]))
    ),
}
"""Stand-ins for the libraries."""


class Placed:
    """A copy on the device of a NumPy array and of all the memory that it is a view of."""

    def __init__(
        self,
        view: np.ndarray[Any, Any],
        memory: np.ndarray[Any, Any] | None = None,
        library: str = "plain",
        ordinal: int = 0,
    ) -> None:
        memory = view if memory is None else memory
        self.view = view
        self.offset = view.__array_interface__["data"][0] - memory.__array_interface__["data"][0]
        # 16 bytes more, so that what begins at a multiple of 16 bytes here does so there.
        self.shift = memory.__array_interface__["data"][0] % 16
        content = np.frombuffer(memory.tobytes(order="A"), np.uint8)
        self.raw = np.zeros(content.size + 32, np.uint8)
        self.on_device: Any
        if SIMULATED:
            self.raw = self.raw[-self.raw.ctypes.data % 16 :]
            start, self.on_device = self.raw.ctypes.data, self.raw
        else:
            from numba import cuda

            with cuda.gpus[ordinal]:
                self.on_device = cuda.to_device(self.raw)
            start = self.on_device.__cuda_array_interface__["data"][0]
        self.write(content)
        address = start + self.shift + self.offset if view.size else 0
        self.array = wrap(library, self.on_device, address, view)

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


def wrap(library: str, owner: Any, address: int, view: np.ndarray[Any, Any]) -> Any:
    """An array of a library."""
    if STANDINS and library != "numba":
        return {"plain": Plain, "torch": Tensor, "cupy": Ndarray}[library](owner, address, view)
    plain = Plain(owner, address, view)
    if library == "numba":
        from numba import cuda

        return cuda.as_cuda_array(plain)
    if library == "torch":
        import torch

        # No tensor is read-only, and torch takes no array that is.
        plain.__cuda_array_interface__["data"] = (address, False)
        if view.dtype == BFLOAT16:
            plain.__cuda_array_interface__["typestr"] = "<i2"
            return torch.as_tensor(plain, device="cuda").view(torch.bfloat16)
        return torch.as_tensor(plain, device="cuda")
    if library == "cupy":
        import cupy

        return cupy.asarray(plain)
    return plain


def at(offset: int, values: Any) -> tuple[Any, Any]:
    """The values `offset` elements past a multiple of 16 bytes, with guards around them."""
    memory = np.full(values.size + 12, 7, values.dtype)
    skip = offset + (-memory.ctypes.data % 16) // values.itemsize
    view = memory[skip : skip + values.size]
    view[...] = values
    return view, memory


def assert_equal_state(found: Any, expected: Any) -> None:
    assert found.keys() == expected.keys()
    for key, value in expected.items():
        if key == "t":
            assert found[key] == value
        else:
            assert differing_bits(found[key], value) == 0, key


def assert_same(optimizer: Any, params: list[Placed], reference: Any, expected: list[Any]) -> None:
    for p, q in zip(params, expected, strict=True):
        assert differing_bits(p.host, q) == 0
    states = zip(optimizer.state_dict()["state"], reference.state_dict()["state"], strict=True)
    for found, wanted in states:
        assert_equal_state(found, wanted)
