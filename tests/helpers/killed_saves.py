"""Saves that are killed at random instants: the file is always one that was saved, and whole.

    python tests/helpers/killed_saves.py --times 1000

A process saves one run after the other over the same file, and is killed by SIGKILL. What it
left must load, be one of the runs, and not be older than what the process had told to be saved.
"""

from __future__ import annotations

import argparse
import os
import random
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np

import fusedstep as fs

SIZE = 30_000
"""Elements of the parameter: a file of three quarters of a million bytes."""

WRITER = f"""
import sys, numpy as np, fusedstep as fs
p = np.zeros({SIZE})
opt = fs.AdamW(p, lr=1.0)
fs.load(sys.argv[1], opt)
while True:
    opt.step(np.ones({SIZE}))
    fs.save(sys.argv[1], opt, metadata=int(opt.state["t"]))
    print(opt.state["t"], flush=True)
"""


def kill(path: Path, random_: random.Random) -> tuple[int, int]:
    """Kill a process that saves: the last run that it told of, and the one in the file."""
    process = subprocess.Popen(
        [sys.executable, "-c", WRITER, str(path)], stdout=subprocess.PIPE, text=True
    )
    assert process.stdout is not None
    told = int(process.stdout.readline())  # from here on it saves all the time
    time.sleep(random_.uniform(0, 0.03))
    process.send_signal(signal.SIGKILL)
    told = int([str(told), *process.stdout.read().split()][-1])
    process.wait()
    return told, load(path)


def load(path: Path) -> int:
    """The number of the run in the file, every element of which is looked at."""
    opt = fs.AdamW(np.zeros(SIZE), lr=1.0)
    t: int = fs.load(path, opt)
    assert opt.state["t"] == t
    return t


def run(times: int, seed: int = 0) -> dict[str, int]:
    """Kill so many processes, and count what became of the file."""
    random_ = random.Random(seed)
    counts = {"killed": 0, "lost": 0, "on the way": 0}
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "run.safetensors"
        fs.save(path, fs.AdamW(np.zeros(SIZE), lr=1.0), metadata=0)
        for _ in range(times):
            told, found = kill(path, random_)
            counts["killed"] += 1
            counts["lost"] += not told <= found <= told + 1
            counts["on the way"] += len(os.listdir(folder)) > 1
    return counts


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--times", type=int, default=100)
    parser.add_argument("--seed", type=int, default=0)
    arguments = parser.parse_args()
    counts = run(arguments.times, arguments.seed)
    print(counts)
    sys.exit(counts["lost"] > 0)


if __name__ == "__main__":
    main()
