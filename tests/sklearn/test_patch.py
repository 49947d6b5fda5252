"""Under the patch scikit-learn's own networks learn what they learned, step by fused step."""

from __future__ import annotations

import asyncio
import copy
import io
import os
import pickle
import subprocess
import sys
import threading
import warnings
from collections.abc import Iterator
from contextlib import nullcontext, redirect_stdout
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from marks import MISSING, needs

sklearn = needs("sklearn", "sklearn")

import sklearn_steps  # noqa: E402
from sklearn.base import clone  # noqa: E402
from sklearn.datasets import load_digits, make_regression  # noqa: E402
from sklearn.exceptions import ConvergenceWarning  # noqa: E402
from sklearn.model_selection import GridSearchCV  # noqa: E402
from sklearn.neural_network import MLPClassifier, MLPRegressor  # noqa: E402
from sklearn.neural_network._stochastic_optimizers import (  # noqa: E402
    AdamOptimizer,
    BaseOptimizer,
    SGDOptimizer,
)
from sklearn.utils import parallel  # noqa: E402
from sklearn_steps import counting  # noqa: E402

import fusedstep as fs  # noqa: E402
from fusedstep.sklearn import _steps, patch, patching  # noqa: E402

pytestmark = pytest.mark.filterwarnings("ignore::sklearn.exceptions.ConvergenceWarning")

OWN = BaseOptimizer.update_params

SOLVERS: dict[str, dict[str, Any]] = {
    "adam": {"solver": "adam"},
    "adam-betas": {"solver": "adam", "beta_1": 0.5, "beta_2": 0.9, "epsilon": 1e-3},
    "nesterov": {"solver": "sgd", "learning_rate_init": 0.01},
    "momentum": {"solver": "sgd", "nesterovs_momentum": False},
    "no-momentum": {"solver": "sgd", "momentum": 0},
    "full-momentum": {"solver": "sgd", "momentum": 1.0},
    "invscaling": {
        "solver": "sgd",
        "learning_rate": "invscaling",
        "learning_rate_init": 0.1,
        "power_t": 0.3,
    },
    "adaptive": {
        "solver": "sgd",
        "learning_rate": "adaptive",
        "learning_rate_init": 0.1,
        "tol": 0.03,
        "n_iter_no_change": 2,
    },
    "numpy-numbers": {
        "solver": "sgd",
        "momentum": np.float64(0.8),
        "learning_rate_init": np.float64(0.01),
    },
}

ATTRIBUTES = ("loss_curve_", "validation_scores_", "n_iter_", "t_", "best_loss_")

for_each_solver = pytest.mark.parametrize("options", SOLVERS.values(), ids=SOLVERS)


@pytest.fixture(autouse=True, scope="module")
def one_thread() -> Iterator[None]:
    """Products in two threads of a busy machine take many times as long at this size."""
    with needs("threadpoolctl", "sklearn").threadpool_limits(1, user_api="blas"):
        yield


@pytest.fixture(autouse=True)
def unpatched() -> Iterator[None]:
    """Nothing is left of a patch, and steps are fused from the first on."""
    with counting():
        yield
    assert patching.count == 0
    assert SGDOptimizer.update_params is AdamOptimizer.update_params is OWN
    assert parallel._FuncWrapper is not patching.PatchedTask  # noqa: SLF001


@pytest.fixture(scope="module")
def digits() -> Any:
    x, y = load_digits(return_X_y=True)
    return x[:500] / 16, y[:500]


def optimizer_of(network: Any) -> Any:
    return network._optimizer  # noqa: SLF001  whose attributes are part of what is the same


def assert_same(one: Any, other: Any) -> None:
    """Two networks have the same bits, also in what their optimizers keep."""
    for name in ATTRIBUTES:
        assert getattr(one, name) == getattr(other, name), name
    arrays = [(one.coefs_ + one.intercepts_, other.coefs_ + other.intercepts_)]
    assert vars(optimizer_of(one)).keys() == vars(optimizer_of(other)).keys()
    for name, value in vars(optimizer_of(one)).items():
        theirs = getattr(optimizer_of(other), name)
        if isinstance(value, list):
            arrays.append((value, theirs))
        else:
            assert value == theirs, name
            assert type(value) is type(theirs), name
    for some, others in arrays:
        assert [a.tobytes() for a in some] == [b.tobytes() for b in others]
        assert [(a.shape, a.dtype) for a in some] == [(b.shape, b.dtype) for b in others]


