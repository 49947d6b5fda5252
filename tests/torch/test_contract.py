"""All that torch's optimizers promise besides their formulas, held against torch itself."""

from __future__ import annotations

import copy
import functools
import inspect
import io
import pickle
from collections.abc import Callable, Sequence
from typing import Any

import pytest
from marks import needs

torch = needs("torch", "torch")

from torch.optim import lr_scheduler  # noqa: E402
from torch.optim.optimizer import (  # noqa: E402
    register_optimizer_step_post_hook,
    register_optimizer_step_pre_hook,
)
from torch_cases import (  # noqa: E402
    ALL,
    OF_TORCH,
    PLAIN_LOOP,
    by_torch,
    copies,
    draw,
    farthest,
    ours,
    parameters,
    same_bits,
    theirs,
    walk,
)

import fusedstep.torch as fst  # noqa: E402

for_each_class = pytest.mark.parametrize("name", ALL)
for_each_of_torch = pytest.mark.parametrize("name", OF_TORCH)

MOMENTUM = {"SGD": {"momentum": 0.9}, "RMSprop": {"momentum": 0.9, "centered": True}}
"""Options with which there is most state."""


def options_of(name: str) -> dict[str, Any]:
    return MOMENTUM.get(name, {"amsgrad": True} if name in ("Adam", "AdamW") else {})


# ---- what it is ----


@for_each_of_torch
def test_each_is_torchs_class_with_its_arguments(name: str) -> None:
    import inspect

    assert issubclass(ours(name), theirs(name))
    found = inspect.signature(ours(name)).parameters
    expected = inspect.signature(theirs(name)).parameters
    assert [*found][: len(expected)] == [*expected]
    for key, parameter in expected.items():
        assert found[key].default == parameter.default
        assert found[key].kind == parameter.kind
    assert all(each.kind is each.KEYWORD_ONLY for key, each in found.items() if key not in expected)


@for_each_of_torch
def test_groups_defaults_and_repr_are_torchs(name: str) -> None:
    params = parameters()
    optimizer, reference = ours(name)(params), theirs(name)(params)
    assert optimizer.defaults == reference.defaults
    assert repr(optimizer) == repr(reference)
    assert [*optimizer.param_groups[0]] == [*reference.param_groups[0]]


@for_each_class
def test_a_missing_argument_of_its_own_is_refused_before_anything(name: str) -> None:
    with pytest.raises(ValueError, match="nonfinite='maybe'"):
        ours(name)(parameters(), nonfinite="maybe")
    with pytest.raises(ValueError, match=r"max_norm=-1.*pass 0 or more"):
        ours(name)(parameters(), max_norm=-1.0)
    with pytest.raises(ValueError, match=r"ema=1\.5"):
        ours(name)(parameters(), ema=1.5)


# ---- state dicts ----


@for_each_of_torch
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.complex64], ids=str)
def test_state_goes_back_and_forth_in_mid_training(name: str, dtype: Any) -> None:
    """Two ways of 12 steps: torch alone, and torch, ours, torch, ours by turns."""

    def run(sides: Sequence[Callable[[str], Any]]) -> tuple[list[Any], Any]:
        params = parameters(dtype)
        optimizer = theirs(name)(params, **options_of(name), **PLAIN_LOOP)
        for turn, side in enumerate(sides):
            other = side(name)(params, lr=123.0)
            other.load_state_dict(optimizer.state_dict())
            optimizer = other
            walk(optimizer, params, 3, 3 * turn)
        return params, optimizer

    (alone, reference), (shared, optimizer) = run([theirs] * 4), run([theirs, ours] * 2)
    assert farthest(shared, alone) <= (1e-12 if dtype is torch.float64 else 2e-6)
    found, expected = optimizer.state_dict()["state"][0], reference.state_dict()["state"][0]
    assert [*found] == [*expected]
    assert all(found[key].dtype == value.dtype for key, value in expected.items())


@for_each_class
def test_a_checkpoint_goes_on_with_the_same_bits(name: str) -> None:
    whole, cut = parameters(), parameters()
    walk(ours(name)(whole, **options_of(name)), whole, 8)
    first = ours(name)(cut, **options_of(name))
    walk(first, cut, 4)
    file = io.BytesIO()
    torch.save(first.state_dict(), file)
    file.seek(0)
    second = ours(name)(cut, lr=77.0)
    second.load_state_dict(torch.load(file, weights_only=True))
    walk(second, cut, 4, 4)
    assert same_bits(cut, whole)


