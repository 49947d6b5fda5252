"""What all optimizers share: parameters and groups in, steps, state, and saving and resuming."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any, ClassVar

import numpy as np

from fusedstep.arrays import Array, Walk, Written, check_like, check_parameter
from fusedstep.coefficients import Hyperparameters, Rule, Scalars
from fusedstep.dispatch import table_class
from fusedstep.hyperparameters import Group, check
from fusedstep.plan import Job, Plan, Row
from fusedstep.structure import Branch, Structure, is_array, is_collection, quoted, read

FORMAT = 1
"""Of state_dict. It rises when what older releases wrote can no longer be read."""


class Cohort:
    """Parameters of one group and dtype that have taken the same number of steps, t."""

    def __init__(self, group: Group, dtype: np.dtype[Any], t: int) -> None:
        self.group = group
        self.dtype = dtype
        self.t = t


class Parameter:
    """One parameter and its state."""

    def __init__(self, path: str, p: Array, group: Group) -> None:
        self.path = path
        self.p = p
        self.cohort = Cohort(group, p.dtype, 0)
        self.states: dict[str, Array] = {}

    def allocate(self, rule: Rule) -> bool:
        """The state arrays that `rule` needs and that are not there yet: whether there were any."""
        lacking = [letter for letter in rule.letters if letter and letter not in self.states]
        initial = self.cohort.group.hyperparameters.get("initial_accumulator_value", 0.0)
        for letter in lacking:
            self.states[letter] = Walk(self.p).zeros(self.p.dtype)
            if initial != 0:
                self.states[letter][...] = initial
        return bool(lacking)


class State(Mapping[str, Any]):
    """One parameter's state: its arrays by letter, live, and `t`, the steps it has taken.

    Arrays may be written to in place. What is read-only here changes by `load_state_dict`.
    """

    def __init__(self, parameter: Parameter) -> None:
        self._parameter = parameter

    def __getitem__(self, key: str) -> Any:
        return self._parameter.cohort.t if key == "t" else self._parameter.states[key]

    def __iter__(self) -> Iterator[str]:
        yield from self._parameter.states
        yield "t"

    def __len__(self) -> int:
        return len(self._parameter.states) + 1

    def __repr__(self) -> str:
        return repr(dict(self))


class Optimizer:
    """What all optimizers share; use one of its subclasses.

    Parameters are a NumPy array, or a sequence or mapping of arrays, nested at will, or a
    sequence of groups as torch has them: mappings with `"params"` and the hyperparameters
    in which that group differs. They are float32 or float64 of any layout, and change in
    place. State is of a parameter's dtype and shape and starts at t = 0.
    """

    _rule: ClassVar[staticmethod[[Hyperparameters], Rule]]
    _scalars: ClassVar[staticmethod[[Hyperparameters, int], Scalars]]

    # What knows addresses. It is made at the first step after `_forget_layout`.
    _plan: Plan
    _written: Written | None
    _cohorts: list[Cohort]
    _versions: list[int]

    def __init__(self, params: Any, backend: str, hyperparameters: dict[str, Any]) -> None:
        self._table = table_class(backend)
        self._structure, divided = _read_groups(params)
        paths = iter(self._structure.paths)
        self._groups: list[Group] = []
        self._parameters: list[Parameter] = []
        for arrays, differences in divided:
            surplus = [name for name in differences if name not in hyperparameters]
            if surplus:
                raise KeyError(
                    f"params[{len(self._groups)}] has the unknown hyperparameter "
                    f"{quoted(surplus)}; {type(self).__name__} has {quoted([*hyperparameters])}"
                )
            group = Group(arrays, {**hyperparameters, **differences})
            self._groups.append(group)
            for p, path in zip(arrays, paths, strict=False):
                check_parameter(p, f"params{path}")
                self._parameters.append(Parameter(path, p, group))
        if not self._parameters:
            raise ValueError("params is empty; pass at least one array")
        self._forget_layout()
        self._memory().refuse_overlaps()
        self._allocate()

    # ---- the step ----

    def step(self, grads: Any) -> None:
        """Update the parameters in place.

        Parameters
        ----------
        grads
            Gradients in the parameters' own structure: an array for an array, a sequence for
            a sequence, a mapping with the same keys for a mapping; for groups a sequence
            with one such structure a group. Each has its parameter's shape and dtype, in any
            layout, and is only read. None in a gradient's place skips that parameter: its
            state and its t stay as they are.

        Raises
        ------
        TypeError, ValueError, KeyError
            If a gradient does not fit, or overlaps what the step writes. The message names
            it, and nothing has been written.
        """
        flat = self._structure.flatten(grads, "grads")
        if [group.version for group in self._groups] != self._versions:
            self._lay_out(flat)
        elif (at := self._plan.take(flat, 0)) < len(flat):
            self._look_at(flat, at)
        self._plan.run(
            [self._scalars(job.group.hyperparameters, job.t + 1) for job in self._cohorts]
        )
        for cohort in self._cohorts:
            cohort.t += 1

    def _look_at(self, grads: list[Any], at: int) -> None:
        """Check the gradient at `at`, and each further one that differs from what was before."""
        while at < len(grads):
            if (grads[at] is None) != (self._plan.rows[at] is None):
                self._lay_out(grads)
                return
            self._check_gradient(at, grads[at])
            self._plan.set_gradient(at, grads[at])
            at = self._plan.take(grads, at + 1)

    def _lay_out(self, grads: list[Any]) -> None:
        """One row for each parameter with a gradient, one job for each cohort of them."""
        versions = [group.version for group in self._groups]
        self._allocate()
        present = [(index, g) for index, g in enumerate(grads) if g is not None]
        for index, g in present:
            self._check_gradient(index, g)
        cohorts: dict[Any, Cohort] = {}
        active: dict[Cohort, int] = {}
        rows: list[Row | None] = []
        for parameter, g in zip(self._parameters, grads, strict=True):
            old = parameter.cohort
            key = id(old.group), old.dtype, old.t, g is None
            cohort = cohorts.setdefault(key, Cohort(old.group, old.dtype, old.t))
            parameter.cohort = cohort
            if g is None:
                rows.append(None)
            else:
                job = active.setdefault(cohort, len(active))
                letters = self._rule(cohort.group.hyperparameters).letters
                rows.append(Row(job, parameter.p, letters, parameter.states))
        jobs = [Job(self._rule(job.group.hyperparameters), job.dtype) for job in active]
        plan = Plan(self._table, jobs, rows, self._memory())
        for index, g in present:
            plan.set_gradient(index, g)
        self._plan, self._cohorts, self._versions = plan, list(active), versions

    def _check_gradient(self, index: int, g: Any) -> None:
        parameter = self._parameters[index]
        check_like(g, parameter.p, f"grads{parameter.path}")
        self._memory().refuse(g, f"grads{parameter.path}")

    def _allocate(self) -> None:
        """The state that the hyperparameters call for."""
        for parameter in self._parameters:
            rule = self._rule(parameter.cohort.group.hyperparameters)
            if parameter.allocate(rule):
                self._written = None

    def _memory(self) -> Written:
        """All that a step may write."""
        if self._written is None:
            self._written = Written(
                (f"{kind}{parameter.path}", array)
                for parameter in self._parameters
                for kind, array in [("params", parameter.p), *parameter.states.items()]
            )
        return self._written

    def _forget_layout(self) -> None:
        self._written = None
        self._cohorts, self._versions = [], []

    def __getstate__(self) -> dict[str, Any]:
        addresses = ("_plan", "_written", "_cohorts", "_versions")
        return {name: value for name, value in self.__dict__.items() if name not in addresses}

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__dict__.update(state)
        self._forget_layout()

    # ---- hyperparameters and state ----

    @property
    def param_groups(self) -> list[Group]:
        """The groups: `"params"`, and hyperparameters that may change between steps."""
        return self._groups

    @property
    def lr(self) -> float:
        """The learning rate α of all groups; set it to change the next step's."""
        rates = {group["lr"] for group in self._groups}
        if len(rates) > 1:
            raise ValueError(
                f"lr differs between the groups: {sorted(rates)}; read param_groups[i]['lr']"
            )
        return float(rates.pop())

    @lr.setter
    def lr(self, value: float) -> None:
        for group in self._groups:
            group["lr"] = value

    @property
    def state(self) -> Any:
        """Each parameter's arrays by letter, and its t, in the structure of the parameters."""
        return self._structure.rebuild(map(State, self._parameters))

    def state_dict(self) -> dict[str, Any]:
        """A copy of all that the next steps depend on, but for the parameters themselves.

        Plain dicts, lists, numbers and arrays, fit for pickle. An optimizer of the same class
        over parameters of the same structure goes on from it with the same bits as this one.
        """
        return {
            "format": FORMAT,
            "optimizer": type(self).__name__,
            "param_groups": [dict(group.hyperparameters) for group in self._groups],
            "state": self._structure.rebuild(
                {
                    key: value.copy() if isinstance(value, np.ndarray) else value
                    for key, value in State(parameter).items()
                }
                for parameter in self._parameters
            ),
        }

    def load_state_dict(self, state_dict: Mapping[str, Any]) -> None:
        """Take over hyperparameters and state from what `state_dict` returned.

        Arrays are copied, into the ones that are there. Nothing is written unless all fits.
        """
        hyperparameters, states = self._check_state_dict(state_dict)
        for group, values in zip(self._groups, hyperparameters, strict=True):
            group.hyperparameters = values
            group.version += 1
        self._allocate()
        for parameter, state in zip(self._parameters, states, strict=True):
            group, dtype = parameter.cohort.group, parameter.cohort.dtype
            parameter.cohort = Cohort(group, dtype, state["t"])
            for letter in parameter.states.keys() & state.keys():
                parameter.states[letter][...] = state[letter]
        self._forget_layout()

    def _check_state_dict(self, given: Mapping[str, Any]) -> tuple[list[Any], list[Any]]:
        """The checked hyperparameters of each group and the state of each parameter."""
        for key, expected in (("format", FORMAT), ("optimizer", type(self).__name__)):
            if key not in given:
                raise KeyError(f"state_dict lacks {key!r}; pass what state_dict() returned")
            if given[key] != expected:
                raise ValueError(
                    f"state_dict[{key!r}] is {given[key]!r}; this optimizer reads {expected!r}"
                )
        groups = given["param_groups"]
        if len(groups) != len(self._groups):
            raise ValueError(
                f"state_dict has {len(groups)} param_groups, this optimizer {len(self._groups)}; "
                "make it with the same groups"
            )
        hyperparameters = []
        for index, (group, values) in enumerate(zip(self._groups, groups, strict=True)):
            if values.keys() != group.hyperparameters.keys():
                raise KeyError(
                    f"state_dict['param_groups'][{index}] has {quoted([*values])}; "
                    f"pass {quoted([*group.hyperparameters])}"
                )
            hyperparameters.append(check(dict(values)))
        states = self._structure.flatten(given["state"], "state_dict['state']")
        of_group = {id(group): h for group, h in zip(self._groups, hyperparameters, strict=True)}
        for parameter, state in zip(self._parameters, states, strict=True):
            name = f"state_dict['state']{parameter.path}"
            rule = self._rule(of_group[id(parameter.cohort.group)])
            for letter in ("t", *filter(None, rule.letters)):
                if letter not in state:
                    raise KeyError(f"{name} lacks {letter!r}; pass what state_dict() returned")
            if not isinstance(state["t"], int) or state["t"] < 0:
                raise ValueError(f"{name}['t'] is {state['t']!r}; pass a whole number from 0")
            for letter in state.keys() - {"t"}:
                check_like(state[letter], parameter.p, f"{name}[{letter!r}]")
        return hyperparameters, states

    def __repr__(self) -> str:
        return f"{type(self).__name__}({self._groups})"


def _read_groups(params: Any) -> tuple[Structure, list[tuple[list[Array], dict[str, Any]]]]:
    """The structure of `params`, and for each group its arrays and its own hyperparameters."""
    if is_collection(params) and not is_array(params) and not isinstance(params, Mapping):
        params = list(params)
        if params and all(isinstance(item, Mapping) and "params" in item for item in params):
            structure, leaves = read([item["params"] for item in params])
            assert isinstance(structure, Branch)
            rest = iter(leaves)
            return structure, [
                (
                    [next(rest) for _ in child.paths],
                    {name: value for name, value in item.items() if name != "params"},
                )
                for child, item in zip(structure.children.values(), params, strict=True)
            ]
    structure, leaves = read(params)
    return structure, [(leaves, {})]
