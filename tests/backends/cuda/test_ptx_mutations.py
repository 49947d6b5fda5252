"""Mutants of PTX: those of a kernel in which each family has a place, all of them valid."""

from __future__ import annotations

import difflib

import pytest
from ptx_assembler import refusal
from ptx_in_c import translate
from ptx_mutations import FAMILIES, mutants

from fusedstep._backends.cuda import available

KERNEL = """\
.version 8.0
.target sm_90
.address_size 64
.visible .entry kernel(
	.param .u64 at,
	.param .u64 n
)
{
	.reg .pred %p<4>;
	.reg .b32 %r<4>;
	.reg .b64 %rd<8>;
	.reg .f32 %f<8>;
	.reg .f64 %fd<4>;

	ld.param.u64 %rd1, [at];
	ld.param.u64 %rd2, [n];
	mov.u32 %r1, %tid.x;
	mul.wide.s32 %rd3, %r1, 16;
	add.s64 %rd4, %rd1, %rd3;
	shl.b64 %rd5, %rd2, 4;
	min.s64 %rd5, %rd5, %rd2;
	max.s32 %r2, %r1, 3;
	setp.ge.s64 %p1, %rd3, %rd5;
	@%p1 bra $end;
	setp.lt.u32 %p2, %r2, 100;
	@!%p2 bra $end;

	ld.global.f32 %f1, [%rd1];
	ld.global.f32 %f2, [%rd4+4];
	ld.global.v2.f32 {%f3, %f4}, [%rd4];
	bar.sync 0;
	mul.rn.f32 %f5, %f1, %f2;
	add.rn.f32 %f6, %f5, %f3;
	sub.rn.f32 %f6, %f6, %f5;
	sub.rn.f32 %f6, %f5, %f6;
	div.rn.f32 %f6, %f6, %f4;
	sqrt.rn.f32 %f7, %f6;
	cvt.f64.f32 %fd1, %f7;
	mul.rn.f64 %fd1, %fd1, %fd1;
	add.rn.f64 %fd2, %fd1, %fd1;
	cvt.rn.f32.f64 %f7, %fd2;
	st.global.f32 [%rd1], %f6;
	st.global.f32 [%rd4+8], %f7;

$end:
	ret;
}
"""

CHANGED = {
    "fma 0": ["fma.rn.f32 %f6, %f1, %f2, %f3;"],
    "fma 1": ["neg.f32 %extra32, %f1;", "fma.rn.f32 %f6, %extra32, %f2, %f6;"],
    "fma 2": ["neg.f32 %extra32, %f6;", "fma.rn.f32 %f6, %f1, %f2, %extra32;"],
    "div approx 0": ["div.approx.f32 %f6, %f6, %f4;"],
    "div full 0": ["div.full.f32 %f6, %f6, %f4;"],
    "reciprocal 0": ["rcp.rn.f32 %extra32, %f4;", "mul.rn.f32 %f6, %f6, %extra32;"],
    "sqrt approx 0": ["sqrt.approx.f32 %f7, %f6;"],
    "ftz 0": ["mul.rn.ftz.f32 %f5, %f1, %f2;"],
    "ftz 5": ["sqrt.rn.ftz.f32 %f7, %f6;"],
    "rounding 1": ["add.rz.f32 %f6, %f5, %f3;"],
    "rounding 7": ["add.rz.f64 %fd2, %fd1, %fd1;"],
    "conversion 0": ["cvt.rz.f32.f64 %f7, %fd2;"],
    "tail 0": ["setp.gt.s64 %p1, %rd3, %rd5;"],
    "tail 1": ["setp.le.u32 %p2, %r2, 100;"],
    "limit 0": ["setp.lt.u32 %p2, %r2, 101;"],
    "stride 0": ["mul.wide.s32 %rd3, %r1, 17;"],
    "shift 0": ["shl.b64 %rd5, %rd2, 5;"],
    "swapped loads 0": ["ld.global.f32 %f1, [%rd4+4];", "ld.global.f32 %f2, [%rd1];"],
    "wrong store 0": ["st.global.f32 [%rd4+8], %f6;"],
    "order 0": ["ld.global.v2.f32 {%f4, %f3}, [%rd4];"],
    "barrier 0": [],
    "always 1": ["bra $end;"],
    "never 0": [],
    "min 0": ["max.s64 %rd5, %rd5, %rd2;"],
    "max 0": ["min.s32 %r2, %r1, 3;"],
}
"""Some mutants, and the lines in which they differ from the kernel."""


def new_lines(ptx: str) -> list[str]:
    """The lines that a mutant has and the kernel does not."""
    before, after = (
        [" ".join(line.split()) for line in text.splitlines()] for text in (KERNEL, ptx)
    )
    changed = difflib.unified_diff(before, after, n=0, lineterm="")
    return [
        line[1:] for line in [*changed][2:] if line[:1] == "+" and line[1:] and ".reg" not in line
    ]


def test_mutants() -> None:
    found = {mutant.name: new_lines(mutant.ptx) for mutant in mutants(KERNEL)}
    assert {name: found[name] for name in CHANGED} == CHANGED
    assert {name.rsplit(" ", 1)[0] for name in found} == {*FAMILIES}
    counts = [sum(name.rsplit(" ", 1)[0] == family for name in found) for family in FAMILIES]
    assert counts == [3, 1, 1, 1, 1, 6, 8, 1, 2, 1, 1, 1, 1, 1, 1, 1, 2, 2, 1, 1]


def test_few_of_a_family() -> None:
    """They keep their names, and are from all over the text."""
    few = [mutant.name for mutant in mutants(KERNEL, 2, ["ftz", "barrier"])]
    assert few == ["ftz 0", "ftz 3", "barrier 0"]
    every = {mutant.name: mutant.ptx for mutant in mutants(KERNEL)}
    assert all(every[mutant.name] == mutant.ptx for mutant in mutants(KERNEL, 1))


def test_products_of_what_has_changed_since() -> None:
    changed = KERNEL.replace("bar.sync 0;\n", "").replace(
        "\tadd.rn.f32 %f6, %f5, %f3;", "\tmov.f32 %f2, %f1;\n\tadd.rn.f32 %f6, %f5, %f3;"
    )
    assert not [*mutants(changed, families=["fma"])]
    elsewhere = KERNEL.replace("\tadd.rn.f32 %f6, %f5", "$label:\n\tadd.rn.f32 %f6, %f5")
    assert not [*mutants(elsewhere, families=["fma"])]


def test_mutants_are_valid() -> None:
    for mutant in mutants(KERNEL):
        translate(mutant.ptx)
        assert mutant.ptx != KERNEL
        assert refusal(mutant.ptx) is None, mutant.name


@pytest.mark.skipif(
    available.why_no_compiler() is not None, reason=f"{available.why_no_compiler()}"
)
@pytest.mark.skipif(available.simulated(), reason="this is the simulator")
def test_the_assembler_refuses_what_is_not_valid() -> None:
    assert "line 28" in str(refusal(KERNEL.replace("ld.global.f32 %f1", "ld.global.f31 %f1")))
