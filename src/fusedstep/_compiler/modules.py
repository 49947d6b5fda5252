"""Text of a module, run from memory, and kept in a file for people to read."""

from __future__ import annotations

import hashlib
import linecache
import re
import sys
from functools import cache
from pathlib import Path
from types import ModuleType

from fusedstep._compiler import files
from fusedstep._compiler.interrupts import delayed


@cache
def load(name: str, text: str, *parts: Path) -> ModuleType:
    """The module of a text, which imports what it is made of from the files `parts`.

    Its name is new when any of them changes, and so is what is kept under its name.
    """
    full = unique(name, text.encode(), *(part.read_bytes() for part in parts))
    # Numba and tracebacks ask for the lines of a function: they get them from memory, too.
    path = f"<{full}>"
    linecache.cache[path] = len(text), None, text.splitlines(keepends=True), path
    code = compile(text, path, "exec")
    files.show(f"{full}.py", text)
    module = sys.modules[full] = ModuleType(full)
    try:
        with delayed():  # Numba compiles what has its decorators
            exec(code, vars(module))
    except BaseException:
        sys.modules.pop(full, None)
        raise
    return module


def unique(name: str, *content: bytes) -> str:
    """A name for a module, and for files, that no other content has."""
    short = re.sub(r"[^A-Za-z0-9_]", "", name)[:60]  # a path may not be long
    return f"fusedstep_{short}_{hashlib.sha256(b''.join(content)).hexdigest()[:16]}"
