"""Parameters of 16 bits, and state in fewer bytes: held against the same run in float32."""

from __future__ import annotations

import copy
import io
import pickle
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import numpy as np
import pytest
from counting import calls_of
from marks import needs, needs_c, on_each_backend

torch = needs("torch", "torch")

from torch_cases import ALL, OF_TORCH, farthest, ours, same_bits, theirs  # noqa: E402

import fusedstep as fs  # noqa: E402
import fusedstep.torch as fst  # noqa: E402
from fusedstep._numerics.storage import STORAGES, in_natural_order  # noqa: E402

BFLOAT, HALF = torch.bfloat16, torch.float16

SIZES = (1, 255, 256, 257, 4095, 4096, 4097)

SEVERAL = {"SGD": {"momentum": 0.9, "nesterov": True}, "RMSprop": {"momentum": 0.9}}
"""Options by which a class has all of its state."""

STORED: list[dict[str, Any]] = [
    {},
    {"master": "split8"},
    {"master": "float32"},
    {"master": False},
    {"state_dtype": "bfloat16"},
    {"state_dtype": "8bit"},
    {"master": "split8", "state_dtype": "8bit", "seed": 7},
    {"master": "float32", "state_dtype": {"exp_avg": "8bit"}, "rounding": "nearest"},
    {"ema": 0.9},
]
"""Ways to keep bfloat16 parameters and AdamW's state."""


def names_of(options: dict[str, Any]) -> str:
    return ", ".join(f"{name}={value}" for name, value in options.items()) or "default"


for_each_way = pytest.mark.parametrize("ways", STORED, ids=names_of)


def drawn(sizes: Sequence[Any], step: int, dtype: Any = torch.float32) -> list[Any]:
    generator = torch.Generator().manual_seed(step)
    scale = 10.0 ** (step % 5 - 2)
    return [(torch.randn(n, generator=generator) * scale).to(dtype) for n in sizes]


def pairs(dtype: Any, sizes: Sequence[Any] = SIZES) -> tuple[list[Any], list[Any]]:
    """Parameters of 16 bits, and float32 ones of the same values."""
    narrow = [torch.nn.Parameter(x) for x in drawn(sizes, 0, dtype)]
    return narrow, [torch.nn.Parameter(p.detach().float()) for p in narrow]


def given(params: Sequence[Any], grads: Sequence[Any]) -> None:
    for p, g in zip(params, grads, strict=True):
        if hasattr(p, "grad_dtype"):
            p.grad_dtype = None
        p.grad = g.clone()


def walk(optimizer: Any, params: Sequence[Any], steps: Sequence[int], dtype: Any = BFLOAT) -> None:
    for step in steps:
        given(params, drawn([p.shape for p in params], step, dtype))
        optimizer.step()


def ties_away(wide: Any) -> Any:
    """The nearest bfloat16, ties away from zero."""
    bits = wide.detach().view(torch.int32).numpy().view(np.uint32)
    return torch.from_numpy(((bits + 0x8000) >> 16).astype(np.int16)).view(BFLOAT)


def values(optimizer: Any) -> list[Any]:
    """All that is in the state, in the order of the parameters."""
    params = [p for group in optimizer.param_groups for p in group["params"]]
    return [value for p in params for value in optimizer.state[p].values()]


def assert_same(one: Any, other: Any) -> None:
    """The same state, to the last bit and dtype."""
    for found, expected in zip(values(one), values(other), strict=True):
        if isinstance(expected, tuple):
            assert found == expected
        else:
            assert found.dtype == expected.dtype
            assert torch.equal(found, expected)


# ---- the same as in float32 ----


@pytest.mark.parametrize("name", ALL)
@pytest.mark.parametrize("dtype", [BFLOAT, HALF], ids=str)
def test_a_run_is_that_of_float32(name: str, dtype: Any) -> None:
    """No bit of a parameter differs over hundreds of steps, nor of any state."""
    narrow, wide = pairs(dtype)
    options = {"lr": 0.01, **SEVERAL.get(name, {})}
    optimizer, reference = ours(name)(narrow, **options), ours(name)(wide, **options)
    for step in range(1, 301):
        grads = drawn(SIZES, step, dtype if step % 3 else torch.float32)
        given(narrow, grads)
        given(wide, [g.float() for g in grads])
        optimizer.step()
        reference.step()
        if step % 100 == 0:
            assert same_bits(optimizer.float32_params(), wide)
            rounded = [ties_away(q) if dtype is BFLOAT else q.half() for q in wide]
            assert same_bits(narrow, rounded)
    beside = "tail" if dtype is BFLOAT else "master"
    for p, q in zip(narrow, wide, strict=True):
        state = dict(optimizer.state[p])
        assert state.pop(beside).dtype is (torch.int16 if dtype is BFLOAT else torch.float32)
        assert same_bits(state.values(), reference.state[q].values())