def both(make: Any, train: Any) -> tuple[Any, Any]:
    """A network that was trained without the patch, and one with it."""
    plain, fused = make(), make()
    train(plain)
    with patch(), counting() as count:
        train(fused)
    assert count.steps > 0
    return plain, fused


# ---- the same networks ----


@for_each_solver
@pytest.mark.parametrize(
    "more",
    [{}, {"early_stopping": True}, {"hidden_layer_sizes": (20, 10, 5), "batch_size": 33}],
    ids=["plain", "early-stopping", "deep"],
)
def test_a_fit_has_the_same_bits(
    options: dict[str, Any], more: dict[str, Any], digits: Any
) -> None:
    def make() -> Any:
        return MLPClassifier(**{"max_iter": 30, "random_state": 0, **options, **more})

    assert_same(*both(make, lambda network: network.fit(*digits)))


@for_each_solver
def test_the_first_steps_may_be_theirs(options: dict[str, Any], digits: Any) -> None:
    def make() -> Any:
        return MLPClassifier(max_iter=5, batch_size=100, random_state=0, **options)

    with counting(patience=5) as count, patch():
        fused = make().fit(*digits)
    assert count.steps == 5 * 5 - 5
    assert_same(make().fit(*digits), fused)


def test_a_large_network_has_no_patience() -> None:
    for size, fused in ((_steps.LARGE - 1, 0), (_steps.LARGE, 1)):
        p = np.zeros(size)
        with counting(patience=5) as count, patch():
            SGDOptimizer([p], 0.5).update_params([p], [np.ones(size)])
        assert count.steps == fused
        assert (p == -0.95).all()  # 0.5, and 0.9 times as much ahead


@pytest.mark.parametrize("loss", ["squared_error", "poisson"])
def test_a_regressor_has_the_same_bits(loss: str) -> None:
    x, y = make_regression(300, 8, n_targets=2, random_state=0)
    options = {} if loss == "squared_error" else {"loss": loss}
    if options and "loss" not in MLPRegressor().get_params():
        pytest.skip("this release has one loss")

    def make() -> Any:
        return MLPRegressor(max_iter=40, random_state=0, activation="tanh", **options)

    assert_same(*both(make, lambda network: network.fit(x, np.abs(y) / 100)))


@for_each_solver
def test_warm_starts_and_partial_fits(options: dict[str, Any], digits: Any) -> None:
    x, y = digits

    def train(network: Any) -> None:
        network.fit(x, y).fit(x, y)
        for k in range(4):
            network.partial_fit(x[k * 100 : k * 100 + 100], y[k * 100 : k * 100 + 100])

    def make() -> Any:
        return MLPClassifier(max_iter=4, warm_start=True, random_state=0, **options)

    assert_same(*both(make, train))


def test_sparse_inputs_and_weights(digits: Any) -> None:
    scipy_sparse = needs("scipy.sparse", "sklearn")
    x, y = digits

    def make() -> Any:
        return MLPClassifier(max_iter=5, random_state=0)

    assert_same(*both(make, lambda network: network.fit(scipy_sparse.csr_matrix(x), y)))


def test_weights_of_samples_in_float64_for_float32(digits: Any) -> None:
    """Then scikit-learn's gradients of the intercepts are float64."""
    if "sample_weight" not in MLPClassifier.fit.__wrapped__.__code__.co_varnames:
        pytest.skip("this release has no sample_weight")
    x, y = digits[0].astype(np.float32), digits[1]
    weights = np.random.default_rng(0).uniform(0.5, 2, len(x))

    def make() -> Any:
        return MLPClassifier(max_iter=8, random_state=0)

    plain, fused = both(make, lambda network: network.fit(x, y, sample_weight=weights))
    assert fused.loss_curve_ == pytest.approx(plain.loss_curve_, rel=1e-5)
    assert {a.dtype for a in fused.coefs_ + fused.intercepts_} == {np.dtype(np.float32)}


