"""THE update rules in NumPy: the definition of every result, and the "numpy" backend's arithmetic.

Numerics contract: a rule is a sequence of IEEE-754 operations (`+ - * / sqrt`, comparison,
selection), each rounded to nearest even in the compute dtype, in the order written here.
csrc/rules.h mirrors this file line by line, and every bit of its results is the same.

Letters: p parameter, g gradient, h the step's scalars (of the compute dtype, see
coefficients.Scalars), b momentum buffer, s sum of squares, v running mean of squares or
second moment, a running mean of gradients, m first moment, x running maximum of v,
ema moving average of p. A state array that is None is not there: the option that needs it
is off. `inside` says whether ε stands under the root. Each rule returns the new p and the
new state.
"""

# ruff: noqa: RET504

from typing import Any, TypeAlias

import numpy as np

from fusedstep._numerics.coefficients import Scalars

Array: TypeAlias = np.ndarray[Any, np.dtype[Any]]
State: TypeAlias = Array | None


# Before every rule, and only what is switched on.


def gradient(p: Array, g: Array, h: Scalars) -> Array:
    g = h.unscale * g
    g = h.clip * g
    g = np.where(g > h.most, h.most, np.where(g < -h.most, -h.most, g))
    g = h.sign * g
    if h.l2 != 0:
        g = g + h.l2 * p
    if h.l1 != 0:
        g = g + h.l1 * np.sign(p)
    return g


def sgd(p: Array, g: Array, h: Scalars, inside: bool) -> tuple[Array]:
    p = p - h.lr * g
    return (p,)


def momentum(p: Array, g: Array, b: Array, h: Scalars, inside: bool) -> tuple[Array, Array]:
    b = h.momentum * b + h.gain * g
    p = p - h.lr * b
    return p, b


def nesterov(p: Array, g: Array, b: Array, h: Scalars, inside: bool) -> tuple[Array, Array]:
    g = h.gain * g
    b = h.momentum * b + g
    p = p - h.lr * (g + h.momentum * b)
    return p, b


def adagrad(p: Array, g: Array, s: Array, h: Scalars, inside: bool) -> tuple[Array, Array]:
    s = s + g * g
    if inside:
        d = np.sqrt(s + h.eps)
    else:
        d = np.sqrt(s) + h.eps
    p = p - h.lr * (g / d)
    return p, s


def rmsprop(
    p: Array, g: Array, v: Array, a: State, b: State, h: Scalars, inside: bool
) -> tuple[Array, Array, State, State]:
    v = h.rho * v + h.rest * (g * g)
    w = v
    if a is not None:
        a = h.rho * a + h.rest * g
        w = v - a * a
    if inside:
        d = np.sqrt(w + h.eps)
    else:
        d = np.sqrt(w) + h.eps
    if b is not None:
        b = h.momentum * b + h.gain * (g / d)
        p = p - h.lr * b
    else:
        p = p - h.lr * (g / d)
    return p, v, a, b


def adam(
    p: Array, g: Array, m: Array, v: Array, x: State, h: Scalars, inside: bool
) -> tuple[Array, Array, Array, State]:
    m = h.beta1 * m + h.rest1 * g
    v = h.beta2 * v + h.rest2 * (g * g)
    w = v
    if x is not None:
        x = np.where((v > x) | (v != v), v, x)
        w = x
    if inside:
        d = np.sqrt(w * h.r2 + h.eps)
    else:
        d = np.sqrt(w) * h.r + h.eps
    p = p - h.lr * (m / d)
    return p, m, v, x


def adamw(
    p: Array, g: Array, m: Array, v: Array, x: State, h: Scalars, inside: bool
) -> tuple[Array, Array, Array, State]:
    p = p * h.decay
    return adam(p, g, m, v, x, h, inside)


def adam_rearranged(
    p: Array, g: Array, m: Array, v: Array, h: Scalars, inside: bool
) -> tuple[Array, Array, Array]:
    m = h.beta1 * m + h.rest1 * g
    v = h.beta2 * v + h.rest2 * (g * g)
    p = p - (h.lr * m) / (np.sqrt(v) + h.eps)
    return p, m, v


# After every rule, if it is switched on.


def average(p: Array, ema: Array, h: Scalars) -> Array:
    ema = h.ema * ema + h.rest_ema * p
    return ema
