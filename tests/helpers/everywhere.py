"""Print a digest of all that steps leave on this machine, to be compared with other machines'.

    python tests/helpers/everywhere.py

Every rule with every set of options runs over float32 and float64, and some run over each way to
keep values in fewer bytes, and all golden vectors, with rows, norms and schedules among them, by
the NumPy reference and by C on each instruction set. The lines that
follow have the same digest wherever the bits are the same, of any order of bytes. Inputs are random
bits and small whole numbers over a power of two: no other numbers are sure to be the same on two
machines, since those of a normal distribution come from the machine's library of mathematics.
"""

from __future__ import annotations

import hashlib
import platform
import sys
from collections.abc import Iterator
from typing import Any

import fewer_bytes
import numpy as np
import vectors
from cases import BASES, CROSSED, DTYPES, WHOLE, Case, crossed

import fusedstep as fs
from fusedstep._arrays.dtypes import BFLOAT16
from fusedstep._backends.choose import why_missing
from fusedstep._backends.isa import isas

Array = np.ndarray[Any, Any]

SIZES = (1, 17, 1037)
KEPT = (257, 5000)  # the second is large enough for state in 8 bits
SHARED = (40_009,)  # enough for several threads
STEPS = 3


def any_bits(rng: np.random.Generator, n: int, dtype: Any) -> Array:
    """Values of any bits, one in ten a NaN, an infinity, a zero or a subnormal number."""
    word = np.dtype(f"u{np.dtype(dtype).itemsize}")
    bits = rng.integers(0, 1 << 8 * word.itemsize, n, word)
    special = np.array([0, np.inf, -np.inf, np.nan, -0.0, np.finfo(dtype).smallest_subnormal])
    chosen = rng.integers(0, 10, n) == 0
    return np.where(chosen, np.resize(special.astype(dtype), n), bits.view(dtype))


def ordinary(rng: np.random.Generator, n: int, dtype: Any) -> Array:
    """Multiples of 2**-18 between -4 and 4."""
    return (rng.integers(-(1 << 20), 1 << 20, n) / (1 << 18)).astype(dtype)


def canonical(array: Array) -> bytes:
    """The bytes of an array from the lowest on, with one NaN in the place of all."""
    if array.dtype == BFLOAT16:
        array = array.view(np.uint16)
    if array.dtype.kind == "f":
        array = np.where(np.isnan(array), array.dtype.type(np.nan), array)
        array = array.view(f"u{array.itemsize}")
    return array.astype(array.dtype.newbyteorder("<")).tobytes()


def left(
    optimizer: Any, params: list[Array], grads: list[list[Array]], request: Any
) -> Iterator[Array]:
    """Steps with each of some lists of gradients, and all arrays that they leave."""
    for each in grads:
        optimizer.step(each, **request)
    yield from params
    yield from grads[-1]
    for entries in optimizer.state_dict()["state"]:
        yield from (entry for entry in entries.values() if isinstance(entry, np.ndarray))


def whole(backend: str, case: Case, dtype: Any, sizes: tuple[int, ...]) -> Iterator[Array]:
    """A case on ordinary values and, unless a norm would spread its NaN to all, on any bits."""
    for make in (ordinary, any_bits)[: 1 if "max_norm" in case.request else 2]:
        rng = np.random.default_rng(len(case.name))
        made = [[make(rng, n, dtype) for n in sizes] for _ in range(STEPS + 1)]
        optimizer = case.optimizer(made[0], backend=backend, **case.options)
        yield from left(optimizer, made[0], made[1:], case.request)


def fewer(backend: str, case: fewer_bytes.Case) -> Iterator[Array]:
    rng = np.random.default_rng(len(case.name))
    dtypes = [case.p, *[case.g] * STEPS]
    made = [[fewer_bytes.rounded(ordinary(rng, n, "f4"), dtype) for n in KEPT] for dtype in dtypes]
    copies = [np.zeros(n, fewer_bytes.DTYPES[case.out or case.p]) for n in KEPT]
    yield from left(case.optimizer(made[0], backend, copies), made[0], made[1:], {})
    yield from copies


def everything(backend: str) -> Iterator[tuple[str, Iterator[Array]]]:
    """Each case by its name, with the arrays that it leaves."""
    for dtype in DTYPES:
        name = np.dtype(dtype).name
        for case in crossed(BASES, [CROSSED[0], CROSSED[-1], *WHOLE[-3:]]):
            yield f"{case.name} {name}", whole(backend, case, dtype, SIZES)
        for case in BASES:
            yield f"{case.name} {name} shared", whole(backend, case, dtype, SHARED)
    for kept in fewer_bytes.on("c", fewer_bytes.FEW + fewer_bytes.AT_ONCE):
        yield kept.name, fewer(backend, kept)


def digest(backend: str, verbose: bool) -> str:
    total = hashlib.sha256()
    for name, arrays in everything(backend):
        one = hashlib.sha256()
        for array in arrays:
            one.update(canonical(array))
        if verbose:
            print(f"    {one.hexdigest()[:16]} {name}")
        total.update(one.digest())
    total.update(vectors.text_of(vectors.vectors(backend)).encode())
    return total.hexdigest()


if __name__ == "__main__":
    verbose = "-v" in sys.argv
    fs.set_num_threads(2)
    about = f"{platform.machine()} {sys.byteorder}-endian, NumPy {np.__version__}"
    with np.errstate(all="ignore"):
        print(digest("numpy", verbose), "numpy", about, flush=True)
        missing = why_missing("c")
        if missing:
            print(f"c is missing: {missing}")
        for isa in [] if missing else isas():
            fs.set_isa(isa)
            print(digest("c", verbose), f"c {isa}", about, flush=True)
