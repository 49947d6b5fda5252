"""Steps in flight: the same bits as waited ones, in the order in which they were asked for."""

from __future__ import annotations

import asyncio
import concurrent.futures
import copy
import gc
import inspect
import multiprocessing
import os
import pickle
import signal
import subprocess
import sys
import threading
import weakref
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from cases import (
    BASES,
    CUSTOM_BASES,
    WHOLE_CASES,
    Case,
    difficult_but_finite,
    ones,
    ordinary,
)
from marks import COMPILING, ON_CPU, for_each, for_each_dtype, needs, needs_c, on_each_backend
from memory_layouts import GRADIENT_LAYOUTS, LAYOUTS, SHAPE

import fusedstep as fs
from fusedstep._core import in_flight

Array = np.ndarray[Any, Any]

STEPS = 4

OF_ADAMW = [case for case in WHOLE_CASES if case.optimizer is fs.AdamW]

SECONDS = 60
"""The longest that a test waits for what does not take long."""


class Held:
    """An event for a step to come after, which a test lets happen."""

    def __init__(self) -> None:
        self.released = threading.Event()
        self.waited = threading.Event()

    def synchronize(self) -> None:
        self.waited.set()
        assert self.released.wait(SECONDS)

    def release(self) -> None:
        self.released.set()


@pytest.fixture
def held() -> Iterator[Held]:
    """One that no test leaves behind: the thread that takes steps in flight would wait for it."""
    made = Held()
    yield made
    made.release()


def waits_for(held: Held, call: Callable[[], Any]) -> Any:
    """The result of a call that has to wait until something is released."""
    found: list[Any] = []
    thread = threading.Thread(target=lambda: found.append(call()))
    thread.start()
    thread.join(0.05)
    assert thread.is_alive()
    held.release()
    thread.join(SECONDS)
    assert not thread.is_alive()
    return found[0]


# ---- the same bits ----


def arrays(rng: Any, dtype: Any, make: Any = ordinary) -> list[Array]:
    return [make(rng, 33, dtype), make(rng, 48, dtype).reshape(6, 8)[:, ::2], make(rng, 1, dtype)]


def run(case: Case, backend: str, dtype: Any, wait: bool, *, arena: bool = False) -> Any:
    """Everything after a few steps, each by gradients of its own, and their reports."""
    rng = np.random.default_rng(5)
    make = difficult_but_finite if "max_norm" not in case.request else ordinary
    params = arrays(rng, dtype, make)
    given: Any = fs.Arena(params) if arena else params
    opt = case.optimizer(given, backend=backend, **case.options)
    every: list[list[Array]] = []
    steps: list[Any] = []
    for _ in range(STEPS):
        grads = arrays(rng, dtype, make)
        every.append(grads)
        if arena:
            if not wait and steps:
                steps[-1].result(SECONDS)
            given.set_grads(grads)
            steps.append(opt.step(**case.request, wait=wait))
        else:
            steps.append(opt.step(grads, **case.request, wait=wait))
    reports = steps if wait else [handle.result(SECONDS) for handle in steps]
    read = [*given.params, *given.grads] if arena else [*params, *(g for gs in every for g in gs)]
    return pickle.dumps(([np.array(a) for a in read], opt.state_dict())), reports, opt.digest()


@pytest.mark.parametrize("backend", [each for each in ON_CPU if each not in COMPILING])
@for_each_dtype
@for_each([*BASES, *OF_ADAMW])
def test_the_same_bits(case: Case, dtype: Any, backend: str) -> None:
    assert run(case, backend, dtype, wait=False) == run(case, backend, dtype, wait=True)


@pytest.mark.parametrize("backend", COMPILING)
@for_each_dtype
@for_each([each for each in (*BASES, *OF_ADAMW) if each.name in ("momentum", "adamw-whole")])
def test_the_same_bits_where_each_rule_is_compiled(case: Case, dtype: Any, backend: str) -> None:
    assert run(case, backend, dtype, wait=False) == run(case, backend, dtype, wait=True)


@on_each_backend
@for_each_dtype
@pytest.mark.parametrize("request_", [{}, {"scale": 2.0, "max_norm": 0.5, "zero_grads": True}])
def test_the_same_bits_in_an_arena(request_: Any, dtype: Any, backend: str) -> None:
    case = Case("adamw", fs.AdamW, {"ema": 0.9, "weight_decay": 0.1}, request_)
    found = run(case, backend, dtype, wait=False, arena=True)
    assert found == run(case, backend, dtype, wait=True, arena=True)


@for_each([case for case in CUSTOM_BASES if case.name in ("lion", "nadam", "adan")])
def test_the_same_bits_by_custom_rules(case: Case) -> None:
    assert run(case, "numba", np.float32, wait=False) == run(case, "numba", np.float32, wait=True)


@on_each_backend
@pytest.mark.parametrize("master", ["split16", "float32", False])
def test_the_same_bits_in_fewer_bytes(master: Any, backend: str) -> None:
    dtype = needs("ml_dtypes", "bfloat16").bfloat16

    def train(wait: bool) -> str:
        p = np.linspace(-1, 1, 5000).astype(dtype)
        opt = fs.AdamW(p, backend=backend, master=master, state_dtype="bfloat16")
        for k in range(STEPS):
            opt.step(np.full(5000, 0.1 * k, np.float32 if k % 2 else dtype), wait=wait)
        return opt.digest()

    assert train(wait=False) == train(wait=True)


