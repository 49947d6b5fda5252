"""The optimizers of `fusedstep.rules`: their papers, torch, and the bits of every backend."""

from __future__ import annotations

import inspect
import math
import re
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from cases import (
    CUSTOM_BASES,
    CUSTOM_CASES,
    CUSTOM_OPTIMIZERS,
    SIZES,
    Case,
    differing_bits,
    difficult,
    in_torch,
    ordinary,
)
from marks import COMPILING, for_each, for_each_dtype, needs, on_backends_for_custom_rules
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

from fusedstep import Optimizer, rules
from fusedstep._core.declaration import declaration_of

OF_TORCH = [optimizer for optimizer in CUSTOM_OPTIMIZERS if in_torch(optimizer)]

on_compiling_backends = pytest.mark.parametrize("backend", COMPILING)
for_each_rule = pytest.mark.parametrize("optimizer", CUSTOM_OPTIMIZERS, ids=lambda o: o.__name__)
for_each_of_torch = pytest.mark.parametrize("optimizer", OF_TORCH, ids=lambda o: o.__name__)


@pytest.fixture(scope="module")
def torch() -> Iterator[Any]:
    """Torch, with float64 for the scalars that it keeps in its default dtype."""
    torch = needs("torch", "torch")
    before = torch.get_default_dtype()
    torch.set_default_dtype(torch.float64)
    yield torch
    torch.set_default_dtype(before)


# ---- trajectories ----


@on_backends_for_custom_rules
@for_each(CUSTOM_CASES)
def test_float64_follows_the_papers(case: Case, backend: str) -> None:
    assert_follows(oracle_of(case.optimizer), case, backend)


@on_backends_for_custom_rules
@for_each(CUSTOM_BASES)
def test_float64_follows_the_papers_under_a_schedule(case: Case, backend: str) -> None:
    assert_follows_under_a_schedule(oracle_of(case.optimizer), case, backend)


@on_backends_for_custom_rules
@for_each([case for case in CUSTOM_CASES if case.optimizer in OF_TORCH and case.in_torch])
def test_float64_follows_torch(case: Case, backend: str, torch: Any) -> None:
    start, gradients = problem(np.float64)
    actual = walk(case, backend, start, gradients)
    expected = walk_in_torch(torch, case, start, gradients)
    assert_agree(actual, expected, start, TOLERANCE)


def test_radam_is_seen_before_and_after_it_rectifies() -> None:
    """The comparisons above mean something only if both kinds of steps are in them."""
    for case in CUSTOM_BASES:
        if case.optimizer is rules.RAdam:
            h = case.optimizer(np.zeros(1), **case.options).param_groups[0].hyperparameters
            kinds = {
                bool(declaration_of(case.optimizer).scalars(h, t)["rectified"])
                for t in range(1, STEPS + 1)
            }
            assert kinds == ({False} if case.name == "radam-never-rectified" else {False, True})


# ---- bits ----


@on_compiling_backends
@for_each_dtype
@for_each(CUSTOM_CASES)
def test_the_same_bits_on_difficult_values(case: Case, dtype: Any, backend: str) -> None:
    for n in [*SIZES, 1025]:
        assert_same_bits(case, backend, n, dtype, difficult)


@on_compiling_backends
@for_each_dtype
@for_each(CUSTOM_BASES)
def test_the_same_bits_with_threads(case: Case, dtype: Any, backend: str, threads: int) -> None:
    for n in [16385, 100_003]:
        assert_same_bits(case, backend, n, dtype, ordinary)


def assert_same_bits(case: Case, backend: str, n: int, dtype: Any, make: Any) -> None:
    """Compare after so many steps that RAdam rectifies in some of its rows."""
    rng = np.random.default_rng(n)
    start, gradients = make(rng, n, dtype), [make(rng, n, dtype) for _ in range(8)]
    expected = walk(case, "numpy", start, gradients)
    found = walk(case, backend, start, gradients)
    assert found.keys() == expected.keys()
    for letter in expected:
        assert differing_bits(found[letter][-1], expected[letter][-1]) == 0, letter


# ---- scalars ----


def test_nadam_goes_on_at_a_late_step_as_if_it_had_been_there() -> None:
    p = np.array([1.0, -2.0])
    opt = rules.NAdam(p)
    late = opt.state_dict()
    late["state"]["t"] = 10**9
    opt.load_state_dict(late)
    opt.step(np.array([0.5, 0.25]))
    assert np.isfinite(p).all()
    assert opt.state["t"] == 10**9 + 1


