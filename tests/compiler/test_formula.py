"""A rule is the Python function that it was made of, on every backend."""

from __future__ import annotations

import ast
import functools
import importlib.util
import itertools
import linecache
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any, TypeAlias

import numpy as np
import pytest
from cases import differing_bits, difficult
from formulas import ALLOWED, Allowed, plain
from hypothesis import given, settings
from hypothesis import strategies as st
from marks import COMPILING, for_each_dtype, on_backends_for_custom_rules

import fusedstep as fs

Array: TypeAlias = np.ndarray[Any, Any]


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


@on_backends_for_custom_rules
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


@pytest.mark.parametrize("backend", COMPILING)
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
    for name in ("numpy", backend):
        for ours, theirs in zip(step_of(allowed, name, p, g, [m]), expected, strict=True):
            assert differing_bits(ours, theirs) == 0, f"{name}\n{text}"


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
    """A function's file may have been edited since, or never have been its file."""
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


@on_backends_for_custom_rules
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
