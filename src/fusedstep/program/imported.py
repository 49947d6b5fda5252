"""Modules that a command line names."""

from __future__ import annotations

import importlib
import os
import sys
from types import ModuleType


def imported(name: str) -> ModuleType:
    """The module of that name; those of the current folder are found, as by `python -m`."""
    sys.path.insert(0, os.getcwd())
    try:
        return importlib.import_module(name)
    finally:
        sys.path.remove(os.getcwd())
