"""Results of an audit: a finding for each check."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from typing import Any, NamedTuple

VERDICTS = ("passes", "fails", "stalls", "refuses", "not judged")
"""Verdicts.

A 16-bit parameter stalls if it stands still because steps smaller than half the distance to the
next number are rounded away, which is so for everything that keeps it in 16 bits alone and rounds
to nearest. An optimizer refuses by raising an exception in place of a step.
"""

PASSES, FAILS, STALLS, REFUSES, NOT_JUDGED = VERDICTS

VALUES = "values"
"""The group of the checks that hold values against a rule."""


class Finding(NamedTuple):
    """The outcome of one check."""

    group: str

    check: str

    verdict: str

    seen: str = ""
    """Figures where it fails, its words where it refuses, the reason why it is not judged."""

    reproducer: str = ""
    """A program that shows the failure by itself."""

    printed: str = ""
    """Output of the reproducer, or the error that ended it."""


class Report(NamedTuple):
    """All findings for one optimizer."""

    optimizer: str
    """The expression: "torch.optim.AdamW(fused=True)"."""

    formula: str
    """The rule that it was held against, or why there was none."""

    versions: Mapping[str, str]
    """Versions of Python and of the packages that took part."""

    system: str

    findings: list[Finding]

    def count(self, verdict: str) -> int:
        return sum(finding.verdict == verdict for finding in self.findings)

    def of(self, verdict: str) -> list[Finding]:
        return [finding for finding in self.findings if finding.verdict == verdict]

    @property
    def compared(self) -> bool:
        """Whether any values were held against a rule."""
        judged = (PASSES, FAILS, STALLS)
        return any(each.group == VALUES and each.verdict in judged for each in self.findings)

    @property
    def reasons(self) -> dict[str, int]:
        """The reasons why checks are not judged, and for how many each holds, most first."""
        return dict(Counter(each.seen for each in self.of(NOT_JUDGED)).most_common())

    def to_dict(self) -> dict[str, Any]:
        return {
            "optimizer": self.optimizer,
            "formula": self.formula,
            "versions": dict(self.versions),
            "system": self.system,
            "compared": self.compared,
            "counts": {verdict: self.count(verdict) for verdict in VERDICTS},
            "findings": [finding._asdict() for finding in self.findings],
        }
