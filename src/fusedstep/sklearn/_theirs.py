"""The parts of scikit-learn that are not public and that steps here rest on: checked on import."""

from __future__ import annotations

import inspect
from typing import Any

import numpy as np
import sklearn

TRIED = ("1.4.2", "1.5.2", "1.6.1", "1.7.2", "1.8.0", "1.9.1")
"""Releases of scikit-learn that all of its own tests of neural networks were run with."""

try:
    from sklearn.neural_network._multilayer_perceptron import BaseMultilayerPerceptron
    from sklearn.neural_network._stochastic_optimizers import (
        AdamOptimizer,
        BaseOptimizer,
        SGDOptimizer,
    )
    from sklearn.utils import parallel
    from sklearn.utils._param_validation import StrOptions
    from sklearn.utils.parallel import _FuncWrapper as Task
except ImportError as error:
    raise ImportError(
        f"fusedstep.sklearn does not know scikit-learn {sklearn.__version__}, where {error}; "
        f"it was tried with {', '.join(TRIED)}: install one of these"
    ) from error

__all__ = [
    "AdamOptimizer",
    "BaseMultilayerPerceptron",
    "BaseOptimizer",
    "SGDOptimizer",
    "StrOptions",
    "Task",
    "parallel",
]

SGD_UPDATES: Any = SGDOptimizer._get_updates  # noqa: SLF001  what the fused step does in its place
ADAM_UPDATES: Any = AdamOptimizer._get_updates  # noqa: SLF001


def velocities(b: float, g: float, lr: float, momentum: float) -> tuple[float, float]:
    """Update and velocity of SGD with Nesterov's momentum, as this package steps it."""
    b = momentum * b - lr * g
    return momentum * b - lr * g, b


def moments(m: float, v: float, g: float, t: int) -> tuple[float, float, float]:
    """Update and moments of Adam with its usual β and ε and the rate 0.1, likewise."""
    m, v = 0.9 * m + (1 - 0.9) * g, 0.999 * v + (1 - 0.999) * (g * g)
    rate = 0.1 * np.sqrt(1 - 0.999**t) / (1 - 0.9**t)
    return -(rate * m) / (np.sqrt(v) + 1e-8), m, v


def differences() -> list[str]:
    """The ways in which the installed scikit-learn is not what steps here rest on."""
    found = []
    *_, last = inspect.signature(BaseMultilayerPerceptron._fit_stochastic).parameters  # noqa: SLF001
    if last != "incremental":
        found.append("_fit_stochastic has another signature")
    if not callable(getattr(BaseMultilayerPerceptron, "_fit", None)):
        found.append("_fit is not there")
    p, g = [np.array([1.0])], [np.array([3.0])]
    sgd, adam = SGDOptimizer(p, 0.1, momentum=0.9, nesterov=True), AdamOptimizer(p, 0.1)
    b = m = v = 0.0
    for t in (1, 2):
        update, b = velocities(b, 3.0, 0.1, 0.9)
        if [*sgd._get_updates(g), *sgd.velocities] != [update, b]:  # noqa: SLF001
            found.append(f"step {t} of SGDOptimizer is another")
        update, m, v = moments(m, v, 3.0, t)
        if [*adam._get_updates(g), *adam.ms, *adam.vs, adam.t] != [update, m, v, t]:  # noqa: SLF001
            found.append(f"step {t} of AdamOptimizer is another")
    return found


def check() -> None:
    """Refuse a release of scikit-learn whose inside has changed."""
    try:
        found = differences()
    except (AttributeError, TypeError, ValueError) as error:
        found = [str(error)]
    if found:
        raise ImportError(
            f"fusedstep.sklearn does not know scikit-learn {sklearn.__version__}, where "
            f"{'; '.join(found)}; it was tried with {', '.join(TRIED)}: install one of these"
        )


check()
