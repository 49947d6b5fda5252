"""The quadratic bowl: gradient descent against its closed form, and every method beside it.

    f(p) = ½·pᵀAp,  g = A·p,  A symmetric with eigenvalues λ > 0
    p = p - α·g  gives  pₜ = (I - α·A)ᵗ·p₀

Along each eigenvector p is one number, which each step multiplies by 1 - α·λ:

    0 < α·λ ≤ 1    it shrinks and keeps its sign; at 1 it is gone in one step
    1 < α·λ ≤ 2    it changes its sign at every step, and shrinks; at 2 it keeps its size
    2 < α·λ        it changes its sign and grows

One α serves all eigenvalues: the largest limits it, and the component of the smallest shrinks
slowly. Newton's method, p = p - A⁻¹·g, needs one step; it is SGD with α = 1 on A⁻¹·g.

Nesterov's momentum is there in both forms: `nesterov=True`, as in frameworks, and with the
gradient at the point ahead, as in papers. The parameters of the first are the second's points
ahead.

    python examples/bowl.py
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
from parts.methods import METHODS, Array, descend, steps_until
from parts.plotting import BLUE, LOOKS, RED, contours, label, save, sheet
from parts.shell import options, table

import fusedstep as fs

EIGENVALUES = np.array([1.0, 8.0])
START = np.array([-4.0, 1.5])
STEEPEST = [0.5, 1.0, 1.5, 2.0, 2.1]
"""α·λ of the largest eigenvalue, for each of which descent is compared with its closed form."""

RATES = {
    "SGD": 0.2,
    "momentum": 0.02,
    "Nesterov": 0.02,
    "AdaGrad": 2.0,
    "RMSprop": 0.2,
    "Adam": 0.4,
}
OTHERS = {"looking ahead": RATES["Nesterov"], "Newton": 1.0}


def bowl(eigenvalues: Array, angle: float = np.pi / 6) -> tuple[Array, Array]:
    """A, and its eigenvectors as columns: the axes, turned by the angle."""
    c, s = np.cos(angle), np.sin(angle)
    vectors = np.array([[c, -s], [s, c]])
    return vectors * eigenvalues @ vectors.T, vectors


def closed_form(eigenvalues: Array, lr: float, start: Array, steps: int) -> Array:
    """(1 - α·λ)ᵗ times the start, a row for each t; all in the eigenbasis."""
    t = np.arange(steps + 1)[:, None]
    return (1 - lr * eigenvalues) ** t * start


def components(lr: float, steps: int) -> tuple[Array, Array]:
    """The path of SGD in the eigenbasis, and that of the closed form."""
    a, vectors = bowl(EIGENVALUES)
    path = descend(fs.SGD, lr, START, lambda p: a @ p, steps)
    return path @ vectors, closed_form(EIGENVALUES, lr, START @ vectors, steps)


def regime(component: Array) -> str:
    """Words for what a component does from step to step."""
    size = np.abs(component)
    if size[1] < 1e-12 * size[0]:
        return "gone at once"
    sign = "keeps its sign" if (component * component[0] > 0).all() else "alternates"
    ratio = size[-1] / size[0]
    growth = "keeps its size" if abs(ratio - 1) < 1e-9 else "shrinks" if ratio < 1 else "grows"
    return f"{sign}, {growth}"


def paths(steps: int) -> dict[str, Array]:
    """The path of every method."""
    a, _ = bowl(EIGENVALUES)
    found = {
        name: descend(METHODS[name], lr, START, lambda p: a @ p, steps)
        for name, lr in RATES.items()
    }
    found["looking ahead"], _ = looking_ahead(steps)
    found["Newton"] = descend(fs.SGD, 1.0, START, lambda p: np.linalg.solve(a, a @ p), steps)
    return found


def looking_ahead(steps: int) -> tuple[Array, Array]:
    """The path of Nesterov's p, and the points ahead of it, where its gradients are taken."""
    a, _ = bowl(EIGENVALUES)
    p = START.copy()
    opt = fs.SGD(p, lr=OTHERS["looking ahead"], momentum=0.9)
    path, ahead = [p.copy()], []
    for _ in range(steps):
        with opt.lookahead():
            g = a @ p
            ahead.append(p.copy())
        opt.step(g)
        path.append(p.copy())
    return np.array(path), np.array(ahead)


def height(p: Array) -> Array:
    a, _ = bowl(EIGENVALUES)
    values: Array = 0.5 * np.einsum("...i,ij,...j", p, a, p)
    return values


def draw(found: dict[str, Array], picture: Path) -> None:
    figure, axes = sheet(2, 3, 10.5, 7)
    for ax, steepest in zip(axes[0], [0.5, 1.5, 2.1], strict=True):
        seen, said = components(steepest / EIGENVALUES[1], 20)
        label(ax, f"largest α·λ = {steepest}", "step t", "component of p")
        for k, color in enumerate([BLUE, RED]):
            ax.plot(seen[:, k], color=color, label=f"SGD, λ = {EIGENVALUES[k]:g}")
            ax.plot(said[:, k], "o", color=color, mfc="none", label="(1 - α·λ)ᵗ·p₀")
        ax.set_xlim(-0.5, 20.5)
    axes[0, 2].legend(loc="upper left", fontsize=8)
    x, y = np.meshgrid(np.linspace(-4.5, 3, 160), np.linspace(-4, 3, 120))
    values = height(np.stack([x, y], axis=-1))
    families = [["SGD", "Newton"], ["momentum", "Nesterov"], ["AdaGrad", "RMSprop", "Adam"]]
    titles = ["one rate, or the curvature", "momentum", "a rate for each coordinate"]
    for ax, title, family in zip(axes[1], titles, families, strict=True):
        label(ax, title, "p₁", "p₂")
        contours(ax, x, y, values, [0.1, 0.5, 1, 2, 4, 8, 16, 32, 64])
        for name in family:
            rate = f", α = {RATES[name]}" if name in RATES else ""
            ax.plot(*found[name].T, label=name + rate, **LOOKS[name].line(every=2))
        ax.legend(loc="lower left", fontsize=9)
    save(figure, picture)


def main(argv: Sequence[str] | None = None) -> None:
    chosen = options(__doc__, argv, "bowl.png", steps=60)
    rows = []
    for steepest in STEEPEST:
        seen, said = components(steepest / EIGENVALUES[1], 40)
        for k, value in enumerate(EIGENVALUES):
            error = np.abs(seen - said)[:, k].max() / np.abs(said[:, k]).max()
            product = steepest * value / EIGENVALUES[1]
            rows.append([f"λ = {value:g}", product, 1 - product, regime(seen[:, k]), error])
    headings = ["component", "α·λ", "factor", "seen over 40 steps", "error against closed form"]
    table("Gradient descent on the bowl", headings, rows)
    found = paths(chosen.steps)
    table(
        f"Every method from {START}, {chosen.steps} steps",
        ["method", "α", "f at the end", "steps until f < 10⁻³"],
        [
            [name, lr, float(height(found[name])[-1]), steps_until(height(found[name]), 1e-3)]
            for name, lr in (RATES | OTHERS).items()
        ],
    )
    draw(found, chosen.picture)


if __name__ == "__main__":
    main()
