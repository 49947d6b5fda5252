"""Steps in fewer bytes have the reference's bits: on each backend, by any number of threads."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from kept import RULES, array, cases, equal, told
from marks import ON_CPU, needs_c

import fusedstep as fs
from fusedstep._core.kept import SMALL

Array = np.ndarray[Any, Any]

SHAPES = [(3,), (1,), (255,), (SMALL + 1,), (80, 70), (2 * SMALL,)]


def stepped(backend: str, case: tuple[Any, dict[str, Any], Any, Any], shapes: Any) -> list[Array]:
    """Everything after some steps, of which the second is clipped and the third not finite."""
    optimizer, options, dtype, of_gradients = case
    rng = np.random.default_rng(7)
    params = [array(rng, shape, dtype) for shape in shapes]
    if len(params) > 4:
        params[4] = np.asfortranarray(params[4])[::-1]  # another walk
    opt = optimizer(params, backend=backend, **options)
    for k in range(4):
        scale = 10.0 ** rng.integers(-5, 3)
        grads: list[Any] = [array(rng, p.shape, of_gradients, scale) for p in params]
        if k == 2:
            for g in grads:
                g.reshape(-1)[:3] = [np.nan, np.inf, -np.inf][: g.size]
        if k == 3:
            grads[0] = None
        opt.step(grads, max_norm=5.0 if k == 1 else None, zero_grads=k == 1, scale=1 + k)
        if k == 1:
            assert not any(g.any() for g in grads)
    return told(opt, params)


@pytest.mark.parametrize("backend", ON_CPU[:-1])
@pytest.mark.parametrize(("optimizer", "options"), RULES, ids=lambda each: str(each)[:40])
def test_backends(optimizer: Any, options: Any, backend: str, threads: int) -> None:
    for case in cases([(optimizer, options)])[::7]:  # 7 divides no number of choices
        assert equal(stepped(backend, case, SHAPES), stepped("numpy", case, SHAPES)), case


@needs_c
@pytest.mark.parametrize("case", cases([RULES[-1]])[::5], ids=str)
def test_isas(case: Any, isa: str) -> None:
    shapes = [(17,), (SMALL + 100,)]
    assert equal(stepped("c", case, shapes), stepped("numpy", case, shapes))


@needs_c
def test_large_tensors_in_pieces(threads: int) -> None:
    """Chunks are cut at tiles, wherever threads take them from."""
    for case in cases([RULES[-1]])[::11]:
        shapes = [(70_001,), (300, 300)]
        assert equal(stepped("c", case, shapes), stepped("numpy", case, shapes)), case


# ruff: noqa: N802  a rule is a class


@fs.rule(state=("m", "v"), nonnegative=("v",), lr=1e-2, beta1=0.9, beta2=0.99, eps=1e-8)
def Own(p: Any, g: Any, m: Any, v: Any, h: Any) -> Any:
    m = h.beta1 * m + (1 - h.beta1) * g
    v = h.beta2 * v + (1 - h.beta2) * g**2
    return p - h.lr * m / (np.sqrt(v) + h.eps), m, v


def test_a_rule_of_the_user_s_own_has_all_formats() -> None:
    for case in cases([(Own, {})])[::7]:
        shapes = [(5,), (SMALL,)]
        assert equal(stepped("auto", case, shapes), stepped("numpy", case, shapes)), case
