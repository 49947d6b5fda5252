"""Reasons why the CUDA backend cannot run here, looked for as cheaply as may be."""

from __future__ import annotations

import ctypes
import os
import sys
from importlib.util import find_spec

import numpy as np

EXTRA = "`pip install 'fusedstep[cuda]'`"


def why_no_compiler() -> str | None:
    """Tell why its kernels cannot be compiled, or None if they can; that needs no device."""
    reason = _why_not_installed()
    if reason is not None or simulated():
        return reason
    try:
        from numba.cuda import cudaimpl  # noqa: F401  what the first compilation loads
        from numba.cuda.cudadrv import nvvm
    except AttributeError as error:  # from a NumPy too new for it
        return f"numba-cuda cannot be loaded beside NumPy {np.__version__}: {error}; {EXTRA}"
    except ImportError as error:
        return f"numba-cuda cannot be loaded: {error}; {EXTRA}"
    if not nvvm.is_available():
        return f"numba-cuda finds no NVVM, its compiler; {EXTRA}"
    return None


def why_missing() -> str | None:
    """Tell why it cannot run, or None if it can."""
    reason = _why_not_installed() or _why_no_driver() or why_no_compiler()
    if reason is not None:
        return reason
    from numba import cuda

    if not cuda.is_available():
        return " ".join(f"the CUDA driver finds no device to use: {cuda.cuda_error()}".split())
    return None if simulated() else _why_too_old()


def _why_not_installed() -> str | None:
    """Name the package that is not installed, or None. The simulator needs none but Numba."""
    if find_spec("numba") is None:
        return f"numba is not installed; {EXTRA}"
    if find_spec("numba.cuda" if simulated() else "numba_cuda") is None:
        return f"numba-cuda is not installed; {EXTRA}"
    return None


def _why_no_driver() -> str | None:
    """Name the library of the driver that is not there, or None."""
    library = "nvcuda.dll" if sys.platform == "win32" else "libcuda.so.1"
    try:
        if not simulated():
            ctypes.CDLL(library)
    except OSError:
        return f"there is no CUDA driver, {library}; install NVIDIA's for your device"
    return None


def _why_too_old() -> str | None:
    """Tell why the driver cannot load the compiler's code, or None if it can."""
    from cuda.bindings import __version__ as bindings
    from numba.cuda.cudadrv.driver import driver

    compiler, (major, minor) = int(bindings.partition(".")[0]), driver.get_version()
    if major >= compiler:
        return None
    return (
        f"the CUDA driver is of CUDA {major}.{minor}, and the compiler of CUDA {compiler}; update "
        "the driver, or, for one of CUDA 12, `pip install 'fusedstep[cuda12]'` in a fresh "
        "environment"
    )


def simulated() -> bool:
    """Tell whether Numba simulates a device in host memory."""
    if not os.environ.get("NUMBA_ENABLE_CUDASIM"):
        return False
    from numba import config

    return bool(vars(config)["ENABLE_CUDASIM"])
