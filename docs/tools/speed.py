"""The tables of speed and their picture, from what `pytest bench` found.

bench/results.json has the records; `python bench/keep.py` writes them there.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import by_rows
import chart
from marked import table

from fusedstep.benchmarks.json_file import read
from fusedstep.benchmarks.records import LIMIT, Machine, Record, Results
from fusedstep.benchmarks.workloads import MANY, SINGLE, WORKLOADS

RESULTS = Path(__file__).parent.parent.parent / "bench" / "results.json"

OURS = "fusedstep"
THEIRS = ["torch fused", "torch foreach", "torch", "optax", "DeepSpeed CPUAdam", "NumPy"]
IN_OTHER_FORMS = {
    "fusedstep, new arrays": "new gradient arrays each step",
    "fusedstep arena": "in an arena",
}
"""Further rows for a list of many tensors: the contestant, and what is different."""

PASSES = ["torch's passes", "NumPy's passes"]
SYSTEMS = {"alone": "nothing", "numpy": "NumPy", "torch": "torch"}

CHOSEN = ["1 × 1,000", "1 × 1,000,000", "10,000 × 100", "ResNet-50"]
"""The workloads of the short table; a row of the whole step follows."""

RIVALS = ["torch fused", "torch foreach", "optax", "DeepSpeed CPUAdam", "NumPy"]
WHOLE = {"torch fused": "torch's passes", "NumPy": "NumPy's passes"}
"""The contestant of the whole step that stands in the column of each rival."""

LOOKS = {
    LIMIT: chart.Look("#59636e", 2, "6 5", plain=True),
    "NumPy": chart.Look("#8c8c8c"),
    "optax": chart.Look("#009e73"),
    "DeepSpeed CPUAdam": chart.Look("#cc79a7"),
    "torch foreach": chart.Look("#56b4e9"),
    "torch fused": chart.Look("#0072b2"),
    OURS: chart.Look("#d55e00", 4),
}
"""The curves of the picture, from the back to the front."""


def results() -> Results:
    return read(RESULTS)


# ---- the picture ----


def picture(results: Results) -> str:
    """Throughput over the size of one tensor, as SVG."""
    found = chosen(results.records, case="adamw", dtype="float32", loop="alone")
    sizes = {each.name for each in SINGLE}
    curves: dict[str, chart.Points] = {}
    for name in LOOKS:
        records = [each for each in found if each.contestant == name and each.workload in sizes]
        if records:
            curves[name] = sorted((each.elements, each.speed) for each in records)
    return chart.svg(
        "One AdamW step of one float32 tensor, GB/s: higher is better",
        "elements",
        "GB/s of a step's traffic",
        curves,
        LOOKS,
    )


# ---- the tables ----


def speed(results: Results) -> str:
    """Five rows: how many times longer the others take, and the time of ours."""
    records = chosen(results.records, dtype="float32", loop="alone")
    others = present(RIVALS, records)
    rows = []
    for workload in CHOSEN:
        group = by_contestant(records, workload=workload, case="adamw")
        if OURS in group:
            rows.append([workload, *ratios(group[OURS], group, others)])
    group = by_contestant(records, elements=1_000_000, case="adamw-whole")
    if OURS in group:
        passes = {name: group[each] for name, each in WHOLE.items() if each in group}
        name = "1 × 1,000,000, [the whole step](docs/guide/step.md)"
        rows.append([name, *ratios(group[OURS], passes, others)])
    return table(["tensors × elements", *others, "fusedstep, µs"], rows, numbers=1)


def short(results: Results) -> str:
    """The table of the README: the rows of `speed`, and one of steps over rows."""
    made = speed(results)
    columns = made.partition("\n")[0].strip("| ").split(" | ")
    return f"{made}\n| {' | '.join(by_rows.short(columns[1:-1]))} |"


def steps(results: Results) -> str:
    """AdamW by itself: how many times longer the others take, and how near the limit is."""
    found = chosen(results.records, case="adamw", dtype="float32", loop="alone")
    others = present(THEIRS, found)
    rows = []
    for workload in WORKLOADS:
        group = by_contestant(found, workload=workload.name)
        forms = {OURS: ""} | (IN_OTHER_FORMS if workload in MANY else {})
        for form, how in forms.items():
            if form in group:
                name = f"{workload.name}, {how}" if how else workload.name
                rows.append([name, *compared(group[form], group, others)])
    heading = ["tensors × elements", *others, "of the limit's speed", "µs"]
    return table(heading, rows, numbers=1)


def rules(results: Results) -> str:
    """Every rule with its options, over one tensor of 1,000,000 elements."""
    found = chosen(results.records, workload="1 × 1,000,000", dtype="float32", loop="alone")
    others = present([name for name in THEIRS if name != "DeepSpeed CPUAdam"], found)
    rows = []
    for case in sorted({each.case for each in found} - {"adamw-whole", "adamw-backends"}):
        group = by_contestant(found, case=case)
        rows.append([case, *compared(group[OURS], group, others)])
    return table(["rule", *others, "of the limit's speed", "µs"], rows, numbers=1)


def whole(results: Results) -> str:
    """The whole step, alone and between products."""
    found = chosen(results.records, case="adamw-whole", dtype="float32")
    others = present(PASSES, found)
    rows = []
    for elements in sorted({each.elements for each in found}):
        for loop, system in SYSTEMS.items():
            group = by_contestant(found, elements=elements, loop=loop)
            if OURS in group:
                rows.append([system, f"{elements:,}", *compared(group[OURS], group, others)])
    heading = ["before each step", "elements", *others, "of the limit's speed", "µs"]
    return table(heading, rows, numbers=1)


def compared(ours: Record, group: Mapping[str, Record], others: Iterable[str]) -> list[str]:
    """Ours against each of the others, against the limit, and in µs."""
    *against, time = ratios(ours, group, others)
    share = f"{group[LIMIT].seconds / ours.seconds:.0%}" if LIMIT in group else ""
    return [*against, share, time]


def ratios(ours: Record, group: Mapping[str, Record], others: Iterable[str]) -> list[str]:
    """Ours against each of the others, and in µs."""
    against = [group[name].seconds / ours.seconds if name in group else None for name in others]
    return [*("" if each is None else times(each) for each in against), microseconds(ours.seconds)]


def loops(results: Results) -> str:
    """Between products: against one thread, against torch, and what the product suffers."""
    found = chosen(results.records, case="adamw", dtype="float32")
    rows = []
    for loop in ("numpy", "torch"):
        for elements in sorted({each.elements for each in chosen(found, loop=loop)}):
            group = by_contestant(found, elements=elements, loop=loop)
            rows.append([SYSTEMS[loop], f"{elements:,}", *in_loop(group)])
    return table(
        [
            "products of",
            "elements",
            "torch fused",
            "one thread's step",
            "the product is slowed by",
            "torch fused slows it by",
            "µs",
        ],
        rows,
        numbers=1,
    )


def in_loop(group: Mapping[str, Record]) -> Iterator[str]:
    ours, fused, alone = (
        group.get(name) for name in (OURS, "torch fused", "fusedstep, one thread")
    )
    assert ours is not None
    for other in (fused, alone):
        yield times(other.seconds / ours.seconds) if other else ""
    for each in (ours, fused):
        if each is not None and each.product and each.product_alone:
            yield f"{each.product / each.product_alone - 1:.1%}".replace("-", "−")
        else:
            yield ""
    yield microseconds(ours.seconds)


def caption(machine: Machine) -> str:
    caches = ", ".join(f"{name} {size(each)}" for name, each in machine.caches.items())
    versions = ", ".join(f"{name} {each}" for name, each in machine.versions.items())
    return (
        f"{machine.date}, {machine.cpu} ({machine.cpus} CPUs, {caches}), {machine.system}, "
        f"{machine.isa}, {machine.threads} threads; {versions}."
    )


# ---- records and numbers ----


def by_contestant(records: Sequence[Record], **fields: Any) -> dict[str, Record]:
    return {each.contestant: each for each in chosen(records, **fields)}


def chosen(records: Sequence[Record], **fields: Any) -> list[Record]:
    return [
        each
        for each in records
        if all(getattr(each, name) == value for name, value in fields.items())
    ]


def present(names: Sequence[str], records: Sequence[Record]) -> list[str]:
    there = {each.contestant for each in records}
    return [name for name in names if name in there]


def times(ratio: float) -> str:
    digits = 2 if ratio < 2 else 1 if ratio < 10 else 0
    return f"{ratio:,.{digits}f}×"


def microseconds(seconds: float) -> str:
    return f"{1e6 * seconds:,.{1 if seconds < 1e-5 else 0}f}"


def size(count: int) -> str:
    return f"{count >> 20} MiB" if count >= 1 << 20 else f"{count >> 10} KiB"
