"""The build of the C backend: its sources, its flags, and the declarations that Python sees."""

import os
import re
import sys
from pathlib import Path

import cffi
import numpy

HERE = Path(__file__).parent

# The numerics contract forbids contraction and fast-math. It allows the compiler to vectorise
# square roots and divisions, because nothing reads errno or traps. These come after the flags of
# the environment, and -fno-fast-math takes back all that -ffast-math is made of.
FLAGS = [
    "-O3",
    "-std=gnu11",
    "-fno-fast-math",
    "-fno-single-precision-constant",
    "-Wno-ignored-optimization-argument",  # Clang, which never makes constants float32, says so
    "-ffp-contract=off",
    "-fno-math-errno",
    "-fno-trapping-math",
    "-fvisibility=hidden",
    "-Wno-unknown-pragmas",
    "-g0",  # Python's own flags ask for debugging information, which would be most of a wheel
]

# A compiler that links with -Ofast, -ffast-math or -funsafe-math-optimizations, and CFLAGS are
# the linker's too, adds a start file that flushes subnormals in the whole process from the import
# on. The last flag of each kind decides.
LINK_FLAGS = ["-O3", "-fno-fast-math", "-fno-unsafe-math-optimizations"]
if sys.platform != "darwin":  # its linker has neither of the two, and protects by itself
    LINK_FLAGS += ["-Wl,-z,relro", "-Wl,-z,now"]  # addresses of functions cannot be overwritten


def declarations() -> str:
    """api.h as cffi can read it: includes pasted in, `real` made double, no directives."""
    text = (HERE / "api.h").read_text()
    text = re.sub(r'#include "(.+)"', lambda match: (HERE / match[1]).read_text(), text)
    text = re.sub(r"\breal\b(?= \w+;)", "double", text)
    text = re.sub(r"^IN_PYTHON\b", 'extern "Python+C"', text, flags=re.MULTILINE)
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
    extra_link_args=LINK_FLAGS,
    # Without a compiler the package installs all the same, and fusedstep.info() says so. The
    # build of a wheel sets the variable, so that no wheel goes out without the extension.
    optional="FUSEDSTEP_REQUIRE_C" not in os.environ,
)
