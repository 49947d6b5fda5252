"""The launch of a kernel, as far as it goes without a device: what the driver is given."""

from __future__ import annotations

import ctypes
import sys
from typing import Any

import pytest
from marks import needs

from fusedstep._arrays.at_once import at_once


@pytest.fixture
def driver() -> Any:
    needs("cuda.bindings", "cuda")
    needs("numba_cuda", "cuda")
    from fusedstep._backends.cuda import driver

    return driver


def test_each_argument_is_passed_by_address_in_its_type(driver: Any) -> None:
    types = [driver.C_TYPES[name] for name in ("int64", "float32", "float64", "int64")]
    packed = driver.pack(types, (2**62, 0.1, 0.1, -1))
    values = [ctypes.cast(packed[k], ctypes.POINTER(kind))[0] for k, kind in enumerate(types)]
    assert values == [2**62, ctypes.c_float(0.1).value, 0.1, -1]


def test_a_launch_runs_no_python(driver: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """So Ctrl-C comes before all launches of a step or after them."""
    kernel = object.__new__(driver.Kernel)
    kernel.function, kernel.types = 1, [ctypes.c_double]
    launch = ctypes.CDLL(None).getpid  # which takes no arguments, and heeds none
    launch.argtypes = driver.LAUNCH
    monkeypatch.setattr(driver, "_function", lambda name, types: launch)
    calls = [kernel.launching(2, 256, 0, (0.5,))]
    events: list[tuple[str, str]] = []
    sys.setprofile(lambda frame, event, argument: events.append((event, frame.f_code.co_name)))
    code = at_once(calls)
    sys.setprofile(None)
    assert code > 0
    assert [name for event, name in events if event == "call"] == ["at_once"]


def test_what_a_launch_returns_is_an_error(driver: Any) -> None:
    driver.check(None)
    driver.check(0)
    with pytest.raises(RuntimeError, match="CUDA_ERROR_INVALID_VALUE"):
        driver.check(1)