@on_each_backend
@for_each_way
def test_every_backend_gives_the_same_bits(ways: dict[str, Any], backend: str) -> None:
    params, expected = pairs(BFLOAT)[0], pairs(BFLOAT)[0]
    optimizer = fst.AdamW(params, 0.01, backend=backend, **ways)
    reference = fst.AdamW(expected, 0.01, backend="numpy", **ways)
    walk(optimizer, params, range(1, 40))
    walk(reference, expected, range(1, 40))
    assert same_bits(params, expected)
    assert_same(optimizer, reference)


@pytest.mark.parametrize("name", OF_TORCH)
def test_it_stays_near_torchs_own_in_float32(name: str) -> None:
    narrow, wide = pairs(BFLOAT)
    options = {"lr": 0.01, **SEVERAL.get(name, {})}
    optimizer, reference = ours(name)(narrow, **options), theirs(name)(wide, **options)
    for step in range(1, 40):
        grads = drawn(SIZES, step, BFLOAT)
        given(narrow, grads)
        given(wide, [g.float() for g in grads])
        optimizer.step()
        reference.step()
    assert farthest(optimizer.float32_params(), wide) < 1e-4  # of torch's last bits


@pytest.mark.parametrize("dtype", [BFLOAT, HALF], ids=str)
def test_gradients_of_16_bits_step_float32_parameters(dtype: Any) -> None:
    _, params = pairs(dtype)
    _, expected = pairs(dtype)
    optimizer = fst.AdamW(params, max_norm=1.0)
    reference = fst.AdamW(expected, max_norm=1.0)
    for step in range(1, 5):
        grads = drawn(SIZES, step, dtype)
        given(params, grads)
        given(expected, [g.float() for g in grads])
        optimizer.step()
        reference.step()
        assert optimizer.report == reference.report
    assert same_bits(params, expected)


@pytest.mark.parametrize(
    "options", [{"max_norm": 0.5}, {"max_norm": 0.5, "clip": "tensor"}, {"max_value": 0.01}]
)
def test_what_comes_before_the_rule_reads_16_bits(options: dict[str, Any]) -> None:
    narrow, wide = pairs(BFLOAT)
    optimizer, reference = fst.Adam(narrow, 0.01, **options), fst.Adam(wide, 0.01, **options)
    for step in range(1, 10):
        grads = drawn(SIZES, step, BFLOAT)
        given(narrow, grads)
        given(wide, [g.float() for g in grads])
        optimizer.step()
        reference.step()
        assert optimizer.report == reference.report
    assert same_bits(optimizer.float32_params(), wide)


# ---- low-bit state ----


def test_state_is_kept_as_asked() -> None:
    params, _ = pairs(BFLOAT, [(64, 64), 4097, 100])
    optimizer = fst.AdamW(params, state_dtype={"exp_avg": "bfloat16", "v": "8bit"})
    walk(optimizer, params, range(1, 4))
    large, padded, small = (optimizer.state[p] for p in params)
    assert (large["exp_avg"].dtype, large["exp_avg"].shape) == (BFLOAT, (64, 64))
    assert (padded["exp_avg_sq"].dtype, padded["exp_avg_sq"].shape) == (torch.uint8, (4352,))
    assert padded["exp_avg_sq_base"].shape == (17,)
    assert small["exp_avg_sq"].dtype is torch.float32
    assert "exp_avg_sq_base" not in small


def test_codes_are_those_of_the_plain_optimizer() -> None:
    (p,), (q,) = pairs(BFLOAT, [(70, 70)])
    optimizer = fst.AdamW([q], 0.01, state_dtype="8bit", seed=3)
    array = q.detach().numpy().copy()
    plain = fs.AdamW(array, 0.01, weight_decay=0.01, state_dtype="8bit", seed=3)
    for step in range(1, 6):
        (g,) = drawn([(70, 70)], step)
        given([q], [g])
        optimizer.step()
        plain.step(g.numpy())
    assert same_bits([q], [torch.from_numpy(array)])
    found, saved = optimizer.state[q], plain.state_dict()["state"]
    for name, letter in (("exp_avg", "m"), ("exp_avg_sq", "v")):
        codes = in_natural_order(found[name].numpy(), 4900).reshape(70, 70)
        assert np.array_equal(codes, saved[letter])
        assert np.array_equal(found[f"{name}_base"].numpy(), saved[f"{letter}_base"])
    assert p.dtype is BFLOAT


