"""Steps that may be part of a CUDA graph: the device knows t, the rate and all else by itself."""

from __future__ import annotations

from collections.abc import Callable, Hashable, Iterable, Iterator, Sequence
from itertools import count
from typing import Any, NoReturn, cast

from fusedstep._backends.plan import Capturable, Foreseen, Line
from fusedstep._checks.rates import Rates
from fusedstep._core.declaration import PUBLIC, Declaration
from fusedstep._core.layout import Layout
from fusedstep._core.parameters import Cohort
from fusedstep._core.request import PLAIN, Report, Request
from fusedstep._numerics.coefficients import Hyperparameters, Values
from fusedstep._numerics.of_rate import OfRate
from fusedstep._numerics.storage import step_key

FAR = 1 << 62
"""A t by which the scalars of the package's rules have come to rest, if they ever do."""

NO_RATE = 0.0
"""In the place of the rate of a job whose lines have it."""


class CapturableLayout(Layout):
    """A layout of such steps."""

    foreseen: Sequence[Hyperparameters] = ()
    """The hyperparameters by which steps were foreseen, cohort by cohort."""

    @property
    def table(self) -> Capturable:
        """The table of the plan."""
        return cast(Capturable, self.plan.table)

    # ---- a step ----

    def step(self, grads: list[Any], in_flight: bool = False) -> Report | None:
        if not self.cohorts:
            return super().step(grads, in_flight)
        if not self.foresee() or not self.take(grads, False):
            return None
        return self.judge((), PLAIN, "propagate")

    def judges(self, request: Request, nonfinite: str) -> bool:
        if self.tensors.by_parameter is not None and request.clip == "tensor":
            raise ValueError(
                "clip='tensor' with capturable=True and an arena, whose gradients are one to the "
                "device; make the optimizer without the arena"
            )
        return bool(self.cohorts)

    def lines(self) -> Sequence[Line] | None:
        return () if self.foresee() else None

    # ---- the steps to come ----

    def foresee(self, all_anew: bool = False) -> bool:
        """Have the device know the steps to come by the hyperparameters of now.

        False, and nothing done, if they call for another rule. `all_anew` foresees as many steps
        as there can be.
        """
        hyperparameters = [cohort.group.hyperparameters for cohort in self.cohorts]
        for cohort, values in zip(self.cohorts, hyperparameters, strict=True):
            if values is not cohort.settled and not cohort.settle(self.declaration, values):
                return False
        self._check_rates(hyperparameters)
        changed = len(self.foreseen) != len(hyperparameters) or not all(
            map(differ_in_rate_alone, self.foreseen, hyperparameters)
        )
        if changed or all_anew or self.table.runs_out():
            self.table.foresee(self._foreseen())
        self.foreseen = hyperparameters
        self.table.rate(
            [NO_RATE if callable(values["lr"]) else values["lr"] for values in hyperparameters]
        )
        self.table.refuse_lost()
        return True

    def _check_rates(self, hyperparameters: Sequence[Hyperparameters]) -> None:
        """Refuse rates that the dtype does not hold; those of the first step are the largest."""
        for cohort, values in zip(self.cohorts, hyperparameters, strict=True):
            if isinstance(values["lr"], Rates):
                refuse_column_rates()
            if cohort.watched and not cohort.scheduled and values["lr"] > cohort.largest:
                t = cohort.start + 1
                given = cohort.given(self.declaration, values, t)
                cohort.check_range(self.declaration, values, given, t)

    def _foreseen(self) -> Foreseen:
        shared: dict[Hashable, Shared] = {}

        def lines(index: int, steps: int) -> Iterable[Values]:
            cohort = self.cohorts[index]
            made = self._lines(index, steps)
            if cohort.scheduled:  # rates are checked for each dtype
                return made
            return shared.setdefault((id(cohort.group), cohort.start), Shared(made))

        return Foreseen(lambda index: self.cohorts[index].constants, lines, self._key, self._far)

    def _lines(self, index: int, steps: int) -> Iterator[Values]:
        """The scalars of a job after so many steps, one after the other."""
        cohort = self.cohorts[index]
        values = {**cohort.group.hyperparameters, "lr": OfRate()}
        for t in count(cohort.start + steps + 1):
            if not cohort.scheduled:
                yield by_rate(self.declaration, values, t)
                continue
            try:
                made = self._at(cohort, t)
            except Exception:
                if t == cohort.start + steps + 1:
                    raise
                return  # a function may tell the rate of some t alone
            yield made

    def _at(self, cohort: Cohort, t: int) -> Values:
        """The same of a step t whose rate is a function of t."""
        values = cohort.group.at(cohort.group.hyperparameters, t)
        if isinstance(values["lr"], Rates):
            refuse_column_rates()
        given = cohort.given(self.declaration, values, t)
        if values["lr"] > cohort.largest:
            cohort.check_range(self.declaration, values, given, t)
        return given[1]

    def _key(self, index: int, steps: int) -> int | None:
        """The key of the random bits of a job in the step after so many."""
        if index not in self.random:
            return None
        cohort = self.cohorts[index]
        return step_key(cohort.group.hyperparameters["seed"], cohort.start + steps + 1)

    def _far(self, index: int) -> Values | None:
        """The scalars of a job at a t beyond any, if they rest by then, as those of our rules."""
        cohort = self.cohorts[index]
        if cohort.scheduled or self.declaration.optimizer.__module__ not in PUBLIC:
            return None
        values = {**cohort.group.hyperparameters, "lr": OfRate()}
        return by_rate(self.declaration, values, FAR)


class Shared:
    """Lines without an end, each of which is computed once for all jobs that have it."""

    def __init__(self, lines: Iterator[Values]) -> None:
        self.lines = lines
        self.known: list[Values] = []

    def __iter__(self) -> Iterator[Values]:
        for at in count():
            if at == len(self.known):
                self.known.append(next(self.lines))
            yield self.known[at]


def refuse_column_rates() -> NoReturn:
    """Refuse a learning rate for each column."""
    raise ValueError(
        "lr has a rate for each column, which capturable=True does not know; pass one rate for "
        "all, or make the optimizer without capturable"
    )


def differ_in_rate_alone(before: Hyperparameters, now: Hyperparameters) -> bool:
    """Whether hyperparameters are the same, but for a rate that is a number."""
    if before is now:
        return True
    return all(
        now[name] is value
        or (
            not (callable(value) or callable(now[name]))
            if name == "lr"
            else bool(now[name] == value)
        )
        for name, value in before.items()
    )


def by_rate(declaration: Declaration, values: Hyperparameters, t: int) -> Values:
    """The scalars of step t as functions of the rate."""
    try:
        return declaration.scalars(values, t)
    except TypeError as error:
        raise TypeError(
            f"{declaration.optimizer.__name__} makes more of the learning rate than sums, products "
            f"and quotients with numbers, which is all that a device knows ({error}); pass lr as a "
            "function of t, as `lambda t: 0.001`"
        ) from None


def assigned(layout: CapturableLayout, undo: Callable[[], None]) -> None:
    """Have the device know what was assigned, or take it back if that cannot be."""
    try:
        fits = layout.foresee() if layout.table.is_captured else True
    except BaseException:
        undo()
        raise
    if not fits:
        undo()
        raise RuntimeError(
            "a CUDA graph holds steps of this optimizer by another rule than what is assigned "
            "calls for; assign it before the graph is recorded"
        )
