"""NVIDIA's own assembler, which says whether a text is PTX. It needs no device."""

from __future__ import annotations

from fusedstep._backends.cuda import available


def refusal(ptx: str) -> str | None:
    """The assembler's objections to a text; None: it has none, or there is no assembler here."""
    if available.why_no_compiler() is not None or available.simulated():
        return None
    from cuda.core import Linker, LinkerOptions, ObjectCode

    try:
        code = ObjectCode.from_ptx(ptx.encode())
        Linker(code, options=LinkerOptions(arch="sm_90")).link("cubin")
    except Exception as error:  # of several classes, by the versions of what is called
        return str(error)
    return None
