"""Bad input: an error that names the argument, its value and the remedy, and nothing written."""

from __future__ import annotations

import re
from collections import defaultdict
from typing import Any, TypeAlias

import numpy as np
import pytest
from marks import on_each_backend
from numpy.lib.stride_tricks import as_strided

import fusedstep as fs

Array: TypeAlias = np.ndarray[Any, Any]


def zeros(*shape: int, dtype: Any = np.float32) -> Array:
    return np.zeros(shape, dtype)


def read_only() -> Array:
    array = zeros(3)
    array.flags.writeable = False
    return array


BAD_PARAMETERS = {
    "read-only": (read_only(), ValueError, "read-only.*copy"),
    "broadcast": (
        as_strided(zeros(1), (4,), (0,)),
        ValueError,
        r"elements that share memory \(shape \(4,\), strides \(0,\)\).*copy",
    ),
    "window": (as_strided(zeros(5), (3, 3), (4, 4)), ValueError, "share memory.*copy"),
    "skewed window": (as_strided(zeros(9), (3, 2), (8, 12)), None, ""),
    "half an element apart": (as_strided(zeros(9), (3,), (2,)), ValueError, "share memory"),
    "foreign float16": (zeros(3, dtype=">f2"), TypeError, "'>f2'.*byte order"),
    "long double": (zeros(3, dtype=np.longdouble), TypeError, "float32 or float64"),
    "integers": (zeros(3, dtype=np.int64), TypeError, "int64.*astype"),
    "complex": (zeros(3, dtype=np.complex64), TypeError, "complex64.*astype"),
    "objects": (zeros(3, dtype=object), TypeError, "object.*astype"),
    "booleans": (zeros(3, dtype=bool), TypeError, "bool.*astype"),
    "records": (zeros(3, dtype=[("x", "f4")]), TypeError, "float32 or float64"),
    "foreign bytes": (zeros(3, dtype=">f4"), TypeError, "'>f4'.*byte order"),
    "masked": (np.ma.masked_array(zeros(3), [False, True, False]), TypeError, "mask.*`.data`"),
    "NumPy scalar": (np.float32(1), TypeError, "float32.*asarray"),
    "number": (1.0, TypeError, "1.0 .float.*NumPy array"),
    "None": (None, TypeError, "None.*NumPy array"),
    "text": ("weights", TypeError, "'weights'.*NumPy array"),
}


@pytest.mark.parametrize("name", BAD_PARAMETERS)
def test_bad_parameters(name: str) -> None:
    bad, error, message = BAD_PARAMETERS[name]
    good = zeros(2)
    if error is None:
        fs.SGD([good, bad])
        return
    with pytest.raises(error, match=rf"(?s)params\[1\].*{message}"):
        fs.SGD([good, bad])
    with pytest.raises(error, match=rf"(?s)params\['bad'\].*{message}"):
        fs.AdamW({"good": good, "bad": bad})
    with pytest.raises(error, match=rf"(?s)params\[1\]\['w'\].*{message}"):
        fs.AdamW([{"params": [good]}, {"params": {"w": bad}}])


def test_no_parameters() -> None:
    nothings: list[Any] = [[], {}, {"layer": []}, [{"params": []}]]
    for nothing in nothings:
        with pytest.raises(ValueError, match="params is empty"):
            fs.SGD(nothing)


def test_parameters_that_hold_themselves() -> None:
    sequence: list[Any] = []
    sequence.append(sequence)
    mapping: dict[str, Any] = {}
    mapping["more"] = [mapping]
    deep: Any = zeros(1)
    for _ in range(10_000):
        deep = [deep]
    for params in (sequence, mapping, deep, [{"params": sequence}]):
        with pytest.raises(ValueError, match=r"params holds itself, or is nested too deep"):
            fs.SGD(params)


def test_the_same_memory_twice() -> None:
    p = zeros(10)
    for params in ([p, p], [p[:6], p[5:]], [p, p[::-1]], [p[::2], p[2:3]], [p, p.reshape(2, 5)]):
        with pytest.raises(ValueError, match=r"params\[0\] and params\[1\] share memory.*copies"):
            fs.SGD(params)
    with pytest.raises(ValueError, match=r"params\[0\]\[0\] and params\[1\]\[0\] share memory"):
        fs.SGD([{"params": [p]}, {"params": [p]}])


