"""Plans of one tensor that outlive a call: each steps any arrays that lie as those it was made for.

To lay out a step takes as long as to step a hundred thousand elements, and a caller who passes all
arrays at each call would have it done each time. So the plans are kept, by rule and by how the
arrays lie, see `Table.layout_of`. At each call one is aimed at the arrays of that call, which pass
the checks of a first one. Between calls it holds none of them.

A call takes a plan out of the store while it works with it, so that no other thread steps with it.
"""

from __future__ import annotations

from collections.abc import Callable, Hashable, Mapping, Sequence
from typing import Any, cast

import numpy as np

from fusedstep._arrays.checks import check_copy, check_gradient, check_parameter, check_state
from fusedstep._arrays.dtypes import HALVES, dtype_name, format_of
from fusedstep._arrays.overlap import WrittenMemory
from fusedstep._arrays.place import HOST, Place
from fusedstep._arrays.walk import Array, Operand, Walk
from fusedstep._backends.choose import choose
from fusedstep._backends.plan import MISSED, STEPPED, Aimable, Job, Plan, Rest, Row, Table
from fusedstep._core.kept import storages
from fusedstep._numerics.coefficients import JobScalars, Rule
from fusedstep._numerics.rounding import check_rounding

MOST = 256
"""Plans that are kept, some 10 KB each."""

LACK_OF_MEMORY = MemoryError, SystemError
"""Errors for want of memory: the second where NumPy has returned a result beside the first."""

_plans: dict[Hashable, Aimed] = {}
"""Plans by backend, rule and layout, the one that was used last at the end."""

_layouts: dict[str, Callable[[list[Any]], bytes | None]] = {}
"""By the name of a backend, the function that tells how arrays on the CPU lie."""


def step_aimed(
    backend: str,
    rule: Rule,
    given: JobScalars,
    p: Any,
    g: Any,
    states: Mapping[str, Any],
    out: Any = None,
) -> None:
    """Step p by g, both the user's, by a rule whose state arrays are in `states` by letter.

    `out` is the user's array that p is written into as well, or None.
    """
    arrays = [p, *[states[letter] for letter in rule.states]]
    if out is not None:
        arrays.append(out)
    layout_of = _layouts.get(backend)
    layout = None if layout_of is None else layout_of(arrays)
    of_g = g.dtype if type(g) is np.ndarray else format_of(g)  # as most are, and for less
    key = backend, rule, layout, of_g
    if layout is not None:
        aimed = _plans.pop(key, None)
        if aimed is not None and aimed.step(arrays, g, given):
            try:
                if aimed.holding:
                    aimed.let_go()
                _plans[key] = aimed
            except LACK_OF_MEMORY:
                pass  # the step is done, and the plan is made anew at the next
            return
    table, place = choose(backend, [("p", p)])
    if table.aims and place is HOST:
        _layouts[backend] = layout_of = cast("type[Aimable]", table).layout_of
        layout = layout_of(arrays)
        key = backend, rule, layout, of_g
    aimed = Aimed(table, place, rule, arrays, g)
    aimed.run(given)
    try:
        if layout is not None and aimed.keep():
            _plans[key] = aimed
            for oldest in [*_plans][:-MOST]:
                _plans.pop(oldest, None)
    except LACK_OF_MEMORY:
        pass  # as above


class Aimed:
    """A plan of one tensor, at first for `arrays`: p, the state arrays of the rule, and `out`."""

    def __init__(
        self, table: type[Table], place: Place, rule: Rule, arrays: Sequence[Any], g: Any
    ) -> None:
        self.place = place
        self.names = ("p", *rule.states, "out")[: len(arrays)]
        self.types = [type(array) for array in arrays]
        p, *_ = self.views = self._look(arrays)
        """The arrays as they are described, until `keep`."""
        self.walk = walk = Walk(p, place)
        of = dict(zip(self.names, self.views, strict=True))
        copy = of.get("out")
        rest = None
        if copy is not None:
            rest = Rest(Operand(copy, walk), (None,) * len(rule.letters))
        self.row = Row(
            Operand(p, walk), walk, rule, lambda letter: Operand(of[letter], walk), rest=rest
        )
        written = WrittenMemory(zip(self.names, self.views, strict=True))
        written.refuse_overlaps()
        seen = self._look_at_gradient(g, p, written)
        copied = None if copy is None else f"copied_{HALVES[copy.dtype]}"
        plain = (None,) * len(rule.letters)
        kept = storages(copied, format_of(g), rule.letters, plain, (), "nearest")
        self.plan = Plan(table, [Job(rule, p.dtype, kept)], [self.row], written)
        self.plan.set_gradient(0, seen, g)
        self.table = cast("Aimable", self.plan.table)
        self.holding = True
        """Whether arrays of the user's are held."""

    def _look(self, arrays: Sequence[Any]) -> list[Array]:
        """The arrays as they are described; refused if a step cannot write to them."""
        see = self.place.see_argument
        p = see(arrays[0], None, "p")
        check_parameter(p, "p", arrays[0])
        if p.dtype in HALVES:
            raise TypeError(
                f"p is {dtype_name(p.dtype)}, and one step has no place for the bits that it "
                "lacks; pass float32 with the 16-bit array as `out`, or make an optimizer, as "
                "`fs.AdamW(p)`, which keeps them"
            )
        views = [p]
        for name, array in zip(self.names[1:], arrays[1:], strict=True):
            seen = see(array, p, name)
            (check_copy if name == "out" else check_state)(seen, p, name)
            views.append(seen)
        return views

    def _look_at_gradient(self, g: Any, p: Array, written: WrittenMemory) -> Array:
        """The gradient as it is described; refused if it does not fit."""
        seen: Array = self.place.see_gradient(g, p, "g")
        check_gradient(seen, p, "g")
        written.refuse(seen, "g")
        return seen

    def run(self, given: JobScalars) -> None:
        """Step the arrays by the gradient that has been taken."""
        self.plan.fetch_gradients()
        self.plan.run([given])

    def keep(self) -> bool:
        """Hold no array any more; False if the plan can serve no others."""
        if not self.views[0].size:
            return False
        self.table.aim_by(self.types, self.views)
        self.let_go()
        return True

    def let_go(self) -> None:
        """Hold no array of the user's."""
        self.holding = False
        self.views = []
        for operand in self.row.written:
            operand.let_go()
        self.plan.forget_gradients()

    def step(self, arrays: list[Any], g: Any, given: JobScalars) -> bool:
        """Step other arrays; False, and nothing done, if they do not lie as those before.

        Where `holding` is True then, they are to be let go.
        """
        if not self.plan.scratch:
            taken = self.table.aim_and_run(arrays, [g], [given])
            if taken == STEPPED:
                return True
            if taken == MISSED:
                return False
            if taken < 0:
                check_rounding()
        elif not self.table.aim(arrays):
            return False
        # The gradient lies in another way than the last, or something has to be copied.
        views = self._look(arrays)
        written = WrittenMemory(zip(self.names, views, strict=True))
        seen = self._look_at_gradient(g, views[0], written)
        self.plan.set_gradient(0, seen, g)
        for operand, view in zip(self.row.written, views, strict=True):
            operand.aim(self.walk.lay(view))
        self.holding = True
        self.run(given)
        return True
