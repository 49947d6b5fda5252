"""Slices of a tensor in the memory of a device: what their kernels are sent, step by step.

Which slices are touched, and how many steps they have taken, the host knows. It sends that in one
copy for each step, through a ring of pinned buffers, so that it need not wait for the device.
"""

from __future__ import annotations

from functools import partial
from operator import itemgetter, setitem
from typing import Any, NamedTuple

import numpy as np

from fusedstep._arrays.at_once import Call
from fusedstep._arrays.dtypes import HALVES
from fusedstep._arrays.plain import address
from fusedstep._arrays.walk import Array
from fusedstep._backends.cuda import device, slices
from fusedstep._backends.cuda.device import Device
from fusedstep._backends.cuda.mail import Parcels
from fusedstep._backends.plan import Job, Row
from fusedstep._backends.slices import Integers, Scalars, Touched
from fusedstep._numerics import variants
from fusedstep._numerics.coefficients import JobScalars, Values


class Sent(NamedTuple):
    """Where the device finds what it was sent for a step; 0 where that is nothing."""

    ids: int
    starts: int
    places: int
    table: int
    missed: int
    lines: int
    sets: int


class Lines(NamedTuple):
    """The lines of scalars that slices are stepped by, and which of these are each one's."""

    table: Array | None = None
    """They, for each set of columns."""
    until: int = 0
    """The line after those of missed steps."""
    missed: Integers | None = None
    """The first line of the steps that each slice has missed: all from there on."""
    own: Integers | None = None
    """The line of each slice's own step."""
    shared: Array | None = None
    """The line of all slices' step, in place of the job's."""


class Sliced:
    """A tensor that is stepped by slices."""

    def __init__(self, job: Job, row: Row, where: Device) -> None:
        self.job = job
        self.device = where
        self.mail = Parcels(where)
        self.names = variants.step(job.rule).scalars
        self.pick = itemgetter(*self.names)
        self.slices = row.walk.shape[0]
        self.dtype = row.p.flat.dtype
        self.size = row.p.flat.size
        operands = row.p, *row.states, row.ema
        self.written = [address(each.flat) for each in operands if each is not None]
        self.scratch: Array | None = None
        """The gradient as a whole; None until its norm is asked for."""
        self.touched: Touched | None = None
        self.lines = Lines()
        self.sent: Sent | None = None
        """None until the step needs it."""

    def touch(self, touched: Touched) -> None:
        """Step these slices the next time."""
        self.touched = touched
        self.sent = None

    def gradient(self) -> int:
        """The address of memory for the whole gradient, of which the norm is taken.

        If the sums of its squares are there, it will be any of that size: no one looks at them.
        """
        assert self.touched is not None
        if self.touched.sums is not None:
            return self.written[0]
        if self.scratch is None:
            self.scratch = self.device.empty((self.size,), self.dtype)
        return address(self.scratch)

    def gathering(self, stream: int) -> list[Call]:
        """The calls that put the gradients of slices into the whole one, among zeros."""
        touched = self.touched
        assert touched is not None
        if touched.sums is not None or not self.size:
            return []
        device.driver.zero(self.gradient(), self.size * self.dtype.itemsize, stream)
        module = slices.gathering(touched.values.dtype)
        return self._launch(module, (*self._shared(stream), self.gradient()), stream)

    def put_sums(self, sums: Array) -> None:
        """Put the sums of squares that there are in the place of those from `sums` on."""
        assert self.touched is not None
        if self.touched.sums is not None:
            sums[: len(self.touched.sums)] = self.touched.sums

    def stepping(self, stream: int, given: JobScalars | None, clip: float | None) -> list[Call]:
        """The calls that step the slices touched by the job's scalars, and count their steps.

        `clip` is a factor of this tensor alone. Slices that are given no scalars take the steps
        that they have missed, and no other.
        """
        touched = self.touched
        assert touched is not None
        if touched.columns is not None and touched.catches_up:
            self.sent = None  # before this step's scalars were there, if a norm was asked for
        shared, sent = self._shared(stream), self.sent
        assert sent is not None
        table = self.lines.table
        per_set = 0 if table is None else table.shape[1]
        own = sent.missed, sent.lines, sent.sets
        missed = sent.table, self.lines.until, per_set, *own, given is not None
        scalars = [0.0] * len(self.names) if given is None else self._scalars(given, clip)
        half = HALVES.get(touched.values.dtype)
        module = slices.stepping(self.job, half)
        calls = self._launch(module, (*self.written, *shared, *missed, *scalars), stream)
        if touched.counts is not None:
            at = touched.at()
            taken: Any = touched.counts[at]
            if touched.scalars is not None and touched.catches_up:
                taken = touched.scalars.last
            calls.append(partial(setitem, touched.counts, at, taken + (given is not None)))
        return calls

    def _scalars(self, given: JobScalars, clip: float | None) -> list[float]:
        """The scalars of the step that comes."""
        values: Values = {**given[0], **given[1]}
        if clip is not None:
            values["clip"] = clip
        if self.lines.shared is not None:
            own = dict(zip(self.names, self.lines.shared.tolist(), strict=True))
            values = {**own, **{name: values[name] for name in slices.ASKED}}
        return [*self.pick(values)]

    def _launch(self, module: Any, arguments: tuple[int | float, ...], stream: int) -> list[Call]:
        assert self.touched is not None
        n = self.touched.n(self.slices) * self.touched.width
        if not n:
            return []
        kernel = device.kernel(module, self.device.ordinal)
        return [kernel.launching(-(-n // device.THREADS), device.THREADS, stream, arguments)]

    def _shared(self, stream: int) -> tuple[int, ...]:
        """The arguments that both kernels have, once what they point to is on its way there."""
        touched = self.touched
        assert touched is not None
        if self.sent is None:
            self.lines = lines_of(touched)
            table, _, missed, own, _ = self.lines
            integers = None if table is None else as_integers(table)
            sets = None if touched.columns is None else touched.columns.sets
            parts = touched.ids, touched.starts, touched.places, integers, missed, own, sets
            self.sent = Sent(*self.mail.send(parts, stream))
        n = touched.n(self.slices) * touched.width
        return (address(touched.values), n, touched.width, *self.sent[:3])


def lines_of(touched: Touched) -> Lines:
    """The lines of scalars that slices are stepped by, and no others of the table."""
    scalars, counts, at = touched.scalars, touched.counts, touched.at()
    if scalars is None:
        return Lines()
    if scalars.entries is None:
        assert counts is not None
        return _missed(scalars, counts[at], touched.columns is not None)
    if counts is None:
        line = int(scalars.entries[0])
        if touched.columns is not None:
            return Lines(scalars.table[:, line : line + 1])
        return Lines(shared=scalars.table[0, line])
    used, own = np.unique(scalars.entries[counts[at] + 1], return_inverse=True)
    return Lines(scalars.table[:, used], own=own.astype(np.int64, copy=False))


def _missed(scalars: Scalars, counts: Integers, by_column: bool) -> Lines:
    """The lines of missed steps, and by column also that of the next."""
    behind = int(counts.min(initial=scalars.last))
    missed = scalars.last - behind
    if not missed and not by_column:
        return Lines()
    begin = behind + 1 - scalars.first
    table = scalars.table[:, begin : begin + missed + by_column]
    return Lines(table, missed, counts - behind)


def as_integers(table: Array) -> Integers:
    """The bytes of a table, with some more up to a whole integer."""
    content = table.tobytes()
    return np.frombuffer(content + bytes(-len(content) % 8), np.int64)
