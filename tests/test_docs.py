"""What the documentation shows does run, and does what it says."""

from __future__ import annotations

import doctest
import importlib
import inspect
import pkgutil
import re
import runpy
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from conftest import MISSING

import fusedstep

README = (Path(__file__).parent.parent / "README.md").read_text()
NEEDS_CUDA = (".cuda", ".device", ".driver", ".gpu", ".simulator")
MODULES = [
    module.name
    for module in pkgutil.walk_packages(fusedstep.__path__, "fusedstep.")
    if not module.name.endswith((".__main__", "._engine", *((".c", ".runner") if MISSING else ())))
    and (find_spec("numba_cuda") or not module.name.endswith(NEEDS_CUDA))
]


@pytest.mark.parametrize("name", ["fusedstep", *MODULES])
def test_docstrings(name: str) -> None:
    assert doctest.testmod(importlib.import_module(name)).failed == 0


@pytest.mark.parametrize("name", ["SGD", "Adagrad", "RMSprop", "Adam", "AdamW"])
def test_every_argument_is_described(name: str) -> None:
    """Each with its own line, and each class with an example that runs."""
    optimizer: Any = getattr(fusedstep, name)
    arguments = list(inspect.signature(optimizer).parameters)
    text = inspect.getdoc(optimizer) or ""
    for argument in arguments:
        assert re.search(rf"^{argument}$", text, re.MULTILINE), argument
    assert ">>> " in text


@pytest.fixture(scope="module")
def readme(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """What the README's Python leaves behind, run block after block from a file."""
    blocks = re.findall(r"```python\n(.*?)```", README, re.DOTALL)
    path = tmp_path_factory.mktemp("readme") / "readme.py"
    path.write_text("\n".join(blocks))
    return runpy.run_path(str(path))


def test_the_training_loop_of_the_readme(readme: dict[str, Any]) -> None:
    assert readme["losses"][-1] < 0.1 * readme["losses"][0]
    assert all(np.isfinite(p).all() for p in readme["params"].values())


def test_the_rules_of_the_readme(readme: dict[str, Any]) -> None:
    assert readme["p"] == pytest.approx(np.full(1000, 1 - 3e-4))
    ours, own = np.ones((2, 50))
    optimizers = [fusedstep.Adam(ours), readme["Adam"](own)]
    for t in range(20):
        for optimizer in optimizers:
            optimizer.step(np.linspace(-1, 2, 50) ** (t % 3))
    assert own == pytest.approx(ours, rel=1e-12)


def test_the_schedule_of_the_readme(readme: dict[str, Any]) -> None:
    assert readme["rates"] == pytest.approx([1e-5, 1e-3, 1e-3, 5e-4, 0.0])
    for name in fusedstep.schedules.SCHEDULES:
        assert f"| `{name}(" in README, name


def test_the_readme_names_every_option() -> None:
    for name in ("SGD", "Adagrad", "RMSprop", "Adam", "AdamW"):
        for argument in inspect.signature(getattr(fusedstep, name)).parameters:
            assert argument == "params" or f"`{argument}" in README, argument
