"""Shadows: NumPy arrays over device addresses, for shape and overlap; never dereferenced.

A shadow's shape, strides, flags, views and overlaps are right, so every check on arrays holds
for it; reading an element, or printing it, would fault. It keeps the owner of the memory alive.
"""

from __future__ import annotations

from typing import Any, TypeAlias

import numpy as np

from fusedstep._arrays.dtypes import BFLOAT16, format_of
from fusedstep._arrays.libraries import INTERFACE, is_exchanged, library, strides

Array: TypeAlias = np.ndarray[Any, np.dtype[Any]]


class Holder:
    """The object that NumPy makes a shadow from, and that the shadow keeps as its base."""

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
    """The owner of the memory under a shadow, or under any view of one."""
    base: Any = array
    while isinstance(base, np.ndarray):
        base = base.base
    return base.owner


def is_shadow(array: Array) -> bool:
    """Whether an array is a shadow, whose elements must not be read."""
    base: Any = array
    while isinstance(base, np.ndarray):
        base = base.base
    return isinstance(base, Holder)


def on_device(array: Any) -> bool:
    """Whether a user's array is on a CUDA device."""
    if issubclass(type(array), np.ndarray):
        return False
    try:
        return hasattr(array, INTERFACE)
    except RuntimeError:  # from a tensor of torch on a device that requires grad
        return True


def is_viewed(value: Any) -> bool:
    """Whether a value is an array whose memory can be found, on the CPU or on a device."""
    kind = type(value)
    return issubclass(kind, np.ndarray) or is_exchanged(kind) or on_device(value)


def see(array: Any, name: str) -> Array:
    """The shadow of a user's array, which errors call `name`."""
    try:
        described = library(array).interface(array)
    except RuntimeError as error:
        raise TypeError(
            f"{name} is a tensor that requires grad; pass `tensor.detach()` of a parameter and "
            "`tensor.grad` for its gradient, which share their memory"
        ) from error
    if described.get("mask") is not None:
        raise TypeError(f"{name} has a mask, which a step would ignore; pass its plain data")
    address, readonly = described["data"]
    if not address and 0 not in described["shape"]:
        raise TypeError(f"{name} has no memory: its storage was freed; pass one that has its data")
    is_bfloat16 = format_of(array) == "bfloat16"  # of which the interface tells the width alone
    seen = shadow(
        library(array).hold(array),
        address,
        described["shape"],
        strides(array, described),
        "<u2" if is_bfloat16 else described["typestr"],
        readonly,
    )
    seen = seen.view(BFLOAT16) if is_bfloat16 else seen
    if not seen.flags.aligned:
        raise ValueError(
            f"{name} has elements at addresses that are not multiples of {seen.itemsize}, which a "
            "CUDA device cannot read; pass a copy"
        )
    return seen
