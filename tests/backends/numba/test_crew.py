"""The runner of Numba's kernels without C, and the Python threads that help it."""

from __future__ import annotations

import os
import threading
from typing import Any

import numpy as np
import pytest
from cases import DTYPES, differing_bits, ordinary
from marks import BACKENDS

import fusedstep as fs
from fusedstep._backends.numba.crew import Crew

without_c = pytest.mark.skipif(
    BACKENDS["c"] is None or BACKENDS["numba"] is not None,
    reason="for Numba without C: `PYTHONPATH=tests/helpers pytest -p without_c`",
)


def woken(crew: Crew, helpers: int) -> None:
    """Wake helpers, and wait until each of them is at work."""
    met = threading.Barrier(helpers + 1)
    crew.wake(lambda: met.wait(60), helpers)
    met.wait(60)


@pytest.mark.parametrize("helpers", [0, 1, 4])
def test_as_many_helpers_as_asked_for_work(helpers: int) -> None:
    crew = Crew()
    for _ in range(3):
        woken(crew, helpers)
    assert len(crew.bells) == helpers


def test_where_no_more_threads_can_start_those_that_are_there_work(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def refuse(thread: threading.Thread) -> None:
        raise RuntimeError("can't start new thread")

    crew = Crew()
    woken(crew, 1)
    came = threading.Event()
    with monkeypatch.context() as patch:
        patch.setattr(threading.Thread, "start", refuse)
        crew.wake(came.set, 3)
    assert came.wait(60)
    assert len(crew.bells) == 1
    woken(crew, 3)


@pytest.mark.skipif(BACKENDS["numba"] is not None, reason=f"{BACKENDS['numba']}")
def test_compiled_code_finds_the_system_s_call() -> None:
    """Where it does not, LLVM ends the process."""
    from llvmlite.binding import address_of_symbol

    from fusedstep._backends.numba.runner import YIELD

    assert address_of_symbol(YIELD)


def test_helpers_at_work_are_not_waited_for_and_come_afterwards() -> None:
    crew = Crew()
    begun, go_on, came = threading.Event(), threading.Event(), threading.Event()

    def long() -> None:
        begun.set()
        go_on.wait(60)

    crew.wake(long, 1)
    assert begun.wait(60)
    for _ in range(3):  # rung more often than it is heard
        crew.wake(came.set, 1)
    assert not came.is_set()
    go_on.set()
    assert came.wait(60)


@pytest.mark.skipif(not hasattr(os, "fork"), reason="this system has no fork")
@pytest.mark.filterwarnings("ignore:.*multi-threaded, use of fork:DeprecationWarning")
def test_a_child_of_fork_has_a_crew_of_its_own() -> None:
    from fusedstep._backends.numba.crew import crew

    woken(crew, 1)
    child = os.fork()
    if child == 0:
        woken(crew, 1)
        os._exit(0)
    assert os.waitpid(child, 0)[1] == 0


@without_c
def test_the_caller_waits_for_the_helpers_that_came_and_for_no_other(
    threads: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Helpers come before the task is opened, while it is open, and long after it was closed."""
    from fusedstep._backends.numba import runner
    from fusedstep._backends.numba.crew import crew

    monkeypatch.setattr(runner, "WORTH_SHARING", 1)
    late: list[Any] = []
    wake = crew.wake
    p, g = np.zeros(200_000, np.float32), np.ones(200_000, np.float32)
    opt = fs.SGD(p, lr=1.0, backend="numba")
    for step in range(50):
        # In each third step nobody wakes: those who were invited come when all is over.
        asleep = step % 3 == 2
        monkeypatch.setattr(
            crew,
            "wake",
            (lambda task, helpers: late.append(task)) if asleep else wake,
        )
        opt.step(g)
        assert (p == -(step + 1)).all()
    for task in late:
        task()
    assert (p == -50).all()


@without_c
def test_tensors_of_every_size_on_several_threads(
    threads: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    from fusedstep._backends.numba import runner

    monkeypatch.setattr(runner, "WORTH_SHARING", 1)
    rng = np.random.default_rng(0)
    sizes = [0, *rng.integers(0, 200, 500), 50_000, 0, 1, 16384, 300_001, 0]
    params: list[Any] = [ordinary(rng, n, rng.choice(DTYPES)) for n in sizes]
    grads = [ordinary(rng, p.size, p.dtype) for p in params]
    copies = [p.copy() for p in params]
    shared, reference = fs.AdamW(params, backend="numba"), fs.AdamW(copies, backend="numpy")
    for _ in range(30):
        shared.step(grads)
        reference.step(grads)
    for p, expected in zip(params, copies, strict=True):
        assert differing_bits(p, expected) == 0
