"""The examples find what they say they find, at reduced size; and each saves its picture."""

from __future__ import annotations

import importlib
import sys
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import adamw
import batches
import bowl
import decay
import landscapes
import ncf
import network
import numpy as np
import pytest
import scales
import sparse
import stalling
import svm
import words
from marks import needs
from parts import data, layers
from parts.methods import METHODS, Array, descend, steps_until
from parts.rows import WAYS, Adam, same

import fusedstep as fs

FOLDER = Path(bowl.__file__).parent


@pytest.fixture(scope="module")
def sklearn() -> Any:
    return needs("sklearn", "demo")


needs_sklearn = pytest.mark.usefixtures("sklearn")


def slope(f: Callable[[], float], x: Array) -> Array:
    """The gradient of f by each element of x, which f reads, by central differences."""
    step, found = 1e-6, np.zeros(x.shape)
    for at in np.ndindex(x.shape):
        before = x[at]
        x[at] = before + step
        above = f()
        x[at] = before - step
        found[at] = (above - f()) / (2 * step)
        x[at] = before
    return found


def height(f: Callable[[Array], Array], p: Array) -> float:
    return float(f(p))


# A difference of values of size 1 rounds to some 1e-16, over 2e-6 to 1e-10; sums and
# curvature leave less than 1e-7.
SLOPE = 1e-7


class TestBowl:
    @pytest.mark.parametrize("steepest", [0.3, 0.5, 1.5, 2.0, 2.1])
    def test_descent_is_its_closed_form(self, steepest: float) -> None:
        """Each of 40 steps rounds a few times, relative to the size of p."""
        seen, said = bowl.components(steepest / bowl.EIGENVALUES[1], 40)
        largest = np.abs(said).max()
        assert np.abs(seen - said).max() < 40 * 8 * np.finfo(float).eps * largest

    @pytest.mark.parametrize(
        ("product", "found"),
        [
            (0.5, "keeps its sign, shrinks"),
            (1.0, "gone at once"),
            (1.5, "alternates, shrinks"),
            (2.0, "alternates, keeps its size"),
            (2.1, "alternates, grows"),
        ],
    )
    def test_regimes(self, product: float, found: str) -> None:
        seen, _ = bowl.components(product / bowl.EIGENVALUES[1], 30)
        assert bowl.regime(seen[:, 1]) == found
        assert bowl.regime(seen[:, 0]) == "keeps its sign, shrinks"

    def test_ratios(self) -> None:
        seen, _ = bowl.components(0.2, 8)
        assert seen[1:] / seen[:-1] == pytest.approx(
            np.tile(1 - 0.2 * bowl.EIGENVALUES, (8, 1)), rel=1e-9
        )

    def test_the_points_ahead_are_what_nesterov_true_steps(self) -> None:
        _, ahead = bowl.looking_ahead(60)
        assert ahead == pytest.approx(bowl.paths(60)["Nesterov"][:-1], rel=0, abs=1e-13)

    def test_newton_is_done_in_one_step(self) -> None:
        paths = bowl.paths(60)
        assert np.abs(paths["Newton"][1]).max() < 1e-14
        for name, path in paths.items():
            assert bowl.height(path)[-1] < 0.01 * bowl.height(path)[0], name


