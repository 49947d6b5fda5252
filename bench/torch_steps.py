"""Steps of `fusedstep.torch` beside those of torch's own optimizers, on the CPU.

`offload` alone has its model on a CUDA device, and is left out where there is none.

    python bench/torch_steps.py [alone] [grid] [whole] [coming] [backward] [fsdp] [offload]
                                [--quick] [--out FILE]

Contestants take turns (`fusedstep.benchmarks.turns`), after a check that all of them make the same
update of every parameter, and a warm-up. A figure is the median of the turns. Before each step that
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
from collections.abc import Callable, Iterator, Sequence
from copy import deepcopy
from inspect import signature
from itertools import count, cycle
from pathlib import Path
from time import perf_counter
from typing import Any, NamedTuple, TypeAlias

import torch
import torch.distributed as dist
from topics import Row, described, head, headed, parsed, parser_of, with_out, write
from torch import nn
from torch.distributed.fsdp import CPUOffloadPolicy, fully_shard
from torch.nn.functional import cross_entropy, mse_loss

import fusedstep as fs
import fusedstep.torch as ours
from fusedstep.benchmarks.contestants.contestant import Entry
from fusedstep.benchmarks.measuring import quartiles
from fusedstep.benchmarks.turns import take_turns
from fusedstep.benchmarks.workloads import Workload, equal, gpt2_small, perceptron

Tensor: TypeAlias = torch.Tensor

OURS = "fusedstep"
IN_BACKWARD = "fusedstep in backward"
THEIRS: dict[str, dict[str, bool]] = {
    "torch": {},
    "torch foreach": {"foreach": True},
    "torch fused": {"fused": True},
}
"""Options by which torch's contestants differ; the first is torch's choice, a loop on the CPU."""

IN_TRAINING = ["torch", "torch fused", OURS]
AROUND_BACKWARD = ["torch fused", OURS, IN_BACKWARD]

SECONDS = 4.0
"""Seconds of all turns of a comparison, if five of each contestant are over by then."""

WARM, WARMING = 60, 0.5
"""Steps of a warm-up, until a step has tried its threads, and the seconds that end it before."""

LARGEST, LARGEST_QUICK = 200_000_000, 20_000_000
"""Elements that a list of the grid has at most: each contestant has its own state for it."""


IN_FLOAT32, ON_A_DEVICE = 1e-6, 1e-4
"""By how much updates of 1e-3 may differ: a device's gradients are others each time."""


Rows: TypeAlias = Iterator[list[Row]]

# ---- contestants ----


def optimizer(name: str, params: Any, kind: str = "AdamW", **options: Any) -> Any:
    """The optimizer of a contestant, or None where torch has none."""
    if name not in THEIRS:
        return getattr(ours, kind)(params, **options)
    theirs, own = getattr(torch.optim, kind), THEIRS[name]
    known = own.keys() <= signature(theirs).parameters.keys()
    return theirs(params, **options, **own) if known else None


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
    return {
        name: Entry(each.step, lambda: params, torch.get_num_threads(), renew)
        for name, each in made.items()
        if each is not None
    }


class Task(NamedTuple):
    """A model and what it is trained on."""

    name: str
    model: Any
    batches: list[tuple[Tensor, Tensor]]
    loss: Callable[[Tensor, Tensor], Tensor] = mse_loss

    def training(self, name: str, shard: bool = False) -> Entry:
        """Whole steps of a contestant, which has a copy of the model, or of its shards."""
        model, batches = deepcopy(self.model), cycle(self.batches)
        for layer in [*model.layers, model] if shard else []:
            pinned = torch.cuda.is_available()  # its driver alone can pin memory
            fully_shard(layer, offload_policy=CPUOffloadPolicy(pin_memory=pinned))
        steps = optimizer(name, model.parameters())
        if name == IN_BACKWARD:
            ours.step_in_backward(model, steps)

        def step() -> None:
            x, y = next(batches)
            self.loss(model(x), y).backward()
            steps.step()
            steps.zero_grad()

        with torch.no_grad():
            own = [p.to_local() if shard else p for p in model.parameters()]
        return Entry(step, lambda: own, torch.get_num_threads())


# ---- models ----


class Crowd(nn.ModuleList):  # type: ignore[misc]
    """Many small layers side by side, which are stacked and so multiplied at once."""

    def forward(self, x: Tensor) -> Tensor:
        weights = torch.stack([layer.weight for layer in self])
        biases = torch.stack([layer.bias for layer in self])
        return torch.baddbmm(biases[:, None], x, weights.mT)


