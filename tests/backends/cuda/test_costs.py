"""The cost of a step on a device: launches, copies, waits."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from cases import DTYPES
from device import IN_MEMORY, SIMULATED, STREAM, Placed, cuda, wrap

import fusedstep as fs
from fusedstep._core.tensors import Tensors

pytestmark = pytest.mark.filterwarnings("error")


NAMES = {
    "launching": "launch",
    "upload": "upload",
    "download": "download",
    "synchronize": "wait",
    "wait": "wait",
    "zero": "fill",
    "allocate": "allocate",
    "pinned": "allocate",
    "record": "record",
    "recording": "record",
}
"""The functions of simulator.py, and the calls of a driver that they stand for."""


class Counted:
    """A counter of each call of the driver that a step may make."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.counts: dict[str, int] = {}
        if IN_MEMORY is not None:
            return
        from fusedstep._backends.cuda.device import driver

        if not SIMULATED:
            pytest.skip("NVIDIA's driver does not count its calls")
        for name in NAMES:
            owner = next(
                each for each in (driver, driver.Event, driver.Kernel) if hasattr(each, name)
            )
            monkeypatch.setattr(owner, name, self.counting(NAMES[name], getattr(owner, name)))

    def counting(self, name: str, function: Any) -> Any:
        def count(*args: Any) -> Any:
            self.counts[name] = self.counts.get(name, 0) + 1
            return function(*args)

        return count

    def during(self, step: Any) -> dict[str, int]:
        self.counts.clear()
        before = IN_MEMORY.counts() if IN_MEMORY else {}
        step()
        if not IN_MEMORY:
            return dict(self.counts)
        changes = {kind: count - before[kind] for kind, count in IN_MEMORY.counts().items()}
        return {kind: change for kind, change in changes.items() if change}


@cuda
def test_what_a_step_costs(monkeypatch: pytest.MonkeyPatch) -> None:
    """The same gradients: launches alone. Others: their addresses in one copy besides."""
    shapes = [(1,), (5,), (0,), (17,), (3, 4)]
    params = [Placed(np.ones(shape, dtype)) for shape in shapes for dtype in DTYPES]
    sets = [[Placed(np.ones_like(p.view)) for p in params] for _ in range(2)]
    grads = [[g.array for g in each] for each in sets]
    optimizer = fs.AdamW([p.array for p in params])
    optimizer.step(grads[0])
    counted = Counted(monkeypatch)
    same = counted.during(lambda: optimizer.step(grads[0]))
    assert same == {"launch": 2}
    optimizer.lr = 0.5
    assert counted.during(lambda: optimizer.step(grads[0])) == {"launch": 2}
    moved = {"launch": 2, "upload": 1, "wait": 1, "record": 1}
    for turn in range(20):
        assert counted.during(lambda: optimizer.step(grads[(turn + 1) % 2])) == moved  # noqa: B023


@cuda
def test_what_a_step_over_an_arena_costs(monkeypatch: pytest.MonkeyPatch) -> None:
    """A launch for each dtype."""
    arena = fs.Arena([Placed(np.ones(3, DTYPES[k % 2])).array for k in range(20)])
    optimizer = fs.AdamW(arena)
    optimizer.step()
    counted = Counted(monkeypatch)
    assert counted.during(optimizer.step) == {"launch": 2}


@cuda
def test_what_the_norm_costs(monkeypatch: pytest.MonkeyPatch) -> None:
    """Two launches for each job, one that judges, and one that looks at each tensor: no wait."""
    params = [Placed(np.ones(5, dtype)) for dtype in DTYPES]
    grads = [Placed(np.ones(5, dtype)) for dtype in DTYPES]
    optimizers: list[tuple[fs.AdamW, int]] = [
        (fs.AdamW([p.array for p in params], nonfinite="propagate"), 5),
        (fs.AdamW([p.array for p in params], nonfinite="skip"), 6),
    ]
    for optimizer, launches in optimizers:
        for _ in range(10):  # more than the host may be ahead
            optimizer.step([g.array for g in grads], max_norm=1.0)
        counted = Counted(monkeypatch)
        found = counted.during(
            lambda: optimizer.step([g.array for g in grads], max_norm=1.0, zero_grads=True)  # noqa: B023
        )
        assert found == {"launch": launches, "record": 1}


