"""Slices in order, and gradients of rows that C takes by itself."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from cases import differing_bits
from marks import needs_c

import fusedstep as fs
from fusedstep._backends.slices import Order, _ordered, ordered
from fusedstep._core import rows, tensors


@pytest.mark.parametrize("limit", [1, 2, 255, 256, 257, 100_000, 2**31 + 5, 2**62])
@pytest.mark.parametrize("k", [0, 1, 2, 100, 2047, 2048, 5000])
def test_order(limit: int, k: int) -> None:
    rng = np.random.default_rng(k)
    for span in (limit, min(limit, 50)):
        index = rng.integers(0, span, k)
        for given in (index, np.sort(index)):
            found, known = ordered(given, limit), _ordered(given, limit)
            assert isinstance(found, Order)
            assert isinstance(known, Order)
            for one, other in zip(found, known, strict=True):
                assert one.dtype == np.int64
                assert (one == other).all()
            pairs = zip(found.ids, found.starts[:-1], found.starts[1:], strict=True)
            for number, first, last in pairs:
                places = found.places[first:last]
                assert (given[places] == number).all()
                assert (np.diff(places) > 0).all()


@pytest.mark.parametrize("number", [-1, 7, -(2**63), 2**63 - 1])
def test_what_is_out_of_range(number: int) -> None:
    index = np.array([3, 6, number, -5], np.int64)
    assert ordered(index, 7) == _ordered(index, 7) == 2


@pytest.fixture
def looks(monkeypatch: pytest.MonkeyPatch) -> list[Any]:
    """The gradients that Python has looked at."""
    found: list[Any] = []
    look = rows.seen_rows

    def counted(g: Any, *rest: Any) -> Any:
        found.append(g)
        return look(g, *rest)

    monkeypatch.setattr(tensors, "seen_rows", counted)
    return found


@needs_c
@pytest.mark.parametrize(
    "kept", [{}, {"row_steps": "shared"}, {"untouched": "exact"}], ids=["own", "shared", "exact"]
)
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_c_takes_gradients_of_rows(kept: Any, dtype: Any, looks: list[Any]) -> None:
    start = np.random.default_rng(0).normal(size=(50, 6)).astype(dtype)
    p, q = start.copy(), start.copy()
    w, x = np.zeros(3, dtype), np.zeros(3, dtype)
    opt, slow = fs.AdamW([p, w], **kept), fs.AdamW([q, x], backend="numpy", **kept)
    rng = np.random.default_rng(1)
    for _ in range(40):
        index = rng.integers(0, 50, 9)
        g = rng.normal(size=(9, 6)).astype(dtype), rng.normal(size=3).astype(dtype)
        opt.step([fs.Rows(index, g[0]), g[1]])
        seen = len(looks)
        slow.step([fs.Rows(index, g[0]), g[1]])
        del looks[seen:]  # those of the NumPy backend
    opt.catch_up()
    slow.catch_up()
    assert differing_bits(p, q) == 0
    assert differing_bits(w, x) == 0
    assert 0 < len(looks) < 8  # the first, and those whose rows have a new t


@needs_c
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize(
    ("optimizer", "options"),
    [
        (fs.SGD, {"momentum": 0.9}),
        (fs.RMSprop, {"momentum": 0.5, "centered": True}),
        (fs.Adam, {}),
        (fs.Adam, {"betas": (0.999, 0.9)}),
        (fs.Adam, {"eps": 0.0}),
        (fs.AdamW, {"amsgrad": True}),
        (fs.AdamW, {"amsgrad": True, "betas": (0.5, 0.6)}),
        (fs.AdamW, {"weight_decay": 0.9, "lr": 0.1}),
    ],
)
def test_long_waits(optimizer: Any, options: Any, dtype: Any) -> None:
    """Waits in which elements come to rest, and Adam's steps are taken between bounds."""
    p = np.random.default_rng(0).normal(size=(3, 71)).astype(dtype)
    q, none = p.copy(), np.zeros((0, 71), dtype)
    opt, whole = optimizer(p, untouched="exact", **options), optimizer(q, **options)
    for t in range(500):
        g = np.zeros_like(q)
        if t in (0, 400, 440):
            g[t % 3] = np.random.default_rng(t).normal(size=71)
        touched = np.flatnonzero(g.any(axis=1))
        opt.step(fs.Rows(touched, g[touched] if len(touched) else none))
        whole.step(g)
    opt.catch_up()
    assert differing_bits(p, q) == 0
    for letter in set(opt.state) - {"t"}:
        assert differing_bits(opt.state[letter], whole.state[letter]) == 0


