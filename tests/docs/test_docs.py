"""The examples in docstrings run, and docstrings describe every argument."""

from __future__ import annotations

import doctest
import importlib
import inspect
import pkgutil
import re
from importlib.util import find_spec
from typing import Any

import pytest
from marks import MISSING

import fusedstep

NEEDS_C = ("._backends.c.engine", "._backends.c.runner", ".limit") if MISSING else ()
NEEDS_CUDA = tuple(
    f"._backends.cuda.{name}" for name in ("engine", "device", "driver", "primitives", "simulator")
)
MODULES = [
    module.name
    for module in pkgutil.walk_packages(fusedstep.__path__, "fusedstep.")
    if not module.name.endswith((".__main__", "._engine", *NEEDS_C))
    and (find_spec("numba_cuda") or not module.name.endswith(NEEDS_CUDA))
]

CLASSES = fusedstep.optimizers.__all__


@pytest.mark.parametrize("name", ["fusedstep", *MODULES])
def test_docstrings(name: str) -> None:
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


def test_every_argument_of_a_step_is_described() -> None:
    text = inspect.getdoc(fusedstep.Optimizer.step) or ""
    for argument in [*inspect.signature(fusedstep.Optimizer.step).parameters][1:]:
        assert re.search(rf"^{argument}$", text, re.MULTILINE), argument
    for field in fusedstep.Report._fields:
        assert re.search(rf"^{field}$", inspect.getdoc(fusedstep.Report) or "", re.MULTILINE), field
