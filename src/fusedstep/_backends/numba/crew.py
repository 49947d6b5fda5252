"""Python threads that help with a step, asleep in between.

A caller wakes them and goes on: a task itself decides, in compiled code, how many may join and
for how long, so one that wakes late finds nothing to do. A child of fork starts with no helpers.
"""

from __future__ import annotations

import os
import threading
from collections.abc import Callable
from contextlib import suppress


class Crew:
    """Threads that each call the task of the moment when they are woken."""

    def __init__(self) -> None:
        self.reset()

    def reset(self) -> None:
        """Begin without helpers: a child of fork has none of its parent's threads."""
        self.bells: list[threading.Lock] = []
        """A lock for each helper, which waits for it and finds it free when it is to work."""
        self.task: Callable[[], object] = int

    def wake(self, task: Callable[[], object], helpers: int) -> None:
        """Have so many helpers call `task`, each as soon as it is awake."""
        with suppress(RuntimeError):  # the system gives no more threads: those there are will do
            while len(self.bells) < helpers:
                self.start_helper()
        self.task = task
        for bell in self.bells[:helpers]:
            with suppress(RuntimeError):  # it has been rung already
                bell.release()

    def start_helper(self) -> None:
        bell = threading.Lock()
        bell.acquire()
        threading.Thread(target=self.help, args=(bell,), name="fusedstep", daemon=True).start()
        self.bells.append(bell)

    def help(self, bell: threading.Lock) -> None:
        while True:
            bell.acquire()
            self.task()


crew = Crew()

if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=crew.reset)