@on_each_backend
@pytest.mark.parametrize("options", [{}, {"row_steps": "shared"}, {"untouched": "exact"}])
def test_the_same_bits_by_rows(options: Any, backend: str) -> None:
    def train(wait: bool) -> str:
        rng = np.random.default_rng(2)
        params = {"words": ordinary(rng, 60, np.float32).reshape(20, 3), "w": ones(4)}
        opt = fs.Adam(params, backend=backend, **options)
        for k in range(8):
            rows: Any = fs.Rows(rng.integers(0, 20, 5), ordinary(rng, 15, np.float32).reshape(5, 3))
            if k == 4:
                rows = ones(20, 3)
            opt.step({"words": rows, "w": ones(4)}, max_norm=1.0 if k % 2 else None, wait=wait)
        return opt.digest()

    assert train(wait=False) == train(wait=True)


@on_each_backend
@for_each_dtype
def test_the_same_bits_of_tensors(dtype: Any, backend: str) -> None:
    torch = needs("torch", "torch")

    def train(wait: bool) -> tuple[str, list[Any]]:
        rng = np.random.default_rng(3)
        params = [torch.from_numpy(np.ascontiguousarray(a)) for a in arrays(rng, dtype)]
        opt = fs.AdamW(params, backend=backend)
        steps: list[Any] = []
        for _ in range(STEPS):
            grads = [torch.from_numpy(np.ascontiguousarray(a)) for a in arrays(rng, dtype)]
            steps.append(opt.step(grads, max_norm=1.0, zero_grads=True, wait=wait))
            del grads
        return opt.digest(), steps if wait else [handle.result(SECONDS) for handle in steps]

    assert train(wait=False) == train(wait=True)


@on_each_backend
def test_gradients_in_any_layout(backend: str) -> None:
    def train(wait: bool) -> str:
        zeroed = len(LAYOUTS)  # the others cannot be written
        params = [ones(*SHAPE) for _ in GRADIENT_LAYOUTS]
        opt = fs.SGD(params, lr=0.1, momentum=0.5, backend=backend)
        for k in range(4):
            grads: list[Any] = []
            for make in GRADIENT_LAYOUTS.values():
                view, memory = make(np.float32)
                if memory.dtype == np.float32:
                    memory[...] = np.arange(memory.size).reshape(memory.shape) + k
                grads.append(view)
            if k % 2:
                grads[zeroed:] = [None] * (len(grads) - zeroed)
            opt.step(grads, zero_grads=bool(k % 2), wait=wait)
        return opt.digest()

    assert train(wait=False) == train(wait=True)


# ---- in their order ----


@on_each_backend
def test_many_in_flight(backend: str) -> None:
    """Rates change in between, other gradients are None, and somebody looks at the state."""
    rng = np.random.default_rng(1)
    seeds = rng.integers(0, 2**31, 1000)

    def train(wait: bool) -> tuple[str, str, list[int]]:
        params = [ones(5), ones(3, dtype=np.float64), ones(2)]
        groups: Any = [{"params": params[:1]}, {"params": params[1:], "lr": 0.5}]
        opt = fs.AdamW(groups, nonfinite="skip", backend=backend)
        steps, seen = [], []
        for k, seed in enumerate(seeds.tolist()):
            own = np.random.default_rng(seed)
            g = [own.standard_normal(p.shape).astype(p.dtype) for p in params]
            if k % 50 == 7:
                g[0][1] = np.nan
            if k % 3 == 0:
                opt.param_groups[0]["lr"] = 1e-3 * (1 + k % 5)
            if k % 7 == 0:
                opt.param_groups[1]["weight_decay"] = 0.01 * (k % 4)
            if k % 11 == 0:
                opt.lr = 1e-2
            given: Any = [g[:1], [None, g[2]]] if k % 4 == 1 else [g[:1], g[1:]]
            steps.append(opt.step(given, max_norm=1.0 if k % 2 else None, wait=wait or k % 97 == 5))
            if k % 250 == 100:
                seen.append(opt.state[0][0]["t"])
        reports = [s if isinstance(s, fs.Report) else s.result(SECONDS) for s in steps]
        return opt.digest(), repr(reports), seen  # of a step that is skipped the norm is NaN

    assert train(wait=False) == train(wait=True)


@on_each_backend
def test_what_is_assigned_later_is_for_later_steps(backend: str, held: Held) -> None:
    p = np.zeros(3)
    opt = fs.SGD(p, lr=1.0, backend=backend)
    first = opt.step(np.ones(3), wait=False, after=held)
    opt.lr = 10.0
    second = opt.step(np.ones(3), wait=False)
    opt.param_groups[0]["lr"] = 100.0
    opt.param_groups[0].update(maximize=True, lr=1000.0)
    assert (opt.lr, opt.param_groups[0]["maximize"]) == (1000.0, True)
    third = opt.step(np.ones(3), wait=False)
    opt.lr = 0.0
    assert not first.done()
    held.release()
    assert [each.result(SECONDS).t for each in (first, second, third)] == [1, 2, 3]
    assert (p == -1 - 10 + 1000).all()
    assert opt.lr == 0.0
    opt.step(np.ones(3))
    assert (p == -1 - 10 + 1000).all()


