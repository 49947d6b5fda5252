"""A linear support vector machine for ten classes, trained by gradient steps.

    sₖ = x·wₖ + bₖ                                     a score for each class
    Jᵢ = Σ max(0, 1 + sₖ - s_y)  over k ≠ y            Weston and Watkins's hinge
    J = mean Jᵢ + λ/2·|w|²

A wrong class counts if its score comes within 1 of the right one's, or above it: ∂Jᵢ/∂sₖ is 1 for
each that counts, and minus their number for the right class. Examples in which none counts have no
gradient; the others are the support vectors. J is not smooth but convex, so a rate that falls, not
too soon, takes descent close to its minimum. w and b are groups of their own: b is not decayed.

Data: scikit-learn's 1,797 digits of 8 by 8 pixels, 1,437 of them to train on.

    python examples/svm.py
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from parts import data
from parts.methods import Array
from parts.plotting import BLACK, BLUE, GREEN, RED, Look, label, save, sheet
from parts.shell import options, table

import fusedstep as fs
from fusedstep.schedules import Schedule, constant, exponential

CLASSES = 10
DECAY = 0.001
"""λ"""

RATES = {"constant rate": constant(0.05), "falling rate": exponential(0.05, rate=0.001)}


def hinge(scores: Array, y: Any) -> tuple[float, Array]:
    """The mean of Jᵢ, and its gradient by the scores, a row for each example."""
    rows = np.arange(len(y))
    margins = 1 + scores - scores[rows, y][:, None]
    margins[rows, y] = 0
    d = (margins > 0).astype(float)
    d[rows, y] = -d.sum(axis=1)
    return float(np.maximum(margins, 0).sum(axis=1).mean()), d / len(y)


def gradients(w: Array, b: Array, x: Array, y: Any) -> tuple[float, Array, Array]:
    """The mean of Jᵢ, and its gradients by w and b; the optimizer adds λ·w."""
    loss, d = hinge(x @ w + b, y)
    return loss, x.T @ d, d.sum(axis=0)


class Epoch(NamedTuple):
    objective: float
    training: float
    """The share of the training digits that is read rightly."""
    test: float
    """The same share of the test digits."""
    support: float
    """The share of the training digits that are support vectors."""


def look(w: Array, b: Array, split: data.Split) -> Epoch:
    scores, test_scores = split.x @ w + b, split.test_x @ w + b
    loss, d = hinge(scores, split.y)
    return Epoch(
        objective=loss + DECAY / 2 * float((w * w).sum()),
        training=float((scores.argmax(axis=1) == split.y).mean()),
        test=float((test_scores.argmax(axis=1) == split.test_y).mean()),
        support=float(d.any(axis=1).mean()),
    )


def train(split: data.Split, lr: Schedule, epochs: int, seed: int) -> tuple[Array, list[Epoch]]:
    """Train, and return the weights, and the state of things after each epoch, from 0 on."""
    rng = np.random.default_rng(seed)
    w, b = np.zeros((split.x.shape[1], CLASSES)), np.zeros(CLASSES)
    opt = fs.SGD([{"params": w, "weight_decay": DECAY}, {"params": b}], lr=lr, momentum=0.9)
    seen = [look(w, b, split)]
    for _ in range(epochs):
        for batch in data.batches(len(split.x), 32, rng):
            _, *grads = gradients(w, b, split.x[batch], split.y[batch])
            opt.step(grads)
        seen.append(look(w, b, split))
    return w, seen


def digits(seed: int) -> data.Split:
    split = data.read("digits", 1437, seed)
    return split._replace(x=split.x / 16, test_x=split.test_x / 16)


def draw(w: Array, found: dict[str, list[Epoch]], picture: Path) -> None:
    figure, axes = sheet(1, 3, 12, 4)
    objective, shares, place = axes[0]
    epochs = range(1, len(found["falling rate"]))
    every = len(epochs) // 8 or 1
    label(objective, "the objective", "epoch", "J on the training digits")
    for (name, seen), line in zip(found.items(), [Look(RED, "o"), Look(BLUE, "s")], strict=True):
        values = [epoch.objective for epoch in seen[1:]]
        objective.plot(epochs, values, label=name, **line.line(every))
    objective.legend()
    label(shares, "the falling rate", "epoch", "share of the digits")
    seen = found["falling rate"][1:]
    for name, values, line in [
        ("support vectors", [epoch.support for epoch in seen], Look(BLACK, "o")),
        ("misread, test", [1 - epoch.test for epoch in seen], Look(GREEN, "^")),
        ("misread, training", [1 - epoch.training for epoch in seen], Look(BLUE, "s")),
    ]:
        shares.semilogy(epochs, values, label=name, **line.line(every))
    shares.set_ylim(top=0.5)
    shares.legend(loc="upper right")
    place.axis("off")
    place.set_title("weights: blue speaks for the digit, red against", fontsize=11)
    grid = place.get_subplotspec().subgridspec(3, 4)
    bound = np.abs(w).max()
    for k in range(CLASSES):
        image = figure.add_subplot(grid[divmod(k, 4)])
        image.imshow(w[:, k].reshape(8, 8), cmap="RdBu", vmin=-bound, vmax=bound)
        image.set(xticks=[], yticks=[], xlabel=k)
    save(figure, picture)


def main(argv: Sequence[str] | None = None) -> None:
    chosen = options(__doc__, argv, "svm.png", epochs=40)
    split, found = digits(chosen.seed), {}
    for name, lr in RATES.items():
        w, found[name] = train(split, lr, chosen.epochs, chosen.seed)
        shown = sorted({1, 2, 5, 10, 20, chosen.epochs} & {*range(chosen.epochs + 1)})
        table(
            f"Digits, {name}",
            ["epoch", "J", "training accuracy", "test accuracy", "support vectors"],
            [
                [k, found[name][k].objective, *(f"{share:.1%}" for share in found[name][k][1:])]
                for k in shown
            ],
        )
    draw(w, found, chosen.picture)


if __name__ == "__main__":
    main()
