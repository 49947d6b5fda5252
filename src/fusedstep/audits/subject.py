"""The subject of an audit: an optimizer's expression, and all that is known of it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np

from fusedstep.audits import kinds
from fusedstep.audits.dialects import DIALECTS, Dialect, Unfit
from fusedstep.audits.expression import Call
from fusedstep.audits.formulas import Array, trajectory

MIXES = "the step of an element depends on other elements, or on their number"
"""Why checks of single elements are not judged."""


class NotJudgedError(Exception):
    """A check that does not apply, or cannot be judged; the message is the reason."""


@dataclass
class Subject:
    """An optimizer."""

    call: Call
    framework: str
    kind: kinds.Kind
    """The optimizer whose rule it is held against."""

    modules: tuple[str, ...]
    """Modules to import so that the expression can be written."""

    hyperparameters: Mapping[str, Any]
    accepts: tuple[str, ...]
    """Names of the optimizer's arguments."""

    versions: Mapping[str, str]
    backend: str = "jax"
    """The package that Keras computes with."""

    tensors: tuple[str, ...] = ()
    """The hyperparameters that are arrays, of a precision of their own."""

    flat: bool = True
    """Whether it takes tensors of one dimension; else they have two."""

    repeats: bool = True
    """Whether two runs give the same."""

    separate: bool = True
    """Whether elements are stepped independently of one another."""

    @property
    def dialect(self) -> Dialect:
        return DIALECTS[self.framework]

    @cached_property
    def known(self) -> kinds.Formula | str:
        """The formula, or the reason why there is none."""
        try:
            return self.formula()
        except NotJudgedError as reason:
            return str(reason)

    def formula(self, **changes: Any) -> kinds.Formula:
        """The formula, with some hyperparameters changed; `NotJudgedError` where there is none."""
        values = {**self.kind.values(self.hyperparameters), **changes}
        try:
            return kinds.formula(self.framework, self.kind, values)
        except kinds.UnknownError as unknown:
            raise NotJudgedError(str(unknown)) from None

    def follow(
        self, start: Array, gradients: Sequence[Array], eps: float, **changes: Any
    ) -> tuple[Array, Array]:
        """The end of a trajectory by the formula, and how far from it is near enough.

        Each step may round the parameter once. A change may be off by a few roundings, and by
        that of β to the dtype, which changes 1 - β by ε/(1 - β) of itself.
        """
        rule, options = self.formula(**changes)
        found = trajectory(rule, start, gradients, **options)
        if found.highest.max(initial=0.0) > LARGEST / 2:
            raise NotJudgedError("its steps leave the range of float32")
        slack = 16 * eps + 2 * eps / self.formula(**changes).slowest
        return found.p, eps * len(gradients) * found.highest + slack * found.path

    def shape(self, n: int) -> str:
        """The shape of a tensor of n elements, as text."""
        return f"({n},)" if self.flat else f"(1, {n})"

    def need(self, text: str | Unfit) -> str:
        """The text of a framework; `NotJudgedError` where it has none."""
        if isinstance(text, Unfit):
            raise NotJudgedError(str(text))
        return text

    def need_separate(self) -> None:
        self.need_repeats()
        if not self.separate:
            raise NotJudgedError(MIXES)

    def need_repeats(self) -> None:
        if not self.repeats:
            raise NotJudgedError("two runs with the same gradients differ")

    def need_dtype(self, dtype: str) -> None:
        if dtype not in self.dialect.dtypes:
            raise NotJudgedError(f"{self.framework} arrays have no {dtype}")

    # ---- programs ----

    def program(self, verbs: Sequence[str], body: str, *, float64: bool = False) -> str:
        """A whole program that uses the framework's functions `verbs`."""
        texts = [self.need(getattr(self.dialect, verb)) for verb in verbs]
        text = "\n\n\n".join(part.strip("\n") for part in (self.maker(self.call), *texts, body))
        return f"{self.imports(text, float64)}\n\n\n{text}\n"

    def imports(self, text: str = "", float64: bool = False) -> str:
        lines = self.dialect.imports.replace("{backend}", self.backend).split("\n")
        lines += [f"import {module}" for module in self.modules if f"import {module}" not in lines]
        if "copy.deepcopy" in text:
            lines.insert(0, "import copy")
        if float64 and self.wide:
            lines += ["", *self.wide]
        return "\n".join(lines)

    @property
    def wide(self) -> list[str]:
        """The lines that make float64 arrays possible."""
        if self.framework == "optax":
            return [self.dialect.float64]
        if self.framework == "keras" and self.backend == "jax":
            return ["import jax", "", DIALECTS["optax"].float64]
        return []

    def maker(self, call: Call) -> str:
        """The function that makes the optimizer, by `call`."""
        return self.dialect.optimizer.strip("\n").replace(
            "{make}", call.source(*self.dialect.first)
        )


LARGEST = float(np.finfo(np.float32).max)
"""The largest number of float32."""

EPS = {name: float(np.finfo(name).eps) for name in ("float16", "float32", "float64")} | {
    "bfloat16": 2.0**-7
}
"""The distance from 1 to the next number of a dtype."""
