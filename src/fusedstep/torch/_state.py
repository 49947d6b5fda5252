"""The state of one parameter as torch has it: found, or made where torch would make it."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, NamedTuple

import torch

from fusedstep._arrays.plain import plain
from fusedstep._numerics.coefficients import Rule
from fusedstep.torch._arrays import local
from fusedstep.torch._kinds import Kind

COUNT, PRODUCT = 0, 1
"""A job's numbers: the steps of its parameters, and NAdam's product of all μ so far."""

STEP, MU_PRODUCT, EMA = "step", "mu_product", "ema"


class Found(NamedTuple):
    """The state that steps go on from."""

    arrays: dict[str, Any]
    """The tensors of the rule's state arrays, by letter."""
    cells: list[tuple[Any, int]]
    """The tensors of one number that a step leaves, and which of its job's numbers each is."""
    t: int
    """Steps taken so far; of a kind that does not count, whether any were."""
    product: Any
    """NAdam's product of all μ so far, in its tensor's dtype; None for all others."""
    made: dict[str, Any]
    """Entries that the state lacks."""
    average_is_callers: bool
    """Whether the moving average is not in the state, but a tensor of the caller's."""


def find_state(
    kind: Kind,
    parameter: Any,
    existing: Mapping[str, Any],
    rule: Rule,
    values: Mapping[str, Any],
    average: Any,
) -> Found:
    """The state of `parameter`, of which `existing` is there, for steps by `rule`.

    `values` are its hyperparameters, `average` the tensor of the user's that its moving average
    goes to, or None.
    """
    made: dict[str, Any] = {}
    cells: list[tuple[Any, int]] = []
    t, product = 0, None
    if kind.counted:
        step = _number(STEP, existing.get(STEP), 0.0, made)
        cells.append((step, COUNT))
        t = int(step)
    if kind.product:
        shown = _number(MU_PRODUCT, existing.get(MU_PRODUCT), 1.0, made)
        cells.append((shown, PRODUCT))
        product = plain(shown, MU_PRODUCT).reshape(())[()]  # a number of its dtype
    arrays: dict[str, Any] = {}
    for letter, name in kind.names.items():
        if letter in rule.states:
            array = existing.get(name)
            if array is None and kind.counted and existing.get(STEP) is not None:
                raise KeyError(
                    f"the state of a parameter has {STEP!r} and no {name!r}, which these "
                    "hyperparameters need; load a state dict that was saved with them, or delete "
                    "the parameter's state to begin anew"
                )
            if array is None:
                array = made[name] = _initial(letter, parameter, values)
            elif not kind.counted:
                t = 1
            arrays[letter] = _dense(name, array, made)
    if rule.averaged:
        array = existing.get(EMA) if average is None else average
        if array is None:
            array = made[EMA] = parameter.detach().clone()
        arrays["ema"] = array
    return Found(arrays, cells, t, product, made, rule.averaged and average is not None)


def _number(name: str, value: Any, default: float, made: dict[str, Any]) -> Any:
    """A tensor of one float on the CPU: the one that is there, or one of the same value."""
    value = local(value)
    kept = (
        isinstance(value, torch.Tensor)
        and value.device.type == "cpu"
        and value.dtype in (torch.float32, torch.float64)
        and value.numel() == 1
    )
    if kept:
        return value
    dtype = torch.float64 if torch.get_default_dtype() is torch.float64 else torch.float32
    number = default if value is None else float(value)
    made[name] = torch.tensor(number, dtype=dtype, device="cpu")
    return made[name]


def _initial(letter: str, parameter: Any, values: Mapping[str, Any]) -> Any:
    """A new state array, as torch makes it."""
    like = parameter.detach()
    if letter == "s":
        start = values["initial_accumulator_value"]
        fill = complex(start, start) if parameter.is_complex() else start
        return torch.full_like(like, fill, memory_format=torch.preserve_format)
    return torch.zeros_like(like, memory_format=torch.preserve_format)


def _dense(name: str, array: Any, made: dict[str, Any]) -> Any:
    """A state array, made dense if torch has left a sparse one."""
    if local(array).layout is torch.strided:
        return array
    made[name] = array.to_dense()
    return made[name]
