"""An optimizer's checkpoint: taken of its numbers, and given back to them."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from functools import partial
from itertools import chain
from typing import Any, NamedTuple

import numpy as np

from fusedstep._arrays.at_once import Call
from fusedstep._arrays.dtypes import BFLOAT16, HALVES, dtype_name
from fusedstep._arrays.plain import plain, where
from fusedstep._arrays.structure import flatten
from fusedstep._arrays.walk import Array
from fusedstep._checks.wording import quoted
from fusedstep._core.arena import Arena
from fusedstep._core.checkpoint import Checkpoint, CheckpointReader
from fusedstep._core.digest import Numbers, digest, names_of
from fusedstep._core.names_in_torch import names_in_torch
from fusedstep._core.packed import MASTER, TAIL
from fusedstep._core.parameters import Parameter
from fusedstep._core.slices import ROW_T
from fusedstep._numerics.storage import STORAGES

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


def widened(array: Array) -> Array:
    """An array of 16 bits as float32; any other as it is."""
    if array.dtype not in HALVES:
        return array
    flat = np.ascontiguousarray(array).reshape(-1)
    wide: Array = STORAGES[HALVES[array.dtype]].decode(array.size, (flat,))
    return wide.reshape(array.shape)


class Giving:
    """A checkpoint that is given to an optimizer whose parameters have these names."""

    def __init__(self, reader: CheckpointReader, checkpoint: Checkpoint) -> None:
        self.reader = reader
        self.checkpoint = checkpoint

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
        return {name: saved.get(name, value) for name, value in own.items()}

    def state(self, name: str, letters: Iterable[str]) -> dict[str, Any]:
        """The state of a parameter as a state dict has it."""
        names = names_in_torch(self.checkpoint.optimizer, [*letters])
        ours = {theirs: key for key, theirs in names.items()}
        entries = self.checkpoint.states[name].items()
        state: dict[str, Any] = {ours.get(key, key): array for key, array in entries}
        if self.checkpoint.face != FACE:
            state = {key: array for key, array in state.items() if key in ours.values()}
        return {**state, "t": self.checkpoint.t[name]}

    def values(self, name: str, parameter: Parameter) -> Array:
        """The values of a parameter in the dtype of its steps."""
        array = self.checkpoint.params[name]
        if array.shape != parameter.p.shape:
            self.reader.refuse(
                f"has {name!r} of shape {array.shape}, and params{parameter.path} has shape "
                f"{parameter.p.shape}",
                "; make the optimizer over parameters of the shapes that were saved",
            )
        values = widened(array)
        if values.dtype != parameter.dtype:
            self.reader.refuse(
                f"has {name!r} of {dtype_name(array.dtype)}, and params{parameter.path} is stepped "
                f"in {dtype_name(parameter.dtype)}",
                "; make the optimizer over parameters of the dtype that was saved",
            )
        return np.array(values, order="C")

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

    def check_digest(
        self, names: Sequence[str], values: Sequence[Array], states: Sequence[Mapping[str, Any]]
    ) -> None:
        """Refuse numbers that are not those of the digest in the file."""
        numbers = (
            Numbers(
                name,
                array,
                state["t"],
                {key: each for key, each in state.items() if key not in ("t", "p", ROW_T)},
                state.get(ROW_T),
            )
            for name, array, state in zip(names, values, states, strict=True)
        )
        if digest(numbers) != self.checkpoint.digest:
            self.reader.refuse(
                "does not have the digest that it tells: its numbers are not those that were saved"
            )
