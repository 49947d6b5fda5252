"""Steps inside of steps, on several threads, beside copies of the state: one at a time."""

from __future__ import annotations

import dis
import os
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import suppress
from types import BuiltinMethodType
from typing import Any

import numpy as np
import pytest
from cases import ones
from marks import needs_c, on_each_backend

import fusedstep as fs
from fusedstep._core.turn import TURNS, Turn

Array = np.ndarray[Any, Any]


class Calling(Mapping[str, Any]):
    """Gradients that call a function when they are read."""

    def __init__(self, call: Callable[[], Any]) -> None:
        self.call = call

    def __getitem__(self, key: str) -> Any:
        self.call()
        return ones(3)

    def __iter__(self) -> Iterator[str]:
        return iter(["w"])

    def __len__(self) -> int:
        return 1


# ---- inside of a step ----


@on_each_backend
@pytest.mark.parametrize("request_", [{}, {"max_norm": 1.0}, {"scale": 2.0, "zero_grads": True}])
def test_what_a_step_calls_may_not_step(request_: dict[str, Any], backend: str) -> None:
    p, g = ones(3), ones(3)

    def rate(t: int) -> float:
        return float(opt.step(ones(3), **request_).t)

    opt: Any = fs.SGD(p, lr=rate, momentum=0.5, backend=backend)
    with pytest.raises(RuntimeError, match="step inside of a step"):
        opt.step(g, **request_)
    assert (p == 1).all()
    assert (g == 1).all()
    assert opt.state["t"] == 0
    opt.lr = 1.0
    assert opt.step(g).t == 1


@on_each_backend
def test_nor_load_nor_go_ahead(backend: str) -> None:
    calls: list[Callable[[Any, Any], Any]] = [
        lambda opt, saved: opt.load_state_dict(saved),
        lambda opt, saved: opt.lookahead().__enter__(),
    ]
    for call in calls:
        p = ones(3)
        opt: Any = fs.SGD({"w": p}, lr=0.5, momentum=0.5, backend=backend)
        opt.step({"w": ones(3)})
        saved = opt.state_dict()
        with pytest.raises(RuntimeError, match="inside of a step"):
            opt.step(Calling(lambda: call(opt, saved)))  # noqa: B023
        assert (p == 0.5).all()
        assert opt.step({"w": ones(3)}).t == 2


@on_each_backend
def test_a_refused_inner_step_leaves_the_outer_one_alone(backend: str) -> None:
    p = ones(3)
    refused: list[str] = []

    def rate(t: int) -> float:
        try:
            opt.step(ones(3))
        except RuntimeError as error:
            refused.append(str(error))
        return 0.5

    opt: Any = fs.SGD(p, lr=rate, backend=backend)
    assert opt.step(ones(3), max_norm=100.0).t == 1
    assert (p == 0.5).all()
    assert len(refused) == 1


@on_each_backend
def test_state_is_copied_from_within_a_step(backend: str) -> None:
    """A signal's handler that saves comes at any moment, and finds nothing half stepped."""
    saved: list[Any] = []
    opt: Any = fs.Adam({"w": ones(3)}, backend=backend)
    for t in range(3):
        opt.step(Calling(lambda: saved.append(opt.state_dict())))
        assert saved[-1]["state"]["w"]["t"] == t


@on_each_backend
def test_a_rate_that_resizes_a_gradient(backend: str) -> None:
    p, g = ones(1000), ones(1000)
    resize: list[bool] = []

    def rate(t: int) -> float:
        if resize:
            g.resize(10, refcheck=False)
        return 0.5

    opt = fs.SGD([p], lr=rate, backend=backend)
    for request in ({}, {"max_norm": 1e9}, {"scale": 2.0}, {"zero_grads": True}):
        p[...], resize[:] = 1, []
        g.resize(1000, refcheck=False)
        opt.step([g])
        before = p.copy()
        resize.append(True)
        with pytest.raises(ValueError, match=r"grads\[0\] has shape \(10,\)"):
            opt.step([g], **request)
        assert (p == before).all()


# ---- on several threads ----


@on_each_backend
@pytest.mark.parametrize("request_", [{}, {"max_norm": 1e30}])
def test_two_threads_that_step_one_optimizer(request_: dict[str, Any], backend: str) -> None:
    """Some steps are refused, and as many as were not have been taken, one after the other."""
    n = 50_000
    p = np.zeros(n)
    opt = fs.SGD([p], lr=1.0, backend=backend)
    opt.step([np.zeros(n)])
    refused: list[str] = []
    taken = [0, 0]

    def work(k: int) -> None:
        until = time.perf_counter() + 0.4
        while time.perf_counter() < until:
            try:
                opt.step([np.full(n, -1.0)], **request_)
                taken[k] += 1
            except RuntimeError as error:
                refused.append(str(error))

    workers = [threading.Thread(target=work, args=(k,)) for k in range(2)]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join(60)
    assert refused
    assert all("while another thread steps the same optimizer" in each for each in refused)
    assert (p == sum(taken)).all()
    assert opt.state[0]["t"] == 1 + sum(taken)


