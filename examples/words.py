"""Word vectors: Adam over the few rows that a batch reads, or over all of them.

    pᵢⱼ = σ(uᵢ·vⱼ)                                      word i has j in its context
    J = -log pᵢⱼ - Σ log (1 - pᵢₖ)  over 5 words k       skip-gram with negative sampling
    ∂J/∂uᵢ = (pᵢⱼ - 1)·vⱼ + Σ pᵢₖ·vₖ,   ∂J/∂vⱼ = (pᵢⱼ - 1)·uᵢ,   ∂J/∂vₖ = pᵢₖ·uᵢ

A word has a row in u, and another in v as a part of contexts. The k are drawn by their number of
occurrences to the power of 3/4, and frequent words are left out now and then. A batch of 32 pairs
reads some 200 rows of 16,000, several of them more than once; all others have a gradient of 0.

    dense       a gradient with all these zeros, and a step over all rows
    own t       a step over the rows of the batch, and others frozen; each row has a t of its own
    shared t    the same with the t of all, lazy Adam: rows that come late begin with steps too long
    exact       a step over the rows of the batch, which ends where dense ends, to the bit

Adam moves a row on after its gradient, for as long as m takes to decay; a frozen row stands still.
So at the same α frozen rows learn more slowly, and bear a larger one. With the best α for each they
still end behind after as many steps; for the seconds that they take they are ahead.

Dense moves more bytes by far; exact moves few, but has the missed steps to compute, so that its
time falls by less. Seconds and bytes of exact are with all its catching up, looks at J included.

Data: the documentation that comes in the files of NumPy and scikit-learn, 700,000 words of text.

    python examples/words.py
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterator, Sequence
from functools import cache
from importlib.resources import files
from pathlib import Path
from typing import Any, NamedTuple, TypeAlias

import numpy as np
from parts.methods import Array
from parts.plotting import label, save, sheet
from parts.rows import AROUND, WAY_LOOKS, WAYS, Adam, same
from parts.shell import options, table

import fusedstep as fs

WIDTH = 128
PAIRS, NEGATIVES = 32, 5
"""The size of a batch, and the number of k for each pair."""

WINDOW = 4
"""The largest distance of two words in a pair."""

LEAST = 2
"""The number of times that a word has to occur."""

FREQUENT = 1e-4
"""The share of all words above which a word is left out with probability 1 - √(FREQUENT/share)."""

LR = 0.003
FROZEN_LR = {"own t": 0.02, "shared t": 0.005}
"""α of least J at the end, of 0.001, 0.002, 0.003, 0.005, 0.01, 0.02, 0.03; LR is dense's."""

Batch: TypeAlias = tuple[Any, Any]


@cache
def texts() -> list[str]:
    """Text between three quotes in the packages' modules, and the pages that describe data sets."""
    try:
        folders = [Path(str(files(package))) for package in ("numpy", "sklearn")]
    except ModuleNotFoundError:
        needed = "words.py needs scikit-learn: `pip install '.[demo]'`"
        raise ModuleNotFoundError(needed, name="sklearn") from None
    found = []
    for folder in folders:
        for module in sorted(folder.rglob("*.py")):
            if "tests" not in module.parts:
                found += re.findall(r'"""(.*?)"""', module.read_text("utf-8"), re.DOTALL)
        found += [page.read_text("utf-8") for page in sorted(folder.rglob("*.rst"))]
    return found


class Pairs(NamedTuple):
    """Pairs of a word and another in its context, to learn from and to be held out."""

    words: list[str]
    """Ordered from the most frequent."""
    odds: Array
    """The probability of each word to be drawn as a k."""
    train: Any
    """Two columns, u's row and v's."""
    held_out: Any


@cache
def pairs(seed: int) -> Pairs:
    rng = np.random.default_rng(seed)
    split = [re.findall("[a-z]+", text.lower()) for text in texts()]
    counts = Counter(word for text in split for word in text)
    words = [word for word, count in counts.most_common() if count >= LEAST]
    number = {word: i for i, word in enumerate(words)}
    occurrences = np.array([counts[word] for word in words], float)
    kept = np.sqrt(FREQUENT * occurrences.sum() / occurrences)
    found: tuple[list[Any], list[Any]] = [], []
    for text in split:
        ids = np.array([number[word] for word in text if word in number], np.int64)
        ids = ids[rng.random(len(ids)) < kept[ids]]
        part = found[rng.random() < 0.1]
        for distance in range(1, WINDOW + 1):
            either = np.stack([ids[:-distance], ids[distance:]], axis=1)
            part += [either, either[:, ::-1]]
    odds = occurrences**0.75
    return Pairs(words, odds / odds.sum(), *map(np.concatenate, found))


