"""Information on the backends and on this machine: `fusedstep.info()`."""

from __future__ import annotations

import platform
from typing import NamedTuple

import numpy as np

from fusedstep._backends.choose import BACKENDS, PREFERENCE, why_missing
from fusedstep._backends.isa import get_isa, isas
from fusedstep._backends.threads import get_num_threads, origin


class Info(NamedTuple):
    """The result of `fusedstep.info()`; `print` shows it.

    version, python, numpy
        The versions of this package, of Python and of NumPy.
    machine
        The system and the CPU's architecture.
    backends
        Each backend, and why it is missing; None if it is available.
    auto
        The backend that `backend="auto"` takes for arrays on the CPU.
    isa, isas
        The instruction set that the C backend uses, and all that run here; None and []
        without that backend.
    threads
        The most threads that a step uses.
    threads_from
        Where that number comes from: `"OMP_NUM_THREADS"`, `"the CPUs of this process"` and so on,
        see `fusedstep.get_num_threads`.
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
    threads_from: str

    def __str__(self) -> str:
        lines = [
            f"fusedstep {self.version}, Python {self.python}, NumPy {self.numpy}, {self.machine}"
        ]
        for name, reason in self.backends.items():
            if reason is None:
                chosen = " (auto)" if name == self.auto else ""
                lines.append(f"backend {name:<6} available{chosen}")
            else:
                lines.append(f"backend {name:<6} MISSING: {reason}")
        if self.isa is not None:
            lines.append(f"instruction set {self.isa}, of {', '.join(self.isas)}")
        lines.append(f"threads {self.threads}, from {self.threads_from}")
        return "\n".join(lines)


def info() -> Info:
    """The backends that are available, why others are not, the instruction set and the threads.

    >>> import fusedstep as fs
    >>> fs.info().backends["numpy"] is None
    True
    """
    from importlib.metadata import version

    backends = {name: why_missing(name) for name in BACKENDS}
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
        threads_from=origin(),
    )
