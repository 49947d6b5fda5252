"""Networks of scikit-learn's with any solver: each step is the optimizer's own."""

from __future__ import annotations

import copy
import pickle
from collections.abc import Iterator
from functools import partial
from typing import Any

import numpy as np
import pytest
from marks import needs

sklearn = needs("sklearn", "sklearn")

from sklearn import neural_network  # noqa: E402
from sklearn.base import clone  # noqa: E402
from sklearn.datasets import load_digits, make_regression  # noqa: E402
from sklearn.model_selection import GridSearchCV  # noqa: E402
from sklearn.pipeline import make_pipeline  # noqa: E402
from sklearn.preprocessing import StandardScaler  # noqa: E402
from sklearn.utils.estimator_checks import parametrize_with_checks  # noqa: E402
from sklearn_steps import counting  # noqa: E402

import fusedstep as fs  # noqa: E402
from fusedstep.sklearn import MLPClassifier, MLPRegressor  # noqa: E402

pytestmark = pytest.mark.filterwarnings("ignore::sklearn.exceptions.ConvergenceWarning")

SOLVERS: dict[str, tuple[Any, Any, dict[str, Any]]] = {
    "adamw": ("adamw", fs.AdamW, {}),
    "adagrad": ("adagrad", fs.Adagrad, {}),
    "rmsprop": ("rmsprop", fs.RMSprop, {}),
    "lion": ("lion", fs.rules.Lion, {}),
    "nadam": ("nadam", fs.rules.NAdam, {}),
    "radam": ("radam", fs.rules.RAdam, {}),
    "adamax": ("adamax", fs.rules.Adamax, {}),
    "adan": ("adan", fs.rules.Adan, {}),
    "class": (fs.AdamW, fs.AdamW, {}),
    "partial": (
        partial(fs.AdamW, weight_decay=0.1, amsgrad=True),
        fs.AdamW,
        {"weight_decay": 0.1, "amsgrad": True},
    ),
    "schedule": (
        partial(fs.SGD, lr=fs.schedules.cosine(0.1, steps=40), momentum=0.9),
        fs.SGD,
        {"lr": fs.schedules.cosine(0.1, steps=40), "momentum": 0.9},
    ),
}
"""By name: the solver, the class that it stands for, and the options of it."""

for_each_solver = pytest.mark.parametrize(
    ("solver", "made", "options"), SOLVERS.values(), ids=SOLVERS
)


@pytest.fixture(autouse=True, scope="module")
def one_thread() -> Iterator[None]:
    """Products in two threads of a busy machine take many times as long at this size."""
    with needs("threadpoolctl", "sklearn").threadpool_limits(1, user_api="blas"):
        yield


@pytest.fixture(scope="module")
def digits() -> Any:
    x, y = load_digits(return_X_y=True)
    return x[:500] / 16, y[:500]


def optimizer_of(network: Any) -> Any:
    return network._optimizer  # noqa: SLF001


class Recorded(MLPClassifier):
    """A network that remembers the gradients of every batch, and what it started from."""

    def _initialize(self, *args: Any) -> None:
        super()._initialize(*args)
        self.start_ = copy.deepcopy(self.coefs_ + self.intercepts_)
        self.grads_: list[Any] = []

    def _backprop(self, *args: Any) -> Any:
        loss, coefs, intercepts = super()._backprop(*args)
        self.grads_.append(copy.deepcopy(coefs + intercepts))
        return loss, coefs, intercepts


# ---- every step ----


@for_each_solver
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_the_steps_are_the_optimizers(
    solver: Any, made: Any, options: dict[str, Any], dtype: Any, digits: Any
) -> None:
    network = Recorded(
        solver=solver, learning_rate_init=0.02, max_iter=6, batch_size=90, random_state=0
    ).fit(digits[0].astype(dtype), digits[1])
    params = network.start_
    optimizer = made(params, **{"lr": 0.02, **options})
    assert len(network.grads_) == 36
    for grads in network.grads_:
        optimizer.step(grads)
    for ours, theirs in zip(params, network.coefs_ + network.intercepts_, strict=True):
        assert ours.tobytes() == theirs.tobytes()
    assert type(network.coefs_) is type(network.intercepts_) is list
    assert {type(a) for a in network.coefs_ + network.intercepts_} == {np.ndarray}