def bad_gradients(p: Array, other: Array, m: Array) -> dict[str, tuple[Any, type, str]]:
    packed = p.base
    assert packed is not None
    return {
        "shape": (zeros(5), ValueError, r"shape \(5,\), its parameter \(4,\)"),
        "broadcastable": (zeros(1), ValueError, r"shape \(1,\).*broadcast_to"),
        "dtype": (zeros(4, dtype=np.float64), TypeError, r"float64.*parameter float32.*astype"),
        "foreign bytes": (zeros(4, dtype=">f4"), TypeError, "'>f4'"),
        "integers": (zeros(4, dtype=np.int32), TypeError, "int32"),
        "objects": (zeros(4, dtype=object), TypeError, "object"),
        "list": ([0.0] * 4, TypeError, "NumPy array"),
        "masked": (np.ma.masked_array(zeros(4), False), TypeError, "mask"),
        "number": (1.0, TypeError, "1.0"),
        "its parameter": (p, ValueError, r"shares memory with params\['p'\].*copy"),
        "part of it": (packed[2:6], ValueError, r"shares memory with params\['p'\]"),
        "another parameter": (other, ValueError, r"shares memory with params\['q'\]"),
        "state": (m, ValueError, r"shares memory with m\['p'\]"),
    }


@pytest.mark.parametrize("name", bad_gradients(zeros(9)[:4], zeros(4), zeros(4)))
@on_each_backend
def test_bad_gradients(name: str, backend: str) -> None:
    """Nothing is written, at the first step or a later one, nor after good ones in the call."""
    p, q = zeros(9)[:4], zeros(4)
    optimizer = fs.Adam({"q": q, "p": p}, lr=0.1, backend=backend)
    good = np.ones(4, np.float32)
    optimizer.step({"q": good, "p": good})
    before = p.copy(), q.copy(), optimizer.state_dict()
    bad, error, message = bad_gradients(p, q, optimizer.state["p"]["m"])[name]
    with pytest.raises(error, match=rf"(?s)grads\['p'\].*{message}"):
        optimizer.step({"q": good.copy(), "p": bad})
    assert unchanged(optimizer, p, q, before)
    optimizer.step({"q": good, "p": good})
    assert optimizer.state["p"]["t"] == 2


def unchanged(optimizer: fs.Optimizer, p: Array, q: Array, before: tuple[Any, Any, Any]) -> bool:
    state = optimizer.state_dict()["state"]
    return (
        np.array_equal(p, before[0])
        and np.array_equal(q, before[1])
        and all(
            np.array_equal(state[key][letter], before[2]["state"][key][letter])
            for key in "pq"
            for letter in ("m", "v", "t")
        )
    )


BAD_STRUCTURES = {
    "missing": ({"w": zeros(2)}, KeyError, "grads lacks 'b'"),
    "surplus": (
        {"w": zeros(2), "b": zeros(1), "c": zeros(1)},
        KeyError,
        "grads has the surplus 'c'",
    ),
    "both": ({"w": zeros(2), "c": zeros(1)}, KeyError, "lacks 'b' and has the surplus 'c'"),
    "sequence": ([zeros(2), zeros(1)], TypeError, "grads is .*mapping with the keys 'w', 'b'"),
    "array": (zeros(2), TypeError, r"grads is an array of shape \(2,\)"),
    "None": (None, TypeError, "grads is None"),
}


@pytest.mark.parametrize("name", BAD_STRUCTURES)
def test_structure_of_a_mapping(name: str) -> None:
    bad, error, message = BAD_STRUCTURES[name]
    params = {"w": np.ones(2, np.float32), "b": np.ones(1, np.float32)}
    optimizer = fs.SGD(params)
    with pytest.raises(error, match=message):
        optimizer.step(bad)
    assert (params["w"] == 1).all()
    assert optimizer.state["w"]["t"] == 0


def test_structure_of_a_sequence() -> None:
    optimizer = fs.SGD([zeros(2), zeros(1)])
    for bad, error, message in (
        ([zeros(2)], ValueError, "grads has 1 items for 2"),
        ([zeros(2)] * 3, ValueError, "grads has 3 items for 2"),
        ({0: zeros(2), 1: zeros(1)}, TypeError, "sequence of 2"),
        (zeros(2), TypeError, "sequence of 2"),
        (None, TypeError, "sequence of 2"),
        (7, TypeError, "sequence of 2"),
    ):
        with pytest.raises(error, match=message):
            optimizer.step(bad)
    nested = fs.SGD({"layers": [{"w": zeros(2)}, {"w": zeros(1)}]})
    with pytest.raises(KeyError, match=re.escape("grads['layers'][1] lacks 'w'")):
        nested.step({"layers": [{"w": zeros(2)}, {}]})