def test_several_groups_keep_what_they_had(held: Held) -> None:
    params = [np.zeros(1), np.zeros(1)]
    opt = fs.SGD([{"params": [p]} for p in params], lr=1.0)
    opt.step([[np.ones(1)], [np.ones(1)]], wait=False, after=held)
    opt.lr = 5.0
    opt.param_groups[1]["lr"] = 7.0
    held.release()
    opt.step([[np.ones(1)], [np.ones(1)]], wait=False).result(SECONDS)
    assert [p[0] for p in params] == [-6, -8]


@on_each_backend
def test_a_schedule_goes_by_the_steps_that_were_taken(backend: str) -> None:
    p, q = np.zeros(2), np.zeros(2)
    schedule = fs.schedules.cosine(1.0, 10)
    opt = fs.SGD(p, lr=schedule, nonfinite="skip", backend=backend)
    other = fs.SGD(q, lr=schedule, nonfinite="skip", backend=backend)
    values = (1.0, np.nan, 1.0, np.inf, 1.0)
    handles = [opt.step(np.full(2, value), wait=False) for value in values]
    reports = [other.step(np.full(2, value)) for value in values]
    assert [handle.result(SECONDS) for handle in handles] == reports
    assert [report.t for report in reports] == [1, 1, 2, 2, 3]
    assert (p == q).all()


def test_several_optimizers_in_the_order_in_which_they_were_asked(held: Held) -> None:
    began: list[int] = []

    def optimizer(k: int) -> Any:
        def rate(t: int) -> float:
            began.append(k)
            return 1.0

        return fs.SGD(np.zeros(2), lr=rate)

    opts = [optimizer(k) for k in range(4)]
    order = [3, 1, 1, 0, 2, 3, 0]
    for opt in opts:
        opt.step(np.ones(2))  # so that a rate is asked for once a step
    began.clear()
    handles = [opts[order[0]].step(np.ones(2), wait=False, after=held)]
    handles += [opts[k].step(np.ones(2), wait=False) for k in order[1:]]
    assert held.waited.wait(SECONDS)
    assert not any(handle.done() for handle in handles)
    held.release()
    for handle in handles:
        handle.result(SECONDS)
    assert began == order
    assert [opt.state["t"] for opt in opts] == [3, 3, 2, 3]


NEW: Any = fs.SGD({"w": np.zeros(3)}, momentum=0.5).state_dict()

READS: dict[str, Callable[[Any, Path], Any]] = {
    "step": lambda opt, path: opt.step({"w": np.ones(3)}).t - 1,
    "state": lambda opt, path: opt.state["w"]["t"],
    "state_dict": lambda opt, path: opt.state_dict()["state"]["w"]["t"],
    "digest": lambda opt, path: opt.digest() and opt.state["w"]["t"],
    "float32_params": lambda opt, path: round(-opt.float32_params()["w"][0]),
    "deepcopy": lambda opt, path: copy.deepcopy(opt).state["w"]["t"],
    "pickle": lambda opt, path: pickle.loads(pickle.dumps(opt)).state["w"]["t"],
    "save": lambda opt, path: fs.save(path / "run", opt) and opt.state["w"]["t"],
    "load_state_dict": lambda opt, path: opt.load_state_dict(NEW) or opt.state["w"]["t"] + 2,
    "load_float32_params": lambda opt, path: (
        opt.load_float32_params({"w": np.full(3, -2.0)}) or round(-opt.float32_params()["w"][0])
    ),
    "catch_up": lambda opt, path: opt.catch_up() or opt.state["w"]["t"],
    "lookahead": lambda opt, path: opt.lookahead().__enter__() or opt.state["w"]["t"],
    "layout": lambda opt, path: opt.layout.t,
    "Recorder": lambda opt, path: fs.Recorder(opt, path / "record") and opt.state["w"]["t"],
}


@pytest.mark.parametrize("read", READS)
def test_whatever_reads_or_changes_state_comes_after_them(
    read: str, tmp_path: Path, held: Held
) -> None:
    opt = fs.SGD({"w": np.zeros(3)}, lr=1.0, momentum=1e-9)
    opt.step({"w": np.ones(3)}, wait=False, after=held)
    opt.step({"w": np.ones(3)}, wait=False)
    assert waits_for(held, lambda: READS[read](opt, tmp_path)) == 2


def test_a_look_into_state_that_was_asked_for_before(held: Held) -> None:
    opt = fs.SGD(np.zeros(3), momentum=0.5)
    state = opt.state
    opt.step(np.ones(3), wait=False, after=held)
    assert (waits_for(held, lambda: state["b"]) == 1).all()


def test_threads_that_ask_for_steps_of_one_optimizer() -> None:
    opt = fs.SGD(np.zeros(100), lr=1.0, momentum=0.0)

    def ask() -> None:
        for _ in range(200):
            opt.step(np.ones(100), wait=False)

    threads = [threading.Thread(target=ask) for _ in range(3)]
    for thread in threads:
        thread.start()
    copies = [opt.state_dict() for _ in range(20)]
    for thread in threads:
        thread.join(SECONDS)
    assert len(copies) == 20
    assert (opt.float32_params() == -600).all()
    assert opt.state["t"] == 600


# ---- what is refused ----

