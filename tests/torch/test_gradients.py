"""Changes that a step finds out by itself: other gradients, other memory, other state.

C takes what looks as it did the time before, and all else goes back to Python; both ways are gone
here.
"""

from __future__ import annotations

import ctypes
import gc
import weakref
from collections.abc import Callable
from random import Random
from typing import Any

import numpy as np
import pytest
from counting import calls_of
from marks import needs, needs_c, on_each_backend

torch = needs("torch", "torch")

from torch_cases import ALL, copies, draw, ours, parameters, same_bits, walk  # noqa: E402

import fusedstep as fs  # noqa: E402
import fusedstep.torch as fst  # noqa: E402
from fusedstep._arrays import exchange  # noqa: E402


@pytest.fixture(params=["by C", "by Python"])
def reading(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> str:
    """Tensors read by DLPack's exchange interface, and as in a torch that has none."""
    if request.param == "by Python":
        known = {torch.Tensor: None, torch.nn.Parameter: None, np.ndarray: exchange.NUMPYS}
        monkeypatch.setattr(exchange, "_known", known)
    return str(request.param)


def looks(monkeypatch: pytest.MonkeyPatch) -> list[Any]:
    """The gradients that Python looks at from now on."""
    from fusedstep.torch import _tensors

    seen = []
    check = _tensors.Tensor.check_gradient

    def counting(self: Any, g: Any, place: Any) -> Any:
        seen.append(self.path)
        return check(self, g, place)

    monkeypatch.setattr(_tensors.Tensor, "check_gradient", counting)
    return seen


@needs_c
def test_new_gradients_of_each_backward_pass_are_taken_in_c(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    if exchange.exchange(torch.Tensor) is None:
        pytest.skip("this torch has no exchange interface")
    params = parameters(shapes=[(3, 4), (5,), (), (2, 3, 4)])
    optimizer = fst.AdamW(params)
    walk(optimizer, params, 1)
    seen = looks(monkeypatch)
    for _ in range(5):
        optimizer.zero_grad()
        sum((p * p).sum() for p in params).backward()
        optimizer.step()
    assert seen == []


@needs_c
def test_a_step_is_laid_out_once(monkeypatch: pytest.MonkeyPatch) -> None:
    from fusedstep.torch import _steps

    made = calls_of(monkeypatch, _steps, "Numbered")
    params = parameters()
    optimizer = fst.AdamW(params, max_norm=1.0, ema=0.9)
    walk(optimizer, params, 6)
    assert len(made) == 1


@on_each_backend
def test_every_backend_gives_the_same_bits(backend: str, reading: str) -> None:
    for name in ("SGD", "AdamW", "RMSprop", "NAdam"):
        if backend == "c" and name == "NAdam":
            continue  # a custom rule
        params, expected = parameters(), parameters()
        walk(ours(name)(params, backend=backend), params)
        walk(ours(name)(expected, backend="numpy"), expected)
        assert same_bits(params, expected)


@pytest.mark.parametrize("backend", ["auto", "numpy"])
@pytest.mark.parametrize("name", ALL)
def test_gradients_come_and_go(name: str, backend: str) -> None:
    """Each parameter has its own count, and what is done to it meanwhile is noticed."""
    params = parameters(shapes=[(3, 4), (1000,), (), (0, 3), (40, 17)] * 2)
    expected = copies(params)
    options: dict[str, Any] = {"momentum": 0.9} if name == "SGD" else {}
    optimizer = ours(name)(params, **options, backend=backend)
    # Made anew before each step, and so laid out anew.
    reference = ours(name)(expected, **options, backend="numpy")
    random = Random(0)
    for step in range(20):
        there = [random.random() < 0.6 for _ in params]
        for p, q, g, here in zip(params, expected, draw(params, step), there, strict=True):
            p.grad = g if here else None
            q.grad = g.clone() if here else None
        if step == 8:
            for each in (params, expected):
                each[1].data = each[1].detach().clone()
        if step == 12:
            for each, own in ((params, optimizer), (expected, reference)):
                state = own.state.get(each[4], {})
                for value in state.values():
                    value.mul_(0.5 if value.dim() else 1)
        optimizer.step()
        saved = reference.state_dict()
        reference = ours(name)(expected, **options, backend="numpy")
        reference.load_state_dict(saved)
        reference.step()
        assert same_bits(params, expected)
    assert_same_states(optimizer, reference, params, expected)


def assert_same_states(optimizer: Any, reference: Any, params: Any, expected: Any) -> None:
    for p, q in zip(params, expected, strict=True):
        found, wanted = optimizer.state.get(p, {}), reference.state.get(q, {})
        assert [*found] == [*wanted]
        assert same_bits(found.values(), wanted.values())


@needs_c
def test_patterns_of_gradients_are_laid_out_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """A trunk with heads that take turns."""
    from fusedstep.torch import _steps

    made = calls_of(monkeypatch, _steps, "Numbered")
    params = parameters(shapes=[(3,)] * 6)
    optimizer = fst.AdamW(params)
    for step in range(30):
        for k, p in enumerate(params):
            p.grad = torch.ones(3) if k < 3 or k == 3 + step % 3 else None
        optimizer.step()
    assert len(made) == 3
    assert [int(optimizer.state[p]["step"]) for p in params] == [30] * 3 + [10] * 3


def gradient_of_ones(p: Any) -> Any:
    return torch.ones_like(p)


def negated_lazily(p: Any) -> Any:
    """Ones whose memory holds -1: the imaginary part of a conjugate."""
    complex_ones = torch.complex(torch.zeros(p.shape), -torch.ones(p.shape)).conj()
    lazy = complex_ones.imag
    assert lazy.is_neg()
    return lazy


def expanded(p: Any) -> Any:
    return torch.ones(()).expand(p.shape)


def requiring_grad(p: Any) -> Any:
    return torch.ones(p.shape, requires_grad=True)


def subclassed(p: Any) -> Any:
    class Mine(torch.Tensor):  # type: ignore[misc, name-defined]
        pass

    return torch.ones(p.shape).as_subclass(Mine)


def strided(p: Any) -> Any:
    return torch.ones((*p.shape, 3))[..., 1]


@pytest.mark.parametrize(
    "make",
    [gradient_of_ones, negated_lazily, expanded, requiring_grad, subclassed, strided],
    ids=lambda make: make.__name__,
)
def test_gradients_that_mean_the_same_are_stepped_the_same(
    make: Callable[[Any], Any], reading: str
) -> None:
    """Before, between and after ordinary ones."""
    params, expected = parameters(shapes=[(3, 4), (1,)]), parameters(shapes=[(3, 4), (1,)])
    optimizer, reference = fst.AdamW(params), fst.AdamW(expected)
    for special in (True, False, True, True, False):
        for p, q in zip(params, expected, strict=True):
            p.grad = make(p) if special else gradient_of_ones(p)
            q.grad = gradient_of_ones(q)
        optimizer.step()
        reference.step()
        assert same_bits(params, expected)


def test_conjugated_gradients_of_complex_parameters(reading: str) -> None:
    params, expected = [parameters(torch.complex64, [(3, 4)]) for _ in range(2)]
    optimizer, reference = fst.Adam(params), fst.Adam(expected)
    for step in range(3):
        (g,) = draw(params, step)
        params[0].grad = g.conj()
        expected[0].grad = g.conj().resolve_conj()
        optimizer.step()
        reference.step()
    assert same_bits(params, expected)


# ---- memory that is exchanged ----


def exchange_data(p: Any, optimizer: Any) -> None:
    p.data = p.data.clone()


def exchange_by_set(p: Any, optimizer: Any) -> None:
    with torch.no_grad():
        p.set_(p.detach().clone())


def transpose_data(p: Any, optimizer: Any) -> None:
    p.data = p.data.t().contiguous().t()


def exchange_moment(p: Any, optimizer: Any) -> None:
    state = optimizer.state[p]
    state["exp_avg"] = state["exp_avg"].clone()


def exchange_data_of_moment(p: Any, optimizer: Any) -> None:
    state = optimizer.state[p]
    state["exp_avg_sq"].data = state["exp_avg_sq"].data.clone()


def exchange_state_of_parameter(p: Any, optimizer: Any) -> None:
    optimizer.state[p] = {key: value.clone() for key, value in optimizer.state[p].items()}


def exchange_state(p: Any, optimizer: Any) -> None:
    optimizer.state = {
        q: {key: value.clone() for key, value in state.items()}
        for q, state in optimizer.state.items()
    }


def exchange_groups(p: Any, optimizer: Any) -> None:
    optimizer.param_groups = [dict(group) for group in optimizer.param_groups]


def load_its_own(p: Any, optimizer: Any) -> None:
    optimizer.load_state_dict(optimizer.state_dict())


CHANGES = [
    exchange_data,
    exchange_by_set,
    transpose_data,
    exchange_moment,
    exchange_data_of_moment,
    exchange_state_of_parameter,
    exchange_state,
    exchange_groups,
    load_its_own,
]


@on_each_backend
@pytest.mark.parametrize("change", CHANGES, ids=lambda change: change.__name__)
def test_what_is_exchanged_between_steps_is_noticed(
    change: Callable[[Any, Any], None], backend: str, reading: str
) -> None:
    shapes = [(3, 4), (5, 2)]
    params, expected = parameters(shapes=shapes), parameters(shapes=shapes)
    optimizer = fst.AdamW(params, backend=backend)
    reference = fst.AdamW(expected, backend=backend)
    walk(reference, expected, 4)
    walk(optimizer, params, 2)
    before = weakref.ref(optimizer.state[params[0]]["exp_avg"])
    change(params[0], optimizer)
    walk(optimizer, params, 2, 2)
    assert same_bits(params, expected)
    for p, q in zip(params, expected, strict=True):
        assert same_bits(optimizer.state[p].values(), reference.state[q].values())
    if change is exchange_moment:
        gc.collect()
        assert before() is None


def test_state_is_written_in_place() -> None:
    """The tensors of the state, whoever made them, are those that are stepped."""
    params = parameters(shapes=[(3, 4)])
    optimizer = fst.Adam(params)
    walk(optimizer, params, 1)
    mine = torch.zeros(3, 4)
    optimizer.state[params[0]]["exp_avg"] = mine
    walk(optimizer, params, 1, 1)
    assert optimizer.state[params[0]]["exp_avg"] is mine
    assert mine.any()


def test_a_count_that_is_set_counts() -> None:
    params, expected = parameters(shapes=[(3,)]), parameters(shapes=[(3,)])
    optimizer, reference = fst.Adam(params), torch.optim.Adam(expected)
    for own, each in ((params, optimizer), (expected, reference)):
        walk(each, own, 3)
        each.state[own[0]]["step"].fill_(50.0)
        walk(each, own, 2, 3)
    assert optimizer.state[params[0]]["step"] == 52
    assert torch.allclose(params[0], expected[0], rtol=1e-5)


def test_surgery_as_splats_are_grown() -> None:
    """A parameter is exchanged for a longer one, its state carried over and padded."""
    p = torch.nn.Parameter(torch.ones(4, 3))
    optimizer = fst.Adam([{"params": [p], "lr": 0.1}])
    p.grad = torch.ones(4, 3)
    optimizer.step()
    state = optimizer.state.pop(p)
    longer = torch.nn.Parameter(torch.cat([p.detach(), torch.zeros(2, 3)]))
    for key in ("exp_avg", "exp_avg_sq"):
        state[key] = torch.cat([state[key], torch.zeros(2, 3)])
    optimizer.state[longer] = state
    optimizer.param_groups[0]["params"] = [longer]
    before = longer.detach().clone()
    longer.grad = torch.ones(6, 3)
    optimizer.step()
    assert optimizer.state[longer]["step"] == 2
    assert bool((longer < before).all())
    assert [*optimizer.state] == [longer]


def test_a_list_of_parameters_that_is_changed_in_place() -> None:
    one, other = parameters(shapes=[(3,), (3,)])
    optimizer = fst.SGD([one])
    one.grad = torch.ones(3)
    optimizer.step()
    optimizer.param_groups[0]["params"][0] = other
    other.grad = torch.ones(3)
    before = copies([one, other])
    optimizer.step()
    assert same_bits([one], [before[0]])
    assert not same_bits([other], [before[1]])


def test_nothing_of_a_step_keeps_gradients_alive(reading: str) -> None:
    params = parameters(shapes=[(300,)])
    optimizer = fst.AdamW(params)
    for step in range(4):
        params[0].grad = torch.ones(300) * step
        optimizer.step()
    gone = weakref.ref(params[0].grad)
    params[0].grad = None
    gc.collect()
    assert gone() is None


@on_each_backend
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.complex64], ids=str)
def test_nor_where_they_lie_otherwise_than_their_parameter(
    backend: str, dtype: Any, reading: str
) -> None:
    params = parameters(dtype, [(30, 20)])
    reference = copies(params)
    optimizer = fst.AdamW(params, backend=backend)
    expected = fst.AdamW(reference, backend=backend)
    for step in range(4):
        (g,) = draw(params, step)
        params[0].grad = g.t().contiguous().t()
        reference[0].grad = g
        optimizer.step()
        expected.step()
    gone = weakref.ref(params[0].grad.untyped_storage())
    params[0].grad = None
    gc.collect()
    assert gone() is None
    assert same_bits(params, reference)


