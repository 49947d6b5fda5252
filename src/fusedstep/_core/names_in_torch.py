"""The names that torch's optimizers have for the state arrays of ours.

Checkpoints have them, too, so that one program's is another's.
"""

from __future__ import annotations

from collections.abc import Mapping

from fusedstep._core.packed import MASTER, ORDER, TAIL, base_name

MOMENTS = {"m": "exp_avg", "v": "exp_avg_sq"}

NAMES_IN_TORCH: dict[str, Mapping[str, str]] = {
    "SGD": {"b": "momentum_buffer"},
    "Adagrad": {"s": "sum"},
    "RMSprop": {"v": "square_avg", "b": "momentum_buffer", "a": "grad_avg"},
    "Adam": {**MOMENTS, "x": "max_exp_avg_sq"},
    "AdamW": {**MOMENTS, "x": "max_exp_avg_sq"},
    "NAdam": MOMENTS,
    "RAdam": MOMENTS,
    "Adamax": {"m": "exp_avg", "x": "exp_inf"},
    "Lion": {"m": "exp_avg"},
    "Adan": {"m": "exp_avg", "a": "exp_avg_diff", "v": "exp_avg_sq", "o": "previous_grad"},
}
"""Names of state arrays by letter, by the name of the class."""


def names_in_torch(optimizer: str, letters: list[str]) -> dict[str, str]:
    """The names of all entries that a state may have, by ours; others keep their own."""
    names = {letter: NAMES_IN_TORCH.get(optimizer, {}).get(letter, letter) for letter in letters}
    bases = {base_name(letter): base_name(name) for letter, name in names.items()}
    return {**names, **bases, TAIL: "tail", MASTER: "master", ORDER: "order"}
