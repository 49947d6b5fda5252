"""Rules as users write them, of all that a rule may hold.

Each is run as a rule and, element by element, as the plain Python that it is; where that is not
in the compute dtype or rounds otherwise, `plain` says the same in other words.
"""

# As odd as what users write, so nothing for those who check style and types.
# mypy: ignore-errors
# ruff: noqa

from __future__ import annotations

import math
from math import fabs
from typing import Any, NamedTuple

import numpy as np


class Allowed(NamedTuple):
    function: Any
    state: tuple[str, ...]
    hyperparameters: dict[str, Any]
    plain: Any
    zeros: bool
    """Whether 0.0 and -0.0 count as equal: NumPy's maximum of the two is the machine's choice."""


ALLOWED: list[Allowed] = []


def allowed(*, plain=None, zeros=False, **hyperparameters):
    def note(function):
        code = function.__code__
        state = code.co_varnames[2 : code.co_argcount - 1]
        ALLOWED.append(
            Allowed(function, state, {"lr": 0.1, **hyperparameters}, plain or function, zeros)
        )
        return function

    return note


def plain(p, g, h):
    return p - h.lr * g


HALF = 0.5
THIRD = 1 / 3
LARGE = 1e300
COUNT = 3


class Settings:
    tenth = 0.1


@allowed(beta=0.9)
def arithmetic(p, g, a, b, c, d, h):
    a = -(p + g) * 3 - g / p + +p
    b += 0.1
    b -= g
    b *= h.beta
    b /= p
    c, d = d + g, c - p
    p, g = g, p
    (e,) = (p - h.lr * g,)
    return e, a, b, c, d


@allowed(threshold=0.25)
def branches(p, g, a, b, c, d, h):
    """Hold `if` with and without `else`, nested, and `elif`."""
    a = g
    if g > h.threshold:
        a = p
    if p < 0:
        b = p
    elif p > 1:
        b = g
        if g != g:
            b = 2.5
    else:
        b = -g
    if g < 0:
        pass
    else:
        c = c + p
    if p == g:
        d, e = p, g
        d = d + e
    else:
        e = 1
        if g > 0 or not p > 0:
            e = -1
            d = d - e
    return p - h.lr * g, a, b, c, d


@allowed()
def conditions(p, g, a, b, c, d, e, h):
    small = abs(p) < 1e-3
    a = 1 if -1 < g <= 1 else 0
    b = p if small and g > 0 and not p == 0 else g
    c = p if small or g >= 0 or p != p else -g
    d = 1.0 if p < g < 0 < a != 2 else -p if g <= p else 0.1
    large = not small
    if large and True:
        e = g if not (p > 0 or False) else p
    return p, a, b, c, d, e


def squared(x):
    return x * x


def scaled(x, h):
    return x * h.lr


def by(other, x, h):
    return scaled(squared(x), other) - h.beta * x


def both(x, y, large):
    if large:
        x = -x
    return y, x


@allowed(beta=0.9)
def helpers(p, g, a, b, h):
    a = squared(a) + squared(g) - scaled(p, h)
    b, c = both(b, g, p > 0)
    p = p - by(h, c, h)
    return p, a, b


def fixed(factor, shift):
    def inner(x):
        return x * factor + shift

    return inner


closed = fixed(0.7, COUNT)


@allowed()
def constants(p, g, a, b, c, h):
    a = HALF * g + THIRD
    b = LARGE * b + Settings.tenth * p + math.pi
    c = closed(g) - COUNT * p + 1e-46 * g - np.inf
    return p - h.lr * g, a, b, c


def enclosing(factor):
    wide = factor * 2
    square = squared

    @allowed()
    def enclosed(p, g, a, h):
        a = wide * square(g) / factor
        return p - h.lr * g, a

    return enclosed


enclosing(1.3)


@allowed(zeros=True)
def functions_of_numpy(p, g, a, b, c, d, e, f, h):
    a = np.where(g > p, g, 0.1 * p)
    b = np.sign(g)
    c = np.maximum(p, g)
    d = np.minimum(p, g)
    e = np.clip(g, -0.5, h.lr)
    f = np.sqrt(np.abs(p)) + np.square(g) - np.fabs(g) * np.sqrt(g)
    return p, a, b, c, d, e, f


@allowed()
def functions_of_python(p, g, a, b, c, d, e, h):
    a = max(p, g)
    b = min(p, g)
    c = max(p, g, 0.5) - min(p, g, c)
    d = max(p, g, c, d) + min(g, p, c, h.lr)
    e = abs(g) - fabs(p)
    return p, a, b, c, d, e


