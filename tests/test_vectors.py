"""The golden vectors of the numerics contract, bit for bit, on every backend."""

from __future__ import annotations

import json
from typing import Any

import pytest
import vectors

import fusedstep as fs


@pytest.fixture(scope="module")
def golden() -> dict[str, Any]:
    known: dict[str, Any] = json.loads(vectors.FILE.read_text("utf-8"))
    return known


def differing(found: dict[str, Any], golden: dict[str, Any]) -> list[str]:
    """The parts that differ, each with the first entry that does."""
    assert found.keys() == golden.keys()
    parts = []
    for name, value in json.loads(json.dumps(found)).items():
        if value != golden[name]:
            pairs = zip(value, golden[name], strict=True) if isinstance(value, list) else ()
            parts.append(f"{name}: {next((pair for pair in pairs if pair[0] != pair[1]), value)}")
    return parts


@pytest.mark.parametrize("backend", ["numpy", "numba"])
def test_no_bit_has_moved(backend: str, golden: dict[str, Any]) -> None:
    if fs.info().backends[backend] is not None:
        pytest.skip(f"the backend {backend} is not there: {fs.info().backends[backend]}")
    assert differing(vectors.vectors(backend), golden) == []


def test_no_bit_has_moved_on_any_instruction_set(isa: str, golden: dict[str, Any]) -> None:
    assert fs.get_isa() == isa
    assert differing(vectors.vectors("c"), golden) == []


def test_the_file_is_as_it_is_written(golden: dict[str, Any]) -> None:
    assert golden["contract"] == vectors.CONTRACT == 1
    assert vectors.FILE.read_text("utf-8") == vectors.text_of(vectors.vectors())
    assert vectors.FILE.stat().st_size < 1_000_000


def test_each_rule_and_option_is_there(golden: dict[str, Any]) -> None:
    known = {case["optimizer"] for case in golden["cases"]}
    assert known == {*fs.optimizers.__all__, *fs.rules.__all__}
    options = {name for case in golden["cases"] for name in case["options"]}
    for name in ("amsgrad", "centered", "ema", "eps_inside_sqrt", "l1", "maximize", "nesterov"):
        assert name in options
    norms = golden["norms"]
    assert any(each["list"] != each["arena"] for each in norms)  # which the file tells