@pytest.mark.parametrize("state_dtype", ["bfloat16", "8bit"])
@pytest.mark.parametrize("name", [each for each in ALL if each != "Adagrad"])
def test_low_bits_stay_near_float32(name: str, state_dtype: str) -> None:
    def run(**more: Any) -> Any:
        p = torch.nn.Parameter(drawn([5000], 0)[0])
        optimizer = ours(name)([p], lr=1e-3, **SEVERAL.get(name, {}), **more)
        for step in range(1, 31):
            (p.grad,) = (g * 10.0 ** (2 - step % 5) for g in drawn([5000], step))
            optimizer.step()
        return p.detach()

    moved = (run() - drawn([5000], 0)[0]).norm()
    assert (run() - run(state_dtype=state_dtype)).norm() < 0.25 * moved


def test_seeds_differ_and_repeat() -> None:
    def run(seed: int) -> Any:
        params, _ = pairs(BFLOAT)
        optimizer = fst.AdamW([{"params": params, "seed": seed}], 0.01, master=False)
        walk(optimizer, params, range(1, 10))
        return params

    assert same_bits(run(1), run(1))
    assert not same_bits(run(1), run(2))


def test_tensors_draw_by_their_place_among_all() -> None:
    """Groups, and steps in the backward pass, do not change it."""
    x = torch.ones(4096, dtype=BFLOAT)

    def run(groups: Callable[[list[Any]], Any], alone: bool = False) -> list[Any]:
        params = [torch.nn.Parameter(x.clone()) for _ in range(3)]
        optimizer = fst.SGD(groups(params), 1e-3, master=False)
        for _ in range(5):
            given(params, [x] * 3)
            if alone:
                for p in reversed(params):
                    assert optimizer.step_one(p)
            else:
                optimizer.step()
        return params

    one = run(lambda params: params)
    assert same_bits(one, run(lambda params: [{"params": params[:1]}, {"params": params[1:]}]))
    assert same_bits(
        one, run(lambda params: [{"params": params[:2]}, {"params": params[2:]}], True)
    )
    assert not same_bits(one[:1], one[1:2])


# ---- saved and loaded ----


def by_file(state_dict: Any) -> Any:
    file = io.BytesIO()
    torch.save(state_dict, file)
    file.seek(0)
    return torch.load(file, weights_only=True)


@for_each_way
@pytest.mark.parametrize("name", ["SGD", "AdamW", "NAdam"])
def test_a_run_is_resumed_to_the_bit(name: str, ways: dict[str, Any]) -> None:
    if name == "SGD":
        ways = {"momentum": 0.9, **ways}
        if isinstance(ways.get("state_dtype"), dict):
            ways = {**ways, "state_dtype": {"momentum_buffer": "8bit"}}
    params, _ = pairs(BFLOAT, [(70, 70), 300])
    optimizer = ours(name)(params, lr=0.01, **ways)
    walk(optimizer, params, range(1, 4))

    loaded = copy.deepcopy(params)
    from_file = ours(name)(loaded, lr=0.01, **ways)
    from_file.load_state_dict(by_file(optimizer.state_dict()))
    assert_same(from_file, optimizer)
    resumed = [
        (loaded, from_file),
        copy.deepcopy((params, optimizer)),
        pickle.loads(pickle.dumps((params, optimizer))),
    ]
    walk(optimizer, params, range(4, 8))
    for others, each in resumed:
        walk(each, others, range(4, 8))
        assert same_bits(others, params)
        assert_same(each, optimizer)


@pytest.mark.parametrize("state_dtype", ["bfloat16", "8bit"])
def test_low_bits_of_float32_parameters_are_resumed_to_the_bit(state_dtype: str) -> None:
    _, params = pairs(BFLOAT, [(70, 70), 300])
    optimizer = fst.NAdam(params, 0.01, state_dtype=state_dtype, seed=5)
    walk(optimizer, params, range(1, 4), torch.float32)
    others = copy.deepcopy(params)
    other = fst.NAdam(others, 0.01, state_dtype=state_dtype)
    other.load_state_dict(by_file(optimizer.state_dict()))
    assert_same(other, optimizer)
    for own, each in ((params, optimizer), (others, other)):
        walk(each, own, range(4, 8), torch.float32)
    assert same_bits(others, params)
    assert_same(other, optimizer)


