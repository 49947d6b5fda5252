"""Recommendations with rare users and items: where lazy Adam falls behind, and where it does not.

    s = Σₖ wₖ·pᵤₖ·qᵢₖ                                       the score of item i for user u
    J = -log σ(s)  for a click,  -log (1 - σ(s))  for none    four items without for each with
    ∂J/∂pᵤ = (σ(s) - y)·w·qᵢ,  ∂J/∂qᵢ = (σ(s) - y)·w·pᵤ,  ∂J/∂w = (σ(s) - y)·pᵤ·qᵢ

Neural collaborative filtering without hidden layers. Users click by taste, and on items whose
popularity follows Zipf's law; few users click often. One click of each user is held out. The hit
rate is the share of users for whom that item is among the ten best of 100, with 99 that they did
not click on.

Adam moves all rows on, by old gradients: "dense", or to the bit the same by rows as "exact". Lazy
Adam is "shared t": rows outside of the batch stay frozen. "own t" is the same with a t for each.

Found: with α = 0.001 frozen rows learn the same some epochs later, "own t" last; trained for a
fixed time, they seem not to converge. With α = 0.01 all ways soon do equally well. With β₂ = 0.99,
by which v soon shrinks in rows that wait but are stepped, dense comes to 0.71, and frozen rows to
0.68 at most, with each of four seeds; α from 0.003 to 0.03 and 16 epochs brought them to 0.69.

All of these parameters fit into a cache, where a step over all rows is so quick that catching up
takes longer, though it moves few bytes; words.py has larger ones.

    python examples/ncf.py
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from functools import cache
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from parts import data
from parts.methods import Array
from parts.plotting import GREY, label, save, sheet
from parts.rows import AROUND, WAY_LOOKS, WAYS, Adam, Grads, same
from parts.shell import options, table

import fusedstep as fs

USERS, ITEMS, TASTES = 2000, 3000, 4
WIDTH = 16
NEGATIVES = 4
"""The number of items without a click beside each with one, drawn anew for each epoch."""

CANDIDATES = 99
"""The number of items among which the one that is held out has to be found."""

SIZE = 128


class Setting(NamedTuple):
    lr: float
    beta2: float

    def __str__(self) -> str:
        return f"α = {self.lr:g}, β₂ = {self.beta2:g}"


SETTINGS = [Setting(0.001, 0.999), Setting(0.01, 0.999), Setting(0.01, 0.99)]


class Clicks(NamedTuple):
    seen: Any
    """Pairs of a user and an item."""
    held_out: Any
    """For each user one item further, and after it the other candidates."""


@cache
def clicks(seed: int) -> Clicks:
    rng = np.random.default_rng(seed)
    popularity = -np.log(rng.permutation(ITEMS) + 10.0)
    tastes = rng.standard_normal((USERS, TASTES)) @ rng.standard_normal((TASTES, ITEMS))
    keys = popularity + tastes * (2 / np.sqrt(TASTES)) + rng.gumbel(size=(USERS, ITEMS))
    order = np.argsort(-keys, axis=1)  # by Gumbel's noise, draws without replacement
    # From 15 to 215 clicks for each user, after Zipf's law, too.
    counts = 4000 // (rng.permutation(USERS) + 20) + 15
    seen, held_out = [], []
    for user, count in enumerate(counts):
        first, *others = rng.permutation(order[user, :count])
        seen += [(user, item) for item in others]
        held_out.append([first, *rng.choice(order[user, count:], CANDIDATES, replace=False)])
    return Clicks(np.array(seen), np.array(held_out))


def examples(seen: Any, rng: np.random.Generator) -> Iterator[tuple[Any, Any, Array]]:
    """An epoch of batches: users, items, and 1 for a click."""
    users = np.repeat(seen[:, 0], 1 + NEGATIVES)
    items = rng.integers(ITEMS, size=len(users))
    items[:: 1 + NEGATIVES] = seen[:, 1]
    clicked = np.zeros(len(users), np.float32)
    clicked[:: 1 + NEGATIVES] = 1
    for batch in data.batches(len(users), SIZE, rng):
        yield users[batch], items[batch], clicked[batch]


def scores(params: dict[str, Array], users: Any, items: Any) -> Array:
    found: Array = (params["users"][users] * params["items"][items]) @ params["w"]
    return found


def gradients(params: dict[str, Array], users: Any, items: Any, clicked: Array) -> Grads:
    p, q, w = params["users"][users], params["items"][items], params["w"]
    d = ((np.tanh((p * q) @ w / 2) + 1) / 2 - clicked)[:, None] / len(clicked)
    return {
        "users": fs.Rows(users, d * q * w),
        "items": fs.Rows(items, d * p * w),
        "w": (d * p * q).sum(axis=0),
    }


def hits(found: Any) -> float:
    """The share of rows whose first score is among the ten highest."""
    return float(((found[:, 1:] >= found[:, :1]).sum(axis=1) < 10).mean())


def hit_rate(params: dict[str, Array], held_out: Any) -> float:
    return hits(scores(params, np.arange(len(held_out))[:, None], held_out))


def popular(given: Clicks) -> float:
    """The hit rate of scores that are the same for all users: the items' numbers of clicks."""
    clicked = np.bincount(given.seen[:, 1], minlength=ITEMS)
    rank = np.argsort(np.argsort(clicked, kind="stable"), kind="stable")
    return hits(rank[given.held_out])


