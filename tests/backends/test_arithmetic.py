"""The caller's arithmetic: how it rounds, what it flushes, and which exceptions trap."""

from __future__ import annotations

import ctypes
import platform
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np
import pytest
from cases import differing_bits, ones
from marks import needs, needs_c, on_each_backend, on_each_compiled_backend

import fusedstep as fs

DIRECTIONS = {"x86_64": (0x400, 0x800, 0xC00), "aarch64": (0x400000, 0x800000, 0xC00000)}
"""The constants of <fenv.h> for the directions other than to nearest."""

on_glibc = pytest.mark.skipif(
    sys.platform != "linux" or platform.machine() not in DIRECTIONS,
    reason="the constants of <fenv.h> are known for glibc on x86-64 and arm64",
)


@contextmanager
def rounding(direction: int) -> Iterator[None]:
    library = ctypes.CDLL("libm.so.6")
    library.fesetround(direction)
    try:
        yield
    finally:
        library.fesetround(0)


@on_glibc
@on_each_backend
@pytest.mark.parametrize("which", range(3))
@pytest.mark.parametrize(
    "request_", [{}, {"max_norm": 1.0}, {"scale": 3.0, "zero_grads": True}], ids=str
)
def test_a_step_that_would_round_otherwise_is_refused(
    which: int, request_: dict[str, Any], backend: str
) -> None:
    p, q, g = ones(5), np.ones((3, 4), np.float32)[:, ::2], [ones(5), np.ones((3, 2), np.float32)]
    opt = fs.AdamW([p, q], ema=0.5, backend=backend)
    opt.step([ones(5), np.ones((3, 2), np.float32)])
    before = p.copy(), q.copy()
    for _ in range(2):
        with rounding(DIRECTIONS[platform.machine()][which]):
            with pytest.raises(RuntimeError, match="does not round to nearest"):
                opt.step(g, **request_)
            with pytest.raises(RuntimeError, match=r"call fesetround\(FE_TONEAREST\)"):
                fs.functional.sgd(p, g[0], lr=0.1, t=1, backend=backend)
        for array, expected in zip((p, q), before, strict=True):
            assert differing_bits(array, expected) == 0
        assert all((each == 1).all() for each in g)
        assert [state["t"] for state in opt.state] == [1, 1]
    assert opt.step(g, **request_).t == 2


@on_glibc
@on_each_backend
@pytest.mark.parametrize("assigned", [False, True])
def test_what_is_kept_from_a_refused_step_rounds_to_nearest(assigned: bool, backend: str) -> None:
    """No scalar that a later step uses is computed in a step that is refused."""
    g = np.sin(np.arange(50.0))

    def state(k: int, direction: int | None) -> list[Any]:
        opt = fs.Adam(np.zeros(50), ema=0.2, backend=backend)
        if assigned:
            opt.step(g)
        opt.param_groups[0].update(betas=(0.3 + k / 90, 0.1), ema=0.3)
        if direction is not None:
            with rounding(direction), pytest.raises(RuntimeError, match="round to nearest"):
                opt.step(g)
        opt.step(g)
        return [opt.state[letter] for letter in ("m", "v", "ema")]

    for k in range(9):
        expected = state(k, None)
        for direction in DIRECTIONS[platform.machine()]:
            for array, other in zip(state(k, direction), expected, strict=True):
                assert differing_bits(array, other) == 0


@on_glibc
def test_nor_is_state_that_starts_from_a_number_made_otherwise() -> None:
    p, expected = np.ones(3, np.float32), np.ones(3, np.float32)
    fs.Adagrad(expected, initial_accumulator_value=0.3).step(expected.copy())
    for direction in DIRECTIONS[platform.machine()]:
        with rounding(direction), pytest.raises(RuntimeError, match="round to nearest"):
            fs.Adagrad(p, initial_accumulator_value=0.3)
    fs.Adagrad(p, initial_accumulator_value=0.3).step(p.copy())
    assert differing_bits(p, expected) == 0


@on_glibc
@on_each_backend
def test_nor_do_parameters_go_ahead(backend: str) -> None:
    p = ones(5)
    opt = fs.SGD(p, lr=0.5, momentum=0.5, backend=backend)
    opt.step(ones(5))
    for direction in DIRECTIONS[platform.machine()]:
        with (
            rounding(direction),
            pytest.raises(RuntimeError, match="does not round to nearest"),
            opt.lookahead(),
        ):
            pass
    assert (p == 0.5).all()
    with opt.lookahead():
        assert (p == 0.25).all()
    assert (p == 0.5).all()


TRAPPING = """
import ctypes, numpy as np, fusedstep as fs
libm = ctypes.CDLL("libm.so.6")
INVALID, DIVIDED_BY_ZERO, OVERFLOW = {exceptions}
for dtype in (np.float32, np.float64):
    big = np.finfo(dtype).max
    for elements in ([big, big], [big, -big, 0], [np.inf, 1], [np.nan, 1], [np.nan, np.inf],
                     [np.finfo(dtype).smallest_subnormal] * 3, [0, 0], [1e30, 1e-30]):
        for max_norm in (0.0, 1.0, 1e-300, 1e300):
            for scale in (1.0, 0.5, 1024.0):
                for policy in ("propagate", "skip"):
                    p, g = np.ones(len(elements), dtype), np.array(elements, dtype)
                    opt = fs.AdamW([p], backend={backend!r}, nonfinite=policy)
                    opt.step([np.ones_like(p)])
                    libm.feenableexcept(INVALID | DIVIDED_BY_ZERO | OVERFLOW)
                    report = opt.step([g], scale=scale, max_norm=max_norm)
                    libm.fedisableexcept(INVALID | DIVIDED_BY_ZERO | OVERFLOW)
                    print(repr(report), p.tobytes().hex())
"""


@pytest.mark.skipif(
    sys.platform != "linux" or platform.machine() != "x86_64",
    reason="feenableexcept is glibc's, and arm64 has CPUs without traps",
)
@needs_c
@on_each_compiled_backend
def test_no_exception_of_arithmetic_traps(backend: str) -> None:
    """The steps of 384 extreme gradients end, and are what they are without traps."""

    def steps(exceptions: str, backend: str) -> str:
        code = TRAPPING.format(exceptions=exceptions, backend=backend)
        done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
        assert done.returncode == 0, (done.returncode, done.stdout[-300:], done.stderr)
        return done.stdout

    found = steps("1, 4, 8", backend)
    assert found.count("Report") == 384
    assert found == steps("0, 0, 0", backend) == steps("0, 0, 0", "numpy")


@needs_c
@on_each_compiled_backend
def test_subnormals_are_kept_and_the_callers_setting_as_well(backend: str) -> None:
    """Torch can set the thread to flush subnormals: the step keeps them, and the setting."""
    torch = needs("torch", "torch")
    p, g = np.full(100, 3e-39, np.float32), np.full(100, 2e-39, np.float32)
    expected, flushed = p.copy(), p.copy()
    fs.SGD(expected, lr=0.5, backend="numpy").step(g)
    if not torch.set_flush_denormal(True):
        pytest.skip("this CPU cannot flush subnormals")
    try:
        fs.SGD(p, lr=0.5, backend=backend).step(g)
        fs.SGD(flushed, lr=0.5, backend="numpy").step(g)
    finally:
        torch.set_flush_denormal(False)
    assert expected[0] > 0
    assert differing_bits(p, expected) == 0
    assert (flushed == 0).all()
