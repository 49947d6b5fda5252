"""The package builds anywhere from its sdist, and says what it lacks. Slow: it compiles."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import tarfile
import zipfile
from pathlib import Path

import processes
import pytest

ROOT = Path(__file__).parent.parent

HOSTILE = {
    "gcc": "-Ofast -march=native -flto -ffp-contract=fast -fsingle-precision-constant",
    "clang": "-Ofast -march=native -ffp-model=fast -fassociative-math",
}
"""Flags that forbid what the contract asks for, by compiler."""

pytestmark = pytest.mark.slow


def run(*command: str | Path, cwd: Path | None = None, **environment: str) -> str:
    done = subprocess.run(
        [str(part) for part in command],
        cwd=cwd,
        env={**os.environ, "PYTHONPATH": "", **environment},
        capture_output=True,
        text=True,
        timeout=600,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


@pytest.fixture(scope="module")
def source(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An sdist of this tree: what is not in it is not there for the builds below."""
    folder = tmp_path_factory.mktemp("sdist")
    run(sys.executable, "-m", "venv", folder / "tools")
    run(folder / "tools/bin/pip", "install", "build")
    run(folder / "tools/bin/python", "-m", "build", "--sdist", "-o", folder, ROOT)
    return next(folder.glob("fusedstep-*.tar.gz"))


def test_the_sdist_has_all_to_build_from(source: Path) -> None:
    with tarfile.open(source) as archive:
        names = {name.partition("/")[2] for name in archive.getnames()}
    for folder, pattern in [("csrc", "*.*"), ("src", "**/*.py"), (".", "README.md")]:
        assert {str(path.relative_to(ROOT)) for path in (ROOT / folder).glob(pattern)} <= names


def test_the_sdist_has_all_that_is_kept_and_no_more(source: Path) -> None:
    if not (ROOT / ".git").exists():
        pytest.skip("what is kept is known in a checkout alone")
    kept = run("git", "-C", ROOT, "ls-files", "--cached", "--others", "--exclude-standard")
    with tarfile.open(source) as archive:
        files = {file.name.partition("/")[2] for file in archive.getmembers() if file.isfile()}
    made = {name for name in files if name.startswith("src/fusedstep.egg-info/")}
    assert files - made - {"PKG-INFO", "setup.cfg"} == set(kept.splitlines())


def test_the_sdist_passes_its_tests(source: Path, tmp_path: Path) -> None:
    """All are collected, and some of each kind run: of steps, of the command, of the pages."""
    with tarfile.open(source) as archive:
        archive.extractall(tmp_path, filter="data")
    root = next(tmp_path.glob("fusedstep-*"))
    run(sys.executable, "-m", "venv", tmp_path / "venv")
    python = tmp_path / "venv/bin/python"
    run(python, "-m", "pip", "install", f"{root}[test]")
    run(python, "-m", "pytest", "--collect-only", "-q", "-m", "", cwd=root)
    folders = ["arrays", "compiler", "core/test_zero_grads.py", "docs/test_regions.py", "program"]
    report = run(python, "-m", "pytest", "-q", *(f"tests/{name}" for name in folders), cwd=root)
    assert " passed" in report


def test_one_abi3_wheel(source: Path, tmp_path: Path) -> None:
    run(
        *(sys.executable, "-m", "pip", "wheel", "--no-deps", "-w", tmp_path, source),
        FUSEDSTEP_REQUIRE_C="1",
    )
    wheel = next(tmp_path.glob("*.whl"))
    assert "-cp310-abi3-" in wheel.name
    names = zipfile.ZipFile(wheel).namelist()
    assert "fusedstep/_engine.abi3.so" in names
    assert "fusedstep/py.typed" in names
    assert not [name for name in names if name.startswith(("csrc", "tests", "bench"))]


def test_installs_without_a_compiler(source: Path, tmp_path: Path) -> None:
    run(sys.executable, "-m", "venv", tmp_path / "venv")
    run(tmp_path / "venv/bin/pip", "install", source, CC="/no/such/compiler")
    python = tmp_path / "venv/bin/python"
    information = run(python, "-c", "import fusedstep as fs; print(fs.info())")
    assert "backend c      MISSING: it was not built" in information
    assert "Install gcc or clang" in information
    step = (
        "import warnings, numpy as np, fusedstep as fs\n"
        "with warnings.catch_warnings(record=True) as caught:\n"
        "    warnings.simplefilter('always')\n"
        "    p = np.ones(3); fs.SGD(p, lr=1.0).step(np.ones(3)); fs.SGD(p)\n"
        "assert (p == 0).all()\n"
        "assert not caught, caught\n"  # Numba steps in
        "try:\n"
        "    fs.SGD(p, backend='c')\n"
        "except RuntimeError as error:\n"
        "    print(error)\n"
    )
    assert "backend='c' is not available: it was not built" in run(python, "-c", step)


@pytest.mark.parametrize("compiler", HOSTILE)
def test_flags_of_the_environment_change_no_bit(
    compiler: str, source: Path, tmp_path: Path
) -> None:
    if not shutil.which(compiler):
        pytest.skip(f"no {compiler}")
    run(
        *(sys.executable, "-m", "pip", "wheel", "--no-deps", "-w", tmp_path, source),
        CC=compiler,
        CFLAGS=HOSTILE[compiler],
        LDFLAGS="-Ofast -Wl,-z,lazy -Wl,-z,norelro" if sys.platform == "linux" else "-Ofast",
        FUSEDSTEP_REQUIRE_C="1",
    )
    site = tmp_path / "site"
    zipfile.ZipFile(next(tmp_path.glob("*.whl"))).extractall(site)
    where = run(
        sys.executable, "-c", "import fusedstep as fs; print(fs.__file__)", PYTHONPATH=str(site)
    )
    assert Path(where.strip()).is_relative_to(site)
    done = processes.pytest(
        *("tests/backends/c/test_build.py", "tests/numerics/test_bits.py", "-n", "2"),
        *("-k", "test_build or isas_and_sizes or test_threads_and_large_sizes"),
        PYTHONPATH=str(site),
    )
    assert done.returncode == 0, done.stdout


def test_a_wheel_without_the_extension_is_refused(source: Path, tmp_path: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-m", "pip", "wheel", "--no-deps", "-w", tmp_path, source],
        env={**os.environ, "CC": "/no/such/compiler", "FUSEDSTEP_REQUIRE_C": "1"},
        capture_output=True,
        text=True,
    )
    assert done.returncode != 0
    assert not list(tmp_path.glob("*.whl"))