@for_each_solver
def test_float32(options: dict[str, Any], digits: Any) -> None:
    """SGD has the same bits where its numbers are Python's; Adam's rate is NumPy's, a float64."""
    x, y = digits[0].astype(np.float32), digits[1]

    def make() -> Any:
        return MLPClassifier(max_iter=10, random_state=0, **options)

    plain, fused = both(make, lambda network: network.fit(x, y))
    assert fused.loss_curve_ == pytest.approx(plain.loss_curve_, rel=1e-5)
    numbers = optimizer_of(plain).learning_rate, options.get("momentum", 0.0)
    if not any(isinstance(number, np.floating) for number in numbers):
        assert_same(plain, fused)


def test_what_is_printed(digits: Any) -> None:
    said = []

    def train(network: Any) -> None:
        with redirect_stdout(io.StringIO()) as out:
            network.fit(*digits)
        said.append(out.getvalue())

    def make() -> Any:
        return MLPClassifier(verbose=True, random_state=0, max_iter=60, **SOLVERS["adaptive"])

    both(make, train)
    assert said[0] == said[1]
    assert "Setting learning rate to" in said[0]


def test_diverging_is_refused_as_before(digits: Any) -> None:
    network = MLPClassifier(solver="sgd", learning_rate_init=1e200, max_iter=3, random_state=0)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", RuntimeWarning)
        for context in (nullcontext, patch):
            with context(), pytest.raises(ValueError, match="non-finite parameter weights"):
                network.fit(*digits)


# ---- what users do to a network between two fits ----


@for_each_solver
@pytest.mark.parametrize("what", ["assigned", "one", "in place", "state", "numbers", "state list"])
def test_changes_between_partial_fits(options: dict[str, Any], what: str, digits: Any) -> None:
    x, y = digits

    def change(network: Any) -> None:
        optimizer = optimizer_of(network)
        names = ("velocities",) if network.solver == "sgd" else ("ms", "vs")
        if what == "assigned":
            network.coefs_ = [0.5 * w for w in network.coefs_]
        elif what == "one":
            network.intercepts_[1] = np.ones_like(network.intercepts_[1])
        elif what == "in place":
            network.coefs_[0][:, 3:] = 0
        elif what == "state":
            for name in names:
                getattr(optimizer, name)[0][...] = 0.25
        elif what == "state list":
            for name in names:
                getattr(optimizer, name)[1] = np.full_like(getattr(optimizer, name)[1], 0.5)
        elif network.solver == "sgd":
            optimizer.momentum, optimizer.nesterov, optimizer.learning_rate = 0.3, False, 0.02
        else:
            optimizer.beta_1, optimizer.epsilon, optimizer.t = 0.4, 0.01, 100

    def train(network: Any) -> None:
        for _ in range(3):
            network.partial_fit(x, y, classes=range(10))
            change(network)
        network.partial_fit(x, y)

    assert_same(*both(lambda: MLPClassifier(random_state=0, **options), train))


@for_each_solver
def test_a_network_goes_on_in_and_out_of_the_patch(options: dict[str, Any], digits: Any) -> None:
    x, y = digits
    plain = MLPClassifier(random_state=0, **options)
    mixed = MLPClassifier(random_state=0, **options)
    for k in range(6):
        plain.partial_fit(x, y, classes=range(10))
        if k % 2:
            mixed.partial_fit(x, y)
        else:
            with patch():
                mixed.partial_fit(x, y, classes=range(10))
    assert_same(plain, mixed)


@for_each_solver
def test_copies_go_their_own_ways(options: dict[str, Any], digits: Any) -> None:
    x, y = digits
    with patch():
        network = MLPClassifier(random_state=0, max_iter=3, **options).fit(x, y)
        copies = [copy.deepcopy(network), pickle.loads(pickle.dumps(network))]
        for each in copies:
            assert_same(network, each)
        network.partial_fit(x, y)
        for each in copies:
            each.partial_fit(x, y)
            assert_same(network, each)
    assert not hasattr(clone(network), "coefs_")


def test_a_pickle_needs_nothing_of_ours(digits: Any) -> None:
    """And is as small as without the patch."""
    plain, fused = both(
        lambda: MLPClassifier(random_state=0, max_iter=3), lambda network: network.fit(*digits)
    )
    pickled = pickle.dumps(fused)
    assert b"fusedstep" not in pickled
    assert len(pickled) == pytest.approx(len(pickle.dumps(plain)), abs=200)


