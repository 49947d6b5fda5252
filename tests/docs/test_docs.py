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
from marks import MISSING

import fusedstep

README = (Path(__file__).parents[2] / "README.md").read_text()
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


def test_the_whole_step_of_the_readme(readme: dict[str, Any]) -> None:
    said = re.search(r"print\(report\)  # (.+)", README)
    assert said is not None
    shown = re.escape(said[1]).replace(r"\.\.\.", r"\d+")
    assert re.fullmatch(shown, str(readme["report"]))
    for g in readme["grads"].values():
        assert not g.any()
    assert readme["averaged"] == pytest.approx(np.full((64, 10), 1.0), abs=1e-5)


def test_the_arena_of_the_readme(readme: dict[str, Any]) -> None:
    before, after = readme["layers"], readme["arena"].params
    assert all(np.abs(p["b"] - 1).max() < 0.2 for p in after)
    assert all(not q["b"].any() for q in before)
    squares = [sum(np.vdot(p["w"], p["w"]) for p in layers) for layers in (before, after)]
    assert squares[1] < 0.1 * squares[0]
    assert 0 < readme["norm"] < 100


def test_the_schedule_of_the_readme(readme: dict[str, Any]) -> None:
    assert readme["rates"] == pytest.approx([1e-5, 1e-3, 1e-3, 5e-4, 0.0])
    for name in fusedstep.schedules.SCHEDULES:
        assert f"| `{name}(" in README, name


def test_the_readme_names_every_option() -> None:
    for name in CLASSES:
        for argument in inspect.signature(getattr(fusedstep, name)).parameters:
            assert argument == "params" or f"`{argument}" in README, argument


def test_the_links_of_the_readme_lead_somewhere() -> None:
    root = Path(__file__).parents[2]
    headings = re.findall(r"^#+ (.+)$", README, re.MULTILINE)
    anchors = [re.sub(r"[^\w -]", "", heading).lower().replace(" ", "-") for heading in headings]
    for target in re.findall(r"\]\(([^)]+)\)", README):
        assert target[1:] in anchors if target.startswith("#") else (root / target).exists(), target
