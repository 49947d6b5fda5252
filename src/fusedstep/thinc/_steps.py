"""Parameters that are stepped together, as they are laid out over thinc's own state arrays."""

from __future__ import annotations

from functools import partial
from itertools import repeat
from math import inf
from typing import Any, TypeAlias

import numpy as np

from fusedstep._arrays.at_once import at_once
from fusedstep._arrays.overlap import WrittenMemory
from fusedstep._arrays.place import HOST
from fusedstep._arrays.plain import address
from fusedstep._arrays.walk import Operand, Walk
from fusedstep._backends.choose import choose
from fusedstep._backends.objects import same
from fusedstep._backends.plan import Job, Plan, Row
from fusedstep._numerics.coefficients import JobScalars, Rule
from fusedstep._numerics.rounding import check_rounding
from fusedstep.thinc._kinds import NEUTRAL, Kind, Settings, average, coupled

Key: TypeAlias = tuple[int, str]
"""A parameter's name: the number of its model's node, and its name there."""

Arrays: TypeAlias = dict[Key, Any]

DICTS = {"m": "mom1", "v": "mom2", "ema": "averages"}
"""The attributes of thinc's optimizer that hold the state, by its letters here."""

FLOAT32 = np.dtype(np.float32)

LARGE = 1e18
"""A norm of gradients from which on squares overflow, so that thinc's own formulas are needed."""


def fits(array: Any) -> bool:
    """Whether an array is one that thinc's kernels for the CPU step in place, and not empty."""
    if type(array) is not np.ndarray or array.dtype != FLOAT32 or not array.size:
        return False
    flags = array.flags
    return bool(array.ndim and flags.c_contiguous and flags.writeable and flags.aligned)


def lies_there(array: Any, known: Any) -> bool:
    """Whether an array is the known one, or has its shape and the same memory in its order."""
    return array is known or (
        fits(array) and array.shape == known.shape and address(array) == address(known)
    )


