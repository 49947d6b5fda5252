"""Layouts: made once, made anew when they must be, and how few calls a step makes."""

from __future__ import annotations

import gc
import warnings
import weakref
from pathlib import Path
from typing import Any, TypeAlias

import numpy as np
import pytest
from cases import CASES, WHOLE_CASES, Case, differing_bits, ones, ordinary
from counting import calls_into_c, calls_of
from marks import for_each, needs_c, on_each_backend

import fusedstep as fs
from fusedstep._backends import plan as plan_module
from fusedstep._core import layout as layout_module
from fusedstep._core import tensors as tensors_module

Array: TypeAlias = np.ndarray[Any, Any]

# ---- whatever is done to the array objects ----


@on_each_backend
def test_a_parameter_whose_object_changes_is_stepped_as_it_was(backend: str) -> None:
    for change in ({"dtype": np.float64}, {"shape": (2, 2)}, {"dtype": np.int32}):
        memory = np.asfortranarray(np.ones((4, 4), np.float32))
        p = memory[:, :1][:, 0]
        optimizer = fs.Adam(p, lr=0.5, backend=backend)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", DeprecationWarning)
            for name, value in change.items():
                setattr(p, name, value)
        optimizer.step(ones(4))
        assert (memory[:, 0] == 0.5).all()
        assert (memory[:, 1:] == 1).all()


@pytest.mark.filterwarnings("ignore:the matrix subclass:PendingDeprecationWarning")
@on_each_backend
def test_subclasses_are_taken_as_the_arrays_that_they_are(backend: str) -> None:
    class Copying(np.ndarray[Any, Any]):
        def __getitem__(self, key: Any) -> Any:
            return np.array(np.ndarray.__getitem__(self, key))

    params: list[Any] = [np.matrix(ones(3, 3)), ones(3, 4).T.view(Copying), ones(2)]
    optimizer = fs.Adam(params, lr=0.5, backend=backend)
    for _ in range(2):
        optimizer.step([np.matrix(ones(3, 3)), ones(4, 3).view(Copying), ones(2).view(Copying)])
    for p in params:
        assert np.allclose(np.asarray(p), 0, atol=1e-6)


def test_parameters_in_a_file(tmp_path: Path) -> None:
    p = np.memmap(tmp_path / "p", np.float32, "w+", shape=(5,))
    fs.SGD(p, lr=1.0).step(ones(5))
    p.flush()
    assert (np.fromfile(tmp_path / "p", np.float32) == -1).all()


@on_each_backend
@pytest.mark.parametrize("request_", [{}, {"max_norm": 9.0}, {"zero_grads": True}], ids=str)
def test_a_parameter_that_was_made_read_only_is_not_written(
    request_: dict[str, Any], backend: str
) -> None:
    p, q = ones(4), ones(8)[::2]
    optimizer = fs.SGD([p, q], lr=1.0, backend=backend)
    optimizer.step([ones(4), ones(4)])
    for k, array in enumerate((p, q)):
        array.flags.writeable = False
        for _ in range(2):
            grads = [ones(4), ones(4)]
            with pytest.raises(ValueError, match=rf"params\[{k}\] has been made read-only"):
                optimizer.step(grads, **request_)
            assert (p == 0).all()
            assert (q == 0).all()
            assert all((g == 1).all() for g in grads)
        # Both of the remedies work.
        optimizer.step([g if k != each else None for each, g in enumerate(grads)])
        array.flags.writeable = True
        optimizer.step([-g if k != each else None for each, g in enumerate(grads)])
        optimizer.step(grads)
        p[...] = q[...] = 0


@on_each_backend
@pytest.mark.parametrize("way", ["resize", "__setstate__"])
@pytest.mark.parametrize("size", [0, 3, 19, 21, 100_000])
def test_a_parameter_that_was_resized_is_not_written(size: int, way: str, backend: str) -> None:
    p = [ones(20), ones(4)]
    optimizer = fs.SGD(p, lr=1.0, backend=backend)
    optimizer.step([ones(20), ones(4)])
    if way == "resize":
        p[0].resize(size, refcheck=False)
    else:  # an array can take over what was pickled of another
        p[0].__setstate__(ones(size).__reduce__()[2])  # type: ignore[arg-type]
    before = p[0].copy()
    requests: list[dict[str, Any]] = [{}, {"max_norm": 1.0}]
    for request in requests:
        with pytest.raises(ValueError, match=rf"params\[0\] has been resized .* \({size},\)"):
            optimizer.step([ones(20), ones(4)], **request)
        assert differing_bits(p[0], before) == 0
        assert (p[1] == 0).all()
    optimizer.step([None, ones(4)])
    assert (p[1] == -1).all()
    # The remedy.
    fs.SGD(p, lr=1.0, backend=backend).step([np.ones_like(p[0]), ones(4)])


