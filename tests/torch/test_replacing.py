"""A live optimizer of torch's that becomes this package's, with all that hangs on it."""

from __future__ import annotations

import copy
from typing import Any

import pytest
from marks import needs

torch = needs("torch", "torch")

from torch.optim import lr_scheduler  # noqa: E402
from torch_cases import (  # noqa: E402
    OF_TORCH,
    PLAIN_LOOP,
    copies,
    farthest,
    ours,
    parameters,
    theirs,
    walk,
)

import fusedstep.torch as fst  # noqa: E402

for_each_class = pytest.mark.parametrize("name", OF_TORCH)


@for_each_class
def test_a_run_goes_on_along_the_same_way(name: str) -> None:
    """The groups, the state, a scheduler and a hook stay; what refers to it needs not know."""

    def run(swap: bool) -> tuple[list[Any], list[float], int]:
        params, rates, hooked = parameters(torch.float64), [], []
        optimizer = theirs(name)(
            [{"params": params[:2], "lr": 0.1}, {"params": params[2:]}], lr=0.05, **PLAIN_LOOP
        )
        schedule = lr_scheduler.StepLR(optimizer, 2, 0.5)
        optimizer.register_step_post_hook(lambda *_: hooked.append(1))
        for step in range(8):
            if swap and step == 3:
                assert fst.replace(optimizer) is optimizer
                assert type(optimizer) is ours(name)
            walk(optimizer, params, 1, step)
            schedule.step()
            rates.append(optimizer.param_groups[0]["lr"])
        return params, rates, len(hooked)

    (params, rates, hooked), (expected, their_rates, their_hooked) = run(True), run(False)
    assert farthest(params, expected) <= (1e-8 if name == "NAdam" else 1e-12)
    assert (rates, hooked) == (their_rates, their_hooked)


def test_the_scheduler_still_knows_that_the_step_was_called() -> None:
    """It warns otherwise, which is an error here."""
    params = parameters()
    optimizer = torch.optim.SGD(params, lr=0.1)
    schedule = lr_scheduler.ExponentialLR(optimizer, 0.9)
    fst.replace(optimizer)
    walk(optimizer, params, 1)
    schedule.step()
    assert optimizer.param_groups[0]["lr"] == pytest.approx(0.09)


def test_it_can_be_copied_and_saved_afterwards() -> None:
    params = parameters()
    optimizer = torch.optim.AdamW(params)
    walk(optimizer, params, 2)
    fst.replace(optimizer, ema=0.9)
    walk(optimizer, params, 2, 2)
    their_params, other = copy.deepcopy((params, optimizer))
    walk(other, their_params, 1, 4)
    assert "ema" in other.state[their_params[0]]


def test_arguments_beyond_torchs() -> None:
    params = parameters()
    target = copies(params)
    optimizer = torch.optim.AdamW(params)
    fst.replace(optimizer, max_norm=0.1, ema=0.5, ema_into=target, eps_inside_sqrt=True)
    walk(optimizer, params, 1)
    assert optimizer.report.clip < 1
    assert optimizer.param_groups[0]["eps_inside_sqrt"] is True
    assert not torch.equal(target[0], params[0])


def test_what_is_this_package_s_already() -> None:
    optimizer = fst.SGD(parameters())
    assert fst.replace(optimizer) is optimizer


class Derived(torch.optim.SGD):  # type: ignore[misc, name-defined]
    pass


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda p: torch.optim.Adadelta(p), "Adadelta cannot be replaced; fusedstep.torch has"),
        (lambda p: torch.optim.LBFGS(p), "LBFGS cannot be replaced"),
        (Derived, "Derived cannot be replaced"),
        (lambda p: 3, "builtins.int cannot be replaced"),
    ],
)
def test_what_cannot_be_replaced(make: Any, message: str) -> None:
    optimizer = make(parameters())
    kind = type(optimizer)
    with pytest.raises(TypeError, match=message):
        fst.replace(optimizer)
    assert type(optimizer) is kind


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"nonfinite": "perhaps"}, "nonfinite="),
        ({"ema_into": [torch.ones(1)]}, "ema_into is given and ema is None"),
        ({"ema": 0.5, "ema_into": [torch.ones(1)]}, "ema_into has"),
        ({"momentun": 0.5}, "unknown argument 'momentun'"),
    ],
)
def test_a_refusal_changes_nothing(options: dict[str, Any], message: str) -> None:
    params, expected = parameters(), parameters()
    optimizer, reference = torch.optim.SGD(params), torch.optim.SGD(expected)
    before = dict(vars(optimizer))
    groups = copy.copy(optimizer.param_groups[0])
    with pytest.raises((TypeError, ValueError), match=message):
        fst.replace(optimizer, **options)
    assert type(optimizer) is torch.optim.SGD
    assert vars(optimizer) == before
    assert optimizer.param_groups[0].keys() == groups.keys()
    walk(optimizer, params, 2)
    walk(reference, expected, 2)
    assert farthest(params, expected) == 0


def test_a_step_that_others_have_replaced_is_refused() -> None:
    optimizer = torch.optim.SGD(parameters())
    optimizer.step = lambda: None
    with pytest.raises(TypeError, match="step was replaced by"):
        fst.replace(optimizer)