# ---- plain optimizers over tensors ----


@on_each_backend
def test_plain_optimizers_take_tensors(backend: str, reading: str) -> None:
    shapes: list[tuple[int, ...]] = [(3, 4), (5,), (), (7, 2), (0, 3)]
    params = parameters(shapes=shapes)
    params[3].data = params[3].data.t().contiguous().t()
    arrays = [p.detach().numpy().copy() for p in params]
    optimizer = fs.AdamW(params, lr=0.1, backend=backend)
    reference = fs.AdamW(arrays, lr=0.1, backend=backend)
    for step in range(4):
        grads = draw(params, step)
        optimizer.step(grads, max_norm=1.0)
        reference.step([g.numpy() for g in grads], max_norm=1.0)
    for p, array in zip(params, arrays, strict=True):
        assert same_bits([p], [torch.from_numpy(array)])


@on_each_backend
@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16], ids=str)
def test_plain_optimizers_take_tensors_of_16_bits(backend: str, dtype: Any, reading: str) -> None:
    params, expected = parameters(dtype), parameters(dtype)
    optimizer = fs.AdamW(params, lr=0.1, weight_decay=0.01, backend=backend)
    reference = fst.AdamW(expected, lr=0.1, backend=backend)
    for step in range(4):
        optimizer.step(draw(params, step))
        for p, g in zip(expected, draw(expected, step), strict=True):
            p.grad = g
        reference.step()
    assert same_bits(params, expected)
    full = [torch.from_numpy(each) for each in optimizer.float32_params()]
    assert same_bits(full, reference.float32_params())


