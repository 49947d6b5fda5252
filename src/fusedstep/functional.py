"""The same steps without an object, on arrays that the caller owns.

Each function updates p and its state arrays in place, once, as step number t (from 1). The
formulas, hyperparameters and defaults are those of the class of the same name; an optional
state array that is passed switches on what needs it. All arrays have the shape and dtype of
p, float32 or float64; `lr` is the rate of this step, a number. Clipping, averages and the
like are an optimizer's. What does not fit is a TypeError or ValueError that names it, and
nothing has been written. What an optimizer checks once is checked at every call, so a loop
over many arrays is faster with an optimizer.
"""

from __future__ import annotations

from contextlib import suppress
from functools import lru_cache
from typing import Any, Literal

from fusedstep._arrays.checks import check_like, check_parameter, check_state
from fusedstep._arrays.overlap import WrittenMemory
from fusedstep._arrays.walk import Array, Operand, Walk
from fusedstep._backends.choose import choose
from fusedstep._backends.plan import Job, Plan, Row
from fusedstep._checks.values import non_negative, whole
from fusedstep._checks.wording import describe
from fusedstep._core.declaration import EACH, Checks, check
from fusedstep._numerics import coefficients
from fusedstep._numerics.coefficients import Given, Rule


def sgd(
    p: Array,
    g: Array,
    b: Array | None = None,
    *,
    t: int,
    lr: float = 1e-3,
    momentum: float = 0.0,
    dampening: float = 0.0,
    weight_decay: float = 0.0,
    nesterov: bool = False,
    lr_in_momentum: bool = False,
    maximize: bool = False,
    l1: float = 0.0,
    backend: str = "auto",
) -> None:
    """One step of `fusedstep.SGD`; momentum needs b.

    >>> import numpy as np, fusedstep as fs
    >>> p = np.array([1.0, 2.0])
    >>> fs.functional.sgd(p, np.array([1.0, -1.0]), t=1, lr=0.1)
    >>> p
    array([0.9, 2.1])
    """
    h = _check(
        {
            "lr": lr,
            "momentum": momentum,
            "dampening": dampening,
            "weight_decay": weight_decay,
            "nesterov": nesterov,
            "lr_in_momentum": lr_in_momentum,
            "maximize": maximize,
            "l1": l1,
        }
    )
    _check_momentum(h["momentum"], b)
    rule = coefficients.sgd_rule(h)
    given = coefficients.sgd_constants(h), coefficients.sgd_scalars(h, _check_t(t))
    _step(backend, rule, given, p, g, {"b": b})


def adagrad(
    p: Array,
    g: Array,
    s: Array,
    *,
    t: int,
    lr: float = 1e-2,
    lr_decay: float = 0.0,
    weight_decay: float = 0.0,
    eps: float = 1e-10,
    eps_inside_sqrt: bool = False,
    maximize: bool = False,
    l1: float = 0.0,
    backend: str = "auto",
) -> None:
    """One step of `fusedstep.Adagrad`; s starts from what the caller puts in it.

    >>> import numpy as np, fusedstep as fs
    >>> p, s = np.array([1.0, 2.0]), np.zeros(2)
    >>> fs.functional.adagrad(p, np.array([3.0, -0.01]), s, t=1, lr=0.5)
    >>> p
    array([0.5, 2.5])
    """
    h = _check(
        {
            "lr": lr,
            "lr_decay": lr_decay,
            "weight_decay": weight_decay,
            "eps": eps,
            "eps_inside_sqrt": eps_inside_sqrt,
            "maximize": maximize,
            "l1": l1,
        }
    )
    rule = coefficients.adagrad_rule(h)
    given = coefficients.adagrad_constants(h), coefficients.adagrad_scalars(h, _check_t(t))
    _step(backend, rule, given, p, g, {"s": s})


def rmsprop(
    p: Array,
    g: Array,
    v: Array,
    a: Array | None = None,
    b: Array | None = None,
    *,
    t: int,
    lr: float = 1e-2,
    alpha: float = 0.99,
    eps: float = 1e-8,
    weight_decay: float = 0.0,
    momentum: float = 0.0,
    eps_inside_sqrt: bool = False,
    lr_in_momentum: bool = False,
    maximize: bool = False,
    l1: float = 0.0,
    backend: str = "auto",
) -> None:
    """One step of `fusedstep.RMSprop`; centered if a is passed, momentum needs b.

    >>> import numpy as np, fusedstep as fs
    >>> p, v = np.array([1.0, 2.0]), np.zeros(2)
    >>> fs.functional.rmsprop(p, np.array([3.0, -0.01]), v, t=1, lr=0.1, alpha=0.75)
    >>> p.round(6)
    array([0.8, 2.2])
    """
    h = _check(
        {
            "lr": lr,
            "alpha": alpha,
            "eps": eps,
            "weight_decay": weight_decay,
            "momentum": momentum,
            "centered": a is not None,
            "eps_inside_sqrt": eps_inside_sqrt,
            "lr_in_momentum": lr_in_momentum,
            "maximize": maximize,
            "l1": l1,
        }
    )
    _check_momentum(h["momentum"], b)
    rule = coefficients.rmsprop_rule(h)
    given = coefficients.rmsprop_constants(h), coefficients.rmsprop_scalars(h, _check_t(t))
    _step(backend, rule, given, p, g, {"v": v, "a": a, "b": b})


