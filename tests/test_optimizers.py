"""The optimizers as their users see them: structures, groups, state, resuming."""

from __future__ import annotations

import copy
import inspect
import pickle
import warnings
import weakref
from pathlib import Path
from typing import Any, NamedTuple, TypeAlias

import numpy as np
import pytest
from cases import BASES, Case, differing_bits, ordinary
from conftest import for_each, needs_c, on_each_engine

import fusedstep as fs
from fusedstep._core import optimizer as optimizer_module

Array: TypeAlias = np.ndarray[Any, Any]


def ones(*shape: int) -> Array:
    return np.ones(shape, np.float32)


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
    """Its state and its t stay, and its bias correction goes on from its own t."""
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
    """And without momentum never."""
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


# ---- going on as if nothing had been ----


def run(optimizer: fs.Optimizer, seed: int, steps: int) -> None:
    rng = np.random.default_rng(seed)
    for _ in range(steps):
        optimizer.step({"w": ordinary(rng, 90, np.float32), "b": ordinary(rng, 7, np.float32)})
        optimizer.lr *= 0.9


def start(case: Case) -> tuple[dict[str, Array], fs.Optimizer]:
    rng = np.random.default_rng(5)
    params = {"w": ordinary(rng, 90, np.float32), "b": ordinary(rng, 7, np.float32)}
    return params, case.optimizer(params, lr=0.1, **case.options)


@pytest.mark.parametrize("way", ["state_dict", "pickled state_dict", "pickle", "deepcopy"])
@for_each(BASES)
def test_resumes_with_the_same_bits(case: Case, way: str) -> None:
    params, optimizer = start(case)
    run(optimizer, 1, 3)
    if "state_dict" in way:
        saved, kept = optimizer.state_dict(), {key: p.copy() for key, p in params.items()}
        if "pickled" in way:
            saved = pickle.loads(pickle.dumps(saved))
        resumed_params, resumed = start(case)
        resumed.load_state_dict(saved)
        for key, p in kept.items():
            resumed_params[key][...] = p
    else:
        pair = params, optimizer
        twin = pickle.loads(pickle.dumps(pair)) if way == "pickle" else copy.deepcopy(pair)
        resumed_params, resumed = twin
    run(optimizer, 2, 3)
    run(resumed, 2, 3)
    for key, p in params.items():
        assert differing_bits(resumed_params[key], p) == 0
        assert resumed.state[key]["t"] == 6
        for letter, array in optimizer.state[key].items():
            if letter != "t":
                assert differing_bits(resumed.state[key][letter], array) == 0
    assert resumed.lr == optimizer.lr


def test_a_state_dict_is_a_copy() -> None:
    p = ones(2)
    optimizer = fs.SGD(p, momentum=0.9)
    optimizer.step(ones(2))
    saved = optimizer.state_dict()
    optimizer.step(ones(2))
    assert (saved["state"]["b"] == 1).all()
    assert saved["state"]["t"] == 1
    held = optimizer.state["b"]
    optimizer.load_state_dict(saved)
    saved["state"]["b"][...] = 7
    assert (held == 1).all()
    assert optimizer.state["b"] is held


def test_loading_brings_its_options() -> None:
    p = ones(3)
    source = fs.Adam(ones(3), amsgrad=True, lr=0.5)
    source.step(ones(3))
    optimizer = fs.Adam(p)
    optimizer.load_state_dict(source.state_dict())
    assert optimizer.lr == 0.5
    assert differing_bits(optimizer.state["x"], source.state["x"]) == 0
    optimizer.step(ones(3))
    source.step(ones(3))
    assert differing_bits(optimizer.state["x"], source.state["x"]) == 0


