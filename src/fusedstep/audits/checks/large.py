"""Large tensors: more elements than a 32-bit integer counts."""

from __future__ import annotations

from collections.abc import Iterator

from fusedstep.audits.checks.check import Checks, Trial
from fusedstep.audits.formulas import trajectory
from fusedstep.audits.subject import NotJudgedError, Subject

CHECKS = Checks()

ELEMENTS = 2**31 + 8

COPIES = {"sgd": 5, "rmsprop": 6, "adagrad": 6}
"""Arrays of this size that a step may hold, temporaries counted; others: 8."""

PROGRAM = """
p = torch.nn.Parameter(torch.zeros(2**31 + 8))
p.grad = torch.ones(2**31 + 8)
optimizer([p]).step()
seen = p.detach()[[0, 2**31 - 1, 2**31, -1]].double().numpy()
"""


def available() -> float:
    """Bytes of memory that are free; 0 where the system does not say."""
    try:
        with open("/proc/meminfo") as file:
            sizes = dict(line.split(":") for line in file)
        return float(sizes["MemAvailable"].split()[0]) * 1024
    except (OSError, KeyError, ValueError):
        return 0.0


@CHECKS.add("memory", "2,147,483,656 elements", "every element of more than 2^31 takes a step")
def beyond_int32(subject: Subject) -> Iterator[Trial]:
    import numpy as np

    if subject.framework != "torch":
        raise NotJudgedError("this check is for torch's tensors")
    rule, options = subject.formula()
    needed = COPIES.get(rule.__name__, 8) * 4 * ELEMENTS
    if needed > available():
        free = available()
        raise NotJudgedError(
            f"it needs {needed / 1e9:.0f} GB of memory, and {free / 1e9:.0f} are free"
        )
    one = np.ones(4)
    expected = trajectory(rule, 0 * one, [one], **options).p
    yield Trial(subject.program([], PROGRAM), expected, 1e-3 * np.abs(expected))
