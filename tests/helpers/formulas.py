"""Functions that a rule may be, each with some parts of the language, and such as it may not be.

ALLOWED are run as rules and, element by element, as the plain Python that they are; where that
is not in the compute dtype or rounds otherwise, `plain` says the same in other words. REFUSED
have the line that is to blame marked with `# here`, and what is to be said of it.
"""

# As odd and as wrong as what users write, so nothing for those who check style and types.
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


class Refused(NamedTuple):
    function: Any
    message: str


ALLOWED: list[Allowed] = []
REFUSED: list[Refused] = []


def allowed(*, plain=None, zeros=False, **hyperparameters):
    def note(function):
        code = function.__code__
        state = code.co_varnames[2 : code.co_argcount - 1]
        ALLOWED.append(
            Allowed(function, state, {"lr": 0.1, **hyperparameters}, plain or function, zeros)
        )
        return function

    return note


def refused(message):
    def note(function):
        REFUSED.append(Refused(function, message))
        return function

    return note


# ---- what a rule may hold ----

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


# ---- what it may not hold ----


class Thing:
    value = "text"


def recursive(x):
    return x if x < 1 else recursive(x / 2)  # here


def forth(x):
    return back(x)


def back(x):
    return forth(x)  # here


def with_default(x, y=1):  # here
    return x + y


def flawed(x):
    y = math.exp(x)  # here
    return y


TEXT = "text"
NOTHING = None
NOT_A_NUMBER = float("nan")
HUGE = 10**400


@refused(r"`y` is not defined")
def undefined(p, g, h):
    p = p - y  # here
    return p


@refused(r"`math.nothing` is not defined")
def undefined_member(p, g, h):
    return p - math.nothing * g  # here


@refused(r"math.exp cannot be called in a rule.*computed in `prepare`")
def transcendental(p, g, h):
    return p - math.exp(g)  # here


@refused(r"np.dot cannot be called in a rule")
def product(p, g, h):
    return p - np.dot(g, p)  # here


@refused(r"math.exp cannot be called in a rule")
def within_a_helper(p, g, h):
    return flawed(p)


@refused(r"float would leave the compute dtype.*leave it out")
def to_float(p, g, h):
    return p - float(g)  # here


@refused(r"np.float64 would leave the compute dtype")
def to_float64(p, g, h):
    d = np.float64(g) + 1  # here
    return p - d


@refused(r"is a loop; write out what it does")
def loop(p, g, h):
    for _ in (1, 2):  # here
        p = p - g
    return p


@refused(r"is a loop")
def endless(p, g, h):
    while p > g:  # here
        p = p - g
    return p


@refused(r"returns early; assign in the branches, return at the end")
def early(p, g, h):
    if p > g:
        return p  # here
    return p - g


@refused(r"end the function with a `return`")
def no_return(p, g, h):
    p = p - g  # here


@refused(r"returns nothing")
def empty_return(p, g, h):
    return  # here


@refused(r"returns 2 values where 1 are needed: the new p, and the new state in the order")
def too_many(p, g, h):
    return p, g  # here


@refused(r"returns 2 values where 1 are needed")
def too_many_of_a_helper(p, g, h):
    return both(p, g, p > g)  # here


@refused(r"the call returns 2 values where one is needed")
def two_for_one(p, g, h):
    p = p - both(p, g, p > g)  # here
    return p


@refused(r"assigns 2 values to 3 names")
def unpacked(p, g, h):
    a, b, c = both(p, g, True)  # here
    return p


@refused(r"is a single value; write as many as there are names")
def unpacked_number(p, g, h):
    a, b = p  # here
    return a


@refused(r"h has no 'beta1'; it has 'lr', 'beta', 'flag', 'pair'. Hyperparameters are arguments of")
def unknown_member(p, g, h):
    return p - h.beta1 * g  # here


@refused(r"`lr` is not defined; here it is `h.lr`")
def bare_hyperparameter(p, g, h):
    return p - lr * g  # here


@refused(r"`t` is not defined; what depends on the step count is computed in `prepare`")
def bare_step_count(p, g, h):
    return p - h.lr / t * g  # here


@refused(r"h.pair is a tuple; let `prepare` make numbers of it")
def item_of_tuple(p, g, h):
    return p - h.pair[0] * g  # here


@refused(r"h.pair is a tuple; let `prepare` make numbers of it")
def unpacked_tuple(p, g, h):
    beta1, beta2 = h.pair  # here
    return p - beta1 * g


@refused(r"joins bits; conditions have `and`, `or` and `not`")
def masks(p, g, h):
    large = (p > 1) & (g > 1)  # here
    return p if large else g


@refused(r"joins bits; conditions have `and`, `or` and `not`")
def inverted_mask(p, g, h):
    return g if ~(p > 1) else p  # here


@refused(r"h.pair is a tuple; let `prepare` make numbers of it")
def tuple_member(p, g, h):
    return p - h.pair * g  # here


@refused(r"`p > g` is a condition where a number is needed; of a condition make one with `1 if")
def condition_for_number(p, g, h):
    return p - (p > g) * g  # here


