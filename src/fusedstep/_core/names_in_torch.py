"""The names that state has in torch: of our arrays, and of what stands beside them.

Checkpoints have them, too, so that one program's is another's.
"""

from __future__ import annotations

from collections.abc import Mapping

from fusedstep._core import packed
from fusedstep._core.packed import base_name

STEP, MU_PRODUCT, ROW_STEP = "step", "mu_product", "row_step"
"""Entries that say t: of the parameter, of NAdam as a product of momenta, and of each row."""

TAIL, MASTER, ORDER = "tail", "master", "order"
"""Entries: the bits that a 16-bit parameter lacks, its float32 values, and the order of codes."""

REMAINDER = "master_param"
"""The entry that TransformerEngine has in the place of a tail or a master."""

SECONDS = (TAIL, MASTER, REMAINDER)
"""The entries with what a parameter lacks."""

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
    return {**names, **bases, packed.TAIL: TAIL, packed.MASTER: MASTER, packed.ORDER: ORDER}
