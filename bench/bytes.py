"""Steps in fewer bytes, beside float32's: AdamW over one large tensor, past the caches and in them.

    python bench/bytes.py [alone] [loaded] [others] [--elements N ...] [--isa NAME ...]
                          [--threads N] [--seconds S] [--out FILE]

All ways to keep parameters and state take turns (`fusedstep.benchmarks.turns`) in one process. A
figure is the median of the turns, in nanoseconds for each element, and in brackets how many times
as fast as the float32 step. `loaded` leaves one core to a process that streams through memory all
the while, so that the others have less of it, as many cores of a server do. `others` times 8-bit
AdamW of bitsandbytes and torchao where they are installed; they are slow, and take a few turns
only, over the first size. docs/benchmarks/bytes.md has the tables of bench/bytes.json.
"""

from __future__ import annotations

import argparse
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from itertools import product
from statistics import median
from typing import Any, NamedTuple, TypeAlias

import ml_dtypes
import numpy as np
from topics import Row, described, head, parsed, parser_of, with_out, write

import fusedstep as fs
from fusedstep.benchmarks.contestants.contestant import Entry
from fusedstep.benchmarks.turns import take_turns

Array: TypeAlias = np.ndarray[Any, Any]

BFLOAT16: Any = ml_dtypes.bfloat16

STREAM = """
import numpy as np
a, b = np.zeros(2**26, np.float32), np.zeros(2**26, np.float32)
print("ready", flush=True)
while True:
    np.copyto(a, b)
"""
"""A process that moves memory for as long as it lives."""


class Way(NamedTuple):
    """A way to keep parameters, gradients and state."""

    name: str
    moved: float
    """Bytes for each element that a step reads and writes."""
    dtype: Any
    grads: Any
    options: dict[str, Any]


WAYS = [
    Way("float32", 28, np.float32, np.float32, {}),
    Way("float32, bfloat16 g", 26, np.float32, BFLOAT16, {}),
    Way("float32, bfloat16 state", 20, np.float32, np.float32, {"state_dtype": "bfloat16"}),
    Way("float32, 8bit state", 16, np.float32, np.float32, {"state_dtype": "8bit"}),
    Way("bfloat16, split16", 26, BFLOAT16, BFLOAT16, {}),
    Way("bfloat16, split16, bfloat16 state", 18, BFLOAT16, BFLOAT16, {"state_dtype": "bfloat16"}),
    Way("bfloat16, split16, 8bit state", 14, BFLOAT16, BFLOAT16, {"state_dtype": "8bit"}),
    Way(
        "bfloat16, split8, 8bit state",
        12,
        BFLOAT16,
        BFLOAT16,
        {"master": "split8", "state_dtype": "8bit"},
    ),
    Way(
        "bfloat16 alone, bfloat16 state",
        14,
        BFLOAT16,
        BFLOAT16,
        {"master": False, "state_dtype": "bfloat16"},
    ),
    Way(
        "bfloat16 alone, 8bit state",
        10,
        BFLOAT16,
        BFLOAT16,
        {"master": False, "state_dtype": "8bit"},
    ),
    Way("float16, master float32", 28, np.float16, np.float16, {}),
]

MOVED = {way.name: way.moved for way in WAYS} | {
    "float32, out=bfloat16": 30,
    "float32, then torch casts to bfloat16": 34,
}
"""Bytes for each element that a step of a contestant moves."""


def normal(n: int, dtype: Any, scale: float) -> Array:
    """Numbers like those of training; one million of them, repeated."""
    rng = np.random.default_rng(0)
    few = (rng.standard_normal(min(n, 2**20)) * scale).astype(np.float32).astype(dtype)
    return np.resize(few, n)


def stepped(way: Way, n: int) -> Callable[[], object]:
    p, g = normal(n, way.dtype, 1.0), normal(n, way.grads, 1e-3)
    opt = fs.AdamW(p, lr=1e-6, **way.options)
    opt.step(g)
    return lambda: opt.step(g)


def with_copy(n: int) -> Iterator[tuple[str, Callable[[], object]]]:
    """A float32 step that leaves a bfloat16 copy, and one with a pass of its own for it."""
    p, g, half = normal(n, np.float32, 1.0), normal(n, np.float32, 1e-3), np.zeros(n, BFLOAT16)
    opt = fs.AdamW(p, lr=1e-6, out=half)
    opt.step(g)
    yield "float32, out=bfloat16", lambda: opt.step(g)
    try:
        import torch
    except ImportError:
        return
    q, target = torch.from_numpy(normal(n, np.float32, 1.0)), torch.zeros(n, dtype=torch.bfloat16)
    plain = fs.AdamW(q.numpy(), lr=1e-6)
    plain.step(g)
    torch.set_num_threads(fs.get_num_threads())

    def both() -> None:
        plain.step(g)
        target.copy_(q)

    yield "float32, then torch casts to bfloat16", both


