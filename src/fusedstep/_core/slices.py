"""A parameter that is stepped by rows: how many steps each has taken, and what it has missed."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from math import inf, isfinite
from typing import Any

import numpy as np

from fusedstep._arrays.dtypes import HALVES
from fusedstep._arrays.overlap import WrittenMemory
from fusedstep._arrays.place import Host, Place
from fusedstep._arrays.walk import Array
from fusedstep._backends.plan import Job, Plan, Row, Table
from fusedstep._backends.slices import Calm, Integers, Scalars, Touched
from fusedstep._core.declaration import Declaration
from fusedstep._core.rows import Seen
from fusedstep._numerics import norm
from fusedstep._numerics.coefficients import JobScalars, Rule, Values
from fusedstep._numerics.coefficients import Scalars as Neutral
from fusedstep._numerics.storage import STORAGES

ROW_T = "row_t"
"""The entry of states and state dicts that has the t of each row."""

LONGEST = 4096
"""Steps that slices may miss: then all are caught up. A line of scalars takes 84 bytes for
float32, so that those of this many fit into the second cache."""

MOST_LINES = 65536
"""Lines of scalars for slices with a t of their own; then those in use are computed anew."""

AHEAD = 32
"""Lines for slices with a t of their own that are computed ahead."""

FAST = 1.05
"""A growth of the rate in one step after which what is calm begins anew."""

NEUTRAL = Neutral()._asdict()

VARYING = ("lr", "r", "r2", "eps", "decay", "unscale", "clip", "most", "gain")
"""Scalars that may differ from step to step where these are calm."""


class Slices:
    """The slices of one parameter, in the way in which its group has them stepped."""

    def __init__(self, shape: Sequence[int], untouched: str, row_steps: str, t: int) -> None:
        self.n = shape[0]
        self.width = int(np.prod(shape[1:], dtype=np.int64))
        self.exact = untouched == "exact"
        self.own = not self.exact and row_steps == "own"
        self.begun = t
        """The t of the parameter before its first step by rows; -1 if that was in another run."""
        self.counts: Integers | None = None
        """The steps that each has taken; None where they share the parameter's."""
        if self.exact or self.own:
            self.counts = np.full(self.n, t, np.int64)
        self.past: Past | None = None
        """The scalars of steps that may have been missed."""
        self.lines: Lines | None = None
        """The scalars of single slices' steps."""
        self.rule: Rule | None = None
        """The rule of its last step."""
        self.plan: Plan | None = None
        """A plan of this parameter alone, which catches up; None until it is asked for."""
        self.planned: tuple[Row, Rule] | None = None
        """The row that it has, and the rule that it goes by."""

    def row_t(self, t: int) -> Integers | None:
        """The t of each row, if they have their own and have begun to count; t: the parameter's."""
        return self.counts if self.own and t > self.begun else None

    def touched(
        self, seen: Seen, cohort: Any, declaration: Declaration, kind: type[Table]
    ) -> Touched:
        """The slices that have a gradient, as the next step of a cohort takes them."""
        self.rule = cohort.rule
        return Touched(
            self.width,
            seen.ids,
            seen.values,
            seen.starts,
            seen.places,
            self.counts,
            self._scalars(seen, cohort, declaration, kind),
            given=seen.given,
        )

    def _scalars(
        self, seen: Seen, cohort: Any, declaration: Declaration, kind: type[Table]
    ) -> Scalars | None:
        names = kind.scalars_of(Job(cohort.rule, cohort.dtype))
        if self.exact:
            if self.past is None or self.past.names != names:
                self.past = Past(names, cohort.dtype, cohort.t + 1)
            return self.past.scalars(cohort.t)
        if self.lines is None or self.lines.names != names:
            self.lines = Lines(names, cohort.dtype)
        if self.counts is not None:
            taken = self.counts if seen.ids is None else self.counts.take(seen.ids)
            return self.lines.of(taken + 1, cohort, declaration)
        return None if seen.ids is None else self._shared(cohort, declaration)

    def ready(self, cohort: Any, declaration: Declaration) -> Scalars | None:
        """The scalars of the next step, as far as they are known without its gradient."""
        if self.past is not None:
            return self.past.scalars(cohort.t)
        if self.lines is None:
            return None
        if self.counts is not None:
            return self.lines.known_now(cohort)
        return self._shared(cohort, declaration)

    def _shared(self, cohort: Any, declaration: Declaration) -> Scalars | None:
        """The scalars of slices that share the parameter's t, where they are not the job's."""
        if self.lines is None or "eps_uncorrected" not in cohort.group.hyperparameters:
            return None
        return self.lines.of_all(cohort, declaration, {"eps_uncorrected": True})

    def record(self, t: int, given: JobScalars, clip: float | None) -> None:
        """Note the scalars of step t, which is about to be taken; `clip` is the row's own."""
        if self.past is not None:
            values = {**given[0], **given[1]}
            if clip is not None:
                values["clip"] = clip
            self.past.record(t, values)

    @property
    def is_full(self) -> bool:
        """Whether all slices have to be caught up before another step."""
        return self.past is not None and self.past.is_full

    @property
    def is_behind(self) -> bool:
        """Whether slices may have missed steps."""
        return self.past is not None and self.past.coming > self.past.first

    def catch_up(self, ids: Integers | None, row: Row, cohort: Any, kind: type[Table]) -> None:
        """Take the steps that these slices have missed, or for None all of them."""
        if not self.exact or self.past is None or self.counts is None or self.rule is None:
            return
        planned = row, self.rule
        if self.plan is None or self.planned != planned:
            # A row serves all rules of the same state, and may have been made for another one.
            job, written = Job(self.rule, cohort.dtype), WrittenMemory(())
            self.plan, self.planned = Plan(kind, [job], [catching(row)], written), planned
        scalars = self.past.scalars(cohort.t)
        nothing = np.empty(0, cohort.dtype)
        touched = Touched(self.width, ids, nothing, counts=self.counts, scalars=scalars)
        self.plan.touch(0, touched)
        self.plan.catch_up()
        if ids is None:
            self.past.begin(cohort.t + 1)


