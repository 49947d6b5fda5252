"""A plugin that has the extension take this Python for a newer one, whose objects lie otherwise."""

from __future__ import annotations

import sys


def pytest_collection_finish() -> None:
    sys.hexversion = 0x030E00F0  # of 3.14; all is imported by now, and the extension has not asked