def powers_plainly(p, g, a, b, c, h):
    return p, g * g - p * g, (g - p) * (g - p) * (g - p), np.sqrt(abs(p))


@allowed(plain=powers_plainly)
def powers(p, g, a, b, c, h):
    a = g**2 - p * g
    b = (g - p) ** 3
    c = abs(p) ** 0.5
    return p, a, b, c


def square_roots_plainly(p, g, a, h):
    return p - h.lr * g, np.sqrt(p) + np.sqrt(g * g)


@allowed(plain=square_roots_plainly)
def square_roots(p, g, a, h):
    a = math.sqrt(p) + math.sqrt(g * g)
    return p - h.lr * g, a


def literals_plainly(p, g, a, h):
    one = type(p)(1)
    return p, (one / type(p)(3) + type(p)(0.1)) * g


@allowed(plain=literals_plainly)
def literals(p, g, a, h):
    """Are of the compute dtype, also among themselves."""
    return p, (1 / 3 + 0.1) * g


@allowed(first=True, nesterov=False, mu=0.0, count=2, index=0.5)
def known_before_the_loop(p, g, a, b, c, h):
    a = g if h.first else a - g
    if h.nesterov:
        b = h.mu * b
    elif h.mu != 0 and h.first:
        b = p
    else:
        b = g * h.count
    c = p + h.index if not h.nesterov and 0 < h.lr < 1 else g
    return p - h.lr * g, a, b, c


@allowed()
def unchanged(p, g, m, h):
    return p, m


@allowed()
def previous(p, g, m, o, h):
    """Give the old p to a state, and a state to another."""
    return p - h.lr * g, o, p


@allowed()
def constant(p, g, m, h):
    return 1, 0.1


def real(x):
    return x + x


def carray(real):
    return real * 0.1


def row(h, x):
    return real(x) + h.sqrt


def sign(x):
    return carray(x) if x > 0 else real(x)


@allowed(sqrt=0.3, h=0.5, real=0.2, scalars=0.1)
def run(p, g, i, n, scalars, begin, h):
    """Have the names that a generated module uses for itself."""
    sqrt = np.sqrt(abs(g)) + h.sqrt
    real_ = real(p)
    i = carray(i) + sqrt * h.h
    n = row(h, n) + sign(g) * np.sign(p) + h.real
    abs_, float64 = abs(p) + h.scalars, g
    scalars = abs_ + float64
    begin = np.sign(sign(begin)) + real_
    end = begin < np.abs(n) < np.sign(g)
    begin = begin if end else p
    return p, i, n, scalars, begin


def shortened(x, members):
    if x > 0:
        h = x * 0.5
        x = h
    return x * members.lr


@allowed()
def hiding(p, g, a, h):
    """Reuse the name h, where the scalars are no longer needed or have another."""
    rate = h.lr
    a = a + shortened(p, h)
    if g > 0:
        h = rate + 1
        g = g * h
    return p - rate * g, a


def range(x):
    return x * 3


def range_(x):
    return x * 5


@allowed()
def compiled(p, g, s0, s1, h):
    s0 = range(g) if p < range(g) - g < range_(p) else range_(s0)
    kernel = s1 - range(p)
    return p, s0, kernel


def load(x):
    return x * 7


def gradient(x):
    return load(x) - 1


def average(p, x):
    return gradient(x) + p


@allowed(tile=0.5, m_at=3.0)
def step(p, g, g_0, rows, m_at, step, h):
    """Have the names that a kernel makes of those of its arrays, and of its formulas."""
    g_at = average(g_0, rows) * h.m_at
    rows = load(step) + h.tile
    p_0 = gradient(p) - g
    return p_0, g_0 + g_at, rows, m_at - p_0, step * g


@allowed(ε=1e-3, β=0.7)
def Größe(p, g, ṽ, h):
    δ = np.sqrt(abs(ṽ)) + h.ε
    ṽ = h.β * ṽ + (1 - h.β) * g
    return p - h.lr * g / δ, ṽ


@allowed()
def types_change(p, g, a, b, h):
    """A name may stand for a number here, and for a condition there."""
    x = p * 2
    a = x
    x = g > 0
    if x:
        y = p
    else:
        y = x and p > 0
        y = 1 if y else 0
    b = y
    return p, a, b
