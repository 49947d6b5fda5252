"""What pytest finds here; replay.py has it."""

from replay import (
    pytest_addoption,
    pytest_benchmark_update_json,
    pytest_collection_modifyitems,
    replayed,
)

__all__ = [
    "pytest_addoption",
    "pytest_benchmark_update_json",
    "pytest_collection_modifyitems",
    "replayed",
]
