"""Inputs of very different scale: one rate for all, a rate for each, and scaling as the cure.

    J(p) = mean cross-entropy of softmax(x·w + b)
    H = 1/N·Σᵢ xᵢxᵢᵀ/3,  J's second derivative at p = 0 for each class less the classes' mean

scikit-learn's wine set: 13 inputs of three kinds of wine, one around 0.4, one around 750. Descent
is stable for α < 2/λ, λ the largest eigenvalue of H; the smallest then needs about as many steps
as the condition number, the largest over the smallest. AdaGrad, RMSprop and Adam give each
parameter a rate of its own. Standardising brings H's eigenvalues together for good, and batch
normalisation as the first layer does so without knowing the data in advance. Between the layers
of a deep network, where no data are known in advance, it does the same for the layers' outputs,
whatever the scale of the weights is.

    python examples/scales.py
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
from parts import data
from parts.layers import BatchNorm, Dense, Layer, Network, ReLU
from parts.methods import METHODS, Array
from parts.plotting import BLACK, BLUE, GREY, LOOKS, SKY, Look, label, save, sheet
from parts.shell import options, table

TRAIN = 142
CLASSES = 3
ADAPTIVE = {"AdaGrad": 0.1, "RMSprop": 0.005, "Adam": 0.005}
WIDTH = 16


def hessian(x: Array) -> Array:
    """H for the inputs x of a layer; the last column belongs to the bias."""
    x = data.with_one(x)
    second: Array = x.T @ x / len(x) / CLASSES
    return second


def eigenvalues(x: Array) -> Array:
    """Eigenvalues of H, from the largest."""
    values: Array = np.linalg.eigvalsh(hessian(x))[::-1]
    return values


class Run(NamedTuple):
    name: str
    lr: float
    condition: float
    """Condition number of H, for the inputs of the last layer before training."""
    losses: list[float]
    """J on all training examples after each epoch, from 0 on."""
    accuracy: float


def train(
    name: str, layers: list[Layer], split: data.Split, method: str, lr: float | None, epochs: int
) -> Run:
    """Train on batches of 16. If lr is None, it is 1/λ, λ the largest of the last layer's H."""
    last = Network(layers[:-1]).forward(split.x, training=True)
    lr = lr or float(1 / eigenvalues(last)[0])
    network = Network(layers)
    opt = METHODS[method](network.params, lr=lr)
    rng = np.random.default_rng(0)
    losses = [network.gradients(split.x, split.y)[0]]
    for _ in range(epochs):
        for batch in data.batches(TRAIN, 16, rng):
            opt.step(network.gradients(split.x[batch], split.y[batch])[1])
        losses.append(network.gradients(split.x, split.y)[0])
    return Run(
        name,
        lr,
        float(np.linalg.cond(hessian(last))),
        losses,
        network.accuracy(split.test_x, split.test_y),
    )


def softmax_regression() -> Dense:
    layer = Dense(13, CLASSES, np.random.default_rng(0), float)
    layer.params["w"][...] = 0
    return layer


def shallow(seed: int, epochs: int) -> list[Run]:
    """One layer: inputs as they are, standardised, and behind a batch normalisation."""
    raw = data.read("wine", TRAIN, seed)
    scaled = data.standardised(raw)
    runs = [train("raw, SGD", [softmax_regression()], raw, "SGD", None, epochs)]
    for method, lr in ADAPTIVE.items():
        runs.append(train(f"raw, {method}", [softmax_regression()], raw, method, lr, epochs))
    runs.append(train("standardised, SGD", [softmax_regression()], scaled, "SGD", None, epochs))
    layers = [BatchNorm(13, float), softmax_regression()]
    runs.append(train("batch norm, SGD", layers, raw, "SGD", None, epochs))
    return runs


def deep(seed: int, epochs: int) -> list[Run]:
    """Three hidden layers on standardised inputs, started well and with weights too small."""
    split = data.standardised(data.read("wine", TRAIN, seed))
    runs = []
    for start, gain in [("He's weights", 1.0), ("a quarter of them", 0.25)]:
        for normalised in (False, True):
            rng = np.random.default_rng(seed)
            layers: list[Layer] = []
            for n in (13, WIDTH, WIDTH):
                dense = Dense(n, WIDTH, rng, float)
                dense.params["w"] *= gain
                layers += [dense, ReLU(), *([BatchNorm(WIDTH, float)] if normalised else [])]
            layers.append(Dense(WIDTH, CLASSES, rng, float))
            name = f"{start}, batch norm" if normalised else start
            runs.append(train(name, layers, split, "SGD", 0.05, epochs))
    return runs


def draw(seed: int, one_layer: list[Run], four_layers: list[Run], picture: Path) -> None:
    figure, axes = sheet(1, 3, 11.5, 4.2)
    spectrum, one, several = axes[0]
    looks = [
        Look(BLACK, "o"),
        *(LOOKS[name] for name in ADAPTIVE),
        Look(BLUE, "s"),
        Look(GREY, "D"),
    ]
    raw = data.read("wine", TRAIN, seed)
    label(spectrum, "eigenvalues of H", "number, from the largest", "eigenvalue")
    for name, split, look in [
        ("raw", raw, looks[0]),
        ("standardised", data.standardised(raw), looks[4]),
    ]:
        values = eigenvalues(split.x)
        spectrum.semilogy(range(1, len(values) + 1), values, label=name, **look.line())
    spectrum.legend()
    label(one, "softmax regression", "epoch", "J on the training examples")
    label(several, "three hidden layers", "epoch", "")
    pairs = [Look(GREY, "D"), Look(SKY, "D"), Look(BLACK, "o"), Look(BLUE, "s")]
    for ax, runs, styles in [(one, one_layer, looks), (several, four_layers, pairs)]:
        for run, look in zip(runs, styles, strict=True):
            line = look.line(len(run.losses) // 8 or 1)
            ax.semilogy(run.losses, label=run.name, **line)
    spectrum.set_xticks([1, 5, 10, 14])
    one.set_ylim(1e-3, 500)
    one.legend(fontsize=8, ncols=2, loc="upper right")
    several.set_ylim(1e-3, 30)
    several.legend(fontsize=8, loc="upper right")
    save(figure, picture)


def main(argv: Sequence[str] | None = None) -> None:
    chosen = options(__doc__, argv, "scales.png", epochs=40)
    one_layer = shallow(chosen.seed, chosen.epochs)
    four_layers = deep(chosen.seed, chosen.epochs)
    table(
        f"The wine set, {chosen.epochs} epochs",
        [
            "inputs and method",
            "α",
            "condition of H",
            "J at the start",
            "at the end",
            "test accuracy",
        ],
        [
            [run.name, run.lr, run.condition, run.losses[0], run.losses[-1], f"{run.accuracy:.1%}"]
            for run in one_layer + four_layers
        ],
    )
    draw(chosen.seed, one_layer, four_layers, chosen.picture)


if __name__ == "__main__":
    main()
