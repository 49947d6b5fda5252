"""The extra that tests of tables and pictures need."""

from __future__ import annotations

import pytest
from marks import needs

from fusedstep.program.errors import DRAWING


@pytest.fixture
def extra() -> None:
    for name in DRAWING:
        needs(name, "demo")