@on_each_backend
@pytest.mark.parametrize("arena", [False, True])
def test_state_copied_by_another_thread_is_whole(arena: bool, backend: str) -> None:
    """After t steps with gradients of 1 every element of b is t."""
    n = 20_000
    params: Any = [np.zeros(n), np.zeros(n, np.float32), np.zeros(2 * n)[::2]]
    given = fs.Arena(params) if arena else params
    opt = fs.SGD(given, lr=1.0, momentum=1.0, backend=backend)
    grads: Any = [np.ones(p.shape, p.dtype) for p in params]
    if arena:
        for mine, g in zip(given.grads, grads, strict=True):
            mine[...] = g
    stop = threading.Event()
    failed: list[BaseException] = []

    def work() -> None:
        try:
            while not stop.is_set():
                opt.step(*([] if arena else [grads]))
        except BaseException as error:
            failed.append(error)

    worker = threading.Thread(target=work)
    opt.step(*([] if arena else [grads]))
    worker.start()
    seen = set()
    until = time.perf_counter() + 0.5
    while time.perf_counter() < until:
        for state in opt.state_dict()["state"]:
            assert (state["b"] == state["t"]).all()
            seen.add(state["t"])
    stop.set()
    worker.join(60)
    assert failed == []
    assert len(seen) > 3


@pytest.mark.parametrize(
    "takes",
    [
        *(fs.SGD.step, fs.SGD._in_turn, fs.SGD._go_ahead),  # noqa: SLF001
        *(fs.SGD.catch_up, fs.SGD._fly, Turn.wait_to_copy),  # noqa: SLF001
    ],
)
def test_no_other_thread_comes_between_a_look_at_the_turn_and_its_taking(takes: Any) -> None:
    """Up to Python 3.10 one may wherever a branch is taken."""
    found = [*dis.get_instructions(takes)]
    names = [(each.opname, each.argval) for each in found]
    taken = names.index(("STORE_ATTR", "holder"))
    looked = max(at for at in range(taken) if names[at] == ("LOAD_ATTR", "holder"))
    between = found[looked + 1 : taken + 1]
    assert not any(each.is_jump_target for each in between)
    assert not any(each.opname.startswith("CALL") for each in between)


def test_a_turn_goes_without_a_call_of_python() -> None:
    """Ctrl-C that came in a call by the collector of garbage would be lost."""
    turn = Turn()
    (reference,) = [each for each in TURNS if each() is turn]
    assert isinstance(reference.__callback__, BuiltinMethodType)
    del turn
    assert reference not in TURNS


