"""A step as it is laid out: its rows, their jobs, and the scratch that is copied around it."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from functools import partial
from math import inf
from operator import setitem
from typing import Any, NamedTuple, Protocol, TypeAlias, cast

import numpy as np

from fusedstep._arrays.at_once import Call, at_once
from fusedstep._arrays.dtypes import compute_dtype
from fusedstep._arrays.overlap import WrittenMemory
from fusedstep._arrays.place import Place
from fusedstep._arrays.plain import address
from fusedstep._arrays.walk import Array, Operand, Walk
from fusedstep._backends.slices import Scalars, Touched
from fusedstep._numerics import norm, variants
from fusedstep._numerics.coefficients import JobScalars, Rule, Values
from fusedstep._numerics.rounding import check_rounding
from fusedstep._numerics.storage import Draw

MOST_STATES = 8
"""The most state arrays of one rule: a row of csrc/api.h has room for so many."""


MISSED, STEPPED = -2, -3
"""Returned in place of a count of gradients: arrays do not lie as those before; the step is done.

No memory is needed for them, as it may be for a count: what is done must not end in an error.
"""

ALL = slice(None)
"""The index of a whole list."""

Keys: TypeAlias = np.ndarray[Any, np.dtype[np.uint64]]


def new_keys(jobs: Sequence[Any]) -> Keys:
    """Room for the keys of random bits, one for each job."""
    return np.zeros(len(jobs), np.uint64)


class Held(NamedTuple):
    """How rows hold an operand in fewer bytes than the kernel's float32."""

    format: str
    """The name of its format in `STORAGES`."""
    draw: Draw | None = None
    """The random bits by which it is rounded; None: it is rounded to the nearest."""


class Storages(NamedTuple):
    """How the rows of a job hold p, g and the state arrays; None: as the kernel reads them."""

    p: Held | None
    g: Held | None
    states: tuple[Held | None, ...]

    @property
    def in_order(self) -> bool:
        """Whether the order of elements decides about bits: by random ones, or in blocks."""
        held = [each.format for each in self.states if each is not None]
        return self.streams > 0 or not {"signed8", "unsigned8"}.isdisjoint(held)

    @property
    def streams(self) -> int:
        """The streams of random bits that they are rounded by."""
        draws = (each.draw for each in (self.p, *self.states) if each is not None)
        return max((draw.stream + 1 for draw in draws if draw is not None), default=0)


class Job(NamedTuple):
    """The kernel of all rows of the same hyperparameters, step count, dtype and formats."""

    rule: Rule
    dtype: np.dtype[Any]
    """The dtype that the kernel computes in."""
    storages: Storages | None = None
    """None: all operands are as the kernel reads them."""

    @property
    def kernel(self) -> Job:
        """The job with the same kernel whose operands are as that reads them."""
        return self if self.storages is None else Job(self.rule, self.dtype)


class Scaler(NamedTuple):
    """Numbers of a GradScaler's in the memory of the device, each a float32; see torch.amp."""

    scale: int
    """The address of what gradients are divided by; 0: that is known on the host."""
    found: int
    """The address of what is not 0 if the step is to be left out; 0: it is not."""


class Asked(NamedTuple):
    """The wishes of a step besides its rule, where it is judged by its gradients' norm."""

    scale: float = 1.0
    max_norm: float = inf
    skips: bool = False
    """Whether it is left out if a gradient is not finite."""
    each: bool = False
    """Whether each gradient is clipped by its own norm."""
    max_value: float = inf
    measured: bool = True
    """Whether its norm is asked for, or whether it is finite."""
    scaler: Scaler | None = None

    @property
    def is_uncertain(self) -> bool:
        """Whether it may be left out."""
        return self.skips or self.scaler is not None


class Foreseen(NamedTuple):
    """The steps to come, as far as they are known without the learning rate, see of_rate.py."""

    constants: Callable[[int], Values]
    """The scalars of a job, by its index, that are the same in all steps."""
    lines: Callable[[int, int], Iterable[Values]]
    """The others, step by step, for the steps after so many."""
    key: Callable[[int, int], int | None]
    """The key of the random bits of a job in the step after so many; None: it needs none."""
    far: Callable[[int], Values | None]
    """The others beyond any step, if they are known to be the same from some t on."""


Line: TypeAlias = tuple[Sequence[JobScalars], Keys]
"""The scalars of a step, job by job, and the keys of its random bits."""


