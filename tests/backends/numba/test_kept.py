"""Kernels that Numba compiled and other processes load: what is planted or damaged is not run."""

from __future__ import annotations

import hashlib
import os
import pickle
import random
import re
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import pytest
from marks import BACKENDS

from fusedstep._compiler import folder

pytestmark = [
    pytest.mark.skipif(
        BACKENDS["numba"] is not None, reason=f"no Numba backend: {BACKENDS['numba']}"
    ),
    pytest.mark.skipif(not folder.POSIX, reason="files have no owners and modes here"),
]

STEPS = """
import sys
if {hidden}: sys.modules["fusedstep._engine"] = None
import numpy as np, fusedstep as fs
p = np.linspace(1, 2, 1000)
opt = fs.SGD(p, lr=0.1, momentum=0.5, backend="numba")
{first}
for _ in range(3):
    opt.step(np.ones_like(p), max_norm=1.0)
modules = [module for name, module in sys.modules.items() if name.startswith("fusedstep_")]
print(sum(not module.run.cache_hits for module in modules), p.tobytes().hex())
"""


class Steps(NamedTuple):
    """The account that a process gave of its steps."""

    compiled: int
    """The number of kernels that were not loaded."""
    bits: str
    warnings: list[str]


def steps(base: Path, *, variable: str = "XDG_CACHE_HOME", hidden: bool = False) -> Steps:
    """Steps of a new process that keeps its kernels in a folder in `base`."""
    return told(run(base, STEPS.format(hidden=hidden, first=""), variable))


def run(base: Path, code: str, variable: str = "XDG_CACHE_HOME") -> subprocess.Popen[str]:
    inherited = {name: value for name, value in os.environ.items() if name not in folder.PLACES}
    return subprocess.Popen(
        [sys.executable, "-W", "always", "-c", code],
        env={**inherited, variable: str(base)},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def told(process: subprocess.Popen[str]) -> Steps:
    printed, errors = process.communicate(timeout=120)
    assert process.returncode == 0, errors
    compiled, bits = printed.split()
    return Steps(int(compiled), bits, re.findall("Warning: .+", errors))


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, str]:
    """A folder with all kernels of the steps, and the steps' bits."""
    base = tmp_path_factory.mktemp("made")
    first, second = (steps(base, hidden=hidden) for hidden in (False, True))
    assert first.bits == second.bits
    return base, first.bits


@pytest.fixture
def expected(made: tuple[Path, str], tmp_path: Path) -> str:
    """The bits of the steps; their kernels are in a folder of the test's own."""
    base, bits = made
    shutil.copytree(base / "fusedstep", tmp_path / "fusedstep")
    return bits


def kernels(base: Path) -> list[Path]:
    return sorted(path for path in base.glob("fusedstep/*") if path.suffix != ".py")


class Planted:
    """An object whose pickle makes a file when it is read."""

    def __init__(self, marker: Path) -> None:
        self.marker = marker

    def __reduce__(self) -> tuple[Any, ...]:
        return os.mkdir, (str(self.marker),)


def plant(base: Path) -> Path:
    """Put such a pickle, with the right digest, in the place of each kernel."""
    marker = base / "planted"
    pickled = pickle.dumps(Planted(marker))
    assert kernels(base)
    for path in kernels(base):
        path.write_bytes(hashlib.sha256(path.name.encode() + b"\n" + pickled).digest() + pickled)
    return marker


def opened_to_all(base: Path) -> None:
    (base / "fusedstep").chmod(0o777)


def below_what_is_open(base: Path) -> None:
    base.chmod(0o777)


def linked(base: Path) -> None:
    (base / "fusedstep").symlink_to((base / "fusedstep").rename(base / "other"))


def files_opened_to_all(base: Path) -> None:
    for path in kernels(base):
        path.chmod(0o666)


def files_linked(base: Path) -> None:
    for path in kernels(base):
        path.symlink_to(path.rename(base / path.name))


def test_a_pickle_of_the_user_is_run(tmp_path: Path, expected: str) -> None:
    """So the pickles of the tests below would do something."""
    marker = plant(tmp_path)
    assert steps(tmp_path).bits == expected
    assert marker.exists()


