"""A network's arithmetic with the same bits on every machine, whichever library multiplies.

A matrix product is a sum whose order is the library's affair, and differs between processors. Here
both matrices are rounded first, to whole multiples of a power of two below 2²²: then each product
of two elements is a whole number below 2⁴⁴, sums of up to 512 of them are below 2⁵³, and float64
has all of them exactly, in any order. `exp` is made of `+ - *`, each rounded once everywhere.
"""

from __future__ import annotations

from typing import Any, TypeAlias

import numpy as np

Wide: TypeAlias = np.ndarray[Any, np.dtype[np.float64]]

BITS = 22
"""Bits that a matrix's largest element keeps."""

SHARES = 2.0**40
"""The parts of 1 that shares of a softmax are counted in."""


def dot(a: Any, b: Any) -> Wide:
    """The product of two matrices, the largest elements of which keep 22 bits."""
    product: Wide = coarse(a) @ coarse(b)
    return product


def total(a: Any) -> Wide:
    """The sums of columns."""
    sums: Wide = coarse(a).sum(axis=0)
    return sums


def coarse(a: Any) -> Wide:
    """The nearest multiples of the power of two of which the largest element has up to 2²²."""
    a = np.asarray(a, np.float64)
    _, exponent = np.frexp(np.abs(a).max(initial=0.0))
    unit = np.ldexp(1.0, int(exponent) - BITS)
    rounded: Wide = np.rint(a / unit) * unit
    return rounded


def softmax(z: Wide) -> Wide:
    """Shares that are as the exponentials of each row's numbers."""
    parts = np.rint(exp(z - z.max(axis=1, keepdims=True)) * SHARES)
    shares: Wide = parts / parts.sum(axis=1, keepdims=True)  # of whole numbers, in any order
    return shares


def exp(x: Wide) -> Wide:
    """The exponentials of numbers of at most 0: 2ᵏ·exp(r), |r| at most half of log(2)."""
    x = np.maximum(x, -600.0)
    k = np.rint(x * 1.4426950408889634)
    r = x - k * 0.6931471805599453
    series = np.ones_like(r)
    for n in range(13, 0, -1):
        series = 1 + r * series / n
    powers: Wide = np.ldexp(series, k.astype(np.int64))
    return powers
