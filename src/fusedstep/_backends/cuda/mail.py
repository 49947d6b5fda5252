"""Integers on their way to the device: through a ring of pinned buffers, so that nobody waits.

The host waits only when it is a whole ring ahead of the device.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from fusedstep._arrays.plain import address
from fusedstep._backends.cuda import device
from fusedstep._backends.cuda.device import Device
from fusedstep._backends.slices import Integers


class Mail:
    """So many integers on the device, which are sent there in the order of a stream."""

    def __init__(self, where: Device, size: int, slots: int) -> None:
        self.slots = slots
        self.turn = 0
        with where.current():
            self.ring = device.driver.pinned((slots, size))
            self.events = [device.driver.Event() for _ in range(slots)]
        self.on_device = where.empty((size,), np.dtype(np.int64))
        self.at = address(self.on_device)
        """The address where they are on the device."""

    def send(self, integers: Any, stream: int) -> int:
        """Send integers, and return where they will be."""
        event, slot = self.events[self.turn], self.ring[self.turn, : len(integers)]
        event.wait()
        slot[...] = integers
        device.driver.upload(self.at, slot, stream)
        event.record(stream)
        self.turn = (self.turn + 1) % self.slots
        return self.at

    def wait(self) -> None:
        """Wait until the buffers may be given up."""
        for event in self.events:
            event.wait()


class Parcels:
    """Arrays of integers, which go together, in room that grows."""

    SLOTS = 4
    """How many steps the host may be ahead of the device."""

    LEAST = 1024
    """Integers that there is room for from the first."""

    def __init__(self, where: Device) -> None:
        self.device = where
        self.size = self.LEAST
        self.mail = Mail(where, self.size, self.SLOTS)

    def send(self, parts: Sequence[Integers | None], stream: int) -> list[int]:
        """Send arrays, and return where they will be on the device; 0 for None."""
        present = [part.reshape(-1) for part in parts if part is not None]
        total = sum(part.size for part in present)
        if total > self.size:
            self.mail.wait()
            self.size = max(total, 2 * self.size)
            self.mail = Mail(self.device, self.size, self.SLOTS)
        if total:
            self.mail.send(np.concatenate(present), stream)
        where, end = [], 0
        for part in parts:
            where.append(0 if part is None else self.mail.at + 8 * end)
            end += 0 if part is None else part.size
        return where
