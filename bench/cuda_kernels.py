"""The CUDA kernels as machine code: registers, bytes in flight, instructions; and what follows.

    python bench/cuda_kernels.py [--cc 9.0] [--json FILE]

It needs numba-cuda and NVIDIA's `ptxas` and `nvdisasm`, from a toolkit or from
`pip install nvidia-cuda-nvcc nvidia-cuda-nvdisasm`; no device. Times are predicted by a model of
three numbers of a device: a multiprocessor holds so many threads, each of which has so many bytes
under way for as long as a tile takes it, and all together cannot have more than the memory gives.
They are written down before any device has run these kernels, so that the first one can prove them
wrong: `python bench/cuda.py` prints what was predicted beside what it measures.
"""

from __future__ import annotations

import argparse
import json
import re
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from importlib.util import find_spec
from pathlib import Path
from types import ModuleType
from typing import NamedTuple

import numpy as np

from fusedstep._backends.cuda import kernels, squares
from fusedstep._backends.cuda.kernels import THREADS, Variant
from fusedstep._backends.cuda.ptx import compile_ptx
from fusedstep._backends.plan import Job
from fusedstep._numerics import norm
from fusedstep._numerics.coefficients import Rule

RULES = {
    "sgd": Rule("sgd"),
    "momentum": Rule("momentum", ("b",)),
    "adagrad": Rule("adagrad", ("s",)),
    "rmsprop": Rule("rmsprop", ("v", None, None)),
    "adamw": Rule("adamw", ("m", "v", None)),
    "adamw amsgrad": Rule("adamw", ("m", "v", "x")),
}


class Device(NamedTuple):
    """A device, as far as the model knows it."""

    name: str
    multiprocessors: int
    clock: float
    """Cycles a second."""
    bandwidth: float
    """Bytes a second that a copy reaches, reads and writes counted."""
    latency: float
    """Seconds from a load to its value, from the memory that all share."""
    near: float
    """The same from a cache that has it."""
    launch: float
    """Seconds that a launch costs the device at least."""
    cache: float
    """Bytes of the cache that all multiprocessors share."""


DEVICES = (
    Device("H100 SXM", 132, 1.755e9, 3.0e12, 7e-7, 1.5e-7, 2.5e-6, 50e6),
    Device("H200", 132, 1.755e9, 4.2e12, 7e-7, 1.5e-7, 2.5e-6, 50e6),
)
"""Published clocks and sizes; a copy reaches some nine tenths of a memory's nominal bandwidth."""

REGISTERS, MOST_THREADS, MOST_BLOCKS = 65_536, 2048, 32
"""Limits of a multiprocessor of sm_80 to sm_100."""

SCHEDULERS = 4
"""Warps of which each issues one instruction a cycle."""

ELEMENTS = (1 << 16, 1 << 20, 1 << 24, 1 << 28)


