"""Tensors on a CUDA device: the bits of the same steps on the CPU, on torch's current stream.

Only a device runs these tests: torch has no simulator.
"""

from __future__ import annotations

import copy
import itertools
from typing import Any

import pytest
from counting import calls_of
from device import LIBRARIES, MISSING, SIMULATED
from marks import needs

torch = needs("torch", "torch")

from torch_cases import (  # noqa: E402
    ALL,
    OF_TORCH,
    PLAIN_LOOP,
    bits,
    copies,
    draw,
    farthest,
    ours,
    parameters,
    theirs,
)

import fusedstep.torch as fst  # noqa: E402

pytestmark = [
    pytest.mark.cuda,
    pytest.mark.skipif(
        SIMULATED or "torch" not in LIBRARIES,
        reason=f"no cuda backend: {MISSING or 'torch finds no device'}",
    ),
]

SPIN = 200_000_000
"""Clock cycles that a stream is kept busy for, a tenth of a second."""

OPTIONS: dict[str, list[dict[str, Any]]] = {
    "SGD": [{}, {"momentum": 0.9, "nesterov": True, "weight_decay": 0.1}, {"maximize": True}],
    "Adagrad": [{}, {"lr_decay": 0.1, "weight_decay": 0.1}],
    "RMSprop": [{}, {"centered": True, "momentum": 0.9, "weight_decay": 0.1}],
    "Adam": [{}, {"amsgrad": True, "weight_decay": 0.1, "maximize": True}],
    "AdamW": [{}, {"amsgrad": True}, {"eps_inside_sqrt": True, "ema": 0.9}],
    "NAdam": [{}, {"weight_decay": 0.1, "decoupled_weight_decay": True}],
    "RAdam": [{}, {"weight_decay": 0.1}],
    "Adamax": [{}, {"weight_decay": 0.1}],
    "Lion": [{}],
    "Adan": [{}],
}

for_each_class = pytest.mark.parametrize("name", ALL)
for_each_of_torch = pytest.mark.parametrize("name", OF_TORCH)
each_options = pytest.mark.parametrize(
    ("name", "options"),
    [(name, options) for name in ALL for options in OPTIONS[name]],
    ids=[f"{name}-{'-'.join(options) or 'default'}" for name in ALL for options in OPTIONS[name]],
)
for_each_dtype = pytest.mark.parametrize(
    "dtype", [torch.float32, torch.float64, torch.float16, torch.bfloat16, torch.complex64], ids=str
)


def moved(params: Any) -> list[Any]:
    return [torch.nn.Parameter(p.detach().cuda()) for p in params]


def give(params: Any, grads: Any) -> None:
    for p, g in zip(params, grads, strict=True):
        p.grad = None if g is None else g.to(p.device)


def assert_same(ones: Any, others: Any) -> None:
    for one, other in zip(ones, others, strict=True):
        assert torch.equal(bits(one.cpu()), bits(other.cpu()))


def assert_same_states(one: Any, other: Any) -> None:
    """Assert that two optimizers have the same state, in the same bits."""
    found, expected = one.state_dict()["state"], other.state_dict()["state"]
    assert found.keys() == expected.keys()
    for key, state in expected.items():
        assert [*found[key]] == [*state]
        assert_same(found[key].values(), state.values())


@for_each_dtype
@each_options
def test_the_bits_of_the_cpu(name: str, options: dict[str, Any], dtype: Any) -> None:
    there = parameters(dtype)
    here = moved(there)
    expected, found = ours(name)(there, **options), ours(name)(here, **options)
    for step in range(6):
        grads: list[Any] = draw(there, step)
        if step == 3:
            grads[1] = None
        give(there, grads)
        give(here, grads)
        expected.step()
        found.step()
        assert_same(here, there)
    assert_same_states(found, expected)
    for p in here:
        assert all(value.is_cuda for key, value in found.state[p].items() if value.dim())


