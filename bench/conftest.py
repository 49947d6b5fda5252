"""What pytest finds here; turns.py has it."""

from turns import (
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
