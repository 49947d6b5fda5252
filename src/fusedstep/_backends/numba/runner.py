"""The runner of Numba's kernels where the C backend was not built.

As there, the table's total work is cut into chunks that may span or divide tensors, taken
from an atomic counter by however many threads turn up. Helpers are Python's threads, which
take longer to wake, so only long steps are shared. The caller's part is one compiled call, which
no signal cuts short: it lets helpers in, works, lets nobody in any more, and waits for those who
did come.
"""

# mypy: allow-untyped-defs, disallow-untyped-decorators=false
# mypy: disable-error-code="call-arg, var-annotated"

from __future__ import annotations

import ctypes
import sys
from collections.abc import Iterable, Iterator, Sequence
from functools import partial
from itertools import accumulate
from pathlib import Path
from typing import Any

import numpy as np
from llvmlite import ir
from llvmlite.binding import add_symbol
from numba import types
from numba.core import cgutils
from numba.extending import intrinsic

from fusedstep._arrays.at_once import Call
from fusedstep._arrays.overlap import WrittenMemory
from fusedstep._arrays.plain import address
from fusedstep._arrays.walk import Array, Operand
from fusedstep._backends import threads
from fusedstep._backends.numba import slices, squares, tiles
from fusedstep._backends.numba.crew import crew
from fusedstep._backends.numba.kept import kept
from fusedstep._backends.numba.primitives import EMA, STATES, SUMS, G, P, call_kernel
from fusedstep._backends.numba.tiles import COLUMNS, DESCRIBED, JOB, ORDINAL, SECONDS, N
from fusedstep._backends.plan import CheckedTable, Job, Keys, Row
from fusedstep._backends.slices import Integers, Touched
from fusedstep._compiler.modules import unique
from fusedstep._numerics import norm
from fusedstep._numerics.coefficients import JobScalars
from fusedstep._numerics.rounding import check_rounding
from fusedstep._numerics.storage import STORAGES, TILE

WORTH_SHARING = 4_000_000
"""Elements of a step; below, waking a helper gained nothing between matrix products."""

CHUNK = 16384
"""Elements; see csrc/step.c."""

ZEROED = 4096
"""Bytes of a gradient that are zeroed at once; see there, too."""

WORKING, INVITED, UNOPENED, CLOSED = 1, 1 << 16, 1 << 40, 1 << 41
"""The word of a task's seats holds how many helpers are at work, in units of WORKING, and how many
may still join, in units of INVITED; or that nobody may as yet, or any more."""

MOST_HELPERS = INVITED - 1

PATIENCE = 20_000
"""How often a helper that woke early looks whether the task was opened: some 100 us."""


class Jobs:
    """The jobs, as columns for compiled code, and memory for their scalars."""

    def __init__(self, jobs: Sequence[Job], keys: Keys) -> None:
        self.dtypes = [job.dtype for job in jobs]
        self.widths = np.array([*map(gradient_width, jobs)], np.int64)
        """The bytes of an element of each job's gradients."""
        self.kernels = np.zeros(len(jobs), np.int64)
        """The address of each job's kernel."""
        self.scalars = np.zeros(len(jobs), np.int64)
        """The address of each job's scalars, which `memory` keeps in place."""
        self.memory: list[Array] = [np.zeros(0)] * len(jobs)
        self.described = {
            index: tiles.described(job, address(keys) + keys.itemsize * index)
            for index, job in enumerate(jobs)
            if job.storages is not None
        }
        """The descriptions of those jobs that have formats, see tiles.py."""
        self.decodes = [job.storages is not None and job.storages.g is not None for job in jobs]
        """Whether each job's gradients have a format."""
        self.clip = [0] * len(jobs)
        """The index of the factor that clips the gradients, among the job's scalars."""

    def bind(self, index: int, kernel: int, scalars: Sequence[str]) -> None:
        self.memory[index] = np.zeros(len(scalars), self.dtypes[index])
        self.clip[index] = scalars.index("clip")
        self.kernels[index] = kernel
        if index in self.described:
            self.described[index][tiles.KERNEL] = kernel
            self.kernels[index] = tiles.callback("step").address
        self.scalars[index] = address(self.memory[index])

    def squares(self) -> Integers:
        """The address of what sums the squares of each job's gradients."""
        kernels = [squares.kernel(dtype).address for dtype in self.dtypes]
        for index, decodes in enumerate(self.decodes):
            if decodes:
                self.described[index][tiles.SQUARES] = kernels[index]
                kernels[index] = tiles.callback("sums").address
        return np.array(kernels, np.int64)


