"""The step's rows as a C table, run in one call with the GIL released.

The kernels come from the backends that are built on this: C's own, and Numba's.

C compares and follows some objects by address, which in CPython is their id. Each outlives the
use of its address: the list of gradients is held by whoever passes it to `take`, the types and
the dtypes of arrays by their libraries, and the users' arrays by the rows.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from functools import cache, lru_cache, partial
from itertools import accumulate
from math import lcm, prod
from operator import mul
from typing import Any

import numpy as np

from fusedstep._arrays.at_once import Call
from fusedstep._arrays.dtypes import HALVES
from fusedstep._arrays.exchange import CPU, NUMPYS, Exchange, exchange
from fusedstep._arrays.libraries import library
from fusedstep._arrays.overlap import WrittenMemory, extent
from fusedstep._arrays.plain import address, plain
from fusedstep._arrays.walk import Array, Operand
from fusedstep._backends import threads
from fusedstep._backends.plan import Asked, Cells, Held, Job, Line, Rest, Row, Watched, new_keys
from fusedstep._backends.slices import Integers, Scalars, Touched
from fusedstep._engine import ffi, lib
from fusedstep._numerics import norm, variants
from fusedstep._numerics.coefficients import JobScalars

ASKED = ("unscale", "clip", "most")
"""Scalars of what a single step is asked to do to the gradient."""

ATTRIBUTES = ("index", "values", "mask")
"""The attributes of gradients of rows, which C reads."""

INT64 = np.dtype(np.int64)

LANES = 16
"""Elements of a cache line, of float32."""

PERIOD = 2048
"""Columns that are laid out for one call of a kernel: with two more arrays they fit into the first
cache."""

LARGE: int = lib.FS_LARGE
"""Elements from which each thread has a piece of a tensor."""


def words(array: Any) -> Integers:
    """The words of an array in C, one of its items in each row."""
    item = ffi.sizeof(ffi.typeof(array).item) // 8
    return np.frombuffer(ffi.buffer(array), np.int64).reshape(-1, item)


@cache
def word(struct: str, member: str) -> int:
    """The word of a struct in C that a member is."""
    return int(ffi.offsetof(struct, member)) // 8


class Jobs:
    """The jobs in C: their kernels, and memory for their scalars."""

    def __init__(self, jobs: Sequence[Job]) -> None:
        self.in_c = ffi.new("fs_job[]", len(jobs))
        self.float64: list[Any] = [None] * len(jobs)
        """The scalars of each job as Python computes them."""
        self.rounded: list[Any] = [None] * len(jobs)
        """Room for the same in the dtype of the job."""
        self.keys = new_keys(jobs)
        """The keys of the next step's random bits."""
        self.operands = [ffi.new("fs_operands *") for job in jobs if job.storages is not None]
        """How jobs hold their operands, of those whose kernels do not read all as they are."""
        operands = iter(self.operands)
        for job, in_c in zip(jobs, self.in_c, strict=True):
            in_c.itemsize = job.dtype.itemsize
            in_c.squares = find_kernel("squares", job.dtype)
            if job.storages is not None:
                in_c.operands = next(operands)
        self.find_formats(jobs)

    def find_formats(self, jobs: Sequence[Job]) -> None:
        """Find the formats of all operands in the instruction set in force, and what steps a
        whole tile of them at once by the job's kernel.
        """
        operands = iter(self.operands)
        for index, job in enumerate(jobs):
            if job.storages is None:
                continue
            in_c = next(operands)
            in_c.streams = job.storages.streams
            in_c.randomize = lib.fs_find_randomize()
            in_c.key = ffi.cast("uint64_t *", address(self.keys)) + index
            fill_operand(in_c.p, job.storages.p)
            fill_operand(in_c.g, job.storages.g)
            for slot, held in enumerate(job.storages.states):
                fill_operand(in_c.s[slot], held)
            in_c.whole = lib.fs_find_whole(self.in_c[index].kernel, in_c)

    def bind(self, index: int, kernel: Any, scalars: Sequence[str]) -> None:
        count = len(scalars)
        self.float64[index] = ffi.new("double[]", count)
        self.rounded[index] = ffi.new("double[]", count)
        in_c = self.in_c[index]
        in_c.kernel = ffi.cast("fs_kernel", kernel)
        in_c.float64, in_c.scalars = self.float64[index], self.rounded[index]
        in_c.nscalars = count
        in_c.unscale, in_c.clip, in_c.most = map(scalars.index, ASKED)


