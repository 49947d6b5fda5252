"""The seconds that contestants are expected to take."""

from __future__ import annotations

import pytest
from runs import LOOP, record

from fusedstep.benchmarks import contestants, costs
from fusedstep.benchmarks.records import LIMIT
from fusedstep.benchmarks.workloads import equal


def test_steps_of_unknown_sizes_lie_on_lines_through_known_ones() -> None:
    known = [(1000, 2.0), (2000, 3.0), (4000, 9.0)]
    expected = [(10, 2.0), (1000, 2.0), (1500, 2.5), (3000, 6.0), (4000, 9.0), (6000, 15.0)]
    for elements, seconds in expected:
        assert costs.interpolated(elements, known) == seconds
    assert costs.interpolated(10**6, known[:1]) == 2.0
    assert costs.interpolated(10**6, []) == 0.0


def test_what_many_tensors_take_is_known_from_fewer() -> None:
    small, large = equal(1_000, 1_000), equal(10_000, 100)
    records = [record("1 × 1,000"), record("1 × 1,000,000", seconds=1e-3)]
    step = costs.expected_step("fusedstep", small, records)
    assert step == pytest.approx(1e-3)
    records.append(record("1,000 × 1,000", seconds=4e-3))  # 3 µs for each tensor
    step = costs.expected_step("fusedstep", large, records)
    assert step == pytest.approx(31e-3)
    records += [record("1 × 1,000,000", seconds=1.0, **LOOP), record("1 × 1,000", "optax")]
    parts = [contestants.DEFAULT, contestants.LIMIT, contestants.OPTAX]
    found = costs.expected(large, parts, "alone", records)
    copying = costs.COPYING * 1e6
    assert found["fusedstep"].before == pytest.approx(copying + costs.FIRST * step)
    assert found["fusedstep"].turns == pytest.approx(costs.LEAST * step)
    assert found[LIMIT] == (0.0, 0.0)
    first = costs.COMPILING["optax"] * 10_000 + copying + costs.FIRST * 5e-6
    assert found["optax"] == pytest.approx((first, costs.LEAST * 5e-6))


def test_the_products_of_a_loop_count(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(costs, "product_seconds", lambda loop: 1.0)
    found = costs.expected(equal(1, 100_000), [contestants.DEFAULT], "numpy", [])
    assert found["fusedstep"] == pytest.approx((costs.FIRST, 5 * (16 + 4)), rel=1e-2)
