"""Copies of optimizers whose arrays come read-only out of the pickle, in workers and without."""

from __future__ import annotations

import copy
import pickle
import warnings
from typing import Any

import numpy as np
import pytest
from cases import differing_bits
from marks import needs

import fusedstep as fs

try:
    from sklearn.base import BaseEstimator, clone
except ImportError:
    BaseEstimator = object

LARGE = 300_000
"""Elements of float32 that are more than joblib hands to a worker by value, 1 MB."""


def params() -> dict[str, Any]:
    rng = np.random.default_rng(0)
    return {
        "w": rng.standard_normal(LARGE).astype(np.float32),
        "f": np.asfortranarray(rng.standard_normal((400, 500))),
        "t": rng.standard_normal((600, 500)).astype(np.float32).T,
        "b": np.zeros(3, np.float32),
    }


def gradients(step: int) -> dict[str, Any]:
    rng = np.random.default_rng(step)
    return {name: rng.standard_normal(p.shape).astype(p.dtype) for name, p in params().items()}


def stepped(optimizer: Any, steps: range) -> list[Any]:
    """The parameters after some steps."""
    for step in steps:
        grads = gradients(step)
        if optimizer.arena is None:
            optimizer.step(grads)
        else:
            for name, g in grads.items():
                optimizer.arena.grads[name][...] = g
            optimizer.step()
    return [p for group in optimizer.param_groups for p in group["params"]]


def through_buffers(value: Any) -> Any:
    """A copy by a pickle whose arrays lie in memory that may only be read."""
    buffers: list[pickle.PickleBuffer] = []
    data = pickle.dumps(value, protocol=5, buffer_callback=buffers.append)
    return pickle.loads(data, buffers=[bytes(buffer) for buffer in buffers])


def held(optimizer: Any) -> list[bool]:
    return [p.flags.writeable for group in optimizer.param_groups for p in group["params"]]


@pytest.mark.parametrize("arena", [False, True])
def test_a_copy_out_of_read_only_memory_goes_on_with_the_same_bits(arena: bool) -> None:
    optimizer = fs.AdamW(fs.Arena(params()) if arena else params(), lr=0.1, ema=0.9)
    stepped(optimizer, range(3))
    other = through_buffers(optimizer)
    assert all(held(other))
    for ours, theirs in zip(
        stepped(optimizer, range(3, 6)), stepped(other, range(3, 6)), strict=True
    ):
        assert differing_bits(ours, theirs) == 0
        assert ours.strides == theirs.strides
    for name in params():
        for letter in ("m", "v", "ema"):
            assert differing_bits(optimizer.state[name][letter], other.state[name][letter]) == 0


def test_groups_have_their_own_copies() -> None:
    given = params()
    groups = [{"params": given["w"]}, {"params": [given["b"], given["f"]], "lr": 0.5}]
    other = through_buffers(fs.SGD(groups, lr=1.0))
    assert [len(group["params"]) for group in other.param_groups] == [1, 2]
    other.step([np.ones_like(given["w"]), [None, np.ones_like(given["f"])]])
    assert np.array_equal(other.param_groups[0]["params"][0], given["w"] - 1)
    assert np.array_equal(other.param_groups[1]["params"][1], given["f"] - 0.5)


def test_arrays_that_may_be_written_remain_the_same_objects() -> None:
    given = params()
    pair = given, fs.SGD(given, lr=1.0)
    for their, optimizer in (copy.deepcopy(pair), pickle.loads(pickle.dumps(pair))):
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            after = stepped(optimizer, range(2))
        assert [id(p) for p in after] == [id(p) for p in their.values()]


MESSAGE = (
    r"params\['w'\], params\['f'\], params\['t'\] and others came read-only out of a pickle, .* "
    r"steps copies\. .* `opt\.param_groups\[i\]\['params'\]`, .* `mmap_mode='c'`"
)


def test_who_holds_the_read_only_arrays_is_warned_once() -> None:
    given = params()
    their, optimizer = through_buffers((given, fs.SGD(given, lr=1.0)))
    with pytest.warns(RuntimeWarning, match=MESSAGE) as caught:
        after = stepped(optimizer, range(3))
    assert len(caught) == 1
    assert caught[0].filename == __file__
    assert np.array_equal(their["w"], given["w"])
    assert not np.array_equal(after[0], given["w"])


def test_a_warning_that_is_an_error_comes_before_the_step() -> None:
    given = params()
    their, optimizer = through_buffers((given, fs.SGD(given, lr=1.0)))
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        with pytest.raises(RuntimeWarning, match=MESSAGE):
            stepped(optimizer, range(1))
    assert optimizer.state["w"]["t"] == 0
    now = optimizer.param_groups[0]["params"][0]
    assert np.array_equal(now, their["w"])
    stepped(optimizer, range(1))
    assert optimizer.state["w"]["t"] == 1


