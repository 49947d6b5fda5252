"""What fits into the seconds of `fusedstep bench`."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING, Any

import pytest

from fusedstep.benchmarks.records import LIMIT

if TYPE_CHECKING:
    pass
from runs import LOOP, record


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
