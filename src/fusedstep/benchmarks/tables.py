"""Results and changes as tables for a terminal, with the lines below them."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING

from fusedstep import optimizers
from fusedstep.benchmarks.compare import CRITERION, Comparison
from fusedstep.benchmarks.records import LIMIT, OURS, Machine, Record, Results
from fusedstep.benchmarks.units import duration, factor, percent, size_of, three

if TYPE_CHECKING:
    from rich.console import Console
    from rich.table import Table

TITLES = {name.lower(): name for name in optimizers.__all__}
"""Titles of the cases that are an optimizer by default."""

WIDEST = 1000
"""Letters of a table's line, beyond all terminals."""

LONGEST = 19
"""Letters of a workload's name that stay on one line."""


def grouped(records: Sequence[Record]) -> list[dict[str, Record]]:
    """The records of each workload by contestant, in the order of their measurement."""
    groups: dict[tuple[object, ...], dict[str, Record]] = {}
    for record in records:
        key = (record.workload, record.loop, record.case, record.dtype)
        groups.setdefault(key, {})[record.contestant] = record
    return list(groups.values())


def others(records: Sequence[Record]) -> list[str]:
    """Names of the contestants that are neither ours nor the limit."""
    names = dict.fromkeys(record.contestant for record in records)
    return [name for name in names if name != LIMIT and not name.startswith(OURS)]


def variant(contestant: str) -> str:
    """The word by which a contestant differs from our usual step: "arena"."""
    return contestant.removeprefix(OURS).strip(" ,")


# ---- results ----


def tables(results: Results, console: Console) -> Iterator[Table]:
    """The table of results, in two parts if it is too wide for the console."""
    from rich.measure import Measurement

    whole = tabulate(results)
    needed = Measurement.get(console, console.options.update(max_width=WIDEST), whole)
    if needed.minimum <= console.width:
        yield whole
    else:
        yield tabulate(results, against=False)
        yield tabulate(results, own=False)


def tabulate(results: Results, own: bool = True, against: bool = True) -> Table:
    """A row for each variant of our step on each workload.

    `own` is for columns with our times, `against` for those with the ratios to others.
    """
    from rich.table import Table

    names = others(results.records) if against else []
    table = Table(title=heading(results) if own else "How many times faster than")
    table.add_column("workload", min_width=LONGEST)
    for name in ("step", "GB/s", "of limit", "in") if own else ():
        table.add_column(name, justify="right", no_wrap=True)
    for name in names:
        title = name.replace(" ", "\n", 1)
        table.add_column(f"vs {title}" if own else title, justify="right", no_wrap=True)
    for group in grouped(results.records):
        for name, ours in group.items():
            if name.startswith(OURS):
                workload = ", ".join(filter(None, [ours.label, variant(name)]))
                share = "" if ours.share is None else percent(ours.share)
                found = duration(ours.seconds), three(ours.speed), share, ours.cache
                ratios = (times(group[name], ours) if name in group else "" for name in names)
                table.add_row(workload, *(found if own else ()), *ratios)
    return table


def heading(results: Results) -> str:
    """Heading of tables and pictures: which step was timed."""
    names = dict.fromkeys(TITLES.get(record.case, record.case) for record in results.records)
    dtypes = dict.fromkeys(record.dtype for record in results.records)
    threads = results.machine.threads
    several = "1 thread" if threads == 1 else f"{threads} threads"
    return f"One step of {' and '.join(names)} in {' and '.join(dtypes)}, {several}"


def times(other: Record, ours: Record) -> str:
    """How many times faster ours is."""
    return factor(other.seconds / ours.seconds)


