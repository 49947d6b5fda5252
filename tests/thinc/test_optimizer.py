"""thinc's optimizers, fused: whatever can be observed is as thinc has it."""

from __future__ import annotations

import copy
import inspect
import pickle
from concurrent.futures import ThreadPoolExecutor
from importlib.metadata import entry_points
from typing import Any

import numpy as np
import pytest
import thinc_models as models
from marks import needs, on_each_backend
from thinc_models import arrays_of, assert_close, assert_same, network, parameters, train

thinc: Any = needs("thinc.api", "thinc")
fused: Any = needs("fusedstep.thinc", "thinc")

OPTIONS: list[dict[str, Any]] = [
    {},
    {"use_averages": False},
    {"grad_clip": 0.0},
    {"L2": 0.1},
    {"L2": 0.1, "L2_is_weight_decay": False},
    {"L2": 0.1, "L2_is_weight_decay": False, "grad_clip": 0.0},
    {"beta1": 0.5, "beta2": 0.7, "eps": 1e-3, "L2": 0.01},
    {"beta1": 0.0, "beta2": 0.0},
    {"beta1": 0.0, "beta2": 0.0, "L2": 0.1, "use_averages": False},
    {"beta1": 0.0, "beta2": 0.0, "L2": 0.1, "L2_is_weight_decay": False},
    {"beta1": 0.0, "beta2": 0.0, "L2": 0.1, "L2_is_weight_decay": False, "grad_clip": 0.0},
    {"use_radam": True},
    {"use_radam": True, "beta2": 0.8, "L2": 0.1},
    {"use_radam": True, "beta2": 0.8, "L2": 0.1, "L2_is_weight_decay": False, "grad_clip": 0.5},
]


def both(**options: Any) -> tuple[Any, Any]:
    """An optimizer of this package and thinc's."""
    return fused.Optimizer(0.05, **options), models.Optimizer(0.05, **options)


def layouts(optimizer: Any) -> list[Any]:
    return [*optimizer._layouts.values()]  # noqa: SLF001


@on_each_backend
@pytest.mark.parametrize("options", OPTIONS, ids=str)
def test_a_models_steps_are_thincs(options: dict[str, Any], backend: str) -> None:
    mine, theirs = (
        fused.Optimizer(0.05, backend=backend, **options),
        models.Optimizer(0.05, **options),
    )
    model, reference = network(), network()
    train(model, mine)
    train(reference, theirs)
    assert_close(arrays_of(model, mine), arrays_of(reference, theirs))
    assert [steps.plan is not None for steps in layouts(mine)] == [True]
    assert not any(g.any() for g in arrays_of(model, mine)["g"])


@on_each_backend
@pytest.mark.parametrize("options", OPTIONS, ids=str)
def test_calls_for_single_parameters_are_the_same_bits(
    options: dict[str, Any], backend: str
) -> None:
    results = []
    for one_by_one, name in ((False, backend), (True, backend), (True, "numpy")):
        model, optimizer = network(), fused.Optimizer(0.05, backend=name, **options)
        train(model, optimizer, one_by_one=one_by_one)
        results.append(arrays_of(model, optimizer))
    assert_same(results[1], results[0])
    assert_same(results[2], results[0])


def test_parameters_are_stepped_when_a_call_returns() -> None:
    """Whoever reads them next, by whatever name, finds the new values, and zeros."""
    optimizer = fused.Adam(0.5)
    p, g = np.ones(3, np.float32), np.full(3, 0.1, np.float32)
    alias, alias_of_g = p[:], g[:]
    found = optimizer((0, "W"), p, g)
    np.testing.assert_allclose(alias, 0.5, rtol=1e-5)
    assert not alias_of_g.any()
    assert found[0] is p
    assert found[1] is g
    model = network()
    models.set_gradients(model, np.random.default_rng(0))
    node, name = parameters(model)[-1]
    held, before = node.get_param(name), node.get_param(name).copy()
    model.finish_update(optimizer)  # and nothing else: no step of schedules, no next call
    assert node.get_param(name) is held
    assert (held != before).all()