def test_an_old_checkpoint_has_counts_that_are_numbers() -> None:
    params = parameters()
    optimizer = fst.Adam(params)
    walk(optimizer, params, 3)
    saved = optimizer.state_dict()
    for state in saved["state"].values():
        state["step"] = 3
    params_again = copies(params)
    other = fst.Adam(params_again)
    other.load_state_dict(saved)
    walk(other, params_again, 1, 3)
    assert other.state[params_again[0]]["step"] == torch.tensor(4.0)


@for_each_class
@pytest.mark.parametrize("clone", [copy.deepcopy, lambda both: pickle.loads(pickle.dumps(both))])
def test_copies_with_their_parameters_go_the_same_way(name: str, clone: Any) -> None:
    params = parameters()
    optimizer = ours(name)(params, **options_of(name), ema=0.5, max_norm=10.0)
    walk(optimizer, params, 3)
    their_params, other = clone((params, optimizer))
    assert other.max_norm == 10.0
    walk(optimizer, params, 3, 3)
    before = copies(params)
    walk(other, their_params, 3, 3)
    assert same_bits(their_params, params)
    assert same_bits(params, before)
    assert same_bits(
        [other.state[p]["ema"] for p in their_params], [optimizer.state[p]["ema"] for p in params]
    )


# ---- the step ----


@for_each_class
def test_the_closure_is_called_once_with_grad_and_its_loss_returned(name: str) -> None:
    params = parameters(shapes=[(3,)])
    optimizer = ours(name)(params)
    calls = []

    def closure() -> Any:
        optimizer.zero_grad()
        calls.append(torch.is_grad_enabled())
        loss = (params[0] ** 2).sum()
        loss.backward()
        return loss

    with torch.no_grad():
        loss = optimizer.step(closure)
    assert calls == [True]
    assert loss.item() > 0
    assert optimizer.step(closure=closure) is not None
    assert optimizer.step() is None


def test_parameters_without_a_gradient_are_left_alone() -> None:
    params, expected = parameters(), parameters()
    optimizer, reference = fst.AdamW(params), torch.optim.AdamW(expected)
    present = [[0, 1], [1], [0, 2, 3], [], [0, 1, 2, 3, 4, 5]]
    for step, some in enumerate(present):
        for own in (params, expected):
            for at, g in enumerate(draw(own, step)):
                own[at].grad = g if at in some else None
        optimizer.step()
        reference.step()
    assert farthest(params, expected) <= 2e-6
    for p, q in zip(params, expected, strict=True):
        assert optimizer.state[p]["step"] == reference.state[q]["step"]


def test_nothing_has_a_gradient() -> None:
    optimizer = fst.Adam(parameters())
    assert optimizer.step() is None
    assert not optimizer.state


@pytest.mark.parametrize("set_to_none", [True, False])
def test_zero_grad(set_to_none: bool) -> None:
    params = parameters()
    optimizer = fst.SGD(params, momentum=0.9)
    walk(optimizer, params, 1)
    before = copies(params)
    optimizer.zero_grad(set_to_none)
    assert all(p.grad is None if set_to_none else not p.grad.any() for p in params)
    optimizer.step()
    assert same_bits(params, before) is set_to_none


def test_the_caller_s_gradient_is_not_written() -> None:
    params = parameters()
    optimizer = fst.AdamW(params, maximize=True, l1=0.1, max_norm=0.5)
    for p, g in zip(params, draw(params, 0), strict=True):
        p.grad = g
    before = [p.grad.clone() for p in params]
    optimizer.step()
    assert same_bits([p.grad for p in params], before)


def test_a_step_shows_up_in_the_versions_of_parameters() -> None:
    """Otherwise autograd would go back through a graph whose inputs have changed."""
    p = torch.nn.Parameter(torch.ones(3))
    optimizer = fst.SGD([p])
    loss = (p * p * p).sum()
    loss.backward(retain_graph=True)
    optimizer.step()
    with pytest.raises(RuntimeError, match="modified by an inplace operation"):
        loss.backward()


# ---- hyperparameters ----