BAD_HYPERPARAMETERS: list[tuple[Any, dict[str, Any], str]] = [
    (fs.SGD, {"lr": -1.0}, "lr=-1.0 is negative"),
    (fs.SGD, {"lr": float("nan")}, "lr=nan"),
    (fs.SGD, {"lr": float("inf")}, "lr=inf"),
    (fs.SGD, {"lr": "0.1"}, "lr='0.1'"),
    (fs.SGD, {"lr": True}, "lr=True"),
    (fs.SGD, {"lr": None}, "lr=None"),
    (fs.SGD, {"momentum": -0.1}, "momentum=-0.1"),
    (fs.SGD, {"dampening": float("nan")}, "dampening=nan"),
    (fs.SGD, {"weight_decay": -1}, "weight_decay=-1"),
    (fs.SGD, {"l1": -1}, "l1=-1"),
    (fs.SGD, {"nesterov": True}, "nesterov=True with momentum=0.0.*needs momentum above 0"),
    (fs.SGD, {"nesterov": True, "momentum": 0.9, "dampening": 0.1}, "dampening=0"),
    (fs.SGD, {"lr_in_momentum": 1}, "lr_in_momentum=1.*True or False"),
    (fs.SGD, {"maximize": 1}, "maximize=1.*True or False"),
    (fs.Adagrad, {"lr_decay": -1}, "lr_decay=-1"),
    (fs.Adagrad, {"initial_accumulator_value": -1}, "initial_accumulator_value=-1"),
    (fs.Adagrad, {"eps": -1e-8}, "eps=-1e-08"),
    (fs.RMSprop, {"alpha": 1.0}, r"alpha=1.0 is outside \[0, 1\)"),
    (fs.RMSprop, {"alpha": -0.1}, "alpha=-0.1"),
    (fs.RMSprop, {"centered": "yes"}, "centered='yes'"),
    (fs.Adam, {"betas": (1.0, 0.9)}, r"betas\[0\]=1.0 is outside \[0, 1\)"),
    (fs.Adam, {"betas": (0.9, -0.1)}, r"betas\[1\]=-0.1"),
    (fs.Adam, {"betas": (0.9, float("nan"))}, r"betas\[1\]=nan"),
    (fs.Adam, {"betas": 0.9}, r"betas=0.9.*pass 2 numbers, for instance \(0.9, 0.999\)"),
    (fs.Adam, {"betas": (0.9, 0.99, 0.999)}, "pass 2 numbers"),
    (fs.Adam, {"eps_uncorrected": None}, "eps_uncorrected=None.*True or False"),
    (fs.Adam, {"eps": float("nan")}, "eps=nan"),
    (fs.AdamW, {"decay_scale": "eta"}, "decay_scale='eta'; pass one of 'lr', 'schedule'"),
    (fs.AdamW, {"decay_scale": ["lr"]}, r"decay_scale=\['lr'\]"),
    (fs.AdamW, {"decay_scale": "schedule", "lr": 0}, "initial_lr=0.0"),
    (fs.SGD, {"lr": 10**400}, "lr=1000.*finite"),
    (fs.SGD, {"lr": np.array(0.1)}, "lr=.*number"),
    (
        fs.AdamW,
        {"backend": "gpu"},
        "'gpu' is unknown; pass one of 'auto', 'c', 'numba', 'cuda', 'numpy'",
    ),
]


@pytest.mark.parametrize(("optimizer", "options", "message"), BAD_HYPERPARAMETERS)
def test_bad_hyperparameters(
    optimizer: type[fs.Optimizer], options: dict[str, Any], message: str
) -> None:
    with pytest.raises((TypeError, ValueError), match=message):
        optimizer(zeros(2), **options)


def test_numbers_of_thousands_of_digits() -> None:
    """Python writes none of them."""
    vast = 10**5000
    opt = fs.SGD(zeros(1))
    for name, use in [
        ("lr", lambda: fs.SGD(zeros(1), lr=vast)),
        ("momentum", lambda: fs.SGD(zeros(1), momentum=vast)),
        ("scale", lambda: opt.step(zeros(1), scale=vast)),
        ("max_norm", lambda: opt.step(zeros(1), max_norm=vast)),
        ("n", lambda: fs.set_num_threads(vast)),
        ("t", lambda: fs.functional.sgd(zeros(1), zeros(1), t=-vast)),
    ]:
        with pytest.raises(ValueError, match=rf"^{name}=a number of 16610 bits"):
            use()  # type: ignore[no-untyped-call]


