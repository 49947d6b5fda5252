"""Files of named arrays and texts, in the format of safetensors, which holds no code.

Eight bytes have the length of a header, JSON that says where each array lies, and then come the
arrays, without gaps. Here the same content always makes the same bytes: arrays with wide elements
come first, so that each begins at a multiple of its elements' size, and then by name. One of the
texts, "seal", is SHA-256 over all the rest of the file.

The format is that of Hugging Face's safetensors 0.4 and later, whose own tools read these files.
They are written and read here and not by them, since theirs would hold a second copy of all, and
neither tell how far they are nor force anything to the disk.
"""

from __future__ import annotations

import json
import os
import stat
from collections.abc import Callable, Mapping
from hashlib import sha256
from math import prod
from typing import Any, BinaryIO, NamedTuple, NoReturn, TypeAlias

import numpy as np

from fusedstep._arrays.dtypes import BFLOAT16

Array: TypeAlias = np.ndarray[Any, np.dtype[Any]]

Progress: TypeAlias = Callable[[int, int], object]
"""A function that is told the bytes that are done, and how many there are."""

CODES: dict[str, np.dtype[Any]] = {
    "F64": np.dtype("f8"),
    "I64": np.dtype("i8"),
    "U64": np.dtype("u8"),
    "F32": np.dtype("f4"),
    "I32": np.dtype("i4"),
    "U32": np.dtype("u4"),
    "F16": np.dtype("f2"),
    "BF16": BFLOAT16,
    "I16": np.dtype("i2"),
    "U16": np.dtype("u2"),
    "I8": np.dtype("i1"),
    "U8": np.dtype("u1"),
    "BOOL": np.dtype("?"),
}
"""Dtypes by the names that the format has for them."""

NAMES = {dtype: code for code, dtype in CODES.items()}

TEXTS, SEAL = "__metadata__", "seal"

OPEN = "0" * 64
"""The seal while it is not known yet."""

PART = 1 << 24
"""Bytes that are read or written at a time: Ctrl-C waits for no more, and progress is told."""

LONGEST_HEADER = 100_000_000
"""The most bytes that a header has in the format."""


class Content(NamedTuple):
    """The content of a file."""

    texts: dict[str, str]
    arrays: dict[str, Array]


# ---- writing ----


def write(file: BinaryIO, content: Content, progress: Progress | None = None) -> None:
    """Write arrays and texts, and seal the file."""
    names = sorted(content.arrays, key=lambda name: (-content.arrays[name].itemsize, name))
    texts = {**dict(sorted(content.texts.items())), SEAL: OPEN}
    entries: dict[str, Any] = {TEXTS: texts}
    at = 0
    for name in names:
        array = content.arrays[name]
        span = [at, at + array.nbytes]
        entries[name] = {
            "dtype": NAMES[array.dtype],
            "shape": [*array.shape],
            "data_offsets": span,
        }
        at = span[1]
    text = json.dumps(entries, separators=(",", ":"), ensure_ascii=False).encode()
    header = text + b" " * (-len(text) % 8)
    seal = sha256(header)
    _put(file, len(header).to_bytes(8, "little") + header)
    done = 0
    for name in names:
        flat = np.ascontiguousarray(content.arrays[name]).reshape(-1)
        little = _swapped(flat).view(np.uint8)
        for begin in range(0, len(little), PART):
            part = little[begin : begin + PART]
            seal.update(part.data)
            _put(file, part)
            done += len(part)
            if progress is not None:
                progress(done, at)
    file.seek(8 + _place_of_seal(header, OPEN))
    _put(file, seal.hexdigest().encode())


def _put(file: BinaryIO, content: Any) -> None:
    """Write all of it, where a single call may write less."""
    left = memoryview(content)
    while left:
        left = left[file.write(left) :]


def _swapped(flat: Array) -> Array:
    """The elements with their bytes in the file's order, which is little-endian."""
    if np.little_endian or flat.dtype.itemsize == 1:
        return flat
    return flat.view(f"u{flat.dtype.itemsize}").byteswap()