def test_pipes_that_share_an_optimizer() -> None:
    """Each model is stepped when its own walk ends, and its parameters count by themselves."""
    mine, theirs = both(L2=0.01)
    pairs = [(network(9, 2, k), network(9, 2, k)) for k in range(3)]
    for t in range(6):
        for k, (model, reference) in enumerate(pairs):
            if t % (k + 1) == 0:
                train(model, mine, 1, seed=t)
                train(reference, theirs, 1, seed=t)
    for model, reference in pairs:
        assert_close(arrays_of(model, mine), arrays_of(reference, theirs))
    assert sorted(set(mine.nr_update.values())) == [2, 3, 6]


def test_parameters_that_have_taken_different_steps() -> None:
    """A parameter whose gradient comes later is at t = 1 while others are further."""
    mine, theirs = both()
    model, reference = network(), network()
    for one, optimizer in ((model, mine), (reference, theirs)):
        rng = np.random.default_rng(3)
        for t in range(5):
            for k, (node, name) in enumerate(parameters(one)):
                if t >= k % 3:
                    node.set_grad(name, models.normal(rng, node.get_param(name).shape))
            one.finish_update(optimizer)
    assert_close(arrays_of(model, mine), arrays_of(reference, theirs))
    assert {*mine.nr_update.values()} == {3, 4, 5}


def test_schedules_and_the_scale_of_the_rate() -> None:
    kwargs: list[dict[str, Any]] = [
        {
            "learn_rate": thinc.warmup_linear(0.1, 3, 9),
            "L2": thinc.decaying(0.1, 0.5),
            "beta1": [0.9, 0.8, 0.5],
            "grad_clip": iter([1.0, 0.0, 0.1]),
        }
        for _ in range(2)
    ]
    mine, theirs = fused.Optimizer(**kwargs[0]), models.Optimizer(**kwargs[1])
    p, q = np.ones((2, 3), np.float32), np.ones((2, 3), np.float32)
    rng = np.random.default_rng(4)
    for t in range(8):
        g = models.normal(rng, p.shape)
        mine((1, "W"), p, g.copy(), lr_scale=1 + t / 4)
        q, _ = theirs((1, "W"), q, g.copy(), lr_scale=1 + t / 4)
        np.testing.assert_allclose(p, q, rtol=1e-5)
        mine.step_schedules()
        theirs.step_schedules()
        for name in ("learn_rate", "L2", "b1", "grad_clip"):
            assert getattr(mine, name) == getattr(theirs, name)


def test_attributes_are_read_at_each_step() -> None:
    """Also those that choose the rule: SGD, Adam, RAdam, with and without averages."""
    mine, theirs = both()
    model, reference = network(), network()
    changes: list[dict[str, Any]] = [
        {},
        {"learn_rate": 0.5, "L2": 0.1},
        {"use_radam": True},
        {"averages": None, "L2_is_weight_decay": False},
        {"use_radam": False, "b1": 0.0, "b2": 0.0},
        {"averages": {}, "grad_clip": 0.01, "L2": 0},
        {"b1": 0.5, "b2": 0.6},
    ]
    for t, change in enumerate(changes):
        for name, value in change.items():
            setattr(mine, name, copy.copy(value))
            setattr(theirs, name, copy.copy(value))
        train(model, mine, 2, seed=t)
        train(reference, theirs, 2, seed=t)
        assert_close(arrays_of(model, mine), arrays_of(reference, theirs))
    mine.b1, mine.b2 = 0.0, 0.5
    with pytest.raises(NotImplementedError):
        train(model, mine, 1)


def test_state_that_somebody_replaces() -> None:
    mine, theirs = both()
    model, reference = network(), network()
    for one, optimizer in ((model, mine), (reference, theirs)):
        train(one, optimizer, 2)
        node, name = parameters(one)[0]
        key = node.id, name
        optimizer.mom1[key] = np.full_like(optimizer.mom1[key], 0.25)
        optimizer.mom2[key][:] = 2
        del optimizer.averages[key]
        optimizer.nr_update[key] = 40
        train(one, optimizer, 2)
        optimizer.mom2 = {}
        train(one, optimizer, 2)
        optimizer.nr_update.clear()
        train(one, optimizer, 1)
    assert_close(arrays_of(model, mine), arrays_of(reference, theirs))


