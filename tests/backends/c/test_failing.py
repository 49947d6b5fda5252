"""Memory and threads refused at every call of a step: it is done, or an error and nothing else."""

from __future__ import annotations

import subprocess
import sys
from collections import Counter
from collections.abc import Iterator

import failing
import pytest
from elf import imported
from processes import ROOT

WHY_NOT = failing.why_not()

pytestmark = pytest.mark.skipif(WHY_NOT is not None, reason=f"nothing can be refused: {WHY_NOT}")

CANNOT_FAIL = {
    "of what is in memory": "PyDict_Next PyErr_ExceptionMatches PyErr_Occurred PyList_GetItem "
    "PyList_Size PySys_GetObject PyType_GetFlags",
    "of an array on a device, at which Python looks if one of them fails": "PyDict_GetItem "
    "PyLong_AsLong PyLong_AsSsize_t PyTuple_GetItem PyTuple_Size "
    "PyUnicode_AsUTF8AndSize PyUnicode_InternFromString PyWeakref_GetObject PyWeakref_NewRef",
    "sets or clears what is there": "PyErr_Clear PyErr_SetInterrupt PyObject_Free _Py_Dealloc",
    "of a thread that Python knows": "PyEval_RestoreThread PyEval_SaveThread PyGILState_Ensure "
    "PyGILState_Release",
    "objects, not functions": "PyDict_Type PyExc_KeyboardInterrupt PyLong_Type PyTuple_Type "
    "PyUnicode_Type _Py_FalseStruct _Py_NoneStruct _Py_TrueStruct",
    "of cffi, at the import or from arguments of the right type": "PyArg_UnpackTuple "
    "PyFloat_AsDouble PyImport_ImportModule PyLong_FromVoidPtr PyObject_CallMethod "
    "PyObject_Malloc",
    "of the C library, without memory": "ldexp memcmp memcpy memset pow sqrt sqrtf strcmp "
    "sigdelset sigfillset",
    "with arguments that POSIX says are right": "pthread_detach pthread_self pthread_sigmask "
    "sched_yield",
    "while the library is loaded": "__cxa_finalize __gmon_start__ __register_atfork "
    "__stack_chk_fail __tls_get_addr _ITM_deregisterTMCloneTable _ITM_registerTMCloneTable",
}
"""The functions that the extension imports, and that have nothing to fail for."""


def test_every_function_that_may_fail_is_made_to() -> None:
    from fusedstep import _engine

    names = imported(str(_engine.__file__))
    assert names - refusable() == {
        name for known in CANNOT_FAIL.values() for name in known.split() if name in names
    }
    assert refusable() <= names


def refusable() -> set[str]:
    """The functions that failing.c takes the place of."""
    text = failing.SOURCE.read_text("utf-8")
    return {line.strip()[4:-2] for line in text.splitlines() if line.strip().startswith("OWN(")}


def found_by(*arguments: str) -> Iterator[failing.Found]:
    """The findings of a process of its own, whose memory the other tests' is not."""
    command = [sys.executable, ROOT / "tests" / "helpers" / "failing.py", "--lines", *arguments]
    done = subprocess.run(list(map(str, command)), capture_output=True, text=True, timeout=600)
    assert done.returncode in (0, 1), done.stderr
    for line in done.stdout.splitlines():
        kind, call, refused, outcome, whole = line.split("\t")
        yield failing.Found(kind, int(call), refused, outcome, whole == "True")


def assert_whole(found: list[failing.Found]) -> None:
    assert [each for each in found if not each.whole] == []
    for each in found:
        assert each.outcome.startswith(OUTCOMES), each


OUTCOMES = (
    *("done", "MemoryError"),
    "RuntimeError: can't ",  # "allocate lock", or "start new thread", of Python's
    "SystemError",  # Python's name for a result of NumPy's beside a MemoryError
    "TypeError: A loop/promoter",  # of NumPy, which could not look it up
    "crash in libpython",  # of NumPy or Python, from a NULL that they did not look at
    "crash in python",
    "crash in _multiarray",
)
"""The ends of a step of which a call was refused."""


def test_a_refused_call_leaves_a_step_whole() -> None:
    found = [*found_by("--most", "40")]
    assert_whole(found)
    kinds = Counter(each.kind for each in found)
    assert kinds.keys() == {kind.__name__ for kind in failing.KINDS}
    assert kinds.total() > 300


def test_a_thread_that_is_refused_costs_nothing() -> None:
    """The step goes on alone, and no error tells of it."""
    found = [*found_by("Threads")]
    assert_whole(found)
    threads = [each.outcome for each in found if each.refused == "pthread_create"]
    assert threads == ["done", "done"]


@pytest.mark.slow
def test_each_call_of_each_kind_of_step_is_refused() -> None:
    found = [*found_by()]
    assert_whole(found)
    assert len(found) > 4000
