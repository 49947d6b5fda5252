"""The arguments that every optimizer has, each an alias `Annotated[type, check, text]`.

The signature of an optimizer's `__init__` is written with such aliases, and declaration.py reads
it. The check is what a hyperparameter must be, and the text its entry in the class's Parameters
section: its symbol, what it does, its range. An argument without a check is no hyperparameter: it
belongs to the optimizer as a whole, and groups cannot differ in it.
"""

from typing import Annotated, Any, Literal

from fusedstep._checks.values import Rate, flag, non_negative, optional_fraction, rate

OF_A_RUN = "of a run"
"""A further note, on a hyperparameter that has no meaning for one step by itself."""

Params = Annotated[Any, "What to update, see `Optimizer`."]
Lr = Annotated[
    Rate,
    rate,
    """
    α, the learning rate, at least 0: a number, or a function of t such as a schedule of
    `fusedstep.schedules`.
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
Nonfinite = Annotated[
    Literal["propagate", "skip", "raise"],
    "What to do about gradients with NaN or infinity, see `Optimizer`.",
]
Backend = Annotated[str, '`"auto"`, or the name of a backend; `fusedstep.info()` lists them.']
