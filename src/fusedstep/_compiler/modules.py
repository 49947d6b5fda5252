"""Text of a module, run, and kept in a file.

Numba keeps what it compiled beside the file that it came from, and a person may read it.
"""

from __future__ import annotations

import atexit
import hashlib
import os
import re
import shutil
import sys
import tempfile
from contextlib import suppress
from functools import cache
from pathlib import Path
from types import ModuleType


@cache
def load(name: str, text: str, parts: Path) -> ModuleType:
    """The module of a text, which imports what it is made of from the file `parts`.

    Its file and its own name are new when either changes, and so is what was compiled from it.
    """
    key = hashlib.sha256(text.encode() + parts.read_bytes()).hexdigest()[:16]
    short = re.sub(r"[^A-Za-z0-9_]", "", name)[:60]  # a path may not be long, Numba adds to it
    path = _folder() / f"{short}-{key}.py"
    if not _holds(path, text):
        write(path, text.encode())
    module = ModuleType(f"fusedstep_{short}_{key}")
    module.__file__ = str(path)
    sys.modules[module.__name__] = module
    exec(compile(text, path, "exec"), vars(module))
    return module


def write(path: Path, content: bytes) -> None:
    """Write a file in one move, so that no other process reads half of it."""
    with tempfile.NamedTemporaryFile(dir=path.parent, delete=False) as file:
        file.write(content)
    os.replace(file.name, path)


def _holds(path: Path, text: str) -> bool:
    """Whether a file is as it was written, and not cut short by a crash, say."""
    try:
        return path.read_bytes() == text.encode()
    except FileNotFoundError:
        return False


@cache
def _folder() -> Path:
    """The folder of generated modules: beside Numba's own cache, if that has been moved."""
    places = ("NUMBA_CACHE_DIR", "XDG_CACHE_HOME", "LOCALAPPDATA")
    base = next((os.environ[name] for name in places if os.environ.get(name)), "~/.cache")
    with suppress(OSError, RuntimeError):  # there may be no home
        folder = (Path(base).expanduser() / "fusedstep").absolute()
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)  # what is in it will be run
        if os.access(folder, os.W_OK | os.X_OK):
            return folder
    passing = tempfile.mkdtemp(prefix="fusedstep-")
    atexit.register(shutil.rmtree, passing, ignore_errors=True)
    return Path(passing)
