"""Steps of `fusedstep.torch` beside those of torch's own optimizers, on the CPU.

    python bench/torch_steps.py [alone] [grid] [whole] [backward] [fsdp] [--quick] [--out FILE]

Contestants take turns (`fusedstep.benchmarks.turns`), after a warm-up and a check that all of them
make the same update of every parameter. A figure is the median of the turns. Before each step that
is timed by itself a backward pass, outside of its time, makes new gradients.
"""

from __future__ import annotations

import argparse
import gc
import json
import os
import re
import subprocess
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from copy import deepcopy
from inspect import signature
from itertools import cycle
from pathlib import Path
from tempfile import TemporaryDirectory
from time import perf_counter
from typing import Any, NamedTuple, TypeAlias

import torch
import torch.distributed as dist
from torch import nn
from torch.distributed.fsdp import CPUOffloadPolicy, fully_shard
from torch.nn.functional import cross_entropy, mse_loss, scaled_dot_product_attention

import fusedstep as fs
import fusedstep.torch as ours
from fusedstep.benchmarks.contestants.contestant import Entry
from fusedstep.benchmarks.machine import machine
from fusedstep.benchmarks.measuring import quartiles
from fusedstep.benchmarks.tables import describe
from fusedstep.benchmarks.turns import take_turns
from fusedstep.benchmarks.workloads import Workload, equal, gpt2_small, perceptron

Tensor: TypeAlias = torch.Tensor
Clock: TypeAlias = Callable[[], float]

OURS = "fusedstep"
IN_BACKWARD = " in backward"
THEIRS: dict[str, dict[str, bool]] = {
    "torch": {},
    "torch foreach": {"foreach": True},
    "torch fused": {"fused": True},
}
"""Options by which torch's contestants differ; the first is torch's choice, a loop on the CPU."""

WARM = 60
"""Steps of a warm-up, if they are over within `WARMING`: until a step has tried its threads."""

WARMING = 0.5
"""Seconds of a warm-up, if one step is not longer."""

HUGE = 20_000_000
"""Elements that a list of the grid has at most with --quick."""

LARGEST = 200_000_000
"""Elements that a list of the grid has at most: each contestant has its own state for it."""


# ---- contestants ----


def optimizer(name: str, params: Any, kind: str = "AdamW", **options: Any) -> Any:
    """The optimizer of a contestant, or None where torch has none."""
    if name.startswith(OURS):
        return getattr(ours, kind)(params, **options)
    theirs, own = getattr(torch.optim, kind), THEIRS[name]
    if not own.keys() <= signature(theirs).parameters.keys():
        return None
    return theirs(params, **options, **own)


def stepping(workload: Workload, kind: str, **options: Any) -> dict[str, Entry]:
    """Steps alone: all contestants step the same parameters, by the same gradients."""
    torch.manual_seed(0)
    params = [torch.randn(shape, requires_grad=True) for shape in workload.shapes]
    slopes = [torch.randn(shape) for shape in workload.shapes]

    def renew() -> None:
        for p in params:
            p.grad = None
        sums = [(p * slope).sum() for p, slope in zip(params, slopes, strict=True)]
        torch.stack(sums).sum().backward()

    made = {name: optimizer(name, params, kind, **options) for name in (*THEIRS, OURS)}
    threads = torch.get_num_threads()
    return {
        name: Entry(each.step, lambda: params, threads, renew)
        for name, each in made.items()
        if each is not None
    }


class Task(NamedTuple):
    """A model and what it is trained on."""

    name: str
    model: Any
    batches: Sequence[tuple[Tensor, Tensor]]
    loss: Callable[[Tensor, Tensor], Tensor]

    def training(self, model: Any, steps: Any) -> Entry:
        """Whole steps of a copy of the model, by an optimizer or, if None, by its own hooks."""
        batches = cycle(self.batches)

        def step() -> None:
            x, y = next(batches)
            self.loss(model(x), y).backward()
            if steps is not None:
                steps.step()
                steps.zero_grad()

        with torch.no_grad():
            own = [local(p) for p in model.parameters()]
        return Entry(step, lambda: own, torch.get_num_threads())

    def entries(self, names: Sequence[str]) -> dict[str, Entry]:
        """A contestant for each name, with a copy of the model."""
        return {name: self.entry(name, deepcopy(self.model)) for name in names}

    def entry(self, name: str, model: Any) -> Entry:
        """A contestant that steps after the backward pass, or in it if the name says so."""
        usual = name.removesuffix(IN_BACKWARD)
        if name == usual:
            return self.training(model, optimizer(name, model.parameters()))
        if usual == OURS:
            steps = optimizer(usual, model.parameters())
            ours.step_in_backward(model, steps)
            return self.training(model, steps)
        alone = {p: optimizer(usual, [p]) for p in model.parameters()}

        def step(p: Tensor) -> None:
            alone[p].step()
            alone[p].zero_grad()

        for p in alone:
            p.register_post_accumulate_grad_hook(step)
        return self.training(model, None)


