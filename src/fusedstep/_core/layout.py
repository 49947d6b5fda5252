"""The layout of steps: everything of an optimizer that depends on where arrays lie."""

from __future__ import annotations

from collections.abc import Hashable, Iterable, Iterator, Mapping, Sequence
from math import inf
from typing import Any

from fusedstep._arrays.libraries import by_numpy, numpy_reads
from fusedstep._arrays.overlap import WrittenMemory
from fusedstep._arrays.walk import refuse_turned
from fusedstep._backends.plan import STEPPED, Asked, Job, Line, Plan, Row, Scaler, Table
from fusedstep._checks.rates import Rates
from fusedstep._core.declaration import Declaration
from fusedstep._core.groups import Group
from fusedstep._core.late_report import late_report
from fusedstep._core.parameters import Cohort, rule_of
from fusedstep._core.request import Report, Request, report_of
from fusedstep._core.rows import has_rows
from fusedstep._core.tensors import Steppable, Tensor
from fusedstep._numerics import norm
from fusedstep._numerics.coefficients import JobScalars, Rule, step_scalars
from fusedstep._numerics.rounding import check_rounding
from fusedstep._numerics.storage import step_key

Rules = Mapping[int, Rule]
"""Rules by the id of the group whose hyperparameters call for them."""


NO_ROWS: Mapping[int, Row] = {}


def rules_of(declaration: Declaration, groups: Iterable[Group]) -> Rules:
    """The rule of each group, with the moving average if it has one."""
    return {
        id(group): rule_of(declaration, (group.held or group).hyperparameters) for group in groups
    }


def power_above(t: int) -> int:
    """The least power of two above a whole number."""
    return 1 << t.bit_length()


