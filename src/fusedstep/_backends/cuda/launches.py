"""The launches of a job: which kernel goes over which rows, in how many blocks of threads."""

from __future__ import annotations

from collections.abc import Mapping
from operator import itemgetter
from typing import Any, NamedTuple

import numpy as np

from fusedstep._arrays.at_once import Call
from fusedstep._backends.cuda import device, formats, kernels, squares
from fusedstep._backends.cuda.kernels import LANES, Variant
from fusedstep._backends.plan import Job
from fusedstep._numerics import norm, variants
from fusedstep._numerics.coefficients import JobScalars
from fusedstep._numerics.variants import DECAYS


class Span(NamedTuple):
    """The pieces of one job."""

    pieces: int
    places: int
    """The address of each piece's place, see kernels.py; 0: all are of the first row there is."""
    row: int
    """The index of the row that is called the first."""


class Pieces:
    """Rows cut into tiles or blocks, `counts` of each; rows of one job follow one another."""

    def __init__(self, counts: Any, jobs: Any) -> None:
        self.counts = counts
        self.edges = np.searchsorted(jobs, np.arange(jobs[-1] + 2)).tolist()
        """The first row of each job, and past the last one."""
        starts = np.cumsum(counts) - counts
        rows = np.repeat(np.arange(len(counts)), counts)
        self.places = rows | (np.arange(len(rows)) - starts[rows] << 32)
        """The row of each piece, and in the upper half which of its pieces it is."""
        self.starts = np.append(starts, counts.sum())[self.edges].tolist()

    def of_job(self, index: int, places: int) -> Span:
        """The pieces of a job; the places of all are at that address."""
        first, last = self.edges[index : index + 2]
        start, end = self.starts[index : index + 2]
        cut = np.flatnonzero(self.counts[first:last])
        if len(cut) == 1:
            return Span(end - start, 0, first + int(cut[0]))
        return Span(end - start, places + 8 * start, 0)


class Go(NamedTuple):
    """A launch of a kernel whose arguments are integers."""

    kernel: Any
    blocks: int
    threads: int
    arguments: tuple[int, ...]

    def call(self, stream: int) -> Call:
        """The call that launches it, in the order of the stream."""
        made: Call = self.kernel.launching(self.blocks, self.threads, stream, self.arguments)
        return made


class Tables(NamedTuple):
    """The addresses of what describes the rows to kernels, see kernels.py and formats.py."""

    rows: int
    gradients: int
    seconds: int = 0

    def of(self, span: Span) -> tuple[int, int, int]:
        """The same from the first row of some pieces on."""
        return (
            self.rows + 8 * kernels.ROW * span.row,
            self.gradients + 8 * span.row,
            self.seconds + 8 * formats.SECONDS * span.row,
        )


def threads_of(job: Job) -> int:
    """The threads of a block that steps a tile; with formats they are some times 64."""
    if job.storages is None:
        return device.THREADS
    return max(device.THREADS // formats.WORDS, 1) * formats.WORDS


def tile_of(job: Job) -> int:
    """The elements of a tile."""
    vectors = kernels.vectors(job) if job.storages is None else 1
    return threads_of(job) * LANES[job.dtype.itemsize] * vectors


class Launch:
    """The steps of one job: a kernel for each variant that was asked for."""

    def __init__(self, job: Job, ordinal: int, tables: Tables, tiles: Span) -> None:
        self.job = job
        self.ordinal = ordinal
        self.tiles = tiles
        self.threads = threads_of(job)
        rows, gradients, seconds = tables.of(tiles)
        second = () if job.storages is None else (seconds,)
        self.addresses = rows, *second, gradients, tiles.places
        self.picks: dict[bool, itemgetter[Any]] = {}

    def kernel(self, variant: Variant) -> Any:
        """The kernel in a variant, compiled if it has not been yet."""
        if self.job.storages is None:
            module = kernels.module(self.job, variant, self.threads)
        else:
            module = formats.module(self.job, variant)
        return device.kernel(module, self.ordinal)

    def scalars(self, decays: bool) -> tuple[str, ...]:
        """The names of the scalars that the kernel takes."""
        return variants.step(self.job.rule, decays).scalars

    def pick(self, decays: bool) -> itemgetter[Any]:
        """The function that picks these scalars from all of them."""
        if decays not in self.picks:
            self.picks[decays] = itemgetter(*self.scalars(decays))
        return self.picks[decays]

    def by_value(self, stream: int, given: JobScalars, zero: bool, clips: int, key: int) -> Call:
        """The call of the kernel; `key` is that of the step's random bits, as an int64."""
        values = {**given[0], **given[1]}
        decays = has_decays(values)
        keys = () if self.job.storages is None else (key,)
        own = self.own(clips)
        arguments = (*self.addresses, zero, own, *keys, *self.pick(decays)(values))
        kernel = self.kernel(Variant(decays))
        call: Call = kernel.launching(self.tiles.pieces, self.threads, stream, arguments)
        return call

    def judged(self, decays: bool, zero: bool, clips: int, record: int) -> Go:
        """The launch of the kernel that finds its scalars in a record."""
        kernel = self.kernel(Variant(decays, judged=True))
        arguments = (*self.addresses, zero, self.own(clips), record)
        return Go(kernel, self.tiles.pieces, self.threads, arguments)

    def own(self, clips: int) -> int:
        """The address of the clipping factors from the first row on, if there are some."""
        return clips and clips + 8 * self.tiles.row


def has_decays(values: Mapping[str, float]) -> bool:
    """Whether the gradient is joined by decays."""
    return any(values[name] != 0 for name in DECAYS)


class Squares:
    """The sums of squares of the gradients of one job, whose kernel is compiled when asked for."""

    def __init__(self, job: Job, ordinal: int, tables: Tables, blocks: Span) -> None:
        self.job = job
        self.ordinal = ordinal
        self.blocks = blocks
        rows, gradients, _ = tables.of(blocks)
        self.addresses = rows, gradients, blocks.places

    def go(self) -> Go:
        """The launch that sums them."""
        held = None if self.job.storages is None else self.job.storages.g
        kernel = device.kernel(squares.module(self.job.dtype, held), self.ordinal)
        return Go(kernel, self.blocks.pieces, norm.LANES, self.addresses)