def catching(row: Row) -> Row:
    """The same row for a plan of its own."""
    made = object.__new__(Row)
    for name in Row.__slots__:
        setattr(made, name, getattr(row, name))
    made.job = 0
    made.array = None
    made.exposed = made.sheltered = made.cells = ()
    return made


class Past:
    """The scalars of past steps, a line for each, and what they have in common."""

    def __init__(self, names: Sequence[str], dtype: np.dtype[Any], first: int) -> None:
        self.names = names
        self.table: Array = np.zeros((64, len(names)), dtype)
        self.begin(first)

    def begin(self, first: int) -> None:
        """Begin anew, with the line of step `first`."""
        self.first = self.coming = first
        self.calm = Calm(first)
        self.alike: Values | None = None
        """The scalars that the calm steps have the same; None: there are none yet."""
        self.sizes: dict[int, tuple[float, float, float]] = {}
        """The rate, r and eps of the last steps, by t: what an update goes by."""

    @property
    def is_full(self) -> bool:
        return self.coming - self.first >= LONGEST

    def scalars(self, t: int) -> Scalars:
        """The lines of the steps up to t."""
        return Scalars(self.table, None, self.first, t, self.calm)

    def record(self, t: int, values: Mapping[str, float]) -> None:
        """Put down the scalars of step t: once more, if it was not taken before."""
        line = t - self.first
        if line == len(self.table):
            self.table = np.concatenate([self.table, np.zeros_like(self.table)])
        rounded = line_of(self.names, values, self.table.dtype)
        self.table[line] = rounded
        self.coming = t + 1
        self._compare(t, {**NEUTRAL, **dict(zip(self.names, rounded.tolist(), strict=True))})

    def _compare(self, t: int, now: Values) -> None:
        """Let the calm go on with these scalars, or begin with them, or after them."""
        if not is_regular(now):
            self.calm, self.alike = Calm(t + 1), None
            return
        alike = {name: value for name, value in now.items() if name not in VARYING}
        sizes = now["lr"], min(now["r"], now["r2"] ** 0.5), now["eps"]
        # Not those of a step t that was put down before, and then not taken.
        lr, r, eps = before = self.sizes.get(t - 1, (0.0, 1.0, 0.0))
        self.sizes = {t - 1: before, t: sizes}
        growth = grown(lr, sizes[0]) * max(grown(sizes[1], r), grown(sizes[2], eps))
        if self.alike != alike or not growth <= FAST:
            self.calm, self.alike, growth = Calm(t, 1.0, inf, inf), alike, 1.0
        calm = self.calm
        self.calm = Calm(
            calm.start,
            max(calm.growth, growth),
            min(calm.least_decay, now["decay"]),
            min(calm.least_eps, now["eps"]),
        )


def grown(before: float, now: float) -> float:
    """The factor by which a number has grown that is not negative."""
    return now / before if before else inf if now else 1.0


def line_of(names: Sequence[str], values: Mapping[str, float], dtype: np.dtype[Any]) -> Array:
    """The scalars of these names, rounded once to the dtype."""
    known = {**NEUTRAL, **values}
    exact = np.array([known[name] for name in names], np.float64)
    if dtype == np.float64:
        return exact
    with np.errstate(all="ignore"):
        return exact.astype(dtype)


