"""Print the digest of what `fusedstep demo` trains, by C on each instruction set, or by NumPy.

    python tests/helpers/demo_digest.py --write digits.npz    on a machine with scikit-learn
    python tests/helpers/demo_digest.py digits.npz            on any other

The digits are read from a file, so that emulated machines need no scikit-learn, and plain NumPy,
which the demo compares with, trains nothing.
"""

from __future__ import annotations

import platform
import sys
from pathlib import Path

import numpy as np

import fusedstep as fs
from fusedstep._backends.choose import why_missing
from fusedstep._backends.isa import isas
from fusedstep._core.digest import digest_of
from fusedstep.program import demo

EPOCHS, SEED = 10, 0  # of the demo without arguments


def digest(digits: demo.Digits, backend: str) -> str:
    """The digest of all that the demo trains, on a backend."""
    found = {}
    for name, lr, optimizer, _, options in demo.CONTESTANTS:
        params = demo.initial(np.random.default_rng(SEED))
        opt = optimizer(params, lr=lr, backend=backend, **options)
        random = np.random.default_rng(SEED)
        for _ in demo.train(params, opt, digits.x, digits.y, EPOCHS, random):
            pass
        found[name] = opt.digest()
    return digest_of(found)


def main(path: Path, write: bool) -> None:
    if write:
        np.savez(path, **demo.read_digits(SEED)._asdict())
        return
    with np.load(path) as file:
        digits = demo.Digits(**file)
    machine = f"{platform.machine()}, NumPy {np.__version__}"
    if why_missing("c"):
        print(digest(digits, "numpy"), "demo on numpy", machine)
        return
    for isa in isas():
        fs.set_isa(isa)
        print(digest(digits, "c"), f"demo on c {isa}", machine, flush=True)


if __name__ == "__main__":
    main(Path(sys.argv[-1]), "--write" in sys.argv)