class Watched(NamedTuple):
    """An array of the user's as it was found, for `Table.stands`."""

    array: Any
    place: Place
    where: tuple[int, Any]
    """The address of its first element, and its shape, strides and dtype; see `Place.where`."""

    @classmethod
    def at(cls, place: Place, array: Any) -> Watched:
        """An array at a place, as it is now."""
        return cls(array, place, place.where(array))

    def stands(self) -> bool:
        """Whether it is as it was found."""
        return bool(self.place.where(self.array) == self.where)


class Rest(NamedTuple):
    """The second arrays of a row's operands: see `Storage.parts`."""

    p: Operand | None
    states: tuple[Operand | None, ...]


class Row:
    """One tensor: a parameter, its state in the order of the rule's letters, its average.

    `operand` gives the operand of a state array by its letter. `array` is the user's own array
    of the parameter, which has to stay as it was found; None where there is none.
    """

    __slots__ = (
        *("array", "by_slices", "cells", "ema", "exposed", "gradients", "job", "ordinal"),
        *("p", "rest", "rule", "sheltered", "states", "walk"),
    )

    def __init__(
        self,
        p: Operand,
        walk: Walk,
        rule: Rule,
        operand: Callable[[str], Operand],
        job: int = 0,
        array: Any = None,
        gradients: type = np.ndarray,
        exposed: Sequence[Watched] = (),
        sheltered: Sequence[Watched] = (),
        cells: Sequence[tuple[Array, int]] = (),
        rest: Rest | None = None,
        ordinal: int = 0,
        by_slices: bool = False,
    ) -> None:
        self.job = job
        self.by_slices = by_slices
        """Whether each of its gradients has to be looked at: it is stepped by slices."""
        self.array = array
        self.gradients = gradients
        """The type of arrays that its gradients are expected to be."""
        self.exposed = exposed
        """Further arrays that have to stay as they were found, and that anybody may change."""
        self.sheltered = sheltered
        """The same of arrays that only some can reach."""
        self.cells = cells
        """Arrays of one number that a step leaves there, and which of its job's numbers it is."""
        self.rest = rest
        """The second arrays of operands in formats that have two; None: there are no formats."""
        self.ordinal = ordinal
        """The number of the tensor among all, which its random bits depend on."""
        self.rule = rule
        self.walk = walk
        self.p = p
        self.states = [None if letter is None else operand(letter) for letter in rule.letters]
        self.ema = operand("ema") if rule.averaged else None

    @property
    def written(self) -> list[Operand]:
        """The operands that a step writes."""
        rest = () if self.rest is None else (self.rest.p, *self.rest.states)
        all_of_them = self.p, *self.states, self.ema, *rest
        return [each for each in all_of_them if each is not None]

    def stands(self, everything: bool) -> bool:
        """Whether exposed arrays, or both kinds, are as they were found."""
        watched = (*self.exposed, *self.sheltered) if everything else self.exposed
        return all(each.stands() for each in watched)