def test_sgd_counts_where_its_random_bits_depend_on_it() -> None:
    params, _ = pairs(BFLOAT, [300])
    optimizer = fst.SGD(params, 1e-3, master=False, rounding="nearest", momentum=0.9)
    walk(optimizer, params, range(1, 3))
    assert "step" not in optimizer.state[params[0]]
    optimizer.param_groups[0]["rounding"] = "stochastic"
    walk(optimizer, params, range(3, 6))
    others = copy.deepcopy(params)
    other = fst.SGD(others, 1e-3, master=False, rounding="stochastic", momentum=0.9)
    other.load_state_dict(by_file(optimizer.state_dict()))
    for own, each in ((params, optimizer), (others, other)):
        walk(each, own, range(6, 9))
    assert same_bits(others, params)
    assert_same(other, optimizer)


def test_replacing_takes_choices_along() -> None:
    (p,), (q,) = pairs(BFLOAT, [5000])[0], pairs(BFLOAT, [5000])[0]
    optimizer = fst.replace(torch.optim.AdamW([p], 0.01), state_dtype="8bit", seed=3)
    reference = fst.AdamW([q], 0.01, state_dtype="8bit", seed=3)
    walk(optimizer, [p], range(1, 5))
    walk(reference, [q], range(1, 5))
    assert same_bits([p], [q])
    assert_same(optimizer, reference)
    torchs = torch.optim.AdamW([torch.nn.Parameter(torch.ones(3).half())])
    with pytest.raises(ValueError, match="master=False and params"):
        fst.replace(torchs, master=False)
    assert type(torchs) is torch.optim.AdamW


def test_fp16_is_resumed_to_the_bit() -> None:
    params, _ = pairs(HALF)
    optimizer = fst.Adam(params, 0.01)
    walk(optimizer, params, range(1, 4), HALF)
    others = copy.deepcopy(params)
    other = fst.Adam(others, 0.01)
    other.load_state_dict(by_file(optimizer.state_dict()))
    for own, each in ((params, optimizer), (others, other)):
        walk(each, own, range(4, 8), HALF)
    assert same_bits(others, params)
    assert_same(other, optimizer)


@pytest.mark.parametrize("name", OF_TORCH)
def test_state_that_torch_saved_is_gone_on_from(name: str) -> None:
    """Moments that torch rounded to bfloat16 are widened, once."""
    params, _ = pairs(BFLOAT)
    options = {"lr": 0.01, **SEVERAL.get(name, {})}
    torchs = theirs(name)(params, **options)
    walk(torchs, params, range(1, 4))
    others = copy.deepcopy(params)
    wide = [torch.nn.Parameter(p.detach().float()) for p in params]
    optimizer, reference = ours(name)(others, **options), ours(name)(wide, **options)
    optimizer.load_state_dict(copy.deepcopy(torchs.state_dict()))
    reference.load_state_dict(copy.deepcopy(torchs.state_dict()))
    replaced = fst.replace(torchs)
    for step in range(4, 8):
        grads = drawn(SIZES, step, BFLOAT)
        for own, each in ((others, optimizer), (wide, reference), (params, replaced)):
            given(own, [g.to(own[0].dtype) for g in grads])
            each.step()
    assert same_bits(optimizer.float32_params(), wide)
    assert same_bits(replaced.float32_params(), wide)


def test_a_plain_state_dict_is_torchs_to_the_letter() -> None:
    p, q = (torch.nn.Parameter(torch.ones(3)) for _ in range(2))
    optimizer, reference = fst.AdamW([p]), torch.optim.AdamW([q])
    for each, own in ((optimizer, p), (reference, q)):
        own.grad = torch.ones(3)
        each.step()
    assert optimizer.state_dict()["param_groups"] == reference.state_dict()["param_groups"]
    assert optimizer.state_dict()["state"].keys() == reference.state_dict()["state"].keys()
    assert [*optimizer.state[p]] == [*reference.state[q]]


# ---- kept otherwise ----

CONVERSIONS = [
    ({}, {"master": "float32"}),
    ({"master": "float32"}, {}),
    ({"master": "split8", "rounding": "nearest"}, {"master": "float32"}),
    ({"state_dtype": "8bit"}, {"state_dtype": "float32"}),
    ({"state_dtype": "bfloat16"}, {"state_dtype": "8bit"}),
    ({"state_dtype": "8bit"}, {"state_dtype": "bfloat16"}),
]


