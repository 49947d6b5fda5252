"""Zeros in the gradients' place, `zero_grads`."""

from __future__ import annotations

import numpy as np
import pytest
from cases import ones
from marks import on_each_backend

import fusedstep as fs


@on_each_backend
def test_gradients_of_any_layout_are_zeroed(backend: str) -> None:
    rng = np.random.default_rng(9)
    memory = rng.standard_normal((7, 12))
    views = [
        memory[0, :5],
        memory[1, 4:9:2],
        memory[2, 11:6:-1],
        memory[3:5, ::3].T,
        memory[5:, :0],
    ]
    params = [rng.standard_normal(view.shape) for view in views]
    kept = memory.copy()
    for view in views:
        view[...] = np.nan  # marks what is to become 0
    untouched = ~np.isnan(memory)
    for view in views:
        view[...] = 1.0
    opt = fs.Adam(params, backend=backend)
    for _ in range(2):
        opt.step(views, zero_grads=True)
        np.testing.assert_array_equal(memory, np.where(untouched, kept, 0.0))
    expected = np.where(np.arange(12) < 5, 0.0, kept[0])
    np.testing.assert_array_equal(memory[0], expected)


@on_each_backend
@pytest.mark.parametrize("n", [1, 1023, 1024, 1025, 5000, 100_003])
def test_gradients_of_any_size_are_zeroed(n: int, backend: str, threads: int) -> None:
    """Not one element more is zeroed, though it is done piece by piece."""
    memory = np.ones(n + 2, np.float32)
    fs.SGD(ones(n), backend=backend).step(memory[1:-1], zero_grads=True)
    np.testing.assert_array_equal(memory, [1, *[0] * n, 1])


@on_each_backend
def test_without_zero_grads_no_gradient_is_written(backend: str) -> None:
    g = ones(5000)
    g.flags.writeable = False
    opt = fs.AdamW(ones(5000), ema=0.9, nonfinite="skip", backend=backend)
    for _ in range(2):
        opt.step(g, scale=2.0, max_norm=1.0, max_value=0.5)
    np.testing.assert_array_equal(g, 1)


@on_each_backend
def test_read_only_gradients_cannot_be_zeroed(backend: str) -> None:
    """They are refused, too, where the same memory was writeable at a step before."""
    p, g = ones(3), ones(3)
    opt = fs.SGD(p, lr=1.0, backend=backend)
    opt.step(g)
    locked = g[:]
    locked.flags.writeable = False
    broadcast = np.broadcast_to(np.float32(1), 3)
    for each in (locked, broadcast):
        with pytest.raises(ValueError, match=r"grads is read-only.*zero_grads=True.*copy"):
            opt.step(each, zero_grads=True)
    np.testing.assert_array_equal(p, 0)
    assert opt.state["t"] == 1
    opt.step(locked)
    np.testing.assert_array_equal(p, -1)


@on_each_backend
@pytest.mark.parametrize("step", [1, 2, -1])
def test_gradients_that_were_read_only_are_zeroed(step: int, backend: str) -> None:
    """Memory that was read-only at one step may be writeable at the next."""
    p, g = ones(4), ones(8)[::step][:4]
    locked = g[:]
    locked.flags.writeable = False
    opt = fs.SGD(p, lr=1.0, backend=backend)
    opt.step(locked)
    opt.step(g, zero_grads=True)
    np.testing.assert_array_equal(p, -1)
    np.testing.assert_array_equal(g, 0)
    assert opt.state["t"] == 2


@on_each_backend
def test_shared_gradients_cannot_be_zeroed(backend: str) -> None:
    """One would be zero before the other is read. Also if they come to share memory later."""
    params = [ones(4), ones(4)]
    memory = ones(6)
    shared = [memory[:4], memory[2:]]
    opt = fs.SGD(params, lr=1.0, backend=backend)
    opt.step([ones(4), ones(4)], zero_grads=True)
    for _ in range(2):
        with pytest.raises(ValueError, match=r"grads\[0\] and grads\[1\] share memory.*copies"):
            opt.step(shared, zero_grads=True)
    np.testing.assert_array_equal(params, 0)
    np.testing.assert_array_equal(memory, 1)
    opt.step(shared)
    np.testing.assert_array_equal(params, -1)
    interleaved = ones(8)
    opt.step([interleaved[::2], interleaved[1::2]], zero_grads=True)
    np.testing.assert_array_equal(interleaved, 0)
