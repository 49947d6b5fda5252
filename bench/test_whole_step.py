"""The whole step: unscale, clip by norm, decay, update, zero the gradients, average.

One fused step against separate passes with torch, its update fused, and with NumPy, and against
the same traffic without arithmetic. Every step starts from new gradients, written to the same
arrays outside of the times.
"""

from __future__ import annotations

from cases import Case
from replay import Comparison, each

import fusedstep as fs
from fusedstep.benchmarks.contestants import WHOLE
from fusedstep.benchmarks.records import Record
from fusedstep.benchmarks.workloads import equal

TRAINING = Case(
    "adamw-whole",
    fs.AdamW,
    {"weight_decay": 0.01, "ema": 0.999},
    {"scale": 1024.0, "max_norm": 1.0, "zero_grads": True},
)


def beside(loop: str) -> list[str]:
    """Whose passes are not timed between whose products: nobody has both's threads at work."""
    return {"alone": [], "numpy": ["torch's passes"], "torch": ["NumPy's passes"]}[loop]


@each(
    [
        Comparison(
            equal(1, n),
            TRAINING,
            "float32",
            loop,
            [who for who in WHOLE if who.name not in beside(loop)],
            8.0,
        )
        for n in (1_000_000, 16_000_000)
        for loop in ("alone", "numpy", "torch")
    ]
)
def test_whole_step(replayed: Record) -> None:
    assert replayed.seconds > 0
