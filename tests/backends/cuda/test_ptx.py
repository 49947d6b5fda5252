"""The CUDA kernels as PTX: rounded as written, loads of vectors. No device is needed."""

from __future__ import annotations

import re
from itertools import combinations
from typing import Any

import cases
import fewer_bytes
import numpy as np
import pytest

import fusedstep as fs
from fusedstep import rules
from fusedstep._arrays.dtypes import BFLOAT16
from fusedstep._backends.cuda import available, copies, formats, kernels, slices, squares
from fusedstep._backends.cuda.ptx import compile_ptx
from fusedstep._backends.plan import Held, Job
from fusedstep._core.declaration import declaration_of
from fusedstep._numerics.coefficients import Rule
from fusedstep.program.inspect import OPTIONAL, RULES, built_in

pytestmark = [
    pytest.mark.skipif(
        available.why_no_compiler() is not None, reason=f"{available.why_no_compiler()}"
    ),
    pytest.mark.skipif(available.simulated(), reason="this is the simulator"),
]


def variants(name: str) -> list[Rule]:
    options = OPTIONAL.get(name, {})
    chosen = [each for k in range(len(options) + 1) for each in combinations(options, k)]
    return [built_in(name, each) for each in chosen]


KERNELS = [rule for name in RULES for rule in variants(name)]


@fs.rule(state=("m", "n"), lr=0.5, beta1=0.9)
def rows(p, g, m, n, h):  # type: ignore[no-untyped-def]
    m = h.beta1 * m + (1 - h.beta1) * g
    n = max(n, abs(m - g)) if g > 0 else -n
    return p - h.lr * np.sign(m) / (np.sqrt(n) + 0.1), m, n


REPRESENTATIVE = [
    Rule("sgd"),
    Rule("rmsprop", ("v", "a", "b"), True),
    Rule("adamw", ("m", "v", "x"), averaged=True),
    declaration_of(rows).rule({}),
]


def check(rule: Rule, dtype: Any, cc: tuple[int, int]) -> None:
    job = Job(rule, np.dtype(dtype))
    ptx = compile_ptx(kernels.module(job), cc)
    for unwanted in ("fma", r"\.approx", r"\.ftz", r"\.local", r"\bcall\b", r"\.func"):
        assert not re.search(unwanted, ptx), unwanted
    each = kernels.vectors(job)
    loads = each * (2 + len(rule.states))
    vector = r"\.v4\.[fb]32" if job.dtype.itemsize == 4 else r"\.v2\.[fb]64"
    assert len(re.findall(rf"ld\.global{vector}", ptx)) == loads
    # The gradient's zeros are also 128 bits, of whatever type the compiler likes.
    zeros = r"\.v[24]\.[fbu](?:32|64) *\t*\[%\w+\], *\{(%\w+), \1(?:, \1)*\}"
    stored = re.findall(rf"st\.global{vector}", ptx)
    assert len(stored) == loads or (len(stored) == loads - each and re.search(zeros, ptx))
    rounded = re.findall(r"\b(?:add|sub|mul|div|sqrt)\.rn\.(f\d\d)", ptx)
    assert {*rounded} == {f"f{8 * job.dtype.itemsize}"}
    # Whatever computes with such numbers says how it rounds.
    assert not re.search(r"\b(?:add|sub|mul|div|sqrt)\.f\d\d", ptx)


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("rule", REPRESENTATIVE, ids=lambda rule: rule.name)
def test_representative_kernels(rule: Rule, dtype: str) -> None:
    check(rule, dtype, (9, 0))


def test_newer_devices() -> None:
    check(Rule("adamw", ("m", "v", None)), "float32", (10, 0))


def test_all_kernels_are_there() -> None:
    of_sklearn = {rule for rule in KERNELS if rule.name == "adam_rearranged"}
    assert {*KERNELS} - of_sklearn == cases.RULES


@pytest.mark.slow
@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("name", rules.__all__)
def test_rules_written_in_python(name: str, dtype: str) -> None:
    check(declaration_of(getattr(rules, name)).rule({}), dtype, (9, 0))


@pytest.mark.slow
@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("rule", KERNELS, ids=str)
def test_every_kernel(rule: Rule, dtype: str) -> None:
    check(rule, dtype, (9, 0))


