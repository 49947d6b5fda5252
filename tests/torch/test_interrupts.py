"""Ctrl-C at any time: a step has happened wholly, or not at all."""

from __future__ import annotations

import random
import signal
import threading
from functools import partial
from pathlib import Path
from typing import Any

import pytest
from marks import needs, needs_c, on_each_backend

torch = needs("torch", "torch")

from interrupts import interrupted  # noqa: E402
from torch.overrides import TorchFunctionMode  # noqa: E402
from torch_cases import draw, parameters, same_bits  # noqa: E402

import fusedstep as fs  # noqa: E402
import fusedstep.torch as fst  # noqa: E402
from fusedstep.torch import _checkpoint  # noqa: E402

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


class Interrupting(TorchFunctionMode):  # type: ignore[misc]
    """Raises Ctrl-C once, where this function of torch is called."""

    def __init__(self, at: Any) -> None:
        super().__init__()
        self.at: Any = at

    def __torch_function__(
        self, function: Any, types: Any, args: Any = (), kwargs: Any = None
    ) -> Any:
        if function == self.at:
            self.at = None
            raise KeyboardInterrupt
        return function(*args, **(kwargs or {}))


@needs_c
@pytest.mark.parametrize(
    "at", [torch.Tensor.is_neg, torch.Tensor.grad.__get__], ids=["is_neg", "grad"]
)
def test_ctrl_c_is_not_lost_where_c_passes_over_an_error(at: Any) -> None:
    """Python code runs even there: of a mode that looks at every function of torch."""
    if threading.current_thread() is not threading.main_thread():
        pytest.skip("signals come to the main thread alone")
    params = parameters(shapes=SHAPES)
    optimizer = fst.AdamW(params)
    for step in range(2):
        for p, g in zip(params, draw(params, step), strict=True):
            p.grad = g
        optimizer.step()
    count, before = snapshot(optimizer, params)
    mode = Interrupting(at)
    with mode, pytest.raises(KeyboardInterrupt):
        optimizer.step()
    assert mode.at is None
    found = snapshot(optimizer, params)
    assert found[0] in (count, count + 1)
    if found[0] == count:
        assert same_bits(found[1], before)


@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")
@pytest.mark.parametrize("make", [torch.optim.AdamW, fst.AdamW])
@pytest.mark.parametrize("saver", [fst.AdamW, fs.AdamW])
def test_ctrl_c_finds_a_checkpoint_loaded_or_not(make: Any, saver: Any, tmp_path: Path) -> None:
    dtype = torch.float32 if make is torch.optim.AdamW else torch.bfloat16

    def trained(make: Any, lr: float) -> tuple[list[Any], Any]:
        params = [torch.nn.Parameter(torch.ones(size, dtype=dtype)) for size in (300, 3)]
        if make is fs.AdamW:
            arrays = [p.detach() for p in params]
            opt = fs.AdamW(arrays, lr=lr)
            opt.step([torch.full_like(p, 0.3) for p in arrays])
            return params, opt
        opt = make(params, lr=lr)
        for p in params:
            p.grad = torch.full_like(p, 0.3)
        opt.step()
        return params, opt

    _, saved = trained(saver, 0.125)
    fs.save(tmp_path / "run", saved)
    new = saved.digest()
    _, opt = trained(make, 0.5)
    old = _checkpoint.take(opt, None, None).digest
    assert old != new
    seen = set()
    at, came = 0, True
    while came:
        _params, opt = trained(make, 0.5)
        came = interrupted(partial(fs.load, tmp_path / "run", opt), at)
        found = _checkpoint.take(opt, None, None).digest
        assert found in (old, new)
        assert opt.param_groups[0]["lr"] == (0.125 if found == new else 0.5)
        seen.add(found)
        at += 97
    assert seen == {old, new}
