"""The text of the CUDA kernels: names that cannot meet, and the same text for the same rule."""

from __future__ import annotations

import ast
import re

import fewer_bytes
import formulas
import numpy as np
import pytest

import fusedstep as fs
from fusedstep._backends.cuda import formats, kernels
from fusedstep._backends.plan import Held, Job, Storages
from fusedstep._core.declaration import declaration_of
from fusedstep._numerics import variants
from fusedstep._numerics.coefficients import Rule
from fusedstep._numerics.storage import Draw

OF_ARRAYS = re.compile(r"(\w+)_(at|\d)")


OF_OPERANDS = re.compile(r"(\w+)_(at|second|word|base|most|u?\d)")
"""The same in kernels whose operands are kept in fewer bytes."""


def names_of_kernel(rule: Rule) -> set[str]:
    return names_in(kernels.text(Job(rule, np.dtype(np.float32))))


def names_in(text: str) -> set[str]:
    """The names that a kernel has and reads."""
    module = ast.parse(text)
    (run,) = (node for node in module.body if getattr(node, "name", "") == "run")
    return {node.id for node in ast.walk(run) if isinstance(node, ast.Name)}


def test_names_that_come_from_arrays_end_as_no_others_do() -> None:
    rule = Rule("adamw", ("m", "v", None), averaged=True)
    found = {match[1] for name in names_of_kernel(rule) if (match := OF_ARRAYS.fullmatch(name))}
    assert found == {*variants.step(rule).variables} == {"p", "g", "m", "v", "ema"}


@pytest.mark.parametrize("allowed", formulas.ALLOWED, ids=lambda each: each.function.__name__)
def test_a_kernel_has_the_same_names_whatever_the_rule(allowed: formulas.Allowed) -> None:
    custom = fs.rule(state=allowed.state, **allowed.hyperparameters)(allowed.function)
    own, plain = (
        {name for name in names_of_kernel(rule) if not OF_ARRAYS.fullmatch(name)}
        for rule in (declaration_of(custom).rule({}), Rule("sgd"))
    )
    assert own == plain


@pytest.mark.parametrize("case", fewer_bytes.FEW, ids=lambda case: case.name)
def test_names_where_operands_are_kept_in_fewer_bytes(case: fewer_bytes.Case) -> None:
    job = fewer_bytes.job_of(case)
    names = names_in(formats.text(job))
    found = {match[1] for name in names if (match := OF_OPERANDS.fullmatch(name))}
    assert found == {*variants.step(job.rule).variables}


def test_formats_of_a_rule_with_names_of_the_kernel() -> None:
    @fs.rule(state=("block", "word_u0"), lr=0.5)
    def far(p, g, block, word_u0, h):  # type: ignore[no-untyped-def]
        return p - h.lr * g, block + g, word_u0 - g

    held = Held("bfloat16"), Held("float16"), (Held("signed8"), Held("bfloat16", Draw(0, False)))
    rule = declaration_of(far).rule({})
    text = formats.text(Job(rule, np.dtype(np.float32), Storages(*held)))
    of_arrays = {"p", "g", "block", "word_u0"}
    found = {match[1] for name in names_in(text) if (match := OF_OPERANDS.fullmatch(name))}
    assert found == of_arrays
