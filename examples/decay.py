"""Weight decay where there are more weights than examples; L1 where few weights matter.

    y = 0.05 + Σ 0.01·xᵢ + noise,  xᵢ ~ N(0, 1),  noise ~ N(0, 0.01²),  i = 1 ... 200
    J(p) = ½·mean (x·w + c - y)² + λ/2·|w|²

20 examples leave 180 directions of w that none of them looks at. From w ~ N(0, 0.05²) these
keep what they started with, unless λ makes them forget; a λ too large forgets what was learned,
too. From w = 0 there is nothing to forget: descent never leaves the examples' span.

    J(p) = ½·mean (x·w + c - y)² + λ₁·Σ |wᵢ|

Of 60 examples whose y depends on 5 inputs of 200, L1 finds these 5. Its minimum has wᵢ = 0 for
most i, but a step by α·λ₁·sign(wᵢ) cannot stop at 0: it goes to and fro, by less than α·λ₁. What
is below 2·α·λ₁ counts as 0 here. Hardly any weight *is* 0.

    python examples/decay.py
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
from parts.methods import Array
from parts.plotting import BLACK, BLUE, GREEN, GREY, RED, Look, label, save, sheet
from parts.shell import options, table

import fusedstep as fs

D = 200
NOISE = 0.01
DECAYS = [0.0, *(10 ** np.arange(-3, 2.1, 0.5)).tolist()]
"""λ"""

L1, SPARSE_LR = 0.01, 0.01
"""λ₁ of the picture, and the α of the sparse problem."""


class Problem(NamedTuple):
    x: Array
    y: Array
    test_x: Array
    test_y: Array


def problem(w: Array, n: int, seed: int) -> Problem:
    """Draw n examples to train on, and 1,000 to test."""
    rng = np.random.default_rng(seed)
    x = rng.standard_normal((n + 1000, len(w)))
    y = 0.05 + x @ w + NOISE * rng.standard_normal(len(x))
    return Problem(x[:n], y[:n], x[n:], y[n:])


def descend(
    problem: Problem, start: Array, penalties: Sequence[float], lr: float, steps: int, kind: str
) -> tuple[list[Array], list[Array]]:
    """One (w, c) for each penalty, all by one optimizer; the c are not decayed."""
    x, y, *_ = problem
    ws = [start.copy() for _ in penalties]
    cs = [np.zeros(1) for _ in penalties]
    groups = [{"params": w, kind: penalty} for w, penalty in zip(ws, penalties, strict=True)]
    opt = fs.SGD([*groups, {"params": cs}], lr=lr)
    for _ in range(steps):
        errors = [x @ w + c - y for w, c in zip(ws, cs, strict=True)]
        grads = [x.T @ e / len(x) for e in errors]
        opt.step([*grads, [e.mean(keepdims=True) for e in errors]])
    return ws, cs


def error(x: Array, y: Array, w: Array, c: Array) -> float:
    """½·mean of the squared error."""
    return float(0.5 * ((x @ w + c - y) ** 2).mean())


class Fit(NamedTuple):
    penalty: float
    """λ or λ₁"""
    training: float
    test: float
    w: Array


def fits(
    problem: Problem, start: Array, penalties: Sequence[float], lr: float, steps: int, kind: str
) -> list[Fit]:
    x, y, test_x, test_y = problem
    ws, cs = descend(problem, start, penalties, lr, steps, kind)
    return [
        Fit(penalty, error(x, y, w, c), error(test_x, test_y, w, c), w)
        for penalty, w, c in zip(penalties, ws, cs, strict=True)
    ]


def decayed(seed: int, steps: int) -> dict[str, list[Fit]]:
    """Fits over λ, from random weights and from zero."""
    seen = problem(np.full(D, 0.01), 20, seed)
    random = 0.05 * np.random.default_rng([seed, 1]).standard_normal(D)
    starts = {"random": random, "zero": np.zeros(D)}
    return {name: fits(seen, w, DECAYS, 0.015, steps, "weight_decay") for name, w in starts.items()}


def sparse(seed: int, steps: int) -> dict[str, Fit]:
    """Fits with L2 and with L1 where 5 weights are ±0.1 and the others 0."""
    truth = np.zeros(D)
    truth[:5] = [0.1, -0.1, 0.1, -0.1, 0.1]
    seen = problem(truth, 60, seed)
    found = {
        kind: fits(seen, np.zeros(D), penalties, SPARSE_LR, steps, kind)
        for kind, penalties in [("weight_decay", [0.01, 0.1, 1.0]), ("l1", [0.003, L1, 0.03])]
    }
    return {f"{kind} = {fit.penalty:g}": fit for kind, row in found.items() for fit in row}


def kept(fit: Fit, l1: bool) -> int:
    """How many weights are larger than the to and fro around 0, for L2 that of the middle λ₁."""
    penalty = fit.penalty if l1 else L1
    return int((np.abs(fit.w) > 2 * SPARSE_LR * penalty).sum())


def draw(found: dict[str, list[Fit]], few: dict[str, Fit], picture: Path) -> None:
    figure, axes = sheet(1, 3, 11.5, 4.2)
    errors, norms, weights = axes[0]
    label(errors, "20 examples, 200 weights", "λ", "½·mean squared error")
    label(norms, "what is left of the weights", "λ", "|w|")
    for (name, row), color, marker in zip(found.items(), [BLUE, RED], "os", strict=True):
        decays, line = [fit.penalty for fit in row], Look(color, marker).line()
        errors.plot(decays, [fit.test for fit in row], label=f"test, from {name}", **line)
        norms.plot(decays, [np.linalg.norm(fit.w) for fit in row], label=f"from {name}", **line)
    line = Look(BLACK, "D").line(linestyle="--", mfc="white")
    training = [fit.training for fit in found["zero"]]
    errors.plot(decays, training, label="training, from either", **line)
    for ax in (errors, norms):
        ax.set_xscale("symlog", linthresh=1e-3)
        ax.set_xticks([0, 1e-2, 1, 100])
    errors.set(yscale="log", ylim=(1e-6, 30))
    errors.legend()
    norms.legend()
    label(weights, "60 examples, 5 weights that matter", "weight, from the largest", "|wᵢ|")
    for name, look in [(f"l1 = {L1}", Look(GREEN, "^")), ("weight_decay = 0.1", Look(BLACK, "o"))]:
        sizes = np.sort(np.abs(few[name].w))[::-1]
        weights.loglog(range(1, D + 1), sizes, label=name, **look.line([0, 4, 5, 20, 60, 150]))
    weights.axhline(2 * SPARSE_LR * L1, color=GREY, linestyle=":", label="2·α·λ₁")
    weights.legend(loc="lower left")
    save(figure, picture)


def main(argv: Sequence[str] | None = None) -> None:
    chosen = options(__doc__, argv, "decay.png", steps=4000)
    found, few = decayed(chosen.seed, chosen.steps // 4), sparse(chosen.seed, chosen.steps)
    for name, row in found.items():
        table(
            f"20 examples, 200 weights, from {name}",
            ["λ", "training error", "test error", "|w|"],
            [[f"{lam:.3g}", one, test, float(np.linalg.norm(w))] for lam, one, test, w in row],
        )
    table(
        "60 examples, 5 of 200 weights matter",
        ["penalty", "test error", "weights exactly 0", "above 2·α·λ₁, L2: 0.0002"],
        [
            [name, fit.test, int((fit.w == 0).sum()), kept(fit, "l1" in name)]
            for name, fit in few.items()
        ],
    )
    draw(found, few, chosen.picture)


if __name__ == "__main__":
    main()
