"""Digests and checkpoints of arrays on a device: those of the same numbers on the CPU."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from cases import BASES, Case
from device import Placed, cuda

import fusedstep as fs

rng = np.random.default_rng(11)


def stepped(optimizer: Any, options: dict[str, Any], start: Any, grads: Any) -> Any:
    """Optimizers after the same steps on the CPU and on the device, and the second one's arrays."""
    placed = [Placed(p.copy()) for p in start]
    host = optimizer([p.copy() for p in start], **options)
    device = optimizer([each.array for each in placed], **options)
    for _ in range(3):
        host.step(grads)
        device.step([Placed(g).array for g in grads])
    return host, device, placed


def draw() -> list[Any]:
    return [rng.standard_normal(shape).astype(np.float32) for shape in [(7, 5), (300,)]]


@cuda
@pytest.mark.parametrize("case", BASES[::4], ids=str)
def test_a_digest_is_that_of_the_same_numbers_on_the_cpu(case: Case) -> None:
    host, device, _ = stepped(case.optimizer, {**case.options, "ema": 0.5}, draw(), draw())
    assert device.digest() == host.digest()


@cuda
def test_checkpoints_go_from_the_device_to_the_cpu_and_back(tmp_path: Path) -> None:
    host, device, _ = stepped(fs.AdamW, {"amsgrad": True}, draw(), draw())
    fs.save(tmp_path / "device", device)
    fs.save(tmp_path / "host", host)
    assert (tmp_path / "device").read_bytes() == (tmp_path / "host").read_bytes()
    on_host = fs.AdamW([np.zeros((7, 5), np.float32), np.zeros(300, np.float32)])
    fs.load(tmp_path / "device", on_host)
    placed = [Placed(np.zeros((7, 5), np.float32)), Placed(np.zeros(300, np.float32))]
    on_device = fs.AdamW([each.array for each in placed])
    fs.load(tmp_path / "host", on_device)
    assert on_host.digest() == on_device.digest() == host.digest()
    grads = draw()
    on_host.step(grads)
    on_device.step([Placed(g).array for g in grads])
    assert on_host.digest() == on_device.digest()


@cuda
def test_a_record_of_arrays_on_a_device_is_refused(tmp_path: Path) -> None:
    device = fs.SGD([Placed(np.zeros(3)).array])
    with pytest.raises(TypeError, match="opt has its arrays on a CUDA device; record it with"):
        fs.Recorder(device, tmp_path / "record")
