"""Steps of scikit-learn's optimizers, counted; as a pytest plugin, its own tests under the patch.

PYTHONPATH=tests/helpers python -m pytest -p sklearn_steps --pyargs sklearn.neural_network
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pytest

from fusedstep.sklearn import _steps, patch


class Count:
    """The fused steps since it was made, of all optimizers."""

    steps = 0


@contextmanager
def counting(patience: int = 0) -> Iterator[Count]:
    """Count the fused steps, which are taken after so many of scikit-learn's."""
    count, step = Count(), _steps.Fused.step
    before = {kind: kind.patience for kind in (_steps.SGDSteps, _steps.AdamSteps)}

    def counted(self: Any, grads: Any) -> int:
        t = step(self, grads)
        count.steps += 1
        return t

    _steps.Fused.step = counted  # type: ignore[method-assign]
    for kind in before:
        kind.patience = patience
    try:
        yield count
    finally:
        _steps.Fused.step = step  # type: ignore[method-assign]
        for kind, own in before.items():
            kind.patience = own


@pytest.hookimpl(wrapper=True)
def pytest_runtestloop(session: Any) -> Any:
    """Run all tests under the patch, and say how many fused steps they took."""
    with counting() as count, patch():
        done = yield
    print(f"\n{count.steps} fused steps")
    return done
