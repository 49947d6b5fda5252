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
from cases import OPTIMIZERS
from marks import needs
from oracle import Array, Trajectory, append, wide
from trajectories import STEPS, TOLERANCE, assert_agree, problem

import fusedstep as fs
from fusedstep._core.declaration import declaration_of

Options: TypeAlias = dict[str, Any]

NAMES = {
    framework: [name for name in vars(getattr(fs.presets, framework)) if name[0] != "_"]
    for framework in fs.presets.__all__
}
"""The classes that each has arguments for."""

SHARED = set.intersection(*({*inspect.signature(each).parameters} for each in OPTIMIZERS))
"""The arguments that every optimizer has."""


def preset(framework: str, name: str) -> Options:
    return dict(getattr(getattr(fs.presets, framework), name))


def optimizer(name: str) -> Any:
    name = name.removeprefix("Fed")
    return getattr(fs, name, None) or getattr(fs.rules, name)


@pytest.mark.parametrize("framework", NAMES)
def test_a_preset_names_all_that_frameworks_differ_in(framework: str) -> None:
    for name in NAMES[framework]:
        declaration = declaration_of(optimizer(name))
        expected = {
            each.name
            for each in declaration.arguments
            if each.check
            and not (each.keyword_only and (each.name in SHARED or each.default is None))
        }
        if framework in ("optax", "federated"):
            expected.remove("lr")
        if framework == "federated":
            expected.add("maximize")
        named = preset(framework, name)
        assert named.keys() == expected
        found = dict(optimizer(name)(np.ones(2), **named).param_groups[0])
        assert named.items() <= found.items()


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
"""The frameworks' names of our arguments, where they differ."""

BETAS = {"keras": ("beta_1", "beta_2"), "optax": ("b1", "b2")}


def translated(framework: str, options: Options) -> Options:
    theirs: Options = {THEIRS[framework].get(name, name): v for name, v in options.items()}
    if framework in BETAS and "betas" in theirs:
        theirs.update(zip(BETAS[framework], theirs.pop("betas"), strict=True))
    return theirs


class Torch:
    """Torch, with float64 for the scalars that it keeps in its default dtype."""

    def __init__(self, stack: ExitStack) -> None:
        self.torch: Any = import_module("torch")
        stack.callback(self.torch.set_default_dtype, self.torch.get_default_dtype())
        self.torch.set_default_dtype(self.torch.float64)

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
    """Keras over JAX, in float64 down to the learning rate."""

    def __init__(self, stack: ExitStack) -> None:
        self.keras: Any = import_module("keras")
        stack.callback(self.keras.config.set_floatx, self.keras.config.floatx())
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
    def __init__(self, stack: ExitStack) -> None:
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


@pytest.fixture
def framework(request: pytest.FixtureRequest, tmp_path: Any) -> Iterator[tuple[str, Any]]:
    """A framework by name, if it is installed, computing in float64."""
    name = request.param
    needed = {"torch": ["torch"], "keras": ["keras", "jax"], "optax": ["optax", "jax"]}[name]
    with ExitStack() as stack:
        patch = stack.enter_context(pytest.MonkeyPatch.context())
        patch.setenv("KERAS_BACKEND", "jax")
        patch.setenv("KERAS_HOME", str(tmp_path))
        for package in needed:
            module = needs(package, "torch" if name == "torch" else "others")
        if needed[-1] == "jax":
            stack.enter_context(module.enable_x64(True))
        yield name, FRAMEWORK[name](stack)


LEAST = {"SGD": 2, "RMSprop": 5, "Adam": 3, "AdamW": 4, "NAdam": 6, "RAdam": 5, "Lion": 3}
"""Least number of our arguments that each framework has a default for; 2 where none is given."""


