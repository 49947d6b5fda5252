"""The benchmark: what is compared does the same work, in turns, and is written down rightly."""

from __future__ import annotations

import ctypes
import json
import mmap
import sys
from collections import Counter
from collections.abc import Callable
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from cases import BASES, OWN_BASES, Case
from conftest import for_each, for_each_dtype, needs_c

import fusedstep as fs
from fusedstep.benchmarks import contestants, measuring, workloads
from fusedstep.benchmarks.contestants import contestant as parts
from fusedstep.benchmarks.contestants import deepspeed
from fusedstep.benchmarks.contestants.contestant import Contestant, Entry, LeftOut
from fusedstep.benchmarks.machine import caches, cpu, machine, nearest
from fusedstep.benchmarks.measuring import NO_STEP, measure, order, quartiles, take_turns
from fusedstep.benchmarks.problem import ADAMW, Problem
from fusedstep.benchmarks.records import LIMIT, Results
from fusedstep.benchmarks.workloads import WORKLOADS, Workload

ROOT = Path(__file__).parent.parent

TRAINING = Case(
    "adamw-whole",
    fs.AdamW,
    {"weight_decay": 0.01, "ema": 0.9},
    {"scale": 8.0, "max_norm": 1.0, "zero_grads": True},
)

# ---- what is stepped ----


@pytest.mark.parametrize(
    ("name", "tensors", "elements"),
    [
        ("1 × 100", 1, 100),
        ("1 × 100,000,000", 1, 100_000_000),
        ("10,000 × 100", 10_000, 1_000_000),
        ("1,000 × 1,000", 1_000, 1_000_000),
        ("MLP", 4, 203_530),
        ("ResNet-50", 161, 25_557_032),
        ("GPT-2 small", 148, 124_439_808),
    ],
)
def test_workloads_have_as_many_elements_as_the_papers_networks(
    name: str, tensors: int, elements: int
) -> None:
    (workload,) = (each for each in WORKLOADS if each.name == name)
    assert (workload.tensors, workload.elements) == (tensors, elements)


def test_workloads_have_names_of_their_own() -> None:
    assert len({workload.name for workload in WORKLOADS}) == len(WORKLOADS) == 12


# ---- who steps it ----


def why_not(contestant: Contestant, problem: Problem) -> str | None:
    """As `why_not`; DeepSpeed takes part only where it need not be compiled first."""
    return contestant.why_not(problem) or contestant.why_slow_to_start()


SHAPES = ((33,), (5, 7), (1,))


@pytest.mark.parametrize("contestant", contestants.EVERYONE, ids=lambda contestant: contestant.name)
@for_each_dtype
def test_contestants_make_the_same_update(contestant: Contestant, dtype: Any) -> None:
    """Whoever takes part in a case ends where the definition of the rules does, and alters none
    of what others read.
    """
    if not contestant.steps:
        pytest.skip("it takes the time of a part of a step, and makes none")
    reasons, taken = set(), 0
    for case in [*BASES, *OWN_BASES, TRAINING]:
        problem = Problem(case, SHAPES, dtype)
        reason = why_not(contestant, problem)
        if reason is not None:
            reasons.add(reason)
            continue
        entry = contestant.build(problem)
        expected = [p.copy() for p in problem.start]
        grads = [g.copy() for g in problem.grads]
        optimizer = problem.optimizer(expected, "numpy")
        for _ in range(4):
            optimizer.step([g.copy() for g in grads], **case.asked)
            if entry.ready is not None:
                entry.ready()
            entry.step()
        tolerance = 1e-9 if dtype is np.float64 else 2e-5
        tolerance = 1e-5 if case is TRAINING else tolerance  # torch adds 10⁻⁶ to the norm
        for found, p in zip(entry.params(), expected, strict=True):
            np.testing.assert_allclose(found, p, rtol=tolerance, atol=tolerance, err_msg=case.name)
        for g, was in zip(problem.grads, grads, strict=True):
            np.testing.assert_array_equal(g, was, err_msg="others have the same gradients")
        taken += 1
    if not taken:
        pytest.skip("; ".join(sorted(reasons)))


