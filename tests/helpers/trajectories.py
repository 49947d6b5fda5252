"""Trajectories of many steps, and how closely two of them agree."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Sequence
from math import cos, pi
from typing import Any

import numpy as np
import oracle
from cases import Case, ordinary
from oracle import Array, Trajectory

import fusedstep as fs

# Every element of a mean that starts from zero has a² ≤ (1 - ρᵗ)·v, whatever the gradients
# (Cauchy and Schwarz). So centered RMSprop's v - a² is at least ρᵗ·v, over these steps 0.6·v
# for the cases' ρ = 0.99, and cannot cancel.
STEPS = 50
SIZE = 257

# A step rounds some ten times, which over all steps comes to 6e-14 in float64. The rest is
# for where rounding is amplified: g + λ·p with opposite signs, and 1 - β₂ᵗ, which has 2e-3
# left of 1 at t = 2.
TOLERANCE = 1e-12

TORCH_LETTERS = {
    "momentum_buffer": "b",
    "sum": "s",
    "square_avg": "v",
    "grad_avg": "a",
    "exp_avg": "m",
    "exp_avg_sq": "v",
    "max_exp_avg_sq": "x",
    "exp_inf": "x",
}


def oracle_of(optimizer: type[fs.Optimizer]) -> Callable[..., Trajectory]:
    """The papers' pseudocode, which has the optimizer's name."""
    found: Callable[..., Trajectory] = getattr(oracle, optimizer.__name__.lower())
    return found


def problem(dtype: Any) -> tuple[Array, list[Array]]:
    """Draw a start, and a gradient for each step."""
    rng = np.random.default_rng(7)
    return ordinary(rng, SIZE, dtype), [ordinary(rng, SIZE, dtype) for _ in range(STEPS)]


def walk(
    case: Case,
    backend: str,
    start: Array,
    gradients: Sequence[Array],
    schedule: Sequence[float] | None = None,
) -> Trajectory:
    p = start.copy()
    opt = case.optimizer(p, backend=backend, **case.options)
    initial_lr = opt.lr
    trajectory: Trajectory = {}
    for index, g in enumerate(gradients):
        if schedule is not None:
            opt.lr = schedule[index] * initial_lr
        opt.step(g.copy(), **case.request)
        state = {letter: array for letter, array in opt.state.items() if letter != "t"}
        for letter, array in {"p": p, **state}.items():
            trajectory.setdefault(letter, []).append(array.copy())
    return trajectory


def walk_in_torch(torch: Any, case: Case, start: Array, gradients: Sequence[Array]) -> Trajectory:
    optimizer = getattr(torch.optim, case.optimizer.__name__)
    shortcuts = {"foreach", "fused"} & inspect.signature(optimizer).parameters.keys()
    p = torch.nn.Parameter(torch.from_numpy(start.copy()))
    opt = optimizer([p], **case.options, **dict.fromkeys(shortcuts, False))
    trajectory: Trajectory = {}
    for g in gradients:
        p.grad = torch.from_numpy(g.copy())
        opt.step()
        scalars = {"step", "mu_product"}
        state = {TORCH_LETTERS[name]: s for name, s in opt.state[p].items() if name not in scalars}
        for letter, tensor in {"p": p, **state}.items():
            trajectory.setdefault(letter, []).append(tensor.detach().numpy().copy())
    return trajectory


def scale(letter: str, start: Array, values: Array) -> Array:
    """Say what errors in `values`, one row for each step, are relative to.

    Squares only add up, so s, v and x have their own size. The others cross zero, where
    terms cancel whose rounding stays: theirs is the largest size that the element has had.
    No term that went into it can have been more than twice as large.
    """
    sizes = np.abs(values)
    if letter in {"s", "v", "x"}:
        return sizes
    if letter == "p":
        sizes[0] = np.maximum(sizes[0], np.abs(start))
    return np.maximum.accumulate(sizes)


def assert_agree(
    actual: Trajectory, expected: Trajectory, start: Array, tolerance: float | Array
) -> None:
    """Every element after every step; `tolerance` is one for all steps or one for each."""
    assert actual.keys() == expected.keys()
    for letter in expected:
        values = np.stack(expected[letter])
        assert np.isfinite(values).all()
        sizes = np.maximum(scale(letter, start, values), np.finfo(values.dtype).tiny)
        errors = np.abs(np.stack(actual[letter]) - values) / sizes
        worst = errors.max(axis=1)
        within = worst <= tolerance
        assert within.all(), (
            f"{letter} at step {1 + np.argmin(within)}: {worst[np.argmin(within)]:.3g} off, "
            f"and up to {worst.max():.3g} later"
        )


def assert_follows(paper: Callable[..., Trajectory], case: Case, backend: str) -> None:
    start, gradients = problem(np.float64)
    actual = walk(case, backend, start, gradients)
    expected = paper(start, gradients, **case.options)
    assert_agree(actual, expected, start, TOLERANCE)


def assert_follows_under_a_schedule(
    paper: Callable[..., Trajectory], case: Case, backend: str
) -> None:
    start, gradients = problem(np.float64)
    warm_up_and_cosine = [
        min(t / 10, 1) * (1 + cos(pi * t / STEPS)) / 2 for t in range(1, STEPS + 1)
    ]
    actual = walk(case, backend, start, gradients, warm_up_and_cosine)
    expected = paper(start, gradients, schedule=warm_up_and_cosine, **case.options)
    assert_agree(actual, expected, start, TOLERANCE)
