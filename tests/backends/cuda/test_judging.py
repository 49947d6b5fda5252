"""Steps that are clipped or left out where their gradients are, and reports that come late."""

from __future__ import annotations

import copy
import pickle
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from cases import DTYPES, differing_bits, ordinary
from device import SIMULATED, Placed, assert_same, cuda

import fusedstep as fs
from fusedstep._arrays.dtypes import BFLOAT16
from fusedstep._backends.plan import Scaler
from fusedstep._core.request import PLAIN, Report, Request

pytestmark = pytest.mark.filterwarnings("error")

SIZES = [1, 7, 20] if SIMULATED else [1, 5, 0, 1024, 4097, 9000]


def gradients(rng: np.random.Generator, params: list[Any], spoiled: bool) -> list[Any]:
    grads = [ordinary(rng, p.size, p.dtype).reshape(p.shape) for p in params]
    if spoiled:
        g = grads[-1 if rng.random() < 0.5 else 0]
        g[rng.integers(g.size)] = rng.choice([np.nan, np.inf, -np.inf])
    return grads


def pair(cls: Any, values: list[Any], **options: Any) -> tuple[Any, list[Placed], Any, list[Any]]:
    """An optimizer on a device and the reference, over copies of the same parameters."""
    params, expected = [Placed(p) for p in values], [p.copy() for p in values]
    here = cls([p.array for p in params], **options)
    return here, params, cls(expected, backend="numpy", **options), expected


@cuda
@pytest.mark.parametrize("request_of", [{"max_norm": 0.5}, {"max_norm": 0.5, "clip": "tensor"}])
@pytest.mark.parametrize("policy", ["propagate", "skip"])
def test_many_steps(policy: str, request_of: dict[str, Any], mode: int) -> None:
    """More steps than the host may be ahead, of which some are left out; some reports are read."""
    rng = np.random.default_rng(4)
    values = [ordinary(rng, n, DTYPES[k % 2]) for k, n in enumerate(SIZES)]
    options = {"nonfinite": policy, "lr": lambda t: 0.1 / t}
    here, params, reference, expected = pair(fs.AdamW, values, **options)
    kept = []
    for _ in range(4 if SIMULATED else 25):
        spoiled = policy == "skip" and rng.random() < 0.4
        grads = gradients(rng, expected, spoiled)
        found = here.step([Placed(g).array for g in grads], **request_of)
        kept.append((found, reference.step(grads, **request_of)))
        if rng.random() < 0.2:
            assert here.state[0]["t"] == reference.state[0]["t"]
        if rng.random() < 0.2:
            found, wanted = kept[rng.integers(len(kept))]
            assert found == wanted
    for found, wanted in reversed(kept):
        assert found == wanted
    assert_same(here, params, reference, expected)
    assert here.digest() == reference.digest()


@cuda
def test_overflow_of_what_is_unscaled(mode: int) -> None:
    """A gradient that is finite may not be once it is divided by the scale."""
    values = [np.zeros(3, np.float32), np.zeros(2)]
    here, params, reference, expected = pair(fs.SGD, values, nonfinite="skip")
    for large in (1e38, 3e38, 1.0):
        grads = [np.array([1.0, large, 2.0], np.float32), np.array([large, 1.0])]
        for scale in (1.0, 0.5, 1e-3):
            found = here.step([Placed(g).array for g in grads], scale=scale)
            assert found == reference.step(grads, scale=scale)
    assert_same(here, params, reference, expected)


@cuda
def test_zeros_are_left_also_by_a_step_that_is_left_out(mode: int) -> None:
    values = [np.ones(n, np.float32) for n in SIZES]
    here, params, reference, expected = pair(fs.AdamW, values, nonfinite="skip")
    for spoiled in (True, False, True):
        rng = np.random.default_rng(spoiled)
        grads = gradients(rng, expected, spoiled)
        placed = [Placed(g) for g in grads]
        found = here.step([g.array for g in placed], zero_grads=True)
        assert found == reference.step(grads, zero_grads=True)
        assert not any(g.host.any() for g in placed)
    assert_same(here, params, reference, expected)


