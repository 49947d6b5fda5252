"""Sparse gradients as rows: frozen, with steps of their own or shared, and exact to the bit.

torch's SparseAdam, the same class over dense gradients, and one parameter for each row say what
is right.
"""

from __future__ import annotations

import copy
import gc
import pickle
import warnings
import weakref
from collections.abc import Iterator
from typing import Any, TypeAlias

import pytest
from marks import needs, needs_c, on_each_backend

torch = needs("torch", "torch")

from torch_cases import ALL, copies, farthest, ours, same_bits  # noqa: E402

import fusedstep.torch as fst  # noqa: E402
from fusedstep._arrays import exchange  # noqa: E402
from fusedstep.torch._rows import rows_of  # noqa: E402

Options: TypeAlias = dict[str, Any]

ROWS, WIDTH = 12, 5

EXACT: list[tuple[str, Options]] = [
    *((name, {}) for name in ALL),
    ("SGD", {"momentum": 0.9, "nesterov": True}),
    ("SGD", {"momentum": 0.5, "dampening": 0.5, "weight_decay": 0.01}),
    ("Adam", {"amsgrad": True, "maximize": True}),
    ("AdamW", {"ema": 0.9, "weight_decay": 0.1}),
    ("RMSprop", {"momentum": 0.9, "centered": True}),
    ("Adagrad", {"lr_decay": 0.01, "weight_decay": 0.1}),
]
"""Classes with options that have rows coast in different ways."""

OWN: list[tuple[str, Options]] = [
    ("SGD", {"momentum": 0.9, "dampening": 0.5}),
    ("Adam", {}),
    ("AdamW", {"amsgrad": True, "weight_decay": 0.1}),
    ("Adagrad", {"lr_decay": 0.1}),
    ("RMSprop", {}),
    ("NAdam", {}),
    ("RAdam", {}),
    ("Adamax", {}),
    ("Lion", {}),
    ("Adan", {}),
]
"""Classes with options that depend on t, or on whether there was a step."""


def table(dtype: Any = torch.float32, seed: int = 0) -> Any:
    generator = torch.Generator().manual_seed(seed)
    return torch.nn.Parameter(torch.randn(ROWS, WIDTH, dtype=dtype, generator=generator))


def sparse(step: int, dtype: Any = torch.float32, k: int = 4) -> Any:
    """A gradient of a few rows, some of them twice: late ones are seldom there."""
    generator = torch.Generator().manual_seed(100 + step)
    drawn = torch.rand(k, generator=generator, dtype=torch.float64) ** 3 * ROWS
    values = torch.randn(k, WIDTH, generator=generator, dtype=torch.float64).to(dtype)
    return rows(drawn.long(), values)


def rows(index: Any, values: Any, height: int = ROWS) -> Any:
    """A sparse gradient of these rows."""
    shape = height, values.shape[1]
    return torch.sparse_coo_tensor(index[None], values, shape, check_invariants=False)


def index_of(g: Any) -> Any:
    """The numbers of the rows of a gradient, as they stand."""
    index: Any = g._indices()[0]  # noqa: SLF001  the public one wants it coalesced
    return index


def values_of(g: Any) -> Any:
    """The values of a gradient, in the order of their rows' numbers."""
    values: Any = g._values()  # noqa: SLF001  the public ones want it coalesced
    return values


def in_order(g: Any) -> Any:
    """The dense gradient, with rows that stand twice added up in that order."""
    dense = torch.zeros(g.shape, dtype=g.dtype)
    seen: set[int] = set()
    for row, values in zip(index_of(g).tolist(), values_of(g), strict=True):
        dense[row] = dense[row] + values if row in seen else values
        seen.add(row)
    return dense


def skip_without_rule(name: str, backend: str) -> None:
    """The C backend holds some rules by heart, and no others."""
    if backend == "c" and name not in ("SGD", "Adagrad", "RMSprop", "Adam", "AdamW"):
        pytest.skip("a custom rule")


def state_of(optimizer: Any) -> list[Any]:
    """All tensors of the state of the first parameter, in the order of their names."""
    own = optimizer.state[optimizer.param_groups[0]["params"][0]]
    return [own[name].double() for name in sorted(own)]


