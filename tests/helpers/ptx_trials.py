"""Steps that show whether a kernel is as it should be: one trial for each kernel.

A trial is a function that takes some steps on a side, the device or the NumPy reference, and what
both leave is compared. The numbers are such that a slip shows: of all magnitudes, so that sums are
rounded and products are subnormal, with tensors that end around a vector, a tile or a block, and
scalars that are neither 0, 1 nor a power of two. An array on the device has memory of its exact
size, so that whoever goes beyond is found by the driver in memory.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from functools import partial
from types import ModuleType
from typing import Any, NamedTuple

import fewer_bytes
import numpy as np
from cases import differing_bits
from device import Plain

import fusedstep as fs
from fusedstep._arrays.dtypes import BFLOAT16
from fusedstep._backends.cuda import copies, formats, kernels, slices, squares, totals, verdict
from fusedstep._backends.cuda.kernels import Variant
from fusedstep._backends.plan import Job
from fusedstep._core import kept, parameters
from fusedstep._numerics.coefficients import Rule

Array = np.ndarray[Any, Any]

F4, F8 = np.dtype(np.float32), np.dtype(np.float64)


class Side:
    """The reference, or the device; and what a trial has left there."""

    def __init__(self, backend: str) -> None:
        self.backend = backend
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

    def keep(self, *arrays: Any) -> None:
        """Compare all the memory of these arrays as it is now, with what lies before it."""
        for array in arrays:
            if self.backend == "numpy":
                base = array if array.base is None else array.base
                self.left.append(base.copy(order="A").reshape(-1, order="A"))
                continue
            _, memory, skip = next(each for each in self.placed if each[0] is array)
            content = array.owner.copy_to_host() if memory.size else np.zeros(skip, np.uint8)
            assert (content[:skip] == 0xA5).all(), "written before an array"
            self.left.append(content[skip:].view(memory.dtype))

    def report(self, report: Any) -> None:
        self.left.append(repr(report))

    def state(self, optimizer: Any) -> None:
        for entry in optimizer.state_dict()["state"]:
            for value in entry.values():
                self.left.append(value if isinstance(value, np.ndarray) else repr(value))

    def sums(self, optimizer: Any) -> None:
        """Compare the sums of squares of the gradients' blocks, which were measured last."""
        self.left.append(np.array(optimizer.layout.plan.table.sums))


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
    exponents = np.where(
        (kind > 0.7) & (kind < 0.85), rng.integers(least, least + 40, n), exponents
    )
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
                later.append(np.where(rng.random(n) < 0.5, g, rng.permutation(g)))
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
    F4: (1, 3, 4, 255, 257, 769, 1023, 1024, 1025, 2047, 2048, 2049, 3073),
    F8: (1, 2, 3, 255, 257, 511, 512, 513, 1023, 1024, 1025),
}
"""Sizes around a vector, a block of threads, and tiles of one and of two vectors."""


class Asks(NamedTuple):
    """Options and requests of some steps, for whose numbers it matters whether they are finite."""

    options: dict[str, Any]
    requests: Sequence[dict[str, Any]]
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
        ],
        finite=True,
    ),
]
"""What asks for kernels with scalars by value."""

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
]
"""What asks for kernels with scalars from a record."""


def steps(
    make: Any,
    dtype: Any,
    letters: Sequence[str],
    asked: Sequence[Asks],
    each: Sequence[dict[str, Any]],
    side: Side,
) -> None:
    """Steps of tensors of many sizes and offsets, by each of some options."""
    for k, (asks, more) in enumerate((asks, more) for more in each for asks in asked):
        sizes = OF_TILES[dtype]
        drawn = Drawn(k, sizes, dtype, letters, asks.finite)
        offsets = [OFFSETS[(at + k) % len(OFFSETS)] for at in range(len(sizes))]
        params = [side.place(p, of_p) for p, (of_p, _) in zip(drawn.p, offsets, strict=True)]
        optimizer = make(params, backend=side.backend, **asks.options, **more)
        optimizer.step([side.place(np.zeros_like(p)) for p in drawn.p])
        load(optimizer, drawn)
        for step, request in enumerate(asks.requests):
            values = [g.copy() for g in drawn.grads[step]]
            if step == asks.spoiled:
                values[3][5] = np.inf
            grads = [side.place(g, of_g) for g, (_, of_g) in zip(values, offsets, strict=True)]
            side.report(optimizer.step(grads, **request))
            side.keep(*grads)
        side.keep(*params)
        side.state(optimizer)


# ---- formats ----


