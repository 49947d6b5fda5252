"""The parameters of a torch optimizer, each with its state as torch has it.

torch's own structures, `param_groups` and `state`, hold everything. What is here are views of
them, made anew whenever they are no longer what they were.
"""

from __future__ import annotations

from collections.abc import Hashable, Sequence
from operator import itemgetter
from typing import Any

import numpy as np
import torch

from fusedstep._arrays.checks import check_gradient, check_like, check_written
from fusedstep._arrays.dtypes import BFLOAT16, compute_dtype
from fusedstep._arrays.overlap import WrittenMemory
from fusedstep._arrays.place import HOST, Place
from fusedstep._arrays.plain import plain
from fusedstep._arrays.walk import Array, Operand, Walk
from fusedstep._backends.plan import Rest, Row, Storages, Table, Watched
from fusedstep._backends.slices import Integers, Touched
from fusedstep._checks.rates import Rates
from fusedstep._core.declaration import Declaration
from fusedstep._core.kept import FIXED, storages
from fusedstep._core.names_in_torch import ROW_STEP
from fusedstep._core.parameters import Cohort
from fusedstep._core.rows import seen_rows
from fusedstep._core.slices import Slices, touched_by
from fusedstep._numerics.coefficients import Hyperparameters, JobScalars, Rule
from fusedstep.torch._arrays import Seen, is_copy, local
from fusedstep.torch._handed_on import HANDED_ON, reasons_of_group
from fusedstep.torch._kept import FLAT, P
from fusedstep.torch._kinds import Group, Kind, is_fickle, next_product
from fusedstep.torch._rows import WHOLE, is_sparse, refuse_rows, rows_of
from fusedstep.torch._state import COUNT, PRODUCT, Found


class Settings:
    """The hyperparameters of one group, as the rules read them."""

    usual = False
    """Whether every dtype is known to hold all that the rule makes of them: it is looked at."""
    held = None
    """The settings that are in force instead: none, for no step is in flight."""

    def __init__(self, group: Group, kind: Kind) -> None:
        self.group = group
        self.kind = kind
        self.hyperparameters: dict[str, Any] = {}
        self.read()

    def read(self) -> None:
        """Read them from the group, which anybody may have assigned to."""
        group, kind = self.group, self.kind
        self.handed_on = reasons_of_group(group, kind)
        """Why torch alone can take the steps that the group asks for; empty if it need not."""
        if not self.handed_on:  # in a graph nothing may wait for what a tensor holds
            values = kind.hyperparameters(group)
            if values != self.hyperparameters:
                self.hyperparameters = values
        names = [name for name in (*kind.options, *HANDED_ON) if name in group]
        self.pick = itemgetter(*names)
        self.length = len(group)
        self.raw = self.pick(group)
        """The values that the group had for the hyperparameters."""
        self.fickle = is_fickle(self.raw)
        """Whether a tensor is among it, which may change without being assigned."""

    @property
    def choice(self) -> list[Any]:
        """The choices that decide how state is laid out."""
        return [self.hyperparameters.get(name) for name in (*FIXED, "rounding")]

    def are_old(self) -> bool:
        """Whether they are, or may be, others by now."""
        group = self.group
        if self.fickle or len(group) != self.length:
            return True
        try:
            return bool(self.pick(group) != self.raw)
        except (KeyError, RuntimeError, ValueError):
            return True

    def refuse_layout(self, g: Any) -> None:
        """Refuse a sparse gradient, or a dense one, in torch's words, where torch does."""
        kind = self.kind
        words = kind.refusal(self.hyperparameters) if is_sparse(g) else kind.dense
        if words is not None:
            raise RuntimeError(words)

    @property
    def by_column(self) -> bool:
        """Whether columns have learning rates of their own."""
        return isinstance(self.hyperparameters["lr"], Rates)

    def takes_rows(self, g: Any) -> bool:
        """Whether a gradient is one of rows: it is sparse, and the group says what that means."""
        return self.hyperparameters["untouched"] is not None and is_sparse(g)

    def at(self, hyperparameters: dict[str, Any], t: int) -> dict[str, Any]:
        """The same at every step: a torch optimizer's rate is a number, which schedulers assign."""
        return hyperparameters


