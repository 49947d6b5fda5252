"""Numba's kernels against C's on the same arrays, and a custom rule beside them.

The custom rule is AdamW: the same memory traffic, and two more operations an element.
"""

from __future__ import annotations

from functools import partial
from typing import Any

import numpy as np
from replay import Comparison, each
from test_step import ADAMW

import fusedstep as fs
from fusedstep.benchmarks.contestants import DEFAULT, LIMIT, NUMBA
from fusedstep.benchmarks.contestants.contestant import Contestant, Entry
from fusedstep.benchmarks.problem import Problem
from fusedstep.benchmarks.records import Record
from fusedstep.benchmarks.workloads import MANY, equal


def prepare(h: Any, t: int) -> dict[str, float]:
    return {"rate": h.lr / (1 - h.beta1**t), "r": (1 - h.beta2**t) ** -0.5}


@fs.rule(
    state=("m", "v"),
    prepare=prepare,
    lr=1e-3,
    beta1=0.9,
    beta2=0.999,
    eps=1e-8,
    weight_decay=1e-2,
)
def Custom(p, g, m, v, h):  # type: ignore[no-untyped-def]  # noqa: N802
    p = p * (1 - h.lr * h.weight_decay)
    m = h.beta1 * m + (1 - h.beta1) * g
    v = h.beta2 * v + (1 - h.beta2) * g**2
    p = p - h.rate * m / (np.sqrt(v) * h.r + h.eps)
    return p, m, v


CASE = ADAMW._replace(name="adamw-backends")


class CustomRule(Contestant):
    name = "custom rule"

    def why_missing(self) -> str | None:
        return fs.info().backends["numba"]

    def why_unfit(self, problem: Problem) -> str | None:
        return None if problem.case is CASE else "it is written out for AdamW"

    def build(self, problem: Problem) -> Entry:
        params = problem.params()
        optimizer = Custom(params, **problem.case.options, backend="numba")
        return Entry(partial(optimizer.step, problem.grads), lambda: params, problem.threads)


@each(
    [
        Comparison(workload, CASE, "float32", "alone", [DEFAULT, NUMBA, CustomRule(), LIMIT], 4.0)
        for workload in (*(equal(1, n) for n in (1_000, 100_000, 1_000_000)), *MANY)
    ]
)
def test_backends(replayed: Record) -> None:
    assert replayed.seconds > 0