def test_an_optimizer_without_a_rule() -> None:
    with pytest.raises(TypeError, match=r"Optimizer has no rule of its own; .*AdamW\(params\)"):
        fs.Optimizer(zeros(2), lr=0.1)


def test_unknown_options() -> None:
    with pytest.raises(TypeError, match="learning_rate"):
        fs.SGD(zeros(2), learning_rate=0.1)  # type: ignore[call-arg]
    with pytest.raises(KeyError, match=r"params\[1\].*unknown hyperparameter 'rate'.*'lr'"):
        fs.SGD([{"params": zeros(2)}, {"params": zeros(2), "rate": 1}])
    with pytest.raises(ValueError, match=r"params\[1\]: lr=-1"):
        fs.SGD([{"params": zeros(2)}, {"params": zeros(2), "lr": -1}])


def test_bad_assignments_change_nothing() -> None:
    optimizer = fs.SGD(zeros(2), lr=0.5, momentum=0.9)
    group = optimizer.param_groups[0]
    for name, value, error in (
        ("lr", -1, ValueError),
        ("lr", "fast", TypeError),
        ("rate", 1, KeyError),
        ("params", [], KeyError),
        ("dampening", float("nan"), ValueError),
    ):
        with pytest.raises(error):
            group[name] = value
    with pytest.raises(ValueError, match="lr=nan"):
        optimizer.lr = float("nan")
    with pytest.raises(ValueError, match="momentum=-1"):
        group.update(lr=0.75, momentum=-1)
    with pytest.raises(AttributeError, match=r"no 'momentum' to set.*param_groups\[0\]"):
        optimizer.momentum = 0.5
    with pytest.raises(TypeError, match="cannot lose 'lr'"):
        del group["lr"]
    assert dict(group) == {
        "params": group["params"],
        "lr": 0.5,
        "momentum": 0.9,
        "dampening": 0.0,
        "weight_decay": 0.0,
        "nesterov": False,
        "lr_in_momentum": False,
        "maximize": False,
        "l1": 0.0,
        "ema": None,
        "master": None,
        "state_dtype": "float32",
        "rounding": "auto",
        "seed": 0,
        "untouched": "frozen",
        "row_steps": "own",
    }


def test_a_schedule_that_overflows_is_refused() -> None:
    optimizer = fs.AdamW(zeros(2), lr=5e-324, decay_scale="schedule")
    with pytest.raises(ValueError, match=r"lr=1000.0 and initial_lr=5e-324"):
        optimizer.lr = 1e3


def test_a_rate_is_set_for_all_groups_or_for_none() -> None:
    """The last group refuses it: its initial_lr is too small to measure such a rate by."""
    optimizer = fs.AdamW(
        [{"params": zeros(2)}, {"params": zeros(2), "lr": 5e-324, "decay_scale": "schedule"}],
        lr=0.5,
    )
    with pytest.raises(ValueError, match=r"lr=1000.0 and initial_lr=5e-324"):
        optimizer.lr = 1e3
    assert [group["lr"] for group in optimizer.param_groups] == [0.5, 5e-324]


def test_a_mapping_that_makes_up_keys_is_seen_through() -> None:
    grads: dict[str, Any] = defaultdict(lambda: None, z=zeros(2))
    with pytest.raises(KeyError, match="grads lacks 'w' and has the surplus 'z'"):
        fs.SGD({"w": zeros(2)}).step(grads)
    assert list(grads) == ["z"]


