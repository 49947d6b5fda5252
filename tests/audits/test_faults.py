"""Audits of optimizers with one fault each: the checks that fail are those of the fault."""

from __future__ import annotations

from pathlib import Path

import pytest
from auditing import BOTH, GRADIENT, PARAMETER, audited, failed
from marks import needs
from reproducing import reproduce

from fusedstep.audits.checks import CHECKS
from fusedstep.audits.records import FAILS, NOT_JUDGED, PASSES, REFUSES, STALLS

torch = needs("torch", "torch")

SHORT = (30.0,)
"""Seconds after which a program counts as hanging, where one hangs."""

VIEWS = {"every element of a view"}

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
    "drops_copies": PARAMETER | BOTH | VIEWS,
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


HALVES = {"first step, bfloat16", "first step, float16"}

WITHOUT_FORMULA: dict[str, set[str]] = {
    "right": set(),
    "decays_the_tail": {
        *("size of the tensor", "position", "no dimensions", "zero gradients"),
        *("zero gradients, bfloat16", "zero gradients, float16"),
    },
    "leaves_the_tail": HALVES | VIEWS | {"size of the tensor", "every element", "position"},
    "leaves_the_last_of_a_row": PARAMETER | BOTH | VIEWS,
    "minds_a_neighbour": {"size of the tensor", "other elements", "position"},
    "loses_nan": {"NaN"},
    "skips_blocks_of_16_bits": HALVES,
    "scales_by_norms": set(),
    "scales_by_size": set(),
    "estimates_its_rate": set(),
}
"""The checks that fail where nothing is known of the rule; none where it is another rule."""


QUICK = ("right", "spreads_nan", "reads_gradients_flat")
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


@pytest.mark.parametrize(
    "fault",
    [
        pytest.param(fault, marks=[] if fault == "leaves_the_tail" else pytest.mark.slow)
        for fault in WITHOUT_FORMULA
    ],
)
def test_faults_are_found_without_a_formula(fault: str, tmp_path: Path) -> None:
    report = audited(f"faulty_optimizers.{fault}.SGD()", rule="none")
    assert failed(report) == WITHOUT_FORMULA[fault]
    assert report.formula == "no formula, by --as none"
    assert not report.compared
    reproduce(report, tmp_path)


DERIVED: dict[str, set[str]] = {
    "Derived": set(),
    "WithArguments": set(),
    "TailAdamW": {"first steps", "every element", "position", "first step, bfloat16"},
    "TwiceAdam": {"first steps", "bias correction", "1,000 steps"},
    "LateAdam": {"first steps", "bias correction", "1,000 steps"},
    "ForgivingAdam": {"NaN"},
}
"""Subclasses of torch's classes, and checks that fail among others."""


@pytest.mark.parametrize(
    "name",
    [pytest.param(name, marks=[] if name == "TailAdamW" else pytest.mark.slow) for name in DERIVED],
)
def test_a_subclass_is_held_against_its_base(name: str, tmp_path: Path) -> None:
    report = audited(f"faulty_optimizers.{name}()")
    base = "Adam" if name.endswith(("Adam", "Arguments")) else "AdamW"
    assert report.formula == (
        f"{base}, as torch has it, which {name} is derived from; --as names another rule"
    )
    found = failed(report) - {"zero gradients, float16"}
    assert found >= DERIVED[name]
    assert found == DERIVED[name] or name not in ("Derived", "WithArguments", "ForgivingAdam")
    assert report.count(NOT_JUDGED) == 0
    reproduce(report, tmp_path)


@pytest.mark.slow
def test_a_subclass_that_mixes_elements_has_another_rule() -> None:
    report = audited("faulty_optimizers.NormedAdam()")
    assert failed(report) == {"zero gradients, float16"}
    assert report.formula.startswith("no formula for NormedAdam, which is derived from Adam, as")


@pytest.mark.slow
def test_a_rule_that_is_named() -> None:
    report = audited("faulty_optimizers.Plain()", rule="torch.optim.SGD")
    assert report.formula == "SGD, as torch has it, by --as torch.optim.SGD()"
    assert failed(report) == set()
    assert report.count(PASSES) >= 49
    report = audited("faulty_optimizers.Plain()", rule="torch.optim.SGD(momentum=0.5)")
    assert {"first steps", "1,000 steps"} <= failed(report)


@pytest.mark.slow
def test_a_crash_ends_one_check_alone() -> None:
    report = audited("faulty_optimizers.crashes_on_strides.SGD()")
    assert all("SIGSEGV" in finding.seen for finding in report.of(FAILS))
    assert report.findings[-1].verdict == "passes"


@pytest.mark.slow
def test_a_hang_ends_one_check_alone() -> None:
    (finding,) = audited("faulty_optimizers.hangs_without_dimensions.SGD()", *SHORT).of(FAILS)
    assert finding.seen == "no end after 30 s"


def test_an_exception_is_a_refusal() -> None:
    refused = audited("faulty_optimizers.refuses_views.SGD()").of(REFUSES)
    assert {finding.check for finding in refused} == (
        PARAMETER | BOTH | VIEWS | {"beside a parameter", "stays a view"}
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