def test_resumes_after_an_option_was_switched_off() -> None:
    """State that is not needed now is kept, saved and loaded; and what the dict lacks goes."""
    p = np.ones(3)
    a = fs.SGD(p, momentum=0.9, lr=0.1)
    for _ in range(3):
        a.step(np.ones(3))
    a.param_groups[0]["momentum"] = 0.0
    saved = a.state_dict()
    q, r = p.copy(), p.copy()
    b, c = fs.SGD(q, lr=0.1), fs.SGD(r, lr=0.2, momentum=0.5)
    c.step(np.zeros(3))
    for o in (b, c):
        o.load_state_dict(saved)
    for o in (a, b, c):
        o.param_groups[0]["momentum"] = 0.9
        o.step(np.ones(3))
    assert differing_bits(q, p) == differing_bits(r, p) == 0
    plain = fs.SGD(p.copy())
    c.load_state_dict(plain.state_dict())
    assert set(c.state) == {"t"}


def test_its_own_state_dict_always_loads() -> None:
    optimizer = fs.SGD(np.ones(2))
    optimizer.param_groups[0]["momentum"] = 0.9
    optimizer.load_state_dict(optimizer.state_dict())
    assert set(optimizer.state) == {"b", "t"}


def test_a_state_dict_of_live_arrays_is_read_before_it_is_written() -> None:
    optimizer = fs.Adam(ones(3))
    optimizer.step(2 * ones(3))
    saved, live = optimizer.state_dict(), optimizer.state
    m, v = live["m"].copy(), live["v"].copy()
    optimizer.load_state_dict(
        {**saved, "state": {"m": live["v"], "v": live["m"], "t": np.int64(1)}}
    )
    assert (live["m"] == v).all()
    assert (live["v"] == m).all()
    assert live["t"] == 1


def test_a_shallow_copy_is_refused() -> None:
    with pytest.raises(TypeError, match="deepcopy"):
        copy.copy(fs.SGD(ones(2)))


def test_a_pickle_is_not_bound_to_an_engine() -> None:
    assert b"_engine" not in pickle.dumps(fs.AdamW(ones(2)))
    assert b"backends" not in pickle.dumps(fs.AdamW(ones(2)))


# ---- whatever is done to the array objects ----


@on_each_engine
def test_a_parameter_whose_object_changes_is_stepped_as_it_was(backend: str) -> None:
    for change in ({"dtype": np.float64}, {"shape": (2, 2)}, {"dtype": np.int32}):
        memory = np.asfortranarray(np.ones((4, 4), np.float32))
        p = memory[:, :1][:, 0]
        optimizer = fs.Adam(p, lr=0.5, backend=backend)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", DeprecationWarning)
            for name, value in change.items():
                setattr(p, name, value)
        optimizer.step(ones(4))
        assert (memory[:, 0] == 0.5).all()
        assert (memory[:, 1:] == 1).all()


@pytest.mark.filterwarnings("ignore:the matrix subclass:PendingDeprecationWarning")
@on_each_engine
def test_subclasses_are_taken_as_the_arrays_that_they_are(backend: str) -> None:
    class Copying(np.ndarray[Any, Any]):
        def __getitem__(self, key: Any) -> Any:
            return np.array(np.ndarray.__getitem__(self, key))

    params: list[Any] = [np.matrix(ones(3, 3)), ones(3, 4).T.view(Copying), ones(2)]
    optimizer = fs.Adam(params, lr=0.5, backend=backend)
    for _ in range(2):
        optimizer.step([np.matrix(ones(3, 3)), ones(4, 3).view(Copying), ones(2).view(Copying)])
    for p in params:
        assert np.allclose(np.asarray(p), 0, atol=1e-6)


def test_parameters_in_a_file(tmp_path: Path) -> None:
    p = np.memmap(tmp_path / "p", np.float32, "w+", shape=(5,))
    fs.SGD(p, lr=1.0).step(ones(5))
    p.flush()
    assert (np.fromfile(tmp_path / "p", np.float32) == -1).all()


# ---- layouts are made when they must be ----