@needs_c
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_a_wait_after_gradients_that_stay_the_same(dtype: Any) -> None:
    """The v of a centered RMSprop is then that of the mean gradient alone."""
    p = np.ones((2, 40), dtype)
    q, row = p.copy(), np.ones((1, 40), dtype)
    options: dict[str, Any] = {"alpha": 0.9, "centered": True}
    opt = fs.RMSprop(p, untouched="exact", **options)
    whole = fs.RMSprop(q, backend="numpy", **options)
    for t in range(250):
        at = int(t > 150)
        g = np.zeros_like(q)
        g[at] = 1
        opt.step(fs.Rows([at], row))
        whole.step(g)
    opt.catch_up()
    assert differing_bits(p, q) == 0


@needs_c
def test_what_c_does_not_take_is_looked_at(looks: list[Any]) -> None:
    p, values = np.zeros((50, 6)), np.ones((4, 6))
    opt = fs.SGD(p, row_steps="shared", lr=1.0)
    index = np.array([5, 7, 5, 9])
    opt.step(fs.Rows(index, values))
    opt.step(fs.Rows(index, values))
    assert len(looks) == 1
    others = [
        fs.Rows(index.astype(np.int32), values),
        fs.Rows(np.repeat(index, 2)[::2], values),
        fs.Rows(index, np.asfortranarray(values)),
        fs.Rows(np.tile(index, 3), np.tile(values, (3, 1))),  # more than there was room for
        fs.Rows.where(np.arange(50) < 4, np.ones((50, 6))),
        np.ones((50, 6)),
    ]
    for at, g in enumerate(others, start=2):
        opt.step(g)
        assert len(looks) == at
    opt.step(fs.Rows(index, values), zero_grads=True)
    assert not values.any()
    assert p[[5, 7, 9, 1, 20], 0].tolist() == [-19, -10, -10, -2, -1]
    for wrong, error in ((np.array([5, 50]), IndexError), (np.array([-1, 2]), IndexError)):
        before = p.copy()
        with pytest.raises(error):
            opt.step(fs.Rows(wrong, np.ones((2, 6))))
        assert (p == before).all()
    with pytest.raises(ValueError, match="shares memory"):
        opt.step(fs.Rows(index, p[:4]))
    for unfit in (np.ones((3, 6)), np.ones((4, 5)), np.ones(4)):
        opt.step(fs.Rows(index, values))
        with pytest.raises(ValueError, match="shape"):
            opt.step(fs.Rows(index, unfit))
    for missing in (("index", "values", "mask"), ("index", "values"), ("values",)):
        g = fs.Rows(index, values)
        for name in missing:
            object.__delattr__(g, name)
        with pytest.raises(AttributeError):
            opt.step(g)
    p.flags.writeable = False
    with pytest.raises(ValueError, match="read-only"):
        opt.step(fs.Rows(index, np.ones((4, 6))))


@needs_c
@pytest.mark.parametrize(
    "kept", [{}, {"row_steps": "shared"}, {"untouched": "exact"}], ids=["own", "shared", "exact"]
)
@pytest.mark.parametrize("lr", [np.array([0.1, 0.2, 0.2]), 0.1], ids=["by column", "number"])
def test_c_takes_whole_gradients(lr: Any, kept: Any, looks: list[Any]) -> None:
    """Rows count their own steps from the first gradient of rows on, and are then looked at."""
    p = np.random.default_rng(0).normal(size=(7, 3)).astype(np.float32)
    q = p.copy()
    opt, slow = fs.Adam(p, lr=lr, **kept), fs.Adam(q, lr=lr, backend="numpy", **kept)
    rng = np.random.default_rng(1)
    for k in range(30):
        g = rng.normal(size=(7, 3)).astype(np.float32)
        given = fs.Rows([2, 1], g[:2]) if k == 10 else g
        opt.step(given)
        seen = len(looks)
        slow.step(given)
        del looks[seen:]
    assert differing_bits(p, q) == 0
    assert len(looks) <= 5
    others = [
        g.astype(np.float16),
        np.asfortranarray(g),
        np.repeat(g, 2, axis=0)[::2],
        np.frombuffer(b"?" + g.tobytes(), np.uint8)[1:].view(np.float32).reshape(7, 3),
    ]
    for other in others:
        seen = len(looks)
        opt.step(other)
        assert len(looks) == seen + 1
    opt.step(g)
    opt.step(g)
    seen = len(looks)
    opt.step(g, zero_grads=True)
    assert len(looks) == seen + 1
    assert not g.any()
    with pytest.raises(ValueError, match="shares memory"):
        opt.step(p)
    with pytest.raises(ValueError, match="shape"):
        opt.step(g[:6])
    with pytest.raises(ValueError, match="shape"):
        opt.step(g.reshape(-1))
