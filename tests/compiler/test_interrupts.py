"""Ctrl-C and other signals wait while Numba works."""

from __future__ import annotations

import os
import signal
import threading
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from fusedstep._compiler.interrupts import delayed

pytestmark = pytest.mark.skipif(os.name == "nt", reason="no process sends itself Ctrl-C here")


@pytest.fixture
def handle() -> Iterator[Callable[[object], None]]:
    """A function that sets the handler of Ctrl-C for one test."""

    def set_to(handler: Any) -> None:
        signal.signal(signal.SIGINT, handler)

    before = signal.getsignal(signal.SIGINT)
    yield set_to
    set_to(before)


def ctrl_c() -> None:
    os.kill(os.getpid(), signal.SIGINT)


def test_it_is_raised_after_the_block(handle: Callable[[object], None]) -> None:
    handle(signal.default_int_handler)
    done = []

    def work() -> None:
        with delayed():
            ctrl_c()
            done.append("the rest")

    with pytest.raises(KeyboardInterrupt):
        work()
    assert done == ["the rest"]
    assert signal.getsignal(signal.SIGINT) is signal.default_int_handler
    with pytest.raises(KeyboardInterrupt):
        ctrl_c()


def test_a_handler_of_the_user_is_called_once(handle: Callable[[object], None]) -> None:
    calls = []
    handle(lambda number, frame: calls.append(number))
    with delayed():
        ctrl_c()
        ctrl_c()
        assert not calls
    assert calls == [signal.SIGINT]
    with delayed():
        pass
    assert calls == [signal.SIGINT]


def test_an_error_is_told_with_it(handle: Callable[[object], None]) -> None:
    handle(signal.default_int_handler)

    def fail() -> None:
        with delayed():
            ctrl_c()
            raise ValueError

    with pytest.raises(KeyboardInterrupt) as caught:
        fail()
    assert isinstance(caught.value.__context__, ValueError)


def test_all_signals_wait_and_each_is_handled(handle: Callable[[object], None]) -> None:
    """Also if the handler of one raises, and if another comes while handlers are put back."""
    calls: list[int] = []

    def note(number: int, frame: object) -> None:
        calls.append(number)
        if number == signal.SIGALRM:
            os.kill(os.getpid(), signal.SIGUSR2)
            raise TimeoutError

    numbers = [signal.SIGALRM, signal.SIGUSR1, signal.SIGUSR2]
    before = [signal.signal(number, note) for number in numbers]
    handle(signal.default_int_handler)
    done = []

    def work() -> None:
        with delayed():
            ctrl_c()
            signal.raise_signal(signal.SIGALRM)
            signal.raise_signal(signal.SIGUSR1)
            assert not calls
            done.append("the rest")

    try:
        with pytest.raises((TimeoutError, KeyboardInterrupt)) as caught:
            work()
        assert [signal.getsignal(number) for number in numbers] == [note] * 3
    finally:
        for number, handler in zip(numbers, before, strict=True):
            signal.signal(number, handler)
    assert done == ["the rest"]
    assert sorted(calls) == sorted(numbers)
    assert {type(caught.value), type(caught.value.__context__)} == {
        TimeoutError,
        KeyboardInterrupt,
    }
    assert signal.getsignal(signal.SIGINT) is signal.default_int_handler


@pytest.mark.parametrize("handler", [signal.SIG_IGN, signal.SIG_DFL])
def test_what_is_not_python_s_stays(
    handler: signal.Handlers, handle: Callable[[object], None]
) -> None:
    handle(handler)
    with delayed():
        assert signal.getsignal(signal.SIGINT) == handler


def test_it_is_left_alone_where_handlers_cannot_be_set(
    handle: Callable[[object], None], monkeypatch: pytest.MonkeyPatch
) -> None:
    """In another interpreter of the process the main thread sets none either."""

    def refuse(*arguments: object) -> None:
        raise ValueError("signal only works in main thread of the main interpreter")

    handle(signal.default_int_handler)
    with monkeypatch.context() as patch:
        patch.setattr(signal, "signal", refuse)
        with delayed():
            assert signal.getsignal(signal.SIGINT) is signal.default_int_handler


def test_other_threads_leave_it_alone(handle: Callable[[object], None]) -> None:
    handle(signal.default_int_handler)
    seen = []

    def look() -> None:
        with delayed():
            seen.append(signal.getsignal(signal.SIGINT))

    thread = threading.Thread(target=look)
    thread.start()
    thread.join()
    assert seen == [signal.default_int_handler]
