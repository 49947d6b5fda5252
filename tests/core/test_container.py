"""Entries of a user's container that are other arrays than the parameters: found now and then."""

from __future__ import annotations

import copy
import pickle
import warnings
from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np
import pytest
from counting import calls_of
from marks import needs

import fusedstep as fs
from fusedstep._core.container import Container

OTHER = "hold something else than the arrays that the optimizer steps"


def grads_like(params: Any) -> Any:
    if isinstance(params, dict):
        return {key: grads_like(value) for key, value in params.items()}
    if isinstance(params, (list, tuple)):
        return [grads_like(value) for value in params]
    return np.ones_like(params)


def put(container: Any, keys: tuple[Any, ...], value: Any) -> None:
    for key in keys[:-1]:
        container = container[key]
    container[keys[-1]] = value


MADE: dict[str, tuple[Any, tuple[Any, ...], str]] = {
    "mapping": (lambda: {"w": np.ones(3), "b": np.ones(1)}, ("w",), "params['w']"),
    "list": (lambda: [np.ones(3), np.ones(1)], (1,), "params[1]"),
    "nested": (lambda: {"a": [{"w": np.ones(3)}]}, ("a", 0, "w"), "params['a'][0]['w']"),
    "in a tuple": (lambda: ({"w": np.ones(3)}, np.ones(2)), (0, "w"), "params[0]['w']"),
}


@pytest.mark.parametrize("name", MADE)
def test_warned_at_each_power_of_two(name: str) -> None:
    make, keys, path = MADE[name]
    params = make()
    grads = grads_like(params)
    opt = fs.Adam(params)
    opt.step(grads)
    put(params, keys, np.zeros(3))
    warned = []
    for t in range(2, 20):
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always")
            opt.step(grads)
        for each in caught:
            assert str(each.message).startswith(f"{path} now {OTHER}")
            assert each.category is RuntimeWarning
            assert each.filename == __file__
            warned.append(t)
    assert warned == [2, 4, 8, 16]


@pytest.mark.parametrize("value", [3.0, [1.0, 2.0, 3.0], np.float32(2), "w"])
def test_what_is_no_array_any_more_is_warned_of(value: Any) -> None:
    params = {"w": np.ones(3), "b": np.ones(1)}
    opt = fs.Adam(params)
    params["w"] = value
    with pytest.warns(RuntimeWarning, match=r"^params\['w'\] now hold"):
        opt.step({"w": np.ones(3), "b": np.ones(1)})


def test_arrays_that_the_user_lets_go_are_not() -> None:
    params: dict[str, Any] = {"w": np.ones(3), "b": np.ones(1)}
    opt = fs.Adam(params)
    params["w"] = None
    del params["b"]
    opt.step({"w": np.ones(3), "b": np.ones(1)})


def test_the_remedies_work() -> None:
    params = {"w": np.ones(3)}
    opt = fs.Adam(params, lr=0.1)
    opt.step({"w": np.ones(3)})
    first = params["w"]
    params["w"][...] = 5.0
    opt.step({"w": np.ones(3)})
    assert (first < 5).all()
    params["w"] = np.zeros(3)
    new = fs.Adam(params, lr=0.1)
    new.load_state_dict(opt.state_dict())
    new.step({"w": np.ones(3)})
    new.step({"w": np.ones(3)})
    assert new.state["w"]["t"] == 4
    assert (params["w"] < 0).all()


def test_groups_are_looked_at() -> None:
    groups = [{"params": {"w": np.ones(3)}, "lr": 0.1}, {"params": [np.ones(2)]}]
    grads = [{"w": np.ones(3)}, [np.ones(2)]]
    opt = fs.SGD(groups)
    groups[1]["params"][0] = np.zeros(2)  # type: ignore[index]
    groups[0]["params"]["w"] = np.zeros(3)  # type: ignore[index]
    with pytest.warns(RuntimeWarning, match=r"params\[0\]\['w'\] and 1 more entries now hold"):
        opt.step(grads)


def test_a_warning_that_is_an_error_leaves_the_step_out() -> None:
    first = np.ones(3)
    params = {"w": first}
    opt = fs.Adam(params)
    params["w"] = np.zeros(3)
    for _ in range(2):
        with pytest.raises(RuntimeWarning, match=OTHER):
            opt.step({"w": np.ones(3)})
    assert (first == 1).all()
    assert opt.state["w"]["t"] == 0
    params["w"] = first
    opt.step({"w": np.ones(3)})
    assert opt.state["w"]["t"] == 1


