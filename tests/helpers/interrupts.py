"""Ctrl-C at every moment of a call, and at random ones, and what a call may have done by then.

Python handles a signal between two operations, after some of them. `interrupted` has Ctrl-C come
before the n-th operation of a call, through Python's own machinery, and WORK has calls to try.

    python tests/helpers/interrupts.py 10000

interrupts each of them that often by a timer instead, on every backend, and tells how many were
left half done.
"""

from __future__ import annotations

import _thread
import dis
import gc
import random
import signal
import sys
import tempfile
import weakref
from collections import defaultdict
from collections.abc import Callable
from functools import cache
from time import perf_counter, sleep
from types import CodeType
from typing import Any

import numpy as np

import fusedstep as fs
from fusedstep._core.checkpoint import CheckpointReader
from fusedstep._core.saving import Giving
from fusedstep.checkpoints import give

HANDLES = ("CALL", "JUMP_BACKWARD", "JUMP_ABSOLUTE", "BEFORE_WITH", "STORE_ATTR", "FOR_ITER")
"""How the names of the operations begin after which, or in what they call, Python handles signals.

After the others, what came before them is handled by the next of these."""


@cache
def handles(code: CodeType) -> dict[int, bool]:
    """Whether each operation of some code, by its offset, is one of HANDLES."""
    return {each.offset: each.opname.startswith(HANDLES) for each in dis.get_instructions(code)}


class _Trigger:
    """An object whose end is Ctrl-C: no operation of Python's comes between the two."""


_interrupt: Any = defaultdict(_thread.interrupt_main).__missing__  # it ignores its argument


class _Trace:
    """A trace function that counts operations, and has Ctrl-C come before one of them."""

    def __init__(self, at: int) -> None:
        self.left = at
        self.came = False
        self.ends: list[Any] = []

    def __call__(self, frame: Any, event: str, argument: Any) -> Any:
        frame.f_trace_lines, frame.f_trace_opcodes = False, True
        if event == "opcode" and handles(frame.f_code)[frame.f_lasti]:
            self.left -= 1
            if self.left == -1:
                self.came = True
                sys.settrace(None)  # or the next call of this function would be what is interrupted
                trigger = _Trigger()
                end = weakref.ref(trigger, _interrupt)
                hash(end)  # it has none any more when it is over
                self.ends.append(end)
        return self


def interrupted(call: Callable[[], Any], at: int) -> bool:
    """Interrupt a call before its operation of number `at`; False if it has fewer."""
    trace, before = _Trace(at), sys.gettrace()
    gc.disable()  # whatever watches it would be interrupted in the call's place, and nobody told
    sys._getframe().f_trace_opcodes = True  # noqa: SLF001  before: 3.12 looks for it there
    try:
        sys.settrace(trace)
        try:
            call()
        finally:
            sys.settrace(before)
        for _ in range(3):
            random.random()  # a signal that came last of all is handled here
    except KeyboardInterrupt:
        pass
    finally:
        gc.enable()
    return trace.came


# ---- calls to interrupt ----


class World:
    """An optimizer amid its work; `act` is the call to interrupt."""

    optimizer: Any = fs.AdamW
    options: dict[str, Any] = {"weight_decay": 0.1, "ema": 0.9}  # noqa: RUF012
    request: dict[str, Any] = {}  # noqa: RUF012
    steps = 2
    """How many there have been before."""

    def __init__(self, backend: str) -> None:
        self.backend = backend
        self.params = self.arrays()
        self.opt = self.optimizer(self.given(), backend=backend, **self.options)
        self.fill()
        for _ in range(self.steps):
            self.step()
        self.prepare()

    def arrays(self) -> list[Any]:
        return [np.linspace(-1, 1, 7, dtype=np.float32)]

    def given(self) -> Any:
        return self.params

    def fill(self) -> None:
        self.grads = [0.5 * p + 1 for p in self.params]

    def prepare(self) -> None:
        """Do what comes between the first steps and the call."""

    def step(self) -> None:
        self.opt.step(self.grads, **self.request)

    def act(self) -> None:
        self.step()

    def seen(self) -> Any:
        """Everything that a call may change, in bytes and numbers."""
        state = self.opt.state_dict()  # first: rows that lag behind catch up
        memory = [array.tobytes() for array in (*self.params, *self.grads)]
        arrays = [
            {letter: value if letter == "t" else value.tobytes() for letter, value in each.items()}
            for each in state["state"]
        ]
        groups = [
            {**group, "lr": np.array(group["lr"]).tolist()} for group in state["param_groups"]
        ]
        return memory, arrays, groups


class OneTensor(World):
    pass


class FirstStep(World):
    steps = 0


class Mixed(World):
    """Two dtypes, what has gaps, what lies in another order, and nothing at all."""

    def arrays(self) -> list[Any]:
        return [
            np.linspace(-1, 1, 7, dtype=np.float32),
            np.linspace(-1, 1, 24).reshape(4, 6)[:, ::2],
            np.linspace(-1, 1, 24, dtype=np.float32).reshape(4, 6)[:, 1::3],
            np.linspace(-1, 1, 6).reshape(2, 3).T[::-1],
            np.zeros((0, 3)),
        ]


