"""A framework's way to do what checks ask for."""

from __future__ import annotations

from typing import NamedTuple


class Unfit(str):
    """The reason why a framework cannot do something."""

    __slots__ = ()


class Dialect(NamedTuple):
    """Texts of functions, in which `{make}` is the call that makes the optimizer.

    Starts and gradients are NumPy arrays, and so is what comes back.
    """

    imports: str

    optimizer: str
    """`optimizer(...)` makes one."""

    first: tuple[str, ...]
    """The first arguments of the call that makes the optimizer."""

    train: str
    """`train(start, gradients, dtype="float32")`: the parameter after a step with each gradient."""

    resume: str
    """`resume(start, gradients)`: the same, saved and loaded into a new optimizer in the middle."""

    skip: str | Unfit
    """`skip(start, gradients)`: the same, where a gradient may be None and others go on."""

    rate: str | Unfit
    """`rate(start, gradients, lr)`: the same, with the learning rate set after it is made."""

    groups: str | Unfit
    """`groups(start, gradients, *options)`: a parameter for each group, one after another."""

    company: str
    """`company(starts, gradients)`: many tensors in one optimizer, one after another."""

    kept: str | Unfit
    """`kept(start, g)`: the gradient after a step."""

    layout: str | Unfit
    """`zeros(*shape)` and `steps(p, *gradients)`, over the framework's own arrays."""

    array: str
    """The name of the framework's array module."""

    threads: str | Unfit
    """`threads(count)` sets the number of threads."""

    float64: str
    """Lines that must come first for float64 arrays."""

    dtypes: tuple[str, ...]
