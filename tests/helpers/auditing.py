"""Audits that tests share, and the names of the checks of memory."""

from __future__ import annotations

from functools import cache

from fusedstep.audits.audit import audit
from fusedstep.audits.expression import parse
from fusedstep.audits.records import FAILS, Report
from fusedstep.program.audit import rule as named

STRIDED = ("every second column", "some columns", "every third row")
PERMUTED = ("transposed", "channels last")
PARAMETER = {f"parameter: {layout}" for layout in (*STRIDED, *PERMUTED)}
GRADIENT = {f"gradient: {layout}" for layout in (*STRIDED, *PERMUTED, "one row, expanded")}
BOTH = {f"both: {layout}" for layout in (*STRIDED, *PERMUTED)}


@cache
def audited(expression: str, timeout: float = 120.0, rule: str = "") -> Report:
    return audit(parse(expression), timeout=timeout, rule=named(rule) if rule else None)


def failed(report: Report) -> set[str]:
    return {finding.check for finding in report.of(FAILS)}