class Layout:
    """Rows, jobs and gradients of an optimizer's steps: built whole, and replaced whole.

    It has a row for each tensor that `grads` has a gradient for, and a job for each cohort of
    them. It serves until a gradient comes or goes, another rule is called for, or state is
    loaded. Gradients may be other arrays at each step: `take` looks at what has changed.

    Tensors that are `standing` have a row, too, and step as soon as `select` says so.
    """

    def __init__(
        self,
        declaration: Declaration,
        table: type[Table],
        tensors: Steppable,
        rules: Rules,
        grads: Sequence[Any],
        standing: Mapping[int, Row] = NO_ROWS,
    ) -> None:
        self.declaration = declaration
        self.tensors = tensors
        self.rules = rules
        self._join(grads, [None] * len(grads))
        self.standing = [row or standing.get(index) for index, row in enumerate(self.rows)]
        """The rows that there are, also of tensors that do not step now."""
        self.plan = Plan(table, self.jobs, self.standing, tensors.written())
        if standing:
            self.plan.select(self.jobs, self.rows)
        self._begin()
        self.closely: Plan | None = None
        """Arena only: a plan with one row per parameter, made when a non-finite gradient must
        be located, or each gradient be clipped by itself."""

    def rows_without(self, grads: Sequence[Any]) -> dict[int, Row]:
        """The rows of tensors that have no gradient among these, for another layout to keep."""
        if not self.plan.kind.selects:
            return {}
        pairs = enumerate(self.standing)
        return {at: row for at, row in pairs if row is not None and grads[at] is None}

    def select(self, grads: Sequence[Any]) -> bool:
        """Serve gradients of other tensors from now on; False if one of them has no row."""
        if not self.plan.kind.selects or not self._has_rows(grads):
            return False
        self._join(grads, self.standing)
        self.plan.select(self.jobs, self.rows)
        self._begin()
        return True

    def _has_rows(self, grads: Sequence[Any]) -> bool:
        """Whether all tensors with a gradient have rows, with the state of their rules."""
        states: dict[int, tuple[str, ...]] = {}
        for g, tensor, row in zip(grads, self.tensors.each, self.standing, strict=True):
            if g is None or tensor is None:
                continue
            group = tensor.cohort.group
            if id(group) not in states:
                values = tensor.cohort.settings.hyperparameters
                states[id(group)] = rule_of(self.declaration, values).states
            if row is None or row.rule.states != states[id(group)]:
                return False
        return True

    def _join(self, grads: Sequence[Any], rows: Sequence[Row | None]) -> None:
        """Put the tensors with a gradient into cohorts, and their rows into jobs.

        `rows` has those that are there already.
        """
        self.rows: list[Row | None] = [None] * len(grads)
        """The rows of the tensors that step."""
        jobs: dict[Cohort, int] = {}
        fresh: dict[Hashable, Cohort] = {}
        rules: dict[int, Rule] = {}
        self.gradient_formats: list[str | None] = [None] * len(grads)
        """The formats of the gradients; None for the dtype of their parameter's steps."""
        for index, tensor in enumerate(self.tensors.each):
            if tensor is not None and grads[index] is not None:
                # A new cohort for those that step: those that do not keep theirs, and its t.
                old = tensor.cohort
                group, values = old.group, old.settings.hyperparameters
                if id(group) not in rules:
                    rules[id(group)] = rule_of(self.declaration, values)
                self.gradient_formats[index] = g = tensor.gradient_format(grads[index])
                storages = tensor.storages(rules[id(group)], g)
                key = old.key, storages
                cohort = fresh.get(key)
                if cohort is None:
                    cohort = fresh[key] = old.again()
                    cohort.settle(self.declaration, values)
                    cohort.by_slices = True
                    cohort.storages = storages
                    jobs[cohort] = len(jobs)
                cohort.by_slices &= tensor.slices is not None
                tensor.cohort = cohort
                self.rows[index] = row = rows[index] or tensor.row_of(cohort.rule)
                row.job = jobs[cohort]
                if storages is not None and storages.in_order and row.walk.turned:
                    refuse_turned(f"params{tensor.path}", "rounded stochastically or in 8 bits")
        self.cohorts = [*jobs]
        """The cohorts of the tensors that step, in the order of the jobs."""
        self.jobs = [Job(cohort.rule, cohort.dtype, cohort.storages) for cohort in jobs]
        held = [cohort.storages for cohort in jobs]
        self.random = [at for at, each in enumerate(held) if each is not None and each.streams]
        """The jobs that round stochastically."""

    def _begin(self) -> None:
        """Let the cohorts count by the plan."""
        self.steps = self.plan.steps
        for cohort in self.cohorts:
            cohort.steps = self.steps
        self.most = max((cohort.start for cohort in self.cohorts), default=0)
        """The steps that the cohort with most had taken."""
        self.due = power_above(self.most) - self.most
        """The count of steps at which the tensors look around."""
        self.coming = 0
        """The t of that cohort in the step that `scalars` was last called for."""
        by_slices = any(row is not None and row.by_slices for row in self.rows)
        self.judged = self.plan.kind.judges and bool(self.cohorts) and not by_slices
        """Whether steps may be judged where their gradients are."""
        self.unshared_at = -1
        """Count of the plan's `moves` when its gradients were last found to share no memory."""

    # ---- a step ----

    def scalars(self, in_flight: bool = False, steps: int | None = None) -> list[JobScalars] | None:
        """The scalars of the step that comes, job by job; None if another rule is called for.

        A step in flight has groups that are held. `steps` is what the count of steps will be after
        it; None: it is known.
        """
        declaration, given = self.declaration, []
        steps = self.steps[0] + 1 if steps is None else steps
        if steps == self.due:
            self.tensors.look_around()
            self.due = power_above(self.most + steps) - self.most
        for cohort in self.cohorts:
            group, t = cohort.group, cohort.start + steps
            if in_flight:
                group = cohort.settings
            values = group.hyperparameters
            if values is not cohort.settled and not cohort.settle(declaration, values):
                return None
            if cohort.watched:
                if cohort.scheduled:
                    values = group.at(values, t)
                cohort.rate = values["lr"]
                if isinstance(cohort.rate, Rates):
                    if not cohort.by_slices:
                        return None
                    values = {**values, "lr": cohort.rate.most}
                scalars = cohort.given(declaration, values, t)
                if values["lr"] > cohort.largest:
                    cohort.check_range(declaration, values, scalars, t)
                given.append(scalars)
            else:
                given.append(cohort.given(declaration, values, t))
        for at in self.random:
            cohort = self.cohorts[at]
            seed = cohort.settings.hyperparameters["seed"]
            self.plan.keys[at] = step_key(seed, cohort.start + steps)
        self.coming = self.most + steps if given else 0
        return given

    def step(self, grads: list[Any], in_flight: bool = False) -> Report | None:
        """Step with `grads`; None, and nothing done, if it takes another layout."""
        scalars = self.scalars(in_flight)
        if scalars is None:
            return None
        if self.plan.touched and self.plan.kind.reads_rows:
            self._ready_slices()
            self._record(scalars)
        report = report_of((None, 1.0, (), self.coming))  # once it is done nothing may fail
        taken = self.plan.take_and_run(grads, scalars)
        if taken != STEPPED:
            if taken < 0:
                check_rounding()
            if not self._look(grads, taken, False):
                return None
            self.plan.fetch_gradients()
            self._record(scalars)
            self.plan.run(scalars)
        return report

    def take(self, grads: list[Any], zero: bool) -> bool:
        """Use `grads` for what follows; False if a gradient came or went since the layout.

        `zero` says that they are to be written; they must share no memory then.
        """
        if self.plan.touched and self.plan.kind.reads_rows:
            self._ready_slices()
        taken = self.plan.take(grads, 0, zero)
        if taken < len(grads) and not self._look(grads, taken, zero):
            return False
        if zero and not self.are_apart():
            # One of two that share memory would be read after the other was zeroed.
            WrittenMemory(self.tensors.seen(grads)).refuse_overlaps()
            self.unshared_at = self.plan.moves
        self.plan.fetch_gradients()
        return True

    def new_among(self, grads: list[Any], zero: bool) -> Iterator[int]:
        """The indices of gradients that are not like those before, and have to be checked.

        Nothing is done with any. A step may be under way.
        """
        at = self.plan.fits(grads, 0, zero)
        while at < len(grads):
            yield at
            at = self.plan.fits(grads, at + 1, zero)

    def are_apart(self) -> bool:
        """Whether the gradients taken last are known to share no memory."""
        return self.unshared_at == self.plan.moves

    def measure(self, scale: float, max_norm: float) -> norm.Measured:
        """Measure the gradients that were taken, all together."""
        return self.plan.measure(scale, max_norm)

    def clip_each(self, scale: float, max_norm: float) -> norm.Measured:
        """Measure the same, for a step that clips the gradient of each parameter by itself."""
        return self._by_parameter().clip_each(scale, max_norm)

    def unfit(self, unscale: float, each: bool = False) -> list[int]:
        """Indices of parameters whose gradient is not finite, or not once it is unscaled.

        They are judged by the sums that `measure` left, or for `each` those of `clip_each`.
        """
        if each:
            return [*self._by_parameter().unfit(unscale)]
        unfit = [*self.plan.unfit(unscale)]
        if self.tensors.by_parameter is None or not unfit:
            return unfit
        closely = self._by_parameter()
        closely.measure(1.0, inf)
        return [*closely.unfit(unscale)]

    def run(self, scalars: Sequence[JobScalars], zero: bool, each: bool = False) -> None:
        """Step with the gradients that were taken; `zero` leaves zeros in their place.

        `each` clips the gradient of each parameter as `clip_each` found it must be.
        """
        plan = self._by_parameter() if each else self.plan
        self._record(scalars, plan if each else None)
        plan.run(scalars, zero, each)

    # ---- a step that is judged where its gradients are ----

    def judges(self, request: Request, nonfinite: str) -> bool:
        """Whether such a step is judged where its gradients are, so that nobody waits for it.

        An arena's is not if it may be left out, as the report names parameters, which are measured
        by themselves then; nor one that leaves a count of steps beside the arrays.
        """
        if nonfinite == "raise" or not self.judged:
            return False
        if nonfinite == "skip":
            return self.tensors.by_parameter is None and not self.plan.numbers.size
        return request.max_norm is not None

    def lines(self) -> Sequence[Line] | None:
        """The scalars of the next step, for each count of steps that there may have been.

        None if another rule is called for.
        """
        made: list[Line] = []
        uncertain = self.plan.uncertain()
        for ahead in range(uncertain + 1):
            scalars = self.scalars(steps=self.plan.known + ahead + 1)
            if scalars is None:
                return None
            copied = [(constants, {**values}) for constants, values in scalars]
            made.append((copied, self.plan.keys.copy()))
        return made

    def judge(
        self,
        lines: Sequence[Line],
        request: Request,
        nonfinite: str,
        scaler: Scaler | None = None,
    ) -> Report:
        """Step with the gradients that were taken, if they and the scaler allow it."""
        each = request.clip == "tensor"
        plan = self._by_parameter() if each else self.plan
        most = inf if request.max_norm is None else request.max_norm
        measured, skips = request.max_norm is not None, nonfinite == "skip"
        asked = Asked(
            request.scale, most, skips, each, request.max_value, measured or skips, scaler
        )
        for copied, _ in lines:
            for _, values in copied:
                values.update(step_scalars(request.scale, 1.0, request.max_value))
        verdict = plan.judge(lines, asked, request.zero_grads)
        return late_report(verdict, measured, plan.at, self.tensors.parameters, self.most)

    def _ready_slices(self) -> None:
        """Give the plan what is known of the next step by slices, whose gradients it may take."""
        for index in self.plan.touched:
            tensor = self.tensors.each[index]
            if tensor is None or tensor.slices is None:
                continue
            if tensor.slices.must_catch_up(tensor.cohort):
                tensor.catch_up(self.plan.kind)
            if tensor.slices.lacks(tensor.cohort.rate):
                self.plan.let_go()  # so that the gradient is looked at, and the rates with it
                return
            scalars = tensor.slices.ready(tensor.cohort, self.declaration)
            if scalars is not None:
                self.plan.table.refresh(index, scalars)

    def _record(self, scalars: Sequence[JobScalars], clipping: Plan | None = None) -> None:
        """Let tensors whose slices may miss this step note its scalars.

        `clipping` is the plan that clips each gradient by itself.
        """
        for index in self.plan.touched:
            tensor, row = self.tensors.each[index], self.rows[index]
            if tensor is None or row is None or tensor.slices is None:
                continue
            clip = None if clipping is None else clipping.clip_of(self._place_in(clipping, index))
            tensor.slices.record(tensor.cohort, self.declaration, scalars[row.job], clip)

    def _place_in(self, plan: Plan, index: int) -> int:
        """The index of a tensor in a plan, which may have a row for each parameter."""
        if plan is self.plan:
            return index
        tensor = self.tensors.each[index]
        return next(at for at, each in enumerate(self.tensors.parameters) if each is tensor)

    def clear(self, grads: list[Any]) -> None:
        """Leave zeros in the gradients, without a step."""
        clearing = self.tensors.place.clearing
        seen = self.tensors.seen(grads)
        self.tensors.place.at_once([call for _, g in seen for call in clearing(g)])

    @property
    def t(self) -> int:
        """The steps taken by the cohort with most, of those that step; 0 if there is none."""
        return self.most + self.steps[0] if self.cohorts else 0

    def _look(self, grads: list[Any], at: int, zero: bool) -> bool:
        """Check the gradient at `at`, and each further one that differs from what was before."""
        while at < len(grads):
            if numpy_reads(grads[at]):  # as NumPy's arrays C takes the rest in one go
                grads[at:] = by_numpy(grads[at:])
                at = self.plan.take(grads, at, zero)
                continue
            if (grads[at] is None) != (self.rows[at] is None):
                return False
            tensor = self.tensors.each[at]
            if (
                grads[at] is not None
                and tensor is not None
                and self._has_rows_in(tensor, grads[at])
            ):
                if tensor.slices is None:
                    return False
                arguments = zero, self.declaration, self.plan.kind
                self.plan.touch(at, self.tensors.touched(at, grads[at], *arguments))
                at = self.plan.take(grads, at + 1, zero)
                continue
            if (
                grads[at] is not None
                and tensor is not None
                and tensor.gradient_format(grads[at]) != self.gradient_formats[at]
            ):
                return False
            seen = self.tensors.check_gradient(at, grads[at], zero)
            self.plan.set_gradient(at, seen, grads[at])
            at = self.plan.take(grads, at + 1, zero)
        return True

    @staticmethod
    def _has_rows_in(tensor: Tensor, g: Any) -> bool:
        """Whether a tensor takes a gradient by slices."""
        return tensor.slices is not None or has_rows(g)

    def _by_parameter(self) -> Plan:
        """The plan with one row per parameter, whose steps are counted with the others."""
        if self.tensors.by_parameter is None:
            return self.plan
        if self.closely is None:
            closely = self._look_closely(self.tensors.by_parameter)
            closely.count_with(self.plan)
            self.closely = closely
        for index, touched in self.plan.touched.items():
            self.closely.touch(self._place_in(self.closely, index), touched)
        return self.closely

    def _look_closely(self, gradients: Sequence[Any]) -> Plan:
        """The plan that an arena's parameters would have without the arena."""
        at = {cohort: index for index, cohort in enumerate(self.cohorts)}
        rows = []
        for parameter in self.tensors.parameters:
            row = parameter.row_of(parameter.cohort.rule)
            row.job = at[parameter.cohort]
            rows.append(row)
        plan = Plan(self.plan.kind, self.jobs, rows, self.tensors.written())
        for index, g in enumerate(gradients):
            plan.set_gradient(index, g)
        return plan
