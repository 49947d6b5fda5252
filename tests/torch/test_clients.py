"""Clients of torch's optimizers take these in their place: the examples in examples/clients."""

from __future__ import annotations

import importlib
import re
from collections.abc import Iterator
from functools import partialmethod
from pathlib import Path
from typing import Any, NamedTuple

import pytest
from marks import needs

torch = needs("torch", "torch")

import fusedstep.torch as fst  # noqa: E402

GIVEN: list[Any] = [fst.AdamW, fst.Adam]
"""The optimizers under test, each held against the one of its name in torch."""

RELATIVE = 1e-4


class Client(NamedTuple):
    packages: list[str]
    size: dict[str, int]
    """Constants of the example for runs that only have to be the same."""


CLIENTS = {
    "huggingface": Client(["transformers", "accelerate"], {"STEPS": 16}),
    "accelerate_loop": Client(["accelerate"], {"EPOCHS": 2}),
    "lightning_fit": Client(["pytorch_lightning"], {"EPOCHS": 2}),
    "stable_baselines": Client(["stable_baselines3", "gymnasium"], {"PARTS": 2, "STEPS": 512}),
}


@pytest.fixture(autouse=True)
def one_thread() -> Iterator[None]:
    """Two of them on a busy machine take ten times as long for models of this size."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture(params=CLIENTS)
def example(request: pytest.FixtureRequest) -> Any:
    """The module of each example."""
    for package in CLIENTS[request.param].packages:
        needs(package, "clients")
    return importlib.import_module(request.param)


@pytest.fixture
def client(example: Any, monkeypatch: pytest.MonkeyPatch) -> Any:
    """The same at reduced size."""
    for name, value in CLIENTS[example.__name__].size.items():
        monkeypatch.setattr(example, name, value)
    return example


for_each_optimizer = pytest.mark.parametrize(
    "given",
    [pytest.param(each, marks=[pytest.mark.slow] * (each is not fst.AdamW)) for each in GIVEN],
    ids=lambda given: given.__name__,
)


def plain(given: Any) -> Any:
    """Torch's optimizer of that name, with its plain loop: a class, as the clients take no less."""
    of_torch = getattr(torch.optim, given.__name__)
    loop = partialmethod(of_torch.__init__, foreach=False, fused=False)
    return type(f"Plain{given.__name__}", (of_torch,), {"__init__": loop})


@for_each_optimizer
def test_the_trajectory_is_that_of_the_plain_loop(
    given: Any, client: Any, tmp_path_factory: pytest.TempPathFactory
) -> None:
    seen, weights, optimizer = client.train(given, tmp_path_factory.mktemp("given"))
    expected, expected_weights, _ = client.train(plain(given), tmp_path_factory.mktemp("plain"))
    assert seen == pytest.approx(expected, rel=RELATIVE)
    apart = (weights - expected_weights).norm() / expected_weights.norm()
    assert apart < RELATIVE
    assert type(optimizer) is given
    assert len(optimizer.state) == sum(len(group["params"]) for group in optimizer.param_groups)


@for_each_optimizer
@pytest.mark.parametrize("example", ["lightning_fit"], indirect=True)
def test_the_gradients_are_those_that_the_closure_makes(
    given: Any,
    client: Any,
    monkeypatch: pytest.MonkeyPatch,
    tmp_path_factory: pytest.TempPathFactory,
) -> None:
    """Where none are accumulated, there are others after the closure than before it."""
    monkeypatch.setattr(client, "ACCUMULATED", 1)
    seen, *_ = client.train(given, tmp_path_factory.mktemp("given"))
    expected, *_ = client.train(plain(given), tmp_path_factory.mktemp("plain"))
    assert seen == pytest.approx(expected, rel=RELATIVE)


@for_each_optimizer
def test_a_resumed_run_is_the_uninterrupted_one(given: Any, client: Any, tmp_path: Path) -> None:
    seen, weights, optimizer = client.train(given, tmp_path)
    seen_again, weights_again, optimizer_again = client.train(given, tmp_path, resume=True)
    assert seen_again == seen[-len(seen_again) :]
    assert torch.equal(weights_again, weights)
    assert type(optimizer_again) is given
    state, state_again = optimizer.state_dict(), optimizer_again.state_dict()
    assert state_again["param_groups"] == state["param_groups"]
    torch.testing.assert_close(state_again["state"], state["state"], rtol=0, atol=0)


@for_each_optimizer
@pytest.mark.parametrize("example", [*CLIENTS][:-1], indirect=True)  # PPO saves its class, too
def test_a_run_goes_on_from_torchs_checkpoint(given: Any, client: Any, tmp_path: Path) -> None:
    """And torch from one of its own."""
    of_torch = plain(given)
    expected, expected_weights, _ = client.train(of_torch, tmp_path)
    for goes_on in (given, of_torch):
        seen, weights, optimizer = client.train(goes_on, tmp_path, resume=True)
        assert seen[-1] == pytest.approx(expected[-1], rel=RELATIVE)
        assert (weights - expected_weights).norm() < RELATIVE * expected_weights.norm()
        assert type(optimizer) is goes_on


@for_each_optimizer
@pytest.mark.parametrize("example", ["huggingface"], indirect=True)
def test_the_trainer_takes_an_optimizer_that_is_made(
    given: Any, client: Any, tmp_path: Path
) -> None:
    from transformers import Trainer

    found = []
    for optimizer_class in (given, plain(given)):
        model = client.llama(seed=0)
        optimizer = optimizer_class(model.parameters(), lr=0.005)
        trainer = Trainer(
            model=model,
            args=client.arguments(tmp_path / optimizer_class.__name__),
            train_dataset=client.sequences(),
            optimizers=(optimizer, None),
        )
        found.append(trainer.train().training_loss)
        assert trainer.optimizer.optimizer is optimizer
    assert found[0] == pytest.approx(found[1], rel=RELATIVE)


def test_main(example: Any, capsys: pytest.CaptureFixture[str]) -> None:
    """It learns what there is to learn; and its last line says that it could be resumed."""
    example.main()
    said = capsys.readouterr().out
    found = [float(number) for number in re.findall(r"(?:loss|reward) +([\d.]+)", said)]
    assert max(found) > 4 * min(found)
    assert (found.index(min(found)) < found.index(max(found))) == ("reward" in said)
    assert found[-1] == found[-2]
    assert "the same weights: True" in said
