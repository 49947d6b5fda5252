"""Ctrl-C at any time: a step has happened wholly, or not at all."""

from __future__ import annotations

import random
import signal
import threading
from typing import Any

import pytest
from marks import needs, on_each_backend

torch = needs("torch", "torch")

from torch_cases import draw, parameters, same_bits  # noqa: E402

import fusedstep.torch as fst  # noqa: E402

STEPS = 40
SHAPES: list[tuple[int, ...]] = [(30, 40), (5,), (20_000,)]


def snapshot(optimizer: Any, params: list[Any]) -> tuple[int, list[Any]]:
    """The count of steps, and copies of the parameters and of all of their state."""
    states = [optimizer.state.get(p, {}) for p in params]
    counts = {int(state["step"]) if state else 0 for state in states}
    assert len(counts) == 1, counts
    arrays = [*params, *(value for state in states for value in state.values())]
    return counts.pop(), [array.detach().clone() for array in arrays]


def make(params: list[Any], backend: str, options: dict[str, Any]) -> Any:
    return fst.AdamW(params, lr=0.01, backend=backend, **options)


# One that comes while the collector calls back somebody, as Hypothesis wants it, is lost.
@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")
@on_each_backend
@pytest.mark.parametrize("options", [{}, {"max_norm": 1.0, "ema": 0.9}], ids=["plain", "whole"])
def test_ctrl_c_finds_a_step_done_or_not_begun(backend: str, options: dict[str, Any]) -> None:
    if threading.current_thread() is not threading.main_thread():
        pytest.skip("signals come to the main thread alone")
    expected: dict[int, list[Any]] = {}
    params = parameters(shapes=SHAPES)
    grads = [draw(params, step) for step in range(STEPS)]
    reference = make(params, backend, options)
    expected[0] = snapshot(reference, params)[1]
    for step in range(STEPS):
        for p, g in zip(params, grads[step], strict=True):
            p.grad = g
        reference.step()
        expected[step + 1] = snapshot(reference, params)[1]

    generator = random.Random(0)
    params = parameters(shapes=SHAPES)
    optimizer = make(params, backend, options)
    interrupted = done = tries = 0
    while done < STEPS and tries < 20 * STEPS:
        tries += 1
        for p, g in zip(params, grads[done], strict=True):
            p.grad = g
        try:
            signal.setitimer(signal.ITIMER_REAL, generator.uniform(1e-6, 4e-4))
            try:
                optimizer.step()
            finally:
                signal.setitimer(signal.ITIMER_REAL, 0)
        except KeyboardInterrupt:
            interrupted += 1
        done, found = snapshot(optimizer, params)
        if done == 0:  # state may have been made, as torch makes it: it stands for none
            found = found[: len(params)]
        assert same_bits(found, expected[done])
    assert interrupted


@pytest.fixture(autouse=True)
def alarm() -> Any:
    """SIGALRM, as Ctrl-C."""
    before = signal.signal(signal.SIGALRM, signal.default_int_handler)
    yield
    signal.signal(signal.SIGALRM, before)
