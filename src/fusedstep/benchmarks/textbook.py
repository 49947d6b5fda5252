"""The rules in NumPy, as textbooks write them: the package's steps are compared with them.

Each goes over the arrays one by one, and makes a new array for each operation. Parameters and
gradients are mappings; a state is a mapping with the same keys, whose arrays start as zeros.
"""

from __future__ import annotations

import inspect
from collections import defaultdict
from collections.abc import Callable, Mapping
from math import sqrt
from typing import Any, TypeAlias

import numpy as np

from fusedstep.portable import correction

Arrays: TypeAlias = Mapping[Any, Any]


class State(defaultdict[Any, Any]):
    """One array for each parameter, 0 until it is first written."""

    def __init__(self) -> None:
        super().__init__(float)


def sgd(params: Arrays, grads: Arrays, t: int, *, lr: float) -> None:
    for k, g in grads.items():
        p = params[k]
        p -= lr * g


def momentum(
    params: Arrays,
    grads: Arrays,
    t: int,
    b: State,
    *,
    lr: float,
    momentum: float = 0.9,
    dampening: float = 0.0,
    nesterov: bool = False,
) -> None:
    for k, g in grads.items():
        p = params[k]
        b[k] = momentum * b[k] + (g if t == 1 or dampening == 0 else (1 - dampening) * g)
        p -= lr * (g + momentum * b[k] if nesterov else b[k])


def adagrad(
    params: Arrays,
    grads: Arrays,
    t: int,
    s: State,
    *,
    lr: float,
    lr_decay: float = 0.0,
    initial_accumulator_value: float = 0.0,
    eps: float = 1e-10,
    eps_inside_sqrt: bool = False,
) -> None:
    lr = lr / (1 + (t - 1) * lr_decay)
    for k, g in grads.items():
        p = params[k]
        s[k] = (initial_accumulator_value if t == 1 else s[k]) + g**2
        p -= lr * (g / root(s[k], eps, eps_inside_sqrt))


def rmsprop(
    params: Arrays,
    grads: Arrays,
    t: int,
    v: State,
    a: State,
    b: State,
    *,
    lr: float,
    alpha: float = 0.99,
    eps: float = 1e-8,
    momentum: float = 0.0,
    centered: bool = False,
    eps_inside_sqrt: bool = False,
    lr_in_momentum: bool = False,
) -> None:
    for k, g in grads.items():
        p = params[k]
        w = v[k] = alpha * v[k] + (1 - alpha) * g**2
        if centered:
            a[k] = alpha * a[k] + (1 - alpha) * g
            w = w - a[k] ** 2
        u = g / root(w, eps, eps_inside_sqrt)
        if momentum == 0:
            p -= lr * u
        elif lr_in_momentum:
            b[k] = momentum * b[k] + lr * u
            p -= b[k]
        else:
            b[k] = momentum * b[k] + u
            p -= lr * b[k]


def adam(
    params: Arrays,
    grads: Arrays,
    t: int,
    m: State,
    v: State,
    x: State,
    *,
    lr: float,
    betas: tuple[float, float] = (0.9, 0.999),
    eps: float = 1e-8,
    amsgrad: bool = False,
    eps_inside_sqrt: bool = False,
    bias_correction: bool = True,
) -> None:
    beta1, beta2 = betas
    r = 1.0
    if bias_correction:
        lr, r = lr / correction(beta1, t), 1 / sqrt(correction(beta2, t))  # 1 - βᵗ
    for k, g in grads.items():
        p = params[k]
        m[k] = beta1 * m[k] + (1 - beta1) * g
        v[k] = beta2 * v[k] + (1 - beta2) * g**2
        if amsgrad:
            x[k] = np.maximum(x[k], v[k])
        u = x[k] if amsgrad else v[k]
        p -= lr * (m[k] / (np.sqrt(u * r**2 + eps) if eps_inside_sqrt else np.sqrt(u) * r + eps))


def adamw(
    params: Arrays,
    grads: Arrays,
    t: int,
    m: State,
    v: State,
    x: State,
    *,
    lr: float,
    weight_decay: float = 1e-2,
    betas: tuple[float, float] = (0.9, 0.999),
    eps: float = 1e-8,
    amsgrad: bool = False,
    eps_inside_sqrt: bool = False,
    bias_correction: bool = True,
) -> None:
    for p in params.values():
        p *= 1 - lr * weight_decay
    options = {"amsgrad": amsgrad, "eps_inside_sqrt": eps_inside_sqrt}
    options["bias_correction"] = bias_correction
    adam(params, grads, t, m, v, x, lr=lr, betas=betas, eps=eps, **options)


def root(v: Any, eps: float, inside: bool) -> Any:
    return np.sqrt(v + eps) if inside else np.sqrt(v) + eps


class Textbook:
    """An optimizer that steps by one of the rules above."""

    def __init__(self, params: Arrays, rule: Callable[..., None], **options: Any) -> None:
        self.params, self.rule, self.options, self.t = params, rule, options, 0
        _, _, _, *states = inspect.getfullargspec(rule).args  # after params, grads and t
        self.states = [State() for _ in states]

    def step(self, grads: Arrays) -> None:
        self.t += 1
        self.rule(self.params, grads, self.t, *self.states, **self.options)