class GPT(nn.Module):  # type: ignore[misc]
    """A small decoder of texts."""

    def __init__(self, tokens: int, places: int, width: int, heads: int, layers: int) -> None:
        super().__init__()
        self.tokens = nn.Embedding(tokens, width)
        self.places = nn.Parameter(0.02 * torch.randn(places, width))
        shape, order = (width, heads, 4 * width, 0.0, "gelu"), {"norm_first": True}
        self.layers = nn.ModuleList(
            nn.TransformerEncoderLayer(*shape, batch_first=True, **order) for _ in range(layers)
        )
        self.last = nn.Sequential(nn.LayerNorm(width), nn.Linear(width, tokens))
        mask = nn.Transformer.generate_square_subsequent_mask(places)
        self.register_buffer("mask", mask, persistent=False)

    def forward(self, x: Tensor) -> Tensor:
        x = self.tokens(x) + self.places
        for layer in self.layers:
            x = layer(x, self.mask, is_causal=True)
        return self.last(x.flatten(0, 1))


def pairs(x: tuple[int, ...], y: tuple[int, ...]) -> list[tuple[Tensor, Tensor]]:
    return [(torch.randn(x), torch.randn(y)) for _ in range(16)]


def small_perceptron() -> Task:
    layers = nn.Linear(8, 64), nn.Tanh(), nn.Linear(64, 64), nn.Tanh(), nn.Linear(64, 4)
    return Task("RL's MLP, batch 64", nn.Sequential(*layers), pairs((64, 8), (64, 4)))


def crowd() -> Task:
    model = Crowd(nn.Linear(8, 8) for _ in range(1_000))
    return Task("2,000 small parameters", model, pairs((1_000, 4, 8), (1_000, 4, 8)))


def deep_perceptron() -> Task:
    layers = [each for _ in range(12) for each in (nn.Linear(1_024, 1_024), nn.ReLU())]
    batches = pairs((64, 1_024), (64, 1_024))
    return Task("12 × Linear(1,024, 1,024), batch 64", nn.Sequential(*layers), batches)


def texts(model: GPT, name: str, tokens: int, shape: tuple[int, int], device: str = "cpu") -> Task:
    """The task to guess the next token; `shape` is that of a batch."""
    sequences, places = shape
    drawn = [torch.randint(tokens, (sequences, places + 1), device=device) for _ in range(16)]
    batches = [(text[:, :-1], text[:, 1:]) for text in drawn]
    return Task(name, model, batches, lambda x, y: cross_entropy(x, y.flatten()))


def small_gpt() -> Task:
    model = GPT(tokens=512, places=64, width=128, heads=4, layers=4)
    return texts(model, "GPT of 4 layers, batch 8 × 64", 512, (8, 64))


def gpt_on_a_device() -> Task:
    model = GPT(tokens=32_000, places=512, width=1_024, heads=16, layers=12).cuda()
    return texts(model, "GPT of 12 layers, 217 M, batch 8 × 512", 32_000, (8, 512), "cuda")


# ---- measuring ----


def measure(
    topic: str,
    case: str,
    entries: dict[str, Entry],
    seconds: float,
    clock: Callable[[], float] = perf_counter,
) -> list[Row]:
    """Time contestants in turns of about so many seconds; `entries` is empty afterwards."""
    check(entries, ON_A_DEVICE if topic == "offload" else IN_FLOAT32)
    for entry in entries.values():
        began = clock()
        for _ in range(WARM):
            take(entry)
            if clock() - began > WARMING:
                break
    rows = []
    for name, timing in take_turns(entries, seconds, clock=clock).items():
        low, middle, high = (1e6 * each for each in quartiles(timing.turns))
        rows.append(Row(topic, case, name, "µs", middle, low, high, len(timing.turns)))
    entries.clear()
    gc.collect()  # optimizers hold tensors in circles
    return rows


def take(entry: Entry) -> None:
    if entry.ready is not None:
        entry.ready()
    entry.step()