class TestLandscapes:
    @pytest.mark.parametrize("name", landscapes.LANDSCAPES)
    def test_gradients(self, name: str) -> None:
        f, gradient, *_ = landscapes.LANDSCAPES[name]
        for start in np.random.default_rng(0).standard_normal((5, 2)):
            p = start.copy()
            assert gradient(start) == pytest.approx(slope(partial(height, f, p), p), abs=1e-6)

    def test_one_rate_for_sgd_does_not_leave_the_plateau(self) -> None:
        landscape = landscapes.LANDSCAPES["plateau"]
        paths = landscapes.paths(landscape, 1000)
        left = {name: landscapes.progress(landscape, path)[-1] for name, path in paths.items()}
        assert min(left[name] for name in ("SGD", "momentum", "Nesterov")) > 0.9
        assert max(left[name] for name in ("AdaGrad", "RMSprop", "Adam")) < 0.01

    def test_the_saddle_holds_sgd_longest(self) -> None:
        landscape = landscapes.LANDSCAPES["saddle"]
        paths = landscapes.paths(landscape, 2000)
        steps = {
            name: steps_until(landscapes.progress(landscape, path), 0.01)
            for name, path in paths.items()
        }
        sgd = steps.pop("SGD")
        assert sgd is not None
        assert all(t is not None and 4 * t < sgd for t in steps.values())

    def test_momentum_is_fastest_along_the_valley(self) -> None:
        landscape = landscapes.LANDSCAPES["valley"]
        paths = landscapes.paths(landscape, 600)
        steps = {
            name: steps_until(landscapes.progress(landscape, path), 0.01)
            for name, path in paths.items()
        }
        assert all(t is not None for t in steps.values())
        assert sorted(steps, key=lambda name: steps[name] or 0)[:2] == ["Nesterov", "momentum"]


@needs_sklearn
class TestBatches:
    def test_gradient(self) -> None:
        x, y = batches.examples(0)
        p = 0.1 * np.random.default_rng(0).standard_normal(x.shape[1])
        g = batches.gradients(p, x, y).mean(axis=0) + batches.DECAY * p
        assert g == pytest.approx(slope(lambda: batches.objective(p, x, y), p), abs=SLOPE)

    def test_minimum(self) -> None:
        x, y = batches.examples(0)
        p = batches.minimum(x, y)
        g = batches.gradients(p, x, y).mean(axis=0) + batches.DECAY * p
        assert np.abs(g).max() < 1e-14

    @pytest.mark.parametrize("size", [1, 8, 64, 512])
    def test_an_epoch_of_equal_batches_is_unbiased(self, size: int) -> None:
        x, y = batches.examples(0)
        g = batches.gradients(np.zeros(x.shape[1]), x, y)
        assert batches.bias(g, size, np.random.default_rng(size)) < 1e-13

    @pytest.mark.parametrize("size", [1, 4, 32, 256])
    def test_variance(self, size: int) -> None:
        """Normal numbers' sample variance is off by √(2/600) = 6 % (one standard error); these
        have heavier tails, and 31 coordinates to even that out.
        """
        x, y = batches.examples(0)
        g = batches.gradients(np.zeros(x.shape[1]), x, y)
        seen, predicted = batches.variances(g, size, 600, np.random.default_rng(1))
        assert seen == pytest.approx(predicted, rel=0.2)

    def test_all_examples_at_once_have_no_variance(self) -> None:
        x, y = batches.examples(0)
        g = batches.gradients(np.zeros(x.shape[1]), x, y)
        seen, predicted = batches.variances(g, len(g), 10, np.random.default_rng(1))
        assert seen < 1e-24
        assert predicted == 0

    def test_small_batches_are_ahead_after_an_epoch(self) -> None:
        x, y = batches.examples(0)
        all_of_them, some, one = (
            batches.train(x, y, size, lr, 1, 0).objective[-1] for size, lr in batches.RATES.items()
        )
        assert one < some < all_of_them

    def test_a_falling_rate_is_the_cure(self) -> None:
        least, found = stalling.runs(0, 20)
        left = {name: float(run.objective[-1] - least) for name, run in found.items()}
        for cure in ("piecewise", "exponential"):
            for ill in ("constant 0.5", "constant 0.005", "too soon"):
                assert 5 * left[cure] < left[ill]
        stalled = found["constant 0.5"].objective[5:] - least
        assert stalled.min() > 5 * left["piecewise"]

    def test_so_is_an_average_once_it_has_forgotten_the_start(self) -> None:
        least, found = stalling.runs(0, 20)
        plain, averaged = (
            found[name].objective - least for name in ("constant 0.5", "0.5, averaged")
        )
        assert averaged[1] > 5 * plain[1]
        assert 5 * averaged[10:].max() < plain[10:].mean()


