"""The optimizers as their users see them: structures, groups, hyperparameters, state."""

from __future__ import annotations

from typing import Any, NamedTuple, TypeAlias

import numpy as np
import pytest
from cases import BASES, differing_bits, ones, ordinary

import fusedstep as fs

Array: TypeAlias = np.ndarray[Any, Any]


def test_an_array() -> None:
    p = ones(3)
    optimizer = fs.SGD(p, lr=0.25, momentum=0.5)
    optimizer.step(ones(3))
    assert (p == 0.75).all()
    assert set(optimizer.state) == {"b", "t"}
    assert optimizer.state["t"] == 1
    assert (optimizer.state["b"] == 1).all()


def test_a_sequence() -> None:
    params = [ones(3), ones(2)]
    optimizer = fs.SGD(iter(params), lr=0.25, momentum=0.5)
    optimizer.step((ones(3), ones(2)))
    optimizer.step(g for g in (ones(3), ones(2)))
    assert [p[0] for p in params] == [0.375, 0.375]
    assert isinstance(optimizer.state, list)
    assert [state["t"] for state in optimizer.state] == [2, 2]


def test_a_mapping_in_any_order() -> None:
    params = {"w": ones(3), 7: ones(2)}
    optimizer = fs.SGD(params, lr=0.25)
    optimizer.step({7: ones(2) * 2, "w": ones(3)})
    assert params["w"][0] == 0.75
    assert params[7][0] == 0.5
    assert list(optimizer.state) == ["w", 7]
    assert optimizer.state["w"] == {"t": 1}


class Layer(NamedTuple):
    w: Array
    b: Array


def test_a_nested_structure() -> None:
    params: dict[str, Any] = {
        "layers": [Layer(ones(2, 2), ones(2)), {"w": ones(3)}],
        "scale": ones(),
    }
    optimizer = fs.SGD(params, lr=1.0, momentum=0.5)
    optimizer.step({"scale": ones(), "layers": [Layer(ones(2, 2), ones(2)), {"w": 2 * ones(3)}]})
    assert (params["layers"][0].w == 0).all()
    assert (params["layers"][1]["w"] == -1).all()
    assert params["scale"] == 0
    assert optimizer.state["layers"][1]["w"]["b"][0] == 2
    assert optimizer.state["layers"][0][1]["t"] == 1


def test_groups() -> None:
    a, b, c = ones(2), ones(2), ones(2)
    groups = [{"params": [a, b]}, {"params": {"c": c}, "lr": 0.5, "momentum": 0.5}]
    optimizer = fs.SGD(groups, lr=0.25)
    optimizer.step([[ones(2), ones(2)], {"c": ones(2)}])
    assert [p[0] for p in (a, b, c)] == [0.75, 0.75, 0.5]
    assert [group["lr"] for group in optimizer.param_groups] == [0.25, 0.5]
    assert [p is q for p, q in zip(optimizer.param_groups[0]["params"], (a, b), strict=True)]
    assert optimizer.state[0][0] == {"t": 1}
    assert set(optimizer.state[1]["c"]) == {"b", "t"}
    with pytest.raises(ValueError, match=r"lr differs between the groups: \[0.25, 0.5\]"):
        _ = optimizer.lr
    optimizer.lr = 1.0
    assert optimizer.lr == 1.0
    optimizer.step([[ones(2), None], {"c": None}])
    assert [p[0] for p in (a, b, c)] == [-0.25, 0.75, 0.5]


def test_a_mapping_with_a_parameter_called_params() -> None:
    params = {"params": ones(2)}
    fs.SGD(params, lr=1.0).step({"params": ones(2)})
    assert (params["params"] == 0).all()


def test_mixed_dtypes_among_parameters() -> None:
    params: list[Any] = [np.ones(3, np.float32), np.ones(3, np.float64)]
    optimizer = fs.AdamW(params, lr=0.1)
    optimizer.step([np.ones(3, np.float32), np.ones(3, np.float64)])
    assert [state["m"].dtype for state in optimizer.state] == [np.float32, np.float64]
    np.testing.assert_allclose(params[0], params[1], rtol=1e-6)
    assert params[0][0] != params[1][0]


def test_no_gradient_skips_a_parameter() -> None:
    """State and t stay, and the bias correction goes on from that t."""
    rng = np.random.default_rng(0)
    params = [ordinary(rng, 40, np.float32) for _ in range(3)]
    alone = [p.copy() for p in params]
    optimizer = fs.AdamW(params, lr=0.1)
    separate = [fs.AdamW(p, lr=0.1, backend="numpy") for p in alone]
    pattern = [(1, 1, 1), (1, 0, 1), (1, 0, 1), (0, 0, 0), (0, 1, 1), (1, 1, 1), (1, 1, 0)]
    for present in pattern:
        grads = [ordinary(rng, 40, np.float32) if there else None for there in present]
        optimizer.step(grads)
        for one, g in zip(separate, grads, strict=True):
            if g is not None:
                one.step(g)
    for p, expected, state, one in zip(params, alone, optimizer.state, separate, strict=True):
        assert differing_bits(p, expected) == 0
        assert differing_bits(state["v"], one.state["v"]) == 0
        assert state["t"] == one.state["t"]
    assert [state["t"] for state in optimizer.state] == [5, 4, 5]


