"""Values: the optimizer against its rule in float64."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from typing import Any

from fusedstep.audits import formulas
from fusedstep.audits.checks.check import Checks, Trial, arrays, inputs
from fusedstep.audits.records import VALUES
from fusedstep.audits.subject import EPS, NotJudgedError, Subject

CHECKS = Checks()
GROUP = VALUES

CORRECTED = (
    formulas.adam,
    formulas.adamax,
    formulas.nadam,
    formulas.nadam_constant,
    formulas.radam,
    formulas.yogi,
    formulas.adan,
)
"""The rules that are corrected for bias."""


def by_formula(subject: Subject, text: str, dtype: str = "float32", **changes: Any) -> Trial:
    """Train from the start and the gradients that `text` makes, and compare with the formula."""
    subject.need_dtype(dtype)
    start, gradients = arrays(text)
    given = "" if dtype == "float32" else f', "{dtype}"'
    expected, tolerance = subject.follow(start, gradients, EPS[dtype], **changes)
    float64 = dtype == "float64"
    body = f"{text}seen = train(start, gradients{given})"
    return Trial(
        changed(subject, **changes).program(["train"], body, float64=float64),
        expected,
        tolerance,
        apart=float64 and bool(subject.wide),
    )


def changed(subject: Subject, **changes: Any) -> Subject:
    """The same optimizer with other hyperparameters."""
    return replace(subject, call=subject.call.with_keywords(**changes))


@CHECKS.add(GROUP, "first steps", "8 steps follow the rule in float64, within roundings")
def first_steps(subject: Subject) -> Iterator[Trial]:
    yield by_formula(subject, inputs(67, 8, subject.shape(67)))


@CHECKS.add(GROUP, "bias correction", "the first and the second step from 0 are corrected")
def bias_correction(subject: Subject) -> Iterator[Trial]:
    if subject.formula().rule not in CORRECTED:
        raise NotJudgedError(f"{subject.call.name} has no bias correction")
    for steps in (1, 2):
        yield by_formula(subject, inputs(13, steps, subject.shape(13)) + "start = 0 * start\n")


@CHECKS.add(GROUP, "weight decay", "with weight_decay=0.125, 8 steps follow the rule")
def weight_decay(subject: Subject) -> Iterator[Trial]:
    subject.formula()
    if "weight_decay" not in subject.accepts:
        raise NotJudgedError(f"{subject.call.name} takes no weight_decay")
    yield by_formula(subject, inputs(67, 8, subject.shape(67)), weight_decay=0.125)


@CHECKS.add(GROUP, "maximize", "with maximize=True, 8 steps climb as the rule would")
def maximize(subject: Subject) -> Iterator[Trial]:
    subject.formula()
    if "maximize" not in subject.accepts:
        raise NotJudgedError(f"{subject.call.name} takes no maximize")
    yield by_formula(subject, inputs(67, 8, subject.shape(67)), maximize=True)


@CHECKS.add(GROUP, "1,000 steps", "1,000 steps follow the rule, within a rounding each")
def many_steps(subject: Subject) -> Iterator[Trial]:
    yield by_formula(subject, inputs(5, 1000, subject.shape(5)))


@CHECKS.add(GROUP, "float64", "100 steps in float64 are as exact as float64 is")
def float64(subject: Subject) -> Iterator[Trial]:
    subject.formula()
    if subject.tensors:
        raise NotJudgedError(f"its {', '.join(subject.tensors)} may be of less precision")
    yield by_formula(subject, inputs(13, 100, subject.shape(13)), "float64")