def as_array(number: torch.Tensor) -> Array:
    """The array over a tensor of one number."""
    return plain(number, "a count").reshape(())


class Counted(Cohort):
    """A cohort whose t torch can read, and of NAdam the product of all μ that it has stepped by."""

    __slots__ = ("after", "before", "t_of_after")

    def __init__(self, group: Any, dtype: np.dtype[Any], t: int = 0, product: Any = None) -> None:
        super().__init__(group, dtype, t)
        self.before = product
        """The product before step `t_of_after`; None but for NAdam."""
        self.after = product
        """The product after that step, if it was taken as it was last asked for."""
        self.t_of_after = t + 1

    def product(self) -> Any:
        """The product now."""
        return self.after if self.t == self.t_of_after else self.before

    @property
    def key(self) -> Hashable:
        return super().key, self.product()

    def again(self) -> Counted:
        return Counted(self.group, self.dtype, self.t, self.product())

    def fades(self) -> bool:
        """Whether the learning rate may come to nothing: torch's schedulers set it as a number."""
        return True

    def given(self, declaration: Declaration, values: Hyperparameters, t: int) -> JobScalars:
        if self.before is None:
            return super().given(declaration, values, t)
        self.before = self.product()
        self.t_of_after = t
        self.after = next_product(values, self.before, t)
        return super().given(declaration, {**values, "product": self.after}, t)

    def given_alone(self, declaration: Declaration, values: Hyperparameters, t: int) -> JobScalars:
        return super().given(declaration, values, t)