def test_betas_and_epsilon_count_where_they_are_not_the_default(digits: Any) -> None:
    def hyperparameters(**options: Any) -> Any:
        network = MLPClassifier(max_iter=1, random_state=0, **options).fit(*digits)
        (group,) = optimizer_of(network).optimizer.param_groups
        return group

    found = hyperparameters(solver="adamw", beta_1=0.8, epsilon=1e-3, learning_rate_init=0.5)
    assert (found["betas"], found["eps"], found["lr"]) == ((0.8, 0.999), 1e-3, 0.5)
    assert hyperparameters(solver="lion")["betas"] == (0.9, 0.99)
    assert hyperparameters(solver="lion", beta_1=0.5)["betas"] == (0.5, 0.999)
    assert hyperparameters(solver="adagrad")["eps"] == 1e-10
    assert hyperparameters(solver="adan", beta_1=0.5)["betas"] == (0.98, 0.92, 0.99)
    found = hyperparameters(solver=partial(fs.AdamW, lr=0.25, betas=(0.1, 0.2)), beta_1=0.5)
    assert (found["betas"], found["lr"]) == ((0.1, 0.2), 0.25)


def test_rates_change_as_for_sgd(digits: Any) -> None:
    """scikit-learn's own SGD is the oracle: which rate comes after which epoch."""
    for options in (
        {"learning_rate": "invscaling", "power_t": 0.3, "max_iter": 5},
        {"learning_rate": "adaptive", "tol": 10.0, "n_iter_no_change": 2, "max_iter": 100},
    ):
        plain = neural_network.MLPClassifier(
            solver="sgd", momentum=0, learning_rate_init=0.1, random_state=0, **options
        ).fit(*digits)
        for solver in ("adamw", fs.SGD):
            network = MLPClassifier(
                solver=solver, learning_rate_init=0.1, random_state=0, **options
            ).fit(*digits)
            ours, theirs = optimizer_of(network), optimizer_of(plain)
            assert ours.learning_rate == theirs.learning_rate < 0.1
            assert network.n_iter_ == plain.n_iter_
            if solver is fs.SGD:
                assert network.loss_curve_ == plain.loss_curve_


def test_a_schedule_of_ours_sets_the_rate(digits: Any) -> None:
    schedule = fs.schedules.exponential(0.1, rate=0.01)
    network = MLPClassifier(solver=partial(fs.AdamW, lr=schedule), max_iter=4, random_state=0)
    network.fit(*digits)
    steps = 4 * 3
    assert optimizer_of(network).learning_rate == schedule(steps)
    with pytest.raises(ValueError, match="learning_rate='constant'"):
        clone(network).set_params(learning_rate="adaptive").fit(*digits)
    clone(network).set_params(learning_rate="constant").fit(*digits)


@pytest.mark.parametrize("solver", ["sgd", "adam", "lbfgs"])
def test_their_solvers_have_the_same_bits(solver: str, digits: Any) -> None:
    options: dict[str, Any] = {"solver": solver, "max_iter": 8, "random_state": 0}
    plain = neural_network.MLPClassifier(**options).fit(*digits)
    with counting() as count:
        ours = MLPClassifier(**options).fit(*digits)
    assert (count.steps > 0) == (solver != "lbfgs")
    assert ours.solver == solver
    assert ours.loss_ == plain.loss_
    for some, others in zip(ours.coefs_, plain.coefs_, strict=True):
        assert some.tobytes() == others.tobytes()


def test_early_stopping_and_sparse_inputs(digits: Any) -> None:
    sparse = needs("scipy.sparse", "sklearn")
    options: dict[str, Any] = {"solver": "adamw", "early_stopping": True, "random_state": 0}
    dense = MLPClassifier(max_iter=20, **options).fit(*digits)
    other = MLPClassifier(max_iter=20, **options).fit(sparse.csr_matrix(digits[0]), digits[1])
    assert len(dense.validation_scores_) == dense.n_iter_
    assert other.loss_curve_ == pytest.approx(dense.loss_curve_, rel=1e-9)


def test_a_regressor() -> None:
    x, y = make_regression(300, 8, random_state=0)
    network = MLPRegressor(solver="nadam", learning_rate_init=0.02, max_iter=300, random_state=0)
    assert network.fit(x, y / 100).score(x, y / 100) > 0.95


# ---- what is kept ----


@for_each_solver
def test_partial_fits_go_on(solver: Any, made: Any, options: dict[str, Any], digits: Any) -> None:
    """Parts end as one long fit over the same batches; also in a copy and from a pickle."""
    x, y = digits
    whole = MLPClassifier(
        solver=solver, shuffle=False, max_iter=4, random_state=0, tol=0, learning_rate_init=0.01
    ).fit(x, y)
    parts = clone(whole).partial_fit(x, y, classes=range(10))
    ways: list[Any] = [lambda n: n, copy.deepcopy, lambda n: pickle.loads(pickle.dumps(n))]
    for again in ways:
        parts = again(parts).partial_fit(x, y)
    for ours, theirs in zip(parts.coefs_, whole.coefs_, strict=True):
        assert ours.tobytes() == theirs.tobytes()


