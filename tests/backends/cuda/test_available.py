"""Reasons why the CUDA backend cannot run here."""

from __future__ import annotations

import re
from importlib.util import find_spec

import pytest
from processes import python

needs_numba_cuda = pytest.mark.skipif(
    find_spec("numba_cuda") is None, reason="numba_cuda is not installed; `pip install '.[cuda]'`"
)


@pytest.mark.parametrize(
    ("hide", "reason"),
    [
        (
            "find = util.find_spec\n"
            "util.find_spec = lambda name: None if name == 'numba_cuda' else find(name)\n",
            "numba-cuda is not installed; `pip install 'fusedstep[cuda]'`",
        ),
        (
            "def refuse(name): raise OSError\n"
            "util.find_spec, ctypes.CDLL = lambda name: True, refuse\n",
            "there is no CUDA driver, ",
        ),
    ],
)
def test_missing_cuda_says_why_and_loads_nothing(hide: str, reason: str) -> None:
    code = (
        f"import sys, ctypes\nfrom importlib import util\n{hide}"
        "from fusedstep._backends.choose import why_missing\n"
        "print(why_missing('cuda'), 'numba' in sys.modules)\n"
    )
    shown = python(code).strip()
    assert shown.startswith(reason)
    assert shown.endswith("False")


@needs_numba_cuda
def test_a_compiler_that_cannot_be_loaded_says_why() -> None:
    shown = python(
        "import numpy\ndel numpy.row_stack  # as NumPy 2.5 did\n"
        "from fusedstep._backends.cuda.available import why_no_compiler\n"
        "print(why_no_compiler())\n"
    )
    assert re.match(r"numba-cuda cannot be loaded beside NumPy .*row_stack.*`pip install", shown)


@needs_numba_cuda
def test_a_driver_older_than_the_compiler_is_none() -> None:
    shown = python(
        "from fusedstep._backends.cuda import available\n"
        "from numba.cuda.cudadrv.driver import Driver\n"
        "for version in (11, 8), (99, 0):\n"
        "    Driver.get_version = lambda self: version\n"
        "    print(available._why_too_old())\n"
    )
    old, new = shown.splitlines()
    assert re.match(r"the CUDA driver is of CUDA 11\.8, .*update the driver.*cuda12", old)
    assert new == "None"


def test_the_simulator_needs_numba_alone() -> None:
    shown = python(
        "from importlib import util\n"
        "find = util.find_spec\n"
        "util.find_spec = lambda name: None if name == 'numba_cuda' else find(name)\n"
        "from fusedstep._backends.choose import why_missing\n"
        "print(why_missing('cuda'))\n",
        NUMBA_ENABLE_CUDASIM="1",
    )
    assert shown == "None\n"