@for_each_of_torch
def test_rates_may_be_tensors_that_change_in_place(name: str) -> None:
    params, expected = parameters(torch.float64), parameters(torch.float64)
    rates = torch.tensor(0.01, dtype=torch.float64), torch.tensor(0.01, dtype=torch.float64)
    optimizer = ours(name)(params, lr=rates[0])
    reference = theirs(name)(expected, lr=rates[1], **PLAIN_LOOP)
    for step in range(4):
        for rate in rates:
            rate.fill_(0.01 / (1 + step))
        walk(optimizer, params, 1, step)
        walk(reference, expected, 1, step)
    assert farthest(params, expected) <= 1e-12


def test_betas_may_be_tensors() -> None:
    params, expected = parameters(torch.float64), parameters(torch.float64)
    betas = torch.tensor(0.8, dtype=torch.float64), torch.tensor(0.9, dtype=torch.float64)
    walk(fst.AdamW(params, betas=betas), params)
    walk(torch.optim.AdamW(expected, betas=(0.8, 0.9)), expected)
    assert farthest(params, expected) <= 1e-12
    optimizer = fst.AdamW(params)
    optimizer.param_groups[0]["betas"] = betas
    walk(optimizer, params, 1)
    assert [optimizer.param_groups[0]["betas"][k] is betas[k] for k in (0, 1)] == [True, True]


@for_each_of_torch
def test_groups_differ_and_hyperparameters_are_assigned(name: str) -> None:
    def run(side: Callable[[str], Any], **more: Any) -> list[Any]:
        params = parameters(torch.float64)
        optimizer = side(name)(
            [{"params": params[:2], "lr": 0.1, "weight_decay": 0.2}, {"params": params[2:4]}],
            lr=0.01,
            **options_of(name),
            **more,
        )
        walk(optimizer, params, 2)
        optimizer.param_groups[1]["lr"] = 0.5
        optimizer.param_groups[0]["maximize"] = True
        walk(optimizer, params, 2, 2)
        optimizer.add_param_group({"params": params[4:], "lr": 0.3})
        walk(optimizer, params, 3, 4)
        return params

    expected = by_torch(lambda: run(theirs, **PLAIN_LOOP))
    assert farthest(run(ours), expected) <= 1e-12


def test_momentum_may_be_switched_on_and_off() -> None:
    def run(cls: Any) -> list[Any]:
        params = parameters(torch.float64)
        optimizer = cls(params, lr=0.1)
        for step, momentum in enumerate([0.0, 0.9, 0.9, 0.0, 0.5]):
            optimizer.param_groups[0]["momentum"] = momentum
            walk(optimizer, params, 1, step)
        return params

    assert farthest(run(fst.SGD), run(torch.optim.SGD)) <= 1e-12


def test_named_parameters() -> None:
    model = torch.nn.Linear(3, 2)
    optimizer = fst.AdamW(model.named_parameters(), nonfinite="skip")
    assert optimizer.param_groups[0]["param_names"] == ["weight", "bias"]
    for p in model.parameters():
        p.grad = torch.full_like(p, torch.nan)
    optimizer.step()
    assert optimizer.report.skipped == ("params['weight']", "params['bias']")


SCHEDULERS: dict[str, Callable[[Any], Any]] = {
    "LambdaLR": lambda o: lr_scheduler.LambdaLR(o, lambda epoch: 0.9**epoch),
    "MultiplicativeLR": lambda o: lr_scheduler.MultiplicativeLR(o, lambda epoch: 0.9),
    "StepLR": lambda o: lr_scheduler.StepLR(o, 2, 0.5),
    "MultiStepLR": lambda o: lr_scheduler.MultiStepLR(o, [2, 4], 0.5),
    "ConstantLR": lambda o: lr_scheduler.ConstantLR(o, 0.5, 3),
    "LinearLR": lambda o: lr_scheduler.LinearLR(o, 0.1, total_iters=4),
    "ExponentialLR": lambda o: lr_scheduler.ExponentialLR(o, 0.8),
    "PolynomialLR": lambda o: lr_scheduler.PolynomialLR(o, 5, 2.0),
    "CosineAnnealingLR": lambda o: lr_scheduler.CosineAnnealingLR(o, 5),
    "CosineAnnealingWarmRestarts": lambda o: lr_scheduler.CosineAnnealingWarmRestarts(o, 3),
    "CyclicLR": lambda o: lr_scheduler.CyclicLR(o, 0.001, 0.1, 2, cycle_momentum=True),
    "OneCycleLR": lambda o: lr_scheduler.OneCycleLR(o, 0.1, total_steps=20),
    "ReduceLROnPlateau": lambda o: lr_scheduler.ReduceLROnPlateau(o, patience=0),
    "SequentialLR": lambda o: lr_scheduler.SequentialLR(
        o, [lr_scheduler.ConstantLR(o, 0.1, 2), lr_scheduler.ExponentialLR(o, 0.9)], [2]
    ),
    "ChainedScheduler": lambda o: lr_scheduler.ChainedScheduler(
        [lr_scheduler.ConstantLR(o, 0.1, 2), lr_scheduler.ExponentialLR(o, 0.9)]
    ),
    "SWALR": lambda o: torch.optim.swa_utils.SWALR(o, 0.05, anneal_epochs=3),
}