def pair(name: str, dtype: Any = torch.float32, **options: Any) -> Iterator[Any]:
    """A parameter and an optimizer that takes rows exactly, and both for dense gradients."""
    for more in ({"untouched": "exact"}, {}):
        p = table(dtype)
        yield p
        yield ours(name)([p], lr=0.01, **options, **more)


def step_both(one: Any, opt: Any, other: Any, dense: Any, steps: range) -> None:
    """Steps by the same gradients, sparse and dense, at a rate that falls."""
    for step in steps:
        one.grad = sparse(step, one.dtype)
        other.grad = in_order(one.grad)
        for optimizer in (opt, dense):
            optimizer.param_groups[0]["lr"] = 0.01 * 0.99**step
            optimizer.step()


# ---- SparseAdam ----


@pytest.mark.parametrize("maximize", [False, True])
@pytest.mark.parametrize(("dtype", "bound"), [(torch.float64, 1e-12), (torch.float32, 2e-6)])
def test_sparse_adam_is_torchs(dtype: Any, bound: float, maximize: bool) -> None:
    one, other = table(dtype), table(dtype)
    options: Options = {"lr": 0.01, "betas": (0.8, 0.99), "eps": 1e-3, "maximize": maximize}
    optimizer = fst.SparseAdam([one], **options)
    theirs = torch.optim.SparseAdam([other], **options)
    assert isinstance(optimizer, torch.optim.SparseAdam)
    for step in range(200):
        one.grad = sparse(step, dtype)
        other.grad = one.grad.clone()
        optimizer.step()
        theirs.step()
    assert farthest([one], [other]) <= bound
    assert optimizer.state[one].keys() == theirs.state[other].keys()
    for name in ("exp_avg", "exp_avg_sq"):
        assert farthest([optimizer.state[one][name]], [theirs.state[other][name]]) <= bound
    assert optimizer.state[one]["step"] == theirs.state[other]["step"] == 200


@pytest.mark.parametrize("ours_first", [False, True])
def test_sparse_adam_goes_on_from_either_checkpoint(ours_first: bool) -> None:
    one, other = table(torch.float64), table(torch.float64)
    kinds = [torch.optim.SparseAdam, fst.SparseAdam]
    first, second = reversed(kinds) if ours_first else kinds
    optimizer: Any = first([one], lr=0.01)
    theirs = torch.optim.SparseAdam([other], lr=0.01)
    for step in range(40):
        if step == 20:
            saved = copy.deepcopy(optimizer.state_dict())
            optimizer = second([one])
            optimizer.load_state_dict(saved)
        one.grad = sparse(step, torch.float64)
        other.grad = one.grad.clone()
        optimizer.step()
        theirs.step()
    assert farthest([one], [other]) <= 1e-12


def test_a_live_sparse_adam_is_replaced() -> None:
    one, other = table(torch.float64), table(torch.float64)
    optimizer, theirs = (torch.optim.SparseAdam([p], lr=0.01) for p in (one, other))
    for step in range(20):
        if step == 10:
            fst.replace(optimizer)
            assert type(optimizer) is fst.SparseAdam
        one.grad = sparse(step, torch.float64)
        other.grad = one.grad.clone()
        optimizer.step()
        theirs.step()
    assert farthest([one], [other]) <= 1e-12


def test_sparse_adam_counts_steps_without_rows_as_torch() -> None:
    one, other = table(torch.float64), table(torch.float64)
    optimizer = fst.SparseAdam([one])
    theirs = torch.optim.SparseAdam([other])
    for k in (2, 0, 3):
        one.grad = sparse(k, torch.float64, k)
        other.grad = one.grad.clone()
        optimizer.step()
        theirs.step()
    assert optimizer.state[one]["step"] == theirs.state[other]["step"] == 3
    assert farthest([one], [other]) <= 1e-12


def test_sparse_adam_refuses_dense_gradients_in_torchs_words() -> None:
    for first in (True, False):
        p = table()
        optimizer = fst.SparseAdam([p])
        if not first:
            p.grad = sparse(0)
            optimizer.step()
        before = p.detach().clone()
        p.grad = torch.ones_like(p)
        with pytest.raises(RuntimeError, match="does not support dense gradients, please consider"):
            optimizer.step()
        assert same_bits([p], [before])


