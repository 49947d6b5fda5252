"""The header of a shared library, read without binutils, which few machines have."""

from __future__ import annotations

import struct
from collections.abc import Iterator
from pathlib import Path

PT_DYNAMIC, PT_GNU_RELRO = 2, 0x6474E552
DT_FLAGS, DT_FLAGS_1 = 30, 0x6FFFFFFB
DF_BIND_NOW, DF_1_NOW = 8, 1

# Of ELF's 64-bit files, in the byte order of the machine, which loads them.
HEADER = struct.Struct("=16xHHIQQQIHHHHHH")
SEGMENT = struct.Struct("=IIQQQQQQ")
ENTRY = struct.Struct("=qQ")


def segments(library: bytes) -> Iterator[tuple[int, int, int]]:
    """The type, the offset in the file and the size there of each segment."""
    offset, count = (HEADER.unpack_from(library)[k] for k in (4, 9))
    for k in range(count):
        kind, _, at, _, _, size, *_ = SEGMENT.unpack_from(library, offset + k * SEGMENT.size)
        yield kind, at, size


def hardening(path: str | Path) -> set[str]:
    """Return RELRO and BIND_NOW if the library has them: only both keep its addresses safe."""
    library = Path(path).read_bytes()
    assert library[:5] == b"\x7fELF\x02"
    found = set()
    for kind, at, size in segments(library):
        if kind == PT_GNU_RELRO:
            found.add("RELRO")
        if kind == PT_DYNAMIC:
            for tag, value in ENTRY.iter_unpack(library[at : at + size]):
                if (tag == DT_FLAGS and value & DF_BIND_NOW) or (
                    tag == DT_FLAGS_1 and value & DF_1_NOW
                ):
                    found.add("BIND_NOW")
    return found


SHT_DYNSYM = 11
SECTION = struct.Struct("=IIQQQQIIQQ")
SYMBOL = struct.Struct("=IBBHQQ")


def imported(path: str | Path) -> set[str]:
    """The names that a library leaves to others to define."""
    library = Path(path).read_bytes()
    offset, count = (HEADER.unpack_from(library)[k] for k in (5, 11))
    sections = [SECTION.unpack_from(library, offset + k * SECTION.size) for k in range(count)]
    names = set()
    for _, kind, _, _, at, size, link, *_ in sections:
        if kind != SHT_DYNSYM:
            continue
        strings = sections[link][4]
        for name, _, _, section, *_ in SYMBOL.iter_unpack(library[at : at + size]):
            if section == 0 and name:
                end = library.index(b"\0", strings + name)
                names.add(library[strings + name : end].decode())
    return names
