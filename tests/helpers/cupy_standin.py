"""CuPy's place taken by NumPy, in Numba's simulator: as much of it as the example needs.

`python tests/helpers/cupy_standin.py MODULE` runs the `main` of an example's module.
"""

from __future__ import annotations

import importlib
import sys
from types import ModuleType, SimpleNamespace
from typing import Any

import numpy as np
from numpy.lib.mixins import NDArrayOperatorsMixin


class ndarray(NDArrayOperatorsMixin):
    """An array that says it is on a device; NumPy computes with it all the same."""

    device = SimpleNamespace(id=0)

    def __init__(self, host: Any) -> None:
        self.host = np.asarray(host)
        self.shape, self.strides, self.dtype = self.host.shape, self.host.strides, self.host.dtype
        self.data = SimpleNamespace(ptr=self.host.ctypes.data)

    @property
    def __cuda_array_interface__(self) -> dict[str, Any]:
        return {**self.host.__array_interface__, "version": 3}

    @property
    def T(self) -> ndarray:  # noqa: N802  NumPy's name
        return ndarray(self.host.T)

    def sum(self, keepdims: bool = False) -> ndarray:
        return ndarray(self.host.sum(keepdims=keepdims))

    def mean(self) -> ndarray:
        return ndarray(self.host.mean())

    def __float__(self) -> float:
        return float(self.host)

    def __array_ufunc__(self, function: Any, method: str, *inputs: Any, **options: Any) -> Any:
        hosts = [each.host if isinstance(each, ndarray) else each for each in inputs]
        return ndarray(getattr(function, method)(*hosts, **options))


ndarray.__module__ = "cupy"

STREAM = 77


def asarray(values: Any) -> ndarray:
    return ndarray(np.array(values))


def standin() -> ModuleType:
    module = ModuleType("cupy")
    functions = {name: getattr(np, name) for name in ("exp", "logaddexp")}
    stream = SimpleNamespace(ptr=STREAM)
    vars(module).update(
        functions,
        ndarray=ndarray,
        asarray=asarray,
        zeros=lambda shape: asarray(np.zeros(shape)),
        asnumpy=lambda array: array.host.copy(),
        cuda=SimpleNamespace(get_current_stream=lambda ordinal: stream),
    )
    return module


if __name__ == "__main__":
    sys.modules["cupy"] = standin()
    importlib.import_module(sys.argv[1]).main()
