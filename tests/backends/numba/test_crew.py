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


@pytest.mark.parametrize("threads", [1, 2, 5])
def test_as_many_threads_as_asked_for_work(threads: int) -> None:
    crew = Crew()
    for _ in range(3):
        met = threading.Barrier(threads)
        crew.run(lambda met=met: met.wait(60), threads)  # type: ignore[misc]
        assert not met.broken
    assert crew.helpers == threads - 1


def test_the_caller_waits_for_no_helper_that_has_not_begun() -> None:
    crew = Crew()
    crew.helpers = 3  # of which none will ever come
    calls: list[int] = []
    crew.run(lambda: calls.append(1), 4)
    assert calls == [1]
    assert crew.invited == 0


def test_a_second_caller_goes_alone() -> None:
    crew = Crew()
    inner: list[str] = []

    def task() -> None:
        if threading.current_thread() is threading.main_thread():
            crew.run(lambda: inner.append(threading.current_thread().name), 2)

    crew.run(task, 2)
    assert inner == [threading.main_thread().name]


@pytest.mark.skipif(not hasattr(os, "fork"), reason="this system has no fork")
@pytest.mark.filterwarnings("ignore:.*multi-threaded, use of fork:DeprecationWarning")
def test_a_child_of_fork_has_a_crew_of_its_own() -> None:
    from fusedstep._backends.numba.crew import crew

    crew.run(threading.Barrier(2).wait, 2)
    child = os.fork()
    if child == 0:
        crew.run(threading.Barrier(2).wait, 2)
        os._exit(0)
    assert os.waitpid(child, 0)[1] == 0


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
