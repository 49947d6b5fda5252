"""The state of one parameter as torch has it: found, or made where torch would make it."""

from __future__ import annotations

from collections.abc import Mapping
from functools import partial
from typing import Any, NamedTuple

import torch

from fusedstep._arrays.at_once import Call
from fusedstep._arrays.plain import plain
from fusedstep._core.names_in_torch import MU_PRODUCT, ORDER, ROW_STEP, STEP
from fusedstep._numerics.coefficients import Rule
from fusedstep.torch._arrays import local
from fusedstep.torch._kept import (
    CODES,
    FLAT,
    Formats,
    Kept,
    P,
    Site,
    formats_of,
    given_formats,
)
from fusedstep.torch._kinds import Kind
from fusedstep.torch._rows import counts_rows, needs_counts, row_steps

COUNT, PRODUCT = 0, 1
"""A job's numbers: the steps of its parameters, and NAdam's product of all μ so far."""

EMA = "ema"


class Changes(NamedTuple):
    """The difference between a parameter's state as it was found and as steps need it."""

    made: dict[str, Any]
    """Entries that the state lacks, or has in another form."""
    gone: list[str]
    """Entries that others take the place of."""
    writes: list[Call]
    """The calls that write the parameter, where it is held in another way from now on."""

    def followed_by(self, kept: Kept) -> Changes:
        """These, and then those of a parameter that is given other values."""
        gone = [name for name in self.gone if name not in kept.made]
        return Changes({**self.made, **kept.made}, gone, [*self.writes, *kept.writes])

    def calls(self, state: Any, parameter: Any) -> list[Call]:
        """The calls that bring the state up to them, and the parameter."""
        if not (self.made or self.gone):
            return [*self.writes]
        own = state.setdefault(parameter, {})
        gone = [partial(own.__delitem__, name) for name in self.gone if name in own]
        return [partial(own.update, self.made), *gone, *self.writes]


class Found(NamedTuple):
    """The state that steps go on from."""

    formats: Formats
    arrays: dict[str, Any]
    """The tensors of the rule's state arrays, by letter."""
    seconds: dict[str, Any]
    """The second tensors of those whose format has two, and of the parameter as "p"."""
    cells: list[tuple[Any, int]]
    """The tensors of one number that a step leaves, and which of its job's numbers each is."""
    t: int
    """Steps taken so far; of a kind that does not count, whether any were."""
    product: Any
    """NAdam's product of all μ so far, in its tensor's dtype; None for all others."""
    changes: Changes
    average_is_callers: bool
    """Whether the moving average is not in the state, but a tensor of the caller's."""
    row_step: Any = None
    """The tensor of the steps that each row has taken; None: rows do not count their own."""


