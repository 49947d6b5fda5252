"""`fs.info`: the backend that runs, reasons for the missing ones, and the cost of an import."""

from __future__ import annotations

import re
import subprocess
import sys
from importlib.util import find_spec

import numpy as np
import pytest
from cases import DTYPES, RULES
from marks import BACKENDS, MISSING, needs_c

import fusedstep as fs
from fusedstep._backends.plan import MOST_STATES, Job

needs_numba_cuda = pytest.mark.skipif(
    find_spec("numba_cuda") is None, reason="numba_cuda is not installed; `pip install '.[cuda]'`"
)


def python(code: str) -> str:
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_info() -> None:
    info = fs.info()
    assert info.backends == {"c": MISSING, "numba": None, "cuda": BACKENDS["cuda"], "numpy": None}
    assert info.auto == ("numba" if MISSING else "c")
    assert info.threads == fs.get_num_threads()
    shown = [f"backend {name}" for name in ("c", "numba", "numpy")]
    for part in (info.version, info.python, info.numpy, *shown):
        assert part in str(info)


@needs_c
def test_isa_in_force_is_the_widest_and_can_be_chosen(isa: str) -> None:
    assert fs.info().isa == isa
    assert isa in fs.info().isas
    assert f"instruction set {isa}" in str(fs.info())


HIDE = "import sys; sys.modules['fusedstep._engine'] = None\n"
HIDE_BOTH = HIDE + "sys.modules['numba'] = None\n"


def test_a_missing_backend_is_said_loudly() -> None:
    shown = python(HIDE + "import fusedstep as fs; print(fs.info())")
    assert "backend c      MISSING: it was not built" in shown
    assert "backend numba  available (auto)" in shown
    shown = python(HIDE_BOTH + "import fusedstep as fs; print(fs.info())")
    assert "backend numba  MISSING: Numba is not installed; `pip install numba`" in shown
    assert "backend numpy  available (auto)" in shown
    refused = python(
        HIDE
        + "import numpy as np, fusedstep as fs\n"
        + "for use in (lambda: fs.SGD(np.ones(2), backend='c'), fs.get_isa):\n"
        + "    try: use()\n"
        + "    except RuntimeError as error: print(error)\n"
    )
    assert refused.count("backend='c' is not available: it was not built") == 2


def test_missing_backends_warn_once_and_numpy_steps() -> None:
    python(
        HIDE_BOTH
        + "import warnings, numpy as np, fusedstep as fs\n"
        + "with warnings.catch_warnings(record=True) as caught:\n"
        + "    warnings.simplefilter('always')\n"
        + "    p, q = np.ones(3), np.ones(3)\n"
        + "    fs.SGD(p, lr=1.0).step(np.ones(3))\n"
        + "    fs.functional.sgd(q, np.ones(3), t=1, lr=1.0)\n"
        + "    fs.SGD(p, lr=1.0, backend='numpy')\n"
        + "assert (p == 0).all() and (q == 0).all()\n"
        + "assert [w.category for w in caught] == [RuntimeWarning], caught\n"
        + "assert caught[0].filename == '<string>'\n"
    )


def test_a_broken_extension_says_why() -> None:
    shown = python(
        "import sys, types, importlib.abc, importlib.machinery\n"
        "class Broken(importlib.abc.MetaPathFinder, importlib.abc.Loader):\n"
        "    def find_spec(self, name, path, target=None):\n"
        "        if name == 'fusedstep._engine':\n"
        "            return importlib.machinery.ModuleSpec(name, self)\n"
        "    def exec_module(self, module): raise ImportError('undefined symbol: x')\n"
        "sys.meta_path.insert(0, Broken())\n"
        "import fusedstep as fs; print(fs.info())"
    )
    assert "MISSING: it is installed but cannot be loaded: undefined symbol: x" in shown


def test_without_numba_custom_rules_run_on_numpy() -> None:
    shown = python(
        "import sys; sys.modules['numba'] = None\n"
        "import warnings, numpy as np, fusedstep as fs\n"
        "print(fs.info().backends['numba'])\n"
        "p = np.ones(3)\n"
        "with warnings.catch_warnings(record=True) as caught:\n"
        "    warnings.simplefilter('always')\n"
        "    fs.rules.Lion(p, lr=1.0).step(np.ones(3))\n"
        "print((p == 0).all(), *(w.category.__name__ for w in caught))\n"
    )
    assert shown.splitlines() == [
        "Numba is not installed; `pip install numba`",
        "True RuntimeWarning",
    ]


def test_numba_that_may_not_compile_counts_as_missing() -> None:
    shown = python(
        "import os; os.environ['NUMBA_DISABLE_JIT'] = '1'\n"
        "import fusedstep as fs; print(fs.info().backends['numba'])"
    )
    assert "NUMBA_DISABLE_JIT is set, so Numba compiles nothing; unset it" in shown


def test_import_loads_nothing_heavy() -> None:
    loaded = set(python("import sys, fusedstep; print(*sys.modules)").split())
    assert "fusedstep" in loaded
    assert not loaded & {"numba", "_cffi_backend", "rich", "matplotlib", "torch", "sklearn"}


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


def test_backends_by_name() -> None:
    for backend in ("auto", "c", "numba", "numpy"):
        if backend == "c" and MISSING:
            continue
        p = np.ones(3)
        fs.SGD(p, lr=1.0, backend=backend).step(np.ones(3))
        assert (p == 0).all()


@needs_c
def test_scalars_are_the_members_of_the_c_struct() -> None:
    """Their unset values are passed by position, so the order must be the same."""
    from fusedstep._engine import ffi

    from fusedstep._numerics.coefficients import Scalars

    members = tuple(name for name, _ in ffi.typeof("fs_scalars").fields)
    assert members == Scalars._fields


@needs_c
def test_every_kernel_of_the_reference_is_in_the_table(isa: str) -> None:
    from fusedstep._engine import ffi, lib

    from fusedstep._backends.c.engine import present

    for dtype in DTYPES:
        jobs = [Job(rule, np.dtype(dtype)) for rule in RULES]
        expected = {(job.rule.name, present(job), job.rule.inside) for job in jobs}
        found = {
            (name, has, inside)
            for name in {rule.name for rule in RULES}
            for has in range(2**MOST_STATES)
            for inside in (False, True)
            if lib.fs_find_kernel(name.encode(), np.dtype(dtype).name.encode(), has, inside)
            != ffi.NULL
        }
        assert found == expected


def test_set_isa_needs_a_name_that_is_there() -> None:
    with pytest.raises((ValueError, RuntimeError)):
        fs.set_isa("mmx")