@pytest.mark.filterwarnings("ignore:.*epoch parameter:UserWarning")  # torch's, of its own class
@pytest.mark.parametrize("scheduler", SCHEDULERS)
@pytest.mark.parametrize("name", ["SGD", "AdamW", "NAdam"])
def test_every_scheduler(name: str, scheduler: str) -> None:
    """Some cycle momentum, and so change betas at every step."""

    def run(side: Callable[[str], Any], **more: Any) -> tuple[list[Any], list[float]]:
        params, rates = parameters(torch.float64), []
        momentum = {"momentum": 0.9} if name == "SGD" else {}
        optimizer = side(name)(params, lr=0.05, **momentum, **more)
        schedule = SCHEDULERS[scheduler](optimizer)
        for step in range(8):
            walk(optimizer, params, 1, step)
            schedule.step(*([1.0] if scheduler == "ReduceLROnPlateau" else []))
            rates.append(optimizer.param_groups[0]["lr"])
        return params, rates

    (params, rates), (expected, their_rates) = run(ours), run(theirs, **PLAIN_LOOP)
    assert rates == their_rates
    # NAdam's product of μ is float32 in torch, and the last bit of a μ may round otherwise.
    assert farthest(params, expected) <= (1e-8 if name == "NAdam" else 1e-12)


# ---- hooks ----


def test_hooks_of_every_kind_run_as_torchs_do() -> None:
    def run(cls: Any, **more: Any) -> list[Any]:
        seen: list[Any] = []

        def note(what: str) -> Callable[..., Any]:
            def hook(optimizer: Any, *rest: Any) -> None:
                assert isinstance(optimizer, cls)
                args = [arg for arg in (rest[0] if rest else ()) if arg is not optimizer]
                seen.append((what, len(rest), args))

            return hook

        handles = [
            register_optimizer_step_pre_hook(note("pre of all")),
            register_optimizer_step_post_hook(note("post of all")),
        ]
        params = parameters(shapes=[(2,)])
        optimizer = cls(params, **more)
        optimizer.register_step_pre_hook(note("pre"))
        optimizer.register_step_post_hook(note("post"))
        optimizer.register_state_dict_pre_hook(lambda o: seen.append("saving"))
        optimizer.register_state_dict_post_hook(lambda o, d: seen.append("saved"))
        optimizer.register_load_state_dict_pre_hook(lambda o, d: seen.append("loading"))
        optimizer.register_load_state_dict_post_hook(lambda o: seen.append("loaded"))
        walk(optimizer, params, 2)
        optimizer.step(None)
        optimizer.step(closure=None)
        optimizer.load_state_dict(optimizer.state_dict())
        for handle in handles:
            handle.remove()
        optimizer.step()
        return seen

    assert run(fst.Adam) == run(torch.optim.Adam)


def test_a_pre_hook_may_change_the_arguments() -> None:
    params = parameters(shapes=[(2,)])
    optimizer = fst.Adam(params)
    optimizer.register_step_pre_hook(lambda o, args, kwargs: ((o, lambda: 7), {}))
    assert optimizer.step() == 7


def test_hooks_of_a_derived_class_run_once() -> None:
    class Derived(fst.AdamW):
        def step(self, closure: Any = None) -> Any:
            return super().step(closure)

    seen = []
    optimizer = Derived(parameters(shapes=[(2,)]))
    optimizer.register_step_post_hook(lambda *_: seen.append(1))
    optimizer.step()
    assert seen == [1]


