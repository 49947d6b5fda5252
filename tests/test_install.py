"""The package builds anywhere from its sdist, and says what it lacks. Slow: it compiles."""

from __future__ import annotations

import hashlib
import json
import os
import re
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


@pytest.fixture(scope="module")
def wheel(source: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A wheel of that sdist."""
    folder = tmp_path_factory.mktemp("wheel")
    run(
        *(sys.executable, "-m", "pip", "wheel", "--no-deps", "-w", folder, source),
        FUSEDSTEP_REQUIRE_C="1",
    )
    return next(folder.glob("*.whl"))


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


def built_twice(tmp_path: Path, suffix: str, *options: str) -> tuple[Path, Path]:
    """The same files built in two folders, at two times, by users with two masks."""
    kept = run("git", "-C", ROOT, "ls-files", "--cached", "--others", "--exclude-standard", "-z")
    run(sys.executable, "-m", "venv", tmp_path / "tools")
    run(tmp_path / "tools/bin/pip", "install", "build")
    made = []
    for place, mask in (("one", "022"), ("two/deeper", "077")):
        root, out = tmp_path / place, tmp_path / place / "dist"
        for name in kept.rstrip("\0").split("\0"):
            (root / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(ROOT / name, root / name)
            (root / name).chmod(0o666 & ~int(mask, 8) | (ROOT / name).stat().st_mode & 0o100)
        command = f'umask {mask} && exec "$0" -m build "$@"'
        python = tmp_path / "tools/bin/python"
        run("sh", "-c", command, python, *options, "-o", out, root, FUSEDSTEP_REQUIRE_C="1")
        made.append(next(out.glob(f"*{suffix}")))
    return made[0], made[1]


@pytest.mark.skipif(not (ROOT / ".git").exists(), reason="what is kept is known in a checkout")
@pytest.mark.parametrize("suffix", [".tar.gz", ".whl"])
def test_two_builds_have_the_same_bytes(suffix: str, tmp_path: Path) -> None:
    kind = {".tar.gz": "--sdist", ".whl": "--wheel"}[suffix]
    one, two = built_twice(tmp_path, suffix, kind)
    assert one.name == two.name
    assert one.read_bytes() == two.read_bytes()


def test_the_wheel_lists_what_it_was_made_of(wheel: Path) -> None:
    with zipfile.ZipFile(wheel) as archive:
        (name,) = [each for each in archive.namelist() if "/sboms/" in each]
        bom = json.loads(archive.read(name))
        record = archive.read(name.partition("/")[0] + "/RECORD").decode()
    assert name in record
    package = bom["metadata"]["component"]
    version = re.search(r'^version = "(.+)"', (ROOT / "pyproject.toml").read_text(), re.MULTILINE)
    assert version is not None
    assert (package["name"], package["version"]) == ("fusedstep", version[1])
    assert package["licenses"] == [{"license": {"id": "MIT"}}]
    assert bom["compositions"] == [{"aggregate": "complete", "assemblies": [package["bom-ref"]]}]
    listed = {each["name"]: each["hashes"][0]["content"] for each in package["components"]}
    sources = [path for path in (ROOT / "csrc").iterdir() if path.is_file()]
    assert listed == {
        f"csrc/{path.name}": hashlib.sha256(path.read_bytes()).hexdigest() for path in sources
    }


def test_one_abi3_wheel(wheel: Path) -> None:
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


WITHOUT_THE_GIL = """
import runpy, sys, sysconfig
known = sysconfig.get_config_var
sysconfig.get_config_var = lambda name: 1 if name == "Py_GIL_DISABLED" else known(name)
runpy.run_path("setup.py", run_name="__main__")
"""
"""Runs setup.py as a free-threaded Python would."""


def test_free_threaded_python_gets_no_extension_and_says_why(source: Path, tmp_path: Path) -> None:
    with tarfile.open(source) as archive:
        archive.extractall(tmp_path, filter="data")
    root = next(tmp_path.glob("fusedstep-*"))
    run(sys.executable, "-m", "venv", tmp_path / "venv")
    run(tmp_path / "venv/bin/pip", "install", "setuptools>=77", "cffi", "numpy")
    command = [
        str(tmp_path / "venv/bin/python"),
        "-c",
        WITHOUT_THE_GIL,
        "bdist_wheel",
        "-d",
        str(tmp_path),
    ]
    run(*command, cwd=root)
    (wheel,) = tmp_path.glob("*.whl")
    assert "abi3" not in wheel.name
    assert not [name for name in zipfile.ZipFile(wheel).namelist() if "_engine" in name]
    refused = subprocess.run(
        command, cwd=root, env={**os.environ, "FUSEDSTEP_REQUIRE_C": "1"}, capture_output=True
    )
    assert refused.returncode != 0
    assert b"this Python is a free-threaded build" in refused.stderr


def test_a_wheel_without_the_extension_is_refused(source: Path, tmp_path: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-m", "pip", "wheel", "--no-deps", "-w", tmp_path, source],
        env={**os.environ, "CC": "/no/such/compiler", "FUSEDSTEP_REQUIRE_C": "1"},
        capture_output=True,
        text=True,
    )
    assert done.returncode != 0
    assert not list(tmp_path.glob("*.whl"))
