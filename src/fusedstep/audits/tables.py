"""A report as a table, with the failures and their reproducers below it."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import groupby
from typing import TYPE_CHECKING

from fusedstep.audits.records import (
    FAILS,
    NOT_JUDGED,
    PASSES,
    REFUSES,
    STALLS,
    VALUES,
    VERDICTS,
    Report,
)

if TYPE_CHECKING:
    from rich.table import Table

STYLES = {
    PASSES: "green",
    FAILS: "bold red",
    STALLS: "yellow",
    REFUSES: "yellow",
    NOT_JUDGED: "dim",
}

Row = tuple[str, str, str, str]
"""Group, check, verdict, what was seen."""


def rows(report: Report) -> Iterator[Row]:
    """A row for each check, or one for a whole group that is not judged for one reason."""
    for group, members in groupby(report.findings, lambda each: each.group):
        found = [*members]
        outcomes = {(each.verdict, each.seen) for each in found}
        if len(found) > 1 and len(outcomes) == 1 and found[0].verdict == NOT_JUDGED:
            yield group, f"all {len(found)} checks", NOT_JUDGED, found[0].seen
        else:
            yield from ((group, each.check, each.verdict, each.seen) for each in found)


HEADINGS = ("", "check", "verdict", "seen")

LEAST = 20
"""Letters of what was seen that stand on one line of the table."""


def rich_table(report: Report) -> Table:
    from rich.table import Table
    from rich.text import Text

    table = Table(title=Text(report.optimizer))
    for heading in HEADINGS:
        least = LEAST if heading == "seen" else None
        table.add_column(heading, no_wrap=heading != "seen", min_width=least)
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
    """The lines below the table: reproducers, versions, and how many of each verdict."""
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
    yield from (f"not judged, {count}: {reason}" for reason, count in report.reasons.items())
    if not report.compared:
        yield ""
        reason = next(each.seen for each in report.findings if each.group == VALUES)
        yield f"VALUES WERE NOT JUDGED: {reason}"
        yield "to have them judged, name the rule by --as; the exit status is 3 if nothing fails"
