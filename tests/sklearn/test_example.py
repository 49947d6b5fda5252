"""The example with scikit-learn finds what it says, at reduced size."""

from __future__ import annotations

from typing import Any

import pytest
from marks import needs

needs("sklearn", "sklearn")

import scikit_learn as example  # noqa: E402

pytestmark = pytest.mark.filterwarnings("ignore::sklearn.exceptions.ConvergenceWarning")


@pytest.fixture
def data(monkeypatch: pytest.MonkeyPatch) -> Any:
    monkeypatch.setattr(example, "EPOCHS", 8)
    monkeypatch.setattr(example, "HIDDEN", (64, 32))
    return example.digits()


def test_main(data: Any, capsys: pytest.CaptureFixture[str]) -> None:
    example.main()
    said = capsys.readouterr().out
    assert "the same losses: True" in said
    assert "the same weights: True" in said
    for solver in ("adam", "adamw", "lion"):
        assert said.count(f"\n{solver}") >= 2


def test_a_schedule_ends_at_its_end(data: Any) -> None:
    network = example.scheduled(data)
    assert network.score(data.test_x, data.test_y) > 0.9
    (group,) = network._optimizer.optimizer.param_groups  # noqa: SLF001
    steps = group["lr"].to_dict()["steps"]
    assert network._optimizer.optimizer.state[0]["t"] == steps  # noqa: SLF001