class Zeroing(Mixed):
    """Gradients are zeroed, also those that have gaps."""

    request = {"zero_grads": True, "max_norm": 0.5, "scale": 2.0}  # noqa: RUF012

    def fill(self) -> None:
        self.grads = [np.repeat(0.5 * p + 1, 2, axis=-1)[..., ::2] for p in self.params]

    def prepare(self) -> None:
        for g in self.grads:
            g[...] = 0.25


class Skipping(Zeroing):
    options = {"nonfinite": "skip"}  # noqa: RUF012

    def prepare(self) -> None:
        super().prepare()
        self.grads[1][0] = np.nan


class Scheduled(Mixed):
    optimizer = fs.SGD
    options = {"lr": fs.schedules.cosine(0.1, 10), "momentum": 0.9}  # noqa: RUF012


class SomeNone(Mixed):
    def act(self) -> None:
        self.opt.step([None, *self.grads[1:3], None, None])


class NewState(Mixed):
    def prepare(self) -> None:
        self.opt.param_groups[0]["amsgrad"] = True


class CustomRule(Mixed):
    optimizer = fs.rules.Lion


class InArena(World):
    request = {"zero_grads": True}  # noqa: RUF012

    def given(self) -> Any:
        arena = fs.Arena([np.linspace(-1, 1, 5), np.linspace(-1, 1, 3, dtype=np.float32)])
        self.params, self.grads = arena.params, arena.grads
        return arena

    def fill(self) -> None:
        for g in self.grads:
            g[...] = 0.5

    def step(self) -> None:
        self.opt.step(**self.request)

    def prepare(self) -> None:
        self.fill()


class Loading(Mixed):
    """Other hyperparameters, other arrays and another t come in, and an array goes."""

    def prepare(self) -> None:
        other = self.optimizer(self.arrays(), backend=self.backend, lr=0.5, amsgrad=True)
        other.step(self.grads)
        self.saved = other.state_dict()

    def act(self) -> None:
        self.opt.load_state_dict(self.saved)


class LoadingACheckpoint(Mixed):
    """A file that was read is given to the optimizer: options, state, t and the parameters."""

    def prepare(self) -> None:
        other = self.optimizer(self.arrays(), backend=self.backend, lr=0.5, amsgrad=True)
        other.step(self.grads)
        with tempfile.TemporaryDirectory() as folder:
            fs.save(f"{folder}/run.safetensors", other)
            reader = CheckpointReader(f"{folder}/run.safetensors")
            self.checkpoint = Giving(reader, reader.checkpoint())

    def act(self) -> None:
        give(self.opt, self.checkpoint, None)


class SettingRates(Mixed):
    def given(self) -> Any:
        return [{"params": self.params[:2]}, {"params": self.params[2:], "lr": 0.5}]

    def step(self) -> None:
        self.opt.step([self.grads[:2], self.grads[2:]])

    def act(self) -> None:
        self.opt.lr = 0.25

    def seen(self) -> Any:
        return [group["lr"] for group in self.opt.param_groups]


class GoingAhead(Mixed):
    """Parameters go ahead and come back: nothing may be changed, at whatever moment."""

    optimizer = fs.SGD
    options = {"momentum": 0.9, "ema": 0.5}  # noqa: RUF012

    def act(self) -> None:
        with self.opt.lookahead():
            self.params[0].sum()


class GoingAheadInArena(InArena):
    optimizer = fs.SGD
    options = GoingAhead.options

    def act(self) -> None:
        with self.opt.lookahead():
            self.params[0].sum()


class ByRows(World):
    """Rows that count their own steps, and have a first step by rows."""

    optimizer: Any = fs.Adam
    options = {"ema": 0.9}  # noqa: RUF012
    steps = 0

    def arrays(self) -> list[Any]:
        return [np.linspace(-1, 1, 12, dtype=np.float32).reshape(4, 3)]

    def fill(self) -> None:
        self.grads = [np.full((3, 3), 0.5, np.float32)]

    def step(self) -> None:
        self.opt.step([fs.Rows([3, 1, 3], self.grads[0])])


class ByExactRows(ByRows):
    """Rows that have missed steps, and others that miss this one."""

    options = {"untouched": "exact"}  # noqa: RUF012
    steps = 1

    def prepare(self) -> None:
        for row in (0, 3):
            self.opt.step([fs.Rows([row], self.grads[0][:1])])


class NewLines(ByRows):
    """A first step by rows, for which state moves to where cache lines begin."""

    optimizer: Any = fs.Adagrad
    options = {"initial_accumulator_value": 0.5}  # noqa: RUF012

    def arrays(self) -> list[Any]:
        memory = np.zeros(80, np.float32)
        skip = 4 + -memory.ctypes.data % 64 // 4  # 16 bytes past a line
        p = memory[skip : skip + 48].reshape(3, 16)
        p[...] = np.linspace(-1, 1, 48).reshape(3, 16)
        return [p]

    def fill(self) -> None:
        self.grads = [np.full((3, 16), 0.5, np.float32)]

    def step(self) -> None:
        self.opt.step([fs.Rows([2, 1, 2], self.grads[0])])