def fill_operand(in_c: Any, held: Held | None) -> None:
    """Describe how an operand is held."""
    in_c.random = -1
    if held is not None:
        in_c.format = find_format(held.format)
        if held.draw is not None:
            in_c.random = 2 * held.draw.stream + held.draw.far


class Rows:
    """The rows in C, and where their elements, blocks and sums of squares begin."""

    def __init__(self, rows: Sequence[Row]) -> None:
        self.sizes = np.array([row.p.flat.size for row in rows], np.int64)
        self.most_blocks = np.array([norm.blocks(row.p.flat.size) for row in rows], np.int64)
        """The blocks of each row, if it steps."""
        self.in_c = ffi.new("fs_row[]", len(rows))
        self.elements = ffi.new("int64_t[]", len(rows) + 1)
        self.large = ffi.new("int64_t[]", len(rows) + 1)
        self.blocks = ffi.new("int64_t[]", len(rows) + 1)
        self.sums = np.zeros((int(self.most_blocks.sum()), norm.SUMS))
        for row, in_c in zip(rows, self.in_c, strict=True):
            in_c.p = ffi.from_buffer(row.p.flat)
            for slot, state in enumerate(row.states):
                if state is not None:
                    in_c.s[slot] = ffi.from_buffer(state.flat)
            if row.ema is not None:
                in_c.ema = ffi.from_buffer(row.ema.flat)
        with_rest = [(row, row.rest) for row in rows if row.rest is not None]
        self.rest = ffi.new("fs_rest[]", len(with_rest))
        places = iter(self.rest + k for k in range(len(with_rest)))
        for row, in_c in zip(rows, self.in_c, strict=True):
            if row.rest is not None:
                in_c.rest = place = next(places)
                fill_rest(place, row, row.rest)
        self.select(np.array([row.job for row in rows], np.int64))

    def select(self, jobs: Integers) -> None:
        """Give each row its job; -1: it does not step, and counts as one without elements."""
        steps = jobs >= 0
        self.sums[:] = 0  # of float32 only the middle ones are written
        rows, elements, blocks = map(words, (self.in_c, self.elements, self.blocks))
        elements[1:, 0] = np.cumsum(np.where(steps, self.sizes, 0))
        is_large = steps & (self.sizes >= LARGE)
        words(self.large)[1:, 0] = np.cumsum(np.where(is_large, self.sizes, 0))
        blocks[1:, 0] = np.cumsum(np.where(steps, self.most_blocks, 0))
        rows[:, word("fs_row", "sums")] = address(self.sums) + 8 * norm.SUMS * blocks[:-1, 0]
        rows[:, word("fs_row", "n")] = np.where(steps, self.sizes, 0)
        rows[:, word("fs_row", "job")] = np.where(steps, jobs, 0)
        rows[:, word("fs_row", "slices")] = 0  # whose gradients are looked at anew each time


def fill_slices(in_c: Any, touched: Touched, slices: int) -> None:
    """Describe what a step does to the slices of a tensor; all memory is the caller's to keep."""
    in_c.n, in_c.width = touched.n(slices), touched.width
    in_c.ids, in_c.starts = integers(touched.ids), integers(touched.starts)
    in_c.order, in_c.counts = integers(touched.places), integers(touched.counts)
    in_c.measured = touched.sums is not None
    in_c.table = in_c.entries = in_c.ends = in_c.sets = ffi.NULL
    if touched.columns is not None and touched.width:
        in_c.ends = integers(touched.columns.ends)
        in_c.sets = integers(touched.columns.of_runs)
        in_c.nruns = len(touched.columns.ends)
    if touched.scalars is not None:
        fill_scalars(in_c, touched.scalars)