@on_each_backend
def test_tensors_and_arrays_may_be_mixed(backend: str) -> None:
    p, array = torch.ones(4), np.ones(4, np.float32)
    optimizer = fs.SGD({"p": p, "array": array}, lr=0.5, backend=backend)
    for _ in range(2):
        optimizer.step({"p": np.ones(4, np.float32), "array": torch.ones(4)})
        optimizer.step({"p": torch.ones(4), "array": np.ones(4, np.float32)})
    assert p.tolist() == array.tolist() == [-1.0] * 4


def test_a_plain_optimizer_refuses_a_tensor_that_was_exchanged(reading: str) -> None:
    p = torch.ones(4)
    optimizer = fs.SGD(p)
    optimizer.step(torch.ones(4))
    p.data = torch.ones(5)
    with pytest.raises(ValueError, match="has been resized"):
        optimizer.step(torch.ones(4))


@pytest.mark.parametrize(
    ("tensor", "message"),
    [
        (lambda: torch.eye(3).to_sparse(), "tensor that NumPy cannot view"),
        (lambda: torch.ones(3, dtype=torch.int16), "dtype '<i2'"),
        (lambda: torch.ones(3, dtype=torch.float8_e5m2), "tensor that NumPy cannot view"),
        (lambda: torch.ones(3, device="meta"), "tensor that NumPy cannot view"),
        (lambda: torch.ones(3).expand(2, 3), "elements that share memory"),
        (lambda: torch.ones(3, dtype=torch.complex64), "dtype '<c8'"),
    ],
)
def test_tensors_that_plain_optimizers_refuse(tensor: Any, message: str) -> None:
    with pytest.raises((TypeError, ValueError), match=message):
        fs.SGD(tensor())


