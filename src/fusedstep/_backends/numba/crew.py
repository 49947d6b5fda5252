"""Python threads that help with a step, asleep in between.

The caller always works, and waits for no helper that has not begun: one that wakes late
finds that it is no longer invited. A child of fork starts with no helpers.
"""

from __future__ import annotations

import os
import threading
from collections.abc import Callable


class Crew:
    """Threads that call the same task as their caller, at the same time."""

    def __init__(self) -> None:
        self.reset()

    def reset(self) -> None:
        """Begin without helpers, and with locks that nobody holds.

        A child of fork has none of its parent's threads, and their locks as they were.
        """
        self.busy = threading.Lock()
        self.changed = threading.Condition()
        # All of these are guarded by `changed`.
        self.helpers = 0
        self.invited = 0
        self.working = 0
        self.task: Callable[[], object] = int

    def run(self, task: Callable[[], object], threads: int) -> None:
        """Call `task` on this thread and on up to `threads` - 1 others at the same time."""
        if threads < 2 or not self.busy.acquire(blocking=False):  # or another's step has them
            task()
            return
        try:
            with self.changed:
                self.start_helpers(threads - 1)
                self.task = task
                self.invited = threads - 1
                self.changed.notify(threads - 1)
            task()
            with self.changed:
                self.invited = 0
                self.changed.wait_for(lambda: not self.working)
        finally:
            self.busy.release()

    def start_helpers(self, wanted: int) -> None:
        while self.helpers < wanted:
            threading.Thread(target=self.help, name="fusedstep", daemon=True).start()
            self.helpers += 1

    def help(self) -> None:
        with self.changed:
            while True:
                self.changed.wait_for(lambda: self.invited)
                self.invited -= 1
                self.working += 1
                task = self.task
                self.changed.release()
                try:
                    task()
                finally:
                    self.changed.acquire()
                    self.working -= 1
                self.changed.notify_all()


crew = Crew()

if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=crew.reset)
