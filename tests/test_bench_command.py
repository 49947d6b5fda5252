"""`fusedstep bench`: what it keeps, reads back, compares, prints and draws."""

from __future__ import annotations

import json
import os
import struct
import sys
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING, Any

import pytest
from pictures import drawn

import fusedstep as fs
from fusedstep.benchmarks import json_file
from fusedstep.benchmarks.compare import CRITERION, compare
from fusedstep.benchmarks.records import LIMIT, Machine, Record, Results
from fusedstep.benchmarks.show import (
    TITLES,
    duration,
    explain,
    explain_changes,
    factor,
    percent,
    tables,
    tabulate,
    tabulate_changes,
)
from fusedstep.program.main import BESIDE, DRAWING, KEPT, main

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure
    from matplotlib.patches import Rectangle
    from rich.table import Table


@pytest.fixture
def extra() -> None:
    for name in DRAWING:
        pytest.importorskip(name, reason=f"the benchmark needs {name}: install fusedstep[demo]")


MACHINE = Machine(
    cpu="Abacus 3",
    cpus=2,
    caches={"L1": 32 * 2**10, "L2": 2**20, "L3": 32 * 2**20},
    system="Linux 6.8 x86_64",
    isa="avx2",
    threads=2,
    versions={"Python": "3.12.3", "fusedstep": "0.1.0", "NumPy": "2.4.1"},
    date="2026-01-31",
)
MISSING = dict.fromkeys(("torch fused", "torch foreach"), "no torch; `pip install torch`")

TIMES = {LIMIT: 0.8e-6, "fusedstep": 1e-6, "NumPy": 20e-6, "optax": 5e-6}
"""Seconds for 1,000 elements."""


def record(workload: str = "1 × 1,000", contestant: str = "fusedstep", **fields: Any) -> Record:
    tensors, n = (int(part.replace(",", "")) for part in workload.split(" × "))
    seconds = fields.pop("seconds", TIMES.get(contestant, 1e-6) * tensors * n / 1000)
    whole: dict[str, Any] = {
        "workload": workload,
        "tensors": tensors,
        "elements": tensors * n,
        "case": "adamw",
        "dtype": "float32",
        "loop": "alone",
        "contestant": contestant,
        "threads": 2,
        "seconds": seconds,
        "low": seconds * 0.99,
        "high": seconds * 1.02,
        "steps": 100,
        "bytes": 28,
        "cache": "L1",
        "share": TIMES[LIMIT] * tensors * n / 1000 / seconds,
    }
    return Record(**{**whole, **fields})


def run_of(*records: Record, **machine: Any) -> Results:
    return Results(MACHINE._replace(**machine), MISSING, list(records))


LOOP: dict[str, Any] = {"loop": "numpy", "product": 2.2e-3, "product_alone": 2e-3}
WHOLE = run_of(
    *(
        record(workload, name)
        for workload in ("1 × 1,000", "1 × 100,000", "1 × 10,000,000", "1,000 × 1,000")
        for name in TIMES
    ),
    record("1,000 × 1,000", "fusedstep arena", seconds=0.5e-3),
    *(record("1 × 100,000", name, **LOOP) for name in TIMES if name != "optax"),
)


# JSON.


def test_what_is_written_reads_back(tmp_path: Path) -> None:
    path = tmp_path / "bench.json"
    json_file.write(WHOLE, path)
    assert json_file.read(path) == WHOLE
    assert [entry.name for entry in tmp_path.iterdir()] == ["bench.json"]
    speeds = [entry["speed"] for entry in json.loads(path.read_text("utf-8"))["records"]]
    assert speeds == [one.speed for one in WHOLE.records]
    assert WHOLE.records[1].speed == pytest.approx(28)