@pytest.mark.parametrize("by", ["a group", "loading"])
@pytest.mark.parametrize(("before", "after"), CONVERSIONS)
def test_what_is_kept_otherwise_is_converted(
    before: dict[str, Any], after: dict[str, Any], by: str
) -> None:
    """Nothing of a parameter is lost, and of state no more than the new form rounds away."""
    params, _ = pairs(BFLOAT, [(70, 70), 300])
    optimizer = fst.AdamW(params, 0.01, **before)
    walk(optimizer, params, range(1, 20))
    exact = optimizer.float32_params()
    if by == "a group":
        optimizer.param_groups[0].update({"state_dtype": "float32", "master": None, **after})
    else:
        saved = copy.deepcopy(optimizer.state_dict())
        optimizer = fst.AdamW(params, 0.01, **after)
        optimizer.load_state_dict(saved)
    assert same_bits(optimizer.float32_params(), exact)
    for group in optimizer.param_groups:
        group["lr"] = 0.0
        group["weight_decay"] = 0.0
    walk(optimizer, params, [20])
    assert same_bits(optimizer.float32_params(), exact)
    state = optimizer.state[params[0]]
    wanted = {"float32": torch.float32, "bfloat16": BFLOAT, "8bit": torch.uint8}
    assert state["exp_avg"].dtype is wanted[after.get("state_dtype", "float32")]
    assert ("exp_avg_base" in state) is (after.get("state_dtype") == "8bit")
    assert ("tail" in state, "master" in state) == (
        after.get("master") != "float32",
        after.get("master") == "float32",
    )


def test_float32_state_becomes_codes() -> None:
    _, (q,) = pairs(BFLOAT, [5000])
    optimizer = fst.AdamW([q])
    walk(optimizer, [q], range(1, 4), torch.float32)
    before = optimizer.state[q]["exp_avg"].clone()
    optimizer.param_groups[0].update(state_dtype="8bit", rounding="nearest", betas=(0.999999, 0.9))
    walk(optimizer, [q], [4], torch.float32)
    state = optimizer.state[q]
    parts = state["exp_avg"].numpy(), state["exp_avg_base"].numpy()
    found = torch.from_numpy(STORAGES["signed8"].decode(5000, parts))
    large = before.abs() > before.abs().max() / 100
    assert ((found - before).abs() / before.abs())[large].max() < 0.07


@pytest.mark.parametrize("ways", [{"state_dtype": "8bit"}, {"master": "split8"}], ids=names_of)
def test_a_parameter_that_lies_in_another_order_has_the_same_values(ways: dict[str, Any]) -> None:
    (p,), _ = pairs(BFLOAT, [(70, 80)])
    optimizer = fst.AdamW([p], 0.01, rounding="nearest", **ways)
    walk(optimizer, [p], range(1, 4))
    q = torch.nn.Parameter(p.detach().t().contiguous().t())
    other = fst.AdamW([q], 0.01, rounding="nearest", **ways)
    other.load_state_dict(copy.deepcopy(optimizer.state_dict()))
    assert same_bits(other.float32_params(), optimizer.float32_params())
    walk(optimizer, [p], [4])
    walk(other, [q], [4])
    if "master" in ways:
        assert same_bits(other.float32_params(), optimizer.float32_params())
    assert other.state[q]["order"] == (1, 0)
    assert "order" not in optimizer.state[p]
    p.data = p.data.t().contiguous().t()
    walk(optimizer, [p], range(5, 8))
    walk(other, [q], range(5, 8))
    moved = (optimizer.float32_params()[0] - other.float32_params()[0]).abs().max()
    assert moved <= (0 if "master" in ways else 0.02)
    assert optimizer.state[p]["order"] == (1, 0)


def test_codes_of_another_parameter_are_refused() -> None:
    _, (q,) = pairs(BFLOAT, [5000])
    optimizer = fst.AdamW([q], state_dtype="8bit")
    walk(optimizer, [q], [1], torch.float32)
    state = optimizer.state[q]
    state["exp_avg"] = state["exp_avg"][:4096].clone()
    before = q.detach().clone()
    with pytest.raises(ValueError, match=r"exp_avg\[0\].*\(4096,\).*\(5120,\): is it another"):
        walk(optimizer, [q], [2], torch.float32)
    assert same_bits([q], [before])


def test_a_tail_that_came_from_shards_is_its_bits() -> None:
    (p,), (q,) = pairs(BFLOAT, [300])[0], pairs(BFLOAT, [300])[0]
    optimizer, reference = fst.AdamW([p], 0.01), fst.AdamW([q], 0.01)
    walk(optimizer, [p], range(1, 4))
    saved = optimizer.state_dict()
    saved["state"][0]["tail"] = saved["state"][0]["tail"].view(BFLOAT)
    other = fst.AdamW([p], 0.01)
    other.load_state_dict(by_file(saved))
    walk(other, [p], range(4, 8))
    walk(reference, [q], range(1, 8))
    assert same_bits([p], [q])
    assert_same(other, reference)


def test_masters_that_are_no_bits_of_a_parameter_are_refused() -> None:
    (p,), _ = pairs(BFLOAT, [100])
    optimizer = fst.AdamW([p])
    walk(optimizer, [p], [1])
    optimizer.state[p]["tail"] = optimizer.state[p]["tail"].double()
    with pytest.raises(TypeError, match=r"tail.*torch\.float64.*delete that entry"):
        walk(optimizer, [p], [2])


