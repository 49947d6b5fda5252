"""Golden vectors: steps with all numbers that go in and come out, which no release may change.

    python tests/helpers/vectors.py              writes docs/reference/contract-1.json
    python tests/helpers/vectors.py --check      compares it with what the reference gives now

The page docs/reference/conformance.md says how the file is read. Numbers are hexadecimal, as
`float.hex` of Python has them, and C's `%a`.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, TypeAlias

import numpy as np
from cases import CASES, CUSTOM_CASES, CUSTOM_WHOLE_CASES, WHOLE_CASES, Case
from fewer_bytes import rounded

import fusedstep as fs
from fusedstep._arrays.dtypes import BFLOAT16
from fusedstep._backends.choose import why_missing
from fusedstep._numerics.powers import correction

Array: TypeAlias = np.ndarray[Any, Any]

CONTRACT = 1

FILE = Path(__file__).parent.parent.parent / "docs" / "reference" / "contract-1.json"

STEPS = 3

P = {
    "float32": ["0x1p+0", "-0x1.8p-1", "0x1.99999ap-4", "0x1p-140", "-0x0p+0", "0x1.86ap+16"],
    "float64": ["0x1p+0", "-0x1.8p-1", "0x1.999999999999ap-4", "0x1p-1060", "-0x0p+0", "0x1p+60"],
}
G = {
    "float32": [
        ["0x1p-2", "-0x1.3p+0", "0x1.111112p-3", "0x1p-149", "0x0p+0", "-0x1.4p-20"],
        ["-0x1p-3", "-0x1.1p-1", "0x1.5p+1", "-0x1p-130", "0x1.8p-10", "0x1.7d784p+23"],
        ["0x1.555556p-2", "0x0p+0", "-0x1.2p-7", "0x1.cp-12", "-0x1p+0", "0x1.000002p+0"],
    ],
    "float64": [
        ["0x1p-2", "-0x1.3p+0", "0x1.1111111111111p-3", "0x1p-1074", "0x0p+0", "-0x1.4p-20"],
        ["-0x1p-3", "-0x1.1p-1", "0x1.5p+1", "-0x1p-1000", "0x1.8p-10", "0x1.7d784p+23"],
        ["0x1.5555555555555p-2", "0x0p+0", "-0x1.2p-7", "0x1.cp-12", "-0x1p+0", "0x1.0p-30"],
    ],
}
"""Parameters and gradients: subnormal, signed zeros, very small and large ones among them."""

LONG = 4099
"""Elements of a tensor that state is kept of in fewer bytes: 17 blocks, the last of 3."""


def of(optimizer: Any, backend: str) -> str:
    """The backend for a class: C holds the package's own rules alone."""
    if optimizer.__name__ in fs.optimizers.__all__ or backend != "c":
        return backend
    return "numpy" if why_missing("numba") else "numba"


def numbers(texts: list[str], dtype: str) -> Array:
    return np.array([float.fromhex(text) for text in texts], dtype)


def hexes(array: Array) -> list[str]:
    """All elements; a NaN is "nan", whatever its sign."""
    return [*map(hexed, np.asarray(array, np.float64).reshape(-1).tolist())]


def hexed(x: float) -> str:
    """A number as C's `%a` has it: as `float.hex` does, without zeros at the end."""
    digits, power, exponent = x.hex().partition("p")
    if not power:
        return "nan" if x != x else digits
    return (digits.rstrip("0").rstrip(".") if "." in digits else digits) + power + exponent


def plain(value: Any) -> Any:
    """Options as JSON has them, their numbers hexadecimal."""
    if isinstance(value, Mapping):
        return {name: plain(each) for name, each in value.items()}
    if isinstance(value, (list, tuple)):
        return [plain(each) for each in value]
    return hexed(value) if type(value) is float else value


def drawn(k: int) -> Array:
    """The k-th long tensor, from -1 to 1: by whole numbers alone, in float32."""
    n = np.arange(LONG, dtype=np.uint64) + np.uint64(k * LONG)
    mixed = (n * np.uint64(2654435761) + np.uint64(12345)) & np.uint64(0xFFFFFFFF)
    mixed = ((mixed ^ (mixed >> np.uint64(15))) * np.uint64(2246822519)) & np.uint64(0xFFFFFFFF)
    made: Array = ((mixed >> np.uint64(8)).astype(np.float64) * 2.0**-23 - 1).astype(np.float32)
    return made