class Tensor:
    """One parameter: what it is stepped as, and its state."""

    def __init__(
        self,
        seen: Seen,
        path: str,
        settings: Settings,
        state: Found,
        ordinal: int = 0,
        by_rows: bool = False,
    ) -> None:
        """`ordinal` is its number among all parameters, which random bits depend on.

        `by_rows` says that it has a gradient of rows.
        """
        self.path = path
        self.seen = seen
        self.p = seen.array
        self.walk = seen.walk()
        self.settings = settings
        self.ordinal = ordinal
        self.formats = state.formats
        self.choice = settings.choice
        """The choices by which its state was found."""
        dtype, place = compute_dtype(self.p.dtype), seen.place
        self.cohort: Cohort = Counted(settings, dtype, state.t, state.product)
        self.states = {
            letter: Seen(array, place, f"{letter}{path}") for letter, array in state.arrays.items()
        }
        self.seconds = {
            key: Seen(array, place, f"the rest of {key}{path}")
            for key, array in state.seconds.items()
        }
        """The second arrays of what has two, and of the parameter as "p"."""
        for each in self.seconds.values():
            if each.array.dtype == BFLOAT16:  # a tail that is sent as such
                each.array = each.array.view(np.int16)
        average = [self.states["ema"]] if state.average_is_callers else []
        self.exposed = [self.seen, *average]
        """Tensors that the caller has, too."""
        own = (*self.states.values(), *self.seconds.values())
        self.sheltered = [each for each in own if each not in average]
        """Tensors that are in the state alone."""
        self.cells = [(as_array(each), which) for each, which in state.cells]
        self.counts = [Watched.at(HOST, each) for each, _ in state.cells]
        """The counts of its steps in the state: of its own, and of each row's."""
        self.row: Row | None = None
        self.slices: Slices | None = None
        """How it is stepped by rows; None where no gradient has had some."""
        self.by_rows = by_rows
        """Whether its state was found for steps by rows."""
        if by_rows or settings.by_column or state.row_step is not None:
            self._begin_slices(state)
        for name, memory in self.written():
            check_written(memory, name)
        as_stepped = np.broadcast_to(np.zeros((), dtype), self.p.shape)
        for letter, each in self.states.items():
            if self.formats.states[letter] is None:
                check_like(each.array, as_stepped, f"{letter}{path}")

    def _begin_slices(self, state: Found) -> None:
        """Take gradients of rows."""
        narrow = any(each is not None for each in self.formats.states.values())
        lr, parameter = self.settings.hyperparameters["lr"], self.seen.tensor
        if isinstance(lr, Rates):
            why, remedy = "lr is an array", "or a number as `lr`"
            lr.refuse_misfit(self.p.shape, f"params{self.path}: ")
        else:
            why, remedy = f"grads{self.path} is sparse", WHOLE
        refuse_rows(parameter, narrow, why, remedy, self.path)
        own, untouched = state.row_step, self.settings.hyperparameters["untouched"]
        steps = "shared" if own is None else "own"
        self.slices = Slices(self.p.shape, untouched, steps, state.t)
        if own is not None:
            self.slices.counts = plain(own, f"{ROW_STEP}{self.path}")
            self.counts.append(Watched.at(HOST, own))

    def written(self) -> list[tuple[str, Array]]:
        """The memory of all that a step writes, with its names."""
        both = (*self.states.items(), *self.seconds.items())
        states = [(f"{letter}{self.path}", each.array) for letter, each in both]
        return [(f"params{self.path}", self.seen.array), *states]

    def state(self, letter: str) -> Array:
        """A state array in the parameter's shape."""
        return self.states[letter].array

    def check_memory(self) -> None:
        """Nothing: before each step all that was found is looked at."""

    def gradient_format(self, g: Any) -> str | None:
        """The format of a gradient; None: it is of the dtype of steps, or is brought to it."""
        return None if self.slices is not None else self.seen.gradient_format(g)

    def storages(self, rule: Rule, g: str | None) -> Storages | None:
        """How steps by a rule hold their operands, with gradients in the format g."""
        formats = [letter and self.formats.states.get(letter) for letter in rule.letters]
        nonnegative = self.settings.kind.declaration.nonnegative
        rounding = self.settings.hyperparameters["rounding"]
        return storages(self.formats.p, g, rule.letters, (*formats,), nonnegative, rounding)

    def row_of(self, rule: Rule) -> Row:
        """The parameter's row in a plan."""
        if self.row is None or self.row.rule.states != rule.states:
            self.row = Row(
                self.seen.operand(self._walk_of_steps),
                self._walk_of_steps,
                rule,
                self._operand,
                gradients=torch.Tensor,
                exposed=[each.watched for each in self.exposed],
                sheltered=[*(each.watched for each in self.sheltered), *self.counts],
                cells=self.cells,
                rest=self._rest(rule),
                ordinal=self.ordinal,
                by_slices=self.slices is not None,
            )
        return self.row

    @property
    def _walk_of_steps(self) -> Walk:
        """The order in which steps go over it: rows are one after the other in C order alone."""
        if self.slices is None or self.walk.plain:
            return self.walk
        return Walk.in_order(self.p.shape, self.seen.place)

    def _operand(self, letter: str) -> Operand:
        each = self.states[letter]
        flat = self.formats.states[letter] in FLAT
        return each.flat_operand() if flat else each.operand(self._walk_of_steps)

    def _rest(self, rule: Rule) -> Rest | None:
        """The second arrays of the operands; None if no operand has a format."""
        if not any((self.formats.p, *self.formats.states.values())):
            return None
        of_p = self._second(P, self.formats.p)
        of_states = [
            self._second(each, self.formats.states.get(each or "")) for each in rule.letters
        ]
        return Rest(of_p, (*of_states,))

    def _second(self, key: str | None, form: str | None) -> Operand | None:
        each = None if key is None else self.seconds.get(key)
        if each is None:
            return None
        return each.flat_operand() if form in FLAT else each.operand(self.walk)

    def stands(self, rule: Rule) -> bool:
        """Whether all that a row of this rule needs is as the last step left it."""
        if self.states.keys() != {*rule.states} or self.row is None or not self.row.stands(True):
            return False
        if self.choice != self.settings.choice:
            return False
        assert isinstance(self.cohort, Counted)
        left = {COUNT: self.cohort.t, PRODUCT: self.cohort.product()}
        return all(cell[()] == cell.dtype.type(left[which]) for cell, which in self.cells)

    # ---- rows ----

    def touched(
        self,
        g: Any,
        written: WrittenMemory,
        zero: bool,
        declaration: Declaration,
        kind: type[Table],
    ) -> Touched:
        """The rows that have a gradient, as the next step takes them; the gradient is checked."""
        assert self.slices is not None
        self.settings.refuse_layout(g)
        name, place = f"grads{self.path}", self.seen.place
        read = rows_of(g, self.p, name) if self.settings.takes_rows(g) else self.seen.gradient(g)
        seen = seen_rows(read, self.p, place, name, written, zero)
        return touched_by(self, seen, declaration, kind)

    def catch_up(self, kind: type[Table], ids: Integers | None = None) -> None:
        """Take the steps that these rows have missed, or for None all rows."""
        if self.slices is not None and self.slices.rule is not None:
            self.slices.catch_up(ids, self.row_of(self.slices.rule), self.cohort, kind)

    def moved_to(self, seen: Seen, state: Found) -> Tensor:
        """The same tensor, and its rows, where parameter and state are found now."""
        made = Tensor(seen, self.path, self.settings, state, self.ordinal)
        made.slices, made.cohort = self.slices, self.cohort
        return made

    def goes_by(self, rule: Rule) -> bool:
        """Whether the steps that rows have missed were by this rule."""
        return self.slices is not None and self.slices.rule == rule

    @property
    def is_behind(self) -> bool:
        """Whether rows may have missed steps."""
        return self.slices is not None and self.slices.is_behind

    # ---- gradients ----

    def check_gradient(self, g: torch.Tensor, place: Place) -> Array:
        """The gradient as an array, which is read-only where it is a copy."""
        self.settings.refuse_layout(g)
        name = f"grads{self.path}"
        read = self.seen.gradient(g)
        seen: Array = place.see(read, name)
        if seen.flags.writeable and is_copy(read, local(g)):
            seen.flags.writeable = False
        check_gradient(seen, self.p, name)
        return seen


