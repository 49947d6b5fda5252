"""Tensors on which other fused steps on the CPU are wrong without a word, each stepped rightly.

Every test has a parameter that lies otherwise than the one it is held against, which is contiguous
and alone in its memory. Values must be the same bits, and memory around them untouched.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
from marks import needs

torch = needs("torch", "torch")

from torch_cases import ALL, draw, ours, same_bits  # noqa: E402

import fusedstep.torch as fst  # noqa: E402

GUARD = 7.25
"""The value of elements around a parameter, which nothing may change."""

for_each_class = pytest.mark.parametrize("name", ALL)
for_each_dtype = pytest.mark.parametrize(
    "dtype", [torch.float32, torch.float64, torch.float16, torch.bfloat16, torch.complex64], ids=str
)

Lay = Callable[[Any], tuple[Any, Any]]
"""A function that gives a tensor of these values another layout, and the whole of its memory."""


def within(shape: list[int], dtype: Any, view: Callable[[Any], Any]) -> tuple[Any, Any]:
    whole = torch.full(shape, GUARD, dtype=dtype)
    return view(whole), whole


def every_other_column(x: Any) -> tuple[Any, Any]:
    return within([x.shape[0], 2 * x.shape[1]], x.dtype, lambda w: w[:, ::2])


def inner_columns(x: Any) -> tuple[Any, Any]:
    return within([x.shape[0], x.shape[1] + 4], x.dtype, lambda w: w[:, 2:-2])


def one_past_the_start(x: Any) -> tuple[Any, Any]:
    return within([x.numel() + 2], x.dtype, lambda w: w[1:-1].view(x.shape))


def transposed(x: Any) -> tuple[Any, Any]:
    return within([x.shape[1], x.shape[0]], x.dtype, lambda w: w.t())


def part_of_a_part(x: Any) -> tuple[Any, Any]:
    return within([3, x.shape[1] + 1, x.shape[0] + 1], x.dtype, lambda w: w[1, 1:, :-1].t())


LAYOUTS: list[Lay] = [
    every_other_column,
    inner_columns,
    one_past_the_start,
    transposed,
    part_of_a_part,
]

for_each_layout = pytest.mark.parametrize("lay", LAYOUTS, ids=lambda lay: lay.__name__)


def values(dtype: Any, shape: tuple[int, ...] = (9, 37)) -> Any:
    return torch.randn(shape, dtype=dtype, generator=torch.Generator().manual_seed(1))


def steps(name: str, p: Any, lay: Lay | None = None, **options: Any) -> tuple[Any, list[Any]]:
    """The parameter after four steps, and its state; gradients are laid out by `lay`."""
    optimizer = ours(name)([p], lr=0.05, **options)
    for step in range(4):
        (g,) = draw([p], step)
        if lay is not None:
            laid, _ = lay(g)
            laid.copy_(g)
            g = laid
        p.grad = g
        optimizer.step()
    return p, [value for value in optimizer.state[p].values() if value.dim()]


@for_each_layout
@for_each_dtype
@for_each_class
def test_a_parameter_that_is_not_contiguous(name: str, dtype: Any, lay: Lay) -> None:
    x = values(dtype)
    p, whole = lay(x)
    outside = torch.ones_like(whole, dtype=torch.bool)
    inside, _ = p.as_strided(p.shape, p.stride(), p.storage_offset()), None
    torch.as_strided(outside, inside.shape, inside.stride(), inside.storage_offset()).fill_(False)
    p.copy_(x)
    expected, states = steps(name, x.clone())
    found, their_states = steps(name, p)
    assert same_bits([found, *their_states], [expected, *states])
    assert bool((whole[outside] == GUARD).all())


@for_each_layout
@for_each_dtype
@for_each_class
def test_a_gradient_that_is_not_contiguous(name: str, dtype: Any, lay: Lay) -> None:
    expected, states = steps(name, values(dtype))
    found, their_states = steps(name, values(dtype), lay)
    assert same_bits([found, *their_states], [expected, *states])


@for_each_class
def test_channels_last(name: str) -> None:
    shape = (3, 5, 7, 9)
    expected, states = steps(name, values(torch.float32, shape))
    p = values(torch.float32, shape).to(memory_format=torch.channels_last)
    found, their_states = steps(name, p)
    assert same_bits([found, *their_states], [expected, *states])
    assert all(state.is_contiguous(memory_format=torch.channels_last) for state in their_states)


@for_each_class
def test_a_gradient_that_is_expanded(name: str) -> None:
    def run(expanded: bool) -> Any:
        p = values(torch.float32)
        optimizer = ours(name)([p])
        for step in range(3):
            g = torch.full((9, 1), 0.5 + step).expand(9, 37)
            p.grad = g if expanded else g.contiguous()
            optimizer.step()
        return p

    assert same_bits([run(True)], [run(False)])


@pytest.mark.parametrize("size", [1, 2, 7, 8, 15, 16, 17, 31, 33, 63, 64, 65, 127, 129, 1000])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float16, torch.bfloat16], ids=str)
@for_each_class
def test_the_tail_rounds_as_the_body_does(name: str, dtype: Any, size: int) -> None:
    """The new value of an element does not depend on where it stands."""
    x, g = values(torch.float32, (1,)).to(dtype), values(torch.float32, (1,)).to(dtype) / 3
    p = x.repeat(size)
    optimizer = ours(name)([p], lr=0.05)
    for _ in range(5):
        p.grad = g.repeat(size)
        optimizer.step()
    assert len(p.unique()) == 1


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16], ids=str)
@for_each_class
def test_halves_are_updated_wherever_they_stand(name: str, dtype: Any) -> None:
    p = torch.ones(1000, dtype=dtype)
    optimizer = ours(name)([p], lr=0.25)
    p.grad = torch.ones(1000, dtype=dtype)
    optimizer.step()
    assert bool((p < 1).all())
    assert len(p.unique()) == 1


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16], ids=str)
@for_each_class
def test_halves_are_stepped_in_float32_and_rounded_once(name: str, dtype: Any) -> None:
    x, g = values(torch.float32).to(dtype), values(torch.float32).to(dtype)
    wide = x.float()
    optimizer = ours(name)([wide], lr=0.05)
    wide.grad = g.float()
    optimizer.step()
    half = x.clone()
    optimizer = ours(name)([half], lr=0.05, master="float32")
    half.grad = g
    optimizer.step()
    assert same_bits([half], [wide.to(dtype)])


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32], ids=str)
def test_adagrad_with_a_gradient_of_zero_stays_where_it_is(dtype: Any) -> None:
    """ε is 1e-10, which float16 takes for 0: 0/(0 + 0) would be NaN."""
    p = torch.ones(33, dtype=dtype)
    optimizer = fst.Adagrad([p])
    p.grad = torch.zeros(33, dtype=dtype)
    optimizer.step()
    assert bool((p == 1).all())


def test_parameters_that_share_memory_are_refused() -> None:
    whole = torch.zeros(10)
    one, other = whole[:6], whole[4:]
    optimizer = fst.SGD([one, other])
    for p in (one, other):
        p.grad = torch.ones(6)
    with pytest.raises(ValueError, match="share memory"):
        optimizer.step()
    assert not whole.any()


def test_a_gradient_in_the_memory_of_a_parameter_is_refused() -> None:
    p = torch.ones(6)
    optimizer = fst.Adam([p])
    p.grad = p.view(6)
    with pytest.raises(ValueError, match="shares memory with params"):
        optimizer.step()
    assert bool((p == 1).all())
    assert not optimizer.state


# ---- gradients without memory ----


class Zeros(torch.autograd.Function):  # type: ignore[name-defined,misc]
    """Twice x, with a gradient of autograd's own zeros."""

    @staticmethod
    def forward(ctx: Any, x: Any) -> Any:
        return x * 2

    @staticmethod
    def backward(ctx: Any, g: Any) -> Any:
        return torch._efficientzerotensor(g.shape, dtype=g.dtype)  # noqa: SLF001


@for_each_dtype
@for_each_class
def test_zeros_that_autograd_does_not_write_down(name: str, dtype: Any) -> None:
    def run(written: bool) -> Any:
        p = torch.nn.Parameter(values(dtype))
        optimizer = ours(name)([p])
        for step in range(3):
            if step == 1:
                Zeros.apply(p).abs().sum().backward()
                assert p.grad._is_zerotensor()  # noqa: SLF001
                p.grad = torch.zeros_like(p.grad) if written else p.grad
            else:
                (p.grad,) = draw([p], step)
            optimizer.step()
            p.grad = None
        return p

    assert same_bits([run(False)], [run(True)])


def test_a_gradient_whose_storage_was_freed_is_refused() -> None:
    p = torch.nn.Parameter(torch.ones(8))
    optimizer = fst.AdamW([p])
    for _ in range(2):
        p.grad = torch.ones(8)
        optimizer.step()
    before = p.detach().clone()
    p.grad.untyped_storage().resize_(0)
    with pytest.raises(TypeError, match="its storage was freed"):
        optimizer.step()
    assert same_bits([p], [before])