class Table(Protocol):
    """A step in the form that its backend runs; `rows` has None for a parameter that it skips."""

    selects: bool
    """Whether it has `select`."""

    aims: bool
    """Whether it is `Aimable`."""

    reads_rows: bool
    """Whether it takes gradients of rows by itself, by the scalars that it was given last."""

    judges: bool
    """Whether it has `judging`."""

    captures: bool
    """Whether it is `Capturable`."""

    @property
    def moves(self) -> int:
        """A count that rises whenever a gradient is in other memory than the one before."""

    @property
    def steps(self) -> Sequence[int]:
        """One count, of the steps that the table has run: it rises with what they write."""

    @property
    def known_steps(self) -> int:
        """The count of steps before all that are pending."""

    def uncertain(self) -> int:
        """How many steps after these may have been left out, as far as is known by now."""

    @property
    def clips(self) -> Sequence[float]:
        """The factors that `clip_each` found, row by row."""

    @property
    def numbers(self) -> Array:
        """The numbers of the next step for the rows' cells, job by job, to be written before it."""

    @property
    def keys(self) -> Keys:
        """The keys of the next step's random bits, one for each job, to be written before it."""

    def __init__(
        self, jobs: Sequence[Job], rows: Sequence[Row | None], written: WrittenMemory
    ) -> None: ...

    def select(self, jobs: Sequence[Job], rows: Sequence[Row | None]) -> None:
        """Step by these jobs those of the table's rows that are given, and count from 0."""

    def set_gradient(self, index: int, g: Array, operand: Operand, given: Any) -> None:
        """Use `g`, the checked view of the user's `given`, as the gradient of that parameter."""

    @staticmethod
    def scalars_of(job: Job) -> tuple[str, ...]:
        """The names of a job's scalars, in the order of the lines in `slices.Scalars`."""

    def touch(self, index: int, touched: Touched) -> None:
        """Step these slices of that parameter, once, in the place of the whole of it."""

    def refresh(self, index: int, scalars: Scalars) -> None:
        """Step slices of that parameter by these scalars, if it takes their gradients by itself."""

    def catching_up(self) -> Sequence[Call]:
        """The calls that take the steps which the slices touched have missed."""

    def stands(self, everything: bool) -> bool:
        """Whether exposed arrays are as they were found, and cells hold what was left there.

        And if everything is asked for, whether sheltered arrays are.
        """

    def take(self, grads: list[Any], start: int, zero: bool) -> int:
        """Use `grads`, from `start` on, up to the first that needs a check.

        Returns the index of that one, or their number. `zero` says that they are to be written.
        """

    def measure(self, scale: float, max_norm: float) -> norm.Measured:
        """Measure all gradients together, by the sums of squares of their blocks."""

    def clip_each(self, scale: float, max_norm: float) -> float:
        """Find the factor that clips each row's gradient by its own norm, and return the smallest.

        `measure` has been called before.
        """

    def unfit(self, unscale: float) -> Iterator[int]:
        """Places of rows whose gradient was not finite when it was measured, or unscaled is not.

        They are counted without the parameters that are skipped.
        """

    def calls(
        self, scalars: Sequence[JobScalars], zero: bool, each: bool = False
    ) -> Sequence[Call]:
        """The calls that write one step and count it, with the scalars of each job.

        Nothing is written before. `zero` says that they fill the gradients with zeros, `each`
        that each gradient is clipped by the factor that `clip_each` found for its row.
        """

    def judging(
        self, lines: Sequence[Line], asked: Asked, zero: bool
    ) -> tuple[Sequence[Call], Any]:
        """The calls that measure the gradients, judge a step by them and take it or leave it out,
        and its verdict, see judging.py. Nobody waits for that.

        The first of `lines` is for the step that comes after those that are known, the others for
        it if the pending ones were taken. A table that `captures` has no need of them.
        """

    def count_with(self, other: Any) -> None:
        """Count the steps of this table where the other, of the same type, counts its own."""

    def take_and_run(self, grads: list[Any], scalars: Sequence[JobScalars]) -> int:
        """Take the gradients from the first on, and run without zeros if none needs a check.

        Returns STEPPED then, else what `take` does, or another number below 0 where arithmetic
        does not round to nearest.
        """

    def let_go(self, indices: Iterable[int]) -> None:
        """Hold no gradient any more; those of some parameters need a check in any case."""


class OnHost(Table, Protocol):
    """A table over arrays in the memory of the CPU, whose steps may be in flight."""

    def fits(self, grads: list[Any], start: int, zero: bool) -> int:
        """Look at `grads` as `take` does, and return what it would, but use none of them.

        It may be called while another thread runs a step. It stops at gradients of rows, too, and
        where zeros would be written to other memory than before.
        """


class Judging(Table, Protocol):
    """A table that `judges`."""

    def leaving(self) -> Sequence[Call]:
        """The calls that write their numbers into the rows' cells, without a step.

        A step that may be left out does not: nobody knows its count yet.
        """


class Capturable(Table, Protocol):
    """A table whose steps may be part of a CUDA graph, which repeats them without the host.

    All of them are judged where they run, by scalars that were foreseen, and counted there.
    """

    @property
    def is_captured(self) -> bool:
        """Whether a graph has a step of the table."""

    def runs_out(self) -> bool:
        """Whether further steps have to be foreseen soon, as far as is known without a wait."""

    def foresee(self, foreseen: Foreseen) -> None:
        """Take these steps for those to come; this waits for those that were asked for."""

    def rate(self, rates: Sequence[float]) -> None:
        """Take the learning rate of each job for all steps that are asked for from now on."""

    def refuse_gaps(self, index: int, laid: Array) -> None:
        """Refuse the gradient of a parameter that would have to be copied, while a graph records.

        `laid` is its view along the walk.
        """

    def refuse_lost(self) -> None:
        """Refuse to go on if a graph was run for more steps than were foreseen."""