@pytest.mark.parametrize("fused", [False, True])
@pytest.mark.parametrize("name", ["SGD", "Adagrad", "RMSprop", "Adam", "AdamW", "NAdam", "RAdam"])
def test_state_goes_back_and_forth(name: str, fused: bool) -> None:
    own = {"fused": True} if fused and name in ("SGD", "Adam", "AdamW") else PLAIN_LOOP
    options: dict[str, Any] = {"momentum": 0.9} if name == "SGD" else {}

    def run(turns: list[bool]) -> list[Any]:
        params, state = moved(parameters()), None
        for turn, is_ours in enumerate(turns):
            make = ours(name) if is_ours else theirs(name)
            optimizer = make(params, **options, **({} if is_ours else own))
            if state is not None:
                optimizer.load_state_dict(state)
            for step in range(3 * turn, 3 * turn + 3):
                give(params, draw(params_on_cpu, step))
                optimizer.step()
            state = copy.deepcopy(optimizer.state_dict())
        return [p.cpu() for p in params]

    params_on_cpu = parameters()
    expected = run([False, False, False])
    assert farthest(run([True, False, True]), expected) <= 2e-6
    assert farthest(run([False, True, False]), expected) <= 2e-6


@for_each_of_torch
def test_a_live_optimizer_is_replaced(name: str) -> None:
    there, here = moved(parameters()), moved(parameters())
    expected = theirs(name)(there, **PLAIN_LOOP)
    found: Any = theirs(name)(here, **PLAIN_LOOP)
    for step in range(6):
        if step == 3:
            found = fst.replace(found)
        for params, optimizer in ((there, expected), (here, found)):
            give(params, draw(parameters(), step))
            optimizer.step()
    assert farthest([p.cpu() for p in here], [p.cpu() for p in there]) <= 2e-6


def every_other_column(x: Any) -> Any:
    return torch.full((x.shape[0], 2 * x.shape[1]), 7.25).to(x)[:, ::2].copy_(x)


def one_past_the_start(x: Any) -> Any:
    return torch.full((x.numel() + 2,), 7.25).to(x)[1:-1].view(x.shape).copy_(x)


def transposed(x: Any) -> Any:
    return x.t().contiguous().t()


@pytest.mark.parametrize("lay", [every_other_column, one_past_the_start, transposed])
@for_each_dtype
@pytest.mark.parametrize("name", ["SGD", "AdamW", "Adagrad"])
def test_layouts(name: str, dtype: Any, lay: Any) -> None:
    """Parameters and gradients that are not contiguous, and what is around them."""
    there = parameters(dtype, [(9, 37)])
    (p,) = there
    for part, laid in itertools.product((True, False), repeat=2):
        (own,) = copies(there)
        q = lay(p.detach().cuda()) if part else p.detach().cuda()
        whole = torch.empty(0, dtype=dtype, device="cuda").set_(q.untyped_storage())
        before = whole.clone()
        expected, found = ours(name)([own], lr=0.05), ours(name)([q], lr=0.05)
        for step in range(4):
            (g,) = draw([own], step)
            own.grad, q.grad = g, lay(g.cuda()) if laid else g.cuda()
            expected.step()
            found.step()
        assert_same([q], [own])
        assert_same_states(found, expected)
        guards = before == 7.25
        assert torch.equal(whole[guards], before[guards])


def test_an_expanded_gradient_and_channels_last() -> None:
    (p,) = parameters(shapes=[(4, 3, 5, 6)])
    q = torch.nn.Parameter(p.detach().cuda().to(memory_format=torch.channels_last))
    expected, found = fst.AdamW([p]), fst.AdamW([q])
    for step in range(4):
        g = torch.full((4, 1, 1, 1), 0.5 + step)
        p.grad, q.grad = g.expand(4, 3, 5, 6).contiguous(), g.cuda().expand(4, 3, 5, 6)
        expected.step()
        found.step()
    assert_same([q], [p])
    assert found.state[q]["exp_avg"].is_contiguous(memory_format=torch.channels_last)