def narrow(case: fewer_bytes.Case, side: Side) -> None:
    """Steps of tensors in fewer bytes, of sizes around a block of 256 elements."""
    sizes = (1, 63, 255, 256, 257, 511, 1024, 1300)
    before = kept.SMALL
    kept.SMALL = parameters.SMALL = 1
    try:
        for seed in range(2):
            drawn = Drawn(20 + seed, sizes, F4, (), finite=True)
            with np.errstate(all="ignore"):
                values = [np.clip(p, -1e30, 1e30) for p in drawn.p]
                params = [side.place(fewer_bytes.rounded(p, case.p)) for p in values]
            copies = [
                side.place(np.zeros(n, fewer_bytes.DTYPES[case.out or case.p])) for n in sizes
            ]
            optimizer = case.optimizer(params, side.backend, copies)
            requests = ({"scale": 3.0}, {"zero_grads": True}, {"max_value": 0.7}, {})
            for step, request in enumerate(requests):
                given = [g.copy() for g in drawn.grads[step % 3]]
                if step == 3:
                    for g in given:
                        g[::37] = np.nan
                        g[1::41] = np.inf
                with np.errstate(all="ignore"):
                    grads = [side.place(fewer_bytes.rounded(g, case.g)) for g in given]
                optimizer.step(grads, **request)
                side.keep(*grads)
            side.keep(*params, *copies)
            side.state(optimizer)
            side.left.extend(optimizer.float32_params())
    finally:
        kept.SMALL = parameters.SMALL = before


# ---- norms ----


