"""Records of runs, and their repetition: which step, tensor and element is the first to differ."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping
from pathlib import Path
from types import TracebackType
from typing import Any, NamedTuple

import numpy as np

from fusedstep import optimizers
from fusedstep._arrays.dtypes import BFLOAT16, dtype_name, foreign
from fusedstep._arrays.plain import plain
from fusedstep._checks.wording import describe, quoted
from fusedstep._core.arena import ARENA_GRADIENTS, Arena
from fusedstep._core.checkpoint import CheckpointReader, encoded
from fusedstep._core.optimizer import Inside, Optimizer
from fusedstep._core.packed import order_of
from fusedstep._core.record import (
    GRADIENT,
    PARAMETER,
    ROWS,
    START,
    STEPS,
    VALUES,
    Kept,
    Step,
    digests_of,
    read_kept,
    read_steps,
    write_step,
)
from fusedstep._core.rows import Rows
from fusedstep._core.state_dict import saved_group
from fusedstep._core.tensor_file import Array
from fusedstep.checkpoints import load, save

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
        An optimizer of this package over arrays of NumPy, or what is like them.
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
        if not isinstance(opt, Optimizer):
            raise TypeError(f"opt is {describe(opt)}; pass an optimizer of `fusedstep`")
        self.inside = _inside(opt)
        if not self.inside.on_host:
            raise TypeError("opt has its arrays on a CUDA device; record it with arrays of NumPy")
        if self.inside.has_copies:
            raise ValueError("opt has `out`, which a record cannot repeat; leave `out` away")
        if "step" in vars(opt):
            raise ValueError("opt is recorded already; close its other recorder first")
        self.opt = opt
        self.folder = Path(path)
        self.keeps_gradients = gradients
        self.number = 0
        self._options: Any = None
        """The options of the last step as they were written down; None: there was no step."""
        self._read_options()  # which may be refused
        os.makedirs(self.folder, exist_ok=True)
        if os.listdir(self.folder):
            raise FileExistsError(
                f"path={os.fspath(path)!r} is a folder that is not empty; name another one"
            )
        save(self.folder / START, opt, metadata=self._description())
        (self.folder / STEPS).touch()
        vars(opt)["step"] = self.step

    def _description(self) -> dict[str, Any]:
        """All that a replay needs and a checkpoint has not."""
        walks = [each.walk for each in self.inside.parameters]
        return {
            "names": self.inside.names,
            "dtypes": [dtype_name(each.p.dtype) for each in self.inside.parameters],
            "orders": [None if walk.plain else [*order_of(walk)] for walk in walks],
            "nonfinite": self.inside.nonfinite,
            "arena": self.opt.arena is not None,
        }

    def step(self, grads: Any = ARENA_GRADIENTS, **request: Any) -> Any:
        """Step the optimizer as `opt.step` does, and add the step to the record."""
        opt = self.opt
        options = self._read_options()
        kept = self._gradients(grads) if self.keeps_gradients else None
        report = type(opt).step(opt, grads, **request)
        self.number += 1
        named = dict(zip(self.inside.names, self.inside.numbers(), strict=True))
        if kept is not None:
            kept |= {f"{PARAMETER}.{name}": each.p for name, each in named.items()}
        before, self._options = self._options, encoded(options)
        changed = self._options != before
        digests = {name: digests_of(each) for name, each in named.items()}
        step = Step(self.number, request, options if changed else None, digests)
        write_step(self.folder, step, kept)
        return report

    def _read_options(self) -> list[dict[str, Any]]:
        """The options of the groups; a rate that a record cannot hold is refused."""
        saved = [saved_group(group) for group in self.opt.param_groups]
        for group, own in zip(self.opt.param_groups, saved, strict=True):
            if own["lr"] is None:
                raise ValueError(
                    f"lr={group['lr']!r} is a function of your own, which a record cannot hold; "
                    "pass a schedule of `fusedstep.schedules`, or assign its rates step by step"
                )
        return saved

    def _gradients(self, grads: Any) -> dict[str, Array]:
        """Copies of the gradients of a step as a file has them."""
        inside, arena = self.inside, self.opt.arena
        if grads is ARENA_GRADIENTS and arena is not None:
            grads = arena.grads
        kept: dict[str, Array] = {}
        for name, g in zip(inside.names, inside.structure.flatten(grads, "grads"), strict=True):
            if g is None:
                continue
            rows = _rows_of(g)
            if rows is None:
                kept[f"{GRADIENT}.{name}"] = plain(g, f"grads[{name!r}]").copy(order="C")
            else:
                kept[f"{ROWS}.{name}"] = np.asarray(rows[0], np.int64).copy()
                values = plain(rows[1], f"grads[{name!r}].values")
                kept[f"{VALUES}.{name}"] = values.copy(order="C")
        return kept

    def close(self) -> None:
        """End the record; the optimizer goes on without it."""
        if vars(self.opt).get("step") == self.step:
            del vars(self.opt)["step"]

    def __enter__(self) -> Recorder:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()


def _rows_of(g: Any) -> tuple[Any, Any] | None:
    """The rows and values of a gradient of rows, or of a sparse matrix; None: it is whole."""
    if isinstance(g, Rows):
        if g.mask is None:
            return g.index, g.values
        index = np.flatnonzero(np.asarray(g.mask))
        return index, np.asarray(g.values)[index]
    if hasattr(g, "tocsr"):
        matrix = g.tocsr()
        index = np.flatnonzero(np.diff(matrix.indptr))
        return index, matrix[index].toarray()
    return None


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
    run = _Run(folder, backend, optimizer)
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
            given = {name: _as_given(g) for name, g in kept.gradients.items()}
        run.step(step, given)
        for name, numbers in zip(run.params, run.inside.numbers(), strict=True):
            difference = _compare(step, name, numbers, kept)
            if difference is not None:
                return Replay(number, difference)
    return Replay(number, None)


class _Run:
    """The run of a record, from its beginning."""

    def __init__(self, folder: Path, backend: str, optimizer: Any) -> None:
        if not (folder / START).is_file():
            raise ValueError(
                f"{str(folder)!r} is no record: it has no {START}; pass the folder of a Recorder"
            )
        checkpoint = CheckpointReader(folder / START).checkpoint()
        kind = optimizer or _class_of(checkpoint.optimizer)
        if kind.__name__ != checkpoint.optimizer:
            raise ValueError(
                f"{str(folder)!r} is a record of {checkpoint.optimizer}, and "
                f"optimizer={kind.__name__}; pass the class that was recorded"
            )
        about = checkpoint.metadata
        names, shapes = about["names"], [checkpoint.params[name].shape for name in about["names"]]
        arrays = [*map(_empty, shapes, about["dtypes"], about["orders"])]
        options = {name: v for name, v in checkpoint.groups[0].items() if name != "params"}
        options |= {"lr": _rate(options["lr"]), "nonfinite": about["nonfinite"]}
        by_name = dict(zip(names, arrays, strict=True))
        groups = [
            {
                "params": [by_name[name] for name in names if name in {*group["params"]}],
                **{name: group[name] for name in FIXED if name in group},
            }
            for group in checkpoint.groups
        ]
        params = Arena(groups) if about["arena"] else groups
        self.opt = kind(params, **options, backend=backend)
        self.inside = _inside(self.opt)
        members = {name: k for k, group in enumerate(checkpoint.groups) for name in group["params"]}
        in_order = sorted(names, key=members.__getitem__)  # as the groups have them
        arrays = [each.array for each in self.inside.parameters]
        self.params: dict[str, Array] = dict(zip(in_order, arrays, strict=True))
        """The parameters, by the names that they have in the record."""
        load(folder / START, self.opt, params=self.params)

    def step(self, step: Step, given: Mapping[str, Any]) -> None:
        """Take a step, with the gradients of some parameters by name."""
        if unknown := [name for name in given if name not in self.params]:
            raise ValueError(
                f"step {step.number} has gradients of {quoted(unknown)}; the parameters are "
                f"called {quoted([*self.params])}"
            )
        for group, saved in zip(self.opt.param_groups, step.options or (), strict=False):
            now = {name: value for name, value in saved.items() if name not in FIXED}
            group.update({**now, "lr": _rate(now["lr"])})
        flat = [given.get(name) for name in self.params]
        if self.opt.arena is not None:
            targets = self.inside.structure.flatten(self.opt.arena.grads, "grads")
            for target, g in zip(targets, flat, strict=True):
                target[...] = g
            self.opt.step(**step.request)
        else:
            self.opt.step(self.inside.structure.rebuild(flat), **step.request)


FIXED = ("master", "state_dtype", "rounding", "seed", "untouched", "row_steps")
"""Options that are fixed when an optimizer is made."""


def _inside(opt: Any) -> Inside:
    found: Inside = opt._inside()  # noqa: SLF001
    return found


def _class_of(name: str) -> Any:
    """The class of this package with a name."""
    if name in optimizers.__all__:
        return getattr(optimizers, name)
    from fusedstep import rules

    if name in rules.__all__:
        return getattr(rules, name)
    raise ValueError(
        f"the record is of {name}, a rule of somebody's own; pass its class as `optimizer`"
    )


def _rate(lr: Any) -> Any:
    """A learning rate of a checkpoint as an optimizer takes it."""
    from fusedstep.schedules import Schedule

    return Schedule.from_dict(lr) if isinstance(lr, Mapping) else lr


def _empty(shape: tuple[int, ...], dtype: str, order: list[int] | None) -> Array:
    """An array that lies in memory as the recorded one did, but for gaps."""
    kind = BFLOAT16 if dtype == "bfloat16" else np.dtype(dtype)
    if order is None:
        return foreign(np.zeros(shape, kind))
    axes = [max(k, ~k) for k in order]
    laid = np.zeros([shape[axis] for axis in axes], kind)
    turned = laid.transpose([axes.index(k) for k in range(len(axes))])
    forward = (slice(None, None, -1 if ~k in order else 1) for k in range(len(axes)))
    return foreign(turned[(*forward,)])


def _as_given(g: Any) -> Any:
    """A gradient of a file as a step takes it."""
    return Rows(*g) if isinstance(g, tuple) else foreign(g)


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