def test_parameters_that_somebody_replaces() -> None:
    mine, theirs = both()
    model, reference = network(), network()
    for one, optimizer in ((model, mine), (reference, theirs)):
        train(one, optimizer, 2)
        for node, name in parameters(one):
            node.set_param(name, node.get_param(name) * 2)
            node.set_grad(name, node.get_grad(name).copy())
        train(one, optimizer, 2)
        with one.use_params(optimizer.averages):
            inside = arrays_of(one, optimizer)["p"]
        train(one, optimizer, 2)
        one.from_bytes(one.to_bytes())
        train(one, optimizer, 2)
    assert_close(arrays_of(model, mine), arrays_of(reference, theirs))
    assert len(inside) == 6


def test_averages_are_what_use_params_shows() -> None:
    mine, theirs = both()
    model, reference = network(), network()
    train(model, mine, 20)
    train(reference, theirs, 20)
    before = arrays_of(model, mine)["p"]
    with model.use_params(mine.averages), reference.use_params(theirs.averages):
        assert_close(arrays_of(model, mine), arrays_of(reference, theirs))
        assert all((x != y).any() for x, y in zip(arrays_of(model, mine)["p"], before, strict=True))
    assert all((x == y).all() for x, y in zip(arrays_of(model, mine)["p"], before, strict=True))


@pytest.mark.parametrize(
    "options", [{}, {"grad_clip": 0.0}, {"beta1": 0.0, "beta2": 0.0}, {"use_radam": True}], ids=str
)
@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
def test_gradients_that_are_not_finite(value: float, options: dict[str, Any]) -> None:
    mine, theirs = both(**options)
    model, reference = network(), network()
    for one, optimizer in ((model, mine), (reference, theirs)):
        train(one, optimizer, 2)
        models.set_gradients(one, np.random.default_rng(0))
        node, name = parameters(one)[1]
        node.get_grad(name).flat[0] = value
        with np.errstate(all="ignore"):
            one.finish_update(optimizer)
            one.finish_update(optimizer)
    assert_close(arrays_of(model, mine), arrays_of(reference, theirs))


@pytest.mark.parametrize("clip", [0.0, 1.0])
@pytest.mark.parametrize("name", ["Adam", "RAdam"])
def test_gradients_whose_squares_overflow(name: str, clip: float) -> None:
    """RAdam's first steps do not divide by their root."""
    made = [getattr(each, name)(0.01, grad_clip=clip) for each in (fused, thinc)]
    found = []
    for optimizer in made:
        p, g = np.ones(2, np.float32), np.array([1e21, 1], np.float32)
        with np.errstate(all="ignore"):
            found.append(optimizer((0, "W"), p, g)[0])
    np.testing.assert_array_equal(*found)


def test_what_thinc_alone_can_step() -> None:
    """Shared memory, gaps, another shape of the gradient: as thinc does, or with its error."""
    w = np.ones(6, np.float32)
    mine, theirs = both(grad_clip=0.0)
    for optimizer in (mine, theirs):
        model = thinc.chain(thinc.Linear(2, 3), thinc.Linear(3, 2)).initialize()
        shared = w.copy()
        for layer, shape in zip(model.layers, ((3, 2), (2, 3)), strict=True):
            layer.set_param("W", shared.reshape(shape))
            layer.set_grad("W", np.full(shape, 0.1, np.float32))
        model.finish_update(optimizer)
        if optimizer is mine:
            found = shared
    np.testing.assert_allclose(found, shared, rtol=1e-6)
    assert [steps.plan for steps in layouts(mine) if len(steps.keys) == 2] == [None]
    for weights, g in (
        (np.ones((4, 4), np.float32)[:, ::2], np.ones((4, 2), np.float32)),
        (np.ones(3, np.float64), np.ones(3, np.float64)),
        (np.ones(3, np.float32), np.ones(2, np.float32)),
        (np.ones((3, 1), np.float32), np.ones(3, np.float32)),
    ):
        outcomes = []
        for optimizer in (mine, theirs):
            try:
                p, left = optimizer((9, "W"), weights.copy(), g.copy())
                outcomes.append((p.tolist(), left.tolist()))
            except (TypeError, ValueError) as error:
                outcomes.append((type(error), str(error)))
        assert outcomes[0] == outcomes[1]