def measured(dtype: Any, side: Side) -> None:
    """The sums of blocks: each of a few elements, so that no bit of them is lost in the others."""
    rng = np.random.default_rng(5)
    sizes = (1, 31, 32, 33, 511, 512, 513, 600, 1000, 4095, 4096, 4097, 8200)
    for k in range(6):
        values = []
        for n in sizes:
            g = np.concatenate([*joint(rng, -(-n // 3), dtype, finite=True)][:3])[:n]
            if k % 2 and dtype == F8:  # around the borders of what is scaled
                edge = rng.choice([-500, 480], n)
                g = np.ldexp(rng.uniform(0.5, 2, n), edge + rng.integers(-1, 2, n))
                g[rng.random(n) < 0.2] = 2.0**-500
                g[rng.random(n) < 0.2] = 2.0**480
            if k % 3:
                g[rng.random(n) < 0.7] = 0
            if k == 5:
                g = np.asarray(rng.standard_normal(n), dtype)
            values.append(g)
        params = [side.place(np.zeros_like(g)) for g in values]
        optimizer = fs.SGD(params, nonfinite="raise", backend=side.backend)
        grads = [side.place(g, at % 3) for at, g in enumerate(values)]
        side.report(optimizer.step(grads, max_norm=1.0))
        side.sums(optimizer)


def folded(side: Side) -> None:
    """Norms of gradients of so many blocks that their sums are folded in several ways."""
    before = totals.MANY
    totals.MANY = 4
    try:
        for count in (1, 2, 3, 4, 5, 6, 7, 9, 17, 90):
            rng = np.random.default_rng(count)
            n = 4096 * (count - 1) + 1
            g = np.zeros(n, F8)
            chosen = rng.random(count) < 0.8
            g[::4096] = rng.standard_normal(count) * chosen * 2.0 ** rng.integers(-4, 4, count)
            g[::4096] *= 2.0 ** (rng.choice([0, -550, 500], count) if count % 2 else 0)
            small = np.asarray(rng.standard_normal(3), F8)
            params = [side.place(np.ones_like(x)) for x in (g, small)]
            optimizer = fs.SGD(params, lr=0.37, nonfinite="skip", backend=side.backend)
            placed = [side.place(x) for x in (g, small)]
            for request in ({"max_norm": 0.7}, {"max_norm": 0.7, "clip": "tensor"}):
                side.report(optimizer.step(placed, **request))
                side.keep(*params)
    finally:
        totals.MANY = before


def judged(side: Side) -> None:
    """Verdicts on steps with norms of all magnitudes, with and without what is not finite."""
    most = np.finfo(F4).max
    magnitudes = [1e-320, 1e-160, 3e-39, 1e-20, 0.3, 1.0, 7e3, 3e38, 1e160, 1e300]
    rng = np.random.default_rng(8)
    for count in (1, 2, 7, 300):
        for policy in ("skip", "propagate"):
            dtypes = [F8 if k % 2 or count == 1 else F4 for k in range(count)]
            sizes = [1 + (7 * k) % 5 for k in range(count)]
            values = [np.asarray(rng.standard_normal(n), x) for n, x in zip(sizes, dtypes, strict=True)]
            params = [side.place(p) for p in values]
            optimizer = fs.AdamW(
                params, lr=lambda t: 0.1 / t, nonfinite=policy, backend=side.backend
            )
            for turn in range(24 if count < 300 else 6):
                size = magnitudes[turn % len(magnitudes)]
                grads = []
                for at, (n, kind) in enumerate(zip(sizes, dtypes, strict=True)):
                    g = rng.standard_normal(n) * size
                    if turn % 7 == 3 and kind == F8 and at % 4 == 1:
                        g *= 1e-150 / size
                    with np.errstate(over="ignore"):
                        bounded = np.clip(g, -float(most), float(most)) if kind == F4 else g
                        grads.append(np.asarray(bounded, kind))
                spoiled = turn % 5 == 2
                if spoiled:
                    grads[rng.integers(count)][0] = rng.choice([np.nan, np.inf, -np.inf])
                if turn % 5 == 4:
                    grads[-1][-1] = grads[-1].dtype.type(np.finfo(grads[-1].dtype).max)
                request = {
                    "scale": (1.0, 3.0, 0.3, 1e-3)[turn % 4],
                    "max_norm": (0.7, None, 1e-3, 5e4, np.inf, 0.0)[turn % 6],
                }
                if request["max_norm"] is not None and turn % 3 == 1:
                    request["clip"] = "tensor"
                placed = [side.place(g) for g in grads]
                if policy == "propagate" and request["max_norm"] is None:
                    continue
                report = optimizer.step(placed, **request)
                if turn % 4 != 1:  # some are read late
                    side.report(report)
            side.keep(*params)
            side.state(optimizer)


# ---- copies and slices ----


def with_gaps(side: Side) -> None:
    """Steps over arrays with gaps, of up to four axes, which are copied both ways."""
    rng = np.random.default_rng(3)
    cuts: list[Callable[[Array], Array]] = [
        lambda x: x.reshape(-1)[1::2],
        lambda x: x.reshape(60, -1)[::2, ::3],
        lambda x: x.reshape(60, -1)[::-1, 1:],
        lambda x: x.reshape(6, 10, -1).transpose(2, 0, 1)[1:, ::2],
        lambda x: x.reshape(3, 4, 5, -1)[:, ::2, ::-1, ::2],
        lambda x: x.reshape(3, 4, 5, -1)[:, 1, 2, 5:6],
    ]
    for cut in cuts:
        memory, of_g = (np.asarray(rng.standard_normal(1800), F4) for _ in range(2))
        p = side.place(cut(memory), 0, memory)
        optimizer = fs.SGD([p], lr=0.37, backend=side.backend)
        dense = np.asarray(rng.standard_normal(cut(memory).shape), F4)
        for g in (side.place(cut(of_g), 0, of_g), side.place(np.asfortranarray(dense))):
            optimizer.step([g], zero_grads=True)
            side.keep(g)
        side.keep(p)


def rows_of(rng: np.random.Generator, n: int, width: int, dtype: Any, turn: int) -> Any:
    """Numbers of rows, some of them twice, and their gradients."""
    count = (n, 3, 1, 2 * n, 5)[turn % 5]
    index = rng.integers(0, n, count) if turn % 5 else np.arange(n)
    values = np.concatenate([*joint(rng, -(-count * width // 2), dtype, True)][:2])
    values = np.clip(values, -1e37, 1e37)  # their sums are finite
    return index, values[: count * width].reshape(count, width)


def gathered(side: Side) -> None:
    """The sums of gradients of rows, which are added up in their order."""
    rng = np.random.default_rng(4)
    for width, n in ((1, 300), (3, 11), (64, 9), (257, 5)):
        p = side.place(np.zeros((n, width), F4))
        optimizer = fs.SGD([p], lr=0.37, nonfinite="raise", backend=side.backend)
        for turn in range(10):
            index, values = rows_of(rng, n, width, F4, turn)
            side.report(optimizer.step([fs.Rows(index, side.place(values))], max_norm=1e3))
            side.sums(optimizer)
        side.keep(p)


def by_rows(side: Side) -> None:
    """Steps of rows: with t of their own or of all, that catch up, and with rates by column."""
    rng = np.random.default_rng(6)
    ways: list[dict[str, Any]] = [
        {"row_steps": "own"},
        {"row_steps": "shared"},
        {"untouched": "exact"},
        {"untouched": "exact", "lr": lambda t: np.array([0.13, 0.13, 0.71]) / t},
        {"row_steps": "own", "lr": np.array([0.13, 0.41, 0.71])},
        {"row_steps": "shared", "lr": lambda t: np.array([0.13, 0.41, 0.71]) / t},
    ]
    for at, way in enumerate(ways):
        width, n = (3, 90) if "lr" in way else ((3, 90), (257, 4))[at % 2]
        p, _, m, *_, v = joint(rng, n * width, F4, True)
        placed = side.place(p.reshape(n, width))
        options = {"betas": (0.83, 0.957), "eps": 1e-20, "weight_decay": 0.31, **way}
        optimizer = fs.AdamW([placed], l1=0.013, backend=side.backend, **options)
        for turn in range(9):
            index, values = rows_of(rng, n, width, F4, turn)
            request = ({"scale": 3.0}, {"max_value": 0.7}, {"max_norm": 1e3}, {})[turn % 4]
            g = fs.Rows(index, side.place(values))
            if turn == 6:
                g = side.place(np.asarray(rng.standard_normal((n, width)), F4))
            side.report(optimizer.step([g], **request))
            if turn == 0:
                state = optimizer.state_dict()
                state["state"][0]["m"] = m.reshape(n, width)
                state["state"][0]["v"] = v.reshape(n, width)
                optimizer.load_state_dict(state)
        optimizer.catch_up()
        side.keep(placed)
        side.state(optimizer)


# ---- all of them ----


class Trial(NamedTuple):
    name: str
    module: Callable[[], ModuleType]
    act: Callable[[Side], None]

    def left(self, backend: str) -> list[Any]:
        """What it leaves on a side."""
        side = Side(backend)
        self.act(side)
        return side.left


ADAMW = Rule("adamw", ("m", "v", None))
RMSPROP = Rule("rmsprop", ("v", "a", "b"), averaged=True)

OF_ADAMW = [
    {"lr": 0.0123, "betas": (0.83, 0.957), "eps": 1e-20, "weight_decay": 0.31},
    {"lr": 0.37, "betas": (0.37, 0.61), "eps": 1e-3, "weight_decay": 0.0},
]
OF_SGD = [{"lr": 0.37}, {"lr": 1.7e-5}]
OF_MOMENTUM = [{"lr": 0.37, "momentum": 0.83, "dampening": 0.21}]
OF_RMSPROP = [
    {"lr": 0.037, "alpha": 0.83, "eps": 1e-20, "centered": True, "momentum": 0.7, "ema": 0.6}
]
DECAYS = {"l1": 0.013, "maximize": True}


def _of_rule(
    name: str, rule: Rule, dtype: Any, variant: Variant, make: Any, each: Sequence[dict[str, Any]]
) -> Trial:
    letters = [x for x in rule.letters if x]
    asked = JUDGED if variant.judged else PLAIN
    given = [{**more, **(DECAYS if variant.decays else {})} for more in each]
    act = partial(steps, make, dtype, [*letters, *(["ema"] if rule.averaged else [])], asked, given)
    return Trial(name, partial(kernels.module, Job(rule, dtype), variant), act)


NEITHER, BY_RECORD = Variant(decays=False), Variant(decays=False, judged=True)

TRIALS = [
    _of_rule("adamw float32", ADAMW, F4, NEITHER, fs.AdamW, OF_ADAMW),
    _of_rule("adamw float32 judged", ADAMW, F4, BY_RECORD, fs.AdamW, OF_ADAMW),
    _of_rule("adamw float32 decays", ADAMW, F4, Variant(decays=True), fs.AdamW, OF_ADAMW),
    _of_rule("adamw float64", ADAMW, F8, NEITHER, fs.AdamW, OF_ADAMW),
    _of_rule("adamw float64 judged", ADAMW, F8, BY_RECORD, fs.AdamW, OF_ADAMW),
    _of_rule("sgd float32", Rule("sgd"), F4, NEITHER, fs.SGD, OF_SGD),
    _of_rule("momentum float32", Rule("momentum", ("b",)), F4, NEITHER, fs.SGD, OF_MOMENTUM),
    _of_rule("rmsprop float32", RMSPROP, F4, NEITHER, fs.RMSprop, OF_RMSPROP),
    *(
        Trial(
            f"formats {case.name}",
            lambda case=case: formats.module(fewer_bytes.job_of(case)),
            partial(narrow, case),
        )
        for case in (fewer_bytes.FEW[2], fewer_bytes.FEW[7])
    ),
    Trial("squares float32", lambda: squares.module(F4), partial(measured, F4)),
    Trial("squares float64", lambda: squares.module(F8), partial(measured, F8)),
    Trial("totals", totals.totals, folded),
    Trial("fold", totals.fold, folded),
    Trial("verdict", verdict.module, judged),
    Trial("copies", lambda: copies.module(F4), with_gaps),
    Trial("gather", lambda: slices.gathering(F4), gathered),
    Trial("slices", lambda: slices.stepping(Job(ADAMW, F4), None), by_rows),
]
