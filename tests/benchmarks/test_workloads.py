"""Workloads: parameters of the sizes of real networks."""

from __future__ import annotations

import pytest

from fusedstep.benchmarks.workloads import WORKLOADS


@pytest.mark.parametrize(
    ("name", "tensors", "elements"),
    [
        ("1 × 100", 1, 100),
        ("1 × 100,000,000", 1, 100_000_000),
        ("10,000 × 100", 10_000, 1_000_000),
        ("1,000 × 1,000", 1_000, 1_000_000),
        ("MLP", 4, 203_530),
        ("ResNet-50", 161, 25_557_032),
        ("GPT-2 small", 148, 124_439_808),
    ],
)
def test_workloads_have_as_many_elements_as_the_papers_networks(
    name: str, tensors: int, elements: int
) -> None:
    (workload,) = (each for each in WORKLOADS if each.name == name)
    assert (workload.tensors, workload.elements) == (tensors, elements)


def test_workloads_have_names_of_their_own() -> None:
    assert len({workload.name for workload in WORKLOADS}) == len(WORKLOADS) == 12