def local(p: Any) -> Any:
    """The part of a parameter that this process has."""
    return p.to_local() if hasattr(p, "to_local") else p


# ---- models ----


class Crowd(nn.ModuleList):  # type: ignore[misc]
    """Many small layers side by side, which are stacked and so multiplied at once."""

    def forward(self, x: Tensor) -> Tensor:
        weights = torch.stack([layer.weight for layer in self])
        biases = torch.stack([layer.bias for layer in self])
        return torch.baddbmm(biases[:, None], x, weights.mT)


class Embedded(nn.Module):  # type: ignore[misc]
    """Tokens and their places as vectors."""

    def __init__(self, tokens: int, places: int, width: int) -> None:
        super().__init__()
        self.tokens = nn.Embedding(tokens, width)
        self.places = nn.Parameter(0.02 * torch.randn(places, width))

    def forward(self, x: Tensor) -> Tensor:
        return self.tokens(x) + self.places


class Block(nn.Module):  # type: ignore[misc]
    """Attention to what came before, and a perceptron."""

    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.mixed = nn.Sequential(nn.LayerNorm(width), nn.Linear(width, 3 * width))
        self.joined = nn.Linear(width, width)
        self.perceptron = nn.Sequential(
            nn.LayerNorm(width),
            nn.Linear(width, 4 * width),
            nn.GELU(),
            nn.Linear(4 * width, width),
        )

    def forward(self, x: Tensor) -> Tensor:
        q, k, v = self.mixed(x).unflatten(-1, (3, self.heads, -1)).permute(2, 0, 3, 1, 4)
        found = scaled_dot_product_attention(q, k, v, is_causal=True)
        x = x + self.joined(found.transpose(1, 2).flatten(2))
        return x + self.perceptron(x)


def regression(name: str, model: Any, inputs: tuple[int, ...], outputs: tuple[int, ...]) -> Task:
    batches = [(torch.randn(inputs), torch.randn(outputs)) for _ in range(16)]
    return Task(name, model, batches, mse_loss)


def small_perceptron() -> Task:
    layers = nn.Linear(8, 64), nn.Tanh(), nn.Linear(64, 64), nn.Tanh(), nn.Linear(64, 4)
    return regression("RL's MLP, batch 64", nn.Sequential(*layers), (64, 8), (64, 4))


def crowd() -> Task:
    model = Crowd(nn.Linear(8, 8) for _ in range(1_000))
    return regression("2,000 small parameters", model, (1_000, 4, 8), (1_000, 4, 8))


def deep_perceptron() -> Task:
    layers = [each for _ in range(12) for each in (nn.Linear(1_024, 1_024), nn.ReLU())]
    return regression("12 × Linear(1,024, 1,024)", nn.Sequential(*layers), (64, 1_024), (64, 1_024))


def small_gpt() -> Task:
    tokens, places, width, batch = 512, 64, 128, 8
    blocks = [Block(width, 4) for _ in range(4)]
    ends = nn.LayerNorm(width), nn.Linear(width, tokens)
    model = nn.Sequential(Embedded(tokens, places, width), *blocks, *ends)
    texts = [torch.randint(tokens, (batch, places + 1)) for _ in range(16)]
    batches = [(text[:, :-1], text[:, 1:]) for text in texts]

    def loss(x: Tensor, y: Tensor) -> Tensor:
        return cross_entropy(x.flatten(0, 1), y.flatten())

    return Task("small GPT", model, batches, loss)


# ---- measuring ----


class Row(NamedTuple):
    """One figure of one contestant."""

    topic: str
    case: str
    contestant: str
    unit: str
    """Seconds, "s", of a step, or bytes, "B"."""
    median: float
    low: float
    """The lower quartile of the turns."""
    high: float
    """The upper quartile of the turns."""
    turns: int
    steps: int


def measure(
    topic: str,
    case: str,
    entries: dict[str, Entry],
    seconds: float,
    clock: Clock = perf_counter,
) -> list[Row]:
    """Time contestants in turns of about so many seconds; `entries` is empty afterwards."""
    check(entries, steps=1 if topic in ("whole", "backward", "fsdp") else 3)
    for entry in entries.values():
        warm_up(entry, clock)
    timings = take_turns(entries, seconds, clock=clock)
    entries.clear()
    gc.collect()  # optimizers hold tensors in circles
    rows = []
    for name, timing in timings.items():
        low, middle, high = quartiles(timing.turns)
        turns = len(timing.turns)
        rows.append(Row(topic, case, name, "s", middle, low, high, turns, timing.steps))
    return rows


