"""Groups of parameters, each with hyperparameters of its own."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterator, Mapping, MutableMapping, Sequence
from functools import partial
from itertools import repeat
from math import inf
from operator import setitem
from typing import Any

import numpy as np

from fusedstep._arrays.at_once import Call, at_once
from fusedstep._arrays.structure import (
    Branch,
    Structure,
    flatten,
    is_array,
    is_collection,
    is_ordered,
)
from fusedstep._checks.hints import nearest
from fusedstep._checks.names import as_identifier, by_identifier
from fusedstep._checks.rates import Rates, shown
from fusedstep._checks.values import rate_of_step
from fusedstep._checks.wording import describe, quoted
from fusedstep._core.declaration import Declaration
from fusedstep._core.hints import key_hint, refuse_group_attribute
from fusedstep._core.kept import FIXED
from fusedstep._core.schedule import Schedule
from fusedstep._core.turn import Turn
from fusedstep._numerics.range import LARGE, SMALL, is_usual

DECIDING = {"lr", "decay_scale", "initial_lr"}
"""Hyperparameters that decide whether the rate is free, see `Group.free_rate`."""


def base_rate(lr: Any) -> Any:
    """The rate that AdamW's ηₜ is measured by; None where that is not told."""
    if not callable(lr):
        return None if isinstance(lr, (Rates, np.ndarray)) else lr
    return lr.lr if isinstance(lr, Schedule) else None


def with_initial_lr(hyperparameters: dict[str, Any]) -> dict[str, Any]:
    """The hyperparameters with the rate that an `initial_lr` of None stands for."""
    if hyperparameters.get("initial_lr", 0) is not None:
        return hyperparameters
    return {**hyperparameters, "initial_lr": base_rate(hyperparameters["lr"])}


def shape_of(p: Any) -> tuple[int, ...]:
    """The shape of a parameter, which on a device may have its interface alone."""
    found = getattr(p, "shape", None)
    return (*(p.__cuda_array_interface__["shape"] if found is None else found),)


put = object.__setattr__
"""Sets an attribute of a group, which has no others than it is made with."""


