"""The machine code of CUDA kernels, kept in files. A linker is needed, and no device."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from types import ModuleType, SimpleNamespace

import numpy as np
import pytest
from cache_folders import one_warning

from fusedstep._backends.cuda import available, squares
from fusedstep._compiler import folder

pytestmark = [
    pytest.mark.skipif(
        available.why_no_compiler() is not None, reason=f"{available.why_no_compiler()}"
    ),
    pytest.mark.skipif(available.simulated(), reason="this is the simulator"),
]


@pytest.fixture
def linked(cache_folder: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[[], tuple[bytes, int]]:
    """A function that returns a kernel's machine code, and how often it has been linked."""
    from fusedstep._backends.cuda import driver

    def linker(*args: object, **kwargs: object) -> object:
        calls.append(args)
        return link(*args, **kwargs)

    calls: list[object] = []
    link = vars(driver)["Linker"]
    monkeypatch.setattr(driver, "Linker", linker)
    device = SimpleNamespace(compute_capability=(9, 0))
    monkeypatch.setattr(driver, "cuda", SimpleNamespace(gpus=[device]))
    module: ModuleType = squares.module(np.dtype(np.float32))
    return lambda: (driver.cubin(module, 0), len(calls))


def flipped(path: Path) -> None:
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(content)


def cut(path: Path) -> None:
    os.truncate(path, path.stat().st_size // 2)


def opened(path: Path) -> None:
    path.chmod(0o666)


def a_pipe(path: Path) -> None:
    path.unlink()
    os.mkfifo(path)


def test_it_is_linked_once(linked: Callable[[], tuple[bytes, int]]) -> None:
    first, second = linked(), linked()
    assert first == second
    assert first[0].startswith(b"\x7fELF")
    assert first[1] == 1


@pytest.mark.skipif(not folder.POSIX, reason="files have no owners and modes here")
@pytest.mark.parametrize("spoil", [flipped, cut, opened, a_pipe])
def test_what_is_damaged_or_open_to_others_is_linked_anew(
    spoil: Callable[[Path], None], linked: Callable[[], tuple[bytes, int]], cache_folder: Path
) -> None:
    linked()
    (path,) = cache_folder.glob("*.sm_90")
    spoil(path)
    with one_warning() as told:
        again = linked()  # other bytes: Numba numbers its functions
    assert str(path) in told[0]
    assert again[0].startswith(b"\x7fELF")
    assert again[1] == 2
    assert linked() == again


def test_a_disk_that_is_full_costs_a_warning(
    linked: Callable[[], tuple[bytes, int]], monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*paths: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "replace", full)
    with pytest.warns(RuntimeWarning, match="No space left on device") as caught:
        first, second = linked(), linked()
    assert len(caught) == 1
    assert (first[1], second[1]) == (1, 2)