@for_each(BASES)
def test_torch_and_numpy_take_part_wherever_they_can(case: Case) -> None:
    problem = Problem(case, SHAPES, np.float32)
    ours = {"eps_uncorrected", "decay_scale"} & case.options.keys()
    inside = case.optimizer is fs.SGD and "lr_in_momentum" in case.options
    assert (contestants.NUMPY.why_not(problem) is None) is not (bool(ours) or inside)
    if contestants.PLAIN.why_missing() is not None:
        pytest.skip(str(contestants.PLAIN.why_missing()))
    assert (contestants.PLAIN.why_not(problem) is None) is case.in_torch
    fused = case.in_torch and case.optimizer is not fs.RMSprop
    assert (contestants.FUSED.why_not(problem) is None) is fused


def test_what_is_not_installed_is_missing_with_its_remedy(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(parts, "find_spec", lambda name: None)
    problem = Problem(ADAMW, SHAPES, np.float32)
    reasons = {who.name: who.why_not(problem) for who in contestants.EVERYONE if who.packages}
    assert reasons == {
        "torch fused": "torch not installed; `pip install 'fusedstep[bench]'`",
        "torch foreach": "torch not installed; `pip install 'fusedstep[bench]'`",
        "torch": "torch not installed; `pip install 'fusedstep[bench]'`",
        "optax": "optax, jax not installed; `pip install 'fusedstep[bench]'`",
        "DeepSpeed CPUAdam": "deepspeed, torch not installed; `pip install 'fusedstep[deepspeed]'`",
        "torch's passes": "torch not installed; `pip install 'fusedstep[bench]'`",
    }


def test_deepspeed_says_what_it_lacks_to_compile(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(parts, "find_spec", lambda name: True)
    monkeypatch.setenv("TORCH_EXTENSIONS_DIR", str(tmp_path))
    monkeypatch.setenv("PATH", str(tmp_path / "bin"))
    monkeypatch.setenv("CXX", "some-compiler")
    who = contestants.DEEPSPEED
    assert "ninja" in str(who.why_missing())
    for program in ("ninja", "some-compiler"):
        assert program in str(who.why_missing())
        path = tmp_path / "bin" / program
        path.parent.mkdir(exist_ok=True)
        path.touch(mode=0o755)
    assert who.why_missing() is None
    assert "not compiled yet" in str(who.why_slow_to_start())
    (tmp_path / "cpu_adam").mkdir()
    (tmp_path / "cpu_adam" / "cpu_adam.so").touch()
    assert deepspeed.built() == tmp_path / "cpu_adam" / "cpu_adam.so"
    assert who.why_slow_to_start() is None


def test_who_makes_the_update_alone_is_left_out_of_the_whole_step() -> None:
    problem = Problem(TRAINING, SHAPES, np.float32)
    assert contestants.NUMPY.why_not(problem) == (
        "the textbook's update alone has no 'scale', 'max_norm', 'zero_grads', 'ema'"
    )
    assert contestants.DEFAULT.why_not(problem) is None


def test_large_parameters_are_shared_and_small_ones_are_not(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    from fusedstep.benchmarks import problem as module

    problem = Problem(ADAMW, SHAPES, np.float32)
    assert problem.params()[0] is not problem.start[0]
    monkeypatch.setattr(module, "LARGE", 10)
    assert problem.params()[0] is problem.start[0]
    assert contestants.NEW_ARRAYS.why_not(problem) == "3 sets of gradients are too large"


def test_new_arrays_are_new_at_each_step(monkeypatch: pytest.MonkeyPatch) -> None:
    seen = []
    monkeypatch.setattr(fs.AdamW, "step", lambda self, grads: seen.append(grads[0].ctypes.data))
    entry = contestants.NEW_ARRAYS.build(Problem(ADAMW, SHAPES, np.float32))
    for _ in range(4):
        entry.step()
    assert len({*seen}) == 3
    assert seen[3] == seen[0]


# ---- the limit ----


@needs_c
@for_each([*BASES, TRAINING])
@for_each_dtype
def test_limit_changes_no_value(case: Case, dtype: Any, isa: str) -> None:
    problem = Problem(case, ((1000,), (3, 4)), dtype)
    optimizer, params, grads = problem.ours
    limit = contestants.LIMIT.build(problem)
    before = [p.copy() for p in params], optimizer.state_dict()["state"]
    parts.renew(grads, problem.grads)
    limit.step()
    for p, was in zip(params, before[0], strict=True):
        assert p.tobytes() == was.tobytes()
    after = optimizer.state_dict()["state"]
    for state, was in zip(after, before[1], strict=True):
        assert state.keys() == was.keys()
        for letter, array in state.items():
            np.testing.assert_array_equal(array, was[letter])
    for g, was in zip(grads, problem.grads, strict=True):
        np.testing.assert_array_equal(g, 0 * was if case is TRAINING else was)


PAGE = mmap.PAGESIZE


class Fresh:
    """Memory that nobody has touched yet, in pages."""

    def __init__(self, pages: int) -> None:
        self.memory = mmap.mmap(-1, pages * PAGE)
        self.pages = pages

    @property
    def touched(self) -> int:
        """How many of its pages have been read or written."""
        found = (ctypes.c_ubyte * self.pages)()
        address = ctypes.addressof(ctypes.c_char.from_buffer(self.memory))
        libc = ctypes.CDLL(None, use_errno=True)
        size = ctypes.c_size_t(self.pages * PAGE)
        assert libc.mincore(ctypes.c_void_p(address), size, found) == 0
        return sum(page & 1 for page in found)


@needs_c
@pytest.mark.skipif(sys.platform != "linux", reason="only Linux tells which pages were touched")
@pytest.mark.parametrize("has", [0, 1, 3, 5, 7])
@pytest.mark.parametrize("averaged", [False, True])
@for_each_dtype
def test_limit_touches_every_operand_and_no_other(
    has: int, averaged: bool, dtype: Any, isa: str
) -> None:
    from fusedstep._engine import ffi

    from fusedstep._backends.c.runner import find_kernel

    pages = 8
    names = ["p", "g", "s0", "s1", "s2", "ema"]
    arrays = {name: Fresh(pages) for name in names}
    row = ffi.new("fs_row *")
    row.p = ffi.from_buffer(arrays["p"].memory)
    row.g = ffi.from_buffer(arrays["g"].memory)
    for k in range(3):
        row.s[k] = ffi.from_buffer(arrays[f"s{k}"].memory)
    if averaged:
        row.ema = ffi.from_buffer(arrays["ema"].memory)
    n = row.n = pages * PAGE // np.dtype(dtype).itemsize
    find_kernel("limit", np.dtype(dtype), has)(row, 0, n, ffi.NULL)
    expected = {"p": pages, "g": pages, "ema": pages * averaged}
    expected |= {f"s{k}": pages * (has >> k & 1) for k in range(3)}
    assert {name: array.touched for name, array in arrays.items()} == expected


@needs_c
@pytest.mark.skipif(sys.platform != "linux", reason="only Linux tells which pages were touched")
@for_each_dtype
def test_limit_of_the_sums_reads_the_gradients(dtype: Any, isa: str) -> None:
    from fusedstep._engine import ffi

    from fusedstep._backends.c.runner import find_kernel

    gradient = Fresh(8)
    sums = np.full((8, 3), 7.0)
    row = ffi.new("fs_row *")
    row.g = ffi.from_buffer(gradient.memory)
    row.sums = ffi.cast("double *", sums.ctypes.data)
    n = row.n = 8 * PAGE // np.dtype(dtype).itemsize
    find_kernel("limit_squares", np.dtype(dtype))(row, 0, n, ffi.NULL)
    assert gradient.touched == 8
    blocks = -(-n // 4096)
    assert sums[:, 0].tolist() == [0.0] * blocks + [7.0] * (8 - blocks)


@needs_c
def test_the_bare_call_makes_the_step_of_the_last_scalars() -> None:
    from fusedstep.benchmarks.limit import bare_call

    p, g = np.ones(100), np.ones(100)
    optimizer = fs.SGD(p, lr=0.25)
    optimizer.step(g)
    bare_call(optimizer)()
    assert p.tolist() == [0.5] * 100


# ---- turns ----


@pytest.mark.parametrize("n", range(1, 14))
def test_each_comes_directly_after_each_other_equally_often(n: int) -> None:
    turns = [order(n, turn) for turn in range(2 * n)]
    assert all(sorted(turn) == [*range(n)] for turn in turns)
    pairs = Counter(pair for turn in turns for pair in pairwise(turn))
    assert {*pairs.values()} <= {2}
    assert len(pairs) == n * (n - 1)


class World:
    """A clock that moves when something is done, and a diary of it."""

    def __init__(self) -> None:
        self.now = 0.0
        self.done: list[str] = []

    def clock(self) -> float:
        return self.now

    def doing(self, what: str, seconds: float) -> Callable[[], None]:
        def do() -> None:
            self.done.append(what)
            self.now += seconds

        return do

    def entry(self, what: str, seconds: float, threads: int = 1, ready: bool = False) -> Entry:
        preparing = self.doing(f"ready {what}", 10.0) if ready else None
        return Entry(self.doing(what, seconds), list, threads, preparing)


def test_contestants_take_turns_until_the_time_is_up() -> None:
    world = World()
    entries = {name: world.entry(name, seconds) for name, seconds in (("a", 1.0), ("b", 3.0))}
    told: list[float] = []
    found = take_turns(entries, 60.0, progress=told.append, clock=world.clock)
    assert found["a"].turns == [1.0] * len(found["a"].turns)
    assert found["b"].turns == [3.0] * len(found["a"].turns)
    assert world.done[:6] == [*"aaabbb"], "twice to compile, once to see how long it is"
    turns = "".join(world.done[6:])
    assert turns.startswith("aabb" + "bbaa" + "aabb"), "one is not timed, one is"
    assert len(found["a"].turns) == 8, "60 seconds are over within the eighth of 8 seconds"
    assert told == sorted(told)
    assert told[-1] == 1.0
    assert len(told) == 16 + 1
    assert found["a"].steps == 8


def test_there_are_some_turns_however_long_they_are() -> None:
    world = World()
    found = take_turns({"a": world.entry("a", 100.0)}, 1.0, clock=world.clock)
    assert found["a"].turns == [100.0] * measuring.LEAST_TURNS


def test_short_steps_are_timed_together() -> None:
    world = World()
    found = take_turns({"a": world.entry("a", 2**-20)}, 0.0, clock=world.clock)
    assert found["a"].turns == [2**-20] * 5
    assert found["a"].steps == 5 * 105 * 49, "0.1 ms at once, and 5 ms a turn"


def test_making_ready_is_not_timed() -> None:
    world = World()
    found = take_turns({"a": world.entry("a", 2e-3, ready=True)}, 0.0, clock=world.clock)
    assert found["a"].turns == pytest.approx([2e-3] * 5)
    assert world.done[:4] == ["ready a", "a", "ready a", "a"]


def test_products_are_timed_apart_from_steps_and_once_without() -> None:
    world = World()
    entries = {"a": world.entry("a", 2e-3)}
    found = take_turns(entries, 0.0, before=world.doing("product", 6e-3), clock=world.clock)
    assert [*found] == [NO_STEP, "a"]
    assert found["a"].turns == pytest.approx([2e-3] * 5)
    assert found["a"].products == pytest.approx([6e-3] * 5 * measuring.IN_LOOP)
    assert found[NO_STEP].products == pytest.approx([6e-3] * 5 * measuring.IN_LOOP)
    assert found[NO_STEP].turns == [0.0] * 5
    steps = [what for what in world.done if what == "a"]
    assert len(steps) * 2 == world.done.count("product")


def test_each_has_its_own_number_of_threads_and_all_is_put_back(threads: int) -> None:
    seen = set()

    def step(name: str) -> Callable[[], None]:
        return lambda: seen.add((name, fs.get_num_threads()))

    entries = {name: Entry(step(name), list, n) for name, n in (("a", 1), ("b", 3))}
    take_turns(entries, 0.0)
    assert seen == {("a", 1), ("b", 3)}
    assert fs.get_num_threads() == threads


def test_a_disturbed_turn_moves_no_median() -> None:
    assert quartiles([1.0, 2.0, 3.0, 4.0, 1000.0]) == (2.0, 3.0, 4.0)


# ---- what is written down ----


@pytest.mark.parametrize(
    ("name", "dtype", "moved"),
    [
        ("sgd", np.float32, 12),
        ("momentum", np.float32, 20),
        ("adagrad", np.float32, 20),
        ("rmsprop", np.float32, 20),
        ("adamw", np.float32, 28),
        ("adamw", np.float64, 56),
        ("adam-amsgrad", np.float32, 36),
        ("rmsprop-centered-momentum", np.float32, 36),
        ("adamw-whole", np.float32, 44),
    ],
)
def test_bytes_that_a_step_moves_for_each_element(name: str, dtype: Any, moved: int) -> None:
    (case,) = (case for case in [*BASES, TRAINING] if case.name == name)
    assert Problem(case, SHAPES, dtype).bytes == moved


class Fixed(Contestant):
    """A contestant whose step takes as long as it says."""

    def __init__(self, name: str, step: Callable[[], None], reason: str | None = None) -> None:
        self.name, self.step, self.reason = name, step, reason

    def why_unfit(self, problem: Problem) -> str | None:
        return self.reason

    def why_slow_to_start(self) -> str | None:
        return "slow" if self.name == "slow" else None

    def build(self, problem: Problem) -> Entry:
        if self.name == "broken":
            raise LeftOut("it broke")
        return Entry(self.step, list, 1)


@pytest.fixture
def world(monkeypatch: pytest.MonkeyPatch) -> World:
    """What the measurement takes for the time."""
    made = World()

    def turns(entries: Any, seconds: float, before: Any, progress: Any) -> Any:
        return take_turns(entries, seconds, before, progress, clock=made.clock)

    monkeypatch.setattr(measuring, "take_turns", turns)
    return made


def test_a_record_holds_what_was_found(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(measuring, "caches", lambda: {"L1": 1, "L2": 16_000, "L3": 10**6})
    case = Workload("two", ((500,), (10, 50)))
    there = [
        Fixed("a", world.doing("a", 0.02)),
        Fixed(LIMIT, world.doing("limit", 0.01)),
        Fixed("slow", world.doing("slow", 0.5)),
        Fixed("unfit", world.doing("unfit", 1.0), "unfit"),
        Fixed("broken", world.doing("broken", 1.0)),
    ]
    group = measure(case, ADAMW, np.float32, there, seconds=0.0, patient=False)
    assert group.missing == {"slow": "slow", "unfit": "unfit", "broken": "it broke"}
    a, limit = group.records
    assert (a.workload, a.tensors, a.elements, a.case) == ("two", 2, 1000, "adamw")
    assert (a.dtype, a.loop, a.contestant, a.threads) == ("float32", "alone", "a", 1)
    assert [a.seconds, a.low, a.high] == pytest.approx([0.02] * 3)
    assert (a.steps, a.bytes, limit.steps) == (5, 28, 5)
    assert a.share == pytest.approx(0.5)
    assert limit.share == pytest.approx(1.0)
    assert a.speed == pytest.approx(28 * 1000 / 0.02 / 1e9)
    assert a.cache == "L2"
    assert (a.product, a.product_alone) == (None, None)
    assert group.turns["a"] == pytest.approx([0.02] * 5)


def test_without_the_limit_there_is_no_share(world: World) -> None:
    group = measure(
        workloads.equal(1, 10), ADAMW, np.float32, [Fixed("a", world.doing("a", 1.0))], seconds=0.0
    )
    assert group.records[0].share is None


def test_steps_that_drift_out_of_range_are_timed_without_warnings(world: World) -> None:
    """As a centered RMSprop's, whose variance of gradients that stay the same comes out below 0."""
    edge = np.array([-1.0, np.inf])

    def step() -> None:
        np.sqrt(edge) * 0
        world.now += 1.0

    group = measure(workloads.equal(1, 10), ADAMW, np.float32, [Fixed("a", step)], seconds=0.0)
    assert len(group.records) == 1


def test_in_a_loop_the_product_is_recorded_with_a_step_and_without(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    slow_after = {"a": 0.004, NO_STEP: 0.002}

    def multiply() -> None:
        after = "a" if world.done[-1:] == ["a"] else NO_STEP
        world.done.append("product")
        world.now += slow_after[after]

    monkeypatch.setattr(measuring, "product", lambda loop, threads: multiply)
    who = Fixed("a", world.doing("a", 0.001))
    group = measure(workloads.equal(1, 10), ADAMW, np.float32, [who], "numpy", 0.0)
    (record,) = group.records
    assert record.loop == "numpy"
    assert record.product == pytest.approx(0.004)
    assert record.product_alone == pytest.approx(0.002)


def test_an_unknown_loop_is_refused() -> None:
    with pytest.raises(ValueError, match="loop='jax' is unknown; pass 'alone', 'numpy' or 'torch'"):
        measure(workloads.equal(1, 10), ADAMW, np.float32, [], "jax")


def test_a_product_of_numpy_is_one() -> None:
    found: Any = measuring.product("numpy", 1)()
    assert found.shape == (measuring.SIDE, measuring.SIDE)
    assert found.dtype == np.float32


def test_our_own_steps_are_measured_for_real() -> None:
    ours = [contestants.DEFAULT, contestants.ONE_THREAD, contestants.LIMIT]
    group = measure(workloads.equal(2, 100), ADAMW, np.float32, ours, seconds=0.0)
    assert all(record.seconds > 0 for record in group.records)
    assert len(group.records) + len(group.missing) == 3
    json.dumps(Results(machine(), group.missing, group.records).to_dict())


# ---- the machine ----


def test_the_cpus_name_is_the_systems(tmp_path: Path) -> None:
    described = tmp_path / "cpuinfo"
    described.write_text("processor\t: 0\nmodel name\t: Some CPU @ 3: fast\nflags\t: a b\n")
    assert cpu(described) == "Some CPU @ 3: fast"
    assert cpu(tmp_path / "nothing")


def test_caches_are_those_that_hold_data(tmp_path: Path) -> None:
    for index, (level, kind, size) in enumerate(
        [("1", "Data", "32K"), ("1", "Instruction", "64K"), ("2", "Unified", "1M"), ("3", "", "?")]
    ):
        folder = tmp_path / f"index{index}"
        folder.mkdir()
        for name, value in (("level", level), ("type", kind), ("size", size)):
            (folder / name).write_text(f"{value}\n")
    assert caches(tmp_path) == {"L1": 32 << 10, "L2": 1 << 20}
    assert caches(tmp_path / "nothing") == {}


@pytest.mark.parametrize(
    ("footprint", "threads", "expected"),
    [
        (10, 1, "L1"),
        (20, 1, "L2"),
        (20, 2, "L1"),
        (500, 2, "L3"),
        (500, 5, "L2"),
        (5000, 9, "memory"),
    ],
)
def test_the_nearest_memory_that_holds_it_all(footprint: int, threads: int, expected: str) -> None:
    assert nearest(footprint, threads, {"L1": 10, "L2": 100, "L3": 1000}) == expected
    assert nearest(footprint, threads, {}) == "unknown"


def test_the_machine_says_what_takes_part() -> None:
    here = machine(["cffi", "no-such-package"])
    assert {"python", "fusedstep", "numpy", "cffi"} == here.versions.keys()
    assert here.isa == fs.info().isa
    assert here.cpus >= 1
    assert len(here.date) == 10
