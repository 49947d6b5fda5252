"""Optimizers that are capturable, outside of graphs, and what they do not go with."""

from __future__ import annotations

import copy
from typing import Any

import numpy as np
import pytest
from cases import DTYPES, ordinary
from device import SIMULATED, Placed, assert_same, cuda

import fusedstep as fs

pytestmark = [cuda, pytest.mark.filterwarnings("error")]

SIZES = [7, 20] if SIMULATED else [1, 5, 1024, 4097]

REQUESTS: list[dict[str, Any]] = [
    {},
    {"scale": 3.0, "max_value": 0.7, "zero_grads": True},
    {"max_norm": 0.5},
    {"max_norm": 0.5, "clip": "tensor", "scale": 0.3},
]


@pytest.mark.parametrize("policy", ["propagate", "skip"])
def test_steps_outside_of_graphs(policy: Any) -> None:
    """They are the same as those of other optimizers, also with what is assigned in between."""
    rng = np.random.default_rng(6)
    values = [ordinary(rng, n, DTYPES[n % 2]) for n in (SIZES)]
    params, expected = [Placed(p) for p in values], [p.copy() for p in values]
    stepped = fs.AdamW([p.array for p in params], capturable=True, nonfinite=policy)
    reference = fs.AdamW(expected, nonfinite=policy, backend="numpy")
    assert "capturable=True" in repr(stepped)
    assert copy.copy(stepped.param_groups[0])["lr"] == stepped.lr
    for k in range(3 if SIMULATED else 20):
        grads = [ordinary(rng, p.size, p.dtype) for p in expected]
        grads[0][3 % grads[0].size] = np.nan if policy == "skip" and k % 3 == 1 else 0.0
        given = [None if k == 8 and n == 1 else Placed(g).array for n, g in enumerate(grads)]
        wanted = [None if each is None else g for each, g in zip(given, grads, strict=True)]
        request = REQUESTS[k % len(REQUESTS)]
        found = stepped.step(given, **request)
        assert repr(found) == repr(reference.step(wanted, **request))
        for each in (stepped, reference):
            each.lr = 0.1 / (k + 1)
            each.param_groups[0]["betas"] = (0.9, 0.99 if k > 1 else 0.999)
    saved = stepped.state_dict()
    stepped.load_state_dict(saved)
    grads = [p.copy() for p in expected]
    stepped.step([Placed(g).array for g in grads])
    reference.step(grads)
    assert_same(stepped, params, reference, expected)
    assert stepped.step([None] * len(params)) == reference.step([None] * len(params))


def test_what_capturable_does_not_go_with() -> None:
    p = Placed(np.ones((4, 3), np.float32), library="cupy").array
    with pytest.raises(ValueError, match="capturable=True is for parameters on a CUDA device"):
        fs.SGD(np.ones(3), capturable=True)
    with pytest.raises(TypeError, match="capturable=1"):
        fs.SGD([p], capturable=1)  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="nonfinite='raise' with capturable"):
        fs.SGD([p], capturable=True, nonfinite="raise")
    with pytest.raises(ValueError, match="an arena"):
        fs.SGD(fs.Arena([p]), capturable=True, nonfinite="skip")
    with pytest.raises(RuntimeError, match=r"lookahead\(\) with capturable"):
        fs.SGD([p], capturable=True, momentum=0.9).lookahead().__enter__()
    with pytest.raises(RuntimeError, match=r"prepare_replays\(\) is for"):
        fs.SGD([p]).prepare_replays()
    rows = fs.Rows([1], Placed(np.ones((1, 3), np.float32), library="cupy").array)
    with pytest.raises(ValueError, match="some rows, which capturable"):
        fs.SGD([p], capturable=True).step([rows])
    with pytest.raises(ValueError, match="a rate for each column, which capturable"):
        fs.SGD([p], capturable=True, lr=np.array([0.1, 0.2, 0.3])).step([p])
    memory = np.ones((4, 6), np.float32)
    gaps = Placed(memory[:, ::2], memory, "cupy").array
    with pytest.raises(ValueError, match="without gaps"):
        fs.SGD([gaps], capturable=True).step([p])
