"""Trajectories of many steps, against the papers' pseudocode and against torch's plain loop."""

from __future__ import annotations

import ast
import inspect
from typing import Any

import numpy as np
import oracle
import pytest
from cases import BASES, CASES, OPTIMIZERS, Case, in_torch
from marks import for_each, needs, on_each_backend
from trajectories import (
    STEPS,
    TOLERANCE,
    assert_agree,
    assert_follows,
    assert_follows_under_a_schedule,
    oracle_of,
    problem,
    walk,
    walk_in_torch,
)

import fusedstep as fs

OF_TORCH = [optimizer for optimizer in OPTIMIZERS if in_torch(optimizer)]

for_each_of_torch = pytest.mark.parametrize("optimizer", OF_TORCH, ids=lambda o: o.__name__)


@pytest.fixture(scope="module")
def torch() -> Any:
    return needs("torch", "torch")


@on_each_backend
@for_each(CASES)
def test_float64_follows_the_papers(case: Case, backend: str) -> None:
    assert_follows(oracle_of(case.optimizer), case, backend)


@on_each_backend
@for_each(BASES)
def test_float64_follows_the_papers_under_a_schedule(case: Case, backend: str) -> None:
    assert_follows_under_a_schedule(oracle_of(case.optimizer), case, backend)


@on_each_backend
@for_each(BASES)
def test_float32_strays_from_the_papers_by_a_few_roundings_a_step(case: Case, backend: str) -> None:
    # BASES alone: in the crossed ones g + λ·p may cancel and sign(p) differ at any step, which
    # float64 has the digits to judge. The longest way from inputs to p, a first step of Adam,
    # comes to 12 half ulps at most; each further step may add as much.
    start, gradients = problem(np.float32)
    actual = walk(case, backend, start, gradients)
    expected = oracle_of(case.optimizer)(start, gradients, **case.options)
    half_ulp = np.finfo(np.float32).eps / 2
    assert_agree(actual, expected, start, 12 * half_ulp * np.arange(1, STEPS + 1))


@on_each_backend
@for_each([case for case in CASES if case.in_torch])
def test_float64_follows_torch(case: Case, backend: str, torch: Any) -> None:
    start, gradients = problem(np.float64)
    actual = walk(case, backend, start, gradients)
    expected = walk_in_torch(torch, case, start, gradients)
    assert_agree(actual, expected, start, TOLERANCE)


@for_each_of_torch
def test_hyperparameters_have_the_order_and_defaults_of_torch(
    optimizer: type[fs.Optimizer], torch: Any
) -> None:
    ours = inspect.signature(optimizer).parameters
    theirs = inspect.signature(getattr(torch.optim, optimizer.__name__)).parameters
    positional = [
        name for name in ours if ours[name].kind is inspect.Parameter.POSITIONAL_OR_KEYWORD
    ]
    assert positional == list(theirs)[: len(positional)]
    shared = ours.keys() & theirs.keys()
    assert shared > {"params", "lr", "weight_decay", "maximize"}
    assert {name: ours[name].default for name in shared} == {
        name: theirs[name].default for name in shared
    }


def test_the_oracle_imports_nothing_of_the_package() -> None:
    imported = set()
    for node in ast.walk(ast.parse(inspect.getsource(oracle))):
        if isinstance(node, ast.Import):
            imported |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            imported.add(node.module or "")
    assert imported == {"__future__", "collections.abc", "typing", "numpy"}