# ---- parameters in full ----


@pytest.mark.parametrize("name", ["SGD", "AdamW"])
@pytest.mark.parametrize("stepped", [False, True])
@pytest.mark.parametrize("dtype", [BFLOAT, HALF, torch.float32, torch.float64], ids=str)
def test_values_in_full_are_loaded_to_the_bit(name: str, stepped: bool, dtype: Any) -> None:
    wide_dtype = torch.float64 if dtype is torch.float64 else torch.float32
    params = [torch.nn.Parameter(x) for x in drawn([(70, 70), 300], 0, dtype)]
    options = {"lr": 0.01, **({"momentum": 0.9} if name == "SGD" else {})}
    optimizer = ours(name)(params, **options)
    if stepped:
        walk(optimizer, params, range(1, 4), dtype)
    wanted = [torch.randn(p.shape, dtype=wide_dtype) for p in params]
    optimizer.load_float32_params(wanted)
    assert same_bits(optimizer.float32_params(), wanted)
    rounded = [ties_away(x) if dtype is BFLOAT else x.to(dtype) for x in wanted]
    assert same_bits(params, rounded)
    wide = [torch.nn.Parameter(x.clone()) for x in wanted]
    reference = ours(name)(wide, **options)
    if stepped:
        saved = copy.deepcopy(optimizer.state_dict())
        reference.load_state_dict(saved)
    else:
        copy.deepcopy(optimizer)
    for step in range(4, 7):
        grads = drawn([(70, 70), 300], step, dtype)
        given(params, grads)
        given(wide, [g.to(wide_dtype) for g in grads])
        optimizer.step()
        reference.step()
    assert same_bits(optimizer.float32_params(), wide)


def test_values_that_do_not_fit_change_nothing() -> None:
    params, _ = pairs(BFLOAT, [10, 20])
    optimizer = fst.AdamW(params)
    walk(optimizer, params, [1])
    before = optimizer.float32_params()
    for wrong, message in (
        ([torch.ones(10)], "1 tensors for 2 parameters"),
        ([torch.ones(10), torch.ones(21)], r"params\[0\]\['params'\]\[1\] has shape \(21,\)"),
        ([torch.ones(10), torch.ones(20, dtype=BFLOAT)], "pass a tensor of torch.float32"),
    ):
        with pytest.raises((TypeError, ValueError), match=message):
            optimizer.load_float32_params(wrong)
    assert same_bits(optimizer.float32_params(), before)


def test_a_parameter_with_a_master_that_was_assigned_counts() -> None:
    params, _ = pairs(BFLOAT, [10])
    optimizer = fst.SGD(params, 1e-3, master="float32")
    walk(optimizer, params, [1])
    with torch.no_grad():
        params[0].fill_(2.0)
    assert same_bits(optimizer.float32_params(), [torch.full((10,), 2.0)])


# ---- averages ----


def test_averages_of_16_bits_are_float32() -> None:
    narrow, wide = pairs(BFLOAT)
    targets = [torch.zeros(p.shape) for p in narrow]
    optimizer = fst.AdamW(narrow, 0.01, ema=0.99)
    reference = fst.AdamW(wide, 0.01, ema=0.99)
    into_targets = fst.AdamW(pairs(BFLOAT)[0], 0.01, ema=0.99, ema_into=targets)
    walk(optimizer, narrow, range(1, 20))
    walk(reference, wide, range(1, 20))
    walk(into_targets, into_targets.param_groups[0]["params"], range(1, 20))
    for p, q in zip(narrow, wide, strict=True):
        assert same_bits([optimizer.state[p]["ema"]], [reference.state[q]["ema"]])
    assert any(bool(target.any()) for target in targets)
    with pytest.raises(ValueError, match=r"ema_into has torch.bfloat16.*stand still"):
        fst.AdamW(narrow, ema=0.9, ema_into=[p.detach().clone() for p in narrow])


def test_an_average_that_is_asked_for_later_starts_from_all_bits() -> None:
    params, _ = pairs(BFLOAT, [300])
    optimizer = fst.AdamW(params, 0.01)
    walk(optimizer, params, range(1, 4))
    exact = optimizer.float32_params()
    optimizer.param_groups[0].update(ema=0.5, lr=0.0, weight_decay=0.0)
    walk(optimizer, params, [4])
    assert same_bits([optimizer.state[params[0]]["ema"]], exact)


# ---- what goes with it ----


