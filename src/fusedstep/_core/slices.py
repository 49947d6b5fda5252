"""A parameter that is stepped by rows: how many steps each has taken, and what it has missed."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from math import inf, isfinite, sqrt
from typing import Any

import numpy as np

from fusedstep._arrays.dtypes import HALVES
from fusedstep._arrays.overlap import WrittenMemory
from fusedstep._arrays.place import Host, Place
from fusedstep._arrays.walk import Array
from fusedstep._backends.columns import Pattern
from fusedstep._backends.plan import Job, Plan, Row, Table
from fusedstep._backends.slices import Calm, Integers, Scalars, Touched
from fusedstep._checks.rates import Floats, Rates, largest
from fusedstep._core.declaration import Declaration
from fusedstep._core.rows import Seen
from fusedstep._numerics import norm
from fusedstep._numerics.coefficients import NOTHING_ASKED, JobScalars, Rule, Values
from fusedstep._numerics.coefficients import Scalars as Neutral
from fusedstep._numerics.storage import STORAGES

ROW_T = "row_t"
"""The entry of states and state dicts that has the t of each row."""

LONGEST = 4096
"""Steps that slices may miss: then all are caught up. A line of scalars takes 84 bytes for
float32, so that those of this many fit into the second cache."""

MOST_LINES = 65536
"""Lines of scalars for slices with a t of their own; then those in use are computed anew."""

MANY_SETS, FEWEST = 16, 256
"""The sets of columns that may have so many lines each; where there are more, each may have fewer,
but this many."""

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
        self.row = (*shape[1:],)
        """The shape of a slice."""
        self.width = int(np.prod(self.row, dtype=np.int64))
        self.exact = untouched == "exact"
        self.own = not self.exact and row_steps == "own"
        self.begun = t
        """The t of the parameter before its first step by rows; -1 if that was in another run."""
        self.counts: Integers | None = None
        """The steps that each has taken; None where they share the parameter's, as all do before
        the first step by rows."""
        self.by_rows = False
        """Whether the last gradient was of some alone."""
        self.pattern: Pattern | None = None
        """The columns of which some have had other rates than others; None: all had the same."""
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
        self.by_rows = seen.ids is not None
        if self.by_rows:
            self.begin_counts(cohort.t)
        return Touched(
            self.width,
            seen.ids,
            seen.values,
            seen.starts,
            seen.places,
            self.counts,
            self._scalars(seen, cohort, declaration, kind),
            self.pattern,
            given=seen.given,
        )

    def begin_counts(self, t: int) -> None:
        """Let slices count their steps, if they do, after so many of the parameter's."""
        if self.counts is None and (self.exact or self.own):
            self.counts = np.full(self.n, t, np.int64)
            self.begun = t

    def _scalars(
        self, seen: Seen, cohort: Any, declaration: Declaration, kind: type[Table]
    ) -> Scalars | None:
        names = kind.scalars_of(Job(cohort.rule, cohort.dtype))
        self._look_at(cohort.rate)
        if self.exact and self.counts is not None:
            if self.past is None or self.past.names != names:
                self.past = Past(names, cohort.dtype, cohort.t + 1, self.sets)
            return self.past.scalars(cohort.t)
        if self.lines is None or self.lines.names != names:
            self.lines = Lines(names, cohort.dtype, self.pattern, self.row)
        if self.counts is None:
            return self._shared(cohort, declaration)
        taken = self.counts if seen.ids is None else self.counts.take(seen.ids)
        while (found := self.lines.of(taken + 1, cohort, declaration)) is None:
            self._look_at(self.lines.unlike)
            self.lines = Lines(names, cohort.dtype, self.pattern, self.row)
        return found

    @property
    def sets(self) -> int:
        """The sets of columns that are stepped by scalars of their own."""
        return 1 if self.pattern is None else len(self.pattern)

    def lacks(self, lr: Any) -> bool:
        """Whether columns would be stepped alike that have different rates now."""
        if self.pattern is None:
            return isinstance(lr, Rates) and self.width > 0
        return lr is not None and self.pattern.distinct(lr, self.row) is None

    def _look_at(self, lr: Any) -> None:
        """Give columns scalars of their own if they have different rates now."""
        if self.lacks(lr):
            before = self.pattern or Pattern(np.zeros(self.width))
            self.past = self.lines = None
            self.pattern = before.refined(lr, self.row)

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
        lazily = self.by_rows and "eps_uncorrected" in cohort.settings.hyperparameters
        if self.lines is None or not (lazily or self.pattern):
            return None
        return self.lines.of_all(cohort, declaration, {"eps_uncorrected": True} if lazily else {})

    def record(
        self, cohort: Any, declaration: Declaration, given: JobScalars, clip: float | None
    ) -> None:
        """Note the scalars of the step that is about to be taken; `clip` is the tensor's own."""
        if self.past is None:
            return
        t, values = cohort.t + 1, {**given[0], **given[1]}
        if self.pattern is not None:
            hyper = cohort.settings.hyperparameters
            if cohort.rate is not None:
                hyper = {**hyper, "lr": cohort.rate}
            rates = self.pattern.distinct(hyper["lr"], self.row)
            assert rates is not None
            asked = {name: values[name] for name in NOTHING_ASKED}
            values = {**scalars_of_sets(cohort, declaration, hyper, t, rates), **asked}
        if clip is not None:
            values["clip"] = clip
        self.past.record(t, values)

    def must_catch_up(self, cohort: Any) -> bool:
        """Whether all slices have to be caught up before another step of a cohort."""
        return self.past is not None and (self.past.is_full or self.lacks(cohort.rate))

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
        known = {"counts": self.counts, "scalars": scalars, "columns": self.pattern}
        touched = Touched(self.width, ids, nothing, **known)  # type: ignore[arg-type]
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

    def __init__(self, names: Sequence[str], dtype: np.dtype[Any], first: int, sets: int) -> None:
        self.names = names
        self.longest = lines_of_each(LONGEST, sets)
        self.table: Array = np.zeros((sets, 64, len(names)), dtype)
        self.begin(first)

    def begin(self, first: int) -> None:
        """Begin anew, with the line of step `first`."""
        self.first = self.coming = first
        self.calm = Calm(first)
        self.alike: Values | None = None
        """The scalars that the calm steps have the same; None: there are none yet."""
        self.sizes: dict[int, tuple[Sequence[float], float, float]] = {}
        """The rates, r and eps of the last steps, by t: what an update goes by."""

    @property
    def is_full(self) -> bool:
        return self.coming - self.first >= self.longest

    def scalars(self, t: int) -> Scalars:
        """The lines of the steps up to t, with room for that of the next one."""
        if t + 1 - self.first == self.table.shape[1]:
            self.table = with_more_lines(self.table)
        return Scalars(self.table, None, self.first, t, self.calm)

    def record(self, t: int, values: Mapping[str, Any]) -> None:
        """Put down the scalars of step t: once more, if it was not taken before."""
        line = t - self.first
        if line == self.table.shape[1]:
            self.table = with_more_lines(self.table)
        rounded = lines_of(self.names, values, self.table.dtype, len(self.table))
        self.table[:, line] = rounded
        self.coming = t + 1
        named = (dict(zip(self.names, each, strict=True)) for each in rounded.tolist())
        self._compare(t, [{**NEUTRAL, **each} for each in named])

    def _compare(self, t: int, sets: Sequence[Values]) -> None:
        """Let the calm go on with these scalars, or begin with them, or after them.

        Columns differ in their rates, and in what is made of them.
        """
        now = sets[0]
        if not all(map(is_regular, sets)):
            self.calm, self.alike = Calm(t + 1), None
            return
        alike = {name: value for name, value in now.items() if name not in VARYING}
        sizes = [each["lr"] for each in sets], min(now["r"], sqrt(now["r2"])), now["eps"]
        # Not those of a step t that was put down before, and then not taken.
        rates, r, eps = before = self.sizes.get(t - 1, ([0.0] * len(sets), 1.0, 0.0))
        self.sizes = {t - 1: before, t: sizes}
        growth = max(map(grown, rates, sizes[0])) * max(grown(sizes[1], r), grown(sizes[2], eps))
        if self.alike != alike or not growth <= FAST:
            self.calm, self.alike, growth = Calm(t, 1.0, inf, inf), alike, 1.0
        calm = self.calm
        self.calm = Calm(
            calm.start,
            max(calm.growth, growth),
            min(calm.least_decay, *(each["decay"] for each in sets)),
            min(calm.least_eps, now["eps"]),
        )


