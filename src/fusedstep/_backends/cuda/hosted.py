"""The table whose gradients are read, and whose kernels are launched, by one call of C.

Python takes a microsecond or more for each gradient and launch. C takes the addresses of gradients
from their objects, as it does on the CPU: those of torch by DLPack's exchange interface, those of
Numba and CuPy by attributes that are quick, others by `__cuda_array_interface__`. Arrays of types
derived from Numba's and CuPy's keep their memory for as long as they live, and tell it slowly, so
they are looked at once.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from functools import partial
from typing import Any

import numpy as np

from fusedstep._arrays.at_once import Call, at_once
from fusedstep._arrays.exchange import CUDA, on_device, on_one_of_several
from fusedstep._arrays.libraries import glance, library, library_of
from fusedstep._arrays.overlap import WrittenMemory
from fusedstep._arrays.walk import Array, Operand
from fusedstep._backends.c.runner import Headers, Libraries
from fusedstep._backends.cuda import device, engine
from fusedstep._backends.cuda.device import refuse_recording
from fusedstep._backends.cuda.judging import Judge, Program
from fusedstep._backends.cuda.kernels import Variant
from fusedstep._backends.cuda.launches import Go, Launch, has_decays
from fusedstep._backends.plan import STEPPED, Job, Row
from fusedstep._engine import ffi, lib
from fusedstep._numerics.coefficients import JobScalars


class InC:
    """A launch in C."""

    def __init__(self, launch: Launch, to: Any) -> None:
        self.launch = launch
        self.to = to
        to.blocks, to.threads = launch.tiles.pieces, launch.threads
        to.itemsize = launch.job.dtype.itemsize
        self.keyed = launch.job.storages is not None
        self.decays: bool | None = None

    def prepare(self, given: JobScalars, zero: bool, clips: int, key: int) -> None:
        """Have it launched with these scalars and arguments."""
        values = {**given[0], **given[1]}
        decays = has_decays(values)
        if decays is not self.decays:
            self.to.function = self.launch.kernel(Variant(decays)).function
            self.pick = self.launch.pick(decays)
            self.decays = decays
        launch, to = self.launch, self.to
        integers = (*launch.addresses, zero, launch.own(clips), *([key] if self.keyed else []))
        scalars = self.pick(values)
        to.nintegers, to.nscalars = len(integers), len(scalars)
        to.integers[0 : len(integers)] = integers
        to.scalars[0 : len(scalars)] = scalars


def in_c(launches: Sequence[Go]) -> Any:
    """Launches in C."""
    made = ffi.new("fs_launch[]", len(launches))
    for to, (kernel, blocks, threads, arguments) in zip(made, launches, strict=True):
        to.function, to.blocks, to.threads = kernel.function, blocks, threads
        to.nintegers = len(arguments)
        to.integers[0 : len(arguments)] = arguments
    return made


class Table(engine.Table):
    """A table on a device, with the host's part in C."""

    def __init__(
        self, jobs: Sequence[Job], rows: Sequence[Row | None], written: WrittenMemory
    ) -> None:
        self.rows = rows
        self.in_c: Any = None
        self.programs: dict[Program, Any] = {}
        """The launches in C of judged steps."""
        self.prepared: list[tuple[int, InC]] = []
        """The launches in C, with the indices of their jobs."""
        super().__init__(jobs, rows, written)
        if self.in_c is None:
            self._make(jobs, 0)

    def _make(self, jobs: Sequence[Job], ordinal: int) -> None:
        """Make what C reads. C holds addresses alone: these attributes keep their memory."""
        present = [row for row in self.rows if row is not None]
        self.c_rows = ffi.new("fs_row[]", max(len(present), 1))
        reads = on_one_of_several if device.driver.several() else on_device
        self.libraries = Libraries(CUDA, ordinal, reads)
        self.headers = Headers(self.rows, self.c_rows, self.libraries)
        self.headers.expect(self.rows, jobs)
        self.c_parameters = ffi.new("fs_array[]", max(len(self.rows), 1))
        self.memories = ffi.new("fs_memory[]", max(len(self.rows), 1))
        self.lows = ffi.new("intptr_t[]", self.written.lows)
        self.highs = ffi.new("intptr_t[]", self.written.highs)
        kept = ffi.new(
            "fs_table *",
            {
                "rows": self.c_rows,
                "nrows": len(present),
                "headers": self.headers.in_c,
                "parameters": self.c_parameters,
                "nheaders": len(self.rows),
                "libraries": self.libraries.in_c,
                "lows": self.lows,
                "highs": self.highs,
                "nranges": len(self.written.lows),
                "memories": self.memories,
            },
        )
        at = [index for index, row in enumerate(self.rows) if row is not None]
        self.row_of = dict(zip(at, range(len(at)), strict=True))
        self.held: list[Any] = []
        """Gradients that nobody else may hold until the device has read them."""
        self.unordered = any(not library_of(row.gradients).ordered for row in present)
        """Whether there are such."""
        self.in_c = ffi.gc(kept, lib.fs_forget_all)

    def _lay_out(self, jobs: Sequence[Job], rows: list[tuple[int, Row]]) -> None:
        self._make(jobs, self.device.ordinal)
        super()._lay_out(jobs, rows)
        self.c_launches = ffi.new("fs_launch[]", max(len(self.launches), 1))
        pairs = zip(self.launches, self.c_launches, strict=False)
        self.prepared = [(job, InC(launch, to)) for (job, launch), to in pairs]
        self.c_driver = ffi.new("fs_driver *", [*device.driver.functions()])
        places = [self._place(index) for index, _ in rows]
        self.c_places = ffi.new("int64_t[]", places)
        events = [each.handle for each in self.gradients.events]
        self.c_events = ffi.new("uintptr_t[]", events)
        self.host = ffi.new(
            "fs_host *",
            {
                "driver": self.c_driver,
                "context": device.driver.context(self.device.ordinal),
                "launches": self.c_launches,
                "nlaunches": len(self.launches),
                "rows": self.c_rows,
                "places": self.c_places,
                "nrows": len(rows),
                "ring": ffi.cast("int64_t *", self.gradients.ring.ctypes.data),
                "events": self.c_events,
                "to": self.gradients.at,
                "moves": ffi.addressof(self.in_c[0], "moves"),
                "sent": -1,
            },
        )

    @property
    def moves(self) -> int:
        return int(self.in_c.moves)

    @moves.setter
    def moves(self, count: int) -> None:
        if self.in_c is not None:
            self.in_c.moves = count

    # ---- gradients ----

    def set_gradient(self, index: int, g: Array, operand: Operand, given: Any) -> None:
        super().set_gradient(index, g, operand, given)
        lib.fs_forget(self.in_c, index)
        self.headers.fill(index, g, operand, given)
        if index in self.turned:
            self.headers.in_c[index].scratch = True
        known = self.known[index]
        assert known is not None
        self.unordered |= known.kept is not None
        known.kept = None  # `held` has it, until the next step has another one
        lib.fs_remember(self.in_c, index, id(given))

    def _point(self, index: int, to: int) -> None:
        row = self.c_rows[self.row_of[index]]
        if int(ffi.cast("intptr_t", row.g)) != to:
            row.g = ffi.cast("void *", to)
            self.in_c.moves += 1

    def _addresses(self) -> list[int]:
        found = [0] * len(self.row_of)
        for index, row in self.row_of.items():
            found[self._place(index)] = int(ffi.cast("intptr_t", self.c_rows[row].g))
        return found

    def take(self, grads: list[Any], start: int, zero: bool) -> int:
        at, run = start, 1
        while True:
            stopped = int(lib.fs_take(self.in_c, id(grads), at, zero))
            # Where C knows none of several in a row, it is asked less and less often.
            run = 2 * run if stopped == at else 1
            at = stopped
            for g in grads[at : at + run]:
                if not self._glance(at, g, zero):
                    break
                at += 1
            if at == stopped:
                break
        if self.unordered:
            self.held = [*grads]
        return at

    def _glance(self, index: int, g: Any, zero: bool) -> bool:
        """Take a gradient that C cannot read, if it lies as the one before; else it is checked."""
        known = self.known[index]
        if known is None or g is None or index in self.sliced or (zero and not known.writeable):
            return False
        to, layout = glance(g)
        if not to or layout != known.layout or library(g) is not known.library:
            return False
        # Layouts of other libraries do not say which device it is on.
        several = not known.library.ordered and device.driver.several()
        if several and device.driver.ordinal(to) != self.device.ordinal:
            return False
        return bool(lib.fs_look(self.in_c, index, id(g), to))

    def let_go(self, indices: Iterable[int]) -> None:
        indices = [*indices]
        super().let_go(indices)
        self.held = []
        self.headers.let_go(indices)

    # ---- steps ----

    def _send(self, stream: int) -> None:
        device.driver.check(lib.fs_send(self.host, stream))

    def _launching(
        self, stream: int, scalars: Sequence[JobScalars], zero: bool, clips: int
    ) -> list[Call]:
        self._prepare(scalars, zero, clips)
        return [partial(lib.fs_launch_all, self.host, stream)]

    def _judged(self, stream: int, judge: Judge, program: Program) -> list[Call]:
        if self.turned or self.sliced:
            return super()._judged(stream, judge, program)
        made = self.programs.get(program)
        if made is None:
            measures = self.measures if program.measured else []
            launches = [*(each.go() for each in measures), *judge.launches_of(program)]
            made = self.programs[program] = in_c(launches)
        event = judge.events[program.turn].handle
        return [partial(lib.fs_run, self.host, made, len(made), stream, event)]

    def _prepare(self, scalars: Sequence[JobScalars], zero: bool, clips: int) -> None:
        keys = self.keys.view(np.int64)
        for job, launch in self.prepared:
            launch.prepare(scalars[job], zero, clips, int(keys[job]) if launch.keyed else 0)

    def take_and_run(self, grads: list[Any], scalars: Sequence[JobScalars]) -> int:
        if self.sliced or not self.prepared or self.cells.arrays:
            return super().take_and_run(grads, scalars)
        self._prepare(scalars, False, 0)
        if self.unordered:
            self.held = [*grads]
        arguments = self.in_c, id(grads), self.host, self.device.stream()
        calls = [
            partial(lib.fs_take_and_launch, *arguments),
            self.steps.counting(self.steps[0] + 1),
        ]
        result = at_once(calls)
        if result is None:
            return STEPPED
        if result <= lib.FS_LOOK:
            taken = self.take(grads, int(lib.FS_LOOK - result), False)
            if taken == len(grads):
                self.at_once(self.calls(scalars, False))
            return STEPPED if taken == len(grads) else taken
        if result == lib.FS_CAPTURED:
            refuse_recording()
        device.driver.check(max(result, 0))
        return int(result)
