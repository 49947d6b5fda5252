"""Two runs compared: what is a change, what is noise, and what is said of other work."""

from __future__ import annotations

from typing import Any

import pytest
from runs import LOOP, record, run_of

from fusedstep.benchmarks.compare import CRITERION, compare
from fusedstep.benchmarks.records import LIMIT
from fusedstep.benchmarks.tables import explain_changes


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
