"""The rounding direction that the numerics contract asks for: to nearest."""

from __future__ import annotations

ONE, TINY = 1.0, 2.0**-60


def check_rounding() -> None:
    """Refuse to step where arithmetic is set to round otherwise.

    A step's scalars are computed in Python, so it would be too late to set it right in a kernel.
    """
    if ONE + TINY != ONE - TINY:
        raise RuntimeError(
            "this thread's arithmetic does not round to nearest, which every result of a step is "
            "defined by; call fesetround(FE_TONEAREST) before the step, and go back after it"
        )
