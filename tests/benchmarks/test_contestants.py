"""The contestants: the same update, and reasons where one is left out."""

from __future__ import annotations

from inspect import signature
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from cases import BASES, CUSTOM_BASES, DTYPES, TRAINING, Case
from marks import for_each

import fusedstep as fs
from fusedstep.benchmarks import contestants
from fusedstep.benchmarks.contestants import contestant as parts
from fusedstep.benchmarks.contestants import deepspeed
from fusedstep.benchmarks.contestants.contestant import Contestant
from fusedstep.benchmarks.contestants.numpy import rule_of
from fusedstep.benchmarks.problem import ADAMW, Problem

SHAPES = ((33,), (5, 7), (1,))

# CPUAdam of DeepSpeed compiles for a minute, and has no float64.
UPDATES = [
    pytest.param(
        *(contestant, dtype),
        id=f"{dtype.__name__}-{contestant.name}",
        marks=[pytest.mark.slow]
        if contestant is contestants.DEEPSPEED or dtype is np.float64
        else [],
    )
    for dtype in DTYPES
    for contestant in contestants.EVERYONE
    if contestant.steps and (contestant, dtype) != (contestants.DEEPSPEED, np.float64)
]


@pytest.mark.parametrize(("contestant", "dtype"), UPDATES)
def test_contestants_make_the_same_update(contestant: Contestant, dtype: Any) -> None:
    """Each ends where the definition of the rules does, and alters nothing that others read."""
    missing = contestant.why_missing()
    if missing is not None:
        pytest.skip(missing)
    problems = [Problem(case, SHAPES, dtype) for case in [*BASES, *CUSTOM_BASES, TRAINING]]
    fit = [problem for problem in problems if contestant.why_unfit(problem) is None]
    assert fit
    for problem in fit:
        case = problem.case
        entry = contestant.build(problem)
        expected = [p.copy() for p in problem.start]
        grads = [g.copy() for g in problem.grads]
        optimizer = problem.optimizer(expected, "numpy")
        for _ in range(4):
            optimizer.step([g.copy() for g in grads], **case.request)
            if entry.ready is not None:
                entry.ready()
            entry.step()
        tolerance = 1e-9 if dtype is np.float64 else 2e-5
        tolerance = 1e-5 if case is TRAINING else tolerance  # torch adds 10⁻⁶ to the norm
        for found, p in zip(entry.params(), expected, strict=True):
            np.testing.assert_allclose(found, p, rtol=tolerance, atol=tolerance, err_msg=case.name)
        for g, was in zip(problem.grads, grads, strict=True):
            np.testing.assert_array_equal(g, was, err_msg="others have the same gradients")


@for_each(BASES)
def test_torch_and_numpy_take_part_wherever_they_can(case: Case) -> None:
    problem = Problem(case, SHAPES, np.float32)
    rule = rule_of(case)
    fits = rule is not None and case.options.keys() <= signature(rule).parameters.keys()
    assert (contestants.NUMPY.why_not(problem) is None) is fits
    if contestants.PLAIN.why_missing() is not None:
        pytest.skip(str(contestants.PLAIN.why_missing()))
    assert (contestants.PLAIN.why_not(problem) is None) is case.in_torch
    fused = case.in_torch and case.optimizer in (fs.SGD, fs.Adagrad, fs.Adam, fs.AdamW)
    assert (contestants.FUSED.why_not(problem) is None) is fused


def test_what_is_not_installed_is_missing_with_its_remedy(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(parts, "find_spec", lambda name: None)
    problem = Problem(ADAMW, SHAPES, np.float32)
    reasons = {who.name: who.why_not(problem) for who in contestants.EVERYONE if who.packages}
    assert reasons == {
        "torch fused": "torch not installed; `pip install 'fusedstep[bench]'`",
        "torch foreach": "torch not installed; `pip install 'fusedstep[bench]'`",
        "torch": "torch not installed; `pip install 'fusedstep[bench]'`",
        "optax": "optax, jax not installed; `pip install 'fusedstep[bench]'`",
        "DeepSpeed CPUAdam": "deepspeed, torch not installed; `pip install 'fusedstep[deepspeed]'`",
        "torch's passes": "torch not installed; `pip install 'fusedstep[bench]'`",
    }


def test_deepspeed_says_what_it_lacks_to_compile(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(parts, "find_spec", lambda name: True)
    monkeypatch.setenv("TORCH_EXTENSIONS_DIR", str(tmp_path))
    monkeypatch.setenv("PATH", str(tmp_path / "bin"))
    monkeypatch.setenv("CXX", "some-compiler")
    who = contestants.DEEPSPEED
    assert "ninja" in str(who.why_missing())
    for program in ("ninja", "some-compiler"):
        assert program in str(who.why_missing())
        path = tmp_path / "bin" / program
        path.parent.mkdir(exist_ok=True)
        path.touch(mode=0o755)
    assert who.why_missing() is None
    assert "not compiled yet" in str(who.why_slow_to_start())
    (tmp_path / "cpu_adam").mkdir()
    (tmp_path / "cpu_adam" / "cpu_adam.so").touch()
    assert deepspeed.built() == tmp_path / "cpu_adam" / "cpu_adam.so"
    assert who.why_slow_to_start() is None


def test_who_makes_the_update_alone_is_left_out_of_the_whole_step() -> None:
    problem = Problem(TRAINING, SHAPES, np.float32)
    assert contestants.NUMPY.why_not(problem) == (
        "the textbook's update alone has no 'scale', 'max_norm', 'zero_grads', 'ema'"
    )
    assert contestants.DEFAULT.why_not(problem) is None


def test_large_parameters_are_shared_and_small_ones_are_not(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    from fusedstep.benchmarks import problem as module

    problem = Problem(ADAMW, SHAPES, np.float32)
    assert problem.params()[0] is not problem.start[0]
    monkeypatch.setattr(module, "LARGE", 10)
    assert problem.params()[0] is problem.start[0]
    assert contestants.NEW_ARRAYS.why_not(problem) == "3 sets of gradients are too large"


def test_new_arrays_are_new_at_each_step(monkeypatch: pytest.MonkeyPatch) -> None:
    seen = []
    monkeypatch.setattr(fs.AdamW, "step", lambda self, grads: seen.append(grads[0].ctypes.data))
    entry = contestants.NEW_ARRAYS.build(Problem(ADAMW, SHAPES, np.float32))
    for _ in range(4):
        entry.step()
    assert len({*seen}) == 3
    assert seen[3] == seen[0]
