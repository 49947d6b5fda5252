"""Classes made with `fs.rule`: scalars, options, copies, and how they are described."""

from __future__ import annotations

import copy
import inspect
import pickle
import pydoc
from typing import Any, TypeAlias

import numpy as np
import pytest
from cases import differing_bits
from formulas import plain
from marks import on_backends_for_custom_rules

import fusedstep as fs
from fusedstep._core.declaration import declaration_of
from fusedstep._numerics import variants

Array: TypeAlias = np.ndarray[Any, Any]


RATE = 0.5


def prepare(h: Any, t: int) -> dict[str, float]:
    return {"rest": 1 - h.beta, "lr": h.lr / t, "late": t > 1}


@fs.rule(state=("m", "count"), prepare=prepare, lr=1, beta=0.75, pair=(1, 2), nesterov=False)
def Own(p: Any, g: Any, m: Any, count: Any, h: Any) -> Any:  # noqa: N802
    """Average, and count."""
    m = h.beta * m + h.rest * g
    count = count + (1 if h.late else RATE)
    u = h.beta * m + g if h.nesterov else m
    return p - h.lr * u, m, count


@fs.rule(lr=0.5, weight_decay=0.0)
def Decaying(p: Any, g: Any, h: Any) -> Any:  # noqa: N802
    return p - h.lr * (g + h.weight_decay * p)


@fs.rule(lr=0.5)
def Plain(p: Any, g: Any, h: Any) -> Any:  # noqa: N802
    return p - h.lr * g


def scheduled(h: Any, t: int) -> dict[str, float]:
    return {"weight_decay": h.weight_decay * t, "maximize": t > 1}


Scheduled = fs.rule(prepare=scheduled, lr=0.5)(plain)
Coupled = fs.rule(prepare=lambda h, t: {"l2": 2 * h.weight_decay}, lr=0.5, weight_decay=0.0)(plain)


def gradient() -> Array:
    return np.array([[1.0, -2.0], [0.5, 4.0]])


@on_backends_for_custom_rules
def test_scalars_are_prepared_each_step(backend: str) -> None:
    p = np.zeros((2, 2))
    opt = Own(p, backend=backend)
    opt.step(gradient())
    np.testing.assert_array_equal(p, -0.25 * gradient())
    opt.step(gradient())
    np.testing.assert_array_equal(opt.state["m"], 0.4375 * gradient())
    np.testing.assert_array_equal(opt.state["count"], np.full((2, 2), 1.5))
    np.testing.assert_array_equal(p, -(0.25 + 0.4375 / 2) * gradient())


@on_backends_for_custom_rules
def test_what_may_stand_before_any_rule(backend: str) -> None:
    start, g = np.array([1.0, -2.0]), np.array([0.25, 8.0])
    cases: list[tuple[Any, dict[str, Any], Array]] = [
        (Plain, {}, g),
        (Plain, {"maximize": True}, -g),
        (Plain, {"weight_decay": 0.5}, g + 0.5 * start),
        (Plain, {"l1": 0.25}, g + 0.25 * np.sign(start)),
        (
            Plain,
            {"maximize": True, "weight_decay": 0.5, "l1": 0.25},
            -g + 0.5 * start + 0.25 * np.sign(start),
        ),
        (Decaying, {"weight_decay": 0.5}, g + 0.5 * start),  # once, and not twice
        (Coupled, {"weight_decay": 0.25}, g + 0.5 * start),
    ]
    for optimizer, options, expected in cases:
        p = start.copy()
        optimizer(p, backend=backend, **options).step(g)
        np.testing.assert_array_equal(p, start - 0.5 * expected)


@on_backends_for_custom_rules
def test_what_prepare_returns_takes_the_place_of_a_hyperparameter(backend: str) -> None:
    p, g = np.array([1.0, -2.0]), np.array([0.25, 8.0])
    opt = Scheduled(p, backend=backend, weight_decay=0.5)
    opt.step(g)
    after = np.array([1.0, -2.0]) - 0.5 * (g + 0.5 * np.array([1.0, -2.0]))
    np.testing.assert_array_equal(p, after)
    opt.step(g)
    np.testing.assert_array_equal(p, after - 0.5 * (-g + 1.0 * after))


@on_backends_for_custom_rules
def test_groups_differ_and_may_change(backend: str) -> None:
    p, q, r = (np.ones(3, dtype) for dtype in (np.float64, np.float64, np.float32))
    groups = [{"params": [p]}, {"params": [q, r], "lr": 2.0, "nesterov": True, "maximize": True}]
    opt = Own(groups, backend=backend)
    grads = [[np.ones(3)], [np.ones(3), np.ones(3, np.float32)]]
    opt.step(grads)
    np.testing.assert_array_equal(p, 0.75)
    np.testing.assert_array_equal(q, 1 + 2 * (0.75 * 0.25 + 1))
    np.testing.assert_array_equal(r, q.astype(np.float32))
    opt.param_groups[1].update(nesterov=False, maximize=False, lr=1)
    opt.step(grads)
    np.testing.assert_array_equal(q, 1 + 2 * 1.1875 - (0.75 * -0.25 + 0.25) / 2)
    with pytest.raises(ValueError, match="lr=-1 is negative"):
        opt.param_groups[0]["lr"] = -1
    with pytest.raises(TypeError, match=r"nesterov=1 \(int\); pass True or False"):
        opt.param_groups[0]["nesterov"] = 1
    with pytest.raises(TypeError, match=r"pair=\(1,\) \(tuple\); pass 2 numbers"):
        opt.param_groups[0]["pair"] = (1,)
    with pytest.raises(KeyError, match=r"params\[0\]: the unknown hyperparameter 'mu'; Own has"):
        Own([{"params": [p], "mu": 1}])


