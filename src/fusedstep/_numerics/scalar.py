"""THE update rules as plain Python on one element: what Numba compiles for CPU and CUDA.

Numerics contract: a rule is a sequence of IEEE-754 operations, each rounded to nearest
even in the compute dtype, in the order that reference.py writes them. The two files mirror
one another line by line, and so does csrc/rules.h; every bit of their results is the same.

They are written in the part of Python that _compiler/formula.py allows: number literals are of
the compute dtype, and what `None` and `inside` decide is decided before compiling.
"""

# mypy: allow-untyped-defs, allow-untyped-calls
# ruff: noqa: RET504

from math import sqrt

from fusedstep._compiler.functions import sign

# Before every rule, and only what is switched on.


def gradient(p, g, h):
    g = h.unscale * g
    g = h.clip * g
    g = h.most if g > h.most else -h.most if g < -h.most else g
    g = h.sign * g
    if h.l2 != 0:
        g = g + h.l2 * p
    if h.l1 != 0:
        g = g + h.l1 * sign(p)
    return g


def sgd(p, g, h, inside):
    p = p - h.lr * g
    return p


def momentum(p, g, b, h, inside):
    b = h.momentum * b + h.gain * g
    p = p - h.lr * b
    return p, b


def nesterov(p, g, b, h, inside):
    g = h.gain * g
    b = h.momentum * b + g
    p = p - h.lr * (g + h.momentum * b)
    return p, b


def adagrad(p, g, s, h, inside):
    s = s + g * g
    if inside:
        d = sqrt(s + h.eps)
    else:
        d = sqrt(s) + h.eps
    p = p - h.lr * (g / d)
    return p, s


def rmsprop(p, g, v, a, b, h, inside):
    v = h.rho * v + h.rest * (g * g)
    w = v
    if a is not None:
        a = h.rho * a + h.rest * g
        w = v - a * a
    if inside:
        d = sqrt(w + h.eps)
    else:
        d = sqrt(w) + h.eps
    if b is not None:
        b = h.momentum * b + h.gain * (g / d)
        p = p - h.lr * b
    else:
        p = p - h.lr * (g / d)
    return p, v, a, b


def adam(p, g, m, v, x, h, inside):
    m = h.beta1 * m + h.rest1 * g
    v = h.beta2 * v + h.rest2 * (g * g)
    w = v
    if x is not None:
        x = v if v > x or v != v else x
        w = x
    if inside:
        d = sqrt(w * h.r2 + h.eps)
    else:
        d = sqrt(w) * h.r + h.eps
    p = p - h.lr * (m / d)
    return p, m, v, x


def adamw(p, g, m, v, x, h, inside):
    p = p * h.decay
    return adam(p, g, m, v, x, h, inside)


def adam_rearranged(p, g, m, v, h, inside):
    m = h.beta1 * m + h.rest1 * g
    v = h.beta2 * v + h.rest2 * (g * g)
    p = p - (h.lr * m) / (sqrt(v) + h.eps)
    return p, m, v


# After every rule, if it is switched on.


def average(p, ema, h):
    ema = h.ema * ema + h.rest_ema * p
    return ema