# ---- state that nobody else has ----


def steps_of(optimizer: Any) -> Any:
    return vars(optimizer)["_steps"]


@needs_c
def test_state_that_nobody_else_has_is_not_looked_at_again() -> None:
    params = parameters()
    optimizer = fst.AdamW(params, ema=0.9)
    walk(optimizer, params, 2)
    assert not steps_of(optimizer).reached
    ways: list[Callable[[], Any]] = [
        lambda: optimizer.state,
        lambda: optimizer.state[params[0]]["step"],
    ]
    for hold in ways:
        held = hold()
        walk(optimizer, params, 1, 3)
        assert steps_of(optimizer).reached
        del held
        walk(optimizer, params, 16, 4)
        assert not steps_of(optimizer).reached


def hold_state(optimizer: Any, p: Any) -> tuple[Any, Callable[[Any], None]]:
    return optimizer.state, lambda held: held[p].update(exp_avg=held[p]["exp_avg"].clone())


def hold_inner(optimizer: Any, p: Any) -> tuple[Any, Callable[[Any], None]]:
    return optimizer.state[p], lambda held: held.update(exp_avg=held["exp_avg"].clone())


def hold_tensor(optimizer: Any, p: Any) -> tuple[Any, Callable[[Any], None]]:
    def change(held: Any) -> None:
        held.data = held.data.clone()

    return optimizer.state[p]["exp_avg"], change