def test_a_write_that_fails_leaves_what_was_there(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "bench.json"
    path.write_text("mine")

    def full(descriptor: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(OSError, match="No space left"):
        json_file.write(WHOLE, path)
    assert path.read_text() == "mine"
    assert [entry.name for entry in tmp_path.iterdir()] == ["bench.json"]


def test_writes_through_a_link(tmp_path: Path) -> None:
    (tmp_path / "folder").mkdir()
    link = tmp_path / "bench.json"
    link.symlink_to(tmp_path / "folder" / "kept.json")
    json_file.write(WHOLE, link)
    assert link.is_symlink()
    assert json_file.read(tmp_path / "folder" / "kept.json") == WHOLE


def broken(**changes: Any) -> str:
    """The JSON of a run whose first record has other fields."""
    value = WHOLE.to_dict()
    value["records"][0] |= changes
    return json.dumps(value)


UNREADABLE = [
    ("", "is no JSON: Expecting value: line 1 column 1 (char 0)"),
    ("[" * 100_000, "is nested too deeply"),
    ("[]", "holds no results: the file is no object"),
    ("{}", "holds no results: the file lacks machine, missing, records"),
    ('{"machine": [], "missing": {}, "records": [1]}', "machine is no object"),
    ('{"machine": {"cpu": "A"}, "missing": {}, "records": [1]}', "machine lacks cpus, caches,"),
    (json.dumps({**WHOLE.to_dict(), "missing": {"a": 1}}), "missing.a=1 is no text"),
    (json.dumps({**WHOLE.to_dict(), "records": {}}), "records is no list of one or more"),
    (json.dumps({**WHOLE.to_dict(), "records": []}), "records is no list of one or more"),
    (json.dumps({**WHOLE.to_dict(), "records": [None]}), "records[0] is no object"),
    (broken(seconds="1"), 'records[0].seconds="1" is no finite number'),
    (broken(seconds=float("nan")), "records[0].seconds=NaN is no finite number"),
    (broken(seconds=10**30), "is no finite number"),
    (broken(seconds=0.0, low=0.0), "records[0].seconds=0.0 is not positive"),
    (broken(low=1.0), "is not between its quartiles"),
    (broken(elements=True), "records[0].elements=true is no whole number"),
    (broken(elements=1.5), "records[0].elements=1.5 is no whole number"),
    (broken(share="all"), 'records[0].share="all" is no finite number or null'),
    (broken(share=-1), "records[0].share=-1 is not positive"),
    (broken(contestant=None), "records[0].contestant=null is no text"),
    (broken(contestant="fusedstep"), "records[1] is of the same step as records[0]"),
]


@pytest.mark.parametrize(("text", "complaint"), UNREADABLE)
def test_refuses_other_files(text: str, complaint: str, tmp_path: Path) -> None:
    path = tmp_path / "other.json"
    path.write_text(text, encoding="utf-8")
    with pytest.raises(ValueError, match=f"^{path} .*; {json_file.REMEDY}$") as caught:
        json_file.read(path)
    assert complaint in str(caught.value)


def test_refuses_what_is_no_file_and_no_text(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=f"cannot read {tmp_path}/none.json: No such file"):
        json_file.read(tmp_path / "none.json")
    (tmp_path / "bytes.json").write_bytes(b"\xff\xfe\x00")
    with pytest.raises(ValueError, match=r"bytes\.json is no text in UTF-8"):
        json_file.read(tmp_path / "bytes.json")


def test_reads_whole_numbers_as_seconds_and_passes_over_what_it_does_not_know(
    tmp_path: Path,
) -> None:
    path = tmp_path / "bench.json"
    value = run_of(record(seconds=2.0, low=1.0, high=3.0)).to_dict()
    value["records"][0] |= {"seconds": 2, "low": 1, "new": "field"}
    path.write_text(json.dumps(value))
    assert json_file.read(path).records == [record(seconds=2.0, low=1.0, high=3.0)]


# Comparing.


@pytest.mark.parametrize(
    ("seconds", "low", "high", "verdict"),
    [
        (1.0, 0.97, 1.02, "noise"),
        (0.9, 0.8, 0.97, "noise"),
        (0.9, 0.8, 0.96, "faster"),
        (0.96, 0.95, 0.965, "noise"),
        (0.95, 0.94, 0.96, "faster"),
        (1.1, 1.02, 1.3, "noise"),
        (1.1, 1.03, 1.3, "slower"),
        (1.04, 1.03, 1.05, "noise"),
        (1.06, 1.03, 1.07, "slower"),
    ],
)
def test_a_change_is_more_than_noise_where_quartiles_and_medians_part(
    seconds: float, low: float, high: float, verdict: str
) -> None:
    old = run_of(record(seconds=1.0, low=0.97, high=1.02))
    comparison = compare(old, run_of(record(seconds=seconds, low=low, high=high)))
    (change,) = comparison.changes
    assert change.verdict == verdict
    assert change.ratio == 1 / seconds
    assert not comparison.by_share
    assert comparison[2:] == ([], [], [], [])


OTHER = [
    ({"cpu": "Abacus 4"}, {}, "machine: Abacus 3, 2 CPUs → Abacus 4, 2 CPUs"),
    ({"cpus": 4}, {}, "machine: Abacus 3, 2 CPUs → Abacus 3, 4 CPUs"),
    ({"threads": 4}, {"threads": 4}, "threads: 2 → 4"),
    ({}, {"dtype": "float64", "bytes": 56}, "dtype: float32 → float64"),
    ({}, {"case": "sgd", "bytes": 12}, "optimizer: adamw → sgd"),
]


@pytest.mark.parametrize(("machine", "fields", "note"), OTHER)
def test_other_work_is_compared_by_shares(
    machine: dict[str, Any], fields: dict[str, Any], note: str
) -> None:
    old = run_of(record(contestant=LIMIT), record(), record(contestant="NumPy"))
    new = run_of(
        record(contestant=LIMIT, seconds=8e-6, share=1.0, **fields),
        record(seconds=8e-6, share=1.0, **fields),
        record(contestant="NumPy", seconds=200e-6, share=0.04, **fields),
        **machine,
    )
    comparison = compare(old, new)
    assert comparison.by_share
    assert comparison.notes == [note]
    ours, numpy = comparison.changes
    assert ours.ratio == pytest.approx(1.25)
    assert ours.after == pytest.approx((1.0, 0.99 / 1.02, 1.02 / 0.99))  # with the limit's noise
    assert (ours.verdict, numpy.verdict) == ("faster", "noise")
    lines = "\n".join(explain_changes(comparison))
    assert note in lines
    assert "shares of the limit" in lines
    assert CRITERION in lines


def test_a_limit_that_is_known_by_shares_alone_has_no_noise() -> None:
    comparison = compare(run_of(record()), run_of(record(), cpus=1))
    (change,) = comparison.changes
    assert change.before == pytest.approx((1.25, 1.25 * 0.99, 1.25 * 1.02))


def test_without_shares_other_work_is_named_and_not_compared() -> None:
    comparison = compare(run_of(record()), run_of(record(share=None), cpus=1))
    assert comparison.changes == []
    assert comparison.unlimited == [record(share=None)]
    assert "without a limit to compare by: fusedstep: 1 × 1,000" in explain_changes(comparison)


def test_versions_are_noted_and_times_compared_all_the_same() -> None:
    versions = {"Python": "3.12.3", "fusedstep": "0.2.0", "NumPy": "2.4.1", "optax": "0.2.8"}
    comparison = compare(
        run_of(record()), run_of(record(), isa=None, system="Linux 7", versions=versions)
    )
    assert not comparison.by_share
    assert comparison.notes == [
        "system: Linux 6.8 x86_64 → Linux 7",
        "instruction set: avx2 → none",
        "fusedstep: 0.1.0 → 0.2.0",
        "optax: none → 0.2.8",
    ]


def test_names_what_only_one_side_has() -> None:
    old = run_of(record(), record(contestant="torch fused"), record("1 × 10"))
    new = run_of(record(), record("1,000 × 1,000"), record(**LOOP))
    comparison = compare(old, new)
    assert len(comparison.changes) == 1
    lines = [*explain_changes(comparison)][1:]
    assert lines == [
        "only in the old run: torch fused: 1 × 1,000",
        "only in the old run: fusedstep: 1 × 10",
        "only in the new run: fusedstep: 1,000 × 1,000, 1 × 1,000 between NumPy products",
    ]


def test_dtypes_and_cases_of_one_run_are_not_mixed_up() -> None:
    both = [record(), record(dtype="float64", seconds=3e-6)]
    comparison = compare(run_of(*both), run_of(*reversed(both)))
    assert not comparison.by_share
    assert [change.ratio for change in comparison.changes] == [1, 1]
    comparison = compare(run_of(*both), run_of(both[1]))
    assert not comparison.by_share
    assert comparison.gone == [both[0]]


# Tables.


def cells(table: Table) -> list[list[str]]:
    columns = [[str(cell) for cell in column.cells] for column in table.columns]
    return [list(row) for row in zip(*columns, strict=True)]


@pytest.mark.usefixtures("extra")
def test_table() -> None:
    table = tabulate(WHOLE)
    assert table.title == "One step of AdamW in float32, 2 threads"
    headings = ["workload", "step", "GB/s", "of limit", "in", "vs NumPy", "vs optax"]
    assert [column.header for column in table.columns] == headings
    assert cells(table) == [
        ["1 × 1,000", "1.00 µs", "28.0", "80%", "L1", "20.0 ×", "5.00 ×"],
        ["1 × 100,000", "100 µs", "28.0", "80%", "L1", "20.0 ×", "5.00 ×"],
        ["1 × 10,000,000", "10.0 ms", "28.0", "80%", "L1", "20.0 ×", "5.00 ×"],
        ["1,000 × 1,000", "1.00 ms", "28.0", "80%", "L1", "20.0 ×", "5.00 ×"],
        ["1,000 × 1,000, arena", "500 µs", "56.0", "160%", "L1", "40.0 ×", "10.0 ×"],
        ["1 × 100,000 between NumPy products", "100 µs", "28.0", "80%", "L1", "20.0 ×", ""],
    ]
    lines = "\n".join(explain(WHOLE))
    for said in (
        "28 bytes that an element moves",
        "past 100% where memory is the bottleneck or an arena makes many tensors one",
        "the products' time changed by +10.0% with limit, +10.0% with fusedstep",
        "Abacus 3, CPUs: 2, caches: L1 32 KiB, L2 1 MiB, L3 32 MiB; Linux 6.8 x86_64",
        "fusedstep 0.1.0, NumPy 2.4.1; instruction set: avx2, threads: 2; 2026-01-31",
        "left out: torch fused; torch foreach: no torch; `pip install torch`",
    ):
        assert said in lines


@pytest.mark.usefixtures("extra")
def test_a_table_too_wide_for_the_terminal_comes_in_two() -> None:
    from rich.console import Console

    (whole,) = tables(WHOLE, Console(width=80))
    own, against = tables(WHOLE, Console(width=60))
    assert cells(whole) == cells(tabulate(WHOLE))
    rows = zip(cells(own), cells(against), strict=True)
    assert [[*row, *ratios] for row, (_, *ratios) in rows] == cells(whole)
    assert {row[0] for row in cells(against)} == {row[0] for row in cells(own)}
    assert [column.header for column in against.columns] == ["workload", "NumPy", "optax"]


@pytest.mark.usefixtures("extra")
def test_table_of_changes() -> None:
    new = run_of(record(seconds=0.5e-6), record(contestant=LIMIT))
    table = tabulate_changes(compare(WHOLE, new))
    assert cells(table) == [
        ["1 × 1,000", "fusedstep", "1.00 µs", "0.50 µs", "2.00 ×", "faster"],
        ["", "limit", "0.80 µs", "0.80 µs", "1.00 ×", "noise"],
    ]
    table = tabulate_changes(compare(WHOLE, new._replace(machine=MACHINE._replace(cpus=1))))
    assert cells(table) == [["1 × 1,000", "fusedstep", "80%", "160%", "2.00 ×", "faster"]]


@pytest.mark.parametrize(
    ("seconds", "shown"),
    [
        (1.234e-8, "0.01 µs"),
        (9.994e-6, "9.99 µs"),
        (9.996e-6, "10.0 µs"),
        (99.96e-6, "100 µs"),
        (999.4e-6, "999 µs"),
        (999.6e-6, "1.00 ms"),
        (0.9996, "1.00 s"),
        (12.34, "12.3 s"),
    ],
)
def test_durations_have_three_digits(seconds: float, shown: str) -> None:
    assert duration(seconds) == shown


@pytest.mark.parametrize(
    ("ratio", "shown"),
    [(0.456, "0.46 ×"), (9.994, "9.99 ×"), (9.996, "10.0 ×"), (99.4, "99.4 ×"), (423.4, "423 ×")],
)
def test_factors(ratio: float, shown: str) -> None:
    assert factor(ratio) == shown


# The picture.


@pytest.mark.parametrize(
    ("share", "shown"),
    [
        *((1.234, "123%"), (0.1234, "12%"), (0.0995, "10%"), (0.0994, "9.9%"), (0.05, "5.0%")),
        *((0.004, "0.40%"), (0.0001234, "0.012%")),
    ],
)
def test_shares_have_two_digits(share: float, shown: str) -> None:
    assert percent(share) == shown


def picture_of(results: Results, path: Path) -> Figure:
    from fusedstep.benchmarks.picture import draw

    return drawn(lambda: draw(results, path))


def bars(axes: Axes) -> list[Rectangle]:
    from matplotlib.patches import Rectangle

    return [patch for patch in axes.patches if isinstance(patch, Rectangle)]


def texts(axes: Axes) -> list[str]:
    return [text.get_text() for text in axes.texts]


@pytest.mark.usefixtures("extra")
def test_picture_is_a_png(tmp_path: Path) -> None:
    from fusedstep.benchmarks.picture import draw

    draw(WHOLE, tmp_path / "bench.png")
    png = (tmp_path / "bench.png").read_bytes()
    assert png.startswith(b"\x89PNG\r\n\x1a\n")
    assert struct.unpack(">II", png[16:24]) == (1485, 715)
    assert 10_000 < len(png) < 1_000_000


@pytest.mark.usefixtures("extra")
def test_picture_shows_every_contestant_once_and_the_limit_and_the_caches(tmp_path: Path) -> None:
    from matplotlib.colors import to_hex

    figure = picture_of(WHOLE, tmp_path / "bench.png")
    left, right = figure.axes
    lines = {line.get_label(): line for line in left.lines}
    assert [*lines][: len(TIMES)] == ["fusedstep", LIMIT, "optax", "NumPy"]
    for name, seconds in TIMES.items():
        assert [*lines[name].get_xdata()] == [1000, 100_000, 10_000_000]  # type: ignore[misc]
        speed = 28e3 / seconds / 1e9
        assert [*lines[name].get_ydata()] == pytest.approx([speed] * 3)  # type: ignore[misc]
    assert lines["fusedstep"].get_linewidth() == max(line.get_linewidth() for line in left.lines)
    assert (left.get_ylabel(), left.get_xlabel()) == ("GB/s", "elements")

    # Two threads hold 64 KiB, 2 MiB and, together, 32 MiB of 16 bytes an element.
    ends = [line.get_xdata()[0] for line in left.lines[len(TIMES) :]]  # type: ignore[index]
    assert ends == [4096, 131_072, 2_097_152]
    assert texts(left) == ["L1", "L2", "L3", "memory"]
    assert [text.get_position()[0] for text in left.texts] == sorted(
        text.get_position()[0] for text in left.texts
    )

    names = ["fusedstep arena", LIMIT, "optax", "NumPy", LIMIT, "NumPy"]
    words = ["arena 0.50 ×", "limit 0.80 ×", "5.00 ×", "20.0 ×", "limit 0.80 ×", "20.0 ×"]
    assert texts(right) == [*words, "fusedstep"]
    ends = [bar.get_x() + bar.get_width() for bar in bars(right)]
    assert ends == pytest.approx([0.5, 0.8, 5, 20, 0.8, 20])
    labels = [label.get_text() for label in right.get_yticklabels()]
    assert labels == ["1,000 × 1,000\n1.00 ms", "1 × 100,000\nbetween NumPy\nproducts\n100 µs"]

    body, foot = figure.subfigs
    (legend,) = body.legends
    assert sorted(text.get_text() for text in legend.get_texts()) == sorted({*TIMES, *names})
    for bar, name in zip(bars(right), names, strict=True):
        if name in lines:
            assert to_hex(bar.get_facecolor()) == to_hex(lines[name].get_color())
    (note,) = foot.texts
    assert "Abacus 3" in note.get_text()


LOOPS = run_of(
    *(
        record(workload, name, **{**LOOP, "loop": loop})
        for workload in ("1 × 100,000", "1 × 1,000,000", "1 × 8,000,000")
        for loop in ("numpy", "torch")
        for name in ("fusedstep", "fusedstep, one thread", "NumPy")
    )
)
"""Long names beside single bars, and no curve."""

NARROW = run_of(
    record("1,000 × 1,000"), record("1,000 × 1,000", LIMIT), record("1,000 × 1,000", "NumPy")
)
"""Less than a power of ten along the axes."""


@pytest.mark.usefixtures("extra")
@pytest.mark.parametrize("results", [WHOLE, LOOPS, NARROW], ids=["whole", "loops", "narrow"])
def test_no_words_of_the_picture_overlap(results: Results, tmp_path: Path) -> None:
    figure = picture_of(results, tmp_path / "bench.png")
    body, foot = figure.subfigs
    left, right = figure.axes
    first, last = left.get_xlim()
    ticks = zip(left.get_xticks(), left.get_xticklabels(), strict=True)
    words = [label for at, label in ticks if first <= at <= last]
    first, last = right.get_xlim()
    ticks = zip(right.get_xticks(), right.get_xticklabels(), strict=True)
    words += [label for at, label in ticks if first <= at <= last]
    words += right.get_xticklabels(minor=True)
    words += [*left.texts, *right.texts, *foot.texts, *right.get_yticklabels()]
    words += body.legends[0].get_texts()
    boxes = [word.get_window_extent() for word in words if word.get_text()]
    overlapping = [(a, b) for i, a in enumerate(boxes) for b in boxes[:i] if a.overlaps(b)]
    assert overlapping == []
    width, height = figure.get_size_inches() * figure.dpi
    for box in boxes:
        assert box.x0 >= 0
        assert box.y0 >= 0
        assert box.x1 <= width
        assert box.y1 <= height


@pytest.mark.usefixtures("extra")
@pytest.mark.parametrize(
    "results",
    [
        run_of(record()),
        run_of(record("1,000 × 1,000"), caches={}),
        run_of(record(), record("1,000 × 1,000"), record("1,000 × 1,000", "NumPy")),
    ],
)
def test_pictures_of_little(results: Results, tmp_path: Path) -> None:
    from fusedstep.benchmarks.picture import draw

    draw(results, tmp_path / "bench.png")
    assert (tmp_path / "bench.png").stat().st_size > 10_000


# What fits into the seconds.


@pytest.fixture
def budget() -> ModuleType:
    from fusedstep.benchmarks import budget

    return budget


def part_of(budget: ModuleType, name: str, loop: str = "alone") -> Any:
    (part,) = (
        part
        for part in [*budget.BEFORE_TORCH, *budget.PARTS]
        if (part.workload.name, part.loop) == (name, loop)
    )
    return part


def test_steps_of_unknown_sizes_lie_on_lines_through_known_ones(budget: ModuleType) -> None:
    known = [(1000, 2.0), (2000, 3.0), (4000, 9.0)]
    expected = [(10, 2.0), (1000, 2.0), (1500, 2.5), (3000, 6.0), (4000, 9.0), (6000, 15.0)]
    for elements, seconds in expected:
        assert budget.of_one(elements, known) == seconds
    assert budget.of_one(10**6, known[:1]) == 2.0
    assert budget.of_one(10**6, []) == 0.0


def test_what_many_tensors_take_is_known_from_fewer(budget: ModuleType) -> None:
    small, large = part_of(budget, "1,000 × 1,000"), part_of(budget, "10,000 × 100")
    records = [record("1 × 1,000"), record("1 × 1,000,000", seconds=1e-3)]
    step = budget.expected_step("fusedstep", small.workload, records)
    assert step == pytest.approx(1e-3)
    records.append(record("1,000 × 1,000", seconds=4e-3))  # 3 µs for each tensor
    step = budget.expected_step("fusedstep", large.workload, records)
    assert step == pytest.approx(31e-3)
    records += [record("1 × 1,000,000", seconds=1.0, **LOOP), record("1 × 1,000", "optax")]
    costs = budget.expected(large, records)
    arrays = budget.PREPARING * 1e6
    assert costs["fusedstep"].before == pytest.approx(arrays + budget.FIRST * step)
    assert costs["fusedstep"].turns == pytest.approx(budget.LEAST * step)
    assert costs[LIMIT] == (0.0, 0.0)
    first = budget.STARTING["optax"] * 10_000 + arrays + budget.FIRST * 5e-6
    assert costs["optax"] == pytest.approx((first, budget.LEAST * 5e-6))


def test_the_products_of_a_loop_count(budget: ModuleType, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(budget, "of_product", lambda loop: 1.0)
    costs = budget.expected(part_of(budget, "1 × 100,000", "numpy"), [])
    for cost in costs.values():
        assert cost == pytest.approx((budget.FIRST, 5 * (16 + 4)), rel=1e-2)


@pytest.fixture
def everyone(monkeypatch: pytest.MonkeyPatch) -> None:
    """As if all that contestants need were installed."""
    from fusedstep.benchmarks.contestants.contestant import Contestant

    def kinds(kind: type[Contestant]) -> Iterator[type[Contestant]]:
        yield kind
        for each in kind.__subclasses__():
            yield from kinds(each)

    for kind in kinds(Contestant):
        monkeypatch.setattr(kind, "why_missing", lambda self: None)


@pytest.mark.usefixtures("everyone")
def test_the_slow_go_first_and_ours_last(budget: ModuleType) -> None:
    part = part_of(budget, "1 × 1,000,000")
    names = [each.name for each in part.contestants]
    costs = {name: budget.Cost(1.0, 2.0 * k) for k, name in enumerate(names)}
    costs["fusedstep"] = budget.Cost(2.0, 30.0)
    total = budget.common(part) + 32 + 3 + 5 + 7 + 9 + 11 + 13
    seconds = total + 0.1
    for left in range(len(names), 1, -1):
        chosen, reasons = budget.fitting(part, costs, seconds, room=1e12)
        assert [each.name for each in chosen] == names[:left]
        assert reasons == dict.fromkeys(names[left:], budget.NO_TIME)
        seconds -= sum(costs[names[left - 1]])
    assert budget.fitting(part, costs, 31.0, 1e12) == ([], {"fusedstep": budget.NO_TIME})


@pytest.mark.usefixtures("everyone")
def test_memory_is_not_taken_beyond_what_is_free(budget: ModuleType) -> None:
    part = part_of(budget, "GPT-2 small")
    costs = {each.name: budget.Cost(0.0, 0.0) for each in part.contestants}
    for others in (0, 2):  # beside ours and the limit, which has our arrays
        room = (2 + (1 + others) * budget.COPIES) * part.workload.elements
        chosen, reasons = budget.fitting(part, costs, 600.0, room)
        assert len(chosen) == 2 + others
        assert {*reasons.values()} == {budget.NO_MEMORY}
    assert budget.fitting(part, costs, 600.0, 5 * part.workload.elements) == (
        [],
        {"fusedstep": budget.NO_MEMORY},
    )


def test_free_memory(budget: ModuleType, tmp_path: Path) -> None:
    described = tmp_path / "meminfo"
    described.write_text("MemTotal:  8 kB\nMemAvailable:    3 kB\n")
    assert budget.free_memory(described) == 3072
    assert budget.free_memory(tmp_path / "none") > 2**24


def test_says_where_someone_is_left_out_who_takes_part_elsewhere(budget: ModuleType) -> None:
    left_out = {
        ("optax", "slow"): ["MLP", "ResNet-50"],
        ("fusedstep", "large"): ["GPT-2 small"],
        ("torch fused", "absent"): ["MLP", "ResNet-50"],
    }
    assert budget.said(left_out, [record(contestant="optax")]) == {
        "optax at MLP, ResNet-50": "slow",
        "everyone at GPT-2 small": "large",
        "torch fused": "absent",
    }


# The program.


@pytest.mark.usefixtures("extra")
@pytest.mark.parametrize(
    ("argv", "complaint"),
    [
        (["--seconds", "0"], "'0' is not a number of seconds above 0"),
        (["--seconds", "inf"], "'inf' is not a number of seconds above 0"),
        (["--seconds", "soon"], "'soon' is not a number of seconds above 0"),
        (["--threads", "0"], "'0' is not a whole number from 1 on"),
        (["--dtype", "float16"], "invalid choice: 'float16'"),
        (["--optimizer", "adamax"], "invalid choice: 'adamax'"),
        (["--json", "bench.txt"], "'bench.txt' is no name of a JSON; end it in .json"),
        (["--json", "nowhere/bench.json"], "'nowhere' is no directory; create it first"),
        (["--picture", "bench.pdf"], "'bench.pdf' is no name of a PNG; end it in .png"),
        (["--json", "folder.json"], "'folder.json' is a directory; name a file"),
    ],
)
def test_unfit_arguments(
    argv: list[str], complaint: str, folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (folder / "folder.json").mkdir()
    with pytest.raises(SystemExit) as caught:
        main(["bench", *argv])
    assert caught.value.code == 2
    captured = capsys.readouterr()
    assert complaint in captured.err
    assert captured.out == ""


@pytest.mark.usefixtures("folder")
@pytest.mark.parametrize("option", [["--json", "bench.json"], ["--picture", "bench.png"], []])
def test_a_folder_that_may_not_be_written_to_costs_no_time(
    option: list[str], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(os, "access", lambda path, mode: mode != os.W_OK)
    with pytest.raises(SystemExit) as caught:
        main(["bench", *option])
    assert caught.value.code == 2
    assert "'.' may not be written to; name a file elsewhere\n" in capsys.readouterr().err


@pytest.mark.parametrize("name", DRAWING)
def test_missing_extra(
    name: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setitem(sys.modules, name, None)
    assert main(["bench"]) == 1
    captured = capsys.readouterr()
    assert captured.out == ""
    assert captured.err.startswith("fusedstep: error: the benchmark needs ")
    assert name in captured.err
    assert captured.err.endswith("pip install 'fusedstep[demo]'\n")


def test_every_optimizer_that_may_be_named_has_its_update(budget: ModuleType) -> None:
    assert [*budget.UPDATES] == [*TITLES]
    assert [update.name for update in budget.UPDATES.values()] == [*TITLES]


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Where the program runs, and writes to if nobody says where."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("FORCE_COLOR", raising=False)
    monkeypatch.setenv("COLUMNS", "200")
    monkeypatch.setattr(os, "getloadavg", lambda: (0.0, 0.0, 0.0), raising=False)
    return tmp_path


@pytest.fixture
def found(monkeypatch: pytest.MonkeyPatch, budget: ModuleType) -> Iterator[list[Results]]:
    """What the program is to find, from the last on, in place of measuring."""
    runs = [WHOLE]

    def run(*args: object) -> Results:
        return runs.pop()

    monkeypatch.setattr(budget, "run", run)
    yield runs
    assert runs == []


@pytest.mark.usefixtures("extra")
@pytest.mark.parametrize("optimizer", ["adamw", "sgd"])
def test_the_whole_program(
    optimizer: str, folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    threads = fs.get_num_threads()
    argv = ["bench", "--seconds", "0.5", "--threads", "1", "--optimizer", optimizer]
    assert main([*argv, "--dtype", "float64"]) == 0
    assert fs.get_num_threads() == threads
    captured = capsys.readouterr()
    assert "\x1b" not in captured.out + captured.err
    assert f"One step of {TITLES[optimizer]} in float64, 1 thread" in captured.out
    assert captured.out.endswith(f"{KEPT} and drawn in fusedstep-bench.png\n")
    assert "\ntiming 1 × 1,000\n" in captured.err
    assert {entry.name for entry in folder.iterdir()} == {KEPT, "fusedstep-bench.png"}
    results = json_file.read(folder / KEPT)
    assert results.machine.threads == 1
    assert results.machine.versions["fusedstep"] == fs.info().version
    assert {one.dtype for one in results.records} == {"float64"}
    assert {one.case for one in results.records} == {optimizer}
    ours = [one for one in results.records if one.contestant == "fusedstep"]
    assert ours[0].workload == "1 × 1,000"
    for one in results.records:
        for word in one.contestant.removeprefix("fusedstep").split():  # of a heading, or a row
            assert word in captured.out
    assert "GPT-2 small" in " ".join(captured.out.split())  # which is left out


def test_says_when_the_machine_is_busy(monkeypatch: pytest.MonkeyPatch) -> None:
    from fusedstep.benchmarks import report

    monkeypatch.setattr(os, "cpu_count", lambda: 4)
    for load, said in ((0.9, ""), (1.1, "a load of 1.1 on 4 CPUs in the last minute")):
        monkeypatch.setattr(os, "getloadavg", lambda load=load: (load, 9.0, 9.0), raising=False)
        assert report.busy() == said
    monkeypatch.delattr(os, "getloadavg")
    assert report.busy() == ""


@pytest.mark.usefixtures("extra")
def test_does_not_write_over_what_it_compares_with(
    folder: Path, found: list[Results], capsys: pytest.CaptureFixture[str]
) -> None:
    half = run_of(*(one._replace(seconds=one.seconds / 2, low=0.0) for one in WHOLE.records))
    half = run_of(*(one._replace(low=one.seconds, high=one.seconds) for one in half.records))
    found[:] = [WHOLE, half, half, WHOLE]
    assert main(["bench"]) == 0
    assert main(["bench", "--compare", KEPT]) == 0
    assert json_file.read(folder / KEPT) == WHOLE
    assert json_file.read(folder / BESIDE) == half
    output = " ".join(capsys.readouterr().out.split())
    assert CRITERION in output
    assert f"faster: {len(WHOLE.records)}, slower: 0, noise: 0" in output
    assert BESIDE in output
    assert main(["bench", "--compare", f"{folder}/{KEPT}", "--json", KEPT]) == 0
    assert json_file.read(folder / KEPT) == half
    assert f"faster: {len(WHOLE.records)}, " in capsys.readouterr().out
    assert main(["bench", "--compare", BESIDE]) == 0
    assert json_file.read(folder / KEPT) == WHOLE


@pytest.mark.usefixtures("extra", "folder")
def test_a_wrong_file_to_compare_with_costs_no_time(
    found: list[Results], capsys: pytest.CaptureFixture[str]
) -> None:
    found.clear()
    Path("old.json").write_text("{}")
    for name, complaint in (
        ("old.json", "old.json holds no results: the file lacks machine"),
        ("none.json", "cannot read none.json: No such file or directory; pass a file that"),
    ):
        assert main(["bench", "--compare", name]) == 1
        captured = capsys.readouterr()
        assert captured.out == ""
        assert captured.err.startswith(f"fusedstep: error: {complaint}")
        assert captured.err.count("\n") == 1


@pytest.mark.usefixtures("extra")
@pytest.mark.parametrize(("option", "name"), [("json", "a.json"), ("picture", "a.png")])
def test_what_cannot_be_written_costs_only_itself(
    option: str,
    name: str,
    folder: Path,
    found: list[Results],
    capsys: pytest.CaptureFixture[str],
) -> None:
    (folder / name).symlink_to(f"nowhere/{name}")
    assert main(["bench", f"--{option}", name]) == 1
    captured = capsys.readouterr()
    assert "1 × 100,000" in captured.out
    assert captured.err.startswith(f"fusedstep: error: cannot write {name}: ")
    assert captured.err.endswith(f"; name another --{option}\n")
    other = {"json": "drawn in fusedstep-bench.png", "picture": f"kept in {KEPT}"}[option]
    assert captured.out.endswith(f"\nThe results are {other}\n")
    assert {entry.name for entry in folder.iterdir()} == {name, other.split()[-1]}


@pytest.mark.usefixtures("extra", "folder")
def test_what_was_not_written_is_said_to_who_leaves_the_tables(
    found: list[Results], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    from fusedstep.benchmarks import report

    def left(*args: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(report, "show", left)
    Path("a.json").symlink_to("nowhere/a.json")
    assert main(["bench", "--json", "a.json"]) == 1
    first, last = capsys.readouterr().err.splitlines()
    assert first.startswith("fusedstep: error: cannot write a.json: ")
    assert last == "fusedstep: error: interrupted"


@pytest.mark.usefixtures("extra", "folder")
def test_an_interrupted_run_writes_nothing(
    budget: ModuleType, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def interrupted(*args: object) -> Results:
        raise KeyboardInterrupt

    monkeypatch.setattr(budget, "run", interrupted)
    assert main(["bench"]) == 1
    assert capsys.readouterr().err == "fusedstep: error: interrupted; nothing was written\n"
    assert [*Path().iterdir()] == []
