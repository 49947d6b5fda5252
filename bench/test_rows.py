"""Steps over rows: the topics of rows.py, whose contestants take turns."""

from __future__ import annotations

from typing import Any

import pytest
from replay import TAPE
from rows import TOPICS, measure

FOUND: dict[str, dict[str, list[float]]] = {}
"""The times of the topics that have been measured."""


@pytest.mark.parametrize(
    ("topic", "contestant"),
    [
        pytest.param(name, who, marks=pytest.mark.benchmark(group=f"rows-{name}", timer=TAPE.clock))
        for name, topic in TOPICS.items()
        for who in topic.contestants
    ],
)
def test_rows(topic: str, contestant: str, benchmark: Any, request: Any) -> None:
    quick = request.config.getoption("quick")
    if quick and topic == "large":
        pytest.skip("it takes 4 GB of memory and a minute; leave out --quick")
    if contestant == "SparseAdam":
        pytest.importorskip("torch", reason="torch is not installed; `pip install '.[torch]'`")
    if topic not in FOUND:
        FOUND[topic] = measure(TOPICS[topic], quick)
    seconds = FOUND[topic][contestant]
    benchmark.pedantic(TAPE.play(seconds), rounds=len(seconds))
    assert min(seconds) > 0
