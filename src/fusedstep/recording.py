"""Records of runs, and their repetition: which step, tensor and element is the first to differ."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping
from pathlib import Path
from types import TracebackType
from typing import Any, NamedTuple

import numpy as np

from fusedstep._checks.wording import describe, quoted
from fusedstep._core import recorded
from fusedstep._core.checkpoint import Checkpoint, CheckpointReader, encoded
from fusedstep._core.numbers_in_file import OF_TORCH
from fusedstep._core.optimizer import Optimizer
from fusedstep._core.record import (
    PARAMETER,
    START,
    STEPS,
    Kept,
    Step,
    digests_of,
    read_kept,
    read_steps,
    write_step,
)
from fusedstep._core.tensor_file import Array
from fusedstep.checkpoints import is_of_torch, save

__all__ = ["Difference", "Recorder", "Replay", "replay"]


class Recorder:
    """A record of an optimizer's steps, written while they are made.

    ::

        with fs.Recorder(opt, "record", gradients=True):
            for x, y in batches:
                opt.step(backward(params, x, y))

    From then on each `opt.step` adds to the record, until `close`, or the end of the block:
    the SHA-256 of every array after it, what it was asked, and options that have changed. It is a
    folder that begins with a checkpoint. `fusedstep replay record` repeats the steps on another
    backend or another machine, and `replay` does so from Python.

    Parameters
    ----------
    opt
        An optimizer of this package over arrays of NumPy, or what is like them, or one of
        `fusedstep.torch` over parameters on the CPU. Steps that are taken in the backward pass are
        not recorded.
    path
        The folder, which is made. One with another record in it is refused.
    gradients
        Keep the gradients, without which nobody else can repeat the steps, and the parameters
        after each step: then the element that differs can be told. They take twice the size of
        the parameters for each step.

    Raises
    ------
    TypeError, ValueError, OSError
        If the optimizer cannot be recorded, or nothing be written there. From a step: if it
        cannot be written down; the step has then been made.

    Examples
    --------
    >>> import numpy as np, fusedstep as fs, tempfile
    >>> folder = tempfile.TemporaryDirectory()
    >>> opt = fs.AdamW({"w": np.ones(3)}, lr=0.1)
    >>> with fs.Recorder(opt, f"{folder.name}/record", gradients=True):
    ...     for _ in range(5):
    ...         _ = opt.step({"w": np.array([1.0, -2.0, 0.5])})
    >>> fs.replay(f"{folder.name}/record", backend="numpy")
    Replay(steps=5, difference=None)
    >>> folder.cleanup()
    """

    def __init__(self, opt: Any, path: str | os.PathLike[str], *, gradients: bool = False) -> None:
        self._recorded = _module_of(opt).Recorded(opt)
        self._folder = Path(path)
        self.number = 0
        """The steps that it has."""
        self._options: Any = None
        """The options of the last step as they were written down; None: there was no step."""
        self._recorded.options()  # which may be refused
        os.makedirs(self._folder, exist_ok=True)
        if os.listdir(self._folder):
            raise FileExistsError(
                f"path={os.fspath(path)!r} is a folder that is not empty; name another one"
            )
        save(self._folder / START, opt, metadata=self._recorded.description())
        (self._folder / STEPS).touch()
        self._recorded.attach(self._add, gradients)

    def _add(
        self,
        request: dict[str, Any],
        options: list[dict[str, Any]],
        gradients: dict[str, Array] | None,
    ) -> None:
        """Add the step that was taken."""
        self.number += 1
        named = self._recorded.numbers()
        kept = None
        if gradients is not None:
            kept = gradients | {f"{PARAMETER}.{name}": each.p for name, each in named.items()}
        before, self._options = self._options, encoded(options)
        changed = self._options != before
        digests = {name: digests_of(each) for name, each in named.items()}
        step = Step(self.number, request, options if changed else None, digests)
        write_step(self._folder, step, kept)

    def close(self) -> None:
        """End the record; the optimizer goes on without it."""
        self._recorded.detach()

    def __enter__(self) -> Recorder:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()


def _module_of(opt: Any) -> Any:
    """The module that records optimizers of this kind; refused if there is none."""
    if isinstance(opt, Optimizer):
        return recorded
    if is_of_torch(opt):
        from fusedstep.torch import _recorded

        return _recorded
    raise TypeError(
        f"opt is {describe(opt)}; pass an optimizer of `fusedstep`, or of `fusedstep.torch`"
    )


# ---- the repetition ----


class Difference(NamedTuple):
    """The first number that is another one than in the record."""

    step: int
    """The step, from 1."""
    name: str
    """The parameter."""
    letters: tuple[str, ...]
    """The arrays that differ: "p", or those of state by letter, or "t"."""
    element: tuple[int, ...] | None
    """The first element of the parameter that differs; None: that is not known."""
    recorded: float | None
    """The value of that element in the record."""
    replayed: float | None
    note: str = ""
    """Something else that is known of this step."""

    def __str__(self) -> str:
        where = "" if self.element is None else f" at element {list(self.element)}"
        values = ""
        if self.recorded is not None and self.replayed is not None:
            values = (
                f": {self.recorded!r} in the record, {self.replayed!r} now"
                f" ({self.recorded.hex()}, {self.replayed.hex()})"
            )
        arrays = ", ".join(self.letters)
        note = f"; {self.note}" if self.note else ""
        return f"step {self.step}: {self.name!r} ({arrays}) differs{where}{values}{note}"


class Replay(NamedTuple):
    """A repetition of a record."""

    steps: int
    """The steps that were repeated, with the one that differs."""
    difference: Difference | None
    """None: every number is the same to the bit."""


def replay(
    path: str | os.PathLike[str],
    *,
    backend: str = "auto",
    optimizer: Any = None,
    gradients: Callable[[int, dict[str, Array]], Any] | None = None,
) -> Replay:
    """Repeat the steps of a record, up to the first that comes out otherwise.

    Parameters
    ----------
    path
        The folder that a `Recorder` has made.
    backend
        The backend that repeats them.
    optimizer
        The class, of a custom rule; None: the class of this package that has the recorded name.
    gradients
        For a record without gradients: a function of the step's number, from 1, and of the
        parameters by name, which returns their gradients by name.

    Returns
    -------
    Replay
        How many steps were repeated, and the first `Difference`.

    Raises
    ------
    OSError, ValueError, TypeError
        If it is no record, or a damaged one, or has no gradients; the message says which.
    """
    folder = Path(path)
    run = _run(folder, backend, optimizer)
    number = 0
    for step in read_steps(folder):
        number = step.number
        kept = read_kept(folder, number)
        if gradients is not None:
            given = gradients(number, run.params)
        elif kept is None:
            raise ValueError(
                f"{str(folder)!r} has no gradients of step {number}; record with "
                "`gradients=True`, or pass a function as `gradients`"
            )
        else:
            given = kept.gradients
        if unknown := [name for name in given if name not in run.params]:
            raise ValueError(
                f"step {number} has gradients of {quoted(unknown)}; the parameters are called "
                f"{quoted([*run.params])}"
            )
        run.step(step, given)
        for name, numbers in run.numbers().items():
            difference = _compare(step, name, numbers, kept)
            if difference is not None:
                return Replay(number, difference)
    return Replay(number, None)


def _run(folder: Path, backend: str, optimizer: Any) -> Any:
    """The run of a record, from its beginning."""
    if not (folder / START).is_file():
        raise ValueError(
            f"{str(folder)!r} is no record: it has no {START}; pass the folder of a Recorder"
        )
    reader = CheckpointReader(folder / START)
    checkpoint = reader.checkpoint()
    module: Any = recorded
    if checkpoint.face == OF_TORCH:
        from fusedstep.torch import _recorded

        module = _recorded
    kind = optimizer or _class_of(checkpoint)
    if kind.__name__ != checkpoint.optimizer:
        raise ValueError(
            f"{str(folder)!r} is a record of {checkpoint.optimizer}, and "
            f"optimizer={kind.__name__}; pass the class that was recorded"
        )
    return module.Run(reader, checkpoint, kind, backend)


def _class_of(checkpoint: Checkpoint) -> Any:
    """The class of this package that a record is of."""
    name = checkpoint.optimizer
    if checkpoint.face == OF_TORCH:
        import fusedstep.torch as faces

        modules: list[Any] = [faces]
    else:
        from fusedstep import optimizers, rules

        modules = [optimizers, rules]
    for module in modules:
        if name in module.__all__:
            return getattr(module, name)
    raise ValueError(
        f"the record is of {name}, a rule of somebody's own; pass its class as `optimizer`"
    )


def _compare(step: Step, name: str, numbers: Any, kept: Kept | None) -> Difference | None:
    """The difference between a parameter after a step and the record of it."""
    letters = _differing(step.digests.get(name, {}), digests_of(numbers))
    if not letters:
        return None
    note = "" if kept is None or kept.whole else "the file of its gradients was changed afterwards"
    element = before = after = None
    if kept is not None and name in kept.params and kept.params[name].shape == numbers.p.shape:
        theirs, ours = kept.params[name], numbers.p
        differ = (theirs != ours) & ~((theirs != theirs) & (ours != ours))
        differ |= np.signbit(theirs) != np.signbit(ours)
        if differ.any():
            element = tuple(int(k) for k in np.argwhere(differ)[0])
            before, after = float(theirs[element]), float(ours[element])
    return Difference(step.number, name, letters, element, before, after, note)


def compare(first: str | os.PathLike[str], second: str | os.PathLike[str]) -> Replay:
    """Compare two records of the same run, of which neither needs gradients.

    Returns
    -------
    Replay
        The steps that both have, up to the first `Difference`.
    """
    number = 0
    for one, other in zip(read_steps(Path(first)), read_steps(Path(second)), strict=False):
        number = one.number
        for name in {**one.digests, **other.digests}:
            letters = _differing(one.digests.get(name, {}), other.digests.get(name, {}))
            if letters:
                return Replay(number, Difference(number, name, letters, None, None, None))
    return Replay(number, None)


def _differing(recorded: Mapping[str, Any], now: Mapping[str, Any]) -> tuple[str, ...]:
    """The letters of arrays whose digests differ, the parameter first."""
    letters = (each for each in {**recorded, **now} if recorded.get(each) != now.get(each))
    return (*sorted(letters, key=lambda letter: (letter != "p", letter)),)


def __getattr__(name: str) -> Any:
    from fusedstep._names import missing

    raise missing(__name__, name)
