"""The parameters of an optimizer: how they are read, and the state of each."""

from __future__ import annotations

from collections.abc import Callable, Hashable, Iterable, Iterator, Mapping, Sequence
from typing import Any, TypeVar

import numpy as np

from fusedstep._arrays.checks import check_parameter
from fusedstep._arrays.memory import LINE, Shelf
from fusedstep._arrays.overlap import extent
from fusedstep._arrays.place import Place
from fusedstep._arrays.structure import Branch, Structure, is_array, is_collection, read
from fusedstep._arrays.walk import Array, Walk
from fusedstep._backends.plan import Row
from fusedstep._core.groups import Group
from fusedstep._numerics.coefficients import Rule, Values

Key = TypeVar("Key", bound=Hashable)


class Cohort:
    """Parameters of one group and dtype that have taken the same number of steps, t."""

    def __init__(self, group: Group, dtype: np.dtype[Any], t: int) -> None:
        self.group = group
        self.dtype = dtype
        self.t = t
        self.constants: Values = {}


class Parameter:
    """One parameter and its state.

    `array` is the user's, `p` a view of its memory that stays as it was found: whatever is
    done to the array object later, its shape and dtype here are those that were checked.
    """

    # Where its state arrays lie: on a shelf, from that element on. See `shelve`.
    shelf: Shelf
    start: int

    def __init__(self, path: str, array: Any, group: Group, place: Place) -> None:
        seen = place.see(array, f"params{path}")
        check_parameter(seen, f"params{path}")
        self.path = path
        self.array = array
        self.place = place
        self.p: Array = seen.view(np.ndarray)
        self.cohort = Cohort(group, self.p.dtype, 0)
        self.states: dict[str, Array] = {}
        self.row: Row | None = None

    def allocate(self, rule: Rule) -> bool:
        """The state arrays that `rule` needs and that are not there yet: whether there were any."""
        lacking = [letter for letter in rule.states if letter not in self.states]
        for letter in lacking:
            self.add(letter)
        return bool(lacking)

    def add(self, letter: str) -> None:
        initial = self.cohort.group.hyperparameters.get("initial_accumulator_value", 0.0)
        part = self.shelf.state(letter)[self.start : self.start + self.p.size]
        self.states[letter] = Walk(self.p, self.place).shaped(part)
        if letter == "ema":
            self.place.copy(self.states[letter], self.p)
        elif initial != 0:
            self.place.write(self.states[letter], initial)

    def restore(self, state: Mapping[str, Any]) -> None:
        """Take over t and exactly the arrays of `state`, into the ones that are there."""
        self.cohort = Cohort(self.cohort.group, self.cohort.dtype, state["t"])
        for letter in self.states.keys() - state.keys():
            self.place.clear(self.states.pop(letter))  # for who adds it again
        for letter in state:
            if letter != "t" and letter not in self.states:
                self.add(letter)
        for letter, array in self.states.items():
            self.place.write(array, state[letter])
        self.row = None

    def row_of(self, rule: Rule) -> Row:
        """Its row in a plan, made once for as long as the rule has the same state."""
        if self.row is None or self.row.rule.states != rule.states:
            self.row = Row(self.p, rule, self.states, self.place)
        return self.row


def shelve(parameters: Sequence[Parameter]) -> None:
    """Let the state of a group's parameters lie side by side, each to lines as its p does."""
    for dtype, own in _divided(parameters, lambda parameter: parameter.p.dtype).items():
        like = extent(own[0].p)[0]
        end = 0
        for parameter in own:
            low = extent(parameter.p)[0] - like
            parameter.start = end + (low - end * dtype.itemsize) % LINE // dtype.itemsize
            end = parameter.start + parameter.p.size
        shelf = Shelf(own[0].place, dtype, end, like)
        for parameter in own:
            parameter.shelf = shelf


def by_shelf(parameters: Sequence[Parameter]) -> dict[Shelf, list[Parameter]]:
    return _divided(parameters, lambda parameter: parameter.shelf)


def tidy(parameters: Sequence[Parameter]) -> None:
    """Give up the memory of the state that none of them has any more."""
    for shelf, own in by_shelf(parameters).items():
        shelf.keep({letter for parameter in own for letter in parameter.states})


def _divided(
    parameters: Iterable[Parameter], key: Callable[[Parameter], Key]
) -> dict[Key, list[Parameter]]:
    divided: dict[Key, list[Parameter]] = {}
    for parameter in parameters:
        divided.setdefault(key(parameter), []).append(parameter)
    return divided


class State(Mapping[str, Any]):
    """One parameter's state: its arrays by letter, live, and `t`, the steps it has taken.

    Arrays may be written to in place. What is read-only here changes by `load_state_dict`.
    """

    def __init__(self, parameter: Parameter) -> None:
        self._parameter = parameter

    def __getitem__(self, key: str) -> Any:
        if key == "t":
            return self._parameter.cohort.t
        return self._parameter.place.show(self._parameter.states[key])

    def __iter__(self) -> Iterator[str]:
        yield from self._parameter.states
        yield "t"

    def __len__(self) -> int:
        return len(self._parameter.states) + 1

    def __repr__(self) -> str:
        return repr(dict(self))


def read_groups(params: Any) -> tuple[Structure, list[tuple[str, Sequence[Any], dict[str, Any]]]]:
    """The structure of `params`, and each group: its name, arrays and own hyperparameters."""
    if is_collection(params) and not is_array(params) and not isinstance(params, Mapping):
        params = list(params)
        if params and all(isinstance(item, Mapping) and "params" in item for item in params):
            structure, leaves = read([item["params"] for item in params])
            assert isinstance(structure, Branch)
            rest = iter(leaves)
            groups: list[tuple[str, Sequence[Any], dict[str, Any]]] = []
            for index, item in enumerate(params):
                members = [next(rest) for _ in structure.children[index].paths]
                own = {name: value for name, value in item.items() if name != "params"}
                groups.append((f"params[{index}]: ", members, own))
            return structure, groups
    structure, leaves = read(params)
    return structure, [("", leaves, {})]
