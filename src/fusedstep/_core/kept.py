"""How parameters and state are kept: a group's choices, as formats of one tensor's operands."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import lru_cache
from typing import Any

import numpy as np

from fusedstep._arrays.dtypes import BFLOAT16, FLOAT16, FLOAT32, HALVES, dtype_name
from fusedstep._backends.plan import Held, Storages
from fusedstep._checks.wording import quoted
from fusedstep._numerics.coefficients import Hyperparameters
from fusedstep._numerics.storage import STORAGES, Draw

SMALL = 4096
"""Elements below which state is float32 whatever is asked for: it would save next to nothing."""

STORAGE = ("master", "state_dtype", "rounding", "seed", "untouched", "row_steps")
"""The hyperparameters that say how things are kept."""

FIXED = ("master", "state_dtype", "untouched", "row_steps")
"""The ones that are decided when the optimizer is made: memory is laid out by them."""

MASTERS = {
    (BFLOAT16, None): "split16",
    (BFLOAT16, False): "bfloat16",
    (BFLOAT16, "split16"): "split16",
    (BFLOAT16, "split8"): "split8",
    (BFLOAT16, "float32"): "master_bfloat16",
    (FLOAT16, None): "master_float16",
    (FLOAT16, "float32"): "master_float16",
}
"""The formats of 16-bit parameters, by their dtype and the choice of `master`."""

WITHOUT_CHOICE = (None, "float32")
"""Choices of `master` that say nothing of parameters which are float32 or float64 themselves."""


def format_of_parameter(
    dtype: np.dtype[Any], hyper: Hyperparameters, copy: np.dtype[Any] | None, name: str
) -> str | None:
    """The format of a parameter of this dtype; None if it is stepped as it is.

    `copy` is the dtype of the array that it is written into as well.
    """
    if dtype not in HALVES:
        return None if copy is None else f"copied_{HALVES[copy]}"
    master = hyper.get("master")
    found = MASTERS.get((dtype, master))
    if found is None:
        raise ValueError(refusal_of_master(dtype, master, name))
    return found


def refusal_of_master(dtype: np.dtype[Any], master: Any, name: str) -> str:
    """The error for a float16 parameter that cannot be kept so."""
    kept = (
        "small updates are lost in it, and all below 6e-8"
        if master is False
        else "a tail of bits continues bfloat16 alone"
    )
    return (
        f"master={master!r} and {name} is {dtype_name(dtype)}: {kept}; pass "
        "`master='float32'`, or parameters of bfloat16"
    )


def format_of_state(
    letter: str,
    hyper: Hyperparameters,
    nonnegative: Sequence[str],
    dtype: np.dtype[Any],
    size: int,
) -> str | None:
    """The format of a state array of a tensor that is stepped in this dtype; None: it has none."""
    asked = dtype_of_state(letter, hyper)
    if asked == "float32" or dtype != FLOAT32 or size < SMALL:
        return None
    if asked == "bfloat16":
        return "bfloat16"
    return "unsigned8" if letter in nonnegative else "signed8"


def dtype_of_state(letter: str, hyper: Hyperparameters) -> str:
    """The choice of a group for a state array."""
    asked = hyper.get("state_dtype", "float32")
    if letter == "ema":
        return "float32"
    return str(asked.get(letter, "float32") if isinstance(asked, Mapping) else asked)


@lru_cache(maxsize=1024)
def storages(
    p: str | None,
    g: str | None,
    letters: Sequence[str | None],
    states: Sequence[str | None],
    nonnegative: Sequence[str],
    rounding: str,
) -> Storages | None:
    """How a job's rows hold their operands, in these formats; None if there are none.

    The parameter and signed state take near bits, what is never negative takes far ones, and no two
    of them the same: what becomes of p must not hang together with what becomes of v.
    """
    if p is None and g is None and not any(states):
        return None
    taken = {False: 0, True: 0}

    def held(name: str | None, far: bool, by_chance: bool) -> Held | None:
        if name is None:
            return None
        chosen = by_chance if rounding == "auto" else rounding == "stochastic"
        if not chosen or not STORAGES[name].random:
            return Held(name)
        taken[far] += 1
        return Held(name, Draw(taken[far] - 1, far))

    of_p = held(p, False, True)
    of_states = []
    for letter, name in zip(letters, states, strict=True):
        far = letter in nonnegative
        # A running mean of squares moves by a thousandth of itself at a step: to the nearest it
        # would stand still. Other means move by a tenth, and 8 bits are too few for that alone.
        of_states.append(held(name, far, by_chance=far or name != "bfloat16"))
    return Storages(of_p, None if g is None else Held(g), (*of_states,))


# ---- refusals ----


def refuse_unknown_letters(hyper: Hyperparameters, letters: Sequence[str]) -> None:
    """Refuse a dict of dtypes that names state arrays which the optimizer does not have."""
    asked = hyper.get("state_dtype")
    if not isinstance(asked, Mapping):
        return
    for letter in asked:
        if letter == "ema":
            raise ValueError(
                "state_dtype has 'ema', which is float32 always: stored in 16 bits it would stand "
                "still; leave it out"
            )
        if not letters:
            raise ValueError(
                f"state_dtype has {letter!r}, and the optimizer keeps no state; leave it out"
            )
        if letter not in letters:
            raise ValueError(
                f"state_dtype has {letter!r}; the optimizer's state is {quoted(letters)}: name "
                f"some of these, as `state_dtype={{{letters[0]!r}: 'bfloat16'}}`"
            )


def refuse_idle_master(master: Any, any_halves: bool, where: str = "") -> None:
    """Refuse a choice of master for parameters none of which has 16 bits."""
    if master not in WITHOUT_CHOICE and not any_halves:
        raise ValueError(
            f"{where}master={master!r} says how 16-bit parameters keep their bits, and there are "
            "none; leave it out, or pass parameters of bfloat16"
        )


def refuse_wide_state(asked: Any, name: str, kind: str, where: str = "") -> None:
    """Refuse state in fewer bytes than float32 for a parameter whose state is wider."""
    if asked != "float32":
        raise ValueError(
            f"{where}state_dtype={asked!r}, and {name} is {kind}, whose state is {kind}, too; pass "
            f"float32 parameters, or put {kind} ones into a group with `state_dtype='float32'`"
        )


def refuse_low_bits(hyper: Hyperparameters, letter: str, why: str, kept: Sequence[str]) -> None:
    """Refuse a state array in fewer bytes than in one of the dtypes `kept`."""
    asked = dtype_of_state(letter, hyper)
    if asked in kept:
        return
    whole = not isinstance(hyper["state_dtype"], Mapping)
    remedy = kept[-1] if whole else {**hyper["state_dtype"], letter: kept[-1]}
    raise ValueError(f"state_dtype={hyper['state_dtype']!r}: {why}; pass `state_dtype={remedy!r}`")