def gradient_width(job: Job) -> int:
    """The bytes of an element of a job's gradients."""
    if job.storages is None or job.storages.g is None:
        return job.dtype.itemsize
    return int(STORAGES[job.storages.g.format].width)


class Rows:
    """The rows, and where their elements, tiles, blocks and sums of squares begin."""

    def __init__(self, rows: Sequence[Row], jobs: Jobs) -> None:
        sizes = [row.p.flat.size for row in rows]
        self.elements = _starts(sizes)
        self.unit = TILE if jobs.described else 1
        """Elements between places where a row may be cut."""
        self.units = _starts(-(-size // self.unit) for size in sizes)
        self.blocks = _starts(map(norm.blocks, sizes))
        self.sums = np.zeros((self.blocks[-1], norm.SUMS))
        self.table = np.zeros((len(rows), COLUMNS), np.int64)
        """The addresses of each row's arrays, its length and its job."""
        for columns, row, size, block in zip(self.table, rows, sizes, self.blocks, strict=False):
            columns[[P, N, JOB]] = address(row.p.flat), size, row.job
            columns[SUMS] = address(self.sums) + block * 8 * norm.SUMS
            for slot, state in enumerate(row.states):
                if state is not None:
                    columns[STATES + slot] = address(state.flat)
            if row.ema is not None:
                columns[EMA] = address(row.ema.flat)
            if row.rest is not None:
                seconds = [row.rest.p, None, *row.rest.states]
                at = [0 if each is None else address(each.flat) for each in seconds]
                columns[SECONDS : SECONDS + len(at)] = at
            columns[ORDINAL] = row.ordinal
            if row.job in jobs.described:
                columns[DESCRIBED] = address(jobs.described[row.job])


class Runner(CheckedTable):
    """A `plan.Table` but for its kernels and scalars, which `prepare` sees to."""

    def __init__(
        self, jobs: Sequence[Job], rows: Sequence[Row | None], written: WrittenMemory
    ) -> None:
        super().__init__(jobs, rows)
        self.begin(jobs)
        self.of_rows = Rows(self.present, self.of_jobs)
        self.sums = self.of_rows.sums
        self.clipped: list[Array] = []
        """The scalars of each row in the step that comes, if each is clipped by itself."""
        self.places = [*accumulate((row is not None for row in rows), initial=0)]
        """The place of each parameter's row, if it is not skipped."""

    def begin(self, jobs: Sequence[Job]) -> None:
        """Step by these jobs from now on."""
        self.of_jobs = Jobs(jobs, self.keys)

    def bind(self, index: int, kernel: int, scalars: Sequence[str]) -> None:
        """Give a job the kernel at an address, which reads scalars of these names in its dtype."""
        self.of_jobs.bind(index, kernel, scalars)

    def write(self, index: int, scalars: Sequence[float]) -> None:
        """Put the scalars of such a job in their place."""
        with np.errstate(over="ignore"):
            self.of_jobs.memory[index][:] = scalars

    def prepare(self, scalars: Sequence[JobScalars]) -> None:
        """Put the kernels and scalars of the next step into the jobs."""
        raise NotImplementedError

    def set_gradient(self, index: int, g: Array, operand: Operand, given: Any) -> None:
        super().set_gradient(index, g, operand, given)
        self.of_rows.table[self.places[index], G] = address(operand.flat)

    def measure(self, scale: float, max_norm: float) -> norm.Measured:
        kernels = self.of_jobs.squares()
        nothing = np.zeros_like(kernels)
        scalars = self._scalars()
        blocks = self.of_rows.blocks
        self._shared(self._whole(blocks), norm.BLOCK, kernels, scalars, nothing)()
        for place, row, touched in self._by_slices():
            sums = self.sums[blocks[place] : blocks[place + 1]]
            sums[...] = 0 if touched.sums is None else touched.sums
            if touched.sums is None:
                described = self.of_rows.table[place]
                kernel = kernels[row.job]
                slices.summing(described, kernel, touched, row.walk.shape[0])()
        return norm.measure(norm.total(self.sums), scale, max_norm)

    def calls(
        self, scalars: Sequence[JobScalars], zero: bool, each: bool = False
    ) -> Sequence[Call]:
        check_rounding()
        self.prepare(scalars)
        kernels, zeroed = self.of_jobs.kernels, self.of_jobs.widths * zero
        at = self._clipped() if each else self._scalars()
        rows = self.of_rows
        whole = self._shared(self._whole(rows.units), rows.unit, kernels, at, zeroed)
        stepping = [
            self._stepping(place, row, touched, self.clipped[place] if each else None)
            for place, row, touched in self._by_slices()
        ]
        return [whole, *stepping, *self.counted()]

    def catching_up(self) -> Sequence[Call]:
        check_rounding()
        return [
            self._stepping(place, row, touched, takes=False)
            for place, row, touched in self._by_slices()
        ]

    def _by_slices(self) -> Iterator[tuple[int, Row, Touched]]:
        """The rows of which single slices are stepped, with their places."""
        for place, row, touched in zip(self.places, self.rows, self.touched, strict=False):
            if row is not None and touched is not None:
                yield place, row, touched

    def _stepping(
        self, place: int, row: Row, touched: Touched, own: Array | None = None, takes: bool = True
    ) -> Call:
        """The call that steps the slices of a row, by its own scalars or those of its job."""
        jobs = self.of_jobs
        scalars = jobs.memory[row.job] if own is None else own
        names = self.scalars_of(self.jobs[row.job])
        described, kernel = self.of_rows.table[place], jobs.kernels[row.job]
        return slices.stepping(described, kernel, scalars, names, touched, row.walk.shape[0], takes)

    def _whole(self, starts: Integers) -> Integers:
        """Where rows begin, in whatever units, if those that are stepped by slices have none."""
        if not any(self.touched):
            return starts
        sizes = np.diff(starts)
        sizes[[place for place, *_ in self._by_slices()]] = 0
        return _starts(sizes)

    def _scalars(self) -> Integers:
        """The address of each row's scalars: those of its job."""
        at: Integers = self.of_jobs.scalars[self.of_rows.table[:, JOB]]
        return at

    def _clipped(self) -> Integers:
        """The same of scalars with the row's own factor of clipping, which are kept in place."""
        self.clipped = []
        with np.errstate(over="ignore", under="ignore"):
            for job, clip in zip(self.of_rows.table[:, JOB], self.clips, strict=True):
                own = self.of_jobs.memory[job].copy()
                own[self.of_jobs.clip[job]] = clip
                self.clipped.append(own)
        return np.array([address(own) for own in self.clipped], np.int64)

    def _shared(
        self, starts: Integers, unit: int, kernels: Integers, scalars: Integers, zeroed: Integers
    ) -> Call:
        """The call that runs kernels on chunks of all rows, with helpers that are waking up.

        The rows' chunks begin in `starts`, in units of elements; `scalars` has the address of each
        row's scalars.
        """
        table = self.of_rows.table
        few = min(self.of_rows.elements[-1], unit * starts[-1]) < WORTH_SHARING
        helpers = 0 if few else min(threads.get_num_threads() - 1, MOST_HELPERS)
        shared = np.array([0, UNOPENED], np.int64)
        work = table, starts, unit, kernels, scalars, zeroed, shared
        if helpers:
            crew.wake(partial(_help, *work), helpers)
        return partial(_lead, *work, helpers)


def _starts(sizes: Iterable[int]) -> Integers:
    """The sum of the sizes before each one, and of all."""
    return np.array([*accumulate(sizes, initial=0)], np.int64)


@intrinsic
def _zero(typing_context, at, size):
    """Fill memory with zeros."""

    def generate(context, builder, signature, arguments):
        at, size = arguments
        pointer = builder.inttoptr(at, ir.IntType(8).as_pointer())
        cgutils.memset(builder, pointer, size, 0)  # type: ignore[no-untyped-call]
        return context.get_dummy_value()

    return types.void(types.int64, types.int64), generate


def _atomic(operation: str) -> Any:
    """An intrinsic that changes the integer at an address, and returns what it was, atomically."""

    @intrinsic
    def change(typing_context, at, amount):
        def generate(context, builder, signature, arguments):
            pointer = builder.inttoptr(arguments[0], ir.IntType(64).as_pointer())
            return builder.atomic_rmw(operation, pointer, arguments[1], "seq_cst")

        return types.int64(types.int64, types.int64), generate

    return change


_fetch_add, _fetch_and = _atomic("add"), _atomic("and")


@intrinsic
def _replace(typing_context, at, expected, new):
    """Replace the integer at an address if it is as expected, atomically; whether it was."""

    def generate(context, builder, signature, arguments):
        pointer = builder.inttoptr(arguments[0], ir.IntType(64).as_pointer())
        pair = builder.cmpxchg(pointer, *arguments[1:], "seq_cst")
        return builder.extract_value(pair, 1)

    return types.boolean(types.int64, types.int64, types.int64), generate


YIELD = "fusedstep_yield"
"""The name by which compiled code finds the system's call that gives the CPU to another thread."""

if sys.platform == "win32":
    _system = ctypes.WinDLL("kernel32").SwitchToThread
else:
    _system = ctypes.CDLL(None).sched_yield
add_symbol(YIELD, ctypes.cast(_system, ctypes.c_void_p).value)
_yield = types.ExternalFunction(YIELD, types.int32())


TABLE = types.int64[:, ::1]
COLUMN = types.int64[::1]


WORK = TABLE, COLUMN, types.int64, COLUMN, COLUMN, COLUMN, COLUMN


def _compiled(function, more=()):
    text = Path(__file__).read_bytes()
    numbers = [each for each in globals().items() if isinstance(each[1], int)]  # imported, too
    name = unique(f"runner{function.__name__}", text, repr(numbers).encode())
    return kept(function, name, types.void(*WORK, *more))


@_compiled
def _run(table, starts, unit, kernels, scalars, zeroed, shared):
    """Run chunks until none is left; each thread of the step calls this.

    `zeroed` has the width of each job's gradients if they are zeroed on the way, else 0. `shared`
    holds where the next chunk begins, and the seats.
    """
    chunk = CHUNK // unit
    total = starts[-1]
    while True:
        begin = _fetch_add(shared.ctypes.data, chunk)
        if begin >= total:
            break
        end = min(begin + chunk, total)
        # The last row that starts at or before the chunk: it is not an empty one.
        place = np.searchsorted(starts[:-1], begin, side="right") - 1
        while begin < end:
            row = table[place]
            job = row[JOB]
            stop = min(starts[place + 1], end)
            at = unit * (begin - starts[place])
            last = min(unit * (stop - starts[place]), row[N])
            piece = ZEROED // zeroed[job] if zeroed[job] else last - at
            while at < last:
                until = min(at + piece, last)
                call_kernel(kernels[job], row.ctypes.data, at, until, scalars[place])
                _zero(row[G] + at * zeroed[job], (until - at) * zeroed[job])
                at = until
            begin = stop
            place += 1


@partial(_compiled, more=(types.int64,))
def _lead(table, starts, unit, kernels, scalars, zeroed, shared, helpers):
    """Run chunks with up to that many helpers, and return when nobody is at work any more."""
    seats = shared.ctypes.data + 8
    if helpers:
        _fetch_add(seats, helpers * INVITED - UNOPENED)
    _run(table, starts, unit, kernels, scalars, zeroed, shared)
    if helpers:
        _fetch_and(seats, INVITED - 1)
        while _fetch_add(seats, 0):
            _yield()
        _fetch_add(seats, CLOSED)


@_compiled
def _help(table, starts, unit, kernels, scalars, zeroed, shared):
    """Join, if anybody may still, and run chunks."""
    seats = shared.ctypes.data + 8
    for _ in range(PATIENCE):
        seen = _fetch_add(seats, 0)
        if seen < INVITED or seen == CLOSED:
            break
        if seen != UNOPENED and _replace(seats, seen, seen - INVITED + WORKING):
            _run(table, starts, unit, kernels, scalars, zeroed, shared)
            _fetch_add(seats, -WORKING)
            break
