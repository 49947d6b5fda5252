"""The results of a benchmark: a record for each contestant's step, and where they were measured."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

OURS = "fusedstep"
"""This package's usual step, which others are compared with; names of its variants begin so."""

LIMIT = "limit"
"""The contestant that moves a step's bytes and computes nothing."""


class Record(NamedTuple):
    """The time of one contestant's step on one workload."""

    workload: str
    """Name of the workload: "1 × 1,000", "ResNet-50"."""

    tensors: int

    elements: int
    """Number of elements, of all tensors together."""

    case: str
    """Name of the rule with its options: "adamw"."""

    dtype: str

    loop: str
    """Work before each step: "alone" none, "numpy" and "torch" a matrix product of theirs."""

    contestant: str
    """Name of the contestant: "fusedstep", "torch fused", "limit"."""

    threads: int

    seconds: float
    """Time of a step, the median of the turns."""

    low: float
    """The lower quartile of the turns, in seconds."""

    high: float
    """The upper quartile of the turns, in seconds."""

    steps: int
    """Number of timed steps."""

    bytes: int
    """Bytes that a step moves for each element, reads and writes together."""

    cache: str
    """The nearest memory that holds what the step moves: "L1", "L2", "L3", "memory"."""

    share: float | None
    """The limit's time over this one; None if the limit was not timed in the same run."""

    product: float | None = None
    """Seconds of the matrix product before a step, the median."""

    product_alone: float | None = None
    """Seconds of the same product in a loop without steps, in the same run."""

    @property
    def speed(self) -> float:
        """Traffic in GB/s."""
        return self.bytes * self.elements / self.seconds / 1e9

    @property
    def label(self) -> str:
        """Name of the workload, and what runs before its steps."""
        return between(self.workload, self.loop)


def between(workload: str, loop: str) -> str:
    """Name of a workload, and what runs before its steps: "MLP between NumPy products"."""
    if loop == "alone":
        return workload
    return f"{workload} between {PRODUCTS.get(loop, loop)} products"


PRODUCTS = {"numpy": "NumPy", "torch": "torch"}
"""Libraries of matrix products, by the name of their loop."""


class Machine(NamedTuple):
    """The machine and the software of a run."""

    cpu: str

    cpus: int
    """Number of CPUs that this process may use."""

    caches: dict[str, int]
    """Bytes of "L1" and "L2" a core, and of the shared "L3"; those that are known."""

    system: str

    isa: str | None
    """The instruction set in force; None without the C backend."""

    threads: int

    versions: dict[str, str]
    """Versions of Python, of this package and of those it was compared with."""

    date: str
    """Day of the run: "2026-01-31"."""


class Results(NamedTuple):
    """One run: contestants took turns, so that records of one workload compare."""

    machine: Machine

    missing: dict[str, str]
    """The reason why a contestant was left out, by its name or "name at workloads"."""

    records: list[Record]

    def to_dict(self) -> dict[str, Any]:
        return {
            "machine": self.machine._asdict(),
            "missing": self.missing,
            "records": [{**record._asdict(), "speed": record.speed} for record in self.records],
        }


class Absences:
    """Contestants that were left out: from which comparisons, and why."""

    def __init__(self) -> None:
        self.comparisons: dict[tuple[str, str], list[str]] = {}
        """Names of comparisons, by contestant and reason."""

    def add(self, comparison: str, missing: Mapping[str, str]) -> None:
        """Note the contestants that are `missing` from a comparison, with their reasons."""
        for contestant, reason in missing.items():
            self.comparisons.setdefault((contestant, reason), []).append(comparison)

    def summary(self, records: Sequence[Record]) -> dict[str, str]:
        """Reasons by contestant, or by "contestant at comparisons" if it has records elsewhere.

        Without our own step there is no comparison, so that all contestants are missing then.
        """
        present = {record.contestant for record in records}
        reasons: dict[str, str] = {}
        for (contestant, reason), comparisons in self.comparisons.items():
            where = ", ".join(comparisons)
            if contestant == OURS:
                reasons[f"everyone at {where}"] = reason
            elif contestant in present:
                reasons[f"{contestant} at {where}"] = reason
            else:
                reasons.setdefault(contestant, reason)
        return reasons