class Group(MutableMapping[str, Any]):
    """Parameters with hyperparameters of their own, as torch's dicts.

    Assigning a hyperparameter takes effect at the next step; a value that will not do is
    refused at once and changes nothing.
    """

    _params: Sequence[Any]
    where: str
    """The beginning of errors about it."""
    declaration: Declaration
    """The declaration of its optimizer's class."""
    hyperparameters: dict[str, Any]
    """All of them, checked: replaced as a whole, and never changed but for a free rate."""
    free_rate: bool
    """Whether the rate is a number that any other may replace, whatever the rest is."""
    usual: bool
    """Whether every dtype is known to hold all that the rule makes of them."""
    turn: Turn | None = None
    """The turns at its optimizer; None until that has taken it up."""
    told: Callable[[Call], None] | None = None
    """The listener to assignments, told each with a call that takes it back; None for most."""

    def __init__(
        self,
        params: Sequence[Any],
        hyperparameters: dict[str, Any],
        where: str,
        declaration: Declaration,
    ) -> None:
        self.replace_params(params)
        put(self, "where", where)
        put(self, "declaration", declaration)
        self._take(declaration.check(with_initial_lr(hyperparameters), where))

    def __setattr__(self, name: str, value: Any) -> None:
        refuse_group_attribute(self, name, value)  # it would be without effect

    def _take(self, checked: dict[str, Any]) -> None:
        """Take over hyperparameters that have been checked."""
        self._refuse_misfit(checked["lr"], self.where)
        if self.told is not None:
            assign([self.taking(checked)], [self])
            return
        put(self, "free_rate", False)  # until they fit: a signal may come in between
        put(self, "usual", False)
        put(self, "hyperparameters", checked)
        put(self, "usual", self._is_usual(checked))
        put(self, "free_rate", self._frees_rate(checked))

    def tell(self, told: Callable[[Call], None]) -> None:
        """Tell of each assignment from now on."""
        put(self, "told", told)
        put(self, "free_rate", False)  # a free rate is assigned without a word

    def now(self) -> dict[str, Any]:
        """All that an assignment may change."""
        return {name: vars(self)[name] for name in ("hyperparameters", "free_rate", "usual")}

    def _is_usual(self, checked: dict[str, Any]) -> bool:
        simple = not (self.declaration.custom or self.declaration.rate_bound(checked))
        return simple and all(map(is_usual, checked.values()))

    def _frees_rate(self, checked: dict[str, Any]) -> bool:
        is_number = isinstance(checked["lr"], float)
        return is_number and self.told is None and not self.declaration.rate_bound(checked)

    def _refuse_misfit(self, lr: Any, where: str) -> None:
        """Refuse learning rates that do not broadcast over the rows of all parameters."""
        if isinstance(lr, Rates):
            for p in self._params:
                lr.refuse_misfit(shape_of(p), where)

    def taking(self, checked: dict[str, Any]) -> Call:
        """The call that takes over hyperparameters that have been checked."""
        self._refuse_misfit(checked["lr"], self.where)
        free, usual = self._frees_rate(checked), self._is_usual(checked)
        changed = {"hyperparameters": checked, "free_rate": free, "usual": usual}
        return partial(vars(self).update, changed)

    def at(self, hyperparameters: dict[str, Any], t: int) -> dict[str, Any]:
        """The given hyperparameters at step t, in which the learning rate is no function."""
        schedule = hyperparameters["lr"]
        lr = schedule(t)
        if type(lr) is float and 0 <= lr < inf:  # it is, as a rule, and that at every step
            lr += 0.0
        else:
            lr = self._converted(schedule, lr, t)
        values = {**hyperparameters, "lr": lr}
        try:
            self.declaration.together(values)
        except ValueError as error:
            raise ValueError(f"{self.where}at t={t}: {error}") from None
        return values

    def _converted(self, schedule: Any, lr: Any, t: int) -> Any:
        """The learning rate of step t, checked, as a function returned it."""
        try:
            checked = rate_of_step("lr", lr)
            self._refuse_misfit(checked, "")
        except (TypeError, ValueError) as error:
            more = f". Of arrays: {error}" if isinstance(lr, np.ndarray) and lr.ndim else ""
            raise type(error)(
                f"{self.where}lr={describe(schedule)} returned {describe(lr)} at t={t}; return a "
                f"finite number, 0 or more{more}"
            ) from None
        return checked

    def as_now(self) -> Group:
        """A group that stays what this one is now, for a step in flight."""
        put(self, "free_rate", False)  # so that the next rate is not written into the same dict
        made = object.__new__(Group)
        vars(made).update(vars(self))
        return made

    def join(self, turn: Turn) -> None:
        """Belong to an optimizer, which has these turns."""
        put(self, "turn", turn)

    @property
    def held(self) -> Group | None:
        """The group as it was when a step was asked for that is under way now, in flight."""
        return None if self.turn is None else self.turn.held.get(id(self))

    def __getstate__(self) -> dict[str, Any]:
        return {**vars(self), "turn": None, "told": None}

    def replace_params(self, params: Sequence[Any]) -> None:
        """Hold other arrays in place of its own, before an optimizer has taken them up."""
        put(self, "_params", params)

    def __getitem__(self, name: str) -> Any:
        if name == "params":
            return tuple(self._params)
        try:
            return shown(self.hyperparameters[as_identifier(name)])
        except KeyError:
            raise KeyError(
                f"a group has no {name!r}; it has {quoted([*self])}"
                f"{key_hint(name, [*self.hyperparameters])}"
            ) from None

    def __setitem__(self, name: str, value: Any) -> None:
        # Loops assign a rate at each step, and so it is looked at here without a further call.
        if (
            name == "lr"
            and self.free_rate
            and isinstance(value, float)
            and (SMALL < value < LARGE or value == 0)
        ):
            self.hyperparameters["lr"] = float(value) + 0.0  # -0.0 is 0.0
        elif name in (checks := self.declaration.checks):
            value = checks[name](name, value)
            if name in FIXED:
                self._refuse_other(name, value)
            checked = {**self.hyperparameters, name: value}
            self.declaration.together(checked)
            simple = self.usual and self.told is None
            if simple and is_usual(value) and name not in DECIDING:
                put(self, "hyperparameters", checked)  # all others are as they were
            else:
                self._take(checked)
        else:
            self._take(self.with_more({name: value}))

    def _refuse_other(self, name: str, value: Any) -> None:
        """Refuse to change what memory was laid out by."""
        if value != self.hyperparameters[name]:
            raise ValueError(
                f"{name}={value!r} would lay out memory anew, which was done for "
                f"{self.hyperparameters[name]!r}; make another optimizer with it, and load this "
                "one's state_dict()"
            )

    def update(self, *args: Any, **kwargs: Any) -> None:
        """Assign several at once: all of them, or none if one will not do."""
        values = dict(*args, **kwargs)
        if len(values) == 1:
            ((name, value),) = values.items()
            self[name] = value
        else:
            self._take(self.with_more(values))

    def with_more(self, values: Mapping[str, Any]) -> dict[str, Any]:
        """The hyperparameters with those values among them, which are checked."""
        values = by_identifier(values, "update")
        for name in values:
            if name not in self.hyperparameters:
                own = [*self.hyperparameters]
                hint = (
                    "a group keeps its arrays; make another optimizer"
                    if name == "params"
                    else f"it has {quoted(own)}{key_hint(name, own)}"
                )
                raise KeyError(f"a group has no hyperparameter {name!r} to set; {hint}")
        checked = self.declaration.check_more(self.hyperparameters, values)
        for name in FIXED:
            if name in values:
                self._refuse_other(name, checked[name])
        return checked

    def __ior__(self, values: Any) -> Group:
        """Update the group, as dicts are by `|=`."""
        self.update(values)
        return self

    def copy(self) -> dict[str, Any]:
        """The group as a dict of its own."""
        return dict(self)

    def __delitem__(self, name: str) -> None:
        raise TypeError(f"a group cannot lose {name!r}; assign another value instead")

    def __iter__(self) -> Iterator[str]:
        yield "params"
        yield from self.hyperparameters

    def __len__(self) -> int:
        return 1 + len(self.hyperparameters)

    def __repr__(self) -> str:
        values = ", ".join(f"{name}={value!r}" for name, value in self.hyperparameters.items())
        return f"<group of {len(self._params)} parameters: {values}>"


