"""Steps that show whether a kernel is as it should be: one trial for each kernel.

A trial is a function that takes some steps on a side, the device or the NumPy reference, and what
both leave is compared. The numbers are such that a slip shows: of all magnitudes, so that sums are
rounded and products are subnormal, with tensors that end around a vector, a tile or a block, and
scalars that are neither 0, 1 nor a power of two. An array on the device has memory of its exact
size, so that whoever goes beyond is found by the driver in memory.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import cache, partial
from itertools import accumulate, product
from types import ModuleType
from typing import Any, NamedTuple
from unittest.mock import patch

import fewer_bytes
import numpy as np
from cases import differing_bits
from device import IN_MEMORY, Plain

import fusedstep as fs
from fusedstep import rules
from fusedstep._arrays.dtypes import BFLOAT16
from fusedstep._backends.cuda import copies, formats, kernels, slices, squares, totals, verdict
from fusedstep._backends.cuda import foreseen as lines_ahead
from fusedstep._backends.cuda.kernels import Variant
from fusedstep._backends.plan import Job, Scaler
from fusedstep._core import kept, parameters
from fusedstep._core.request import Request
from fusedstep._numerics import norm
from fusedstep._numerics.coefficients import Rule

Array = np.ndarray[Any, Any]

Requests = Sequence[dict[str, Any]]
"""Arguments of some steps besides the gradients."""

F4, F8 = np.dtype(np.float32), np.dtype(np.float64)


class DiffersError(Exception):
    """A side has left something else than is wanted."""


class Side:
    """The reference, or the device; and what a trial has left there."""

    def __init__(self, backend: str, wanted: Sequence[Any] | None = None) -> None:
        self.backend = backend
        self.wanted = wanted
        """All that has to be left here, or the trial ends at once; None: anything."""
        self.left: list[Any] = []
        self.placed: list[tuple[Any, Array, int]] = []

    def place(self, values: Array, offset: int = 0, memory: Array | None = None) -> Any:
        """An array with these values, so many elements behind a multiple of 512 bytes.

        `memory` is all of the memory that they are a view of.
        """
        memory = values if memory is None else memory
        if self.backend == "numpy":
            copy = memory.copy(order="A")
            return _view(copy, values, memory)
        from numba import cuda

        skip = offset * values.itemsize
        content = np.full(memory.nbytes + skip, 0xA5, np.uint8)
        content[skip:] = np.frombuffer(memory.tobytes(order="A"), np.uint8)
        raw: Any = cuda.to_device(content) if content.size else None
        start = raw.__cuda_array_interface__["data"][0] + skip if content.size else 0
        inside = _address(values) - _address(memory)
        made = Plain(raw, start + inside if values.size else 0, values)
        self.placed.append((made, memory, skip))
        return made

    def leave(self, *values: Any) -> None:
        for value in values:
            at = len(self.left)
            if self.wanted is not None and differ([value], self.wanted[at : at + 1]):
                raise DiffersError
            self.left.append(value)

    def keep(self, *arrays: Any) -> None:
        """Compare all the memory of these arrays as it is now, with what lies before it."""
        for array in arrays:
            if self.backend == "numpy":
                base = array if array.base is None else array.base
                self.leave(base.copy(order="A").reshape(-1, order="A"))
                continue
            _, memory, skip = next(each for each in self.placed if each[0] is array)
            content = array.owner.copy_to_host() if memory.size else np.zeros(skip, np.uint8)
            assert (content[:skip] == 0xA5).all(), "written before an array"
            self.leave(content[skip:].view(memory.dtype))

    def read(self, array: Any) -> Array:
        """A copy of an array's elements, which lie one after the other."""
        if self.backend == "numpy":
            return np.array(array)
        _, memory, skip = next(each for each in self.placed if each[0] is array)
        return array.owner.copy_to_host()[skip:].view(memory.dtype) if memory.size else memory

    def write(self, array: Any, values: Array) -> None:
        """Give these elements other values, as a user may at any time."""
        if self.backend == "numpy":
            array[...] = values
        elif values.size:
            content = array.owner.copy_to_host()
            content[content.size - values.nbytes :] = np.frombuffer(values.tobytes(), np.uint8)
            array.owner.copy_to_device(content)

    def late(self, is_late: bool) -> None:
        """Have the device in memory work as late as it may, or at once."""
        if self.backend != "numpy" and IN_MEMORY is not None:
            IN_MEMORY.mode(int(is_late))

    def report(self, report: Any) -> None:
        """Compare a report, or several, which waits for them."""
        self.leave(repr(report))

    def state(self, optimizer: Any) -> None:
        entries = optimizer.state_dict()["state"]
        if entries and isinstance(entries[0], list):  # in groups
            entries = [entry for group in entries for entry in group]
        for entry in entries:
            for value in entry.values():
                self.leave(value if isinstance(value, np.ndarray) else repr(value))

    def sums(self, optimizer: Any) -> None:
        """Compare the sums of squares of the gradients' blocks, which were measured last."""
        self.leave(np.array(optimizer.layout.plan.table.sums))


def _address(array: Array) -> int:
    return int(array.__array_interface__["data"][0])


def _view(copy: Array, values: Array, memory: Array) -> Array:
    if values is memory:
        return copy
    start = _address(values) - _address(memory)
    return np.ndarray(values.shape, values.dtype, copy.data, start, values.strides)


def differ(found: Sequence[Any], wanted: Sequence[Any]) -> bool:
    """Whether what a trial has left on two sides differs; one NaN is as good as another."""
    return len(found) != len(wanted) or any(
        one != other if isinstance(one, str) else _arrays_differ(one, other)
        for one, other in zip(found, wanted, strict=True)
    )


def _arrays_differ(one: Array, other: Array) -> bool:
    if one.dtype != other.dtype or one.shape != other.shape:
        return True
    if one.dtype == BFLOAT16 or one.dtype.itemsize == 2:
        return fewer_bytes.differing(one, other) > 0
    if one.dtype.kind != "f":
        return bool((one != other).any())
    return differing_bits(one, other) > 0


# ---- numbers ----


