"""The tensors that a step goes over: parameters, or an arena's parameters in few stretches.

State, checkpoints and reports are by parameter. A step sees tensors: it treats neighbours in
an arena alike that have taken the same number of steps.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import cache, partial
from itertools import groupby
from typing import Any, Protocol

import numpy as np

from fusedstep._arrays.checks import check_copy, check_gradient, check_parameter
from fusedstep._arrays.dtypes import FLOAT64, HALVES, compute_dtype
from fusedstep._arrays.libraries import by_numpy
from fusedstep._arrays.memory import Shelf
from fusedstep._arrays.overlap import WrittenMemory
from fusedstep._arrays.place import Place
from fusedstep._arrays.plain import address
from fusedstep._arrays.walk import Array, Operand, Walk
from fusedstep._backends.plan import Row, Storages, Table
from fusedstep._backends.slices import Touched
from fusedstep._checks.rates import Rates
from fusedstep._core.arena_memory import ArenaMemory, Slot
from fusedstep._core.container import Container, warn_of_replaced
from fusedstep._core.declaration import Declaration
from fusedstep._core.groups import Group
from fusedstep._core.kept import refuse_idle_master, refuse_wide_state
from fusedstep._core.parameters import Cohort, Parameter, by_shelf, shelve
from fusedstep._core.rows import Rows, has_rows, seen_rows, values_of
from fusedstep._core.slices import Slices, touched_by
from fusedstep._numerics.coefficients import Rule


class Tensor(Protocol):
    """A parameter, or a stretch of an arena."""

    path: str
    p: Array

    @property
    def cohort(self) -> Cohort:
        """The group, dtype and step count."""

    @cohort.setter
    def cohort(self, cohort: Cohort) -> None: ...

    def state(self, letter: str) -> Array:
        """A state array in the tensor's shape."""

    def check_memory(self) -> None:
        """Refuse a parameter that cannot be written to any more, or has lost its memory."""

    def gradient_format(self, g: Any) -> str | None:
        """The format of a gradient of it; None: it is of the dtype of its steps, or is refused."""

    def storages(self, rule: Rule, g: str | None) -> Storages | None:
        """How steps by `rule` hold its operands, with gradients in the format g."""

    def row_of(self, rule: Rule) -> Row:
        """The tensor's row in a plan of steps by `rule`."""

    @property
    def slices(self) -> Slices | None:
        """How it is stepped by rows; None where no gradient has had some."""

    def catch_up(self, kind: type[Table]) -> None:
        """Take the steps that its rows have missed."""


class Steppable(Protocol):
    """The tensors that a layout is made of."""

    @property
    def each(self) -> Sequence[Tensor | None]:
        """The tensors; None in the place of one that never has a gradient."""

    @property
    def parameters(self) -> Sequence[Parameter]:
        """The parameters, for reports and where an arena's must be looked at one by one."""

    @property
    def by_parameter(self) -> Sequence[Array] | None:
        """An arena's gradients, parameter by parameter."""

    place: Place

    def written(self) -> WrittenMemory:
        """All memory that a step writes."""

    def check_gradient(self, index: int, g: Any, zero: bool) -> Array:
        """The gradient of a tensor, as arrays here are described; refused if it does not fit.

        `zero` says that the step writes zeros to it.
        """

    def touched(
        self, index: int, g: Any, zero: bool, declaration: Declaration, kind: type[Table]
    ) -> Touched:
        """The slices of a tensor that the next step touches; the gradient is checked as above."""

    def seen(self, grads: Sequence[Any]) -> list[tuple[str, Array]]:
        """The gradients that are not None, each with its name, as arrays here are described."""

    def look_around(self) -> None:
        """Warn of what makes steps useless; it is called before steps 1, 2, 4, 8 and so on."""


