"""State dicts of TransformerEngine and FlashOptim, by their definitions written out here."""

from __future__ import annotations

import copy
from math import frexp, ldexp, sqrt
from typing import Any

import pytest
from marks import needs

torch = needs("torch", "torch")

from torch_cases import same_bits  # noqa: E402

import fusedstep.torch as fst  # noqa: E402
from fusedstep.torch import layouts  # noqa: E402

BFLOAT, HALF = torch.bfloat16, torch.float16


def normal(n: int, seed: int = 0) -> Any:
    return torch.randn(n, generator=torch.Generator().manual_seed(seed))


def stepped(dtype: Any, steps: int = 3, **options: Any) -> tuple[Any, Any]:
    p = torch.nn.Parameter(normal(300).to(dtype))
    optimizer = fst.AdamW([p], 0.01, **options)
    step(optimizer, p, steps)
    return optimizer, p


def step(optimizer: Any, p: Any, steps: int) -> None:
    for at in range(steps):
        p.grad = normal(p.numel(), at).reshape(p.shape).to(p.dtype)
        optimizer.step()


# ---- TransformerEngine ----


def engines(p: Any, master: Any, steps: int = 5) -> dict[str, Any]:
    """A state dict as FusedAdam returns it."""
    group = {"lr": 0.01, "bias_correction": True, "betas": (0.9, 0.99), "eps": 1e-8}
    group |= {"weight_decay": 0.1, "params": [0], "step": steps}
    state = {"exp_avg": normal(p.numel(), 1), "exp_avg_sq": normal(p.numel(), 2).square()}
    return {"state": {0: {**state, "master_param": master}}, "param_groups": [group]}


@pytest.mark.parametrize("kept", ["remainders", "masters"])
def test_a_run_of_transformer_engines_is_gone_on_with(kept: str) -> None:
    wide = torch.nn.Parameter(normal(300))
    bits = wide.detach().view(torch.int32)
    if kept == "remainders":  # the upper half, rounded by the lower one's highest bit
        p = torch.nn.Parameter(((bits + 0x8000) >> 16).to(torch.int16).view(BFLOAT))
        master: Any = bits.to(torch.int16)
    else:
        p = torch.nn.Parameter(wide.detach().to(BFLOAT))
        master = wide.detach().clone()
    theirs = engines(p, master)
    before = copy.deepcopy(theirs)
    optimizer, reference = fst.AdamW([p]), fst.AdamW([wide])
    optimizer.load_state_dict(layouts.from_transformer_engine(theirs))
    del theirs["state"][0]["master_param"]
    reference.load_state_dict(layouts.from_transformer_engine(copy.deepcopy(theirs)))
    assert same_bits(optimizer.float32_params(), [wide])
    assert optimizer.param_groups[0]["weight_decay"] == 0.1
    for at in range(3):
        p.grad = normal(300, at).to(BFLOAT)
        wide.grad = p.grad.float()
        optimizer.step()
        reference.step()
    assert same_bits(optimizer.float32_params(), [wide])
    assert optimizer.state[p]["step"] == 8
    assert before["state"][0]["master_param"].dtype is master.dtype


def test_entries_of_transformer_engines_are_read_where_they_stand() -> None:
    """A state dict that nobody has converted is not misread."""
    (optimizer, p), (expected, q) = stepped(BFLOAT), stepped(BFLOAT)
    state = optimizer.state[p]
    state["master_param"] = state.pop("tail").clone()
    step(optimizer, p, 3)
    step(expected, q, 3)
    assert same_bits([p], [q])
    assert "master_param" not in optimizer.state[p]
    assert same_bits([optimizer.state[p]["tail"]], [expected.state[q]["tail"]])


