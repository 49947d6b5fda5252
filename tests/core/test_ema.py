"""The moving average of parameters, `ema`."""

from __future__ import annotations

import copy
import pickle

import numpy as np
import pytest
from cases import differing_bits, ones
from marks import on_each_backend

import fusedstep as fs


@on_each_backend
def test_the_average_starts_from_the_initial_parameters(backend: str) -> None:
    p = np.array([8.0, 16.0])
    opt = fs.SGD(p, lr=1.0, ema=0.75, backend=backend)
    np.testing.assert_array_equal(opt.state["ema"], p)
    assert not np.shares_memory(opt.state["ema"], p)
    opt.step(np.array([4.0, 8.0]))
    np.testing.assert_array_equal(opt.state["ema"], [7.0, 14.0])


@on_each_backend
def test_the_average_belongs_to_a_group(backend: str) -> None:
    params = [{"params": ones(5), "ema": 0.0}, {"params": ones(5)}, {"params": ones(5), "ema": 0.5}]
    opt = fs.SGD(params, lr=0.5, backend=backend)
    opt.step([ones(5)] * 3)
    first, second, third = opt.state
    np.testing.assert_array_equal(first["ema"], 0.5)
    assert "ema" not in second
    np.testing.assert_array_equal(third["ema"], 0.75)


@on_each_backend
def test_the_average_switched_on_and_off_later(backend: str) -> None:
    p = np.full(3, 4.0)
    opt = fs.SGD(p, lr=1.0, momentum=0.5, backend=backend)
    opt.step(np.ones(3))
    opt.param_groups[0]["ema"] = 0.5
    opt.step(np.zeros(3))
    np.testing.assert_array_equal(p, 2.5)
    np.testing.assert_array_equal(opt.state["ema"], 0.5 * 3 + 0.5 * 2.5)
    opt.param_groups[0]["ema"] = None
    opt.step(np.zeros(3))
    np.testing.assert_array_equal(opt.state["ema"], 2.75)
    opt.param_groups[0]["ema"] = 0.25
    opt.step(np.zeros(3))
    np.testing.assert_array_equal(opt.state["ema"], 0.25 * 2.75 + 0.75 * p)


@on_each_backend
@pytest.mark.parametrize("order", ["C", "F", "gaps", "reversed"])
def test_the_average_of_any_layout(order: str, backend: str) -> None:
    rng = np.random.default_rng(7)
    values = rng.standard_normal((40, 50))
    p = {
        "C": lambda: values.copy(),
        "F": lambda: np.asfortranarray(values),
        "gaps": lambda: np.repeat(values, 2, axis=1)[:, ::2],
        "reversed": lambda: values.copy()[::-1],
    }[order]()
    q = np.array(p, order="C")
    opt = fs.Adam(p, ema=0.9, backend=backend)
    plain = fs.Adam(q, ema=0.9, backend="numpy")
    np.testing.assert_array_equal(opt.state["ema"], q)
    for _ in range(3):
        g = rng.standard_normal((40, 50))
        opt.step(g)
        plain.step(g)
    assert differing_bits(p, q) == 0
    assert differing_bits(opt.state["ema"], plain.state["ema"]) == 0


@on_each_backend
def test_the_average_is_saved_and_resumed(backend: str) -> None:
    rng = np.random.default_rng(8)
    p, grads = rng.standard_normal(100), [rng.standard_normal(100) for _ in range(6)]
    straight, resumed = p.copy(), p.copy()
    opt = fs.AdamW(straight, ema=0.9, backend=backend)
    first = fs.AdamW(resumed, ema=0.9, backend=backend)
    for g in grads[:3]:
        opt.step(g)
        first.step(g)
    second = fs.AdamW(resumed, ema=0.5, backend=backend)
    second.load_state_dict(pickle.loads(pickle.dumps(first.state_dict())))
    copied = copy.deepcopy(first)
    for g in grads[3:]:
        opt.step(g)
        second.step(g)
        copied.step(g)
    assert second.param_groups[0]["ema"] == 0.9
    for other in (second, copied):
        assert differing_bits(opt.state["ema"], other.state["ema"]) == 0
    state_dict = first.state_dict()
    del state_dict["state"]["ema"]
    with pytest.raises(KeyError, match="lacks 'ema'"):
        second.load_state_dict(state_dict)


def test_a_state_named_ema_is_refused() -> None:
    with pytest.raises(ValueError, match=r"state has 'ema'.*rename"):
        fs.rule(state=("ema",), lr=1.0)