def count_layouts(monkeypatch: pytest.MonkeyPatch) -> list[Any]:
    made: list[Any] = []
    plan = vars(optimizer_module)["Plan"]

    def counting(*arguments: Any) -> Any:
        made.append(arguments)
        return plan(*arguments)

    monkeypatch.setattr(optimizer_module, "Plan", counting)
    return made


def test_a_schedule_needs_no_new_layout(monkeypatch: pytest.MonkeyPatch) -> None:
    optimizer = fs.AdamW([ones(3), ones(2)])
    optimizer.step([ones(3), ones(2)])
    made = count_layouts(monkeypatch)
    for _ in range(5):
        optimizer.lr *= 0.9
        optimizer.param_groups[0].update(weight_decay=0.1, betas=(0.8, 0.9))
        optimizer.step([ones(3), ones(2)])
    assert made == []
    optimizer.param_groups[0]["amsgrad"] = True
    optimizer.step([ones(3), ones(2)])
    assert len(made) == 1


def test_a_step_that_fails_in_its_layout_changes_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    p, q = ones(3), ones(2)
    optimizer = fs.SGD([p, q], lr=1.0, momentum=0.5)
    optimizer.step([ones(3), ones(2)])

    def refuse(*_: Any) -> Any:
        raise MemoryError

    with monkeypatch.context() as patch:
        patch.setattr(optimizer_module, "Plan", refuse)
        with pytest.raises(MemoryError):
            optimizer.step([ones(3), None])
    assert [state["t"] for state in optimizer.state] == [1, 1]
    optimizer.step([ones(3), ones(2)])
    assert [state["t"] for state in optimizer.state] == [2, 2]
    optimizer.step([ones(3), None])
    assert [state["t"] for state in optimizer.state] == [3, 2]
    assert (p == 1 - 1 - 1.5 - 1.75).all()


# ---- the steps without an object ----

CALLS: dict[Any, tuple[Any, str]] = {
    fs.SGD: (fs.functional.sgd, "b"),
    fs.Adagrad: (fs.functional.adagrad, "s"),
    fs.RMSprop: (fs.functional.rmsprop, "vab"),
    fs.Adam: (fs.functional.adam, "mvx"),
    fs.AdamW: (fs.functional.adamw, "mvx"),
}


@for_each(BASES)
def test_functional_equals_the_optimizer(case: Case) -> None:
    rng = np.random.default_rng(0)
    p = ordinary(rng, 500, np.float32).reshape(20, 25)
    mine = p.copy()
    optimizer = case.optimizer(p, **case.options)
    call, letters = CALLS[case.optimizer]
    options = {
        name: value
        for name, value in case.options.items()
        if name in inspect.signature(call).parameters
    }
    # In another layout than p, as arrays of the caller's own may be.
    states = {
        letter: np.array(optimizer.state[letter], order="F")
        for letter in letters
        if letter in optimizer.state
    }
    for t in (1, 2, 3):
        g = ordinary(rng, 500, np.float32).reshape(20, 25)
        optimizer.step(g)
        call(mine, g, **states, t=t, **options)
    assert differing_bits(mine, p) == 0
    for letter, array in states.items():
        assert differing_bits(array, optimizer.state[letter]) == 0


@pytest.mark.parametrize("optimizer", CALLS, ids=lambda optimizer: optimizer.__name__)
def test_functional_has_the_defaults_of_the_class(optimizer: Any) -> None:
    """But for those that a state array passed or left out stands for, and those of a course."""
    implied = {"params", "amsgrad", "centered", "initial_accumulator_value", "ema", "nonfinite"}
    of_class = inspect.signature(optimizer).parameters
    of_function = inspect.signature(CALLS[optimizer][0]).parameters
    names = [name for name in of_class if name not in implied]
    assert [name for name in of_function if name in of_class] == names
    for name in names:
        assert of_function[name].default == of_class[name].default, name


