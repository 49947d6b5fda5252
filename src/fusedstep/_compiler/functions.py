"""The functions that a rule may call besides roots and absolute values, written as rules are.

`sign`, `maximum` and `minimum` are NumPy's: NaN stays NaN. `larger` and `smaller` are
Python's `max` and `min`, which keep their first argument where the two do not compare.
"""

# mypy: allow-untyped-defs, allow-untyped-calls


def sign(x):
    return x if x != x else 1.0 if x > 0 else -1.0 if x < 0 else 0.0


def maximum(x, y):
    return x if x > y or x != x else y


def minimum(x, y):
    return x if x < y or x != x else y


def larger(x, y):
    return y if y > x else x


def smaller(x, y):
    return y if y < x else x


def clip(x, low, high):
    return minimum(maximum(x, low), high)


def square(x):
    return x * x


def cube(x):
    return x * x * x