def is_regular(now: Values) -> bool:
    """Whether a gradient of 0 stays 0 under these scalars, and no rate is in the way."""
    finite = (now[name] for name in ("lr", "unscale", "clip", "gain", "r", "r2", "decay"))
    none_negative = all(isfinite(value) and value >= 0 for value in finite)
    return bool(none_negative and now["most"] >= 0 and now["l2"] == 0 and now["l1"] == 0)


class Lines:
    """The scalars of steps of single slices: a line for each t that one of them has."""

    def __init__(self, names: Sequence[str], dtype: np.dtype[Any]) -> None:
        self.names = names
        self.dtype = dtype
        self.unchanged = False
        """Whether the hyperparameters are those of the step before."""
        self.known: tuple[Any, Any] = (None, None)
        """The hyperparameters, and the rate among them, that the lines were computed by."""
        self._clear(64)

    def _clear(self, size: int) -> None:
        self.entries = np.full(size, -1, np.int32)
        self.table: Array = np.zeros((64, len(self.names)), self.dtype)
        self.n = 0

    def of(self, ts: Integers, cohort: Any, declaration: Declaration) -> Scalars:
        """The scalars of steps that are these ones of their slices."""
        self.known_now(cohort)
        values = cohort.group.hyperparameters
        lines = self.entries.take(ts)
        if not lines.size or lines.min() >= 0:
            return Scalars(self.table, self.entries)
        missing = np.unique(ts[lines < 0])
        if self.unchanged:  # then the next steps of the row that has taken most are likely to come
            missing = np.concatenate([missing, missing[-1] + np.arange(1, AHEAD)])
            missing = missing[self.entries[missing] < 0]
        if self.n + len(missing) > MOST_LINES:
            self._clear(len(self.entries))
            missing = np.unique(ts)
        while self.n + len(missing) > len(self.table):
            self.table = np.concatenate([self.table, np.zeros_like(self.table)])
        for t in missing.tolist():
            self._compute(self.n, cohort, declaration, values, t)
            self.entries[t] = self.n
            self.n += 1
        return Scalars(self.table, self.entries)

    def known_now(self, cohort: Any) -> Scalars:
        """The lines that there are, by the hyperparameters of now."""
        values = cohort.group.hyperparameters
        self.unchanged = self.known[0] is values and self.known[1] == values["lr"]
        if not self.unchanged:
            self.known = values, values["lr"]
            self.entries[:] = -1
            self.n = 0
        least = cohort.t + AHEAD + 1
        if least >= len(self.entries):
            more = np.full(2 * least - len(self.entries), -1, np.int32)
            self.entries = np.concatenate([self.entries, more])
        return Scalars(self.table, self.entries)

    def of_all(self, cohort: Any, declaration: Declaration, others: Mapping[str, Any]) -> Scalars:
        """The scalars of the next step of all slices, with other hyperparameters."""
        values = {**cohort.group.hyperparameters, **others}
        self._compute(0, cohort, declaration, values, cohort.t + 1)
        return Scalars(self.table, np.zeros(1, np.int32))

    def _compute(
        self, line: int, cohort: Any, declaration: Declaration, values: dict[str, Any], t: int
    ) -> None:
        if cohort.scheduled:
            values = cohort.group.at(values, t)
        given = cohort.given_alone(declaration, values, t)
        if cohort.watched:
            cohort.refuse_unfit(declaration, values, given, t)
        self.table[line] = line_of(self.names, {**given[0], **given[1]}, self.dtype)


def touched_by(tensor: Any, seen: Seen, declaration: Declaration, kind: type[Table]) -> Touched:
    """The slices of a tensor that have a gradient, as its next step takes them.

    The sums of squares are there where the tensor is stepped in another order than it lies in.
    """
    if tensor.slices.is_full:
        tensor.catch_up(kind)
    touched: Touched = tensor.slices.touched(seen, tensor.cohort, declaration, kind)
    if tensor.walk.plain:
        return touched
    return touched._replace(sums=sums_along(tensor.walk, touched, tensor.p.shape))


def sums_along(walk: Any, touched: Touched, shape: Sequence[int]) -> Array:
    """The sums of squares of a gradient's blocks, in the order of a walk that is not C order."""
    if not isinstance(walk.place, Host):
        touched = touched._replace(values=_read(walk.place, touched.values))
    dense = touched.dense(shape[0]).reshape(shape)
    with np.errstate(all="ignore"):
        return norm.squares(np.ascontiguousarray(walk.lay(dense)).reshape(-1))


def _read(place: Place, values: Array) -> Array:
    """A device's gradients on the host, in the dtype of the step."""
    read = place.read(values)
    if read.dtype not in HALVES:
        return read
    decoded: Array = STORAGES[HALVES[read.dtype]].decode(read.size, (read,))
    return decoded