def test_looked_at_no_other_step(monkeypatch: pytest.MonkeyPatch) -> None:
    params = {"w": np.ones(3), "b": np.ones(1)}
    some, all_ = {"w": np.ones(3), "b": None}, {"w": np.ones(3), "b": np.ones(1)}
    opt = fs.Adam(params)
    looks = calls_of(monkeypatch, Container, "replaced")  # type: ignore[arg-type]
    at = []
    for t in range(1, 70):
        before = len(looks)
        opt.step(some if t % 5 == 0 else all_)
        if len(looks) > before:
            at.append(opt.state["w"]["t"])
    assert at == [1, 2, 4, 8, 16, 32, 64]


def test_the_same_memory_is_no_other_array() -> None:
    """A container may make a view at each look, and a user may put one there."""
    memory = np.ones(6)

    class Views(Mapping[str, Any]):
        def __getitem__(self, key: str) -> Any:
            return memory[: int(key)]

        def __iter__(self) -> Iterator[str]:
            return iter(["4"])

        def __len__(self) -> int:
            return 1

    opt = fs.SGD(Views())
    params = {"w": np.ones(3)}
    other = fs.SGD(params)
    params["w"] = params["w"][:]
    for _ in range(4):
        opt.step({"4": np.ones(4)})
        other.step({"w": np.ones(3)})
    assert (params["w"] < 1).all()


def test_whatever_else_becomes_of_a_container_is_not_the_optimizers() -> None:
    params: dict[str, Any] = {"w": np.ones(3), "b": np.ones(1), "c": [np.ones(2)]}
    grads = grads_like(params)
    opt = fs.SGD(params)
    del params["w"]
    params["b"] = None
    params["c"] = 5
    params["new"] = np.ones(9)
    for _ in range(5):
        opt.step(grads)
    groups: list[Any] = [{"params": np.ones(3)}, {"params": [np.ones(1)]}]
    opt = fs.SGD(groups)
    groups.clear()
    opt.step([np.ones(3), [np.ones(1)]])


def test_containers_that_are_read_but_once() -> None:
    arrays = [np.ones(3), np.ones(2)]
    for params in (iter(arrays), {"a": arrays[0]}.values()):
        opt = fs.SGD(params)
        opt.step([np.ones(3)] if len(opt.param_groups[0]["params"]) == 1 else grads_like(arrays))


@pytest.mark.parametrize("copied", [copy.deepcopy, lambda both: pickle.loads(pickle.dumps(both))])
def test_a_copy_knows_the_copied_container(copied: Any) -> None:
    params = {"w": [np.ones(3)]}
    opt = fs.SGD(params)
    params_too, opt_too = copied((params, opt))
    params_too["w"][0] = np.zeros(3)
    with pytest.warns(RuntimeWarning, match=OTHER):
        opt_too.step({"w": [np.ones(3)]})
    opt.step({"w": [np.ones(3)]})


def test_a_copy_takes_nothing_else_along() -> None:
    """A user may add to the container, and that may be large or not fit for pickle."""
    params: dict[str, Any] = {"w": np.ones(3)}
    opt = fs.SGD(params)
    params["log"] = lambda: None
    again = pickle.loads(pickle.dumps(opt))
    again.step({"w": np.ones(3)})
    assert again.state["w"]["t"] == 1


def test_tensors_of_torch_in_a_container() -> None:
    torch = needs("torch", "torch")
    params = {"w": torch.ones(3)}
    opt = fs.SGD(params)
    opt.step({"w": torch.ones(3)})
    params["w"] = params["w"].clone()
    with pytest.warns(RuntimeWarning, match=OTHER):
        opt.step({"w": torch.ones(3)})


def test_a_single_array_has_a_gradient() -> None:
    p = np.ones(3)
    opt = fs.SGD(p)
    for grads in (None,):
        with pytest.raises(TypeError, match="grads is None, and so this step would do nothing"):
            opt.step(grads)
    assert opt.state["t"] == 0
    opt = fs.SGD([p, np.ones(2)])
    opt.step([None, np.ones(2)])
    assert [state["t"] for state in opt.state] == [0, 1]