def test_hooks_run_where_a_step_is_wrapped_as_itself() -> None:
    """So that torch takes it for one that sees to the hooks."""

    class Derived(fst.AdamW):
        @functools.wraps(fst.AdamW.step)
        def step(self, closure: Any = None) -> Any:
            return super().step(closure)

    seen = []
    optimizer: Any = Derived(parameters(shapes=[(2,)]))
    optimizer.register_step_post_hook(lambda *_: seen.append(1))
    optimizer.step()
    assert seen == [1]


def test_hooks_run_where_the_step_of_a_class_is_replaced(monkeypatch: pytest.MonkeyPatch) -> None:
    """Instruments for measuring do so, while the optimizer is there already."""
    seen = []
    optimizer = fst.AdamW(parameters(shapes=[(2,)]))
    optimizer.register_step_pre_hook(lambda *_: seen.append(1))
    step = fst.AdamW.step
    monkeypatch.setattr(fst.AdamW, "step", lambda self, *args: step(self, *args), raising=False)
    optimizer.step()
    assert seen == [1]


def test_the_signature_of_a_step_is_torchs() -> None:
    names = [*inspect.signature(torch.optim.AdamW.step).parameters]
    assert [*inspect.signature(fst.AdamW.step).parameters] == names


@pytest.mark.filterwarnings("ignore:Warning. Profiler clears events:UserWarning")  # older torch
def test_the_profiler_sees_the_step() -> None:
    params = parameters(shapes=[(2,)])
    optimizer = fst.Adam(params)
    with torch.profiler.profile(activities=[torch.profiler.ProfilerActivity.CPU]) as profiler:
        walk(optimizer, params, 1)
    assert "Optimizer.step#Adam.step" in {event.key for event in profiler.key_averages()}


# ---- mixed precision ----


@for_each_of_torch
def test_a_grad_scaler_needs_no_pass_of_its_own(name: str) -> None:
    """Unscaling in the step gives the bits of steps by unscaled gradients: scales are powers of
    two; and a step with infinity in a gradient is skipped.
    """
    params, expected = parameters(), parameters()
    optimizer, plain = ours(name)(params), ours(name)(expected)
    scaler = torch.amp.GradScaler("cpu", init_scale=2.0**10, growth_interval=2)
    for step in range(5):
        bad = step == 2
        for own, scale in ((params, scaler.get_scale()), (expected, 1.0)):
            for at, g in enumerate(draw(own, step)):
                own[at].grad = g * scale
                if bad and at == 0:
                    own[at].grad[0, 0] = torch.inf
        if step == 3:  # by hand, as clipping in between wants it
            scaler.scale(torch.zeros(1))
            scaler.unscale_(optimizer)
        scaler.scale(torch.zeros(1))
        scaler.step(optimizer)
        scaler.update()
        if not bad:
            plain.step()
        assert same_bits(params, expected)
    assert scaler.get_scale() == 2.0**11


def test_a_disabled_grad_scaler() -> None:
    params = parameters()
    optimizer = fst.Adam(params)
    scaler = torch.amp.GradScaler("cpu", enabled=False)
    for p, g in zip(params, draw(params, 0), strict=True):
        p.grad = g
    scaler.step(optimizer)
    scaler.update()
    assert optimizer.state[params[0]]["step"] == 1


# ---- around it ----


def test_a_compiled_model_trains() -> None:
    torch.manual_seed(0)
    model = torch.nn.Sequential(torch.nn.Linear(4, 8), torch.nn.Tanh(), torch.nn.Linear(8, 1))
    compiled = torch.compile(model, backend="eager")
    optimizer = fst.AdamW(compiled.parameters(), lr=0.05)
    x = torch.randn(32, 4)
    losses = []
    for _ in range(30):
        optimizer.zero_grad()
        loss = ((compiled(x) - x.sum(1, keepdim=True)) ** 2).mean()
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    assert losses[-1] < losses[0] / 4
    torch.compiler.reset()


