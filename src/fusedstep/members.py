"""The parameters of an arena, to an optimizer: each with its state, and all of them as few tensors.

Whoever looks at state, saves it or goes on from it sees parameters. A step sees stretches:
neighbours in a buffer that it treats alike.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import groupby
from typing import Any

import numpy as np

from fusedstep.arrays import Array, address
from fusedstep.coefficients import Rule
from fusedstep.hyperparameters import Group
from fusedstep.parameters import Cohort, Parameter
from fusedstep.plan import Row
from fusedstep.store import Slot, Store, zeros


class Segment:
    """The parameters of one group and dtype, which lie one after the other.

    Their state arrays of one letter do so, too.
    """

    def __init__(self, store: Store, dtype: np.dtype[Any], start: int, stop: int) -> None:
        self.place = store.place
        self.start = start
        self.p = store.flats[dtype].p[start:stop]
        self.g = store.flats[dtype].g[start:stop]
        self.states: dict[str, Array] = {}

    def state(self, letter: str) -> Array:
        """Of all of them; what no parameter has taken of it is zero."""
        if letter not in self.states:
            like = address(self.p)
            self.states[letter] = zeros(self.place, self.p.size, self.p.dtype, like)
        return self.states[letter]

    def keep(self, letters: set[str]) -> None:
        """Give up the memory of other letters."""
        self.states = {letter: flat for letter, flat in self.states.items() if letter in letters}


class Member(Parameter):
    """One parameter of an arena."""

    def __init__(self, path: str, array: Any, group: Group, slot: Slot, segment: Segment) -> None:
        super().__init__(path, array, group, segment.place)
        self.slot = slot
        self.segment = segment

    def zeros(self, letter: str) -> Array:
        return self.slot.view(self.segment.state(letter), self.segment.start)

    def drop(self, letter: str) -> None:
        self.place.clear(self.states.pop(letter))


class Stretch:
    """Members of one segment, one after the other, of the same t: one tensor to a step."""

    def __init__(self, members: Sequence[Member]) -> None:
        first, last = members[0], members[-1]
        self.members = members
        self.segment = first.segment
        self.path = first.path if first is last else f"{first.path} to {last.path}"
        start = self.segment.start
        self.span = slice(first.slot.start - start, last.slot.stop - start)
        self.p = self.segment.p[self.span]
        self.g = self.segment.g[self.span]

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
) -> list[Member]:
    """The members of one group, by the path, array and slot of each."""
    spans: dict[np.dtype[Any], tuple[int, int]] = {}
    for slot in slots:
        start, _ = spans.get(slot.dtype, (slot.start, 0))
        spans[slot.dtype] = start, slot.stop
    segments = {dtype: Segment(store, dtype, *span) for dtype, span in spans.items()}
    return [
        Member(path, array, group, slot, segments[slot.dtype])
        for (path, array), slot in zip(named, slots, strict=True)
    ]


def stretches(members: Sequence[Member]) -> list[Stretch]:
    """Members of all segments as few tensors as their t allow."""
    by_segment: dict[Segment, list[Member]] = {}
    for member in members:
        by_segment.setdefault(member.segment, []).append(member)
    found = []
    for segment, own in by_segment.items():
        segment.keep({letter for member in own for letter in member.states})
        found += [Stretch([*run]) for _, run in groupby(own, key=lambda member: member.cohort.t)]
    return found