@for_each_class
def test_the_current_stream(name: str) -> None:
    """Gradients that a stream has yet to compute, and parameters that it reads next."""
    there = parameters(shapes=[(1000, 100), (33,)])
    here = moved(there)
    expected, found = ours(name)(there), ours(name)(here)
    for step in range(3):
        grads = draw(there, step)
        give(there, [g * 2 for g in grads])
        expected.step()
        on_device = [g.pin_memory().cuda() for g in grads]
        torch.cuda.synchronize()
        with torch.cuda.stream(torch.cuda.Stream()):
            torch.cuda._sleep(SPIN)  # noqa: SLF001  torch has no public one
            give(here, [g * 2 for g in on_device])
            found.step()
            found.zero_grad()  # their memory may be handed out again
            for _ in range(4):
                torch.full((1000, 100), float("nan"), device="cuda")
            read = [p.detach().clone() for p in here]
        torch.cuda.synchronize()
        assert_same(read, there)


def test_parameters_on_both() -> None:
    there = parameters()
    here = copies(there)
    here[::2] = moved(here[::2])
    expected = fst.AdamW(there, max_norm=1.0, nonfinite="skip")
    found = fst.AdamW(here, max_norm=1.0, nonfinite="skip")
    for step in range(5):
        grads = draw(there, step)
        if step == 2:
            grads[5][0, 0] = torch.inf
        give(there, grads)
        give(here, grads)
        expected.step()
        found.step()
        assert found.report.skipped == expected.report.skipped
        one, other = found.report.grad_norm, expected.report.grad_norm
        assert one == pytest.approx(other, rel=1e-15)
    assert farthest([p.cpu() for p in here], there) <= 1e-6


def test_clipping_by_the_norm_has_the_bits_of_the_cpu() -> None:
    there = parameters(shapes=[(300, 401), (5,), (1000,)])
    here = moved(there)
    expected, found = fst.SGD(there, lr=0.1, max_norm=1.0), fst.SGD(here, lr=0.1, max_norm=1.0)
    for step in range(4):
        give(there, draw(there, step))
        give(here, [p.grad for p in there])
        expected.step()
        found.step()
        assert found.report == expected.report
        assert_same(here, there)


@pytest.mark.parametrize("name", ["SGD", "Adam", "AdamW", "Adagrad", "RMSprop"])
def test_a_grad_scaler(name: str) -> None:
    """A step whose gradients overflow is skipped, and the scale comes down, as on the CPU."""

    def run(device: str, make: Any) -> tuple[list[Any], list[float]]:
        scaler = torch.amp.GradScaler(device, init_scale=2.0**10, growth_interval=2)
        params = [torch.nn.Parameter(p.detach().to(device)) for p in parameters(shapes=[(40, 17)])]
        optimizer, scales = make(params), []
        for step in range(6):
            optimizer.zero_grad()
            (g,) = draw(parameters(shapes=[(40, 17)]), step)
            if step == 3:
                g[0, 0] = torch.inf
            loss = sum((p * g.to(device)).sum() for p in params)
            scaler.scale(loss).backward()
            scaler.step(optimizer)
            scaler.update()
            scales.append(scaler.get_scale())
        return params, scales

    here, scales = run("cuda", ours(name))
    there, expected = run("cpu", ours(name))
    assert scales == expected
    assert_same(here, there)
    theirs_on_device, scales = run("cuda", lambda params: theirs(name)(params, **PLAIN_LOOP))
    assert scales == expected
    assert farthest([p.cpu() for p in here], [p.cpu() for p in theirs_on_device]) <= 2e-6