def explain(results: Results) -> Iterator[str]:
    """The lines below the table of results: its columns, the machine, what was left out."""
    moved = dict.fromkeys(record.bytes for record in results.records)
    yield f"step: median time of one step of {OURS}"
    yield f"GB/s: memory traffic, of {' or '.join(map(str, moved))} bytes an element"
    yield (
        "of limit: the time of the same traffic without arithmetic, over the step's; about 100% "
        "where memory is the bottleneck, and more where an arena makes one tensor of many"
    )
    yield "in: the nearest memory that holds all arrays of a step"
    yield f"vs: how many times faster {OURS} is"
    yield from products(results.records)
    yield from describe(results.machine)
    for reason, names in reasons(results.missing).items():
        yield f"left out: {reason}"
        yield from (f"  {name}" for name in names)


def products(records: Sequence[Record]) -> Iterator[str]:
    """Lines that say how each contestant's steps change the time of the products between them."""
    for group in grouped(records):
        changes = [
            f"{record.product / record.product_alone - 1:+.1%} with {name}"
            for name, record in group.items()
            if record.product and record.product_alone
        ]
        if changes:
            first = next(iter(group.values()))
            yield f"{first.label}: the products' time changed by {', '.join(changes)}"


def describe(machine: Machine) -> Iterator[str]:
    sizes = ", ".join(f"{name} {size_of(size)}" for name, size in machine.caches.items())
    cpu = f"{machine.cpu}, CPUs: {machine.cpus}"
    yield f"machine: {cpu}{', caches: ' if sizes else ''}{sizes}; {machine.system}"
    versions = ", ".join(f"{name} {version}" for name, version in machine.versions.items())
    isa = "no C backend" if machine.isa is None else f"instruction set: {machine.isa}"
    yield f"{versions}; {isa}, threads: {machine.threads}; {machine.date}"


def reasons(missing: dict[str, str]) -> dict[str, list[str]]:
    """The contestants that are missing for each reason."""
    found: dict[str, list[str]] = {}
    for name, reason in missing.items():
        found.setdefault(reason, []).append(name)
    return found


# ---- changes ----


def tabulate_changes(comparison: Comparison) -> Table:
    from rich.table import Table
    from rich.text import Text

    table = Table(title="What changed")
    table.add_column("workload", min_width=LONGEST)
    table.add_column("contestant")
    for name in ("old", "new", "faster"):
        table.add_column(name, justify="right", no_wrap=True)
    table.add_column("", no_wrap=True)
    styles = {"faster": "green", "slower": "red"}
    previous = None
    for change in comparison.changes:
        workload = change.new.label
        if previous not in (None, workload):
            table.add_section()
        old, new = (
            percent(1 / one.median) if comparison.by_share else duration(one.median)
            for one in (change.before, change.after)
        )
        verdict = Text(change.verdict, style=styles.get(change.verdict, "dim"))
        shown = "" if workload == previous else workload
        table.add_row(shown, change.new.contestant, old, new, factor(change.ratio), verdict)
        previous = workload
    return table


def explain_changes(comparison: Comparison) -> Iterator[str]:
    """The lines below the table of changes."""
    measure = "the limit's time over the step's" if comparison.by_share else "time of a step"
    counts = dict.fromkeys(("faster", "slower", "noise"), 0)
    for change in comparison.changes:
        counts[change.verdict] += 1
    found = ", ".join(f"{verdict}: {count}" for verdict, count in counts.items())
    yield f"old and new: {measure}, medians; faster or slower where {CRITERION}. {found}"
    if comparison.by_share:
        yield "the runs differ in more than versions, so shares of the limit are compared"
    yield from comparison.notes
    for which, records in (
        ("only in the old run", comparison.gone),
        ("only in the new run", comparison.come),
        ("without a limit to compare by", comparison.unlimited),
    ):
        for name, workloads in by_contestant(records).items():
            yield f"{which}: {name}: {', '.join(workloads)}"


def by_contestant(records: Sequence[Record]) -> dict[str, list[str]]:
    """The labels of the records of each contestant."""
    workloads: dict[str, list[str]] = {}
    for record in records:
        workloads.setdefault(record.contestant, []).append(record.label)
    return workloads
