"""Times of checkpoints beside safetensors' own functions and torch's.

    python bench/checkpoints.py [saves] [loads] [--seconds S] [--folder FOLDER]

Contestants take turns (`fusedstep.benchmarks.turns`); a figure is the median of the turns, in
milliseconds. All write the same arrays, those of AdamW: parameters, m and v. `fs.save` also makes a
digest and a seal, two SHA-256 of all bytes, and forces file and folder to the disk; "synced" does
the latter, too. `save_file` and `torch.save` empty the old file first.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from functools import partial
from hashlib import sha256
from pathlib import Path
from statistics import median
from tempfile import TemporaryDirectory
from typing import Any, TypeAlias

import numpy as np
import torch
from safetensors.numpy import load_file, save_file
from topics import described, head, headed, parsed, parser_of

import fusedstep as fs
from fusedstep.benchmarks.contestants.contestant import Entry
from fusedstep.benchmarks.turns import take_turns

Figures: TypeAlias = Iterator[tuple[str, dict[str, Callable[[], object]]]]

SIZES = (100_000, 1_000_000, 10_000_000)
"""Elements of the parameters; files have twelve bytes for each."""


def trained(n: int) -> tuple[Any, dict[str, Any]]:
    """An optimizer that has stepped, and the arrays that its checkpoint has."""
    rng = np.random.default_rng(n)
    params = {str(k): rng.standard_normal(n // 10, np.float32) for k in range(10)}
    opt = fs.AdamW(params)
    opt.step({name: rng.standard_normal(p.size, np.float32) for name, p in params.items()})
    moments = {f"{letter}.{k}": opt.state[k][letter] for k in params for letter in "mv"}
    return opt, {**{f"params.{k}": p for k, p in params.items()}, **moments}


def synced(path: Path, arrays: dict[str, Any]) -> None:
    """Write by `save_file`, and force file and folder to the disk."""
    save_file(arrays, path)
    for each in (path, path.parent):
        number = os.open(each, os.O_RDONLY)
        os.fsync(number)
        os.close(number)


def hashed(arrays: dict[str, Any]) -> None:
    """Two SHA-256 of the arrays, the least that a digest and a seal cost."""
    for make in (sha256, sha256):
        made = make()
        for each in arrays.values():
            made.update(each.data)
        made.digest()


def saves(folder: Path) -> Figures:
    """Saves over a file that is there."""
    for n in SIZES:
        opt, arrays = trained(n)
        tensors = {name: torch.from_numpy(array) for name, array in arrays.items()}
        yield (
            f"{n:,} elements",
            {
                "fs.save": partial(fs.save, folder / "ours", opt),
                "save_file": partial(save_file, arrays, folder / "theirs"),
                "save_file, synced": partial(synced, folder / "synced", arrays),
                "torch.save": partial(torch.save, tensors, folder / "torch"),
                "two SHA-256": partial(hashed, arrays),
            },
        )


def loads(folder: Path) -> Figures:
    """Loads of a file that the system has in memory."""
    for n in SIZES:
        opt, arrays = trained(n)
        fs.save(folder / "ours", opt)
        save_file(arrays, folder / "theirs")
        torch.save({k: torch.from_numpy(array) for k, array in arrays.items()}, folder / "torch")
        yield (
            f"{n:,} elements",
            {
                "fs.load": partial(fs.load, folder / "ours", opt),
                "load_file": partial(load_file, folder / "theirs"),
                "torch.load": partial(torch.load, folder / "torch"),
                "two SHA-256": partial(hashed, arrays),
            },
        )


TOPICS = {each.__name__: each for each in (saves, loads)}


def main() -> None:
    parser = parser_of(__doc__, TOPICS)
    parser.add_argument("--seconds", type=float, default=20, help="of the turns of each line")
    parser.add_argument("--folder", type=Path, help="where files are written")
    options = parsed(parser, TOPICS)
    described(("safetensors", "torch"))
    for topic in headed(options.what, TOPICS):
        names: list[str] = []
        with TemporaryDirectory(dir=options.folder) as folder:
            for case, calls in topic(Path(folder)):
                if not names:
                    names = [*calls]
                    head("ms", names)
                entries = {name: Entry(call, list, 1) for name, call in calls.items()}
                timed = take_turns(entries, options.seconds)
                figures = [median(timed[name].turns) * 1e3 for name in names]
                print(f"| {case} | {' | '.join(f'{each:.1f}' for each in figures)} |", flush=True)


if __name__ == "__main__":
    main()
