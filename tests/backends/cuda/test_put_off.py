"""Work that a device puts off, as late as it may or by chance: the reference's bits all the same.

In memory of the host alone, where the driver can be told when. Gradients have memory that is handed
out again as soon as they are gone.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest
from cases import DTYPES, differing_bits, ordinary
from device import IN_MEMORY, Placed, assert_same, cuda, in_memory

import fusedstep as fs
from fusedstep._arrays.dtypes import BFLOAT16

if IN_MEMORY is not None:
    from pooled import Pool, driver, put_off, write

pytestmark = [cuda, in_memory, pytest.mark.filterwarnings("error")]

LATE, BY_CHANCE = 1, 2

STEPS = 20
"""More than the host may be ahead of the device."""

SIZES = (1, 5, 1023, 1025)


@pytest.fixture(
    params=[(LATE, 1), *((BY_CHANCE, seed) for seed in range(1, 5))],
    ids=lambda given: "late" if given[0] == LATE else f"chance{given[1]}",
)
def put_off_(request: pytest.FixtureRequest) -> Iterator[None]:
    with put_off(*request.param):
        yield


late = pytest.mark.usefixtures("put_off_")


class Both:
    """An optimizer on the device and its reference, over the same numbers."""

    def __init__(
        self, make: Any, seed: int = 0, sizes: Any = SIZES, library: str = "cupy", **options: Any
    ) -> None:
        self.rng = np.random.default_rng(seed)
        self.pool = Pool()
        self.values = [
            ordinary(self.rng, n, DTYPES[k % 2]).reshape(-1) for k, n in enumerate(sizes)
        ]
        self.params = [Placed(p, library=library) for p in self.values]
        self.expected = [p.copy() for p in self.values]
        self.optimizer = make([p.array for p in self.params], **options)
        self.reference = make(self.expected, backend="numpy", **options)

    def draw(self) -> list[Any]:
        return [ordinary(self.rng, p.size, p.dtype) for p in self.values]

    def step(self, values: list[Any] | None = None, **request: Any) -> tuple[Any, Any]:
        """Step by gradients that nobody else holds; the reports."""
        values = self.draw() if values is None else values
        grads = [self.pool.array(g, k % 3) for k, g in enumerate(values)]
        report = self.optimizer.step(grads, **request)
        return report, self.reference.step(values, **request)

    def check(self) -> None:
        assert_same(self.optimizer, self.params, self.reference, self.expected)


@late
def test_new_gradients() -> None:
    both = Both(fs.AdamW, weight_decay=0.1)
    for k in range(STEPS):
        both.optimizer.lr = both.reference.lr = 0.1 / (k + 1)
        both.step()
    both.check()


@late
def test_the_same_gradients_with_other_numbers() -> None:
    both = Both(fs.SGD, momentum=0.9)
    grads = [both.pool.array(g) for g in both.draw()]
    for _ in range(STEPS):
        values = both.draw()
        for g, numbers in zip(grads, values, strict=True):
            write(g, numbers)
        both.optimizer.step(grads, zero_grads=True)
        both.reference.step(values)
    both.check()


@late
@pytest.mark.parametrize("read", ["at once", "late", "never"])
@pytest.mark.parametrize("clip", ["global", "tensor"])
def test_norms(clip: str, read: str) -> None:
    both = Both(fs.AdamW, weight_decay=0.1, nonfinite="propagate")
    reports = []
    for k in range(STEPS):
        request: dict[str, Any] = {"max_norm": 0.5 + k, "scale": 2.0, "clip": clip} if k % 5 else {}
        reports.append(both.step(**request))
        if read == "at once":
            assert reports[-1][0] == reports[-1][1]
    if read == "late":
        assert all(found == wanted for found, wanted in reports)
    both.check()


@late
@pytest.mark.parametrize("read", ["at once", "late", "never"])
def test_steps_that_are_left_out(read: str) -> None:
    both = Both(fs.AdamW, nonfinite="skip")
    reports = []
    for k in range(STEPS):
        values = both.draw()
        if both.rng.random() < 0.4:
            values[k % len(values)][0] = np.nan
        reports.append(both.step(values, max_norm=1.0 if k % 3 else None))
        if read == "at once":
            assert repr(reports[-1][0]) == repr(reports[-1][1])  # of which a norm may be NaN
        if read == "late" and k > 2:
            assert repr(reports[-3][0]) == repr(reports[-3][1])
    assert both.optimizer.param_groups[0]["lr"] == both.reference.param_groups[0]["lr"]
    both.check()


@late
def test_state_that_is_asked_for_while_steps_are_pending() -> None:
    both = Both(fs.AdamW, nonfinite="skip", ema=0.9)
    for k in range(8):
        values = both.draw()
        if k % 3 == 1:
            values[k % len(values)][0] = np.inf
        both.step(values)
        if k == 3:
            both.check()
        if k == 4:
            assert both.optimizer.digest() == both.reference.digest()
        if k == 5:
            both.optimizer.load_state_dict(both.reference.state_dict())
        if k == 6:
            state = both.optimizer.state_dict()
            both.optimizer = fs.AdamW(
                [p.array for p in both.params], nonfinite="skip", ema=0.9, lr=0.5
            )
            both.optimizer.load_state_dict(state)
    both.check()


@late
def test_parameters_that_go_ahead() -> None:
    both = Both(fs.SGD, momentum=0.7, lr=0.3)
    for _ in range(4):
        both.step()
        with both.optimizer.lookahead(), both.reference.lookahead():
            for p, q in zip(both.params, both.expected, strict=True):
                assert differing_bits(p.host, q) == 0
    both.check()


@late
def test_gradients_that_come_and_go() -> None:
    """Tables are given up while the device may still read them."""
    both = Both(fs.AdamW, nonfinite="skip")
    for k in range(STEPS):
        values: list[Any] = [g if (k >> at) % 2 else None for at, g in enumerate(both.draw())]
        grads = [None if g is None else both.pool.array(g) for g in values]
        both.optimizer.step(grads)
        both.reference.step(values)
    both.check()


@late
def test_several_optimizers_some_of_which_are_gone() -> None:
    several = [
        Both(fs.AdamW, 1),
        Both(fs.SGD, 2, momentum=0.9),
        Both(fs.AdamW, 3, nonfinite="skip"),
    ]
    for k in range(12):
        for both in several:
            both.step(max_norm=1.0 if k % 4 == 1 else None)
        if k == 8:
            gone, several = several[0], several[1:]
            del gone.optimizer
            for p, q in zip(gone.params, gone.expected, strict=True):
                assert differing_bits(p.host, q) == 0
    for both in several:
        both.check()


@late
@pytest.mark.parametrize("untouched", ["frozen", "exact"])
def test_rows(untouched: Any) -> None:
    rng, pool = np.random.default_rng(0), Pool()
    expected = [ordinary(rng, 7 * 40, np.float32).reshape(40, 7), ordinary(rng, 9, np.float64)]
    params = [Placed(p.copy(), library="cupy") for p in expected]
    optimizer = fs.Adam([p.array for p in params], untouched=untouched)
    reference = fs.Adam(expected, untouched=untouched, backend="numpy")
    for k in range(12):
        index = rng.integers(0, 40, rng.integers(1, 30))
        values = ordinary(rng, 7 * len(index), np.float32).reshape(-1, 7)
        whole = ordinary(rng, 9, np.float64)
        request: dict[str, Any] = {"max_norm": 1.0} if k % 3 == 2 else {}
        optimizer.step([fs.Rows(index, pool.array(values)), pool.array(whole)], **request)
        reference.step([fs.Rows(index, values), whole], **request)
    optimizer.catch_up()
    reference.catch_up()
    assert_same(optimizer, params, reference, expected)


@late
def test_arenas() -> None:
    rng = np.random.default_rng(0)
    expected = [ordinary(rng, n, DTYPES[n % 2]) for n in SIZES]
    arena = fs.Arena([Placed(p, library="cupy").array for p in expected])
    optimizer = fs.AdamW(arena, ema=0.9)
    reference = fs.AdamW(expected, ema=0.9, backend="numpy")
    for k in range(STEPS):
        values = [ordinary(rng, p.size, p.dtype) for p in expected]
        for g, numbers in zip(arena.grads, values, strict=True):
            write(g, numbers)
        request: dict[str, Any] = {"max_norm": 1.0, "clip": "tensor"} if k % 4 == 2 else {}
        optimizer.step(zero_grads=True, **request)
        reference.step(values, **request)
    for view, q in zip(arena.params, expected, strict=True):
        assert differing_bits(view.copy_to_host(), q) == 0


@late
def test_gradients_and_parameters_with_gaps() -> None:
    rng = np.random.default_rng(0)
    memory = ordinary(rng, 24 * 30, np.float32).reshape(24, 30)
    view = memory[::2, ::3]
    expected = view.copy()
    p = Placed(view, memory, "cupy")
    optimizer, reference = fs.AdamW(p.array), fs.AdamW(expected, backend="numpy")
    grads = [Placed(np.zeros((12, 10), np.float32, order="F"), library="cupy") for _ in range(2)]
    for k in range(STEPS):
        values = ordinary(rng, 120, np.float32).reshape(12, 10)
        write(grads[k % 2].array, values.ravel(order="F"))
        optimizer.step(grads[k % 2].array, max_norm=1.0 if k % 4 == 1 else None)
        reference.step(values, max_norm=1.0 if k % 4 == 1 else None)
    assert differing_bits(p.host, expected) == 0


@late
def test_parameters_of_16_bits() -> None:
    from fewer_bytes import differing, rounded

    rng, pool = np.random.default_rng(0), Pool()
    expected = [rounded(ordinary(rng, n, np.float32), "bfloat16") for n in (7, 300)]
    params = [Placed(p.copy(), library="cupy") for p in expected]
    options: dict[str, Any] = {"seed": 5, "rounding": "stochastic", "master": False}
    optimizer = fs.SGD([p.array for p in params], **options)
    reference = fs.SGD(expected, backend="numpy", **options)
    assert expected[0].dtype == BFLOAT16
    for k in range(STEPS):
        values = [rounded(ordinary(rng, p.size, np.float32), "bfloat16") for p in expected]
        request: dict[str, Any] = {"max_norm": 1.0} if k % 4 == 2 else {}
        optimizer.step([pool.array(g) for g in values], **request)
        reference.step(values, **request)
    for p, q in zip(params, expected, strict=True):
        assert differing(p.host, q) == 0


def test_work_is_put_off() -> None:
    """Without it none of these would show anything."""
    from pooled import now

    p = Placed(np.ones(3, np.float32), library="cupy")
    optimizer = fs.SGD(p.array, lr=1.0)
    g = Placed(np.ones(3, np.float32), library="cupy")
    optimizer.step(g.array)
    with put_off(LATE):
        optimizer.step(g.array)
        assert now(p.array).tolist() == [0, 0, 0]
        driver("cuCtxSynchronize")
        assert now(p.array).tolist() == [-1, -1, -1]