class Aimable(Table, Protocol):
    """A table of one row that can be aimed at other arrays than it was made for."""

    @staticmethod
    def layout_of(arrays: list[Any]) -> bytes | None:
        """A key that is equal for arrays that a table can be aimed at, one after the other.

        These have the same types, dtypes, shapes and strides; small plain ones may have another
        shape of as many axes. None if a table could not be aimed at them.
        """

    def aim_by(self, types: Sequence[type], views: Sequence[Array]) -> None:
        """Have the one row of the table aimed at other arrays from now on.

        `views` describe those that it was made for, p and states, which are of these types.
        """

    def aim(self, arrays: list[Any]) -> bool:
        """Aim at the user's arrays; False, and nothing done, if they do not lie as those before."""

    def aim_and_run(
        self, arrays: list[Any], grads: list[Any], scalars: Sequence[JobScalars]
    ) -> int:
        """Aim at the arrays, take the gradient, and run if it needs no check.

        Returns what `take_and_run` does, or MISSED if `aim` fails.
        """


class Cells:
    """The cells of a table's rows: numbers that the user can read, and that each step leaves."""

    def __init__(self, jobs: Sequence[Job], rows: Sequence[Row]) -> None:
        width = 1 + max((which for row in rows for _, which in row.cells), default=-1)
        self.arrays = [array for row in rows for array, _ in row.cells]
        self.which = [width * row.job + which for row in rows for _, which in row.cells]
        """The index of each one's number in `numbers`, as if that were flat."""
        self.numbers = np.zeros((len(jobs), width))
        """See `Table.numbers`."""
        self.left = [array.item() for array in self.arrays]
        """The numbers that they were found with, or that the last step left there."""
        self.reads = [array.item for array in self.arrays]
        self.fills = [array.fill for array in self.arrays]
        kinds = [(which, a.dtype) for which, a in zip(self.which, self.arrays, strict=True)]
        self.kinds = [*dict.fromkeys(kinds)]
        """The numbers that are written, in each dtype once: there are far fewer than cells."""
        place = {kind: at for at, kind in enumerate(self.kinds)}
        self.kind_of = [place[kind] for kind in kinds]

    def stand(self) -> bool:
        """Whether they hold what was left there."""
        return [read() for read in self.reads] == self.left

    def writing(self) -> list[Call]:
        """The calls that write their numbers."""
        rounded = [dtype.type(self.numbers.flat[which]).item() for which, dtype in self.kinds]
        values = [rounded[kind] for kind in self.kind_of]
        return [*map(partial, self.fills, values), partial(setitem, self.left, ALL, values)]


class CheckedTable:
    """Base of tables that check every gradient at every step."""

    selects = aims = reads_rows = judges = captures = False

    def __init__(self, jobs: Sequence[Job], rows: Sequence[Row | None]) -> None:
        self.jobs = jobs
        self.rows = rows
        self.present = [row for row in rows if row is not None]
        self.moves = 0
        self.steps = [0]
        self.cells = Cells(jobs, self.present)
        self.numbers = self.cells.numbers
        self.keys = new_keys(jobs)
        self.sums = np.zeros((0, norm.SUMS))
        """The sums of the blocks of the gradients that were measured."""
        self.clips: list[float] = []
        """The factor that clips the gradient of each row, as `clip_each` found them."""
        self.known: list[Any] = [None] * len(rows)
        self.kept: list[Array | None] = [None] * len(rows)
        """Gradients that may be copies, whose memory nobody else holds: these are read-only."""
        self.touched: list[Touched | None] = [None] * len(rows)
        """The slices that the next step touches, of the parameters that it takes by slices."""

    @staticmethod
    def scalars_of(job: Job) -> tuple[str, ...]:
        return variants.step(job.rule).scalars

    def touch(self, index: int, touched: Touched) -> None:
        self.touched[index] = touched
        self.moves += 1

    def refresh(self, index: int, scalars: Scalars) -> None:
        """Nothing: each gradient of rows is looked at."""

    def catching_up(self) -> Sequence[Call]:
        raise NotImplementedError

    def set_gradient(self, index: int, g: Array, operand: Operand, given: Any) -> None:
        self.touched[index] = None
        self.kept[index] = None if g.flags.writeable else g
        where = address(g), g.strides
        if self.known[index] != where:
            self.known[index] = where
            self.moves += 1

    def stands(self, everything: bool) -> bool:
        return all(row.stands(everything) for row in self.present) and self.cells.stand()

    def take(self, grads: list[Any], start: int, zero: bool) -> int:
        for index in range(start, len(grads)):
            if grads[index] is not None or self.rows[index] is not None:
                return index
        return len(grads)

    def fits(self, grads: list[Any], start: int, zero: bool) -> int:
        return CheckedTable.take(self, grads, start, zero)

    def take_and_run(self, grads: list[Any], scalars: Sequence[JobScalars]) -> int:
        taken = self.take(grads, 0, False)
        if taken < len(grads):
            return taken
        at_once(self.calls(scalars, False))
        return STEPPED

    def let_go(self, indices: Iterable[int]) -> None:
        self.kept = [None] * len(self.rows)
        self.touched = [None] * len(self.rows)

    def clip_each(self, scale: float, max_norm: float) -> float:
        self.clips = clips_of(self.present, self.sums, scale, max_norm)
        return norm.smallest(self.clips)

    def unfit(self, unscale: float) -> Iterator[int]:
        return unfit_rows(self.present, self.sums, unscale)

    def calls(
        self, scalars: Sequence[JobScalars], zero: bool, each: bool = False
    ) -> Sequence[Call]:
        raise NotImplementedError

    @property
    def known_steps(self) -> int:
        return self.steps[0]

    def uncertain(self) -> int:
        return 0

    def judging(
        self, lines: Sequence[Line], asked: Asked, zero: bool
    ) -> tuple[Sequence[Call], Any]:
        raise NotImplementedError

    def count_with(self, other: CheckedTable) -> None:
        self.steps = other.steps

    def select(self, jobs: Sequence[Job], rows: Sequence[Row | None]) -> None:
        raise NotImplementedError

    def counted(self) -> list[Call]:
        """The calls that count a step, after those that write it."""
        return [*self.cells.writing(), partial(setitem, self.steps, 0, self.steps[0] + 1)]