def test_functional_schedule() -> None:
    p = np.array([1.0])
    m, v = np.zeros(1), np.zeros(1)
    fs.functional.adamw(
        p,
        np.zeros(1),
        m,
        v,
        t=1,
        lr=0.1,
        initial_lr=0.2,
        weight_decay=0.5,
        decay_scale="schedule",
    )
    assert p == 0.75


# ---- one call a step ----


@needs_c
@pytest.mark.parametrize("fresh", [False, True], ids=["same arrays", "new arrays"])
@pytest.mark.parametrize("count", [1, 1000])
def test_calls_do_not_grow_with_the_number_of_tensors(
    count: int, fresh: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """One call takes over the gradients and steps; nothing is looked at from Python."""
    from fusedstep._arrays import overlap
    from fusedstep._backends.c import runner

    def gradients() -> list[Array]:
        return [ones(10) for _ in range(count)]

    lib = vars(runner)["lib"]
    calls: list[str] = []

    class Counting:
        def __getattr__(self, name: str) -> Any:
            calls.append(name)
            return getattr(lib, name)

    grads = gradients()
    made = fs.AdamW(gradients())
    made.step(grads)
    if fresh:
        grads, kept = gradients(), grads  # `kept`, so that the new ones lie elsewhere
        assert grads[0] is not kept[0]
    monkeypatch.setattr(runner, "lib", Counting())
    monkeypatch.setattr(optimizer_module, "check_like", None)
    monkeypatch.setattr(overlap, "extent", None)
    made.step(grads)
    assert calls == ["fs_take_and_step"]


def test_gradients_are_not_kept() -> None:
    """A step holds on to no gradient that it read in place."""
    p = ones(10)
    optimizer = fs.AdamW(p)
    for _ in range(3):
        g = ones(10)
        optimizer.step(g)
        gone = weakref.ref(g)
        del g
        assert gone() is None or optimizer._table.__module__.endswith("numpy")


@on_each_engine
def test_gradients_of_every_kind_one_after_the_other(backend: str) -> None:
    """What is taken over at a glance and what must be looked at, in all transitions."""
    params = [ones(4, 6), ones(4, 6), ones(6)]
    expected = [p.copy() for p in params]
    optimizer = fs.SGD(params, lr=0.25, backend=backend)
    rng = np.random.default_rng(0)
    for _ in range(300):
        grads: list[Any] = []
        for p, q in zip(params, expected, strict=True):
            g: Any = rng.integers(-4, 5, p.shape).astype(np.float32)
            kind = rng.integers(6)
            if kind == 1:
                g = np.asfortranarray(g)
            elif kind == 2:
                g = np.repeat(g, 2, axis=-1)[..., ::2]
            elif kind == 3:
                g = np.broadcast_to(g[:1], p.shape)
            elif kind == 4:
                memory = np.zeros(g.nbytes + 1, np.uint8)
                memory[1:] = g.reshape(-1).view(np.uint8)
                g = memory[1:].view(np.float32).reshape(p.shape)
            elif kind == 5:
                g = None
            grads.append(g)
            if g is not None:
                q -= np.float32(0.25) * g
        optimizer.step(grads)
    for p, q in zip(params, expected, strict=True):
        assert differing_bits(p, q) == 0


@on_each_engine
def test_an_array_that_changed_its_dtype_or_shape_is_seen(backend: str) -> None:
    p = ones(2, 3)
    optimizer = fs.SGD(p, lr=1.0, backend=backend)
    g = ones(2, 3)
    optimizer.step(g)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)
        g.dtype = np.int32  # type: ignore[misc]
        with pytest.raises(TypeError, match="grads has dtype '<i4'"):
            optimizer.step(g)
        g.dtype = np.float32  # type: ignore[misc]
        g.shape = (3, 2)
        with pytest.raises(ValueError, match=r"grads has shape \(3, 2\)"):
            optimizer.step(g)
        g.shape = (2, 3)
    optimizer.step(g)
    assert (p == -1).all()
