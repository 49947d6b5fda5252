"""Functions that are refused as rules: errors name the line and the remedy."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any, TypeAlias

import numpy as np
import pytest
from formulas import Allowed, plain
from marks import on_backends_for_custom_rules
from refused_formulas import REFUSED, Refused

import fusedstep as fs

Array: TypeAlias = np.ndarray[Any, Any]


@pytest.mark.parametrize("refused", REFUSED, ids=lambda refused: refused.function.__name__)
def test_refusals_name_the_line(refused: Refused) -> None:
    with pytest.raises(TypeError) as caught:
        fs.rule(lr=0.1, beta=0.9, flag=True, pair=(0.1, 0.2))(refused.function)
    told = re.fullmatch(r"(?s)(\w+), line (\d+) of (.*?): `(.*?)`: (.*)", str(caught.value))
    assert told is not None, caught.value
    _, number, file, line, what = told.groups()
    assert Path(file).read_text().splitlines()[int(number) - 1].strip() == line
    assert line.endswith("# here")
    assert re.match(refused.message, what), what


def with_momentum(p: Any, g: Any, m: Any, h: Any) -> Any:
    m = h.mu * m + g
    return p - h.lr * m, m


def with_default(p: Any, g: Any, h: Any = None) -> Any:
    return p


unnamed = lambda p, g, h: p - h.lr * g  # noqa: E731


def without_source() -> Any:
    names: dict[str, Any] = {}
    exec("def f(p, g, h):\n    return p - h.lr * g", names)
    return names["f"]


BAD_FUNCTIONS: dict[str, tuple[Any, tuple[str, ...], str]] = {
    "a lambda": (unnamed, (), "<lambda>: it was not made by `def`"),
    "no source": (without_source(), (), "f: its source cannot be found; define it with `def`"),
    "a class": (Allowed, (), "is no function; a rule is one, made by `def`"),
    "a builtin": (np.sqrt, (), "<ufunc 'sqrt'> .ufunc. is no function"),
    "defaults": (with_default, (), "has defaults or starred arguments"),
    "no state": (
        with_momentum,
        (),
        r"with_momentum has the arguments 'p', 'g', 'm', 'h'; with state=\(\) define it as "
        r"`def with_momentum\(p, g, h\)`",
    ),
    "surplus state": (plain, ("m", "v"), r"`def plain\(p, g, m, v, h\)`"),
}


@pytest.mark.parametrize("name", BAD_FUNCTIONS)
def test_bad_functions(name: str) -> None:
    function, state, message = BAD_FUNCTIONS[name]
    with pytest.raises(TypeError, match=message):
        fs.rule(state=state, lr=0.1)(function)


BAD_OPTIONS: dict[str, tuple[dict[str, Any], Any, str]] = {
    "no lr": ({}, TypeError, r"the rule has no learning rate; give it one, as `lr=1e-3`"),
    "negative lr": ({"lr": -1}, ValueError, r"lr=-1 is negative"),
    "text": ({"lr": 1, "mode": "fast"}, TypeError, r"mode='fast' \(str\); pass a number"),
    "None": ({"lr": 1, "mu": None}, TypeError, r"mu=None; pass a number"),
    "NaN": ({"lr": 1, "mu": np.nan}, ValueError, r"mu=nan.*pass a finite number"),
    "beta": ({"lr": 1, "beta2": 1.0}, ValueError, r"beta2=1.0 is outside \[0, 1\)"),
    "betas": ({"lr": 1, "betas": (0.9, 2)}, ValueError, r"betas\[1\]=2 is outside \[0, 1\)"),
    "tuple": ({"lr": 1, "pair": (1, "a")}, TypeError, r"pair\[1\]='a' \(str\); pass a number"),
    "maximize": ({"lr": 1, "maximize": True}, ValueError, r"'maximize' means something else"),
    "sign": ({"lr": 1, "sign": 1.0}, ValueError, r"'sign' means something else already"),
    "backend": ({"lr": 1, "backend": 1.0}, ValueError, r"'backend' means something else already"),
    "decay_scale": ({"lr": 1, "decay_scale": 1}, ValueError, r"'decay_scale' means something else"),
    "initial": ({"lr": 1, "initial_accumulator_value": 1}, ValueError, r"'initial_.*' means some"),
    "underscore": ({"lr": 1, "_x": 1.0}, ValueError, r"'_x' cannot be read as a member of h"),
    "keyword": ({"lr": 1, "lambda": 1.0}, ValueError, r"'lambda' cannot be read as a member"),
    "state as text": ({"lr": 1, "state": "m"}, TypeError, r"as `state=\('m',\)`"),
    "state with values": ({"lr": 1, "state": {"m": 0}}, TypeError, r"pass a tuple of names"),
    "state that is None": ({"lr": 1, "state": None}, TypeError, r"state=None; pass a tuple of nam"),
    "no function": ({"lr": 1, "prepare": {"x": 1}}, TypeError, r"prepare=.*pass a function of h a"),
    "no t": ({"lr": 1, "prepare": lambda h: {}}, TypeError, r"too many pos.*as `def prepare\(h, t"),
    "state that is no name": ({"lr": 1, "state": ("1",)}, ValueError, r"'1', which cannot be"),
    "state that is a keyword": ({"lr": 1, "state": ("if",)}, ValueError, r"'if', which cannot be"),
    "state that is no text": ({"lr": 1, "state": (1,)}, ValueError, r"1, which cannot be an arg"),
    "state named p": ({"lr": 1, "state": ("p",)}, ValueError, r"'p', which means something else"),
    "state named t": ({"lr": 1, "state": ("t",)}, ValueError, r"'t', which means something else"),
    "state twice": ({"lr": 1, "state": ("m", "m")}, ValueError, r"pass up to 8 different names"),
    "too many": ({"lr": 1, "state": (*"abcdefkmn",)}, ValueError, r"pass up to 8 different names"),
}  # fmt: skip


@pytest.mark.parametrize("name", BAD_OPTIONS)
def test_bad_options(name: str) -> None:
    options, error, message = BAD_OPTIONS[name]
    with pytest.raises(error, match=message):
        fs.rule(**options)


def prepared(prepare: Any) -> Any:
    return fs.rule(prepare=prepare, lr=0.1)(plain)


BAD_PREPARATIONS = {
    "a tuple": (lambda h, t: (1, 2), TypeError, r"prepare returned \(1, 2\) \(tuple\); return a"),
    "nothing": (lambda h, t: None, TypeError, r"plain: prepare returned None; return a mapping"),
    "text": (lambda h, t: {"x": "a"}, ValueError, r"returned x='a' \(str\) at t=1; return numbers"),
    "None": (lambda h, t: {"x": None}, ValueError, r"returned x=None at t=1; return numbers"),
    "NaN": (lambda h, t: {"x": np.nan}, ValueError, r"returned x=nan .float. at t=1; return num"),
    "a huge one": (lambda h, t: {"x": 10**400}, ValueError, r"returned x=10.* at t=1; return numb"),
    "an array": (lambda h, t: {"x": np.ones(2)}, ValueError, r"x=an array of shape .2,.* at t=1"),
    "sign": (lambda h, t: {"sign": 2.0}, ValueError, r"returned 'sign', which cannot be a member"),
    "underscore": (lambda h, t: {"_x": 2.0}, ValueError, r"'_x', which cannot be a member of h"),
    "a number": (lambda h, t: {3: 2.0}, ValueError, r"returned 3, which cannot be a member of h"),
}  # fmt: skip


@pytest.mark.parametrize("name", BAD_PREPARATIONS)
def test_bad_preparations(name: str) -> None:
    prepare, error, message = BAD_PREPARATIONS[name]
    with pytest.raises(error, match=message):
        prepared(prepare)


@on_backends_for_custom_rules
def test_a_preparation_that_goes_wrong_later_writes_nothing(backend: str) -> None:
    later: dict[str, tuple[Any, Any, str]] = {
        "names": (
            lambda h, t: {"x": 1.0} if t < 3 else {"y": 1.0},
            KeyError,
            "prepare returned 'y' at t=3 and 'x' at first; return the same names at every step",
        ),
        "NaN": (lambda h, t: {"x": 1.0 if t < 3 else np.nan}, ValueError, "x=nan .float. at t=3"),
    }
    for prepare, error, message in later.values():
        p = np.array([1.0, 2.0])
        opt = prepared(prepare)(p, backend=backend)
        for _ in range(2):
            opt.step(np.array([1.0, 1.0]))
        before = p.copy()
        with pytest.raises(error, match=message):
            opt.step(np.array([1.0, 1.0]))
        np.testing.assert_array_equal(p, before)
        assert opt.state["t"] == 2