def joint(rng: np.random.Generator, n: int, dtype: Any, finite: bool) -> Iterator[Array]:
    """Arrays whose numbers at the same place are of the same magnitude, from subnormal to huge.

    Every other array is of squares: the first one of p, g and m has no minus sign.
    """
    limits = np.finfo(dtype)
    least, most = limits.minexp - limits.nmant, limits.maxexp - 2
    kind = rng.random(n)
    exponents = rng.integers(least, most, n)
    exponents = np.where(kind < 0.35, rng.integers(-12, 6, n), exponents)
    half = rng.integers(least // 2 - 4, least // 2 + 14, n)
    exponents = np.where(kind > 0.85, half, exponents)
    tiny = rng.integers(least, least + 40, n)
    exponents = np.where((kind > 0.7) & (kind < 0.85), tiny, exponents)
    special = [0.0, -0.0, limits.max, -limits.max, limits.tiny, -limits.smallest_subnormal]
    special += [] if finite else [np.inf, -np.inf, np.nan]
    for k in range(8):
        near = exponents + rng.integers(-3, 3, n)
        near = np.where(rng.random(n) < 0.1, rng.integers(least, most, n), near)
        with np.errstate(all="ignore"):
            values = np.ldexp(rng.uniform(-2, 2, n), near)
            if k >= 4:  # of squares, which are subnormal twice as soon
                values = np.ldexp(rng.uniform(1, 4, n), np.clip(2 * near, least - 1, most))
            made = values.astype(dtype)
        if finite:
            made[~np.isfinite(made)] = 1
        chosen = rng.random(n) < 0.03
        made[chosen] = rng.choice(np.array(special, dtype), chosen.sum())
        made[7::61] = 0.0 if k == 2 else -0.0  # a sum of zeros is +0.0 once any of them is
        yield np.abs(made) if k >= 4 else made


SQUARES = ("v", "x", "s")
"""Letters of state that is never below 0."""


class Drawn:
    """Tensors of some sizes, with their state and gradients."""

    def __init__(
        self, seed: int, sizes: Sequence[int], dtype: Any, letters: Sequence[str], finite: bool
    ) -> None:
        self.p: list[Array] = []
        self.grads: list[list[Array]] = [[], [], []]
        self.state: list[dict[str, Array]] = []
        for k, n in enumerate(sizes):
            rng = np.random.default_rng([seed, k])
            p, g, m, b, *squared = joint(rng, n, dtype, finite)
            others, more = [m, b, -m], [*squared]
            self.p.append(p)
            self.grads[0].append(g)
            for later in self.grads[1:]:
                some = np.where(rng.random(n) < 0.5, g, rng.permutation(g))
                later.append(np.where(np.abs(some) > 1e295, 1, some).astype(dtype))
            self.state.append({x: (more.pop() if x in SQUARES else others.pop()) for x in letters})


def load(optimizer: Any, drawn: Drawn, t: int = 7) -> None:
    """Give an optimizer, which has stepped, the state that was drawn."""
    state = optimizer.state_dict()
    for entry, values in zip(state["state"], drawn.state, strict=True):
        entry.update({x: value.astype(entry[x].dtype) for x, value in values.items()})
        entry["t"] = t
    optimizer.load_state_dict(state)


# ---- rules ----

OFFSETS = [(0, 0), (1, 0), (0, 1), (1, 1), (3, 2)]
"""Elements by which p and g lie off."""

OF_TILES = {
    F4: (1, 3, 4, 255, *range(257, 2048, 256), 1023, 1024, 2047, 2048, 2049, 3073),
    F8: (1, 2, 3, 255, *range(257, 1024, 256), 511, 512, 1023, 1024, 1025),
}
"""Sizes around a vector, blocks of threads, and tiles of one and of two vectors."""

ALONE = {F4: (2048, 5000), F8: (1024, 2500)}
"""Sizes of a tensor that is alone, and has several tiles."""


class Asks(NamedTuple):
    """Options and requests of some steps, for whose numbers it matters whether they are finite."""

    options: dict[str, Any]
    requests: Requests
    finite: bool = False
    spoiled: int | None = None
    """The step whose gradients are not finite."""


PLAIN = [
    Asks({"nonfinite": "propagate"}, [{"scale": 3.0, "max_value": 0.7}, {"zero_grads": True}, {}]),
    Asks(
        {"nonfinite": "raise"},
        [
            {"max_norm": 1e3, "scale": 3.0, "max_value": 0.37},
            {"max_norm": 7e2, "clip": "tensor", "zero_grads": True},
            {"max_norm": 1e294, "scale": 1.3},
        ],
        finite=True,
    ),
]
"""Steps by kernels with scalars by value."""

JUDGED = [
    Asks(
        {"nonfinite": "skip"},
        [
            {"max_norm": 1e3, "scale": 3.0, "max_value": 0.37},
            {"zero_grads": True},
            {"max_norm": 7e2, "clip": "tensor", "scale": 1.7},
        ],
        finite=True,
        spoiled=1,
    ),
    Asks({"nonfinite": "propagate"}, [{"max_norm": np.inf, "max_value": 0.7, "scale": 3.0}]),
    Asks(
        {"nonfinite": "skip"},
        [{"max_norm": 1e294, "scale": 1.3}, {"max_norm": 1e294, "clip": "tensor", "scale": 1.7}],
        finite=True,
    ),
]
"""Steps by kernels with scalars from a record."""


def steps(
    make: Any,
    dtype: Any,
    letters: Sequence[str],
    asked: Sequence[Asks],
    each: Sequence[dict[str, Any]],
    side: Side,
) -> None:
    """Steps of tensors of many sizes and offsets, by each of some options."""
    whole = [(OF_TILES[dtype], asks, more) for more in each for asks in asked]
    alone = [((n,), asks, each[0]) for n in ALONE[dtype] for asks in asked]
    for k, (sizes, asks, more) in enumerate([*whole, *alone]):
        drawn = Drawn(k, sizes, dtype, letters, asks.finite)
        offsets = [OFFSETS[(at + k) % len(OFFSETS)] for at in range(len(sizes))]
        params = [side.place(p, of_p) for p, (of_p, _) in zip(drawn.p, offsets, strict=True)]
        optimizer = make(params, backend=side.backend, **asks.options, **more)
        optimizer.step([side.place(np.zeros_like(p)) for p in drawn.p])
        load(optimizer, drawn)
        for step, request in enumerate(asks.requests):
            values = [g.copy() for g in drawn.grads[step]]
            if step == asks.spoiled:
                values[-1][5] = np.inf
            grads = [side.place(g, of_g) for g, (_, of_g) in zip(values, offsets, strict=True)]
            side.report(optimizer.step(grads, **request))
            side.keep(*grads)
        side.keep(*params)
        side.state(optimizer)


# ---- formats ----


NARROW_SIZES = (1, 63, 100, 184, 255, 256, 257, 511, 1024, 1300, 20_000)

NARROW_REQUESTS: Requests = [
    {},
    {"scale": 3.0, "max_norm": 2.5, "clip": "tensor", "zero_grads": True},
    {"max_value": 0.7},
    {},
    {"scale": 0.3, "max_value": 0.7},
]


class Way(NamedTuple):
    """Options, and the only number of the first gradient's first block.

    That number becomes the least one for which 8-bit codes of the block have another base than 0.
    """

    options: dict[str, Any]
    alone: float


BORDER = np.array(0x07F00001, np.uint32).view(F4).item()
"""The least number for which signed codes have another base than 0."""

ROOT_OF_BORDER = np.array(0x0FF00001, np.uint32).view(F4).item() ** 0.5
"""The root of that for unsigned codes."""

WAYS = {
    "momentum": [
        Way({"lr": 3.7, "momentum": 0.83, "dampening": 0.21}, 1.0),
        Way({"lr": 1.7, "momentum": 0.83}, BORDER),
    ],
    "rmsprop-momentum": [
        Way({"lr": 0.37, "alpha": 0.83, "momentum": 0.7, "eps": 1.0}, BORDER),
        Way(
            {"lr": 0.37, "alpha": 0.5, "momentum": 0.7, "eps": 1e-42, "lr_in_momentum": True},
            ROOT_OF_BORDER * 2**0.5,
        ),
        Way({"lr": 1e-30, "alpha": 0.83, "momentum": 0.7, "eps": 0.0}, 1.0),
    ],
}


def module_of(case: fewer_bytes.Case) -> ModuleType:
    return formats.module(fewer_bytes.job_of(case))


def narrow(case: fewer_bytes.Case, side: Side) -> None:
    """Steps of tensors in fewer bytes, of sizes around a block of 256 elements."""
    with patch.object(kept, "SMALL", 1), patch.object(parameters, "SMALL", 1):
        for seed, (sizes, way) in enumerate(product([NARROW_SIZES, (3000,)], WAYS[case.rule.name])):
            for policy in ("propagate", "raise"):
                options = {**way.options, "nonfinite": policy}
                asked = case._replace(rule=case.rule._replace(options=options))
                _narrow(asked, side, np.random.default_rng(seed), sizes, way.alone)


def _narrow(
    case: fewer_bytes.Case, side: Side, rng: Any, sizes: Sequence[int], alone: float
) -> None:
    propagates = case.rule.options["nonfinite"] == "propagate"
    magnitudes = [_of_blocks(rng, n) for n in sizes]
    params = [side.place(fewer_bytes.rounded(_near(rng, each), case.p)) for each in magnitudes]
    out = fewer_bytes.DTYPES[case.out or case.p]
    copies = [side.place(np.zeros(n, out)) for n in sizes]
    optimizer = case.optimizer(params, side.backend, copies)
    for step, request in enumerate(NARROW_REQUESTS):
        given = [_near(rng, each) for each in magnitudes]
        if step == 0:
            mantissa, exponent = np.frexp(alone)
            request = {"scale": 0.5 / float(mantissa)}
            for g in given:
                g[:256] = 0
                g[g.size // 2 % 256] = 2.0 ** (exponent - 1)
        if propagates:
            request = {name: x for name, x in request.items() if name not in ("max_norm", "clip")}
            if step == 3:
                for g in given:
                    g[::37] = np.nan
                    g[1::41] = np.inf
        if step == 2:
            optimizer.load_float32_params([_ties(p) for p in optimizer.float32_params()])
        if step >= 3:
            _assign(side, params, case.p, np.inf if step == 3 else np.nan, propagates)
        grads = [side.place(fewer_bytes.rounded(g, case.g)) for g in given]
        optimizer.step(grads, **request)
        side.keep(*grads)
        if step == 0:
            side.state(optimizer)
    side.keep(*params, *copies)
    side.state(optimizer)
    side.leave(*optimizer.float32_params())


def _ties(p: Array) -> Array:
    """Some of these numbers halfway between two of bfloat16, and others not."""
    bits = np.array(p).view(np.uint32)
    bits[::2] = bits[::2] & 0xFFFF0000 | 0x8000
    return bits.view(F4)


def _assign(side: Side, params: Sequence[Any], dtype: str, value: float, propagates: bool) -> None:
    """Have other numbers in some elements of the parameters, and in some this value."""
    for p in params:
        values = side.read(p)
        values[3::5] = fewer_bytes.rounded(np.full(values[3::5].shape, 0.37, F4), dtype)
        if propagates:
            values[5::53] = fewer_bytes.rounded(np.full(values[5::53].shape, value, F4), dtype)
        side.write(p, values)


def _of_blocks(rng: np.random.Generator, n: int) -> Array:
    """The exponents of some numbers: one for each block of 256.

    At times these numbers are subnormal, or their squares.
    """
    kind = rng.random(80)
    exponents = np.where(kind < 0.2, -130, rng.integers(-14, 6, 80))
    exponents = np.where(kind > 0.75, rng.integers(-75, -60, 80), exponents)
    return np.repeat(exponents, 256)[:n]


def _near(rng: np.random.Generator, exponents: Array) -> Array:
    n = exponents.size
    return np.asarray(np.ldexp(rng.standard_normal(n), exponents + rng.integers(-2, 3, n)), F4)


# ---- norms ----


LANE_SIZES = (*(32 * k + 5 for k in range(16)), 1, 31, 512, 1000, 4095, 4096, 4097, 8200)
"""Sizes of which each load of a lane is the last one, once, and around a block of sums."""

EXPONENTS = ((-1000, -501), (-490, 470), (481, 510), (-503, -497), (477, 483))
"""Exponents whose squares are scaled up, not at all and down, and those around the borders."""


def measured(dtype: Any, side: Side) -> None:
    """The sums of blocks, of one lane alone or of all, so that no bit is lost in the others."""
    rng = np.random.default_rng(5)
    for k in range(25 if dtype == F4 else 40):
        values = [_summands(rng, n, dtype, k) for n in LANE_SIZES]
        for some in (values, [np.concatenate(values)]) if k < 5 else (values,):
            params = [side.place(np.zeros_like(g)) for g in some]
            optimizer = fs.SGD(params, nonfinite="raise", backend=side.backend)
            grads = [side.place(g, at % 3) for at, g in enumerate(some)]
            side.report(optimizer.step(grads, max_norm=1.0))
            side.sums(optimizer)


def _summands(rng: np.random.Generator, n: int, dtype: Any, k: int) -> Array:
    """A gradient whose squares are scaled in one way or another: of one lane, or of all."""
    if dtype == F4:
        g = np.concatenate([*joint(rng, -(-n // 3), dtype, finite=True)][:3])[:n]
    else:
        low, high = EXPONENTS[k % 5]
        start = int(rng.integers(low, max(high - 5, low + 1)))
        exponents = rng.integers(start, min(start + 6, high), n)
        g = np.ldexp(rng.uniform(1, 2, n) * rng.choice([-1, 1], n), exponents)
        if k % 5 > 2:
            g[rng.random(n) < 0.2] = 2.0 ** (-500 if low < 0 else 480)
    if k % 15 == 7:  # only the first that a lane adds in each of its turns
        g[np.arange(n) // 32 % 16 > 0] = 0
    if k % 3 == 2:
        return g
    alone: Array = g * (np.arange(n) % 32 == rng.integers(min(n, 5)))
    return alone


def folded(side: Side) -> None:
    """Norms of gradients of so many blocks that their sums are folded in several ways.

    All squares are small, or middling, or large, so that each of the three sums is seen.
    """
    with patch.object(totals, "MANY", 4):
        for count in (1, 2, 3, 4, 5, 6, 7, 9, 17, 90, 350):
            for exponent in (-550, 0, 500) if count < 100 else (0,):
                rng = np.random.default_rng([count, exponent + 550])
                grads = []
                for blocks in (count, 2, count + 1):
                    g = np.zeros(4096 * (blocks - 1) + 1, F8)
                    mantissas = rng.standard_normal(blocks) * (rng.random(blocks) < 0.9)
                    g[::4096] = np.ldexp(mantissas, exponent + rng.integers(-3, 3, blocks))
                    grads.append(g)
                grads = [np.zeros(1, F8), np.zeros(0, F8), *grads, np.zeros(0, F8)]
                params = [side.place(np.ones_like(g)) for g in grads]
                optimizer = fs.SGD(params, lr=0.37, nonfinite="skip", backend=side.backend)
                placed = [side.place(g) for g in grads]
                for request in ({"max_norm": 0.7}, {"max_norm": 0.7, "clip": "tensor"}):
                    side.report(optimizer.step(placed, **request))
                    side.keep(*params)
                side.leave(clips_of(optimizer, side))


class Packed:
    """Many small arrays on a side, in memory that is written and read as one."""

    def __init__(self, side: Side, values: Sequence[Array]) -> None:
        self.starts = [0, *accumulate(32 * (1 + g.nbytes // 32) for g in values)]
        self.like = values
        if side.backend == "numpy":
            self.raw: Any = None
            self.arrays: list[Any] = [g.copy() for g in values]
            return
        from numba import cuda

        self.raw = cuda.device_array(self.starts[-1], np.uint8)
        at = self.raw.__cuda_array_interface__["data"][0]
        self.arrays = [
            Plain(self.raw, at + x, g) for x, g in zip(self.starts, values, strict=False)
        ]
        self.write(values)

    def write(self, values: Sequence[Array]) -> None:
        if self.raw is None:
            for array, g in zip(self.arrays, values, strict=True):
                array[...] = g
            return
        content = np.zeros(self.starts[-1], np.uint8)
        for start, g in zip(self.starts, values, strict=False):
            content[start : start + g.nbytes] = g.view(np.uint8)
        self.raw.copy_to_device(content)

    def read(self) -> list[Array]:
        if self.raw is None:
            return [array.copy() for array in self.arrays]
        content = self.raw.copy_to_host()
        return [
            content[start : start + g.nbytes].view(g.dtype)
            for start, g in zip(self.starts, self.like, strict=False)
        ]


def clips_of(optimizer: Any, side: Side) -> Array:
    """The factors that clip each gradient by its own norm, as the last step found them."""
    table = optimizer.layout.plan.table
    if side.backend == "numpy":
        return np.array(table.clips)
    found = table.device.read(table.judge.clips)
    return np.array([found[place] for place in table.places])


MAGNITUDES = (1e-320, 1e-160, 3e-39, 1e-20, 0.3, 1.0, 7e3, 1e38, 3e38, 1e160, 1e300, 3e307)

BOUNDS = (0.7, 1e-3, None, 5e4, np.inf, 0.0, 3e38, 1e-152, 1e-170, 1e-321)

SCALES = (1.0, 3.0, 1.7, 0.73, 0.3, 1e-3)
"""Scales; by 0.73 a product may be so little beyond the largest float32 that rounding decides."""

OF_JOBS: list[tuple[Any, dict[str, Any]]] = [
    (fs.SGD, {"lr": 0.37}),
    (fs.SGD, {"lr": 0.37, "momentum": 0.83, "dampening": 0.21, "ema": 0.9}),
    (fs.RMSprop, {"lr": 0.37, "momentum": 0.83, "alpha": 0.957, "centered": True}),
    (fs.Adagrad, {"lr": 0.37, "weight_decay": 0.013}),
    (fs.Adam, {"lr": 0.37, "betas": (0.83, 0.957), "l1": 0.013}),
    (fs.Adam, {"lr": 0.37, "betas": (0.83, 0.957), "ema": 0.9}),
    (fs.AdamW, {"lr": 0.37, "betas": (0.83, 0.957), "weight_decay": 0.31}),
    (fs.AdamW, {"lr": 0.37, "betas": (0.83, 0.957), "weight_decay": 0.31, "ema": 0.9}),
]
"""Optimizers whose kernels have several numbers of scalars."""


def judged(side: Side) -> None:
    """Verdicts on steps with norms of all magnitudes, with and without what is not finite.

    There are tensors for up to five turns of each thread, and steps whose verdicts are waited for
    or not.
    """
    for make, own in OF_JOBS:
        rng = np.random.default_rng(9)
        kinds: list[tuple[int, Any]] = [(5, F4), (6, F8)]
        drawn = [np.asarray(rng.standard_normal(n), kind) for n, kind in kinds]
        params, grads = (Packed(side, drawn) for _ in range(2))
        optimizer = make(params.arrays, backend=side.backend, nonfinite="skip", **own)
        for scale in (3.0, 0.7, 1e-3):
            grads.write([np.asarray(rng.standard_normal(n), kind) for n, kind in kinds])
            side.report(optimizer.step(grads.arrays, max_norm=0.7, scale=scale))
        side.leave(*params.read())
        side.state(optimizer)
    for make, own in OF_PROGRAMS:
        if "seed" not in own:
            _foreseen(side, make, own, {})
    _scaled(side)
    for count, turns in ((0, 2), (1, 84), (2, 84), (7, 84), (300, 42), (600, 42), (1100, 14)):
        for policy in ("skip", "propagate"):
            _judged(side, count, turns, policy)


def foreseen(side: Side) -> None:
    """Steps whose scalars come from a timetable, by rules of all kinds, and beyond its end."""
    options: dict[str, Any] = {} if side.backend == "numpy" else {"capturable": True}
    for make, own in [*OF_PROGRAMS, *OF_JOBS]:
        # Others than SGD have thousands of lines before they rest, which would take a while.
        most = lines_ahead.MOST if make is fs.SGD and "seed" not in own else 64
        with patch.object(lines_ahead, "MOST", most), patch.object(kept, "SMALL", 1):
            _foreseen(side, make, own, options)
    drawn = [np.asarray(np.random.default_rng(13).standard_normal(5), F4) for _ in range(2)]
    params, grads = (Packed(side, drawn) for _ in range(2))
    rates = 0.3, lambda t: 0.1 / t  # of which the first one rests at once
    groups = [{"params": [p], "lr": lr} for p, lr in zip(params.arrays, rates, strict=True)]
    for first in (0, 1):
        with patch.object(lines_ahead, "MOST", lines_ahead.BLOCK):
            optimizer = fs.SGD(groups[first:], backend=side.backend, **options)
            given = [[g] for g in grads.arrays[first:]]
            optimizer.step(given)
            _beyond(optimizer, given, side)
        side.leave(*params.read())
    nothing = side.place(np.zeros(0, F4))  # for which there are no jobs
    optimizer = fs.SGD([nothing], backend=side.backend, **options)
    for _ in range(3):
        side.report(optimizer.step([side.place(np.zeros(0, F4))], max_norm=1.0))


def _foreseen(side: Side, make: Any, own: dict[str, Any], options: dict[str, Any]) -> None:
    rng = np.random.default_rng(12)
    narrow = "state_dtype" in own
    kinds = [(3 + k, F8 if k % 3 == 1 and not narrow else F4) for k in range(11)]
    drawn = [np.asarray(rng.standard_normal(n), kind) for n, kind in kinds]
    params, grads = (Packed(side, drawn) for _ in range(2))
    groups = [{"params": [p], "lr": 0.3 / (k + 1)} for k, p in enumerate(params.arrays)]
    optimizer = make(groups, backend=side.backend, **own, **options)
    for turn in range(6):
        values = [np.asarray(rng.standard_normal(n), kind) for n, kind in kinds]
        if "nonfinite" in own and turn % 2:
            values[-1][0] = np.nan
        grads.write(values)
        request = (
            {"max_value": 0.4},
            {},
            {"max_norm": 0.7},
            {"scale": 3.0},
            {"max_norm": 0.2, "clip": "tensor"},
        )[turn % 5]
        side.report(optimizer.step([[g] for g in grads.arrays], **request))
        for k, group in enumerate(optimizer.param_groups):
            group["lr"] = 0.1 * (k + 1) / (turn + 2)
    side.leave(*params.read())
    side.state(optimizer)


def _scaled(side: Side) -> None:
    """Steps by a scale, and left out by a number, that lie beside the gradients."""
    rng = np.random.default_rng(14)
    p = side.place(np.asarray(rng.standard_normal(5), F4))
    optimizer = fs.SGD([p], lr=0.37, momentum=0.83, backend=side.backend)
    optimizer.step([side.place(np.ones(5, F4))])
    for turn in range(6):
        g = side.place(np.asarray(rng.standard_normal(5), F4))
        scale, found = np.array([3.7 + turn], F4), np.array([turn % 2], F4)
        if side.backend == "numpy":
            if not found:
                optimizer.step([g], scale=float(scale[0]))
            continue
        layout = optimizer.layout
        cells = [side.place(each) for each in (scale, found)]
        at = [each.__cuda_array_interface__["data"][0] for each in cells]
        lines = layout.lines()
        assert layout.take([g], False)
        assert lines is not None
        layout.judge(lines, Request(), "propagate", Scaler(*at))
    side.keep(p)
    side.state(optimizer)


def _beyond(optimizer: Any, grads: Any, side: Side) -> None:
    """Ask for more steps than are foreseen, which leave no trace but in their answers."""
    if side.backend == "numpy":
        for _ in range(lines_ahead.BLOCK - 1):
            optimizer.step(grads)
        return
    table = optimizer.layout.table
    with patch.object(table, "runs_out", lambda: False):
        for step in range(2, lines_ahead.BLOCK + 5):
            optimizer.step(grads)
            if step < lines_ahead.BLOCK - 4:
                continue
            judge = table.judge
            answer = judge.verdicts[judge.turn - 1].read()
            assert answer.beyond == answer.skipped == (step > lines_ahead.BLOCK)
            assert answer.taken == min(step, lines_ahead.BLOCK)


def many_scalars(h: Any, t: int) -> dict[str, float]:
    """More scalars than there are threads for one record, by all operations on a rate."""
    others = {f"c{k}": 1 / (k + t + 1.7) for k in range(33)}
    into, minus = 0.7 / (1 + h.lr * 0.3), (h.lr - 0.013) / 3.3
    return {**others, "into": into, "minus": minus, "beyond": 0.9 - h.lr}


@fs.rule(prepare=many_scalars, lr=0.1)
def Many(p, g, h):  # type: ignore[no-untyped-def]  # noqa: N802
    """A rule that reads all of them."""
    c = (
        h.c0
        + h.c1
        + h.c2
        + h.c3
        + h.c4
        + h.c5
        + h.c6
        + h.c7
        + h.c8
        + h.c9
        + h.c10
        + h.c11
        + h.c12
        + h.c13
        + h.c14
        + h.c15
        + h.c16
        + h.c17
        + h.c18
        + h.c19
        + h.c20
        + h.c21
        + h.c22
        + h.c23
        + h.c24
        + h.c25
        + h.c26
        + h.c27
        + h.c28
        + h.c29
        + h.c30
        + h.c31
        + h.c32
    )
    return (p - h.lr * c * g) * h.into - h.minus * g - h.beyond * 0.01 * g


OF_PROGRAMS: list[tuple[Any, dict[str, Any]]] = [
    (Many, {}),
    (Many, {"nonfinite": "skip", "weight_decay": 0.013}),
    (rules.RAdam, {"betas": (0.83, 0.957)}),
    (rules.Adan, {"weight_decay": 0.31}),
    (rules.Adan, {"weight_decay": 0.31, "no_prox": True}),
    (fs.SGD, {"momentum": 0.83, "state_dtype": "bfloat16", "rounding": "stochastic", "seed": 3}),
]
"""Optimizers whose scalars are made of the rate in all ways."""


def _judged(side: Side, count: int, turns: int, policy: str) -> None:
    rng = np.random.default_rng([8, count, len(policy)])
    kinds = [(3 + 7 * k % 4, F8 if k * 7 % 5 % 2 == 0 else F4) for k in range(count)]
    kinds = kinds or [(0, F4), (0, F8)]
    drawn = [np.asarray(rng.standard_normal(n), kind) for n, kind in kinds]
    params, grads = (Packed(side, drawn) for _ in range(2))
    rates: Any = {"lr": lambda t: 0.1 / t, "nonfinite": policy}
    optimizer = fs.SGD(params.arrays, backend=side.backend, momentum=0.7, **rates)
    report: Any = None
    for turn in range(turns):
        is_late = turn % 20 > 12
        side.late(is_late)
        event, round_ = turn % 7, turn // 7
        scale = float(rng.choice(SCALES[3 * (round_ % 2) :][:3]))
        values = _of_magnitudes(rng, kinds, float(rng.choice(MAGNITUDES)))
        request: dict[str, Any] = {"scale": scale}
        bound = BOUNDS[rng.integers(len(BOUNDS))]
        if count and event == 0 and policy == "propagate":  # in one turn of a thread or another
            at = 7 + 256 * (round_ // 2 % 3)
            values[at if at < count else 0][0] = np.nan
            bound = 1e-3
        elif count:
            bound = _make_difficult(rng, kinds, values, scale, event) or bound
        if bound is not None:
            request["max_norm"] = bound
            request["clip"] = "global" if round_ % 4 == 3 and event > 1 else "tensor"
        elif policy == "propagate":
            continue
        grads.write(values)
        if report is not None and turn % 20 < 6:
            _write_over(optimizer, side, turn % 2)
        report = optimizer.step(grads.arrays, **request)
        if is_late:  # so that there are steps before that nobody has waited for
            report = [report, *(optimizer.step(grads.arrays, **request) for _ in range(2))]
        if event == 0 or rng.random() < 0.7:  # others are read late, or never
            side.report(report)
        if request.get("clip") == "tensor" and policy == "propagate":
            side.leave(clips_of(optimizer, side))
    side.late(False)
    side.leave(*params.read())
    side.state(optimizer)


def _write_over(optimizer: Any, side: Side, word: int) -> None:
    """Have the answers to steps so far say something else, which the next ones write over."""
    table = None if side.backend == "numpy" else optimizer.layout.plan.table
    if table is None or table.judge is None:
        return
    assert table.steps[0] >= 0  # which waits for all that is pending
    for letter in table.judge.letters:
        letter[verdict.LEFT_OUT] = word


def _make_difficult(
    rng: np.random.Generator, kinds: Any, values: list[Array], scale: float, event: int
) -> float | None:
    """Have gradients of which some are not finite, or just about, or of magnitudes of their own.

    Returned is a bound for their norms, if that alone shows them.
    """
    count = len(values)
    chosen: list[int] = np.flatnonzero(rng.random(count) < rng.choice([0.1, 0.5, 1.0])).tolist()
    if event == 0:  # one alone, where half of the threads end
        at = (1 << int(rng.integers(count.bit_length()))) - 1
        values[at][0] = rng.choice([np.nan, np.inf, -np.inf])
    elif event == 1:
        for at in chosen:
            values[at][: rng.integers(1, 3)] = np.finfo(kinds[at][1]).max
    elif event == 2 and scale < 1:
        for at in chosen:
            values[at][:] = 0
            values[at][:3] = border(kinds[at][1], scale, int(rng.integers(100)))
    elif event < 4:
        for at in chosen:
            size = float(rng.choice(MAGNITUDES))
            values[at][:] = _of_magnitudes(rng, [kinds[at]], size)[0]
    else:  # squares that are added up in two ways, or norms that are subnormal
        middle = (-500, 480, -1070)[event - 4]
        for g, (n, kind) in zip(values, kinds, strict=True):
            exponents = middle + rng.integers(-3, 3, n)
            g[:] = np.ldexp(rng.uniform(1, 2, n), exponents) if kind == F8 else 0
        return (1e-152, 1e140, 1e-323)[event - 4]
    return {0: 1e-3, 1: 5e4}.get(event)


def _of_magnitudes(rng: np.random.Generator, kinds: Any, size: float) -> list[Array]:
    """Gradients of one magnitude, or some also of another: none is infinite."""
    other = size * 10.0 ** (rng.integers(-30, 20) if size < 1e280 else -20)
    made = []
    for n, kind in kinds:
        most = float(np.finfo(kind).max)
        g = rng.standard_normal(n) * (size if rng.random() < 0.7 else other)
        made.append(np.asarray(np.clip(g, -most, most), kind))
    return made


@cache
def borders(dtype: Any, scale: float) -> list[Array]:
    """Three numbers whose norm over the scale is as near as can be to the largest there is.

    One operation that is rounded another way makes it finite, or infinite.
    """
    limits, rng = np.finfo(dtype), np.random.default_rng(0)
    most, unscale = float(limits.max), float(dtype.type(1 / scale))
    down = 0.0 if dtype == F4 else norm.DOWN
    least = most / unscale * 2.0**down
    ratio = rng.uniform(0.1, 0.9, 4000)
    large = (least / np.sqrt(1 + ratio * ratio)).astype(dtype).astype(F8)
    large *= 1 + (0 if dtype == F4 else limits.eps * rng.integers(-3, 4, 4000))
    small = (large * ratio * (1 - limits.eps)).astype(dtype).astype(F8)
    rest = np.square(least) - np.square(large) - np.square(small)
    last = np.sqrt(np.maximum(rest, 0)).astype(dtype).astype(F8) * (dtype == F4)
    own = np.sqrt(np.square(large) + np.square(last) + np.square(small)) * 2.0**-down
    with np.errstate(over="ignore"):
        fits = [x * unscale <= most for x in (np.nextafter(own, 0), own, np.nextafter(own, np.inf))]
    chosen = np.flatnonzero(fits[0] != fits[2])[:24]
    return [np.array([large[k], small[k], last[k]], F8) * 2.0**-down for k in chosen]


def border(dtype: Any, scale: float, number: int) -> Array:
    """One of these."""
    pairs = borders(dtype, scale)
    return pairs[number % len(pairs)]


# ---- copies and slices ----


def with_gaps(side: Side) -> None:
    """Steps over arrays with gaps, of up to eight axes, which are copied both ways."""
    rng = np.random.default_rng(3)
    cuts: list[Callable[[Array], Array]] = [
        lambda x: x.reshape(-1)[1::2],
        lambda x: x.reshape(60, -1)[::2, ::3],
        lambda x: x.reshape(60, -1)[::-1, 1:],
        lambda x: x.reshape(6, 10, -1).transpose(2, 0, 1)[1:, ::2],
        lambda x: x.reshape(3, 4, 5, -1)[:, ::2, ::-1, ::2],
        lambda x: x.reshape(3, 4, 5, -1)[:, 1, 2, 5:6],
        lambda x: x.reshape(3, 2, 5, 2, -1)[..., ::2].swapaxes(0, 3),
        lambda x: x.reshape(3, 2, 5, 2, 3, -1)[..., ::2].swapaxes(1, 4),
        lambda x: x.reshape(3, 2, 5, 2, 3, 2, -1)[:, :, ::-2].swapaxes(2, 5),
        lambda x: x.reshape(3, 2, 5, 2, 3, 2, 5, -1)[:, :, ::-2, ..., 1::2].swapaxes(2, 5),
        lambda x: x.reshape(3, 2, 5, 2, 3, 2, 5, -1)[:, :, ::-2, :, ::2].swapaxes(2, 5),
    ]
    for cut in cuts:
        memory, of_g = (np.asarray(rng.standard_normal(3600), F4) for _ in range(2))
        p = side.place(cut(memory), 0, memory)
        optimizer = fs.SGD([p], lr=0.37, backend=side.backend)
        dense = np.asarray(rng.standard_normal(cut(memory).shape), F4)
        for g in (side.place(cut(of_g), 0, of_g), side.place(np.asfortranarray(dense))):
            optimizer.step([g], zero_grads=True)
            side.keep(g)
        side.keep(p)
    number = side.place(np.array(0.37, F4))
    optimizer = fs.SGD([number], lr=0.37, momentum=0.7, backend=side.backend)
    for _ in range(2):
        optimizer.step([side.place(np.array(0.83, F4))])
        optimizer.load_state_dict(optimizer.state_dict())
    side.keep(number)


def rows_of(rng: np.random.Generator, n: int, turn: int) -> Any:
    """Numbers of rows, of which some come once and some many times."""
    kinds = [
        np.arange(n),
        rng.integers(0, n, 3),
        rng.permutation(n)[: n // 2],
        rng.integers(0, n, 3 * n),
        np.concatenate([rng.integers(0, n, 5), np.repeat(rng.integers(0, n, 4), 11)]),
        np.arange(n // 3),
        np.sort(rng.integers(0, n, 5 * n)),
        np.repeat(rng.permutation(n)[:3], 9),
    ]
    return kinds[turn % len(kinds)]


def gathered(side: Side) -> None:
    """The sums of gradients of rows, which are added up in their order."""
    rng = np.random.default_rng(4)
    for width, n in ((1, 300), (3, 11), (64, 9), (257, 5)):
        p = side.place(np.zeros((n, width), F4))
        optimizer = fs.SGD([p], lr=0.37, nonfinite="raise", backend=side.backend)
        for turn in range(18):
            index = rows_of(rng, n, turn)
            values = np.asarray(rng.standard_normal((len(index), width)), F4)
            values *= F4.type((1, 1e-40, 1e20)[turn % 3])  # also of subnormal numbers alone
            values *= rng.random(values.shape) < 0.5
            side.report(optimizer.step([fs.Rows(index, side.place(values))], max_norm=1e3))
            side.sums(optimizer)
        whole = np.asarray(rng.standard_normal((n, width)), F4)
        side.report(optimizer.step([side.place(whole)], max_norm=1e3))
        side.sums(optimizer)
        side.keep(p)


@dataclass(frozen=True)
class Fading:
    """Rates of three columns, two of them the same."""

    size: float

    def __call__(self, t: int) -> Any:
        return self.size * np.array([0.13, 0.13, 0.71]) / t


def ways(size: float) -> list[dict[str, Any]]:
    """How rows are stepped, at rates of a size."""
    columns = size * np.array([0.13, 0.41, 0.71])
    return [
        {"row_steps": "own", "lr": 0.37 * size},
        {"row_steps": "shared", "lr": 0.37 * size},
        {"untouched": "exact", "lr": 0.37 * size},
        {"untouched": "exact", "lr": Fading(size)},
        {"row_steps": "own", "lr": columns},
        {"row_steps": "shared", "lr": Fading(size)},
    ]


BY_TURNS: Requests = [
    {"scale": 3.0},
    {"max_value": 0.7},
    {"max_norm": 1e3, "clip": "tensor"},
    {"max_norm": 1e4},
    {},
]

SMALL_DECAY = {"betas": (0.37, 0.61), "eps": 1e-42, "weight_decay": 0.0}

OF_ROWS: list[tuple[float, bool, dict[str, Any]]] = [
    (1.0, True, {"betas": (0.83, 0.957), "eps": 1e-20, "weight_decay": 0.31, "l1": 0.013}),
    (1.0, False, {"betas": (0.37, 0.61), "eps": 1e-3, "weight_decay": 0.31, "l1": 0.013}),
    (1.0, False, {"betas": (0.37, 0.61), "eps": 1e-3, "weight_decay": 0.31}),
    (1.0, False, {"betas": (0.37, 0.61), "eps": 1e-3, "weight_decay": 0.0, "l1": 0.013}),
    (1.0, True, SMALL_DECAY),
    (1.0, False, SMALL_DECAY),
    (1e-38, True, SMALL_DECAY),
    (1e-38, True, {**SMALL_DECAY, "weight_decay": 1e-3, "l1": 1e-40}),
]
"""Sizes of rates, whether gradients are finite, and options."""


def by_rows(side: Side) -> None:
    """Steps of rows: with t of their own or of all, that catch up, and with rates by column."""
    rng = np.random.default_rng(6)
    for size, finite, options in OF_ROWS:
        for at, way in enumerate(ways(size)):
            n, width = (12, 257) if at == 1 else (1000, 3)
            drawn = Drawn(30 + at, (n * width,), F4, ("m", "v"), finite)
            placed = side.place(drawn.p[0].reshape(n, width))
            policy = {"nonfinite": "raise"} if finite else {}
            given: dict[str, Any] = {**options, **way, **policy}
            optimizer = fs.Adam([placed], backend=side.backend, **given)
            for turn in range(12):
                index = rows_of(rng, n, turn)
                source = drawn.grads[turn % 3][0].reshape(n, width)
                values = source[index]
                if len({*index.tolist()}) < len(index):
                    values = np.clip(values, -1e30, 1e30)  # a sum of several is finite
                request = BY_TURNS[turn % 5] if finite else BY_TURNS[turn % 2]
                g: Any = fs.Rows(index, side.place(values))
                if turn == 6:
                    g = side.place(np.asarray(rng.standard_normal((n, width)), F4))
                side.report(optimizer.step([g], **request))
                if turn in (0, 3, 7):
                    state = optimizer.state_dict()
                    for letter in ("m", "v"):
                        state["state"][0][letter] = drawn.state[0][letter].reshape(n, width)
                    optimizer.load_state_dict(state)
            optimizer.catch_up()
            side.keep(placed)
            side.state(optimizer)
    _missing_many(side)


def _missing_many(side: Side) -> None:
    """Rows of usual numbers that miss several steps."""
    values = np.asarray(np.random.default_rng(0).standard_normal((40, 3)), F4)
    p = side.place(np.ones((40, 3), F4))
    optimizer = fs.Adam([p], backend=side.backend, untouched="exact", lr=0.1)
    optimizer.step([fs.Rows(np.arange(40), side.place(values))])
    for turn in range(9):
        optimizer.step([fs.Rows([turn], side.place(values[:1]))])
    optimizer.catch_up()
    side.keep(p)
    side.state(optimizer)


# ---- all of them ----


class Trial(NamedTuple):
    name: str
    module: Callable[[], ModuleType]
    act: Callable[[Side], None]
    beside: Callable[[], ModuleType] | None = None
    """A kernel that has lines in common with this one, which are tried there."""

    def left(self, backend: str, wanted: Sequence[Any] | None = None) -> list[Any]:
        """All that it leaves on a side; it ends where that is not as wanted."""
        side = Side(backend, wanted)
        self.act(side)
        if wanted is not None and len(side.left) < len(wanted):
            raise DiffersError
        return side.left


ADAMW = Rule("adamw", ("m", "v", None))
ADAM = Rule("adam", ("m", "v", None))
RMSPROP = Rule("rmsprop", ("v", "a", "b"), averaged=True)

OF_ADAMW = [
    {"lr": 0.0123, "betas": (0.83, 0.957), "eps": 1e-20, "weight_decay": 0.31},
    {"lr": 0.37, "betas": (0.37, 0.61), "eps": 1e-3, "weight_decay": 0.0},
    {"lr": 0.37, "betas": (0.37, 0.61), "eps": 1e-42, "weight_decay": 0.0},
]
OF_ADAM = [
    {**OF_ADAMW[0], "l1": 0.013, "maximize": True},
    {**OF_ADAMW[1], "l1": 0.013, "weight_decay": 0.31},
    {**OF_ADAMW[2], "l1": 1e-40, "weight_decay": 1e-3, "lr": 1e-38},
    {**OF_ADAMW[1], "l1": 0.013},
    {**OF_ADAMW[0], "l1": 0.0},
]
OF_SGD = [{"lr": 0.37}, {"lr": 1.7e-5}]
OF_MOMENTUM = [{"lr": 0.37, "momentum": 0.83, "dampening": 0.21}]
OF_RMSPROP = [
    {"lr": 0.037, "alpha": 0.83, "eps": 1e-20, "centered": True, "momentum": 0.7, "ema": 0.6},
]
OF_RMSPROP.append({**OF_RMSPROP[0], "eps": 1e-42, "lr_in_momentum": True})


def _of_rule(
    name: str, rule: Rule, dtype: Any, variant: Variant, make: Any, each: Sequence[dict[str, Any]]
) -> Trial:
    letters = [x for x in rule.letters if x]
    asked = JUDGED if variant.judged else PLAIN
    act = partial(steps, make, dtype, [*letters, *(["ema"] if rule.averaged else [])], asked, each)
    return Trial(name, partial(kernels.module, Job(rule, dtype), variant), act)


NEITHER, BY_RECORD = Variant(decays=False), Variant(decays=False, judged=True)

TRIALS = [
    _of_rule("adamw float32", ADAMW, F4, NEITHER, fs.AdamW, OF_ADAMW),
    _of_rule("adamw float32 judged", ADAMW, F4, BY_RECORD, fs.AdamW, OF_ADAMW),
    _of_rule("adam float32 decays", ADAM, F4, Variant(decays=True), fs.Adam, OF_ADAM),
    _of_rule("adamw float64", ADAMW, F8, NEITHER, fs.AdamW, OF_ADAMW),
    _of_rule("adamw float64 judged", ADAMW, F8, BY_RECORD, fs.AdamW, OF_ADAMW),
    _of_rule("sgd float32", Rule("sgd"), F4, NEITHER, fs.SGD, OF_SGD),
    _of_rule("momentum float32", Rule("momentum", ("b",)), F4, NEITHER, fs.SGD, OF_MOMENTUM),
    _of_rule("rmsprop float32", RMSPROP, F4, NEITHER, fs.RMSprop, OF_RMSPROP),
    *(
        Trial(
            f"formats {case.name}",
            partial(module_of, case),
            partial(narrow, case),
        )
        for case in (fewer_bytes.FEW[2], fewer_bytes.FEW[7])
    ),
    Trial("squares float32", lambda: squares.module(F4), partial(measured, F4)),
    Trial("squares float64", lambda: squares.module(F8), partial(measured, F8)),
    Trial("totals", totals.totals, folded),
    Trial("fold", totals.fold, folded),
    Trial("verdict", verdict.module, judged),
    Trial("foreseen", lambda: verdict.module(foreseen=True), foreseen, verdict.module),
    Trial("copies", lambda: copies.module(F4), with_gaps),
    Trial("gather", lambda: slices.gathering(F4), gathered),
    Trial("slices", lambda: slices.stepping(Job(ADAM, F4), None), by_rows),
]