def check(entries: dict[str, Entry], tolerance: float) -> None:
    """Assert that from one start all contestants change each parameter alike.

    A whole step is taken once: the gradients of the next would follow from the parameters, and
    Adam makes large updates of small gradients that are nothing but rounding.
    """
    start: list[Tensor] = []
    expected: list[Tensor] = []
    for name, entry in entries.items():
        whole: list[Any] = entry.params()
        params = [p.detach() for p in whole]
        start = start or [p.clone() for p in params]
        for p, begun in zip(params, start, strict=True):
            p.copy_(begun)
        for _ in range(1 if entry.ready is None else 3):
            take(entry)
        assert not any(map(torch.equal, params, start)), f"{name} leaves a parameter as it is"
        expected = expected or [p.clone() for p in params]
        torch.testing.assert_close(params, expected, rtol=1e-4, atol=tolerance)


def ask(*arguments: str, **variables: str) -> Any:
    """The JSON that a process of its own prints in the end."""
    environment = {**os.environ, "OMP_NUM_THREADS": "1", **variables}
    command = [sys.executable, *arguments]
    done = subprocess.run(command, env=environment, stdout=subprocess.PIPE, text=True, check=True)
    return json.loads(done.stdout.splitlines()[-1])


# ---- topics ----


def alone(seconds: float) -> Rows:
    """AdamW's step alone: tensors × elements of each."""
    lists = [
        equal(1, 1_000),
        Workload("RL's MLP", tuple(perceptron(8, 64, 64, 4))),
        equal(6, 70_000),
        equal(1_000, 1_000),
        equal(2_000, 100),
        equal(1, 1_000_000),
        Workload("GPT-2 small", tuple(gpt2_small())),
    ]
    for each in lists:
        yield measure("alone", each.name, stepping(each, "AdamW"), seconds)


def grid(seconds: float) -> Rows:
    """The grid of torch's benchmarks/operator_benchmark/pt/optimizer_test.py, where it fits."""
    largest = LARGEST if seconds else LARGEST_QUICK
    for kind in ("AdamW", "Adam", "SGD", "RMSprop", "Adagrad"):
        options = {"lr": 1e-3, **({"momentum": 0.9} if kind == "SGD" else {})}
        for many in (1, 10, 100):
            for size in (100_000, 1_000_000, 10_000_000):
                each = equal(many, size)
                if each.elements <= largest:
                    entries = stepping(each, kind, **options)
                    yield measure("grid", f"{kind}, {each.name}", entries, seconds)


def coming(seconds: float) -> Rows:
    """AdamW's step alone, of 300 parameters of 100 elements whose gradients come and go."""
    cases: dict[str, Callable[[int, int], bool]] = {
        "all of them": lambda step, at: True,
        "halves take turns": lambda step, at: (step + at) % 2 == 0,
        "all but another one": lambda step, at: at != step % 300,
    }
    for case, there in cases.items():
        yield measure("coming", case, changing(there), seconds)


def changing(there: Callable[[int, int], bool]) -> dict[str, Entry]:
    """Steps alone, of the parameters that have a gradient at each step; `there` says which."""
    params = [torch.randn(100, requires_grad=True) for _ in range(300)]
    slopes = [torch.randn(100) for _ in range(300)]

    def entry(name: str) -> Entry:
        steps, step = optimizer(name, params), count()

        def renew() -> None:
            now = next(step)
            for at, (p, slope) in enumerate(zip(params, slopes, strict=True)):
                p.grad = slope.clone() if there(now, at) else None

        return Entry(steps.step, lambda: params, torch.get_num_threads(), renew)

    return {name: entry(name) for name in IN_TRAINING}


def whole(seconds: float) -> Rows:
    """Whole steps with AdamW: forward, loss, backward, step, zero_grad."""
    for make in (small_perceptron, crowd, small_gpt):
        torch.manual_seed(0)
        task = make()
        entries = {name: task.training(name) for name in IN_TRAINING}
        yield measure("whole", task.name, entries, seconds)


def backward(seconds: float) -> Rows:
    """Whole steps with AdamW, after the backward pass or in it."""
    torch.manual_seed(0)
    task = deep_perceptron()
    entries = {name: task.training(name) for name in AROUND_BACKWARD}
    yield measure("backward", task.name, entries, seconds)
    processes = [(__file__, f"--process={name}") for name in AROUND_BACKWARD]
    usual = [ask(*each) for each in processes]
    # By default glibc keeps the holes that gradients leave between the arrays of the state.
    apart = [ask(*each, MALLOC_MMAP_THRESHOLD_="1000000") for each in processes]
    for case, found in {
        "gradients at once, MiB": [gradients for gradients, _ in usual],
        "peak of the process, MiB": [peak for _, peak in usual],
        "the same, MALLOC_MMAP_THRESHOLD_=1000000": [peak for _, peak in apart],
    }.items():
        named = zip(AROUND_BACKWARD, found, strict=True)
        yield [Row("backward", case, name, "MiB", each, each, each, 1) for name, each in named]