def test_parameters_that_cannot_be_written(digits: Any, tmp_path: Any) -> None:
    """scikit-learn's own message, and nothing is counted."""
    joblib = needs("joblib", "sklearn")
    with patch():
        network = MLPClassifier(random_state=0, max_iter=2).fit(*digits)
        joblib.dump(network, tmp_path / "network")
        mapped = joblib.load(tmp_path / "network", mmap_mode="r")
        t = optimizer_of(mapped).t
        with pytest.raises(ValueError, match="read-only"):
            mapped.partial_fit(*digits)
        assert optimizer_of(mapped).t == t + 1  # theirs counts first


# ---- optimizers by themselves ----


def test_what_is_refused_is_stepped_as_before() -> None:
    shared, p = np.ones(4), np.ones(3)
    cases: list[tuple[Any, list[Any], list[Any]]] = [
        (SGDOptimizer([p], -0.1), [p.copy()], [p]),
        (SGDOptimizer([shared, shared], 0.1), [shared, shared], [p[:1], shared]),
        (SGDOptimizer([p], 0.1), [p.copy()], [np.float64(2.0)]),
        (AdamOptimizer([p], -0.1), [p.copy()], [p]),
        (AdamOptimizer([p], 0.1, epsilon=-1e-9), [p.copy()], [2 * p]),
        (AdamOptimizer([p], 0.1), [p.copy()], [np.float64(2.0)]),
    ]
    for optimizer, params, grads in cases:
        twin = copy.deepcopy(optimizer)
        ours, theirs = copy.deepcopy((params, grads)), copy.deepcopy((params, grads))
        for _ in range(3):
            OWN(twin, *theirs)
            with patch(), counting() as count:
                optimizer.update_params(*ours)
            assert count.steps == 0
        assert [a.tolist() for a in ours[0]] == [a.tolist() for a in theirs[0]]
        assert repr(vars(optimizer)) == repr(vars(twin))


def test_an_optimizer_with_updates_of_its_own_keeps_them() -> None:
    class Sign(SGDOptimizer):  # type: ignore[misc, unused-ignore]
        def _get_updates(self, grads: Any) -> Any:
            return [-self.learning_rate * np.sign(g) for g in grads]

    p = np.zeros(3)
    with patch():
        Sign([p], 0.5).update_params([p], [np.array([3.0, -2.0, 0.0])])
    assert p.tolist() == [-0.5, 0.5, 0.0]


def test_an_optimizer_is_freed() -> None:
    from weakref import ref

    p = np.zeros(3)
    with patch():
        optimizer = AdamOptimizer([p])
        optimizer.update_params([p], [np.ones(3)])
        freed = ref(optimizer)
        del optimizer
    assert freed() is None


# ---- on and off ----


def is_on() -> bool:
    found = {cls.update_params is not OWN for cls in (SGDOptimizer, AdamOptimizer)}
    assert len(found) == 1
    return found.pop()


def test_with_and_undo() -> None:
    with patch() as first:
        assert is_on()
        with patch():
            assert is_on()
        assert is_on()
        with first:
            assert is_on()
        assert is_on()
    assert not is_on()
    second, third = patch(), patch()
    second.undo()
    second.undo()
    assert is_on()
    third.undo()
    assert not is_on()
    with second:
        assert is_on()
    assert not is_on()
    assert repr(second) == "<patch of scikit-learn, off>"


def test_an_exception_takes_it_off() -> None:
    with pytest.raises(KeyError), patch(), patch():
        raise KeyError
    assert not is_on()


def test_decorators() -> None:
    @patch
    def bare(a: int, *, b: int) -> int:
        """Add."""
        assert is_on()
        return a + b

    @patch()
    def called(a: int) -> int:
        assert is_on()
        return 1 if a == 0 else a * called(a - 1)

    @patch
    async def awaited() -> int:
        assert is_on()
        await asyncio.sleep(0)
        assert is_on()
        return 7

    assert not is_on()
    assert bare(1, b=2) == 3
    assert (bare.__name__, bare.__doc__) == ("bare", "Add.")
    assert called(3) == 6
    assert asyncio.run(awaited()) == 7
    assert not is_on()


def test_what_cannot_be_decorated() -> None:
    def generator() -> Iterator[int]:
        yield 1

    wrong: Any
    for wrong in (generator, int, 3):
        with pytest.raises(TypeError, match=r"with fusedstep\.sklearn\.patch"):
            patch(wrong)
        with pytest.raises(TypeError, match=r"with fusedstep\.sklearn\.patch"):
            patch()(wrong)
    assert not is_on()


