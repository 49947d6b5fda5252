"""The time of the first step of a process: Numba compiles it once, and later loads it from disk.

    python bench/first_step.py

Each row is for three new processes that share a cache, which is empty for the first.
"""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile

STEP = """
from time import perf_counter
import numpy as np, fusedstep as fs
p = np.ones(1000, np.float32)
start = perf_counter()
optimizer = {optimizer}(p, backend={backend!r})
optimizer.step(p.copy())
first = perf_counter()
optimizer.step(p.copy())
print(first - start, perf_counter() - first)
"""

ROWS = [("c", "fs.AdamW"), ("numba", "fs.AdamW"), ("numba", "fs.rules.Lion"), ("numpy", "fs.AdamW")]


def main() -> None:
    print("seconds from making an optimizer to the end of its first step, and milliseconds of")
    print("the second, in three processes one after the other")
    for backend, optimizer in ROWS:
        with tempfile.TemporaryDirectory() as folder:
            environment = {**os.environ, "XDG_CACHE_HOME": folder, "NUMBA_CACHE_DIR": folder}
            code = STEP.format(optimizer=optimizer, backend=backend)
            times = []
            for _ in range(3):
                done = subprocess.run(
                    [sys.executable, "-c", code],
                    capture_output=True,
                    text=True,
                    check=True,
                    env=environment,
                )
                times.append([float(word) for word in done.stdout.split()])
        shown = "   ".join(f"{first:6.3f} ({1e3 * second:6.3f})" for first, second in times)
        print(f"{backend:<6} {optimizer:<14} {shown}")


if __name__ == "__main__":
    main()