class OtherColumns(ByExactRows):
    """Rows that have missed steps, whose columns come apart."""

    options = {"untouched": "exact", "lr": np.array([0.1, 0.1, 0.2])}  # noqa: RUF012

    def prepare(self) -> None:
        super().prepare()
        self.opt.lr = np.array([0.1, 0.3, 0.2])


class Functional(Mixed):
    """A step without an optimizer, of arrays with gaps."""

    def fill(self) -> None:
        super().fill()
        self.own = [np.repeat(g, 2, axis=-1)[..., ::2] for g in (self.params[1], *self.grads[1:2])]
        self.own += [np.zeros((4, 6))[:, ::2] for _ in range(2)]

    def act(self) -> None:
        fs.functional.adamw(*self.own, t=3, backend=self.backend)

    def seen(self) -> Any:
        return [array.tobytes() for array in self.own]


class Saving(Mixed):
    def act(self) -> None:
        self.opt.state_dict()


class InFlight(Mixed):
    """A step that another thread takes, with a rate of its own."""

    def prepare(self) -> None:
        self.opt.lr = 0.5

    def act(self) -> None:
        self.opt.step(self.grads, wait=False, **self.request)


class InFlightWhole(Zeroing):
    def act(self) -> None:
        self.opt.step(self.grads, wait=False, **self.request)


class InFlightInArena(InArena):
    def act(self) -> None:
        self.opt.step(wait=False, **self.request)


class InFlightByRows(ByExactRows):
    def step(self) -> None:
        self.opt.step([fs.Rows([3, 1, 3], self.grads[0])], wait=False)


class Slow:
    """An event for a step in flight to come after, so late that others wait for the step."""

    def synchronize(self) -> None:
        sleep(0.001)


class BehindAnother(OneTensor):
    """A step that waits for one in flight."""

    def prepare(self) -> None:
        self.opt.step(self.grads, wait=False, after=Slow())


class InFlightBehindAnother(BehindAnother):
    def act(self) -> None:
        self.opt.step(self.grads, wait=False)


class WaitingForOne(OneTensor):
    """The result of a handle is waited for."""

    def act(self) -> None:
        self.opt.step(self.grads, wait=False, after=Slow()).result()


class SavingBehindOne(BehindAnother):
    def act(self) -> None:
        self.opt.state_dict()


WORK: list[type[World]] = [
    *(OneTensor, FirstStep, Mixed, Zeroing, Skipping, Scheduled, SomeNone, NewState, CustomRule),
    *(
        InArena,
        Loading,
        LoadingACheckpoint,
        SettingRates,
        GoingAhead,
        GoingAheadInArena,
        Functional,
        Saving,
    ),
    *(ByRows, ByExactRows, NewLines, OtherColumns),
    *(InFlight, InFlightWhole, InFlightInArena, InFlightByRows),
    *(BehindAnother, InFlightBehindAnother, WaitingForOne, SavingBehindOne),
]


def work(backend: str) -> list[type[World]]:
    """The worlds that a backend can step."""
    return [make for make in WORK if backend != "c" or make is not CustomRule]


class Judge:
    """Tells whether a call was done wholly or not at all, and whether work goes on from there."""

    def __init__(self, make: type[World], backend: str) -> None:
        world = make(backend)
        self.stages = [world.seen()]
        """The sights before the call, after it, and after a second one."""
        for _ in range(2):
            world.act()
            self.stages.append(world.seen())

    def is_whole(self, world: World) -> bool:
        try:
            stage = self.stages[:2].index(world.seen())
            world.act()
            whole = bool(world.seen() == self.stages[stage + 1])
            world.step()
            return whole
        except (ValueError, RuntimeError):
            return False


# ---- at random ----


def interrupted_by_a_timer(call: Callable[[], None], seconds: float) -> bool:
    """Interrupt a call after some time; False if it was done by then."""
    try:
        signal.setitimer(signal.ITIMER_REAL, seconds)
        call()
        signal.setitimer(signal.ITIMER_REAL, 0)
    except KeyboardInterrupt:
        return True
    return False


def main(count: int) -> None:
    signal.signal(signal.SIGALRM, signal.default_int_handler)
    total = halves = 0
    for backend in available():
        for make in work(backend):
            judge, world = Judge(make, backend), make(backend)
            began = perf_counter()
            for _ in range(100):
                world.act()
            longest = (perf_counter() - began) / 100
            came = half = 0
            while came < count:
                world = make(backend)
                if interrupted_by_a_timer(world.act, random.uniform(1e-6, 1.5 * longest + 2e-5)):
                    came += 1
                    half += not judge.is_whole(world)
            print(f"{backend:8}{make.__name__:20}{came:8} interrupted{half:8} left half done")
            total, halves = total + came, halves + half
    print(f"{total} interrupted, {halves} left half done")


def available() -> list[str]:
    info = fs.info()
    return [name for name in ("c", "numba", "numpy") if info.backends[name] is None]


if __name__ == "__main__":
    main(int(sys.argv[1]))
