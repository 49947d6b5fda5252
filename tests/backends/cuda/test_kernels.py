"""The text of the CUDA kernels: names that cannot meet, and the same text for the same rule."""

from __future__ import annotations

import ast
import re

import formulas
import numpy as np
import pytest

import fusedstep as fs
from fusedstep._backends.cuda import kernels
from fusedstep._backends.plan import Job
from fusedstep._core.declaration import declaration_of
from fusedstep._numerics import variants
from fusedstep._numerics.coefficients import Rule

OF_ARRAYS = re.compile(r"(\w+)_(at|\d)")


def names_of_kernel(rule: Rule) -> set[str]:
    module = ast.parse(kernels.text(Job(rule, np.dtype(np.float32))))
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