def test_a_copy_of_a_copy_knows_nothing_of_the_first() -> None:
    given = params()
    _their, optimizer = through_buffers((given, fs.SGD(given, lr=1.0)))
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        stepped(copy.deepcopy(optimizer), range(1))


# ---- joblib's workers ----


def train(optimizer: Any) -> tuple[list[Any], int, str]:
    after = stepped(optimizer, range(2, 4))
    return after, fs.get_num_threads(), fs.info().threads_from


def train_both(given: dict[str, Any], optimizer: Any) -> tuple[list[str], dict[str, Any]]:
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        stepped(optimizer, range(2))
    return [str(one.message) for one in caught], given


@pytest.fixture
def parallel(monkeypatch: pytest.MonkeyPatch) -> Any:
    for name in ("FUSEDSTEP_NUM_THREADS", "OMP_NUM_THREADS"):
        monkeypatch.delenv(name, raising=False)
    return needs("joblib", "demo")


@pytest.mark.parametrize("arena", [False, True])
def test_large_optimizers_in_workers(arena: bool, parallel: Any) -> None:
    optimizer = fs.AdamW(fs.Arena(params()) if arena else params(), lr=0.1, ema=0.9)
    stepped(optimizer, range(2))
    jobs = [parallel.delayed(train)(optimizer) for _ in range(3)]
    results = parallel.Parallel(n_jobs=2)(jobs)
    expected = stepped(optimizer, range(2, 4))
    for after, threads, origin in results:
        assert [differing_bits(a, b) for a, b in zip(after, expected, strict=True)] == [0] * 4
        cpus = fs.info().threads if fs.info().threads_from == "the CPUs of this process" else 2
        assert origin == "OMP_NUM_THREADS"
        assert threads == max(1, cpus // 2)


@pytest.mark.parametrize(
    ("options", "warned"), [({}, True), ({"mmap_mode": "c"}, False), ({"max_nbytes": None}, False)]
)
def test_parameters_beside_their_optimizer(
    options: dict[str, Any], warned: bool, parallel: Any
) -> None:
    given = params()
    job = parallel.delayed(train_both)(given, fs.SGD(given, lr=0.1))
    ((messages, after),) = parallel.Parallel(n_jobs=2, **options)([job])
    assert [("came read-only" in message) for message in messages] == [True] * warned
    trained = [not np.array_equal(after[name], p) for name, p in params().items()]
    assert trained == [not warned, not warned, not warned, True]


def test_optimizers_in_estimators(parallel: Any) -> None:
    """Fitted estimators, and those that a search clones and fits in its workers."""
    needs("sklearn", "demo")
    from sklearn.model_selection import GridSearchCV

    x = np.random.default_rng(0).standard_normal((40, 3)).astype(np.float32)
    y = x @ np.array([1.0, -2.0, 3.0], np.float32)
    search = GridSearchCV(LinearModel(), {"lr": [1e-6, 0.05]}, cv=2, n_jobs=2)
    search.fit(x, y)
    assert search.best_params_ == {"lr": 0.05}
    best = search.best_estimator_
    (fitted,) = parallel.Parallel(n_jobs=2)([parallel.delayed(go_on)(best, x, y)])
    assert fitted.optimizer.state["t"] == 2 * best.optimizer.state["t"]
    assert fitted.score(x, y) > best.score(x, y)
    assert not hasattr(clone(best), "optimizer")


class LinearModel(BaseEstimator):  # type: ignore[misc]
    """A regression whose fit makes an optimizer of more than 1 MB and keeps it."""

    def __init__(self, lr: float = 0.01) -> None:
        self.lr = lr

    def fit(self, x: Any, y: Any) -> LinearModel:
        self.optimizer = fs.Adam(np.zeros(LARGE, np.float32), lr=self.lr)
        return self.partial_fit(x, y)

    def partial_fit(self, x: Any, y: Any) -> LinearModel:
        (w,) = self.optimizer.param_groups[0]["params"]
        g = np.zeros_like(w)
        for _ in range(20):
            g[:3] = 2 / len(x) * x.T @ (x @ w[:3] - y)
            self.optimizer.step(g)
        return self

    def score(self, x: Any, y: Any) -> float:
        (w,) = self.optimizer.param_groups[0]["params"]
        return -float(((x @ w[:3] - y) ** 2).mean())


def go_on(model: LinearModel, x: Any, y: Any) -> LinearModel:
    return model.partial_fit(x, y)
