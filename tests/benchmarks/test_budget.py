"""The plan of `fusedstep bench`: what fits into its seconds."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from runs import record

from fusedstep.benchmarks import budget
from fusedstep.benchmarks.costs import Cost, shared
from fusedstep.benchmarks.records import Absences


def part_of(name: str, loop: str = "alone") -> Any:
    (part,) = (
        part
        for part in [*budget.BEFORE_TORCH, *budget.PARTS]
        if (part.workload.name, part.loop) == (name, loop)
    )
    return part


@pytest.fixture
def everyone(monkeypatch: pytest.MonkeyPatch) -> None:
    """Pretend that everything contestants need is installed."""
    from fusedstep.benchmarks.contestants.contestant import Contestant

    def kinds(kind: type[Contestant]) -> Iterator[type[Contestant]]:
        yield kind
        for each in kind.__subclasses__():
            yield from kinds(each)

    for kind in kinds(Contestant):
        monkeypatch.setattr(kind, "why_missing", lambda self: None)


@pytest.mark.usefixtures("everyone")
def test_the_slow_go_first_and_ours_last() -> None:
    part = part_of("1 × 1,000,000")
    names = [each.name for each in part.contestants]
    costs = {name: Cost(1.0, 2.0 * k) for k, name in enumerate(names)}
    costs["fusedstep"] = Cost(2.0, 30.0)
    total = shared(part.workload) + 32 + 3 + 5 + 7 + 9 + 11 + 13
    seconds = total + 0.1
    for left in range(len(names), 1, -1):
        chosen, reasons = budget.fitting(part, costs, seconds, room=1e12)
        assert [each.name for each in chosen] == names[:left]
        assert reasons == dict.fromkeys(names[left:], budget.NO_TIME)
        seconds -= sum(costs[names[left - 1]])
    assert budget.fitting(part, costs, 31.0, 1e12) == ([], {"fusedstep": budget.NO_TIME})


@pytest.mark.usefixtures("everyone")
def test_memory_is_not_taken_beyond_what_is_free() -> None:
    part = part_of("GPT-2 small")
    costs = {each.name: Cost(0.0, 0.0) for each in part.contestants}
    for others in (0, 2):  # beside ours and the limit, which has our arrays
        room = (2 + (1 + others) * budget.COPIES) * part.workload.elements
        chosen, reasons = budget.fitting(part, costs, 600.0, room)
        assert len(chosen) == 2 + others
        assert {*reasons.values()} == {budget.NO_MEMORY}
    assert budget.fitting(part, costs, 600.0, 5 * part.workload.elements) == (
        [],
        {"fusedstep": budget.NO_MEMORY},
    )


def test_free_memory(tmp_path: Path) -> None:
    described = tmp_path / "meminfo"
    described.write_text("MemTotal:  8 kB\nMemAvailable:    3 kB\n")
    assert budget.free_memory(described) == 3072
    assert budget.free_memory(tmp_path / "none") > 2**24


def test_says_where_a_contestant_is_left_out_that_takes_part_elsewhere() -> None:
    absences = Absences()
    for workload in ("MLP", "ResNet-50"):
        absences.add(workload, {"optax": "slow", "torch fused": "absent"})
    absences.add("GPT-2 small", {"fusedstep": "large"})
    assert absences.summary([record(contestant="optax")]) == {
        "optax at MLP, ResNet-50": "slow",
        "everyone at GPT-2 small": "large",
        "torch fused": "absent",
    }
