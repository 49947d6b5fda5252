"""Weight decay where there are more weights than examples.

    y = 0.05 + Σ 0.01·xᵢ + noise,  xᵢ ~ N(0, 1),  noise ~ N(0, 0.01²),  i = 1 ... 200
    J(p) = ½·mean (x·w + c - y)² + λ/2·|w|²

20 examples say nothing about 180 directions of w. Along these, weights from N(0, 0.05²) stay
where they started, unless λ lets them shrink; a λ too large shrinks what was learned, too. From
w = 0 nothing needs to shrink: descent never leaves the span of the examples.

    python examples/decay.py
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
from parts.data import Split
from parts.methods import Array
from parts.plotting import BLACK, BLUE, RED, Look, label, save, sheet
from parts.shell import options, table

import fusedstep as fs

D = 200
NOISE = 0.01
DECAYS = [0.0, *(10 ** np.arange(-3, 2.1, 0.5)).tolist()]
"""λ"""


def problem(w: Array, n: int, seed: int) -> Split:
    """Draw n examples to train on, and 1,000 to test."""
    rng = np.random.default_rng(seed)
    x = rng.standard_normal((n + 1000, len(w)))
    y = 0.05 + x @ w + NOISE * rng.standard_normal(len(x))
    return Split(x[:n], y[:n], x[n:], y[n:])


def descend(
    split: Split, start: Array, penalties: Sequence[float], lr: float, steps: int, kind: str
) -> Iterator[tuple[list[Array], list[Array]]]:
    """The w and c for each penalty after every step of one optimizer; the c are not decayed."""
    ws = [start.copy() for _ in penalties]
    cs: list[Array] = [np.zeros(1) for _ in penalties]
    groups = [{"params": w, kind: penalty} for w, penalty in zip(ws, penalties, strict=True)]
    opt = fs.SGD([*groups, {"params": cs}], lr=lr)
    for _ in range(steps):
        errors = [split.x @ w + c - split.y for w, c in zip(ws, cs, strict=True)]
        grads = [split.x.T @ e / len(e) for e in errors]
        opt.step([*grads, [e.mean(keepdims=True) for e in errors]])
        yield ws, cs


class Fit(NamedTuple):
    penalty: float
    """λ, or λ₁ of L1."""
    training: float
    """½·mean squared error of the examples to train on."""
    test: float
    """½·mean squared error of the examples to test."""
    w: Array


def fit(split: Split, penalty: float, w: Array, c: Array) -> Fit:
    x, y, test_x, test_y = split
    training = 0.5 * ((x @ w + c - y) ** 2).mean()
    test = 0.5 * ((test_x @ w + c - test_y) ** 2).mean()
    return Fit(penalty, float(training), float(test), w)


def fits(
    split: Split, start: Array, penalties: Sequence[float], lr: float, steps: int, kind: str
) -> list[Fit]:
    """The fit of each penalty after all steps."""
    *_, (ws, cs) = descend(split, start, penalties, lr, steps, kind)
    return [fit(split, *row) for row in zip(penalties, ws, cs, strict=True)]


def decayed(seed: int, steps: int) -> dict[str, list[Fit]]:
    """Fits over λ, from random weights and from zero."""
    seen = problem(np.full(D, 0.01), 20, seed)
    random = 0.05 * np.random.default_rng([seed, 1]).standard_normal(D)
    starts = {"random": random, "zero": np.zeros(D)}
    return {name: fits(seen, w, DECAYS, 0.015, steps, "weight_decay") for name, w in starts.items()}


def draw(found: dict[str, list[Fit]], picture: Path) -> None:
    figure, axes = sheet(1, 2, 10.5, 4.4)
    errors, norms = axes[0]
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
    save(figure, picture)


def main(argv: Sequence[str] | None = None) -> None:
    chosen = options(__doc__, argv, "decay.png", steps=1000)
    found = decayed(chosen.seed, chosen.steps)
    for name, row in found.items():
        table(
            f"20 examples, 200 weights, {chosen.steps} steps from {name}",
            ["λ", "training error", "test error", "|w|"],
            [[f"{lam:.3g}", one, test, float(np.linalg.norm(w))] for lam, one, test, w in row],
        )
    draw(found, chosen.picture)


if __name__ == "__main__":
    main()
