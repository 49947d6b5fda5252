"""The "numpy" backend: the reference, row by row, and custom rules evaluated over whole arrays."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from functools import partial
from operator import setitem
from types import SimpleNamespace
from typing import Any, NamedTuple, TypeAlias

import numpy as np

from fusedstep._arrays.at_once import Call
from fusedstep._arrays.overlap import WrittenMemory
from fusedstep._arrays.place import HOST
from fusedstep._arrays.walk import Array, Operand
from fusedstep._backends.plan import CheckedTable, Held, Job, Row, Storages
from fusedstep._backends.slices import Touched, steps_of
from fusedstep._compiler.evaluate import evaluate
from fusedstep._numerics import norm, reference
from fusedstep._numerics.coefficients import JobScalars, Rule
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
                self._squares(row, operand, touched)
                for row, operand, touched in zip(
                    self.rows, self.operands, self.touched, strict=True
                )
                if row is not None
            ]
            self.sums = np.concatenate([np.zeros((0, norm.SUMS)), *sums])
            return norm.measure(norm.total(self.sums), scale, max_norm)

    def _squares(self, row: Row, operand: Any, touched: Touched | None) -> Array:
        if touched is None:
            return norm.squares(decoded(self.jobs[row.job].storages, row, operand.flat))
        if touched.sums is not None:
            return touched.sums
        return norm.squares(touched.dense(row.walk.shape[0]))

    def catching_up(self) -> Sequence[Call]:
        check_rounding()
        calls: list[Call] = []
        with np.errstate(all="ignore"):
            for row, touched in zip(self.rows, self.touched, strict=True):
                assert row is not None
                assert touched is not None
                assert touched.counts is not None
                assert touched.scalars is not None
                at = touched.at()
                calls += written(row, touched, self.replayed(row, touched))
                calls.append(partial(setitem, touched.counts, at, touched.scalars.last))
        return calls

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
            for row, operand, touched in zip(self.rows, self.operands, self.touched, strict=True):
                if row is not None:
                    h = rounded[row.job]
                    if each:
                        h = SimpleNamespace(**{**vars(h), "clip": h.clip.dtype.type(next(clips))})
                    if touched is not None:
                        calls += self.step_slices(row, touched, h)
                        continue
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
        results = stepped(rule, dtype, p, g, states, h)
        if row.ema is not None:
            average = reference.average(results[0], row.ema.flat, h)
            yield from HOST.copying(row.ema.flat, average)
        for each, result in zip(stored, results, strict=True):
            if each is not None:
                draw = None if each.held is None else each.held.draw
                key = int(self.keys[row.job])
                r = None if draw is None else random_bits(key, row.ordinal, draw, each.size)
                yield from each.storing(np.asarray(result, dtype), r)

    # ---- slices ----

    def step_slices(self, row: Row, touched: Touched, h: Any) -> Iterator[Call]:
        """The calls that write the step of a tensor's slices; `h` has its job's scalars."""
        values = self.replayed(row, touched) if touched.catches_up else slices_of(row, touched)
        g = touched.gradients(row.walk.shape[0])
        counts, scalars, at = touched.counts, touched.scalars, touched.at()
        if scalars is None or (scalars.entries is None and touched.columns is None):
            values = self.advance(row, values, g, h)
        else:
            lines: Any = scalars.last + 1 - scalars.first
            if scalars.entries is not None:
                lines = scalars.entries[0 if counts is None else counts[at] + 1]
            for line, some in steps_of(np.broadcast_to(lines, len(g)).tolist()).items():
                stepped = self.advance_by(row, touched, line, taken(values, some), g[some], h)
                put_in(values, some, stepped)
        yield from written(row, touched, values)
        if counts is not None:
            new = counts[at] + 1
            if scalars is not None and touched.catches_up:
                new[...] = scalars.last + 1
            yield partial(setitem, counts, at, new)

    def advance(self, row: Row, values: Values, g: Array, h: Any) -> Values:
        """The values of slices after a step by g."""
        rule, dtype, _ = self.jobs[row.job]
        p, *states, ema = values
        results: list[Any] = [*stepped(rule, dtype, p, g, states, h)]
        results = [None if x is None else np.asarray(x, dtype) for x in results]
        return [*results, None if ema is None else reference.average(results[0], ema, h)]

    def advance_by(
        self, row: Row, touched: Touched, line: int, values: Values, g: Array, asked: Any = None
    ) -> Values:
        """The values of slices after a step by g, by a line of scalars of each set of columns.

        What the step is asked for is that of `asked`; None: it is in the line.
        """
        assert touched.scalars is not None
        names = self.scalars_of(self.jobs[row.job])
        sets = np.zeros(touched.width, int) if touched.columns is None else touched.columns.sets
        result: Values = [None if each is None else each.copy() for each in values]
        for number, each in enumerate(touched.scalars.table):
            h = SimpleNamespace(**dict(zip(names, each[line], strict=True)))
            if asked is not None:
                h.unscale, h.clip, h.most = asked.unscale, asked.clip, asked.most
            columns = np.flatnonzero(sets == number)
            some = [None if x is None else x[:, columns] for x in values]
            for to, x in zip(result, self.advance(row, some, g[:, columns], h), strict=True):
                if to is not None:
                    to[:, columns] = x
        return result

    def replayed(self, row: Row, touched: Touched) -> Values:
        """The values of slices after the steps that they have missed."""
        assert touched.counts is not None
        assert touched.scalars is not None
        _, _, first, last, _ = touched.scalars
        values, counts = slices_of(row, touched), touched.counts[touched.at()]
        for t in range(int(counts.min(initial=last)) + 1, last + 1):
            behind = np.flatnonzero(counts < t)
            some = taken(values, behind)
            nothing = np.zeros_like(some[0])
            put_in(values, behind, self.advance_by(row, touched, t - first, some, nothing))
        return values


Values: TypeAlias = list[Any]
"""Slices of p, of each state array and of the average, each a matrix; None where there is none."""


def stepped(
    rule: Rule, dtype: np.dtype[Any], p: Array, g: Array, states: Sequence[Any], h: Any
) -> Sequence[Any]:
    """The new p and the new state after a step by a rule, with its prologue."""
    g = reference.gradient(p, g, h)
    if rule.formula is None:
        results: Sequence[Array] = getattr(reference, rule.name)(p, g, *states, h, rule.inside)
        return results
    # Copies, because a new state may be the old p itself.
    return [*map(np.array, evaluate(rule.formula, (p, g, *states), h, dtype))]


def matrices(row: Row, touched: Touched) -> Values:
    """The tensor's arrays, of which each line is a slice."""
    operands = row.p, *row.states, row.ema
    shape = row.walk.shape[0], touched.width
    return [None if each is None else each.flat.reshape(shape) for each in operands]


def slices_of(row: Row, touched: Touched) -> Values:
    """Copies of the slices that are touched."""
    return taken(matrices(row, touched), touched.at())


def taken(values: Values, at: Any) -> Values:
    """Copies of some slices."""
    return [None if each is None else each[at].copy() for each in values]


def put_in(values: Values, at: Any, some: Values) -> None:
    """Put slices in their places among the others."""
    for each, part in zip(values, some, strict=True):
        if each is not None:
            each[at] = part


def written(row: Row, touched: Touched, values: Values) -> Iterator[Call]:
    """The calls that put the values of the slices that are touched into their tensor."""
    for each, part in zip(matrices(row, touched), values, strict=True):
        if each is not None:
            yield partial(setitem, each, touched.at(), part)


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
