"""Steps on streams, in memory of the host: whatever is asked for there, and nothing that is not.

The driver puts work off until somebody waits for its stream, so what comes on another stream, or
too early, is seen. Arrays are those of a library whose current stream the tests choose.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from cases import differing_bits, ordinary
from device import IN_MEMORY, Placed, cuda, in_memory, on_stream

import fusedstep as fs

if IN_MEMORY is not None:
    from pooled import Pool, now, order, put_off, recording, stream, wait, write

pytestmark = [cuda, in_memory, pytest.mark.filterwarnings("error")]

LATE, BY_CHANCE = 1, 2

SIZES = (5, 1025)


def made(seed: int, optimizer: Any = fs.AdamW, **options: Any) -> tuple[Any, ...]:
    """Parameters with an optimizer and its reference, which have taken a step."""
    rng = np.random.default_rng(seed)
    expected = [ordinary(rng, n, np.float32) for n in SIZES]
    params = [Placed(p.copy(), library="cupy").array for p in expected]
    stepped = optimizer(params, **options)
    reference = optimizer(expected, backend="numpy", **options)
    first = [np.zeros_like(p) for p in expected]
    stepped.step([Placed(g, library="cupy").array for g in first])
    reference.step(first)
    return params, expected, stepped, reference


def same(params: list[Any], expected: list[Any]) -> bool:
    """Whether the parameters have these bits now."""
    return not any(differing_bits(now(p), q) for p, q in zip(params, expected, strict=True))


def gradients(rng: Any, expected: list[Any]) -> list[Any]:
    return [ordinary(rng, p.size, p.dtype) for p in expected]


REQUESTS: list[dict[str, Any]] = [
    {},
    {"zero_grads": True},
    {"max_norm": 1.0},
    {"max_norm": 1.0, "clip": "tensor"},
]


@pytest.mark.parametrize("request_", REQUESTS, ids=str)
@pytest.mark.parametrize("nonfinite", ["propagate", "skip"])
def test_a_step_is_on_the_current_stream(nonfinite: str, request_: dict[str, Any]) -> None:
    """It is done when that is waited for, and not before."""
    rng = np.random.default_rng(0)
    params, expected, optimizer, reference = made(0, nonfinite=nonfinite)
    mine, other = stream(), stream()
    pool = Pool(mine)
    with on_stream(mine):
        for _ in range(2):  # the first one lays out
            values = gradients(rng, expected)
            grads = [pool.array(g) for g in values]
            before = [p.copy() for p in expected]
            with put_off(LATE):
                optimizer.step(grads, **request_)
                wait(other)
                wait(0)
                assert same(params, before)
                wait(mine)
                reference.step(values, **request_)
                assert same(params, expected)
            if request_.get("zero_grads"):
                assert not any(now(g).any() for g in grads)


def test_a_norm_is_waited_for_on_the_stream_alone() -> None:
    _, expected, optimizer, reference = made(0)
    mine, other = stream(), stream()
    pool = Pool(mine)
    busy = Placed(np.zeros(3, np.float32)).array
    values = gradients(np.random.default_rng(0), expected)
    with on_stream(mine):
        optimizer.step([pool.array(g) for g in values], max_norm=1.0)
        with put_off(LATE):
            write(busy, np.ones(3, np.float32), other)
            report = optimizer.step([pool.array(g) for g in values], max_norm=1.0)
            reference.step(values, max_norm=1.0)
            assert report.grad_norm == reference.step(values, max_norm=1.0).grad_norm
            assert not now(busy).any()


@pytest.mark.parametrize("seed", range(1, 6))
def test_two_streams_at_once(seed: int) -> None:
    rng = np.random.default_rng(seed)
    sides = [(made(k, nonfinite=("propagate", "skip")[k]), Pool(stream())) for k in range(2)]
    with put_off(BY_CHANCE, seed):
        for _ in range(12):
            for (_, expected, optimizer, reference), pool in sides:
                values = gradients(rng, expected)
                request = REQUESTS[rng.integers(4)]
                with on_stream(pool.stream):
                    optimizer.step([pool.array(g) for g in values], **request)
                reference.step(values, **request)
        for (params, expected, *_), pool in sides:
            wait(pool.stream)
            assert same(params, expected)


@pytest.mark.parametrize("ordered", [True, False])
@pytest.mark.parametrize("request_", REQUESTS, ids=str)
def test_a_gradient_from_another_stream(request_: dict[str, Any], ordered: bool) -> None:
    """An event between the streams is enough; without one the old numbers are there."""
    params, expected, optimizer, reference = made(0)
    mine, other = stream(), stream()
    rng = np.random.default_rng(0)
    old, new = gradients(rng, expected), gradients(rng, expected)
    grads = [Placed(g, library="cupy").array for g in old]
    with on_stream(mine), put_off(LATE):
        for g, values in zip(grads, new, strict=True):
            write(g, values, other)
        if ordered:
            order(other, mine)
        optimizer.step(grads, **request_)
        reference.step(new if ordered else old, **request_)
        wait(mine)
        assert same(params, expected)


@pytest.mark.parametrize("mode", [LATE, BY_CHANCE])
def test_the_current_stream_changes(mode: int) -> None:
    """Each step comes after the one before, on whichever stream, if the streams are in order."""
    rng = np.random.default_rng(0)
    params, expected, optimizer, reference = made(0, nonfinite="skip")
    pools = [Pool(stream()) for _ in range(3)]
    last = 0
    with put_off(mode, 3):
        for k in range(24):
            pool = pools[k * k % 3]
            order(last, pool.stream)
            values = gradients(rng, expected)
            with on_stream(pool.stream):
                optimizer.step([pool.array(g) for g in values], **REQUESTS[k % 4])
            reference.step(values, **REQUESTS[k % 4])
            last = pool.stream
        assert optimizer.param_groups[0]["lr"] == reference.param_groups[0]["lr"]
        wait(last)
        assert same(params, expected)


def test_memory_that_is_given_back_after_a_launch() -> None:
    """The library may hand it out again on that stream, and has it written anew."""
    rng = np.random.default_rng(0)
    params, expected, optimizer, reference = made(0)
    mine = stream()
    pool = Pool(mine)
    with on_stream(mine), put_off(LATE):
        for _ in range(6):
            values = gradients(rng, expected)
            optimizer.step([pool.array(g) for g in values])
            reference.step(values)
            for _ in range(len(pool.free)):
                pool.array(np.full(2000, np.nan, np.float32))
        wait(mine)
    assert same(params, expected)


def test_new_state_may_be_used_on_any_stream() -> None:
    """Zeros, tables and what is loaded are there when a call returns."""
    rng = np.random.default_rng(0)
    expected = [ordinary(rng, n, np.float32) for n in SIZES]
    params = [Placed(p.copy(), library="cupy").array for p in expected]
    values = [gradients(rng, expected) for _ in range(3)]
    grads = [[Placed(g, library="cupy").array for g in each] for each in values]
    one, other = stream(), stream()
    optimizer, reference = fs.AdamW(params, ema=0.5), fs.AdamW(expected, ema=0.5, backend="numpy")
    with put_off(LATE):
        with on_stream(one):
            optimizer.step(grads[0])
        reference.step(values[0])
        order(one, other)
        with on_stream(other):
            optimizer.step(grads[1])
            reference.step(values[1])
            wait(other)
            optimizer.load_state_dict(reference.state_dict())
        with on_stream(one):
            optimizer.step(grads[2])
        reference.step(values[2])
        wait(one)
    assert same(params, expected)


@pytest.mark.parametrize("nonfinite", ["propagate", "skip", "raise"])
@pytest.mark.parametrize("how", ["plain", "gaps", "turned", "rows", "arena"])
def test_steps_are_refused_while_a_stream_records(how: str, nonfinite: Any) -> None:
    """None of their work is in the graph, and the next step is as if they had not been."""
    memory = np.ones((12, 8), np.float32)
    view = {"gaps": memory[::2, ::2], "turned": memory[::-1]}.get(how, memory)
    expected = np.array(view, order="C")
    rows, columns = view.shape
    p = Placed(view, memory, "cupy")
    values = [np.full((rows, columns), 2.0**-k, np.float32) for k in range(4)]
    values[1] = np.asfortranarray(values[1])
    placed: list[Any] = [Placed(g, library="cupy").array for g in values]
    if how == "rows":
        placed = [fs.Rows(range(rows), Placed(g.copy(), library="cupy").array) for g in values]
    params = fs.Arena([p.array]) if how == "arena" else [p.array]
    optimizer = fs.AdamW(params, nonfinite=nonfinite)
    reference = fs.AdamW([expected], nonfinite=nonfinite, backend="numpy")
    mine = stream()
    with on_stream(mine):
        for k, request in enumerate([{}, *REQUESTS]):
            given = [] if how == "arena" else [[placed[(k + 1) % 4]]]
            if k:  # also before it is laid out
                optimizer.step(*given)
                reference.step(
                    [np.zeros_like(expected)] if how == "arena" else [values[(k + 1) % 4]]
                )
            given = [] if how == "arena" else [[placed[k % 4]]]
            refused = pytest.raises(RuntimeError, match=r"part of a CUDA graph.*step outside")
            with recording(mine) as recorded, refused:
                optimizer.step(*given, **request)
            assert recorded == [0]
    found = params.params[0].copy_to_host() if isinstance(params, fs.Arena) else p.host
    assert differing_bits(np.array(found, order="C"), expected) == 0
