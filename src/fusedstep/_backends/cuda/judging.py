"""Steps that are judged where their gradients are: the letters to verdict.py, and its answers."""

from __future__ import annotations

from collections import deque
from collections.abc import Sequence
from functools import cache, partial
from struct import Struct
from typing import Any, NamedTuple

import numpy as np

from fusedstep._arrays.at_once import Call
from fusedstep._arrays.plain import address
from fusedstep._backends.cuda import device, totals, verdict
from fusedstep._backends.cuda.device import Device
from fusedstep._backends.cuda.kernels import VALUES
from fusedstep._backends.cuda.launches import Go, Launch, has_decays
from fusedstep._backends.cuda.timetable import Timetable
from fusedstep._backends.plan import Asked, Line, Scaler
from fusedstep._numerics import norm
from fusedstep._numerics.rounding import check_rounding

SLOTS = 8
"""How many judged steps the host may be ahead of the device."""

FIRST = list.__getitem__

NO_SCALER = Scaler(0, 0)


ASKED, JOB, ANSWER = Struct("=2d4qd2q"), Struct("=6q"), Struct("=2d3q")
"""The layouts of a letter's beginning, of each job in it, and of the answer."""


class Answer(NamedTuple):
    """The verdict on a step."""

    norm: float
    clip: float
    skipped: bool
    taken: int
    """The steps that the table has taken then."""
    unfit: tuple[int, ...]
    """The rows whose gradients are not finite, if the step is skipped for them."""
    beyond: bool
    """Whether it was left out because nobody had foreseen it."""


class Verdict:
    """The verdict on a step that may be still to come: to read it waits."""

    lasts = True
    """Whether it stays what it is."""

    def __init__(self, letter: memoryview, event: Any, tensors: int) -> None:
        self.letter = letter
        self.event = event
        self.tensors = tensors
        self.answer: Answer | None = None

    def is_there(self) -> bool:
        """Whether it can be read without a wait."""
        return self.answer is not None or bool(self.event.is_over())

    def read(self) -> Answer:
        """Wait for the verdict, the first time, and return it."""
        if self.answer is None:
            if not self.event.is_over():
                self.event.wait()
            self.answer = answer_in(self.letter, self.tensors)
        return self.answer


def answer_in(letter: memoryview, tensors: int) -> Answer:
    """The answer in a letter, by which so many tensors were looked at by themselves."""
    norm, clip, skipped, taken, beyond = ANSWER.unpack_from(letter, 8 * verdict.NORM)
    unfit: tuple[int, ...] = ()
    if skipped:
        words = np.frombuffer(letter, np.int64)[verdict.UNFIT :]
        unfit = tuple(np.flatnonzero(words[:tensors]).tolist())
    return Answer(norm, clip, bool(skipped), taken, unfit, bool(beyond))


class Steps(list[int]):
    """A count of steps, as its only item: to read it waits for those that are not judged yet."""

    def __init__(self) -> None:
        super().__init__([0])
        self.pending: deque[Verdict] = deque()
        """Verdicts on steps that may have been left out, in order."""
        self.unsure = False
        """Whether the device may have counted a step that is not among these: one that failed."""

    @property
    def known(self) -> int:
        """The count before all that is pending."""
        return FIRST(self, 0)

    def __getitem__(self, at: Any) -> Any:
        while self.pending:
            self._settle_first()
        return super().__getitem__(at)

    def uncertain(self) -> int:
        """How many steps are pending, once those are settled that are judged by now."""
        while self.pending and (
            self.unsure or len(self.pending) >= SLOTS or self.pending[0].is_there()
        ):
            self._settle_first()
        return len(self.pending)

    def _settle_first(self) -> None:
        # In this order, so that whoever is interrupted here begins again.
        list.__setitem__(self, 0, self.pending[0].read().taken)
        self.pending.popleft()

    def awaiting(self, calls: Sequence[Call], verdict: Verdict) -> list[Call]:
        """The calls of a step that may be left out, and those that count it among the pending."""
        unsure = partial(setattr, self, "unsure")
        return [
            partial(unsure, True),
            *calls,
            partial(self.pending.append, verdict),
            partial(unsure, False),
        ]

    def counting(self, count: int) -> Call:
        """The call that sets the count."""
        return partial(list.__setitem__, self, 0, count)


