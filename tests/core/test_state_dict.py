"""A run goes on as if nothing had been: state dicts, pickles and copies."""

from __future__ import annotations

import copy
import pickle
from collections.abc import Iterator, Mapping
from typing import Any, TypeAlias

import numpy as np
import pytest
from cases import BASES, Case, differing_bits, ones, ordinary
from marks import for_each, on_each_backend

import fusedstep as fs
from fusedstep._arrays.memory import Shelf
from fusedstep._arrays.place import Host

Array: TypeAlias = np.ndarray[Any, Any]


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
    assert np.shares_memory(optimizer.state["b"], held)


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


@on_each_backend
@pytest.mark.parametrize("t", [2**31 - 1, 2**53, 2**63 - 1, 2**64, 10**300, 2**1023 - 1])
def test_steps_go_on_from_any_count(t: int, backend: str) -> None:
    p = ones(3)
    opt = fs.AdamW([p], backend=backend)
    opt.step([ones(3)])
    saved = opt.state_dict()
    saved["state"][0]["t"] = t
    opt.load_state_dict(saved)
    for k in (1, 2):
        assert opt.step([ones(3)]).t == t + k
        assert opt.state_dict()["state"][0]["t"] == t + k
    assert np.isfinite(p).all()


class Fickle(Mapping[str, Any]):
    """A mapping whose values are others when they are asked for again."""

    def __init__(self, first: Mapping[str, Any], later: Mapping[str, Any]) -> None:
        self.first, self.later = first, later
        self.asked: list[str] = []

    def __getitem__(self, key: str) -> Any:
        self.asked.append(key)
        return (self.later if key in self.asked[:-1] else self.first)[key]

    def __iter__(self) -> Iterator[str]:
        return iter(self.first)

    def __len__(self) -> int:
        return len(self.first)


@on_each_backend
def test_each_value_is_read_once(backend: str) -> None:
    opt = fs.Adam([ones(3), ones(2)], backend=backend)
    opt.step([ones(3), ones(2)])
    saved = opt.state_dict()
    opt.step([ones(3), ones(2)])
    state = saved["state"]
    fickle: list[Any] = [
        {**saved, "state": [Fickle(state[0], {**state[0], "t": -5, "m": None}), state[1]]},
        {**saved, "param_groups": [Fickle(saved["param_groups"][0], {"lr": "x", "betas": None})]},
        Fickle(saved, {**saved, "state": None, "param_groups": None, "optimizer": 0}),
    ]
    for given in fickle:
        opt.load_state_dict(given)
        assert [each["t"] for each in opt.state] == [1, 1]
        assert opt.step([ones(3), ones(2)]).t == 2


@pytest.mark.parametrize("arena", [False, True])
def test_a_load_without_memory_changes_nothing(
    arena: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Each of its allocations fails in turn, the later ones of new state too."""
    other = fs.AdamW([ones(300), np.ones(5)], lr=0.5, amsgrad=True, ema=0.5)
    other.step([ones(300), np.ones(5)])
    other.step([ones(300), np.ones(5)])
    saved = other.state_dict()
    for failing in range(20):
        params: Any = [ones(300), np.ones(5)]
        opt = fs.AdamW(fs.Arena(params) if arena else params)
        opt.step(*([] if arena else [[ones(300), np.ones(5)]]))
        before = opt.state_dict()
        left = [failing]

        def allocate(*args: Any, left: list[int] = left) -> Array:
            left[0] -= 1
            if left[0] == -1:
                raise MemoryError
            return np.zeros(*args[1:])

        with monkeypatch.context() as patch:
            for name in ("zeros", "empty"):
                patch.setattr(Host, name, allocate)
            try:
                opt.load_state_dict(saved)
                break
            except MemoryError:
                pass
        after = opt.state_dict()
        assert after["param_groups"] == before["param_groups"]
        for one, two in zip(after["state"], before["state"], strict=True):
            assert one.keys() == two.keys()
            assert all(np.array_equal(one[key], two[key]) for key in one)
    assert failing > 2
    assert opt.state[0]["t"] == 2
    assert opt.param_groups[0]["lr"] == 0.5


@pytest.mark.parametrize("take_copy", [copy.deepcopy, pickle.dumps])
def test_a_copy_with_a_parameter_that_was_resized_is_refused(take_copy: Any) -> None:
    """It could not be made into an optimizer again."""
    p = ones(4000)
    opt = fs.Adam({"w": p})
    opt.step({"w": ones(4000)})
    p.resize(10, refcheck=False)
    with pytest.raises(ValueError, match=r"params\['w'\] has been resized .* \(10,\)"):
        take_copy(opt)


def turned(p: Array) -> None:
    p.strides = p.strides[::-1]


def reshaped(p: Array) -> None:
    p.shape = (3, 3, 1)


def retyped(p: Array) -> None:
    p.dtype = np.dtype(np.int64)  # type: ignore[misc]


@pytest.mark.filterwarnings("ignore:.*(strides|shape|dtype):DeprecationWarning")
@pytest.mark.parametrize("change", [turned, reshaped, retyped])
@pytest.mark.parametrize("take_copy", [copy.deepcopy, pickle.dumps])
def test_a_copy_of_other_elements_than_are_stepped_is_refused(take_copy: Any, change: Any) -> None:
    """The state that it has would belong to others, or to none."""
    p = np.arange(9.0).reshape(3, 3)
    opt = fs.SGD([p], lr=1.0, momentum=0.5)
    opt.step([np.arange(9.0).reshape(3, 3)])
    change(p)
    opt.step([np.ones((3, 3))])
    with pytest.raises(ValueError, match=r"params\[0\] .*float64 of shape \(3, 3\) .*\(24, 8\)"):
        take_copy(opt)
    p.dtype = np.dtype(np.float64)  # type: ignore[misc]
    p.shape, p.strides = (3, 3), (24, 8)
    take_copy(opt)


def test_state_that_a_signal_s_handler_adds_first(monkeypatch: pytest.MonkeyPatch) -> None:
    opt = fs.SGD(ones(3))
    opt.step(ones(3))
    opt.param_groups[0]["momentum"] = 0.5
    find, handler = Shelf.state, [opt.state_dict]

    def interrupted(shelf: Shelf, letter: str) -> Array:
        while handler:
            handler.pop()()
        return find(shelf, letter)

    monkeypatch.setattr(Shelf, "state", interrupted)
    opt.step(ones(3))
    assert [*opt.state] == ["b", "t"]


def test_a_shallow_copy_is_refused() -> None:
    with pytest.raises(TypeError, match="deepcopy"):
        copy.copy(fs.SGD(ones(2)))


def test_a_pickle_is_not_bound_to_a_backend() -> None:
    assert b"_engine" not in pickle.dumps(fs.AdamW(ones(2)))
    assert b"backends" not in pickle.dumps(fs.AdamW(ones(2)))