@cuda
def test_gaps_cost_one_launch_each_way(monkeypatch: pytest.MonkeyPatch) -> None:
    memory = np.ones((3, 8), np.float32)
    p = Placed(memory[:, ::2], memory)
    placed = [Placed(np.ones((3, 4), np.float32, order="F")) for _ in range(3)]
    optimizer = fs.SGD(p.array, lr=1.0)
    optimizer.step(placed[0].array)
    counted = Counted(monkeypatch)
    for g in placed:
        made = counted.during(lambda: optimizer.step(g.array))  # noqa: B023
        assert made.pop("launch") == 4
        assert not made
    assert (p.host == -3).all()


@cuda
def test_tables_are_there_before_a_step_ends(monkeypatch: pytest.MonkeyPatch) -> None:
    """Nobody may then change what they are copied from, and another stream may read them."""
    from fusedstep._backends.cuda import device

    monkeypatch.setattr(device, "_device", device.Device)  # one that has seen no layout yet
    memory = np.ones((3, 8), np.float32)
    optimizer = fs.SGD(Placed(memory[:, ::2], memory).array)
    g = Placed(np.ones((3, 4), np.float32)).array
    counted = Counted(monkeypatch)
    assert counted.during(lambda: optimizer.step(g))["wait"] == 6
    assert "wait" not in counted.during(lambda: optimizer.step(g))


@cuda
def test_steps_cannot_be_recorded(monkeypatch: pytest.MonkeyPatch) -> None:
    from fusedstep._backends.cuda.device import driver

    p, g = (Placed(np.ones(3, np.float32)) for _ in range(2))
    optimizer = fs.SGD(p.array, lr=1.0)
    with monkeypatch.context() as patch:
        patch.setattr(driver, "recorded", lambda stream: True)
        with pytest.raises(RuntimeError, match=r"part of a CUDA graph.*step outside"):
            optimizer.step(g.array)
    assert optimizer.state["t"] == 0
    optimizer.step(g.array)
    assert (p.host == 0).all()


@cuda
def test_nothing_to_do_launches_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    optimizer = fs.SGD([Placed(np.ones(0)).array, Placed(np.ones(3)).array])
    empty = Placed(np.ones(0)).array
    counted = Counted(monkeypatch)
    assert "launch" not in counted.during(lambda: optimizer.step([empty, None]))
    assert "launch" not in counted.during(lambda: optimizer.step([None, None]))


@cuda
def test_gradients_that_only_move_are_taken_at_a_glance(
    library: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Gradients that moved into memory that the step writes are looked at and refused."""
    memory = np.zeros(20, np.float32)
    p = Placed(memory[:8], memory, library)
    optimizer = fs.SGD(p.array, lr=1.0)
    grads = [Placed(np.ones(8, np.float32), library=library) for _ in range(3)]
    optimizer.step(grads[0].array)

    def look(*args: Any) -> None:
        raise LookupError

    monkeypatch.setattr(Tensors, "check_gradient", look)
    for g in grads:
        optimizer.step(g.array)
    start = p.array.__cuda_array_interface__["data"][0]
    for inside in (0, 16, 28):
        with pytest.raises(LookupError):
            optimizer.step(wrap(library, p, start + inside, memory[:8]))
    optimizer.step(wrap(library, p, start + 32, memory[:8]))
    for other in (memory[:4], memory[:8].astype(np.float64), memory[:16:2]):
        with pytest.raises(LookupError):
            optimizer.step(Placed(other, library=library).array)
    assert (p.host == -4).all()


@cuda
def test_all_work_is_on_the_librarys_current_stream(
    library: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    if not SIMULATED:
        pytest.skip("for the simulator alone, which has a stream to look at")
    from fusedstep._backends.cuda.device import driver

    streams = set()

    def noted(function: Any) -> Any:
        def note(*args: Any) -> Any:
            streams.add(args[3 if function.__name__ == "launching" else -1])
            return function(*args)

        return note

    for owner, name in [
        *((driver, name) for name in ("zero", "upload", "download", "synchronize")),
        (driver.Event, "record"),
        (driver.Kernel, "launching"),
    ]:
        monkeypatch.setattr(owner, name, noted(getattr(owner, name)))
    memory = np.ones((3, 8), np.float32)
    optimizer = fs.AdamW(Placed(memory[:, ::2], memory, library).array)
    for _ in range(3):
        optimizer.step(Placed(np.ones((3, 4), np.float32), library=library).array)
    optimizer.load_state_dict(optimizer.state_dict())
    over_an_arena = fs.AdamW(fs.Arena(Placed(memory[:, ::2], memory, library).array), ema=0.9)
    over_an_arena.step()
    over_an_arena.load_state_dict(over_an_arena.state_dict())
    assert streams == {0 if library == "plain" else STREAM}
