"""The parameters of an arena, to an optimizer: each with its state, and all of them as few tensors.

Whoever looks at state, saves it or goes on from it sees parameters. A step sees stretches:
neighbours in a buffer that it treats alike.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import groupby
from typing import Any

import numpy as np

from fusedstep._arrays.memory import Shelf
from fusedstep._arrays.overlap import address
from fusedstep._arrays.walk import Array
from fusedstep._backends.plan import Row
from fusedstep._core.arena_memory import Slot, Store
from fusedstep._core.groups import Group
from fusedstep._core.parameters import Cohort, Parameter, by_shelf
from fusedstep._numerics.coefficients import Rule


class Segment(Shelf):
    """The parameters of one group and dtype, which lie one after the other, as their state does."""

    def __init__(self, store: Store, dtype: np.dtype[Any], start: int, stop: int) -> None:
        self.start = start
        self.p = store.flats[dtype].p[start:stop]
        self.g = store.flats[dtype].g[start:stop]
        super().__init__(store.place, dtype, self.p.size, address(self.p))


class Stretch:
    """Parameters of one segment, one after the other, of the same t: one tensor to a step."""

    def __init__(self, segment: Segment, members: Sequence[Parameter]) -> None:
        first, last = members[0], members[-1]
        self.members = members
        self.segment = segment
        self.path = first.path if first is last else f"{first.path} to {last.path}"
        self.span = slice(first.start, last.start + last.p.size)
        self.p = segment.p[self.span]
        self.g = segment.g[self.span]

    @property
    def states(self) -> dict[str, Array]:
        return {letter: flat[self.span] for letter, flat in self.segment.states.items()}

    @property
    def cohort(self) -> Cohort:
        return self.members[0].cohort

    @cohort.setter
    def cohort(self, cohort: Cohort) -> None:
        for member in self.members:
            member.cohort = cohort

    def row_of(self, rule: Rule) -> Row:
        return Row(self.p, rule, self.states, self.segment.place)


def enroll(
    store: Store, group: Group, named: Sequence[tuple[str, Any]], slots: Sequence[Slot]
) -> list[Parameter]:
    """The parameters of one group, by the path, array and slot of each."""
    spans: dict[np.dtype[Any], tuple[int, int]] = {}
    for slot in slots:
        start, _ = spans.get(slot.dtype, (slot.start, 0))
        spans[slot.dtype] = start, slot.stop
    segments = {dtype: Segment(store, dtype, *span) for dtype, span in spans.items()}
    parameters = []
    for (path, array), slot in zip(named, slots, strict=True):
        parameter = Parameter(path, array, group, store.place)
        parameter.shelf = segments[slot.dtype]
        parameter.start = slot.start - parameter.shelf.start
        parameters.append(parameter)
    return parameters


def stretches(parameters: Sequence[Parameter]) -> list[Stretch]:
    """Parameters of all segments as few tensors as their t allow."""
    return [
        Stretch(segment, [*run])
        for segment, own in by_shelf(parameters).items()
        if isinstance(segment, Segment)
        for _, run in groupby(own, key=lambda parameter: parameter.cohort.t)
    ]
