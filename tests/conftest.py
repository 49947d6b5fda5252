"""Fixtures for all tests, and how to run which tests.

    pip install '.[test]' && pytest         all tests that need neither torch nor NVIDIA's compiler
    pytest -n 2                             two at a time
    pytest tests/core -k zero_grads         a folder, and tests of some name in it
    pytest -m slow                          what takes minutes: builds of the package, all PTX
    pytest -m cuda                          the CUDA backend on a device
    PYTHONPATH=tests/helpers pytest -p cuda_in_memory -m cuda tests/backends/cuda
                                            the same without one: what was compiled for it, as C
    NUMBA_ENABLE_CUDASIM=1 pytest -m "cuda and not slow"    the same in Numba's simulator, as
                                            `pytest` does it
    PYTHONPATH=tests/helpers pytest -p without_c    all tests as if C had not been compiled

A test that needs more skips, and names the extra that brings it: torch, compare (torch with what
its own tests need), clients (trainers of others), jax, others (Keras, optax), cuda (the compiler
for PTX; no device), docs. `pytest -rs` lists why tests were skipped.

The folders are those of src/fusedstep, with tests of its public modules on top; helpers/ holds
what tests share. Start with helpers/cases.py, a row for each optimizer and set of options, and
with helpers/marks.py, which makes a test run on each backend.
"""

from __future__ import annotations

import platform
from collections.abc import Iterator
from pathlib import Path

import pytest
from marks import MISSING, needs

import fusedstep as fs
from fusedstep._compiler import files, folder
from fusedstep.program.errors import DRAWING

ISAS = ["baseline", "avx2", "avx512"] if platform.machine() == "x86_64" else ["baseline", "neon"]


@pytest.fixture(params=ISAS)
def isa(request: pytest.FixtureRequest) -> Iterator[str]:
    if MISSING is not None:
        pytest.skip(f"no c backend: {MISSING}")
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


@pytest.fixture
def extra() -> None:
    """The packages that tables and pictures need."""
    for name in DRAWING:
        needs(name, "demo")


@pytest.fixture
def cache_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """An empty folder of compiled kernels, of which no warning has been given."""
    for name in folder.PLACES:
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.setattr(files, "warned", set())
    folder.wanted.cache_clear()
    yield folder.fit_folder()
    folder.wanted.cache_clear()
