"""Recommendations for users and items, many of them rare: where lazy Adam falls behind.

TEXT

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
from parts.plotting import label, save, sheet
from parts.rows import WAY_LOOKS, WAYS, Adam, Grads
from parts.shell import options, table

import fusedstep as fs

USERS, ITEMS, TASTES = 2000, 3000, 4
WIDTH = 16
NEGATIVES = 4
"""The number of items without a click beside each with one, drawn anew for each epoch."""

CANDIDATES = 99
"""The number of items among which the one that is held out has to be found."""

SIZE = 256


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
    order = np.argsort(-keys, axis=1)
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


def hit_rate(params: dict[str, Array], held_out: Any) -> float:
    """The share of users whose item is among the ten of the highest scores."""
    found = scores(params, np.arange(len(held_out))[:, None], held_out)
    return float(((found[:, 1:] >= found[:, :1]).sum(axis=1) < 10).mean())