MISFITS: list[tuple[Any, dict[str, Any], type[Exception], str]] = [
    ({"w": np.ones(4), "b": np.ones(2)}, {}, ValueError, "shape"),
    ({"w": np.ones(3)}, {}, KeyError, "b"),
    ({"w": ones(3), "b": np.ones(2)}, {}, TypeError, "float32"),
    ({"w": "w", "b": np.ones(2)}, {}, TypeError, "grads"),
    ({"w": None, "b": fs.Rows([9], np.ones(1))}, {}, IndexError, "2 rows"),
    (None, {}, TypeError, "grads is None"),
    ({"w": np.ones(3), "b": None}, {"scale": 0.0}, ValueError, "scale"),
    ({"w": np.ones(3), "b": None}, {"scale": 1e-320}, ValueError, "out of the range"),
    ({"w": np.ones(3), "b": None}, {"max_value": -1.0}, ValueError, "max_value"),
    ({"w": np.ones(3), "b": None}, {"max_norm": -1.0}, ValueError, "max_norm"),
    ({"w": np.ones(3), "b": None}, {"zero_grads": 1}, TypeError, "zero_grads=True"),
    ({"w": np.ones(3), "b": None}, {"clip": "tensor"}, ValueError, "max_norm"),
    ({"w": np.broadcast_to(1.0, 3), "b": None}, {"zero_grads": True}, ValueError, "read-only"),
    ({"w": np.ones(3), "b": None}, {"after": 3}, TypeError, "`synchronize`"),
    ({"w": np.ones(3), "b": None}, {"max_nrm": 1.0}, TypeError, "did you mean `max_norm=1.0`"),
    ({"w": np.ones(3), "b": None}, {"asked": 1.0}, TypeError, "unexpected keyword argument"),
]


@on_each_backend
@pytest.mark.parametrize("steps", [0, 1])
@pytest.mark.parametrize("asleep", [False, True])
def test_what_does_not_fit_is_refused_by_the_call(steps: int, asleep: bool, backend: str) -> None:
    """Also while a step of the same optimizer is in flight, of which it knows nothing."""
    params = {"w": np.zeros(3), "b": np.zeros(2)}
    opt: Any = fs.SGD(params, lr=1.0, momentum=0.5, backend=backend)
    grads = {"w": np.ones(3), "b": np.ones(2)}
    held = Held()
    for _ in range(steps):
        opt.step(grads)
    if asleep:
        opt.step(grads, wait=False, after=held)
    else:
        held.release()
    try:
        for given, request, error, words in MISFITS:
            with pytest.raises(error, match=words):
                opt.step(given, wait=False, **request)
        with pytest.raises(ValueError, match="shares memory with params"):
            opt.step({"w": params["w"], "b": None}, wait=False)
        both = np.ones(4)
        with pytest.raises(ValueError, match="share memory"):
            opt.step({"w": both[:3], "b": both[2:]}, wait=False, zero_grads=True)
    finally:
        held.release()
    assert opt.step(grads, wait=False).result(SECONDS).t == 1 + steps + asleep


def test_gradients_that_share_memory_with_state_are_refused() -> None:
    opt = fs.SGD(np.zeros(3), momentum=0.5)
    opt.step(np.ones(3))
    with pytest.raises(ValueError, match="shares memory with b"):
        opt.step(opt.state["b"], wait=False)


def test_a_bound_goes_by_the_dtypes_that_step() -> None:
    opt = fs.SGD([ones(2), np.zeros(2)])
    with pytest.raises(ValueError, match="max_value=1e-60 is 0 in float32"):
        opt.step([ones(2), None], max_value=1e-60, wait=False)
    assert opt.step([None, np.ones(2)], max_value=1e-60, wait=False).result(SECONDS).t == 1


def test_rows_of_what_cannot_be_stepped_by_rows() -> None:
    opt = fs.SGD([np.zeros(()), np.zeros(3)])
    with pytest.raises(ValueError, match="a single number"):
        opt.step([fs.Rows([0], np.ones(1)), None], wait=False)


def test_rows_that_are_not_there_yet_are_looked_at_when_they_are(held: Held) -> None:
    p = np.zeros((3, 2))
    opt = fs.SGD(p, lr=1.0)
    index, values = np.array([9, 9]), np.ones((2, 2))
    handle = opt.step(fs.Rows(index, values), wait=False, after=held)
    index[:] = 0, 2
    held.release()
    assert handle.result(SECONDS).t == 1
    assert p.tolist() == [[-1, -1], [0, 0], [-1, -1]]
    with pytest.raises(IndexError, match="3 rows"):
        opt.step(fs.Rows([7], np.ones((1, 2))), wait=False, after=held).result(SECONDS)


def test_an_arena_takes_its_own_gradients_alone() -> None:
    arena = fs.Arena({"w": np.zeros((4, 2))})
    opt = fs.SGD(arena, lr=1.0)
    with pytest.raises(ValueError, match="not the arena's view"):
        opt.step({"w": np.ones((4, 2))}, wait=False)
    with pytest.raises(IndexError, match="4 rows"):
        opt.step({"w": fs.Rows([4], np.ones((1, 2)))}, wait=False)
    arena.grads["w"][...] = 1
    handles = [
        opt.step(arena.grads, wait=False),
        opt.step({"w": arena.grads["w"]}, wait=False),
        opt.step({"w": fs.Rows([1], np.ones((1, 2)))}, wait=False),
    ]
    assert [handle.result(SECONDS).t for handle in handles] == [1, 2, 3]
    assert arena.params["w"].tolist() == [[-2, -2], [-3, -3], [-2, -2], [-2, -2]]
    with pytest.raises(ValueError, match="scale"):
        opt.step(wait=False, scale=1e-320)
    with pytest.raises(TypeError, match="without `grads` is for optimizers over a"):
        fs.SGD(np.zeros(2)).step(wait=False)