@for_each_solver
def test_parameters_that_are_assigned_are_stepped(
    solver: Any, made: Any, options: dict[str, Any], digits: Any
) -> None:
    """State is kept: it is as if the new values had been written to the old arrays."""
    x, y = digits
    written = MLPClassifier(solver=solver, random_state=0).partial_fit(x, y, classes=range(10))
    assigned = copy.deepcopy(written)
    for k in range(2):
        written.coefs_[k][...] = 0.5 * written.coefs_[k]
        written.intercepts_[k][...] = 0.25
    assigned.coefs_ = [0.5 * w for w in assigned.coefs_]
    assigned.intercepts_[:] = [np.full_like(b, 0.25) for b in assigned.intercepts_]
    before = [w.copy() for w in assigned.coefs_]
    for network in (written, assigned):
        network.partial_fit(x, y)
    for ours, theirs, old in zip(assigned.coefs_, written.coefs_, before, strict=True):
        assert ours.tobytes() == theirs.tobytes()
        assert not np.array_equal(ours, old)


def test_parameters_of_another_shape_are_noticed(digits: Any) -> None:
    x, y = digits
    network = MLPClassifier(solver="adamw", random_state=0).partial_fit(x, y, classes=range(10))
    network.coefs_ = [np.zeros((64, 50)), np.zeros((50, 10))]
    network.intercepts_ = [np.zeros(50), np.zeros(10)]
    with pytest.raises(ValueError, match="shape"):
        network.partial_fit(x, y)


def test_another_solver_begins_anew(digits: Any) -> None:
    x, y = digits
    network = MLPClassifier(solver="sgd", random_state=0).partial_fit(x, y, classes=range(10))
    for solver, name in (("adamw", "adamw"), ("adam", None), (fs.rules.Lion, fs.rules.Lion)):
        network.set_params(solver=solver).partial_fit(x, y)
        optimizer = optimizer_of(network)
        assert getattr(optimizer, "choice", None) == name
        network.partial_fit(x, y)
        assert optimizer_of(network) is optimizer
        assert network.get_params()["solver"] is solver


def test_a_pickle_has_each_array_once(digits: Any) -> None:
    network = MLPClassifier(solver="adamw", max_iter=2, random_state=0).fit(*digits)
    arrays = sum(a.nbytes for a in network.coefs_ + network.intercepts_)
    kept = 4  # the parameters, those that early stopping would go back to, m and v
    assert len(pickle.dumps(network)) < kept * arrays + 20_000


def test_a_fit_that_fails_leaves_the_solver_as_it_was(digits: Any) -> None:
    made: Any = fs.AdamW
    for solver in ("adamw", "sgd", partial(made, nonsense=1)):
        network = MLPClassifier(solver=solver, max_iter=2)
        with pytest.raises((TypeError, ValueError)):
            network.fit(digits[0], digits[1][:-1])
        assert network.solver is solver
    with pytest.raises(TypeError, match="nonsense"):
        network.fit(*digits)
    assert network.solver is solver


# ---- what scikit-learn does with estimators ----


@pytest.mark.parametrize(
    ("solver", "found"),
    [
        ("adamm", r"'adamw'.*Got 'adamm'"),
        (fs.AdamW(np.zeros(3)), r"functools\.partial\(fusedstep\.AdamW, weight_decay=0\.1\)"),
        (dict, r"functools\.partial\(fusedstep\.AdamW, weight_decay=0\.1\)"),
        (partial(print), r"functools\.partial\(fusedstep\.AdamW, weight_decay=0\.1\)"),
        (partial(fs.AdamW, 0.1), "name them"),
    ],
)
def test_solvers_that_are_none(solver: Any, found: str, digits: Any) -> None:
    with pytest.raises(ValueError, match=found):
        MLPClassifier(solver=solver).fit(*digits)


def test_partial_fit_is_there_where_it_can_be() -> None:
    for solver, there in (("lbfgs", False), ("sgd", True), ("adan", True), (fs.AdamW, True)):
        assert hasattr(MLPClassifier(solver=solver), "partial_fit") is there


def test_a_grid_over_solvers(digits: Any) -> None:
    pipeline = make_pipeline(StandardScaler(), MLPClassifier(max_iter=20, random_state=0))
    grid = {"mlpclassifier__solver": ["adam", "adamw", fs.rules.Lion, SOLVERS["partial"][0]]}
    search = GridSearchCV(pipeline, grid, cv=2, n_jobs=2, error_score="raise").fit(*digits)
    assert len(search.cv_results_["params"]) == 4
    assert search.best_score_ > 0.5


CHECKED = [
    network(solver=solver, max_iter=100)
    for solver in ("adam", "adamw", fs.RMSprop)
    for network in (MLPClassifier, MLPRegressor)
]


@parametrize_with_checks(CHECKED)  # type: ignore[untyped-decorator]
@pytest.mark.filterwarnings("ignore")
def test_scikit_learns_checks(estimator: Any, check: Any) -> None:
    check(estimator)