@pytest.mark.parametrize("dtype", [BFLOAT, HALF], ids=str)
def test_a_grad_scaler_unscales_and_skips(dtype: Any) -> None:
    narrow, wide = pairs(dtype)
    optimizer, reference = fst.AdamW(narrow, 0.01), fst.AdamW(wide, 0.01)
    scaler = torch.amp.GradScaler("cpu", init_scale=64.0, growth_interval=100)
    scaler.scale(torch.zeros(1))
    for step in range(1, 7):
        grads = [g / 64 for g in drawn(SIZES, step, dtype)]
        given(narrow, [g * 64 for g in grads])
        scale = scaler.get_scale()
        if step == 3:
            narrow[1].grad[2] = torch.inf
        else:
            given(wide, [(g * 64).float() / scale for g in grads])
            reference.step()
        scaler.step(optimizer)
        scaler.update()
    assert scaler.get_scale() == 32.0
    assert same_bits(optimizer.float32_params(), wide)


def test_steps_in_the_backward_pass_are_those_after_it() -> None:
    def run(in_backward: bool) -> Any:
        torch.manual_seed(0)
        model = torch.nn.Sequential(torch.nn.Linear(64, 80), torch.nn.Linear(80, 3)).to(BFLOAT)
        optimizer = fst.AdamW(model.parameters(), 0.01, state_dtype="8bit", master="split8")
        if in_backward:
            fst.step_in_backward(model, optimizer)
        for _ in range(5):
            model(torch.ones(2, 64, dtype=BFLOAT)).square().sum().backward()
            optimizer.step()
            optimizer.zero_grad()
        return optimizer

    one, other = run(False), run(True)
    assert same_bits(one.float32_params(), other.float32_params())
    assert_same(one, other)


def test_functions_step_16_bits_bare() -> None:
    """They have no place for what a parameter lacks, and write what is given in its own dtype."""
    x, g = drawn([300], 1)[0], drawn([300], 2)[0]
    p, m, v, t = x.to(BFLOAT), torch.zeros(300, dtype=BFLOAT), torch.zeros(300), torch.tensor(0.0)
    wide = p.float()
    options: dict[str, Any] = {"lr": 0.01, "beta1": 0.9, "beta2": 0.99, "weight_decay": 0.0}
    options |= {"eps": 1e-8, "amsgrad": False, "maximize": False}
    fst.functional.adamw([p], [g.to(BFLOAT)], [m], [v], [], [t], **options)
    n, u, s = torch.zeros(300), torch.zeros(300), torch.tensor(0.0)
    fst.functional.adamw([wide], [g.to(BFLOAT).float()], [n], [u], [], [s], **options)
    assert same_bits([p, m, v, t], [wide.to(BFLOAT), n.to(BFLOAT), u, s])


class Own(torch.nn.Parameter):  # type: ignore[misc, name-defined]
    """A parameter of somebody's own."""


def test_parameters_of_other_types() -> None:
    (p,), (q,) = pairs(BFLOAT, [300])
    own = Own(p.detach().clone())
    optimizer, reference = fst.AdamW([own], 0.01), fst.AdamW([q], 0.01)
    for step in range(1, 4):
        (g,) = drawn([300], step, BFLOAT)
        given([own, q], [g, g.float()])
        optimizer.step()
        reference.step()
    assert same_bits(optimizer.float32_params(), [q])


@pytest.mark.filterwarnings("ignore:ComplexHalf")
def test_complex_parameters_of_16_bits() -> None:
    real = drawn([(50, 2)], 0, HALF)[0]
    p = torch.view_as_complex(real.clone())
    q = torch.view_as_complex(real.float())
    optimizer, reference = fst.Adam([p], 0.01), fst.Adam([q], 0.01)
    for step in range(1, 4):
        (g,) = drawn([(50, 2)], step, HALF)
        p.grad, q.grad = torch.view_as_complex(g), torch.view_as_complex(g.float())
        optimizer.step()
        reference.step()
    assert same_bits(map(torch.view_as_real, optimizer.float32_params()), [torch.view_as_real(q)])


# ---- refused ----


