"""The presets, against the frameworks themselves and against the lectures' formulas.

`pip install '.[torch,others]'` brings the frameworks; what is not there is skipped.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack
from importlib import import_module
from math import cos, pi
from typing import Any, NamedTuple, TypeAlias

import numpy as np
import pytest
from oracle import Array, Trajectory, append, wide
from test_trajectories import STEPS, TOLERANCE, assert_agree, problem

import fusedstep as fs

Options: TypeAlias = dict[str, Any]

FRAMEWORKS = ("torch", "keras", "optax", "lecture")
NAMES = ("SGD", "Adagrad", "RMSprop", "Adam", "AdamW")

SEMANTICS = {
    *("lr_in_momentum", "eps_inside_sqrt", "eps_uncorrected"),
    *("bias_correction", "decay_scale"),
}
"""The keyword-only arguments in which frameworks differ."""


def preset(framework: str, name: str) -> Options:
    return dict(getattr(getattr(fs.presets, framework), name))


@pytest.mark.parametrize("framework", FRAMEWORKS)
@pytest.mark.parametrize("name", NAMES)
def test_a_preset_names_all_that_frameworks_differ_in(framework: str, name: str) -> None:
    arguments = [*inspect.signature(getattr(fs, name)).parameters.values()][1:]
    expected = {
        argument.name
        for argument in arguments
        if argument.kind is inspect.Parameter.POSITIONAL_OR_KEYWORD or argument.name in SEMANTICS
    }
    if framework == "optax":
        expected.remove("lr")
    arguments_of = preset(framework, name)
    assert arguments_of.keys() == expected
    group = getattr(fs, name)(np.ones(2), **arguments_of).param_groups[0]
    assert arguments_of.items() <= dict(group).items()


def test_a_preset_is_read_only() -> None:
    with pytest.raises(TypeError):
        fs.presets.keras.SGD["lr"] = 1.0  # type: ignore[index]
    assert {**fs.presets.keras.SGD, "lr": 1.0}["lr"] == 1.0
    assert fs.presets.keras.SGD["lr"] == 0.01


# ---- the frameworks ----

THEIRS: dict[str, dict[str, str]] = {
    "torch": {},
    "keras": {"lr": "learning_rate", "alpha": "rho", "eps": "epsilon"},
    "optax": {"lr": "learning_rate", "alpha": "decay", "eps_inside_sqrt": "eps_in_sqrt"},
}
"""What they call our arguments, where they call them otherwise."""

BETAS = {"keras": ("beta_1", "beta_2"), "optax": ("b1", "b2")}


def translated(framework: str, options: Options) -> Options:
    theirs: Options = {THEIRS[framework].get(name, name): v for name, v in options.items()}
    if framework in BETAS and "betas" in theirs:
        theirs.update(zip(BETAS[framework], theirs.pop("betas"), strict=True))
    return theirs


class Torch:
    """Its plain loop over tensors, as everywhere where no GPU is."""

    def __init__(self) -> None:
        self.torch: Any = import_module("torch")

    def optimizer(self, name: str) -> Any:
        return getattr(self.torch.optim, name)

    def walk(
        self, name: str, options: Options, start: Array, gradients: Any, etas: Any
    ) -> Iterator[Array]:
        p = self.torch.nn.Parameter(self.torch.from_numpy(start.copy()))
        opt = self.optimizer(name)([p], **options)
        alpha = opt.param_groups[0]["lr"]
        for g, eta in zip(gradients, etas, strict=True):
            opt.param_groups[0]["lr"] = alpha * eta
            p.grad = self.torch.from_numpy(g.copy())
            opt.step()
            yield p.detach().numpy().copy()


class Keras:
    """Over JAX, and in float64 down to the learning rate."""

    def __init__(self) -> None:
        self.keras: Any = import_module("keras")
        self.keras.config.set_floatx("float64")

    def optimizer(self, name: str) -> Any:
        return getattr(self.keras.optimizers, name)

    def walk(
        self, name: str, options: Options, start: Array, gradients: Any, etas: Any
    ) -> Iterator[Array]:
        p = self.keras.Variable(start)
        opt = self.optimizer(name)(**options)
        alpha = float(opt.learning_rate)
        for g, eta in zip(gradients, etas, strict=True):
            opt.learning_rate = alpha * eta
            opt.apply([self.keras.ops.convert_to_tensor(g)], [p])
            yield np.array(p.value)


class Optax:
    def __init__(self) -> None:
        self.optax: Any = import_module("optax")
        self.jax: Any = import_module("jax")

    def optimizer(self, name: str) -> Any:
        return getattr(self.optax, name.lower())

    def walk(
        self, name: str, options: Options, start: Array, gradients: Any, etas: Any
    ) -> Iterator[Array]:
        alpha = options.pop("learning_rate")
        rates = self.jax.numpy.array([alpha * eta for eta in etas])
        opt = self.optimizer(name)(lambda count: rates[count], **options)
        p = self.jax.numpy.array(start)
        state, update = opt.init(p), self.jax.jit(opt.update)
        for g in gradients:
            change, state = update(self.jax.numpy.array(g), state, p)
            p = self.optax.apply_updates(p, change)
            yield np.array(p)


FRAMEWORK = {"torch": Torch, "keras": Keras, "optax": Optax}


@pytest.fixture(params=FRAMEWORK)
def framework(request: pytest.FixtureRequest, tmp_path: Any) -> Iterator[tuple[str, Any]]:
    """A framework by name, if it is installed, computing in float64."""
    name = request.param
    needed = {"torch": ["torch"], "keras": ["keras", "jax"], "optax": ["optax", "jax"]}[name]
    with ExitStack() as stack:
        patch = stack.enter_context(pytest.MonkeyPatch.context())
        patch.setenv("KERAS_BACKEND", "jax")
        patch.setenv("KERAS_HOME", str(tmp_path))
        for package in needed:
            module = pytest.importorskip(package, reason=f"{package} is not installed")
        if needed[-1] == "jax":
            stack.enter_context(module.enable_x64(True))
        yield name, FRAMEWORK[name]()


LEAST = {"SGD": 2, "Adagrad": 2, "RMSprop": 5, "Adam": 3, "AdamW": 4}
"""So many of our arguments at least each framework has a default for."""


@pytest.mark.parametrize("name", NAMES)
def test_constants_are_those_of_the_framework(name: str, framework: tuple[str, Any]) -> None:
    called, installed = framework
    stated = inspect.signature(installed.optimizer(name)).parameters
    ours = translated(called, preset(called, name))
    shared = {key: value for key, value in ours.items() if key in stated}
    assert len(shared) >= LEAST[name]
    assert shared == {key: stated[key].default or 0.0 for key in shared}
    if called == "optax":
        assert stated["learning_rate"].default is inspect.Parameter.empty


class Variation(NamedTuple):
    name: str
    options: Options

    def __str__(self) -> str:
        return "-".join([self.name, *self.options])


VARIATIONS = [
    Variation("SGD", {}),
    Variation("SGD", {"momentum": 0.9}),
    Variation("SGD", {"momentum": 0.9, "nesterov": True}),
    Variation("Adagrad", {}),
    Variation("Adagrad", {"initial_accumulator_value": 0.5, "eps": 1e-3}),
    Variation("RMSprop", {}),
    Variation("RMSprop", {"momentum": 0.9}),
    Variation("RMSprop", {"centered": True}),
    Variation("RMSprop", {"centered": True, "momentum": 0.9, "eps": 1e-3}),
    Variation("Adam", {}),
    Variation("Adam", {"betas": (0.8, 0.9), "eps": 1e-3}),
    Variation("Adam", {"amsgrad": True, "betas": (0.8, 0.9)}),
    Variation("AdamW", {}),
    Variation("AdamW", {"weight_decay": 0.1, "eps": 1e-3}),
    Variation("AdamW", {"amsgrad": True, "betas": (0.8, 0.9)}),
]

SCHEDULES = {
    "constant": [1.0] * STEPS,
    "warm-up and cosine": [
        min(t / 10, 1) * (1 + cos(pi * t / STEPS)) / 2 for t in range(1, STEPS + 1)
    ],
}

for_each_schedule = pytest.mark.parametrize("etas", SCHEDULES.values(), ids=[*SCHEDULES])


def walk(
    name: str, options: Options, start: Array, gradients: Sequence[Array], etas: Sequence[float]
) -> Trajectory:
    p = start.copy()
    opt = getattr(fs, name)(p, **options)
    alpha = opt.lr
    trajectory: Trajectory = {}
    for g, eta in zip(gradients, etas, strict=True):
        opt.lr = alpha * eta
        opt.step(g)
        append(trajectory, p=p.copy())
    return trajectory


@for_each_schedule
@pytest.mark.parametrize("variation", VARIATIONS, ids=str)
def test_a_preset_steps_as_the_framework(
    variation: Variation, etas: Sequence[float], framework: tuple[str, Any]
) -> None:
    (name, options), (called, installed) = variation, framework
    if called == "optax":
        if "amsgrad" in options:
            pytest.skip("optax's amsgrad is another rule, see presets.py")
        options = {"lr": 0.01, **options}
    start, gradients = problem(np.float64)
    actual = walk(name, {**preset(called, name), **options}, start, gradients, etas)
    theirs = installed.walk(name, translated(called, options), start, gradients, etas)
    assert_agree(actual, {"p": list(theirs)}, start, TOLERANCE)


# ---- the formulas of lectures ----


def lecture_sgd(p: Array, gradients: Any, etas: Any) -> Iterator[Array]:
    alpha, mu = wide(0.01, 0.9)
    b = 0 * p
    for g, eta in zip(gradients, etas, strict=True):
        b = mu * b + g
        yield (p := p - eta * alpha * b)


def lecture_adagrad(p: Array, gradients: Any, etas: Any) -> Iterator[Array]:
    alpha, epsilon = wide(0.01, 1e-8)
    s = 0 * p
    for g, eta in zip(gradients, etas, strict=True):
        s = s + g**2
        yield (p := p - eta * alpha * g / np.sqrt(s + epsilon))


def lecture_rmsprop(p: Array, gradients: Any, etas: Any) -> Iterator[Array]:
    alpha, rho, epsilon = wide(0.001, 0.9, 1e-8)
    v = 0 * p
    for g, eta in zip(gradients, etas, strict=True):
        v = rho * v + (1 - rho) * g**2
        yield (p := p - eta * alpha * g / np.sqrt(v + epsilon))


def lecture_adam(p: Array, gradients: Any, etas: Any, decay: float = 0.0) -> Iterator[Array]:
    alpha, beta1, beta2, epsilon, strength = wide(0.001, 0.9, 0.999, 1e-8, decay)
    m = v = 0 * p
    for g, eta in zip(gradients, etas, strict=True):
        m = beta1 * m + (1 - beta1) * g
        v = beta2 * v + (1 - beta2) * g**2
        yield (p := p - eta * (alpha * m / np.sqrt(v + epsilon) + strength * p))


def lecture_adamw(p: Array, gradients: Any, etas: Any) -> Iterator[Array]:
    return lecture_adam(p, gradients, etas, decay=0.02)


LECTURES: dict[str, tuple[Callable[..., Iterator[Array]], Options]] = {
    "SGD": (lecture_sgd, {}),
    "Adagrad": (lecture_adagrad, {}),
    "RMSprop": (lecture_rmsprop, {}),
    "Adam": (lecture_adam, {}),
    "AdamW": (lecture_adamw, {"weight_decay": 0.02}),
}


@for_each_schedule
@pytest.mark.parametrize("name", LECTURES)
def test_a_preset_steps_as_lectures_write_it(name: str, etas: Sequence[float]) -> None:
    formula, options = LECTURES[name]
    start, gradients = problem(np.float64)
    actual = walk(name, {**preset("lecture", name), **options}, start, gradients, etas)
    expected = formula(start.astype(np.longdouble), gradients, etas)
    assert_agree(actual, {"p": list(expected)}, start, TOLERANCE)
