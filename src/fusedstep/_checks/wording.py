"""The words of errors: values, keys and differences as a message shows them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np


def describe(value: Any) -> str:
    """A value that is not what it should be, as an error shows it."""
    if value is None:
        return "None"
    if issubclass(type(value), np.ndarray):
        array = np.ndarray.view(value, np.ndarray)  # a subclass may say anything
        return f"an array of shape {array.shape} and dtype {array.dtype}"
    text = shown(value)
    return f"{text if len(text) <= 60 else text[:57] + '...'} ({type(value).__name__})"


def shown(value: Any) -> str:
    """The repr of a value; Python writes none of a number of thousands of digits."""
    try:
        return repr(value)
    except (RuntimeError, ValueError):  # or JAX of an array that has been deleted
        return f"a number of {value.bit_length()} bits" if isinstance(value, int) else "a value"


def differences(given: Mapping[Any, Any], expected: Mapping[Any, Any]) -> str:
    """The keys that are missing and those that are surplus, as an error tells them."""
    missing = [key for key in expected if key not in given]
    surplus = [key for key in given if key not in expected]
    named = (("lacks", missing), ("has the surplus", surplus))
    return " and ".join(f"{word} {quoted(keys)}" for word, keys in named if keys)


def quoted(keys: Sequence[Any]) -> str:
    """Keys as an error lists them: all of a few, the first eight of many."""
    listed = ", ".join(repr(key) for key in keys[:8])
    return listed if len(keys) <= 8 else f"{listed} and {len(keys) - 8} more"
