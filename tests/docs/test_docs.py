"""The examples in docstrings run, and docstrings describe every argument."""

from __future__ import annotations

import doctest
import importlib
import inspect
import pkgutil
import re
from typing import Any

import pytest
from marks import MISSING, needs

import fusedstep

MODULES = [
    module.name
    for module in pkgutil.walk_packages(fusedstep.__path__, "fusedstep.")
    if not module.name.endswith((".__main__", "._engine"))
]
NEED_C = (
    *("._backends.c.engine", "._backends.c.runner", ".limit"),
    *(".jax._calls", ".jax._transformation", ".jax.optimizers"),
)
NEED_CUDA = tuple(
    f"._backends.cuda.{name}" for name in ("engine", "device", "driver", "primitives")
)

CLASSES = fusedstep.optimizers.__all__


@pytest.mark.parametrize("name", ["fusedstep", *MODULES])
def test_docstrings(name: str) -> None:
    if name.endswith(NEED_C) and MISSING is not None:
        pytest.skip(f"no c backend: {MISSING}")
    if name.endswith(NEED_CUDA):
        needs("numba_cuda", "cuda")
    for other in ("autograd", "jax", "sklearn", "thinc", "torch"):
        if name == f"fusedstep.{other}" or name.startswith(f"fusedstep.{other}."):
            needs(other, other)
    assert doctest.testmod(importlib.import_module(name)).failed == 0


@pytest.mark.parametrize("name", CLASSES)
def test_every_argument_is_described(name: str) -> None:
    """Each with its own line, and each class with an example that runs."""
    optimizer: Any = getattr(fusedstep, name)
    arguments = list(inspect.signature(optimizer).parameters)
    text = inspect.getdoc(optimizer) or ""
    for argument in arguments:
        assert re.search(rf"^{argument}$", text, re.MULTILINE), argument
    assert ">>> " in text


def test_every_argument_of_torchs_classes_is_described() -> None:
    needs("torch", "torch")
    from fusedstep.torch import optimizers

    for name in optimizers.__all__:
        optimizer = getattr(optimizers, name)
        text = inspect.getdoc(optimizer) or ""
        for argument in inspect.signature(optimizer).parameters:
            assert re.search(rf"^{argument}\n    \S", text, re.MULTILINE), (name, argument)
        assert ">>> " in text


def test_every_argument_of_a_step_is_described() -> None:
    text = inspect.getdoc(fusedstep.Optimizer.step) or ""
    for argument in [*inspect.signature(fusedstep.Optimizer.step).parameters][1:]:
        assert re.search(rf"^{argument}$", text, re.MULTILINE), argument
    for field in fusedstep.Report._fields:
        assert re.search(rf"^{field}$", inspect.getdoc(fusedstep.Report) or "", re.MULTILINE), field