@on_backends_for_custom_rules
def test_going_on_from_a_copy_has_the_same_bits(backend: str) -> None:
    rng = np.random.default_rng(0)
    p, grads = rng.normal(size=50), rng.normal(size=(6, 50))
    opt = Own(p, lr=0.3, backend=backend)
    for g in grads[:3]:
        opt.step(g)
    copied, copied_p = copy.deepcopy((opt, p))
    pickled, pickled_p = pickle.loads(pickle.dumps((opt, p)))
    resumed_p = p.copy()
    resumed = Own(resumed_p, backend="numpy")
    resumed.load_state_dict(pickle.loads(pickle.dumps(opt.state_dict())))
    assert type(pickled) is Own
    assert resumed.lr == 0.3
    for g in grads[3:]:
        for each in (opt, copied, pickled, resumed):
            each.step(g)
    for other in (copied_p, pickled_p, resumed_p):
        assert differing_bits(other, p) == 0
    with pytest.raises(ValueError, match=r"'optimizer'.* is 'Own'; this optimizer reads 'Plain'"):
        Plain(p).load_state_dict(opt.state_dict())


def test_a_class_is_described_by_its_function() -> None:
    assert Own.__name__ == "Own"
    assert Own.__module__ == __name__
    assert issubclass(Own, fs.Optimizer)
    assert str(inspect.signature(Own)) == (
        "(params, lr=1.0, beta=0.75, pair=(1.0, 2.0), nesterov=False, *, "
        "weight_decay=0.0, maximize=False, l1=0.0, "
        "ema=None, master=None, state_dtype='float32', rounding='auto', seed=0, "
        "untouched='frozen', row_steps='own', out=None, nonfinite='propagate', "
        "capturable=False, backend='auto')"
    )
    assert str(inspect.signature(Decaying)) == (
        "(params, lr=0.5, weight_decay=0.0, *, maximize=False, l1=0.0, "
        "ema=None, master=None, state_dtype='float32', rounding='auto', seed=0, "
        "untouched='frozen', row_steps='own', out=None, nonfinite='propagate', "
        "capturable=False, backend='auto')"
    )
    assert "Average, and count." in pydoc.render_doc(Own)
    assert repr(Plain(np.zeros(2))) == "Plain(<float64 (2,)>)"


def test_arguments_are_those_of_the_signature() -> None:
    p = np.zeros(2)
    assert Own(p, 0.5, 0.25).param_groups[0]["beta"] == 0.25
    with pytest.raises(TypeError, match="unexpected keyword argument 'mu'"):
        Own(p, mu=0.5)
    with pytest.raises(TypeError, match="too many positional arguments"):
        Plain(p, 0.5, 0.5)
    with pytest.raises(TypeError, match="'params'"):
        Own()  # type: ignore[call-arg]
    with pytest.raises(TypeError, match=r"lr='1' \(str\); pass a number"):
        Own(p, lr="1")
    with pytest.raises(TypeError, match=r"'<i2' .int16.*float32 or float64"):
        Own(np.zeros(2, np.int16))


def test_the_c_backend_holds_no_custom_rules() -> None:
    with pytest.raises(
        ValueError,
        match=r"backend='c' holds the package's own rules alone.*'auto', 'numba', 'numpy'",
    ):
        Plain(np.zeros(2), backend="c")


def test_helpers_that_numba_compiled_are_read_as_they_were_written() -> None:
    numba = pytest.importorskip("numba", reason="Numba is not installed")
    twice = numba.njit(added)

    def doubled(p: Any, g: Any, h: Any) -> Any:
        return p - twice(h.lr * g)

    p = np.ones(2)
    fs.rule(lr=0.25)(doubled)(p, backend="numpy").step(np.ones(2))
    np.testing.assert_array_equal(p, 0.5)


def added(x: Any) -> Any:
    return x + x


MICRO, MU = "\u00b5", "\u03bc"
"""Two characters that are one letter in Python's names."""


def prepared(h: Any, t: int) -> dict[str, float]:
    return {f"{MICRO}2": getattr(h, MU) / t, "\ufb01x": 2.0}


def momentum(p, g, µ, h):  # type: ignore[no-untyped-def]
    µ = h.µ * µ + h.µ2 * g
    return p - h.lr * µ * h.fix, µ


