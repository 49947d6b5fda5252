"""An optimizer's checkpoint: taken of its numbers, and given back to them."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping, Sequence
from functools import partial
from itertools import chain
from typing import Any, NamedTuple

import numpy as np

from fusedstep._arrays.at_once import Call
from fusedstep._arrays.dtypes import BFLOAT16, dtype_name
from fusedstep._arrays.plain import plain, where
from fusedstep._arrays.structure import flatten
from fusedstep._arrays.walk import Array
from fusedstep._checks.wording import quoted
from fusedstep._core.arena import Arena
from fusedstep._core.checkpoint import Checkpoint, CheckpointReader
from fusedstep._core.digest import Numbers, digest, names_of
from fusedstep._core.names_in_torch import names_in_torch
from fusedstep._core.numbers_in_file import numbers_in
from fusedstep._core.packed import MASTER, TAIL
from fusedstep._core.parameters import Parameter
from fusedstep._core.slices import ROW_T

FACE = "fusedstep"
"""The name of this package in checkpoints."""


class Saved(NamedTuple):
    """The arrays that a checkpoint has."""

    names: list[str]
    """Names of the optimizer's parameters, in their order."""
    others: dict[str, Any]
    """Further arrays, which the optimizer does not step, by name."""


def named_arrays(
    params: Any, own_names: Sequence[str], parameters: Sequence[Parameter], arrays: Sequence[Any]
) -> Saved:
    """The names that `params` gives the optimizer's parameters, and what else is in it.

    `arrays` are the user's own of these parameters. None for `params`: there is nothing else.
    """
    if params is None:
        return Saved([*own_names], {})
    structure, leaves = flatten(params.params if isinstance(params, Arena) else params)
    given = dict(zip(names_of(structure), leaves, strict=True))
    places = {_place_of(array): name for name, array in reversed(given.items())}
    objects = {id(array): name for name, array in reversed(given.items())}
    names = []
    for parameter, array in zip(parameters, arrays, strict=True):
        name = objects.get(id(array), places.get(_place_of(array)))
        if name is None:
            raise ValueError(
                f"params lacks params{parameter.path} of the optimizer; pass all of its "
                "parameters, the very arrays that it steps, or leave `params` out"
            )
        names.append(name)
    return Saved(names, {name: array for name, array in given.items() if name not in {*names}})


def _place_of(array: Any) -> Any:
    """The place of an array, which all views of just the same elements share."""
    at, (shape, strides, _) = where(array)
    return at, tuple(shape), tuple(strides)


# ---- taking ----


def states_in_file(
    optimizer: str, letters: Iterable[str], saved: Mapping[str, Any]
) -> dict[str, Array]:
    """The entries of one parameter in a state dict as a file has them."""
    names = names_in_torch(optimizer, [*letters])
    entries = {}
    for key, value in saved.items():
        if key in ("t", TAIL, MASTER):  # the parameter is there with all of its bits
            continue
        array = np.asarray(value)
        if key in letters and array.dtype == np.uint16:
            array = array.view(BFLOAT16)
        entries[names.get(key, key)] = array
    return entries


def other_arrays(others: Mapping[str, Any]) -> dict[str, Array]:
    """Copies of arrays that no optimizer steps."""
    views = {name: plain(array, f"params[{name!r}]") for name, array in others.items()}
    return {name: view.copy(order="C") for name, view in views.items()}


# ---- giving back ----


