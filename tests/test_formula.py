"""Rules of the user's own: what they may hold, on every engine, and what is refused."""

from __future__ import annotations

import ast
import copy
import functools
import importlib.util
import inspect
import itertools
import linecache
import pickle
import pydoc
import re
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any, TypeAlias

import numpy as np
import pytest
from cases import differing_bits, difficult
from conftest import ENGINES, for_each_dtype, on_engines_for_own_rules
from formulas import ALLOWED, REFUSED, Allowed, Refused
from hypothesis import given, settings
from hypothesis import strategies as st

import fusedstep as fs

Array: TypeAlias = np.ndarray[Any, Any]


# ---- what a rule may hold ----


def values(n: int, dtype: Any) -> Iterator[Array]:
    """Arrays that meet in every pair of special values, and in many others."""
    limits = np.finfo(dtype)
    special = [0.0, -0.0, 1.0, -1.0, 0.25, 2.5, np.inf, -np.inf, np.nan, limits.max, limits.tiny]
    special += [limits.smallest_subnormal, -limits.smallest_subnormal]
    pairs = np.array(list(itertools.product(special, special)), dtype)
    rng = np.random.default_rng(3)
    for k in range(n):
        met = pairs[:, k] if k < 2 else rng.permutation(pairs[:, 0])
        yield np.concatenate([met, difficult(rng, 200, dtype), rng.normal(size=100).astype(dtype)])


def plainly(allowed: Allowed, p: Array, g: Array, states: list[Array], dtype: Any) -> list[Array]:
    """Give the results of Python's own run of the function, on one element after another."""
    h = SimpleNamespace(
        **{
            name: value if isinstance(value, bool) else dtype(value)
            for name, value in allowed.hyperparameters.items()
        }
    )
    results = []
    with np.errstate(all="ignore"):
        for element in zip(p, g, *states, strict=True):
            row = allowed.plain(*element, h)
            row = row if isinstance(row, tuple) else (row,)
            for value in row:
                assert isinstance(value, (int, float)) or value.dtype == dtype, allowed.function
            results.append([dtype(value) for value in row])
    return [np.array(column, dtype) for column in zip(*results, strict=True)]


def step_of(allowed: Allowed, backend: str, p: Array, g: Array, states: list[Array]) -> list[Array]:
    optimizer: Any = fs.rule(state=allowed.state, **allowed.hyperparameters)(allowed.function)
    opt = optimizer(p.copy(), backend=backend)
    for name, state in zip(allowed.state, states, strict=True):
        opt.state[name][...] = state
    opt.step(g)
    return [opt.param_groups[0]["params"][0], *(opt.state[name] for name in allowed.state)]


@on_engines_for_own_rules
@for_each_dtype
@pytest.mark.parametrize("allowed", ALLOWED, ids=lambda allowed: allowed.function.__name__)
def test_a_rule_is_the_function_that_it_was_made_of(
    allowed: Allowed, dtype: Any, backend: str
) -> None:
    p, g, *states = values(2 + len(allowed.state), dtype)
    expected = plainly(allowed, p, g, states, dtype)
    found = step_of(allowed, backend, p, g, states)
    for name, ours, theirs in zip(("p", *allowed.state), found, expected, strict=True):
        if allowed.zeros:
            ours, theirs = ours + 0, theirs + 0  # -0.0 becomes 0.0
        assert differing_bits(ours, theirs) == 0, name


