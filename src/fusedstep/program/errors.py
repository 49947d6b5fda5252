"""Errors of the command: one line on stderr, and the exit status."""

from __future__ import annotations

import sys
from collections.abc import Iterable
from importlib.util import find_spec
from pathlib import Path

EXTRA = ("matplotlib", "rich", "sklearn")
"""Modules that the extra "demo" installs, all of which the demonstration needs."""

DRAWING = EXTRA[:2]
"""Modules that tables and pictures need."""


class CommandError(Exception):
    """An end of the command before its work is done; the message says why, with a remedy."""

    status = 1
    """The exit status of the command."""


class UsageError(CommandError):
    """Arguments that name nothing to work on, where this shows only when it is looked for."""

    status = 2


def report(error: CommandError | str) -> int:
    """Print an error, and return the exit status."""
    print(f"fusedstep: error: {error}", file=sys.stderr)
    return error.status if isinstance(error, CommandError) else 1


def require(modules: Iterable[str], what: str) -> None:
    """Raise an error if one of the modules is not installed that `what` needs."""
    if missing := ", ".join(name for name in modules if find_spec(name) is None):
        raise CommandError(f"{what} needs {missing}: pip install 'fusedstep[demo]'")


def unwritten(path: Path, error: OSError, option: str = "picture") -> CommandError:
    return CommandError(f"cannot write {path}: {error.strerror}; name another --{option}")