def fill_scalars(in_c: Any, scalars: Scalars) -> None:
    """Describe the scalars by which slices are stepped."""
    table, entries, in_c.first, in_c.t, calm = scalars
    in_c.table = ffi.from_buffer(table)
    in_c.nsets, in_c.lines = table.shape[:2]
    if entries is None:
        in_c.calm = calm
    else:
        in_c.entries = ffi.from_buffer("int32_t[]", entries)
        in_c.nentries = len(entries)


def period_of(width: int) -> int:
    """The columns of so many rows that calls of kernels are few, and begin at cache lines."""
    of_lines = lcm(width, LANES)
    least = of_lines if of_lines <= PERIOD else width
    return least * max(1, PERIOD // least)


def integers(array: Integers | None) -> Any:
    """The address of an array of integers."""
    return ffi.NULL if array is None else ffi.from_buffer("int64_t[]", array)


def fill_rest(in_c: Any, row: Row, rest: Rest) -> None:
    """Put the addresses of second arrays in their place."""
    in_c.ordinal = row.ordinal
    if rest.p is not None:
        in_c.p = ffi.from_buffer(rest.p.flat)
    for slot, state in enumerate(rest.states):
        if state is not None:
            in_c.s[slot] = ffi.from_buffer(state.flat)


class Libraries:
    """The libraries in C whose arrays it reads by itself: NumPy first, others as they come.

    They are in the memory of the CPU, unless `device` has another number, of a kind of device, and
    `ordinal` says which of those; `exchange` is how arrays of a type are read there.
    """

    MOST = 8

    def __init__(
        self,
        device: int = CPU,
        ordinal: int = -1,
        exchange: Callable[[type], Exchange | None] = exchange,
    ) -> None:
        self.in_c = ffi.new("fs_library[]", self.MOST)
        self.device, self.ordinal, self.exchange = device, ordinal, exchange
        self.known: dict[type, int] = {}
        self.index(np.ndarray)

    def holding(self, kind: type[Any]) -> int:
        """The index of the library that reads arrays of a type, or of one derived from NumPy's."""
        return self.index(np.ndarray if issubclass(kind, np.ndarray) else kind)

    def index(self, kind: type[Any]) -> int:
        """The index of the library of exactly this type of arrays; -1 if C cannot read them."""
        if kind not in self.known:
            found = NUMPYS if kind is np.ndarray else self.exchange(kind)
            if found is None or len(self.known) == self.MOST:
                return -1
            deferred = 0 if found.deferred is None else id(found.deferred)
            where = self.device, self.ordinal
            self.in_c[len(self.known)] = [id(kind), found.read, deferred, found.way, *where]
            self.known[kind] = len(self.known)
        return self.known[kind]

    def expected(self, kind: type[Any]) -> Exchange | None:
        """How C reads gradients where they may be of a type: on the CPU they may be NumPy's, too.

        None: Python has to look at the first.
        """
        return self.exchange(kind) or (NUMPYS if self.device == CPU else None)

    def reads(self, array: Any) -> bool:
        """Whether C can read this array."""
        return self.holding(type(array)) >= 0


_seen = Libraries()
"""The libraries of all arrays whose layout was asked for."""


class Headers:
    """The headers in C, one for each parameter, and memory for shapes and strides."""

    def __init__(self, rows: Sequence[Row | None], in_c: Any, libraries: Libraries) -> None:
        """Expect gradients that lie as their parameters do, in C order: C takes those itself.

        `in_c` has the rows in C, of those that are not None.
        """
        present = [(index, row) for index, row in enumerate(rows) if row is not None]
        self.libraries = libraries
        self.in_c = ffi.new("fs_header[]", len(rows))
        self.layouts = ffi.new("intptr_t[]", 2 * sum(len(row.walk.shape) for _, row in present))
        self.kept: dict[int, Array] = {}
        """Gradients that may be copies, whose memory nobody else holds: these are read-only."""
        self.dtypes: dict[int, Any] = {}
        """The dtypes of gradients, which C knows by their addresses."""
        self.formats: dict[int, str] = {}
        """The formats of gradients that are taken in one; all others are of the dtype of steps."""
        layout = self.layouts
        for place, (index, row) in enumerate(present):
            header, shape, dtype = self.in_c[index], row.walk.shape, row.p.flat.dtype
            header.row = in_c + place
            header.ndim = len(shape)
            header.layout = layout
            header.library = -1
            found = libraries.expected(row.gradients)
            plain = row.walk.plain and dtype not in HALVES and not row.by_slices
            if plain and row.p.flat.size and found is not None:
                layout[0 : 2 * len(shape)] = _c_order(shape, dtype.itemsize // found.unit(dtype))
                header.bytes = row.p.flat.nbytes
                header.itemsize = dtype.itemsize
                header.writeable = True
                header.library = libraries.index(found.type)
                header.dtype = found.dtype(dtype)
            layout += 2 * len(shape)
        self.rows = words(self.in_c)[:, word("fs_header", "row")].copy()
        """The address of the row of each parameter; 0: it has none."""

    def fill(self, index: int, g: Array, operand: Operand, given: Any) -> None:
        """Describe the gradient of a parameter, and let its row read it."""
        low, high = extent(g)
        header = self.in_c[index]
        header.row.g = ffi.from_buffer(operand.flat)
        header.data = address(g)
        header.scratch = operand.scratch
        header.writeable = g.flags.writeable
        header.below = low - header.data
        header.bytes = high - low
        header.itemsize = g.itemsize
        header.library = self.libraries.index(type(given))
        self.kept.pop(index, None)
        if header.library < 0 or not g.flags.writeable:
            self.kept[index] = g
        if header.library < 0:
            return
        found = self.libraries.exchange(type(given)) or NUMPYS
        unit = found.unit(g.dtype)
        header.layout[0 : 2 * g.ndim] = [*g.shape, *(stride // unit for stride in g.strides)]
        header.dtype = found.dtype(g.dtype, given)
        self.dtypes[index] = getattr(given, "dtype", None)
        self.formats.pop(index, None)
        if g.dtype in HALVES:
            self.formats[index] = HALVES[g.dtype]

    def select(self, rows: Sequence[Row | None], jobs: Sequence[Job]) -> None:
        """Expect a gradient where there is a row, and None elsewhere."""
        steps = [row is not None for row in rows]
        words(self.in_c)[:, word("fs_header", "row")] = np.where(steps, self.rows, 0)
        self.expect(rows, jobs)

    def expect(self, rows: Sequence[Row | None], jobs: Sequence[Job]) -> None:
        """Take gradients in the formats of the rows' jobs alone: others are for Python to look at.

        A job reads a gradient by its format, so that none of another may get by.
        """
        held = [None if job.storages is None else job.storages.g for job in jobs]
        formats = {at: each.format for at, each in enumerate(held) if each is not None}
        if not formats and not self.formats:
            return
        for index, row in enumerate(rows):
            if row is not None and self.formats.get(index) != formats.get(row.job):
                self.in_c[index].library = -1

    def let_go(self, indices: Iterable[int]) -> None:
        """Keep no gradient; those of some parameters are for Python to look at."""
        for index in indices:
            self.in_c[index].library = -1
        self.kept.clear()


def _is_plain(array: Array) -> bool:
    """Whether an array is aligned, and its strides in C order, also along axes of length 1."""
    return array.flags.aligned and [*array.shape, *array.strides] == _c_order(
        array.shape, array.itemsize
    )


@lru_cache(maxsize=1024)
def _c_order(shape: tuple[int, ...], innermost: int) -> list[int]:
    """A shape, and its strides in C order, of which the last one is given."""
    strides = [*accumulate(shape[:0:-1], mul, initial=innermost)]
    return [*shape, *strides[: len(shape)][::-1]]


class Arrays:
    """Users' arrays in C, each as it was found: see fs_array in csrc/api.h."""

    COLUMNS = 9
    layouts: Integers
    """Memory for their shapes and strides."""

    def __init__(self, entries: Integers) -> None:
        self.entries = entries
        self.in_c = ffi.cast("fs_array *", entries.ctypes.data)

    @classmethod
    def of_parameters(cls, rows: Sequence[Row | None], in_c: Any, libraries: Libraries) -> Arrays:
        """The arrays of the parameters; `in_c` has the rows in C, of those that are not None."""
        present = [(index, row) for index, row in enumerate(rows) if row is not None]
        at = [index for index, _ in present]
        arrays: list[Any] = [row.array for _, row in present]
        entries = np.zeros((len(rows), cls.COLUMNS), np.int64)
        entries[at, 0] = [0 if array is None else id(array) for array in arrays]
        entries[at, 1] = words(in_c)[:, word("fs_row", "p")]
        entries[at, 2] = [row.p.flat.size for _, row in present]
        entries[at, 3] = [libraries.holding(type(array)) for array in arrays]
        entries[at, 4:6] = np.array([parts_of(array) for array in arrays], np.int64).reshape(-1, 2)
        for index, row in present:
            if row.array is not None and (row.p.scratch or not row.walk.plain):
                entries[index, 1] = address(plain(row.array, "params"))
        return cls(entries)

    @classmethod
    def watched(cls, arrays: Iterable[Watched], libraries: Libraries) -> Arrays:
        """Further arrays, as far as C can read them; `fs_learn` notes how they lie."""
        known = [each for each in arrays if libraries.reads(each.array)]
        entries = np.zeros((len(known), cls.COLUMNS), np.int64)
        made = cls(entries)
        ndims = [len(each.where[1][0]) for each in known]
        made.layouts = np.zeros(2 * sum(ndims), np.int64)
        at = address(made.layouts)
        for entry, each, ndim in zip(entries, known, ndims, strict=True):
            place, (shape, *_) = each.where
            entry[:4] = id(each.array), place, prod(shape), libraries.holding(type(each.array))
            entry[4:6] = parts_of(each.array)
            entry[6], entry[8] = at, ndim
            at += 16 * ndim
        return made


class Aims:
    """The arrays in C that the one row of a table writes, which is aimed at others at each step."""

    def __init__(
        self,
        row: Row,
        in_c: Any,
        types: Sequence[type],
        views: Sequence[Array],
        libraries: Libraries,
    ) -> None:
        """The views are of arrays of those types, as `row.written` has them; `in_c` is the row."""
        self.in_c = ffi.new("fs_target[]", len(views))
        self.layouts = ffi.new("intptr_t[]", 2 * sum(view.ndim for view in views))
        slots = [slot for slot, state in enumerate(row.states) if state is not None]
        places = [ffi.addressof(in_c, "p"), *(in_c.s + slot for slot in slots)]
        if row.rest is not None:
            places.append(ffi.addressof(in_c.rest, "p"))
        layout = self.layouts
        written = zip(self.in_c, row.written, places, types, views, strict=True)
        for aim, operand, place, kind, view in written:
            low, high = extent(view)
            found = exchange(kind) or NUMPYS
            unit = found.unit(view.dtype)
            layout[0 : 2 * view.ndim] = [*view.shape, *(stride // unit for stride in view.strides)]
            aim.at = ffi.NULL if operand.scratch else ffi.cast("void **", place)
            aim.layout = layout
            aim.dtype = found.dtype(view.dtype)
            aim.ndim = view.ndim
            aim.itemsize = view.itemsize
            aim.library = libraries.index(kind)
            aim.below = low - address(view)
            aim.bytes = high - low
            layout += 2 * view.ndim


def parts_of(array: Any) -> tuple[int, int]:
    """The addresses of what an array's object consists of, to be fetched into the cache ahead."""
    return library(array).parts(array)


def _cells(cells: Cells) -> Iterator[tuple[Any, float, int, int]]:
    """The cells in C."""
    for array, left, which in zip(cells.arrays, cells.left, cells.which, strict=True):
        yield ffi.cast("void *", address(array)), float(left), which, array.itemsize


class Runner:
    """A `plan.Table` but for its kernels and scalars, which `prepare` sees to."""

    selects = aims = reads_rows = True
    judges = captures = False

    def __init__(
        self, jobs: Sequence[Job], rows: Sequence[Row | None], written: WrittenMemory
    ) -> None:
        # C holds addresses alone: these attributes keep their memory in place.
        self.rows = rows
        self.begin(jobs)
        present = [row for row in rows if row is not None]
        self.of_rows = Rows(present)
        self.libraries = Libraries()
        self.headers = Headers(rows, self.of_rows.in_c, self.libraries)
        self.headers.expect(rows, jobs)
        self.lows = ffi.new("intptr_t[]", written.lows)
        self.highs = ffi.new("intptr_t[]", written.highs)
        self.parameters = Arrays.of_parameters(rows, self.of_rows.in_c, self.libraries)
        exposed = [each for row in present for each in row.exposed]
        sheltered = [each for row in present for each in row.sheltered]
        self.watched = Arrays.watched([*exposed, *sheltered], self.libraries)
        self.unread = [row for row in present if self._is_unread(row)]
        """Rows of which C cannot read all watched arrays."""
        self.cells = Cells(jobs, present)
        self.numbers = self.cells.numbers
        self.cells_in_c = ffi.new("fs_cell[]", [*_cells(self.cells)])
        self.steps = ffi.new("int64_t *")
        self.sums = self.of_rows.sums
        self.folded = np.zeros(((len(self.sums) + 1) // 2, norm.SUMS))
        self.clips = ffi.new("double[]", len(present))
        self.measured = ffi.new("fs_measured *")
        self.c_rows = self.of_rows.in_c
        self.touched: dict[int, tuple[Touched, Any]] = {}
        """The slices that the next step touches, and the same in C, by the parameter."""
        self.room: dict[int, Any] = {}
        """Memory for the numbers of rows that C takes, by the parameter."""
        self.rates: dict[int, Array] = {}
        """Memory for rates by column, by the parameter."""
        self.units = ffi.new("int64_t[]", len(present) + 1)
        self.table = ffi.new(
            "fs_table *",
            {
                "jobs": self.c_jobs,
                "njobs": len(self.c_jobs),
                "rows": self.c_rows,
                "nrows": len(self.c_rows),
                "elements": self.of_rows.elements,
                "large": self.of_rows.large,
                "blocks": self.of_rows.blocks,
                "folded": ffi.cast("double *", self.folded.ctypes.data),
                "clips": self.clips,
                "headers": self.headers.in_c,
                "parameters": self.parameters.in_c,
                "nheaders": len(rows),
                "watched": self.watched.in_c,
                "nexposed": sum(self.libraries.reads(each.array) for each in exposed),
                "nwatched": len(self.watched.entries),
                "cells": self.cells_in_c,
                "ncells": len(self.cells.arrays),
                "numbers": ffi.cast("double *", self.numbers.ctypes.data),
                "libraries": self.libraries.in_c,
                "lows": self.lows,
                "highs": self.highs,
                "nranges": len(written.lows),
                "steps": self.steps,
            },
        )
        lib.fs_learn(self.table)

    def begin(self, jobs: Sequence[Job]) -> None:
        """Step by these jobs from now on."""
        self.jobs = jobs
        self.of_jobs = Jobs(jobs)
        self.keys = self.of_jobs.keys
        self.c_jobs = self.of_jobs.in_c

    def select(self, jobs: Sequence[Job], rows: Sequence[Row | None]) -> None:
        self.begin(jobs)
        steps = [rows[at] is not None for at, row in enumerate(self.rows) if row is not None]
        job_of = [row.job for row in self.rows if row is not None]
        self.of_rows.select(np.where(steps, job_of, -1))
        self.headers.select(rows, jobs)
        width = self.numbers.shape[1]
        self.cells.numbers = self.numbers = np.zeros((len(jobs), width))
        numbers = words(self.cells_in_c)[:, word("fs_cell", "number")]
        numbers[:] = [
            width * row.job + which if step else -1
            for row, step in zip(filter(None, self.rows), steps, strict=True)
            for _, which in row.cells
        ]
        self.steps = ffi.new("int64_t *")
        self.table.jobs, self.table.njobs = self.c_jobs, len(jobs)
        self.table.numbers = ffi.cast("double *", self.numbers.ctypes.data)
        self.table.steps = self.steps

    def prepare(self, scalars: Sequence[JobScalars]) -> None:
        """Put the kernels and scalars of the next step into the jobs."""
        raise NotImplementedError

    def bind(self, index: int, kernel: Any, scalars: Sequence[str]) -> None:
        """Give a job its kernel, and memory for the scalars of these names."""
        self.of_jobs.bind(index, kernel, scalars)

    def write(self, index: int, scalars: Sequence[float]) -> None:
        """Put the scalars of a job in their place."""
        self.of_jobs.float64[index][0 : len(scalars)] = scalars

    def stands(self, everything: bool) -> bool:
        stands = lib.fs_stands(self.table, everything)
        return bool(stands) and all(row.stands(everything) for row in self.unread)

    def _is_unread(self, row: Row) -> bool:
        watched = (*row.exposed, *row.sheltered)
        return not all(self.libraries.reads(each.array) for each in watched)

    def set_gradient(self, index: int, g: Array, operand: Operand, given: Any) -> None:
        self.headers.fill(index, g, operand, given)
        self.headers.in_c[index].row.slices = ffi.NULL
        self.touched.pop(index, None)
        self.table.moves += 1

    @staticmethod
    def scalars_of(job: Job) -> tuple[str, ...]:
        return variants.step(job.rule).scalars

    def touch(self, index: int, touched: Touched) -> None:
        header = self.headers.in_c[index]
        header.library = -1
        if index not in self.touched:
            self.touched[index] = touched, ffi.new("fs_slices *")
        in_c = self.touched[index][1]
        self.touched[index] = touched, in_c
        row = self.rows[index]
        assert row is not None
        fill_slices(in_c, touched, row.walk.shape[0])
        if in_c.ends and index not in self.rates:
            self._make_room_for_rates(index, in_c)
        in_c.taken = touched.kind is not None
        if touched.kind is not None:
            self._let_c_take(index, touched.kind, touched.places)
        header.row.g = ffi.from_buffer(touched.values)
        header.row.slices = in_c
        if touched.sums is not None:
            at = header.row.sums - ffi.cast("double *", address(self.sums))
            self.sums.reshape(-1)[at : at + touched.sums.size] = touched.sums.reshape(-1)
        self.table.units = self.units
        self.table.moves += 1

    def _make_room_for_rates(self, index: int, in_c: Any) -> None:
        """Make room for the rates of a tensor's columns, row after row."""
        period = period_of(in_c.width)
        self.rates[index] = np.empty(3 * (period + in_c.width))
        in_c.rates = ffi.cast("void *", address(self.rates[index]))
        in_c.period, in_c.apart = period, period + in_c.width

    def _let_c_take(self, index: int, kind: type, places: Integers | None) -> None:
        """Have C take the next gradients of that parameter, if they are of rows as this one is, of
        up to twice as many.
        """
        in_c, row, header = self.touched[index][1], self.rows[index], self.headers.in_c[index]
        assert row is not None
        dtype, shape = row.p.flat.dtype, row.walk.shape
        header.itemsize, header.ndim = dtype.itemsize, len(shape)
        header.layout[0 : 2 * len(shape)] = _c_order(shape, dtype.itemsize)
        header.dtype = id(np.dtype(dtype.type))
        if places is not None and places.size > in_c.capacity:
            k = 2 * places.size
            self.room[index] = ffi.new("int64_t[]", 3 * (k + 1))
            in_c.room, in_c.capacity = self.room[index], k
        table = self.table
        table.of_rows, table.integers = id(kind), id(INT64)
        table.index, table.values, table.mask = map(id, ATTRIBUTES)

    def refresh(self, index: int, scalars: Scalars) -> None:
        touched, in_c = self.touched[index]
        self.touched[index] = touched._replace(scalars=scalars), in_c
        fill_scalars(in_c, scalars)

    def catching_up(self) -> Sequence[Call]:
        return [partial(lib.fs_catch_up, self.table, threads.get_num_threads())]

    @property
    def moves(self) -> int:
        return int(self.table.moves)

    def take(self, grads: list[Any], start: int, zero: bool) -> int:
        return int(lib.fs_take(self.table, id(grads), start, zero))

    def fits(self, grads: list[Any], start: int, zero: bool) -> int:
        return int(lib.fs_fits(self.table, id(grads), start, zero))

    def let_go(self, indices: Iterable[int]) -> None:
        self.headers.let_go(indices)
        for index in self.touched:
            row = self.headers.in_c[index].row
            if row:
                row.slices = ffi.NULL
        self.touched.clear()

    @staticmethod
    def layout_of(arrays: list[Any]) -> bytes | None:
        found: list[bytes | None] = [None]
        known = len(_seen.known)
        if not lib.fs_layout(_seen.in_c, known, id(arrays), id(found)):
            for array in arrays:
                _seen.index(type(array))
            if len(_seen.known) > known:
                return Runner.layout_of(arrays)
        return found[0]

    def aim_by(self, types: Sequence[type], views: Sequence[Array]) -> None:
        (row,) = filter(None, self.rows)
        self.aimed = Aims(row, self.c_rows[0], types, views, self.libraries)
        self.table.aims, self.table.naims = self.aimed.in_c, len(views)
        small = views[0].size < lib.FS_SHARED
        self.table.any_shape = small and all(map(_is_plain, views))

    def aim(self, arrays: list[Any]) -> bool:
        return bool(lib.fs_aim(self.table, id(arrays)))

    def aim_and_run(
        self, arrays: list[Any], grads: list[Any], scalars: Sequence[JobScalars]
    ) -> int:
        self.prepare(scalars)
        number = threads.get_num_threads()
        return int(lib.fs_aim_and_step(self.table, id(arrays), id(grads), number))

    def measure(self, scale: float, max_norm: float) -> norm.Measured:
        to = self.measured
        lib.fs_measure(self.table, threads.get_num_threads(), scale, max_norm, to)
        return norm.Measured(to.norm, to.clip, bool(to.finite))

    def clip_each(self, scale: float, max_norm: float) -> float:
        return float(lib.fs_clip_each(self.table, scale, max_norm))

    def unfit(self, unscale: float) -> Iterator[int]:
        place = lib.fs_unfit(self.table, 0, unscale)
        while place < len(self.c_rows):
            yield place
            place = lib.fs_unfit(self.table, place + 1, unscale)

    def calls(
        self, scalars: Sequence[JobScalars], zero: bool, each: bool = False
    ) -> Sequence[Call]:
        self.prepare(scalars)
        return [partial(lib.fs_step, self.table, threads.get_num_threads(), zero, each)]

    @property
    def known_steps(self) -> int:
        return int(self.steps[0])

    def uncertain(self) -> int:
        return 0

    def judging(
        self, lines: Sequence[Line], asked: Asked, zero: bool
    ) -> tuple[Sequence[Call], Any]:
        raise NotImplementedError

    def count_with(self, other: Runner) -> None:
        self.table.steps = self.steps = other.steps

    def take_and_run(self, grads: list[Any], scalars: Sequence[JobScalars]) -> int:
        self.prepare(scalars)
        return int(lib.fs_take_and_step(self.table, id(grads), threads.get_num_threads()))


def find_kernel(name: str, dtype: np.dtype[Any], has: int = 0, inside: bool = False) -> Any:
    """Return a kernel of the library, in the instruction set in force."""
    kernel = lib.fs_find_kernel(name.encode(), dtype.name.encode(), has, inside)
    if not kernel:
        raise NotImplementedError(
            f"the C backend has no kernel {name!r} for {dtype}, {has}, {inside}"
        )
    return kernel


def find_format(name: str) -> Any:
    """Return a storage format, in the instruction set in force."""
    found = lib.fs_find_storage(name.encode())
    if not found:
        raise NotImplementedError(f"the C backend has no storage format {name!r}")
    return found


def team() -> str:
    """Name the threads that ran this thread's last step: "caller", "pool" or "openmp"."""
    return str(ffi.string(lib.fs_team()).decode())
