"""The fixture and the hooks of replay.py, where pytest finds them."""

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
