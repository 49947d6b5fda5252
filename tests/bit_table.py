"""Print how many elements of each case were compared with the reference, and how many differ.

    python tests/bit_table.py

Every case runs on difficult values at sizes around the vector width and on ordinary ones at
a size that threads share, on each instruction set and with 1, 2 and 7 threads.
"""

from __future__ import annotations

from collections import Counter
from typing import Any

import numpy as np
from cases import CASES, DTYPES, SIZES, Case, differing_bits, difficult, ordinary
from rich.console import Console
from rich.progress import track
from rich.table import Table
from test_bits import steps

import fusedstep as fs

THREADS = (1, 2, 7)
SHARED_SIZE = 40_009
STEPS = 4


def inputs() -> list[tuple[Any, list[Any]]]:
    made = []
    for dtype in DTYPES:
        for n in (*SIZES, 1025, SHARED_SIZE):
            rng = np.random.default_rng(n)
            make = ordinary if n == SHARED_SIZE else difficult
            made.append((make(rng, n, dtype), [make(rng, n, dtype) for _ in range(STEPS)]))
    return made


def compare(case: Case, data: list[tuple[Any, list[Any]]]) -> Counter[tuple[str, str, int]]:
    """Elements compared ("all") and differing ("bad") by instruction set and threads."""
    counts: Counter[tuple[str, str, int]] = Counter()
    for p, grads in data:
        expected = steps(case, "numpy", p, grads)
        for isa in fs.info().isas:
            fs.set_isa(isa)
            for threads in THREADS:
                fs.set_num_threads(threads)
                found = steps(case, "c", p, grads)
                for letter, array in expected.items():
                    counts["all", isa, threads] += array.size
                    counts["bad", isa, threads] += differing_bits(found[letter], array)
    return counts


def main() -> None:
    console = Console(width=120)
    data = inputs()
    isas = fs.info().isas
    columns = [(isa, threads) for isa in isas for threads in THREADS]
    table = Table("case", title="elements that differ from the reference, by engine and threads")
    table.add_column("compared\nin each", justify="right")
    for isa, threads in columns:
        table.add_column(f"c {isa}\n{threads}", justify="right")
    compared = differing = 0
    for case in track(CASES, console=console, transient=True):
        counts = compare(case, data)
        found = [counts["bad", isa, threads] for isa, threads in columns]
        each = [counts["all", isa, threads] for isa, threads in columns]
        assert len(set(each)) == 1
        table.add_row(case.name, f"{each[0]:,}", *map(str, found))
        compared += sum(each)
        differing += sum(found)
    console.print(table)
    console.print(f"{len(CASES)} cases, {compared:,} elements compared, {differing:,} differ")


if __name__ == "__main__":
    main()
