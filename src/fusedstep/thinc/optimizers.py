"""The optimizers, and the functions that configs name."""

# ruff: noqa: N802, N803  names of thinc's own

from collections.abc import Iterator
from threading import get_ident
from typing import Any

from thinc.config import registry
from thinc.optimizers import ADAM_DEFAULTS, SGD_DEFAULTS, FloatOrSeq
from thinc.optimizers import Optimizer as ThincOptimizer

from fusedstep._backends.choose import CHOICES
from fusedstep._checks.wording import describe, quoted
from fusedstep.thinc._gathering import gather, one_by_one, take_over
from fusedstep.thinc._kinds import kind_of
from fusedstep.thinc._steps import Key, Steps

__all__ = ["SGD", "Adam", "AdamW", "Optimizer", "RAdam"]

MOST = 4096
"""Layouts that an optimizer keeps: of models, and of parameters that are stepped alone."""


class Optimizer(ThincOptimizer):
    """thinc's optimizer, whose steps are fused: SGD, Adam or RAdam, as its arguments say.

    All is as thinc has it: the arguments, `step_schedules`, the attributes `learn_rate`, `b1`,
    `b2`, `eps`, `L2`, `grad_clip`, `averages`, `mom1`, `mom2` and `nr_update`, which may be set and
    read at any time, and calls for single parameters. `Model.finish_update` steps all parameters
    of the model at once.

    Results are thinc's but for the rounding of float32. Arrays that thinc's kernels for the CPU
    do not take, and gradients with NaN or infinity, are left to thinc itself.

    `backend` is that of `fusedstep.Optimizer`.

    >>> import numpy as np
    >>> from fusedstep.thinc import Optimizer
    >>> opt = Optimizer(0.5, beta1=0.0, beta2=0.0, grad_clip=2.5, use_averages=False)
    >>> p, g = np.ones(2, np.float32), np.array([6, 8], np.float32)
    >>> opt((1, "W"), p, g)
    (array([0.25, 0.  ], dtype=float32), array([0., 0.], dtype=float32))
    """

    __slots__ = ("_layouts", "backend")

    def __init__(self, learn_rate: FloatOrSeq, *, backend: str = "auto", **options: Any) -> None:
        if backend not in CHOICES:
            raise ValueError(f"backend={describe(backend)}; pass one of {quoted(CHOICES)}")
        super().__init__(learn_rate, **options)
        self.backend = backend
        self._layouts: dict[tuple[int, int, Key], Steps] = {}

    def __call__(
        self, key: Key, weights: Any, gradient: Any, *, lr_scale: float = 1.0
    ) -> tuple[Any, Any]:
        """Step one parameter in place, and leave zeros in its gradient; see thinc's."""
        if len(gradient) < 1 or self._fused([key], [weights], [gradient], lr_scale):
            return weights, gradient
        found: tuple[Any, Any] = super().__call__(key, weights, gradient, lr_scale=lr_scale)
        return found

    def finish_update(self, model: Any) -> bool:
        """Do what the model's `finish_update` does; False, and nothing done, if it has to.

        That is where parameters are another process's, or a subclass has its own `__call__`.
        """
        nodes = [*model.walk()]
        found = gather(nodes)
        if found is None or type(self).__call__ is not Optimizer.__call__:
            return False
        for node in nodes:
            for shim in node.shims:
                shim.finish_update(self)
        if found.keys and not self._fused(*found, 1.0):
            one_by_one(nodes, self)
        return True

    def _fused(
        self, keys: list[Key], weights: list[Any], grads: list[Any], lr_scale: float
    ) -> bool:
        """Step parameters at once; False, and nothing done, if thinc has to, one by one."""
        kind = kind_of(self)
        if kind is None:
            return False
        # Each thread has layouts of its own, which no other can change in mid-step.
        where = get_ident(), len(keys), keys[0]
        steps = self._layouts.get(where)
        if steps is None or not steps.serve(self, kind, keys, weights):
            if len(self._layouts) == MOST:
                self._layouts.clear()
            steps = self._layouts[where] = Steps(self, kind, keys, weights)
        return steps.step(self, kind, grads, lr_scale)

    def _attributes(self) -> Iterator[str]:
        """The names of the attributes that a copy has."""
        for kind in type(self).__mro__:
            yield from (name for name in getattr(kind, "__slots__", ()) if name != "_layouts")

    def __getstate__(self) -> dict[str, Any]:
        return {name: getattr(self, name) for name in self._attributes()} | getattr(
            self, "__dict__", {}
        )

    def __setstate__(self, state: dict[str, Any]) -> None:
        for name, value in state.items():
            setattr(self, name, value)
        self._layouts = {}


def SGD(
    learn_rate: FloatOrSeq,
    *,
    L2: FloatOrSeq = SGD_DEFAULTS["L2"],
    grad_clip: FloatOrSeq = SGD_DEFAULTS["grad_clip"],
    L2_is_weight_decay: bool = True,
    use_averages: bool = True,
) -> Optimizer:
    """Thinc's `SGD.v1`."""
    return Optimizer(**locals(), beta1=0.0, beta2=0.0)


def Adam(
    learn_rate: FloatOrSeq = ADAM_DEFAULTS["learn_rate"],
    *,
    L2: FloatOrSeq = ADAM_DEFAULTS["L2"],
    beta1: FloatOrSeq = ADAM_DEFAULTS["beta1"],
    beta2: FloatOrSeq = ADAM_DEFAULTS["beta2"],
    eps: FloatOrSeq = ADAM_DEFAULTS["eps"],
    grad_clip: FloatOrSeq = ADAM_DEFAULTS["grad_clip"],
    L2_is_weight_decay: bool = True,
    use_averages: bool = True,
) -> Optimizer:
    """Thinc's `Adam.v1`."""
    return Optimizer(**locals(), use_radam=False)


def AdamW(
    learn_rate: FloatOrSeq = ADAM_DEFAULTS["learn_rate"],
    *,
    L2: FloatOrSeq = 0.01,
    beta1: FloatOrSeq = ADAM_DEFAULTS["beta1"],
    beta2: FloatOrSeq = ADAM_DEFAULTS["beta2"],
    eps: FloatOrSeq = ADAM_DEFAULTS["eps"],
    grad_clip: FloatOrSeq = ADAM_DEFAULTS["grad_clip"],
    L2_is_weight_decay: bool = True,
    use_averages: bool = True,
) -> Optimizer:
    """`fusedstep.Adam.v1` with weight decay of 0.01, as spaCy's default config has it."""
    return Adam(**locals())


def RAdam(
    learn_rate: FloatOrSeq = ADAM_DEFAULTS["learn_rate"],
    *,
    beta1: FloatOrSeq = ADAM_DEFAULTS["beta1"],
    beta2: FloatOrSeq = ADAM_DEFAULTS["beta2"],
    eps: FloatOrSeq = ADAM_DEFAULTS["eps"],
    L2: FloatOrSeq = ADAM_DEFAULTS["L2"],
    L2_is_weight_decay: bool = True,
    grad_clip: FloatOrSeq = ADAM_DEFAULTS["grad_clip"],
    use_averages: bool = True,
) -> Optimizer:
    """Thinc's `RAdam.v1`."""
    return Optimizer(**locals(), use_radam=True)


take_over(Optimizer)

for each in (SGD, Adam, AdamW, RAdam):
    registry.optimizers.register(f"fusedstep.{each.__name__}.v1", func=each)
