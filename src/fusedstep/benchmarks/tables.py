"""What a run found, and what changed since another one, as tables to read."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING

from fusedstep.benchmarks.compare import CRITERION, Comparison
from fusedstep.benchmarks.records import LIMIT, Machine, Record, Results

if TYPE_CHECKING:
    from rich.console import Console
    from rich.table import Table

OURS = "fusedstep"
"""The contestant that all others are held against, and how the names of its variants begin."""

TITLES = {
    "sgd": "SGD",
    "momentum": "momentum",
    "nesterov": "Nesterov",
    "adagrad": "AdaGrad",
    "rmsprop": "RMSprop",
    "adam": "Adam",
    "adamw": "AdamW",
}
"""Of the cases that have one."""

PRODUCTS = {"numpy": "NumPy", "torch": "torch"}


WIDEST = 1000
"""Letters of a table's line, beyond all terminals."""

LONGEST = 19
"""Letters of a workload's name that stay on one line."""


def label(record: Record) -> str:
    """What a row is called."""
    return between(record.workload, record.loop)


def between(workload: str, loop: str) -> str:
    """A workload's name, with what runs before its steps."""
    if loop == "alone":
        return workload
    return f"{workload} between {PRODUCTS.get(loop, loop)} products"


def grouped(records: Sequence[Record]) -> list[dict[str, Record]]:
    """The contestants of each workload, in the order that they were measured in."""
    groups: dict[tuple[object, ...], dict[str, Record]] = {}
    for record in records:
        key = (record.workload, record.loop, record.case, record.dtype)
        groups.setdefault(key, {})[record.contestant] = record
    return list(groups.values())


def others(records: Sequence[Record]) -> list[str]:
    """The contestants that are neither ours nor the limit."""
    names = dict.fromkeys(record.contestant for record in records)
    return [name for name in names if name != LIMIT and not name.startswith(OURS)]


def tabulate(results: Results, own: bool = True, against: bool = True) -> Table:
    """A row for each workload and each way of ours to step it: what it took, and the ratios."""
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
                workload = ", ".join(
                    filter(None, [label(ours), name.removeprefix(OURS).strip(" ,")])
                )
                share = "" if ours.share is None else percent(ours.share)
                found = duration(ours.seconds), three(ours.speed), share, ours.cache
                ratios = (times(group[name], ours) if name in group else "" for name in names)
                table.add_row(workload, *(found if own else ()), *ratios)
    return table


def tables(results: Results, console: Console) -> Iterator[Table]:
    """One table, or two where it is too wide."""
    from rich.measure import Measurement

    whole = tabulate(results)
    needed = Measurement.get(console, console.options.update(max_width=WIDEST), whole)
    if needed.minimum <= console.width:
        yield whole
    else:
        yield tabulate(results, against=False)
        yield tabulate(results, own=False)


def heading(results: Results) -> str:
    """Of tables and pictures: the step that was timed."""
    names = dict.fromkeys(TITLES.get(record.case, record.case) for record in results.records)
    dtypes = dict.fromkeys(record.dtype for record in results.records)
    threads = results.machine.threads
    several = "1 thread" if threads == 1 else f"{threads} threads"
    return f"One step of {' and '.join(names)} in {' and '.join(dtypes)}, {several}"


def times(other: Record, ours: Record) -> str:
    """How many times faster ours is."""
    return factor(other.seconds / ours.seconds)


def factor(ratio: float) -> str:
    return f"{three(ratio)} ×"


def three(value: float) -> str:
    """In three digits, or with two places: 0.12, 1.23, 12.3, 123."""
    return f"{value:.{0 if value >= 99.95 else 1 if value >= 9.995 else 2}f}"


def percent(share: float) -> str:
    """In two digits at least: 123%, 12%, 1.2%, 0.012%."""
    return f"{share:.0%}" if share >= 0.0995 else f"{100 * share:#.2g}%"


def duration(seconds: float) -> str:
    """In three digits: 1.23 µs, 45.6 ms."""
    units = [("µs", 1e6), ("ms", 1e3), ("s", 1.0)]
    fit = [(unit, seconds * scale) for unit, scale in units if seconds * scale < 999.5]
    unit, value = fit[0] if fit else ("s", seconds)
    return f"{three(value)} {unit}"


def explain(results: Results) -> Iterator[str]:
    """The lines below the table: what its figures are, where they come from, who is not there."""
    moved = dict.fromkeys(record.bytes for record in results.records)
    yield (
        f"step: median time of {OURS}'s; GB/s: of the {' or '.join(map(str, moved))} bytes that an "
        "element moves; of limit: the time of the same traffic without arithmetic over the step's, "
        "past 100% where memory is the bottleneck or an arena makes many tensors one; "
        "in: the nearest memory that holds it all; vs: how many times faster than others."
    )
    yield from products(results.records)
    yield from describe(results.machine)
    for reason, names in reasons(results.missing).items():
        yield f"left out: {'; '.join(names)}: {reason}"


def products(records: Sequence[Record]) -> Iterator[str]:
    """What each contestant's steps do to the matrix products between them."""
    for group in grouped(records):
        suffered = [
            f"{record.product / record.product_alone - 1:+.1%} with {name}"
            for name, record in group.items()
            if record.product and record.product_alone
        ]
        if suffered:
            first = next(iter(group.values()))
            yield f"{label(first)}: the products' time changed by {', '.join(suffered)}"


def describe(machine: Machine) -> Iterator[str]:
    sizes = ", ".join(f"{name} {size_of(size)}" for name, size in machine.caches.items())
    cpu = f"{machine.cpu}, CPUs: {machine.cpus}"
    yield f"machine: {cpu}{', caches: ' if sizes else ''}{sizes}; {machine.system}"
    versions = ", ".join(f"{name} {version}" for name, version in machine.versions.items())
    isa = "no C engine" if machine.isa is None else f"instruction set: {machine.isa}"
    yield f"{versions}; {isa}, threads: {machine.threads}; {machine.date}"


def size_of(size: int) -> str:
    """In the units that caches come in."""
    return f"{size / 2**20:g} MiB" if size >= 2**20 else f"{size / 2**10:g} KiB"


def reasons(missing: dict[str, str]) -> dict[str, list[str]]:
    """What is left out for each reason."""
    found: dict[str, list[str]] = {}
    for name, reason in missing.items():
        found.setdefault(reason, []).append(name)
    return found


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
        workload = label(change.new)
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
    """The lines below that table."""
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
    workloads: dict[str, list[str]] = {}
    for record in records:
        workloads.setdefault(record.contestant, []).append(label(record))
    return workloads
