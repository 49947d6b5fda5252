"""The functions of Python and NumPy that a rule may call, and the powers that it may take.

Each means a primitive of the backends, by its name, or a function written as a rule is.
`np.where` is not among them, as its first argument is a condition.
"""

from __future__ import annotations

import builtins
import math
from typing import Any, TypeAlias

import numpy as np

from fusedstep._compiler import functions
from fusedstep._compiler.source import Function

Meaning: TypeAlias = str | Function

FUNCTIONS: list[tuple[Any, Meaning]] = [
    (math.sqrt, "sqrt"),
    (np.sqrt, "sqrt"),
    (builtins.abs, "abs"),
    (math.fabs, "abs"),
    (np.abs, "abs"),
    (np.fabs, "abs"),
    (np.sign, functions.sign),
    (np.maximum, functions.maximum),
    (np.minimum, functions.minimum),
    (builtins.max, functions.larger),
    (builtins.min, functions.smaller),
    (np.clip, functions.clip),
    (np.square, functions.square),
]

CHAINED = (functions.larger, functions.smaller)
"""The functions that take more than two numbers: the result so far, and the next."""

POWERS: dict[Any, Meaning] = {2: functions.square, 3: functions.cube, 0.5: "sqrt"}
"""The exponents after `**`."""


def meaning(called: Any) -> Meaning | None:
    """The meaning of a call of `called`; None if it is not in the vocabulary."""
    return next((known for function, known in FUNCTIONS if function is called), None)