class Tensors:
    """The tensors at one place: what a layout of steps is made of."""

    by_parameter = None

    def __init__(self, each: Sequence[Tensor | None], place: Place) -> None:
        self.each = each
        self.parameters: Any = each
        self.place = place
        self._written: WrittenMemory | None = None

    def written(self) -> WrittenMemory:
        """All memory that a step writes."""
        if self._written is None:
            present = [tensor for tensor in self.each if tensor is not None]
            self._written = WrittenMemory(pair for tensor in present for pair in tensor.written())
            self._written.refuse_overlaps()
        return self._written

    def check_gradient(self, index: int, g: Any, zero: bool) -> Array:
        """The gradient of a tensor as an array; refused if it does not fit."""
        tensor = self.each[index]
        assert tensor is not None
        seen = tensor.check_gradient(g, self.place)
        self.written().refuse(seen, f"grads{tensor.path}")
        return seen

    def touched(
        self, index: int, g: Any, zero: bool, declaration: Declaration, kind: type[Table]
    ) -> Touched:
        """The rows of a tensor as the next step takes them; the gradient is checked as above."""
        tensor = self.each[index]
        assert tensor is not None
        return tensor.touched(g, self.written(), zero, declaration, kind)

    def look_around(self) -> None:
        """Nothing: whatever is put into `param_groups` is found by the next step."""

    def seen(self, grads: Sequence[Any]) -> list[tuple[str, Array]]:
        """The gradients that are not None, each with its name, as arrays."""
        return [
            (f"grads{tensor.path}", tensor.check_gradient(g, self.place))
            for tensor, g in zip(self.each, grads, strict=True)
            if tensor is not None and g is not None
        ]