def test_sparse_gradients() -> None:
    there, here = (
        torch.nn.Embedding.from_pretrained(torch.arange(40.0).reshape(10, 4), False, sparse=True)
        for _ in range(2)
    )
    here.cuda()
    for make in (fst.SGD, fst.Adagrad):
        expected, found = make(there.parameters(), lr=0.1), make(here.parameters(), lr=0.1)
        for _ in range(3):
            for table, optimizer in ((there, expected), (here, found)):
                optimizer.zero_grad()
                rows = torch.tensor([1, 3, 3, 9], device=table.weight.device)
                table(rows).pow(2).sum().backward()
                optimizer.step()
        assert_same([here.weight], [there.weight])


def test_steps_in_the_backward_pass() -> None:
    def run(in_backward: bool) -> Any:
        torch.manual_seed(0)
        model = torch.nn.Sequential(torch.nn.Linear(8, 16), torch.nn.Tanh(), torch.nn.Linear(16, 2))
        model.cuda()
        optimizer = fst.AdamW(model.parameters(), lr=0.01)
        if in_backward:
            fst.step_in_backward(model, optimizer)
        for step in range(4):
            x = torch.full((5, 8), 0.1 * step, device="cuda")
            model(x).pow(2).sum().backward()
            optimizer.step()
            optimizer.zero_grad()
        return [*model.parameters()]

    assert_same(run(True), run(False))


def test_steps_in_the_backward_pass_on_both() -> None:
    """Hooks of a device's parameters run in a thread of their own, beside those of the CPU's."""
    here = [torch.nn.Linear(64, 64), *(torch.nn.Linear(64, 64).cuda() for _ in range(3))]
    model = torch.nn.ModuleList(here)
    optimizer = fst.AdamW(model.parameters())
    fst.step_in_backward(model, optimizer)
    for step in range(1, 6):
        x = torch.ones(3, 64)
        sums = [layer(x.to(layer.weight.device)).sum().cpu() for layer in here]
        torch.stack(sums).sum().backward()
        assert {int(state["step"]) for state in optimizer.state.values()} == {step}


def test_a_graph_holds_a_step_that_is_capturable() -> None:
    """Steps with `capturable` are torch's own, which a CUDA graph replays."""
    here, there = moved(parameters(shapes=[(40, 17)])), moved(parameters(shapes=[(40, 17)]))
    found = fst.Adam(here, capturable=True, lr=torch.tensor(1e-3, device="cuda"))
    expected = torch.optim.Adam(there, capturable=True, lr=torch.tensor(1e-3, device="cuda"))
    for params, optimizer in ((here, found), (there, expected)):
        (p,) = params
        p.grad = torch.ones_like(p)
        stream = torch.cuda.Stream()
        with torch.cuda.stream(stream):
            optimizer.step()
        torch.cuda.synchronize()
        graph = torch.cuda.CUDAGraph()
        with torch.cuda.graph(graph):
            optimizer.step()
        for _ in range(3):
            graph.replay()
        torch.cuda.synchronize()
    assert_same(here, there)


@pytest.mark.filterwarnings("ignore:The CUDA Graph is empty")
def test_a_graph_without_it_is_refused() -> None:
    (p,) = moved(parameters(shapes=[(40, 17)]))
    optimizer = fst.Adam([p])
    p.grad = torch.ones_like(p)
    optimizer.step()
    before = p.detach().clone()
    with pytest.raises(RuntimeError, match="cannot be part of a CUDA graph"):  # noqa: SIM117
        with torch.cuda.graph(torch.cuda.CUDAGraph()):
            optimizer.step()
    torch.cuda.synchronize()
    assert_same([p], [before])