def test_sparse_adam_checks_its_arguments_as_torch() -> None:
    for wrong in ({"lr": 0.0}, {"eps": 0.0}, {"betas": (1.0, 0.9)}):
        said = []
        for kind in (fst.SparseAdam, torch.optim.SparseAdam):
            with pytest.raises(ValueError, match="Invalid") as caught:
                kind([table()], **wrong)
            said.append(str(caught.value))
        assert said[0] == said[1]
    with pytest.raises(TypeError, match="weight_decay"):
        fst.SparseAdam([table()], weight_decay=0.1)  # type: ignore[call-arg]


# ---- exact ----


@on_each_backend
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64], ids=str)
@pytest.mark.parametrize(("name", "options"), EXACT)
def test_exact_rows_are_the_dense_step_to_the_bit(
    name: str, options: Options, dtype: Any, backend: str
) -> None:
    skip_without_rule(name, backend)
    one, opt, other, dense = pair(name, dtype, backend=backend, **options)
    step_both(one, opt, other, dense, range(25))
    some = torch.tensor([[1, 7], [11, 7]])
    opt.catch_up(some)
    assert same_bits([one[some]], [other[some]])
    step_both(one, opt, other, dense, range(25, 40))
    opt.catch_up()
    assert same_bits([one], [other])
    assert same_bits(state_of(opt), state_of(dense))


@pytest.mark.parametrize("how", ["state dict", "deepcopy", "pickle"])
def test_exact_rows_go_on_from_a_copy(how: str) -> None:
    one, opt, other, dense = pair("Adam")
    step_both(one, opt, other, dense, range(20))
    if how == "state dict":
        saved = copy.deepcopy(opt.state_dict())
        opt = fst.Adam([one], untouched="exact")
        opt.load_state_dict(saved)
    elif how == "deepcopy":
        opt = copy.deepcopy(opt)
    else:
        opt = pickle.loads(pickle.dumps(opt))
    one = opt.param_groups[0]["params"][0]
    assert same_bits([one], [other])
    step_both(one, opt, other, dense, range(20, 40))
    opt.catch_up()
    assert same_bits([one], [other])
    assert same_bits(state_of(opt), state_of(dense))


def test_whoever_reads_state_finds_it_caught_up() -> None:
    one, opt, other, dense = pair("Adam")
    step_both(one, opt, other, dense, range(20))
    assert not same_bits([one], [other])
    assert same_bits(state_of(opt), state_of(dense))
    assert same_bits([one], [other])
    step_both(one, opt, other, dense, range(20, 30))
    assert same_bits(opt.float32_params(), [other])


@pytest.mark.parametrize(
    "change",
    [
        *("memory", "memory without state", "state", "rule", "same state", "number", "kept"),
        *("frozen", "whole", "moved"),
    ],
)
def test_rows_that_are_behind_survive_changes(change: str) -> None:
    """A change while rows are behind is one as if they were not."""
    of_sgd: dict[str, Options] = {
        "same state": {"momentum": 0.9},
        "memory without state": {"weight_decay": 0.1},
    }
    name = "SGD" if change in of_sgd else "Adam"
    one, opt, other, dense = pair(name, **of_sgd.get(change, {}))
    step_both(one, opt, other, dense, range(3))
    held = [optimizer.state[p] for optimizer, p in ((opt, one), (dense, other))]
    step_both(one, opt, other, dense, range(3, 20))
    (own, _), groups = held, [opt.param_groups[0], dense.param_groups[0]]
    if change in ("memory", "memory without state"):
        one.data = one.data.clone()
    elif change == "state":
        own["exp_avg"] = own["exp_avg"].clone()
    elif change == "rule":
        for group in groups:
            group["weight_decay"] = 0.1
            group["decoupled_weight_decay"] = True
    elif change == "same state":
        for group in groups:
            group["nesterov"] = True
    elif change == "number":
        for each in held:
            each["step"] = torch.tensor(2.0)
    elif change == "kept":
        groups[0]["state_dtype"] = "float32"
    elif change == "frozen":
        groups[0]["untouched"] = "frozen"
    elif change == "whole":
        for p, optimizer in ((one, opt), (other, dense)):
            p.grad = torch.ones_like(p)
            optimizer.step()
        assert same_bits([one], [other])
    else:
        one.data = one.data.clone()
        own["exp_avg_sq"] = own["exp_avg_sq"].clone()
    if change == "frozen":
        opt.step()
        assert opt.state[one]["row_step"].max() == 21
        return
    step_both(one, opt, other, dense, range(20, 30))
    opt.catch_up(torch.tensor([11]))
    step_both(one, opt, other, dense, range(30, 40))
    opt.catch_up()
    assert same_bits([one], [other])
    assert same_bits(state_of(opt), state_of(dense))


