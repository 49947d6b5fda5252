"""Fixtures for tests on a device: each library there, and small tiles in the simulator."""

from __future__ import annotations

import sys

import pytest
from device import LIBRARIES, MISSING, MODULES, SIMULATED

collect_ignore = ["test_streams.py"] if SIMULATED else []
"""Files of tests that need a device: the simulator has no streams."""


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
        for name, module in MODULES.items():
            monkeypatch.setitem(sys.modules, name, module)


@pytest.fixture(params=LIBRARIES)
def library(request: pytest.FixtureRequest) -> str:
    return str(request.param)