@needs_sklearn
class TestScales:
    def test_hessian(self) -> None:
        """Against differences of gradients at p = 0: each eigenvalue twice, and 14 times 0."""
        split = data.standardised(data.read("wine", 142, 0))
        layer = scales.softmax_regression()
        net, step = layers.Network([layer]), 1e-5
        rows = []
        for p in layer.params.values():
            for at in np.ndindex(p.shape):
                either = []
                for p[at] in (step, -step):
                    net.gradients(split.x, split.y)
                    either.append(np.concatenate([g.ravel() for g in layer.grads.values()]))
                p[at] = 0
                rows.append((either[0] - either[1]) / (2 * step))
        found = np.linalg.eigvalsh(np.array(rows))[::-1]
        expected = [*np.repeat(scales.eigenvalues(split.x), 2), *np.zeros(14)]
        assert found == pytest.approx(expected, abs=1e-8)

    def test_the_inputs_need_adaptive_rates_or_scaling(self) -> None:
        runs = {run.name: run for run in scales.shallow(0, 20)}
        raw, scaled = runs["raw, SGD"], runs["standardised, SGD"]
        assert raw.condition > 1e8
        assert scaled.condition < 100
        assert runs["batch norm, SGD"].condition == pytest.approx(scaled.condition, rel=1e-3)
        assert raw.losses[-1] > 0.5 * raw.losses[0]
        for method in ("AdaGrad", "RMSprop", "Adam"):
            assert min(runs[f"raw, {method}"].losses) < 0.5 * raw.losses[0]
        for cure in ("standardised, SGD", "batch norm, SGD"):
            assert runs[cure].losses[-1] < 0.05 * raw.losses[0]
            assert runs[cure].accuracy > 0.85

    def test_batch_normalisation_makes_up_for_small_weights(self) -> None:
        runs = {run.name: run for run in scales.deep(0, 8)}
        usual, small = runs["He's weights, batch norm"], runs["a quarter of them, batch norm"]
        assert 100 * usual.condition < runs["He's weights"].condition
        assert small.condition == pytest.approx(usual.condition, rel=0.05)
        assert small.losses[0] == pytest.approx(usual.losses[0], rel=0.01)
        assert runs["a quarter of them"].losses[-1] > 0.5 * runs["a quarter of them"].losses[0]
        assert small.losses[-1] < 0.05 * small.losses[0]


class TestDecay:
    def test_descent_finds_the_ridge(self) -> None:
        """Descent from zero ends at the solution of the normal equations; c has no decay."""
        split = decay.problem(np.full(decay.D, 0.01), 20, 0)
        (fit,) = decay.fits(split, np.zeros(decay.D), [10.0], 0.015, 3000, "weight_decay")
        x = data.with_one(split.x)
        decays = np.diag([*np.full(decay.D, 10.0), 0.0])
        solved = np.linalg.solve(x.T @ x / len(x) + decays, x.T @ split.y / len(x))
        assert fit.w == pytest.approx(solved[:-1], abs=1e-9)

    @pytest.mark.parametrize("start", ["random", "zero"])
    def test_the_best_decay_is_in_between(self, start: str) -> None:
        row = decay.decayed(0, 400)[start]
        test = [fit.test for fit in row]
        best = int(np.argmin(test))
        assert 0 < best < len(row) - 1
        assert test[best] < min(test[0], test[-1])
        assert all(np.diff([fit.training for fit in row][1:]) > 0)
        assert all(np.diff([np.linalg.norm(fit.w) for fit in row]) < 0)

    def test_descent_from_zero_has_little_to_forget(self) -> None:
        found = decay.decayed(0, 400)
        without = {start: row[0].test for start, row in found.items()}
        assert without["random"] > 10 * without["zero"]
        assert without["zero"] < 1.2 * min(fit.test for fit in found["zero"])

    def test_l1_finds_the_weights_that_matter(self) -> None:
        split = decay.problem(sparse.TRUTH, 60, 0)
        found = sparse.both(split, 2500)
        l1, l2 = found["L1"][1], found["L2"]
        assert sparse.above(l1, sparse.L1S[1]) == 5
        assert (np.sign(l1.w[:5]) == np.sign(sparse.TRUTH[:5])).all()
        assert all(10 * l1.test < fit.test for fit in l2)
        assert all(sparse.above(fit, sparse.L1S[1]) > 150 for fit in l2)

    def test_l1_goes_to_and_fro_across_zero(self) -> None:
        split = decay.problem(sparse.TRUTH, 60, 0)
        path = sparse.last_steps(split, 2500, [10, 50, 100])
        assert ((path > 0).any(axis=0) & (path < 0).any(axis=0)).all()
        assert np.abs(path).max() <= sparse.threshold(sparse.L1S[1])
        assert not (path == 0).all(axis=0).any()