class Figures(NamedTuple):
    """Figures of a kernel's machine code."""

    registers: int
    spilled: int
    """Bytes."""
    instructions: int
    path: int
    """Instructions of the way that goes in vectors, without what divisions seldom need: about."""
    loaded: int
    """Bytes that a thread has under way at once."""
    threads: int
    """The threads of a block."""

    @property
    def resident(self) -> int:
        """Threads that a multiprocessor holds."""
        rounded = -(-self.registers // 8) * 8
        by_registers = REGISTERS // (rounded * self.threads)
        return min(by_registers, MOST_THREADS // self.threads, MOST_BLOCKS) * self.threads

    @property
    def in_flight(self) -> int:
        """Bytes that a multiprocessor may have under way at once."""
        return self.resident * self.loaded


def tool(name: str) -> str:
    """The path of one of NVIDIA's programs."""
    spec = find_spec("nvidia")
    folders = [*(spec.submodule_search_locations or ())] if spec else []
    wheels = [each for folder in folders for each in sorted(Path(folder).glob(f"cu*/bin/{name}"))]
    found = str(wheels[-1]) if wheels else shutil.which(name)
    if found is None:
        sys.exit(f"{name} is missing; `pip install nvidia-cuda-nvcc nvidia-cuda-nvdisasm`")
    return found


def figures(ptx: str, cc: tuple[int, int], threads: int) -> Figures:
    """The figures of a kernel."""
    with tempfile.TemporaryDirectory() as folder:
        source, code = Path(folder, "kernel.ptx"), Path(folder, "kernel.cubin")
        source.write_text(ptx)
        command = [tool("ptxas"), f"-arch=sm_{cc[0]}{cc[1]}", "-v", str(source), "-o", str(code)]
        told = subprocess.run(command, capture_output=True, text=True, check=True).stderr
        command = [tool("nvdisasm"), "-c", str(code)]
        sass = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    blocks = [*basic_blocks(sass)]
    of_path = [block for block in blocks if is_on_path(block)]
    return Figures(
        int(re.findall(r"Used (\d+) registers", told)[0]),
        sum(map(int, re.findall(r"(\d+) bytes spill", told))),
        sum(map(len, blocks)),
        sum(map(len, of_path)),
        max(map(loaded_by, of_path)),
        threads,
    )


def basic_blocks(sass: str) -> Iterator[list[str]]:
    """The instructions between two labels or after a branch."""
    block: list[str] = []
    for line in sass.splitlines():
        found = re.match(r"\s+/\*[0-9a-f]{4,5}\*/\s+(.*?) *;", line)
        if found:
            block.append(found[1])
        ends = line.startswith(".L") or (found and re.search(r"\b(BRA|RET|EXIT)\b", found[1]))
        if ends and block:
            yield block
            block = []
    if block:
        yield block


def is_on_path(block: list[str]) -> bool:
    """Whether a block is on the way that most tiles take."""
    text = "\n".join(block)
    if re.search(r"\b(CALL|RET|NOP|BPT)\b", text):
        return False
    # Elements one by one: not the tables, which are constant, nor squares, which go on to add.
    alone = len(re.findall(r"\bSTG\.E(?:\.64|\.U16)? |LDG\.E(?:\.64|\.U16)? R", text))
    return alone < 2 or bool(re.search(r"\.128|CONSTANT|DSETP|DADD|F2F", text))


def loaded_by(block: list[str]) -> int:
    """The bytes that a block loads, but for those of tables."""
    sizes = [re.search(r"\bLDG\.E(?:\.(64|128|U16))? R", line) for line in block]
    return sum({"64": 8, "128": 16, "U16": 2, None: 4}[found[1]] for found in sizes if found)


def time(n: int, size: int, passes: int, kernel: Figures, per_thread: int, device: Device) -> float:
    """The seconds that a kernel is predicted to take over n elements.

    `per_thread` are the elements of a thread, and `passes` how often each crosses the bus.
    """
    tile = kernel.threads * per_thread
    tiles = -(-n // tile)
    resident = kernel.resident // kernel.threads
    # A tile waits for its place in the table, for the row, and for its data; then it computes.
    warps = kernel.threads // 32
    issued = warps * kernel.path / SCHEDULERS / device.clock
    alive = 2 * device.near + device.latency + issued
    at_once = device.multiprocessors * resident
    by_latency = -(-tiles // at_once) * alive
    by_issue = tiles * issued / device.multiprocessors
    traffic = n * size * passes
    # What fits into the cache is there since the step before, and comes twice as fast.
    fits = 2.0 if traffic < device.cache else 1.0
    by_memory = traffic / (fits * device.bandwidth)
    return device.launch + max(by_latency, by_issue, by_memory)


def modules(cc: tuple[int, int]) -> Iterator[tuple[str, Figures, int, int, int]]:
    """Each kernel: its name, its figures, elements of a thread, passes, bytes of an element."""
    for dtype in ("float32", "float64"):
        for name, rule in RULES.items():
            job = Job(rule, np.dtype(dtype))
            size = job.dtype.itemsize
            each = kernels.vectors(job) * kernels.LANES[size]
            states = sum(letter is not None for letter in rule.letters)
            for variant, title in ((Variant(decays=False), ""), (Variant(False, True), ", judged")):
                made = of_module(kernels.module(job, variant), cc, THREADS)
                yield f"{name} {dtype}{title}", made, each, 3 + 2 * states, size
        made = of_module(squares.module(np.dtype(dtype)), cc, norm.LANES)
        yield f"squares {dtype}", made, squares.LOADS, 1, np.dtype(dtype).itemsize


def of_module(module: ModuleType, cc: tuple[int, int], threads: int) -> Figures:
    """The figures of a module's kernel."""
    return figures(compile_ptx(module, cc), cc, threads)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--cc", default="9.0", help="the compute capability")
    parser.add_argument("--json", help="a file for the figures and predictions")
    options = parser.parse_args()
    major, minor = map(int, options.cc.split("."))
    rows = []
    titles = ("registers", "KiB in flight", "instructions", "a byte")
    print(f"{'kernel':<32}", *(f"{title:>13}" for title in titles))
    for name, made, each, passes, size in modules((major, minor)):
        a_byte = made.path / (32 * each * passes * size / 32)
        print(
            f"{name:<32} {made.registers:>13} {made.in_flight / 1024:>13.0f} "
            f"{made.instructions:>13} {a_byte:>13.2f}"
        )
        assert not made.spilled, f"{name} spills registers"
        predicted = {
            device.name: {str(n): time(n, size, passes, made, each, device) for n in ELEMENTS}
            for device in DEVICES
        }
        figures_of = {**made._asdict(), "resident": made.resident, "in_flight": made.in_flight}
        rows.append({"kernel": name, **figures_of, "passes": passes, "seconds": predicted})
    print(f"\n{'predicted, microseconds of':<32}", *(f"{n:>13}" for n in ELEMENTS))
    for device in DEVICES:
        for row in rows:
            seconds = row["seconds"][device.name]
            shown = " ".join(f"{1e6 * seconds[str(n)]:>13.1f}" for n in ELEMENTS)
            print(f"{row['kernel'] + ', ' + device.name:<32} {shown}")
    if options.json:
        document = {"cc": options.cc, "devices": [d._asdict() for d in DEVICES], "kernels": rows}
        Path(options.json).write_text(json.dumps(document, indent=1) + "\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
