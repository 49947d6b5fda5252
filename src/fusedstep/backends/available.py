"""Whether the "cuda" engine can run here, found out as cheaply as may be."""

from __future__ import annotations

import ctypes
import os
import sys
from importlib.util import find_spec

EXTRA = "`pip install 'fusedstep[cuda]'`"


def why_no_compiler() -> str | None:
    """Why its kernels cannot be compiled, or None if they can; that needs no device."""
    for package, module in (("numba", "numba"), ("numba-cuda", "numba_cuda")):
        if find_spec(module) is None:
            return f"{package} is not installed; {EXTRA}"
    try:
        from numba.cuda.cudadrv import nvvm
    except ImportError as error:
        return f"numba-cuda cannot be loaded: {error}; {EXTRA}"
    if not simulated() and not nvvm.is_available():
        return f"numba-cuda finds no NVVM, its compiler; {EXTRA}"
    return None


def why_missing() -> str | None:
    """Why it cannot run, or None if it can."""
    if find_spec("numba_cuda") is None:
        return f"numba-cuda is not installed; {EXTRA}"
    if not simulated():
        library = "nvcuda.dll" if sys.platform == "win32" else "libcuda.so.1"
        try:
            ctypes.CDLL(library)
        except OSError:
            return f"there is no CUDA driver, {library}; install NVIDIA's for your device"
    reason = why_no_compiler()
    if reason is not None:
        return reason
    from numba import cuda

    if not cuda.is_available():
        return " ".join(f"the CUDA driver finds no device to use: {cuda.cuda_error()}".split())
    return None


def simulated() -> bool:
    """Whether Numba simulates a device in host memory."""
    if not os.environ.get("NUMBA_ENABLE_CUDASIM"):
        return False
    from numba import config

    return bool(vars(config)["ENABLE_CUDASIM"])