def rate_all(groups: Sequence[Group], value: Any) -> None:
    """Assign a learning rate to all groups, or to none if it will not do for one of them."""
    free = [group.hyperparameters for group in groups if group.free_rate]
    plain = isinstance(value, float) and value >= 0 and is_usual(value)
    if plain and len(free) == len(groups):
        rate = float(value) + 0.0
        # One call in C, which no signal can cut in two; `at_once` would need one for each group.
        deque(map(setitem, free, repeat("lr"), repeat(rate)), 0)
    else:
        assign([group.taking(group.with_more({"lr": value})) for group in groups], groups)


def assign(calls: Sequence[Call], groups: Sequence[Group]) -> None:
    """Do what takes over hyperparameters of groups, and tell of it once who is told."""
    told = next((group.told for group in groups if group.told is not None), None)
    before = [partial(vars(group).update, group.now()) for group in groups]
    at_once(calls)
    if told is not None:
        told(partial(at_once, before))


def read_groups(params: Any) -> tuple[Structure, list[tuple[str, Sequence[Any], dict[str, Any]]]]:
    """The structure of `params`, and each group: its name, arrays and own hyperparameters."""
    if (
        not is_array(params)
        and not isinstance(params, Mapping)
        and is_collection(params)
        and is_ordered(params)
    ):
        params = params if isinstance(params, tuple) else list(params)
        if params and all(isinstance(item, Mapping) and "params" in item for item in params):
            structure, leaves = flatten([item["params"] for item in params])
            assert isinstance(structure, Branch)
            rest = iter(leaves)
            groups: list[tuple[str, Sequence[Any], dict[str, Any]]] = []
            for index, item in enumerate(params):
                members = [next(rest) for _ in structure.children[index].paths]
                own = by_identifier(item, f"params[{index}]")
                del own["params"]
                groups.append((f"params[{index}]: ", members, own))
            return structure, groups
    try:
        structure, leaves = flatten(params)
    except TypeError as error:
        raise TypeError(meant_as_groups(params) or str(error)) from None
    return structure, [("", leaves, {})]


def meant_as_groups(params: Any) -> str | None:
    """The error for what was meant as groups and is not written so; None for other arrays."""
    if isinstance(params, Mapping):
        if "params" in params and len(params) > 1:
            return f"params is one group, {quoted([*params])}; pass a list of groups, `[params]`"
        if params and all(
            isinstance(each, Mapping) and "params" in each for each in params.values()
        ):
            return "params is a dict of groups; pass a list of groups, `list(params.values())`"
        return None
    if not isinstance(params, list):
        return None
    for index, item in enumerate(params):
        if not isinstance(item, Mapping):
            if any(isinstance(each, Mapping) and "params" in each for each in params):
                return (
                    f"params[{index}] is {describe(item)} among groups; make it one, "
                    f"`{{'params': params[{index}]}}`"
                )
        elif "params" not in item:
            near = nearest("params", item)
            if near is not None:
                return f"params[{index}] is a group without 'params'; did you mean it by {near!r}?"
    return None
