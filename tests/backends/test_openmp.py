"""OpenMP's environment variables as a step follows them."""

from __future__ import annotations

import pytest

from fusedstep._backends.cpus import Count
from fusedstep._backends.openmp import threads

CPUS = Count(6, "CPUs")


@pytest.mark.parametrize(
    ("environment", "number", "origin"),
    [
        ({}, 6, "CPUs"),
        ({"OMP_NUM_THREADS": "1"}, 1, "OMP_NUM_THREADS"),
        ({"OMP_NUM_THREADS": "4,2"}, 4, "OMP_NUM_THREADS"),
        ({"OMP_NUM_THREADS": " +3 , 2,1 "}, 3, "OMP_NUM_THREADS"),
        ({"OMP_NUM_THREADS": "64"}, 64, "OMP_NUM_THREADS"),
        ({"OMP_NUM_THREADS": ""}, 6, "CPUs"),
        ({"OMP_NUM_THREADS": "64", "OMP_THREAD_LIMIT": "5"}, 5, "OMP_THREAD_LIMIT"),
        ({"OMP_THREAD_LIMIT": "2"}, 2, "OMP_THREAD_LIMIT"),
        ({"OMP_THREAD_LIMIT": "9"}, 6, "CPUs"),
        ({"OMP_NUM_THREADS": "64", "OMP_DYNAMIC": " TRUE "}, 6, "CPUs"),
        ({"OMP_NUM_THREADS": "2", "OMP_DYNAMIC": "true"}, 2, "OMP_NUM_THREADS"),
        ({"OMP_NUM_THREADS": "64", "OMP_DYNAMIC": "false"}, 64, "OMP_NUM_THREADS"),
    ],
)
def test_the_number_and_its_origin(environment: dict[str, str], number: int, origin: str) -> None:
    assert threads(environment, CPUS) == (Count(number, origin), [])


@pytest.mark.parametrize(
    "text", ["many", "0", "-1", "4,", ",4", "4,0", "4;2", "2.0", "0x4", "9" * 30, "9" * 9000, "٣"]
)
@pytest.mark.parametrize("name", ["OMP_NUM_THREADS", "OMP_THREAD_LIMIT"])
def test_what_openmp_ignores_is_ignored_aloud(name: str, text: str) -> None:
    found, ignored = threads({name: text}, CPUS)
    assert found == CPUS
    (message,) = ignored
    assert message.startswith(f"{name}='{text}' is no whole number from 1 on, and is ignored")
