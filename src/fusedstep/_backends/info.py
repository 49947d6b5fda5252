"""What `fusedstep.info()` knows of the backends and of this machine."""

from __future__ import annotations

import platform
from typing import NamedTuple

import numpy as np

from fusedstep._backends.choose import ENGINES, PREFERENCE, why_missing
from fusedstep._backends.isa import get_isa, isas
from fusedstep._backends.threads import get_num_threads


class Info(NamedTuple):
    """What `fusedstep.info()` knows; `print` shows it.

    version, python, numpy
        The versions of this package, of Python and of NumPy.
    machine
        The system and the CPU's architecture.
    backends
        Each engine, and why it is missing; None where it is there.
    auto
        The engine that `backend="auto"` takes for arrays on the CPU.
    isa, isas
        The instruction set of the C engine in force, and all that run here; None and []
        without that engine.
    threads
        The most that a step uses.
    """

    version: str
    python: str
    numpy: str
    machine: str
    backends: dict[str, str | None]
    auto: str
    isa: str | None
    isas: list[str]
    threads: int

    def __str__(self) -> str:
        lines = [
            f"fusedstep {self.version}, Python {self.python}, NumPy {self.numpy}, {self.machine}"
        ]
        for name, reason in self.backends.items():
            if reason is None:
                chosen = " (auto)" if name == self.auto else ""
                lines.append(f"engine {name:<6} available{chosen}")
            else:
                lines.append(f"engine {name:<6} MISSING: {reason}")
        if self.isa is not None:
            lines.append(f"instruction set {self.isa}, of {', '.join(self.isas)}")
        lines.append(f"threads {self.threads}")
        return "\n".join(lines)


def info() -> Info:
    """The engines that are there, why others are not, the instruction set and the threads.

    >>> import fusedstep as fs
    >>> fs.info().backends["numpy"] is None
    True
    """
    from importlib.metadata import version

    backends = {name: why_missing(name) for name in ENGINES}
    has_c = backends["c"] is None
    return Info(
        version=version("fusedstep"),
        python=platform.python_version(),
        numpy=np.__version__,
        machine=f"{platform.system()} {platform.machine()}",
        backends=backends,
        auto=next(name for name in PREFERENCE if backends[name] is None),
        isa=get_isa() if has_c else None,
        isas=isas() if has_c else [],
        threads=get_num_threads(),
    )
