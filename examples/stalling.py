"""A constant rate stalls on the noise of small batches; a rate that falls, or an average, does not.

    constant      αₜ = α
    piecewise     αₜ = αₖ for boundaryₖ₋₁ < t ≤ boundaryₖ
    exponential   αₜ = α·e^(-r·t)
    averaged      a constant α, and p̄ = β·p̄ + (1 - β)·p in p's place: `ema`

The problem is that of batches.py, with batches of 8, 64 steps an epoch. Near the minimum J falls
by what descent gains, in proportion to α, and rises by what noise adds, in proportion to α²: it
stalls where they are equal, at a height that grows with α. A small α would end low, but takes
too long to get there. A rate that falls is fast first and exact in the end; one that falls too
soon stops wherever it is. A moving average of p, once it has forgotten where it started, is rid of
much of the noise, while p itself goes on as fast as before.

    python examples/stalling.py
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
from batches import Run, examples, minimum, objective, train
from parts.plotting import BLACK, BLUE, GREEN, GREY, ORANGE, RED, Look, label, save, sheet
from parts.shell import options, table

from fusedstep.schedules import constant, exponential, piecewise

SIZE = 8

EMA = 0.995
"""β, with which p̄ looks back over some 200 steps, 3 epochs."""

SCHEDULES = {
    "constant 0.5": constant(0.5),
    "0.5, averaged": constant(0.5),
    "constant 0.005": constant(0.005),
    "piecewise": piecewise([640, 1280], [0.5, 0.05, 0.005]),
    "exponential": exponential(0.5, rate=0.002),
    "too soon": exponential(0.5, rate=0.05),
}
AVERAGES = {"0.5, averaged": EMA}


def runs(seed: int, epochs: int) -> tuple[float, dict[str, Run]]:
    """The least J, and the descent with each rate."""
    x, y = examples(seed)
    least = objective(minimum(x, y), x, y)
    return least, {
        name: train(x, y, SIZE, lr, epochs, seed, AVERAGES.get(name))
        for name, lr in SCHEDULES.items()
    }


def draw(least: float, found: dict[str, Run], picture: Path) -> None:
    figure, axes = sheet(1, 2, 10.5, 4.4)
    rates, objectives = axes[0]
    label(rates, "the rate", "epoch", "α")
    label(objectives, "the objective", "epoch", "J above its least")
    looks = map(Look, [RED, ORANGE, GREY, BLUE, GREEN, BLACK], "oPsD^v")
    for (name, run), look in zip(found.items(), looks, strict=True):
        epochs = len(run.objective) - 1
        steps = np.arange(1, 64 * epochs + 1)
        line = look.line(linewidth=1.6)
        if name not in AVERAGES:
            values = [SCHEDULES[name](int(t)) for t in steps]
            rates.semilogy(steps / 64, values, **{**line, "markevery": len(steps) // 8})
        every = max(1, epochs // 8)
        objectives.semilogy(run.objective - least, label=name, **{**line, "markevery": every})
    rates.set_ylim(1e-3, 1)
    objectives.set_ylim(1e-6, 20)
    objectives.legend(ncols=2)
    save(figure, picture)


def main(argv: Sequence[str] | None = None) -> None:
    chosen = options(__doc__, argv, "stalling.png", epochs=40)
    least, found = runs(chosen.seed, chosen.epochs)
    middle = chosen.epochs // 2
    table(
        f"J above its least, {least:.4f}",
        ["rate", "after 1 epoch", f"after {middle}", f"after {chosen.epochs}"],
        [[name, *(run.objective[[1, middle, -1]] - least)] for name, run in found.items()],
    )
    draw(least, found, chosen.picture)


if __name__ == "__main__":
    main()
