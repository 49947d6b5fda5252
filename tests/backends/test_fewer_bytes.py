"""Parameters, gradients and state in fewer bytes: the reference's bits on the CPU's backends."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import pytest
from fewer_bytes import (
    AT_ONCE,
    DTYPES,
    EVERY,
    FEW,
    KEPT,
    RULES,
    SIZES,
    Case,
    Rule,
    compare,
    differing,
    on,
    results,
    rounded,
)
from marks import needs_c, on_each_backend, on_each_compiled_backend
from memory_layouts import LAYOUTS, SHAPE

import fusedstep as fs

SHARED_SIZES = (5000, 100_003, 300)


EXPECTED: dict[Any, dict[str, Any]] = {}
"""The reference's results by the name of their case, which backends and threads share."""


def assert_same(case: Case, backend: str, sizes: Sequence[int] = SIZES) -> None:
    key = case.name, sizes
    if key not in EXPECTED:
        EXPECTED[key] = results(case, "numpy", sizes=sizes)
    assert compare(results(case, backend, sizes=sizes), EXPECTED[key])[1] == []


@on_each_compiled_backend
@pytest.mark.parametrize("kept", KEPT, ids=lambda kept: "-".join(map(str, kept)))
@pytest.mark.parametrize("rule", RULES, ids=lambda rule: rule.name)
def test_every_format(rule: Any, kept: tuple[str, Any], backend: str) -> None:
    cases = [case for case in EVERY if (case.rule, case.p, case.master) == (rule, *kept)]
    for case in on(backend, cases):
        assert_same(case, backend)


@pytest.fixture
def shared(monkeypatch: pytest.MonkeyPatch) -> None:
    """Helpers also in short steps, where Numba's own runner is in use."""
    from fusedstep._backends.numba import runner

    monkeypatch.setattr(runner, "WORTH_SHARING", 1)


@on_each_compiled_backend
@pytest.mark.parametrize("case", FEW, ids=lambda case: case.name)
@pytest.mark.usefixtures("threads", "shared")
def test_threads_share_a_step(case: Case, backend: str) -> None:
    for each in on(backend, [case]):
        assert_same(each, backend, SHARED_SIZES)


@needs_c
@pytest.mark.parametrize("case", [*on("c", FEW), *AT_ONCE], ids=lambda case: case.name)
@pytest.mark.usefixtures("isa")
def test_each_instruction_set(case: Case) -> None:
    assert_same(case, "c")


def operands_of(optimizer: Any) -> Any:
    """How an optimizer's only job holds its operands in C."""
    from fusedstep._engine import ffi

    (job,) = optimizer.layout.plan.table.of_jobs.in_c
    return ffi.cast("fs_operands *", job.operands)


@needs_c
@pytest.mark.parametrize("case", AT_ONCE, ids=lambda case: case.name)
@pytest.mark.parametrize(
    "options", [{}, {"weight_decay": 0.1}, {"l1": 0.01}, {"ema": 0.9}], ids=str
)
@pytest.mark.usefixtures("threads")
def test_at_once_and_tile_by_tile(case: Case, options: Any, isa: str) -> None:
    """Bit for bit the same: whatever the bits of p, wherever it begins."""
    from fusedstep._engine import ffi

    own = case._replace(rule=case.rule._replace(optimizer=fs.Adam, options=options))
    rng = np.random.default_rng(0)
    start = rng.integers(0, 2**16, 2 * 70_001, dtype=np.uint16)
    made = []
    for at_once in (True, False):
        memory = np.zeros(4 * 70_001 + 2, np.uint8)
        at = 2 if case.p == "bfloat16" else 0  # between two words
        p = memory[at : at + 70_001 * DTYPES[case.p].itemsize].view(DTYPES[case.p])
        p.view(np.uint16)[:] = start[: p.nbytes // 2]
        optimizer = own.optimizer(p, "c")
        for seed in range(3):
            rng = np.random.default_rng(seed)
            g = (rng.normal(size=p.size) * 10 ** rng.uniform(-9, 9)).astype("f4")
            g[seed::5000] = np.nan
            if seed == 1:
                operands = operands_of(optimizer)
                assert bool(operands.whole) == (isa == "avx512" or case not in AT_ONCE[:2])
                if not at_once:
                    operands.whole = ffi.NULL
            optimizer.step(rounded(g, case.g), zero_grads=seed == 2)
        made.append({"p": p, **optimizer.state_dict()["state"]})
    for name, array in made[0].items():
        assert differing(np.asarray(array), np.asarray(made[1][name])) == 0, name


# ruff: noqa: N802  a rule is a class


@fs.rule(state=("m", "v"), nonnegative=("v",), lr=1e-2, beta1=0.9, beta2=0.99, eps=1e-8)
def Own(p: Any, g: Any, m: Any, v: Any, h: Any) -> Any:
    m = h.beta1 * m + (1 - h.beta1) * g
    v = h.beta2 * v + (1 - h.beta2) * g**2
    return p - h.lr * m / (np.sqrt(v) + h.eps), m, v


@on_each_backend
@pytest.mark.parametrize("state_dtype", ["bfloat16", "8bit"])
def test_a_rule_of_the_user_s_own_has_all_formats(state_dtype: str, backend: str) -> None:
    backend = "auto" if backend == "c" else backend
    for p, master in KEPT:
        case = Case(Rule("own", Own, {}), p, master, "float32", state_dtype, "auto")
        assert_same(case, backend)


@on_each_compiled_backend
@pytest.mark.parametrize("kept", ["bfloat16", "float16"])
@pytest.mark.parametrize("layout", LAYOUTS)
def test_layouts(layout: str, kept: str, backend: str) -> None:
    """Arrays with gaps, or that begin between elements, go through scratch of 16 bits."""
    rng = np.random.default_rng(0)
    p, *grads = (LAYOUTS[layout](DTYPES[kept])[0] for _ in range(3))
    for view in (p, *grads):
        view[...] = rounded(rng.normal(size=SHAPE).astype("f4"), kept)
    expected = np.array(p, order="K")
    optimizer = fs.AdamW(p, seed=1, backend=backend)
    reference = fs.AdamW(expected, seed=1, backend="numpy")
    for g in grads:
        reference.step(g.copy(), max_norm=1.0)
        optimizer.step(g, max_norm=1.0, zero_grads=True)
        assert not g.copy().view(np.uint16).any()
    assert differing(p, expected) == 0
    assert differing(optimizer.float32_params(), reference.float32_params()) == 0


@on_each_compiled_backend
def test_each_gradient_is_clipped_by_itself(backend: str) -> None:
    """The same with a factor for each row, in one job of several rows."""
    made = {}
    for name in (backend, "numpy"):
        rng = np.random.default_rng(0)
        params = [rng.normal(size=n).astype(np.float16) for n in (5, 4500, 300)]
        grads = [rng.normal(size=p.size).astype(np.float16) for p in params]
        optimizer = fs.AdamW(params, backend=name, state_dtype="8bit", seed=1)
        for _ in range(3):
            optimizer.step([*grads], max_norm=1.0, clip="tensor")
        made[name] = params, optimizer.float32_params()
    for found, wanted in zip(*(made[name] for name in (backend, "numpy")), strict=True):
        assert all((a == b).all() for a, b in zip(found, wanted, strict=True))