def test_empty_gradients_are_passed_over() -> None:
    optimizer = fused.Adam()
    p, g = np.ones((1, 2)), np.zeros(0)
    found = optimizer((0, "W"), p, g)
    assert found[0] is p
    assert found[1] is g
    assert (0, "W") not in optimizer.nr_update


def test_a_gradient_that_shares_memory_with_another() -> None:
    mine, theirs = both()
    results = []
    for optimizer in (mine, theirs):
        model = thinc.chain(thinc.Linear(2, 2), thinc.Linear(2, 2)).initialize()
        shared = np.full((2, 2), 0.1, np.float32)
        for layer in model.layers:
            layer.set_param("W", np.ones((2, 2), np.float32))
            layer.set_grad("W", shared)
        model.finish_update(optimizer)
        results.append([layer.get_param("W").copy() for layer in model.layers])
    np.testing.assert_allclose(results[0], results[1], rtol=1e-6)
    assert (results[0][1] == 1).all()  # the first had zeroed it


@pytest.mark.parametrize("copied", [copy.deepcopy, lambda x: pickle.loads(pickle.dumps(x))])
def test_copies_go_on_by_themselves(copied: Any) -> None:
    model, optimizer = network(), fused.Adam(0.05, L2=0.01)
    train(model, optimizer, 3)
    twin, other = copied(optimizer), network()
    for (node, name), (source, _) in zip(parameters(other), parameters(model), strict=True):
        node.id = source.id
        node.set_param(name, source.get_param(name).copy())
    assert type(twin) is type(optimizer)
    for key in optimizer.mom1:
        assert twin.mom1[key] is not optimizer.mom1[key]
    train(model, optimizer, 3, seed=8)
    train(other, twin, 3, seed=8)
    assert_same(arrays_of(other, twin), arrays_of(model, optimizer))


def test_other_optimizers_go_through_thincs_own_walk() -> None:
    calls = []

    def optimizer(key: Any, p: Any, g: Any) -> Any:
        calls.append(key)
        return p, g

    model = network()
    models.set_gradients(model, np.random.default_rng(0))
    model.finish_update(optimizer)
    assert calls == [(node.id, name) for node, name in parameters(model)]


def test_a_subclass_that_looks_at_each_call_gets_them() -> None:
    calls = []

    class Logging(fused.Optimizer):  # type: ignore[misc]
        def __call__(self, key: Any, p: Any, g: Any, *, lr_scale: float = 1.0) -> Any:
            calls.append(key)
            return super().__call__(key, p, g, lr_scale=lr_scale)

    model, optimizer = network(), Logging(0.05)
    train(model, optimizer, 2)
    assert calls == [(node.id, name) for node, name in parameters(model)] * 2
    expected, plain = network(), fused.Optimizer(0.05)
    train(expected, plain, 2)
    assert_same(arrays_of(model, optimizer), arrays_of(expected, plain))


def test_shims_are_stepped_too() -> None:
    torch = needs("torch", "torch")
    results = []
    for optimizer in both():
        torch.manual_seed(0)
        model = thinc.PyTorchWrapper(torch.nn.Linear(4, 3))
        x = np.random.default_rng(0).standard_normal((5, 4)).astype(np.float32)
        model.initialize(x)
        for _ in range(3):
            y, backprop = model.begin_update(x)
            backprop(y - 1)
            model.finish_update(optimizer)
        parameters_ = model.shims[0]._model.parameters()  # noqa: SLF001
        results.append([p.detach().numpy().copy() for p in parameters_])
    for x, y in zip(*results, strict=True):
        np.testing.assert_allclose(x, y, rtol=1e-5, atol=1e-7)