def test_what_was_there_is_put_back() -> None:
    """Also what somebody else has put over the patch."""

    def own(self: Any, params: Any, grads: Any) -> None: ...

    try:
        SGDOptimizer.update_params = own
        with patch():
            assert SGDOptimizer.update_params is not own
        assert SGDOptimizer.update_params is own
        del SGDOptimizer.update_params
        with patch():
            SGDOptimizer.update_params = own
        assert SGDOptimizer.update_params is own
    finally:
        del SGDOptimizer.update_params


def test_threads() -> None:
    """The first that comes puts it on, the last that goes takes it off."""
    barrier, seen = threading.Barrier(8), []

    def work() -> None:
        barrier.wait()
        for _ in range(200):
            with patch():
                seen.append(is_on())

    threads = [threading.Thread(target=work) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert seen == [True] * 1600
    assert not is_on()


def test_networks_in_threads(digits: Any) -> None:
    expected = MLPClassifier(random_state=0, max_iter=5).fit(*digits)
    found = [MLPClassifier(random_state=0, max_iter=5) for _ in range(4)]

    def work(network: Any) -> None:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", ConvergenceWarning)
            network.fit(*digits)

    with patch():
        threads = [threading.Thread(target=work, args=(network,)) for network in found]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    for network in found:
        assert_same(expected, network)


# ---- workers ----


class Witness(MLPClassifier):  # type: ignore[misc, unused-ignore]
    """A network that tells whether it was fitted under the patch."""

    def fit(self, x: Any, y: Any) -> Any:
        """Fit, and look."""
        super().fit(x, y)
        self.classes_patched_ = is_on()
        return self

    def score(self, x: Any, y: Any) -> float:
        """1 if it was."""
        return float(self.classes_patched_)


@pytest.mark.parametrize("n_jobs", [1, 2])
@pytest.mark.parametrize("on", [False, True])
def test_a_grid_search_hands_it_to_its_workers(n_jobs: int, on: bool, digits: Any) -> None:
    grid = {"alpha": [1e-4, 1e-2], "random_state": [0]}
    search = GridSearchCV(Witness(max_iter=3), grid, cv=2, n_jobs=n_jobs, refit=False)
    if on:
        with patch():
            search.fit(*digits)
    else:
        search.fit(*digits)
    assert search.cv_results_["mean_test_score"].tolist() == [float(on)] * 2


def test_a_grid_search_finds_the_same(digits: Any) -> None:
    def search() -> Any:
        network = MLPClassifier(max_iter=4, random_state=0)
        return GridSearchCV(network, {"solver": ["sgd", "adam"]}, cv=2, n_jobs=2).fit(*digits)

    plain = search()
    with patch():
        fused = search()
    assert np.array_equal(
        fused.cv_results_["mean_test_score"], plain.cv_results_["mean_test_score"]
    )
    assert_same(plain.best_estimator_, fused.best_estimator_)


# ---- scikit-learn's own tests ----


@pytest.mark.skipif(MISSING is not None, reason=f"minutes without C: {MISSING}")
def test_scikit_learns_own_tests_pass_under_the_patch(tmp_path: Any) -> None:
    """All of its neural networks, in a process of its own."""
    options = ["-m", "pytest", "-q", "-p", "sklearn_steps", "-p", "no:cacheprovider"]
    folders = [Path(sklearn_steps.__file__).parent, Path(fs.__file__).parents[1]]
    done = subprocess.run(
        [sys.executable, *options, "--pyargs", "sklearn.neural_network"],
        capture_output=True,
        text=True,
        cwd=tmp_path,
        env={
            **os.environ,
            "OPENBLAS_NUM_THREADS": "1",
            "PYTEST_ADDOPTS": "",
            "PYTHONPATH": os.pathsep.join(map(str, folders)),
        },
    )
    assert done.returncode == 0, done.stdout
    *_, passed = done.stdout.splitlines()
    assert int(passed.split()[0]) >= 80, passed
    (steps,) = (line for line in done.stdout.splitlines() if line.endswith("fused steps"))
    assert int(steps.split()[0]) > 5000, steps


def test_the_package_is_found_from_the_top() -> None:
    assert fs.sklearn.patch is patch
