"""The tables of README.md, from what `pytest bench` found.

pytest bench --benchmark-json=all.json
python bench/tables.py all.json     keeps what it found in results.json, and writes the tables
python bench/tables.py              writes them from results.json
python bench/tables.py --check      fails if README.md is not what results.json says
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from fusedstep.benchmarks.records import LIMIT, Machine, Record, Results
from fusedstep.benchmarks.store import read
from fusedstep.benchmarks.workloads import MANY, WORKLOADS

HERE = Path(__file__).parent
RESULTS = HERE / "results.json"
README = HERE.parent / "README.md"

DIGITS = 4
"""Of each number that is kept, more than any is known to."""

OURS = "fusedstep"
THEIRS = ["torch fused", "torch foreach", "torch", "optax", "DeepSpeed CPUAdam", "NumPy"]
IN_OTHER_FORMS = {
    "fusedstep, new arrays": "new gradient arrays each step",
    "fusedstep arena": "in an arena",
}
"""Where there are many tensors."""

PASSES = ["torch's passes", "NumPy's passes"]
SYSTEMS = {"alone": "nothing", "numpy": "NumPy", "torch": "torch"}


def keep(found: Mapping[str, Any]) -> str:
    """What of pytest-benchmark's JSON is kept: the records, a line each, without every round."""
    ours = found["fusedstep"]
    head = {name: ours[name] for name in ("machine", "missing")}
    lines = [json.dumps(shortened(record), ensure_ascii=False) for record in ours["records"]]
    text = json.dumps({**head, "records": []}, indent=1, ensure_ascii=False)
    assert text.endswith("[]\n}")
    return text[:-3] + "\n" + ",\n".join(lines) + "\n]}\n"


def shortened(record: Mapping[str, Any]) -> dict[str, Any]:
    return {
        name: float(f"{value:.{DIGITS}g}") if isinstance(value, float) else value
        for name, value in record.items()
    }


# ---- the tables ----


def tables(results: Results) -> dict[str, str]:
    """Each by the name that stands in its markers."""
    return {
        "steps": steps(results),
        "loops": loops(results),
        "whole": whole(results),
        "machine": caption(results.machine),
    }


def steps(results: Results) -> str:
    """AdamW by itself: how many times longer the others take, and how near the limit is."""
    found = chosen(results.records, case="adamw", dtype="float32", loop="alone")
    others = present(THEIRS, found)
    rows = []
    for workload in WORKLOADS:
        group = {each.contestant: each for each in found if each.workload == workload.name}
        forms = {OURS: ""} | (IN_OTHER_FORMS if workload in MANY else {})
        for form, how in forms.items():
            if form in group:
                name = f"{workload.name}, {how}" if how else workload.name
                rows.append([name, *compared(group[form], group, others)])
    heading = ["tensors × elements", *others, "of the limit's speed", "µs"]
    return table(heading, rows)


def whole(results: Results) -> str:
    """The whole step, alone and between products."""
    found = chosen(results.records, case="adamw-whole", dtype="float32")
    others = present(PASSES, found)
    rows = []
    for elements in sorted({each.elements for each in found}):
        for loop, system in SYSTEMS.items():
            group = {each.contestant: each for each in chosen(found, elements=elements, loop=loop)}
            if OURS in group:
                rows.append(
                    [f"{elements:,}", system, *compared(group[OURS], group, others)],
                )
    return table(["elements", "before each step", *others, "of the limit's speed", "µs"], rows)


def compared(ours: Record, group: Mapping[str, Record], others: Iterable[str]) -> list[str]:
    """Ours against each of the others, against the limit, and in µs."""
    ratios = [times(group[name].seconds / ours.seconds) if name in group else "" for name in others]
    share = f"{group[LIMIT].seconds / ours.seconds:.0%}" if LIMIT in group else ""
    return [*ratios, share, microseconds(ours.seconds)]


def loops(results: Results) -> str:
    """Between products: against one thread, against torch, and what the product suffers."""
    found = chosen(results.records, case="adamw", dtype="float32")
    rows = []
    for loop in ("numpy", "torch"):
        for elements in sorted({each.elements for each in chosen(found, loop=loop)}):
            group = {each.contestant: each for each in chosen(found, elements=elements, loop=loop)}
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


# ---- how they are written ----


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


def table(heading: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    lines = [heading, ["---"] * len(heading), *rows]
    return "\n".join(f"| {' | '.join(cells)} |" for cells in lines)


def written(text: str, texts: Mapping[str, str]) -> str:
    """A text with each table between its markers."""
    for name, new in texts.items():
        begin, end = f"<!-- bench/tables.py: {name} -->", f"<!-- end of {name} -->"
        before, found, rest = text.partition(begin)
        _, ended, after = rest.partition(end)
        if not found or not ended:
            raise ValueError(f"README.md has no place between {begin!r} and {end!r}")
        text = f"{before}{begin}\n{new}\n{end}{after}"
    return text


def main(argv: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("found", nargs="?", type=Path, help="what --benchmark-json has written")
    parser.add_argument("--check", action="store_true", help="fail if README.md is something else")
    options = parser.parse_args(argv)
    if options.found is not None:
        RESULTS.write_text(keep(json.loads(options.found.read_text("utf-8"))), "utf-8")
    text = README.read_text("utf-8")
    new = written(text, tables(read(RESULTS)))
    if not options.check:
        README.write_text(new, "utf-8")
    elif new != text:
        print("README.md is not what bench/results.json says: run python bench/tables.py")
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
