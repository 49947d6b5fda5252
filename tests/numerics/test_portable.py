"""The portable functions are correctly rounded, and nothing asks the C library for more."""

from __future__ import annotations

import math
import os
import shutil
import subprocess
import sys
from math import inf, nan
from pathlib import Path
from random import Random
from typing import Any

import numpy as np
import pytest
from processes import python

import fusedstep as fs
from fusedstep._numerics import portable, powers
from fusedstep._numerics.momenta import momenta
from fusedstep._numerics.rounded import nearest, rounded, split, two_floats
from fusedstep.portable import correction, cos_pi, exp, log, power

pytest.importorskip("mpmath", reason="mpmath is missing; pip install '.[test]'")
import portable_cases
import vectors


@pytest.mark.parametrize("name", portable_cases.COMPARISONS)
def test_all_cases_are_those_of_mpmath(name: str) -> None:
    assert [*portable_cases.COMPARISONS[name](3000, 1)] == []


@pytest.mark.slow
@pytest.mark.parametrize("name", portable_cases.COMPARISONS)
def test_very_many_cases_are_those_of_mpmath(name: str) -> None:
    assert [*portable_cases.COMPARISONS[name](100_000, 2)] == []


def test_powers_go_down_to_the_last_subnormal() -> None:
    for beta in (0.5, 0.3, 0.999):
        t = 1
        while powers.beta_power(beta, t) > 0:
            t = t * 2
        for n in range(t // 2, t + 300, max(t // 2000, 1)):
            assert powers.beta_power(beta, n) == power(beta, n)
        assert powers.beta_power(beta, 2**53) == 0 == power(beta, 2**53)


def test_a_correction_that_has_become_1_stays_1() -> None:
    beta = 0.8765
    gone = next(t for t in range(1, 10**4) if correction(beta, t) == 1)
    fresh = powers.Powers(beta)
    assert 1 - fresh(gone - 1) < 1
    assert [correction(beta, t) for t in (gone, gone + 1, 10**9, 2**53)] == [1.0] * 4
    assert correction(beta, gone - 1) == 1 - fresh(gone - 1) != 1
    assert correction(0.0, 1) == 1
    with pytest.raises(ValueError, match=r"beta=1.0 is outside \[0, 1\); pass a share such as 0.9"):
        correction(1.0, 1)


def test_tables_of_powers_are_begun_anew_when_they_are_full(monkeypatch: Any) -> None:
    monkeypatch.setattr(powers.Powers, "MOST_BLOCKS", 3)
    monkeypatch.setattr(powers, "MOST_NUMBERS", 2)
    known: dict[float, powers.Powers] = {}
    monkeypatch.setattr(powers, "_POWERS", known)
    for beta in (0.9, 0.99, 0.999, 0.9):
        found = [powers.beta_power(beta, t) for t in (1, 300, 600, 900, 1, 300)]
        assert found == [power(beta, t) for t in (1, 300, 600, 900, 1, 300)]
        assert len(known) <= 2
        assert len(powers.powers_of(beta).blocks) <= 3


SPECIAL = [0.0, -0.0, 1.0, -1.0, 0.5, -0.5, 2.0, -3.0, 1e308, -1e308, 5e-324, inf, -inf, nan]


@pytest.mark.parametrize("x", SPECIAL)
@pytest.mark.parametrize("y", [*SPECIAL, 0, 1, 2, 3, -1, -2, 10**9 + 1, -(10**20)])
def test_special_powers_are_those_of_ieee_754(x: float, y: float) -> None:
    with np.errstate(all="ignore"):
        # Not of single numbers, of whose roots NumPy takes a short way.
        expected = np.power(np.full(2, x), np.full(2, float(y)))[0]
    found = np.float64(power(x, y))
    assert found == pytest.approx(expected, rel=1e-15, nan_ok=True)
    assert np.isnan(found) or np.signbit(found) == np.signbit(expected)


def test_exp_and_log_of_what_is_not_finite_or_not_positive() -> None:
    assert [exp(x) for x in (0.0, -0.0, inf, -inf, 1000.0, -1000.0)] == [1, 1, inf, 0, inf, 0]
    assert [log(x) for x in (0.0, 1.0, inf)] == [-inf, 0.0, inf]
    assert all(map(math.isnan, (exp(nan), log(nan), log(-1.0), cos_pi(inf), cos_pi(nan))))
    assert power(-8.0, 1 / 3) != power(-8.0, 1 / 3)


def test_cosines_are_exact_at_multiples_of_a_half() -> None:
    assert [cos_pi(k / 2) for k in range(-4, 5)] == [1, 0, -1, 0, 1, 0, -1, 0, 1]
    assert [cos_pi(2.0**k) for k in (1, 52, 53, 1000)] == [1, 1, 1, 1]
    assert [portable.half_cosine(x) for x in (0.0, 0.5, 1.0)] == [1.0, 0.5, 0.0]


def test_what_lies_half_way_goes_to_the_even_one() -> None:
    for m in (2**53 + 1, 2**53 + 3):  # of 54 bits
        assert nearest(m, 7) == m * 2.0**7 == nearest(m << 900, -893)
        assert rounded(lambda bits, m=m: (m << bits, -bits, 1)) == float(m)  # type: ignore[misc]
    assert nearest(1, -1075) == 0.0
    assert nearest(3, -1075) == 2 * 5e-324
    assert nearest(5, -1076) == 5e-324
    assert nearest(-3, -1075) == -2 * 5e-324
    assert nearest(2**54 - 1, 970) == inf
    assert nearest(2**53 - 1, 971) == np.finfo(np.float64).max
    assert nearest((1 << 2000) + 1, -2000) == 1.0


def test_whole_numbers_that_make_up_a_float() -> None:
    random = Random(3)
    for _ in range(300):
        x = math.ldexp(random.uniform(-1, 1), random.randint(-1070, 1000))
        m, e = split(x)
        assert nearest(m, e) == x
        high, rest = two_floats((m << 60) + 12345, e - 60)
        assert high == x
        assert rest == nearest(12345, e - 60)


@pytest.mark.parametrize("beta1", [0.0, 0.1, 0.9, 0.99, 0.9999])
@pytest.mark.parametrize("momentum_decay", [0.0, 1e-6, 4e-3, 0.1, 1.0, 50.0])
def test_nadams_product_is_that_of_its_factors(beta1: float, momentum_decay: float) -> None:
    b, q, half = np.longdouble(beta1), np.longdouble(0.96), np.longdouble(0.5)
    factors = b * (1 - half * q ** (np.arange(1, 2001) * np.longdouble(momentum_decay)))
    products = np.cumprod(factors)
    for t in [*range(1, 20), 30, 50, 63, 64, 65, 70, 100, 300, 1000, 2000]:
        found = momenta(beta1, momentum_decay, t).product
        # All that is read of it is 1 - product.
        assert abs(np.longdouble(found) - products[t - 1]) < 2**-52


# ---- nothing else decides a bit ----


def changed(value: float) -> float:
    return value * (1 + 2.0**-50)


@pytest.fixture
def other_library(monkeypatch: Any) -> None:
    """Functions of `math` that are wrong in the last bits, as another C library's may be."""
    for name in ("cos", "exp", "expm1", "log", "log1p", "pow", "sin"):
        theirs = getattr(math, name)
        monkeypatch.setattr(math, name, lambda *given, f=theirs: changed(f(*given)))


SCHEDULES = [
    fs.schedules.cosine(0.1, steps=50),
    fs.schedules.exponential(0.1, rate=0.01),
    fs.schedules.one_cycle(0.1, steps=70),
    fs.schedules.polynomial(0.1, steps=60, power=0.9),
    fs.schedules.restarts(0.1, steps=7, factor=1.3),
    fs.schedules.step(0.1, every=3, factor=0.7),
]


@pytest.mark.usefixtures("other_library")
@pytest.mark.parametrize("schedule", SCHEDULES, ids=lambda each: each.make.__name__)
def test_schedules_ask_no_other_library(schedule: fs.schedules.Schedule, monkeypatch: Any) -> None:
    found = [schedule(t) for t in range(1, 99)]
    monkeypatch.undo()
    assert found == [schedule(t) for t in range(1, 99)]


OTHER_LIBRARY = """
#define _GNU_SOURCE
#include <dlfcn.h>

#define CHANGED(name)                                                                             \\
    double name(double x) {                                                                       \\
        static double (*theirs)(double);                                                          \\
        if (!theirs)                                                                              \\
            theirs = dlsym(RTLD_NEXT, #name);                                                     \\
        return theirs(x) * (1 + 0x1p-50);                                                         \\
    }

CHANGED(cos) CHANGED(exp) CHANGED(exp2) CHANGED(expm1) CHANGED(log) CHANGED(log1p) CHANGED(log2)
CHANGED(sin)

double pow(double x, double y) {
    static double (*theirs)(double, double);
    if (!theirs)
        theirs = dlsym(RTLD_NEXT, "pow");
    return theirs(x, y) * (1 + 0x1p-50);
}
"""
"""A library of mathematics that is wrong in the last bits of each value."""


@pytest.mark.skipif(sys.platform != "linux", reason="libraries are put in front as on Linux")
@pytest.mark.skipif(not shutil.which("gcc"), reason="no gcc")
@pytest.mark.parametrize("backend", ["numpy", "c", "numba"])
def test_another_library_of_mathematics_gives_the_golden_bits(backend: str, tmp_path: Path) -> None:
    if fs.info().backends[backend] is not None:
        pytest.skip(f"the backend {backend} is not there: {fs.info().backends[backend]}")
    source, library = tmp_path / "other.c", tmp_path / "other.so"
    source.write_text(OTHER_LIBRARY)
    flags = ["-shared", "-fPIC", "-O1", "-fno-builtin"]
    subprocess.run(["gcc", *flags, source, "-o", library, "-ldl"], check=True)
    loaded = {"LD_PRELOAD": str(library), "PYTHONDONTWRITEBYTECODE": "1"}
    assert python("print(0.9**7 == 0.4782969000000001)", **loaded) == "False\n"
    command = [sys.executable, vectors.__file__, "--check", "--backend", backend]
    paths = os.pathsep.join(
        [str(Path(fs.__file__).parent.parent), os.environ.get("PYTHONPATH", "")]
    )
    environment = {**os.environ, **loaded, "PYTHONPATH": paths}
    done = subprocess.run(command, env=environment, capture_output=True, text=True)
    assert done.stdout == f"contract-1.json on {backend}: every bit\n", done.stderr


def test_no_scalar_is_made_by_a_power_of_python() -> None:
    """All powers in the package are of two, which are exact, or of constants."""
    import ast

    allowed = {"benchmarks", "audits", "_theirs.py"}  # the last compares with scikit-learn's own
    found = []
    for path in Path(fs.__file__).parent.rglob("*.py"):
        if allowed & {*path.parts}:
            continue
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.BinOp) and isinstance(node.op, ast.Pow):
                known = (ast.Constant, ast.UnaryOp)
                of_two = isinstance(node.left, ast.Constant) and node.left.value == 2
                if not of_two and not (
                    isinstance(node.left, known) and isinstance(node.right, known)
                ):
                    found.append(f"{path.name}: {ast.unparse(node)}")
            if isinstance(node, ast.ImportFrom) and node.module == "math":
                names = {each.name for each in node.names} & {"cos", "exp", "pow", "log", "expm1"}
                found += [f"{path.name}: {name}" for name in names]
    assert found == []
