"""The machine, as results describe it."""

from __future__ import annotations

from pathlib import Path

import pytest

import fusedstep as fs
from fusedstep.benchmarks.machine import caches, cpu, machine, nearest


def test_the_cpus_name_is_the_systems(tmp_path: Path) -> None:
    described = tmp_path / "cpuinfo"
    described.write_text("processor\t: 0\nmodel name\t: Some CPU @ 3: fast\nflags\t: a b\n")
    assert cpu(described) == "Some CPU @ 3: fast"
    assert cpu(tmp_path / "nothing")


def test_caches_are_those_that_hold_data(tmp_path: Path) -> None:
    for index, (level, kind, size) in enumerate(
        [("1", "Data", "32K"), ("1", "Instruction", "64K"), ("2", "Unified", "1M"), ("3", "", "?")]
    ):
        folder = tmp_path / f"index{index}"
        folder.mkdir()
        for name, value in (("level", level), ("type", kind), ("size", size)):
            (folder / name).write_text(f"{value}\n")
    assert caches(tmp_path) == {"L1": 32 << 10, "L2": 1 << 20}
    assert caches(tmp_path / "nothing") == {}


@pytest.mark.parametrize(
    ("footprint", "threads", "expected"),
    [
        (10, 1, "L1"),
        (20, 1, "L2"),
        (20, 2, "L1"),
        (500, 2, "L3"),
        (500, 5, "L2"),
        (5000, 9, "memory"),
    ],
)
def test_the_nearest_memory_that_holds_it_all(footprint: int, threads: int, expected: str) -> None:
    assert nearest(footprint, threads, {"L1": 10, "L2": 100, "L3": 1000}) == expected
    assert nearest(footprint, threads, {}) == "unknown"


def test_the_machine_says_what_takes_part() -> None:
    here = machine(["cffi", "no-such-package"])
    assert {"python", "fusedstep", "numpy", "cffi"} == here.versions.keys()
    assert here.isa == fs.info().isa
    assert here.cpus >= 1
    assert len(here.date) == 10
