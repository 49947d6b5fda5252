"""Steps that are judged where their gradients are: the letters to verdict.py, and its answers."""

from __future__ import annotations

from collections import deque
from collections.abc import Sequence
from functools import partial
from typing import Any, NamedTuple

import numpy as np

from fusedstep._arrays.at_once import Call
from fusedstep._arrays.plain import address
from fusedstep._backends.cuda import device, totals, verdict
from fusedstep._backends.cuda.device import Device
from fusedstep._backends.cuda.kernels import VALUES
from fusedstep._backends.cuda.launches import Launch, has_decays
from fusedstep._backends.plan import Asked, Keys, Line
from fusedstep._numerics import norm
from fusedstep._numerics.coefficients import JobScalars
from fusedstep._numerics.rounding import check_rounding

SLOTS = 8
"""How many judged steps the host may be ahead of the device."""

FIRST = list.__getitem__


class Answer(NamedTuple):
    """The verdict on a step."""

    norm: float
    clip: float
    skipped: bool
    taken: int
    """The steps that the table has taken then."""
    unfit: tuple[int, ...]
    """The rows whose gradients are not finite, if the step is skipped for them."""


class Verdict:
    """The verdict on a step that may be still to come: to read it waits."""

    def __init__(self, letter: Any, event: Any, tensors: int) -> None:
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
            self.event.wait()
            letter, floats = self.letter, self.letter.view(np.float64)
            unfit = letter[verdict.UNFIT : verdict.UNFIT + self.tensors]
            self.answer = Answer(
                float(floats[verdict.NORM]),
                float(floats[verdict.CLIP]),
                bool(letter[verdict.LEFT_OUT]),
                int(letter[verdict.TAKEN]),
                tuple(np.flatnonzero(unfit).tolist()),
            )
        return self.answer


class Steps(list[int]):
    """A count of steps, as its only item: to read it waits for those that are not judged yet."""

    def __init__(self) -> None:
        super().__init__([0])
        self.pending: deque[Verdict] = deque()
        """Verdicts on steps that may have been left out, in order."""

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
        while self.pending and (len(self.pending) >= SLOTS or self.pending[0].is_there()):
            self._settle_first()
        return len(self.pending)

    def _settle_first(self) -> None:
        # In this order, so that whoever is interrupted here begins again.
        list.__setitem__(self, 0, self.pending[0].read().taken)
        self.pending.popleft()

    def counting(self, count: int) -> Call:
        """The call that sets the count."""
        return partial(list.__setitem__, self, 0, count)


