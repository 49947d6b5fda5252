"""Marks that a test bears: the backends that are there, and cases and dtypes to go over."""

from __future__ import annotations

from collections.abc import Sequence

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