def test_adan_sees_no_change_at_a_parameters_first_step() -> None:
    """A parameter that was skipped at first has its first step later than the others."""
    p, q = np.ones(2), np.ones(2)
    opt = rules.Adan([p, q])
    g = np.array([3.0, -4.0])
    opt.step([g, None])
    opt.step([2 * g, g])
    first, second = opt.state
    np.testing.assert_array_equal(second["a"], 0)
    np.testing.assert_allclose(first["a"], (1 - 0.92) * g)
    np.testing.assert_array_equal(first["o"], 2 * g)


@for_each_rule
def test_a_gradient_of_zero_moves_nothing(optimizer: Any) -> None:
    """Signs of zero are zero, and nothing is divided by one."""
    p = np.array([1.5, -2.0])
    options = {"initial_v": 0.0} if optimizer is rules.Yogi else {}
    opt = optimizer(p, backend="numpy", **options)
    for _ in range(2):
        opt.step(np.zeros(2))
    np.testing.assert_array_equal(p, [1.5, -2.0])
    for letter in opt.state.keys() - {"t"}:
        assert np.isfinite(opt.state[letter]).all()


# ---- classes ----


@for_each_of_torch
def test_hyperparameters_have_the_order_and_defaults_of_torch(optimizer: Any, torch: Any) -> None:
    ours = inspect.signature(optimizer).parameters
    theirs = inspect.signature(getattr(torch.optim, optimizer.__name__)).parameters
    positional = [
        name for name in ours if ours[name].kind is inspect.Parameter.POSITIONAL_OR_KEYWORD
    ]
    assert positional == list(theirs)[: len(positional)]
    shared = ours.keys() & theirs.keys()
    assert shared >= {"params", "lr", "betas", "eps", "weight_decay", "maximize"}
    assert {name: ours[name].default for name in shared} == {
        name: theirs[name].default for name in shared
    }


@for_each_rule
def test_every_argument_is_described(optimizer: Any) -> None:
    text = inspect.getdoc(optimizer) or ""
    for argument in inspect.signature(optimizer).parameters:
        assert re.search(rf"^(\w+, )*{argument}(, \w+)*$", text, re.MULTILINE), argument
    assert ">>> " in text


def test_the_package_reads_the_module_when_it_is_asked_for() -> None:
    code = (
        "import sys, fusedstep as fs; assert 'fusedstep.rules' not in sys.modules; "
        "assert fs.rules is sys.modules['fusedstep.rules']"
    )
    subprocess.run([sys.executable, "-c", code], check=True)


def test_the_module_lists_its_optimizers() -> None:
    found = [name for name, thing in vars(rules).items() if is_optimizer(thing)]
    assert sorted(found) == sorted(rules.__all__)
    assert all(math.isfinite(optimizer(np.zeros(1)).lr) for optimizer in CUSTOM_OPTIMIZERS)


def is_optimizer(thing: Any) -> bool:
    return inspect.isclass(thing) and issubclass(thing, Optimizer)


@for_each_rule
def test_hyperparameters_are_checked(optimizer: Any) -> None:
    p = np.zeros(2)
    with pytest.raises(ValueError, match=r"lr=-1 is negative"):
        optimizer(p, lr=-1)
    with pytest.raises(ValueError, match=r"betas\[1\]=1.0 is outside \[0, 1\)"):
        optimizer(p, betas=(0.9, 1.0, 0.5)[: len(optimizer(p).param_groups[0]["betas"])])
    with pytest.raises(TypeError, match=r"betas=0.9 \(float\); pass [23] numbers"):
        optimizer(p, betas=0.9)
    with pytest.raises(ValueError, match=r"weight_decay=-0.1 is negative"):
        optimizer(p, weight_decay=-0.1)
    with pytest.raises(ValueError, match="holds the package's own rules alone"):
        optimizer(p, backend="c")


@on_backends_for_custom_rules
def test_scalars_are_prepared_once_a_step(backend: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Looking at each gradient anew prepares them no second time."""
    optimizer = rules.NAdam(np.ones(3), backend=backend)
    declaration = declaration_of(rules.NAdam)
    calls: list[int] = []

    def counting(h: Any, t: int) -> Any:
        calls.append(t)
        return declaration.scalars(h, t)

    monkeypatch.setattr(rules.NAdam, "_declaration", replace(declaration, scalars=counting))
    for _ in range(3):
        optimizer.step(np.ones(3))
    assert calls == [1, 2, 3]
