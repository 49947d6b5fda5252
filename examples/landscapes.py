"""A plateau, a saddle and a narrow valley: landscapes that are hard for gradient descent.

    plateau    f(w, c) = ½·mean (σ(w·x + c) - y)²,  σ(z) = 1/(1 + e⁻ᶻ)
               far out σ is saturated: its slope σ·(1 - σ), a factor of g, is almost 0
    saddle     f(x, y) = ½·x² - ½·y² + ¼·y⁴
               g is 0 at the origin, which is no minimum: f falls along ±y, down to -¼
    valley     f(x, y) = (1 - x)² + 10·(y - x²)²,  Rosenbrock's
               steep walls limit α, and the floor, where the way is long, is nearly flat

Momentum adds up small slopes. AdaGrad, RMSprop and Adam divide by the size of the
gradient, so that a small one takes them as far as a large one.

    python examples/landscapes.py
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
from parts.methods import METHODS, Array, Gradient, descend, steps_until
from parts.plotting import LOOKS, contours, label, save, sheet
from parts.shell import options, table

X = np.linspace(-2, 2, 9)
"""Inputs of the neuron, which is to become σ(1.5·x + 0.5)."""


def sigmoid(z: Array) -> Array:
    value: Array = 1 / (1 + np.exp(-z))
    return value


Y = sigmoid(1.5 * X + 0.5)


def plateau(p: Array) -> Array:
    error = sigmoid(p[..., :1] * X + p[..., 1:]) - Y
    value: Array = 0.5 * (error**2).mean(axis=-1)
    return value


def plateau_gradient(p: Array) -> Array:
    q = sigmoid(p[0] * X + p[1])
    d = (q - Y) * q * (1 - q)
    return np.array([(d * X).mean(), d.mean()])


def saddle(p: Array) -> Array:
    x, y = p[..., 0], p[..., 1]
    value: Array = 0.5 * x**2 - 0.5 * y**2 + 0.25 * y**4
    return value


def saddle_gradient(p: Array) -> Array:
    x, y = p
    return np.array([x, y**3 - y])


def valley(p: Array) -> Array:
    x, y = p[..., 0], p[..., 1]
    value: Array = (1 - x) ** 2 + 10 * (y - x**2) ** 2
    return value


def valley_gradient(p: Array) -> Array:
    x, y = p
    return np.array([-2 * (1 - x) - 40 * x * (y - x**2), 20 * (y - x**2)])


class Landscape(NamedTuple):
    f: Callable[[Array], Array]
    gradient: Gradient
    lowest: float
    start: Array
    frame: tuple[float, float, float, float]
    """The part that the picture shows: from and to, for either coordinate."""
    levels: Sequence[float]


LANDSCAPES = {
    "plateau": Landscape(
        plateau,
        plateau_gradient,
        0.0,
        np.array([1.0, -8.0]),
        (-3, 7.5, -9, 3),
        [0.001, 0.01, 0.03, 0.06, 0.1, 0.15, 0.18, 0.189],
    ),
    "saddle": Landscape(
        saddle,
        saddle_gradient,
        -0.25,
        np.array([1.5, 1e-6]),
        (-0.9, 1.7, -0.5, 1.3),
        [-0.24, -0.2, -0.1, 0, 0.1, 0.3, 0.6, 1],
    ),
    "valley": Landscape(
        valley,
        valley_gradient,
        0.0,
        np.array([-1.2, 1.0]),
        (-1.7, 1.7, -0.7, 1.9),
        [0.1, 0.5, 1.5, 4, 10, 25, 50],
    ),
}

RATES = {
    "SGD": 0.01,
    "momentum": 0.01,
    "Nesterov": 0.01,
    "AdaGrad": 0.5,
    "RMSprop": 0.02,
    "Adam": 0.02,
}
"""One α a method, the same in all three: for SGD, half of what the valley's walls allow."""


def paths(landscape: Landscape, steps: int) -> dict[str, Array]:
    _, gradient, _, start, *_ = landscape
    return {name: descend(METHODS[name], lr, start, gradient, steps) for name, lr in RATES.items()}


def progress(landscape: Landscape, path: Array) -> Array:
    """Share of the way down that is left: f above its lowest value, over that of the start."""
    above = landscape.f(path) - landscape.lowest
    share: Array = above / above[0]
    return share


def sparse(length: int) -> list[int]:
    """Points that are evenly spaced on a logarithmic axis."""
    return [int(t) for t in np.unique(np.geomspace(1, length, 12).astype(int) - 1)]


def draw(found: dict[str, dict[str, Array]], picture: Path) -> None:
    figure, axes = sheet(2, 3, 10.5, 7)
    for k, (name, landscape) in enumerate(LANDSCAPES.items()):
        left, right, bottom, top = landscape.frame
        x, y = np.meshgrid(np.linspace(left, right, 150), np.linspace(bottom, top, 150))
        over, under = axes[:, k]
        label(over, name, *(("w", "c") if name == "plateau" else ("x", "y")))
        contours(over, x, y, landscape.f(np.stack([x, y], axis=-1)), landscape.levels)
        label(under, "", "step t", "share of the way left" if k == 0 else "")
        for method, path in found[name].items():
            over.plot(*path.T, label=method, **LOOKS[method].line(max(1, len(path) // 40)))
            line = LOOKS[method].line(sparse(len(path)))
            under.loglog(np.arange(1, len(path) + 1), progress(landscape, path), **line)
        over.plot(*landscape.start, "o", color="black", mfc="white", markersize=8, zorder=9)
        under.axhline(0.01, color="0.6", linestyle=":")
        under.set_ylim(1e-4, 2)
    figure.legend(*axes[0, 0].get_legend_handles_labels(), loc="outside lower center", ncols=6)
    save(figure, picture)


def main(argv: Sequence[str] | None = None) -> None:
    chosen = options(__doc__, argv, "landscapes.png", steps=2000)
    found = {name: paths(landscape, chosen.steps) for name, landscape in LANDSCAPES.items()}
    rows = [
        [method, lr, *(
            steps_until(progress(landscape, found[name][method]), 0.01)
            for name, landscape in LANDSCAPES.items()
        )]
        for method, lr in RATES.items()
    ]  # fmt: skip
    title = f"Steps until 1 % of the way down is left, of {chosen.steps}"
    table(title, ["method", "α", *LANDSCAPES], rows)
    draw(found, chosen.picture)


if __name__ == "__main__":
    main()