class Tensors:
    """The tensors of an optimizer, and the memory that its steps write."""

    def __init__(
        self,
        parameters: Sequence[Parameter],
        place: Place,
        arena: ArenaMemory | None,
        container: Container | None = None,
    ) -> None:
        self.parameters = parameters
        self.place = place
        self._container = container
        self._shelves = by_shelf(parameters)
        self.each: Sequence[Tensor] = parameters
        self.gradients: list[Any] | None = None
        """The gradients that an arena has for them; None: steps are passed theirs."""
        self.by_parameter: list[Array] | None = None
        """An arena's gradients, parameter by parameter."""
        if arena is not None:
            stretched = stretches(self._shelves, arena.g)
            self.each = [tensor for tensor, _ in stretched]
            self.gradients = [place.show(g) for _, g in stretched]
            self.by_parameter = arena.g
        copies = [(f"out{each.path}", each.copy) for each in parameters if each.copy is not None]
        own = [(f"params{tensor.path}", tensor.p) for tensor in self.each]
        self._params = WrittenMemory([*own, *copies])
        self._written: tuple[list[tuple[Shelf, str]], WrittenMemory] = [], self._params
        """The memory that steps write, and the state arrays in it. They are replaced at once, for
        two threads may look.
        """

    def look_around(self) -> None:
        """Warn of parameters whose place in the user's container has another array by now."""
        if self._container is not None:
            replaced = self._container.replaced(self.parameters, self.place)
            if replaced:
                warn_of_replaced(replaced)

    def tidy(self) -> None:
        """Free the memory of state that no parameter has any more."""
        for shelf, own in self._shelves.items():
            shelf.keep(
                {letter for each in own for letter in each.letters if letter not in each.packed}
            )

    def refuse_overlaps(self) -> None:
        """Refuse parameters that share memory."""
        self._params.refuse_overlaps()

    def written(self) -> WrittenMemory:
        """All memory that a step writes: the parameters, and the shelves of their state."""
        states = [(shelf, letter) for shelf in self._shelves for letter in [*shelf.states]]
        known, written = self._written
        if states != known:
            written = self._params.with_more(
                (partial(_name_of, self._shelves[shelf], letter), shelf.states[letter])
                for shelf, letter in states
            )
            self._written = states, written
        return written

    def check_gradient(self, index: int, g: Any, zero: bool) -> Array:
        """The gradient of a tensor, as arrays here are described; refused if it does not fit.

        `zero` says that the step writes zeros to it.
        """
        tensor = self.each[index]
        tensor.check_memory()
        name = f"grads{tensor.path}"
        seen: Array = self.place.see_gradient(g, tensor.p, name)
        check_gradient(seen, tensor.p, name)
        if zero and not seen.flags.writeable:
            raise ValueError(f"{name} is read-only, and zero_grads=True writes to it; pass a copy")
        self.written().refuse(seen, name)
        return seen

    def touched(
        self, index: int, g: Any, zero: bool, declaration: Declaration, kind: type[Table]
    ) -> Touched:
        """The slices of a tensor that the next step touches; the gradient is checked as above."""
        tensor = self.each[index]
        assert isinstance(tensor, Parameter)
        assert tensor.slices is not None
        tensor.check_memory()
        name = f"grads{tensor.path}"
        seen = seen_rows(g, tensor.p, self.place, name, self.written(), zero)
        touched = touched_by(tensor, seen, declaration, kind)
        # Over an arena each gradient is looked at: another plan may need to know it, too.
        once = touched.sums is not None or self.by_parameter is not None
        return touched if once else touched._replace(kind=Rows)

    def seen(self, grads: Sequence[Any]) -> list[tuple[str, Array]]:
        """The gradients that are not None, each with its name, as arrays here are described."""
        named = [
            (f"grads{tensor.path}", g)
            for tensor, g in zip(self.each, map(values_of, grads), strict=True)
            if g is not None
        ]
        return [(name, self.place.see(g, name)) for name, g in named]

    def fitting(self, index: int, g: Any, zero: bool, ready: bool) -> Any:
        """A parameter's gradient as a step in flight takes it, checked while others are under way.

        `ready` says that its content can be read.
        """
        if has_rows(g):
            self.refuse_rows(self.parameters[index], g, zero, ready)
        elif g is not None:
            (g,) = by_numpy([g])
            self.check_gradient(index, g, zero)
        return g

    def refuse_rows(self, parameter: Parameter, g: Any, zero: bool, ready: bool) -> None:
        """Refuse a gradient of rows that does not fit; `ready` that its content can be read."""
        name = f"grads{parameter.path}"
        parameter.check_memory()
        parameter.refuse_slices(*of_rows(name))
        if ready:
            seen_rows(g, parameter.p, self.place, name, self.written(), zero)


def of_rows(name: str) -> tuple[str, str]:
    """The beginning and the end of the error about a gradient of rows that cannot be taken."""
    return f"{name} is of rows", "pass the whole gradient"


def _name_of(own: Sequence[Parameter], letter: str, array: Array) -> str | None:
    """The name of a state array of the parameters on a shelf that shares memory with `array`."""
    for parameter in own:
        if letter in parameter.letters and np.shares_memory(parameter.state(letter), array):
            return f"{letter}{parameter.path}"
    return None


class Segment(Shelf):
    """The parameters of one group and dtype, which lie one after the other, as their state does."""

    def __init__(self, arena: ArenaMemory, dtype: np.dtype[Any], start: int, stop: int) -> None:
        self.start = start
        self.p = arena.flats[dtype].p[start:stop]
        self.g = arena.flats[dtype].g[start:stop]
        super().__init__(arena.place, compute_dtype(dtype), self.p.size, address(self.p))


