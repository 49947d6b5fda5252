"""Marks that a test bears: the backends that are there, and cases and dtypes to go over."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import pytest
from cases import DTYPES, Case

import fusedstep as fs

BACKENDS = fs.info().backends
MISSING = BACKENDS["c"]

needs_c = pytest.mark.skipif(MISSING is not None, reason=f"no c backend: {MISSING}")

ON_CPU = [
    pytest.param(
        name,
        marks=pytest.mark.skipif(
            BACKENDS[name] is not None, reason=f"no {name} backend: {BACKENDS[name]}"
        ),
    )
    for name in ("c", "numba", "numpy")
]
"""The backends for host memory, as parameters of a test."""

COMPILED = ON_CPU[:-1]
"""The compiled ones, held against the NumPy backend."""

COMPILING = ON_CPU[1:-1]
"""The ones that compile custom rules, held against the NumPy backend."""

on_each_backend = pytest.mark.parametrize("backend", ON_CPU)
on_each_compiled_backend = pytest.mark.parametrize("backend", COMPILED)
on_backends_for_custom_rules = pytest.mark.parametrize("backend", ON_CPU[1:])
for_each_dtype = pytest.mark.parametrize("dtype", DTYPES, ids=lambda dtype: dtype.__name__)


def for_each(cases: Sequence[Case]) -> pytest.MarkDecorator:
    return pytest.mark.parametrize("case", cases, ids=lambda case: case.name)


def needs(module: str, extra: str) -> Any:
    """Import a module that an extra of the package brings; without it the test is skipped."""
    return pytest.importorskip(
        module, reason=f"{module} is not installed; `pip install '.[{extra}]'`"
    )