def take(entry: Entry) -> None:
    if entry.ready is not None:
        entry.ready()
    entry.step()


def warm_up(entry: Entry, clock: Clock) -> None:
    began = clock()
    for _ in range(WARM):
        take(entry)
        if clock() - began > WARMING:
            break


@torch.no_grad()  # type: ignore[untyped-decorator]
def check(entries: Mapping[str, Entry], steps: int) -> None:
    """Assert that so many steps from one start change each parameter, and all of them alike.

    More than one would not do where gradients follow from the parameters: Adam makes large
    updates of small gradients that are nothing but rounding.
    """
    start: list[Tensor] = []
    expected: list[Tensor] = []
    for name, entry in entries.items():
        params: list[Any] = entry.params()
        start = start or [p.clone() for p in params]
        for p, begun in zip(params, start, strict=True):
            p.copy_(begun)
        with torch.enable_grad():
            for _ in range(steps):
                take(entry)
        assert not any(map(torch.equal, params, start)), f"{name} leaves a parameter as it is"
        if expected:
            torch.testing.assert_close(params, expected, rtol=1e-4, atol=1e-6)
        else:
            expected = [p.clone() for p in params]


# ---- topics ----

Rows: TypeAlias = Iterator[list[Row]]


def alone(quick: bool) -> Rows:
    lists = [
        equal(1, 1_000),
        Workload("RL's MLP", tuple(perceptron(8, 64, 64, 4))),
        equal(6, 70_000),
        equal(1_000, 1_000),
        equal(2_000, 100),
        equal(1, 1_000_000),
        Workload("GPT-2 small", tuple(gpt2_small())),
    ]
    for workload in lists:
        entries = stepping(workload, "AdamW")
        yield measure("alone", workload.name, entries, 0 if quick else 8)


def grid(quick: bool) -> Rows:
    """The grid of torch's benchmarks/operator_benchmark/pt/optimizer_test.py."""
    largest = HUGE if quick else LARGEST
    for kind in ("AdamW", "Adam", "SGD", "RMSprop", "Adagrad"):
        options = {"lr": 1e-3, **({"momentum": 0.9} if kind == "SGD" else {})}
        for count in (1, 10, 100):
            for size in (100_000, 1_000_000, 10_000_000):
                workload = equal(count, size)
                if workload.elements <= largest:
                    entries = stepping(workload, kind, **options)
                    case = f"{kind}, {workload.name}"
                    yield measure("grid", case, entries, 0 if quick else 3)


def whole(quick: bool) -> Rows:
    for make in (small_perceptron, crowd, small_gpt):
        torch.manual_seed(0)
        task = make()
        yield measure("whole", task.name, task.entries(WHOLE), 0 if quick else 15)


def backward(quick: bool) -> Rows:
    torch.manual_seed(0)
    task = deep_perceptron()
    yield measure("backward", task.name, task.entries(BACKWARD), 0 if quick else 20)
    peaks = {}
    for name in BACKWARD:
        command = [sys.executable, __file__, "--peak", name]
        done = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True)
        peaks[name] = json.loads(done.stdout)
    for at, case in enumerate(["gradients at once, MiB", "peak of the process, MiB"]):
        found = {name: peak[at] for name, peak in peaks.items() if peak[at] is not None}
        yield [
            Row("backward", case, name, "B", peak, peak, peak, 1, PEAK_STEPS)
            for name, peak in found.items()
        ]


PEAK_STEPS = 5
"""Steps of a process whose memory is measured."""


def print_peaks(name: str) -> None:
    """Train in a process of its own: print the most bytes of gradients, and of the process."""
    task = deep_perceptron()
    params, most = [*task.model.parameters()], 0

    def note(_: Tensor) -> None:
        nonlocal most
        most = max(most, sum(p.grad.nbytes for p in params if p.grad is not None))

    for p in params:  # before the hooks that step, and free the gradient
        p.register_post_accumulate_grad_hook(note)
    entry = task.entry(name, task.model)
    for _ in range(PEAK_STEPS):
        entry.step()
    status = Path("/proc/self/status")  # getrusage would count the parent's memory, too
    found = re.search(r"VmHWM:\s*(\d+) kB", status.read_text()) if status.exists() else None
    print(json.dumps([most, int(found[1]) << 10 if found else None]))


def fsdp(quick: bool) -> Rows:
    with TemporaryDirectory() as folder:
        path = Path(folder, "rows.json")
        launcher = ["-m", "torch.distributed.run", "--standalone", "--nproc-per-node=2"]
        options = [f"--rank={path}", *(["--quick"] if quick else [])]
        subprocess.run(
            [sys.executable, *launcher, __file__, *options],
            env={**os.environ, "OMP_NUM_THREADS": "1"},
            check=True,
        )
        yield [Row(*row) for row in json.loads(path.read_text("utf-8"))]


