"""A multi-layer perceptron reads digits: batch normalisation, dropout, and every optimizer.

    64 pixels → 64 → 32 → 10 classes,  J = mean cross-entropy
    hidden layer:  y = dropout(ReLU(batch norm(x·w + b)))

The layers and their gradients are in parts/layers.py. All optimizers train the same network from
the same start on the same batches, each with a rate that suits it. Then Adam trains it without
dropout, without batch normalisation, and without either: batch normalisation makes training
faster and dropout makes it harder, which shows in J. The test has 360 digits, so that one digit
is 0.3 %: too few to tell the optimizers apart.

Data: scikit-learn's 1,797 digits of 8 by 8 pixels, 1,437 of them to train on, as float32.

    python examples/network.py
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise
from pathlib import Path
from typing import NamedTuple

import numpy as np
from numpy.typing import DTypeLike
from parts import data
from parts.layers import BatchNorm, Dense, Dropout, Layer, Network, ReLU, cross_entropy
from parts.methods import METHODS
from parts.plotting import LOOKS, label, save, sheet
from parts.shell import options, table

WIDTHS = (64, 64, 32)
SIZE = 32
"""Examples in a batch."""

RATES = {
    "SGD": 0.1,
    "momentum": 0.03,
    "Nesterov": 0.03,
    "AdaGrad": 0.02,
    "RMSprop": 0.002,
    "Adam": 0.003,
    "AdamW": 0.003,
    "Lion": 0.001,
}


def perceptron(
    normalised: bool, dropout: float, seed: int, dtype: DTypeLike = np.float32
) -> Network:
    rng = np.random.default_rng(seed)
    layers: list[Layer] = []
    for n, m in pairwise(WIDTHS):
        layers += [Dense(n, m, rng, dtype)]
        layers += [BatchNorm(m, dtype)] if normalised else []
        layers += [ReLU()]
        layers += [Dropout(dropout, rng)] if dropout else []
    return Network([*layers, Dense(WIDTHS[-1], 10, rng, dtype)])


class Run(NamedTuple):
    losses: list[float]
    """J on all training digits after each epoch, of the network in use: nothing dropped."""
    training: float
    """The share of the training digits that is read rightly at the end."""
    test: float
    """The same share of the test digits."""


def train(network: Network, split: data.Split, method: str, epochs: int, seed: int) -> Run:
    x, y, test_x, test_y = split
    rng = np.random.default_rng(seed)
    opt = METHODS[method](network.params, lr=RATES[method])
    losses = []
    for _ in range(epochs):
        for batch in data.batches(len(x), SIZE, rng):
            opt.step(network.gradients(x[batch], y[batch])[1])
        losses.append(cross_entropy(network.forward(x), y)[0])
    return Run(losses, network.accuracy(x, y), network.accuracy(test_x, test_y))


def digits(seed: int) -> data.Split:
    x, y, test_x, test_y = data.read("digits", 1437, seed)
    return data.Split((x / 16).astype(np.float32), y, (test_x / 16).astype(np.float32), test_y)


def draw(runs: dict[str, Run], picture: Path) -> None:
    figure, axes = sheet(1, 2, 10.5, 4.4)
    losses, accuracy = axes[0]
    label(losses, "eight optimizers", "epoch", "J on the training digits")
    for name, run in runs.items():
        epochs = range(1, len(run.losses) + 1)
        losses.semilogy(epochs, run.losses, label=name, **LOOKS[name].line())
    losses.legend(ncols=2, fontsize=9)
    label(accuracy, "digits read rightly at the end", "%", "")
    for row, (name, run) in enumerate(runs.items()):
        color = LOOKS[name].color
        accuracy.plot([100 * run.test, 100 * run.training], [row, row], color=color, linewidth=1)
        marker = {"color": color, "linestyle": "none", "markersize": 8}
        accuracy.plot(100 * run.training, row, "o", mfc="white", **marker)
        accuracy.plot(100 * run.test, row, "o", **marker)
    accuracy.plot([], [], "o", color="black", label="test")
    accuracy.plot([], [], "o", color="black", mfc="white", label="training")
    accuracy.set_yticks(range(len(runs)), runs)
    accuracy.set_ylim(len(runs) + 0.5, -0.5)
    accuracy.legend(loc="lower left", ncols=2)
    save(figure, picture)


def main(argv: Sequence[str] | None = None) -> None:
    chosen = options(__doc__, argv, "network.png", epochs=8)
    split, seed = digits(chosen.seed), chosen.seed
    runs = {
        name: train(perceptron(True, 0.2, seed), split, name, chosen.epochs, seed) for name in RATES
    }
    others = {
        f"Adam, {what}": train(perceptron(*kind, seed), split, "Adam", chosen.epochs, seed)
        for what, kind in {
            "no dropout": (True, 0.0),
            "no batch norm": (False, 0.2),
            "neither": (False, 0.0),
        }.items()
    }
    table(
        f"Digits, {chosen.epochs} epochs",
        ["optimizer", "α", "J after 1", "at the end", "training accuracy", "test accuracy"],
        [
            [name, lr, run.losses[0], run.losses[-1], f"{run.training:.1%}", f"{run.test:.1%}"]
            for name, run in (runs | others).items()
            for lr in [RATES.get(name, RATES["Adam"])]
        ],
    )
    draw(runs, chosen.picture)


if __name__ == "__main__":
    main()