def test_functions() -> None:
    """Caller-owned tensors on the device, as torch.optim.functional documents them."""
    p, g = torch.randn(40, 17), torch.randn(40, 17)
    pairs = []
    for device in ("cpu", "cuda"):
        params, grads = [p.clone().to(device)], [g.to(device)]
        m, v = [torch.zeros_like(params[0])], [torch.zeros_like(params[0])]
        steps = [torch.tensor(0.0)]
        for _ in range(3):
            fst.functional.adamw(
                params,
                grads,
                m,
                v,
                [],
                steps,
                amsgrad=False,
                beta1=0.9,
                beta2=0.999,
                lr=1e-3,
                weight_decay=0.01,
                eps=1e-8,
                maximize=False,
            )
        pairs.append([*params, *m, *v, *steps])
    assert_same(pairs[1], pairs[0])


def test_the_caller_s_average() -> None:
    there = parameters()
    targets, targets_there = [p.detach().clone().cuda() for p in there], copies(there)
    here = moved(there)
    expected = fst.AdamW(there, ema=0.9, ema_into=[p.detach() for p in targets_there])
    found = fst.AdamW(here, ema=0.9, ema_into=targets)
    for step in range(3):
        give(there, draw(there, step))
        give(here, [p.grad for p in there])
        expected.step()
        found.step()
    assert_same(targets, targets_there)


def test_a_step_is_laid_out_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """And new gradients are taken at a glance, and the state is not looked at again."""
    from fusedstep.torch import _steps, _tensors

    made, seen = calls_of(monkeypatch, _steps, "Numbered"), []
    check = _tensors.Tensor.check_gradient

    def checking(self: Any, *args: Any) -> Any:
        seen.append(self)
        return check(self, *args)

    monkeypatch.setattr(_tensors.Tensor, "check_gradient", checking)
    here = moved(parameters())
    optimizer = fst.AdamW(here, ema=0.9)
    for step in range(6):
        optimizer.zero_grad()
        give(here, draw(parameters(), step))
        optimizer.step()
    assert len(made) == 1
    assert len(seen) == len(here)
    assert not vars(optimizer)["_steps"].reached


@pytest.mark.parametrize(
    "ways",
    [
        {"master": "split8"},
        {"master": False},
        {"master": "float32", "state_dtype": "8bit"},
        {"state_dtype": "bfloat16", "ema": 0.9},
    ],
    ids=str,
)
def test_what_is_kept_in_fewer_bytes_has_the_bits_of_the_cpu(ways: dict[str, Any]) -> None:
    there = parameters(torch.bfloat16, [(70, 70), (4097,), (300,)])
    here = moved(there)
    expected, found = fst.AdamW(there, 0.01, **ways), fst.AdamW(here, 0.01, **ways)
    for step in range(6):
        for own, each in ((there, expected), (here, found)):
            give(own, draw(there, step))
            each.step()
    assert_same(here, there)
    assert_same_states(found, expected)
    assert_same(found.float32_params(), expected.float32_params())
    found.load_float32_params(found.float32_params())
    again = fst.AdamW(here, 0.01, **ways)
    again.load_state_dict(expected.state_dict())  # from the CPU
    for own, each in ((there, expected), (here, again)):
        give(own, draw(there, 6))
        each.step()
    assert_same(here, there)
    assert_same_states(again, expected)


def test_memory_does_not_grow() -> None:
    (p,) = moved(parameters(shapes=[(1000, 1000)]))
    for dtype in (torch.float32, torch.bfloat16):
        q = p.detach().to(dtype)
        optimizer = fst.AdamW([q])
        taken = []
        for step in range(20):
            q.grad = torch.full_like(q, 0.1 * step)
            optimizer.step()
            q.grad = None
            taken.append(torch.cuda.memory_allocated())
        assert len({*taken[2:]}) == 1


