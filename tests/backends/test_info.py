"""`fs.info`: the backend that runs, reasons for the missing ones, and the cost of an import."""

from __future__ import annotations

import numpy as np
import pytest
from marks import BACKENDS, MISSING
from processes import python

import fusedstep as fs


def test_info() -> None:
    info = fs.info()
    assert info.backends == {"c": MISSING, "numba": None, "cuda": BACKENDS["cuda"], "numpy": None}
    assert info.auto == ("numba" if MISSING else "c")
    assert info.threads == fs.get_num_threads()
    shown = [f"backend {name}" for name in ("c", "numba", "numpy")]
    for part in (info.version, info.python, info.numpy, *shown):
        assert part in str(info)


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


@pytest.mark.parametrize(
    ("python_is", "reason"),
    [
        ("sys.abiflags = 't'", "is a free-threaded build"),
        ("sys.byteorder = 'big'", "is big-endian"),
    ],
)
def test_where_c_cannot_be_built_the_reason_is_said(python_is: str, reason: str) -> None:
    imported = "import sys, numpy, numba; "
    shown = python(f"{imported}{python_is}\n{HIDE}import fusedstep as fs; print(fs.info())")
    assert "backend c      MISSING: it was not built" in shown
    assert reason in shown
    assert "backend numba  available (auto)" in shown


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


def test_backends_by_name() -> None:
    for backend in ("auto", "c", "numba", "numpy"):
        if backend == "c" and MISSING:
            continue
        p = np.ones(3)
        fs.SGD(p, lr=1.0, backend=backend).step(np.ones(3))
        assert (p == 0).all()
