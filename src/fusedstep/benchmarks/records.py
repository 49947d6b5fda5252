"""What a benchmark found, and its form as JSON."""

from __future__ import annotations

from typing import Any, NamedTuple

LIMIT = "limit"
"""The contestant that moves a step's bytes and computes nothing."""


class Record(NamedTuple):
    """The time of one contestant's step on one workload."""

    workload: str
    """Its name: "1 × 1,000", "ResNet-50"."""

    tensors: int
    elements: int
    """Of all tensors together."""

    case: str
    """The rule and its options: "adamw"."""

    dtype: str

    loop: str
    """What runs before each step: "alone" is nothing, "numpy" and "torch" a product of theirs."""

    contestant: str
    """"fusedstep", "torch fused", ...; LIMIT is the same traffic without arithmetic."""

    threads: int

    seconds: float
    """Of a step, the median over the turns."""

    low: float
    high: float
    """The quartiles of it."""

    steps: int
    """That were timed."""

    bytes: int
    """That a step has to move for each element, read and written."""

    cache: str
    """The nearest memory that holds what the step moves: "L1", "L2", "L3", "memory"."""

    share: float | None
    """The limit's time over this one, if the limit was timed in the same run."""

    product: float | None = None
    """Seconds of the matrix product before a step, the median."""

    product_alone: float | None = None
    """The same in a loop without steps, in the same run."""

    @property
    def speed(self) -> float:
        """Of its traffic, in GB/s."""
        return self.bytes * self.elements / self.seconds / 1e9


class Machine(NamedTuple):
    """Where and with what it was found."""

    cpu: str
    cpus: int
    """That this process may use."""

    caches: dict[str, int]
    """Bytes of "L1" and "L2" a core, and of "L3" as the cores share it; those that are known."""

    system: str
    isa: str | None
    """The instruction set in force, None without the C engine."""

    threads: int
    versions: dict[str, str]
    """Of Python, of this package and of all that took part."""

    date: str
    """As 2026-01-31."""


class Results(NamedTuple):
    """One run: contestants took turns, so that records of one workload compare."""

    machine: Machine
    missing: dict[str, str]
    """Contestants that were left out, and why."""

    records: list[Record]

    def to_dict(self) -> dict[str, Any]:
        return {
            "machine": self.machine._asdict(),
            "missing": self.missing,
            "records": [{**record._asdict(), "speed": record.speed} for record in self.records],
        }