def shown(array: Array) -> Array:
    """An array of 16 bits, or of more, as float32."""
    if array.dtype == BFLOAT16:
        return (array.view(np.uint16).astype(np.uint32) << 16).view(np.float32)
    return array.astype(np.float32)


# ---- what is run ----


def elementwise(backend: str) -> Iterator[dict[str, Any]]:
    """Every rule with every option, over a few elements."""
    for case in [*CASES, *CUSTOM_CASES, *WHOLE_CASES, *CUSTOM_WHOLE_CASES]:
        for dtype in ("float32", "float64"):
            yield run(case, dtype, backend)


def run(case: Case, dtype: str, backend: str) -> dict[str, Any]:
    p = numbers(P[dtype], dtype)
    opt = case.optimizer([p], **case.options, backend=of(case.optimizer, backend))
    clips = []
    for g in G[dtype]:
        report = opt.step([numbers(g, dtype)], **case.request)
        clips.append(report.grad_norm)
    state = opt.state[0]
    made = {
        "name": case.name,
        "optimizer": case.optimizer.__name__,
        "options": plain(case.options),
        "request": plain({k: v for k, v in case.request.items() if k != "zero_grads"}),
        "dtype": dtype,
        "after": {"p": hexes(p), **{k: hexes(state[k]) for k in sorted(state) if k != "t"}},
    }
    if clips[0] is not None:
        made["norms"] = [hexed(norm) for norm in clips]
    return made


FORMATS: list[tuple[str, dict[str, Any]]] = [
    ("bfloat16", {"master": "split16"}),
    ("bfloat16", {"master": "split8"}),
    ("bfloat16", {"master": False}),
    ("bfloat16", {"master": "float32"}),
    ("float16", {"master": "float32"}),
    ("float32", {"state_dtype": "bfloat16"}),
    ("float32", {"state_dtype": "bfloat16", "rounding": "nearest"}),
    ("float32", {"state_dtype": "8bit"}),
    ("float32", {"state_dtype": "8bit", "rounding": "stochastic", "seed": 7}),
    ("bfloat16", {"master": False, "state_dtype": {"m": "8bit", "v": "bfloat16"}, "seed": 9}),
]


def stored(backend: str) -> Iterator[dict[str, Any]]:
    """Parameters and state in fewer bytes: AdamW over two long tensors, by its digests."""
    for dtype, options in FORMATS:
        params = [rounded(drawn(k), dtype) for k in range(2)]
        opt = fs.AdamW(params, lr=0.01, **options, backend=backend)
        digests = []
        for step in range(STEPS):
            opt.step([drawn(2 * step + k + 2) for k in range(2)])
            digests.append(opt.digest())
        yield {
            "dtype": dtype,
            "options": options,
            "digests": digests,
            "first elements": hexes(shown(params[0][:4])),
        }


ROWS: list[tuple[Any, dict[str, Any]]] = [
    (fs.SGD, {"momentum": 0.9}),
    (fs.SGD, {"momentum": 0.9, "nesterov": True, "dampening": 0.0}),
    (fs.Adagrad, {}),
    (fs.RMSprop, {"momentum": 0.5, "centered": True}),
    (fs.Adam, {}),
    (fs.Adam, {"amsgrad": True, "eps_inside_sqrt": True}),
    (fs.AdamW, {"weight_decay": 0.1}),
    (fs.rules.NAdam, {}),
]

UNTOUCHED = [
    {"untouched": "frozen", "row_steps": "own"},
    {"untouched": "frozen", "row_steps": "shared"},
    {"untouched": "exact"},
]

TOUCHED = [[2, 0], [1, 1], [2, 3, 2], [0]]


