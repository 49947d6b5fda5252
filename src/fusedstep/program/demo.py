"""The subcommand `demo`: seven optimizers learn to read handwritten digits, each trained twice.

One training steps with fusedstep, the other with the same rule in plain NumPy, from
textbook.py. The two take turns, an epoch each, so that a machine that speeds up or slows down
favours neither. They start from the same seed, and must end in the same bits.

The network's arithmetic, too, has the same bits on every machine, see exact.py: so what was trained
has the same digest everywhere.
"""

from __future__ import annotations

from argparse import ArgumentParser, Namespace
from collections.abc import Callable, Iterator
from functools import partial
from itertools import pairwise
from math import sqrt
from pathlib import Path
from statistics import median
from time import perf_counter
from typing import TYPE_CHECKING, Any, NamedTuple, Protocol, TypeAlias

import numpy as np

import fusedstep as fs
from fusedstep._core.digest import digest_of
from fusedstep.benchmarks.textbook import Textbook, adagrad, adam, adamw, momentum, rmsprop, sgd
from fusedstep.program import output
from fusedstep.program.arguments import add_picture, whole
from fusedstep.program.errors import EXTRA, require, unwritten
from fusedstep.program.exact import Wide, dot, softmax, total

if TYPE_CHECKING:
    from rich.table import Table

Array: TypeAlias = np.ndarray[Any, np.dtype[np.float32]]
Params: TypeAlias = dict[str, Array]


class Steps(Protocol):
    def step(self, grads: Params, /) -> object: ...


# The training loop.