def test_who_came_during_a_look_at_the_threads_keeps_the_turn(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    turn = Turn()

    def look() -> dict[int, object]:
        turn.holder, turn.next = 3, 4
        return {}

    monkeypatch.setattr(sys, "_current_frames", look)
    for holder, copier in [(1, 0), (1, 2), (2, 2), (0, 2)]:
        turn.holder, turn.next = holder, copier
        turn.refuse_what_was_cut_off("step")
        assert (turn.holder, turn.next) == (3, 4)


def test_copies_by_several_threads_wait_for_one_another() -> None:
    opt = fs.Adam([np.zeros(100_000) for _ in range(4)])
    grads = [np.ones(100_000) for _ in range(4)]
    opt.step(grads)
    found: list[int] = []

    def work() -> None:
        for _ in range(20):
            found.append(opt.state_dict()["state"][0]["t"])

    workers = [threading.Thread(target=work) for _ in range(3)]
    for worker in workers:
        worker.start()
    for _ in range(20):
        opt.step(grads)
    for worker in workers:
        worker.join(60)
        assert not worker.is_alive()
    assert len(found) == 60
    assert opt.step(grads).t == 22


@needs_c
def test_a_load_on_another_thread_is_refused_during_a_step() -> None:
    n = 20_000_000
    p, g = np.zeros(n, np.float32), np.ones(n, np.float32)
    opt = fs.SGD(p, lr=1.0, momentum=0.5)
    opt.step(g)
    saved = opt.state_dict()
    refused: list[str] = []

    def load() -> None:
        with suppress(ValueError):
            try:
                opt.load_state_dict(saved)
            except RuntimeError as error:
                refused.append(str(error))

    for _ in range(50):
        loading = threading.Timer(0.002, load)
        loading.start()
        with suppress(RuntimeError):  # the load may have come first
            opt.step(g)
        loading.join()
        if refused:
            break
    assert "load_state_dict while another thread steps" in refused[0]


FORKED = """
import os, threading, time
import numpy as np
import fusedstep as fs

def turns(call):
    stop = threading.Event()
    def work():
        while not stop.is_set():
            call()
    worker = threading.Thread(target=work)
    worker.start()
    return lambda: (stop.set(), worker.join())

n = 300_000
p, g = np.zeros(n), np.ones(n)
opt = fs.SGD(p, lr=1.0, momentum=0.5, backend={backend!r})
opt.step(g)
found = set()
for call in (lambda: opt.step(g), opt.state_dict):
    end = turns(call)
    for _ in range({forks}):
        time.sleep(0.0007)
        child = os.fork()
        if not child:
            try:
                opt.step(g)
                opt.state_dict()
                assert (p == p[0]).all()
            except RuntimeError as error:
                assert "step of an optimizer that another thread was stepping" in str(error), error
                try:
                    opt.state_dict()
                except RuntimeError as error:
                    assert "a copy of an optimizer that" in str(error), error
                    os._exit(1)
                os._exit(2)
            os._exit(0)
        found.add(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]))
    end()
    assert found <= {{0, 1}}, found
print(found)
"""


@pytest.mark.skipif(not hasattr(os, "fork"), reason="this system has no fork")
@on_each_backend
def test_children_forked_in_mid_step_or_mid_copy(backend: str) -> None:
    """A child knows that its parameters may be half stepped, and never waits for a lost thread."""
    done = subprocess.run(
        [sys.executable, "-W", "ignore", "-c", FORKED.format(backend=backend, forks=40)],
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert "1" in done.stdout


FORKED_AND_STARTED = """
import os, threading, time
import numpy as np
import fusedstep as fs

n = 300_000
p, g = np.zeros(n), np.ones(n)
opt = fs.SGD(p, lr=1.0, momentum=0.5, backend={backend!r})
opt.step(g)
stop = threading.Event()

def work():
    while not stop.is_set():
        opt.step(g)

def look():
    for call in (opt.state_dict, lambda: opt.step(g)):
        try:
            call()
            assert (p == p[0]).all() and (opt.state["b"] == opt.state["b"][0]).all()
        except RuntimeError as error:
            assert "when this process was forked" in str(error), error
            seen.append("told")
        except AssertionError:
            seen.append("half")

worker = threading.Thread(target=work)
worker.start()
found = set()
for _ in range(40):
    time.sleep(0.0007)
    child = os.fork()
    if not child:
        seen = []
        other = threading.Thread(target=look)
        other.start()
        other.join(30)
        os._exit(3 if other.is_alive() else 2 if "half" in seen else len(seen) // 2)
    found.add(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]))
stop.set()
worker.join()
assert found <= {{0, 1}}, found
print(found)
"""


@pytest.mark.skipif(not hasattr(os, "fork"), reason="this system has no fork")
@on_each_backend
def test_a_thread_of_the_child_is_not_the_one_that_was_lost(backend: str) -> None:
    """It mostly has the same number."""
    done = subprocess.run(
        [sys.executable, "-W", "ignore", "-c", FORKED_AND_STARTED.format(backend=backend)],
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert "1" in done.stdout


@on_each_backend
def test_steps_amid_copies_without_end(backend: str) -> None:
    """A step waits for one copy, or two, while others copy all the time."""
    opt = fs.Adam(np.zeros(100_000), backend=backend)
    stop = threading.Event()

    def work() -> None:
        while not stop.is_set():
            opt.state_dict()

    workers = [threading.Thread(target=work) for _ in range(2)]
    for worker in workers:
        worker.start()
    watch = threading.Timer(30, stop.set)  # or a step that waits for ever would never fail
    watch.start()
    for _ in range(40):
        opt.step(np.ones(100_000))
    late = stop.is_set()
    watch.cancel()
    stop.set()
    for worker in workers:
        worker.join(60)
    assert not late


# ---- whatever happens, the turn is given back ----


@on_each_backend
def test_failures_give_the_turn_back(backend: str) -> None:
    p = ones(3)
    opt = fs.SGD([p], lr=1.0, momentum=0.5, nonfinite="raise", backend=backend)
    failing: list[tuple[Callable[[], Any], type[Exception]]] = [
        (lambda: opt.step([np.ones(4, np.float32)]), ValueError),
        (lambda: opt.step([np.array([1, np.nan, 1], np.float32)]), FloatingPointError),
        (lambda: opt.step([ones(3)], scale=-1.0), ValueError),
        (lambda: opt.step(None), TypeError),
        (lambda: opt.load_state_dict({}), KeyError),
        (lambda: opt.load_state_dict({**opt.state_dict(), "state": [None]}), TypeError),
    ]
    for fail, error in failing:
        with pytest.raises(error):
            fail()
    assert opt.step([ones(3)]).t == 1
    assert (p == 0).all()
