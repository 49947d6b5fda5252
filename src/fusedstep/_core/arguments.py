"""The arguments that every optimizer has, each an alias `Annotated[type, check, text]`.

The signature of an optimizer's `__init__` is written with such aliases, and declaration.py reads
it. The check is what a hyperparameter must be, and the text its entry in the class's Parameters
section: its symbol, what it does, its range. An argument without a check is no hyperparameter: it
belongs to the optimizer as a whole, and groups cannot differ in it.
"""

from collections.abc import Mapping
from functools import partial
from typing import Annotated, Any, Literal

from fusedstep._checks.values import (
    ROUNDINGS,
    Rate,
    flag,
    master,
    non_negative,
    one_of,
    optional_fraction,
    rate,
    seed,
    state_dtype,
)

OF_A_RUN = "of a run"
"""A further note, on a hyperparameter that has no meaning for one step by itself."""

Params = Annotated[Any, "What to update, see `Optimizer`."]
Lr = Annotated[
    Rate,
    rate,
    """
    α, the learning rate, at least 0: a number, an array that broadcasts over the rows p[i]
    of each parameter and has a rate for each column, or a function of t such as a schedule
    of `fusedstep.schedules`.
    """,
]
CoupledDecay = Annotated[float, non_negative, "λ of coupled L2, at least 0."]
Maximize = Annotated[bool, flag, "Ascend: -g in g's place."]
L1 = Annotated[float, non_negative, "λ₁ of L1, at least 0."]
Ema = Annotated[
    float | None,
    optional_fraction,
    """
    What a moving average of the parameters keeps at each step, in [0, 1); None for no
    average. State `"ema"`, see `Optimizer`.
    """,
    OF_A_RUN,
]
Master = Annotated[
    Literal[None, False, "split16", "split8", "float32"],
    master,
    """
    How a 16-bit parameter keeps the bits that it lacks, see `Optimizer`. None for
    `"split16"` where it is bfloat16 and `"float32"` where it is float16; False for nothing.
    """,
    OF_A_RUN,
]
StateDtype = Annotated[
    str | Mapping[str, str],
    state_dtype,
    """
    How state is kept: `"float32"`, `"bfloat16"` or `"8bit"`, or a dict of these by letter,
    see `Optimizer`. Tensors of fewer than 4,096 elements have float32 in any case.
    """,
    OF_A_RUN,
]
Rounding = Annotated[
    Literal["auto", "nearest", "stochastic"],
    partial(one_of, choices=ROUNDINGS),
    """
    How values are rounded that are kept in fewer bytes; `"auto"` for stochastically where
    rounding to the nearest would stop them, see `Optimizer`.
    """,
    OF_A_RUN,
]
Seed = Annotated[int, seed, "Of stochastic rounding, from 0 below 2⁶⁴.", OF_A_RUN]
Untouched = Annotated[
    Literal["frozen", "exact"],
    partial(one_of, choices=("frozen", "exact")),
    """
    What becomes of rows that a gradient of `fusedstep.Rows` leaves out: `"frozen"` for
    nothing, `"exact"` for what a gradient of zeros would do, to the bit, see `Rows`.
    """,
    OF_A_RUN,
]
RowSteps = Annotated[
    Literal["own", "shared"],
    partial(one_of, choices=("own", "shared")),
    """
    Where rows are frozen: `"own"` for a t of each row, `"shared"` for the parameter's, as
    in `torch.optim.SparseAdam`, see `Rows`.
    """,
    OF_A_RUN,
]
Out = Annotated[
    Any,
    """
    Arrays of 16 bits, in the structure of float32 `params`, into which each step writes these
    rounded to nearest, in the same pass; None for none.
    """,
]
Nonfinite = Annotated[
    Literal["propagate", "skip", "raise"],
    "What to do about gradients with NaN or infinity, see `Optimizer`.",
]
Capturable = Annotated[
    bool,
    """
    On a CUDA device: True for steps that may be part of a CUDA graph, which takes them again
    and again with the t and the rate of then, see `Optimizer`.
    """,
]
Backend = Annotated[str, '`"auto"`, or the name of a backend; `fusedstep.info()` lists them.']