@on_each_backend
@pytest.mark.parametrize("in_arena", [False, True])
def test_the_memory_of_an_optimizer_goes_with_it(in_arena: bool, backend: str) -> None:
    """At once, not when the collector of garbage looks for circles: state may be gigabytes."""
    params: Any = fs.Arena([ones(20)]) if in_arena else [ones(20)]
    grads: Any = params.grads if in_arena else [ones(20)]
    opt = fs.SGD(params, lr=lambda t: 0.1, momentum=0.5, ema=0.5, backend=backend)
    gc.disable()
    try:
        opt.step(grads)
        with opt.lookahead():
            pass
        opt.load_state_dict(opt.state_dict())
        opt.step(grads, max_norm=1.0)
        memory = opt.state[0]["b"]
        while memory.base is not None:
            memory = memory.base
        gone = weakref.ref(memory)
        del opt, memory
        assert gone() is None
    finally:
        gc.enable()


@on_each_backend
def test_an_average_does_not_begin_from_a_parameter_that_was_resized(backend: str) -> None:
    """The memory that it had is gone."""
    p = np.ones(3_000_000, np.float32)
    opt = fs.SGD(p, lr=1.0, backend=backend)
    opt.step(np.ones_like(p))
    g = np.ones_like(p)
    opt.param_groups[0]["ema"] = 0.9
    p.resize(1, refcheck=False)
    for use in (lambda: opt.step(g), opt.state_dict):
        with pytest.raises(ValueError, match="params has been resized"):
            use()
    assert p == 0


@on_each_backend
def test_no_parameter_goes_ahead_that_may_not_be_written(backend: str) -> None:
    p = ones(4)
    optimizer = fs.SGD(p, lr=1.0, momentum=0.5, backend=backend)
    optimizer.step(ones(4))
    p.flags.writeable = False
    with pytest.raises(ValueError, match="read-only"), optimizer.lookahead():
        pass
    assert (p == 0).all()


# ---- layouts are made when they must be ----


def test_a_schedule_needs_no_new_layout(monkeypatch: pytest.MonkeyPatch) -> None:
    optimizer = fs.AdamW([ones(3), ones(2)])
    optimizer.step([ones(3), ones(2)])
    made = calls_of(monkeypatch, layout_module, "Plan")
    for _ in range(5):
        optimizer.lr *= 0.9
        optimizer.param_groups[0].update(weight_decay=0.1, betas=(0.8, 0.9))
        optimizer.step([ones(3), ones(2)])
    assert made == []
    optimizer.param_groups[0]["amsgrad"] = True
    optimizer.step([ones(3), ones(2)])
    assert len(made) == 1


