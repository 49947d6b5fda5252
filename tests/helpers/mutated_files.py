"""Checkpoints with random damage: each loads wholly, or is refused and changes nothing.

    python tests/helpers/mutated_files.py --files 1000000
    python tests/helpers/mutated_files.py --files 1000 --seed 7

Every other file is sealed again after the damage, as if somebody had forged it, so that what comes
after the seal meets it, too. The damage: bits flipped, bytes replaced, parts cut out, doubled or
swapped, numbers and words of the header exchanged, the end cut off.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import sys
import tempfile
import warnings
from collections import Counter
from hashlib import sha256
from typing import Any

import numpy as np

import fusedstep as fs

WORDS = [
    *(b"null", b"true", b"0", b"-1", b"1e999", b"[]", b"{}", b'""', b"9" * 30, b"[[[[[[]]]]]]"),
    *(b'"0x1p+2000"', rb"\"nan\"", rb"\"-inf\"", rb"\"0x1p-3\"", b"\xff\xfe", b"0.5", b'"w"'),
    *(b"F32", b"F64", b"BF16", b"I64", b"BOOL", b"U8", b"params.w", b"state.b.m", b"18446744073"),
]
"""Words that those of a header are exchanged for."""


def make() -> Any:
    """An optimizer whose checkpoint has some of everything."""
    groups = [
        {"params": {"w": np.zeros((3, 2), np.float32), "b": np.zeros(2)}, "lr": 0.5},
        {"params": [np.zeros((4, 2), np.float32)], "lr": fs.schedules.cosine(0.1, steps=9)},
    ]
    return fs.AdamW(groups, amsgrad=True, ema=0.5)


def stepped() -> Any:
    opt = make()
    rows = fs.Rows([1, 2], np.ones((2, 2), np.float32))
    for _ in range(2):
        opt.step([{"w": np.ones((3, 2), np.float32), "b": np.ones(2)}, [rows]])
    return opt


def sealed(content: bytes) -> bytes:
    """The content with the seal that it should have, where its header still has one."""
    length = int.from_bytes(content[:8], "little")
    header, data = content[8 : 8 + length], content[8 + length :]
    try:
        seal = json.loads(header)["__metadata__"]["seal"].encode()
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError):
        return content
    if len(seal) != 64:
        return content
    true = sha256(header.replace(seal, b"0" * 64) + data).hexdigest().encode()
    return content[:8] + header.replace(seal, true) + data


def damaged(content: bytes, chance: random.Random) -> bytes:
    """The content with some damage."""
    made = bytearray(content)
    header = 8 + int.from_bytes(content[:8], "little")
    for _ in range(chance.choice([1, 1, 1, 2, 5])):
        where = len(made) if chance.random() < 0.3 else min(header, len(made))
        at = chance.randrange(max(where, 1))
        to = min(at + chance.choice([1, 2, 8, 60]), len(made))
        match chance.randrange(7):
            case 0:
                made[at : at + 1] = bytes(
                    each ^ 1 << chance.randrange(8) for each in made[at : at + 1]
                )
            case 1:
                made[at:to] = chance.randbytes(max(to - at, 0))
            case 2:
                del made[at:to]
            case 3:
                made[at:at] = made[at:to]
            case 4:
                made[at:to] = b" " * (to - at)
            case 5:
                _exchange(made, at, chance)
            case 6 if chance.random() < 0.1:
                del made[at:]
    if chance.random() < 0.7:  # a length that fits again, or else little but the length is read
        end = bytes(made).rfind(b"}}") + 2
        made[:8] = max(end - 8, 0).to_bytes(8, "little")
    return bytes(made)


def _exchange(made: bytearray, at: int, chance: random.Random) -> None:
    """Exchange the word or number that begins at a place, or after it."""
    separators = b':,"[]{}\\'
    while at < len(made) and made[at] in separators:
        at += 1
    begin = at
    while begin > 8 and made[begin - 1] not in separators:
        begin -= 1
    while at < len(made) and made[at] not in separators and at - begin < 80:
        at += 1
    made[begin:at] = chance.choice(WORDS)


REFUSALS = (ValueError, TypeError, KeyError)


def load(path: str, content: bytes, opt: Any, before: Any) -> str:
    """Load a file of this content: "loaded" or "refused"; what was changed in part is an error."""
    with open(path, "wb") as file:
        file.write(content)
    try:
        fs.load(path, opt)
    except REFUSALS:
        assert state_of(opt) == before, "a file was refused, and has changed something"
        return "refused"
    return "loaded"


def state_of(opt: Any) -> Any:
    return opt.digest(), [{**group, "params": None} for group in opt.param_groups]


def run(files: int, seed: int) -> Counter[str]:
    """Load so many damaged files, and count what became of them."""
    counts: Counter[str] = Counter()
    chance = random.Random(seed)
    place = "/dev/shm" if os.path.isdir("/dev/shm") else None
    with tempfile.TemporaryDirectory(dir=place) as folder, warnings.catch_warnings():
        warnings.simplefilter("error")
        path = f"{folder}/run.safetensors"
        whole = stepped()
        fs.save(path, whole, metadata={"note": ["hello", 1.5, None]})
        with open(path, "rb") as file:
            content = file.read()
        expected = state_of(whole)
        opt = make()
        before = state_of(opt)
        for k in range(files):
            made = damaged(content, chance)
            forged = k % 2 == 1
            if forged:
                made = sealed(made)
            try:
                found = load(path, made, opt, before)
            except BaseException:
                with open("damaged.safetensors", "wb") as file:
                    file.write(made)
                print(f"file {k} of seed {seed}: kept as damaged.safetensors", file=sys.stderr)
                raise
            if found == "loaded":  # with the numbers of the digest, whatever else was changed
                assert opt.digest() == expected[0]
                assert forged or made == content
                opt = make()
            counts[("forged " if forged else "") + found] += 1
    return counts


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--files", type=int, default=10_000)
    parser.add_argument("--seed", type=int, default=0)
    arguments = parser.parse_args()
    print(dict(run(arguments.files, arguments.seed)))


if __name__ == "__main__":
    main()
