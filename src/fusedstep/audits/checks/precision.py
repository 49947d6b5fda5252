"""Precision: steps of 16-bit parameters."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from math import ceil, log2

import numpy as np

from fusedstep.audits.checks.check import Checks, Trial, inputs
from fusedstep.audits.checks.elements import MOVED, UNMOVED
from fusedstep.audits.checks.values import by_formula
from fusedstep.audits.formulas import trajectory
from fusedstep.audits.subject import EPS, NotJudgedError, Subject

CHECKS = Checks()
GROUP = "16 bits"

STEPS = 256


def first(subject: Subject, dtype: str) -> Trial:
    """Half of the step may be missing: ε and β are no longer what they are once in 16 bits.

    Without a formula it is enough that an element moves.
    """
    text = f"{inputs(67, 1, subject.shape(67))}start = 0 * start\n"
    if isinstance(subject.known, str):
        subject.need_dtype(dtype)
        subject.need_separate()
        body = (
            f"{text}gradients = [np.sign(g) for g in gradients]\n"
            f'after = train(start, gradients, "{dtype}")\n{MOVED}'
        )
        return Trial(subject.program(["train"], body), unless_all=UNMOVED)
    trial = by_formula(subject, text, dtype)
    assert trial.expected is not None
    return replace(trial, tolerance=np.abs(trial.expected) / 2)


@CHECKS.add(GROUP, "first step, bfloat16", "every element takes the first step from 0")
def first_bfloat16(subject: Subject) -> Iterator[Trial]:
    yield first(subject, "bfloat16")


@CHECKS.add(GROUP, "first step, float16", "every element takes the first step from 0")
def first_float16(subject: Subject) -> Iterator[Trial]:
    yield first(subject, "float16")


def small(subject: Subject, dtype: str) -> Trial:
    """Steps that are smaller than half of the distance between two numbers of the dtype.

    The parameter starts at a power of two above which no single step can move it, if it is
    rounded to the dtype after each.
    """
    subject.need_dtype(dtype)
    rule, options = subject.formula()
    one = np.ones(1)
    longest = trajectory(rule, 0 * one, [one] * STEPS, **options).longest
    largest = float(longest[0])
    if largest == 0:
        raise NotJudgedError("its learning rate is 0")
    start = 2.0 ** ceil(log2(largest / EPS[dtype] * 4 * 1.5))
    end = float(trajectory(rule, start * one, [one] * STEPS, **options).p[0])
    if not 2.0**-10 <= start <= 2.0**14:
        raise NotJudgedError("its steps are too large or too small for the check")
    shape = subject.shape(67)
    body = (
        f"start = np.full({shape}, {start!r})\n"
        f'seen = train(start, [np.ones({shape})] * {STEPS}, "{dtype}")'
    )
    expected = np.full((67,) if subject.flat else (1, 67), end)
    way = np.full(expected.shape, abs(start - end) / 2)
    return Trial(subject.program(["train"], body), expected, way, stalled=start)


@CHECKS.add(GROUP, "small steps, bfloat16", "256 steps below half a spacing move a parameter")
def small_bfloat16(subject: Subject) -> Iterator[Trial]:
    yield small(subject, "bfloat16")


@CHECKS.add(GROUP, "small steps, float16", "256 steps below half a spacing move a parameter")
def small_float16(subject: Subject) -> Iterator[Trial]:
    yield small(subject, "float16")