def train(
    params: Params, opt: Steps, x: Array, y: Array, epochs: int, rng: np.random.Generator
) -> Iterator[list[float]]:
    """Train in place on batches of 32, and yield the losses of each epoch's."""
    for _ in range(epochs):
        losses = []
        for batch in np.array_split(rng.permutation(len(x)), len(x) // 32):
            loss, grads = backward(params, x[batch], y[batch])
            opt.step(grads)
            losses.append(loss)
        yield losses


# The network: 64 pixels, two hidden layers with ReLU, softmax over ten classes.

LAYERS = (64, 128, 64, 10)


def initial(rng: np.random.Generator) -> Params:
    params = {}
    for layer, (n, m) in enumerate(pairwise(LAYERS), start=1):
        share = 2 * rng.random((n, m)) - 1  # of numbers that no library's logarithm is asked for
        params[f"w{layer}"] = (share * sqrt(6 / n)).astype(np.float32)
        params[f"b{layer}"] = np.zeros(m, np.float32)
    return params


def forward(params: Params, x: Array) -> tuple[Wide, Wide, Wide]:
    h1 = np.maximum(dot(x, params["w1"]) + params["b1"], 0)
    h2 = np.maximum(dot(h1, params["w2"]) + params["b2"], 0)
    return h1, h2, dot(h2, params["w3"]) + params["b3"]


def backward(params: Params, x: Array, y: Array) -> tuple[float, Params]:
    """Return the mean cross-entropy against the one-hot rows of y, and its gradients."""
    h1, h2, z = forward(params, x)
    q = softmax(z)
    d3 = (q - y) / len(y)
    d2 = dot(d3, params["w3"].T) * (h2 > 0)
    d1 = dot(d2, params["w2"].T) * (h1 > 0)
    grads = {"w1": dot(x.T, d1), "w2": dot(h1.T, d2), "w3": dot(h2.T, d3)}
    grads |= {"b1": total(d1), "b2": total(d2), "b3": total(d3)}
    right = np.maximum((q * y).sum(axis=1), np.finfo(np.float64).tiny)
    dtype = params["w1"].dtype
    return -float(np.log(right).mean()), {k: g.astype(dtype) for k, g in grads.items()}


# The comparison.


class Contestant(NamedTuple):
    """An optimizer of fusedstep, its rule in plain NumPy, and the options of both."""

    name: str
    lr: float
    optimizer: Callable[..., fs.Optimizer]
    rule: Callable[..., None]
    options: dict[str, Any]


CONTESTANTS = [
    Contestant("SGD", 0.1, fs.SGD, sgd, {}),
    Contestant("momentum", 0.05, fs.SGD, momentum, {"momentum": 0.9}),
    Contestant("Nesterov", 0.05, fs.SGD, momentum, {"momentum": 0.9, "nesterov": True}),
    Contestant("AdaGrad", 0.03, fs.Adagrad, adagrad, {}),
    Contestant("RMSprop", 0.001, fs.RMSprop, rmsprop, {}),
    Contestant("Adam", 0.003, fs.Adam, adam, {}),
    Contestant("AdamW", 0.003, fs.AdamW, adamw, {"weight_decay": 0.1}),
]


class Result(NamedTuple):
    name: str
    losses: list[float]
    """The mean training loss of each epoch."""
    batches: list[list[float]]
    """The training loss of each batch, by epoch."""
    accuracy: float
    """The share of the test digits that the trained network reads rightly."""
    fused: float
    """The median time of a step of fusedstep, in seconds."""
    textbook: float
    """The median time of a step in plain NumPy, in seconds."""
    same_bits: bool
    digest: str
    """The digest of parameters, state and t in the end."""

    @property
    def ratio(self) -> float:
        return self.textbook / self.fused


class Timed:
    """An optimizer that notes the seconds of each of its steps."""

    def __init__(self, opt: Steps) -> None:
        self.opt = opt
        self.seconds: list[float] = []

    def step(self, grads: Params) -> None:
        start = perf_counter()
        self.opt.step(grads)
        self.seconds.append(perf_counter() - start)


class Digits(NamedTuple):
    """Images as rows of 64 pixels in [0, 1], labels as one-hot rows."""

    x: Array
    y: Array
    test_x: Array
    test_y: Array


def read_digits(seed: int) -> Digits:
    """Shuffle the 1,797 digits of scikit-learn: four fifths to train on, the rest to test."""
    from sklearn.datasets import load_digits

    data = load_digits()
    order = np.random.default_rng(seed).permutation(len(data.data))
    x = (data.data[order] / 16).astype(np.float32)
    y = np.eye(10, dtype=np.float32)[data.target[order]]
    n = len(x) * 4 // 5
    return Digits(x[:n], y[:n], x[n:], y[n:])


def compete(contestant: Contestant, digits: Digits, epochs: int, seed: int) -> Result:
    name, lr, optimizer, rule, options = contestant
    trained = [initial(np.random.default_rng(seed)) for _ in range(2)]
    opt = optimizer(trained[0], lr=lr, **options)
    fused = Timed(opt)
    textbook = Timed(Textbook(trained[1], rule, lr=lr, **options))
    trainings = [
        train(params, opt, digits.x, digits.y, epochs, np.random.default_rng(seed))
        for params, opt in zip(trained, (fused, textbook), strict=True)
    ]
    batches = [losses for losses, _ in zip(*trainings, strict=True)]
    return Result(
        name,
        [sum(losses) / len(losses) for losses in batches],
        batches,
        accuracy=accuracy(trained[0], digits.test_x, digits.test_y),
        fused=median(fused.seconds),
        textbook=median(textbook.seconds),
        same_bits=all(trained[0][k].tobytes() == trained[1][k].tobytes() for k in trained[0]),
        digest=opt.digest(),
    )


def accuracy(params: Params, x: Array, y: Array) -> float:
    *_, z = forward(params, x)
    return float((z.argmax(axis=1) == y.argmax(axis=1)).mean())


# What the user sees.

POINTS = 10
"""The least number of points of a curve."""

DESCRIPTION = (
    "Train a small network to read handwritten digits, with every optimizer and again with its "
    "rule in plain NumPy. Compare times and bits, and draw the losses."
)


def add_arguments(parser: ArgumentParser) -> None:
    parser.add_argument(
        "--epochs",
        type=whole(least=1),
        default=10,
        help="number of passes over the digits (default: %(default)s)",
    )
    parser.add_argument(
        "--seed",
        type=whole(least=0),
        default=0,
        help="fixes the split of the digits, the initial weights and the batches "
        "(default: %(default)s)",
    )
    add_picture(parser, "fusedstep-demo.png")


def run(options: Namespace) -> int:
    require(EXTRA, "the demo")
    results = compare(options.epochs, options.seed)
    failed = None
    try:  # before the table, whose reader may leave the pipe
        draw(results, options.picture)
    except OSError as error:
        failed = unwritten(options.picture, error)
    output.show(tabulate(results, options.epochs), output.console(width=100))
    if failed is not None:
        raise failed
    print(f"The losses are drawn in {options.picture}")
    print("Digests of what was trained:")
    for row in results:
        print(f"{row.name:9} {row.digest}")
    print(f"Digest of all that was trained: {digest_of({r.name: r.digest for r in results})}")
    return 0


def compare(epochs: int, seed: int) -> list[Result]:
    """Let all contestants compete, and show the progress in a terminal."""
    from rich.console import Console
    from rich.progress import track

    terminal = Console()
    digits = read_digits(seed)
    bar = partial(track, console=terminal, transient=True, disable=not terminal.is_terminal)
    return [compete(row, digits, epochs, seed) for row in bar(CONTESTANTS, "training")]


def tabulate(results: list[Result], epochs: int) -> Table:
    from rich.table import Table

    info = fs.info()
    backend = " ".join(filter(None, [info.auto, info.isa]))
    table = Table(
        title=f"Handwritten digits, {'-'.join(map(str, LAYERS))} network, epochs: {epochs}",
        caption="Times: the update alone, median over all steps\n"
        f"fusedstep {info.version} ({backend}, threads: {info.threads}), NumPy {info.numpy}",
    )
    table.add_column("optimizer", no_wrap=True)
    for heading in ("test accuracy", "fused", "textbook NumPy", "ratio", "same bits"):
        table.add_column(heading, justify="right", no_wrap=True)
    for row in results:
        times = (f"{seconds * 1e6:.1f} µs" for seconds in (row.fused, row.textbook))
        same = "yes" if row.same_bits else "NO"
        table.add_row(row.name, f"{row.accuracy:.1%}", *times, f"{row.ratio:.1f}", same)
    return table


def course(batches: list[list[float]]) -> tuple[list[float], list[float]]:
    """The points of a curve: how many epochs are over, and the mean loss since the point before.

    There is one for each epoch, and several where these would be few.
    """
    parts = -(-POINTS // len(batches))
    pieces = [piece for losses in batches for piece in np.array_split(losses, parts)]
    return [k / parts for k in range(1, len(pieces) + 1)], [float(p.mean()) for p in pieces]


def draw(results: list[Result], picture: Path) -> None:
    """Save the losses as a PNG picture."""
    from matplotlib.figure import Figure
    from matplotlib.ticker import LogLocator, MaxNLocator, NullLocator

    figure = Figure(figsize=(8, 5), layout="constrained")
    axes = figure.subplots()
    for row, marker in zip(results, "osD^vPX", strict=True):
        epochs, losses = course(row.batches)
        axes.plot(epochs, losses, marker=marker, label=row.name, linewidth=1.2)
    axes.set_yscale("log")
    axes.xaxis.set_major_locator(MaxNLocator(integer=len(epochs) == epochs[-1]))
    least, most = axes.get_ylim()
    within = range(1, 10) if most < 20 * least else (1, 2, 5) if most < 1e4 * least else (1,)
    axes.yaxis.set_major_locator(LogLocator(subs=within))
    axes.yaxis.set_minor_locator(NullLocator())
    axes.yaxis.set_major_formatter("{x:g}")
    axes.grid(alpha=0.3)
    axes.set_xlabel("epochs")
    axes.set_ylabel("training loss (mean cross-entropy)")
    axes.set_title("Seven optimizers learn to read handwritten digits")
    axes.legend()
    figure.savefig(picture, format="png", dpi=150)