class Run(NamedTuple):
    params: dict[str, Array]
    hits: list[float]
    """The hit rate after each epoch, from 0 on."""
    seconds: float
    bytes: int


def train(way: str, setting: Setting, epochs: int, seed: int) -> Run:
    rng = np.random.default_rng(seed)
    given = clicks(seed)
    params = {
        name: (0.1 * rng.standard_normal((rows, WIDTH))).astype(np.float32)
        for name, rows in [("users", USERS), ("items", ITEMS)]
    }
    params["w"] = np.ones(WIDTH, np.float32)
    opt = Adam(way, params, setting.lr, betas=(0.9, setting.beta2))
    found = [hit_rate(params, given.held_out)]
    for _ in range(epochs):
        for users, items, clicked in examples(given.seen, rng):
            opt.catch_up({"users": users, "items": items, "w": None})
            opt.step(gradients(params, users, items, clicked))
        opt.catch_up()
        found.append(hit_rate(params, given.held_out))
    return Run(params, found, opt.seconds, opt.bytes)


def draw(found: dict[Setting, dict[str, Run]], by_clicks: float, picture: Path) -> None:
    figure, axes = sheet(1, len(found), 12, 4.2)
    for ax, (setting, runs) in zip(axes[0], found.items(), strict=True):
        label(ax, str(setting), "epoch", "hit rate at 10" if ax is axes[0, 0] else "")
        ax.axhline(by_clicks, color=GREY, linestyle=":", label="by clicks alone")
        for way, run in runs.items():
            line = WAY_LOOKS[way].line()
            if way == "exact":
                line |= AROUND
            ax.plot(run.hits, label=way, **line)
        ax.set_ylim(0.05, 0.75)
    axes[0, -1].legend(loc="lower right")
    save(figure, picture)


def main(argv: Sequence[str] | None = None) -> None:
    chosen = options(__doc__, argv, "ncf.png", epochs=8)
    by_clicks = popular(clicks(chosen.seed))
    found: dict[Setting, dict[str, Run]] = {}
    for setting in SETTINGS:
        runs = {way: train(way, setting, chosen.epochs, chosen.seed) for way in WAYS}
        found[setting] = runs
        shown = sorted({1, 2, 4, chosen.epochs} & {*range(chosen.epochs + 1)})
        table(
            f"Hit rate at 10, {setting}; {by_clicks:.3f} by clicks alone",
            ["way", *(f"epoch {k}" for k in shown), "best", "seconds of steps", "GB moved"],
            [
                [way, *(f"{rate:.3f}" for rate in rates), run.seconds, run.bytes / 1e9]
                for way, run in runs.items()
                for rates in [[*(run.hits[k] for k in shown), max(run.hits)]]
            ],
        )
        print(f"  exact has the bits of dense: {same(runs['dense'].params, runs['exact'].params)}")
    draw(found, by_clicks, chosen.picture)


if __name__ == "__main__":
    main()
