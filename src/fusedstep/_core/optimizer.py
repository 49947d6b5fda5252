"""What all optimizers share: parameters and groups in, steps, state, and resuming."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any, ClassVar, NoReturn

from fusedstep._arrays.checks import check_like
from fusedstep._arrays.overlap import WrittenMemory
from fusedstep._arrays.place import Host, Place
from fusedstep._arrays.structure import named
from fusedstep._arrays.walk import Array
from fusedstep._backends.choose import choose
from fusedstep._backends.plan import Job, Plan, Row, Table
from fusedstep._checks.values import Rate
from fusedstep._checks.wording import quoted
from fusedstep._core.arena import OWN, Arena
from fusedstep._core.arena_stretches import Stretch, enroll, stretches
from fusedstep._core.declaration import Declaration
from fusedstep._core.groups import Assignments, Group
from fusedstep._core.parameters import Cohort, Parameter, State, read_groups, shelve, tidy
from fusedstep._core.request import (
    NOTHING,
    Asked,
    Report,
    ask,
    check_policy,
    check_scale,
    clip_factor,
)
from fusedstep._core.state_dict import check_group, check_state, check_top, save
from fusedstep._numerics import norm
from fusedstep._numerics.coefficients import (
    Given,
    Hyperparameters,
    Rule,
    average_constants,
    step_scalars,
)


class Optimizer:
    """What all optimizers share; use one of its subclasses.

    Parameters are a NumPy array, or a sequence or mapping of arrays, nested at will, or a
    sequence of groups as torch has them: mappings with `"params"` and the hyperparameters
    in which that group differs. They are float32 or float64 of any layout, and change in
    place. State is of a parameter's dtype and shape and starts at t = 0. Many small ones are
    best put in a `fusedstep.Arena`, which then stands for them and for their gradients.

    Parameters may also live on a CUDA device, all on the same: arrays of Numba or CuPy,
    tensors of torch (`p.detach()`), whatever has `__cuda_array_interface__`. Gradients and
    state live there, too. A step is put on the current stream of torch or CuPy, if the
    first parameter is theirs, else on the default stream, and does not wait for it; a CUDA
    graph cannot hold one, as t would stand still. State arrays are Numba's, which
    `cupy.asarray(a)` and `torch.as_tensor(a, device="cuda")` take without a copy.
    `state_dict()` holds NumPy arrays, so a run goes on anywhere.

    Two arguments, by keyword, every optimizer has. `ema`, β in [0, 1), keeps a moving
    average of the parameters, as state `"ema"`, which starts from the parameters that were
    given. It is written in the same pass, after the rule::

        ema = β·ema + (1 - β)·p

    `nonfinite` says what becomes of a step for which a gradient holds NaN or infinity, or
    would divided by `scale`. `"propagate"` takes it as any other. `"skip"` leaves the step
    out: parameters, state and t of all tensors stay as they are, and the report names the
    parameters. `"raise"` does the same with a FloatingPointError. Both read the gradients
    once more, together with `max_norm`.
    """

    declaration: ClassVar[Declaration]
    """What the class says of its hyperparameters and steps."""

    _ahead = False
    """Whether the parameters stand elsewhere for now, see `SGD.lookahead`."""

    _arena: Arena | None = None
    """What holds the parameters and gradients, if they are in one."""

    _table: type[Table]
    _place: Place

    # What a step goes over: the parameters, or stretches of an arena with its gradients of them.
    _tensors: Sequence[Parameter | Stretch]
    _gradients: list[Any]

    # What knows addresses. It is made at the first step after `_forget_layout`.
    _plan: Plan
    _near: Plan | None
    """Over an arena the plan of its parameters one by one, once one of them had to be found."""
    _written: WrittenMemory | None
    _cohorts: list[Cohort]
    _rules: dict[int, Rule]
    _assignments: Assignments
    _seen: int
    """How many of them the plan goes by; -1 where there is none."""

    def __init__(
        self, params: Any, backend: str, nonfinite: str, hyperparameters: dict[str, Any]
    ) -> None:
        self._backend = backend
        self._nonfinite = check_policy(nonfinite)
        if isinstance(params, Arena):
            self._arena = params
            self._structure, divided = params._store.read()
        else:
            self._structure, divided = read_groups(params)
        leaves = [array for _, arrays, _ in divided for array in arrays]
        self._table, self._place = choose(
            backend, named(self._structure, leaves), self.declaration.custom
        )
        for name, _, own in divided:
            surplus = [key for key in own if key not in hyperparameters]
            if surplus:
                raise KeyError(
                    f"{name}the unknown hyperparameter {quoted(surplus)}; "
                    f"{type(self).__name__} has {quoted([*hyperparameters])}"
                )
        assignments = Assignments()
        self._enroll(
            [
                Group(
                    arrays, {**hyperparameters, **own}, name, self.declaration.checks, assignments
                )
                for name, arrays, own in divided
            ]
        )
        if not self._parameters:
            raise ValueError("params is empty; pass at least one array")
        self._memory().refuse_overlaps()
        self._allocate(self._rules_now())

    def _enroll(self, groups: list[Group]) -> None:
        """Take up the groups, and make what is known of each parameter."""
        store = None if self._arena is None else self._arena._store
        if store is not None:
            self._place = store.place  # which knows the stream of the arrays that were given
        self._groups, self._assignments = groups, groups[0].assignments
        self._parameters: list[Parameter] = []
        for group in groups:
            arrays = group["params"]
            here = slice(len(self._parameters), len(self._parameters) + len(arrays))
            members = [*zip(self._structure.paths[here], arrays, strict=True)]
            if store is None:
                own = [Parameter(path, array, group, self._place) for path, array in members]
                shelve(own)
            else:
                own = enroll(store, group, members, store.slots[here])
            self._parameters += own
        self._forget_layout()

    # ---- the step ----

    def step(
        self,
        grads: Any = OWN,
        *,
        scale: float = NOTHING.scale,
        max_norm: float | None = None,
        max_value: float | None = None,
        zero_grads: bool = False,
    ) -> Report:
        """Update the parameters in place.

        ::

            g = g·(1/scale)
            g = g·clip                     clip = min(1, max_norm / norm of all g together)
            g = max(-max_value, min(g, max_value))

        come first, where they are asked for, and then what the optimizer's formula says.

        Parameters
        ----------
        grads
            Gradients in the parameters' own structure: an array for an array, a sequence for
            a sequence, a mapping with the same keys for a mapping; for groups a sequence
            with one such structure a group. Each has its parameter's shape and dtype, in any
            layout, and is only read, but for `zero_grads`. None in a gradient's place skips
            that parameter: its state and its t stay as they are. An optimizer over an arena
            steps all of `arena.grads`, which need not be passed, see `fusedstep.Arena`.
        scale
            What the loss was multiplied by, above 0: gradients are divided by it.
        max_norm
            The largest norm, at least 0, that the gradients have together, after `scale`;
            larger ones are scaled down to it. The gradients are read once more for it, in
            float64, and no square overflows. Infinity only measures the norm. One NaN or
            infinity makes all that it clips NaN or 0, unless `nonfinite` keeps it out.
        max_value
            The largest size, at least 0, of each element, after `max_norm`. NaN stays NaN.
        zero_grads
            Leave zeros in the gradients, as the next accumulation wants them, also if the
            step is skipped. They must be writeable and share no memory.

        Returns
        -------
        Report
            `grad_norm`, `clip`, `skipped` and `t`, see `fusedstep.Report`.

        Raises
        ------
        TypeError, ValueError, KeyError
            If a gradient does not fit, or overlaps what the step writes, or another argument
            is out of its range. The message names it, and nothing has been written.
        FloatingPointError
            If a gradient is not finite, under `nonfinite="raise"`. Nothing has been written.

        Notes
        -----
        Clipping by the norm is that of Pascanu, Mikolov, Bengio (2013), "On the difficulty of
        training recurrent neural networks". torch's `clip_grad_norm_` divides by the norm +
        10⁻⁶; here a clipped norm is `max_norm` but for rounding. The norm is a sum over a fixed
        tree in float64, so that engine and threads do not change a bit of it. On a CUDA device a
        step waits for it.

        Examples
        --------
        >>> import numpy as np, fusedstep as fs
        >>> p, g = np.zeros(2), np.array([6.0, 8.0])
        >>> fs.SGD(p, lr=1.0).step(g, scale=2.0, max_norm=1.0, zero_grads=True)
        Report(grad_norm=5.0, clip=0.2, skipped=(), t=1)
        >>> p
        array([-0.6, -0.8])
        >>> g
        array([0., 0.])
        """
        if self._ahead:
            self._refuse_ahead("step")
        asked = NOTHING
        given = scale is not NOTHING.scale or max_norm is not None or max_value is not None
        if given or zero_grads is not False:
            asked = ask(scale, max_norm, max_value, zero_grads)
        if grads is OWN or self._arena is not None:
            flat = self._own(grads)
        else:
            flat = self._structure.flatten(grads, "grads")
        if self._assignments.count != self._seen and not self._keeps_rules():
            self._lay_out(flat, asked.zero_grads)
        if asked is not NOTHING or self._nonfinite != "propagate":
            return self._step_as_asked(flat, asked)
        plan, scalars = self._plan, self._scalars_of(self._cohorts)
        if (taken := plan.take_and_run(flat, scalars)) < len(flat):
            self._look_at(flat, taken, False)
            self._plan.fetch_gradients()
            self._plan.run(scalars if self._plan is plan else self._scalars_of(self._cohorts))
        return Report(None, 1.0, (), self._count())

    def _own(self, grads: Any) -> list[Any]:
        """The gradients of the arena, which is what `grads` has to be if it is there."""
        if self._arena is None:
            raise TypeError(
                "step() without `grads` is for optimizers over a fusedstep.Arena; pass the "
                "gradients, in the structure of the parameters"
            )
        if grads is not OWN and grads is not self._arena.grads:
            self._arena._store.refuse_others(grads)
        return self._gradients

    def _count(self, steps: int = 1) -> int:
        """Count the steps that were taken, and return those of the parameter with most."""
        t = 0
        for cohort in self._cohorts:
            cohort.t += steps
            if cohort.t > t:  # a call of max() takes longer
                t = cohort.t
        return t

    def _step_as_asked(self, grads: list[Any], asked: Asked) -> Report:
        """A step that is asked for more than its rule, or has to look out for NaN.

        All that may raise comes before anything is written.
        """
        zero = asked.zero_grads
        if (taken := self._plan.take(grads, 0, zero)) < len(grads):
            self._look_at(grads, taken, zero)
        if zero:
            self._refuse_shared(grads)
        if asked.scale != 1:
            for cohort in self._cohorts:
                check_scale(asked.scale, cohort.dtype)
        plan, scalars = self._plan, self._scalars_of(self._cohorts)
        plan.fetch_gradients()
        grad_norm, clip = None, 1.0
        if asked.max_norm is not None or self._nonfinite != "propagate":
            total = plan.squares()
            if asked.max_norm is not None:
                grad_norm = norm.norm(total) / asked.scale
                clip = clip_factor(grad_norm, asked.max_norm)
            if self._nonfinite != "propagate":
                doubtful = not norm.is_finite(total) or asked.scale < 1
                if doubtful and (unfit := self._unfit(1 / asked.scale)):
                    return self._refuse(grads, zero, unfit, grad_norm)
        step = step_scalars(asked.scale, clip, asked.max_value)
        for _, values in scalars:
            values.update(step)
        plan.run(scalars, zero)
        return Report(grad_norm, clip, (), self._count())

    def _unfit(self, unscale: float) -> list[int]:
        """Of `plan.unfit` the parameters."""
        unfit = [*self._plan.unfit(unscale)]
        if self._arena is None or not unfit:
            return unfit
        if self._near is None:
            self._near = self._look_closely(self._arena)
        self._near.squares()
        return [*self._near.unfit(unscale)]

    def _look_closely(self, arena: Arena) -> Plan:
        """The plan that these parameters would have without the arena."""
        at = {cohort: index for index, cohort in enumerate(self._cohorts)}
        jobs = [Job(self._rules[id(cohort.group)], cohort.dtype) for cohort in self._cohorts]
        rows = [
            parameter.row_of(self._rules[id(parameter.cohort.group)])
            for parameter in self._parameters
        ]
        for parameter, row in zip(self._parameters, rows, strict=True):
            row.job = at[parameter.cohort]
        plan = Plan(self._table, jobs, rows, self._memory())
        for index, g in enumerate(arena._store.g):
            plan.set_gradient(index, g)
        return plan

    def _refuse(
        self, grads: list[Any], zero: bool, unfit: list[int], grad_norm: float | None
    ) -> Report:
        """Raise, or skip the step, for the sake of the gradients that are not finite."""
        paths = [self._parameters[index].path for index in unfit]
        if self._nonfinite == "raise":
            raise FloatingPointError(
                f"{', '.join(f'grads{path}' for path in paths[:8])} "
                f"{'and more ' if len(paths) > 8 else ''}held NaN or infinity, or do so divided "
                "by `scale`; nothing was stepped. Lower the learning rate or the loss's scale, "
                "or pass nonfinite='skip' to the optimizer to leave such steps out"
            )
        if zero:
            for tensor, g in zip(self._tensors, grads, strict=True):
                if g is not None:
                    self._place.clear(self._place.see(g, f"grads{tensor.path}"))
        return Report(grad_norm, 1.0, tuple(f"params{path}" for path in paths), self._count(0))

    def _refuse_shared(self, grads: list[Any]) -> None:
        """No memory twice among gradients that will be zeroed: one would be read too late."""
        plan = self._plan
        if plan.unshared_at != plan.table.moves:
            WrittenMemory(
                (name, self._place.see(g, name))
                for tensor, g in zip(self._tensors, grads, strict=True)
                if g is not None
                for name in [f"grads{tensor.path}"]
            ).refuse_overlaps()
            plan.unshared_at = plan.table.moves

    def _scalars_of(self, cohorts: Iterable[Cohort]) -> list[Given]:
        """The scalars of the step that comes, for each cohort, which has been settled."""
        scalars = []
        for cohort in cohorts:
            group, t = cohort.group, cohort.t + 1
            h = group.at(t) if group.scheduled else group.hyperparameters
            scalars.append((cohort.constants, self.declaration.scalars(h, t)))
        return scalars

    def _settle(self, cohorts: Iterable[Cohort]) -> None:
        """Compute anew what stays from step to step."""
        for cohort in cohorts:
            h = cohort.group.hyperparameters
            average = {} if h["ema"] is None else average_constants(h["ema"])
            cohort.constants = {**self.declaration.constants(h), **average}

    def _look_at(self, grads: list[Any], at: int, zero: bool) -> None:
        """Check the gradient at `at`, and each further one that differs from what was before."""
        while at < len(grads):
            if (grads[at] is None) != (self._plan.rows[at] is None):
                self._lay_out(grads, zero)
                return
            self._plan.set_gradient(at, self._check_gradient(at, grads[at], zero))
            at = self._plan.take(grads, at + 1, zero)

    def _keeps_rules(self) -> bool:
        """Whether the hyperparameters call for the same rules as before: new scalars will do."""
        seen = self._assignments.count
        if self._rules != self._rules_now():
            return False
        self._settle(self._cohorts)
        self._seen = seen
        return True

    def _rules_now(self) -> dict[int, Rule]:
        """The rule that each group's hyperparameters call for, by the group's id."""
        return {id(group): self._rule_of(group.hyperparameters) for group in self._groups}

    def _rule_of(self, h: Hyperparameters) -> Rule:
        """The rule of a group, with the average if it has one."""
        rule = self.declaration.rule(h)
        return rule if h["ema"] is None else rule._replace(averaged=True)

    def _lay_out(self, grads: list[Any], zero: bool) -> None:
        """One row for each tensor with a gradient, one job for each cohort of them."""
        seen = self._assignments.count
        rules = self._rules_now()
        if rules != self._rules:
            self._allocate(rules)
        present = [
            (index, self._check_gradient(index, g, zero))
            for index, g in enumerate(grads)
            if g is not None
        ]
        self._rules, self._seen = {}, -1  # should this fail, the next step does it anew
        cohorts: dict[Any, Cohort] = {}
        active: dict[Cohort, int] = {}
        rows: list[Row | None] = []
        for tensor, g in zip(self._tensors, grads, strict=True):
            old = tensor.cohort
            key = id(old.group), old.dtype, old.t, g is None
            cohort = cohorts.setdefault(key, Cohort(old.group, old.dtype, old.t))
            tensor.cohort = cohort
            if g is None:
                rows.append(None)
            else:
                row = tensor.row_of(rules[id(cohort.group)])
                row.job = active.setdefault(cohort, len(active))
                rows.append(row)
        jobs = [Job(rules[id(cohort.group)], cohort.dtype) for cohort in active]
        plan = Plan(self._table, jobs, rows, self._memory())
        for index, g in present:
            plan.set_gradient(index, g)
        self._settle(active)
        self._plan, self._cohorts, self._seen = plan, list(active), seen
        self._rules, self._near = rules, None

    def _check_gradient(self, index: int, g: Any, zero: bool) -> Array:
        tensor = self._tensors[index]
        name = f"grads{tensor.path}"
        seen: Array = self._place.see(g, name)
        check_like(seen, tensor.p, name)
        if zero and not seen.flags.writeable:
            raise ValueError(f"{name} is read-only, and zero_grads=True writes to it; pass a copy")
        self._memory().refuse(seen, name)
        return seen

    def _allocate(self, rules: dict[int, Rule]) -> None:
        """The state that the rules call for."""
        for parameter in self._parameters:
            if parameter.allocate(rules[id(parameter.cohort.group)]):
                self._written = None

    def _memory(self) -> WrittenMemory:
        """All that a step may write."""
        if self._written is None:
            self._written = WrittenMemory(
                (f"{kind}{tensor.path}", array)
                for tensor in self._tensors
                for kind, array in [("params", tensor.p), *tensor.states.items()]
            )
        return self._written

    def _refuse_ahead(self, what: str) -> NoReturn:
        raise RuntimeError(
            f"{what} inside of lookahead(), where the parameters stand ahead of themselves; take "
            f"the gradients there, and leave the `with` block before {what}"
        )

    def _forget_layout(self) -> None:
        self._written = self._near = None
        self._cohorts, self._rules, self._seen = [], {}, -1
        tidy(self._parameters)
        self._tensors, self._gradients = self._parameters, []
        if self._arena is not None:
            self._tensors = stretched = stretches(self._parameters)
            self._gradients = [self._place.show(stretch.g) for stretch in stretched]

    def __getstate__(self) -> dict[str, Any]:
        if self._ahead:
            self._refuse_ahead("a copy")
        if not isinstance(self._place, Host):
            raise TypeError(
                "this optimizer's state is on a CUDA device, and cannot be copied or pickled with "
                "it; load its state_dict() into another optimizer"
            )
        kept = ("_backend", "_nonfinite", "_structure", "_arena", "_groups")
        state = {name: getattr(self, name) for name in kept}
        return {**state, "states": [{**State(parameter)} for parameter in self._parameters]}

    def __setstate__(self, state: dict[str, Any]) -> None:
        state = dict(state)
        states = state.pop("states")
        self.__dict__.update(state)
        leaves = [array for group in self._groups for array in group["params"]]
        params = named(self._structure, leaves)
        self._table, self._place = choose(self._backend, params, self.declaration.custom)
        self._enroll(self._groups)
        for parameter, kept in zip(self._parameters, states, strict=True):
            parameter.restore(kept)
        self._forget_layout()

    def __copy__(self) -> NoReturn:
        raise TypeError(
            "a shallow copy would step the same state; take copy.deepcopy of the optimizer and "
            "its parameters together, or load its state_dict() into another"
        )

    # ---- hyperparameters and state ----

    @property
    def arena(self) -> Arena | None:
        """The arena of the parameters and gradients, None where they are not in one."""
        return self._arena

    @property
    def param_groups(self) -> tuple[Group, ...]:
        """The groups: `"params"`, and hyperparameters that may change between steps."""
        return tuple(self._groups)

    @property
    def lr(self) -> Any:
        """The learning rate α of all groups; set it to change the next step's.

        A number, or a function of t, from 1 at a parameter's first step: a schedule of
        `fusedstep.schedules` or one of your own. It is called at each step, and should give
        the same for the same t.
        """
        rates = [group["lr"] for group in self._groups]
        if any(rate != rates[0] for rate in rates):
            raise ValueError(
                f"lr differs between the groups: [{quoted(rates)}]; read param_groups[i]['lr']"
            )
        return rates[0]

    @lr.setter
    def lr(self, value: Rate) -> None:
        for group in self._groups:
            group["lr"] = value

    def __setattr__(self, name: str, value: Any) -> None:
        if name != "lr" and not name.startswith("_"):
            raise AttributeError(
                f"an optimizer has no {name!r} to set; set `lr`, or a hyperparameter of a group, "
                f"as `param_groups[0][{name!r}] = {value!r}`"
            )
        super().__setattr__(name, value)

    @property
    def state(self) -> Any:
        """Each parameter's arrays by letter, and its t, in the structure of the parameters.

        A mapping for a mapping, a list for any sequence.
        """
        return self._structure.rebuild(map(State, self._parameters))

    def state_dict(self) -> dict[str, Any]:
        """A copy of all that the next steps depend on, but for the parameters themselves.

        Plain dicts, lists, numbers and arrays, fit for pickle. An optimizer of the same class
        over parameters of the same structure goes on from it with the same bits as this one.
        A schedule is there as its dict; in place of a function of your own as `lr` stands None.
        """
        if self._ahead:
            self._refuse_ahead("state_dict")
        # Hyperparameters that were assigned since the last step may call for more.
        self._allocate(self._rules_now())
        return save(type(self).__name__, self._groups, self._structure, self._parameters)

    def load_state_dict(self, state_dict: Mapping[str, Any]) -> None:
        """Take over hyperparameters and state from what `state_dict` returned.

        Arrays are copied, into the ones that are there. Nothing is written unless all fits.
        Where a function of your own was the `lr`, this optimizer needs one and keeps it.
        """
        if self._ahead:
            self._refuse_ahead("load_state_dict")
        check_top(state_dict, type(self).__name__, len(self._groups))
        hyperparameters = {
            id(group): check_group(values, group, index)
            for index, (group, values) in enumerate(
                zip(self._groups, state_dict["param_groups"], strict=True)
            )
        }
        states = []
        flat = self._structure.flatten(state_dict["state"], "state_dict['state']")
        for parameter, state in zip(self._parameters, flat, strict=True):
            rule = self._rule_of(hyperparameters[id(parameter.cohort.group)])
            known = (*filter(None, self.declaration.letters), "ema")
            states.append(check_state(state, parameter, rule.states, known))
        for group in self._groups:
            group.take(hyperparameters[id(group)])
        for parameter, state in zip(self._parameters, states, strict=True):
            parameter.restore(state)
        self._forget_layout()

    def __repr__(self) -> str:
        return f"{type(self).__name__}({list(self._groups)})"