@pytest.mark.parametrize(
    ("variable", "hidden"), [("XDG_CACHE_HOME", False), ("NUMBA_CACHE_DIR", True)]
)
@pytest.mark.parametrize(
    "spoil", [opened_to_all, below_what_is_open, linked, files_opened_to_all, files_linked]
)
def test_a_pickle_that_others_may_have_planted_is_not_read(
    spoil: Callable[[Path], None],
    variable: str,
    hidden: bool,
    tmp_path: Path,
    expected: str,
) -> None:
    marker = plant(tmp_path)
    spoil(tmp_path)
    found = steps(tmp_path, variable=variable, hidden=hidden)
    assert not marker.exists()
    assert found.compiled > 0
    assert found.bits == expected
    assert len(found.warnings) == 1


def test_numba_keeps_nothing_of_ours_elsewhere(tmp_path: Path, expected: str) -> None:
    shutil.rmtree(tmp_path / "fusedstep")
    assert steps(tmp_path, variable="NUMBA_CACHE_DIR", hidden=True).compiled > 0
    assert [path.name for path in tmp_path.iterdir()] == ["fusedstep"]
    assert not [path for path in (tmp_path / "fusedstep").iterdir() if path.is_dir()]
    assert steps(tmp_path, variable="NUMBA_CACHE_DIR", hidden=True) == (0, expected, [])


def damaged(path: Path) -> bytes:
    content, rng = bytearray(path.read_bytes()), random.Random(0)
    for _ in range(1000):
        content[rng.randrange(len(content))] ^= 1 << rng.randrange(8)
    return bytes(content)


def of_another_build(path: Path) -> bytes:
    """The pickle of a Numba that bears the same version and has other modules."""
    pickled = b"cnumba.of_another_build\nname\n."
    return hashlib.sha256(path.name.encode() + b"\n" + pickled).digest() + pickled


@pytest.mark.parametrize("spoilt", [damaged, of_another_build])
def test_what_cannot_be_loaded_is_mended(
    spoilt: Callable[[Path], bytes], tmp_path: Path, expected: str
) -> None:
    """Damaged machine code would crash the process."""
    for path in kernels(tmp_path):
        path.write_bytes(spoilt(path))
    found = steps(tmp_path)
    assert found.compiled > 0
    assert found.bits == expected
    assert len(found.warnings) == 1
    assert "so it is compiled anew" in found.warnings[0]
    assert steps(tmp_path) == (0, expected, [])


def test_processes_may_write_at_the_same_time(tmp_path: Path, expected: str) -> None:
    shutil.rmtree(tmp_path / "fusedstep")
    processes = [run(tmp_path, STEPS.format(hidden=False, first="")) for _ in range(3)]
    assert [told(process)[1:] for process in processes] == [(expected, [])] * 3
    assert steps(tmp_path) == (0, expected, [])


INTERRUPTED = """
import os, signal, threading
from fusedstep._backends.numba import engine
from fusedstep._compiler import modules
trying = []
def interrupt(*_):
    if trying: raise KeyboardInterrupt
signal.signal(signal.SIGINT, interrupt)
for delay in (0.1, *(0.001 * k for k in range(20))):
    trying.append(True)
    try:
        timer = threading.Timer(delay, os.kill, (os.getpid(), signal.SIGINT))
        timer.start()
        modules.load.cache_clear()
        engine.kernel.cache_clear()
        fs.SGD(p.copy(), lr=0.1, momentum=0.5, backend="numba").step(p.copy(), max_norm=1.0)
        timer.join()
        trying.clear()
    except KeyboardInterrupt:
        trying.clear()
    timer.join()
modules.load.cache_clear()
engine.kernel.cache_clear()
"""


def test_ctrl_c_while_a_kernel_is_compiled_or_loaded_costs_nothing_later(
    tmp_path: Path, expected: str
) -> None:
    shutil.rmtree(tmp_path / "fusedstep")
    process = run(tmp_path, STEPS.format(hidden=False, first=INTERRUPTED))
    assert told(process).bits == expected
    assert steps(tmp_path) == (0, expected, [])


def test_a_child_after_fork_compiles_and_keeps(tmp_path: Path, expected: str) -> None:
    shutil.rmtree(tmp_path / "fusedstep")
    first = "import os\nif os.fork(): os._exit(os.waitstatus_to_exitcode(os.wait()[1]))"
    process = run(tmp_path, STEPS.format(hidden=False, first=first))
    assert told(process)[1] == expected
    assert steps(tmp_path) == (0, expected, [])