class TestAdamW:
    def test_l2_inside_adam_decays_by_the_size_of_the_gradients(self) -> None:
        steps = 600
        coupled = adamw.effective_decay(fs.Adam, steps, 0)
        decoupled = adamw.effective_decay(fs.AdamW, steps, 0)
        exact = -np.log(1 - adamw.LR * adamw.DECAY) / adamw.LR
        assert decoupled == pytest.approx(np.full(len(adamw.SIGMAS), exact), rel=1e-9)
        assert coupled == pytest.approx(adamw.DECAY / adamw.SIGMAS, rel=0.3)

    def test_only_the_papers_form_leaves_the_rate_out(self) -> None:
        needed = {
            name: adamw.enough(adamw.sweep(method, adamw.DECAYS[name], 500, 0), adamw.DECAYS[name])
            for name, method in adamw.METHODS.items()
        }
        assert len({*needed["AdamW, η·λ"]}) == 1
        assert needed["AdamW, α·λ"][0] > 5 * needed["AdamW, α·λ"][-1]
        assert needed["Adam, L2"][0] > 5 * needed["Adam, L2"][-2]


@needs_sklearn
class TestSVM:
    def test_hinge(self) -> None:
        """The formula, example for example and class for class, gives the same loss."""
        rng = np.random.default_rng(0)
        scores, y = rng.standard_normal((6, 4)), rng.integers(4, size=6)
        by_hand = sum(
            max(0.0, 1 + s[k] - s[label])
            for s, label in zip(scores, y, strict=True)
            for k in range(4)
            if k != label
        )
        assert svm.hinge(scores, y)[0] == pytest.approx(by_hand / 6)

    def test_gradients(self) -> None:
        rng = np.random.default_rng(0)
        x, y = rng.standard_normal((6, 5)), rng.integers(svm.CLASSES, size=6)
        w, b = rng.standard_normal((5, svm.CLASSES)), rng.standard_normal(svm.CLASSES)
        _, dw, db = svm.gradients(w, b, x, y)
        for p, g in [(w, dw), (b, db)]:
            assert g == pytest.approx(slope(lambda: svm.gradients(w, b, x, y)[0], p), abs=SLOPE)

    def test_it_learns(self) -> None:
        _, seen = svm.train(svm.digits(0), svm.RATES["falling rate"], 5, 0)
        assert seen[0].objective == pytest.approx(9)  # all scores are 0: nine times the margin
        assert seen[-1].objective < 0.05 * seen[0].objective
        assert seen[-1].training > 0.93
        assert seen[-1].test > 0.93
        assert seen[-1].support < 0.25


def fixed_dropout() -> layers.Dropout:
    """One that drops the same numbers at every call, so that differences mean something."""

    class Fixed(layers.Dropout):
        def forward(self, x: Array, training: bool) -> Array:
            self.rng = np.random.default_rng(0)
            return super().forward(x, training)

    return Fixed(0.3, np.random.default_rng(0))


