"""Custom rules, copies, lookahead and functional steps on a device."""

from __future__ import annotations

import pickle
from typing import Any

import formulas
import numpy as np
import pytest
from cases import BASES, DTYPES, Case, differing_bits, difficult, ordinary
from device import Placed, assert_equal_state, assert_same, cuda
from memory_layouts import LAYOUTS, SHAPE

import fusedstep as fs
from fusedstep import rules

pytestmark = pytest.mark.filterwarnings("error")


@fs.rule(state=tuple("abcdefij"), lr=0.5, fast=True)
def eight(p, g, a, b, c, d, e, f, i, j, h):  # type: ignore[no-untyped-def]
    if h.fast and g > 0:
        a = a + g
    b, c, d, e = a - b, abs(c - g), np.maximum(d, -g), e + 1
    u = np.sqrt(abs(g)) / (1 + b**2)
    return p - h.lr * u, a, b, c, d, e, min(f, g), i - u, np.where(g > j, g, j)


@fs.rule(lr=0.5)
def run(p, g, h):  # type: ignore[no-untyped-def]
    """A name that the kernel has too, and no scalars."""
    return p - g / 3


NAMED_LIKE_PARTS = [
    fs.rule(state=each.state, **each.hyperparameters)(each.function)
    for each in formulas.ALLOWED
    if each.function.__name__ in ("run", "compiled", "step", "hiding")
]
"""Rules with names that the text of a kernel has, too."""


@cuda
@pytest.mark.parametrize("dtype", DTYPES, ids=lambda dtype: dtype.__name__)
@pytest.mark.parametrize(
    "rule", [eight, run, *NAMED_LIKE_PARTS, *(getattr(rules, name) for name in rules.__all__)]
)
def test_custom_rules(rule: Any, dtype: Any) -> None:
    rng = np.random.default_rng(0)
    values = difficult(rng, 50, dtype)
    p, q = Placed(values), values.copy()
    optimizer, reference = rule(p.array, maximize=True), rule(q, backend="numpy", maximize=True)
    for _ in range(3):
        g = difficult(rng, 50, dtype)
        optimizer.step(Placed(g).array)
        reference.step(g)
    assert differing_bits(p.host, q) == 0
    assert_equal_state(optimizer.state_dict()["state"], reference.state_dict()["state"])


@cuda
@pytest.mark.parametrize("case", BASES, ids=lambda case: case.name)
def test_to_the_cpu_and_back(case: Case) -> None:
    rng = np.random.default_rng(0)
    values = [ordinary(rng, 12, np.float32).reshape(3, 4), ordinary(rng, 9, np.float64)]
    values[0] = np.asfortranarray(values[0])
    grads = [[ordinary(rng, p.size, p.dtype).reshape(p.shape) for p in values] for _ in range(3)]
    expected = [p.copy(order="K") for p in values]
    reference = case.optimizer(expected, **case.options)
    before = [Placed(p) for p in values]
    first = case.optimizer([p.array for p in before], **case.options)
    first.step([Placed(g).array for g in grads[0]])
    between = [p.host for p in before]
    second = case.optimizer(between, **case.options)
    second.load_state_dict(pickle.loads(pickle.dumps(first.state_dict())))
    second.step(grads[1])
    after = [Placed(p) for p in between]
    third = case.optimizer([p.array for p in after], **case.options)
    third.load_state_dict(second.state_dict())
    third.step([Placed(g).array for g in grads[2]])
    for g in grads:
        reference.step(g)
    assert_same(third, after, reference, expected)


@cuda
@pytest.mark.parametrize("dtype", DTYPES, ids=lambda dtype: dtype.__name__)
def test_lookahead(dtype: Any, library: str) -> None:
    """Parameters go ahead with the reference's bits and come back to their own, in any layout."""
    rng = np.random.default_rng(0)
    made = [LAYOUTS[name](dtype) for name in ("c_order", "f_order", "every_other_column")]
    for view, _ in made:
        view[...] = ordinary(rng, view.size, dtype).reshape(SHAPE)
    made += [(view := np.zeros(n, dtype), view) for n in (0, 1, 1025)]
    params = [Placed(view, memory, library) for view, memory in made]
    expected = [np.array(view, order="C") for view, _ in made]
    optimizer = fs.SGD([p.array for p in params], lr=0.3, momentum=0.7)
    reference = fs.SGD(expected, lr=0.3, momentum=0.7, backend="numpy")
    for _ in range(3):
        before = [p.memory for p in params]
        with optimizer.lookahead(), reference.lookahead():
            for p, q in zip(params, expected, strict=True):
                assert differing_bits(p.host, q) == 0
        assert [p.memory for p in params] == before
        grads = [ordinary(rng, q.size, dtype).reshape(q.shape) for q in expected]
        optimizer.step([Placed(g, library=library).array for g in grads])
        reference.step(grads)
    assert_same(optimizer, params, reference, expected)


@cuda
def test_functional() -> None:
    rng = np.random.default_rng(0)
    arrays = [ordinary(rng, 20, np.float32) for _ in range(4)]
    arrays[3] = np.abs(arrays[3])
    placed = [Placed(array) for array in arrays]
    fs.functional.adamw(*[each.array for each in placed], t=1)
    fs.functional.adamw(*arrays, t=1, backend="numpy")
    for found, expected in zip(placed, arrays, strict=True):
        assert differing_bits(found.host, expected) == 0
    with pytest.raises(ValueError, match=r"g is on the CPU.*cuda\.to_device"):
        fs.functional.sgd(placed[0].array, arrays[1], t=1)
    with pytest.raises(ValueError, match=r"m is on a CUDA device.*copy_to_host"):
        fs.functional.adam(arrays[0], arrays[1], placed[2].array, arrays[3], t=1)


@cuda
def test_gradients_that_move(library: str) -> None:
    """New arrays at every step, the same in other places, and the same with other contents."""
    p = Placed(np.zeros((3, 4), np.float32), library=library)
    optimizer = fs.SGD(p.array, lr=1.0)
    kept = []
    for step in range(20):
        g = np.full((3, 4), 1 if step % 2 else 2, np.float32)
        made = Placed(g if step % 5 else np.asfortranarray(g), library=library)
        kept.append(made)
        optimizer.step(made.array)
    for again in (kept[1], kept[2], kept[2]):
        optimizer.step(again.array)
    kept[2].write(np.full(12, 10, np.float32).view(np.uint8))
    optimizer.step(kept[2].array)
    assert (p.host == -(20 * 1.5 + 1 + 2 + 2 + 10)).all()
