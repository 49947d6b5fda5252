"""The whole step: unscale, clip by norm, decay, update, zero the gradients, average.

One fused step against separate passes with torch, whose update is fused, and with NumPy, and
against the same traffic without arithmetic. New gradients are written to the same arrays before
each step, outside of its time.
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


LEFT_OUT = {"alone": None, "numpy": "torch's passes", "torch": "NumPy's passes"}
"""torch's passes between NumPy products and vice versa: no real program runs both thread pools."""


@each(
    [
        Comparison(
            equal(1, n),
            TRAINING,
            "float32",
            loop,
            [contestant for contestant in WHOLE if contestant.name != LEFT_OUT[loop]],
            8.0,
        )
        for n in (1_000_000, 16_000_000)
        for loop in LEFT_OUT
    ]
)
def test_whole_step(replayed: Record) -> None:
    assert replayed.seconds > 0