@pytest.mark.parametrize("master", ["split16", "float32"])
def test_what_is_written_for_transformer_engine_is_read_back(master: str) -> None:
    optimizer, p = stepped(BFLOAT, master=master)
    theirs = layouts.to_transformer_engine(copy.deepcopy(optimizer.state_dict()))
    assert theirs["state"][0].keys() == {"exp_avg", "exp_avg_sq", "master_param"}
    assert theirs["param_groups"][0]["step"] == 3
    q = copy.deepcopy(p)
    other = fst.AdamW([q], 0.01, master=master)
    other.load_state_dict(layouts.from_transformer_engine(theirs))
    step(optimizer, p, 2)
    step(other, q, 2)
    assert same_bits([p, *other.float32_params()], [q, *optimizer.float32_params()])


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"master": "split8"}, "torch.int8.*master='split16'"),
        ({"amsgrad": True}, "amsgrad.*which FusedAdam has not"),
        ({"ema": 0.5}, "ema.*which FusedAdam has not"),
    ],
)
def test_what_transformer_engine_has_no_place_for(options: dict[str, Any], message: str) -> None:
    optimizer, _ = stepped(BFLOAT, **options)
    with pytest.raises(ValueError, match=message):
        layouts.to_transformer_engine(optimizer.state_dict())


def test_codes_and_counts_of_its_own_have_no_place_either() -> None:
    p = torch.nn.Parameter(normal(5000))
    optimizer = fst.AdamW([p], state_dtype="8bit")
    step(optimizer, p, 1)
    with pytest.raises(ValueError, match="codes which FusedAdam cannot read"):
        layouts.to_transformer_engine(optimizer.state_dict())
    optimizer, p = stepped(BFLOAT)
    optimizer.param_groups[0]["params"].append(torch.nn.Parameter(normal(3)))
    optimizer.param_groups[0]["params"][1].grad = normal(3)
    optimizer.step()
    with pytest.raises(ValueError, match="1, 4 steps"):
        layouts.to_transformer_engine(optimizer.state_dict())


def test_scaled_masters_are_refused() -> None:
    p = normal(9)
    with pytest.raises(TypeError, match=r"torch\.float16.*FusedAdam\.state_dict"):
        layouts.from_transformer_engine(engines(p, p.half()))


# ---- FlashOptim ----


def place_of(x: float, mantissa: int, least: int) -> float:
    """The distance from a 16-bit number to its neighbour."""
    exponent = frexp(x)[1] - 1 if x else least
    return ldexp(1.0, max(exponent, least) - mantissa)