@pytest.mark.parametrize(
    ("framework", "name"),
    [(framework, name) for framework in FRAMEWORK for name in NAMES[framework]],
    indirect=["framework"],
)
def test_constants_are_those_of_the_framework(framework: tuple[str, Any], name: str) -> None:
    called, installed = framework
    stated = inspect.signature(installed.optimizer(name)).parameters
    ours = translated(called, preset(called, name))
    shared = {key: value for key, value in ours.items() if key in stated}
    assert len(shared) >= LEAST.get(name, 2)
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
    Variation("NAdam", {}),
    Variation("RAdam", {"betas": (0.8, 0.9)}),
    Variation("Adamax", {"eps": 1e-3}),
    Variation("Lion", {}),
    Variation("Lion", {"weight_decay": 0.1}),
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
    opt = optimizer(name)(p, **options)
    alpha = opt.lr
    trajectory: Trajectory = {}
    for g, eta in zip(gradients, etas, strict=True):
        opt.lr = alpha * eta
        opt.step(g)
        append(trajectory, p=p.copy())
    return trajectory


@for_each_schedule
@pytest.mark.parametrize(
    ("framework", "variation"),
    [
        (framework, variation)
        for framework in FRAMEWORK
        for variation in VARIATIONS
        if variation.name in NAMES[framework]
        and not (framework == "optax" and "amsgrad" in variation.options)
    ],
    indirect=["framework"],
    ids=str,
)
def test_a_preset_steps_as_the_framework(
    framework: tuple[str, Any], variation: Variation, etas: Sequence[float]
) -> None:
    (called, installed), (name, options) = framework, variation
    if called == "optax":
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


# ---- federated servers ----


def algorithm_2(kind: str, x: Array, changes: Any, alpha: float) -> Iterator[Array]:
    """Reddi et al. (2021), Algorithm 2, with τ² as the start of v, but for FedAdam's 0."""
    eta, tau, beta1, beta2 = wide(alpha, 1e-3, 0.0 if kind == "Adagrad" else 0.9, 0.99)
    m = 0 * x
    v = m + (0 if kind == "Adam" else tau**2)
    for delta in changes:
        m = beta1 * m + (1 - beta1) * delta
        if kind == "Adagrad":
            v = v + delta**2
        elif kind == "Adam":
            v = beta2 * v + (1 - beta2) * delta**2
        else:
            v = v - (1 - beta2) * delta**2 * np.sign(v - delta**2)
        yield (x := x + eta * m / (np.sqrt(v) + tau))


@pytest.mark.parametrize("name", NAMES["federated"])
def test_a_server_steps_as_the_paper_writes_it(name: str) -> None:
    start, changes = problem(np.float64)
    options = {"lr": 0.05, **preset("federated", name)}
    actual = walk(name, options, start, changes, [1.0] * STEPS)
    expected = algorithm_2(name.removeprefix("Fed"), start.astype(np.longdouble), changes, 0.05)
    assert_agree(actual, {"p": list(expected)}, start, TOLERANCE)


def test_a_server_that_is_not_there_is_said_so() -> None:
    with pytest.raises(AttributeError, match="federated has no 'FedAdm'; did you mean 'FedAdam'"):
        _ = fs.presets.federated.FedAdm


def test_fedadam_may_start_from_tau_squared() -> None:
    p = {"w": np.zeros(3), "b": np.zeros(1)}
    server = fs.Adam(p, lr=1.0, **fs.presets.federated.Adam)
    for state in server.state.values():
        state["v"][...] = 1e-6
    server.step({"w": np.full(3, 0.5), "b": np.ones(1)})
    expected = 0.05 / (np.sqrt(0.99e-6 + 0.01 * 0.25) + 1e-3)
    np.testing.assert_allclose(p["w"], expected, rtol=1e-12)


@pytest.mark.parametrize("framework", ["optax"], indirect=True)
def test_yogi_steps_as_that_of_optax(framework: tuple[str, Any]) -> None:
    """It starts m from the accumulator's initial value, too."""
    _, installed = framework
    start, gradients = problem(np.float64)
    p = start.copy()
    opt = fs.rules.Yogi(p, lr=0.01, eps=1e-3, initial_v=1e-6)
    opt.state["m"][...] = 1e-6
    actual: Trajectory = {}
    for g in gradients:
        opt.step(g)
        append(actual, p=p.copy())
    theirs = installed.walk("Yogi", {"learning_rate": 0.01}, start, gradients, [1.0] * STEPS)
    assert_agree(actual, {"p": list(theirs)}, start, TOLERANCE)
