"""The kernels that were really compiled, run as C on the host: the reference's bits.

The translator is what is on trial. One step of each family of kernels is enough for that, over
tensors of sizes around a vector and a tile, some of them misaligned.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from types import SimpleNamespace
from typing import Any, TypeAlias

import fewer_bytes
import numpy as np
import pytest
from cases import differing_bits
from ptx_on_host import COMPILER, Kernel

from fusedstep._backends import numpy as in_numpy
from fusedstep._backends.cuda import available, copies, formats, kernels, slices, squares
from fusedstep._backends.cuda.ptx import compile_ptx
from fusedstep._backends.plan import Job
from fusedstep._numerics import norm, variants
from fusedstep._numerics.coefficients import Rule

Array: TypeAlias = np.ndarray[Any, Any]

pytestmark = [
    pytest.mark.skipif(
        available.why_no_compiler() is not None, reason=f"{available.why_no_compiler()}"
    ),
    pytest.mark.skipif(available.simulated(), reason="this is the simulator"),
    pytest.mark.skipif(COMPILER is None, reason="neither gcc nor clang"),
]

THREADS = 64

SIZES = (1, 2, 3, 4, 5, 255, 256, 257, 1023)


def compiled(module: Any, folder: Path) -> Kernel:
    return Kernel(compile_ptx(module, (9, 0)), folder)


def aligned(values: Array, offset: int = 0) -> Array:
    """A copy that begins so many bytes behind a multiple of 64."""
    room = np.zeros(values.nbytes + 64 + offset, "u1")
    start = -room.ctypes.data % 64 + offset
    made = room[start : start + values.nbytes].view(values.dtype)
    made[...] = values
    return made


def address_of(array: Array | None) -> int:
    return 0 if array is None else array.ctypes.data


def tables(tensors: Sequence[Sequence[Array]], tile: int, column: int) -> list[Array]:
    """The rows of some tensors (p, g and the state), gradients' addresses, and whose a tile is."""
    rows = np.zeros((len(tensors), kernels.ROW), np.int64)
    counts = [-(-p.size // tile) for p, *_ in tensors]
    for row, (p, _, *states) in zip(rows, tensors, strict=True):
        row[kernels.P], row[kernels.N] = p.ctypes.data, p.size
        row[kernels.STATES : kernels.STATES + len(states)] = [*map(address_of, states)]
    rows[:, column] = np.cumsum(counts) - counts
    gradients = np.array([g.ctypes.data for _, g, *_ in tensors])
    return [rows, gradients, np.repeat(np.arange(len(tensors), dtype="i4"), counts)]


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_adamw(dtype: Any, tmp_path: Path) -> None:
    rule = Rule("adamw", ("m", "v", None))
    rng = np.random.default_rng(0)
    size = np.dtype(dtype).itemsize
    tensors = [
        [
            aligned(each.astype(dtype), size if misaligned else 0)
            for each in (*rng.standard_normal((3, n)), rng.random(n))
        ]
        for n in SIZES
        for misaligned in (False, True)
    ]
    values = {"unscale": 0.5, "clip": 0.9, "most": 1.5, "lr": 1e-3, "eps": 1e-8}
    names = variants.step(rule).scalars
    scalars = {name: dtype(values.get(name, 0.1 + 0.05 * k)) for k, name in enumerate(names)}
    with np.errstate(all="ignore"):
        expected = [
            in_numpy.stepped(rule, np.dtype(dtype), p, g, [m, v, None], SimpleNamespace(**scalars))
            for p, g, m, v in tensors
        ]
    table = tables(tensors, THREADS * kernels.LANES[size], kernels.FIRST)
    kernel = compiled(kernels.module(Job(rule, np.dtype(dtype))), tmp_path)
    memory = [*table, *(each for tensor in tensors for each in tensor)]
    for zero in (0, 1):
        copied = [[each.copy() for each in tensor] for tensor in tensors]
        arguments = [*map(address_of, table), zero, 0, *scalars.values()]
        kernel.launch(len(table[2]), THREADS, arguments, memory, seed=zero)
        for tensor, before, wanted in zip(tensors, copied, expected, strict=True):
            p, g, m, v = tensor
            for found, each in zip((p, m, v), wanted, strict=False):
                assert differing_bits(found, each.astype(dtype)) == 0
            assert not g.any() if zero else (g == before[1]).all()
            for each, old in zip(tensor, before, strict=True):
                each[...] = old


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_squares(dtype: Any, tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    scales = rng.choice([1e-155, 1.0, 1e150] if dtype == np.float64 else [1.0], 9001)
    values = rng.standard_normal(9001) * scales
    sizes = (1, 31, *range(33, 400, 32), 4096, 4097, 9001)  # a wrong bit is lost in a long sum
    g = [values[-n:].astype(dtype) for n in sizes]
    table = tables([(each, each) for each in g], norm.BLOCK, kernels.FIRST_BLOCK)
    sums = [np.full((norm.blocks(each.size), norm.SUMS), 7.0) for each in g]
    table[0][:, kernels.SUMS] = [each.ctypes.data for each in sums]
    kernel = compiled(squares.module(np.dtype(dtype)), tmp_path)
    arguments = [*map(address_of, table)]
    kernel.launch(len(table[2]), norm.LANES, arguments, [*table, *g, *sums])
    for each, found in zip(g, sums, strict=True):
        with np.errstate(all="ignore"):
            assert differing_bits(found, norm.squares(each)) == 0


def test_copies(tmp_path: Path) -> None:
    """A transposed copy, of whose axes some are reversed."""
    source = np.arange(7 * 5 * 3, dtype="u1").reshape(7, 5, 3)[::-1, :, ::2]
    to = np.zeros((2, 5, 7), "u1").transpose(2, 1, 0)
    axes = np.array([*zip(to.shape, to.strides, source.strides, strict=True)][::-1], np.int64)
    kernel = compiled(copies.module(np.dtype("u1")), tmp_path)
    assert source.base is not None
    memory = [axes, source.base, to.T]
    arguments = [axes.ctypes.data, 3, to.ctypes.data, source.ctypes.data, to.size]
    kernel.launch(-(-to.size // THREADS), THREADS, arguments, memory)
    assert (to == source).all()


def test_gradients_of_slices(tmp_path: Path) -> None:
    """The rows of a matrix that are named, some of them twice: added up in their order."""
    ids, places, starts = [4, 0, 2], [1, 0, 3, 2, 4], [0, 2, 3, 5]
    listed = [np.array(each, np.int64) for each in (ids, starts, places)]
    values = np.random.default_rng(0).standard_normal((5, 30)).astype("f4")
    whole, expected = np.zeros((5, 30), "f4"), np.zeros((5, 30), "f4")
    for row, first, last in zip(ids, starts, starts[1:], strict=False):
        for place in places[first:last]:
            expected[row] = (
                values[place] + expected[row] if place != places[first] else values[place]
            )
    kernel = compiled(slices.gathering(np.dtype("f4")), tmp_path)
    n = len(ids) * 30
    arguments = [values.ctypes.data, n, 30, *(each.ctypes.data for each in listed)]
    arguments.append(whole.ctypes.data)
    kernel.launch(-(-n // THREADS), THREADS, arguments, [values, whole, *listed])
    assert differing_bits(whole, expected) == 0


# ---- formats ----


class Beside:
    """A step of a kernel, on copies of what a step in NumPy is about to change."""

    def __init__(self, kernel: Kernel, table: Any, scalars: Any, zero: bool) -> None:
        self.pairs: list[tuple[Array, Array]] = []
        """Copies, and what they are copies of."""
        (job,), ((constants, values),) = table.jobs, scalars
        tensors = [
            [self.copy(each) for each in (row.p, operand, *row.states)]
            for row, operand in zip(table.rows, table.operands, strict=True)
        ]
        threads = 2 * formats.WORDS
        rows, gradients, tiles = tables(tensors, 4 * threads, kernels.FIRST)
        seconds = np.zeros((len(tensors), formats.SECONDS), np.int64)
        for row, first, second in zip(table.rows, rows, seconds, strict=True):
            first[kernels.EMA] = address_of(self.copy(row.ema))
            second[formats.ORDINAL] = row.ordinal
            rest = [] if row.rest is None else [row.rest.p, None, *row.rest.states]
            second[: len(rest)] = [address_of(self.copy(each)) for each in rest]
        laid = [rows, seconds, gradients, tiles]
        picked = {**constants, **values}
        arguments: list[Any] = [
            *map(address_of, laid),
            *(int(zero), 0, int(table.keys.view(np.int64)[0])),
            *(np.float32(picked[name]) for name in variants.step(job.rule).scalars),
        ]
        kernel.launch(len(tiles), threads, arguments, [*laid, *(copy for copy, _ in self.pairs)])

    def copy(self, operand: Any) -> Any:
        if operand is None:
            return None
        self.pairs.append((aligned(operand.flat), operand.flat))
        return self.pairs[-1][0]


@pytest.mark.parametrize("index", [2, 7])
def test_formats(index: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Without codes and with signed and unsigned ones, rounded to nearest and at random."""
    case = fewer_bytes.FEW[index]
    kernel = compiled(formats.module(fewer_bytes.job_of(case)), tmp_path)
    steps: list[Beside] = []
    original = in_numpy.Table.calls

    def calls(self: Any, scalars: Any, zero: bool, each: bool = False) -> Any:
        steps.append(Beside(kernel, self, scalars, zero))
        return original(self, scalars, zero, each)

    monkeypatch.setattr(in_numpy.Table, "calls", calls)
    rng = np.random.default_rng(0)

    def made(dtype: str) -> list[Array]:
        return [
            fewer_bytes.rounded(rng.standard_normal(n).astype("f4"), dtype) for n in (4097, 5000)
        ]

    optimizer = case.optimizer(made(case.p), "numpy")
    for request in ({}, {"zero_grads": True, "max_norm": 1.0}):
        optimizer.step(made(case.g), **request)
        for copy, after in steps[-1].pairs:
            assert copy.tobytes() == after.tobytes()
    assert len(steps) == 2
