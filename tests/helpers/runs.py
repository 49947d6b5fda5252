"""Runs of `fusedstep bench`, made up."""

from __future__ import annotations

from typing import Any

from fusedstep.benchmarks.records import LIMIT, Machine, Record, Results

MACHINE = Machine(
    cpu="Abacus 3",
    cpus=2,
    caches={"L1": 32 * 2**10, "L2": 2**20, "L3": 32 * 2**20},
    system="Linux 6.8 x86_64",
    isa="avx2",
    threads=2,
    versions={"Python": "3.12.3", "fusedstep": "0.1.0", "NumPy": "2.4.1"},
    date="2026-01-31",
)
MISSING = dict.fromkeys(("torch fused", "torch foreach"), "no torch; `pip install torch`")

TIMES = {LIMIT: 0.8e-6, "fusedstep": 1e-6, "NumPy": 20e-6, "optax": 5e-6}
"""Seconds for 1,000 elements."""


def plain_record(workload: str, contestant: str, seconds: float, **fields: Any) -> Record:
    """A record of a workload of any name, of one tensor unless `fields` say otherwise."""
    usual = Record(
        workload=workload,
        tensors=1,
        elements=1000,
        case="adamw",
        dtype="float32",
        loop="alone",
        contestant=contestant,
        threads=2,
        seconds=seconds,
        low=seconds,
        high=seconds,
        steps=1,
        bytes=28,
        cache="L1",
        share=None,
    )
    return usual._replace(**fields)


def record(workload: str = "1 × 1,000", contestant: str = "fusedstep", **fields: Any) -> Record:
    """A record of `tensors × elements`, which takes the time of TIMES and varies by a few %."""
    tensors, n = (int(part.replace(",", "")) for part in workload.split(" × "))
    seconds = fields.pop("seconds", TIMES.get(contestant, 1e-6) * tensors * n / 1000)
    whole: dict[str, Any] = {
        "tensors": tensors,
        "elements": tensors * n,
        "low": seconds * 0.99,
        "high": seconds * 1.02,
        "steps": 100,
        "share": TIMES[LIMIT] * tensors * n / 1000 / seconds,
    }
    return plain_record(workload, contestant, seconds, **{**whole, **fields})


def run_of(*records: Record, **machine: Any) -> Results:
    return Results(MACHINE._replace(**machine), MISSING, list(records))


LOOP: dict[str, Any] = {"loop": "numpy", "product": 2.2e-3, "product_alone": 2e-3}
WHOLE = run_of(
    *(
        record(workload, name)
        for workload in ("1 × 1,000", "1 × 100,000", "1 × 10,000,000", "1,000 × 1,000")
        for name in TIMES
    ),
    record("1,000 × 1,000", "fusedstep arena", seconds=0.5e-3),
    *(record("1 × 100,000", name, **LOOP) for name in TIMES if name != "optax"),
)
