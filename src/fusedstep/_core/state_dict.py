"""State dicts: the copy that an optimizer saves, and the checks on one that it loads."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from fusedstep._arrays.plain import plain
from fusedstep._arrays.structure import Structure
from fusedstep._checks.names import by_identifier
from fusedstep._checks.values import count_of_steps
from fusedstep._checks.wording import describe, differences, quoted
from fusedstep._core.groups import Group
from fusedstep._core.hints import declared_as, public_name
from fusedstep._core.kept import FIXED, STORAGE
from fusedstep._core.packed import (
    packed_entries,
    packed_rest,
    packed_state,
    read_rest,
    read_values,
)
from fusedstep._core.parameters import Parameter
from fusedstep._core.schedule import Schedule
from fusedstep._core.slices import ROW_T

FORMAT = 1
"""Version of the format, which rises when state dicts of older releases cannot be read."""

REMEDY = "pass what state_dict() returned"


def save(
    optimizer: str, groups: Sequence[Group], structure: Structure, parameters: Sequence[Parameter]
) -> dict[str, Any]:
    """Copies of hyperparameters and state, in plain dicts, lists, numbers and arrays."""
    return {
        "format": FORMAT,
        "optimizer": optimizer,
        "param_groups": [saved_group(group) for group in groups],
        "state": structure.rebuild(map(saved, parameters)),
    }


def saved_group(group: Group) -> dict[str, Any]:
    """The hyperparameters of a group."""
    return {**group.hyperparameters, "lr": _saved_rate(group["lr"])}


def _saved_rate(lr: Any) -> Any:
    """A learning rate as it is saved: a number, a schedule's dict, or None for a function."""
    if isinstance(lr, np.ndarray):
        return lr.copy()
    if not callable(lr):
        return lr
    return lr.to_dict() if isinstance(lr, Schedule) else None


def _loaded_rate(saved: Any, group: Group, name: str) -> Any:
    """The learning rate that was saved; in place of None the function that the optimizer has."""
    if saved is None:
        if callable(group["lr"]):
            return group["lr"]
        raise ValueError(
            f"{name} is None: it was a function of t, which a state dict cannot hold; assign that "
            f"function as lr, in place of {group['lr']!r}, and load again"
        )
    if not isinstance(saved, Mapping):
        return saved
    try:
        return Schedule.from_dict(saved)
    except (TypeError, ValueError) as error:
        raise type(error)(f"{name}: {error}") from None


def saved(parameter: Parameter) -> dict[str, Any]:
    """Copies of a parameter's state arrays, and its t; see packed.py for those in fewer bytes."""
    copies: dict[str, Any] = {}
    for letter in parameter.letters:
        if letter in parameter.packed:
            copies |= packed_state(parameter, letter)
        else:
            copies[letter] = parameter.place.read(parameter.state(letter))
    slices, t = parameter.slices, parameter.cohort.t
    row_t = None if slices is None else slices.row_t(t)
    own = {} if row_t is None else {ROW_T: row_t.copy()}
    return {**copies, **packed_rest(parameter), "t": t, **own}


def class_hint(name: Any) -> str:
    """The class that a state dict is of, as the end of an error."""
    made = declared_as(name)
    return "" if made is None else f"; load it into `opt = {public_name(made.optimizer)}(params)`"


