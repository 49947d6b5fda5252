"""L2 inside Adam against the decoupled decay of AdamW.

    Adam     g = g + λ·p, then Adam's step         decay passes through m and is divided by √v
    AdamW    p = p·(1 - α·λ), then Adam's step     decay beside it

1. The gradients of each coordinate are noise, with a standard deviation σ of its own. Two runs,
from p = 1 and from p = -1, get the same noise, so that half their distance shrinks by the decay
alone: under AdamW by e^(-α·λ) a step, in every coordinate; under Adam by about e^(-α·λ/σ), so that
coordinates with large gradients hardly decay.

2. 20 examples, 200 weights, 500 steps from random weights, as in decay.py: how large must λ be
for a test error near the best? The weights must forget where they started. Under AdamW that takes
α·λ·t of a certain size, so that the λ needed changes with 1/α; under Adam it changes as well. In
the form of AdamW's paper, p = p·(1 - η·λ) with the schedule's η = 1 here, it does not depend on α:
`decay_scale="schedule"`.

    python examples/adamw.py
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from parts.methods import Array, Method
from parts.plotting import BLACK, GREY, LOOKS, RED, label, save, sheet
from parts.shell import options, table

import fusedstep as fs

SIGMAS = np.geomspace(0.01, 10, 7)
DECAY, LR = 0.01, 0.001
"""λ and α of the first part."""

METHODS: dict[str, Method] = {
    "Adam, L2": fs.Adam,
    "AdamW, α·λ": fs.AdamW,
    "AdamW, η·λ": partial(fs.AdamW, decay_scale="schedule"),
}
RATES = [0.0005, 0.001, 0.002, 0.005, 0.01]
DECAYS = {
    "Adam, L2": np.geomspace(1e-3, 10, 13),
    "AdamW, α·λ": np.geomspace(1e-2, 100, 13),
    "AdamW, η·λ": np.geomspace(1e-4, 1, 13),
}
"""λ of the second part."""


def effective_decay(method: Method, steps: int, seed: int, copies: int = 40) -> Array:
    """The λ with which AdamW would decay as measured, for each σ."""
    rng = np.random.default_rng(seed)
    up = np.ones((len(SIGMAS), copies))
    down = -up
    opt = method([up, down], lr=LR, weight_decay=DECAY)
    for _ in range(steps):
        g = SIGMAS[:, None] * rng.standard_normal(up.shape)
        opt.step([g, g])
    apart: Array = ((up - down) / 2).mean(axis=1)
    decay: Array = -np.log(apart) / (steps * LR)
    return decay


def sweep(method: Method, decays: Array, steps: int, seed: int) -> Array:
    """Test errors, ½·mean squared error: a row for each α, a column for each λ."""
    rng = np.random.default_rng(seed)
    n, d, size = 20, 200, 10
    x, start = rng.standard_normal((n + 1000, d)), 0.05 * rng.standard_normal(d)
    y = 0.01 * x.sum(axis=1) + 0.01 * rng.standard_normal(len(x))
    order = [rng.permutation(n)[:size] for _ in range(steps)]
    rows = []
    for lr in RATES:
        w = np.tile(start, (len(decays), 1))
        groups = [{"params": row, "weight_decay": lam} for row, lam in zip(w, decays, strict=True)]
        opt = method(groups, lr=lr)
        for batch in order:
            opt.step([*((w @ x[batch].T - y[batch]) @ x[batch] / size)])
        rows.append(0.5 * ((w @ x[n:].T - y[n:]) ** 2).mean(axis=1))
    return np.array(rows)


def enough(errors: Array, decays: Array) -> Array:
    """For each α, the least λ whose test error is at most half above the least of all."""
    least: Array = decays[(errors <= 1.5 * errors.min()).argmax(axis=1)]
    return least


def draw(seen: dict[str, Array], found: dict[str, Array], picture: Path) -> None:
    figure, axes = sheet(2, 2, 10, 8)
    first, *maps = axes.flat
    label(first, "decay by the size of the gradients", "σ", "effective λ")
    first.loglog(SIGMAS, DECAY / SIGMAS, color=GREY, linestyle=":", label="λ/σ")
    for name, values in seen.items():
        look = LOOKS["AdamW" if "W" in name else "Adam"]
        first.loglog(SIGMAS, values, label=name, **look.line(linestyle="none", markersize=8))
    first.axhline(DECAY, color=BLACK, linestyle=":", linewidth=1, label="λ")
    first.legend()
    for ax, (name, errors) in zip(maps, found.items(), strict=True):
        label(ax, f"{name}: test error", "α", "λ")
        ax.grid(visible=False)
        shades: dict[str, Any] = {"cmap": "cividis", "shading": "nearest"}
        mesh = ax.pcolormesh(RATES, DECAYS[name], np.log10(errors.T), **shades)
        ax.plot(RATES, enough(errors, DECAYS[name]), "o-", color=RED, mec="white", label="enough λ")
        ax.set(xscale="log", yscale="log")
        ax.legend(loc="lower left")
        figure.colorbar(mesh, ax=ax, label="log₁₀ of the error")
    save(figure, picture)


def main(argv: Sequence[str] | None = None) -> None:
    chosen = options(__doc__, argv, "adamw.png", steps=500)
    seen = {
        name: effective_decay(METHODS[name], 4 * chosen.steps, chosen.seed)
        for name in ["Adam, L2", "AdamW, α·λ"]
    }
    rows = zip(SIGMAS, *seen.values(), DECAY / SIGMAS, strict=True)
    table(f"Effective decay, λ = {DECAY}", ["σ", *seen, "λ/σ"], [[*map(float, r)] for r in rows])
    found = {
        name: sweep(method, DECAYS[name], chosen.steps, chosen.seed)
        for name, method in METHODS.items()
    }
    needed = {name: enough(errors, DECAYS[name]) for name, errors in found.items()}
    table(
        f"The λ that is enough after {chosen.steps} steps",
        ["α", *needed],
        [[*map(float, row)] for row in zip(RATES, *needed.values(), strict=True)],
    )
    draw(seen, found, chosen.picture)


if __name__ == "__main__":
    main()