def test_a_step_that_is_refused_leaves_rows_behind_as_they_were() -> None:
    one, opt, other, dense = pair("Adam")
    step_both(one, opt, other, dense, range(20))
    one.grad = sparse(20).to_dense().to_sparse(2)
    with pytest.raises(TypeError, match="2 sparse dimensions"):
        opt.step()
    own = opt.param_groups[0]
    own["betas"] = (0.9, "none")
    with pytest.raises(TypeError):
        opt.step()
    own["betas"] = (0.9, 0.999)
    step_both(one, opt, other, dense, range(20, 30))
    opt.catch_up()
    assert same_bits([one], [other])


def test_rows_of_a_parameter_that_leaves_its_group_are_caught_up() -> None:
    one, opt, other, dense = pair("Adam")
    step_both(one, opt, other, dense, range(20))
    opt.param_groups[0]["params"] = [table(seed=1)]
    opt.step()
    assert same_bits([one], [other])


def test_many_missed_steps_are_caught_up_in_between() -> None:
    one, opt, other, dense = pair("SGD", momentum=0.9)
    for step in range(5000):
        one.grad = sparse(0) if step < 2 else sparse(1, k=1)
        other.grad = in_order(one.grad)
        opt.step()
        dense.step()
    opt.catch_up()
    assert same_bits([one], [other])


@pytest.mark.parametrize("shape", [(ROWS,), (ROWS, 2, 3), (ROWS, 0)])
def test_rows_of_any_shape(shape: tuple[int, ...]) -> None:
    one, other = (torch.nn.Parameter(torch.ones(shape)) for _ in range(2))
    opt, dense = fst.Adam([one], untouched="exact"), fst.Adam([other])
    for step in range(5):
        index = torch.tensor([[step, 11, step]])
        values = torch.ones(3, *shape[1:])
        one.grad = torch.sparse_coo_tensor(index, values, shape, check_invariants=False)
        other.grad = one.grad.to_dense()
        opt.step()
        dense.step()
    opt.catch_up()
    assert same_bits([one], [other])


def test_parameters_that_are_not_in_c_order() -> None:
    one, other = (torch.nn.Parameter(table().detach().T.contiguous().T) for _ in range(2))
    opt = fst.AdamW([one], untouched="exact", max_norm=0.5)
    dense = fst.AdamW([other], max_norm=0.5)
    step_both(one, opt, other, dense, range(20))
    assert opt.report == dense.report
    opt.catch_up()
    assert same_bits([one], [other])


def test_rows_are_named_by_a_mapping_or_a_mask() -> None:
    one, opt, other, dense = pair("Adam")
    for optimizer in (opt, dense):
        optimizer.add_param_group({"params": [torch.nn.Parameter(torch.ones(3))]})
    step_both(one, opt, other, dense, range(20))
    mask = torch.zeros(ROWS, dtype=torch.bool)
    mask[3] = True
    opt.catch_up({one: mask})
    assert same_bits([one[3]], [other[3]])
    with pytest.raises(TypeError, match=r"2 parameters.*\{embedding\.weight: index\}"):
        opt.catch_up(torch.tensor([0]))
    with pytest.raises(ValueError, match="no parameter of the optimizer"):
        opt.catch_up({other: torch.tensor([0])})
    with pytest.raises(IndexError, match=r"rows\[0\]\['params'\]\[0\]\[1\] is 12"):
        opt.catch_up({one: torch.tensor([0, 12])})
    with pytest.raises(TypeError, match="dtype float32"):
        opt.catch_up({one: torch.tensor([0.5])})


# ---- frozen ----