@pytest.mark.parametrize("name", ["SGD", "AdamW", "NAdam", "Lion"])
def test_a_step_inside_of_what_is_compiled(name: str) -> None:
    """It is taken as ever, outside of the graph."""
    params, expected = parameters(), parameters()
    optimizer, reference = ours(name)(params, max_norm=1.0), ours(name)(expected, max_norm=1.0)
    step = torch.compile(lambda: optimizer.step(), backend="eager")
    for number in range(3):
        for own in (params, expected):
            for p, g in zip(own, draw(own, number), strict=True):
                p.grad = g
        step()
        reference.step()
    assert same_bits(params, expected)
    assert optimizer.report == reference.report
    torch.compiler.reset()


@for_each_of_torch
def test_parameters_on_the_meta_device_step_as_torchs(name: str) -> None:
    p = torch.nn.Parameter(torch.ones(3, device="meta"))
    optimizer = ours(name)([p])
    p.grad = torch.ones(3, device="meta")
    optimizer.step()
    assert all(value.device.type in ("cpu", "meta") for value in optimizer.state[p].values())


def test_parameters_on_the_meta_device_that_torch_cannot_step() -> None:
    p = torch.nn.Parameter(torch.ones(3, device="meta"))
    p.grad = torch.ones(3, device="meta")
    with pytest.raises(ValueError, match="parameters on 'meta': Lion has no such steps"):
        fst.Lion([p]).step()
    with pytest.raises(ValueError, match="parameters on 'meta': these steps are torch's own"):
        fst.Adam([p], max_norm=1.0).step()


def test_accumulation_over_several_backward_passes() -> None:
    params, expected = parameters(torch.float64), parameters(torch.float64)
    for own, optimizer in ((params, fst.Adam(params)), (expected, torch.optim.Adam(expected))):
        for step in range(3):
            optimizer.zero_grad()
            for part in range(4):
                sum((p * p * (step + part)).sum() for p in own).backward()
            optimizer.step()
    assert farthest(params, expected) <= 1e-12


# ---- accepted, handed on, or refused ----


@for_each_of_torch
def test_differentiable_steps_are_torchs(name: str) -> None:
    def run(side: Callable[[str], Any]) -> list[Any]:
        """A step, and what a loss after it makes of the gradient that was stepped by."""
        p = torch.ones(3, dtype=torch.float64)
        g = torch.full((3,), 0.5, dtype=torch.float64, requires_grad=True)
        optimizer = side(name)([p], lr=0.1, differentiable=True)
        p.grad = g
        optimizer.step()
        (p**2).sum().backward()
        return [p, g.grad]

    assert same_bits(run(ours), run(theirs))


def test_what_torch_would_not_do_is_not_handed_to_it() -> None:
    params = parameters()
    optimizer = fst.AdamW(params, differentiable=True, eps_inside_sqrt=True)
    before = copies(params)
    for p, g in zip(params, draw(params, 0), strict=True):
        p.grad = g
    with pytest.raises(ValueError, match="torch's own, which has no 'eps_inside_sqrt'"):
        optimizer.step()
    assert same_bits(params, before)


@pytest.mark.parametrize("edited", [True, False], ids=["edited", "in the group"])
def test_nesterov_with_dampening_is_torchs(edited: bool) -> None:
    """Torch's constructor refuses the two, and its step takes them from a group."""

    def run(cls: Any) -> Any:
        p = torch.ones(3, dtype=torch.float64)
        groups = [{"params": [p]} if edited else {"params": [p], "dampening": 0.5}]
        given = {"dampening": 0.5} if edited else {"nesterov": True}
        optimizer = cls(groups, lr=0.1, momentum=0.9, **given)
        optimizer.param_groups[0]["nesterov"] = True
        walk(optimizer, [p], 4)
        return p

    assert same_bits([run(fst.SGD)], [run(torch.optim.SGD)])


def test_tensors_of_several_parts_are_stepped_by_torch() -> None:
    from torch.testing._internal.two_tensor import TwoTensor

    def run(cls: Any) -> list[Any]:
        p = torch.nn.Parameter(TwoTensor(torch.ones(3), torch.full((3,), 2.0)))
        optimizer = cls([p], lr=0.1)
        p.grad = TwoTensor(torch.ones(3), torch.full((3,), -3.0))
        optimizer.step()
        return [p.a, p.b]

    assert same_bits(run(fst.AdamW), run(torch.optim.AdamW))
    with pytest.raises(ValueError, match="parameters of TwoTensor: Lion has no such steps"):
        run(fst.Lion)


