"""Warnings at the line of the user's program that led to them."""

from __future__ import annotations

import os
import sys
import warnings
from pathlib import Path

PACKAGE = f"{Path(__file__).parents[1]}{os.sep}"


def warn(message: str) -> None:
    """Warn at the first line outside of the package, however deep inside this is called."""
    frame, level = sys._getframe(1), 2  # noqa: SLF001  as the standard library's warnings do
    while frame.f_back is not None and frame.f_code.co_filename.startswith(PACKAGE):
        frame, level = frame.f_back, level + 1
    warnings.warn(message, RuntimeWarning, stacklevel=level)