class Plan:
    """A table, and the scratch around it, which one step after another runs."""

    def __init__(
        self,
        table: type[Table],
        jobs: Sequence[Job],
        rows: Sequence[Row | None],
        written: WrittenMemory,
    ) -> None:
        self.rows = rows
        """The rows of the parameters that step."""
        self.at = [index for index, row in enumerate(rows) if row is not None]
        """The parameter of each of the table's rows."""
        self.kind = table
        self.table = table(jobs, rows, written)
        self._count()
        self.stands = self.table.stands
        self.take = self.table.take
        self.measure = self.table.measure
        self.scratch = self._scratch()
        """The operands with gaps that a step writes."""
        self.gradient_scratch: dict[int, Operand] = {}
        self.touched: dict[int, Touched] = {}
        """The parameters that the next step takes by slices."""
        self.holding = False
        """Whether gradients are held: those with gaps, and copies."""
        self.at_once = next((row.walk.place.at_once for row in rows if row), at_once)

    def select(self, jobs: Sequence[Job], rows: Sequence[Row | None]) -> None:
        """Step by these jobs those rows that are given; see `Table.select`."""
        self.let_go()
        self.table.select(jobs, rows)
        self.rows = rows
        self._count()
        self.scratch = self._scratch()

    def _count(self) -> None:
        self.steps = self.table.steps
        self.numbers = self.table.numbers
        self.keys = self.table.keys

    def _scratch(self) -> list[Operand]:
        return [operand for row in self.rows if row for operand in row.written if operand.scratch]

    @property
    def moves(self) -> int:
        """See `Table.moves`."""
        return self.table.moves

    @property
    def known(self) -> int:
        """The steps that are known to have been taken, before all that are pending."""
        return self.table.known_steps

    def uncertain(self) -> int:
        """How many further ones may have been left out."""
        return self.table.uncertain()

    def fits(self, grads: list[Any], start: int, zero: bool) -> int:
        """See `OnHost.fits`."""
        return cast(OnHost, self.table).fits(grads, start, zero)

    def set_gradient(self, index: int, g: Array, given: Any = None) -> None:
        """Use `g` as the gradient of that parameter.

        It has been checked. `given` is the user's array that it is the view of; None: `g` itself.
        """
        row = self.rows[index]
        assert row is not None
        if self.kind.captures:
            cast(Capturable, self.table).refuse_gaps(index, row.walk.lay(g))
        self.touched.pop(index, None)
        operand = Operand(g, row.walk, self.gradient_scratch.pop(index, None))
        if operand.scratch:
            self.gradient_scratch[index] = operand
        self.holding |= operand.scratch or not g.flags.writeable
        self.table.set_gradient(index, g, operand, g if given is None else given)

    def touch(self, index: int, touched: Touched) -> None:
        """Step these slices of that parameter, once; see `Table.touch`."""
        self.gradient_scratch.pop(index, None)
        self.holding = True
        self.table.touch(index, touched)
        self.touched[index] = touched  # last: what is here the table has, whatever interrupts

    def catch_up(self) -> None:
        """Take the steps that the slices touched have missed, wholly or not at all."""
        for operand in self.scratch:
            operand.fetch()
        calls = [*self.table.catching_up()]
        for operand in self.scratch:
            calls += operand.put_back()
        if self.at_once(calls):
            check_rounding()

    def take_and_run(self, grads: list[Any], scalars: Sequence[JobScalars]) -> int:
        """See `Table.take_and_run`."""
        if not self.scratch and not self.gradient_scratch:
            return self.table.take_and_run(grads, scalars)
        taken = self.table.take(grads, 0, False)
        if taken < len(grads):
            return taken
        self.fetch_gradients()
        self.run(scalars)
        return STEPPED

    def fetch_gradients(self) -> None:
        """Copy the gradients that have gaps to scratch, which `measure` and `run` read."""
        for index, operand in self.gradient_scratch.items():
            if self.rows[index] is not None:
                operand.fetch()

    def let_go(self) -> None:
        """Hold no gradient any more, so that its memory is free as soon as its owner wishes."""
        self.touched.clear()
        self.table.let_go(self.gradient_scratch)
        for operand in self.gradient_scratch.values():
            operand.let_go()
        self.holding = False

    def forget_gradients(self) -> None:
        """Hold no gradient any more, nor scratch for one: the next may have another shape."""
        self.let_go()
        self.gradient_scratch.clear()

    def clip_each(self, scale: float, max_norm: float) -> norm.Measured:
        """Measure the gradients, of which each is to be clipped by its own norm."""
        measured = self.measure(scale, inf)
        return measured._replace(clip=self.table.clip_each(scale, max_norm))

    def clip_of(self, index: int) -> float:
        """The factor that `clip_each` found for the gradient of that parameter."""
        return float(self.table.clips[self.at.index(index)])

    def count_with(self, other: Plan) -> None:
        """Count the steps of this plan as the other's."""
        self.table.count_with(other.table)
        self.steps = self.table.steps

    def run(self, scalars: Sequence[JobScalars], zero: bool = False, each: bool = False) -> None:
        """Run one step, wholly or not at all; see `calls`."""
        if self.at_once(self.calls(scalars, zero, each)):
            check_rounding()

    def calls(
        self, scalars: Sequence[JobScalars], zero: bool = False, each: bool = False
    ) -> Sequence[Call]:
        """See `Table.calls`; what has gaps is copied back from its scratch."""
        for operand in self.scratch:
            operand.fetch()
        return [*self.table.calls(scalars, zero, each), *self._putting_back(zero)]

    def judge(self, lines: Sequence[Line], asked: Asked, zero: bool) -> Any:
        """Take a step if its gradients allow it, and return its verdict; see `Table.judging`."""
        for operand in self.scratch:
            operand.fetch()
        calls, verdict = self.table.judging(lines, asked, zero)
        self.at_once([*calls, *self._putting_back(zero)])
        return verdict

    def _putting_back(self, zero: bool) -> list[Call]:
        """The calls that copy what has gaps back from its scratch."""
        calls: list[Call] = []
        for operand in self.scratch:
            calls += operand.put_back()
        if zero:
            for operand in self.gradient_scratch.values():
                calls += operand.put_back()
            for index, touched in self.touched.items():
                calls += self.rows[index].walk.place.clearing(touched.given)  # type: ignore[union-attr]
        return calls

    def unfit(self, unscale: float) -> Iterator[int]:
        """Indices of parameters whose gradient is not finite, or would not be when unscaled.

        They are judged as they were measured last.
        """
        return (self.at[place] for place in self.table.unfit(unscale))


def unfit_rows(rows: Sequence[Row], sums: Array, unscale: float) -> Iterator[int]:
    """Places of rows whose gradients are unfit; `sums` has those of their blocks, row by row."""
    for place, (row, total) in enumerate(zip(rows, _totals(rows, sums), strict=True)):
        if not norm.fits(total, unscale, compute_dtype(row.p.flat.dtype)):
            yield place


def clips_of(rows: Sequence[Row], sums: Array, scale: float, max_norm: float) -> list[float]:
    """The factor that clips the gradient of each row by its own norm; `sums` as above."""
    return norm.factors(_totals(rows, sums), scale, max_norm)


def _totals(rows: Sequence[Row], sums: Array) -> Iterator[norm.Total]:
    return norm.totals(sums, [row.p.flat.size for row in rows])