@pytest.mark.parametrize("wait", [None, 0, 1, "False", np.zeros(1)])
def test_flags_alone_say_whether_to_wait(wait: Any) -> None:
    with pytest.raises(TypeError, match=r"^wait=.*; pass True or False"):
        fs.SGD(np.zeros(2)).step(np.ones(2), wait=wait)


def test_true_in_any_form_waits() -> None:
    opt: Any = fs.SGD(np.zeros(2))
    assert opt.step(np.ones(2), wait=True).t == 1
    assert opt.step(np.ones(2), wait=np.True_, scale=2.0).t == 2
    assert opt.step(np.ones(2), after=None).t == 3
    assert opt.step(np.ones(2), wait=np.False_).result(SECONDS).t == 4


def test_a_step_that_is_waited_for_comes_after_nothing() -> None:
    opt: Any = fs.SGD(np.zeros(2))
    for request in ({}, {"wait": True}):
        with pytest.raises(TypeError, match=r"pass `wait=False` with it, or call `after\.sync"):
            opt.step(np.ones(2), after=Held(), **request)


def test_a_class_has_no_steps_in_flight() -> None:
    with pytest.raises(TypeError, match="was called on the class"):
        fs.AdamW.step(np.ones(2), wait=False)  # type: ignore[call-overload]


@needs_c
def test_nothing_is_asked_for_inside_of_a_step_or_ahead() -> None:
    def rate(t: int) -> float:
        with pytest.raises(RuntimeError, match="step inside of a step"):
            opt.step(np.ones(2), wait=False)
        refused.append(t)
        return 1.0

    refused: list[int] = []
    opt: Any = fs.SGD(np.zeros(2), lr=rate, momentum=0.5)
    opt.step(np.ones(2))
    opt.step(np.ones(2), wait=False).result(SECONDS)
    assert {*refused} == {1, 2}
    opt.lr = 1.0
    with opt.lookahead(), pytest.raises(RuntimeError, match="lookahead"):
        opt.step(np.ones(2), wait=False)
    assert opt.state["t"] == 2


# ---- what goes wrong in flight ----


@on_each_backend
def test_a_step_that_is_refused_in_flight_is_left_out(backend: str) -> None:
    p = np.zeros(2)
    opt = fs.SGD(p, lr=1.0, momentum=0.5, nonfinite="raise", backend=backend)
    values = (1.0, np.nan, 1.0)
    handles = [opt.step(np.full(2, value), wait=False) for value in values]
    assert handles[2].result(SECONDS).t == 2
    with pytest.raises(FloatingPointError, match="held NaN or infinity"):
        handles[1].result()
    assert isinstance(handles[1].exception(), FloatingPointError)
    assert (handles[0].result().t, handles[0].exception()) == (1, None)
    assert (p == -2.5).all()
    assert opt.step(np.ones(2)).t == 3


def test_what_a_step_comes_after_may_fail() -> None:
    class Failing:
        def synchronize(self) -> None:
            raise OSError("the device is gone")

    p = np.zeros(2)
    opt = fs.SGD(p, lr=1.0)
    handle = opt.step(np.ones(2), wait=False, after=Failing())
    with pytest.raises(OSError, match="the device is gone"):
        handle.result(SECONDS)
    assert (p == 0).all()
    assert opt.step(np.ones(2)).t == 1


def test_a_rate_may_fail_and_a_gradient_change() -> None:
    def rate(t: int) -> float:
        if t == 2 and fails:
            raise KeyError("no rate")
        return 1.0

    fails = [True]
    p, g = np.zeros(2), np.ones(2)
    opt = fs.SGD(p, lr=rate)
    held = Held()
    first = opt.step(g, wait=False, after=held)
    g.resize(3, refcheck=False)
    held.release()
    with pytest.raises(ValueError, match=r"shape \(3,\)"):
        first.result(SECONDS)
    assert opt.step(np.ones(2), wait=False).result(SECONDS).t == 1
    with pytest.raises(KeyError, match="no rate"):
        opt.step(np.ones(2), wait=False).result(SECONDS)
    fails.clear()
    assert opt.step(np.ones(2), wait=False).result(SECONDS).t == 2


@pytest.fixture
def untold(monkeypatch: pytest.MonkeyPatch) -> list[Any]:
    """The errors that nobody has asked for, as they are told."""
    told: list[Any] = []
    monkeypatch.setattr(sys, "unraisablehook", lambda each: told.append(each.exc_value.__cause__))
    return told


@pytest.mark.parametrize("early", [True, False])
def test_an_error_that_nobody_asks_for_is_told(untold: list[Any], early: bool) -> None:
    opt = fs.SGD(np.zeros(2), nonfinite="raise")
    handle: Any = opt.step(np.full(2, np.nan), wait=False)
    if early:
        del handle
        opt.step(np.ones(2), wait=False).result(SECONDS)
    else:
        opt.step(np.ones(2), wait=False).result(SECONDS)
        assert untold == []
        del handle
    (error,) = untold
    assert isinstance(error, FloatingPointError)


