"""fusedstep as threadpoolctl finds and limits it."""

from __future__ import annotations

from collections.abc import Iterator
from importlib.util import find_spec
from typing import Any

import numpy as np
import pytest
from marks import MISSING, needs, needs_c
from processes import python

import fusedstep as fs


@pytest.fixture
def threadpoolctl() -> Any:
    return needs("threadpoolctl", "demo")


@pytest.fixture
def four_threads() -> Iterator[None]:
    before = fs.get_num_threads()
    fs.set_num_threads(4)
    yield
    fs.set_num_threads(before)


pytestmark = pytest.mark.usefixtures("four_threads")


def test_it_is_listed(threadpoolctl: Any) -> None:
    (found,) = [one for one in threadpoolctl.threadpool_info() if one["prefix"] == "fusedstep"]
    spec = find_spec("fusedstep" if MISSING else "fusedstep._engine")
    assert spec is not None
    assert found == {
        "user_api": "openmp",
        "internal_api": "fusedstep",
        "num_threads": 4,
        "prefix": "fusedstep",
        "filepath": spec.origin,
        "version": fs.info().version,
    }


def test_a_limit_holds_within_and_is_taken_back(threadpoolctl: Any) -> None:
    with threadpoolctl.threadpool_limits(1):
        assert fs.get_num_threads() == 1
        assert fs.info().threads_from == "a limit of threadpoolctl"
        with threadpoolctl.threadpool_limits(3):
            assert fs.get_num_threads() == 3
            fs.set_num_threads(2)
            assert (fs.get_num_threads(), fs.info().threads_from) == (2, "set_num_threads")
        assert fs.get_num_threads() == 1
    assert fs.get_num_threads() == 4


@pytest.mark.parametrize(
    ("limits", "number"),
    [
        ({"limits": 1, "user_api": "openmp"}, 1),
        ({"limits": 1, "user_api": "blas"}, 4),
        ({"limits": "sequential_blas_under_openmp"}, 4),
        ({"limits": {"openmp": 2, "blas": 1}}, 2),
        ({"limits": {"fusedstep": 3}}, 3),
        ({"limits": {"libgomp": 1}}, 4),
        ({"limits": None}, 4),
        ({"limits": 0}, 1),
        ({"limits": 10_000}, 1024),
    ],
)
def test_which_limits_reach_it(limits: Any, number: int, threadpoolctl: Any) -> None:
    with threadpoolctl.threadpool_limits(**limits):
        assert fs.get_num_threads() == number
    assert fs.get_num_threads() == 4


def test_limits_that_were_listed_are_set_again(threadpoolctl: Any) -> None:
    kept = threadpoolctl.threadpool_info()
    fs.set_num_threads(2)
    with threadpoolctl.threadpool_limits(kept):
        assert fs.get_num_threads() == 4
    assert fs.get_num_threads() == 2


@needs_c
def test_a_step_within_a_limit_is_the_caller_s_alone(threadpoolctl: Any) -> None:
    from fusedstep._backends.c import runner

    p, g = np.zeros(300_000, np.float32), np.ones(300_000, np.float32)
    optimizer = fs.SGD(p)
    optimizer.step(g)
    assert runner.team() in ("pool", "openmp")
    with threadpoolctl.threadpool_limits(1):
        for _ in range(20):
            optimizer.step(g)
            assert runner.team() == "caller"


FIRST = ["import threadpoolctl, fusedstep as fs", "import fusedstep as fs, threadpoolctl"]
WITHOUT_C = "import sys; sys.modules['fusedstep._engine'] = None\n"


@pytest.mark.usefixtures("threadpoolctl")
@pytest.mark.parametrize("without", ["", WITHOUT_C], ids=["", "without C"])
@pytest.mark.parametrize("imports", FIRST)
def test_either_may_be_imported_first(imports: str, without: str) -> None:
    """And the first optimizer, which loads the C backend, may be made within a limit."""
    said = python(
        f"{without}{imports}\n"
        "import numpy as np\n"
        "with threadpoolctl.threadpool_limits(1):\n"
        "    fs.SGD(np.ones(3)).step(np.ones(3))\n"
        "    print(fs.get_num_threads(), fs.info().threads_from)\n"
        "print(fs.get_num_threads(), fs.info().threads_from)\n",
        FUSEDSTEP_NUM_THREADS="3",
    )
    assert said == "1 a limit of threadpoolctl\n3 FUSEDSTEP_NUM_THREADS\n"


@pytest.mark.parametrize("fake", ["None", "__import__('types').ModuleType('threadpoolctl')"])
def test_a_missing_or_old_threadpoolctl_is_no_matter(fake: str) -> None:
    code = f"import sys; sys.modules['threadpoolctl'] = {fake}\nimport fusedstep as fs\n"
    assert python(f"{code}print(fs.get_num_threads())", OMP_NUM_THREADS="3") == "3\n"