def hold_count(optimizer: Any, p: Any) -> tuple[Any, Callable[[Any], None]]:
    return optimizer.state[p]["step"], lambda held: held.fill_(held.item())


def hold_what_was_saved(optimizer: Any, p: Any) -> tuple[Any, Callable[[Any], None]]:
    def change(held: Any) -> None:
        tensor = held["state"][0]["exp_avg_sq"]
        tensor.data = tensor.data.clone()

    return optimizer.state_dict(), change


def hold_in_a_hook(optimizer: Any, p: Any) -> tuple[Any, Callable[[Any], None]]:
    kept: list[Any] = []
    optimizer.register_step_post_hook(lambda o, *_: kept.append(o.state[p]["exp_avg"]))

    def change(held: Any) -> None:
        held[-1].data = held[-1].data.clone()

    return kept, change


HOLDING = [hold_state, hold_inner, hold_tensor, hold_count, hold_what_was_saved, hold_in_a_hook]


@on_each_backend
@pytest.mark.parametrize("hold", HOLDING, ids=lambda hold: hold.__name__)
@pytest.mark.parametrize("steps", [1, 3, 17])
def test_whoever_holds_state_may_change_it_at_any_time(hold: Any, backend: str, steps: int) -> None:
    shapes = [(3, 4), (5, 2)]
    params, expected = parameters(shapes=shapes), parameters(shapes=shapes)
    optimizer = fst.AdamW(params, backend=backend)
    reference = fst.AdamW(expected, backend=backend)
    walk(optimizer, params, 3)
    held, change = hold(optimizer, params[0])
    walk(optimizer, params, steps, 3)
    change(held)
    walk(optimizer, params, 2, 3 + steps)
    walk(reference, expected, 5 + steps)
    assert same_bits(params, expected)
    for p, q in zip(params, expected, strict=True):
        assert same_bits(optimizer.state[p].values(), reference.state[q].values())


@needs_c
def test_state_stands_while_it_is_as_c_has_learnt_it() -> None:
    if exchange.exchange(torch.Tensor) is None:
        pytest.skip("this torch has no exchange interface")
    from fusedstep._engine import lib

    params = parameters(shapes=[(2, 3)])
    optimizer = fst.AdamW(params, backend="c")
    walk(optimizer, params, 2)
    steps: Any = optimizer._steps  # noqa: SLF001
    (layout,) = steps.layouts.values()
    table = layout.plan.table.table
    known, ndim = table.watched[0], table.watched[0].ndim
    assert lib.fs_stands(table, 1) == 1
    for name, change in (("data", 8), ("dtype", 1), ("elements", 1), ("library", -9)):
        before = getattr(known, name)
        setattr(known, name, before + change)
        assert lib.fs_stands(table, 1) == 0, name
        setattr(known, name, before)
    for at in range(2 * ndim):
        known.layout[at] += 1
        assert lib.fs_stands(table, 1) == 0
        lib.fs_learn(table)
        assert lib.fs_stands(table, 1) == 1
    known.ndim += 1
    assert lib.fs_stands(table, 1) == 0
    known.layout[0] += 1
    lib.fs_learn(table)  # what has other dimensions is not learnt
    known.ndim -= 1
    assert lib.fs_stands(table, 1) == 0
    lib.fs_learn(table)
    library = known.library
    read = table.libraries[library].read
    table.libraries[library].read = ctypes.cast(NEVER, ctypes.c_void_p).value
    assert lib.fs_stands(table, 1) == 0
    known.layout[0] += 1
    lib.fs_learn(table)  # nor is what cannot be read
    table.libraries[library].read = read
    assert lib.fs_stands(table, 1) == 0
    lib.fs_learn(table)
    assert lib.fs_stands(table, 1) == 1


def never(_: Any, __: Any) -> int:
    return -1


NEVER = ctypes.PYFUNCTYPE(ctypes.c_int, ctypes.py_object, ctypes.c_void_p)(never)
"""A reader of DLPack's that cannot describe a tensor."""