class Giving:
    """A checkpoint that is given to an optimizer."""

    def __init__(self, reader: CheckpointReader, checkpoint: Checkpoint) -> None:
        self.reader = reader
        self.checkpoint = checkpoint
        self.numbers: dict[str, Numbers] = {}
        """The numbers of each parameter, by name, once they are read."""

    def read_numbers(self, nonnegative: Collection[str]) -> None:
        """Read the numbers of the parameters.

        `nonnegative` are the letters of state arrays that never are below 0.
        """
        try:
            found = numbers_in(self.checkpoint, nonnegative)
        except ValueError as error:
            self.reader.refuse(f"has state that does not fit its parameter: {error}")
        self.numbers = {each.name: each for each in found}

    def check_digest(self) -> None:
        """Refuse numbers that are not of the digest in the file."""
        if digest(self.numbers.values()) != self.checkpoint.digest:
            self.reader.refuse(
                "does not have the digest that it tells: its numbers are not those that were saved"
            )

    def check_optimizer(self, name: str, groups: Sequence[Sequence[str]]) -> None:
        """Refuse a checkpoint of another class, or of other parameters or groups."""
        found = self.checkpoint
        if found.optimizer != name:
            self.reader.refuse(
                f"is a checkpoint of {found.optimizer}, and this is {name}",
                f"; load it into an optimizer of the class {found.optimizer}",
            )
        theirs = [[*group["params"]] for group in found.groups]
        own = [[*group] for group in groups]
        if [sorted(each) for each in theirs] == [sorted(each) for each in own]:
            return
        ours, of_file = {*chain(*own)}, {*chain(*theirs)}
        if ours == of_file:
            self.reader.refuse(
                f"has its parameters in {len(theirs)} groups otherwise than this optimizer in "
                f"{len(own)}",
                "; make the optimizer with the groups that it was saved with",
            )
        lost, surplus = sorted(ours - of_file), sorted(of_file - ours)
        parts = [f"lacks {quoted(lost)}" * bool(lost), f"has {quoted(surplus)}" * bool(surplus)]
        self.reader.refuse(
            f"{' and '.join(filter(None, parts))}, and this optimizer's parameters are called "
            f"{quoted(sorted(ours))}",
            "; pass them as `params` under the names that they were saved by",
        )

    def options(self, index: int, own: Mapping[str, Any], face: str) -> dict[str, Any]:
        """The hyperparameters of a group, whose own are `own`.

        Of another package's class they are those that both have.
        """
        saved = self.checkpoint.groups[index]
        if self.checkpoint.face == face:
            return {name: value for name, value in saved.items() if name != "params"}
        both = {name: _number(saved.get(name, value)) for name, value in own.items()}
        if both["lr"] is None or isinstance(both["lr"], Mapping):
            both["lr"] = own["lr"]  # in the place of a schedule, which another package has not
        return both

    def state(
        self, name: str, parameter: Parameter, letters: Sequence[str], needed: Iterable[str]
    ) -> dict[str, Any]:
        """The state of a parameter as a state dict has it.

        `letters` are all that it may have, and `needed` those that steps need.
        """
        numbers = self.numbers[name]
        arrays = dict(numbers.states)
        if self.checkpoint.face != FACE:
            arrays = {key: array for key, array in arrays.items() if key in letters}
            if numbers.t == 0:  # others make state at the first step
                initial = {key: _initial(key, numbers.p, parameter) for key in needed}
                arrays = {**initial, **arrays}
        counted = {} if numbers.row_t is None else {ROW_T: numbers.row_t}
        return {**arrays, **counted, "t": numbers.t}

    def values(self, name: str, parameter: Parameter) -> Array:
        """The values of a parameter in the dtype of its steps."""
        array = self.numbers[name].p
        if array.shape != parameter.p.shape:
            self.reader.refuse(
                f"has {name!r} of shape {array.shape}, and params{parameter.path} has shape "
                f"{parameter.p.shape}",
                "; make the optimizer over parameters of the shapes that were saved",
            )
        if array.dtype != parameter.dtype:
            self.reader.refuse(
                f"has {name!r} of {dtype_name(array.dtype)}, and params{parameter.path} is stepped "
                f"in {dtype_name(parameter.dtype)}",
                "; make the optimizer over parameters of the dtype that was saved",
            )
        return np.array(array, order="C")

    def others(self, others: Mapping[str, Any], own: Iterable[str]) -> list[Call]:
        """The calls that write the arrays that no optimizer steps."""
        known = {*own, *others}
        if surplus := sorted(self.checkpoint.params.keys() - known):
            self.reader.refuse(
                f"has {quoted(surplus)}, which this optimizer does not step",
                "; pass as `params` all arrays that were saved, under their names",
            )
        calls: list[Call] = []
        for name, array in others.items():
            own_view = plain(array, f"params[{name!r}]")
            given = self.checkpoint.params.get(name)
            if given is None:
                self.reader.refuse(
                    f"lacks {name!r}",
                    "; pass as `params` the arrays that were saved, and no others",
                )
            if (given.shape, given.dtype) != (own_view.shape, own_view.dtype):
                self.reader.refuse(
                    f"has {name!r} as {dtype_name(given.dtype)} of shape {given.shape}, and "
                    f"`params` as {dtype_name(own_view.dtype)} of shape {own_view.shape}",
                    "; pass an array of the dtype and shape that was saved",
                )
            if not own_view.flags.writeable:
                raise ValueError(
                    f"params[{name!r}] is read-only, and a load writes to it; pass a writeable copy"
                )
            calls.append(partial(np.copyto, own_view, given))
        return calls


def _initial(letter: str, p: Array, parameter: Parameter) -> Array:
    """A state array before the first step."""
    return p if letter == "ema" else np.full_like(p, parameter.initial)


def _number(option: Any) -> Any:
    """An option of another package's class, of a tensor its number or numbers."""
    if isinstance(option, Mapping) and "tensor" in option:
        value = option["tensor"]
        return np.array(value) if isinstance(value, (list, tuple)) else value
    return (*map(_number, option),) if isinstance(option, tuple) else option
