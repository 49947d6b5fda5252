"""Print how many elements of each case were compared with the reference, and how many differ.

    python tests/helpers/bit_table.py

Every case, also with what a step may be asked for besides its rule, runs on difficult
values at sizes around the vector width and on ordinary ones at a size that threads share:
by C on each instruction set and by Numba, with 1, 2 and 7 threads; by both again on tensors of
torch, if it is installed, all of them in one step; and on a CUDA device, several tensors a launch.
Where there is no device, Numba simulates one, in tiny blocks and without the large sizes.

A second table has parameters, gradients and state in fewer bytes, in all formats: a row for each
rule and way to keep parameters. Of these the simulator runs some, on small tensors.
"""

from __future__ import annotations

import os
from collections import Counter
from importlib.util import find_spec
from typing import Any

from fusedstep._backends.cuda.available import why_missing

if why_missing() is not None:
    os.environ["NUMBA_ENABLE_CUDASIM"] = "1"  # before anything imports Numba

import fewer_bytes
import numpy as np
from bits import steps
from cases import (
    CASES,
    CUSTOM_CASES,
    CUSTOM_WHOLE_CASES,
    DTYPES,
    SIZES,
    WHOLE_CASES,
    Case,
    differing_bits,
    difficult,
    difficult_but_finite,
    ordinary,
)
from device import MISSING, SIMULATED, Placed
from rich.console import Console
from rich.progress import track
from rich.table import Table

import fusedstep as fs
from fusedstep._core import kept, parameters

THREADS = (1, 2, 7)
SHARED_SIZE = 40_009
STEPS = 4
CUSTOM = [*CUSTOM_CASES, *CUSTOM_WHOLE_CASES]
CUDA = "cuda, simulated" if SIMULATED else "cuda"

Data = list[tuple[Any, list[Any]]]


def inputs(difficult: Any) -> Data:
    made = []
    for dtype in DTYPES:
        for n in (*SIZES, 1025, SHARED_SIZE):
            rng = np.random.default_rng(n)
            make = ordinary if n == SHARED_SIZE else difficult
            made.append((make(rng, n, dtype), [make(rng, n, dtype) for _ in range(STEPS)]))
    return made


class Here:
    """A copy in the host's memory, as `Placed` is one on a device."""

    def __init__(self, view: Any) -> None:
        self.array = self.host = view


class Lent:
    """A tensor of torch over such a copy."""

    def __init__(self, view: Any) -> None:
        import torch

        self.host = view
        self.array = torch.from_numpy(view)


TENSORS = {"c": "c, tensors", "numba": "numba, tensors"} if find_spec("torch") else {}
"""The columns of backends over tensors."""


def together(case: Case, backend: str, place: Any, data: Data) -> list[dict[str, Any]]:
    """The results of `steps` for each of the data, all stepped by one optimizer."""
    params = [place(p.copy()) for p, _ in data]
    optimizer = case.optimizer([p.array for p in params], backend=backend, **case.options)
    for k in range(STEPS):
        placed = [place(grads[k].copy()) for _, grads in data]
        optimizer.step([g.array for g in placed], **case.request)
    states = optimizer.state_dict()["state"]
    return [
        {"p": p.host, **{letter: array for letter, array in state.items() if letter != "t"}}
        for p, state in zip(params, states, strict=True)
    ]


def compare(case: Case, data: Data) -> tuple[Counter[str], Counter[str]]:
    """Elements compared and differing, by backend."""
    compared: Counter[str] = Counter()
    differing: Counter[str] = Counter()

    def count(backend: str, found: dict[str, Any], expected: dict[str, Any]) -> None:
        assert found.keys() == expected.keys()
        for letter, array in expected.items():
            compared[backend] += array.size
            differing[backend] += differing_bits(found[letter], array)

    reference = [steps(case, "numpy", p, grads) for p, grads in data]
    for (p, grads), expected in zip(data, reference, strict=True):
        for threads in THREADS:
            fs.set_num_threads(threads)
            for isa in () if case in CUSTOM else fs.info().isas:
                fs.set_isa(isa)
                count(f"c {isa}", steps(case, "c", p, grads), expected)
            count("numba", steps(case, "numba", p, grads), expected)
    everything = together(case, "numpy", Here, data)
    for backend, column in TENSORS.items():
        if backend == "c" and case in CUSTOM:
            continue
        for found, expected in zip(together(case, backend, Lent, data), everything, strict=True):
            count(column, found, expected)
    if MISSING is None:
        # In the simulator each block of a norm takes a tenth of a second.
        sizes = (0, 5, 33) if "max_norm" in case.request else SIZES
        few = [entry for entry in data if not SIMULATED or entry[0].size in sizes]
        results = together(case, "cuda", Placed, few), together(case, "numpy", Here, few)
        for found, expected in zip(*results, strict=True):
            count(CUDA, found, expected)
    return compared, differing