def test_dampening_starts_with_each_parameters_own_first_step() -> None:
    params = [ones(1), ones(1)]
    optimizer = fs.SGD(params, lr=1.0, momentum=0.5, dampening=0.5)
    optimizer.step([ones(1), None])
    optimizer.step([ones(1), ones(1)])
    assert [float(state["b"][0]) for state in optimizer.state] == [1.0, 1.0]


def test_hyperparameters_change_between_steps() -> None:
    p = ones(1)
    optimizer = fs.SGD(p, lr=1.0)
    optimizer.step(ones(1))
    optimizer.lr = 0.25
    optimizer.step(ones(1))
    assert p == -0.25
    optimizer.param_groups[0]["weight_decay"] = 1.0
    optimizer.step(ones(1))
    assert p == -0.4375
    optimizer.param_groups[0].update(weight_decay=0, maximize=True, lr=1)
    optimizer.step(ones(1))
    assert p == 0.5625
    assert optimizer.lr == 1.0


@pytest.mark.parametrize("optimizer", [fs.SGD, fs.RMSprop])
def test_where_the_learning_rate_stands_shows_once_it_changes(optimizer: Any) -> None:
    """Without momentum it never shows."""
    g = np.linspace(-1, 2, 9)

    def end(rates: list[float], **options: Any) -> Array:
        p = np.ones(9)
        made = optimizer(p, **options)
        for made.lr in rates:
            made.step(g)
        return p

    same, changing = [0.1, 0.1, 0.1], [0.1, 0.2, 0.4]
    outside, inside = ({"momentum": 0.9, "lr_in_momentum": flag} for flag in (False, True))
    assert end(same, **inside) == pytest.approx(end(same, **outside), rel=1e-14)
    assert (end(changing, **inside)[g != 0] != end(changing, **outside)[g != 0]).all()
    assert differing_bits(end(changing, lr_in_momentum=True), end(changing)) == 0


def test_options_that_need_state_switch_on_later() -> None:
    p, expected = ones(40), ones(40)
    g = np.linspace(-1, 1, 40, dtype=np.float32)
    optimizer = fs.RMSprop(p)
    optimizer.step(g)
    optimizer.param_groups[0].update(momentum=0.9, centered=True)
    assert set(optimizer.state) == {"v", "t"}
    optimizer.step(g)
    assert set(optimizer.state) == {"v", "a", "b", "t"}

    v, a, b = np.zeros_like(p), np.zeros_like(p), np.zeros_like(p)
    fs.functional.rmsprop(expected, g, v, t=1, backend="numpy")
    fs.functional.rmsprop(expected, g, v, a, b, t=2, momentum=0.9, backend="numpy")
    assert differing_bits(p, expected) == 0
    assert differing_bits(optimizer.state["b"], b) == 0


def test_state_is_live_but_fixed() -> None:
    p = ones(2)
    optimizer = fs.SGD(p, lr=1.0, momentum=1.0)
    optimizer.step(ones(2))
    state = optimizer.state
    state["b"][...] = 0
    optimizer.step(ones(2))
    assert (p == -1).all()
    assert state["t"] == 2
    with pytest.raises(TypeError):
        state["t"] = 5
    assert "array" in repr(state)


def test_adagrad_starts_from_the_initial_accumulator() -> None:
    optimizer = fs.Adagrad(ones(3), initial_accumulator_value=0.5)
    assert (optimizer.state["s"] == 0.5).all()
    assert optimizer.state["t"] == 0


def test_a_gradient_is_only_read() -> None:
    g = ones(50)
    g.flags.writeable = False
    for case in BASES:
        case.optimizer(ones(50), **case.options).step(g)
    assert (g == 1).all()


def test_the_same_list_with_other_arrays() -> None:
    params, grads = [ones(2), ones(2)], [ones(2), ones(2)]
    optimizer = fs.SGD(params, lr=1.0)
    optimizer.step(grads)
    grads[1] = 2 * ones(2)
    optimizer.step(grads)
    grads[0] = 3 * ones(2)
    optimizer.step(grads)
    assert [p[0] for p in params] == [-4, -4]


def test_one_gradient_for_two_parameters() -> None:
    params, g = [ones(2), ones(2)], ones(2)
    fs.SGD(params, lr=1.0).step([g, g])
    assert (params[0] == 0).all()
    assert (params[1] == 0).all()