@pytest.mark.parametrize("ask", ["result", "exception"])
def test_an_error_that_somebody_asks_for_is_told_once(untold: list[Any], ask: str) -> None:
    opt = fs.SGD(np.zeros(2), nonfinite="raise")
    handle: Any = opt.step(np.full(2, np.nan), wait=False)
    try:
        handle.result(SECONDS) if ask == "result" else handle.exception(SECONDS)
    except FloatingPointError:
        assert ask == "result"
    del handle
    gc.collect()
    assert untold == []


# ---- what is held ----


@on_each_backend
def test_gradients_are_held_until_the_step_is_done(backend: str, held: Held) -> None:
    opt = fs.SGD([np.zeros(3), np.zeros(2)], lr=1.0, backend=backend)
    grads = [np.ones(3), np.ones(2)]
    for g in grads:
        g.setflags(write=False)  # a layout holds read-only ones itself until the next step
    watched = weakref.ref(grads[1])
    handle = opt.step(grads, wait=False, after=held)
    del grads[:], g
    gc.collect()
    assert watched() is not None
    held.release()
    handle.result(SECONDS)
    opt.step([None, np.ones(2)])
    gc.collect()
    assert watched() is None


def test_an_optimizer_stays_until_its_steps_are_done(held: Held) -> None:
    p = np.zeros(3)
    opt = fs.SGD(p, lr=1.0)
    watched = weakref.ref(opt)
    handle = opt.step(np.ones(3), wait=False, after=held)
    del opt
    held.release()
    assert handle.result(SECONDS).t == 1
    assert (p == -1).all()
    last = fs.SGD(np.zeros(1))
    last.step(np.ones(1), wait=False).result(SECONDS)  # until the thread has let the other go
    gc.collect()
    assert watched() is None


# ---- handles ----


def test_a_handle_is_a_future(held: Held) -> None:
    opt = fs.SGD(np.zeros(3))
    handle = opt.step(np.ones(3), wait=False, after=held)
    assert isinstance(handle, concurrent.futures.Future)
    assert (handle.done(), handle.running(), handle.cancelled()) == (False, True, False)
    assert not handle.cancel()
    for seconds in (0, 0.01, -1):
        with pytest.raises(concurrent.futures.TimeoutError, match="still in flight"):
            handle.result(seconds)
    called: list[Any] = []
    handle.add_done_callback(lambda each: called.append(each.result().t))
    others = [opt.step(np.ones(3), wait=False) for _ in range(3)]
    found: list[Any] = []
    threads = [threading.Thread(target=lambda: found.append(handle.result())) for _ in range(4)]
    for thread in threads:
        thread.start()
    held.release()
    for thread in threads:
        thread.join(SECONDS)
    assert [report.t for report in found] == [1] * 4
    done = concurrent.futures.wait([handle, *others], SECONDS)
    assert (len(done.done), len(done.not_done)) == (4, 0)
    assert {each.result().t for each in concurrent.futures.as_completed(others)} == {2, 3, 4}
    assert (handle.done(), handle.running(), handle.exception(), handle.cancel()) == (
        *(True, False, None, False),
    )
    assert called == [1]
    assert handle.result(1e30).t == 1


def test_a_handle_can_be_awaited() -> None:
    async def train() -> int:
        opt = fs.SGD(np.zeros(3))
        handles = [opt.step(np.ones(3), wait=False) for _ in range(3)]
        return max([(await asyncio.wrap_future(handle)).t for handle in handles])

    assert asyncio.run(train()) == 3


def test_a_handle_says_where_the_report_is() -> None:
    handle: Any = fs.SGD(np.zeros(3)).step(np.ones(3), wait=False)
    with pytest.raises(AttributeError, match=r"`handle.result\(\).grad_norm`"):
        handle.grad_norm  # noqa: B018
    with pytest.raises(AttributeError, match=r"has no attribute 'grad'$"):
        handle.grad  # noqa: B018


