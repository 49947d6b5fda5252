"""The checks, in the order in which they run."""

from __future__ import annotations

from fusedstep.audits.checks import elements, large, memory, precision, state, values
from fusedstep.audits.checks.check import Check, Checks, Trial

CHECKS: dict[str, Check] = {
    **values.CHECKS,
    **state.CHECKS,
    **elements.CHECKS,
    **precision.CHECKS,
    **memory.CHECKS,
}

LARGE: dict[str, Check] = large.CHECKS
"""The checks that need gigabytes of memory."""

__all__ = ["CHECKS", "LARGE", "Check", "Checks", "Trial"]