def check_formats(case: fewer_bytes.Case, cc: tuple[int, int]) -> None:
    ptx = compile_ptx(formats.module(fewer_bytes.job_of(case)), cc)
    for unwanted in ("fma", r"\.approx", r"\.ftz", r"\.local", r"\bcall\b", r"\.func"):
        assert not re.search(unwanted, ptx), unwanted
    assert {*re.findall(r"\b(?:add|sub|mul|div|sqrt)\.rn\.(f\d\d)", ptx)} == {"f32"}
    assert not re.search(r"\b(?:add|sub|mul|div|sqrt)\.f\d\d", ptx)
    # An operation on 64 bits takes two instructions: there are few besides those on addresses.
    assert len(re.findall(r"\b(?:mul|shr|xor|or)\S*\.[bsu]64\b", ptx)) < 100


@pytest.mark.parametrize("cc", [(8, 0), (9, 0)])
def test_formats(cc: tuple[int, int]) -> None:
    check_formats(fewer_bytes.FEW[4], cc)


@pytest.mark.slow
@pytest.mark.parametrize("cc", [(8, 0), (9, 0)])
@pytest.mark.parametrize("case", fewer_bytes.FEW, ids=lambda case: case.name)
def test_every_format(case: fewer_bytes.Case, cc: tuple[int, int]) -> None:
    check_formats(case, cc)


@pytest.mark.parametrize("name", ["bfloat16", "float16"])
def test_squares_of_16_bits(name: str) -> None:
    ptx = compile_ptx(squares.module(np.dtype("f4"), Held(name)), (9, 0))
    for unwanted in ("fma", r"\.approx", r"\.ftz", r"\.local", r"\bcall\b", r"\.func"):
        assert not re.search(unwanted, ptx), unwanted
    assert {*re.findall(r"\b(?:add|sub|mul|div|sqrt)(\S*\.f\d\d)", ptx)} == {".rn.f64"}


@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_squares_are_summed_in_float64(dtype: str) -> None:
    ptx = compile_ptx(squares.module(np.dtype(dtype)), (9, 0))
    for unwanted in ("fma", r"\.approx", r"\.ftz", r"\.local", r"\bcall\b", r"\.func"):
        assert not re.search(unwanted, ptx), unwanted
    assert {*re.findall(r"\b(?:add|sub|mul|div|sqrt)(\S*\.f\d\d)", ptx)} == {".rn.f64"}


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("rule", REPRESENTATIVE, ids=lambda rule: rule.name)
def test_slices(rule: Rule, dtype: str) -> None:
    """An element is read and written once, whatever steps its slice has missed."""
    job = Job(rule, np.dtype(dtype))
    ptx = compile_ptx(slices.stepping(job, None), (9, 0))
    check_arithmetic(ptx, f"f{8 * job.dtype.itemsize}")
    written = 1 + sum(letter is not None for letter in rule.letters) + rule.averaged
    assert len(re.findall(r"\bst\.global", ptx)) == written


@pytest.mark.parametrize("half", ["float16", "bfloat16"])
def test_slices_of_16_bits(half: str) -> None:
    check_arithmetic(
        compile_ptx(slices.stepping(Job(Rule("sgd"), np.dtype("f4")), half), (9, 0)), "f32"
    )


@pytest.mark.parametrize("dtype", ["float32", "float64", "float16", BFLOAT16])
def test_gradients_of_slices_are_added_up(dtype: Any) -> None:
    ptx = compile_ptx(slices.gathering(np.dtype(dtype)), (9, 0))
    check_arithmetic(ptx, "f64" if dtype == "float64" else "f32")


def check_arithmetic(ptx: str, kind: str) -> None:
    """Check that each operation is rounded by itself, as it is written."""
    for unwanted in ("fma", r"\.approx", r"\.ftz", r"\.local", r"\bcall\b", r"\.func"):
        assert not re.search(unwanted, ptx), unwanted
    assert {*re.findall(r"\b(?:add|sub|mul|div|sqrt)(\S*\.f\d\d)", ptx)} == {f".rn.{kind}"}


@pytest.mark.parametrize("dtype", ["float32", "float64", "float16", "int8", "int32", BFLOAT16])
def test_copies_keep_every_bit(dtype: Any) -> None:
    ptx = compile_ptx(copies.module(np.dtype(dtype)), (9, 0))
    assert not re.search(
        r"\.f(?:32|64)", re.sub(r"(?:ld|st)\.global\.f\d\d|\.reg \.f\d\d", "", ptx)
    )