@refused(r"`h.flag` is a condition where a number is needed")
def flag_for_number(p, g, h):
    return p - h.flag * g  # here


@refused(r"`p` is a number where a condition is needed; compare it, for instance `!= 0`")
def number_for_condition(p, g, h):
    return g if p else -g  # here


@refused(r"`g` is a number where a condition is needed")
def number_for_and(p, g, h):
    if p > 0 and g:  # here
        p = g
    return p


@refused(r"`h` is a set of scalars where a number is needed; name one of them, as `h.lr`")
def scalars_for_number(p, g, h):
    return p - h  # here


@refused(r"y is not assigned on every way to this line")
def half_assigned(p, g, h):
    if p > g:
        y = g
    return p - y  # here


@refused(r"y is not assigned on every way to this line")
def of_two_types(p, g, h):
    if p > g:
        y = g
    else:
        y = g > 0
    return p - y  # here


@refused(r"y is not assigned on every way to this line")
def before_assignment(p, g, h):
    p = p - y  # here
    y = g
    return p


@refused(r"`TEXT` is 'text', not a number; make it an argument, a hyperparameter or a state")
def text(p, g, h):
    return p - TEXT  # here


@refused(r"`Thing.value` is 'text', not a number")
def text_member(p, g, h):
    return p - Thing.value  # here


@refused(r"`NOTHING` is None, not a number")
def none(p, g, h):
    return p - NOTHING  # here


@refused(r"`NOT_A_NUMBER` is nan, not a number")
def not_a_number(p, g, h):
    return p - NOT_A_NUMBER  # here


@refused(r"`HUGE` is too large for a float")
def huge(p, g, h):
    return p - HUGE  # here


@refused(r"`'text'` has no place in a rule")
def text_literal(p, g, h):
    return p - "text"  # here


@refused(r"`p` is one number here, a single element")
def subscript(p, g, h):
    return p[0]  # here


@refused(r"`p % g` has no place in a rule")
def modulo(p, g, h):
    return p % g  # here


@refused(
    r"`g \*\* p` is a power that machines round differently; 2, 3 and 0.5 .*with `\*`, `/` and"
)
def power(p, g, h):
    return p - g**p  # here


@refused(r"`g \*\* \(-1\)` is a power that machines round differently")
def inverse(p, g, h):
    return p - g**-1  # here


@refused(r"`p` is one number here, a single element: it has no members, cannot be called, and")
def attribute(p, g, h):
    return p.real  # here


@refused(r"`g` is one number here, a single element: it has no members, cannot be called")
def called_number(p, g, h):
    return g(p)  # here


@refused(r"`max` is one number here, a single element: it has no members, cannot be called")
def called_local(p, g, h):
    max = g
    return max(p, g)  # here


@refused(r"is no assignment to names, `if` or `return`")
def into_h(p, g, h):
    h.lr = 1  # here
    return p


@refused(r"is no assignment to names, `if` or `return`")
def twofold(p, g, h):
    a = b = g  # here
    return p - a - b


@refused(r"assigns to something other than plain names")
def starred_target(p, g, h):
    a, *b = p, g  # here
    return a


@refused(r"is no assignment to names, `if` or `return`")
def asserted(p, g, h):
    assert p > g  # here
    return p


@refused(r"is no assignment to names, `if` or `return`")
def printed(p, g, h):
    print(p)  # here
    return p


@refused(r"calls with keywords or stars; pass plain positional arguments")
def keywords(p, g, h):
    return scaled(x=p, h=h)  # here


@refused(r"calls with keywords or stars")
def stars(p, g, h):
    return squared(*p)  # here


@refused(r"the call passes 2 arguments where 1 are taken")
def wrong_arguments(p, g, h):
    return squared(p, g)  # here


@refused(r"the call passes 2 arguments where 1 are taken")
def wrong_arguments_of_a_root(p, g, h):
    return np.sqrt(p, g)  # here


@refused(r"the call passes 1 argument where 2 are taken")
def wrong_arguments_of_max(p, g, h):
    return max(p)  # here


@refused(r"where takes a condition and two numbers")
def half_a_where(p, g, h):
    return np.where(p > g)  # here


@refused(r"calls itself; a rule has no recursion")
def recursion(p, g, h):
    return recursive(p)


@refused(r"calls itself; a rule has no recursion")
def recursion_by_two(p, g, h):
    return forth(p)


@refused(r"has defaults or starred arguments; name each one plainly")
def helper_with_default(p, g, h):
    return with_default(p, g)


@refused(r"calls something without a name")
def nameless(p, g, h):
    return (lambda x: x)(p)  # here


@refused(r"`is` asks for nothing but whether an argument is None")
def identity(p, g, h):
    return p if p is g else g  # here


@refused(r"compares with something other than < <= > >= == !=")
def membership(p, g, h):
    return p if p in (g, 1) else g  # here


@refused(r"`h` holds the scalars; give the number another name")
def number_named_h(p, g, h):  # here
    p = p - h.lr * g
    h = p
    return h


@refused(r"`\(q := g\)` has no place in a rule")
def walrus(p, g, h):
    return p - (q := g)  # here