def run_rank(path: Path, quick: bool) -> None:
    """Train shards as one of the ranks, the first of which writes its rows to `path`."""
    dist.init_process_group("gloo")
    torch.manual_seed(0)
    task = small_gpt()
    entries: dict[str, Entry] = {}
    for name in WHOLE:
        model = deepcopy(task.model)
        for layer in (*model, model):
            fully_shard(layer, offload_policy=CPUOffloadPolicy(pin_memory=False))
        entries[name] = task.entry(name, model)
    rows = measure("fsdp", task.name, entries, 0 if quick else 20, clock=first_ranks_clock)
    if dist.get_rank() == 0:
        path.write_text(json.dumps(rows), "utf-8")
    dist.barrier()
    dist.destroy_process_group()
    os._exit(0)  # threads of a mesh's group may outlive it, and abort a usual end


def first_ranks_clock() -> float:
    """The first rank's time: all ranks read the same, and so take the same number of turns."""
    now = torch.tensor(perf_counter(), dtype=torch.float64)
    dist.broadcast(now, 0)
    return float(now)


class Topic(NamedTuple):
    """What is measured, and how it is shown."""

    run: Callable[[bool], Rows]
    title: str
    cases: str
    contestants: Sequence[str]
    """Names in the order of the columns; the last is the one that others are compared with."""


ALL = [*THEIRS, OURS]
WHOLE = ["torch", "torch fused", OURS]
BACKWARD = ["torch fused", "torch fused" + IN_BACKWARD, OURS, OURS + IN_BACKWARD]

TOPICS = {
    "alone": Topic(alone, "AdamW's step alone", "tensors × elements", ALL),
    "grid": Topic(
        grid,
        f"torch's grid of steps; lists of more than {LARGEST:,} elements are left out, with "
        f"--quick of more than {HUGE:,}",
        "optimizer, tensors × elements of each",
        ALL,
    ),
    "whole": Topic(whole, "Whole steps with AdamW", "model", WHOLE),
    "backward": Topic(backward, "Steps in the backward pass, AdamW", "model", BACKWARD),
    "fsdp": Topic(fsdp, "FSDP2 with CPU offload, two ranks, AdamW", "model", WHOLE),
}


# ---- tables ----


def line(cells: Sequence[str]) -> str:
    return f"| {' | '.join(cells)} |"


def times(ratio: float) -> str:
    digits = 2 if ratio < 2 else 1 if ratio < 10 else 0
    return f"{ratio:,.{digits}f}×"


def figure(row: Row) -> str:
    """Microseconds, or MiB."""
    shown = 1e6 * row.median if row.unit == "s" else row.median / 2**20
    return f"{shown:,.{1 if shown < 10 else 0}f}"


def cells(rows: Sequence[Row], names: Sequence[str]) -> Iterator[str]:
    """The cells of a table's line: the case, and each contestant's figure."""
    found = {row.contestant: row for row in rows}
    yield rows[0].case
    *others, last = names
    for row in map(found.get, others):
        yield "" if row is None else f"{figure(row)} ({times(row.median / found[last].median)})"
    yield figure(found[last])


def show(topic: Topic, quick: bool) -> Iterator[Row]:
    """Print a topic's table, line by line as they are measured, and yield its rows."""
    names = topic.contestants
    print(f"\n## {topic.title}\n")
    print(line([topic.cases, *(f"{name}, µs" for name in names)]))
    print(line(["---", *("---:" for _ in names)]), flush=True)
    for rows in topic.run(quick):
        if rows:
            print(line([*cells(rows, names)]), flush=True)
        yield from rows


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("what", nargs="*", choices=TOPICS, help="what to measure; else everything")
    parser.add_argument("--out", type=Path, metavar="FILE", help="write the figures as JSON")
    parser.add_argument("--quick", action="store_true", help="take as few turns as possible")
    parser.add_argument("--rank", type=Path, help=argparse.SUPPRESS)
    parser.add_argument("--peak", choices=BACKWARD, help=argparse.SUPPRESS)
    options = parser.parse_args()
    fs.set_num_threads(torch.get_num_threads())
    if options.rank:
        run_rank(options.rank, options.quick)
    if options.peak:
        print_peaks(options.peak)
        return
    here = machine(["torch"])
    print(*describe(here), sep="\n")
    print("\nMedians; in parentheses, how many times those of the last column they are.")
    rows = [
        row
        for name, topic in TOPICS.items()
        if name in (options.what or TOPICS)
        for row in show(topic, options.quick)
    ]
    if options.out:
        found = {"machine": here._asdict(), "rows": [row._asdict() for row in rows]}
        text = json.dumps(found, indent=1, ensure_ascii=False)
        options.out.write_text(text + "\n", "utf-8")


if __name__ == "__main__":
    main()
