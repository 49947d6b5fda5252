"""Steps by themselves: AdamW over all workloads, every rule, and float64."""

from __future__ import annotations

from cases import BASES
from replay import Comparison, each

from fusedstep.benchmarks.contestants import CALL, CONTESTANTS
from fusedstep.benchmarks.records import Record
from fusedstep.benchmarks.workloads import WORKLOADS, equal

(ADAMW,) = (case for case in BASES if case.name == "adamw")
ALL = [*CONTESTANTS, CALL]

SECONDS = {"10,000 × 100": 8.0, "1 × 16,000,000": 8.0, "GPT-2 small": 8.0}
"""Seconds of workloads whose slowest contestants need more than 4."""

STEPS = [
    Comparison(workload, ADAMW, "float32", "alone", ALL, SECONDS.get(workload.name, 4.0))
    for workload in WORKLOADS
]
RULES = [
    Comparison(equal(1, 1_000_000), case, "float32", "alone", CONTESTANTS, 2.0)
    for case in BASES
    if case is not ADAMW
]
FLOAT64 = [
    Comparison(workload, ADAMW, "float64", "alone", CONTESTANTS, 3.0)
    for workload in WORKLOADS
    if workload.name in ("1 × 1,000", "1 × 1,000,000", "1 × 16,000,000", "MLP")
]


@each(STEPS)
def test_adamw(replayed: Record) -> None:
    assert replayed.seconds > 0


@each(RULES)
def test_rules(replayed: Record) -> None:
    assert replayed.seconds > 0


@each(FLOAT64)
def test_float64(replayed: Record) -> None:
    assert replayed.seconds > 0