def flash(p: Any, errors: Any, quantized: bool = True) -> dict[str, Any]:
    """A state dict as FlashAdamW returns it, and as torch's loading wants it."""
    n = p.numel()
    groups = -(-n // 32)
    m = torch.randint(-127, 128, (n,)).to(torch.int8)
    v = torch.randint(0, 256, (n,)).to(torch.uint8)
    scales = [torch.rand(groups).half() + 0.01, torch.rand(groups).half() + 0.01]
    state: dict[str, Any] = {"step": torch.tensor(7), "error_bits": errors}
    if quantized:
        state |= {"exp_avg::quantized": m, "exp_avg::scales": scales[0]}
        state |= {"exp_avg_sq::quantized": v, "exp_avg_sq::scales": scales[1]}
    else:
        state |= {"exp_avg": normal(n, 1), "exp_avg_sq": normal(n, 2).square()}
    width = 2 + errors.element_size()
    group = {"params": [0], "lr": 0.01, "betas": (0.9, 0.99), "eps": 1e-8, "weight_decay": 0.1}
    group |= {"master_bytewidth": width, "quantize": quantized, "initial_lr": 0.01}
    return {"state": {0: state}, "param_groups": [group]}


@pytest.mark.parametrize("dtype", [BFLOAT, HALF], ids=str)
@pytest.mark.parametrize("of", [torch.int8, torch.int16], ids=str)
@pytest.mark.parametrize("as_saved", [False, True])
def test_flashoptims_masters_and_codes_are_read(dtype: Any, of: Any, as_saved: bool) -> None:
    torch.manual_seed(0)
    most = 127 if of is torch.int8 else 32767
    x = torch.cat([normal(90), torch.tensor([0.0, 1.0, -1.0, 2.0, 1e-7, -3e-6, 1e-30])])
    p = torch.nn.Parameter(x.to(dtype))
    errors = torch.randint(-most, most + 1, x.shape).to(of)
    errors[-6:-2] = torch.tensor([most, -most, most, -most], dtype=of)
    theirs = flash(p, errors)
    state = theirs["state"][0]
    if as_saved:  # in the dtype of the parameter, by value or by their bits
        state["error_bits"] = errors.to(dtype) if of is torch.int8 else errors.view(dtype)
        if dtype is BFLOAT:
            for name in ("exp_avg::scales", "exp_avg_sq::scales"):
                state[name] = state[name].view(BFLOAT)
        if of is torch.int8 and dtype is HALF:
            assert bool((state["error_bits"] == errors).all())
    optimizer = fst.AdamW([p])
    made = layouts.from_flashoptim(theirs, [p])
    optimizer.load_state_dict(made)

    mantissa, least = (7, -126) if dtype is BFLOAT else (10, -14)
    for q, e, w in zip(p.tolist(), errors.tolist(), made["state"][0]["master"], strict=True):
        exact = q + e / most * place_of(q, mantissa, least) / 2
        if torch.tensor(exact).to(dtype).item() == q and q:
            assert abs(w.item() - exact) <= abs(exact) * 2**-22 + 2**-149
        elif q:  # it is rounded to the neighbour, and so the last value is taken that is not
            beyond = torch.nextafter(w, torch.tensor(exact))
            assert torch.nextafter(beyond, torch.tensor(exact)).to(dtype).item() != q
        assert w.to(dtype).item() == q
    m = state["exp_avg::quantized"].tolist()
    v = state["exp_avg_sq::quantized"].tolist()
    for k in range(len(m)):
        scale = [state[f"{name}::scales"].view(HALF)[k // 32].item() for name in layouts.MOMENTS]
        y = m[k] / 127
        found = [made["state"][0][name][k].item() for name in layouts.MOMENTS]
        assert found[0] == pytest.approx(y / (2 - abs(y)) * scale[0], rel=1e-6)
        assert sqrt(found[1]) == pytest.approx(v[k] / 255 * scale[1], rel=1e-6)
    assert same_bits(optimizer.float32_params(), [made["state"][0]["master"]])
    assert optimizer.state[p]["step"] == 7
    step(optimizer, p, 2)
    assert optimizer.state[p]["step"] == 9
    assert "quantize" not in optimizer.param_groups[0]


def test_flashoptims_moments_may_be_as_they_are() -> None:
    p = torch.nn.Parameter(normal(40).to(BFLOAT))
    theirs = flash(p, torch.zeros(40, dtype=torch.int8), quantized=False)
    made = layouts.from_flashoptim(theirs, [p])["state"][0]
    assert same_bits([made["exp_avg"]], [theirs["state"][0]["exp_avg"]])


def test_what_is_not_flashoptims_is_refused() -> None:
    p = normal(40).to(BFLOAT)
    theirs = flash(p, torch.zeros(40, dtype=torch.int8))
    with pytest.raises(ValueError, match="params has 0 tensors, the state dict 1"):
        layouts.from_flashoptim(theirs, [])
    with pytest.raises(TypeError, match=r"parameter of torch\.float32"):
        layouts.from_flashoptim(theirs, [p.float()])
    with pytest.raises(ValueError, match=r"shape \(40,\), its parameter \(41,\)"):
        layouts.from_flashoptim(theirs, [torch.zeros(41, dtype=BFLOAT)])
    theirs["state"][0]["exp_avg::scales"] = torch.ones(1).half()
    with pytest.raises(ValueError, match="for 40 codes, of which 32 share one"):
        layouts.from_flashoptim(theirs, [p])
    theirs["state"][0]["error_bits"] = torch.zeros(40)
    with pytest.raises(TypeError, match=r"torch\.float32 in a group with master_bytewidth=3"):
        layouts.from_flashoptim(theirs, [p])