def test_a_loop_as_users_have_it() -> None:
    """Autocast, a scaler, a scheduler, clipping."""
    torch.manual_seed(0)
    model = torch.nn.Sequential(torch.nn.Linear(16, 64), torch.nn.ReLU(), torch.nn.Linear(64, 4))
    model.cuda()
    optimizer = fst.AdamW(model.parameters(), lr=1e-2)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, 1e-2, total_steps=40)
    scaler = torch.amp.GradScaler("cuda")
    x, y = torch.randn(64, 16, device="cuda"), torch.randint(4, (64,), device="cuda")
    losses = []
    for _ in range(40):
        with torch.autocast("cuda", torch.float16):
            loss = torch.nn.functional.cross_entropy(model(x), y)
        optimizer.zero_grad()
        scaler.scale(loss).backward()
        scaler.unscale_(optimizer)
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        scaler.step(optimizer)
        scaler.update()
        schedule.step()
        losses.append(loss.item())
    assert losses[-1] < 0.7 * losses[0]


def test_torchao_offloads_to_steps_on_the_cpu() -> None:
    """Large parameters are stepped in host memory, small ones on the device."""
    pytest.importorskip("torchao", reason="torchao is not installed; `pip install torchao`")
    from torchao.optim import CPUOffloadOptimizer

    def run(offloaded: bool) -> list[Any]:
        torch.manual_seed(0)
        model = torch.nn.Sequential(
            torch.nn.Linear(128, 128), torch.nn.Tanh(), torch.nn.Linear(128, 8)
        )
        model.cuda()
        options: dict[str, Any] = {"lr": 0.01, "weight_decay": 0.1}
        optimizer = (
            CPUOffloadOptimizer(model.parameters(), fst.AdamW, offload_gradients=True, **options)
            if offloaded
            else fst.AdamW(model.parameters(), **options)
        )
        for step in range(5):
            x = torch.full((5, 128), 0.1 * step, device="cuda")
            model(x).pow(2).sum().backward()
            optimizer.step()
            optimizer.zero_grad()
        return [*model.parameters()]

    assert_same(run(True), run(False))


def rows_of(p: Any, step: int) -> Any:
    """A sparse gradient, in which rows stand several times."""
    generator = torch.Generator().manual_seed(step)
    index = torch.randint(0, len(p), (1, 5), generator=generator)
    values = torch.randn(5, p.shape[1], dtype=p.dtype, generator=generator)
    return torch.sparse_coo_tensor(index, values, p.shape, check_invariants=False)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64], ids=str)
@pytest.mark.parametrize(
    "options",
    [
        {"untouched": "exact", "max_norm": 0.5},
        {"untouched": "frozen"},
        {"untouched": "frozen", "row_steps": "shared"},
    ],
    ids=["exact", "own", "shared"],
)
def test_rows_have_the_bits_of_the_cpu(options: dict[str, Any], dtype: Any) -> None:
    there = parameters(dtype, [(40, 17), (5,)])
    here = moved(there)
    expected, found = fst.Adam(there, **options), fst.Adam(here, **options)
    for step in range(12):
        grads = [rows_of(there[0], step), torch.ones_like(there[1])]
        give(there, grads)
        give(here, grads)
        expected.step()
        found.step()
        some = torch.tensor([[3, 7], [7, 39]])
        expected.catch_up({there[0]: some})
        found.catch_up({here[0]: some.cuda() if step % 2 else some})
        assert_same([here[0][some]], [there[0][some]])
        if step == 6:
            saved = copy.deepcopy(found.state_dict())
            found = fst.Adam(here, **options)
            found.load_state_dict(saved)
    for optimizer in (expected, found):
        optimizer.catch_up()
    assert_same(here, there)
    assert_same_states(found, expected)


def test_sparse_adam_on_a_device_is_torchs() -> None:
    one, other = (
        moved(parameters(torch.float64, [(40, 17)])),
        moved(parameters(torch.float64, [(40, 17)])),
    )
    optimizer, reference = fst.SparseAdam(one, lr=0.01), torch.optim.SparseAdam(other, lr=0.01)
    for step in range(30):
        for own, each in ((one, optimizer), (other, reference)):
            give(own, [rows_of(own[0].cpu(), step)])
            each.step()
    assert farthest(one, other) <= 1e-12
