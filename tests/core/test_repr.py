"""An optimizer shows the shapes of its parameters, and the hyperparameters that were changed."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

import fusedstep as fs

w, b = np.zeros((4, 3), np.float32), np.zeros(3)

SHOWN: dict[str, Any] = {
    "AdamW(<float64 (3,)>)": fs.AdamW(b),
    "AdamW([<float32 (4, 3)>, <float64 (3,)>], lr=0.1)": fs.AdamW([w, b], lr=0.1),
    "SGD({'w': <float32 (4, 3)>, 'b': <float64 (3,)>}, momentum=0.9, nonfinite='skip')": fs.SGD(
        {"w": w, "b": b}, momentum=0.9, nonfinite="skip"
    ),
    "SGD([{'params': <float32 (4, 3)>, 'lr': 0.5}, {'params': <float64 (3,)>}], momentum=0.9)": (
        fs.SGD([{"params": w, "lr": 0.5}, {"params": b}], momentum=0.9)
    ),
    "Adam({'layers': [{'w': <float32 (4, 3)>}, {'w': <float64 (3,)>}]}, backend='numpy')": fs.Adam(
        {"layers": [{"w": w}, {"w": b}]}, backend="numpy"
    ),
    "Adam(<9 parameters of 27 elements>)": fs.Adam([np.zeros(3) for _ in range(9)]),
    "AdamW(<float64 (3,)>, lr=warmup(lr=0.1, steps=2, start=0.0))": fs.AdamW(
        b, lr=fs.schedules.warmup(0.1, steps=2)
    ),
    "Lion(<float64 (3,)>, betas=(0.5, 0.9))": fs.rules.Lion(b, betas=(0.5, 0.9)),
}


@pytest.mark.parametrize("shown", SHOWN)
def test_what_is_shown(shown: str) -> None:
    assert repr(SHOWN[shown]) == shown


def test_assignments_are_shown() -> None:
    opt = fs.AdamW(b)
    opt.lr = 0.5
    assert repr(opt) == "AdamW(<float64 (3,)>, lr=0.5, initial_lr=0.001)"
    opt.param_groups[0]["initial_lr"] = 0.5
    assert repr(opt) == "AdamW(<float64 (3,)>, lr=0.5)"


def test_an_arena_is_shown_by_its_parameters() -> None:
    assert repr(fs.SGD(fs.Arena({"w": w}))) == "SGD({'w': <float32 (4, 3)>})"


def test_bfloat16_has_its_name() -> None:
    ml_dtypes = pytest.importorskip("ml_dtypes")
    p = np.ones(2, ml_dtypes.bfloat16)
    assert repr(fs.SGD(p)) == "SGD(<bfloat16 (2,)>)"