@contextmanager
def streaming() -> Iterator[None]:
    """Another process that uses the memory."""
    with subprocess.Popen([sys.executable, "-c", STREAM], stdout=subprocess.PIPE) as process:
        assert process.stdout is not None
        process.stdout.readline()
        try:
            yield
        finally:
            process.kill()


def others(n: int) -> Iterator[tuple[str, Callable[[], object]]]:
    """The 8-bit Adam of bitsandbytes and of torchao, where they are installed."""
    try:
        import torch
    except ImportError:
        return
    for name, module, path in (
        ("bitsandbytes, 8 bit", "bitsandbytes", "optim.AdamW8bit"),
        ("torchao, 8 bit", "torchao.optim", "AdamW8bit"),
    ):
        try:
            found: Any = __import__(module, fromlist=["x"])
        except ImportError as error:
            print(f"({name}: {error})")
            continue
        for part in path.split("."):
            found = getattr(found, part)
        p = torch.nn.Parameter(torch.from_numpy(normal(n, np.float32, 1.0)))
        p.grad = torch.from_numpy(normal(n, np.float32, 1e-3))
        opt = found([p], lr=1e-6)
        yield name, opt.step


def turns_of(steps: dict[str, Callable[[], object]], seconds: float) -> dict[str, list[float]]:
    """The seconds of the turns of each contestant."""
    entries = {name: Entry(step, list, fs.get_num_threads()) for name, step in steps.items()}
    return {name: timing.turns for name, timing in take_turns(entries, seconds).items()}


def reported(topic: str, n: int, found: dict[str, list[float]]) -> Iterator[Row]:
    """Print a table of these turns, and give its rows."""
    print(f"\n## {n:,} elements, {fs.get_num_threads()} threads, {topic}\n")
    head("ns an element", ["median", "least", "bytes moved", "GB/s"])
    base = found["float32"]
    for name, turns in found.items():
        each, least, most = (1e9 * time / n for time in (median(turns), min(turns), max(turns)))
        moved = MOVED.get(name, 0)
        shown = [
            f"{each:.3f} ({median(base) / median(turns):.2f}×)",
            f"{least:.3f} ({min(base) / min(turns):.2f}×)",
            f"{moved:g}" if moved else "",
            f"{moved / each:.0f}" if moved else "",
        ]
        print(f"| {name} | {' | '.join(shown)} |", flush=True)
        yield Row(topic, f"{n}", name, "ns", each, least, most, len(turns))


def ours(n: int) -> dict[str, Callable[[], object]]:
    return {way.name: stepped(way, n) for way in WAYS} | dict(with_copy(n))


def alone(options: argparse.Namespace) -> Iterator[Row]:
    for isa, n in product(options.isa, options.elements):
        fs.set_isa(isa)
        yield from reported(f"{isa}, alone", n, turns_of(ours(n), options.seconds))


def loaded(options: argparse.Namespace) -> Iterator[Row]:
    fs.set_num_threads(max(1, options.threads - 1))
    with streaming():
        for isa, n in product(options.isa, options.elements):
            fs.set_isa(isa)
            yield from reported(f"{isa}, loaded", n, turns_of(ours(n), options.seconds))
    fs.set_num_threads(options.threads)


def beside_others(options: argparse.Namespace) -> Iterator[Row]:
    isa, n = options.isa[0], options.elements[0]
    fs.set_isa(isa)
    steps = {way.name: stepped(way, n) for way in WAYS[:4]} | dict(others(n))
    for step in steps.values():
        step()
    yield from reported(f"{isa}, others", n, turns_of(steps, options.seconds))


TOPICS = {"alone": alone, "loaded": loaded, "others": beside_others}


def main() -> None:
    parser = with_out(parser_of(__doc__, TOPICS))
    parser.add_argument("--elements", type=int, nargs="+", default=[2**24, 2**26])
    parser.add_argument("--isa", nargs="+", default=fs.info().isas[:0:-1], help="instruction sets")
    parser.add_argument("--threads", type=int, default=fs.get_num_threads())
    parser.add_argument("--seconds", type=float, default=30.0, help="of the turns of each table")
    options = parsed(parser, TOPICS)
    fs.set_num_threads(options.threads)
    here = described(("ml_dtypes", "torch", "bitsandbytes", "torchao"))
    write(options.out, here, [row for topic in options.what for row in TOPICS[topic](options)])


if __name__ == "__main__":
    main()
