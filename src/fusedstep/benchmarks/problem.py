"""The work of one comparison: an update rule with its options, over arrays of one dtype."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import cached_property
from inspect import signature
from typing import Any, NamedTuple, Protocol, TypeAlias

import numpy as np

import fusedstep as fs
from fusedstep import optimizers
from fusedstep._backends.threads import get_num_threads
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
    def request(self) -> Mapping[str, Any]:
        """Arguments of each step."""


class Update(NamedTuple):
    """A case whose steps make the update and nothing else."""

    name: str
    optimizer: Any
    options: Mapping[str, Any]

    @property
    def request(self) -> Mapping[str, Any]:
        return {}


CASES = {
    **{name.lower(): Update(name.lower(), getattr(fs, name), {}) for name in optimizers.__all__},
    "momentum": Update("momentum", fs.SGD, {"momentum": 0.9}),
    "nesterov": Update("nesterov", fs.SGD, {"momentum": 0.9, "nesterov": True}),
}
"""The steps that `fusedstep bench` can time, by name: those of every optimizer by default, and
the other rules of SGD."""

ADAMW = CASES["adamw"]


class Problem:
    """A case over arrays of standard normal numbers, the same for all contestants."""

    def __init__(self, case: Case, shapes: Sequence[Shape], dtype: Any, seed: int = 0) -> None:
        self.case = case
        self.shapes = shapes
        self.dtype = np.dtype(dtype)
        self.threads = get_num_threads()
        self.rng = np.random.default_rng(seed)
        self.start = self.normal()
        """The parameters that contestants start from."""
        self.grads = self.normal()
        """The gradients, which no contestant writes to."""

    def normal(self) -> list[Array]:
        return [self.rng.standard_normal(shape, self.dtype) for shape in self.shapes]

    @property
    def elements(self) -> int:
        return sum(p.size for p in self.start)

    @property
    def shared(self) -> bool:
        """Whether all contestants step the same parameters."""
        return self.elements > LARGE

    def params(self) -> list[Array]:
        """Parameters for one contestant: a copy, or the shared ones if they are large."""
        return self.start if self.shared else [p.copy() for p in self.start]

    def own_grads(self) -> list[Array]:
        """Gradients for one contestant: a copy if the steps of the case zero them."""
        return [g.copy() for g in self.grads] if self.zeroed else self.grads

    def optimizer(self, params: Any, backend: str = "auto") -> fs.Optimizer:
        """Our optimizer over `params`."""
        made: fs.Optimizer = self.case.optimizer(params, backend=backend, **self.case.options)
        return made

    @cached_property
    def ours(self) -> tuple[fs.Optimizer, list[Array], list[Array]]:
        """Our optimizer, its parameters and its gradients, for steps and for parts of them."""
        params = self.params()
        return self.optimizer(params), params, self.own_grads()

    @property
    def additions(self) -> list[str]:
        """Names of what a step of the case does besides the update."""
        kept = [name for name in ("ema", "nonfinite") if name in self.case.options]
        return [*self.case.request, *kept]

    @property
    def hyperparameters(self) -> dict[str, Any]:
        """The options of the case, and for all others the defaults of its optimizer."""
        parameters = signature(self.case.optimizer).parameters.values()
        defaults = {each.name: each.default for each in parameters if each.name != "params"}
        return {**defaults, **self.case.options}

    @property
    def zeroed(self) -> bool:
        """Whether a step leaves zeros in the gradients."""
        return bool(self.case.request.get("zero_grads"))

    @property
    def measured(self) -> bool:
        """Whether a step reads the gradients once more, for their norm or for NaN."""
        policy = self.case.options.get("nonfinite", "propagate")
        return self.case.request.get("max_norm") is not None or policy != "propagate"

    @cached_property
    def states(self) -> int:
        """Number of arrays beside each parameter: its state, and its moving average."""
        state = self.optimizer(np.ones(1, self.dtype), "numpy").state
        return len(state.keys() - {"t"})

    @property
    def bytes(self) -> int:
        """Bytes that a step moves for each element, reads and writes together."""
        gradient = 1 + self.zeroed + self.measured
        return int(self.dtype.itemsize * (2 * (1 + self.states) + gradient))

    @property
    def footprint(self) -> int:
        """Bytes of all arrays that a step touches."""
        return int(self.dtype.itemsize * self.elements * (2 + self.states))
