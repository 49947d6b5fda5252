"""Fixtures for tests on a device: each library there, and small tiles in the simulator."""

from __future__ import annotations

import sys
from collections.abc import Iterator

import pytest
from device import IN_MEMORY, LIBRARIES, MISSING, MODULES, SIMULATED, STANDINS

OF_A_DRIVER = (
    *("test_cupy.py", "test_devices.py", "test_faults.py", "test_graphs.py", "test_hosted.py"),
    *("test_put_off.py", "test_streams_in_memory.py"),
)

collect_ignore = [
    *(["test_streams.py"] if STANDINS else []),
    *(OF_A_DRIVER if SIMULATED else []),
]
"""Files of tests that need the libraries themselves, or that the simulator has no driver for."""


@pytest.fixture(autouse=True)
def small_tiles(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """Several tiles a tensor where each thread of a block is costly."""
    if request.node.get_closest_marker("cuda") is None:
        return
    if MISSING is not None:
        pytest.skip(f"no cuda backend: {MISSING}")
    if SIMULATED:
        from fusedstep._backends.cuda import device

        monkeypatch.setattr(device, "THREADS", 2)
    if STANDINS and "cupy" not in request.fixturenames:
        for name, module in MODULES.items():
            monkeypatch.setitem(sys.modules, name, module)


@pytest.fixture(autouse=True)
def no_complaint() -> Iterator[None]:
    """Errors of the driver in memory, of which each later test would see no more than a number."""
    yield
    if IN_MEMORY is not None:
        IN_MEMORY.library.cuCtxSynchronize()
        assert IN_MEMORY.message() == ""


@pytest.fixture(params=LIBRARIES)
def library(request: pytest.FixtureRequest) -> str:
    return str(request.param)


LATE, BY_CHANCE = 1, 2


@pytest.fixture(params=[0] if IN_MEMORY is None else [0, LATE, BY_CHANCE])
def mode(request: pytest.FixtureRequest) -> Iterator[int]:
    """When a stream's work is done: at once, and over the memory of the host also late."""
    if IN_MEMORY is not None:
        IN_MEMORY.mode(request.param, 5)
    yield request.param
    if IN_MEMORY is not None:
        IN_MEMORY.mode(0)