@on_each_backend
@pytest.mark.parametrize(("name", "options"), OWN)
def test_rows_with_steps_of_their_own_are_parameters_of_their_own(
    name: str, options: Options, backend: str
) -> None:
    skip_without_rule(name, backend)
    one = table()
    apart_rows = [torch.nn.Parameter(row.detach().clone()) for row in one]
    opt = ours(name)([one], lr=0.01, untouched="frozen", backend=backend, **options)
    apart = ours(name)(apart_rows, lr=0.01, backend=backend, **options)
    taken = torch.zeros(ROWS, dtype=torch.int64)
    for step in range(40):
        one.grad = sparse(step)
        dense, there = in_order(one.grad), index_of(one.grad).unique().tolist()
        taken[there] += 1
        for at, row in enumerate(apart_rows):
            row.grad = dense[at].clone() if at in there else None
        opt.step()
        apart.step()
        if step == 10:
            opt = copy.deepcopy(opt)
            one = opt.param_groups[0]["params"][0]
        if step == 20:
            saved = copy.deepcopy(opt.state_dict())
            opt = ours(name)([one], untouched="frozen", backend=backend)
            opt.load_state_dict(saved)
        if step == 30:
            opt = pickle.loads(pickle.dumps(opt))
            one = opt.param_groups[0]["params"][0]
    expected = torch.stack([row.detach() for row in apart_rows])
    if name == "NAdam":  # whose parameters have a product of μ in float32
        assert farthest([one], [expected]) <= 2e-6
    else:
        assert same_bits([one], [expected])
    assert torch.equal(opt.state[one]["row_step"], taken)
    assert opt.state[one]["step"] == 40


def test_own_steps_are_counted_in_the_state_itself() -> None:
    one = table()
    opt = fst.Adam([one], untouched="frozen")
    one.grad = sparse(0)
    opt.step()
    counts = opt.state[one]["row_step"]
    taken = counts.clone()
    opt.step()
    assert opt.state[one]["row_step"] is counts
    assert counts.dtype is torch.int64
    assert torch.equal(counts, 2 * taken)
    one.grad = torch.ones_like(one)
    opt.step()
    assert torch.equal(counts, 2 * taken + 1)


@needs_c
def test_nobody_has_a_state_with_counts_of_rows() -> None:
    """A step need not look at state that nobody got at."""
    one = table()
    opt = fst.Adam([one], untouched="frozen")
    for step in range(2):
        one.grad = sparse(step)
        opt.step()
    assert opt._steps is not None  # noqa: SLF001
    assert not opt._steps.reached  # noqa: SLF001


def test_rows_begin_where_their_parameter_is() -> None:
    one, other = table(), table()
    opt, dense = fst.Adam([one], untouched="frozen"), fst.Adam([other])
    for p, optimizer in ((one, opt), (other, dense)):
        for step in range(3):
            p.grad = in_order(sparse(step))
            optimizer.step()
    assert same_bits([one], [other])
    assert "row_step" not in opt.state[one]
    one.grad = sparse(3)
    opt.step()
    assert set(opt.state[one]["row_step"].tolist()) == {3, 4}


def test_counts_without_use_are_not_kept() -> None:
    one = table()
    opt = fst.SGD([one], untouched="frozen")
    one.grad = sparse(0)
    opt.step()
    assert not opt.state[one]


def test_rows_that_lag_cannot_become_a_whole_parameter() -> None:
    one = table()
    opt = fst.Adam([one], untouched="frozen")
    one.grad = sparse(0)
    opt.step()
    other = fst.Adam([one])
    other.load_state_dict(opt.state_dict())
    before = copies([one])
    one.grad = torch.ones_like(one)
    with pytest.raises(ValueError, match=r"untouched='frozen', row_steps='own'.*delete"):
        other.step()
    assert same_bits([one], before)
    del other.state[one]["row_step"]
    other.step()
    opt.state[one]["row_step"] = torch.zeros(3, dtype=torch.int64)
    with pytest.raises(ValueError, match="steps of 12 rows"):
        opt.step()


def test_shared_steps_are_sparse_adam() -> None:
    one, other = table(), table()
    opt = fst.Adam([one], untouched="frozen", row_steps="shared")
    theirs = fst.SparseAdam([other])
    for step in range(20):
        one.grad = other.grad = sparse(step)
        opt.step()
        theirs.step()
    assert same_bits([one], [other])


# ---- around the step ----


def model_of(seed: int = 0) -> Any:
    torch.manual_seed(seed)
    words = torch.nn.Embedding(ROWS, WIDTH, sparse=True)
    return torch.nn.Sequential(words, torch.nn.Linear(WIDTH, 3))


