"""Audits of optimizers with one fault each: the checks that fail are those of the fault."""

from __future__ import annotations

from pathlib import Path

import pytest
from auditing import BOTH, GRADIENT, PARAMETER, audited, failed
from marks import needs
from reproducing import reproduce

from fusedstep.audits.checks import CHECKS
from fusedstep.audits.records import FAILS, NOT_JUDGED, REFUSES, STALLS

torch = needs("torch", "torch")

SHORT = (30.0,)
"""Seconds after which a program counts as hanging, where one hangs."""

FAULTS: dict[str, set[str]] = {
    "right": set(),
    "decays_apart": {"weight decay"},
    "forgets": {"resume"},
    "breaks_on_loading": {"resume"},
    "writes_gradients": {"gradient kept"},
    "knows_one_group": {"groups"},
    "keeps_its_rate": {"learning rate", "groups"},
    "steps_without_gradients": {"no gradient", "steps of its own"},
    "counts_all_steps": {"steps of its own"},
    "spreads_nan": {"NaN"},
    "spreads_infinity": {"infinity"},
    "divides_by_zero": {
        *("zero gradients", "zero gradients, bfloat16", "zero gradients, float16", "subnormals")
    },
    "flushes": {"subnormals"},
    "drops_copies": PARAMETER | BOTH,
    "leaves_its_memory": {"stays a view"},
    "reads_gradients_flat": GRADIENT | BOTH,
    "crashes_on_strides": GRADIENT | BOTH,
    "computes_in_float32": {"float64"},
    "minds_company": {"other tensors"},
    "minds_threads": {"number of threads"},
    "skips_blocks_of_16_bits": {"first step, bfloat16", "first step, float16"},
    "hangs_without_dimensions": {"no dimensions"},
    "refuses_views": set(),
}
"""The checks that fail, by the fault in `faulty_optimizers`."""

AMONG_OTHERS: dict[str, set[str]] = {
    "rounds_tails_otherwise": {"size of the tensor", "position"},
    "goes_past_views": {"beside a parameter"},
    "computes_in_bfloat16": {"first steps", "1,000 steps", "float64"},
    "is_random": {"repeats"},
}
"""The same, of those which disturb other checks as well."""


QUICK = (
    *("right", "decays_apart", "spreads_nan", "skips_blocks_of_16_bits", "drops_copies"),
    *("reads_gradients_flat", "goes_past_views"),
)
"""The faults that every run of the tests looks at: an audit takes some ten seconds."""


@pytest.mark.parametrize(
    "fault",
    [
        pytest.param(fault, marks=[] if fault in QUICK else pytest.mark.slow)
        for fault in (*FAULTS, *AMONG_OTHERS)
    ],
)
def test_a_fault_fails_its_checks_and_reproducers_show_it(fault: str, tmp_path: Path) -> None:
    report = audited(f"faulty_optimizers.{fault}.SGD()", *(SHORT if "hangs" in fault else ()))
    if fault in FAULTS:
        assert failed(report) == FAULTS[fault]
    else:
        assert failed(report) >= AMONG_OTHERS[fault]
    if fault != "hangs_without_dimensions":
        reproduce(report, tmp_path, same=fault != "is_random")


def test_a_crash_ends_one_check_alone() -> None:
    report = audited("faulty_optimizers.crashes_on_strides.SGD()")
    assert all("SIGSEGV" in finding.seen for finding in report.of(FAILS))
    assert report.findings[-1].verdict == "passes"


def test_a_hang_ends_one_check_alone() -> None:
    (finding,) = audited("faulty_optimizers.hangs_without_dimensions.SGD()", *SHORT).of(FAILS)
    assert finding.seen == "no end after 30 s"


def test_an_exception_is_a_refusal() -> None:
    refused = audited("faulty_optimizers.refuses_views.SGD()").of(REFUSES)
    assert {finding.check for finding in refused} == (
        PARAMETER | BOTH | {"beside a parameter", "stays a view"}
    )
    assert {finding.seen for finding in refused} == {"ValueError: p is not contiguous; β"}


def test_sixteen_bits_stall() -> None:
    stalled = audited("faulty_optimizers.right.SGD()").of(STALLS)
    assert [finding.check for finding in stalled] == [
        "small steps, bfloat16",
        "small steps, float16",
    ]


def test_without_a_formula_the_others_are_judged() -> None:
    report = audited("faulty_optimizers.Unknown()")
    assert report.count(FAILS) == 0
    reasons = {finding.check: finding.seen for finding in report.of(NOT_JUDGED)}
    assert reasons["first steps"] == "no formula for Unknown"
    assert reasons.keys() < {*CHECKS}
    assert "resume" not in reasons
    assert "NaN" not in reasons
