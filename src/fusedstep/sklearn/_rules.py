"""The rules of scikit-learn's two optimizers, operation by operation as it computes them.

Both keep state as scikit-learn does, so that it can be handed over at any step, and neither counts
steps: Adam's rate is computed by whoever steps it.
"""

from __future__ import annotations

from fusedstep._core.arguments import Backend, Ema, Lr, Nonfinite, Params
from fusedstep._core.declaration import declare
from fusedstep._core.optimizer import Optimizer
from fusedstep._numerics.coefficients import NOTHING_ASKED, Hyperparameters, Rule, Values
from fusedstep.optimizers import Betas, Eps, Momentum, Nesterov

AS_IT_IS: Values = {"sign": 1.0, "l2": 0.0, "l1": 0.0}
"""Scalars of a prologue that leaves the gradient as it is: alpha is in scikit-learn's loss."""


def velocity_rule(hyper: Hyperparameters) -> Rule:
    return Rule("nesterov" if hyper["nesterov"] else "momentum", ("b",))


def velocity_constants(hyper: Hyperparameters) -> Values:
    return {**AS_IT_IS, "momentum": hyper["momentum"]}


def velocity_scalars(hyper: Hyperparameters, t: int) -> Values:
    return {**NOTHING_ASKED, "gain": -hyper["lr"], "lr": -1.0}


@declare(
    rule=velocity_rule,
    letters={"b": None},
    constants=velocity_constants,
    scalars=velocity_scalars,
)
class Velocity(Optimizer):
    """SGD with a velocity, which is there without momentum, too.

    ::

        b = μ·b + (-α)·g
        p = p + b                          nesterov: p = p + ((-α)·g + μ·b)

    Sutskever et al. (2013), "On the importance of initialization and momentum in deep learning".
    """

    def __init__(
        self,
        params: Params,
        lr: Lr,
        momentum: Momentum,
        nesterov: Nesterov,
        *,
        ema: Ema = None,
        nonfinite: Nonfinite = "propagate",
        backend: Backend = "auto",
    ) -> None:
        self._start(locals())


def moments_constants(hyper: Hyperparameters) -> Values:
    beta1, beta2 = hyper["betas"]
    return {
        **AS_IT_IS,
        "beta1": beta1,
        "rest1": 1 - beta1,
        "beta2": beta2,
        "rest2": 1 - beta2,
        "eps": hyper["eps"],
    }


def moments_scalars(hyper: Hyperparameters, t: int) -> Values:
    return {**NOTHING_ASKED, "lr": hyper["lr"]}


@declare(
    rule="adam_rearranged",
    letters={"m": None, "v": None},
    constants=moments_constants,
    scalars=moments_scalars,
)
class Moments(Optimizer):
    """Adam in its rearranged form, whose rate α has the corrections for bias in it.

    ::

        m = β₁·m + (1 - β₁)·g
        v = β₂·v + (1 - β₂)·g²
        p = p - (α·m)/(√v + ε)

    Kingma, Ba (2015), "Adam: A Method for Stochastic Optimization", the end of section 2.
    """

    def __init__(
        self,
        params: Params,
        lr: Lr,
        betas: Betas,
        eps: Eps,
        *,
        ema: Ema = None,
        nonfinite: Nonfinite = "propagate",
        backend: Backend = "auto",
    ) -> None:
        self._start(locals())