def test_bad_functional_arguments() -> None:
    adamw, sgd, rmsprop = fs.functional.adamw, fs.functional.sgd, fs.functional.rmsprop
    p, g, m, v = (np.ones(3, np.float32) for _ in range(4))
    bad: list[tuple[Any, str]] = [
        (lambda: adamw(p, g, m, v, t=0), "t=0"),
        (lambda: adamw(p, g, m, v, t=1.5), "t=1.5"),  # type: ignore[arg-type]
        (lambda: adamw(p, g, m, v, t=True), "t=True"),
        (
            lambda: adamw(p, g, m, v, t=10**9999),
            r"t has \d+ bits; pass a whole number from 1 below",
        ),
        (lambda: adamw(p, g, m, m, t=1), "m and v share memory"),
        (lambda: adamw(p, g, p, v, t=1), "m and p share memory"),
        (lambda: adamw(p, m, m, v, t=1), "g shares memory with m"),
        (lambda: adamw(p, p, m, v, t=1), "g shares memory with p"),
        (lambda: adamw(p, g, m, zeros(4), t=1), r"v has shape \(4,\)"),
        (lambda: adamw(p, g, m, zeros(3, dtype=np.float64), t=1), "v has dtype"),
        (lambda: adamw(p, g, read_only(), v, t=1), "m is read-only"),
        (lambda: adamw(p, g, m, v, t=1, lr=-1), "lr=-1"),
        (lambda: adamw(p, g, None, v, t=1), "m is None"),  # type: ignore[arg-type]
        (lambda: sgd(p, g, t=1, momentum=0.9), "momentum=0.9 needs b"),
        (lambda: sgd(p, g, m, t=1), "b is passed with momentum=0"),
        (lambda: rmsprop(p, g, v, t=1, momentum=0.9), "needs b"),
    ]
    for call, message in bad:
        with pytest.raises((TypeError, ValueError), match=message):
            call()
    assert all((array == 1).all() for array in (p, g, m, v))


def test_bad_state_dicts() -> None:
    p, q = zeros(3), zeros(2)
    optimizer = fs.Adam({"p": p, "q": q}, lr=0.1)
    optimizer.step({"p": np.ones(3, np.float32), "q": np.ones(2, np.float32)})
    good = optimizer.state_dict()
    state = good["state"]
    bad: list[tuple[dict[str, Any], str]] = [
        ({}, "lacks 'format'"),
        ({**good, "format": 99}, "'format'.*99.*reads 1"),
        ({**good, "optimizer": "SGD"}, "'SGD'.*reads 'Adam'"),
        ({**good, "param_groups": []}, "0 param_groups"),
        ({**good, "param_groups": [{"lr": 1.0}]}, "lacks 'betas'"),
        ({**good, "param_groups": [{**good["param_groups"][0], "lr": -1}]}, "lr=-1"),
        ({**good, "state": {"p": state["p"]}}, "lacks 'q'"),
        ({**good, "state": {**state, "q": {"m": zeros(2), "t": 1}}}, r"\['q'\] lacks 'v'"),
        ({**good, "state": {**state, "q": {**state["q"], "m": zeros(3)}}}, r"\['m'\] has shape"),
        (
            {**good, "state": {**state, "q": {**state["q"], "m": zeros(2, dtype=np.float64)}}},
            r"\['m'\] has dtype",
        ),
        ({**good, "state": {**state, "q": {**state["q"], "t": -1}}}, r"\['t'\]=-1"),
        ({**good, "state": {**state, "q": {**state["q"], "t": 1.5}}}, r"\['t'\]=1.5"),
        ({**good, "state": {**state, "q": {**state["q"], "t": 2**1023}}}, r"\['t'\] has 1024 bits"),
    ]
    bad += [
        (7, "state_dict is 7"),  # type: ignore[list-item]
        ({**good, "param_groups": None}, r"\['param_groups'\] is None"),
        ({**good, "param_groups": [3]}, r"\['param_groups'\]\[0\] is 3"),
        ({key: good[key] for key in good if key != "state"}, "lacks 'state'"),
        ({**good, "state": {**state, "q": None}}, r"\['q'\] is None"),
        ({**good, "state": {**state, "q": {**state["q"], "t": True}}}, r"\['t'\]=True"),
        ({**good, "state": {**state, "q": {**state["q"], "z": zeros(2)}}}, "surplus 'z'"),
    ]
    before = p.copy(), q.copy(), good
    for state_dict, message in bad:
        with pytest.raises((KeyError, TypeError, ValueError), match=message):
            optimizer.load_state_dict(state_dict)
        assert unchanged(optimizer, p, q, before)
        assert optimizer.lr == 0.1


def test_bad_threads_and_isa() -> None:
    for bad in (0, -1, 1.5, "2", True, None, 1025, 2**40):
        with pytest.raises(ValueError, match=f"n={bad!r} is no number of threads"):
            fs.set_num_threads(bad)  # type: ignore[arg-type]
    if fs.info().backends["c"] is None:
        with pytest.raises(ValueError, match=r"name='avx9'.*pass one of 'baseline'"):
            fs.set_isa("avx9")
