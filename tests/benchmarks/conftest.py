"""Fixtures for tests of the benchmarks: packages that they need, and the plan of a run."""

from __future__ import annotations

from types import ModuleType
from typing import TYPE_CHECKING

import pytest
from marks import needs

from fusedstep.program.errors import DRAWING

if TYPE_CHECKING:
    pass


@pytest.fixture
def extra() -> None:
    for name in DRAWING:
        needs(name, "demo")


@pytest.fixture
def budget() -> ModuleType:
    from fusedstep.benchmarks import budget

    return budget
