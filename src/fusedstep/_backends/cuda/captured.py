"""The table of an optimizer whose steps may be part of a CUDA graph.

A graph repeats launches with their arguments, and nobody on the host takes part. So all of its
steps, also those outside of graphs, are counted on the device, and take their scalars from a
timetable there. A step that is recorded has a letter of its own, and the addresses of its gradients
in memory of its own, which nobody writes again: it reads its gradients where they were then.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import cache, partial
from typing import Any, NoReturn

import numpy as np

from fusedstep._arrays.at_once import Call
from fusedstep._arrays.overlap import WrittenMemory
from fusedstep._arrays.plain import address
from fusedstep._arrays.walk import Array, has_gaps
from fusedstep._backends.cuda import device, engine, verdict
from fusedstep._backends.cuda.device import Device
from fusedstep._backends.cuda.foreseen import MOST
from fusedstep._backends.cuda.judging import Answer, Judge, Program, answer_in, ask
from fusedstep._backends.cuda.timetable import Timetable
from fusedstep._backends.plan import Asked, Foreseen, Job, Line, Row

NEVER = -1
"""In the place of a count of steps: the graph has not been run."""


class Count(Sequence[int]):
    """The steps that a table has taken, as its only item: to read it waits for the device."""

    def __init__(self, read: Callable[[], int]) -> None:
        self.read = read

    def __getitem__(self, at: Any) -> Any:
        return [self.read()][at]

    def __len__(self) -> int:
        return 1


def refuse_lost() -> NoReturn:
    """Refuse what a graph did without steps that were foreseen."""
    raise RuntimeError(
        "a CUDA graph was launched for more steps than were foreseen, and left some out; call "
        f"prepare_replays() at least once in {MOST // 2} launches"
    )


class Replay:
    """The verdict on the last step that a graph has taken: to read it waits for the device."""

    lasts = False

    def __init__(self, where: Device, letter: memoryview, tensors: int) -> None:
        self.device = where
        self.letter = letter
        self.tensors = tensors

    def read(self) -> Answer:
        """Wait for all that the device has been asked for, and return what it found last."""
        with self.device.current():
            device.driver.wait_for_all()
        answer = answer_in(self.letter, self.tensors)
        if answer.taken == NEVER:
            raise RuntimeError(
                "the report is of a step in a CUDA graph that has not been run yet; launch the "
                "graph, and read the report after that"
            )
        if answer.beyond:
            refuse_lost()
        return answer


class Captured:
    """A step in a graph, and the memory that this has the addresses of."""

    def __init__(self, table: Table, judge: Judge, asked: Asked, zero: bool) -> None:
        assert judge.timetable is not None
        where = table.device
        addresses = np.array(table.of_gradients(), np.int64)
        self.gradients = where.empty(addresses.shape, addresses.dtype)
        with where.current():
            self.letter = device.driver.pinned((1, judge.room))[0]
            device.driver.upload_aside(address(self.gradients), addresses)
        self.letter[...] = 0
        self.letter[verdict.TAKEN] = NEVER
        self.memory = memoryview(self.letter).cast("B")
        tensors = judge.tensors_of(asked)
        ask(self.memory, asked)
        decays = judge.timetable.decays
        program = Program(0, tensors, zero, asked.each, decays, asked.measured)
        tables = table.tables._replace(gradients=address(self.gradients))
        summing = [each.go() for each in table.summing(tables)] if asked.measured else []
        stepping = [launch for _, launch in table.stepping(tables)]
        by = address(self.letter)
        self.launches = [*summing, *judge.launches_by(by, program, stepping)]
        self.verdict = Replay(where, self.memory, tensors if asked.skips else 0)

    @property
    def taken(self) -> int:
        """The steps that were taken when the graph ran last, as far as is known by now."""
        return int(self.letter[verdict.TAKEN])

    @property
    def beyond(self) -> bool:
        """Whether the last step was left out because nobody had foreseen it."""
        return bool(self.letter[verdict.BEYOND])


class Table(engine.Table):
    """A table whose steps are counted on the device, and find their scalars there: see `over`."""

    captures = True

    def __init__(
        self, jobs: Sequence[Job], rows: Sequence[Row | None], written: WrittenMemory
    ) -> None:
        for row in rows:
            if row is not None and (row.walk.turned or any(x.scratch for x in row.written)):
                raise ValueError(
                    "capturable=True is for parameters without gaps and negative strides, and "
                    f"one of shape {row.p.laid.shape} has some; pass a contiguous array"
                )
        self.captured: list[Captured] = []
        """The steps that are in graphs, which nobody knows the end of."""
        self.asked = 0
        """A number of steps that the device has not taken more of, but for those in graphs."""
        super().__init__(jobs, rows, written)
        if self.present:
            self.taken = self.device.zeros((1,), np.dtype(np.int64))
            self.judge = self._new_judge()
            self.steps: Any = Count(self._count)

    @staticmethod
    def refuse_recording(where: Device) -> None:
        if where.is_recorded():
            raise RuntimeError(
                "a CUDA graph cannot hold the first step, which lays out memory, nor one whose "
                "gradients came, went or have another layout; take such a step outside of the "
                "graph, with the same arguments, and record the next one"
            )

    def _count(self) -> int:
        """The steps that the device has taken, once it has."""
        return int(self.device.read(self.taken)[0]) if self.taken is not None else 0

    @property
    def _timetable(self) -> Timetable:
        assert self.judge is not None
        assert self.judge.timetable is not None
        return self.judge.timetable

    def of_gradients(self) -> list[int]:
        """The addresses of the gradients, in the table's order."""
        return self._addresses()

    # ---- the steps to come ----

    @property
    def is_captured(self) -> bool:
        return bool(self.captured)

    def runs_out(self) -> bool:
        if not self.present:
            return False
        taken = max([self.asked, *(each.taken for each in self.captured)])
        return taken + MOST // 2 >= self._timetable.end

    def foresee(self, foreseen: Foreseen) -> None:
        if self.present:
            self.refuse_recording(self.device)
            self.asked = taken = self._count()
            self._timetable.write(foreseen, taken, self.is_captured)

    def rate(self, rates: Sequence[float]) -> None:
        if not self.present or not self._timetable.is_new(rates):
            return
        if self.device.is_recorded():
            raise RuntimeError(
                "lr was assigned while a CUDA graph is recorded, which would not hold it; assign "
                "it before or after that, and as often as you like"
            )
        with self.device.current():
            self._timetable.send(rates, self.device.stream())

    def refuse_gaps(self, index: int, laid: Array) -> None:
        if has_gaps(laid) and self.device.is_recorded():
            device.refuse_recording()

    def refuse_lost(self) -> None:
        if any(each.beyond for each in self.captured):
            for each in self.captured:
                each.letter[verdict.BEYOND] = 0
            refuse_lost()

    # ---- steps ----

    def judging(
        self, lines: Sequence[Line], asked: Asked, zero: bool
    ) -> tuple[Sequence[Call], Any]:
        judge = self.judge
        assert judge is not None
        if self.device.is_recorded():
            with self.device.current(), device.driver.relaxed():
                captured = Captured(self, judge, asked, zero)
            stream = self.device.stream()
            calls = [each.call(stream) for each in captured.launches]
            return [*calls, partial(self.captured.append, captured)], captured.verdict
        with self.device.current():
            stream = self._stream()
            program, found = judge.begin_foreseen(asked, zero)
            calls = self._judged(stream, judge, program)
        self.asked += 1
        return calls, found


@cache
def over(table: type[engine.Table]) -> type[engine.Table]:
    """The same with the host's part of another table."""
    return type(table.__name__, (Table, table), {"__module__": __name__, "__doc__": Table.__doc__})