def adam(
    p: Array,
    g: Array,
    m: Array,
    v: Array,
    x: Array | None = None,
    *,
    t: int,
    lr: float = 1e-3,
    betas: tuple[float, float] = (0.9, 0.999),
    eps: float = 1e-8,
    weight_decay: float = 0.0,
    eps_inside_sqrt: bool = False,
    eps_uncorrected: bool = False,
    bias_correction: bool = True,
    maximize: bool = False,
    l1: float = 0.0,
    backend: str = "auto",
) -> None:
    """One step of `fusedstep.Adam`; amsgrad if x is passed.

    >>> import numpy as np, fusedstep as fs
    >>> p, m, v = np.array([1.0, 2.0]), np.zeros(2), np.zeros(2)
    >>> fs.functional.adam(p, np.array([3.0, -0.01]), m, v, t=1, lr=0.1)
    >>> p.round(6)
    array([0.9, 2.1])
    """
    h = _check(
        {
            "lr": lr,
            "betas": betas,
            "eps": eps,
            "weight_decay": weight_decay,
            "amsgrad": x is not None,
            "eps_inside_sqrt": eps_inside_sqrt,
            "eps_uncorrected": eps_uncorrected,
            "bias_correction": bias_correction,
            "maximize": maximize,
            "l1": l1,
        }
    )
    rule = coefficients.adam_rule(h)
    given = coefficients.adam_constants(h), coefficients.adam_scalars(h, _check_t(t))
    _step(backend, rule, given, p, g, {"m": m, "v": v, "x": x})


def adamw(
    p: Array,
    g: Array,
    m: Array,
    v: Array,
    x: Array | None = None,
    *,
    t: int,
    lr: float = 1e-3,
    betas: tuple[float, float] = (0.9, 0.999),
    eps: float = 1e-8,
    weight_decay: float = 1e-2,
    eps_inside_sqrt: bool = False,
    eps_uncorrected: bool = False,
    bias_correction: bool = True,
    decay_scale: Literal["lr", "schedule"] = "lr",
    initial_lr: float | None = None,
    maximize: bool = False,
    l1: float = 0.0,
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
    h = _check(
        {
            "lr": lr,
            "betas": betas,
            "eps": eps,
            "weight_decay": weight_decay,
            "amsgrad": x is not None,
            "eps_inside_sqrt": eps_inside_sqrt,
            "eps_uncorrected": eps_uncorrected,
            "bias_correction": bias_correction,
            "decay_scale": decay_scale,
            "initial_lr": lr if initial_lr is None else initial_lr,
            "maximize": maximize,
            "l1": l1,
        }
    )
    rule = coefficients.adamw_rule(h)
    given = coefficients.adamw_constants(h), coefficients.adamw_scalars(h, _check_t(t))
    _step(backend, rule, given, p, g, {"m": m, "v": v, "x": x})


def _check(values: dict[str, Any]) -> dict[str, Any]:
    with suppress(TypeError):  # of a value that cannot be hashed, or is about to be refused
        return _checked(**values)
    return check(values, checks=CHECKS)


@lru_cache(maxsize=64, typed=True)
def _checked(**values: Any) -> dict[str, Any]:
    return check(values, checks=CHECKS)


def _rate_now(name: str, value: Any) -> float:
    if callable(value):
        raise TypeError(
            f"{name}={describe(value)}; pass a number, what it gives for this t, as `schedule(t)`"
        )
    return non_negative(name, value)


CHECKS = Checks({**EACH, "lr": _rate_now})
"""As an optimizer's, but for the learning rate of one step."""


def _step(backend: str, rule: Rule, given: Given, p: Any, g: Any, states: dict[str, Any]) -> None:
    table, place = choose(backend, [("p", p)])
    p = place.see(p, "p")
    check_parameter(p, "p")
    present = {
        letter: place.see(state, letter)
        for letter, state in states.items()
        if letter in rule.letters
    }
    for letter, state in present.items():
        check_state(state, p, letter)
    g = place.see(g, "g")
    check_like(g, p, "g")
    written = WrittenMemory([("p", p), *present.items()])
    written.refuse_overlaps()
    written.refuse(g, "g")
    walk = Walk(p, place)
    row = Row(Operand(p, walk), walk, rule, lambda letter: Operand(present[letter], walk))
    plan = Plan(table, [Job(rule, p.dtype)], [row], written)
    plan.set_gradient(0, g)
    plan.fetch_gradients()
    plan.run([given])


def _check_t(t: Any) -> int:
    return whole("t", t, least=1)


def _check_momentum(momentum: float, b: Any) -> None:
    if momentum != 0 and b is None:
        raise TypeError(f"momentum={momentum!r} needs b; pass `np.zeros_like(p)` at t = 1")
    if momentum == 0 and b is not None:
        raise ValueError("b is passed with momentum=0; leave it out, or pass momentum=0.9")
