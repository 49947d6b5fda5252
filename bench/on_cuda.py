"""All that a CUDA device can say about the backend, in ten minutes: bits, faults, speed.

    python bench/cuda.py --all [--rounds F] [--json FILE] [--picture FILE]

It asks the device, one thing after the other,

- for bits: every rule and option against the reference, element by element (`--bits`);
- for the faults that only a device has: the tests marked `cuda`, with streams, events, errors that
  come late, and memory that torch and CuPy hand out again (`--tests`);
- for speed: the share of the bandwidth of its own copies that steps and norms reach, from 64 K
  elements to 256 M, beside the times that cuda_kernels.py has predicted (`--bandwidth`), and lists
  of tensors and whole models beside torch's fused and foreach steps, and Apex where it is
  (`--against`).

Times are of the device's own events around a turn of steps; those of the host are what it takes to
ask for a step. Contestants take turns on arrays of their own; a figure is the median of its turns.

Without a device it goes the same way over the driver in the memory of the host that the tests have,
with tiny sizes: these times mean nothing, but the program cannot rot.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import statistics
import subprocess
import sys
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from importlib.util import find_spec
from itertools import cycle
from math import prod
from pathlib import Path
from time import perf_counter
from typing import Any, NamedTuple

ROOT = Path(__file__).parents[1]

HELPERS = ROOT / "tests/helpers"

PREDICTIONS = ROOT / "bench/predictions.json"

sys.path.insert(0, str(HELPERS))

from fusedstep._backends.cuda import available  # noqa: E402

IN_MEMORY: Any = None
"""The driver over the memory of the host, where there is no device."""

if "there is no CUDA driver" in (available.why_missing() or ""):
    import cuda_in_memory

    cuda_in_memory.install()
    IN_MEMORY = cuda_in_memory.DRIVER

import numpy as np  # noqa: E402

import fusedstep as fs  # noqa: E402
from fusedstep.benchmarks.workloads import Shape, equal, gpt2_small, resnet50  # noqa: E402


class Times(NamedTuple):
    """Microseconds of one call, on the device and on the host."""

    device: float
    host: float


class Sizes(NamedTuple):
    """The sizes that are measured."""

    bandwidth: Sequence[int]
    lists: Sequence[tuple[str, tuple[Shape, ...]]]
    steps: int
    """In a turn, of a small list."""
    turns: int
    bits: Sequence[int]


def sizes(rounds: float) -> Sizes:
    """The sizes for a device, or tiny ones where there is none."""
    if IN_MEMORY is not None:
        return Sizes([1 << 10, 5000], [("3 × 100", equal(3, 100).shapes)], 2, 1, [1, 5, 1025])
    lists = [
        *((each.name, each.shapes) for each in (equal(1, 1_000), equal(1, 1 << 20))),
        *((each.name, each.shapes) for each in (equal(1_000, 1_000), equal(10_000, 100))),
        ("ResNet-50", (*resnet50(),)),
        ("GPT-2 small", (*gpt2_small(),)),
    ]
    powers = [1 << k for k in range(16, 29, 2)]
    return Sizes(powers, lists, 20, max(3, int(15 * rounds)), [1, 3, 1025, 70_001, 1 << 20])


def measure(contestants: Sequence[Callable[[], Any]], calls: int, turns: int) -> list[Times]:
    """The median times of one call of each contestant."""
    from numba import cuda

    taken: list[list[Times]] = [[] for _ in contestants]
    for turn in range(turns + 2):
        for contestant, times in zip(contestants, taken, strict=True):
            start, end = cuda.event(), cuda.event()
            start.record()
            begin = perf_counter()
            for _ in range(calls):
                contestant()
            host = perf_counter() - begin
            end.record()
            end.synchronize()
            if turn >= 2:  # the first warm up
                device = 1e3 * cuda.event_elapsed_time(start, end)
                times.append(Times(device / calls, 1e6 * host / calls))
    return [Times(*map(statistics.median, zip(*times, strict=True))) for times in taken]


def on_device(shape: Any, dtype: Any = np.float32, value: float = 1.0) -> Any:
    from numba import cuda

    return cuda.to_device(np.full(shape, value, dtype))


def address(array: Any) -> int:
    return int(array.__cuda_array_interface__["data"][0])


# ---- bits ----


def bits(options: Sizes) -> dict[str, int]:
    """The elements of all rules that were compared with the reference, and that differ."""
    from cases import CASES, DTYPES, differing_bits, difficult
    from device import Placed

    found = {"compared": 0, "differing": 0}
    rng = np.random.default_rng(0)
    for case in CASES[:: 30 if IN_MEMORY else 1]:
        for dtype in DTYPES:
            values = [difficult(rng, n, dtype) for n in options.bits]
            params, expected = [Placed(p) for p in values], [p.copy() for p in values]
            here = case.optimizer([p.array for p in params], **case.options)
            reference = case.optimizer(expected, backend="numpy", **case.options)
            for _ in range(3):
                grads = [difficult(rng, n, dtype) for n in options.bits]
                here.step([Placed(g).array for g in grads])
                reference.step(grads)
            found["compared"] += sum(options.bits)
            found["differing"] += sum(
                int(differing_bits(p.host, q)) for p, q in zip(params, expected, strict=True)
            )
    print(f"bits: {found['compared']:,} elements compared, {found['differing']} differ")
    return found


# ---- faults ----


def tests() -> dict[str, Any]:
    """The tests marked `cuda`, in a process of their own."""
    where = ["tests/backends/cuda", "tests/torch/test_cuda.py"]
    given = ["-q", "-m", "cuda and not slow", "-p", "no:cacheprovider", "-rf"]
    if IN_MEMORY is not None:
        where, given = ["tests/backends/cuda/test_steps.py"], [*given, "-k", "norm or groups"]
        given += ["-p", "cuda_in_memory"]
    own = {name: value for name, value in os.environ.items() if not name.startswith("PYTEST_")}
    environment = {**own, "PYTHONPATH": os.pathsep.join(["src", str(HELPERS)])}
    command = [sys.executable, "-m", "pytest", *given, *where]
    done = subprocess.run(
        command, cwd=ROOT, env=environment, capture_output=True, text=True, timeout=420, check=False
    )
    last = done.stdout.strip().splitlines()[-1]
    print(f"tests: {last}")
    if done.returncode:
        print(done.stdout[-4000:])
    return {"status": done.returncode, "summary": last}


# ---- bandwidth ----


class Measured(NamedTuple):
    """A kernel over one tensor."""

    kernel: str
    dtype: str
    passes: int
    make: Callable[[Any, Any], Callable[[], Any]]


def stepping(cls: Any, **options: Any) -> Callable[[Any, Any], Callable[[], Any]]:
    """A function that makes a step of p by g."""
    return lambda p, g: partial(cls(p, **options).step, g)


def norming(p: Any, g: Any) -> Callable[[], Any]:
    """A measurement of the norm: a clipped step of a parameter that is not there."""
    optimizer = fs.SGD([p, on_device(1, p.dtype)], lr=0.0)
    return partial(optimizer.step, [g, on_device(1, p.dtype)], max_norm=float("inf"))


KERNELS = [
    Measured("sgd", "float32", 3, stepping(fs.SGD)),
    Measured("momentum", "float32", 5, stepping(fs.SGD, momentum=0.9)),
    Measured("adamw", "float32", 7, stepping(fs.AdamW)),
    Measured("sgd", "float64", 3, stepping(fs.SGD)),
    Measured("adamw", "float64", 7, stepping(fs.AdamW)),
    Measured("sgd and norm", "float32", 4, norming),
    Measured("sgd and norm", "float64", 4, norming),
]


def bandwidth(options: Sizes) -> list[dict[str, Any]]:
    """The share of a copy's bandwidth that kernels reach, and the times that were predicted."""
    from cuda.bindings import driver

    predicted = predictions()
    rows = []
    head = f"{'elements':>12} {'kernel':<22} {'us':>9} {'predicted':>9} {'GB/s':>7} {'copy':>7}"
    print(f"{head} {'share':>6}")
    for n in options.bandwidth:
        for each in KERNELS:
            size = np.dtype(each.dtype).itemsize
            p, g, to = (on_device(n, each.dtype) for _ in range(3))
            copying = partial(driver.cuMemcpyDtoDAsync, address(to), address(p), size * n, 0)
            calls = max(2, min(options.steps, (1 << 28) // n))
            step, copy = measure([each.make(p, g), copying], calls, options.turns)
            reached = each.passes * 1e-3 * size * n / max(step.device, 1e-9)
            limit = 2e-3 * size * n / max(copy.device, 1e-9)
            expected = predicted.get((f"{each.kernel} {each.dtype}", n))
            row = {
                "elements": n,
                "kernel": f"{each.kernel} {each.dtype}",
                "microseconds": step.device,
                "host": step.host,
                "predicted": expected,
                "gigabytes": reached,
                "copy": limit,
                "share": reached / limit,
            }
            rows.append(row)
            shown = "-" if expected is None else f"{expected:.1f}"
            print(
                f"{n:>12} {row['kernel']:<22} {step.device:>9.1f} {shown:>9} {reached:>7.0f} "
                f"{limit:>7.0f} {row['share']:>6.2f}"
            )
    return rows


def predictions() -> dict[tuple[str, int], float]:
    """The microseconds that were predicted for this device, of a kernel over so many elements."""
    document = json.loads(PREDICTIONS.read_text())
    name = device_name()
    fits = [each["name"] for each in document["devices"] if each["name"].split()[0] in name]
    if not fits:
        return {}
    return {
        (row["kernel"], int(n)): 1e6 * seconds
        for row in document["kernels"]
        for n, seconds in row["seconds"][fits[0]].items()
    }


def device_name() -> str:
    from numba import cuda

    name = cuda.get_current_device().name
    return name.decode() if isinstance(name, bytes) else str(name)


# ---- against others ----


def alternating(step: Callable[[Any], Any], grads: Sequence[Any]) -> Callable[[], Any]:
    """Steps with other gradients than those of the step before."""
    turn = cycle(grads)
    return lambda: step(next(turn))


def contestants(shapes: Sequence[Shape]) -> Iterator[tuple[str, Callable[[], Any]]]:
    """AdamW steps over tensors of these shapes, each over its own."""

    def arrays() -> list[Any]:
        return [on_device(shape) for shape in shapes]

    yield "fusedstep", partial(fs.AdamW(arrays()).step, arrays())
    yield "new gradients", alternating(fs.AdamW(arrays()).step, [arrays(), arrays()])
    yield "and the norm", partial(fs.AdamW(arrays()).step, arrays(), max_norm=1.0)
    yield "an arena", fs.AdamW(fs.Arena(arrays())).step
    if find_spec("torch") is None:
        return
    import torch

    if not torch.cuda.is_available():
        return
    import fusedstep.torch

    def tensors() -> list[Any]:
        made = [torch.randn(shape, device="cuda", requires_grad=True) for shape in shapes]
        for p in made:
            p.grad = torch.randn_like(p)
        return made

    yield "fusedstep.torch", fusedstep.torch.AdamW(tensors()).step
    yield "torch fused", torch.optim.AdamW(tensors(), fused=True).step
    yield "torch foreach", torch.optim.AdamW(tensors(), foreach=True).step
    if find_spec("apex") is not None:
        from apex.optimizers import FusedAdam

        yield "Apex", FusedAdam(tensors()).step


def against(options: Sizes) -> list[dict[str, Any]]:
    """Lists of tensors and models, beside others."""
    rows = []
    for name, shapes in options.lists:
        elements = sum(prod(shape) for shape in shapes)
        named = [*contestants(shapes)]
        calls = max(2, min(options.steps, (1 << 26) // elements))
        times = measure([step for _, step in named], calls, options.turns)
        print(f"{name}: {len(shapes):,} tensors, {elements:,} elements; us on the device, the host")
        for (contestant, _), time in zip(named, times, strict=True):
            print(f"    {contestant:<16} {time.device:>10.1f} {time.host:>10.1f}")
            rows.append(
                {
                    "workload": name,
                    "contestant": contestant,
                    "microseconds": time.device,
                    "host": time.host,
                }
            )
    return rows


# ---- the whole ----


def picture(results: dict[str, Any], path: str) -> None:
    """Draw shares of a copy's bandwidth, and the workloads' times."""
    import matplotlib as mpl

    mpl.use("agg")
    from matplotlib import pyplot

    figure, (left, right) = pyplot.subplots(1, 2, figsize=(13, 5), layout="constrained")
    rows = results.get("bandwidth", [])
    for kernel in dict.fromkeys(row["kernel"] for row in rows):
        own = [row for row in rows if row["kernel"] == kernel]
        left.plot(
            [row["elements"] for row in own], [row["share"] for row in own], "o-", label=kernel
        )
    left.axhline(1.0, color="black", linewidth=0.8)
    left.set(xscale="log", xlabel="elements of one tensor", ylabel="share of a copy's bandwidth")
    left.set_ylim(bottom=0)
    left.legend(loc="lower right")
    rows = results.get("against", [])
    workloads = [*dict.fromkeys(row["workload"] for row in rows)]
    kinds = [*dict.fromkeys(row["contestant"] for row in rows)]
    height = 0.8 / max(len(kinds), 1)
    for k, kind in enumerate(kinds):
        of = {row["workload"]: row["microseconds"] for row in rows if row["contestant"] == kind}
        places = [at + k * height for at, name in enumerate(workloads) if name in of]
        right.barh(places, [of[name] for name in workloads if name in of], height, label=kind)
    right.set_yticks([at + 0.4 - height / 2 for at in range(len(workloads))], workloads)
    right.invert_yaxis()
    right.set(xscale="log", xlabel="microseconds of an AdamW step on the device")
    right.legend(loc="lower right")
    figure.suptitle(f"fusedstep {fs.__version__} on {results['device']}")
    figure.savefig(path, dpi=110)
    pyplot.close(figure)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parts = ("bits", "tests", "bandwidth", "against")
    for part in parts:
        parser.add_argument(f"--{part}", action="store_true")
    parser.add_argument("--all", action="store_true", help="all of these")
    parser.add_argument("--rounds", type=float, default=1.0, help="a factor on the turns")
    parser.add_argument("--json", help="a file for the results")
    parser.add_argument("--picture", help="a PNG of them")
    given = parser.parse_args()
    if IN_MEMORY is None and fs.info().backends["cuda"] is not None:
        print(f"bench/cuda.py: {fs.info().backends['cuda']}", file=sys.stderr)
        return 1
    options = sizes(given.rounds)
    results: dict[str, Any] = {
        "device": device_name(),
        "machine": platform.platform(),
        "fusedstep": fs.__version__,
        "in memory of the host": IN_MEMORY is not None,
    }
    print(f"{results['device']}, {results['machine']}")
    begin = perf_counter()
    run: dict[str, Callable[[], Any]] = {
        "bits": partial(bits, options),
        "tests": tests,
        "bandwidth": partial(bandwidth, options),
        "against": partial(against, options),
    }
    for part in parts:
        if given.all or getattr(given, part):
            results[part] = run[part]()
    print(f"{perf_counter() - begin:.0f} s")
    if given.json:
        Path(given.json).write_text(json.dumps(results, indent=1) + "\n")
    if given.picture:
        picture(results, given.picture)
    failed = results.get("bits", {}).get("differing", 0) or results.get("tests", {}).get(
        "status", 0
    )
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
