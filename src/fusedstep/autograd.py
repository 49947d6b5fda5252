"""The optimizers of `autograd.misc.optimizers`, with the steps of this package.

They have the same signatures and return the same, so that a program of HIPS autograd needs another
import alone::

    from fusedstep.autograd import adam

    params = adam(grad(objective), params, callback=report, num_iters=1000, step_size=0.01)

`adam`, `sgd` and `rmsprop` are autograd's: they differ from `fusedstep.Adam`, `SGD` and `RMSprop`
in names and in where they start. `adamw` is made to the same pattern, and `minimize` takes any
optimizer of this package. A loop of one's own needs none of them: `fusedstep.Adam(params)` takes
autograd's lists of tuples as they are, and its gradients.

`pip install 'fusedstep[autograd]'` brings autograd.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeAlias

import numpy as np

from fusedstep._checks.wording import describe
from fusedstep._core.optimizer import Optimizer
from fusedstep.optimizers import SGD, Adam, AdamW, RMSprop

try:
    from autograd.misc import flatten
except ImportError as error:
    raise ImportError(
        f"fusedstep.autograd needs autograd: `pip install 'fusedstep[autograd]'` ({error})"
    ) from error

__all__ = ["adam", "adamw", "minimize", "rmsprop", "sgd"]

Gradient: TypeAlias = Callable[[Any, int], Any]
"""A function of the parameters and the iteration's number, from 0, that returns the gradients."""

Callback: TypeAlias = Callable[[Any, int, Any], object]
"""A function of the parameters, the iteration's number and the gradients, called before a step."""


def adam(
    grad: Gradient,
    x0: Any,
    callback: Callback | None = None,
    num_iters: int = 100,
    step_size: float = 0.001,
    b1: float = 0.9,
    b2: float = 0.999,
    eps: float = 1e-8,
) -> Any:
    """Minimize by Adam, as `autograd.misc.optimizers.adam` does; see `minimize`.

    α is `step_size`, β₁ and β₂ are `b1` and `b2`, ε is `eps`, outside of the root, beside the
    corrected v: `fusedstep.Adam` by other names.

    >>> import autograd.numpy as np
    >>> from autograd import grad
    >>> slope = grad(lambda p: np.sum((p["x"] - 3.0) ** 2))
    >>> adam(lambda p, i: slope(p), {"x": np.zeros(2)}, num_iters=500, step_size=0.1)["x"].round(6)
    array([3., 3.])
    """
    options = {**rate(step_size), "betas": (b1, b2), "eps": eps}
    return minimize(Adam, grad, x0, callback, num_iters, **options)


def sgd(
    grad: Gradient,
    x0: Any,
    callback: Callback | None = None,
    num_iters: int = 200,
    step_size: float = 0.1,
    mass: float = 0.9,
) -> Any:
    """Minimize by SGD with momentum, as `autograd.misc.optimizers.sgd` does; see `minimize`.

    Its velocity takes in 1 - `mass` of each gradient, from the first on. So it is `fusedstep.SGD`
    with μ = `mass` and α = `step_size`·(1 - `mass`).

    >>> float(sgd(lambda x, i: 2 * x, 1.0, num_iters=2, step_size=0.25, mass=0.5))
    0.4375
    """
    options = {**rate(step_size * (1 - mass)), "momentum": mass}
    return minimize(SGD, grad, x0, callback, num_iters, **options)


def rmsprop(
    grad: Gradient,
    x0: Any,
    callback: Callback | None = None,
    num_iters: int = 100,
    step_size: float = 0.1,
    gamma: float = 0.9,
    eps: float = 1e-8,
) -> Any:
    """Minimize by RMSprop, as `autograd.misc.optimizers.rmsprop` does; see `minimize`.

    α is `step_size`, ρ is `gamma`, ε is `eps`, outside of the root. v starts at 1, where that of
    `fusedstep.RMSprop` starts at 0.

    >>> round(float(rmsprop(lambda x, i: 2 * x, 1.0, num_iters=1, step_size=0.5, gamma=0.75)), 6)
    0.244071
    """

    def make(x: Any) -> Optimizer:
        opt = RMSprop(x, **rate(step_size), alpha=gamma, eps=eps)
        opt.state["v"][...] = 1.0
        return opt

    return _run(make, grad, x0, callback, num_iters)


def adamw(
    grad: Gradient,
    x0: Any,
    callback: Callback | None = None,
    num_iters: int = 100,
    step_size: float = 0.001,
    b1: float = 0.9,
    b2: float = 0.999,
    eps: float = 1e-8,
    weight_decay: float = 0.01,
) -> Any:
    """Minimize by AdamW: `adam`, and before each step p·(1 - α·λ), λ = `weight_decay`.

    autograd has no such function. See `minimize` and `fusedstep.AdamW`.

    >>> float(adamw(lambda x, i: 0 * x, 1.0, num_iters=1, step_size=0.5, weight_decay=0.5))
    0.75
    """
    options = {**rate(step_size), "betas": (b1, b2), "eps": eps, "weight_decay": weight_decay}
    return minimize(AdamW, grad, x0, callback, num_iters, **options)


def minimize(
    optimizer: Callable[..., Optimizer],
    grad: Gradient,
    x0: Any,
    callback: Callback | None = None,
    num_iters: int = 100,
    **options: Any,
) -> Any:
    """Minimize by any optimizer of this package, in the manner of `autograd.misc.optimizers`.

    Parameters
    ----------
    optimizer
        A class such as `fusedstep.Adagrad` or `fusedstep.rules.Lion`.
    grad
        A function of the parameters and of the iteration's number, from 0, that returns the
        gradients: `lambda x, i: autograd.grad(f)(x)`.
    x0
        The parameters to begin with, which stay as they are: arrays and numbers in lists, tuples
        and dicts, nested at will. They are stepped in float64, as autograd does, whatever they
        were, and returned in the dtype that they had.
    callback
        A function of the parameters, the iteration's number and the gradients, which is called
        before each step. What it is passed is not changed afterwards.
    num_iters
        The number of steps.
    **options
        Arguments of the class, `lr=0.01` for instance.

    Returns
    -------
    Any
        The parameters after the last step, in the structure of `x0`.

    Raises
    ------
    TypeError
        If parameters are complex.

    Examples
    --------
    >>> import fusedstep as fs, numpy as np
    >>> from fusedstep.autograd import minimize
    >>> minimize(fs.Adagrad, lambda p, i: [2 * p[0]], [np.ones(2)], lr=0.5)[0].round(3)
    array([0., 0.])
    """
    return _run(lambda x: optimizer(x, **options), grad, x0, callback, num_iters)


def rate(step_size: float) -> dict[str, Any]:
    """The options for a step size, which autograd lets be negative: it ascends then."""
    return {"lr": abs(step_size), "maximize": bool(step_size < 0)}


def _run(
    make: Callable[[Any], Optimizer],
    grad: Gradient,
    x0: Any,
    callback: Callback | None,
    num_iters: int,
) -> Any:
    given, unflatten = flatten(x0)
    if np.iscomplexobj(given):
        raise TypeError(
            f"x0 is {describe(x0)}, which has complex numbers; pass real and imaginary parts as "
            "arrays of their own: `x.real, x.imag`"
        )
    x = np.array(given, np.float64)
    opt = make(x)
    for i in range(num_iters):
        now = unflatten(x.copy())  # for others to keep: x is going to be changed
        g = np.asarray(flatten(grad(now, i))[0], np.float64)
        if callback:
            callback(now, i, unflatten(g))
        opt.step(g)
    return unflatten(x)
