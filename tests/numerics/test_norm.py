"""The norm of the gradients: its definition, its accuracy, and the same bits everywhere."""

from __future__ import annotations

import math
from fractions import Fraction
from typing import Any

import numpy as np
import pytest
from cases import DTYPES, difficult, difficult_but_finite, ordinary
from marks import for_each_dtype, needs, on_each_backend, on_each_compiled_backend

import fusedstep as fs
from fusedstep._arrays.overlap import WrittenMemory
from fusedstep._arrays.place import HOST
from fusedstep._arrays.walk import Operand, Walk
from fusedstep._backends.choose import table_of
from fusedstep._backends.plan import Job, Plan, Row
from fusedstep._numerics import norm
from fusedstep._numerics.coefficients import Rule

SIZES = [0, 1, 2, 31, 32, 33, 64, 65, 4095, 4096, 4097, 4129, 8192, 12_289]


def block_sums(g: np.ndarray[Any, Any]) -> list[tuple[float, ...]]:
    """The sums that norm.py promises, one element at a time."""
    done = []
    for start in range(0, g.size, 4096):
        lanes = [[0.0] * 32 for _ in range(3)]
        for i, x in enumerate(g[start : start + 4096].tolist()):
            of, factor = 1, 1.0
            if g.dtype == np.float64 and abs(x) < 2.0**-500:
                of, factor = 0, 2.0**600
            if g.dtype == np.float64 and abs(x) > 2.0**480:
                of, factor = 2, 2.0**-560
            lanes[of][i % 32] += (x * factor) ** 2
        done.append(tuple(folded(lane) for lane in lanes))
    return done


def folded(values: list[float]) -> float:
    """Add the upper half to the lower until one is left; the lower may be longer by one."""
    while len(values) > 1:
        half = (len(values) + 1) // 2
        upper = values[half:] + [0.0] * (half - len(values[half:]))
        values = [x + y for x, y in zip(values[:half], upper, strict=True)]
    return values[0] if values else 0.0


def measured(grads: list[Any], backend: str) -> float:
    """The norm that a step reports, which here moves nothing."""
    params = [np.zeros(g.shape, g.dtype) for g in grads]
    report = fs.SGD(params, lr=0.0, backend=backend).step(grads, max_norm=np.inf)
    assert report.grad_norm is not None
    assert report.clip == 1
    return report.grad_norm


def exact(grads: list[Any]) -> float:
    """The norm, rounded once or twice."""
    total = sum((Fraction(x) ** 2 for g in grads for x in g.ravel().tolist()), Fraction(0))
    if total == 0:
        return 0.0
    shift = (total.numerator.bit_length() - total.denominator.bit_length()) // 2
    scaled = total / Fraction(4) ** shift
    root = math.sqrt(scaled)
    return math.ldexp(root, shift) if math.frexp(root)[1] + shift <= 1024 else math.inf


def same(x: float, y: float) -> bool:
    return x == y or (x != x and y != y)


@for_each_dtype
@pytest.mark.parametrize("make", [difficult, difficult_but_finite, ordinary])
def test_the_reference_does_what_it_says(make: Any, dtype: Any) -> None:
    for n in SIZES:
        g = make(np.random.default_rng(n), n, dtype)
        with np.errstate(all="ignore"):
            sums = norm.squares(g)
        assert sums.shape == (norm.blocks(n), 3)
        expected = block_sums(g)
        np.testing.assert_array_equal(sums, np.array(expected).reshape(-1, 3))
        total = tuple(folded([block[of] for block in expected]) for of in range(3))
        np.testing.assert_array_equal(norm.total(sums), total)
        assert norm.is_finite(norm.total(sums)) == bool(np.isfinite(g).all())


@for_each_dtype
@on_each_backend
@pytest.mark.parametrize("make", [difficult_but_finite, ordinary])
def test_accuracy(make: Any, backend: str, dtype: Any) -> None:
    for n in [1, 5, 100, 5000]:
        grads = [make(np.random.default_rng(n + k), n, dtype) for k in range(3)]
        assert measured(grads, backend) == pytest.approx(exact(grads), rel=1e-14, abs=0)


