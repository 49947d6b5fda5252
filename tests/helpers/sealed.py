"""Checkpoints that were changed after they had been written, and sealed again."""

from __future__ import annotations

import json
import struct
from hashlib import sha256


def resealed(content: bytes, *changes: tuple[bytes, bytes]) -> bytes:
    """The file with changes in its header, of any length, sealed as if it had been written so."""
    (length,) = struct.unpack("<Q", content[:8])
    header, data = content[8 : 8 + length].rstrip(), content[8 + length :]
    for old, new in changes:
        assert header.count(old) == 1, old
        header = header.replace(old, new)
    header += b" " * (-len(header) % 8)
    seal = json.loads(header)["__metadata__"]["seal"].encode()
    opened = header.replace(seal, b"0" * 64)
    header = header.replace(seal, sha256(opened + data).hexdigest().encode())
    return struct.pack("<Q", len(header)) + header + data