def peaks_of(name: str) -> tuple[float, float]:
    """The most MiB of gradients at once, and of this process, over five whole steps."""
    task = deep_perceptron()
    entry = task.training(name)
    params: list[Any] = entry.params()
    most = 0

    def note(new: Tensor) -> None:
        nonlocal most
        most = max(most, new.nbytes + sum(p.grad.nbytes for p in params if p.grad is not None))

    for p in params:
        p.register_hook(note)
    for _ in range(5):
        entry.step()
    # Not from getrusage, which counts the parent, too.
    found = re.search(r"VmHWM:\s*(\d+) kB", Path("/proc/self/status").read_text())
    assert found
    return most / 2**20, int(found[1]) / 2**10


def fsdp(seconds: float) -> Rows:
    """Whole steps with AdamW of FSDP2 with CPU offload: two ranks, a thread each."""
    launcher = ["-m", "torch.distributed.run", "--standalone", "--nproc-per-node=2", __file__]
    rows = ask(*launcher, "--process=fsdp", *([] if seconds else ["--quick"]))
    yield [Row(*row) for row in rows]


def offload(seconds: float) -> Rows:
    """Whole steps with AdamW of FSDP2 with CPU offload: one rank, its model on a CUDA device."""
    if not torch.cuda.is_available():
        print("(left out: torch finds no device)")
        return
    launcher = ["-m", "torch.distributed.run", "--standalone", "--nproc-per-node=1", __file__]
    threads = str(torch.get_num_threads())
    rows = ask(
        *launcher,
        "--process=offload",
        *([] if seconds else ["--quick"]),
        OMP_NUM_THREADS=threads,
    )
    yield [Row(*row) for row in rows]


def rows_of_ranks(topic: str, seconds: float) -> list[Row]:
    dist.init_process_group("gloo" if topic == "fsdp" else "cpu:gloo,cuda:nccl")
    torch.manual_seed(0)
    task = small_gpt() if topic == "fsdp" else gpt_on_a_device()
    entries = {name: task.training(name, shard=True) for name in IN_TRAINING}
    return measure(topic, task.name, entries, seconds, first_ranks_clock)


def first_ranks_clock() -> float:
    """The first rank's time: all ranks read the same, and so take the same number of turns."""
    now = torch.tensor(perf_counter(), dtype=torch.float64)
    dist.broadcast(now, 0)
    return float(now)


TOPICS = {each.__name__: each for each in (alone, grid, whole, coming, backward, fsdp, offload)}

# ---- tables ----


def show(rows: Sequence[Row], names: Sequence[str]) -> None:
    """Print a line of a table: each figure, and how many times the last one it is."""
    found = {row.contestant: row.median for row in rows}
    cells = [rows[0].case]
    for name in names:
        value = found.get(name)
        ratio = 0.0 if value is None else value / rows[-1].median
        shown = "" if value is None else f"{value:,.{1 if value < 10 else 0}f}"
        times = f" ({ratio:,.{2 if ratio < 2 else 1 if ratio < 10 else 0}f}×)"
        cells.append(shown + (times if shown and name != names[-1] else ""))
    print(f"| {' | '.join(cells)} |", flush=True)


def main() -> None:
    parser = with_out(parser_of(__doc__, TOPICS))
    parser.add_argument("--quick", action="store_true", help="take as few turns as possible")
    parser.add_argument("--process", help=argparse.SUPPRESS)
    options = parsed(parser, TOPICS)
    fs.set_num_threads(torch.get_num_threads())
    seconds = 0.0 if options.quick else SECONDS
    if options.process in TOPICS:
        found = rows_of_ranks(options.process, seconds)
        if dist.get_rank() == 0:
            print(json.dumps(found), flush=True)
        dist.barrier()
        dist.destroy_process_group()
        os._exit(0)  # threads of a mesh's group may outlive it, and abort a usual end
    if options.process:
        print(json.dumps(peaks_of(options.process)))
        return
    here = described(["torch"])
    rows: list[Row] = []
    for topic in headed(options.what, TOPICS):
        names: list[str] = []
        for group in topic(seconds):
            if not names:
                names = [row.contestant for row in group]
                head("µs", names)
            show(group, names)
            rows += group
    write(options.out, here, rows)


if __name__ == "__main__":
    main()
