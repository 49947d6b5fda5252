"""The patch that has scikit-learn's own estimators step fused."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from functools import wraps
from threading import RLock
from types import TracebackType
from typing import Any, TypeVar, cast, overload

from fusedstep._checks.wording import describe
from fusedstep.sklearn._steps import adam_update, sgd_update
from fusedstep.sklearn._theirs import AdamOptimizer, SGDOptimizer, Task, parallel

Function = TypeVar("Function", bound=Callable[..., Any])


class PatchedTask(Task):
    """A task of scikit-learn's workers, which is done under the patch, whatever process does it."""

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        with patch():
            return super().__call__(*args, **kwargs)


PLACES: list[tuple[Any, str, Any]] = [
    (SGDOptimizer, "update_params", sgd_update),
    (AdamOptimizer, "update_params", adam_update),
    (parallel, "_FuncWrapper", PatchedTask),
]
"""Attributes of scikit-learn's that are replaced, and by what."""

MISSING = object()

lock = RLock()
count = 0
"""The patches that are on; with the first the attributes are replaced, with the last put back."""
before: list[Any] = []
"""The attributes as they were."""


def put_on() -> None:
    global count
    with lock:
        if not count:
            before[:] = [vars(owner).get(name, MISSING) for owner, name, _ in PLACES]
            for owner, name, ours in PLACES:
                setattr(owner, name, ours)
        count += 1


def take_off() -> None:
    global count
    with lock:
        count -= 1
        if count:
            return
        for (owner, name, ours), own in zip(PLACES, before, strict=True):
            if vars(owner).get(name) is not ours:  # somebody has replaced it since
                continue
            if own is MISSING:
                delattr(owner, name)
            else:
                setattr(owner, name, own)


class Patch:
    """A patch that is on: `undo` takes it off, as does the end of a `with` block."""

    def __init__(self) -> None:
        self.on = False
        self.entered = 0
        self._put_on()

    def _put_on(self) -> None:
        with lock:
            if not self.on:
                put_on()
                self.on = True

    def undo(self) -> None:
        """Take this patch off. Others that are on stay; a second time it does nothing."""
        with lock:
            if self.on:
                self.on = False
                take_off()

    def __enter__(self) -> Patch:
        with lock:
            self._put_on()
            self.entered += 1
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        with lock:
            self.entered -= 1
            if not self.entered:
                self.undo()

    def __call__(self, function: Function) -> Function:
        """Decorate a function, which is patched while it runs and not before."""
        self.undo()
        return decorated(function)

    def __repr__(self) -> str:
        return f"<patch of scikit-learn, {'on' if self.on else 'off'}>"


def decorated(function: Function) -> Function:
    """The function under a patch of its own, which is on while it runs."""
    if inspect.iscoroutinefunction(function):

        @wraps(function)
        async def awaited(*args: Any, **kwargs: Any) -> Any:
            with Patch():
                return await function(*args, **kwargs)

        return cast(Function, awaited)
    is_generator = inspect.isgeneratorfunction(function) or inspect.isasyncgenfunction(function)
    if isinstance(function, type) or not callable(function) or is_generator:
        raise TypeError(
            f"patch cannot decorate {describe(function)}; decorate a function that returns, or "
            "say `with fusedstep.sklearn.patch():`"
        )

    @wraps(function)
    def patched(*args: Any, **kwargs: Any) -> Any:
        with Patch():
            return function(*args, **kwargs)

    return cast(Function, patched)


@overload
def patch(function: None = None) -> Patch: ...


@overload
def patch(function: Function) -> Function: ...


def patch(function: Any = None) -> Any:
    """Have scikit-learn's own MLPClassifier and MLPRegressor step fused.

    ::

        with patch():                      in the block
            model.fit(x, y)

        @patch                             while the function runs, also as @patch()
        def train(): ...

        patched = patch()                  from here on
        patched.undo()                     to here

    The solvers "sgd" and "adam" compute what they did, to the bit in float64, and with "sgd" in
    float32: rates, momentum, early stopping, warm starts, `partial_fit`, and all attributes are
    scikit-learn's. What is patched is one method of its two optimizers, so estimators that were
    fitted before go on with it, those that were fitted with it go on without, and none needs this
    package to be unpickled.

    The patch holds for all threads, from the first that puts it on to the last that takes it off,
    and for the workers that scikit-learn starts itself, as GridSearchCV does with `n_jobs`. Other
    processes have to put it on themselves.

    Parameters
    ----------
    function
        A function to decorate; None puts the patch on.

    Returns
    -------
    Patch or function
        A context manager with the method `undo`, or the decorated function.

    Raises
    ------
    TypeError
        If `function` is none, or a generator, or a class.

    Notes
    -----
    Adam in float32 is computed in float32 throughout; scikit-learn's is in float64 where its rate
    takes part, which is a number of NumPy's, and is rounded as it is added to the parameter.

    Examples
    --------
    >>> import fusedstep.sklearn
    >>> from sklearn.datasets import load_iris
    >>> from sklearn.neural_network import MLPClassifier
    >>> x, y = load_iris(return_X_y=True)
    >>> plain = MLPClassifier(random_state=0, early_stopping=True).fit(x, y)
    >>> with fusedstep.sklearn.patch():
    ...     fused = MLPClassifier(random_state=0, early_stopping=True).fit(x, y)
    >>> fused.loss_curve_ == plain.loss_curve_
    True
    """
    return Patch() if function is None else decorated(function)
