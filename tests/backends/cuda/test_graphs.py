"""Steps in CUDA graphs, which take them again and again without the host."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from cases import BASES, DTYPES, differing_bits, ordinary
from device import IN_MEMORY, Placed, assert_same, cuda, in_memory, on_stream
from graphs import Graph

import fusedstep as fs
from fusedstep import rules
from fusedstep._arrays.dtypes import BFLOAT16
from fusedstep._backends.cuda import captured, foreseen
from fusedstep._core.arena import memory_of

pytestmark = [cuda, pytest.mark.filterwarnings("error")]

SIZES = [1, 5, 1024, 4097]


class Run:
    """An optimizer on a device and the reference, whose gradients stay where they are."""

    def __init__(self, make: Any, seed: int = 0, dtypes: Any = DTYPES, **options: Any) -> None:
        self.rng = np.random.default_rng(seed)
        kinds = [np.dtype(dtypes[k % len(dtypes)]) for k in range(len(SIZES))]
        values = [ordinary(self.rng, n, kind) for n, kind in zip(SIZES, kinds, strict=True)]
        self.params = [Placed(p, library="cupy") for p in values]
        self.expected = [p.copy() for p in values]
        self.stepped = make([p.array for p in self.params], capturable=True, **options)
        self.reference = make(self.expected, backend="numpy", **options)
        self.values = [np.zeros_like(p) for p in values]
        self.grads = [Placed(g, library="cupy") for g in self.values]
        self.given = [g.array for g in self.grads]
        self.stream = _stream()
        self.graph = Graph(self.stream)
        self.reports: list[Any] = []

    def draw(self, spoiled: bool = False) -> None:
        """Put other numbers into the gradients."""
        for values, placed in zip(self.values, self.grads, strict=True):
            values[...] = ordinary(self.rng, values.size, values.dtype)
            if spoiled and values is self.values[1]:
                values[2] = np.nan
            placed.write(np.frombuffer(values.tobytes(), np.uint8))

    def step(self, **request: Any) -> None:
        """A step outside of a graph."""
        with on_stream(self.stream):
            found = self.stepped.step(self.given, **request)
        assert found == self.reference.step(self.values, **request)

    def record(self, **request: Any) -> Any:
        with on_stream(self.stream), self.graph.recording():
            self.report = self.stepped.step(self.given, **request)
        return self.report

    def launch(self, **request: Any) -> None:
        """A step in the graph, which was recorded with these arguments."""
        self.graph.launch()
        self.wanted = self.reference.step(self.values, **request)

    def go(self, launches: int) -> None:
        """A step, and as many in a graph, each by other numbers."""
        self.draw()
        self.step()
        self.record()
        for _ in range(launches):
            self.draw()
            self.launch()
        self.check()

    def check(self) -> None:
        with on_stream(self.stream):
            assert_same(self.stepped, self.params, self.reference, self.expected)
            assert self.stepped.digest() == self.reference.digest()


def _stream() -> int:
    from cuda.bindings import driver
    from graphs import done
    from numba import cuda as numba_cuda

    numba_cuda.current_context()
    return int(done(driver.cuStreamCreate(1)))


REQUESTS: list[dict[str, Any]] = [
    {},
    {"scale": 3.0, "max_value": 0.7, "zero_grads": True},
    {"max_norm": 0.5},
    {"max_norm": 0.5, "clip": "tensor", "scale": 0.3},
]


@pytest.mark.parametrize("request_", REQUESTS, ids=str)
@pytest.mark.parametrize("policy", ["propagate", "skip"])
def test_launches_are_the_steps_that_come(policy: str, request_: dict[str, Any], mode: int) -> None:
    """Steps in and outside of a graph, with numbers of the gradients that change."""
    run = Run(fs.AdamW, nonfinite=policy, weight_decay=0.1)
    run.draw()
    run.step(**request_)
    run.draw()
    run.record(**request_)
    run.check()  # to record it takes no step
    for k in range(6):
        spoiled = policy == "skip" and k in (1, 4)
        run.draw(spoiled)
        run.launch(**request_)
        if k != 2:
            assert repr(run.report) == repr(run.wanted)  # a norm may be NaN
        if request_.get("zero_grads"):
            assert not any(g.host.any() for g in run.grads)
        if k == 3:
            run.draw()
            run.step(**request_)
    run.check()


@pytest.mark.parametrize("base", BASES, ids=lambda base: base.name)
def test_each_rule(base: Any) -> None:
    run = Run(base.optimizer, **base.options)
    run.go(launches=7)


OWN = [rules.Lion, rules.NAdam, rules.RAdam, rules.Adamax, rules.Adan, rules.Yogi]


@pytest.mark.parametrize("make", OWN, ids=lambda make: make.__name__)
def test_each_rule_of_rules(make: Any) -> None:
    """RAdam's scalars are made otherwise from its sixth step on, Adan's from the second."""
    run = Run(make, dtypes=[np.float32])
    run.go(launches=9)


def test_rates_are_assigned_between_launches(mode: int) -> None:
    """In the order of the stream, though the host does not wait for it."""
    run = Run(fs.AdamW, weight_decay=0.1)
    run.draw()
    run.step()
    run.record()
    for k in range(30):
        with on_stream(run.stream):
            run.stepped.lr = run.reference.lr = 0.1 / (k + 1)
        run.launch()
        if k % 7 == 0:
            with on_stream(run.stream):
                run.stepped.param_groups[0]["lr"] = run.reference.param_groups[0]["lr"] = 0.02
            run.launch()
    run.check()


def test_other_hyperparameters_are_assigned_between_launches(mode: int) -> None:
    run = Run(fs.AdamW, weight_decay=0.1)
    run.draw()
    run.step()
    run.record()
    changes: list[tuple[str, Any]] = [
        ("weight_decay", 0.3),
        ("betas", (0.7, 0.95)),
        ("lr", lambda t: 0.1 / t),
        ("eps", 1e-3),
        ("lr", 0.3),
    ]
    for name, value in changes:
        run.launch()
        with on_stream(run.stream):
            run.stepped.param_groups[0][name] = run.reference.param_groups[0][name] = value
        run.launch()
    run.check()


@pytest.mark.parametrize("make", [fs.AdamW, fs.SGD], ids=lambda make: make.__name__)
def test_schedules(make: Any) -> None:
    run = Run(make, lr=fs.schedules.cosine(0.3, 20))
    run.draw()
    run.step()
    run.record()
    for _ in range(25):
        run.launch()
    run.check()


def test_groups_and_dtypes() -> None:
    """Each group has its own rate, and each of its dtypes a job."""
    rng = np.random.default_rng(3)
    values = [ordinary(rng, n, DTYPES[k % 2]) for k, n in enumerate(SIZES)]
    params, expected = [Placed(p, library="cupy") for p in values], [p.copy() for p in values]
    grads = [ordinary(rng, p.size, p.dtype) for p in values]
    given = [Placed(g, library="cupy").array for g in grads]

    def groups(of: list[Any]) -> list[dict[str, Any]]:
        return [{"params": of[:3], "lr": 0.3}, {"params": of[3:], "weight_decay": 0.2}]

    stepped = fs.AdamW(groups([p.array for p in params]), capturable=True)
    reference = fs.AdamW(groups(expected), backend="numpy")
    graph = Graph(_stream())
    with on_stream(graph.stream):
        stepped.step([given[:3], given[3:]])
        reference.step([grads[:3], grads[3:]])
        with graph.recording():
            stepped.step([given[:3], given[3:]])
        for k in range(5):
            for each in (stepped, reference):
                each.param_groups[k % 2]["lr"] = 0.5**k
            graph.launch()
            reference.step([grads[:3], grads[3:]])
            for each in (stepped, reference):
                each.lr = 0.01 * k
            graph.launch()
            reference.step([grads[:3], grads[3:]])
        for found, wanted in zip(params, expected, strict=True):
            assert differing_bits(found.host, wanted) == 0
        assert stepped.digest() == reference.digest()


@pytest.mark.parametrize(
    "options", [{"master": False}, {"state_dtype": "8bit"}, {"master": "split8"}], ids=str
)
def test_random_bits_are_those_of_the_step(options: dict[str, Any], mode: int) -> None:
    """The keys of random bits are foreseen, too."""
    ml_dtypes = pytest.importorskip("ml_dtypes")
    rng = np.random.default_rng(8)
    values = rng.standard_normal(5000).astype(np.float32)
    if "master" in options:
        values = values.astype(ml_dtypes.bfloat16)
    expected = values.copy()
    p = Placed(values.view(BFLOAT16) if "master" in options else values, library="cupy")
    g = rng.standard_normal(5000).astype(np.float32)
    given = Placed(g, library="cupy").array
    stepped = fs.AdamW(p.array, capturable=True, **options)
    reference = fs.AdamW(expected, backend="numpy", **options)
    graph = Graph(_stream())
    with on_stream(graph.stream):
        stepped.step(given)
        with graph.recording():
            stepped.step(given)
        for _ in range(5):
            graph.launch()
        for _ in range(6):
            reference.step(g)
        assert stepped.digest() == reference.digest()


def test_an_arena() -> None:
    rng = np.random.default_rng(2)
    values = [ordinary(rng, n, np.float32) for n in SIZES]
    grads = [ordinary(rng, p.size, p.dtype) for p in values]
    graph = Graph(_stream())
    with on_stream(graph.stream):
        arena = fs.Arena([Placed(p, library="cupy").array for p in values])
        memory = memory_of(arena)
        for view, g in zip(memory.g, grads, strict=True):
            memory.place.write(view, g)
        stepped = fs.AdamW(arena, capturable=True)
        beside = fs.Arena([p.copy() for p in values])
        for view, g in zip(beside.grads, grads, strict=True):
            view[...] = g
        reference = fs.AdamW(beside, backend="numpy")
        stepped.step(max_norm=0.5)
        with graph.recording():
            report = stepped.step(max_norm=0.5)
        for _ in range(4):
            graph.launch()
        wanted = [reference.step(max_norm=0.5) for _ in range(5)][-1]
        assert report == wanted
        with pytest.raises(ValueError, match="clip='tensor' with capturable=True and an arena"):
            stepped.step(max_norm=0.5, clip="tensor")
        for view, p in zip(memory.p, memory_of(beside).p, strict=True):
            assert differing_bits(memory.place.read(view), np.asarray(p)) == 0


def test_gradients_with_gaps_are_stepped_outside() -> None:
    run = Run(fs.AdamW, dtypes=[np.float32])
    run.draw()
    run.step()
    memory = np.ones((SIZES[2], 2), np.float32)
    gaps = Placed(memory[:, 0], memory, "cupy").array
    given = [*run.given[:2], gaps, *run.given[3:]]
    for _ in range(2):  # also if the step before had it
        refused = pytest.raises(RuntimeError, match=r"part of a CUDA graph.*without gaps")
        with on_stream(run.stream), Graph(run.stream).recording(), refused:
            run.stepped.step(given)
        run.check()
        with on_stream(run.stream):
            run.stepped.step(given)
        run.reference.step([*run.values[:2], memory[:, 0], *run.values[3:]])
    run.record()
    run.launch()
    run.check()


def test_other_graphs_of_the_same_steps() -> None:
    """Each has its gradients and its arguments; t is one for all."""
    run = Run(fs.AdamW, dtypes=[np.float32])
    run.draw()
    run.step(max_norm=0.5)
    run.record(max_norm=0.5)
    other, first = Graph(run.stream), run.report
    values = [ordinary(run.rng, p.size, p.dtype) for p in run.expected]
    given = [Placed(g, library="cupy").array for g in values]
    with on_stream(run.stream), other.recording():
        second = run.stepped.step(given, scale=2.0)
    for k in range(8):
        if k % 3 == 1:
            other.launch()
            assert second == run.reference.step(values, scale=2.0)
        else:
            run.launch(max_norm=0.5)
            assert first == run.wanted
    run.check()


# ---- what is refused ----


def test_what_a_graph_does_not_know_is_refused() -> None:
    """Whatever would leave its steps behind: nothing is changed, and there is a remedy."""
    run = Run(fs.SGD, momentum=0.0, dtypes=[np.float32])
    with (
        on_stream(run.stream),
        pytest.raises(RuntimeError, match="cannot hold the first step"),
        run.graph.recording(),
    ):
        run.stepped.step(run.given)
    run.draw()
    run.step()
    saved = run.stepped.state_dict()
    report = run.record()
    with pytest.raises(RuntimeError, match="has not been run yet"):
        repr(report)
    with on_stream(run.stream):
        refused: list[tuple[str, Callable[[], Any]]] = [
            ("by another rule", lambda: run.stepped.param_groups[0].update(momentum=0.9)),
            ("weight decay", lambda: run.stepped.param_groups[0].update(weight_decay=0.1)),
            ("a state is loaded", lambda: run.stepped.load_state_dict(saved)),
            ("came or went", lambda: run.stepped.step([None, *run.given[1:]])),
            ("infinite|inf", lambda: setattr(run.stepped, "lr", 1e300)),
            ("finite number", lambda: setattr(run.stepped, "lr", float("nan"))),
        ]
        for why, act in refused:
            with pytest.raises((RuntimeError, ValueError), match=why):
                act()
            run.draw()
            run.launch()
            run.check()
        with Graph(run.stream).recording(), pytest.raises(RuntimeError, match="while a CUDA graph"):
            run.stepped.lr = 0.7
    run.draw()
    run.launch()
    run.check()


@in_memory
def test_a_step_that_cannot_be_recorded_changes_nothing() -> None:
    """Each call of the driver fails once; another one is recorded after that."""
    assert IN_MEMORY is not None
    run = Run(fs.AdamW, dtypes=[np.float32])
    run.draw()
    run.step(max_norm=0.5)
    calls = IN_MEMORY.calls()
    run.record(max_norm=0.5)
    failed = []
    for nth in range(2, IN_MEMORY.calls() - calls):  # the first and last are those of the graph
        IN_MEMORY.fail(nth)
        try:
            run.record(max_norm=0.5)
        except Exception as error:
            failed.append(f"{type(error).__name__}: {error}")
        IN_MEMORY.fail(0)
        IN_MEMORY.message()
        run.check()
    assert failed
    assert all("CUDA" in each.upper() for each in failed)
    run.record(max_norm=0.5)
    for _ in range(3):
        run.draw()
        run.launch(max_norm=0.5)
    run.check()


# ---- steps beyond those that are foreseen ----


def test_what_is_beyond_the_steps_foreseen_is_left_out(monkeypatch: pytest.MonkeyPatch) -> None:
    """And the host hears of it; whoever prepares replays in time goes on."""
    monkeypatch.setattr(foreseen, "MOST", 12)
    monkeypatch.setattr(captured, "MOST", 12)
    run = Run(fs.SGD, dtypes=[np.float32], lr=lambda t: 0.1 / t)
    run.draw()
    run.step()
    run.record()
    for k in range(30):
        run.launch()
        if k % 5 == 4:
            with on_stream(run.stream):
                run.stepped.prepare_replays()
    run.check()
    for _ in range(20):
        run.graph.launch()
    for _ in range(12):
        run.reference.step(run.values)
    run.check()
    with pytest.raises(RuntimeError, match="more steps than were foreseen"):
        repr(run.report)
    with on_stream(run.stream), pytest.raises(RuntimeError, match="more steps than were foreseen"):
        run.stepped.prepare_replays()
    run.launch()
    run.step()
    run.check()


@pytest.mark.parametrize("t", [37_000, 40_000])
def test_corrections_come_to_rest(t: int, mode: int) -> None:
    """From some t on there is one line of scalars, whatever t is."""
    run = Run(fs.AdamW, dtypes=[np.float32])
    run.draw()
    with on_stream(run.stream):
        for each in (run.stepped, run.reference):
            each.step(run.given if each is run.stepped else run.values)
            state = each.state_dict()
            for entry in state["state"]:
                entry["t"] = t
            each.load_state_dict(state)
    run.step()
    run.record()
    for _ in range(500 if t == 37_000 else 3):
        run.launch()
    run.check()


# ---- own rules ----


def nothing_else(h: Any, t: int) -> dict[str, float]:
    return {"lr": h.lr * (0.5 if t > 2 else 1.0), "both": 2.0 - h.lr / 3 + 1}


def squared(h: Any, t: int) -> dict[str, float]:
    return {"lr": h.lr * h.lr, "both": 1.0}


@fs.rule(prepare=nothing_else, lr=0.1)
def Halved(p, g, h):  # type: ignore[no-untyped-def]  # noqa: N802
    return p - h.lr * h.both * g


@fs.rule(prepare=squared, lr=0.1)
def Squared(p, g, h):  # type: ignore[no-untyped-def]  # noqa: N802
    return p - h.lr * h.both * g


def test_own_rules() -> None:
    """The device follows what a rule makes of the rate, or says that it cannot."""
    run = Run(Halved, dtypes=[np.float32])
    run.draw()
    run.step()
    run.record()
    for k in range(5):
        with on_stream(run.stream):
            run.stepped.lr = run.reference.lr = 0.3 / (k + 1)
        run.launch()
    run.check()
    other = Run(Squared, dtypes=[np.float32])
    with pytest.raises(TypeError, match="pass lr as a function of t"):
        other.stepped.step(other.given)
    other = Run(Squared, dtypes=[np.float32], lr=lambda t: 0.1)
    other.step()
    other.record()
    other.draw()
    other.launch()
    other.check()
