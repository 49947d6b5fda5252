"""Arrays on a CUDA device as NumPy arrays over their addresses: for their geometry, never read.

Whatever holds `__cuda_array_interface__` will do: arrays of Numba and CuPy, tensors of torch.
A shadow is a NumPy array at the device's address. Its shape, strides, flags, views and
overlaps are right, so every check on arrays holds for it; reading an element, or printing
it, would fault. It keeps the owner of the memory alive.
"""

from __future__ import annotations

import sys
from collections.abc import Callable
from functools import cache
from typing import Any, TypeAlias

import numpy as np

Array: TypeAlias = np.ndarray[Any, np.dtype[Any]]
Layout: TypeAlias = tuple[Any, ...]

ATTRIBUTE = "__cuda_array_interface__"


class Holder:
    """What a shadow stands on."""

    __slots__ = ("__array_interface__", "owner")

    def __init__(self, owner: Any, described: dict[str, Any]) -> None:
        self.owner = owner
        self.__array_interface__ = described


def shadow(
    owner: Any,
    address: int,
    shape: tuple[int, ...],
    strides: tuple[int, ...] | None,
    typestr: str,
    readonly: bool = False,
) -> Array:
    """The shadow of an array that `owner` keeps in place."""
    if 0 in shape:
        address = address or 16  # older NumPys take no array from nowhere, even an empty one
    described = {
        "version": 3,
        "data": (address, readonly),
        "shape": tuple(shape),
        "strides": None if strides is None else tuple(strides),
        "typestr": typestr,
    }
    return np.asarray(Holder(owner, described))


def owner(array: Array) -> Any:
    """Of the memory under a shadow or any view of one."""
    base: Any = array
    while isinstance(base, np.ndarray):
        base = base.base
    return base.owner


def on_device(array: Any) -> bool:
    if isinstance(array, np.ndarray):
        return False
    try:
        return hasattr(array, ATTRIBUTE)
    except RuntimeError:  # torch's, of a tensor on a device that requires grad
        return True


def library(array: Any) -> str:
    """The package that an array is from."""
    return _package(array.__class__)


@cache
def _package(kind: type) -> str:
    return kind.__module__.partition(".")[0]


def see(array: Any, name: str) -> Array:
    """The shadow of a user's array."""
    try:
        described = getattr(array, ATTRIBUTE)
    except RuntimeError as error:
        raise TypeError(
            f"{name} is a tensor that requires grad; pass `tensor.detach()` of a parameter and "
            "`tensor.grad` for its gradient, which share their memory"
        ) from error
    if described.get("mask") is not None:
        raise TypeError(f"{name} has a mask, which a step would ignore; pass its plain data")
    address, readonly = described["data"]
    # Numba leaves the strides of an array out where all that are not 0 are contiguous, and a
    # broadcast array would seem to have memory that it has not.
    numbas = getattr(array, "__cuda_ndarray__", False)
    strides = array.strides if numbas else described.get("strides")
    # A tensor's memory may be exchanged under it; this keeps what is seen now.
    kept = array.detach() if library(array) == "torch" else array
    seen = shadow(kept, address, described["shape"], strides, described["typestr"], readonly)
    if not seen.flags.aligned:
        raise ValueError(
            f"{name} has elements at addresses that are not multiples of {seen.itemsize}, which a "
            "CUDA device cannot read; pass a copy"
        )
    return seen


def glance(array: Any) -> tuple[int, Layout]:
    """An array's address, and what else must be as before for it to do without another check.

    It is what `see` looks at, without the cost of the interface where its library is known.
    An array that has no memory on a device has no layout.
    """
    return _glance_at(array.__class__)(array)


@cache
def _glance_at(kind: type) -> Callable[[Any], tuple[int, Layout]]:
    package = _package(kind)
    if package == "numba" and not hasattr(kind, "device_ctypes_pointer"):
        package = ""  # what stands for an array in the simulator
    return {"torch": _torchs, "cupy": _cupys, "numba": _numbas}.get(package, _anyones)


def _torchs(array: Any) -> tuple[int, Layout]:
    if not array.is_cuda or array.layout is not sys.modules["torch"].strided:
        return 0, ()
    return array.data_ptr(), (array.shape, array.stride(), array.dtype, array.get_device())


def _cupys(array: Any) -> tuple[int, Layout]:
    return array.data.ptr, (array.shape, array.strides, array.dtype, array.device.id)


def _numbas(array: Any) -> tuple[int, Layout]:
    return array.device_ctypes_pointer.value or 0, (array.shape, array.strides, array.dtype)


def _anyones(array: Any) -> tuple[int, Layout]:
    described = getattr(array, ATTRIBUTE, None)
    if described is None or described.get("mask") is not None:
        return 0, ()
    numbas = getattr(array, "__cuda_ndarray__", False)
    strides = array.strides if numbas else described.get("strides")
    address, readonly = described["data"]
    return address, (described["shape"], strides, described["typestr"], readonly)
