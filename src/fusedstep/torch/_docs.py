"""The Parameters sections of the classes, from the declarations of the plain optimizers."""

from __future__ import annotations

import inspect
from typing import Any, TypeVar

from fusedstep._checks.wording import quoted
from fusedstep._core.declaration import Argument, documented
from fusedstep._core.hints import explained, renamed_argument, unexpected
from fusedstep.torch._kinds import Kind

Class = TypeVar("Class", bound=type)

TEXTS = {
    "params": (
        "What to update: parameters, pairs of name and parameter, or groups, as for torch's "
        "optimizers."
    ),
    "foreach": "Changes nothing; there so that code which passes it goes on.",
    "fused": "Changes nothing: every step is fused.",
    "capturable": "True hands each step to torch's own class, which can be part of a CUDA graph.",
    "differentiable": "True hands each step to torch's own class, which autograd can follow.",
    "decoupled_weight_decay": "Decay as AdamW does, and not through the moments.",
    "momentum_decay": "ψ, how fast the momentum μₜ grows from β₁/2 to β₁, at least 0.",
    "no_prox": "Decay as AdamW does.",
    "ema": (
        "What a moving average of the parameters keeps at each step, in [0, 1); None for no\n"
        'average. State `"ema"`, which starts from the parameters.'
    ),
    "ema_into": (
        "Tensors like the parameters, in their order, that take the moving average in the place\n"
        "of the state, such as a target network's; it starts from what they hold. float32 for\n"
        "16-bit parameters."
    ),
    "master": (
        'How a 16-bit parameter keeps the bits that it lacks: `"split16"`, a tail of 16 bits, or\n'
        '`"split8"`, one of 8, state `"tail"`; `"float32"`, a float32 master, state `"master"`;\n'
        'False for nothing. None for `"split16"` where it is bfloat16, `"float32"` where float16.'
    ),
    "state_dtype": (
        '`"float32"`, `"bfloat16"` or `"8bit"`: how state arrays are kept, or a dict of these by\n'
        'their names. `"8bit"` are codes, uint8, and in `"exp_avg_base"` the bases of their\n'
        "blocks. Parameters of fewer than 4,096 elements have float32 in any case."
    ),
    "rounding": (
        '`"nearest"`, `"stochastic"`, or `"auto"` for stochastically where rounding to the\n'
        "nearest would stop what is kept in fewer bytes."
    ),
    "seed": "Of stochastic rounding, from 0 below 2⁶⁴.",
    "untouched": (
        'What becomes of rows that a sparse gradient leaves out: `"frozen"` for nothing,\n'
        '`"exact"` for what zeros there would do, to the bit, see `catch_up`; None for torch\'s\n'
        "own way: SGD and Adagrad make the gradient dense, the others refuse it."
    ),
    "row_steps": (
        'Where rows are frozen: `"own"` for a t of each row, state `"row_step"`; `"shared"` for\n'
        "the parameter's, as in `SparseAdam`."
    ),
    "max_norm": (
        "The largest norm that all gradients have together, those of all ranks of a sharded model\n"
        "included, at least 0; None: any. Attribute `max_norm`, `report.grad_norm` tells it."
    ),
    "max_value": "The largest size of an element of a gradient, after `max_norm`, at least 0.",
    "clip": (
        '`"global"`, or `"tensor"`: `max_norm` is that of each gradient by itself; such a step\n'
        "refuses sharded parameters, of which each rank knows a part."
    ),
    "nonfinite": (
        '`"propagate"`, `"skip"` or `"raise"`: what to do about gradients with NaN or infinity,\n'
        "see `fusedstep.Optimizer`."
    ),
    "backend": '`"auto"`, or the name of a backend; `fusedstep.info()` lists them.',
    "lr": (
        "α, the learning rate, at least 0: a number or a tensor of one element; or rates by\n"
        "column, a NumPy array that broadcasts over the rows p[i], in a group also a tensor."
    ),
    "eps": "ε, at least 0.",
}
"""The entries of arguments that the plain optimizers have not, or mean otherwise."""


OF_CUSTOM_RULES = {
    "betas": "What stays of the averages at each step, each in [0, 1).",
    "weight_decay": "λ, at least 0.",
}
"""The entries of arguments that custom rules have no text for."""


def described(optimizer: Class) -> Class:
    """Give the docstring of a class its Parameters section, and its arguments their errors."""
    kind: Kind = vars(optimizer)["kind"]
    plain = {each.name: each.text for each in kind.declaration.arguments}
    init = vars(optimizer)["__init__"]
    signature = inspect.signature(init)
    _, *own = signature.parameters
    texts = {**OF_CUSTOM_RULES, **{name: text for name, text in plain.items() if text}, **TEXTS}
    arguments = [Argument(name, None, None, False, None, texts[name]) for name in own]
    optimizer.__doc__ = documented(optimizer.__doc__, arguments)

    def explain(args: Any, kwargs: Any, error: TypeError) -> TypeError:
        for name in kwargs:
            if name not in signature.parameters:
                made = f"fusedstep.torch.{optimizer.__name__}"
                hint = renamed_argument(made, signature, name, kwargs)
                return unexpected(optimizer.__name__, name, hint or f"it has {quoted(own)}")
        return error

    setattr(optimizer, init.__name__, explained(explain)(init))
    return optimizer
