"""Tensors as arrays that a step reads and writes: real, dense, and on this process.

A distributed tensor is stepped on its local shard, and a complex one as pairs of reals.
"""

from __future__ import annotations

from typing import Any

import torch

from fusedstep._arrays.dtypes import FLOAT32, compute_dtype, format_of
from fusedstep._arrays.libraries import is_nowhere
from fusedstep._arrays.place import Place
from fusedstep._arrays.walk import Array, Operand, Walk
from fusedstep._backends.plan import Watched

HALVES = (torch.float16, torch.bfloat16, torch.complex32)
"""Dtypes of 16 bits a number, which are stepped in float32."""

STEPPED = (torch.float32, torch.float64, torch.float16, torch.bfloat16)
"""Dtypes of real parameters."""

GRADIENTS = (torch.float32, torch.float16, torch.bfloat16)
"""Dtypes of gradients of what is stepped in float32, which are read as they are."""

PLAIN = (torch.Tensor, torch.nn.Parameter)
"""Types of tensors that are what they seem: C reads them by itself."""


def is_plain(tensor: Any) -> bool:
    """Whether a tensor is read as it is: on this process, real, and of a dtype that is stepped."""
    return type(tensor) in PLAIN and tensor.dtype in STEPPED


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
    tensor = base(tensor.detach())
    return torch.view_as_real(tensor) if tensor.is_complex() else tensor


def base(tensor: torch.Tensor) -> torch.Tensor:
    """A tensor of torch's own type over the same memory."""
    return tensor if type(tensor) in PLAIN else tensor.as_subclass(torch.Tensor)


def is_copy(read: Any, given: Any) -> bool:
    """Whether a tensor is in other memory than the local one that it was made of."""
    dense = given.layout is torch.strided
    return not dense or bool(read.data_ptr() != given.data_ptr())


def wide_dtype(dtype: torch.dtype) -> torch.dtype:
    """The dtype of state for parameters of a dtype, unless it is kept in fewer bytes."""
    if dtype not in HALVES:
        return dtype
    return torch.complex64 if dtype.is_complex else torch.float32


class Seen:
    """One tensor that steps read or write, as it was found: its array, and where that is."""

    HOLDS = 3
    """References to a plain tensor that this has: as itself, as its part here, and to watch it."""

    def __init__(self, tensor: torch.Tensor, place: Place, name: str) -> None:
        self.tensor: Any = tensor
        self.given = local(tensor)
        """The tensor in this process, as the user may change it."""
        self.place = place
        self.real = as_real(self.given)
        self.array: Array = place.see_written(self.real, name)
        self.watched = Watched.at(place, self.given)
        """The memory in which steps expect it."""

    def gradient(self, g: Any) -> Any:
        """A gradient as it is read: local, dense, real, and of a dtype that is stepped by.

        It is over the memory of `g` unless that lies in another form.
        """
        if is_distributed(g) and g.placements != self.tensor.placements:
            g = g.redistribute(placements=self.tensor.placements)
        g = base(local(g).detach())
        if g.layout is not torch.strided:
            g = g.to_dense()
        if is_nowhere(g):
            g = torch.zeros_like(g)
        if g.is_complex():
            g = torch.view_as_real(g.resolve_conj())
        if self.is_single and g.dtype in GRADIENTS:
            return g
        return g.to(torch.float32 if self.is_single else torch.float64)

    @property
    def is_single(self) -> bool:
        """Whether it is stepped in float32."""
        return compute_dtype(self.array.dtype) == FLOAT32

    def gradient_format(self, g: Any) -> str | None:
        """The format in which a gradient is read; None: in the dtype of steps."""
        if not self.is_single:
            return None
        return "float16" if g.dtype is torch.complex32 else format_of(g)

    def walk(self) -> Walk:
        """The order in which steps go over it."""
        return Walk(self.array, self.place)

    def operand(self, walk: Walk) -> Operand:
        """The operand of kernels, in the order of its parameter."""
        return Operand(self.array, walk)

    def flat_operand(self) -> Operand:
        """The operand of kernels of what is flat in the order of its parameter."""
        return Operand.of_flat(self.array, self.place)
