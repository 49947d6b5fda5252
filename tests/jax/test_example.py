"""The example that trains in a program of JAX's."""

from __future__ import annotations

import importlib

import pytest
from marks import needs, needs_c

needs("jax", "jax")


@needs_c
def test_it_learns_and_steps_as_a_loop_of_numpys(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    example = importlib.import_module("jax_loop")
    monkeypatch.setattr(example, "EPOCHS", 30)
    params, state, right = example.train()
    assert int(state.count) == 30 * example.BATCHES
    assert right > 0.9
    assert example.differing(params) == 0
    assert capsys.readouterr().out.count("loss") == 4