def load(path: Path, text: str) -> Any:
    path.write_text(text, encoding="utf-8")
    spec = importlib.util.spec_from_file_location(path.stem, path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


NUMBERS = st.recursive(
    st.sampled_from(["p", "g", "m", "x", "h.lr", "h.c", "helper(g)"]),
    lambda inner: st.one_of(
        st.builds("({} {} {})".format, inner, st.sampled_from("+-*/"), inner),
        st.builds(
            "({} {} {})".format, inner, st.sampled_from("+-*/"), st.sampled_from(["3", "0.1"])
        ),
        st.builds("-{}".format, inner),
        st.builds("np.sqrt({})".format, inner),
        st.builds("abs({})".format, inner),
        st.builds("np.sign({})".format, inner),
        st.builds("max({}, {})".format, inner, inner),
        st.builds("np.where({} < {}, {}, {})".format, inner, inner, inner, inner),
        st.builds("({} if {} >= {} else {})".format, inner, inner, inner, inner),
    ),
    max_leaves=5,
)

CONDITIONS = st.recursive(
    st.one_of(
        st.builds("{} {} {}".format, NUMBERS, st.sampled_from(["<", "<=", "==", "!="]), NUMBERS),
        st.sampled_from(["h.flag", "h.c > h.lr"]),
    ),
    lambda inner: st.one_of(
        st.builds("({} {} {})".format, inner, st.sampled_from(["and", "or"]), inner),
        st.builds("(not {})".format, inner),
    ),
    max_leaves=3,
)

ASSIGNMENTS = st.one_of(
    st.builds("{} = {}".format, st.sampled_from("pgmx"), NUMBERS),
    st.builds("{} {}= {}".format, st.sampled_from("pgmx"), st.sampled_from("+-*/"), NUMBERS),
    st.builds("{}, {} = {}, {}".format, st.just("p"), st.just("x"), NUMBERS, NUMBERS),
)

BLOCKS = st.lists(ASSIGNMENTS, min_size=1, max_size=2)

STATEMENTS = st.one_of(
    BLOCKS,
    st.builds(
        lambda test, body, orelse: [
            f"if {test}:", *(f"    {x}" for x in body), "else:", *(f"    {x}" for x in orelse)
        ],
        CONDITIONS, BLOCKS, BLOCKS,
    ),
)  # fmt: skip

HEADER = """\
import numpy as np

def helper(x):
    return x * x - 0.5 if x > 0 else x

def random(p, g, m, h):
    x = p
"""


@pytest.mark.parametrize("backend", ENGINES)
@settings(max_examples=10, deadline=None, derandomize=True, database=None)
@given(statements=st.lists(STATEMENTS, min_size=2, max_size=4))
def test_random_rules(
    backend: str, statements: list[list[str]], tmp_path_factory: pytest.TempPathFactory
) -> None:
    lines = [line for block in statements for line in block]
    text = HEADER + "".join(f"    {line}\n" for line in [*lines, "return p + x, m"])
    function = load(tmp_path_factory.mktemp("rules") / "random_rule.py", text).random
    hyperparameters = {"lr": 0.3, "c": -0.7, "flag": True}
    allowed = Allowed(function, ("m",), hyperparameters, function, False)
    p, g, m = values(3, np.float32)
    expected = plainly(allowed, p, g, [m], np.float32)
    for engine in ("numpy", backend):
        for ours, theirs in zip(step_of(allowed, engine, p, g, [m]), expected, strict=True):
            assert differing_bits(ours, theirs) == 0, f"{engine}\n{text}"


def test_a_function_may_stand_anywhere(tmp_path: Path) -> None:
    """Indented, below other decorators, beside comments and strings that start further left."""
    text = '''\
import fusedstep as fs

def same(function):
    return function

def outer():
    if True:
        @fs.rule(
            lr=0.5,
        )
        @same
        def Own(p, g, h):
            """Begin here,
and go on here."""
# a comment of the outermost column
            p = (p
  - h.lr * g)
            return p
        return Own
'''
    own = load(tmp_path / "anywhere.py", text).outer()
    p = np.array([1.0, 2.0])
    own(p, backend="numpy").step(np.array([2.0, 2.0]))
    np.testing.assert_array_equal(p, [0.0, 1.0])


def test_a_function_may_be_typed_in_and_in_use() -> None:
    """A notebook compiles one statement at a time, and Python rewrites bytecode that it runs."""
    cell = "import numpy as np; await no_file\ndef typed(p, g, h):\n    return p - np.sqrt(g)\n"
    linecache.cache["<cell>"] = len(cell), None, cell.splitlines(True), "<cell>"
    names: dict[str, Any] = {"np": np}
    statement = ast.Module(ast.parse(cell).body[-1:], [])
    exec(compile(statement, "<cell>", "exec", dont_inherit=True), names)
    for _ in range(1000):
        names["typed"](1.0, 4.0, None)
    p = np.array([1.0])
    fs.rule(lr=0.5)(names["typed"])(p, backend="numpy").step(np.array([4.0]))
    np.testing.assert_array_equal(p, -1.0)


PLAIN = """\
def plain(p, g, h):
    return p - h.lr * g
"""


def test_a_function_is_not_mistaken_for_what_stands_there_now(tmp_path: Path) -> None:
    """Its file may have been edited since, or never have been its file."""
    stood = r"plain: it is not what stands at line 1 of .*edited.py; run that anew if it has chan"
    for old, new in [("- h", "+ h"), ("lr * g", "lr * p"), ("lr", "mu"), ("p - ", "1 - ")]:
        path = tmp_path / "edited.py"
        function = load(path, PLAIN).plain
        fs.rule(lr=0.5, mu=0.5)(function)
        path.write_text(PLAIN.replace(old, new) + "# of another length")
        with pytest.raises(TypeError, match=stood):
            fs.rule(lr=0.5, mu=0.5)(function)
    names: dict[str, Any] = {}
    exec(compile(PLAIN.replace("p - ", "p / "), path, "exec"), names)
    with pytest.raises(TypeError, match=stood):
        fs.rule(lr=0.5, mu=0.5)(names["plain"])


def doubling(function: Any) -> Any:
    @functools.wraps(function)
    def doubled(*args: Any) -> Any:
        return 2 * function(*args)

    return doubled


@doubling
def decorated(x: Any) -> Any:
    return x


def test_what_a_decorator_adds_is_not_lost() -> None:
    def calling(p: Any, g: Any, h: Any) -> Any:
        return p - decorated(g)

    for function in (doubling(plain), calling):
        with pytest.raises(TypeError, match=r"put no decorator on it that returns another func"):
            fs.rule(lr=0.5)(function)


@on_engines_for_own_rules
def test_a_function_may_be_odd(backend: str, tmp_path: Path) -> None:
    """Form feeds, a free variable, a name that is an import, and calls of members of others."""
    text = """\
import fusedstep as fs, numpy as np, numpy
class Own:
    def half(x):
        return x / 2
def outer(shift):
    @fs.rule(lr=0.5)
    def odd(p, g, h):
        # a page\f, and another\x1c
        p = Own.half(p) + numpy.sqrt(np.square(shift)); p -= h.lr * \\
    g
        return p
    return odd
\f@fs.rule(lr=0.5)
def fed(p, g, h):
    return p - h.lr * g
"""
    module = load(tmp_path / "odd.py", text)
    for optimizer, expected in [(module.outer(-3), 2.5), (module.fed, 0.0)]:
        p = np.array([1.0])
        optimizer(p, backend=backend).step(np.array([2.0]))
        assert p[0] == expected
    with pytest.raises(TypeError, match=r"line 3 of .*: `return p - h.mu`: h has no 'mu'"):
        fs.rule(lr=0.5)(load(tmp_path / "fed.py", PAGES).paged)


PAGES = """\
def paged(p, g, h):
    # a page \f another \x1c and a line \u2028 that is none
    return p - h.mu
"""


# ---- what it may not hold ----


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


def plain(p: Any, g: Any, h: Any) -> Any:
    return p - h.lr * g


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


@on_engines_for_own_rules
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


# ---- the classes ----

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


@on_engines_for_own_rules
def test_scalars_are_prepared_each_step(backend: str) -> None:
    p = np.zeros((2, 2))
    opt = Own(p, backend=backend)
    opt.step(gradient())
    np.testing.assert_array_equal(p, -0.25 * gradient())
    opt.step(gradient())
    np.testing.assert_array_equal(opt.state["m"], 0.4375 * gradient())
    np.testing.assert_array_equal(opt.state["count"], np.full((2, 2), 1.5))
    np.testing.assert_array_equal(p, -(0.25 + 0.4375 / 2) * gradient())


@on_engines_for_own_rules
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


@on_engines_for_own_rules
def test_what_prepare_returns_takes_the_place_of_a_hyperparameter(backend: str) -> None:
    p, g = np.array([1.0, -2.0]), np.array([0.25, 8.0])
    opt = Scheduled(p, backend=backend, weight_decay=0.5)
    opt.step(g)
    after = np.array([1.0, -2.0]) - 0.5 * (g + 0.5 * np.array([1.0, -2.0]))
    np.testing.assert_array_equal(p, after)
    opt.step(g)
    np.testing.assert_array_equal(p, after - 0.5 * (-g + 1.0 * after))


@on_engines_for_own_rules
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


@on_engines_for_own_rules
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
        "ema=None, nonfinite='propagate', backend='auto')"
    )
    assert str(inspect.signature(Decaying)) == (
        "(params, lr=0.5, weight_decay=0.0, *, maximize=False, l1=0.0, "
        "ema=None, nonfinite='propagate', backend='auto')"
    )
    assert "Average, and count." in pydoc.render_doc(Own)
    assert repr(Plain(np.zeros(2))).startswith("Plain([<group of 1 parameters: lr=0.5")


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
    with pytest.raises(TypeError, match=r"'<f2' .float16.*float32 or float64"):
        Own(np.zeros(2, np.float16))


def test_the_c_engine_holds_the_packages_own_rules_alone() -> None:
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
