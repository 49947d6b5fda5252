"""Fused steps of scikit-learn's SGDOptimizer and AdamOptimizer, in place of `update_params`.

An optimizer of scikit-learn's stays what it is: an object with a few numbers and lists of arrays,
which can be read, assigned, copied, and unpickled where this package is missing. All that steps
need besides is kept here, and found by the object. A step looks whether the object still has what
was seen last: the parameters, the lists of state, the hyperparameters. Only the arrays in these
lists differ: they are the same at every step, and change in place.

What this package refuses goes to scikit-learn's own step: rates below 0, parameters that share
memory, gradients of other shapes. So do the first steps of small networks, which a fit of a few
batches would not get back what laying them out takes.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, ClassVar, TypeAlias
from weakref import WeakKeyDictionary

import numpy as np

from fusedstep._backends.objects import same
from fusedstep._core.optimizer import Optimizer
from fusedstep._numerics.powers import correction
from fusedstep.sklearn._rules import Moments, Velocity
from fusedstep.sklearn._theirs import (
    ADAM_UPDATES,
    SGD_UPDATES,
    AdamOptimizer,
    SGDOptimizer,
)

Arrays: TypeAlias = Sequence[np.ndarray[Any, np.dtype[Any]]]

REFUSALS = (TypeError, ValueError)

LARGE = 32_768
"""Elements from which on a network is fused from the first step on."""


class Fused:
    """A fused optimizer over given parameters, for gradients of any dtype."""

    def __init__(self, optimizer: Optimizer, params: Arrays) -> None:
        self.optimizer = optimizer
        self.params = [*params]
        self.dtypes: list[np.dtype[Any]] | None = None
        """The dtypes to convert gradients to; None as long as they had those of the parameters."""

    def step(self, grads: Arrays) -> int:
        """Step, and return t. scikit-learn's gradients are float64 where weights of samples are."""
        if self.dtypes is None:
            try:
                return self.optimizer.step(grads).t
            except REFUSALS:
                wanted = [p.dtype for p in self.params]
                if len(grads) != len(wanted) or [g.dtype for g in grads] == wanted:
                    raise
                self.dtypes = wanted
        return self.optimizer.step(
            [np.asarray(g, dtype) for g, dtype in zip(grads, self.dtypes, strict=True)]
        ).t


class Steps:
    """The fused steps of one of scikit-learn's optimizers."""

    lists: ClassVar[dict[str, str]]
    """The attributes of theirs that hold state, and the letters of ours."""
    patience: ClassVar[int]
    """The steps of a small network that scikit-learn takes itself, before it is worth 0.6 ms to
    lay out fused ones: after as many they will have saved about that much."""

    def __init__(self, theirs: Any, params: Arrays) -> None:
        self.fused = Fused(self.make(theirs, [*params]), params)
        states = self.fused.optimizer.state
        self.state = {
            name: [state[letter] for state in states] for name, letter in self.lists.items()
        }
        for name, arrays in self.state.items():
            for array, given in zip(arrays, getattr(theirs, name), strict=True):
                if np.shape(given) != array.shape:
                    raise ValueError(f"{name} has another shape than the parameters")
                np.copyto(array, given, casting="same_kind")
        for name, arrays in self.state.items():
            setattr(theirs, name, [*arrays])

    def make(self, theirs: Any, params: Arrays) -> Optimizer:
        """The optimizer that steps `params`, with the hyperparameters of theirs."""
        raise NotImplementedError

    def step(self, theirs: Any, grads: Arrays) -> None:
        """Step as they would, or refuse."""
        raise NotImplementedError

    def serves(self, theirs: Any, params: Arrays) -> bool:
        """Whether the arrays are those that were there before."""
        if not same(params, self.fused.params):
            return False
        return all(same(getattr(theirs, name), arrays) for name, arrays in self.state.items())


class SGDSteps(Steps):
    lists: ClassVar = {"velocities": "b"}
    patience: ClassVar = 64

    def make(self, theirs: Any, params: Arrays) -> Optimizer:
        self.rate, self.momentum, self.nesterov = values = sgd_values(theirs)
        return Velocity(params, *values)

    def step(self, theirs: Any, grads: Arrays) -> None:
        rate, momentum, nesterov = sgd_values(theirs)
        if momentum != self.momentum or nesterov is not self.nesterov:
            (group,) = self.fused.optimizer.param_groups
            group.update(momentum=momentum, nesterov=nesterov)
            self.momentum, self.nesterov = momentum, nesterov
        if rate != self.rate:
            self.fused.optimizer.lr = rate
            self.rate = rate
        self.fused.step(grads)


def sgd_values(theirs: Any) -> tuple[float, float, bool]:
    return theirs.learning_rate, theirs.momentum, bool(theirs.nesterov)


class AdamSteps(Steps):
    lists: ClassVar = {"ms": "m", "vs": "v"}
    patience: ClassVar = 16

    def make(self, theirs: Any, params: Arrays) -> Optimizer:
        self.beta1, self.beta2, self.eps = theirs.beta_1, theirs.beta_2, theirs.epsilon
        return Moments(params, 0.0, (self.beta1, self.beta2), self.eps)

    def step(self, theirs: Any, grads: Arrays) -> None:
        beta1, beta2, eps = theirs.beta_1, theirs.beta_2, theirs.epsilon
        if beta1 != self.beta1 or beta2 != self.beta2 or eps != self.eps:
            (group,) = self.fused.optimizer.param_groups
            group.update(betas=(beta1, beta2), eps=eps)
            self.beta1, self.beta2, self.eps = beta1, beta2, eps
        t = theirs.t + 1
        rate = theirs.learning_rate_init * np.sqrt(correction(beta2, t)) / correction(beta1, t)
        self.fused.optimizer.lr = float(rate)
        theirs.t = t
        try:
            self.fused.step(grads)
        except REFUSALS:
            theirs.t = t - 1
            raise
        theirs.learning_rate = rate


class Waiting:
    """An optimizer whose next steps are left to scikit-learn."""

    __slots__ = ("steps",)

    def __init__(self, steps: int) -> None:
        self.steps = steps


def fused_or(own: Callable[..., None], updates: Any, kind: type[Steps]) -> Callable[..., None]:
    """The method that steps fused where `updates` would be used and nothing is refused, else `own`.

    `own` is scikit-learn's `update_params`, `updates` the `_get_updates` that is known: a class
    that has another goes its own way.
    """
    known: WeakKeyDictionary[Any, Steps | Waiting] = WeakKeyDictionary()

    def steps_of(theirs: Any, params: Arrays) -> Steps | None:
        found = known.get(theirs)
        if type(found) is kind and found.serves(theirs, params):
            return found
        if type(found) is not Waiting:
            small = sum(map(np.size, params)) < LARGE
            found = known[theirs] = Waiting(kind.patience if small else 0)
        if found.steps:
            found.steps -= 1
            return None
        made = known[theirs] = kind(theirs, params)
        return made

    def update_params(self: Any, params: Arrays, grads: Arrays) -> None:
        """Update the parameters with the gradients, in one pass."""
        if type(self)._get_updates is updates:  # noqa: SLF001
            try:
                steps = steps_of(self, params)
                if steps is not None:
                    steps.step(self, grads)
                    return
            except REFUSALS:
                known.pop(self, None)
        own(self, params, grads)

    return update_params


sgd_update: Any = fused_or(SGDOptimizer.update_params, SGD_UPDATES, SGDSteps)
adam_update: Any = fused_or(AdamOptimizer.update_params, ADAM_UPDATES, AdamSteps)