def by_rows(backend: str) -> Iterator[dict[str, Any]]:
    """Gradients of some rows, and rates by column."""
    for optimizer, options in ROWS:
        for untouched in UNTOUCHED:
            for dtype in ("float32", "float64"):
                rate: Any = [0.5, 0.125]
                for lr in (0.1, rate):
                    p = np.arange(8, dtype=dtype).reshape(4, 2) / 4 - 1
                    own = {**options, **untouched}
                    opt = optimizer(
                        p,
                        lr=np.array(lr) if lr is rate else lr,
                        **own,
                        backend=of(optimizer, backend),
                    )
                    for k, rows in enumerate(TOUCHED):
                        values = np.arange(2 * len(rows), dtype=dtype).reshape(-1, 2) / 8 + k - 1
                        opt.step(fs.Rows(rows, values))
                    state = opt.state
                    letters = sorted(each for each in state if each not in ("t", "row_t"))
                    yield {
                        "optimizer": optimizer.__name__,
                        "options": plain({**own, "lr": lr}),
                        "dtype": dtype,
                        "after": {"p": hexes(p), **{k: hexes(state[k]) for k in letters}},
                    }


def norms(backend: str) -> Iterator[dict[str, Any]]:
    """Norms of lists, and of arenas, which are summed as one tensor each group."""
    for dtype in ("float32", "float64"):
        grads = [drawn(k)[: 333 + k].astype(dtype) / 3 for k in range(40)]
        in_list = fs.SGD([np.zeros_like(g) for g in grads], backend=backend)
        found = in_list.step(grads, max_norm=1.0).grad_norm
        arena: Any = fs.Arena([np.zeros_like(g) for g in grads])
        for own, g in zip(arena.grads, grads, strict=True):
            own[...] = g
        of_arena = fs.SGD(arena, backend=backend).step(max_norm=1.0).grad_norm
        assert found is not None
        assert of_arena is not None
        yield {"dtype": dtype, "list": hexed(found), "arena": hexed(of_arena)}


SCHEDULES = [
    fs.schedules.cosine(0.1, steps=97, end=0.001),
    fs.schedules.exponential(0.1, rate=0.013),
    fs.schedules.one_cycle(0.1, steps=90),
    fs.schedules.polynomial(0.1, steps=80, power=0.9, end=0.01),
    fs.schedules.restarts(0.1, steps=7, factor=1.3, end=0.01),
    fs.schedules.step(0.1, every=3, factor=0.7),
    fs.schedules.warmup(0.1, steps=33, start=0.01),
]

TIMES = [1, 2, 3, 10, 31, 64, 90, 100, 1000]

BETAS = [0.9, 0.99, 0.999, 0.9999, 0.5, 1 - 2.0**-53]


def scalars() -> dict[str, Any]:
    """Rates of schedules, and corrections for bias."""
    ts = [1, 2, 10, 355, 10_000, 37_000, 2**31, 2**53]
    return {
        "schedules": [
            {**plain(rate.to_dict()), "t": TIMES, "rates": [hexed(rate(t)) for t in TIMES]}
            for rate in SCHEDULES
        ],
        "1 - beta^t": [
            {"beta": hexed(beta), "t": ts, "values": [hexed(correction(beta, t)) for t in ts]}
            for beta in BETAS
        ],
    }


def vectors(backend: str = "numpy") -> dict[str, Any]:
    """All of them, as a backend computes them."""
    with np.errstate(all="ignore"):
        return {
            "contract": CONTRACT,
            "p": P,
            "g": G,
            "cases": [*elementwise(backend)],
            "formats": [*stored(backend)],
            "rows": [*by_rows(backend)],
            "norms": [*norms(backend)],
            **scalars(),
        }


def text_of(made: Mapping[str, Any]) -> str:
    """JSON with a line for each case."""
    parts = []
    for name, value in made.items():
        if isinstance(value, list):
            lines = ",\n".join(json.dumps(each, sort_keys=True) for each in value)
            parts.append(f"{json.dumps(name)}: [\n{lines}\n]")
        else:
            parts.append(f"{json.dumps(name)}: {json.dumps(value, sort_keys=True)}")
    return "{\n" + ",\n".join(parts) + "\n}\n"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--check", action="store_true")
    parser.add_argument("--backend", default="numpy")
    arguments = parser.parse_args()
    text = text_of(vectors(arguments.backend))
    if arguments.check:
        same = FILE.read_text("utf-8") == text
        print(f"{FILE.name} on {arguments.backend}: {'every bit' if same else 'other bits'}")
        sys.exit(not same)
    FILE.write_text(text, "utf-8")


if __name__ == "__main__":
    main()
