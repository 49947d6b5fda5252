"""OpenMP's environment variables, which also say how many threads a step may use."""

from __future__ import annotations

import re
from collections.abc import Mapping

from fusedstep._backends.cpus import Count
from fusedstep._checks.wording import shown

NUMBERS = re.compile(r"\s*\+?[0-9]{1,18}\s*(,\s*\+?[0-9]{1,18}\s*)*")
"""Whole numbers, one for each level of nested teams."""


def threads(environment: Mapping[str, str], cpus: Count) -> tuple[Count, list[str]]:
    """The number of threads by OpenMP's rules, `cpus` by default, and a word on what was ignored.

    OMP_NUM_THREADS names it, by the first number of a list such as "4,2". If OMP_DYNAMIC is true,
    it is no more than there are CPUs. It is never more than OMP_THREAD_LIMIT.
    """
    counts, ignored = {}, []
    for name in ("OMP_NUM_THREADS", "OMP_THREAD_LIMIT"):
        text = environment.get(name, "")
        number = first_number(text)
        if number:
            counts[name] = Count(number, name)
        elif text.strip():
            ignored.append(
                f"{name}={shown(text)} is no whole number from 1 on, and is ignored, as OpenMP "
                f"does; set it to one, as {name}=2, or unset it"
            )
    bounds = [counts.get("OMP_NUM_THREADS", cpus), *counts.values()]
    if environment.get("OMP_DYNAMIC", "").strip().lower() == "true":
        bounds.append(cpus)
    return min(bounds, key=lambda count: count.number), ignored


def first_number(text: str) -> int:
    """The first of the numbers in `text`; 0 if any of them is unfit."""
    numbers = map(int, text.split(",")) if NUMBERS.fullmatch(text) else [0]
    first, *others = numbers
    return first if all([first, *others]) else 0