def test_parameters_of_another_process_are_fetched_and_sent() -> None:
    class Proxy:
        def __init__(self) -> None:
            self.sent: list[Any] = []

        def get_param(self, number: int, name: str) -> Any:
            return np.ones((2, 2), np.float32)

        def set_param(self, number: int, name: str, value: Any) -> None:
            self.sent.append(value)

    layer = thinc.Linear(2, 2).initialize()
    layer.set_grad("W", np.ones((2, 2), np.float32))
    layer._params.proxy = proxy = Proxy()  # noqa: SLF001
    layer.finish_update(fused.Adam(0.5))
    assert len(proxy.sent) == 1
    np.testing.assert_allclose(proxy.sent[0], 0.5, rtol=1e-5)


def test_a_step_that_is_laid_out_stays_so() -> None:
    """Counts, not times: nothing is laid out anew while nothing changes."""
    model, optimizer = network(), fused.Adam(0.05)
    train(model, optimizer, 2)
    (before,) = layouts(optimizer)
    train(model, optimizer, 5)
    (after,) = layouts(optimizer)
    assert after is before


@pytest.mark.parametrize("name", ["SGD", "Adam", "AdamW", "RAdam"])
def test_configs_name_them(name: str) -> None:
    config = {"@optimizers": f"fusedstep.{name}.v1", "learn_rate": 0.25, "L2": 0.5}
    optimizer = thinc.registry.resolve({"it": config})["it"]
    assert isinstance(optimizer, fused.Optimizer)
    assert isinstance(optimizer, models.Optimizer)
    assert (optimizer.learn_rate, optimizer.L2) == (0.25, 0.5)
    assert optimizer.use_radam == (name == "RAdam")
    assert (optimizer.b2 > 0) == (name != "SGD")


def test_backends_that_there_are_not() -> None:
    with pytest.raises(ValueError, match=r"backend='gpu'.*pass one of 'auto'"):
        fused.Optimizer(0.1, backend="gpu")


def test_entry_points_are_the_functions() -> None:
    """By them a config finds the optimizers though nobody has imported them."""
    found = {
        each.name: each.load()
        for each in entry_points(group="thinc_optimizers")
        if each.name.startswith("fusedstep.")
    }
    names = [name for name in fused.__all__ if name != "Optimizer"]
    assert found == {f"fusedstep.{name}.v1": getattr(fused, name) for name in names}


@pytest.mark.parametrize("name", ["SGD", "Adam", "RAdam"])
def test_arguments_and_defaults_are_thincs(name: str) -> None:
    """Types included, by which configs are checked."""
    mine, theirs = (inspect.signature(getattr(each, name)) for each in (fused, thinc))
    assert {**mine.parameters} == {**theirs.parameters}


def test_parameters_of_which_some_do_not_fit() -> None:
    """One float64 parameter: thinc's kernels refuse it, in thinc's words."""
    errors = []
    for optimizer in both(use_averages=False):
        model = network()
        models.set_gradients(model, np.random.default_rng(0))
        node, name = parameters(model)[3]
        node.set_param(name, node.get_param(name).astype(np.float64))
        node.set_grad(name, node.get_grad(name).astype(np.float64))
        with pytest.raises(ValueError, match="dtype") as error:
            model.finish_update(optimizer)
        errors.append(
            (str(error.value), *(node.get_param(n).tolist() for node, n in parameters(model)[:3]))
        )
    assert errors[0][0] == errors[1][0]
    for x, y in zip(errors[0][1:], errors[1][1:], strict=True):
        np.testing.assert_allclose(x, y, rtol=1e-5)


def test_no_bound_on_the_norm_may_be_none() -> None:
    results = []
    for optimizer in both():
        optimizer.grad_clip = None
        model = network()
        train(model, optimizer, 2)
        results.append(arrays_of(model, optimizer))
    assert_close(*results)


def test_threads_that_step_models_of_their_own_by_one_optimizer() -> None:
    optimizer, expected = fused.Adam(0.05), fused.Adam(0.05)
    pairs = [(network(seed=k), network(seed=k)) for k in range(4)]
    with ThreadPoolExecutor(4) as pool:
        [*pool.map(lambda pair: train(pair[0], optimizer, 30), pairs)]
    for model, alone in pairs:
        train(alone, expected, 30)
        assert_same(arrays_of(model, optimizer), arrays_of(alone, expected))
