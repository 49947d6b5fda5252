"""fusedstep.autograd against the optimizers of HIPS autograd itself."""

from __future__ import annotations

import inspect
import subprocess
import sys
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from marks import needs

import fusedstep as fs

autograd = needs("autograd", "autograd")

from autograd.misc import flatten  # noqa: E402
from autograd.misc import optimizers as theirs  # noqa: E402

import fusedstep.autograd as ours  # noqa: E402

NAMES = ["adam", "sgd", "rmsprop"]

STARTS: dict[str, Callable[[], Any]] = {
    "array": lambda: np.linspace(-2, 2, 12).reshape(3, 4),
    "number": lambda: 1.5,
    "list of tuples": lambda: [(np.ones((2, 3)), np.zeros(3)), (np.ones((3, 1)), np.zeros(1))],
    "dict": lambda: {"w": [np.ones(2), np.arange(3.0)], "b": 0.5, "none": []},
    "float32": lambda: {"w": np.ones(5, np.float32)},
}

OPTIONS: dict[str, list[dict[str, Any]]] = {
    "adam": [{}, {"step_size": 0.1, "b1": 0.5, "b2": 0.8, "eps": 1e-3}, {"step_size": -0.01}],
    "sgd": [{}, {"step_size": 0.3, "mass": 0.5}, {"mass": 0.0}, {"mass": 1.0}],
    "rmsprop": [{}, {"step_size": 0.05, "gamma": 0.5, "eps": 0.1}],
}


def slope(params: Any, i: int) -> Any:
    """The gradient of an objective that changes with the iteration."""

    def objective(params: Any) -> Any:
        x, _ = flatten(params)
        return 0.5 * autograd.numpy.sum(x**2) + autograd.numpy.sum(autograd.numpy.sin(x + i))

    return autograd.grad(objective)(params)


@pytest.mark.parametrize("start", STARTS)
@pytest.mark.parametrize(
    ("name", "options"), [(name, options) for name in NAMES for options in OPTIONS[name]], ids=str
)
def test_the_same_results_and_callbacks(name: str, options: dict[str, Any], start: str) -> None:
    tolerance = 1e-6 if start == "float32" else 1e-12  # autograd rounds the first step to that
    kept: list[list[Any]] = [[], []]
    given = STARTS[start]()
    before = flatten(given)[0].copy()
    ends = [
        getattr(module, name)(
            slope, given, lambda *seen, kept=own: kept.append(seen), num_iters=40, **options
        )
        for module, own in zip((theirs, ours), kept, strict=True)
    ]
    assert (flatten(given)[0] == before).all()
    assert len(kept[0]) == len(kept[1]) == 40
    for (x, i, g), (y, j, h) in zip(*kept, strict=True):
        assert i == j
        assert_equal(y, x, tolerance)
        assert_equal(h, g, tolerance)
    assert_equal(ends[1], ends[0], tolerance)
    assert flatten(ends[1])[0].dtype == flatten(ends[0])[0].dtype


def assert_equal(found: Any, expected: Any, tolerance: float) -> None:
    one, other = flatten(found)[0], flatten(expected)[0]
    np.testing.assert_allclose(one, other, rtol=0, atol=tolerance * max(1, abs(other).max()))
    assert repr_of(found) == repr_of(expected)


def repr_of(tree: Any) -> str:
    """The containers of a structure, and the shapes in it."""
    if isinstance(tree, dict):
        return str({key: repr_of(item) for key, item in tree.items()})
    if isinstance(tree, (list, tuple)):
        return f"{type(tree).__name__}{[repr_of(item) for item in tree]}"
    return str(np.shape(tree))


@pytest.mark.parametrize("name", NAMES)
def test_signatures_are_autograds(name: str) -> None:
    mine = inspect.signature(getattr(ours, name)).parameters
    cells = getattr(theirs, name).__closure__  # what autograd wraps it in takes *args
    (inner,) = (cell.cell_contents for cell in cells if inspect.isfunction(cell.cell_contents))
    wrapped = inspect.signature(inner).parameters
    assert [each.replace("x0", "x") for each in mine] == [*wrapped]
    for one, other in zip(mine.values(), wrapped.values(), strict=True):
        assert one.default == other.default


def test_adamw_decays_before_each_step() -> None:
    x0 = [(np.ones((2, 2)), np.full(2, 3.0))]
    p = flatten(x0)[0]
    opt = fs.AdamW(p, lr=0.1, betas=(0.8, 0.9), weight_decay=0.3)
    for i in range(20):
        opt.step(p + np.cos(p + i))
    options: dict[str, Any] = {
        "step_size": 0.1,
        "b1": 0.8,
        "b2": 0.9,
        "weight_decay": 0.3,
        "num_iters": 20,
    }
    np.testing.assert_allclose(flatten(ours.adamw(slope, x0, **options))[0], p, atol=1e-12)


def test_any_optimizer_minimizes() -> None:
    end = ours.minimize(fs.rules.Lion, slope, {"w": np.ones(3)}, num_iters=5, lr=0.5)
    p = np.ones(3)
    opt = fs.rules.Lion(p, lr=0.5)
    for i in range(5):
        opt.step(p + np.cos(p + i))
    np.testing.assert_allclose(end["w"], p, atol=1e-12)
    assert ours.minimize(fs.SGD, slope, [1.0], num_iters=0) == [1.0]


def test_an_arenas_containers_are_structures_to_begin_with() -> None:
    arena = fs.Arena([(np.ones((2, 2)), np.zeros(2))])
    end = ours.adam(slope, arena.params, num_iters=3)
    assert type(end) is list
    assert type(end[0]) is tuple
    assert (arena.params[0][0] == 1).all()


def test_complex_parameters_are_refused_and_the_remedy_works() -> None:
    x = np.array([1 + 2j])
    with pytest.raises(TypeError, match=r"complex numbers; .*`x\.real, x\.imag`"):
        ours.adam(slope, [x])
    assert len(ours.adam(slope, [x.real, x.imag], num_iters=1)) == 2


def test_what_our_optimizers_refuse_is_refused() -> None:
    with pytest.raises(ValueError, match=r"betas\[0\]=1.0 is outside"):
        ours.adam(slope, 1.0, b1=1.0)


def test_without_autograd_the_extra_is_named() -> None:
    code = (
        "import sys; sys.modules['autograd'] = None; import fusedstep as fs\n"
        "try: fs.autograd\n"
        "except ImportError as error: assert \"pip install 'fusedstep[autograd]'\" in str(error)\n"
        "else: raise SystemExit('no error')"
    )
    subprocess.run([sys.executable, "-c", code], check=True)
