"""The tables of `fusedstep bench`."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
from runs import MACHINE, WHOLE, record, run_of

from fusedstep.benchmarks.compare import compare
from fusedstep.benchmarks.records import LIMIT
from fusedstep.benchmarks.tables import explain, tables, tabulate, tabulate_changes
from fusedstep.benchmarks.units import duration, factor

if TYPE_CHECKING:
    from rich.table import Table


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
    lines = [*explain(WHOLE)]
    for said in (
        "of 28 bytes an element",
        "about 100% where memory is the bottleneck, and more where an arena",
        "the products' time changed by +10.0% with limit, +10.0% with fusedstep",
        "Abacus 3, CPUs: 2, caches: L1 32 KiB, L2 1 MiB, L3 32 MiB; Linux 6.8 x86_64",
        "fusedstep 0.1.0, NumPy 2.4.1; instruction set: avx2, threads: 2; 2026-01-31",
    ):
        assert any(said in line for line in lines), said
    missing = ["left out: no torch; `pip install torch`", "  torch fused", "  torch foreach"]
    assert lines[-3:] == missing


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
    [
        *((0.00123, "0.0012 ×"), (0.456, "0.46 ×"), (9.994, "9.99 ×"), (9.996, "10.0 ×")),
        *((99.4, "99.4 ×"), (423.4, "423 ×")),
    ],
)
def test_factors(ratio: float, shown: str) -> None:
    assert factor(ratio) == shown