def read_top(state_dict: Any, optimizer: str, groups: int) -> dict[str, Any]:
    """The top level of a state dict of this optimizer, with as many groups.

    Here and below every value is read once, and what was checked is what is loaded.
    """
    if not isinstance(state_dict, Mapping):
        raise TypeError(f"state_dict is {describe(state_dict)}; {REMEDY}")
    given: dict[str, Any] = dict(state_dict)
    for key in ("format", "optimizer", "param_groups", "state"):
        if key not in given:
            others = {"param_groups", "state"} <= given.keys() and key == "format"
            hint = f"; one of torch's is loaded by `fusedstep.torch.{optimizer}`" if others else ""
            raise KeyError(f"state_dict lacks {key!r}; {REMEDY}{hint}")
    for key, expected in (("format", FORMAT), ("optimizer", optimizer)):
        if given[key] != expected:
            raise ValueError(
                f"state_dict[{key!r}] is {given[key]!r}; this optimizer reads {expected!r}"
                f"{class_hint(given[key])}"
            )
    if not isinstance(given["param_groups"], (list, tuple)):
        name = "state_dict['param_groups']"
        raise TypeError(f"{name} is {describe(given['param_groups'])}; {REMEDY}")
    if len(given["param_groups"]) != groups:
        raise ValueError(
            f"state_dict has {len(given['param_groups'])} param_groups, this optimizer {groups}; "
            "make it with the same groups"
        )
    return given


def read_group(values: Any, group: Group, index: int) -> dict[str, Any]:
    """The hyperparameters of one group, checked."""
    name = f"state_dict['param_groups'][{index}]"
    if not isinstance(values, Mapping):
        raise TypeError(f"{name} is {describe(values)}; {REMEDY}")
    values = by_identifier(dict(values), name)
    own = group.hyperparameters
    # How things are kept is the affair of the optimizer that loads, and was none of older ones.
    values |= {each: own[each] for each in FIXED if each in own}
    values = {**{each: own[each] for each in STORAGE if each in own}, **values}
    if values.keys() != own.keys():
        raise KeyError(f"{name} {differences(values, group.hyperparameters)}; {REMEDY}")
    given = {**values, "lr": _loaded_rate(values["lr"], group, f"{name}['lr']")}
    return group.declaration.check(given, f"{name}: ")


def read_state(
    state: Any, parameter: Parameter, needed: Sequence[str | None], known: Sequence[str]
) -> dict[str, Any]:
    """A copy of one parameter's state: all letters in `needed`, and none that is not in `known`."""
    name = f"state_dict['state']{parameter.path}"
    if not isinstance(state, Mapping):
        raise TypeError(f"{name} is {describe(state)}; {REMEDY}")
    state = by_identifier(dict(state), name)
    for letter in ("t", *filter(None, needed)):
        if letter not in state:
            raise KeyError(f"{name} lacks {letter!r}; {REMEDY}")
    entries = {*packed_entries(known), ROW_T}
    surplus = [letter for letter in state if letter not in {"t", *known, *entries}]
    if surplus:
        raise KeyError(f"{name} has the surplus {quoted(surplus)}; {REMEDY}")
    copies: dict[str, Any] = {"t": count_of_steps(f"{name}['t']", state["t"], least=0)}
    for letter in (each for each in state if each not in {"t", *entries}):
        copies[letter] = read_values(state, letter, parameter, name)
    rest = read_rest(state, parameter, name)
    copies |= {} if rest is None else {"p": rest}
    if ROW_T in state:
        copies |= read_row_t(state[ROW_T], parameter, copies["t"], f"{name}[{ROW_T!r}]")
    return copies


def read_row_t(given: Any, parameter: Parameter, t: int, name: str) -> dict[str, Any]:
    """The t of each row, if this optimizer counts them; refused if it does not and they differ."""
    counts = plain(given, name)
    if counts.dtype.kind not in "iu" or counts.shape != parameter.p.shape[:1]:
        raise ValueError(
            f"{name} is {counts.dtype.name} of shape {counts.shape}; the parameter has shape "
            f"{parameter.p.shape}: {REMEDY}"
        )
    if counts.size and (counts.min() < 0 or counts.max() > t):
        raise ValueError(f"{name} has counts of steps that are below 0, or above t={t}; {REMEDY}")
    hyper = parameter.cohort.settings.hyperparameters
    if hyper["untouched"] == "frozen" and hyper["row_steps"] == "own":
        return {ROW_T: counts.astype(np.int64)}
    if (counts != t).any():
        raise ValueError(
            f"{name} has rows of other t than the parameter's; make the optimizer with "
            "`untouched='frozen', row_steps='own'`"
        )
    return {}
