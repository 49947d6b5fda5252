"""What the tests of the benchmarks need installed, and the module that plans a run."""

from __future__ import annotations

from types import ModuleType
from typing import TYPE_CHECKING

import pytest

from fusedstep.program.errors import DRAWING

if TYPE_CHECKING:
    pass


@pytest.fixture
def extra() -> None:
    for name in DRAWING:
        pytest.importorskip(name, reason=f"the benchmark needs {name}: install fusedstep[demo]")


@pytest.fixture
def budget() -> ModuleType:
    from fusedstep.benchmarks import budget

    return budget