FORMAT_SIZES = (1, 257, 5000, SHARED_SIZE)

SIMULATED_SIZES, SIMULATED_SMALL = (1, 301), 100
"""Sizes of tensors in the simulator, and from which of them on state is in fewer bytes there."""


def compare_formats(case: fewer_bytes.Case) -> tuple[Counter[str], Counter[str]]:
    """Elements compared and differing, by backend."""
    compared: Counter[str] = Counter()
    differing: Counter[str] = Counter()
    expected = fewer_bytes.results(case, "numpy", sizes=FORMAT_SIZES)

    def count(column: str, found: Any, expected: Any) -> None:
        compared[column] += sum(array.size for array in expected.values())
        for name, array in expected.items():
            differing[column] += fewer_bytes.differing(found[name], array)

    for threads in THREADS:
        fs.set_num_threads(threads)
        for backend in ("c", "numba"):
            for each in fewer_bytes.on(backend, [case]):
                for isa in fs.info().isas if backend == "c" else ("",):
                    if isa:
                        fs.set_isa(isa)
                    found = fewer_bytes.results(each, backend, sizes=FORMAT_SIZES)
                    count(f"{backend} {isa}".strip(), found, expected)
    if MISSING is None and (not SIMULATED or case in fewer_bytes.FEW):
        sizes = SIMULATED_SIZES if SIMULATED else FORMAT_SIZES
        before = kept.SMALL
        if SIMULATED:
            _small_from(SIMULATED_SMALL)
        try:
            found = fewer_bytes.results(case, "cuda", Placed, sizes)
            count(CUDA, found, fewer_bytes.results(case, "numpy", sizes=sizes))
        finally:
            _small_from(before)
    return compared, differing


def _small_from(size: int) -> None:
    """Have state in fewer bytes from so many elements on."""
    for module in (kept, parameters):
        vars(module)["SMALL"] = size


def count_formats(console: Console, backends: list[str]) -> tuple[Counter[str], int]:
    """Print the second table; elements compared by backend, and how many differ."""
    table = Table(title="elements in fewer bytes that differ from the reference")
    table.add_column("rule, parameters", no_wrap=True)
    for backend in (*backends, "compared"):
        table.add_column(backend, justify="right")
    rows: dict[str, tuple[Counter[str], Counter[str]]] = {}
    for case in track(fewer_bytes.EVERY, console=console, transient=True):
        row = rows.setdefault(case.group, (Counter(), Counter()))
        for total, more in zip(row, compare_formats(case), strict=True):
            total.update(more)
    for name, (compared, differing) in rows.items():
        cells = [str(differing[backend]) if compared[backend] else "" for backend in backends]
        table.add_row(name, *cells, f"{compared.total():,}")
    console.print(table)
    everything = sum((compared for compared, _ in rows.values()), Counter())
    return everything, sum(differing.total() for _, differing in rows.values())


def main() -> None:
    if SIMULATED:
        from fusedstep._backends.cuda import device

        device.THREADS = 4
    console = Console(width=140)
    data = inputs(difficult)
    finite = inputs(difficult_but_finite)
    backends = [*(f"c {isa}" for isa in fs.info().isas), "numba", *TENSORS.values()]
    backends += [CUDA] if MISSING is None else []
    table = Table(title="elements that differ from the reference")
    table.add_column("case", no_wrap=True)
    for backend in (*backends, "compared"):
        table.add_column(backend, justify="right")
    everything: Counter[str] = Counter()
    wrong = 0
    for case in track([*CASES, *WHOLE_CASES, *CUSTOM], console=console, transient=True):
        # One element that is not finite would make the norm, and so all elements, NaN.
        compared, differing = compare(case, finite if "max_norm" in case.request else data)
        cells = [str(differing[backend]) if compared[backend] else "" for backend in backends]
        table.add_row(case.name, *cells, f"{compared.total():,}")
        everything += compared
        wrong += differing.total()
    console.print(table)
    kept_columns = [backend for backend in backends if backend not in TENSORS.values()]
    compared, differing_in_formats = count_formats(console, kept_columns)
    everything += compared
    wrong += differing_in_formats
    for backend in backends:
        console.print(f"{backend}: {everything[backend]:,} compared")
    if MISSING is not None:
        console.print(f"cuda: left out, {MISSING}")
    console.print(f"{everything.total():,} elements compared, {wrong:,} differ")


if __name__ == "__main__":
    main()
