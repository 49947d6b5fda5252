"""The "cuda" engine: for each job one launch over a table of addresses, on the caller's stream.

Once laid out, a step neither waits for the device nor allocates. What changes from step to
step goes by value in the launch, and the gradients' addresses, if they are not those of the
step before, through a ring of pinned buffers: only who is a whole ring ahead of the device
waits for it.
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Sequence
from operator import itemgetter
from typing import Any

import numpy as np

from fusedstep.arrays import Array, Operand, Written, address, extent
from fusedstep.backends import device, formulas, kernels
from fusedstep.backends.device import Device
from fusedstep.coefficients import Values
from fusedstep.interface import glance, library, owner
from fusedstep.plan import Job, Row

RING = 8
"""How many steps with new gradients the host may be ahead of the device."""

ORDERED = ("torch", "cupy")
"""Libraries whose freed memory is used again in the order of the stream, so that what a
launch reads need not be kept until the next step."""


class Launch:
    """The rows of one job: its kernel, its arguments, and how many tiles there are."""

    def __init__(self, job: Job, ordinal: int, tiles: int, addresses: tuple[int, ...]) -> None:
        self.kernel = device.kernel(kernels.module(job), ordinal)
        self.pick = itemgetter(*formulas.scalars(job.rule))
        self.tiles = tiles
        self.addresses = addresses

    def run(self, stream: int, values: Values) -> None:
        arguments = (*self.addresses, *self.pick(values))
        self.kernel.launch(self.tiles, device.THREADS, stream, arguments)


class Gradient:
    """What is known of a gradient: as it was seen last, and where its bytes begin and end."""

    __slots__ = ("address", "below", "kept", "layout", "length", "ordered", "scratch")

    def __init__(self, g: Array, operand: Operand) -> None:
        given = owner(g)
        self.address, self.layout = glance(given)
        low, high = extent(g)
        self.below = low - self.address
        self.length = high - low
        self.scratch = operand.scratch
        self.ordered = library(given) in ORDERED
        self.kept: Any = None if self.ordered else given


class Table:
    def __init__(self, jobs: Sequence[Job], rows: Sequence[Row | None], written: Written) -> None:
        self.written = written
        self.places: list[int | None] = [None] * len(rows)
        self.known: list[Gradient | None] = [None] * len(rows)
        order = sorted(
            (index for index, row in enumerate(rows) if row is not None),
            key=lambda index: rows[index].job,  # type: ignore[union-attr]
        )
        for place, index in enumerate(order):
            self.places[index] = place
        self.launches: list[tuple[int, Launch]] = []
        self.stale = False
        active = [row for index in order if (row := rows[index]) is not None]
        if active:
            where = active[0].walk.place
            assert isinstance(where, Device)
            self.device = where
            self._lay_out(jobs, active)

    def _lay_out(self, jobs: Sequence[Job], rows: list[Row]) -> None:
        table = np.zeros((len(rows), kernels.ROW), np.int64)
        counts = np.zeros(len(rows), np.int64)
        first = np.zeros(len(jobs), np.int64)
        total = 0
        for place, row in enumerate(rows):
            n = row.p.flat.size
            tile = device.THREADS * kernels.WIDE[row.p.flat.itemsize]
            if place == 0 or row.job != rows[place - 1].job:
                first[row.job] = total
            table[place, kernels.P] = address(row.p.flat)
            for slot, state in enumerate(row.states):
                if state is not None:
                    table[place, kernels.STATES + slot] = address(state.flat)
            table[place, kernels.N] = n
            table[place, kernels.FIRST] = total - first[row.job]
            counts[place] = -(-n // tile)
            total += int(counts[place])
        with self.device.current():
            self.ring = device.driver.pinned((RING, len(rows)))
            self.events = [device.driver.Event() for _ in range(RING)]
        self.turn = 0
        self.addresses = [0] * len(rows)
        self.stale = True
        self.on_device = [
            self.device.load(table),
            self.device.empty(self.ring[0].shape, self.ring.dtype),
            self.device.load(np.repeat(np.arange(len(rows), dtype=np.int32), counts)),
        ]
        at, gradients, tiles = map(address, self.on_device)
        ends = [*first[1:], total]
        for index, job in enumerate(jobs):
            count = int(ends[index] - first[index])
            if count:
                addresses = (at, gradients, tiles + 4 * int(first[index]))
                launch = Launch(job, self.device.ordinal, count, addresses)
                self.launches.append((index, launch))

    def set_gradient(self, index: int, g: Array, operand: Operand) -> None:
        self.known[index] = Gradient(g, operand)
        self._point(index, address(operand.flat))

    def _point(self, index: int, to: int) -> None:
        place = self.places[index]
        assert place is not None
        if self.addresses[place] != to:
            self.addresses[place] = to
            self.stale = True

    def take(self, grads: list[Any], start: int) -> int:
        for index in range(start, len(grads)):
            known, g = self.known[index], grads[index]
            if known is None and g is None:
                continue
            if known is None or g is None:
                return index
            to, layout = glance(g)
            if layout != known.layout:
                return index
            if to != known.address and not self._moves(index, known, g, to):
                return index
        return len(grads)

    def _moves(self, index: int, known: Gradient, g: Any, to: int) -> bool:
        """Whether `g` will do where it is, as it lies like another that did."""
        if known.scratch or (to - known.address) % 16 or self._overlaps(to, known):
            return False
        if not known.ordered:  # whose layouts say nothing of the device
            if device.driver.several() and device.driver.ordinal(to) != self.device.ordinal:
                return False
            known.kept = g
        known.address = to
        self._point(index, to)
        return True

    def _overlaps(self, to: int, known: Gradient) -> bool:
        low = to + known.below
        before = bisect_left(self.written.lows, low + known.length)
        return before > 0 and self.written.highs[before - 1] > low

    def run(self, scalars: Sequence[Values]) -> None:
        if not self.launches:
            return
        with self.device.current():
            stream = self.device.stream()
            if device.driver.recorded(stream):
                raise RuntimeError(
                    "a step cannot be part of a CUDA graph, which would repeat it with the same "
                    "t and learning rate; step outside of the graph"
                )
            if self.stale:
                self._send_addresses(stream)
            for index, launch in self.launches:
                launch.run(stream, scalars[index])

    def _send_addresses(self, stream: int) -> None:
        event, slot = self.events[self.turn], self.ring[self.turn]
        event.wait()
        slot[...] = self.addresses
        device.driver.upload(address(self.on_device[1]), slot, stream)
        event.record(stream)
        self.turn = (self.turn + 1) % RING
        self.stale = False

    def take_and_run(self, grads: list[Any], scalars: Sequence[Values]) -> int:
        taken = self.take(grads, 0)
        if taken == len(grads):
            self.run(scalars)
        return taken
