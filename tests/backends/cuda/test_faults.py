"""Calls of the driver that fail, one after the other: what a step leaves then.

In memory of the host alone, where the driver can be told which call of a step is to fail. A step
whose call fails has not happened, and can be taken again. Where its launches are several, those
before the one that fails are on their way: the tensors of their jobs have stepped then, each of
them wholly, and t has not counted.
"""

from __future__ import annotations

import gc
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, NamedTuple

import numpy as np
import pytest
from cases import DTYPES, differing_bits, ordinary
from device import IN_MEMORY, Placed, cuda, in_memory

import fusedstep as fs

if IN_MEMORY is not None:
    from cuda_in_memory import ILLEGAL_ADDRESS, OUT_OF_MEMORY
    from pooled import now, put_off

pytestmark = [cuda, in_memory, pytest.mark.filterwarnings("error")]

LATE = 1


class Case(NamedTuple):
    """A step whose calls are to fail, one at a time."""

    name: str
    options: dict[str, Any] = {}  # noqa: RUF012
    request: dict[str, Any] = {}  # noqa: RUF012
    taken: int = 3
    """The steps before it."""
    new: bool = True
    """Whether its gradients are others than those of the step before."""
    rows: bool = False

    def __str__(self) -> str:
        return self.name


NORM: dict[str, Any] = {"max_norm": 1.0}
EACH: dict[str, Any] = {"max_norm": 1.0, "clip": "tensor"}
SKIP: dict[str, Any] = {"nonfinite": "skip"}
RAISE: dict[str, Any] = {"nonfinite": "raise"}

CASES = [
    Case("first", taken=0),
    Case("plain", new=False),
    Case("new"),
    Case("zero", request={"zero_grads": True}),
    Case("first-norm", request=NORM, taken=0),
    Case("norm", request=NORM),
    Case("each", request=EACH),
    Case("skip", SKIP),
    Case("skip-norm", SKIP, NORM),
    Case("raise", RAISE),
    Case("rows", rows=True),
    Case("rows-norm", request=NORM, rows=True),
    Case("rows-raise", RAISE, rows=True),
]

Found = list[dict[str, Any]]
"""The parameters and their state, as `p` and by their letters."""


class Both:
    """An optimizer and its reference, with gradients for both of each step."""

    def __init__(self, case: Case) -> None:
        rng = np.random.default_rng(0)
        shapes: list[Any] = [(8, 5)] if case.rows else [(5,), (1025,)]
        dtypes = [np.float32] if case.rows else DTYPES
        pairs = [*zip(shapes, dtypes, strict=True)]
        self.case = case
        self.expected = [ordinary(rng, int(np.prod(n)), kind).reshape(n) for n, kind in pairs]
        self.params = [Placed(p.copy()) for p in self.expected]
        self.optimizer = fs.AdamW([p.array for p in self.params], **case.options)
        self.reference = fs.AdamW(self.expected, backend="numpy", **case.options)
        self.placed: list[Any] = []
        self.values: list[Any] = []
        for _ in range(3):
            if case.rows:
                index, values = rng.integers(0, 8, 3), ordinary(rng, 15, np.float32).reshape(3, 5)
                self.placed.append([fs.Rows(index, Placed(values).array)])
                self.values.append([fs.Rows(index, values)])
            else:
                drawn = [ordinary(rng, int(np.prod(n)), kind) for n, kind in pairs]
                self.placed.append([Placed(g).array for g in drawn])
                self.values.append(drawn)
        for _ in range(case.taken):
            self.both(0)
        self.which = int(case.new)

    def both(self, which: int) -> None:
        self.step(which)
        self.expect(which)

    def step(self, which: int) -> None:
        self.optimizer.step(self.placed[which], **self.case.request)

    def expect(self, which: int) -> None:
        self.reference.step(self.values[which], **self.case.request)

    def steps_and_state(self) -> None:
        for _ in range(3):
            self.step(self.which)
        self.optimizer.state_dict()

    def found(self) -> Found:
        states = self.optimizer.state_dict()["state"]
        return [{"p": now(p.array), **x} for p, x in zip(self.params, states, strict=True)]

    def wanted(self) -> Found:
        states = self.reference.state_dict()["state"]
        return [{"p": p.copy(), **x} for p, x in zip(self.expected, states, strict=True)]


def same(found: dict[str, Any], wanted: dict[str, Any], names: Any = None) -> bool:
    """Whether a parameter and its state have these bits."""
    return all(
        differing_bits(found[name], value) == 0
        if isinstance(value, np.ndarray)
        else found[name] == value
        for name, value in wanted.items()
        if names is None or name in names
    )


def all_same(found: Found, wanted: Found) -> bool:
    return all(map(same, found, wanted))


