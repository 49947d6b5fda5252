"""The build of the C engine: which sources, which flags, and what Python sees of it."""

import os
import re
from pathlib import Path

import cffi
import numpy

HERE = Path(__file__).parent

# What the numerics contract needs (no contraction), and what it allows: square
# roots and divisions may be vectorised because nobody reads errno or traps.
FLAGS = [
    "-O3",
    "-std=gnu11",
    "-fno-fast-math",
    "-ffp-contract=off",
    "-fno-math-errno",
    "-fno-trapping-math",
    "-fvisibility=hidden",
    "-Wno-unknown-pragmas",
    "-g0",  # Python's own flags ask for debugging information, most of a wheel otherwise
]


def declarations() -> str:
    """api.h as cffi can read it: includes pasted in, `real` made double, no directives."""
    text = (HERE / "api.h").read_text()
    text = re.sub(r'#include "(.+)"', lambda match: (HERE / match[1]).read_text(), text)
    text = re.sub(r"\breal\b(?= \w+;)", "double", text)
    return re.sub(r"^#.*$", "", text, flags=re.MULTILINE)


ffi = cffi.FFI()
ffi.cdef(declarations())
ffi.set_source(
    "fusedstep._engine",
    '#include "api.h"',
    sources=[f"csrc/{path.name}" for path in sorted(HERE.glob("*.c"))],
    depends=["csrc/ffi_build.py", *(f"csrc/{path.name}" for path in sorted(HERE.glob("*.[hi]*")))],
    include_dirs=["csrc", numpy.get_include()],
    libraries=["m", "dl", "pthread"],
    extra_compile_args=FLAGS,
    # Without a compiler the package installs all the same, and fusedstep.info()
    # says so; whoever builds wheels sets this, so that none goes out without it.
    optional="FUSEDSTEP_REQUIRE_C" not in os.environ,
)