class Steps:
    """The steps of some parameters, for as long as all arrays are where they were."""

    plan: Plan | None
    """None: one of the arrays does not fit, or two share memory, so thinc steps them in turn."""

    def __init__(
        self, optimizer: Settings, kind: Kind, keys: list[Key], weights: list[Any]
    ) -> None:
        self.keys = keys
        self.weights = weights
        self.rule = kind.rule_of(optimizer)
        self.counts = [*map(optimizer.nr_update.__getitem__, keys)]
        """How many steps each parameter has taken."""
        self.times = sorted(set(self.counts))
        """The same of each job: there is one for each number of steps."""
        self.unshared_at = -1
        """Count of the plan's `moves` when gradients were last found to share no memory."""
        self.states: list[list[Any]] = []
        """The arrays of each letter of the rule's state, parameter by parameter."""
        self.seen: list[tuple[str, Arrays, list[Any]]] = []
        """The optimizer's dicts of state by their names, and all arrays that each had."""
        self.plan = self._lay_out(optimizer) if all(map(fits, weights)) else None

    def _lay_out(self, optimizer: Settings) -> Plan | None:
        self.states = states_of(optimizer, self.rule, self.keys, self.weights)
        self._look_at_state(optimizer)
        for array, p in zip(self._each_state(), self.weights * len(self.states), strict=True):
            if not (fits(array) and array.size == p.size):
                return None
        written = WrittenMemory(("", array) for array in (*self.weights, *self._each_state()))
        try:
            written.refuse_overlaps()
        except ValueError:
            return None
        self.written = written
        rows = []
        for at, (p, t) in enumerate(zip(self.weights, self.counts, strict=True)):
            walk = Walk(p, HOST)
            own = dict(zip(self.rule.states, (arrays[at] for arrays in self.states), strict=True))
            job = self.times.index(t)
            rows.append(Row(Operand(p, walk), walk, self.rule, partial(_operand, own), job, p))
        table, _ = choose(optimizer.backend, [("weights", p) for p in self.weights])
        return Plan(table, [Job(self.rule, FLOAT32) for _ in self.times], rows, written)

    def _each_state(self) -> list[Any]:
        return [array for arrays in self.states for array in arrays]

    def _look_at_state(self, optimizer: Settings) -> None:
        names = [DICTS[letter] for letter in self.rule.states]
        dicts = [getattr(optimizer, name) for name in names]
        self.seen = [
            (name, each, [*each.values()]) for name, each in zip(names, dicts, strict=True)
        ]

    # ---- whether they serve ----

    def serve(self, optimizer: Settings, kind: Kind, keys: list[Key], weights: list[Any]) -> bool:
        """Whether these are their parameters, with the rule, t and state that are laid out."""
        return (
            keys == self.keys
            and kind.rule_of(optimizer) is self.rule
            and (same(weights, self.weights) or all(map(lies_there, weights, self.weights)))
            and (self.plan is None or self._counts_and_state_stand(optimizer))
        )

    def _counts_and_state_stand(self, optimizer: Settings) -> bool:
        """Whether steps are counted as they were, and all state arrays are where they were."""
        if [*map(optimizer.nr_update.__getitem__, self.keys)] != self.counts:
            return False
        for name, before, arrays in self.seen:
            now = getattr(optimizer, name)
            if now is not before or not same([*now.values()], arrays):
                break
        else:
            return True
        states = states_of(optimizer, self.rule, self.keys, self.weights)
        self._look_at_state(optimizer)
        return all(map(same, states, self.states))

    # ---- a step ----

    def step(self, optimizer: Settings, kind: Kind, grads: list[Any], lr_scale: float) -> bool:
        """Step with these gradients and zero them; False, and nothing done, if thinc has to."""
        plan, clip = self.plan, optimizer.grad_clip or 0.0
        if plan is None or not clip >= 0 or not self._take(plan, grads):
            return False
        try:
            scalars = self._scalars(optimizer, kind, lr_scale)
        except (ArithmeticError, ValueError):
            return False
        if (clip or kind.keeps_nan) and not plan.measure(1.0, inf).norm < LARGE:
            return False
        if clip:
            if coupled(optimizer):
                for p, g in zip(self.weights, grads, strict=True):
                    g += optimizer.L2 * p
                plan.measure(1.0, inf)
            plan.table.clip_each(1.0, clip)
        counts = [count + 1 for count in self.counts]
        counted = partial(optimizer.nr_update.update, zip(self.keys, counts))  # noqa: B905  faster
        if at_once([*plan.calls(scalars, True, bool(clip)), counted]):
            check_rounding()
        self.counts, self.times = counts, [t + 1 for t in self.times]
        return True

    def _scalars(self, optimizer: Settings, kind: Kind, lr_scale: float) -> list[JobScalars]:
        scalars = []
        for count in self.times:
            values = kind.scalars(optimizer, count + 1, lr_scale)
            if self.rule.averaged:
                values.update(average(count + 1))
            scalars.append((NEUTRAL, values))
        return scalars

    def _take(self, plan: Plan, grads: list[Any]) -> bool:
        """Use these gradients; False if the kernels cannot read and zero them, all at once."""
        at = plan.take(grads, 0, True)
        while at < len(grads):
            g, p = grads[at], self.weights[at]
            if not (fits(g) and fits(p) and g.shape == p.shape):
                return False
            try:
                self.written.refuse(g, "")
            except ValueError:
                return False
            plan.set_gradient(at, g)
            at = plan.take(grads, at + 1, True)
        if plan.moves != self.unshared_at:
            try:
                WrittenMemory(zip(repeat(""), grads)).refuse_overlaps()
            except ValueError:
                return False
            self.unshared_at = plan.moves
        return True


def _operand(states: dict[str, Any], letter: str) -> Operand:
    return Operand.of_flat(states[letter].reshape(-1), HOST)


def states_of(
    optimizer: Settings, rule: Rule, keys: list[Key], weights: list[Any]
) -> list[list[Any]]:
    """The state arrays of parameters, letter by letter; those that are not there begin as zeros."""
    found = []
    for letter in rule.states:
        arrays = getattr(optimizer, DICTS[letter])
        for key, p in zip(keys, weights, strict=True):
            if key not in arrays:
                arrays[key] = np.zeros(p.shape if letter == "ema" else p.size, FLOAT32)
        found.append([arrays[key] for key in keys])
    return found
