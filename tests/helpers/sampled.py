"""A pytest plugin that leaves out most of the cases of some tests: one in so many is run.

    SAMPLED="test_bits=13 test_libraries=9" PYTHONPATH=tests/helpers pytest -p sampled

The first case is among them, unless the number is 0. An odd number meets both of two dtypes.
"""

from __future__ import annotations

import os
from typing import Any

import pytest


@pytest.hookimpl(trylast=True)  # of those that marks and names have left
def pytest_collection_modifyitems(config: Any, items: list[Any]) -> None:
    pairs = (each.split("=") for each in os.environ["SAMPLED"].split())
    one_in = {name: int(number) for name, number in pairs}
    seen = dict.fromkeys(one_in, 0)
    left_out = []
    for item in items:
        name = item.originalname
        if name in seen:
            seen[name] += 1
            if not one_in[name] or (seen[name] - 1) % one_in[name]:
                left_out.append(item)
    items[:] = [item for item in items if item not in left_out]
    config.hook.pytest_deselected(items=left_out)