def loss_of(model: Any, step: int) -> Any:
    generator = torch.Generator().manual_seed(step)
    tokens = torch.randint(0, ROWS // 2, (2, 3), generator=generator)
    return (model(tokens) ** 2).sum()


@pytest.mark.parametrize(
    "options",
    [
        {"max_norm": 0.5},
        {"max_norm": 0.5, "clip": "tensor"},
        {"max_value": 0.1},
        {"nonfinite": "skip"},
    ],
)
def test_requests_are_those_of_the_dense_step(options: Options) -> None:
    models = model_of(), model_of()
    models[1][0].sparse = False
    optimizers = [fst.AdamW(model.parameters(), untouched="exact", **options) for model in models]
    for step in range(30):
        for model, optimizer in zip(models, optimizers, strict=True):
            optimizer.catch_up({model[0].weight: torch.arange(ROWS // 2)})
            optimizer.zero_grad()
            loss_of(model, step).backward()
            if step in (7, 20) and "nonfinite" in options:
                model[1].weight.grad[0, 0] = torch.inf
            optimizer.step()
        assert repr(optimizers[0].report) == repr(optimizers[1].report)
    optimizers[0].catch_up()
    assert farthest([*models[0].parameters()], [*models[1].parameters()]) <= 2e-6


def test_a_grad_scaler_steps_rows() -> None:
    models = model_of(), model_of()
    optimizers = [fst.SparseAdam(models[k][0].parameters(), lr=0.01) for k in range(2)]
    scaler = torch.amp.GradScaler("cpu", init_scale=1024.0)
    for step in range(10):
        for k, optimizer in enumerate(optimizers):
            models[k].zero_grad()
            loss = loss_of(models[k], step)
            if k == 1:
                loss.backward()
                if step != 4:
                    optimizer.step()
                continue
            scaler.scale(loss).backward()
            if step == 4:
                values_of(models[k][0].weight.grad)[0, 0] = torch.inf
            scaler.step(optimizer)
            scaler.update()
    assert scaler.get_scale() == 512.0
    assert same_bits(models[0].parameters(), models[1].parameters())


def test_a_closure_and_groups_that_differ() -> None:
    tables = [table(seed=k) for k in range(3)]
    opt = fst.Adam(
        [
            {"params": [tables[0]], "untouched": "exact"},
            {"params": [tables[1]], "untouched": "frozen"},
            {"params": [tables[2]]},
        ]
    )
    other, dense = table(seed=0), fst.Adam([table(seed=0)])
    other = dense.param_groups[0]["params"][0]

    def closure() -> float:
        g = sparse(opt.report.t)
        tables[0].grad, tables[1].grad, tables[2].grad = g, g.clone(), in_order(g)
        other.grad = in_order(g)
        return 2.0

    for _ in range(20):
        assert opt.step(closure) == 2.0
        dense.step()
    opt.catch_up()
    assert same_bits([tables[0]], [other])
    assert not same_bits([tables[1]], [tables[0]])
    tables[2].grad = sparse(0)
    with pytest.raises(RuntimeError, match="SparseAdam"):
        opt.step()


def test_a_rate_that_a_scheduler_sets() -> None:
    one, other = table(), table()
    opt, dense = fst.AdamW([one], untouched="exact"), fst.AdamW([other])
    schedules = [torch.optim.lr_scheduler.CosineAnnealingLR(each, 30) for each in (opt, dense)]
    for step in range(30):
        one.grad = sparse(step)
        other.grad = in_order(one.grad)
        for optimizer, schedule in zip((opt, dense), schedules, strict=True):
            optimizer.step()
            schedule.step()
    opt.catch_up()
    assert same_bits([one], [other])


@needs_c
def test_dense_parameters_of_the_group_are_still_taken_in_c(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    from fusedstep.torch import _tensors

    if exchange.exchange(torch.Tensor) is None:
        pytest.skip("this torch has no exchange interface")
    looked = []
    check = _tensors.Tensor.check_gradient

    def counting(self: Any, g: Any, place: Any) -> Any:
        looked.append(self.path)
        return check(self, g, place)

    model = model_of()
    opt = fst.Adam(model.parameters(), untouched="frozen")
    for step in range(5):
        opt.zero_grad()
        loss_of(model, step).backward()
        opt.step()
        if step == 0:
            monkeypatch.setattr(_tensors.Tensor, "check_gradient", counting)
    assert looked == []


def test_steps_in_the_backward_pass_are_by_rows() -> None:
    models = model_of(), model_of()
    optimizers = [fst.Adam(model.parameters(), untouched="frozen") for model in models]
    hooks = fst.step_in_backward(models[0], optimizers[0])
    for step in range(10):
        for model in models:
            loss_of(model, step).backward()
        for optimizer in optimizers:
            optimizer.step()
        models[1].zero_grad()
    assert same_bits(models[0].parameters(), models[1].parameters())
    assert "row_step" in optimizers[0].state[models[0][0].weight]
    hooks.remove()


def test_rows_that_miss_steps_are_refused_in_the_backward_pass() -> None:
    model = model_of()
    optimizer = fst.Adam(model.parameters(), untouched="exact")
    with pytest.raises(ValueError, match="untouched='frozen'"):
        fst.step_in_backward(model, optimizer)


@on_each_backend
def test_gradients_are_let_go(backend: str) -> None:
    one = table()
    opt = fst.Adam([one], untouched="frozen", backend=backend)
    for step in range(2):
        one.grad = sparse(step)
        opt.step()
    storage = values_of(one.grad).untyped_storage()
    ends = weakref.ref(storage)
    one.grad = None
    del storage
    gc.collect()
    assert ends() is None
    one.grad = sparse(2)
    opt.step()


# ---- refusals ----


def refused(p: Any, g: Any, error: type[Exception], words: str, **options: Any) -> None:
    """A step that must be refused, and leave everything as it was."""
    opt = fst.Adam([p], untouched="frozen", **options)
    p.grad = g
    before = copies([p])
    with pytest.raises(error, match=words):
        opt.step()
    assert same_bits([p], before)
    assert not opt.state[p]


def test_gradients_of_other_layouts_are_refused() -> None:
    dense = in_order(sparse(0))
    remedy = r"pass `p\.grad\.to_dense\(\)\.to_sparse\(1\)`"
    refused(table(), dense.to_sparse(2), TypeError, f"2 sparse dimensions.*{remedy}")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # torch's own, about its beta
        compressed = dense.to_sparse_csr()
    with pytest.raises(TypeError, match=f"grads is sparse_csr.*{remedy}"):
        rows_of(compressed, dense.numpy(), "grads")  # torch lets no parameter have it
    p = table()
    opt = fst.Adam([p], untouched="frozen")
    p.grad = dense.to_sparse(2)
    p.grad = p.grad.to_dense().to_sparse(1)
    opt.step()


def test_parameters_that_are_stepped_whole_are_refused() -> None:
    narrow = torch.nn.Parameter(table().detach().bfloat16())
    refused(narrow, sparse(0).bfloat16(), TypeError, "of 16 bits; pass a parameter of float32")
    pairs = torch.nn.Parameter(table().detach().to(torch.complex64))
    refused(pairs, sparse(0).to(torch.complex64), TypeError, "complex; pass its real view")
    large = torch.nn.Parameter(torch.zeros(64, 128))
    g = rows(torch.tensor([3]), torch.ones(1, 128), 64)
    refused(large, g, TypeError, "state_dtype='float32'", state_dtype="8bit")


@pytest.mark.parametrize("name", ["capturable", "differentiable"])
@pytest.mark.parametrize("in_group", [False, True])
def test_steps_of_torchs_own_have_no_rows(name: str, in_group: bool) -> None:
    p = table()
    options: Options = {name: True}
    if in_group:
        opt = fst.Adam([{"params": [p], "untouched": "frozen"}], **options)
    else:
        opt = fst.Adam([p], untouched="frozen", **options)
    p.grad = sparse(0)
    with pytest.raises(ValueError, match="untouched"):
        opt.step()


def test_choices_are_checked() -> None:
    with pytest.raises(ValueError, match="pass one of"):
        fst.Adam([table()], untouched="still")
    with pytest.raises(ValueError, match="pass one of"):
        fst.Adam([table()], row_steps="none")
    assert "untouched" not in fst.Adam([table()], untouched=None).param_groups[0]
