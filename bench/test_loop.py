"""Steps inside a training loop: a matrix product before each, and how much slower it gets.

The threads of the step and of the product share the cores, so that neither can be judged alone.
"""

from __future__ import annotations

from replay import Comparison, each
from test_step import ADAMW

from fusedstep.benchmarks.contestants import LOOPS
from fusedstep.benchmarks.records import Record
from fusedstep.benchmarks.workloads import equal


@each(
    [
        Comparison(equal(1, n), ADAMW, "float32", loop, contestants, 8.0)
        for loop, contestants in LOOPS.items()
        for n in (100_000, 1_000_000, 8_000_000)
    ]
)
def test_between_products(replayed: Record) -> None:
    assert replayed.product is not None
    assert replayed.product_alone is not None