class TestNetwork:
    @pytest.mark.parametrize("kind", ["plain", "batch norm", "dropout", "all"])
    def test_gradients(self, kind: str) -> None:
        rng = np.random.default_rng(3)
        hidden: list[layers.Layer] = [layers.Dense(5, 6, rng, float)]
        hidden += [layers.BatchNorm(6, float)] if kind in ("batch norm", "all") else []
        hidden += [layers.ReLU()]
        hidden += [fixed_dropout()] if kind in ("dropout", "all") else []
        net = layers.Network([*hidden, layers.Dense(6, 4, rng, float)])
        x, y = rng.standard_normal((7, 5)), rng.integers(4, size=7)
        _, grads = net.gradients(x, y)
        for params, own in zip(net.params, grads, strict=True):
            assert params.keys() == own.keys()
            for key, p in params.items():
                assert own[key] == pytest.approx(
                    slope(lambda: net.gradients(x, y)[0], p), abs=SLOPE
                ), key

    def test_the_gradient_by_the_inputs(self) -> None:
        rng = np.random.default_rng(3)
        layer = layers.BatchNorm(3, float)
        layer.params["gamma"][...] = [0.5, 1, 2]
        x, dy = rng.standard_normal((6, 3)), rng.standard_normal((6, 3))
        layer.forward(x, training=True)
        assert layer.backward(dy) == pytest.approx(
            slope(lambda: float((layer.forward(x, training=True) * dy).sum()), x), abs=SLOPE
        )

    def test_batch_normalisation_in_use_has_the_means_of_training(self) -> None:
        layer, rng = layers.BatchNorm(2, float), np.random.default_rng(0)
        for _ in range(200):
            layer.forward(3 + 2 * rng.standard_normal((500, 2)), training=True)
        y = layer.forward(np.array([[3.0, 5.0]]), training=False)
        assert y == pytest.approx(np.array([[0.0, 1.0]]), abs=0.1)

    def test_dropout_keeps_the_mean(self) -> None:
        layer = layers.Dropout(0.25, np.random.default_rng(0))
        y = layer.forward(np.ones((1000, 100)), training=True)
        assert {*np.unique(y)} == {0.0, 1 / 0.75}
        assert y.mean() == pytest.approx(1, abs=0.01)  # its standard error is 0.002
        assert layer.forward(y, training=False) is y

    @needs_sklearn
    @pytest.mark.parametrize("method", network.RATES)
    def test_every_optimizer_learns(self, method: str) -> None:
        net = network.perceptron(True, 0.2, 0)
        run = network.train(net, network.digits(0), method, 5, 0)
        assert run.training > 0.93
        assert run.test > 0.93
        assert run.losses[-1] < 0.5 * run.losses[0]
        assert all(p.dtype == np.float32 for params in net.params for p in params.values())

    @needs_sklearn
    def test_dropout_and_its_lack(self) -> None:
        losses = {
            kind: network.train(
                network.perceptron(*kind, seed=0), network.digits(0), "Adam", 4, 0
            ).losses[-1]
            for kind in [(True, 0.2), (True, 0.0), (False, 0.2)]
        }
        assert losses[True, 0.0] < losses[True, 0.2] < losses[False, 0.2]


def added(g: fs.Rows, p: Array) -> Array:
    """The gradient of all of p, of which rows are given."""
    made = np.zeros_like(p)
    np.add.at(made, g.index, g.values)
    return made


class TestRows:
    @pytest.mark.parametrize("way", WAYS)
    def test_bytes(self, way: str) -> None:
        """Rows of 8 bytes: 7 for each step of a row, 8 with a whole gradient that is cleared."""
        p = np.ones((10, 2), np.float32)
        opt = Adam(way, {"p": p}, 0.1)
        opt.step({"p": fs.Rows(np.array([3, 4]), p[:2].copy())})
        assert opt.bytes == 8 * (8 * 10 if way == "dense" else 7 * 2)
        before = opt.bytes
        opt.step({"p": fs.Rows(np.array([4, 4]), p[:2].copy())})
        assert opt.bytes - before == 8 * (8 * 10 if way == "dense" else 6 + 2)
        before = opt.bytes
        opt.catch_up({"p": np.array([3, 4])})
        opt.catch_up()
        # Row 3 has missed a step; of the eight that were never touched, each has missed two.
        assert opt.bytes - before == (8 * 6 * 9 if way == "exact" else 0)