@on_each_backend
@pytest.mark.parametrize(
    ("values", "expected"),
    [
        (np.array([3e38, 3e38, -3e38, 3e38], np.float32), 6e38),
        (np.array([1e-45, 1e-45, 1e-45, 1e-45], np.float32), 2 * float(np.float32(1e-45))),
        (np.array([1e200, -1e200, 1e200, 1e200], np.float64), 2e200),
        (np.array([1e-200, -1e-200, 1e-200, 1e-200], np.float64), 2e-200),
        (np.array([3e-320, -4e-320], np.float64), 5e-320),
        (np.array([1e300, 1.0, 1e-300], np.float64), 1e300),
        (np.array([3.0, 1e-300, 4.0], np.float64), 5.0),
        (np.array([1.5e308], np.float64), 1.5e308),
        (np.array([1.5e308, 1.5e308], np.float64), math.inf),
    ],
)
def test_squares_neither_overflow_nor_vanish(values: Any, expected: float, backend: str) -> None:
    found = measured([values], backend)
    assert found == pytest.approx(exact([values]), rel=1e-14, abs=5e-324)
    # The expectation above, as far as such values have digits.
    assert found == pytest.approx(expected, rel=1e-6 if values.itemsize == 4 else 1e-3)


@for_each_dtype
@on_each_backend
@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
def test_one_element_that_is_not_finite_is_seen(bad: float, backend: str, dtype: Any) -> None:
    for n in [1, 33, 4097]:
        for at in {0, n // 2, n - 1}:
            g = np.ones(n, dtype)
            g[at] = bad
            opt = fs.SGD(np.zeros(n, dtype), nonfinite="skip", backend=backend)
            assert opt.step(g).skipped == ("params",)
            found = measured([g], backend)
            assert found != found if bad != bad else found == np.inf


@for_each_dtype
def test_the_same_bits_on_each_isa(isa: str, threads: int, dtype: Any) -> None:
    for n in [*SIZES, 100_003]:
        for make in (difficult, difficult_but_finite, ordinary):
            g = make(np.random.default_rng(n), n, dtype)
            assert same(measured([g], "c"), measured([g], "numpy"))


@for_each_dtype
@on_each_compiled_backend
def test_the_same_bits_for_many_tensors(backend: str, threads: int, dtype: Any) -> None:
    """Threads take blocks of several tensors, in any order."""
    rng = np.random.default_rng(1)
    sizes = [*rng.integers(0, 300, 300), 0, 70_001, 4096, *rng.integers(0, 9000, 30), 0]
    grads = [ordinary(rng, n, dtype) for n in sizes]
    expected = measured(grads, "numpy")
    assert {measured(grads, backend) for _ in range(5)} == {expected}


@on_each_compiled_backend
def test_dtypes_may_mix(backend: str) -> None:
    rng = np.random.default_rng(2)
    grads = [ordinary(rng, 1000 + k, DTYPES[k % 2]) for k in range(6)]
    assert measured(grads, backend) == measured(grads, "numpy")
    assert measured(grads, backend) == pytest.approx(exact(grads), rel=1e-14)


@on_each_backend
def test_only_the_parameters_layout_decides(backend: str) -> None:
    """A gradient is summed in the order of its parameter's memory, whatever its own is."""
    rng = np.random.default_rng(3)
    g = ordinary(rng, 70 * 90, np.float32).reshape(70, 90)
    gap = np.empty((70, 180), np.float32)[:, ::2]
    gap[...] = g
    assert measured([g], backend) == measured([np.asfortranarray(g)], backend)
    assert measured([g], backend) == measured([gap], backend)
    assert measured([g], backend) == measured([g.reshape(-1)], backend)


def test_agrees_with_torch() -> None:
    torch = needs("torch", "torch")
    rng = np.random.default_rng(4)
    grads = [ordinary(rng, n, np.float64) for n in (10, 1000, 4321)]
    params = [torch.nn.Parameter(torch.zeros(g.shape, dtype=torch.float64)) for g in grads]
    for p, g in zip(params, grads, strict=True):
        p.grad = torch.from_numpy(g.copy())
    theirs = float(torch.nn.utils.clip_grad_norm_(params, math.inf))
    assert measured(grads, "numpy") == pytest.approx(theirs, rel=1e-12)


@on_each_compiled_backend
def test_past_2_to_the_31(backend: str) -> None:
    """Pages that nobody wrote to are all one page of zeros, so this takes little memory."""
    n = 2**31 + 4099
    p, g = np.zeros(n, np.float32), np.zeros(n, np.float32)
    opt = fs.SGD(p, nonfinite="raise", backend=backend)
    g[[5, -1]] = 3.0, 4.0
    walk, rule = Walk(p, HOST), Rule("sgd")
    row = Row(Operand(p, walk), walk, rule, lambda letter: Operand(p, walk))
    plan = Plan(table_of(backend), [Job(rule, p.dtype)], [row], WrittenMemory(()))
    plan.set_gradient(0, g)
    assert plan.measure(1.0, math.inf).norm == 5
    g[-1] = np.nan
    with pytest.raises(FloatingPointError, match="grads "):
        opt.step(g)
