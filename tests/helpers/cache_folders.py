"""The folder of compiled kernels: what to keep there, and the warning that it costs."""

from __future__ import annotations

import os
import re
import subprocess
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TypeAlias

from fusedstep._compiler import files, folder

NAME, CONTENT = "kernel.1", b"\x00machine code\n" * 5

Spoil: TypeAlias = Callable[[Path], object]
"""A function that does something to a file, or to the folder."""


@contextmanager
def one_warning() -> Iterator[list[str]]:
    """A list to which the text of the only warning is added."""
    told: list[str] = []
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        yield told
    told += [str(each.message) for each in caught]
    assert [each.category for each in caught] == [RuntimeWarning]


def start_anew(variable: str, value: object) -> None:
    """Let the folder be found anew, as a new process does."""
    os.environ[variable] = str(value)
    folder.wanted.cache_clear()
    files.warned.clear()


def follow(warning: str, tmp_path: Path) -> None:
    """Do what a warning says: run its command, or set its variable to another folder."""
    command = re.search("`(.+)`", warning)
    if command:
        subprocess.run(command[1], shell=True, check=True)
        return
    variable = re.search(r"set (\w+) to a folder of your own", warning)
    assert variable
    tmp_path.chmod(0o700)
    start_anew(variable[1], tmp_path / "of my own")
