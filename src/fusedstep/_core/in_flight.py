"""Steps in flight: asked for by `step(..., wait=False)`, and taken by a thread of their own.

One thread takes the steps of all optimizers, in the order in which they were asked for. A step has
threads of its own already, so that two at once would only fight for the cores.

To ask for a step is one chain of calls that no signal interrupts: before it nothing has happened,
and after it the step is going to be taken. That goes for a process that ends, too, which waits for
all that were asked for. The turns of an optimizer, see turn.py, have its steps in flight in
`flights` until they are done.
"""

from __future__ import annotations

import os
import threading
from _thread import allocate_lock, start_new_thread
from collections.abc import Callable
from concurrent.futures import Future
from concurrent.futures import TimeoutError as TimedOut
from contextlib import suppress
from functools import partial
from queue import SimpleQueue
from threading import TIMEOUT_MAX, get_ident
from typing import Any, NoReturn

from fusedstep._arrays.at_once import Call, at_once
from fusedstep._checks.values import flag
from fusedstep._checks.wording import describe
from fusedstep._core.request import Report
from fusedstep._core.turn import Turn


class Untold:
    """The error of a step in flight, which is told when its handle goes before anybody has asked.

    Only a step that failed has one: Ctrl-C would get lost in what Python calls when things go.
    """

    def __init__(self, error: BaseException) -> None:
        self.error: BaseException | None = error

    def __del__(self) -> None:
        error = self.error
        if error is not None:
            raise RuntimeError(
                "a step in flight failed, and its handle is gone without having been asked; keep "
                "it, `handle = opt.step(grads, wait=False)`, and call `handle.result()`. "
                f"{type(error).__name__}: {error}"
            ).with_traceback(error.__traceback__) from error


class Handle(Future[Report]):
    """A step in flight: a future of its report, which nobody can cancel.

    Its waits are chains of calls in C. Those of the base take a lock in Python, and Ctrl-C in
    between would leave it taken for ever, also for the thread that takes the steps.
    """

    def __init__(self) -> None:
        super().__init__()
        self._report: Report | None = None
        self._error: BaseException | None = None
        self._untold: Untold | None = None
        self._is_over = False
        self._gate = allocate_lock()
        """A lock that is held until the step is over; whoever waits passes through it."""
        self._gate.acquire()

    def cancel(self) -> bool:
        """Nothing, and False: a step that was asked for is taken."""
        return False

    def done(self) -> bool:
        """Whether the step has been taken, or has failed."""
        return self._is_over

    def running(self) -> bool:
        """Whether the step is still in flight."""
        return not self._is_over

    def result(self, timeout: float | None = None) -> Report:
        """The report of the step, or what the step raised, once it is over."""
        error = self.exception(timeout)
        if error is not None:
            try:
                raise error
            finally:
                del self, error  # of which the error's traceback would make a circle
        assert self._report is not None
        return self._report

    def exception(self, timeout: float | None = None) -> BaseException | None:
        """The error that the step raised, None if it was taken, once it is over."""
        self.wait_until_over(timeout)
        untold = self._untold
        if untold is not None:
            untold.error = None
        return self._error

    def wait_until_over(self, timeout: float | None = None) -> None:
        """Wait until the step is over; a TimeoutError if it is not after so many seconds."""
        if self._is_over:
            return
        if worker.is_here():
            raise RuntimeError(
                "a wait for a step in flight in the thread that takes them, which would never end: "
                "by a function that a step calls, such as the one for the learning rate, or by "
                "one that a handle calls when it is done; wait in another thread"
            )
        worker.start()  # if there was no memory for it before
        seconds = -1 if timeout is None else min(max(timeout, 0), TIMEOUT_MAX)
        gate = self._gate
        passing: list[Call] = [partial(gate.acquire, True, seconds), partial(gate.release)]
        all(map(partial.__call__, passing))  # of a wait in vain nothing is released
        if not self._is_over:
            raise TimedOut(f"the step is still in flight after {timeout} seconds")

    def end(self, report: Report | None, error: BaseException | None) -> None:
        """Have the step over, by its report or its error."""
        self._untold = None if error is None else Untold(error)
        self._report = report
        self._error = error
        self._is_over = True
        self._gate.release()

    def tell(self) -> None:
        """Have those know that the step is over who wait for futures, or are to be called."""
        if self._report is not None:
            self.set_result(self._report)
        else:
            self.set_exception(self._error)

    def lose(self) -> None:
        """Have the step over in a child of fork, which has not the thread that takes it."""
        super().__init__()  # anew: another thread may have had its lock, and nobody is called back
        error = RuntimeError(
            "this step was in flight when this process was forked: the parent takes it, and here "
            "it is lost; wait for its handle, `handle.result()`, before the fork"
        )
        self.end(None, error)
        self.set_exception(self.exception())  # which is asked for, so that nobody is told of it

    def __getattr__(self, name: str) -> NoReturn:
        hint = f"; the report has it: `handle.result().{name}`" if name in Report._fields else ""
        raise AttributeError(
            f"{type(self).__name__!r} object has no attribute {name!r}{hint}", name=name, obj=self
        )