class Judge:
    """What a table needs for judged steps, made with the first of them."""

    def __init__(
        self,
        where: Device,
        launches: Sequence[tuple[int, Launch]],
        sums: Any,
        first_sums: Any,
        places: Sequence[tuple[int, bool]],
        taken: Any,
    ) -> None:
        """`places` has the place of each tensor in the table, and whether it is of float64."""
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
        self.at_jobs = verdict.UNFIT + self.tensors
        self.at_lines = self.at_jobs + verdict.JOB * len(launches)
        room = self.at_lines + (SLOTS + 1) * sum(1 + count for count in counts)
        with where.current():
            self.letters = device.driver.pinned((SLOTS, room))
            self.events = [device.driver.Event() for _ in range(SLOTS)]
            self.kernel = device.kernel(verdict.module(self.threads), where.ordinal)
        self.verdicts: list[Verdict | None] = [None] * SLOTS
        self.turn = 0

    def calls(
        self, stream: int, lines: Sequence[Line], asked: Asked, zero: bool, steps: Steps
    ) -> tuple[list[Call], Verdict]:
        """The calls that judge and take a step whose squares have been summed, and the verdict.

        The first of `lines` is for the step after those that are known, the others for it if the
        pending ones were taken.
        """
        check_rounding()
        turn = self.turn
        self._clear(turn)
        letter = self.letters[turn]
        known = -1 if steps.pending else steps.known
        tensors = self.tensors if asked.skips or asked.each else 0
        self._ask(letter, asked, known, steps.known)
        decays = self._write_lines(letter, lines)
        judged = Verdict(letter, self.events[turn], tensors if asked.skips else 0)
        self.verdicts[turn] = judged
        calls = self._judging(stream, letter, tensors)
        clips = address(self.clips) if asked.each else 0
        for (_, launch), record, joined in zip(self.launches, self.record_of, decays, strict=True):
            calls.append(launch.judged(stream, joined, zero, clips, record))
        calls.append(self.events[turn].recording(stream))
        self.turn = (turn + 1) % SLOTS
        return calls, judged

    def _clear(self, turn: int) -> None:
        """Wait until a letter may be written anew, and read what it says."""
        last = self.verdicts[turn]
        if last is not None:
            last.read()
        self.verdicts[turn] = None

    @staticmethod
    def _ask(letter: Any, asked: Asked, known: int, base: int) -> None:
        letter.view(np.float64)[: verdict.SKIPS] = asked.scale, asked.max_norm
        letter[verdict.SKIPS : verdict.NORM] = (
            *(asked.skips, asked.each, known, base),
            *(asked.scale_at, asked.found_at),
        )

    def _write_lines(self, letter: Any, lines: Sequence[Line]) -> list[bool]:
        """Write the jobs and their lines; whether the gradients of each are joined by decays."""
        floats, at, decays = letter.view(np.float64), self.at_lines, []
        for k, (index, launch) in enumerate(self.launches):
            values = [{**scalars[index][0], **scalars[index][1]} for scalars, _ in lines]
            joined = any(map(has_decays, values))
            decays.append(joined)
            names = launch.scalars(joined)
            pick, count = launch.pick(joined), len(names)
            job = self.at_jobs + verdict.JOB * k
            size = launch.job.dtype.itemsize
            asked = names.index("unscale"), names.index("clip")
            letter[job : job + verdict.JOB] = self.record_of[k], at, count, size, *asked
            for each, (_, keys) in zip(values, lines, strict=True):
                letter[at] = keys.view(np.int64)[index]
                floats[at + 1 : at + 1 + count] = pick(each)
                at += 1 + count
        return decays

    def _folding(self, stream: int, tensors: int) -> tuple[list[Call], int, int]:
        """The calls that fold the sums of so many tensors, and of all but for the last levels.

        Where the sums are then that are left, and how many.
        """
        calls = []
        sums, folded, count = address(self.sums), address(self.folded), self.blocks
        if tensors:
            kernel = device.kernel(totals.totals(), self.device.ordinal)
            arguments = sums, folded, address(self.starts), address(self.totals)
            calls.append(kernel.launching(tensors, self.threads, stream, arguments))
        while count > totals.MANY:
            kernel = device.kernel(totals.fold(), self.device.ordinal)
            blocks = -(-norm.SUMS * (count + 1) // 2 // self.threads) + 1
            calls.append(kernel.launching(blocks, self.threads, stream, (sums, folded, count)))
            sums, count = folded, (count + 1) // 2
        return calls, sums, count

    def _judging(self, stream: int, letter: Any, tensors: int) -> list[Call]:
        """The calls that judge a step whose squares have been summed."""
        calls, sums, count = self._folding(stream, tensors)
        at = address(letter)
        arguments = (
            *(at, sums, address(self.folded), count, address(self.totals), address(self.kinds)),
            *(tensors, at + 8 * self.at_jobs, len(self.launches)),
            *(address(self.taken), address(self.clips)),
        )
        calls.append(self.kernel.launching(1, self.threads, stream, arguments))
        return calls


def line(scalars: Sequence[JobScalars], keys: Keys) -> Line:
    """Scalars and keys of a step, as copies that later ones do not change."""
    return [(constants, dict(values)) for constants, values in scalars], keys.copy()
