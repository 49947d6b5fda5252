"""Audits of torch's own optimizers: the faults that hold in this release, and no others."""

from __future__ import annotations

from pathlib import Path

import pytest
from auditing import BOTH, GRADIENT, PARAMETER, PERMUTED, audited, failed
from marks import needs
from reproducing import reproduce

torch = needs("torch", "torch")

pytestmark = pytest.mark.skipif(
    not torch.__version__.startswith("2.13."),
    reason="the faults were seen in torch 2.13; `pip install '.[compare]'`",
)

VIEWS = (PARAMETER | GRADIENT | BOTH - {f"both: {layout}" for layout in PERMUTED}) | {
    *("beside a parameter", "every element of a view")
}
"""Checks that fail where a kernel takes all memory to be contiguous and in the same order."""

LAST_BITS = {"size of the tensor", "position", "number of threads", "other tensors"}
"""Checks that may fail with the CPU, by its instruction set and its number of cores."""

HALF = {"zero gradients, float16"}
"""Checks that fail where ε vanishes in float16."""

SIMD = {"first step, bfloat16", "first step, float16"}

FAILING = {
    "torch.optim.SGD()": set(),
    "torch.optim.SGD(momentum=0.9, foreach=True)": set(),
    "torch.optim.AdamW()": HALF,
    "torch.optim.AdamW(foreach=True)": HALF,
    "torch.optim.NAdam()": HALF | {"float64"},
    "torch.optim.SGD(fused=True)": VIEWS | SIMD,
    "torch.optim.Adagrad(fused=True)": VIEWS | HALF,
    "torch.optim.AdamW(fused=True)": VIEWS,
}


QUICK = ("torch.optim.AdamW()", "torch.optim.AdamW(fused=True)")
"""The classes that every run of the tests looks at."""


@pytest.mark.parametrize(
    "expression",
    [pytest.param(each, marks=[] if each in QUICK else pytest.mark.slow) for each in FAILING],
)
def test_what_fails(expression: str, tmp_path: Path) -> None:
    report = audited(expression)
    assert failed(report) - LAST_BITS == FAILING[expression]
    if "fused" not in expression:
        assert not failed(report) & LAST_BITS
    reproduce(report, tmp_path)


def test_another_momentum_is_another_formula() -> None:
    assert audited("torch.optim.SGD()").formula == "SGD, as torch has it"
    assert audited("torch.optim.Rprop()").formula == "no formula for Rprop"
