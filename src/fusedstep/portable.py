"""Powers, exp, log and cosines with the same bits on every machine.

Schedules and scalars of this package are made by them. Write your own with them, too, and a run
has the same bits everywhere: the functions of `math` are those of its C library, whose last bit
may be another's. All are correctly rounded: the float64 nearest to the exact value.

>>> from fusedstep.portable import correction, cos_pi, exp, log, power
>>> power(0.96, 0.004), exp(-1.0), log(2.0), cos_pi(0.25)
(0.9998367253526753, 0.36787944117144233, 0.6931471805599453, 0.7071067811865476)
"""

from typing import Any

from fusedstep._numerics.portable import cos_pi, exp, log, power
from fusedstep._numerics.powers import correction

__all__ = ["correction", "cos_pi", "exp", "log", "power"]


def __getattr__(name: str) -> Any:
    from fusedstep._names import missing

    raise missing(__name__, name)
