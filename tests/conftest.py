"""The engines that are there, marks that go over them and over cases, and fixtures.

A fixture chooses how the engines run, and puts back what was.
"""

from __future__ import annotations

import platform
from collections.abc import Iterator, Sequence

import pytest
from cases import DTYPES, Case

import fusedstep as fs

BACKENDS = fs.info().backends
MISSING = BACKENDS["c"]

needs_c = pytest.mark.skipif(MISSING is not None, reason=f"no C engine: {MISSING}")

ON_CPU = [
    pytest.param(
        name, marks=pytest.mark.skipif(BACKENDS[name] is not None, reason=f"{BACKENDS[name]}")
    )
    for name in ("c", "numba", "numpy")
]
"""Every engine for host memory, as a parameter of a test."""

COMPILED = ON_CPU[:-1]
"""Those that are held against the NumPy engine."""

ENGINES = ON_CPU[1:-1]
"""Those that compile rules of the user's own, to be held against the NumPy engine."""

on_each_engine = pytest.mark.parametrize("backend", ON_CPU)
on_each_compiled_engine = pytest.mark.parametrize("backend", COMPILED)
on_engines_for_own_rules = pytest.mark.parametrize("backend", ON_CPU[1:])
for_each_dtype = pytest.mark.parametrize("dtype", DTYPES, ids=lambda dtype: dtype.__name__)


def for_each(cases: Sequence[Case]) -> pytest.MarkDecorator:
    return pytest.mark.parametrize("case", cases, ids=lambda case: case.name)


ISAS = ["baseline", "avx2", "avx512"] if platform.machine() == "x86_64" else ["baseline", "neon"]


@pytest.fixture(params=ISAS)
def isa(request: pytest.FixtureRequest) -> Iterator[str]:
    if MISSING is not None:
        pytest.skip(f"no C engine: {MISSING}")
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