def grown(before: float, now: float) -> float:
    """The factor by which a number has grown that is not negative."""
    return now / before if before else inf if now else 1.0


def scalars_of_sets(
    cohort: Any, declaration: Declaration, values: dict[str, Any], t: int, rates: Floats
) -> dict[str, Any]:
    """All scalars of step t at these rates: each a number, or an array with one for each rate."""
    if len(rates) == 1:
        return named_at(cohort, declaration, values, t, float(rates[0]))
    if declaration.custom:  # whose function may do with a rate what is not done to arrays
        each = [named_at(cohort, declaration, values, t, lr) for lr in rates.tolist()]
        return {name: np.array([one[name] for one in each]) for name in each[0]}
    with np.errstate(all="ignore"):
        return named_at(cohort, declaration, values, t, rates)


def named_at(
    cohort: Any, declaration: Declaration, values: dict[str, Any], t: int, lr: Any
) -> dict[str, Any]:
    """All scalars of step t at a rate, by name."""
    constants, own = cohort.given_alone(declaration, {**values, "lr": lr}, t)
    return {**constants, **own}


def lines_of_each(most: int, sets: int) -> int:
    """The lines that each of so many sets may have, where a few may have `most`."""
    return most if sets <= MANY_SETS else max(FEWEST, MANY_SETS * most // sets)


def with_more_lines(table: Array) -> Array:
    """A table of scalars with room for twice as many lines."""
    return np.concatenate([table, np.zeros_like(table)], axis=1)


def lines_of(
    names: Sequence[str], values: Mapping[str, Any], dtype: np.dtype[Any], sets: int
) -> Array:
    """The scalars of these names, rounded once to the dtype: a line for each set of columns."""
    known = {**NEUTRAL, **values}
    exact = np.empty((sets, len(names)))
    each = [known[name] for name in names]
    if sets == 1:
        exact[0] = each
    else:
        by_set = [k for k, value in enumerate(each) if isinstance(value, np.ndarray)]
        exact[:] = [0.0 if isinstance(value, np.ndarray) else value for value in each]
        for k in by_set:
            exact[:, k] = each[k]
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

    def __init__(
        self,
        names: Sequence[str],
        dtype: np.dtype[Any],
        pattern: Pattern | None,
        row: Sequence[int],
    ) -> None:
        self.names = names
        self.dtype = dtype
        self.pattern = pattern
        self.row = row
        self.sets = 1 if pattern is None else len(pattern)
        self.fitting: tuple[Any, Any] = (None, None)
        """The hyperparameters and rates that the dtype is known to hold."""
        self.unlike: Any = None
        """The rates of a step that are different within sets of columns; None: none are."""
        self.unchanged = False
        """Whether the hyperparameters are those of the step before."""
        self.known: tuple[Any, Any] = (None, None)
        """The hyperparameters, and the rate among them, that the lines were computed by."""
        self._clear(64)

    def _clear(self, size: int) -> None:
        self.entries = np.full(size, -1, np.int32)
        self.table: Array = np.zeros((self.sets, 64, len(self.names)), self.dtype)
        self.n = 0

    def of(self, ts: Integers, cohort: Any, declaration: Declaration) -> Scalars | None:
        """The scalars of steps that are these ones of their slices; None if some are `unlike`."""
        self.known_now(cohort)
        values = cohort.settings.hyperparameters
        lines = self.entries.take(ts)
        if not lines.size or lines.min() >= 0:
            return Scalars(self.table, self.entries)
        missing = np.unique(ts[lines < 0])
        if self.unchanged:  # then the next steps of the row that has taken most are likely to come
            missing = np.concatenate([missing, missing[-1] + np.arange(1, AHEAD)])
            missing = missing[self.entries[missing] < 0]
        if self.n + len(missing) > lines_of_each(MOST_LINES, self.sets):
            self._clear(len(self.entries))
            missing = np.unique(ts)
        while self.n + len(missing) > self.table.shape[1]:
            self.table = with_more_lines(self.table)
        for t in missing.tolist():
            now = cohort.settings.at(values, t) if cohort.scheduled else values
            if not self._compute(self.n, cohort, declaration, now, t):
                self.unlike = now["lr"]
                return None
            self.entries[t] = self.n
            self.n += 1
        return Scalars(self.table, self.entries)

    def known_now(self, cohort: Any) -> Scalars:
        """The lines that there are, by the hyperparameters of now."""
        values = cohort.settings.hyperparameters
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
        values = {**cohort.settings.hyperparameters, **others}
        if cohort.rate is not None:
            values["lr"] = cohort.rate
        self._compute(0, cohort, declaration, values, cohort.t + 1)
        return Scalars(self.table, np.zeros(1, np.int32))

    def _compute(
        self, line: int, cohort: Any, declaration: Declaration, values: dict[str, Any], t: int
    ) -> bool:
        """Put the scalars of a step into that line; False if its rates are `unlike`."""
        lr = values["lr"]
        if self.pattern is None and (not isinstance(lr, Rates) or 0 in self.row):
            values = {**values, "lr": largest(lr)}
            given = cohort.given_alone(declaration, values, t)
            if cohort.watched:
                cohort.refuse_unfit(declaration, values, given, t)
            self.table[0, line] = lines_of(self.names, {**given[0], **given[1]}, self.dtype, 1)[0]
            return True
        rates = None if self.pattern is None else self.pattern.distinct(lr, self.row)
        if rates is None:
            return False
        fitting = cohort.settings.hyperparameters, rates
        if any(one is not other for one, other in zip(fitting, self.fitting, strict=True)):
            cohort.refuse_unfit_rates(declaration, values, rates.tolist(), t)
            self.fitting = fitting
        found = scalars_of_sets(cohort, declaration, values, t, rates)
        self.table[:, line] = lines_of(self.names, found, self.dtype, self.sets)
        return True


def touched_by(tensor: Any, seen: Seen, declaration: Declaration, kind: type[Table]) -> Touched:
    """The slices of a tensor that have a gradient, as its next step takes them.

    The sums of squares are there where the tensor is stepped in another order than it lies in.
    """
    if tensor.slices.must_catch_up(tensor.cohort):
        tensor.catch_up(kind)
    touched: Touched = tensor.slices.touched(seen, tensor.cohort, declaration, kind)
    if tensor.walk.plain:
        return touched
    return touched._replace(sums=sums_along(tensor.walk, touched, tensor.p.shape))


def sums_along(walk: Any, touched: Touched, shape: Sequence[int]) -> Array:
    """The sums of squares of a gradient's blocks, in the order of a parameter's memory."""
    if not isinstance(walk.place, Host):
        touched = touched._replace(values=_read(walk.place, touched.values))
    laid = walk.lay(touched.dense(shape[0]).reshape(shape))[walk.turned]
    with np.errstate(all="ignore"):
        return norm.squares(np.ascontiguousarray(laid).reshape(-1))


def _read(place: Place, values: Array) -> Array:
    """A device's gradients on the host, in the dtype of the step."""
    read = place.read(values)
    if read.dtype not in HALVES:
        return read
    decoded: Array = STORAGES[HALVES[read.dtype]].decode(read.size, (read,))
    return decoded
