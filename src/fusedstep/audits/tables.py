"""A report as a table, with the failures and their reproducers below it."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import groupby
from typing import TYPE_CHECKING

from fusedstep.audits.records import FAILS, NOT_JUDGED, PASSES, REFUSES, STALLS, VERDICTS, Report

if TYPE_CHECKING:
    from rich.table import Table

STYLES = {PASSES: "green", FAILS: "bold red", STALLS: "yellow", REFUSES: "yellow"}

Row = tuple[str, str, str, str]
"""Group, check, verdict, what was seen."""


def rows(report: Report) -> Iterator[Row]:
    """A row for each check that was judged; passed checks of a group are joined."""
    judged = [finding for finding in report.findings if finding.verdict != NOT_JUDGED]
    for (group, passed), found in groupby(judged, lambda each: (each.group, each.verdict == PASSES)):
        if passed:
            yield group, ", ".join(each.check for each in found), PASSES, ""
        else:
            yield from ((group, each.check, each.verdict, each.seen) for each in found)


HEADINGS = ("", "check", "verdict", "seen")


def rich_table(report: Report) -> Table:
    from rich.table import Table
    from rich.text import Text

    table = Table(title=Text(report.optimizer))
    for heading in HEADINGS:
        table.add_column(heading, no_wrap=heading in ("", "verdict"))
    previous = None
    for group, check, verdict, seen in rows(report):
        if previous not in (None, group):
            table.add_section()
        shown = "" if group == previous else group
        cells = (Text(shown), Text(check), Text(verdict, STYLES[verdict]), Text(seen))
        table.add_row(*cells)
        previous = group
    return table


def plain_table(report: Report) -> Iterator[str]:
    """The lines of the same table without rich."""
    yield report.optimizer
    for group, check, verdict, seen in rows(report):
        yield f"  {verdict:10} {group}: {check}{f': {seen}' if seen else ''}"


def below(report: Report) -> Iterator[str]:
    """The lines below the table: reasons, reproducers, versions, and how many of each verdict."""
    for reason, names in reasons(report):
        yield f"not judged: {reason}: {', '.join(names)}"
    for finding in report.of(FAILS) + report.of(STALLS):
        yield ""
        yield f"{finding.verdict}: {finding.check}: {finding.seen}"
        yield from (f"    {line}" for line in finding.reproducer.rstrip().split("\n"))
        yield f"prints: {finding.printed}"
    yield ""
    yield f"held against: {report.formula}"
    names = ", ".join(f"{name} {version}" for name, version in report.versions.items())
    yield f"{names}; {report.system}"
    counts = ", ".join(
        f"{verdict}: {report.count(verdict)}" for verdict in VERDICTS if report.count(verdict)
    )
    yield f"{len(report.findings)} checks: {counts}"


def reasons(report: Report) -> list[tuple[str, Sequence[str]]]:
    """The checks that were not judged, by reason."""
    found: dict[str, list[str]] = {}
    for finding in report.of(NOT_JUDGED):
        found.setdefault(finding.seen, []).append(finding.check)
    return [*found.items()]
