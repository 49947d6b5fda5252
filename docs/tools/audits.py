"""The tables of what audits found, and the list of their checks.

bench/audits.json has the findings; `python bench/audit.py` writes them there.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from marked import table

from fusedstep.audits.checks import CHECKS
from fusedstep.audits.records import FAILS, NOT_JUDGED, PASSES, REFUSES, STALLS

RESULTS = Path(__file__).parent.parent.parent / "bench" / "audits.json"

EXAMPLE = "torch.optim.AdamW(fused=True)", "parameter: every second column"
"""The optimizer and the check whose reproducer the page shows."""

Report = Mapping[str, Any]


def results() -> dict[str, Report]:
    found: dict[str, Report] = json.loads(RESULTS.read_text("utf-8"))
    return found


def checks() -> str:
    """Every check, and what holds where it passes."""
    rows = [[check.group, check.name, check.about] for check in CHECKS.values()]
    return table(["", "check", "passes if"], rows)


def findings() -> str:
    """Failures of each optimizer; those of one framework with the same outcome in one row."""
    joined: dict[tuple[str, ...], list[str]] = {}
    for title, report in results().items():
        counts = [str(report["counts"][verdict]) for verdict in (PASSES, FAILS, NOT_JUDGED)]
        framework = title.partition(".")[0] + title.partition(", on ")[2]
        outcome = (framework, *counts, "; ".join(failing(report)), "; ".join(refusing(report)))
        joined.setdefault(outcome, []).append(f"`{title.partition(', on ')[0]}`{where(title)}")
    rows = [[", ".join(titles), *outcome[1:]] for outcome, titles in joined.items()]
    return table(["optimizer", "pass", "fail", "not judged", "what fails", "what is refused"], rows)


def where(title: str) -> str:
    backend = title.partition(", on ")[2]
    return f" on {backend}" if backend else ""


def failing(report: Report) -> Iterator[str]:
    """The checks that failed; those of memory are counted."""
    found = [each for each in report["findings"] if each["verdict"] == FAILS]
    yield from (each["check"] for each in found if each["group"] != "memory")
    yield from counted(report, FAILS, "stays a view")


def refusing(report: Report) -> Iterator[str]:
    found = [each for each in report["findings"] if each["verdict"] == REFUSES]
    yield from (each["check"] for each in found if each["group"] != "memory")
    yield from counted(report, REFUSES)


def counted(report: Report, verdict: str, named: str = "") -> Iterator[str]:
    """How many of the checks of memory have a verdict, or the one that is named if it is alone."""
    found = [
        each["check"]
        for each in report["findings"]
        if each["group"] == "memory" and each["verdict"] == verdict
    ]
    if found == [named]:
        yield named
    elif found:
        counts = Counter(name.partition(":")[0] for name in found)
        yield "memory: " + ", ".join(f"{name} {count}×" for name, count in counts.items())


def example() -> str:
    """A failure with its reproducer, and what that prints."""
    title, name = EXAMPLE
    (found,) = [each for each in results()[title]["findings"] if each["check"] == name]
    # "py", so that the page's tests leave it alone: its numbers may be others with another CPU.
    return f"```py\n{found['reproducer']}```\n\n`{found['printed']}`"


def versions() -> str:
    """The software of the runs."""
    found: dict[str, str] = {}
    for report in results().values():
        found |= report["versions"]
    system = next(iter(results().values()))["system"]
    listed = ", ".join(f"{name} {version}" for name, version in sorted(found.items()))
    stalled = sum(report["counts"][STALLS] > 0 for report in results().values())
    return f"{len(results())} optimizers, {stalled} of which stall in 16 bits. {system}; {listed}."