@pytest.fixture(scope="module")
def vectors(sklearn: Any) -> dict[tuple[str, float], words.Run]:
    return words.runs(600, 0)


class TestWords:
    def test_gradients(self) -> None:
        rng = np.random.default_rng(0)
        u, v = rng.standard_normal((5, 3)), rng.standard_normal((5, 3))
        batch = rng.integers(5, size=4), rng.integers(5, size=(4, 6))
        grads = words.gradients(u, v, batch)
        for p, g in [(u, grads["u"]), (v, grads["v"])]:
            expected = slope(lambda: words.forward(u, v, batch)[0], p)
            assert added(g, p) == pytest.approx(expected, abs=SLOPE)

    def test_it_says_how_to_install_what_it_needs(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setitem(sys.modules, "sklearn", None)
        with pytest.raises(ModuleNotFoundError, match=r"scikit-learn: `pip install '\.\[demo\]'`"):
            words.texts.__wrapped__()

    @needs_sklearn
    def test_pairs(self) -> None:
        given = words.pairs(0)
        assert len(given.words) > 3000
        assert len(given.train) > 5 * len(given.held_out) > 100_000
        batch = next(words.batches(given.train, given.odds, 32, 1, np.random.default_rng(0)))
        assert len(np.unique(batch[1])) < batch[1].size == 32 * 6

    def test_exact_ends_with_the_bits_of_dense(
        self, vectors: dict[tuple[str, float], words.Run]
    ) -> None:
        dense, exact = vectors["dense", words.LR], vectors["exact", words.LR]
        assert same(dense.params, exact.params)
        assert dense.losses == exact.losses
        assert 20 * exact.bytes < dense.bytes

    def test_frozen_rows_learn_more_slowly(
        self, vectors: dict[tuple[str, float], words.Run]
    ) -> None:
        left = {key: run.losses[-1] for key, run in vectors.items()}
        same_lr = [left[way, words.LR] for way in ("dense", "shared t", "own t")]
        assert same_lr == sorted(same_lr)
        for way, lr in words.FROZEN_LR.items():
            assert left[way, lr] < left[way, words.LR] - 0.05
            assert 40 * vectors[way, lr].bytes < vectors["dense", words.LR].bytes


class TestNCF:
    def test_gradients(self) -> None:
        rng = np.random.default_rng(0)
        params: dict[str, Array] = {
            name: rng.standard_normal((5, 3)) for name in ("users", "items")
        }
        params["w"] = rng.standard_normal(3)
        users, items = rng.integers(5, size=(2, 8))
        clicked = rng.integers(2, size=8).astype(float)

        def loss() -> float:
            s = ncf.scores(params, users, items)
            return float((np.logaddexp(0, s) - clicked * s).mean())

        for name, g in ncf.gradients(params, users, items, clicked).items():
            p = params[name]
            given = added(g, p) if isinstance(g, fs.Rows) else g
            assert given == pytest.approx(slope(loss, p), abs=SLOPE), name

    def test_hits(self) -> None:
        tenth = np.array([[5.0, *range(6, 15), *[0.0] * 90]])
        assert ncf.hits(tenth) == 1
        tenth[0, -1] = 5
        assert ncf.hits(tenth) == 0

    def test_clicks(self) -> None:
        given = ncf.clicks(0)
        seen = {(int(user), int(item)) for user, item in given.seen}
        assert len(seen) == len(given.seen)
        for user, items in enumerate(given.held_out):
            assert len({*items}) == 1 + ncf.CANDIDATES
            assert not any((user, int(item)) in seen for item in items)

    @pytest.mark.parametrize("setting", ncf.SETTINGS, ids=str)
    def test_exact_ends_with_the_bits_of_dense(self, setting: ncf.Setting) -> None:
        dense, exact = (ncf.train(way, setting, 1, 0) for way in ("dense", "exact"))
        assert same(dense.params, exact.params)
        assert dense.hits == exact.hits

    def test_frozen_rows_are_late_with_a_small_rate(self) -> None:
        dense, own, shared = self.hits_after(3, ncf.SETTINGS[0])
        assert dense[2] > shared[2] + 0.03 > own[2] + 0.2
        assert own[3] > own[0] + 0.03

    def test_with_a_larger_one_they_are_not(self) -> None:
        dense, own, shared = self.hits_after(4, ncf.SETTINGS[1])
        best = ncf.popular(ncf.clicks(0))
        assert min(dense[4], own[4], shared[4]) > best + 0.03
        assert max(own[4], shared[4]) > dense[4] - 0.03

    def test_where_v_decays_dense_is_ahead(self) -> None:
        dense, own, shared = self.hits_after(7, ncf.SETTINGS[2])
        assert max(dense) > max(*own, *shared) + 0.02

    def hits_after(self, epochs: int, setting: ncf.Setting) -> list[list[float]]:
        return [ncf.train(way, setting, epochs, 0).hits for way in ("dense", "own t", "shared t")]


@needs_sklearn
class TestParts:
    def test_standardised(self) -> None:
        split = data.standardised(data.read("wine", 142, 0))
        assert np.abs(split.x.mean(axis=0)).max() < 1e-12
        assert split.x.std(axis=0) == pytest.approx(np.ones(13))
        assert len(split.test_x) == 36

    def test_batches_are_an_epoch(self) -> None:
        parts = [*data.batches(10, 4, np.random.default_rng(0))]
        assert [len(part) for part in parts] == [4, 4, 2]
        assert sorted(np.concatenate(parts)) == [*range(10)]

    def test_steps_until(self) -> None:
        assert steps_until(np.array([5.0, 1, 3, 1, 1]), 2) == 3
        assert steps_until(np.array([5.0, 1, 3]), 2) is None
        assert steps_until(np.array([5.0, np.nan]), 2) is None

    def test_descend_keeps_the_start(self) -> None:
        start = np.ones(2)
        path = descend(METHODS["SGD"], 0.5, start, lambda p: 1 * p, 2)
        assert path.tolist() == [[1, 1], [0.5, 0.5], [0.25, 0.25]]
        assert start.tolist() == [1, 1]


@needs_sklearn
@pytest.mark.parametrize(
    ("name", "size"),
    [
        ("bowl", ["--steps", "10"]),
        ("landscapes", ["--steps", "30"]),
        ("batches", ["--epochs", "2", "--draws", "20"]),
        ("stalling", ["--epochs", "2"]),
        ("scales", ["--epochs", "2"]),
        ("decay", ["--steps", "20"]),
        ("sparse", ["--steps", "50"]),
        ("adamw", ["--steps", "20"]),
        ("svm", ["--epochs", "2"]),
        ("network", ["--epochs", "1"]),
        ("words", ["--steps", "24"]),
        ("ncf", ["--epochs", "1"]),
    ],
)
def test_it_runs_and_saves_a_picture(
    name: str, size: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    needs("matplotlib", "demo")
    picture = tmp_path / "picture.png"
    importlib.import_module(name).main(["--picture", str(picture), "--seed", "1", *size])
    assert picture.read_bytes().startswith(b"\x89PNG\r\n\x1a\n")
    assert 5_000 < picture.stat().st_size < 200_000
    assert str(picture) in capsys.readouterr().out


def test_every_script_is_tested() -> None:
    for script in FOLDER.glob("*.py"):
        assert script.stem in sys.modules
