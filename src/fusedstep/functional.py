"""The same steps without an object, on arrays that the caller owns.

Each function updates p and its state arrays in place, once, as step number t (from 1). The
formulas, hyperparameters and defaults are those of the class of the same name; an optional
state array that is passed switches on what needs it. All arrays have the shape and dtype of
p, float32 or float64, but that the gradient of a float32 p may be float16 or bfloat16; `lr` is
the rate of this step, a number. An array of 16 bits that is passed as `out` is left with p,
rounded to nearest, in the same pass. Clipping, averages and the like are an optimizer's, and so
are parameters and state of 16 bits. What does not fit is a TypeError or ValueError that names it,
and nothing has been written. No array is held after the call. What an optimizer checks once is
checked at every call, so a loop over many arrays is faster with an optimizer.
"""

# Written by docs/tools/regions.py.

from __future__ import annotations

from functools import partial
from typing import Any, Literal

from fusedstep import optimizers
from fusedstep._arrays.walk import Array
from fusedstep._core.hints import explained
from fusedstep._core.one_step import of_one_step, one_step


def __getattr__(name: str) -> Any:
    from fusedstep._names import missing

    raise missing(__name__, name)


@explained(partial(of_one_step, optimizers.SGD))
def sgd(
    p: Array,
    g: Array,
    b: Array | None = None,
    *,
    t: int,
    lr: float = 0.001,
    momentum: float = 0.0,
    dampening: float = 0.0,
    weight_decay: float = 0.0,
    nesterov: bool = False,
    lr_in_momentum: bool = False,
    maximize: bool = False,
    l1: float = 0.0,
    out: Array | None = None,
    backend: str = "auto",
) -> None:
    """One step of `fusedstep.SGD`; momentum needs b.

    >>> import numpy as np, fusedstep as fs
    >>> p = np.array([1.0, 2.0])
    >>> fs.functional.sgd(p, np.array([1.0, -1.0]), t=1, lr=0.1)
    >>> p
    array([0.9, 2.1])
    """
    one_step(optimizers.SGD, locals())


@explained(partial(of_one_step, optimizers.Adagrad))
def adagrad(
    p: Array,
    g: Array,
    s: Array,
    *,
    t: int,
    lr: float = 0.01,
    lr_decay: float = 0.0,
    weight_decay: float = 0.0,
    eps: float = 1e-10,
    eps_inside_sqrt: bool = False,
    maximize: bool = False,
    l1: float = 0.0,
    out: Array | None = None,
    backend: str = "auto",
) -> None:
    """One step of `fusedstep.Adagrad`; s starts from what the caller puts in it.

    >>> import numpy as np, fusedstep as fs
    >>> p, s = np.array([1.0, 2.0]), np.zeros(2)
    >>> fs.functional.adagrad(p, np.array([3.0, -0.01]), s, t=1, lr=0.5)
    >>> p
    array([0.5, 2.5])
    """
    one_step(optimizers.Adagrad, locals())


@explained(partial(of_one_step, optimizers.RMSprop))
def rmsprop(
    p: Array,
    g: Array,
    v: Array,
    a: Array | None = None,
    b: Array | None = None,
    *,
    t: int,
    lr: float = 0.01,
    alpha: float = 0.99,
    eps: float = 1e-08,
    weight_decay: float = 0.0,
    momentum: float = 0.0,
    eps_inside_sqrt: bool = False,
    lr_in_momentum: bool = False,
    maximize: bool = False,
    l1: float = 0.0,
    out: Array | None = None,
    backend: str = "auto",
) -> None:
    """One step of `fusedstep.RMSprop`; centered if a is passed, momentum needs b.

    >>> import numpy as np, fusedstep as fs
    >>> p, v = np.array([1.0, 2.0]), np.zeros(2)
    >>> fs.functional.rmsprop(p, np.array([3.0, -0.01]), v, t=1, lr=0.1, alpha=0.75)
    >>> p.round(6)
    array([0.8, 2.2])
    """
    one_step(optimizers.RMSprop, locals())


@explained(partial(of_one_step, optimizers.Adam))
def adam(
    p: Array,
    g: Array,
    m: Array,
    v: Array,
    x: Array | None = None,
    *,
    t: int,
    lr: float = 0.001,
    betas: tuple[float, float] = (0.9, 0.999),
    eps: float = 1e-08,
    weight_decay: float = 0.0,
    eps_inside_sqrt: bool = False,
    eps_uncorrected: bool = False,
    bias_correction: bool = True,
    maximize: bool = False,
    l1: float = 0.0,
    out: Array | None = None,
    backend: str = "auto",
) -> None:
    """One step of `fusedstep.Adam`; amsgrad if x is passed.

    >>> import numpy as np, fusedstep as fs
    >>> p, m, v = np.array([1.0, 2.0]), np.zeros(2), np.zeros(2)
    >>> fs.functional.adam(p, np.array([3.0, -0.01]), m, v, t=1, lr=0.1)
    >>> p.round(6)
    array([0.9, 2.1])
    """
    one_step(optimizers.Adam, locals())


@explained(partial(of_one_step, optimizers.AdamW))
def adamw(
    p: Array,
    g: Array,
    m: Array,
    v: Array,
    x: Array | None = None,
    *,
    t: int,
    lr: float = 0.001,
    betas: tuple[float, float] = (0.9, 0.999),
    eps: float = 1e-08,
    weight_decay: float = 0.01,
    eps_inside_sqrt: bool = False,
    eps_uncorrected: bool = False,
    bias_correction: bool = True,
    decay_scale: Literal["lr", "schedule"] = "lr",
    initial_lr: float | None = None,
    maximize: bool = False,
    l1: float = 0.0,
    out: Array | None = None,
    backend: str = "auto",
) -> None:
    """One step of `fusedstep.AdamW`; amsgrad if x is passed.

    With `decay_scale="schedule"`, ηₜ = lr / initial_lr; `initial_lr` is lr if it is None.

    >>> import numpy as np, fusedstep as fs
    >>> p, m, v = np.array([1.0, 2.0]), np.zeros(2), np.zeros(2)
    >>> fs.functional.adamw(p, np.array([3.0, -0.01]), m, v, t=1, lr=0.1, weight_decay=0.5)
    >>> p.round(6)
    array([0.85, 2.  ])
    """
    one_step(optimizers.AdamW, locals())
