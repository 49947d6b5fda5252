"""Functions that are no rules: `# here` marks the line to blame, the message what is said of it."""

# As wrong as what users write, so nothing for those who check style and types.
# mypy: ignore-errors
# ruff: noqa

from __future__ import annotations

import math
from math import fabs
from typing import Any, NamedTuple

import numpy as np
from formulas import both, scaled, squared


class Refused(NamedTuple):
    function: Any
    message: str


REFUSED: list[Refused] = []


def refused(message):
    def note(function):
        REFUSED.append(Refused(function, message))
        return function

    return note


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
