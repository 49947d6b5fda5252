"""What the documentation shows does run, and does what it says."""

from __future__ import annotations

import doctest
import importlib
import pkgutil
import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from conftest import MISSING

import fusedstep

README = (Path(__file__).parent.parent / "README.md").read_text()
MODULES = [
    module.name
    for module in pkgutil.walk_packages(fusedstep.__path__, "fusedstep.")
    if not module.name.endswith((".__main__", "._engine", ".c" if MISSING else "._engine"))
]


@pytest.mark.parametrize("name", ["fusedstep", *MODULES])
def test_docstrings(name: str) -> None:
    assert doctest.testmod(importlib.import_module(name)).failed == 0


@pytest.mark.parametrize("name", ["SGD", "Adagrad", "RMSprop", "Adam", "AdamW"])
def test_every_argument_is_described(name: str) -> None:
    """Each with its own line, and each class with an example that runs."""
    optimizer: Any = getattr(fusedstep, name)
    arguments = optimizer.__init__.__code__.co_varnames[: optimizer.__init__.__code__.co_argcount]
    arguments += tuple(optimizer.__init__.__kwdefaults__)
    for argument in arguments[1:]:
        assert re.search(rf"^    {argument}$", optimizer.__doc__, re.MULTILINE), argument
    assert ">>> " in optimizer.__doc__


def test_the_training_loop_of_the_readme() -> None:
    blocks = re.findall(r"```python\n(.*?)```", README, re.DOTALL)
    assert blocks
    for block in blocks:
        names: dict[str, Any] = {}
        exec(compile(block, "README.md", "exec"), names)
        assert names["losses"][-1] < 0.1 * names["losses"][0]
        assert all(np.isfinite(p).all() for p in names["params"].values())


def test_the_readme_names_every_option() -> None:
    for name in ("SGD", "Adagrad", "RMSprop", "Adam", "AdamW"):
        optimizer: Any = getattr(fusedstep, name)
        for argument in optimizer.__init__.__kwdefaults__:
            assert f"`{argument}" in README, argument