def _place_of_seal(header: bytes, seal: str) -> int:
    """The place of the seal's digits in a header; -1 if it is not there just once.

    In any text that stands in another text, quotation marks have a backslash before them.
    """
    entry = f'"{SEAL}":"{seal}"'.encode()
    return header.find(entry) + len(SEAL) + 4 if header.count(entry) == 1 else -1


# ---- reading ----


class Reader:
    """A file that is read, with errors that say what is wrong with it."""

    def __init__(self, path: str | os.PathLike[str]) -> None:
        self.path = os.fspath(path)

    def refuse(self, what: str, remedy: str = "") -> NoReturn:
        """Raise the error about the file's content."""
        raise ValueError(f"{self.path!r} {what}{remedy or '; load another checkpoint'}")

    def refuse_other_safetensors(self) -> NoReturn:
        """Refuse a file of the format that another program wrote."""
        self.refuse(
            "is a safetensors file, but no checkpoint that `fs.save` wrote",
            "; read its arrays by `safetensors.numpy.load_file`",
        )

    whole = True
    """Whether the file that was read had the seal that it should have."""

    def read(self, progress: Progress | None = None, check_seal: bool = True) -> Content:
        """The content of the file, all of which has been checked."""
        if stat.S_ISFIFO(os.stat(self.path).st_mode):  # which would wait for a writer
            self.refuse("is a pipe; read it into a file first", "")
        with open(self.path, "rb", buffering=0) as file:
            size = os.fstat(file.fileno()).st_size
            header = self._header(file, size)
            texts, places = self._entries(header, size - 8 - len(header))
            self.check_texts(texts)
            seal = sha256(self._without_seal(header, texts))
            arrays, done = {}, 0
            for name, (dtype, shape, _) in places.items():
                arrays[name] = array = self._empty(name, dtype, shape)
                flat = array.reshape(-1).view(np.uint8)
                for begin in range(0, len(flat), PART):
                    part = flat[begin : begin + PART]
                    self._fill(file, part)
                    seal.update(part.data)
                    done += len(part)
                    if progress is not None:
                        progress(done, size - 8 - len(header))
                if not np.little_endian and dtype.itemsize > 1:
                    array.view(f"u{dtype.itemsize}").byteswap(inplace=True)
        self.whole = seal.hexdigest() == texts[SEAL]
        if check_seal and not self.whole:
            self.refuse(
                "was changed or damaged after it was written: its content does not have the "
                "SHA-256 that it is sealed with"
            )
        return Content(texts, arrays)

    def check_texts(self, texts: Mapping[str, str]) -> None:
        """Refuse texts that say that the rest is not to be read."""

    def _header(self, file: BinaryIO, size: int) -> bytes:
        begin = file.read(8)
        length = int.from_bytes(begin, "little")
        if size < 8 or size < 8 + length or length > LONGEST_HEADER:
            self._refuse_foreign(begin, size)
        header = bytearray(length)
        self._fill(file, header)
        if not header.startswith(b"{"):
            self.refuse(NO_SAFETENSORS)
        return bytes(header)

    def _refuse_foreign(self, begin: bytes, size: int) -> NoReturn:
        """Refuse what does not begin as such a file does; say what it is, if that is known."""
        for signature, kind in FOREIGN.items():
            if begin.startswith(signature):
                self.refuse(f"is {kind}", "")
        if size == 0:
            self.refuse("is empty")
        if begin[5:] == b"\0\0\0":  # a length that a header may have
            self.refuse(f"is cut off: it ends after {size:,} bytes, within its header")
        self.refuse(NO_SAFETENSORS)

    def _fill(self, file: BinaryIO, room: Any) -> None:
        """Fill the room from the file."""
        left = memoryview(room).cast("B")
        while left:
            count = file.readinto(left)  # type: ignore[attr-defined]
            if not count:
                self.refuse("became shorter while it was read")
            left = left[count:]

    def _entries(
        self, header: bytes, size: int
    ) -> tuple[dict[str, str], dict[str, tuple[np.dtype[Any], list[int], list[int]]]]:
        """The texts, and by name the dtype, shape and place of each array."""
        entries = self._json(header)
        texts = entries.pop(TEXTS, None)
        if not isinstance(texts, dict) or SEAL not in texts:
            self.refuse_other_safetensors()
        if not all(isinstance(text, str) for text in texts.values()):
            self.refuse("has a damaged header: its metadata are not all texts")
        at = 0
        places = {}
        for name, entry in entries.items():
            place = self._place(name, entry)
            if place[2][0] != at:
                self.refuse(f"has a damaged header: {name!r} does not follow the array before it")
            places[name], at = place, place[2][1]
        if at > size:
            self.refuse(f"is cut off: {at - size:,} of {at:,} bytes of its arrays are missing")
        if at < size:
            self.refuse(f"has {size - at:,} bytes more than its header says")
        return texts, places

    def _json(self, header: bytes) -> dict[str, Any]:
        def once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
            if len({name for name, _ in pairs}) < len(pairs):
                raise ValueError("a name is there twice")
            return dict(pairs)

        try:
            entries: dict[str, Any] = json.loads(header.decode(), object_pairs_hook=once)
        except (ValueError, RecursionError) as error:
            self.refuse(f"has a damaged header: {error}")
        return entries

    def _place(self, name: str, entry: Any) -> tuple[np.dtype[Any], list[int], list[int]]:
        if not isinstance(entry, dict) or entry.keys() != {"dtype", "shape", "data_offsets"}:
            self.refuse(f"has a damaged header: {name!r} is not described as an array is")
        shape, span = entry["shape"], entry["data_offsets"]
        if not _are_sizes(shape) or not _are_sizes(span) or len(span) != 2:
            self.refuse(f"has a damaged header: {name!r} has no shape and place")
        dtype = CODES.get(entry["dtype"]) if isinstance(entry["dtype"], str) else None
        if dtype is None:
            known = ", ".join(CODES)
            self.refuse(f"has {name!r} of the dtype {entry['dtype']!r}, which is none of {known}")
        if prod(shape) * dtype.itemsize != span[1] - span[0]:
            self.refuse(f"has a damaged header: {name!r} is not as long as its shape says")
        return dtype, shape, span

    def _empty(self, name: str, dtype: np.dtype[Any], shape: list[int]) -> Array:
        try:
            return np.empty(shape, dtype)
        except ValueError as error:  # of dimensions that NumPy does not have
            self.refuse(f"has {name!r} of a shape that NumPy has no arrays of: {error}")

    def _without_seal(self, header: bytes, texts: Mapping[str, str]) -> bytes:
        """The header as it was when the seal was not known yet."""
        at = _place_of_seal(header, texts[SEAL])
        if at < 0 or len(texts[SEAL]) != len(OPEN):
            self.refuse("has a damaged header: its seal is no SHA-256")
        return header[:at] + OPEN.encode() + header[at + len(OPEN) :]


def _are_sizes(values: Any) -> bool:
    """Whether values are a list of whole numbers that are not negative."""
    return isinstance(values, list) and all(type(each) is int and each >= 0 for each in values)


NO_SAFETENSORS = "is no safetensors file, which `fs.save` writes"

FOREIGN = {
    b"PK\x03\x04": "a zip archive, as torch.save and np.savez write; load it by torch.load or "
    "np.load, and pass its state to `opt.load_state_dict`",
    b"\x80": "a pickle, which is a program that loading would run; load it by itself, if you trust "
    "it, and pass its state to `opt.load_state_dict`",
    b"\x89HDF": "an HDF5 file; read it by h5py",
    b"\x93NUMPY": "a single array of np.save; load it by np.load",
    b"\x1f\x8b": "compressed by gzip; decompress it first",
}
"""First bytes of other files, and what these are."""
