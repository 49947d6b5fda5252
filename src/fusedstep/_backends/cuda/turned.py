"""Gradients whose norm is summed in another order than that in which they are stepped.

A device has no arrays with negative strides, so that those are walked against the order in which
their elements lie. The norm is defined by that order: here they are turned round for it.
"""

from __future__ import annotations

from fusedstep._arrays.at_once import Call
from fusedstep._arrays.walk import Array, Walk


class Turned:
    """A copy of one parameter's gradient, in the order of the parameter's memory."""

    def __init__(self, walk: Walk, like: Array) -> None:
        self.walk = walk
        self.copy = walk.place.empty((walk.size,), like.dtype)
        self.source: Array | None = None

    def read(self, flat: Array) -> None:
        """Read the gradient that a step takes from there on."""
        self.source = self.walk.in_memory_order(flat)
        if self.copy.dtype != flat.dtype:
            self.copy = self.walk.place.empty((self.walk.size,), flat.dtype)

    def calls(self) -> list[Call]:
        """The calls that copy it."""
        assert self.source is not None
        return self.walk.place.copying(self.copy.reshape(self.source.shape), self.source)
