"""Turns at an optimizer: one step at a time, and no copy of half a step.

A step takes the turn at its start, and refuses to wait for another one, of another thread or of
a learning rate's function that steps: the two would mix. To copy the state, which other threads
may do at any time, waits; steps wait for it in turn.

Steps in flight, see in_flight.py, are in `flights` from when they are asked for until they are
over. A thread of their own takes the turn for one after the other. Whoever else wants it waits for
those: what was asked for first is done first.

The turn is taken and given back by single assignments. Python handles no signal and switches to
no other thread between them and the look that comes before, nor between them and `try`: up to
3.10 it might where a branch is taken, and none is. So each who takes the turn writes::

    while True:
        if not turn.holder and not turn.flights:
            turn.holder = me
            break
        turn.wait(me, "step")
    try:
        ...
    finally:
        turn.holder = turn.next

and who copies::

    within = turn.holder == me      # called by what a step calls: nothing is half stepped there
    try:
        if not within:
            turn.wait_to_copy(me)
        ...
    finally:
        if not within:
            turn.next = 0 if turn.next == me else turn.next
            turn.holder = 0 if turn.holder == me else turn.holder
"""

from __future__ import annotations

import os
import sys
from collections import deque
from collections.abc import Mapping
from threading import get_ident
from time import monotonic, sleep
from typing import Any
from weakref import ReferenceType, ref

NONE_HELD: Mapping[int, Any] = {}

PAUSE = 5e-5
"""Seconds between two looks whether the turn has come."""

PATIENCE = 1e-2
"""Seconds for which copies let a step go first that has asked: it looks again much sooner."""

LOST = -1
"""The holder of a turn whose thread a fork has left behind in mid-step, or with steps in flight. No
thread has this number: its own may be another's in the child."""


class Turn:
    """The turns of one optimizer."""

    __slots__ = ("__weakref__", "asked", "flights", "held", "holder", "next")

    def __init__(self) -> None:
        self.holder = 0
        """The thread that works on the optimizer; 0: none."""
        self.next = 0
        """The thread that copies its state, or is the next to do so; 0: none."""
        self.asked = 0.0
        """The time until which copies let a step go first, see `monotonic`."""
        self.flights: deque[Any] = deque()
        """The steps in flight, in their order, with the one that is under way."""
        self.held: Mapping[int, Any] = NONE_HELD
        """The groups as the step in flight that is under way is to see them, by their ids."""
        TURNS.add(ref(self, TURNS.discard))

    def wait(self, me: int, what: str) -> None:
        """Wait for steps in flight, or while another thread copies the state; else refuse."""
        self.refuse_inside(me, what)
        if self.flights:
            self.wait_for_flights()
            return
        holder, copier = self.holder, self.next
        self.refuse_what_was_cut_off(what)
        if holder not in (0, copier) and self.holder == holder and not self.flights:
            raise RuntimeError(
                f"{what} while another thread steps the same optimizer; give each thread an "
                "optimizer of its own, or hold a threading.Lock around each step"
            )
        self.wait_for_copy()

    def refuse_inside(self, me: int, what: str) -> None:
        """Refuse what is asked for by a function that a step, or a copy, calls."""
        if self.holder == me:
            raise RuntimeError(
                f"{what} inside of a step, or of a copy, of the same optimizer: by a function that "
                f"it calls, such as the one for the learning rate; call {what} after it"
            )

    def wait_for_flights(self) -> None:
        """Wait until the steps that are in flight now are over."""
        try:
            last = self.flights[-1]
        except IndexError:  # they are
            return
        last.handle.wait_until_over()

    def wait_to_look(self) -> None:
        """Wait for the steps that are in flight now, unless one of them asks by what it calls."""
        if self.flights and self.holder != get_ident():
            self.wait_for_flights()

    def wait_for_copy(self) -> None:
        """Wait a little, and have copies let a step go first meanwhile."""
        self.asked = monotonic() + PATIENCE
        sleep(PAUSE)

    def wait_to_fly(self) -> None:
        """Wait a little while another thread has the turn that a step in flight is to have."""
        self.refuse_what_was_cut_off("a step in flight")
        self.wait_for_copy()

    def wait_to_copy(self, me: int) -> None:
        """Wait until the state can be copied by this thread, which then has the turn."""
        self.wait_for_flights()
        while self.holder != me:
            if self.next in (0, me):
                self.next = me
                if monotonic() > self.asked and not self.holder:
                    self.holder = me
                    return
            self.refuse_what_was_cut_off("a copy")
            sleep(PAUSE)

    def refuse_what_was_cut_off(self, what: str) -> None:
        """Refuse to go on from a step whose thread is gone, and free the turn of such a copy."""
        holder, copier = self.holder, self.next
        alive = sys._current_frames()  # noqa: SLF001  the documented way to know
        if copier and copier not in alive:
            if self.next == copier:
                self.next = 0
            if self.holder == copier:
                self.holder = 0
        if holder not in (0, copier) and holder not in alive and self.holder == holder:
            raise RuntimeError(
                f"{what} of an optimizer that another thread was stepping, or had steps in flight "
                "for, when this process was forked: parameters and state may be half stepped here, "
                "or lack these steps; fork between steps, or make another optimizer and load both "
                "from a checkpoint"
            )

    def lose_all_but(self, me: int) -> None:
        """Free the turn of copies by other threads than this; steps of theirs stay cut off."""
        if self.next not in (0, me):
            self.holder = 0 if self.holder == self.next else self.holder
            self.next = 0
        if self.holder not in (0, me) or self.flights:
            self.holder = LOST
        for flight in self.flights:
            flight.handle.lose()
        self.flights.clear()
        self.held = NONE_HELD


TURNS: set[ReferenceType[Turn]] = set()
"""All turns of this process. A function in C takes out those that are gone: in one of Python's,
which a WeakSet has, Ctrl-C would get lost."""


def _lose_other_threads() -> None:
    me = get_ident()
    for reference in [*TURNS]:
        turn = reference()
        if turn is not None:
            turn.lose_all_but(me)


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_lose_other_threads)