@cuda
@pytest.mark.parametrize("options", [{"master": False}, {"state_dtype": "8bit"}])
def test_random_bits_are_those_of_the_step(options: dict[str, Any], mode: int) -> None:
    """The key of a step's random bits depends on t, which only the device may know."""
    ml_dtypes = pytest.importorskip("ml_dtypes")
    n = 300 if SIMULATED else 5000
    rng = np.random.default_rng(8)
    expected = rng.standard_normal(n).astype(np.float32)
    if "master" in options:
        expected = expected.astype(ml_dtypes.bfloat16)
    p = Placed(expected.view(BFLOAT16) if "master" in options else expected)
    here = fs.AdamW(p.array, nonfinite="skip", **options)
    reference = fs.AdamW(expected, nonfinite="skip", backend="numpy", **options)
    for step in range(3 if SIMULATED else 12):
        g = rng.standard_normal(n).astype(np.float32)
        if step % 3 == 1:
            g[7] = np.nan
        here.step(Placed(g).array)
        reference.step(g)
    assert p.host.tobytes() == expected.tobytes()
    assert here.digest() == reference.digest()


@cuda
@pytest.mark.parametrize("dtype", DTYPES, ids=lambda dtype: dtype.__name__)
def test_the_norm_over_negative_strides(dtype: Any) -> None:
    """It is summed in the order of the parameter's memory, as everywhere."""
    rng = np.random.default_rng(9)
    size = 4773 if not SIMULATED else 97
    views: list[Callable[[Any], Any]] = [
        lambda x: x[::-1],
        lambda x: x[: size // 3 * 3].reshape(3, -1)[::-1, ::-1],
        lambda x: x[: size // 3 * 3].reshape(3, -1)[:, ::-1].T,
        lambda x: x[::-2],
    ]
    for view in views:
        memory = ordinary(rng, size, dtype)
        g = np.ascontiguousarray(view(ordinary(rng, size, dtype)))
        expected = memory.copy()
        p = Placed(view(memory), memory)
        here = fs.SGD(p.array, lr=0.5)
        reference = fs.SGD(view(expected), lr=0.5, backend="numpy")
        for scale in (1.0, 3.0):
            found = here.step(Placed(g).array, max_norm=1.0, scale=scale)
            assert found == reference.step(g, max_norm=1.0, scale=scale)
        assert differing_bits(p.host, view(expected)) == 0


@cuda
def test_sums_of_many_blocks(monkeypatch: pytest.MonkeyPatch) -> None:
    """Levels of the tree that are launches of their own fold as the others do."""
    from fusedstep._backends.cuda import totals

    monkeypatch.setattr(totals, "MANY", 2)
    rng = np.random.default_rng(10)
    for blocks in (1, 2, 3, 5) if SIMULATED else (1, 2, 3, 5, 8, 13, 100):
        values = [ordinary(rng, 4096 * blocks - 5, np.float32), ordinary(rng, 3, np.float32)]
        here, params, reference, expected = pair(fs.SGD, values, lr=0.5)
        grads = [ordinary(rng, p.size, p.dtype) for p in values]
        for request_of in ({}, {"clip": "tensor"}):
            found = here.step([Placed(g).array for g in grads], max_norm=0.5, **request_of)
            assert found == reference.step(grads, max_norm=0.5, **request_of)
        assert_same(here, params, reference, expected)


@cuda
def test_a_late_report_is_a_report() -> None:
    p, g = Placed(np.zeros(2)), Placed(np.array([3.0, 4.0]))
    optimizer = fs.SGD(p.array, lr=1.0)

    def step() -> Any:
        return optimizer.step(g.array, max_norm=1.0)

    wanted: Any = Report(5.0, 0.2, (), 1)
    found = step()
    grad_norm, clip, skipped, t = found
    assert (grad_norm, clip, skipped, t) == wanted == found
    assert isinstance(found, Report)
    assert repr(step()) == repr(wanted._replace(t=2))
    assert hash(step()) == hash(wanted._replace(t=3))
    assert step()[1:3] == (0.2, ())
    assert step()._asdict()["t"] == 5
    assert step()._replace(t=9) == wanted._replace(t=9)
    assert pickle.loads(pickle.dumps(step())) == wanted._replace(t=7)
    assert type(pickle.loads(pickle.dumps(step()))) is Report
    assert copy.deepcopy(step()).t == 9
    assert 0.2 in step()
    assert (step() + wanted)[3:5] == (11, 5.0)
    assert step() != wanted
    assert sorted([step(), wanted])[0] == wanted
    assert [*step()] == [5.0, 0.2, (), 14]
    assert step().index(0.2) == 1
    assert step().count(()) == 1
    assert len(step() * 2) == 8
    assert wanted < step()
    assert not wanted >= step()
    assert step() <= step()
    assert step() > wanted


@cuda
def test_gradients_that_come_and_go_settle_what_is_pending(mode: int) -> None:
    rng = np.random.default_rng(11)
    values = [ordinary(rng, 5, np.float32) for _ in range(3)]
    here, params, reference, expected = pair(fs.AdamW, values, nonfinite="skip")
    for step in range(9):
        grads: list[Any] = gradients(rng, expected, step % 2 == 0)
        grads[step % 3] = None
        placed = [None if g is None else Placed(g).array for g in grads]
        assert here.step(placed).t == reference.step(grads).t
    assert_same(here, params, reference, expected)


@cuda
def test_raising_still_waits() -> None:
    p = Placed(np.zeros(3))
    optimizer = fs.SGD(p.array, lr=1.0, nonfinite="raise")
    with pytest.raises(FloatingPointError, match="grads held NaN"):
        optimizer.step(Placed(np.array([1.0, np.nan, 0.0])).array)
    assert not p.host.any()
    assert optimizer.state["t"] == 0


@cuda
@pytest.mark.parametrize("request_of", [PLAIN, PLAIN._replace(max_norm=0.5)], ids=["", "norm"])
@pytest.mark.parametrize("nonfinite", ["propagate", "skip"])
def test_a_scaler_on_the_device(nonfinite: str, request_of: Request, mode: int) -> None:
    """A step is unscaled, and left out, by numbers that the host does not see."""
    rng = np.random.default_rng(4)
    values = [ordinary(rng, n, DTYPES[k % 2]) for k, n in enumerate(SIZES)]
    options = {"nonfinite": nonfinite, "lr": lambda t: 0.1 / t}
    here, params, reference, expected = pair(fs.AdamW, values, **options)
    first = [np.ones_like(p) for p in expected]
    here.step([Placed(g).array for g in first])
    reference.step(first)
    layout = here.layout
    for step in range(4 if SIMULATED else 14):
        grads = gradients(rng, expected, nonfinite == "skip" and step % 5 == 2)
        scale, found = np.array([3.0 + step], np.float32), np.array([step % 3 == 1], np.float32)
        placed = [Placed(scale), Placed(found)]
        at = [each.array.__cuda_array_interface__["data"][0] for each in placed]
        scaler = Scaler(at[0], 0 if step % 4 == 0 else at[1])
        lines = layout.lines()
        assert layout.take([Placed(g).array for g in grads], False)
        report = layout.judge(lines, request_of, nonfinite, scaler)
        left_out = bool(scaler.found and found[0])
        if not left_out:
            wanted = reference.step(grads, scale=float(scale[0]), max_norm=request_of.max_norm)
            assert repr(report) == repr(wanted)  # a norm may be NaN
        elif step % 2:
            assert (report.clip, report.t) == (1.0, reference.state[0]["t"])
    assert_same(here, params, reference, expected)
