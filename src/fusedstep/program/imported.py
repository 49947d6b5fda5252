"""Objects that a command line names as `module:Name`."""

from __future__ import annotations

import importlib
import os
import sys
from typing import Any


def imported(text: str) -> Any:
    """The object of that name in that module; ImportError, AttributeError or ValueError if none.

    Modules of the current folder are found, as by `python -m`.
    """
    module_name, _, attribute = text.partition(":")
    sys.path.insert(0, os.getcwd())
    try:
        found: Any = importlib.import_module(module_name)
        for name in attribute.split("."):
            found = getattr(found, name)
    finally:
        sys.path.remove(os.getcwd())
    return found