@contextmanager
def failing(nth: int, code: int, lasting: bool = False) -> Iterator[None]:
    """Have the nth call in a block fail; nothing is collected there that would call the driver."""
    assert IN_MEMORY is not None
    gc.disable()
    IN_MEMORY.fail(nth, code, lasting)
    try:
        yield
    finally:
        IN_MEMORY.fail(0)
        gc.enable()


def lost() -> Any:
    """The error of each call of a device that is lost."""
    return pytest.raises(Exception, match="CUDA_ERROR_ILLEGAL_ADDRESS")


def calls_of(case: Case) -> int:
    """The calls of the step that may fail."""
    assert IN_MEMORY is not None
    both = Both(case)
    before: int = IN_MEMORY.calls()
    both.step(both.which)
    after: int = IN_MEMORY.calls()
    return after - before


@pytest.mark.parametrize("case", CASES, ids=str)
def test_each_call_may_fail(case: Case) -> None:
    assert IN_MEMORY is not None
    writes = {"cuLaunchKernel", "cuEventRecord", "cuStreamIsCapturing"}
    partly = []
    count = calls_of(case)
    for nth in range(1, count + 1):
        both = Both(case)
        before = both.wanted()
        error = ""
        with failing(nth, OUT_OF_MEMORY):
            try:
                both.step(both.which)
            except Exception as raised:
                error = str(raised)
            name = IN_MEMORY.failed()
        assert error == "" or "CUDA_ERROR_OUT_OF_MEMORY" in error
        found = both.found()
        both.expect(both.which)
        after = both.wanted()
        if error == "":  # of memory Numba asks again
            assert name in ("cuMemAlloc", None)
            assert all_same(found, after)
        elif all_same(found, before):
            both.step(both.which)
        else:  # those that come first have stepped, each of them wholly
            assert name in writes
            partly.append(nth)
            stepped = ("p", "m", "v")
            for one, old, new in zip(found, before, after, strict=True):
                assert same(one, new, stepped) or same(one, old, stepped)
                assert one["t"] == old["t"]
            continue
        both.both(0)
        both.both(2)
        assert all_same(both.found(), both.wanted()), (nth, name)
    # The last launch of two, the event behind them, or the look at the stream between them.
    assert len(partly) <= 2
    assert all(nth > count // 2 for nth in partly)


@pytest.mark.parametrize("request_", [{}, NORM, EACH], ids=str)
def test_steps_that_are_pending_count_on(request_: dict[str, Any]) -> None:
    """A step that failed has not counted, on the device either."""
    assert IN_MEMORY is not None
    case = Case("pending", SKIP, request_)
    both = Both(case)
    start = IN_MEMORY.counts()["launch"]
    both.step(1)
    launches = IN_MEMORY.counts()["launch"] - start
    for nth in range(1, 20):
        both = Both(case)
        both.optimizer.state_dict()
        with put_off(LATE):
            for which in (0, 2, 0):
                both.both(which)
            start = IN_MEMORY.counts()["launch"]
            with failing(nth, OUT_OF_MEMORY):
                try:
                    both.step(1)
                    error = ""
                except RuntimeError as raised:
                    error = str(raised)
                name = IN_MEMORY.failed()
            if name is None:
                break
            assert "CUDA_ERROR_OUT_OF_MEMORY" in error
            stepped = IN_MEMORY.counts()["launch"] - start == launches  # the first tensor, at least
            if not stepped:
                both.both(1)
            both.both(0)
            found, wanted = both.found(), both.wanted()
            assert stepped or all_same(found, wanted), (nth, name)
            assert [x["t"] for x in found] == [x["t"] for x in wanted], (nth, name)
    else:
        raise AssertionError("there were more calls")


@pytest.mark.parametrize("case", CASES, ids=str)
def test_a_device_that_is_lost_is_named_each_time(case: Case) -> None:
    """Whichever call says so first; no later one hides it, nor hangs."""
    assert IN_MEMORY is not None
    count = calls_of(case)
    for nth in {1, count // 2, count}:
        both = Both(case)
        with failing(nth, ILLEGAL_ADDRESS, lasting=True):
            for which in (both.which, 2, 0):
                with lost():
                    both.step(which)
            with lost():
                both.optimizer.step(both.placed[0], max_norm=2.0)
            with lost():
                both.optimizer.state_dict()
            assert IN_MEMORY.message()


@pytest.mark.parametrize("mode", [0, LATE])
@pytest.mark.parametrize("case", CASES, ids=str)
def test_a_launch_that_fails_when_it_runs(case: Case, mode: int) -> None:
    """It is told by the next call, at the latest when somebody waits."""
    assert IN_MEMORY is not None
    for nth in (1, 2):
        both = Both(case)
        with put_off(mode):
            IN_MEMORY.fault(nth)
            with lost():
                both.steps_and_state()
            IN_MEMORY.fault(0)
            assert "told to" in IN_MEMORY.message()