class Flight:
    """A step in flight: the function that takes it, and what has to come before."""

    def __init__(self, turn: Turn, step: Callable[[], Report], after: Any) -> None:
        self.turn = turn
        self.step = step
        self.after = after
        self.handle = Handle()
        self.has_begun = False
        self.report: Report | None = None
        self.failure: BaseException | None = None

    def take(self) -> None:
        """Take the step, or fail, and have the handle know.

        It may be called again if there was no memory for all of it: a step is taken once.
        """
        flights, handle = self.turn.flights, self.handle
        if not self.has_begun:
            self.has_begun = True
            try:
                if self.after is not None:
                    self.after.synchronize()
                self.report = self.step()
            except BaseException as error:  # whatever it is, it is the handle's
                self.failure = error
        if flights and flights[0] is self:
            flights.popleft()  # before anybody who waits for the handle goes on
        if not handle.done():
            handle.end(self.report, self.failure)
            handle.tell()
        del self, flights, handle  # of which the failure's traceback makes a circle


class Worker:
    """The thread that takes steps in flight, which starts with the first of them."""

    THREAD = "thread"
    """The key of its number in `role`."""

    def __init__(self) -> None:
        self.has_ended = False
        """Whether the process is ending, and no steps are taken in flight any more."""
        self.reset()

    def reset(self) -> None:
        """Begin without the thread: a child of fork has none of its parent's."""
        self.queue: SimpleQueue[Callable[[], None]] = SimpleQueue()
        self.role: dict[str, int] = {}

    def is_here(self) -> bool:
        """Whether this is called in the thread that takes the steps."""
        return self.role.get(self.THREAD) == get_ident()

    def start(self) -> None:
        """Have the thread start, if none has begun to work: of two the second ends at once."""
        if not self.role:
            start_new_thread(self._work, (self.queue, self.role))

    def launch(self, flight: Flight) -> Handle:
        """Have a step taken after all those that were asked for before."""
        self.start()
        flights = flight.turn.flights
        asking = [partial(flights.append, flight), partial(self.queue.put, flight.take)]
        try:
            at_once(asking)
        except MemoryError:  # of one or the other: in the queue it is not
            with suppress(ValueError):
                flights.remove(flight)
            raise
        return flight.handle

    def _work(self, queue: SimpleQueue[Callable[[], None]], role: dict[str, int]) -> None:
        call: Callable[[], None] | None = None
        while True:
            try:
                me = get_ident()
                if role.setdefault(self.THREAD, me) != me:
                    return
                call = call or queue.get()
                call()
                call = None
            except MemoryError:  # of the call itself, which is made again
                continue
            except BaseException:  # of a function that a handle calls: another thread goes on
                role.clear()
                start_new_thread(self._work, (queue, role))
                raise

    def end(self) -> None:
        """Wait until all steps in flight are over: the process is ending."""
        self.has_ended = True
        if self.role or not self.queue.empty():
            self.start()
            last = allocate_lock()
            last.acquire()
            self.queue.put(last.release)
            last.acquire()


worker = Worker()

# As concurrent.futures does it: `atexit` is too late for children of multiprocessing, which do
# not call it.
try:
    threading._register_atexit(worker.end)  # type: ignore[attr-defined]  # noqa: SLF001
except RuntimeError:  # the process is ending already
    worker.has_ended = True
if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=worker.reset)


# ---- what is asked for ----


def check_wait(wait: Any, after: Any) -> bool:
    """Whether a step is to be waited for: the arguments of `step` that say so, checked."""
    waits = flag("wait", wait)
    if after is not None and waits:
        raise TypeError(
            f"after={describe(after)} is what a step in flight comes after; pass `wait=False` with "
            "it, or call `after.synchronize()` before the step"
        )
    if after is not None and not callable(getattr(after, "synchronize", None)):
        raise TypeError(
            f"after={describe(after)}; pass what has a method `synchronize`, as an event of "
            "torch.cuda or CuPy that was recorded after the gradients' copies"
        )
    return waits


def landed(step: Callable[[], Report], after: Any) -> Handle:
    """The handle of a step that is taken here and now, after something else.

    What is refused is raised; that gradients are not finite comes with the handle.
    """
    if after is not None:
        after.synchronize()
    handle, report, failure = Handle(), None, None
    try:
        report = step()
    except FloatingPointError as error:
        failure = error
    handle.end(report, failure)
    handle.tell()
    try:
        return handle
    finally:
        del handle, failure  # of which the failure's traceback makes a circle
