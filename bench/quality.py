"""Losses in fewer bytes, v that follows, updates that do not explode.

    python bench/quality.py [digits] [finetuning] [follow] [spikes] [gpt] [--seeds N] [--steps N]
                            [--out FILE]

Every way to keep parameters and state trains the same network from the same seeds, by batches in
the same order. The last columns are the largest size of an update over the learning rate, in which
formats show that lose small numbers, and how far the weights are from those of float32. Others'
packages take part in `spikes` where they are installed: bitsandbytes, torchao.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable, Iterator, Mapping
from itertools import pairwise
from math import cos, pi
from pathlib import Path
from statistics import mean
from typing import Any, NamedTuple, TypeAlias

import ml_dtypes
import numpy as np
from topics import described, head, headed, parsed, parser_of, with_out, write

import fusedstep as fs

Array: TypeAlias = np.ndarray[Any, Any]

BFLOAT16: Any = ml_dtypes.bfloat16

LAYERS = (64, 64, 64, 10)
BATCH = 64


class Way(NamedTuple):
    """A way to keep parameters and state."""

    name: str
    dtype: Any = np.float32
    options: Mapping[str, Any] = {}
    grads: Any = np.float32


WAYS = [
    Way("float32"),
    Way("float32, bfloat16 state", options={"state_dtype": "bfloat16"}),
    Way(
        "float32, bfloat16 state, nearest",
        options={"state_dtype": "bfloat16", "rounding": "nearest"},
    ),
    Way("float32, 8bit state", options={"state_dtype": "8bit"}),
    Way("float32, 8bit state, nearest", options={"state_dtype": "8bit", "rounding": "nearest"}),
    Way("float16, master float32", np.float16, {}, np.float16),
    Way("bfloat16, split16", BFLOAT16, {}, BFLOAT16),
    Way("bfloat16, split16, bfloat16 state", BFLOAT16, {"state_dtype": "bfloat16"}, BFLOAT16),
    Way("bfloat16, split16, 8bit state", BFLOAT16, {"state_dtype": "8bit"}, BFLOAT16),
    Way("bfloat16, split8", BFLOAT16, {"master": "split8"}, BFLOAT16),
    Way(
        "bfloat16, split8, 8bit state",
        BFLOAT16,
        {"master": "split8", "state_dtype": "8bit"},
        BFLOAT16,
    ),
    Way("bfloat16 alone", BFLOAT16, {"master": False}, BFLOAT16),
    Way(
        "bfloat16 alone, bfloat16 state",
        BFLOAT16,
        {"master": False, "state_dtype": "bfloat16"},
        BFLOAT16,
    ),
    Way("bfloat16 alone, 8bit state", BFLOAT16, {"master": False, "state_dtype": "8bit"}, BFLOAT16),
    Way("bfloat16 alone, nearest", BFLOAT16, {"master": False, "rounding": "nearest"}, BFLOAT16),
]


LARGE = {
    "float32",
    "float32, bfloat16 state",
    "float32, 8bit state",
    "bfloat16, split16",
    "bfloat16, split16, 8bit state",
    "bfloat16, split8, 8bit state",
    "bfloat16 alone, bfloat16 state",
    "bfloat16 alone, 8bit state",
    "bfloat16 alone, nearest",
}
"""The ways in which the language model is trained: each takes minutes."""


class Learned(NamedTuple):
    """One figure of a way, for the file."""

    topic: str
    way: str
    what: str
    value: float


# ---- a network in NumPy ----


def digits() -> tuple[Array, Array, Array, Array]:
    """Handwritten digits: pixels and classes, to train by and to test."""
    from sklearn.datasets import load_digits

    found = load_digits()
    x, y = (found.data / 16).astype(np.float32), found.target
    order = np.random.default_rng(0).permutation(len(x))
    x, y = x[order], y[order]
    return x[360:], y[360:], x[:360], y[:360]


def initial(rng: np.random.Generator) -> list[Array]:
    """He's initialization, and biases of zero."""
    made: list[Array] = []
    for rows, columns in pairwise(LAYERS):
        weights = rng.normal(size=(rows, columns)) * np.sqrt(2 / rows)
        made += [weights.astype(np.float32), np.zeros(columns, np.float32)]
    return made


def forward(params: list[Array], x: Array) -> list[Array]:
    """The activations, the last one before softmax."""
    layers = [x]
    for k in range(0, len(params), 2):
        z = layers[-1] @ params[k] + params[k + 1]
        layers.append(z if k + 2 == len(params) else np.maximum(z, 0))
    return layers


def loss_of(params: list[Array], x: Array, y: Array) -> tuple[float, float]:
    """The mean loss, and the share of classes that are right."""
    z = forward(params, x)[-1].astype(np.float64)
    z -= z.max(axis=1, keepdims=True)
    log = z - np.log(np.exp(z).sum(axis=1, keepdims=True))
    return float(-log[np.arange(len(y)), y].mean()), float((z.argmax(axis=1) == y).mean())