class Program(NamedTuple):
    """All that the launches of a judged step depend on, besides their table."""

    turn: int
    """The number of its letter."""
    tensors: int
    """How many tensors are looked at by themselves: all, or 0."""
    zero: bool
    each: bool
    decays: tuple[bool, ...]
    """Whether the gradients of each job are joined by decays."""
    measured: bool = True
    """Whether the squares of the gradients are summed."""


@cache
def layout_of(count: int) -> Struct:
    """A line of so many scalars, after its key."""
    return Struct(f"=Q{count}d")


def ask(letter: memoryview, asked: Asked, known: int = -1, base: int = 0) -> None:
    """Write what is asked of a step into a letter; see verdict.py for `known` and `base`."""
    given = asked.scale, asked.max_norm, asked.skips, asked.each, known, base, asked.max_value
    ASKED.pack_into(letter, 0, *given, *(asked.scaler or NO_SCALER))


class Judge:
    """A table's memory for judged steps, made with the first of them."""

    def __init__(
        self,
        where: Device,
        launches: Sequence[tuple[int, Launch]],
        sums: Any,
        first_sums: Any,
        places: Sequence[tuple[int, bool]],
        taken: Any,
        foresees: bool = False,
    ) -> None:
        """`places` has the place of each tensor in the table, and whether it is of float64.

        `foresees` says that steps have no lines in letters, but a timetable.
        """
        self.device = where
        self.launches = launches
        self.sums = sums
        self.taken = taken
        self.blocks, self.tensors = len(sums), len(places)
        self.threads = device.THREADS
        starts = np.append(first_sums, self.blocks).astype(np.int64)
        int64, float64 = np.dtype(np.int64), np.dtype(np.float64)
        self.kinds = where.load(np.array(places, np.int64).reshape(-1, 2))
        self.starts = where.load(starts)
        self.folded = where.empty((self.blocks, norm.SUMS), float64)
        self.totals = where.empty((self.tensors, norm.SUMS), float64)
        self.clips = where.empty((self.tensors,), float64)
        counts = [len(launch.scalars(True)) for _, launch in launches]
        sizes = [VALUES // 8 + count for count in counts]
        self.records = where.empty((sum(sizes),), int64)
        self.record_of = (address(self.records) + 8 * (np.cumsum(sizes) - sizes)).tolist()
        self.at_jobs = self.room = verdict.UNFIT + self.tensors
        self.timetable: Timetable | None = None
        if foresees:
            self.timetable = Timetable(where, launches, self.record_of)
        else:
            self.at_lines = self.at_jobs + verdict.JOB * len(launches)
            self.room = self.at_lines + (SLOTS + 1) * sum(1 + count for count in counts)
        with where.current():
            self.letters = device.driver.pinned((SLOTS, self.room))
            self.events = [device.driver.Event() for _ in range(SLOTS)]
            self.kernel = device.kernel(verdict.module(self.threads, foresees), where.ordinal)
        self.memory = [memoryview(letter).cast("B") for letter in self.letters]
        """The letters as bytes."""
        self.verdicts: list[Verdict | None] = [None] * SLOTS
        self.turn = 0

    def begin(
        self, lines: Sequence[Line], asked: Asked, zero: bool, steps: Steps
    ) -> tuple[Program, Verdict]:
        """Write the letter of a step, whose squares are summed before; what runs it, its verdict.

        The first of `lines` is for the step after those that are known, the others for it if the
        pending ones were taken.
        """
        check_rounding()
        turn = self.turn
        self._clear(turn)
        known = -1 if steps.pending else steps.known
        ask(self.memory[turn], asked, known, steps.known)
        decays = self._write_lines(self.memory[turn], lines)
        return self._judged(asked, zero, decays)

    def begin_foreseen(self, asked: Asked, zero: bool) -> tuple[Program, Verdict]:
        """The same of a step whose scalars are in the timetable."""
        check_rounding()
        assert self.timetable is not None
        self._clear(self.turn)
        ask(self.memory[self.turn], asked)
        return self._judged(asked, zero, self.timetable.decays)

    def _judged(
        self, asked: Asked, zero: bool, decays: tuple[bool, ...]
    ) -> tuple[Program, Verdict]:
        """The program of the step whose letter has been written, and its verdict."""
        turn, tensors = self.turn, self.tensors_of(asked)
        judged = Verdict(self.memory[turn], self.events[turn], tensors if asked.skips else 0)
        self.verdicts[turn] = judged
        self.turn = (turn + 1) % SLOTS
        return Program(turn, tensors, zero, asked.each, decays, asked.measured), judged

    def tensors_of(self, asked: Asked) -> int:
        """How many tensors are looked at by themselves."""
        return self.tensors if asked.skips or asked.each else 0

    def launches_of(self, program: Program) -> list[Go]:
        """The launches that judge a step whose squares have been summed, and take it."""
        letter = address(self.letters[program.turn])
        return self.launches_by(letter, program, [launch for _, launch in self.launches])

    def launches_by(self, letter: int, program: Program, launches: Sequence[Launch]) -> list[Go]:
        """The same by the letter at an address, and by these launches of the jobs."""
        clips = address(self.clips) if program.each else 0
        return [
            *self._judging(letter, program),
            *(
                launch.judged(joined, program.zero, clips, record)
                for launch, record, joined in zip(
                    launches, self.record_of, program.decays, strict=True
                )
            ),
        ]

    def _clear(self, turn: int) -> None:
        """Wait until a letter may be written anew, and read what it says."""
        last = self.verdicts[turn]
        if last is not None:
            last.read()

    def _write_lines(self, letter: memoryview, lines: Sequence[Line]) -> tuple[bool, ...]:
        """Write the jobs and their lines; whether the gradients of each are joined by decays."""
        at, decays = self.at_lines, []
        for k, (index, launch) in enumerate(self.launches):
            values = [{**scalars[index][0], **scalars[index][1]} for scalars, _ in lines]
            joined = any(map(has_decays, values))
            decays.append(joined)
            names, pick = launch.scalars(joined), launch.pick(joined)
            layout, job = layout_of(len(names)), 8 * (self.at_jobs + verdict.JOB * k)
            asked = names.index("unscale"), names.index("clip")
            size = launch.job.dtype.itemsize
            JOB.pack_into(letter, job, self.record_of[k], len(names), size, *asked, at)
            for each, (_, keys) in zip(values, lines, strict=True):
                layout.pack_into(letter, 8 * at, int(keys[index]), *pick(each))
                at += 1 + len(names)
        return tuple(decays)

    def _folding(self, tensors: int) -> tuple[list[Go], int, int]:
        """The launches that fold the sums of so many tensors, and of all but for the last levels.

        Where the sums are then that are left, and how many.
        """
        made = []
        sums, folded, count = address(self.sums), address(self.folded), self.blocks
        if tensors:
            kernel = device.kernel(totals.totals(), self.device.ordinal)
            arguments = sums, folded, address(self.starts), address(self.totals)
            made.append(Go(kernel, tensors, self.threads, arguments))
        while count > totals.MANY:
            kernel = device.kernel(totals.fold(), self.device.ordinal)
            blocks = -(-norm.SUMS * ((count + 1) // 2) // self.threads)
            made.append(Go(kernel, blocks, self.threads, (sums, folded, count)))
            sums, count = folded, (count + 1) // 2
        return made, sums, count

    def _judging(self, letter: int, program: Program) -> list[Go]:
        """The launches that judge a step whose squares have been summed."""
        made: list[Go] = []
        tensors, sums, count = program.tensors, address(self.sums), 0
        if program.measured:
            made, sums, count = self._folding(tensors)
        timetable = self.timetable
        jobs = letter + 8 * self.at_jobs if timetable is None else timetable.at
        arguments = (
            *(letter, sums, address(self.folded), count),
            *(address(self.totals), address(self.kinds), tensors),
            *(jobs, len(self.launches)),
            *(address(self.taken), address(self.clips)),
        )
        return [*made, Go(self.kernel, 1, self.threads, arguments)]
