"""Batch, mini-batch and stochastic gradient descent: the cost and the gain of small batches.

    J(p) = 1/N·Σᵢ Jᵢ(p) + λ/2·|p|²,  Jᵢ(p) = log(1 + e^(-yᵢ·xᵢᵀp)),  yᵢ = ±1

Logistic regression on scikit-learn's breast cancer set: N = 512 examples to train on, of 30
standardised inputs and a one. The gradient of B examples, drawn without replacement, is on
average that of all (it is unbiased), and differs from it with the variance

    σ²/B·(N - B)/(N - 1),  σ² = 1/N·Σᵢ |∇Jᵢ - ∇J|²

An epoch, one pass over all examples, is one step on all of them or N steps on one each. Small
batches get far in the first epochs, and are then held up by their noise. A step on one example
takes nearly as long as a step on 32, so that an epoch of such steps takes long.

    python examples/batches.py
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from time import perf_counter
from typing import NamedTuple

import numpy as np
from parts import data
from parts.methods import Array
from parts.plotting import BLACK, BLUE, GREY, RED, Look, label, save, sheet
from parts.shell import options, table

import fusedstep as fs
from fusedstep.schedules import Schedule

N = 512
DECAY = 0.01
"""λ"""
RATES = {512: 0.5, 32: 0.2, 1: 0.02}
"""α for each batch size: smaller batches are noisier, and bear less."""


def examples(seed: int) -> tuple[Array, Array]:
    split = data.standardised(data.read("breast_cancer", N, seed))
    return data.with_one(split.x), 2.0 * split.y - 1


def objective(p: Array, x: Array, y: Array) -> float:
    return float(np.logaddexp(0, -y * (x @ p)).mean() + DECAY / 2 * p @ p)


def gradients(p: Array, x: Array, y: Array) -> Array:
    """∇Jᵢ(p), a row for each example; the optimizer adds λ·p."""
    rows: Array = (-y / (1 + np.exp(y * (x @ p))))[:, None] * x
    return rows


def minimum(x: Array, y: Array) -> Array:
    """The p with the least J, by Newton's method."""
    p = np.zeros(x.shape[1])
    opt = fs.SGD(p, lr=1.0)
    for _ in range(20):
        q = 1 / (1 + np.exp(-y * (x @ p)))
        hessian = (x.T * (q * (1 - q))) @ x / len(x) + DECAY * np.eye(len(p))
        opt.step(np.linalg.solve(hessian, gradients(p, x, y).mean(axis=0) + DECAY * p))
    return p


def variances(g: Array, size: int, draws: int, rng: np.random.Generator) -> tuple[float, float]:
    """Variance of the mean of `size` rows of g, drawn without replacement: seen and predicted."""
    n, mean = len(g), g.mean(axis=0)
    means = np.array([g[rng.permutation(n)[:size]].mean(axis=0) for _ in range(draws)])
    seen = ((means - mean) ** 2).sum(axis=1).mean()
    spread = ((g - mean) ** 2).sum(axis=1).mean()
    return float(seen), float(spread / size * (n - size) / (n - 1))


class Run(NamedTuple):
    """The objective after each epoch, from 0 on, and the seconds until then."""

    objective: Array
    seconds: Array


def train(
    x: Array,
    y: Array,
    size: int,
    lr: float | Schedule,
    epochs: int,
    seed: int,
    ema: float | None = None,
) -> Run:
    """Train by SGD; with `ema`, the objective is that of the moving average of p."""
    rng = np.random.default_rng(seed)
    p = np.zeros(x.shape[1])
    opt = fs.SGD(p, lr=lr, weight_decay=DECAY, ema=ema)
    seen = p if ema is None else opt.state["ema"]
    spent = 0.0
    rows = [(objective(p, x, y), 0.0)]
    for _ in range(epochs):
        start = perf_counter()
        for batch in data.batches(len(x), size, rng):
            opt.step(gradients(p, x[batch], y[batch]).mean(axis=0))
        spent += perf_counter() - start
        rows.append((objective(seen, x, y), spent))
    objectives, seconds = np.array(rows).T
    return Run(objectives, seconds)


def bias(g: Array, size: int, rng: np.random.Generator) -> float:
    """Distance of the mean over an epoch's batches from the gradient of all examples."""
    means = [g[batch].mean(axis=0) for batch in data.batches(len(g), size, rng)]
    return float(np.abs(np.mean(means, axis=0) - g.mean(axis=0)).max())


def draw(
    noise: dict[int, tuple[float, float]], runs: dict[int, Run], least: float, picture: Path
) -> None:
    figure, axes = sheet(1, 3, 12, 4.2)
    variance, epochs, seconds = axes[0]
    label(variance, "variance of the gradient's estimate", "batch size B", "variance")
    sizes = [size for size, (_, predicted) in noise.items() if predicted]
    seen, predicted = np.array([noise[size] for size in sizes]).T
    one = noise[1][1]
    variance.loglog(sizes, one / np.array(sizes), ":", color=GREY, label="σ²/B, with replacement")
    variance.loglog(sizes, predicted, color=BLUE, label="σ²/B·(N - B)/(N - 1)")
    variance.loglog(sizes, seen, "o", color=RED, mfc="none", label="seen, without replacement")
    variance.set_ylim(top=50)
    variance.legend(fontsize=9)
    label(epochs, "the same descents over epochs", "epoch", "J above its least")
    label(seconds, "and over seconds", "second", "")
    looks = [Look(BLACK, "o"), Look(BLUE, "s"), Look(RED, "D")]
    for (size, run), look in zip(runs.items(), looks, strict=True):
        line = look.line(len(run.seconds) // 10 or 1)
        excess = run.objective[1:] - least
        text = f"B = {size}, α = {RATES[size]}"
        epochs.semilogy(range(1, len(run.objective)), excess, label=text, **line)
        seconds.loglog(run.seconds[1:], excess, **line)
    epochs.legend(fontsize=9)
    save(figure, picture)


def main(argv: Sequence[str] | None = None) -> None:
    chosen = options(__doc__, argv, "batches.png", epochs=40, draws=1000)
    rng = np.random.default_rng(chosen.seed)
    x, y = examples(chosen.seed)
    p = minimum(x, y)
    least, g = objective(p, x, y), gradients(np.zeros_like(p), x, y)
    noise = {2**k: variances(g, 2**k, chosen.draws, rng) for k in range(10)}
    table(
        f"The gradient of B examples at p = 0, {chosen.draws} draws",
        ["B", "variance seen", "predicted", "seen/predicted", "bias over an epoch"],
        [
            [size, seen, predicted, seen / predicted if predicted else None, bias(g, size, rng)]
            for size, (seen, predicted) in noise.items()
        ],
    )
    runs = {size: train(x, y, size, lr, chosen.epochs, chosen.seed) for size, lr in RATES.items()}
    table(
        f"J above its least, {least:.4f}",
        ["B", "α", "after 1 epoch", f"after {chosen.epochs}", "seconds"],
        [
            [size, RATES[size], *(run.objective[[1, -1]] - least), float(run.seconds[-1])]
            for size, run in runs.items()
        ],
    )
    draw(noise, runs, least, chosen.picture)


if __name__ == "__main__":
    main()
