"""The steps without an object: those of the optimizers."""

from __future__ import annotations

import inspect
from typing import Any, TypeAlias

import numpy as np
import pytest
from cases import BASES, OPTIMIZERS, Case, differing_bits, ordinary
from marks import for_each

import fusedstep as fs
from fusedstep._core.declaration import declaration_of
from fusedstep._core.kept import STORAGE

Array: TypeAlias = np.ndarray[Any, Any]


def function_of(optimizer: Any) -> Any:
    return getattr(fs.functional, optimizer.__name__.lower())


@for_each(BASES)
def test_functional_equals_the_optimizer(case: Case) -> None:
    rng = np.random.default_rng(0)
    p = ordinary(rng, 500, np.float32).reshape(20, 25)
    mine = p.copy()
    optimizer = case.optimizer(p, **case.options)
    call = function_of(case.optimizer)
    options = {
        name: value
        for name, value in case.options.items()
        if name in inspect.signature(call).parameters
    }
    # State arrays of the caller may have another layout than p.
    states = {
        letter: np.array(optimizer.state[letter], order="F")
        for letter in declaration_of(case.optimizer).letters
        if letter in optimizer.state
    }
    for t in (1, 2, 3):
        g = ordinary(rng, 500, np.float32).reshape(20, 25)
        optimizer.step(g)
        call(mine, g, **states, t=t, **options)
    assert differing_bits(mine, p) == 0
    for letter, array in states.items():
        assert differing_bits(array, optimizer.state[letter]) == 0


@pytest.mark.parametrize("optimizer", OPTIMIZERS, ids=lambda optimizer: optimizer.__name__)
def test_functional_has_the_defaults_of_the_class(optimizer: Any) -> None:
    """Two kinds of options are left out: state arrays stand for some, others belong to a run."""
    of_class = inspect.signature(optimizer).parameters
    of_function = inspect.signature(function_of(optimizer)).parameters
    options = declaration_of(optimizer).letters.values()
    implied = {option for option in options if option and of_class[option].default is False}
    implied |= {"params", "initial_accumulator_value", "ema", *STORAGE, "nonfinite", "capturable"}
    names = [name for name in of_class if name not in implied]
    assert [name for name in of_function if name in of_class] == names
    for name in names:
        assert of_function[name].default == of_class[name].default, name


def test_functional_schedule() -> None:
    p = np.array([1.0])
    m, v = np.zeros(1), np.zeros(1)
    fs.functional.adamw(
        p,
        np.zeros(1),
        m,
        v,
        t=1,
        lr=0.1,
        initial_lr=0.2,
        weight_decay=0.5,
        decay_scale="schedule",
    )
    assert p == 0.75