def test_tensors_without_content_are_stepped_by_torch() -> None:
    """Such are what a model's memory is estimated by."""
    from torch._subclasses.fake_tensor import FakeTensorMode

    with FakeTensorMode():
        model = torch.nn.Linear(3, 3)
        optimizer = fst.Adam(model.parameters())
        model(torch.ones(2, 3)).sum().backward()
        optimizer.step()
        assert optimizer.state[model.weight]["exp_avg"].shape == (3, 3)


def test_parameters_that_are_negated_lazily_are_stepped_by_torch() -> None:
    def run(cls: Any) -> Any:
        p = torch.ones(3, dtype=torch.cfloat).conj().imag
        p.grad = torch.ones(3)
        cls([p], lr=0.1).step()
        return p.resolve_neg()

    assert same_bits([run(fst.SGD)], [run(torch.optim.SGD)])


def test_capturable_on_the_cpu_is_refused_in_torchs_words() -> None:
    def refusal(cls: Any) -> str:
        params = parameters(shapes=[(2,)])
        optimizer = cls(params, capturable=True)
        params[0].grad = torch.ones(2)
        with pytest.raises(AssertionError) as caught:
            optimizer.step()
        return str(caught.value)

    assert refusal(fst.Adam) == refusal(torch.optim.Adam)


@pytest.mark.parametrize("name", ["SGD", "Adagrad", "Adam", "AdamW"])
@pytest.mark.parametrize("options", [{"fused": True}, {"foreach": True}, {"fused": False}], ids=str)
def test_fused_and_foreach_change_nothing(name: str, options: dict[str, Any]) -> None:
    params, expected = parameters(), parameters()
    walk(ours(name)(params, **options), params)
    walk(ours(name)(expected), expected)
    assert same_bits(params, expected)


# ---- sparse gradients ----


def sparse(p: Any, step: int) -> Any:
    """Rows of a gradient, one of them twice."""
    generator = torch.Generator().manual_seed(step)
    index = torch.tensor([[0, 2, 0]])
    values = torch.randn((3, *p.shape[1:]), dtype=p.dtype, generator=generator)
    return torch.sparse_coo_tensor(index, values, p.shape, check_invariants=True)


@pytest.mark.filterwarnings("ignore:Sparse invariant checks:UserWarning")  # of torch's own step
@pytest.mark.parametrize(
    ("name", "options"),
    [
        ("SGD", {"lr": 0.1}),
        ("SGD", {"lr": 0.1, "momentum": 0.9}),
        ("SGD", {"lr": 0.1, "maximize": True}),
        ("Adagrad", {"lr": 0.1}),
        ("Adagrad", {"lr": 0.1, "lr_decay": 0.1}),
    ],
)
def test_sparse_gradients_as_torch(name: str, options: dict[str, Any]) -> None:
    params, expected = [parameters(torch.float64, [(4, 3)]) for _ in range(2)]
    for own, optimizer in (
        (params, ours(name)(params, **options)),
        (expected, theirs(name)(expected, **options, **PLAIN_LOOP)),
    ):
        for step in range(4):
            own[0].grad = sparse(own[0], step)
            optimizer.step()
    assert farthest(params, expected) <= 1e-12


@pytest.mark.parametrize("name", [name for name in OF_TORCH if name not in ("SGD", "Adagrad")])
def test_sparse_gradients_are_refused_in_torchs_words(name: str) -> None:
    def refusal(side: Callable[[str], Any]) -> str:
        params = parameters(shapes=[(4, 3)])
        optimizer = side(name)(params)
        params[0].grad = sparse(params[0], 0)
        before = copies(params)
        with pytest.raises(RuntimeError) as caught:
            optimizer.step()
        assert same_bits(params, before)
        return str(caught.value)

    assert refusal(ours) == refusal(theirs)


def test_sparse_gradients_with_decay_are_refused_as_torch() -> None:
    params = parameters(shapes=[(4, 3)])
    optimizer = fst.Adagrad(params, weight_decay=0.1)
    params[0].grad = sparse(params[0], 0)
    with pytest.raises(RuntimeError, match="weight_decay option is not compatible with sparse"):
        optimizer.step()
    assert optimizer.state[params[0]]["step"] == 0