def gradients(params: list[Array], x: Array, y: Array) -> list[Array]:
    layers = forward(params, x)
    z = layers[-1] - layers[-1].max(axis=1, keepdims=True)
    delta = np.exp(z)
    delta /= delta.sum(axis=1, keepdims=True)
    delta[np.arange(len(y)), y] -= 1
    delta /= len(y)
    grads: list[Array] = [delta] * len(params)
    for k in range(len(params) - 2, -1, -2):
        grads[k], grads[k + 1] = layers[k // 2].T @ delta, delta.sum(axis=0)
        delta = (delta @ params[k].T) * (layers[k // 2] > 0)
    return grads


class Run(NamedTuple):
    train: float
    test: float
    accuracy: float
    largest: float
    """The largest size of an update, over its learning rate."""
    weights: list[Array]


def train(way: Way, start: list[Array], seed: int, steps: int, rate: Callable[[int], float]) -> Run:
    """Train from these weights. All state is kept as the way says, as far as it is large enough."""
    x, y, x_test, y_test = digits()
    params = [p.astype(way.dtype) for p in start]
    opt = fs.AdamW(params, lr=rate, weight_decay=0.01, seed=seed, **way.options)
    opt.load_float32_params(start)
    rng = np.random.default_rng(1000 + seed)
    largest = 0.0
    seen = [p.astype(np.float32) for p in params]
    for t in range(1, steps + 1):
        batch = rng.integers(0, len(x), BATCH)
        grads = gradients(seen, x[batch], y[batch])
        with np.errstate(over="ignore"):
            opt.step([g.astype(way.grads) for g in grads])
        after = [p.astype(np.float32) for p in params]
        if t > 1 and way.dtype is np.float32:
            lr = max(rate(t), 1e-12)
            moved = max(float(np.abs(b - a).max()) for a, b in zip(seen, after, strict=True))
            largest = max(largest, moved / lr)
        seen = after
    exact = opt.float32_params()
    train_loss, _ = loss_of(exact, x, y)
    test_loss, accuracy = loss_of(exact, x_test, y_test)
    return Run(train_loss, test_loss, accuracy, largest, exact)


def distance(one: Run, other: Run) -> float:
    """How far weights are apart, for their length."""
    pairs = [*zip(one.weights, other.weights, strict=True)]
    apart = sum(float(((a - b) ** 2).sum()) for a, b in pairs)
    return float(np.sqrt(apart / sum(float((b**2).sum()) for _, b in pairs)))


COLUMNS = ("train loss", "±", "test loss", "accuracy, %", "largest update / lr", "distance")
"""The second is half of the spread over the seeds."""


def compared(
    topic: str, starts: list[list[Array]], steps: int, rate: Callable[[int], float]
) -> Iterator[Learned]:
    """Train in every way from each of the starts, and print the means."""
    head("", COLUMNS)
    plain: list[Run] = []
    for way in WAYS:
        runs = [train(way, start, seed, steps, rate) for seed, start in enumerate(starts)]
        plain = plain or runs
        losses = [run.train for run in runs]
        figures = (
            mean(losses),
            (max(losses) - min(losses)) / 2,
            mean(run.test for run in runs),
            100 * mean(run.accuracy for run in runs),
            max(run.largest for run in runs),
            mean(distance(run, of) for run, of in zip(runs, plain, strict=True)),
        )
        shown = [*(f"{each:.4f}" for each in figures[:3]), f"{figures[3]:.2f}"]
        shown += [f"{figures[4]:.1f}" if figures[4] else "", f"{figures[5]:.3f}"]
        print(f"| {way.name} | {' | '.join(shown)} |", flush=True)
        for what, value in zip(COLUMNS, figures, strict=True):
            yield Learned(topic, way.name, what, value)


def from_scratch(seeds: int, steps: int) -> Iterator[Learned]:
    """A network of 64, 64, 64, 10 learns to read digits, lr 1e-3 down a cosine, 3,000 steps."""
    steps = steps or 3000
    starts = [initial(np.random.default_rng(seed)) for seed in range(seeds)]
    yield from compared("digits", starts, steps, lambda t: 1e-3 * (1 + cos(pi * t / steps)) / 2)


def finetuning(seeds: int, steps: int) -> Iterator[Learned]:
    """The same network, trained before, at a rate of 3e-5, 1,500 steps."""
    starts = []
    for seed in range(seeds):
        start = initial(np.random.default_rng(seed))
        starts.append(train(WAYS[0], start, seed, 400, lambda t: 1e-3).weights)
    yield from compared("finetuning", starts, steps or 1500, lambda t: 3e-5)


# ---- state by itself ----

SPREAD = ("median", "least", "most")


def follow(seeds: int, steps: int) -> Iterator[Learned]:
    """State v over float32's: steady, and 3,700 steps after gradients fell to a thirtieth."""
    n, before, after = 4096, 1300, 3700
    scale = np.exp(np.random.default_rng(0).normal(size=n)).astype(np.float32)
    names = [f"{when}: {what}" for when in ("steady", "fallen") for what in SPREAD]
    head("", names)
    for state in ("bfloat16", "8bit"):
        for rounding in ("auto", "nearest"):
            rng = np.random.default_rng(1)
            kept = fs.Adam(np.zeros(n, np.float32), lr=0, state_dtype=state, rounding=rounding)
            plain = fs.Adam(np.zeros(n, np.float32), lr=0)
            figures: list[float] = []
            for t in range(before + after):
                g = (scale * rng.normal(size=n) / (1 if t < before else 30)).astype(np.float32)
                kept.step(g)
                plain.step(g)
                if t + 1 in (before, before + after):
                    ratio = kept.state["v"] / plain.state["v"]
                    figures += [float(np.median(ratio)), float(ratio.min()), float(ratio.max())]
            name = f"{state}, {'stochastic' if rounding == 'auto' else 'nearest'}"
            print(f"| {name} | {' | '.join(f'{each:.2f}' for each in figures)} |", flush=True)
            for what, value in zip(names, figures, strict=True):
                yield Learned("follow", name, what, value)


Stepper: TypeAlias = Callable[[Array], Array]
"""A step by a gradient, which returns the parameter."""


def spiking() -> Iterator[tuple[str, Stepper]]:
    """Ours and others' Adam, lr 1, over 4,096 elements of zeros."""
    n = 4096
    for state in ("float32", "bfloat16", "8bit"):
        p = np.zeros(n, np.float32)
        opt = fs.Adam(p, lr=1.0, state_dtype=state)

        def ours(g: Array, p: Array = p, opt: Any = opt) -> Array:
            opt.step(g)
            return p

        yield f"fusedstep, {state} state", ours
    for name, make in (("bitsandbytes, 8 bit", of_bitsandbytes), ("torchao, 8 bit", of_torchao)):
        try:
            yield name, make(n)
        except ImportError as error:
            print(f"({name}: {error})")


def of_bitsandbytes(n: int) -> Stepper:
    import bitsandbytes
    import torch

    p = torch.nn.Parameter(torch.zeros(n))
    return _torchs(p, bitsandbytes.optim.Adam8bit([p], lr=1.0))


def of_torchao(n: int) -> Stepper:
    import torch
    from torchao.optim import Adam8bit

    p = torch.nn.Parameter(torch.zeros(n))
    return _torchs(p, Adam8bit([p], lr=1.0))


def _torchs(p: Any, opt: Any) -> Stepper:
    import torch

    def step(g: Array) -> Array:
        p.grad = torch.from_numpy(g)
        opt.step()
        seen: Array = p.detach().numpy()
        return seen

    return step


def spikes(seeds: int, steps: int) -> Iterator[Learned]:
    """Largest update / lr: of 256 elements one has a gradient of 1 at first, the others of 1e-4.

    Then all have that, and nine of ten times none.
    """
    head("", ["largest update / lr"])
    for name, step in spiking():
        rng = np.random.default_rng(2)
        before, largest = np.zeros(4096, np.float32), 0.0
        for t in range(steps or 300):
            g = (1e-4 * rng.normal(size=4096)).astype(np.float32)
            if t == 0:
                g[::256] = 1
            else:
                g *= rng.random(4096) < 0.1
            after = step(g).copy()
            if t:
                largest = max(largest, float(np.abs(after - before).max()))
            before = after
        print(f"| {name} | {largest:,.1f} |", flush=True)
        yield Learned("spikes", name, "largest update / lr", largest)


# ---- a small language model ----


def text_at_hand(most: int = 2_000_000) -> str:
    """The source of Python's standard library, which everybody has."""
    folder = Path(argparse.__file__).parent
    texts = (path.read_text("utf-8", "ignore") for path in sorted(folder.glob("*.py")))
    return "".join(texts)[:most]


def gpt(seeds: int, steps: int) -> Iterator[Learned]:
    """A language model of 4 layers and width 128 over Python's own source, letter by letter."""
    from gpt import trained

    steps = steps or 2000
    head("", [f"loss after {steps:,} steps", "over float32's"])
    plain = None
    for way in WAYS:
        if way.name not in LARGE:
            continue
        loss = trained(text_at_hand(), way.dtype is BFLOAT16, way.options, steps)
        plain = loss if plain is None else plain
        print(f"| {way.name} | {loss:.4f} | {loss - plain:+.4f} |", flush=True)
        yield Learned("gpt", way.name, "loss", loss)


TOPICS = {
    "digits": from_scratch,
    "finetuning": finetuning,
    "follow": follow,
    "spikes": spikes,
    "gpt": gpt,
}


def main() -> None:
    parser = with_out(parser_of(__doc__, TOPICS))
    parser.add_argument("--seeds", type=int, default=3, help="runs of each way")
    parser.add_argument("--steps", type=int, default=0, help="steps, in place of each topic's own")
    options = parsed(parser, TOPICS)
    here = described(("ml_dtypes", "scikit-learn", "torch", "bitsandbytes", "torchao"))
    rows = [
        row for topic in headed(options.what, TOPICS) for row in topic(options.seeds, options.steps)
    ]
    write(options.out, here, rows)


if __name__ == "__main__":
    main()
