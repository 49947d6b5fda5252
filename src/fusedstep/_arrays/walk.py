"""The order in which kernels go over an array, and arrays as kernels see them.

A kernel sees contiguous memory only. Each parameter is visited in the order in which its
elements lie in memory, whatever its axes, so that C- and F-order, transposed and reversed
arrays need no copy; what has gaps in it, or another layout than its parameter, goes
through scratch.
"""

from __future__ import annotations

from math import prod
from typing import Any, NoReturn, TypeAlias

import numpy as np

from fusedstep._arrays.at_once import Call
from fusedstep._arrays.place import Place

Array: TypeAlias = np.ndarray[Any, np.dtype[np.floating[Any]]]

NOTHING: Array = np.empty(0)
"""An array in the place of one that is not held any more."""


def refuse_turned(name: str, what: str) -> NoReturn:
    """Refuse an array with negative strides on a device, where it is walked the other way round.

    `what` says for what the way matters.
    """
    raise ValueError(
        f"{name} has negative strides on a CUDA device, and {what} the order of elements decides "
        "about bits; pass a contiguous array, as `cupy.ascontiguousarray(p)`"
    )


class Walk:
    """The order in which one parameter's elements are visited: as they lie in memory."""

    turned: tuple[slice, ...] = ()
    """The directions in which memory lies along the walk, if not all are its own."""

    def __init__(self, p: Array, place: Place) -> None:
        self.place = place
        self.shape = p.shape
        self.size = p.size
        # Strides mean nothing along axes of length 0 or 1, so plain goes by the flag alone.
        self.plain = p.flags.c_contiguous
        if self.plain:
            return
        self.forward = tuple(
            slice(None, None, -1 if step < 0 and place.backwards else 1) for step in p.strides
        )
        self.axes = sorted(range(p.ndim), key=lambda axis: -abs(p.strides[axis]))
        self.back = sorted(range(p.ndim), key=self.axes.__getitem__)
        turned = [slice(None, None, -1 if p.strides[axis] < 0 else 1) for axis in self.axes]
        if not place.backwards and any(each.step < 0 for each in turned):
            self.turned = tuple(turned)

    @classmethod
    def in_order(cls, shape: tuple[int, ...], place: Place) -> Walk:
        """A walk in C order, whatever the order in which the elements lie."""
        made = object.__new__(cls)
        made.place, made.shape, made.plain = place, shape, True
        made.size = prod(shape)
        return made

    def in_memory_order(self, flat: Array) -> Array:
        """A view of a flat array along the walk that goes as the parameter's memory does."""
        laid: Array = flat.reshape([self.shape[axis] for axis in self.axes])[self.turned]
        return laid

    def lay(self, array: Array) -> Array:
        """A view of `array`, which has the parameter's shape, that has the walk as its C order."""
        return array if self.plain else array[self.forward].transpose(self.axes)

    def shaped(self, flat: Array) -> Array:
        """An array of the parameter's shape over flat memory, laid out along the walk."""
        if self.plain:
            return flat.reshape(self.shape)
        laid = flat.reshape([self.shape[axis] for axis in self.axes])
        return laid.transpose(self.back)[self.forward]


def has_gaps(laid: Array) -> bool:
    """Whether a kernel cannot walk along an array that is laid along the walk."""
    return not (laid.flags.c_contiguous and laid.flags.aligned)


class Operand:
    """An array as a kernel sees it: `flat` is its own memory, or scratch where it has gaps.

    `laid` is the array along the walk, and `copied` the scratch in its shape. `before` is an
    operand of the same size that is given up: scratch of the same dtype is used again.
    """

    __slots__ = ("back", "copied", "flat", "laid", "place", "scratch")

    def __init__(self, array: Array, walk: Walk, before: Operand | None = None) -> None:
        self.place = walk.place
        self.back: list[Call] = []
        self.laid = walk.lay(array)
        self.scratch = has_gaps(self.laid)
        if not self.scratch:
            self.flat = self.laid.reshape(-1)
            return
        if before is not None and before.scratch and before.flat.dtype == array.dtype:
            self.flat = before.flat
        else:
            self.flat = walk.place.empty((array.size,), array.dtype)
        self.copied = self.flat.reshape(self.laid.shape)

    @classmethod
    def of_flat(cls, flat: Array, place: Place) -> Operand:
        """An array that already is as a kernel sees it: flat, contiguous and aligned."""
        operand = object.__new__(cls)
        operand.place, operand.laid, operand.flat, operand.scratch = place, flat, flat, False
        return operand

    def fetch(self) -> None:
        """Copy the array into its scratch."""
        self.place.copy(self.copied, self.laid)

    def aim(self, laid: Array) -> None:
        """Copy to and from another array, of which this is the view along the walk."""
        if self.scratch:
            self.laid, self.back = laid, []

    def let_go(self) -> None:
        """Hold the scratch alone; without one, nothing."""
        self.back = []
        if self.scratch:
            self.laid = self.copied
        else:
            self.laid = self.flat = NOTHING

    def put_back(self) -> list[Call]:
        """The calls that copy the scratch into the array."""
        if not self.back or not self.place.lasting:
            self.back = self.place.copying(self.laid, self.copied)
        return self.back