def find_state(
    kind: Kind,
    site: Site,
    rule: Rule,
    values: Mapping[str, Any],
    average: Any,
    as_given: bool = False,
    by_rows: bool = False,
) -> Found:
    """The state of a parameter, for steps by `rule`.

    `values` are its hyperparameters, `average` the tensor of the user's that its moving average
    goes to, or None. `as_given` says that all is held in the dtype that it has, `by_rows` that
    the step is by rows of a gradient.
    """
    made: dict[str, Any] = {**site.densified}
    cells: list[tuple[Any, int]] = []
    t, product = 0, None
    existing = site.existing
    if kind.counted:
        step = _number(STEP, existing.get(STEP), 0.0, made, kind.steps_in)
        cells.append((step, COUNT))
        t = int(step)
    if kind.product:
        shown = _number(MU_PRODUCT, existing.get(MU_PRODUCT), 1.0, made)
        cells.append((shown, PRODUCT))
        product = plain(shown, MU_PRODUCT).reshape(())[()]  # a number of its dtype
    formats = (
        given_formats(kind, site.parameter, existing, rule)
        if as_given
        else formats_of(kind, site.parameter, rule, values, f"params{site.path}")
    )
    kepts: dict[str, Kept] = {}
    for letter, name in kind.names.items():
        if letter in rule.states:
            there = existing.get(name) is not None
            if not there and kind.counted and existing.get(STEP) is not None:
                raise KeyError(
                    f"the state of a parameter has {STEP!r} and no {name!r}, which these "
                    "hyperparameters need; load a state dict that was saved with them, or delete "
                    "the parameter's state to begin anew"
                )
            if there and not kind.counted:
                t = 1
            codes = CODES[letter in kind.declaration.nonnegative]
            initial = partial(_initial, letter, site.parameter, values)
            kepts[letter] = site.state_array(name, formats.states[letter], codes, initial, as_given)
    begun = kind.counted or t or not any(rule.letters)
    row_step = _row_steps(kind, site, rule, values, t, by_rows, bool(begun), made)
    if (
        not kind.counted
        and not as_given
        and (row_step is not None or formats.draws(values["rounding"]))
    ):
        # Random bits depend on t, and so do rows: it is counted all the same.
        most = 0 if row_step is None else int(row_step.max())
        step = _number(STEP, existing.get(STEP) if begun else None, float(max(t, most)), made)
        cells.append((step, COUNT))
        t = max(int(step), most)
    if rule.averaged and average is None:
        kepts[EMA] = site.state_array(EMA, None, CODES[0], lambda dtype: site.exact(), as_given)
    kepts[P] = Kept((), {}) if as_given else site.parameter_in(formats.p)
    arrays = {letter: kept.tensors[0] for letter, kept in kepts.items() if letter != P}
    if rule.averaged and average is not None:
        arrays[EMA] = average
    seconds = {letter: kept.tensors[1] for letter, kept in kepts.items() if len(kept.tensors) == 2}
    seconds.update(zip([P], kepts[P].tensors, strict=False))
    for kept in kepts.values():
        made.update(kept.made)
    gone = [name for kept in kepts.values() for name in kept.gone]
    if row_step is None and ROW_STEP in existing:
        gone.append(ROW_STEP)
    _note_order(site, formats, made, gone)
    changes = Changes(made, gone, [*kepts[P].writes])
    is_callers = rule.averaged and average is not None
    return Found(formats, arrays, seconds, cells, t, product, changes, is_callers, row_step)


def _row_steps(
    kind: Kind,
    site: Site,
    rule: Rule,
    values: Mapping[str, Any],
    t: int,
    by_rows: bool,
    begun: bool,
    made: dict[str, Any],
) -> Any:
    """The tensor of the steps that each row has taken; None: rows do not count their own."""
    existing, shape = site.existing, site.parameter.shape
    if not (ROW_STEP in existing or by_rows):
        return None
    most = t if kind.counted else None
    found = row_steps(existing, shape[0], values, most, site.path) if begun and shape else None
    if found is None and by_rows and counts_rows(values) and needs_counts(kind.counted, rule):
        found = torch.full(shape[:1], t, dtype=torch.int64, device="cpu")
    if found is not None and found is not existing.get(ROW_STEP):
        made[ROW_STEP] = found
    return found


def _note_order(site: Site, formats: Formats, made: dict[str, Any], gone: list[str]) -> None:
    """Let the state tell the order of what is flat there, if it is not C order."""
    flat = any(each in FLAT for each in (formats.p, *formats.states.values()))
    if flat and site.order is not None:
        if site.order_of_codes != site.order:
            made[ORDER] = site.order
    elif ORDER in site.existing:
        gone.append(ORDER)


def _number(name: str, value: Any, default: float, made: dict[str, Any], asked: Any = None) -> Any:
    """A tensor of one float on the CPU: the one that is there, or one of the same value.

    A new one has the dtype `asked`, or for None the one that torch gives it.
    """
    value = local(value)
    kept = (
        isinstance(value, torch.Tensor)
        and value.device.type == "cpu"
        and value.dtype in (torch.float32, torch.float64)
        and value.numel() == 1
    )
    if kept:
        return value
    wide = torch.get_default_dtype() is torch.float64
    dtype = asked or (torch.float64 if wide else torch.float32)
    number = default if value is None else float(value)
    made[name] = torch.tensor(number, dtype=dtype, device="cpu")
    return made[name]


def _initial(letter: str, parameter: Any, values: Mapping[str, Any], dtype: torch.dtype) -> Any:
    """A new state array, as torch makes it."""
    like = parameter.detach()
    if letter == "s":
        start = values["initial_accumulator_value"]
        fill = complex(start, start) if dtype.is_complex else start
        return torch.full_like(like, fill, dtype=dtype, memory_format=torch.preserve_format)
    return torch.zeros_like(like, dtype=dtype, memory_format=torch.preserve_format)
