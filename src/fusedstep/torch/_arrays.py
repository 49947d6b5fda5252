"""Tensors as arrays that a step reads and writes: real, dense, and on this process.

A distributed tensor is stepped on its local shard, and a complex one as pairs of reals. A tensor
of 16 bits is stepped in float32: it is widened to scratch before each step and rounded to nearest
once after it.
"""

from __future__ import annotations

from functools import partial
from operator import setitem
from typing import Any

import numpy as np
import torch

from fusedstep._arrays.at_once import Call
from fusedstep._arrays.libraries import is_nowhere
from fusedstep._arrays.place import Place
from fusedstep._arrays.walk import Array, Operand, Walk
from fusedstep._backends.plan import Watched

HALVES = (torch.float16, torch.bfloat16)
"""Dtypes that are stepped in float32."""

PLAIN = (torch.Tensor, torch.nn.Parameter)
"""Types of tensors that are what they seem: C reads them by itself."""


def is_plain(tensor: Any) -> bool:
    """Whether a tensor is read as it is: on this process, real, and of a dtype that is stepped."""
    return type(tensor) in PLAIN and tensor.dtype in (torch.float32, torch.float64)


def is_distributed(tensor: Any) -> bool:
    """Whether a tensor is a DTensor, of which this process has a shard or a copy."""
    return hasattr(tensor, "device_mesh") and hasattr(tensor, "to_local")


def local(tensor: Any) -> Any:
    """The part of a tensor that is on this process: of a DTensor the same object each time."""
    if not is_distributed(tensor):
        return tensor
    # `to_local` makes a new view of a parameter's each time. It is for parts that are on their way.
    part = getattr(tensor, "_local_tensor", None)
    if type(part) in PLAIN:
        return part
    with torch.no_grad():
        return tensor.to_local()


def as_real(tensor: torch.Tensor) -> torch.Tensor:
    """A local tensor as it is stepped: a complex one as pairs of reals, over the same memory."""
    tensor = tensor.detach()
    return torch.view_as_real(tensor) if tensor.is_complex() else tensor


def is_copy(read: Any, given: Any) -> bool:
    """Whether a tensor is in other memory than the local one that it was made of."""
    dense = given.layout is torch.strided
    return not dense or bool(read.data_ptr() != given.data_ptr())


class Half(Operand):
    """A tensor of 16 bits as a kernel sees it: float32 scratch in C order."""

    def __init__(self, tensor: torch.Tensor, place: Place) -> None:
        self.place, self.scratch = place, True
        self.wide = torch.empty(tensor.shape, dtype=torch.float32, device=tensor.device)
        self.laid = self.copied = place.see(self.wide, "scratch")
        self.flat = self.laid.reshape(-1)
        self.narrow = tensor.detach()
        self.back: list[Call] = [partial(setitem, self.narrow, ..., self.wide)]

    def fetch(self) -> None:
        """Widen the tensor."""
        self.wide.copy_(self.narrow)

    def put_back(self) -> list[Call]:
        """The call that rounds the scratch into the tensor."""
        return self.back


class Seen:
    """One tensor that steps write, as it was found: its array, its memory, and its operands."""

    HOLDS = 3
    """References to a plain tensor that this has: as itself, as its part here, and to watch it."""

    def __init__(self, tensor: torch.Tensor, place: Place, name: str) -> None:
        self.tensor: Any = tensor
        self.given = local(tensor)
        """The tensor in this process, as the user may change it."""
        self.place = place
        self.real = as_real(self.given)
        self.half = self.real.dtype in HALVES
        self.memory = self._memory(name)
        """An array over its memory, for overlaps: like it, but not always of its dtype."""
        self.watched = Watched.at(place, self.given)
        """The memory in which steps expect it."""
        self.array = np.empty(self.real.shape, np.float32) if self.half else self.memory
        """An array of its shape and of the dtype in which it is stepped."""

    def _memory(self, name: str) -> Array:
        bits = self.real.view(torch.int16) if self.half else self.real
        seen: Array = self.place.see_written(bits, name)
        return seen

    def gradient(self, g: Any) -> Any:
        """A gradient as it is read: local, dense, real, and of the dtype of `array`.

        It is over the memory of `g` unless that lies in another form.
        """
        if is_distributed(g) and g.placements != self.tensor.placements:
            g = g.redistribute(placements=self.tensor.placements)
        g = local(g).detach()
        if g.layout is not torch.strided:
            g = g.to_dense()
        if is_nowhere(g):
            g = torch.zeros_like(g)
        if g.is_complex():
            g = torch.view_as_real(g.resolve_conj())
        wanted = torch.float32 if self.half else self.real.dtype
        return g if g.dtype is wanted else g.to(wanted)

    def walk(self) -> Walk:
        """The order in which steps go over it."""
        return Walk(self.array, self.place)

    def operand(self, walk: Walk) -> Operand:
        """The operand of kernels."""
        return Half(self.real, self.place) if self.half else Operand(self.array, walk)
