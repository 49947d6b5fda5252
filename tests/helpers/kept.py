"""Optimizers whose parameters, gradients and state are kept in fewer bytes, for several tests."""

from __future__ import annotations

from itertools import product
from typing import Any

import numpy as np
import pytest

import fusedstep as fs

Array = np.ndarray[Any, Any]

ml_dtypes = pytest.importorskip("ml_dtypes", reason="needs `pip install '.[bfloat16]'`")

BFLOAT16: Any = ml_dtypes.bfloat16

MASTERS: dict[Any, tuple[Any, ...]] = {
    np.float32: (None,),
    np.float16: ("float32",),
    BFLOAT16: ("split16", "split8", "float32", False),
}
"""The masters that there are of parameters of a dtype."""

RULES: tuple[tuple[Any, dict[str, Any]], ...] = (
    (fs.SGD, {}),
    (fs.SGD, {"momentum": 0.9, "nesterov": True}),
    (fs.Adagrad, {"initial_accumulator_value": 0.1}),
    (fs.RMSprop, {"momentum": 0.9}),
    (fs.Adam, {"weight_decay": 0.1, "l1": 0.01}),
    (fs.AdamW, {"amsgrad": True, "ema": 0.9}),
)

KEPT = [
    {"master": master, "state_dtype": state, "rounding": rounding}
    for dtype in MASTERS
    for master, state, rounding in product(
        MASTERS[dtype],
        ("float32", "bfloat16", "8bit", {"v": "8bit", "b": "bfloat16"}),
        ("auto", "nearest", "stochastic"),
    )
]


def fits(optimizer: Any, kept: dict[str, Any]) -> bool:
    """Whether an optimizer can be kept so."""
    state = kept["state_dtype"]
    if isinstance(state, dict):
        return False
    if optimizer is fs.Adagrad and state != "float32":
        return bool(state == "bfloat16" and kept["rounding"] != "nearest")
    return True


def cases(rules: Any = RULES) -> list[tuple[Any, dict[str, Any], Any, Any]]:
    """Optimizers, their options, the dtypes of parameters and of gradients: all that fit."""
    made = []
    for (optimizer, options), dtype, of_gradients in product(rules, MASTERS, MASTERS):
        for master, state, rounding in product(
            MASTERS[dtype], ("float32", "bfloat16", "8bit"), ("auto", "nearest", "stochastic")
        ):
            kept = {"master": master, "state_dtype": state, "rounding": rounding, "seed": 3}
            if fits(optimizer, kept):
                made.append((optimizer, {**options, **kept}, dtype, of_gradients))
    return made


def array(rng: np.random.Generator, shape: Any, dtype: Any, scale: float = 1.0) -> Array:
    """Numbers of a normal distribution in a dtype."""
    with np.errstate(all="ignore"):
        made: Array = (rng.normal(size=shape) * scale).astype(np.float32).astype(dtype)
    return made


def plain(a: Array) -> Array:
    """The bits of an array, each NaN as one and the same."""
    bits = np.ascontiguousarray(a).view(f"u{a.itemsize}").copy()
    if a.dtype.kind == "f" or a.dtype == BFLOAT16:
        bits[np.isnan(a.astype(np.float64))] = 1
    return bits


def told(opt: Any, params: list[Array]) -> list[Array]:
    """All that there is after a step, as bits: parameters, exact values, and state as saved."""
    states, values = opt.state_dict()["state"], opt.float32_params()
    if isinstance(states, dict):
        states, values = [states], [values]
    saved = [np.asarray(each) for state in states for each in state.values()]
    return [plain(each) for each in (*params, *values, *saved)]


def equal(one: list[Array], other: list[Array]) -> bool:
    return len(one) == len(other) and all(map(np.array_equal, one, other))
