"""Fixtures for all tests: each chooses how the backends run, and puts back what was."""

from __future__ import annotations

import platform
from collections.abc import Iterator

import pytest
from marks import MISSING

import fusedstep as fs

ISAS = ["baseline", "avx2", "avx512"] if platform.machine() == "x86_64" else ["baseline", "neon"]


@pytest.fixture(params=ISAS)
def isa(request: pytest.FixtureRequest) -> Iterator[str]:
    if MISSING is not None:
        pytest.skip(f"no C backend: {MISSING}")
    if request.param not in fs.info().isas:
        pytest.skip(f"this CPU or build lacks {request.param}")
    before = fs.get_isa()
    fs.set_isa(request.param)
    assert fs.get_isa() == request.param
    yield request.param
    fs.set_isa(before)


@pytest.fixture(params=[1, 2, 7])
def threads(request: pytest.FixtureRequest) -> Iterator[int]:
    before = fs.get_num_threads()
    fs.set_num_threads(request.param)
    yield request.param
    fs.set_num_threads(before)
