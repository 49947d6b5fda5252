"""What one comparison is about: a rule with its options, over a list of arrays of one dtype."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import cached_property
from inspect import signature
from typing import Any, NamedTuple, Protocol, TypeAlias

import numpy as np

import fusedstep as fs
from fusedstep._backends.plan import Job
from fusedstep._backends.threads import get_num_threads
from fusedstep._core.declaration import declaration_of
from fusedstep._core.parameters import rule_of
from fusedstep.benchmarks.workloads import Shape

Array: TypeAlias = np.ndarray[Any, np.dtype[Any]]

LARGE = 20_000_000
"""Elements from which contestants share the parameters: a dozen copies would not fit."""


class Case(Protocol):
    """An optimizer and its options, as a row of tests/helpers/cases.py has them."""

    @property
    def name(self) -> str: ...
    @property
    def optimizer(self) -> Any: ...
    @property
    def options(self) -> Mapping[str, Any]: ...
    @property
    def asked(self) -> Mapping[str, Any]:
        """Arguments of each step."""


class Update(NamedTuple):
    """A case of which nothing is asked but the update."""

    name: str
    optimizer: Any
    options: Mapping[str, Any]

    @property
    def asked(self) -> Mapping[str, Any]:
        return {}


ADAMW = Update("adamw", fs.AdamW, {"weight_decay": 0.1})


class Problem:
    """A case over arrays of standard normal numbers, the same for all contestants."""

    def __init__(self, case: Case, shapes: Sequence[Shape], dtype: Any, seed: int = 0) -> None:
        self.case = case
        self.shapes = shapes
        self.dtype = np.dtype(dtype)
        self.threads = get_num_threads()
        self.rng = np.random.default_rng(seed)
        self.start = self.normal()
        self.grads = self.normal()
        """Only read, unless the case asks for zeros in their place."""

    def normal(self) -> list[Array]:
        return [self.rng.standard_normal(shape, self.dtype) for shape in self.shapes]

    @property
    def elements(self) -> int:
        return sum(p.size for p in self.start)

    @property
    def shared(self) -> bool:
        """Whether all step the same parameters."""
        return self.elements > LARGE

    def params(self) -> list[Array]:
        """A contestant's own, or those of all if they are large."""
        return self.start if self.shared else [p.copy() for p in self.start]

    def own_grads(self) -> list[Array]:
        """Those of a contestant that writes to them if the case says so."""
        return [g.copy() for g in self.grads] if self.case.asked.get("zero_grads") else self.grads

    def optimizer(self, params: Any, backend: str = "auto") -> fs.Optimizer:
        """Ours, over these."""
        made: fs.Optimizer = self.case.optimizer(params, backend=backend, **self.case.options)
        return made

    @cached_property
    def ours(self) -> tuple[fs.Optimizer, list[Array], list[Array]]:
        """Our optimizer, its parameters and its gradients: for its step, and for parts of it."""
        params = self.params()
        return self.optimizer(params), params, self.own_grads()

    @property
    def whole(self) -> list[str]:
        """What the case asks for besides the update."""
        kept = [name for name in ("ema", "nonfinite") if name in self.case.options]
        return [*self.case.asked, *kept]

    @property
    def hyperparameters(self) -> dict[str, Any]:
        """Those of the case, and the defaults of its optimizer for the others."""
        parameters = signature(self.case.optimizer).parameters.values()
        defaults = {each.name: each.default for each in parameters if each.name != "params"}
        return {**defaults, **self.case.options}

    @cached_property
    def job(self) -> Job:
        """What our optimizer does with one of the arrays."""
        optimizer = self.optimizer(np.ones(1, self.dtype), "numpy")
        return Job(rule_of(declaration_of(type(optimizer)), optimizer.param_groups[0]), self.dtype)

    @property
    def measured(self) -> bool:
        """Whether the gradients are read once more, for their norm or for NaN."""
        policy = self.case.options.get("nonfinite", "propagate")
        return self.case.asked.get("max_norm") is not None or policy != "propagate"

    @property
    def bytes(self) -> int:
        """That a step has to move for each element, read and written."""
        written = 1 + len(self.job.rule.states)
        gradient = 1 + bool(self.case.asked.get("zero_grads")) + self.measured
        return int(self.dtype.itemsize * (2 * written + gradient))

    @property
    def footprint(self) -> int:
        """Bytes of all arrays that a step touches."""
        return int(self.dtype.itemsize * self.elements * (2 + len(self.job.rule.states)))
