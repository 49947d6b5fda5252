"""The bytes that parameters, what they lack, state and gradients take, for each way to keep them.

They follow from the functions by which an optimizer itself lays out memory.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from math import prod
from typing import Any, NamedTuple

import numpy as np

from fusedstep._arrays.dtypes import BFLOAT16, FLOAT16, FLOAT32, HALVES, dtype_name
from fusedstep._core.declaration import Declaration
from fusedstep._core.kept import format_of_parameter, format_of_state
from fusedstep._core.parameters import rule_of
from fusedstep._numerics.storage import STORAGES, Part


class Way(NamedTuple):
    """A way to keep parameters and state."""

    dtype: np.dtype[Any]
    """The dtype of the parameters, and of their gradients."""
    master: Any = None
    state_dtype: Any = "float32"
    copy: np.dtype[Any] | None = None
    """The dtype of arrays that the parameters are written into as well."""

    @property
    def parameters(self) -> str:
        """The parameters, in words."""
        if self.copy is not None:
            return f"{dtype_name(self.dtype)}, out={dtype_name(self.copy)}"
        if self.dtype not in HALVES:
            return dtype_name(self.dtype)
        return f"{dtype_name(self.dtype)}, master={self.master!r}"


WAYS = (
    Way(FLOAT32),
    Way(FLOAT32, state_dtype="bfloat16"),
    Way(FLOAT32, state_dtype="8bit"),
    Way(FLOAT32, copy=BFLOAT16),
    Way(FLOAT16, "float32"),
    Way(FLOAT16, "float32", "8bit"),
    Way(BFLOAT16, "float32"),
    Way(BFLOAT16, "split16"),
    Way(BFLOAT16, "split16", "bfloat16"),
    Way(BFLOAT16, "split16", "8bit"),
    Way(BFLOAT16, "split8", "8bit"),
    Way(BFLOAT16, False, "bfloat16"),
    Way(BFLOAT16, False, "8bit"),
)
"""The ways that there are to choose between, from the widest of each dtype to the narrowest."""


class Footprint(NamedTuple):
    """Bytes, of all tensors together."""

    parameters: int
    """The parameters that a model reads."""
    masters: int
    """The bits that these lack, masters or copies."""
    state: int
    gradients: int
    traffic: int
    """Bytes that one step reads and writes."""

    @property
    def kept(self) -> int:
        """Bytes that stay from step to step."""
        return self.parameters + self.masters + self.state

    @property
    def total(self) -> int:
        """Bytes with the gradients."""
        return self.kept + self.gradients

    def __add__(self, other: Any) -> Footprint:
        return Footprint(*map(sum, zip(self, other, strict=True)))


NOTHING = Footprint(0, 0, 0, 0, 0)


def footprint(
    declaration: Declaration,
    hyper: Mapping[str, Any],
    shapes: Sequence[tuple[int, ...]],
    way: Way,
) -> Footprint:
    """The bytes of tensors of these shapes, kept in that way.

    `hyper` are the hyperparameters, of which those that say how things are kept do not count.
    """
    values = {**hyper, "master": way.master, "state_dtype": way.state_dtype}
    letters = rule_of(declaration, values).states
    return sum(
        (_of_one(declaration, values, letters, prod(shape), way) for shape in shapes), NOTHING
    )


def _of_one(
    declaration: Declaration, values: Mapping[str, Any], letters: Sequence[str], n: int, way: Way
) -> Footprint:
    own = _bytes(Part(way.dtype), n)
    name = format_of_parameter(way.dtype, values, way.copy, "params")
    parts = () if name is None else STORAGES[name].parts
    rest = sum(_bytes(part, n) for part in parts) - own if parts else 0
    state = sum(
        _bytes(part, n)
        for letter in letters
        for part in _parts_of_state(declaration, values, letter, n)
    )
    copy = 0 if way.copy is None else rest
    return Footprint(own, rest, state, own, 2 * (own + rest + state) - copy + own)


def _parts_of_state(
    declaration: Declaration, values: Mapping[str, Any], letter: str, n: int
) -> Iterator[Part]:
    name = format_of_state(letter, values, declaration.nonnegative, FLOAT32, n)
    yield from [Part(FLOAT32)] if name is None else STORAGES[name].parts


def _bytes(part: Part, n: int) -> int:
    return part.length(n) * part.dtype.itemsize
