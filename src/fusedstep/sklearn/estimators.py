"""scikit-learn's MLPClassifier and MLPRegressor with fused steps and further solvers."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, ClassVar

from sklearn import neural_network

from fusedstep.sklearn._solver import OF_OURS, OF_THEIRS, goes_on, solver_of
from fusedstep.sklearn._theirs import BaseMultilayerPerceptron, StrOptions

__all__ = ["MLPClassifier", "MLPRegressor"]

BATCHES = OF_THEIRS[0]
"""A solver that scikit-learn trains with by batches."""

NOT_THEIRS = "given"
"""A solver that scikit-learn makes no optimizer for, so that it uses the one that is there."""


class Shown(str):
    """The solver as scikit-learn is shown it for a while, with the one that was given."""

    given: Any

    def __new__(cls, name: str, given: Any) -> Shown:
        """`name`, which stands for `given`."""
        shown = super().__new__(cls, name)
        shown.given = given
        return shown


def constraints(theirs: Any) -> dict[str, Any]:
    """The constraints on parameters of a class of theirs, with the further solvers."""
    names = StrOptions({"lbfgs", *OF_THEIRS, *OF_OURS})
    return {**theirs._parameter_constraints, "solver": [names, callable]}  # noqa: SLF001


class FusedSteps(BaseMultilayerPerceptron):
    """The base of both: a network of scikit-learn's that is given its optimizer.

    scikit-learn compares the solver's name with those that it knows, first to see whether to go
    over batches, then to make an optimizer. At either place it is shown a name that leads there.
    """

    solver: Any

    @contextmanager
    def _showing(self, solver: Any) -> Iterator[None]:
        given = self.solver
        self.solver = solver
        try:
            yield
        finally:
            self.solver = given

    def _check_solver(self) -> bool:
        if not isinstance(self.solver, str) or self.solver in OF_OURS:
            return True
        checked: bool = super()._check_solver()
        return checked

    def _fit(self, *args: Any, **kwargs: Any) -> Any:
        if isinstance(self.solver, str) and self.solver == "lbfgs":
            return super()._fit(*args, **kwargs)
        with self._showing(Shown(BATCHES, self.solver)):
            return super()._fit(*args, **kwargs)

    def _fit_stochastic(self, *args: Any) -> None:
        solver, incremental = self.solver.given, args[-1]
        with self._showing(solver):
            if not (incremental and goes_on(getattr(self, "_optimizer", None), solver)):
                self._optimizer = solver_of(self, self.coefs_ + self.intercepts_)
            is_theirs = isinstance(solver, str) and solver in OF_THEIRS
            with self._showing(Shown(NOT_THEIRS, solver) if is_theirs else solver):
                super()._fit_stochastic(*args)


class MLPClassifier(FusedSteps, neural_network.MLPClassifier):
    """scikit-learn's MLPClassifier with fused steps, and with all optimizers of this package.

    Everything but `solver` is scikit-learn's: parameters, attributes, methods.

    Parameters
    ----------
    solver
        `"sgd"`, `"adam"` and `"lbfgs"` are scikit-learn's, the first two with fused steps, as
        under `patch`. By name there are `"adagrad"`, `"rmsprop"`, `"adamw"` and, of
        `fusedstep.rules`, `"lion"`, `"nadam"`, `"radam"`, `"adamax"`, `"adan"` and their
        siblings. A class does as well, also a custom rule, and with options a partial of one:
        `functools.partial(fusedstep.AdamW, weight_decay=0.1)`.

        `learning_rate_init` is α of each, unless a partial has `lr`, which may be a schedule
        of `fusedstep.schedules`. `learning_rate` and `power_t` change α as they do for "sgd".
        `beta_1`, `beta_2` and `epsilon` count where they differ from scikit-learn's defaults
        and the optimizer has such; `momentum` and `nesterovs_momentum` are for "sgd" alone.
        `alpha` is a term of the loss, as ever; `weight_decay` is the optimizer's, and acts on
        intercepts, too.

    Notes
    -----
    `partial_fit` goes on with the optimizer's state while the solver stays the same, also over
    `coefs_` that were assigned. A pickle has each array once.

    Examples
    --------
    >>> import fusedstep.sklearn
    >>> from sklearn.datasets import load_iris
    >>> x, y = load_iris(return_X_y=True)
    >>> network = fusedstep.sklearn.MLPClassifier(
    ...     solver="adamw", learning_rate_init=0.01, max_iter=500, random_state=0
    ... )
    >>> bool(network.fit(x, y).score(x, y) > 0.95)
    True
    """

    _parameter_constraints: ClassVar[dict[str, Any]] = constraints(neural_network.MLPClassifier)


class MLPRegressor(FusedSteps, neural_network.MLPRegressor):
    """scikit-learn's MLPRegressor with fused steps, and with all optimizers of this package.

    Everything but `solver` is scikit-learn's: parameters, attributes, methods.

    Parameters
    ----------
    solver
        The same as for `MLPClassifier`.

    Examples
    --------
    >>> import fusedstep as fs, fusedstep.sklearn
    >>> from functools import partial
    >>> from sklearn.datasets import load_diabetes
    >>> x, y = load_diabetes(return_X_y=True)
    >>> falling = partial(fs.AdamW, lr=fs.schedules.cosine(0.05, steps=1500), weight_decay=0.0)
    >>> network = fusedstep.sklearn.MLPRegressor(solver=falling, max_iter=500, random_state=0)
    >>> bool(network.fit(x, y).score(x, y) > 0.5)
    True
    """

    _parameter_constraints: ClassVar[dict[str, Any]] = constraints(neural_network.MLPRegressor)
