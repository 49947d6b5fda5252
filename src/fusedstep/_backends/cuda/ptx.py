"""The kernel of a generated module, `run`, as PTX. No device is needed."""

from __future__ import annotations

import re
from types import ModuleType


def compile_ptx(module: ModuleType, cc: tuple[int, int]) -> str:
    """The kernel for a compute capability.

    It has the module's name there, in place of the long one that Numba gives it.
    """
    from numba import cuda

    compiled, _ = cuda.compile_ptx(module.run, module.SIGNATURE, cc=cc)
    found = re.search(r"\.visible \.entry (\w+)\(", compiled)
    assert found is not None
    return str(compiled).replace(found[1], module.__name__)


def parameters(module: ModuleType) -> list[str]:
    """The types of the kernel's parameters; a tuple comes as its members, one by one."""
    signature: str = module.SIGNATURE
    integers, tuples = re.findall(r"int64", signature), re.findall(r"\((\w+), (\d+)\)", signature)
    return [*integers, *(kind for kind, count in tuples for _ in range(int(count)))]