def batches(
    given: Any, odds: Array, size: int, steps: int, rng: np.random.Generator
) -> Iterator[Batch]:
    """Words, and for each a row of contexts: the true one first, then those that are drawn."""
    ends = np.cumsum(odds)
    for _ in range(steps):
        words, contexts = given[rng.integers(len(given), size=size)].T
        drawn = np.searchsorted(ends, rng.random((size, NEGATIVES)) * ends[-1])
        yield words, np.column_stack([contexts, drawn])


def forward(u: Array, v: Array, batch: Batch) -> tuple[float, Array]:
    """The mean of J, and its gradient by each uᵢ·vⱼ."""
    words, contexts = batch
    scores = np.einsum("nd,nkd->nk", u[words], v[contexts])
    signs = np.where(np.arange(scores.shape[1]) == 0, -1, 1).astype(scores.dtype)
    loss = np.logaddexp(0, signs * scores).sum(axis=1).mean()
    return float(loss), signs * (1 + np.tanh(signs * scores / 2)) / (2 * len(words))


def gradients(u: Array, v: Array, batch: Batch) -> dict[str, fs.Rows]:
    """The gradients of the mean of J by the rows that the batch reads."""
    words, contexts = batch
    _, d = forward(u, v, batch)
    du = np.einsum("nk,nkd->nd", d, v[contexts])
    dv = d[:, :, None] * u[words][:, None]
    return {"u": fs.Rows(words, du), "v": fs.Rows(contexts.ravel(), dv.reshape(-1, u.shape[1]))}


class Run(NamedTuple):
    params: dict[str, Array]
    steps: list[int]
    losses: list[float]
    """J of the pairs that are held out, after these steps."""
    seconds: list[float]
    """The seconds that the optimizer has taken until then."""
    bytes: int


def train(way: str, lr: float, steps: int, seed: int) -> Run:
    rng = np.random.default_rng(seed)
    given = pairs(seed)
    shape = len(given.words), WIDTH
    params = {name: (0.1 * rng.standard_normal(shape)).astype(np.float32) for name in ("u", "v")}
    (held_out,) = batches(given.held_out, given.odds, 5000, 1, rng)
    opt = Adam(way, params, lr)
    run = Run(params, [0], [forward(**params, batch=held_out)[0]], [0.0], 0)
    looks = {*np.linspace(0, steps, 13).astype(int)}
    for t, batch in enumerate(batches(given.train, given.odds, PAIRS, steps, rng), start=1):
        words, contexts = batch
        opt.catch_up({"u": words, "v": contexts.ravel()})
        opt.step(gradients(**params, batch=batch))
        if t in looks:
            opt.catch_up()
            run.steps.append(t)
            run.losses.append(forward(**params, batch=held_out)[0])
            run.seconds.append(opt.seconds)
    return run._replace(bytes=opt.bytes)


def runs(steps: int, seed: int) -> dict[tuple[str, float], Run]:
    """Every way with the same α, and frozen rows with their own."""
    chosen = [*((way, LR) for way in WAYS), *FROZEN_LR.items()]
    return {(way, lr): train(way, lr, steps, seed) for way, lr in chosen}


def draw(found: dict[tuple[str, float], Run], picture: Path) -> None:
    figure, axes = sheet(1, 2, 10.5, 4.4)
    over_steps, over_seconds = axes[0]
    label(over_steps, "the same batches, step by step", "step", "J of pairs held out")
    label(over_seconds, "and over the optimizer's seconds", "second", "")
    for (way, lr), run in found.items():
        line = WAY_LOOKS[way].line(linestyle="-" if lr == LR else "--")
        over_seconds.semilogx(run.seconds[1:], run.losses[1:], **line)
        if way == "exact":
            line |= AROUND
        over_steps.plot(run.steps, run.losses, label=f"{way}, α = {lr:g}", **line)
    over_steps.set_ylim(top=4.8)
    over_steps.legend(fontsize=9, ncols=2, loc="upper right")
    save(figure, picture)


def main(argv: Sequence[str] | None = None) -> None:
    chosen = options(__doc__, argv, "words.png", steps=3000)
    given = pairs(chosen.seed)
    found = runs(chosen.steps, chosen.seed)
    table(
        f"{len(given.words)} words, {len(given.train)} pairs to learn from, {chosen.steps} steps",
        ["way", "α", "J held out, half-way", "at the end", "seconds of steps", "GB moved"],
        [
            [way, lr, run.losses[len(run.losses) // 2], run.losses[-1], run.seconds[-1], size]
            for (way, lr), run in found.items()
            for size in [run.bytes / 1e9]
        ],
    )
    exact_is_dense = same(found["dense", LR].params, found["exact", LR].params)
    print(f"  exact has the bits of dense: {exact_is_dense}")
    draw(found, chosen.picture)


if __name__ == "__main__":
    main()
