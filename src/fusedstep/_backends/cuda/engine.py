"""The CUDA backend: for each job one launch over a table of addresses, on the caller's stream.

Once laid out, a step neither allocates nor waits for the device, unless it is asked for the
gradients' norm or whether they are finite. What changes from step to step goes by value in
the launch. The gradients' addresses, if they are not those of the step before, go through a
ring of pinned buffers: the host waits only when it is a whole ring ahead of the device.
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any

import numpy as np

from fusedstep._arrays.at_once import Call, at_once
from fusedstep._arrays.cuda_array import owner
from fusedstep._arrays.libraries import glance, library
from fusedstep._arrays.overlap import WrittenMemory, extent
from fusedstep._arrays.plain import address
from fusedstep._arrays.walk import Array, Operand
from fusedstep._backends.cuda import device, formats, kernels
from fusedstep._backends.cuda.device import Device
from fusedstep._backends.cuda.judging import Judge, Program, Steps
from fusedstep._backends.cuda.launches import Launch, Pieces, Squares, Tables, tile_of
from fusedstep._backends.cuda.mail import Mail
from fusedstep._backends.cuda.touched import Sliced
from fusedstep._backends.cuda.turned import Turned
from fusedstep._backends.plan import (
    STEPPED,
    Asked,
    Cells,
    Job,
    Line,
    Row,
    clips_of,
    new_keys,
    unfit_rows,
)
from fusedstep._backends.slices import Scalars, Touched
from fusedstep._numerics import norm, variants
from fusedstep._numerics.coefficients import JobScalars
from fusedstep._numerics.rounding import check_rounding

RING = 8
"""How many steps with new gradients the host may be ahead of the device."""


NOWHERE = (None,)
"""The layout of no gradient."""


class Gradient:
    """A gradient as it was checked last, and where its bytes begin and end."""

    __slots__ = (
        *("address", "below", "kept", "layout", "length", "library", "scratch", "writeable"),
    )

    kept: Any
    """The holder of its memory until the next one is there; None where none is needed."""

    def __init__(self, g: Array, operand: Operand) -> None:
        given = owner(g)
        self.address, self.layout = glance(given)
        low, high = extent(g)
        self.below = low - self.address
        self.length = high - low
        self.scratch = operand.scratch
        self.writeable = g.flags.writeable
        self.library = library(given)
        # One that is read-only may be a copy, which nobody else holds until the launch.
        self.kept = None if self.library.ordered and self.writeable else given


class Table:
    """A `plan.Table` in the memory of a device."""

    selects = aims = reads_rows = captures = False
    judges = True

    def __init__(
        self, jobs: Sequence[Job], rows: Sequence[Row | None], written: WrittenMemory
    ) -> None:
        self.written = written
        self.moves = 0
        self.steps = Steps()
        self.taken: Array | None = None
        """The count of steps on the device, for those that are judged."""
        self.judge: Judge | None = None
        """The memory and launches of judged steps; None before the first."""
        self.cells = Cells(jobs, [row for row in rows if row is not None])
        self.numbers = self.cells.numbers
        self.keys = new_keys(jobs)
        self.places: list[int | None] = [None] * len(rows)
        """The place of each parameter in the table on the device; None if it is skipped."""
        self.known: list[Gradient | None] = [None] * len(rows)
        self.launches: list[tuple[int, Launch]] = []
        """Launches, with the indices of their jobs."""
        self.measures: list[Squares] = []
        self.sums = np.zeros((0, norm.SUMS))
        self.clips: list[float] = []
        """The factor that clips the gradient of each row, as `clip_each` found them."""
        self.stale = False
        """Whether the device has other addresses of gradients than `addresses`."""
        self.at_once: Callable[[Sequence[Call]], Any] = at_once
        self.sliced: dict[int, tuple[int, Sliced]] = {}
        """The tensors that are stepped by slices, by the parameter, each with its number among
        those that step."""
        self.present = [row for row in rows if row is not None]
        self.active = [(index, row) for index, row in enumerate(rows) if row is not None]
        if self.active:
            where = self.active[0][1].walk.place
            assert isinstance(where, Device)
            self.device = where
            self.at_once = where.at_once
            with where.current():
                self.refuse_recording(where)  # to allocate would end it
            self._lay_out(jobs, self.active)

    @staticmethod
    def refuse_recording(where: Device) -> None:
        """Refuse to lay out memory for a step that a CUDA graph records."""
        where.stream_of_step()

    def _lay_out(self, jobs: Sequence[Job], rows: list[tuple[int, Row]]) -> None:
        blocks = np.array([norm.blocks(row.p.flat.size) for _, row in rows])
        self.sums_on_device = self.device.empty((int(blocks.sum()), norm.SUMS), np.dtype("f8"))
        self.first_sums = np.cumsum(blocks) - blocks
        """Where the sums of each tensor begin."""
        sums = address(self.sums_on_device) + 8 * norm.SUMS * self.first_sums
        # Sums stay in the order of the parameters; the table is in the order of the jobs.
        order = sorted(range(len(rows)), key=lambda k: rows[k][1].job)
        for place, k in enumerate(order):
            self.places[rows[k][0]] = place
        sorted_rows = [rows[k][1] for k in order]
        of_job = np.array([row.job for row in sorted_rows])
        table = _columns(sorted_rows)
        table[:, kernels.SUMS] = sums[order]
        elements = np.array([tile_of(jobs[job]) for job in of_job])
        whole = np.array([not row.by_slices for row in sorted_rows])
        tiles = Pieces(-(-table[:, kernels.N] // elements) * whole, of_job)
        summed = Pieces(blocks[order], of_job)

        self.order = order
        self.addresses = [0] * len(rows)
        self.stale = True
        self.gradients = Mail(self.device, len(rows), RING)
        self.own_clips = Mail(self.device, len(rows), 1)
        kept = [self.device.load(each) for each in (table, tiles.places, summed.places)]
        if any(job.storages is not None for job in jobs):
            kept.append(self.device.load(_seconds(sorted_rows)))
        self.kept = kept
        """The arrays whose addresses launches have."""
        at, at_tiles, at_blocks, *seconds = map(address, kept)
        tables = Tables(at, self.gradients.at, *seconds)
        measured = tables
        self.turned = {
            index: Turned(row.walk, row.p.flat) for index, row in rows if row.walk.turned
        }
        if self.turned:
            self.measured = Mail(self.device, len(rows), RING)
            measured = tables._replace(gradients=self.measured.at)
        self.spans = [
            (job, tiles.of_job(index, at_tiles), summed.of_job(index, at_blocks))
            for index, job in enumerate(jobs)
        ]
        """The tiles of each job, and the blocks by which its gradients are measured."""
        self.tables = tables
        self.launches = self.stepping(tables)
        self.measures = self.summing(measured)
        with self.device.current():
            for k, (index, row) in enumerate(rows):
                if row.by_slices:
                    self.sliced[index] = k, Sliced(jobs[row.job], row, self.device)

    def stepping(self, tables: Tables) -> list[tuple[int, Launch]]:
        """The launches that step the jobs by these tables."""
        return [
            (index, Launch(job, self.device.ordinal, tables, tiles))
            for index, (job, tiles, _) in enumerate(self.spans)
            if tiles.pieces
        ]

    def summing(self, tables: Tables) -> list[Squares]:
        """The launches that sum the squares of the gradients in these tables."""
        return [
            Squares(job, self.device.ordinal, tables, blocks)
            for job, _, blocks in self.spans
            if blocks.pieces
        ]

    @property
    def known_steps(self) -> int:
        return self.steps.known

    def uncertain(self) -> int:
        return self.steps.uncertain()

    def stands(self, everything: bool) -> bool:
        return all(row.stands(everything) for row in self.present) and self.cells.stand()

    def select(self, jobs: Sequence[Job], rows: Sequence[Row | None]) -> None:
        raise NotImplementedError

    def set_gradient(self, index: int, g: Array, operand: Operand, given: Any) -> None:
        self.known[index] = known = Gradient(g, operand)
        self.moves += 1
        self._point(index, address(operand.flat))
        if index in self.turned:
            self.turned[index].read(operand.flat)
            known.scratch = True  # others are read anew

    @staticmethod
    def scalars_of(job: Job) -> tuple[str, ...]:
        return variants.step(job.rule).scalars

    def touch(self, index: int, touched: Touched) -> None:
        self.sliced[index][1].touch(touched)
        self.moves += 1

    def refresh(self, index: int, scalars: Scalars) -> None:
        """Nothing: each gradient of rows is looked at."""

    def catching_up(self) -> Sequence[Call]:
        check_rounding()
        calls: list[Call] = []
        with self.device.current():
            stream = self._stream()
            for _, sliced in self.sliced.values():
                calls += sliced.stepping(stream, None, None)
        return calls

    def _place(self, index: int) -> int:
        place = self.places[index]
        assert place is not None
        return place

    def _point(self, index: int, to: int) -> None:
        place = self._place(index)
        if self.addresses[place] != to:
            self.addresses[place] = to
            self.stale = True

    def take(self, grads: list[Any], start: int, zero: bool) -> int:
        for index in range(start, len(grads)):
            known, g = self.known[index], grads[index]
            if index in self.sliced:
                return index
            if known is None and g is None:
                continue
            if known is None or g is None or (zero and not known.writeable):
                return index
            to, layout = glance(g)
            if layout != known.layout:
                return index
            if to != known.address and not self._moves(index, known, g, to):
                return index
        return len(grads)

    def _moves(self, index: int, known: Gradient, g: Any, to: int) -> bool:
        """Take `g`, which lies as the gradient before, at its new address; False: check it."""
        if not self._may_move(known, to):
            return False
        known.kept = None if known.library.ordered else g
        known.address = to
        self.moves += 1
        self._point(index, to)
        return True

    def _may_move(self, known: Gradient, to: int) -> bool:
        """Whether a gradient that lies as the one before may be read at an address."""
        if not to or known.scratch or (to - known.address) % 16 or self._overlaps(to, known):
            return False
        # Layouts of other libraries do not say which device it is on.
        several = not known.library.ordered and device.driver.several()
        return not several or device.driver.ordinal(to) == self.device.ordinal

    def _overlaps(self, to: int, known: Gradient) -> bool:
        low = to + known.below
        before = bisect_left(self.written.lows, low + known.length)
        return before > 0 and self.written.highs[before - 1] > low

    def measure(self, scale: float, max_norm: float) -> norm.Measured:
        """Measure the gradients, the only part of a step that waits for the device."""
        if self.present:
            for index, (_, sliced) in self.sliced.items():
                self._point(index, sliced.gradient())
            with self.device.current():
                self.device.at_once(self._measuring(self._stream()))
            self.sums = self.device.read(self.sums_on_device)
            for k, sliced in self.sliced.values():
                sliced.put_sums(self.sums[self.first_sums[k] :])
        return norm.measure(norm.total(self.sums), scale, max_norm)

    def _measuring(self, stream: int) -> list[Call]:
        """The calls that sum the squares of the gradients."""
        calls = [call for _, each in self.sliced.values() for call in each.gathering(stream)]
        if self.turned:
            calls += [call for each in self.turned.values() for call in each.calls()]
            self.measured.send(self._measured(), stream)
        return [*calls, *(each.go().call(stream) for each in self.measures)]

    def _measured(self) -> list[int]:
        """The addresses of the gradients in the order in which their squares are summed."""
        measured = self._addresses()
        for index, turned in self.turned.items():
            measured[self._place(index)] = address(turned.copy)
        return measured

    def clip_each(self, scale: float, max_norm: float) -> float:
        self.clips = clips_of(self.present, self.sums, scale, max_norm)
        return norm.smallest(self.clips)

    def unfit(self, unscale: float) -> Iterator[int]:
        return unfit_rows(self.present, self.sums, unscale)

    def calls(
        self, scalars: Sequence[JobScalars], zero: bool, each: bool = False
    ) -> Sequence[Call]:
        check_rounding()
        calls: list[Call] = []
        if self.present:
            with self.device.current():
                stream = self._stream()
                clips = self._send_clips(stream) if each else 0
                for k, sliced in self.sliced.values():
                    given = scalars[self.present[k].job]
                    calls += sliced.stepping(stream, given, self.clips[k] if each else None)
            calls += self._launching(stream, scalars, zero, clips)
        count = self.steps.counting(self.steps[0] + 1)
        return [*calls, *self.cells.writing(), count]

    def _launching(
        self, stream: int, scalars: Sequence[JobScalars], zero: bool, clips: int
    ) -> list[Call]:
        """The calls that step all rows that are not stepped by slices."""
        keys = self.keys.view(np.int64).tolist()
        return [
            launch.by_value(stream, scalars[job], zero, clips, keys[job])
            for job, launch in self.launches
        ]

    def judging(
        self, lines: Sequence[Line], asked: Asked, zero: bool
    ) -> tuple[Sequence[Call], Any]:
        with self.device.current():
            stream = self._stream()
            if self.judge is None:
                self.judge = self._new_judge()
            program, verdict = self.judge.begin(lines, asked, zero, self.steps)
            calls = self._judged(stream, self.judge, program)
        if asked.is_uncertain:
            return self.steps.awaiting(calls, verdict), verdict
        count = self.steps.counting(self.steps.known + 1)
        return [*calls, *self.cells.writing(), count], verdict

    def leaving(self) -> Sequence[Call]:
        return self.cells.writing()

    def _judged(self, stream: int, judge: Judge, program: Program) -> list[Call]:
        """The calls that measure the gradients, judge the step and take it."""
        launches = judge.launches_of(program)
        measuring = self._measuring(stream) if program.measured else []
        calls = [*measuring, *(each.call(stream) for each in launches)]
        return [*calls, judge.events[program.turn].recording(stream)]

    def _new_judge(self) -> Judge:
        if self.taken is None:
            self.taken = self.device.zeros((1,), np.dtype(np.int64))
        places = [
            (self._place(index), row.p.flat.dtype == np.float64) for index, row in self.active
        ]
        arrays = self.sums_on_device, self.first_sums
        return Judge(self.device, self.launches, *arrays, places, self.taken, self.captures)

    def _stream(self) -> int:
        """The stream to work on, once the gradients' addresses are on their way there."""
        stream = self.device.stream_of_step()
        self._send(stream)
        return stream

    def _send(self, stream: int) -> None:
        """Send the gradients' addresses, if they are others than before."""
        if self.stale:
            self.gradients.send(self.addresses, stream)
            self.stale = False

    def _addresses(self) -> list[int]:
        """The gradients' addresses, in the table's order."""
        return [*self.addresses]

    def _send_clips(self, stream: int) -> int:
        """Send the factors of all rows, in the table's order; where they are then."""
        clips = np.array([self.clips[k] for k in self.order])
        return self.own_clips.send(clips.view(np.int64), stream)

    def count_with(self, other: Table) -> None:
        if other.taken is None:
            other.taken = self.device.zeros((1,), np.dtype(np.int64))
        self.steps, self.taken = other.steps, other.taken

    def let_go(self, indices: Iterable[int]) -> None:
        for known in filter(None, self.known):
            known.kept = None
        for index in indices:
            self.known[index].layout = NOWHERE  # type: ignore[union-attr]

    def take_and_run(self, grads: list[Any], scalars: Sequence[JobScalars]) -> int:
        taken = self.take(grads, 0, False)
        if taken < len(grads):
            return taken
        self.at_once(self.calls(scalars, False))
        return STEPPED


def _columns(rows: Sequence[Row]) -> Any:
    """The table of kernels.py, with the columns filled that one row alone decides."""
    table = np.zeros((len(rows), kernels.ROW), np.int64)
    for columns, row in zip(table, rows, strict=True):
        columns[[kernels.P, kernels.N]] = address(row.p.flat), row.p.flat.size
        for slot, state in enumerate(row.states):
            if state is not None:
                columns[kernels.STATES + slot] = address(state.flat)
        if row.ema is not None:
            columns[kernels.EMA] = address(row.ema.flat)
    return table


def _seconds(rows: Sequence[Row]) -> Any:
    """The second table, of formats.py."""
    table = np.zeros((len(rows), formats.SECONDS), np.int64)
    for columns, row in zip(table, rows, strict=True):
        columns[formats.ORDINAL] = row.ordinal
        if row.rest is not None:
            seconds = [row.rest.p, None, *row.rest.states]
            at = [0 if each is None else address(each.flat) for each in seconds]
            columns[: len(at)] = at
    return table