def refusals() -> Iterator[Any]:
    bare, half = torch.ones(5000, dtype=BFLOAT), torch.ones(5000, dtype=HALF)
    single, double, cplx = torch.ones(9), torch.ones(9).double(), torch.ones(9, dtype=torch.cfloat)
    yield "AdamW", half, {"master": False}, "master=False and params.*float16.*master='float32'"
    yield "AdamW", half, {"master": "split16"}, "float16: a tail of bits continues bfloat16 alone"
    yield "AdamW", single, {"master": "split16"}, "there are none; leave it out"
    yield "AdamW", double, {"state_dtype": "8bit"}, "float64, whose state is float64"
    yield "AdamW", cplx, {"state_dtype": "8bit"}, "complex, whose state is complex"
    yield "AdamW", bare, {"state_dtype": "8 bit"}, "did you mean `state_dtype='8bit'`"
    yield "AdamW", bare, {"state_dtype": {"exp_avg": "float16"}}, r"state_dtype\['exp_avg'\]"
    yield "AdamW", bare, {"state_dtype": {"sum": "8bit"}}, "state_dtype has 'sum'"
    yield "AdamW", bare, {"state_dtype": {"ema": "8bit"}}, "'ema', which is float32 always"
    yield "AdamW", bare, {"master": "float16"}, "master='float16'"
    yield "AdamW", bare, {"rounding": "up"}, "rounding='up'"
    yield "AdamW", bare, {"seed": -1}, "seed=-1"
    yield "Adagrad", bare, {"state_dtype": "8bit"}, "too coarse in 8 bits"
    centered = {"centered": True, "state_dtype": {"v": "bfloat16"}}
    yield "RMSprop", bare, centered, "turns negative"


@pytest.mark.parametrize(("name", "p", "options", "message"), [*refusals()])
def test_what_cannot_be_kept_is_refused(
    name: str, p: Any, options: dict[str, Any], message: str
) -> None:
    with pytest.raises(ValueError, match=message):
        ours(name)([torch.nn.Parameter(p)], **options)
    optimizer = ours(name)([torch.nn.Parameter(torch.ones(3))])
    with pytest.raises(ValueError, match=message):
        optimizer.add_param_group({"params": [torch.nn.Parameter(p)], **options})
    assert len(optimizer.param_groups) == 1


def test_a_choice_is_refused_by_the_step_as_well() -> None:
    (p,), _ = pairs(BFLOAT, [100])
    optimizer = fst.RMSprop([p], centered=True)
    walk(optimizer, [p], [1])
    before = p.detach().clone()
    optimizer.param_groups[0]["state_dtype"] = "8bit"
    with pytest.raises(ValueError, match="turns negative"):
        walk(optimizer, [p], [2])
    assert same_bits([p], [before])


def test_torchs_own_steps_are_refused_what_they_would_leave_behind() -> None:
    (p,), _ = pairs(BFLOAT, [100])
    optimizer = fst.AdamW([p])
    walk(optimizer, [p], [1])
    optimizer.param_groups[0]["differentiable"] = True
    with pytest.raises(ValueError, match="leave the rest of 16-bit parameters behind"):
        walk(optimizer, [p], [2])


# ---- nothing is laid out anew ----


@needs_c
@for_each_way
def test_steps_are_laid_out_once(monkeypatch: pytest.MonkeyPatch, ways: dict[str, Any]) -> None:
    from fusedstep.torch import _steps, _tensors

    made = calls_of(monkeypatch, _steps, "Numbered")
    looked: list[str] = []
    check = _tensors.Tensor.check_gradient

    def counting(self: Any, g: Any, place: Any) -> Any:
        looked.append(self.path)
        return check(self, g, place)

    monkeypatch.setattr(_tensors.Tensor, "check_gradient", counting)
    params, _ = pairs(BFLOAT, [(70, 70), 300])
    optimizer = fst.AdamW(params, **ways)
    walk(optimizer, params, range(1, 3))
    assert len(made) == 1
    assert len(looked) == len(params)  # a gradient's dtype is known once it was seen
    assert not vars(optimizer)["_steps"].reached
    walk(optimizer, params, range(3, 30))
    assert len(made) == 1
    assert len(looked) == len(params)
    assert not vars(optimizer)["_steps"].reached


@on_each_backend
@pytest.mark.parametrize("entry", ["tail", "exp_avg", "exp_avg_sq_base"])
def test_whoever_holds_such_state_may_exchange_it(entry: str, backend: str) -> None:
    ways: dict[str, Any] = {"state_dtype": "8bit"}
    (p,), (q,) = pairs(BFLOAT, [5000])[0], pairs(BFLOAT, [5000])[0]
    optimizer = fst.AdamW([p], 0.01, backend=backend, **ways)
    reference = fst.AdamW([q], 0.01, backend=backend, **ways)
    walk(optimizer, [p], range(1, 4))
    held = optimizer.state[p]
    walk(optimizer, [p], range(4, 6))
    held[entry] = held[entry].clone()
    walk(optimizer, [p], range(6, 8))
    held[entry].data = held[entry].data.clone()
    walk(optimizer, [p], range(8, 10))
    walk(reference, [q], range(1, 10))
    assert same_bits([p], [q])
    assert_same(optimizer, reference)