class Stretch:
    """Parameters of one segment, one after the other, of the same t: one tensor to a step."""

    slices = None

    def catch_up(self, kind: type[Table]) -> None:
        """Nothing: it is never stepped by rows."""

    def __init__(self, segment: Segment, members: Sequence[Parameter]) -> None:
        first, last = members[0], members[-1]
        self.members = members
        self.segment = segment
        self.path = first.path if first is last else f"{first.path} to {last.path}"
        self.span = slice(first.start, last.start + last.p.size)
        self.p = segment.p[self.span]
        self.g = segment.g[self.span]

    @property
    def cohort(self) -> Cohort:
        return self.members[0].cohort

    @cohort.setter
    def cohort(self, cohort: Cohort) -> None:
        for member in self.members:
            member.cohort = cohort

    def state(self, letter: str) -> Array:
        return self.segment.state(letter)[self.span]

    def check_memory(self) -> None:
        """An arena's buffer is its own: nobody else can resize it, or make it read-only."""

    def gradient_format(self, g: Any) -> str | None:
        return None

    def storages(self, rule: Rule, g: str | None) -> Storages | None:
        return self.members[0].storages(rule, g)

    def row_of(self, rule: Rule) -> Row:
        place = self.segment.place

        def operand(letter: str) -> Operand:
            return Operand.of_flat(self.state(letter), place)

        return Row(Operand.of_flat(self.p, place), Walk(self.p, place), rule, operand)


def parameters_of(
    groups: Sequence[Group],
    paths: Sequence[str],
    place: Place,
    arena: ArenaMemory | None,
    copies: Sequence[Any] | None = None,
) -> list[Parameter]:
    """The parameters of all groups, each with its place for state.

    `copies` are the users' arrays that they are written into as well.
    """
    parameters: list[Parameter] = []
    for group in groups:
        arrays = group["params"]
        here = slice(len(parameters), len(parameters) + len(arrays))
        if arena is None:
            views = [
                _seen(array, f"params{path}", place)
                for path, array in zip(paths[here], arrays, strict=True)
            ]
        else:
            views = arena.p[here]
        cohort = cache(partial(Cohort, group))
        copied: Sequence[Array | None] = [None] * len(arrays)
        if copies is not None:
            copied = [
                _seen_copy(copy, p, f"out{path}", place)
                for copy, p, path in zip(copies[here], views, paths[here], strict=True)
            ]
        own = [
            Parameter(
                path,
                array,
                p,
                cohort,
                place,
                ordinal=here.start + index,
                copy=copy,
                nonnegative=group.declaration.nonnegative,
            )
            for index, (path, array, p, copy) in enumerate(
                zip(paths[here], arrays, views, copied, strict=True)
            )
        ]
        refuse_unfit_choices(group, own)
        if arena is None:
            shelve(own)
        else:
            lay_in_segments(own, arena, arena.slots[here])
        if isinstance(group.hyperparameters["lr"], Rates):
            for parameter in own:
                parameter.begin_columns()
        parameters += own
    return parameters


def _seen(array: Any, name: str, place: Place) -> Array:
    """The view of a user's array that is stepped, checked."""
    p: Array = place.see_written(array, name)
    check_parameter(p, name, array)
    return p


def _seen_copy(copy: Any, p: Array, name: str, place: Place) -> Array:
    """The view of an array that a parameter is written into as well, checked."""
    seen: Array = place.see_written(copy, name)
    check_copy(seen, p, name)
    return seen


def refuse_unfit_choices(group: Group, own: Sequence[Parameter]) -> None:
    """Refuse a choice of master, or of fewer bytes for state, that a group cannot have."""
    halves = any(each.p.dtype in HALVES for each in own)
    refuse_idle_master(group.hyperparameters.get("master"), halves, group.where)
    for each in own:
        if each.dtype == FLOAT64:
            asked = group.hyperparameters.get("state_dtype", "float32")
            refuse_wide_state(asked, f"params{each.path}", "float64", group.where)


def lay_in_segments(
    parameters: Sequence[Parameter], arena: ArenaMemory, slots: Sequence[Slot]
) -> None:
    """Let the state of one group's parameters lie as they do in the arena."""
    spans: dict[np.dtype[Any], tuple[int, int]] = {}
    for slot in slots:
        start, _ = spans.get(slot.dtype, (slot.start, 0))
        spans[slot.dtype] = start, slot.stop
    segments = {dtype: Segment(arena, dtype, *span) for dtype, span in spans.items()}
    for parameter, slot in zip(parameters, slots, strict=True):
        segment = segments[slot.dtype]
        parameter.shelf, parameter.start = segment, slot.start - segment.start
        parameter.in_segment = True


def stretches(
    shelves: Mapping[Shelf, Sequence[Parameter]], grads: Sequence[Array]
) -> list[tuple[Tensor, Array]]:
    """Parameters of all segments as few tensors as their t allow, each with its gradient.

    One that is kept in fewer bytes is a tensor by itself: its blocks of codes and its random bits
    are then those that it has outside of an arena. `grads` has the gradients of all parameters.
    """
    made: list[tuple[Tensor, Array]] = []
    for segment, own in shelves.items():
        assert isinstance(segment, Segment)
        for _, run in groupby(own, key=_joined_by):
            members = [*run]
            if members[0].is_apart:
                made.append((members[0], grads[members[0].ordinal]))
            else:
                stretch = Stretch(segment, members)
                made.append((stretch, stretch.g))
    return made


def _joined_by(parameter: Parameter) -> tuple[int, int]:
    """A key that is equal for neighbours in an arena that can be one tensor."""
    return parameter.cohort.t, parameter.ordinal if parameter.is_apart else -1
