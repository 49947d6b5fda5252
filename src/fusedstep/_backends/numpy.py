"""The "numpy" backend: the reference, row by row, and custom rules evaluated over whole arrays."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from types import SimpleNamespace
from typing import Any, NamedTuple

import numpy as np

from fusedstep._arrays.at_once import Call
from fusedstep._arrays.overlap import WrittenMemory
from fusedstep._arrays.place import HOST
from fusedstep._arrays.walk import Array, Operand
from fusedstep._backends.plan import CheckedTable, Held, Job, Row, Storages
from fusedstep._compiler.evaluate import evaluate
from fusedstep._numerics import norm, reference
from fusedstep._numerics.coefficients import JobScalars
from fusedstep._numerics.rounding import check_rounding
from fusedstep._numerics.storage import STORAGES, Bits, random_bits


class Table(CheckedTable):
    """A step in NumPy: the reference, or a custom rule's formula, applied to each row in turn."""

    def __init__(
        self, jobs: Sequence[Job], rows: Sequence[Row | None], written: WrittenMemory
    ) -> None:
        super().__init__(jobs, rows)
        self.operands: list[Any] = [None] * len(rows)

    def set_gradient(self, index: int, g: Array, operand: Operand, given: Any) -> None:
        super().set_gradient(index, g, operand, given)
        self.operands[index] = operand

    def measure(self, scale: float, max_norm: float) -> norm.Measured:
        with np.errstate(all="ignore"):
            sums = [
                norm.squares(decoded(self.jobs[row.job].storages, row, operand.flat))
                for row, operand in zip(self.rows, self.operands, strict=True)
                if row is not None
            ]
            self.sums = np.concatenate([np.zeros((0, norm.SUMS)), *sums])
            return norm.measure(norm.total(self.sums), scale, max_norm)

    def calls(
        self, scalars: Sequence[JobScalars], zero: bool, each: bool = False
    ) -> Sequence[Call]:
        check_rounding()
        calls: list[Call] = []
        with np.errstate(all="ignore"):
            rounded = [
                SimpleNamespace(
                    **{
                        name: job.dtype.type(value)
                        for each in given
                        for name, value in each.items()
                    }
                )
                for job, given in zip(self.jobs, scalars, strict=True)
            ]
            clips = iter(self.clips if each else ())
            for row, operand in zip(self.rows, self.operands, strict=True):
                if row is not None:
                    h = rounded[row.job]
                    if each:
                        h = SimpleNamespace(**{**vars(h), "clip": h.clip.dtype.type(next(clips))})
                    calls += self.step(row, operand.flat, h)
                    if zero:
                        calls += HOST.clearing(operand.flat)
        return [*calls, *self.counted()]

    def step(self, row: Row, g: Array, h: Any) -> Iterator[Call]:
        """The calls that write one tensor's step; `h` has its job's scalars in its dtype."""
        rule, dtype, storages = self.jobs[row.job]
        g = decoded(storages, row, g)
        stored = stored_in(row, storages)
        parameter, *of_states = stored
        assert parameter is not None
        p = parameter.values()
        states = [None if each is None else each.values() for each in of_states]
        g = reference.gradient(p, g, h)
        if rule.formula is None:
            results: Sequence[Array] = getattr(reference, rule.name)(p, g, *states, h, rule.inside)
        else:
            # Copies, because a new state may be the old p itself.
            results = [*map(np.array, evaluate(rule.formula, (p, g, *states), h, dtype))]
        if row.ema is not None:
            average = reference.average(results[0], row.ema.flat, h)
            yield from HOST.copying(row.ema.flat, average)
        for each, result in zip(stored, results, strict=True):
            if each is not None:
                draw = None if each.held is None else each.held.draw
                key = int(self.keys[row.job])
                r = None if draw is None else random_bits(key, row.ordinal, draw, each.size)
                yield from each.storing(np.asarray(result, dtype), r)


class Stored(NamedTuple):
    """An operand as it lies in memory."""

    arrays: tuple[Array, ...]
    held: Held | None
    size: int

    def values(self) -> Array:
        """The values, in the dtype that rules compute in."""
        if self.held is None:
            return self.arrays[0]
        return STORAGES[self.held.format].decode(self.size, self.arrays)

    def storing(self, values: Array, r: Bits | None) -> Iterator[Call]:
        """The calls that put values in their place."""
        contents: Sequence[Array] = [values]
        if self.held is not None:
            contents = STORAGES[self.held.format].encode(values, r)
        for array, content in zip(self.arrays, contents, strict=True):
            yield from HOST.copying(array, content)


def stored_in(row: Row, storages: Storages | None) -> list[Stored | None]:
    """The parameter and the state arrays of a row."""
    operands = [row.p, *row.states]
    helds: Sequence[Held | None] = [None] * len(operands)
    seconds: Sequence[Operand | None] = [None] * len(operands)
    if storages is not None:
        helds = storages.p, *storages.states
    if row.rest is not None:
        seconds = row.rest.p, *row.rest.states
    made: list[Stored | None] = []
    for operand, held, second in zip(operands, helds, seconds, strict=True):
        both = [each.flat for each in (operand, second) if each is not None]
        made.append(None if operand is None else Stored((*both,), held, row.p.flat.size))
    return made


def decoded(storages: Storages | None, row: Row, g: Array) -> Array:
    """The values of a row's gradient."""
    held = None if storages is None else storages.g
    return Stored((g,), held, row.p.flat.size).values()