def test_what_steps_call_waits_for_none() -> None:
    """The thread that takes them would wait for itself."""
    refused: list[str] = []
    other = fs.SGD(np.zeros(2), momentum=0.5)
    behind: list[Any] = []
    held = Held()

    def rate(t: int) -> float:
        for call in (behind[0].result, other.state_dict, lambda: other.step(np.ones(2))):
            try:
                call()
            except RuntimeError as error:
                refused.append(str(error))
        return 1.0

    opt = fs.SGD(np.zeros(2), lr=rate)
    handle = opt.step(np.ones(2), wait=False, after=held)
    behind.append(other.step(np.ones(2), wait=False))
    held.release()
    handle.result(SECONDS)
    assert len(refused) == 3 * (len(refused) // 3) > 0
    assert all("in the thread that takes them" in each for each in refused)
    assert other.state["t"] == 1


def test_what_steps_call_sees_the_state() -> None:
    seen: list[int] = []

    def rate(t: int) -> float:
        seen.append(opt.state["t"] + int(opt.state_dict()["state"]["t"]))
        return 1.0

    opt: Any = fs.SGD(np.zeros(2), lr=rate, momentum=0.5)
    handles = [opt.step(np.ones(2), wait=False) for _ in range(3)]
    assert handles[-1].result(SECONDS).t == 3
    assert sorted(set(seen)) == [0, 2, 4]


def test_what_a_handle_calls_may_ask_for_the_next_step() -> None:
    opt = fs.SGD(np.zeros(2), lr=1.0)
    over = threading.Event()
    handles: list[Any] = []

    def go_on(done: Any) -> None:
        if done.result().t < 5:
            handles.append(opt.step(np.ones(2), wait=False))
            handles[-1].add_done_callback(go_on)
        else:
            over.set()

    opt.step(np.ones(2), wait=False).add_done_callback(go_on)
    assert over.wait(SECONDS)
    assert opt.state["t"] == 5


@pytest.mark.parametrize("error", [SystemExit(3), KeyboardInterrupt()])
def test_steps_go_on_after_what_a_handle_calls_has_ended_the_thread(
    error: BaseException, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sys, "unraisablehook", lambda told: None)
    opt = fs.SGD(np.zeros(2), lr=1.0)
    held = Held()

    def end(done: Any) -> None:
        raise error

    opt.step(np.ones(2), wait=False, after=held).add_done_callback(end)
    handles = [opt.step(np.ones(2), wait=False) for _ in range(3)]
    held.release()
    assert [handle.result(SECONDS).t for handle in handles] == [2, 3, 4]
    assert opt.step(np.ones(2), wait=False).result(SECONDS).t == 5


def test_one_thread_takes_them_all() -> None:
    found: set[int] = set()

    def rate(t: int) -> float:
        found.add(threading.get_ident())
        return 1.0

    handles = [fs.SGD(np.zeros(2), lr=rate).step(np.ones(2), wait=False) for _ in range(20)]
    for handle in handles:
        handle.result(SECONDS)
    assert len(found) == 1
    assert threading.get_ident() not in found


def test_the_thread_gives_python_away() -> None:
    """Python code runs while the elements are stepped."""
    n = 4_000_000
    opt = fs.AdamW(np.zeros(n, np.float32))
    g = np.ones(n, np.float32)
    opt.step(g)
    handle = opt.step(g, wait=False)
    turns = 0
    while not handle.done():
        turns += 1
    assert turns > 10
    assert handle.result().t == 2


# ---- Ctrl-C ----


@pytest.mark.skipif(os.name == "nt", reason="signals are sent otherwise there")
@pytest.mark.parametrize("wait", ["result", "step", "state"])
def test_ctrl_c_ends_a_wait_and_no_step(wait: str, held: Held) -> None:
    p = np.zeros(3)
    opt = fs.SGD(p, lr=1.0, momentum=0.0)
    handle = opt.step(np.ones(3), wait=False, after=held)
    calls: dict[str, Callable[[], Any]] = {
        "result": handle.result,
        "step": lambda: opt.step(np.ones(3)),
        "state": lambda: opt.state,
    }
    for _ in range(3):
        timer = threading.Timer(0.05, os.kill, (os.getpid(), signal.SIGINT))
        timer.start()
        with pytest.raises(KeyboardInterrupt):
            calls[wait]()
        timer.join()
    assert not handle.done()
    assert (p == 0).all()
    held.release()
    assert handle.result(SECONDS).t == 1
    assert opt.step(np.ones(3)).t == 2
    assert (p == -2).all()


# ---- processes ----


def python(code: str, **more: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-W", "ignore", "-c", code],
        capture_output=True,
        text=True,
        timeout=120,
        env={**os.environ, **more},
    )


ENDING = """
import atexit, sys, time
import numpy as np, fusedstep as fs

class Slow:
    def synchronize(self):
        time.sleep(0.1)

p, q = np.zeros(1000), np.zeros(10)
opt, other = fs.SGD(p, lr=1.0), fs.SGD(q, lr=1.0, nonfinite="raise")

@atexit.register
def look():
    late = opt.step(np.ones(1000), wait=False)
    print(late.done(), p[0], other.step(np.ones(10)).t, flush=True)

for _ in range(5):
    opt.step(np.ones(1000), wait=False, after=Slow())
    other.step(np.ones(10), wait=False)
{last}
"""


@pytest.mark.parametrize("last", ["", "raise SystemExit(0)", "sys.exit(3)", "1 / 0"])
def test_a_process_that_ends_takes_its_steps(last: str) -> None:
    """A step that is asked for even later is taken by whoever asks."""
    done = python(ENDING.format(last=last))
    assert done.stdout == "True -6.0 6\n", done.stderr
    assert done.returncode == {"sys.exit(3)": 3, "1 / 0": 1}.get(last, 0)


def test_an_error_is_told_at_the_end() -> None:
    done = python(
        "import numpy as np, fusedstep as fs\n"
        "opt = fs.SGD(np.zeros(2), nonfinite='raise')\n"
        "handle = opt.step(np.full(2, np.nan), wait=False)\n"
    )
    assert done.returncode == 0
    assert "held NaN or infinity" in done.stderr
    assert "its handle is gone without having been asked" in done.stderr


def test_steps_are_first_asked_for_at_the_end() -> None:
    done = python(
        "import atexit, numpy as np, fusedstep as fs\n"
        "opt = fs.SGD(np.zeros(2))\n"
        "atexit.register(lambda: print(opt.step(np.ones(2), wait=False).result().t))\n"
    )
    assert (done.stdout, done.stderr) == ("1\n", "")


FORKED = """
import os, threading
import numpy as np, fusedstep as fs
from fusedstep._core.in_flight import worker

class Held:
    def __init__(self):
        self.go = threading.Event()
    def synchronize(self):
        self.go.wait(60)

def refused(call):
    try:
        call()
    except RuntimeError as error:
        return "when this process was forked" in str(error)
    return False

n = 100_000
opts = [fs.SGD(np.zeros(n), lr=1.0, momentum=0.5, backend={backend!r}) for _ in range(3)]
g = np.ones(n)
for opt in opts:
    opt.step(g)
held = Held()
handles = [opts[0].step(g, wait=False, after=held), opts[1].step(g, wait=False)]
child = os.fork()
if not child:
    told = [refused(handle.result) for handle in handles]
    told += [handle.done() for handle in handles]
    told += [refused(lambda: opt.step(g)) for opt in opts[:2]]
    told += [refused(lambda: opt.step(g, wait=False)) for opt in opts[:2]]
    told += [refused(opt.state_dict) for opt in opts[:2]]
    told += [opts[2].step(g, wait=False).result(60).t == 2, opts[2].state["t"] == 2]
    told += [not worker.queue.qsize()]
    os._exit(0 if all(told) else 1)
code = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
held.go.set()
assert [handle.result(60).t for handle in handles] == [2, 2]
print(code, [opt.step(g).t for opt in opts])
"""


@pytest.mark.skipif(not hasattr(os, "fork"), reason="this system has no fork")
@on_each_backend
def test_a_child_is_told_what_was_in_flight(backend: str) -> None:
    done = python(FORKED.format(backend=backend))
    assert done.stdout == "0 [3, 3, 2]\n", done.stderr


IN_CHILD = """
import multiprocessing, time
import numpy as np, fusedstep as fs

class Slow:
    def synchronize(self):
        time.sleep(0.2)

def train(memory):
    p = np.frombuffer(memory)
    fs.SGD(p, lr=1.0).step(np.ones(3), wait=False, after=Slow())

if __name__ == "__main__":
    fs.SGD(np.zeros(2)).step(np.ones(2), wait=False).result()
    context = multiprocessing.get_context({method!r})
    memory = context.RawArray("d", 3)
    child = context.Process(target=train, args=(memory,))
    child.start()
    child.join()
    print(child.exitcode, list(memory))
"""


@pytest.mark.parametrize("method", multiprocessing.get_all_start_methods())
def test_a_child_of_multiprocessing_takes_its_steps(method: str, tmp_path: Path) -> None:
    """It ends without `atexit`."""
    script = tmp_path / "script.py"
    script.write_text(IN_CHILD.format(method=method))
    done = subprocess.run(
        [sys.executable, "-W", "ignore", str(script)], capture_output=True, text=True, timeout=120
    )
    assert done.stdout == "0 [-1.0, -1.0, -1.0]\n", done.stderr


SIMULATED = """
import numpy as np, fusedstep as fs
from device import Placed as made

class Held:
    waited = False
    def synchronize(self):
        self.waited = True

held = Held()
place = lambda values: made(values).array
p = place(np.zeros(3))
opt = fs.SGD(p, lr=1.0, nonfinite="raise")
handle = opt.step(place(np.ones(3)), wait=False, after=held, max_norm=1.0)
print(held.waited, handle.done(), handle.result().t)
failed = opt.step(place(np.full(3, np.nan)), wait=False)
print(failed.done(), type(failed.exception()).__name__, opt.state["t"])
try:
    opt.step(place(np.ones(4)), wait=False)
except ValueError as error:
    print("shape" in str(error))
"""


def test_on_a_device_the_step_is_on_its_way_when_the_call_returns() -> None:
    needs("numba", "test")
    path = os.pathsep.join(filter(None, sys.path))
    done = python(SIMULATED, NUMBA_ENABLE_CUDASIM="1", PYTHONPATH=path)
    assert done.stdout == "True True 1\nTrue FloatingPointError 1\nTrue\n", done.stderr


# ---- records ----


def test_steps_are_recorded(tmp_path: Path) -> None:
    opt = fs.AdamW({"w": np.zeros(3)}, nonfinite="raise")
    held = Held()
    held.release()
    with fs.Recorder(opt, tmp_path / "record", gradients=True):
        handle = opt.step({"w": np.ones(3)}, wait=False, max_norm=1.0, after=held)
        assert (handle.done(), handle.result().t, held.waited.is_set()) == (True, 1, True)
        assert opt.step({"w": np.ones(3)}).t == 2
        failed = opt.step({"w": np.full(3, np.nan)}, wait=False)
        with pytest.raises(FloatingPointError):
            failed.result()
        with pytest.raises(ValueError, match="shape"):
            opt.step({"w": np.ones(4)}, wait=False)
        with pytest.raises(TypeError, match="pass True or False"):
            opt.step({"w": np.ones(3)}, wait=1)  # type: ignore[call-overload]
    assert fs.replay(tmp_path / "record") == (2, None)
    opt.step({"w": np.ones(3)}, wait=False).result(SECONDS)


# ---- the face ----


def test_the_signature_has_all_arguments() -> None:
    names = [*inspect.signature(fs.AdamW.step).parameters]
    assert names[1:] == [
        *("grads", "scale", "max_norm", "max_value", "zero_grads", "clip", "wait", "after"),
    ]


def test_a_second_thread_ends_at_once() -> None:
    """It may be started when two threads ask for the first step at the same time."""
    worker = in_flight.Worker()
    queue, role = worker.queue, worker.role
    role[worker.THREAD] = -1
    queue.put(lambda: pytest.fail("it has taken a step"))
    worker._work(queue, role)  # noqa: SLF001
    assert queue.qsize() == 1
