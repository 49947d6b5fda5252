"""L1 finds the few weights that matter, where L2 spreads over all.

    y = 0.05 ± 0.1·x₁ ± ... ± 0.1·x₅ + noise,  xᵢ ~ N(0, 1),  i = 1 ... 200,  60 examples
    J(p) = ½·mean (x·w + c - y)² + λ₁·Σ |wᵢ|      or + λ/2·|w|²

L1 pulls at every weight by λ₁, however small the weight is; L2 by λ·wᵢ, the less the smaller it
is. So at L1's minimum most wᵢ are 0, where any pull from -λ₁ to λ₁ balances that of the examples.
But `l1=` takes λ₁·sign(wᵢ), and steps do not stop at 0: they swing across it, each by at most
2·α·λ₁. So hardly any weight *is* 0, and a weight below 2·α·λ₁ is to be read as 0.

    python examples/sparse.py
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
from decay import D, Fit, descend, fits, problem
from parts.data import Split
from parts.methods import Array
from parts.plotting import BLACK, COLOURS, GREEN, GREY, Look, label, save, sheet
from parts.shell import options, table

TRUTH = np.zeros(D)
TRUTH[:5] = [0.1, -0.1, 0.1, -0.1, 0.1]
LR = 0.01
DECAYS, L1S = [0.01, 0.1, 1.0], [0.003, 0.01, 0.03]
"""λ of L2 and λ₁ of L1."""


def both(split: Split, steps: int) -> dict[str, list[Fit]]:
    start = np.zeros(D)
    return {
        "L2": fits(split, start, DECAYS, LR, steps, "weight_decay"),
        "L1": fits(split, start, L1S, LR, steps, "l1"),
    }


def threshold(l1: float) -> float:
    return 2 * LR * l1


def above(fit: Fit, l1: float) -> int:
    """Number of weights that are larger than the swings of λ₁."""
    return int((np.abs(fit.w) > threshold(l1)).sum())


def last_steps(split: Split, steps: int, weights: Sequence[int], count: int = 40) -> Array:
    """Some weights over the last steps with the middle λ₁, a row for each step."""
    path = [ws[0][[*weights]] for ws, _ in descend(split, np.zeros(D), L1S[1:2], LR, steps, "l1")]
    return np.array(path[-count:])


def draw(found: dict[str, list[Fit]], path: Array, weights: Sequence[int], picture: Path) -> None:
    figure, axes = sheet(1, 2, 10.5, 4.4)
    sizes, steps = axes[0]
    label(sizes, "60 examples, 5 of 200 weights matter", "weight, from the largest", "|wᵢ|")
    for name, look in [("L1", Look(GREEN, "^")), ("L2", Look(BLACK, "o"))]:
        fit = found[name][1]
        text = f"{name}, {'λ₁' if name == 'L1' else 'λ'} = {fit.penalty:g}"
        ordered = np.sort(np.abs(fit.w))[::-1]
        sizes.loglog(range(1, D + 1), ordered, label=text, **look.line([0, 4, 5, 20, 60, 150]))
    sizes.axhline(threshold(L1S[1]), color=GREY, linestyle=":", label="2·α·λ₁")
    sizes.legend(loc="lower left")
    label(steps, "some that do not matter: L1's last steps", "step", "wᵢ/(α·λ₁)")
    for i, values, color in zip(weights, path.T / (LR * L1S[1]), COLOURS, strict=False):
        steps.plot(values, "o-", color=color, markersize=3, linewidth=1, label=f"i = {i + 1}")
    steps.set_ylim(-2, 3)
    steps.axhline(0, color=GREY, linewidth=0.8)
    steps.legend(ncols=3)
    save(figure, picture)


def main(argv: Sequence[str] | None = None) -> None:
    chosen = options(__doc__, argv, "sparse.png", steps=4000)
    split = problem(TRUTH, 60, chosen.seed)
    found = both(split, chosen.steps)
    table(
        f"60 examples, 5 of 200 weights matter, {chosen.steps} steps",
        ["penalty", "test error", "weights exactly 0", "above 2·α·λ₁ (L2: the middle λ₁)"],
        [
            [f"{name}, {fit.penalty:g}", fit.test, int((fit.w == 0).sum()), above(fit, l1)]
            for name, row in found.items()
            for fit in row
            for l1 in [fit.penalty if name == "L1" else L1S[1]]
        ],
    )
    weights = [10, 50, 100]
    draw(found, last_steps(split, chosen.steps, weights), weights, chosen.picture)


if __name__ == "__main__":
    main()