@needs_c
@pytest.mark.parametrize("selecting", [False, True], ids=["laid out", "selected"])
def test_a_step_that_fails_in_its_layout_changes_nothing(
    selecting: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    p, q = ones(3), ones(2)
    optimizer = fs.SGD([p, q], lr=1.0, momentum=0.5)
    one, both = [ones(3), None], [ones(3), ones(2)]
    first, second = (both, one) if selecting else (one, both)
    optimizer.step(first)
    ts = [state["t"] for state in optimizer.state]

    def refuse(*_: Any) -> Any:
        raise MemoryError

    with monkeypatch.context() as patch:
        patch.setattr(plan_module.Plan, "select" if selecting else "__init__", refuse)
        with pytest.raises(MemoryError):
            optimizer.step(second)
    assert [state["t"] for state in optimizer.state] == ts
    optimizer.step(both)
    assert [state["t"] for state in optimizer.state] == [2, ts[1] + 1]
    optimizer.step(one)
    assert [state["t"] for state in optimizer.state] == [3, ts[1] + 1]
    assert (p == 1 - 1 - 1.5 - 1.75).all()


# ---- gradients that come and go ----


@on_each_backend
@for_each([*CASES, *WHOLE_CASES])
def test_gradients_come_and_go(case: Case, backend: str) -> None:
    """Each tensor has its own t, and what is not stepped stays as it is."""
    rng = np.random.default_rng(0)
    start = [
        ordinary(rng, n, dtype) for n in (5, 1000, 0, 33, 4099) for dtype in (np.float32, float)
    ]
    found, expected = [p.copy() for p in start], [p.copy() for p in start]
    optimizer = case.optimizer(found, **case.options, backend=backend)
    reference = case.optimizer(expected, **case.options, backend="numpy")
    for step in range(12):
        there = rng.random(len(start)) < (0.5 if step % 4 else 1.0)
        grads: list[Any] = [
            ordinary(rng, p.size, p.dtype) if here else None
            for p, here in zip(start, there, strict=True)
        ]
        others = [None if g is None else np.repeat(g, 1 + k)[:: 1 + k] for k, g in enumerate(grads)]
        report = optimizer.step(others, **case.request)
        assert report == reference.step(grads, **case.request)
        for p, q in zip(found, expected, strict=True):
            assert differing_bits(p, q) == 0
    pairs = zip(optimizer.state_dict()["state"], reference.state_dict()["state"], strict=True)
    for state, other in pairs:
        assert state.keys() == other.keys()
        for letter, value in other.items():
            assert np.array_equal(state[letter], value, equal_nan=True), letter


@on_each_backend
def test_no_gradient_at_all_between_steps(backend: str) -> None:
    """There is no job then, and nothing that could be unfit."""
    p = ones(3)
    optimizer = fs.SGD([p, ones(2)], lr=1.0, nonfinite="skip", backend=backend)
    for grads, t in (([ones(3), None], 1), ([None, None], 0), ([ones(3), ones(2)], 2)):
        report = optimizer.step(grads, scale=0.5, max_norm=1e9)
        assert (report.skipped, report.t) == ((), t)
    assert (p == -3).all()


@needs_c
def test_patterns_of_gradients_are_laid_out_once(monkeypatch: pytest.MonkeyPatch) -> None:
    made = calls_of(monkeypatch, layout_module, "Plan")
    optimizer = fs.AdamW([ones(3) for _ in range(4)])
    for step in range(20):
        optimizer.step([None if k == step % 4 else ones(3) for k in range(4)])
    assert len(made) == 2
    assert [state["t"] for state in optimizer.state] == [15] * 4


# ---- one call a step ----


@needs_c
@pytest.mark.parametrize("fresh", [False, True], ids=["same arrays", "new arrays"])
@pytest.mark.parametrize("count", [1, 1000])
def test_calls_do_not_grow_with_the_number_of_tensors(
    count: int, fresh: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """One call takes over the gradients and steps; nothing is looked at from Python."""
    from fusedstep._arrays import overlap

    def gradients() -> list[Array]:
        return [ones(10) for _ in range(count)]

    grads = gradients()
    made = fs.AdamW(gradients())
    made.step(grads)
    if fresh:
        grads, kept = gradients(), grads  # `kept`, so that the new ones lie elsewhere
        assert grads[0] is not kept[0]
    calls = calls_into_c(monkeypatch)
    monkeypatch.setattr(tensors_module, "check_gradient", None)
    monkeypatch.setattr(overlap, "extent", None)
    made.step(grads)
    assert calls == ["fs_take_and_step"]


@needs_c
def test_first_gradients_that_lie_as_their_parameters_are_taken_in_c(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Python looks at those alone that lie otherwise."""
    seen = calls_of(monkeypatch, tensors_module, "check_gradient")
    shapes: list[tuple[int, ...]] = [(), (3,), (1, 4), (4, 1), (2, 3, 4)]
    params = [np.ones(shape, np.float32) for shape in shapes]
    fs.AdamW(params).step([np.full(shape, 0.5, np.float32) for shape in shapes])
    assert seen == []
    turned = np.full((4, 3, 2), 0.5, np.float32).T
    fs.AdamW(params).step([*(np.full(shape, 0.5, np.float32) for shape in shapes[:-1]), turned])
    assert [g.shape for g, *_ in seen] == [(2, 3, 4)]


def test_gradients_are_not_kept() -> None:
    """A step holds on to no gradient that it read in place."""
    p = ones(10)
    optimizer = fs.AdamW(p)
    for _ in range(3):
        g = ones(10)
        optimizer.step(g)
        gone = weakref.ref(g)
        del g
        assert gone() is None or optimizer.layout.plan.kind.__module__.endswith("numpy")


@on_each_backend
def test_gradients_of_every_kind_one_after_the_other(backend: str) -> None:
    """Gradients that a glance accepts and ones that must be looked at, in all transitions."""
    params = [ones(4, 6), ones(4, 6), ones(6)]
    expected = [p.copy() for p in params]
    optimizer = fs.SGD(params, lr=0.25, backend=backend)
    rng = np.random.default_rng(0)
    for _ in range(300):
        grads: list[Any] = []
        for p, q in zip(params, expected, strict=True):
            g: Any = rng.integers(-4, 5, p.shape).astype(np.float32)
            kind = rng.integers(6)
            if kind == 1:
                g = np.asfortranarray(g)
            elif kind == 2:
                g = np.repeat(g, 2, axis=-1)[..., ::2]
            elif kind == 3:
                g = np.broadcast_to(g[:1], p.shape)
            elif kind == 4:
                memory = np.zeros(g.nbytes + 1, np.uint8)
                memory[1:] = g.reshape(-1).view(np.uint8)
                g = memory[1:].view(np.float32).reshape(p.shape)
            elif kind == 5:
                g = None
            grads.append(g)
            if g is not None:
                q -= np.float32(0.25) * g
        optimizer.step(grads)
    for p, q in zip(params, expected, strict=True):
        assert differing_bits(p, q) == 0


@on_each_backend
def test_an_array_that_changed_its_dtype_or_shape_is_seen(backend: str) -> None:
    p = ones(2, 3)
    optimizer = fs.SGD(p, lr=1.0, backend=backend)
    g = ones(2, 3)
    optimizer.step(g)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)
        g.dtype = np.int32  # type: ignore[misc]
        with pytest.raises(TypeError, match="grads has dtype '<i4'"):
            optimizer.step(g)
        g.dtype = np.float32  # type: ignore[misc]
        g.shape = (3, 2)
        with pytest.raises(ValueError, match=r"grads has shape \(3, 2\)"):
            optimizer.step(g)
        g.shape = (2, 3)
    optimizer.step(g)
    assert (p == -1).all()
