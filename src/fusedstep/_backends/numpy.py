"""The "numpy" backend: the reference, row by row, and custom rules evaluated over whole arrays."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from types import SimpleNamespace
from typing import Any

import numpy as np

from fusedstep._arrays.at_once import Call
from fusedstep._arrays.overlap import WrittenMemory
from fusedstep._arrays.place import HOST
from fusedstep._arrays.walk import Array, Operand
from fusedstep._backends.plan import CheckedTable, Job, Row
from fusedstep._compiler.evaluate import evaluate
from fusedstep._numerics import norm, reference
from fusedstep._numerics.coefficients import JobScalars
from fusedstep._numerics.rounding import check_rounding


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
            sums = [norm.squares(each.flat) for each in self.operands if each is not None]
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
        rule, dtype = self.jobs[row.job]
        p = row.p.flat
        states = [None if state is None else state.flat for state in row.states]
        g = reference.gradient(p, g, h)
        if rule.formula is None:
            results: Sequence[Array] = getattr(reference, rule.name)(p, g, *states, h, rule.inside)
        else:
            # Copies, because a new state may be the old p itself.
            results = [*map(np.array, evaluate(rule.formula, (p, g, *states), h, dtype))]
        arrays = [p, *states]
        if row.ema is not None:
            arrays.append(row.ema.flat)
            results = [*results, reference.average(results[0], row.ema.flat, h)]
        for array, result in zip(arrays, results, strict=True):
            if array is not None:
                yield from HOST.copying(array, np.asarray(result, dtype))