@on_backends_for_custom_rules
def test_names_are_those_that_python_reads(backend: str) -> None:
    hyperparameters: dict[str, Any] = {"lr": 0.5, MICRO + "3": 1.0, "ﬁnal": 1.0}
    rule: Any = fs.rule(state=(MICRO,), prepare=lambda h, t: prepared(h, t), lr=0.5, µ=0.25)
    made = rule(momentum)
    p = np.ones(2)
    opt = made(p, backend=backend, **{MICRO: 0.5})
    assert opt.param_groups[0][MU] == 0.5
    opt.step(np.ones(2))
    np.testing.assert_array_equal(p, 1 - 0.5 * 0.5 * 2)
    saved = opt.state_dict()
    assert MU in saved["state"]
    q = p.copy()
    resumed = made(q, backend="numpy")
    resumed.load_state_dict(pickle.loads(pickle.dumps(saved)))
    for each in (opt, resumed):
        each.step(np.ones(2))
    assert differing_bits(p, q) == 0
    assert [*inspect.signature(fs.rule(**hyperparameters)(plain)).parameters][2:4] == [
        f"{MU}3",
        "final",
    ]


@pytest.mark.parametrize("spelled", [MICRO, MU])
def test_names_are_read_alike_wherever_they_come_as_text(spelled: str) -> None:
    rule: Any = fs.rule(state=(MICRO,), prepare=lambda h, t: prepared(h, t), lr=0.5, µ=0.25)
    opt = rule(momentum)([{"params": [np.ones(2)], spelled: 0.5}], backend="numpy")
    (group,) = opt.param_groups
    assert group[spelled] == 0.5
    assert spelled in group
    group[spelled] = 0.75
    group.update({spelled: 0.625})
    assert {**group}[MU] == 0.625
    opt.step([[np.ones(2)]])
    np.testing.assert_array_equal(opt.state[0][0][spelled], 0.625)
    assert spelled in opt.state[0][0]
    assert [*opt.state[0][0]] == [MU, "t"]
    saved = opt.state_dict()
    saved["param_groups"][0][spelled] = saved["param_groups"][0].pop(MU)
    state = saved["state"][0][0]
    state[spelled] = state.pop(MU) + 1
    opt.load_state_dict(saved)
    np.testing.assert_array_equal(opt.state[0][0][MU], 1.625)


def test_one_name_in_two_spellings_is_refused() -> None:
    twice: dict[str, Any] = {"lr": 0.5, MICRO: 1, MU: 2}
    with pytest.raises(ValueError, match="not all different names"):
        fs.rule(**twice)
    with pytest.raises(ValueError, match="different names"):
        fs.rule(state=(MICRO, MU), lr=0.5)
    with pytest.raises(ValueError, match=r"prepare returned has .*not all different names"):
        fs.rule(lr=0.5, prepare=lambda h, t: {MICRO: 1.0, MU: 1.0})(plain)
    one: dict[str, Any] = {"lr": 0.5, MU: 1}
    with pytest.raises(ValueError, match="not all different names"):
        fs.rule(**one)(plain)(np.ones(1), **{MICRO: 1, MU: 2})
    with pytest.raises(ValueError, match=r"params\[0\] has .*not all different names"):
        fs.rule(**one)(plain)([{"params": np.ones(1), MICRO: 1, MU: 2}])
    with pytest.raises(ValueError, match="not all different names"):
        fs.rule(**one)(plain)(np.ones(1)).param_groups[0].update({MICRO: 1, MU: 2})
    for name in ("\uff50", "\uff49\uff46"):  # a wide p, and a wide `if`
        with pytest.raises(ValueError, match="state has"):
            fs.rule(state=(name,), lr=0.5)
    taken: dict[str, Any] = {"lr": 0.5, "e\uff4da": 1.0}
    with pytest.raises(ValueError, match="'ema' means something else"):
        fs.rule(**taken)


@pytest.mark.parametrize(
    ("name", "borne"), [("a\0b", r"a\0b"), ("\ud800x", r"\ud800x"), ("µ", "µ")]
)
def test_a_name_that_no_class_can_bear_is_written_out(name: str, borne: str) -> None:
    def renamed(p, g, h):  # type: ignore[no-untyped-def]
        return p - h.lr * g

    renamed.__name__ = name
    assert fs.rule(lr=0.5)(renamed).__name__ == borne


@pytest.mark.parametrize(
    "name",
    ['x"""\nraise SystemExit\n"""', "x'''\n\\", "{title}", "\\N{x}", "x\ny", "../x", "", "%s"],
)
@on_backends_for_custom_rules
def test_the_name_of_a_function_may_be_any_text(name: str, backend: str) -> None:
    def renamed(p, g, h):  # type: ignore[no-untyped-def]
        return p - h.lr * g

    renamed.__name__ = name
    made = fs.rule(lr=0.5)(renamed)
    assert made.__name__ == name
    assert variants.title(declaration_of(made).rule({})) == "renamed"  # in a kernel's text
    p = np.ones(2)
    made(p, backend=backend).step(np.ones(2))
    np.testing.assert_array_equal(p, 0.5)
