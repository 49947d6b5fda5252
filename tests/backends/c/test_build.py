"""The build: its flags against hostile ones of the environment, and its compilers side by side."""

from __future__ import annotations

import ctypes
import os
import runpy
import shutil
import subprocess
import sys
import sysconfig
from math import inf
from pathlib import Path
from threading import Barrier
from typing import Any

import numpy
import pytest
from elf import hardening
from marks import needs_c
from processes import ROOT, python

BUILD = runpy.run_path(str(ROOT / "csrc" / "ffi_build.py"))

on_linux = pytest.mark.skipif(sys.platform != "linux", reason="ELF and its linker are Linux's")

SUBNORMALS_LIVE = "print(float('1e-310') * float('1') > 0)"


@pytest.mark.parametrize("source", sorted((ROOT / "csrc").glob("*.c")), ids=lambda each: each.name)
def test_the_sources_compile_where_there_is_no_linux(source: Path) -> None:
    """Without its futex, its threads' clocks and its runtime of OpenMP."""
    compiler = shutil.which("gcc") or shutil.which("clang")
    if compiler is None:
        pytest.skip("neither gcc nor clang")
    includes = [numpy.get_include(), sysconfig.get_path("include"), str(ROOT / "csrc")]
    command = [compiler, "-std=gnu11", "-U__linux__", "-fsyntax-only", "-Wall", "-Werror"]
    command += ["-Wno-unknown-pragmas", *(f"-I{each}" for each in includes)]
    done = subprocess.run([*command, source], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr


WARNINGS = ["-Wall", "-Wextra", "-Wconversion", "-Wshadow", "-Werror"]


@pytest.mark.parametrize("source", sorted((ROOT / "csrc").glob("*.c")), ids=lambda each: each.name)
@pytest.mark.parametrize("compiler", ["gcc", "clang"])
def test_the_sources_compile_without_a_warning(compiler: str, source: Path) -> None:
    """Every conversion that may lose something is written down. Headers of others are left out."""
    if not shutil.which(compiler):
        pytest.skip(f"no {compiler}")
    others = [numpy.get_include(), sysconfig.get_path("include")]
    command = [compiler, *BUILD["FLAGS"], *WARNINGS, "-fsyntax-only", f"-I{ROOT / 'csrc'}"]
    command += [part for each in others for part in ("-isystem", each)]
    done = subprocess.run([*command, source], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr


ONE_FUNCTION = """
__attribute__((visibility("default"))) double large(void) { return 0x1p600; }
"""


def lives_beside(library: str) -> bool:
    """Whether a process still computes with subnormals after it has loaded the library."""
    return python(f"import ctypes; ctypes.CDLL({library!r}); {SUBNORMALS_LIVE}") == "True\n"


def library(folder: Path, compiler: str, hostile: list[str], ours: bool) -> str:
    """A library, with a constant, built as setuptools does it: CFLAGS are the linker's, too."""
    if not shutil.which(compiler):
        pytest.skip(f"no {compiler}")
    source, built = folder / "one.c", folder / f"{'ours' if ours else 'theirs'}.so"
    source.write_text(ONE_FUNCTION)
    flags, link_flags = (BUILD["FLAGS"], BUILD["LINK_FLAGS"]) if ours else ([], [])
    for command in (
        [compiler, "-fPIC", *hostile, "-c", source, "-o", folder / "one.o", *flags],
        [compiler, "-shared", *hostile, folder / "one.o", "-o", built, *link_flags],
    ):
        subprocess.run(command, check=True, capture_output=True, timeout=60)
    return str(built)


@on_linux
@pytest.mark.parametrize("compiler", ["gcc", "clang"])
@pytest.mark.parametrize("flag", ["-Ofast", "-ffast-math", "-funsafe-math-optimizations"])
def test_import_leaves_subnormals_alive(flag: str, compiler: str, tmp_path: Path) -> None:
    theirs, ours = (library(tmp_path, compiler, [flag], ours) for ours in (False, True))
    if lives_beside(theirs):
        pytest.skip(f"{flag} of this {compiler} flushes nothing where a library is loaded")
    assert lives_beside(ours)


@on_linux
def test_constants_are_float64(tmp_path: Path) -> None:
    """The powers of two by which squares are scaled would else be infinity and 0."""
    for ours, expected in ((False, inf), (True, 2.0**600)):
        built = ctypes.CDLL(library(tmp_path, "gcc", ["-fsingle-precision-constant"], ours))
        built.large.restype = ctypes.c_double
        assert built.large() == expected


@needs_c
def test_import_of_this_build_leaves_subnormals_alive() -> None:
    assert python(f"import fusedstep._engine; {SUBNORMALS_LIVE}") == "True\n"


@on_linux
@pytest.mark.parametrize("compiler", ["gcc", "clang"])
def test_link_flags_harden(compiler: str, tmp_path: Path) -> None:
    hostile = ["-Wl,-z,lazy", "-Wl,-z,norelro"]
    assert hardening(library(tmp_path, compiler, hostile, ours=False)) == set()
    assert hardening(library(tmp_path, compiler, hostile, ours=True)) == {"RELRO", "BIND_NOW"}


@on_linux
@needs_c
def test_the_extension_is_hardened() -> None:
    from fusedstep import _engine

    assert hardening(_engine.__file__) == {"RELRO", "BIND_NOW"}


# ---- several compilers at a time ----


@pytest.fixture
def command(monkeypatch: pytest.MonkeyPatch) -> Any:
    """The command `build_ext` of setup.py, before it has done anything."""
    setuptools = pytest.importorskip("setuptools", "77", reason="setuptools 77 is not installed")
    monkeypatch.chdir(ROOT)
    monkeypatch.setattr(setuptools, "setup", lambda **options: options)
    monkeypatch.delenv("MAX_JOBS", raising=False)
    options = runpy.run_path("setup.py")
    command = options["ParallelBuild"](setuptools.Distribution())
    command.initialize_options()
    return command


def test_as_many_compilers_as_are_asked_for(command: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "sched_getaffinity", lambda pid: {1, 5, 6}, raising=False)
    assert command.jobs() == 3
    command.parallel = True  # of setuptools: as many as there are CPUs
    assert command.jobs() == 3
    for named, jobs in (("2", 2), ("0", 3), ("", 3), ("many", 3), ("-4", 3), ("100", 100)):
        monkeypatch.setenv("MAX_JOBS", named)
        assert command.jobs() == jobs
    command.parallel = 7
    assert command.jobs() == 7


class Compiler:
    """A compiler that is done with a source when all others are at work, too."""

    def __init__(self, together: int) -> None:
        self.barrier = Barrier(together)
        self.compiled: list[str] = []
        self.linker_so = ["cc", "-shared", "-Wl,-rpath,/of/python/lib", "-lm"]

    def compile(self, sources: list[str], *, output_dir: str) -> list[str]:
        (source,) = sources
        self.compiled.append(source)
        if source == "broken.c":
            raise ValueError("no C")
        self.barrier.wait(60)
        return [f"{output_dir}/{source}.o"]


def built(command: Any, compiler: Any, sources: list[str], monkeypatch: pytest.MonkeyPatch) -> Any:
    """The objects that setuptools gets from the compiler that it calls."""
    objects = []

    def build_extension(self: Any, ext: Any) -> None:
        objects.extend(self.compiler.compile(ext, output_dir="made"))

    monkeypatch.setattr(type(command).__base__, "build_extension", build_extension)
    command.compiler = compiler
    command.build_extension(sources)
    return objects


def test_every_source_is_compiled_once_and_the_longest_first(
    command: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    sources = ["_engine.c", "isa_avx2.c", "norm.c", "isa_baseline.c"]
    command.parallel = 2
    compiler = Compiler(together=2)
    own = compiler.compile
    objects = built(command, compiler, sources, monkeypatch)
    first = ["isa_avx2.c", "isa_baseline.c"]
    assert objects == [f"made/{name}.o" for name in (*first, "_engine.c", "norm.c")]
    assert sorted(compiler.compiled) == sorted(sources)
    assert {*compiler.compiled[:2]} == {*first}
    assert compiler.compile == own
    assert compiler.linker_so == ["cc", "-shared", "-lm"]  # the path of a machine is left out


def test_an_error_of_one_compiler_is_the_build_s(
    command: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    command.parallel = 1
    compiler = Compiler(together=1)
    own = compiler.compile
    with pytest.raises(ValueError, match="no C"):
        built(command, compiler, ["one.c", "broken.c"], monkeypatch)
    assert compiler.compile == own
