"""The extra that tests of tables and pictures need."""

from __future__ import annotations

import pytest

from fusedstep.program.errors import DRAWING


@pytest.fixture
def extra() -> None:
    for name in DRAWING:
        pytest.importorskip(name, reason=f"the benchmark needs {name}: install fusedstep[demo]")
