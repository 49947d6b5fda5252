"""Steps that clip each gradient by its own norm."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest
from cases import CUSTOM_BASES, DTYPES, differing_bits, ordinary
from marks import COMPILING, on_each_backend, on_each_compiled_backend

import fusedstep as fs
from fusedstep import rules

SIZES = [0, 1, 3, 17, 33, 65, 1027, 4096, 4097, 9000]
"""Around a lane, a vector and a block of the norm."""

REQUESTS: list[dict[str, Any]] = [
    {},
    {"scale": 0.3, "zero_grads": True},
    {"scale": 3.0, "max_value": 0.02, "zero_grads": True},
]


def problem(seed: int) -> tuple[list[Any], list[Any]]:
    """Parameters of both dtypes, and gradients whose norms lie below 1 and far above; two None."""
    rng = np.random.default_rng(seed)
    sizes = [*SIZES, *rng.permutation(SIZES)]
    start = [ordinary(rng, n, DTYPES[k % 2]) for k, n in enumerate(sizes)]
    sizes_of_g = 10.0 ** rng.uniform(-4, 2, len(start))
    grads = [
        (ordinary(rng, p.size, p.dtype) * size).astype(p.dtype)
        for p, size in zip(start, sizes_of_g, strict=True)
    ]
    return start, [None if k % 7 == 3 else g for k, g in enumerate(grads)]


def assert_same(found: list[Any], expected: list[Any]) -> None:
    for x, y in zip(found, expected, strict=True):
        assert differing_bits(x, y) == 0


def clipped_apart(
    make: Any, start: list[Any], grads: list[Any], **request: Any
) -> tuple[list[Any], list[float]]:
    """Parameters after two steps of an optimizer for each, and the factors of the second step."""
    params, factors = [p.copy() for p in start], []
    for p, g in zip(params, grads, strict=True):
        if g is None:
            continue
        opt = make(p, backend="numpy")
        for _ in range(2):
            report = opt.step(g.copy(), max_norm=1.0, **request)
        factors.append(report.clip)
    return params, factors


@on_each_backend
@pytest.mark.parametrize("request_", REQUESTS, ids=str)
@pytest.mark.parametrize(
    "make",
    [
        lambda p, **more: fs.SGD(p, lr=0.1, momentum=0.9, **more),
        lambda p, **more: fs.AdamW(p, weight_decay=0.1, ema=0.9, **more),
        lambda p, **more: fs.Adam(p, maximize=True, weight_decay=0.1, l1=0.01, **more),
    ],
    ids=["sgd", "adamw", "adam"],
)
def test_each_is_clipped_as_if_it_were_alone(
    make: Any, request_: dict[str, Any], backend: str, threads: int
) -> None:
    start, grads = problem(1)
    expected, factors = clipped_apart(make, start, grads, **request_)
    params = [p.copy() for p in start]
    opt = make(params, backend=backend)
    for _ in range(2):
        report = opt.step(
            [None if g is None else g.copy() for g in grads],
            max_norm=1.0,
            clip="tensor",
            **request_,
        )
    assert_same(params, expected)
    assert 0 < min(factors) < 1 == max(factors)
    assert report.clip == min(factors)


@on_each_compiled_backend
def test_large_tensors_in_pieces(backend: str, threads: int) -> None:
    rng = np.random.default_rng(2)
    start = [ordinary(rng, n, np.float32) for n in (70_001, 40, 33_000, 100_003)]
    grads = [ordinary(rng, p.size, np.float32) * size for p, size in zip(start, (3, 1e-4, 1, 9))]  # noqa: B905
    grads = [g.astype(np.float32) for g in grads]
    results = []
    for name in (backend, "numpy"):
        params = [p.copy() for p in start]
        opt = fs.Adam(params, lr=0.1, backend=name)
        reports = [opt.step(grads, max_norm=2.0, clip="tensor") for _ in range(3)]
        results.append((params, reports))
    assert results[0][1] == results[1][1]
    assert_same(results[0][0], results[1][0])


@pytest.mark.parametrize("backend", COMPILING)
@pytest.mark.parametrize("case", CUSTOM_BASES[::3], ids=str)
def test_custom_rules(case: Any, backend: str) -> None:
    start, grads = problem(3)
    start, grads = start[:8], grads[:8]
    expected, _ = clipped_apart(
        lambda p, **more: case.optimizer(p, **case.options, **more), start, grads
    )
    params = [p.copy() for p in start]
    opt = case.optimizer(params, **case.options, backend=backend)
    for _ in range(2):
        opt.step(grads, max_norm=1.0, clip="tensor")
    assert_same(params, expected)


def test_a_custom_rule_with_many_hyperparameters() -> None:
    """The scalars of a row are as many as its rule has."""
    p, g = np.ones(3), np.array([3.0, 0.0, 4.0])
    opt = rules.Lion([p, p.copy()], lr=0.5)
    opt.step([g, 0.01 * g], max_norm=1.0, clip="tensor")
    assert opt.state[0]["m"].tolist() == ((1 - 0.99) * (0.2 * g)).tolist()


@on_each_backend
def test_steps_of_both_kinds_in_turn(backend: str, threads: int) -> None:
    """No factor outlives its step."""
    start, grads = problem(4)
    results = []
    for name in (backend, "numpy"):
        params = [p.copy() for p in start]
        opt = fs.AdamW(params, lr=0.1, backend=name)
        reports = []
        for request in (
            {"max_norm": 1.0, "clip": "tensor"},
            {},
            {"max_norm": 1.0},
            {"max_norm": 1.0, "clip": "tensor"},
            {"scale": 2.0},
            {"max_norm": math.inf, "clip": "tensor"},
        ):
            reports.append(opt.step(grads, **request))
        results.append((params, reports))
    assert results[0][1] == results[1][1]
    assert_same(results[0][0], results[1][0])
    clips = [report.clip for report in results[0][1]]
    assert clips[0] == clips[3] < 1
    assert clips[1] == clips[4] == clips[5] == 1
    assert results[0][1][0].grad_norm == results[0][1][2].grad_norm == results[0][1][5].grad_norm


@on_each_backend
def test_an_arena_is_clipped_parameter_by_parameter(backend: str, threads: int) -> None:
    rng = np.random.default_rng(5)
    start = {f"p{k}": ordinary(rng, n, DTYPES[k % 2]) for k, n in enumerate(SIZES)}
    for request in REQUESTS:
        arena = fs.Arena(start)
        opt = fs.AdamW(arena, lr=0.1, ema=0.5, backend=backend)
        alone = {name: p.copy() for name, p in start.items()}
        reference = fs.AdamW(alone, lr=0.1, ema=0.5, backend="numpy")
        for t in range(6):
            grads = {
                name: (ordinary(rng, p.size, p.dtype) * 10.0 ** (k % 5 - 3)).astype(p.dtype)
                for k, (name, p) in enumerate(start.items())
            }
            for name, g in grads.items():
                arena.grads[name][...] = g
            # Every other step goes over the whole arena at once.
            own = {"max_norm": 0.5, "clip": "tensor", **request} if t % 2 else request
            found, expected = opt.step(**own), reference.step(grads, **own)
            assert found == expected
            assert found.t == t + 1
        for name in start:
            assert differing_bits(np.asarray(arena.params[name]), alone[name]) == 0
            for letter in ("m", "v", "ema"):
                x, y = opt.state[name][letter], reference.state[name][letter]
                assert differing_bits(np.asarray(x), y) == 0
            assert opt.state[name]["t"] == 6


@on_each_backend
def test_one_gradient_that_is_not_finite_spoils_no_other(backend: str) -> None:
    params = [np.zeros(2), np.zeros(2), np.zeros(2)]
    grads = [np.array([3.0, 4.0]), np.array([np.nan, 1.0]), np.array([np.inf, 1.0])]
    report = fs.SGD(params, lr=1.0, backend=backend).step(grads, max_norm=1.0, clip="tensor")
    assert params[0].tolist() == [-3 * (1 / 5), -4 * (1 / 5)]
    assert np.isnan(params[1]).all()
    assert np.isnan(params[2][0])
    assert params[2][1] == 0
    assert math.isnan(report.clip)
    assert report.grad_norm is not None
    assert not math.isfinite(report.grad_norm)


@on_each_backend
@pytest.mark.parametrize("arena", [False, True])
def test_policies_for_what_is_not_finite(backend: str, arena: bool) -> None:
    start = {"w": np.ones(2), "b": np.ones(3)}
    bad = {"w": np.array([np.inf, 1.0]), "b": np.ones(3)}
    params: Any = fs.Arena(start) if arena else start
    opt = fs.SGD(params, nonfinite="skip", backend=backend)
    if arena:
        for name, g in bad.items():
            params.grads[name][...] = g
    grads = () if arena else (bad,)
    report = opt.step(*grads, max_norm=1.0, clip="tensor")
    assert report.skipped == ("params['w']",)
    assert (report.clip, report.t) == (1.0, 0)
    held = params.params if arena else start
    assert all((np.asarray(p) == 1).all() for p in held.values())


@on_each_backend
def test_groups_share_no_norm_either(backend: str) -> None:
    one, two = np.zeros(2), np.zeros(2)
    groups = [{"params": [one], "lr": 1.0}, {"params": [two], "lr": 0.1}]
    report = fs.SGD(groups, backend=backend).step(
        [[np.array([6.0, 8.0])], [np.array([0.0, 0.5])]], max_norm=1.0, clip="tensor"
    )
    assert one.tolist() == [-(0.1 * 6), -(0.1 * 8)]
    assert two.tolist() == [0.0, -(0.1 * 0.5)]
    assert report == fs.Report(math.sqrt(100.25), 0.1, (), 1)


@on_each_backend
def test_layouts_of_any_kind(backend: str) -> None:
    """A gradient's norm is of its elements in the order of its parameter's memory."""
    rng = np.random.default_rng(6)
    p, g = rng.normal(size=(40, 30)).T, rng.normal(size=(30, 40))
    gaps, h = rng.normal(size=(8, 6))[:, ::2], rng.normal(size=(8, 3))
    results = []
    for name in (backend, "numpy"):
        params = [p.copy(order="K"), gaps.copy(order="K")]
        opt = fs.Adam(params, backend=name)
        report = opt.step([g, h[::-1]], max_norm=0.3, clip="tensor")
        results.append((params, report))
    assert results[0][1] == results[1][1]
    assert_same(results[0][0], results[1][0])


@pytest.mark.parametrize(
    ("request_", "message"),
    [
        ({"clip": "tensor"}, r"clip='tensor' .*pass `max_norm=1.0`"),
        ({"clip": 1.0}, r"clip=1.0 .*pass one of 'global', 'tensor'.*max_norm"),
        ({"clip": "Tensor", "max_norm": 1.0}, r"clip='Tensor' .*pass one of"),
        ({"clip": None, "max_norm": 1.0}, r"clip=None; pass one of"),
        ({"clip": ["tensor"], "max_norm": 1.0}, r"clip="),
    ],
    ids=str,
)
def test_refusals_change_nothing(request_: Any, message: str) -> None:
    p = np.ones(3)
    opt = fs.Adam(p)
    with pytest.raises(ValueError, match=message):
        opt.step(np.ones(3), **request_)
    assert (p == 1).all()
    assert opt.state["t"] == 0


def test_global_may_be_said() -> None:
    p, q = np.ones(3), np.ones(3)
    said = fs.SGD(p).step(np.ones(3), max_norm=1.0, clip="global")
    assert said == fs.SGD(q).step(np.ones(3), max_norm=1.0)
    assert fs.SGD(np.ones(3)).step(np.ones(3), clip="global").grad_norm is None
    assert (p == q).all()
