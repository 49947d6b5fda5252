"""The rule that an optimizer steps by: its name and hyperparameters, in the terms of `formulas`.

Each framework has its own semantics: where ε stands, where the learning rate, how weights decay.
They are documented choices, and the formulas have them as options.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from types import MappingProxyType
from typing import Any, NamedTuple

from fusedstep.audits import formulas


class UnknownError(Exception):
    """No formula for this optimizer; the message says for what."""


class Formula(NamedTuple):
    """A rule with its hyperparameters."""

    rule: formulas.Rule
    options: dict[str, Any]

    @property
    def slowest(self) -> float:
        """The least 1 - β: a β that is rounded to the dtype changes this one the most."""
        rho = self.options.get("rho", 0.0)
        betas = self.options.get("betas", ())
        return float(min(1 - beta for beta in (rho, *betas)))

    @property
    def decays(self) -> bool:
        return any(self.options.get(key) for key in ("coupled", "decoupled", "proximal"))


class Options:
    """Hyperparameters, of which those that are never taken must be off.

    None of those that are `required` may be missing.
    """

    def __init__(self, name: str, values: Mapping[str, Any], required: Sequence[str] = ()) -> None:
        self.name, self.values, self.required = name, dict(values), required

    def take(self, key: str, default: Any = None) -> Any:
        if key in self.required and key not in self.values:
            raise UnknownError(
                f"no formula for {self.name}: it takes no {key}, which optax.{self.name} takes"
            )
        value = self.values.pop(key, default)
        return default if value is None else value

    def number(self, key: str, default: float | None = None) -> float:
        value = self.take(key, default)
        if value is True or not isinstance(value, int | float):
            raise self.unknown(key, value)
        return float(value)

    def three_betas(self) -> tuple[float, float, float]:
        betas = self.take("betas", ())
        if not isinstance(betas, list | tuple) or len(betas) != 3:
            raise self.unknown("betas", betas)
        one, two, three = map(float, betas)
        return one, two, three

    def betas(self, *keys: str) -> tuple[float, float]:
        if keys:
            one, other = (self.number(key) for key in keys)
            return one, other
        pair = self.take("betas", ())
        if not isinstance(pair, list | tuple) or len(pair) < 2 or any(pair[2:]):
            raise self.unknown("betas", pair)
        return float(pair[0]), float(pair[1])

    def finish(self, *ignored: str) -> None:
        """Refuse what is left and switched on, as nobody has taken it into the formula."""
        for key, value in self.values.items():
            if value and key not in ignored:
                raise self.unknown(key, value)

    def unknown(self, key: str, value: Any) -> UnknownError:
        given = f"{key}={value}" if len(str(value)) < 40 else key
        return UnknownError(f"no formula for {self.name} with {given}")


Maker = Callable[[Options], Formula]


class Kind(NamedTuple):
    """The optimizer whose rule another is held against."""

    name: str
    """The last part of its dotted name: "AdamW"."""

    why: str = ""
    """Words after its name that say why it is this one; none if the optimizer is itself it."""

    derived: bool = False
    """Whether it is a class that the optimizer is derived from."""

    required: tuple[str, ...] = ()
    """Hyperparameters without which it is not that optimizer, whose name it has."""

    missing: str = ""
    """The reason why there is no formula."""

    defaults: Mapping[str, Any] = MappingProxyType({})
    """Hyperparameters where the optimizer has none of its own. Others than these it has not."""

    given: Mapping[str, Any] = MappingProxyType({})
    """Hyperparameters that are said, whatever the optimizer has."""

    def values(self, own: Mapping[str, Any]) -> dict[str, Any]:
        """The hyperparameters of the rule, where the optimizer's `own` are these."""
        if not self.defaults:
            return dict(own)
        fitting = {name: value for name, value in own.items() if name in self.defaults}
        return {**self.defaults, **fitting, **self.given}


def kind(
    framework: str, name: str, own: bool, bases: Sequence[str] = (), required: Sequence[str] = ()
) -> Kind:
    """The kind of an optimizer by its name, or else by the framework's classes that it is made of.

    `own` is whether the framework has it, and `bases` are the names of those of its base classes
    that the framework has, nearest first. `required` are the hyperparameters of the framework's
    optimizer of that name.
    """
    makers, _ = FRAMEWORKS[framework]
    if name in makers:
        return Kind(name, "" if own else f"by the name; {ANOTHER}", required=tuple(required))
    for base in bases:
        if base in makers:
            return Kind(base, f"which {name} is derived from; {ANOTHER}", derived=True)
    return Kind(name)


ANOTHER = "--as names another rule"


def formula(framework: str, kind: Kind, values: Mapping[str, Any]) -> Formula:
    """The formula of a kind with these hyperparameters; `UnknownError` where there is none."""
    makers, ignored = FRAMEWORKS[framework]
    if kind.missing:
        raise UnknownError(kind.missing)
    if kind.name not in makers:
        raise UnknownError(f"no formula for {kind.name}")
    options = Options(kind.name, values, kind.required)
    made = makers[kind.name](options)
    options.finish(*ignored)
    return made


# ---- torch, and the plain classes of this package, which have its names ----

TORCH_IGNORED = ("foreach", "fused", "capturable", "differentiable", "initial_lr", "backend", "ema")
"""Options that choose how a step is computed, not what it is."""


def torch_common(options: Options) -> dict[str, Any]:
    return {"lr": options.number("lr"), "maximize": bool(options.take("maximize", False))}


def torch_decay(options: Options, decoupled: bool = False) -> dict[str, float]:
    decoupled = bool(options.take("decoupled_weight_decay", decoupled))
    return {"decoupled" if decoupled else "coupled": options.number("weight_decay", 0.0)}


def torch_sgd(options: Options) -> Formula:
    return Formula(
        formulas.sgd,
        {
            **torch_common(options),
            **torch_decay(options),
            "momentum": options.number("momentum", 0.0),
            "dampening": options.number("dampening", 0.0),
            "nesterov": bool(options.take("nesterov", False)),
            "lr_inside": bool(options.take("lr_in_momentum", False)),
        },
    )


def torch_adagrad(options: Options) -> Formula:
    return Formula(
        formulas.adagrad,
        {
            **torch_common(options),
            **torch_decay(options),
            "eps": options.number("eps", 1e-10),
            "lr_decay": options.number("lr_decay", 0.0),
            "initial": options.number("initial_accumulator_value", 0.0),
            "inside": bool(options.take("eps_inside_sqrt", False)),
        },
    )


def torch_rmsprop(options: Options) -> Formula:
    return Formula(
        formulas.rmsprop,
        {
            **torch_common(options),
            **torch_decay(options),
            "rho": options.number("alpha", 0.99),
            "eps": options.number("eps", 1e-8),
            "momentum": options.number("momentum", 0.0),
            "centered": bool(options.take("centered", False)),
            "inside": bool(options.take("eps_inside_sqrt", False)),
            "lr_inside": bool(options.take("lr_in_momentum", False)),
        },
    )


def torch_adam(options: Options, decoupled: bool = False) -> Formula:
    inside = bool(options.take("eps_inside_sqrt", False))
    eps = options.number("eps", 1e-8)
    if options.take("decay_scale", "lr") != "lr":
        raise UnknownError(f"no formula for {options.name} with decay_scale='schedule'")
    return Formula(
        formulas.adam,
        {
            **torch_common(options),
            **torch_decay(options, decoupled),
            "betas": options.betas(),
            "eps": 0.0 if inside else eps,
            "eps_root": eps if inside else 0.0,
            "amsgrad": bool(options.take("amsgrad", False)),
            "corrected": bool(options.take("bias_correction", True)),
            "eps_uncorrected": bool(options.take("eps_uncorrected", False)),
        },
    )


def torch_adamw(options: Options) -> Formula:
    return torch_adam(options, decoupled=True)


def torch_adamax(options: Options) -> Formula:
    return Formula(
        formulas.adamax,
        {
            **torch_common(options),
            **torch_decay(options),
            "betas": options.betas(),
            "eps": options.number("eps", 1e-8),
        },
    )


def torch_nadam(options: Options) -> Formula:
    return Formula(
        formulas.nadam,
        {
            **torch_common(options),
            **torch_decay(options),
            "betas": options.betas(),
            "eps": options.number("eps", 1e-8),
            "momentum_decay": options.number("momentum_decay", 4e-3),
        },
    )


def torch_radam(options: Options) -> Formula:
    return Formula(
        formulas.radam,
        {
            **torch_common(options),
            **torch_decay(options),
            "betas": options.betas(),
            "eps": options.number("eps", 1e-8),
        },
    )


def torch_adadelta(options: Options) -> Formula:
    return Formula(
        formulas.adadelta,
        {
            **torch_common(options),
            **torch_decay(options),
            "rho": options.number("rho", 0.9),
            "eps": options.number("eps", 1e-6),
        },
    )


def torch_lion(options: Options) -> Formula:
    return Formula(
        formulas.lion,
        {
            **torch_common(options),
            **torch_decay(options, decoupled=True),
            "betas": options.betas(),
        },
    )


def torch_yogi(options: Options) -> Formula:
    return Formula(
        formulas.yogi,
        {
            **torch_common(options),
            **torch_decay(options),
            "betas": options.betas(),
            "eps": options.number("eps", 1e-3),
            "initial_v": options.number("initial_v"),
            "corrected": bool(options.take("bias_correction", True)),
        },
    )


def torch_adan(options: Options) -> Formula:
    betas = options.three_betas()
    if "no_prox" not in options.values:
        raise UnknownError(f"no formula for {options.name} without no_prox")
    decay = "decoupled" if options.take("no_prox") else "proximal"
    return Formula(
        formulas.adan,
        {
            **torch_common(options),
            decay: options.number("weight_decay", 0.0),
            "betas": betas,
            "eps": options.number("eps", 1e-8),
            "ahead": betas[1],
        },
    )


TORCH: dict[str, Maker] = {
    "SGD": torch_sgd,
    "Adagrad": torch_adagrad,
    "RMSprop": torch_rmsprop,
    "Adam": torch_adam,
    "AdamW": torch_adamw,
    "Adamax": torch_adamax,
    "NAdam": torch_nadam,
    "RAdam": torch_radam,
    "Adadelta": torch_adadelta,
    "Lion": torch_lion,
    "Yogi": torch_yogi,
    "Adan": torch_adan,
}


# ---- Keras: the decay is always decoupled ----

KERAS_IGNORED = ("name", "ema_momentum")


def keras_common(options: Options) -> dict[str, Any]:
    return {
        "lr": options.number("learning_rate"),
        "decoupled": options.number("weight_decay", 0.0),
    }


def keras_sgd(options: Options) -> Formula:
    return Formula(
        formulas.sgd,
        {
            **keras_common(options),
            "momentum": options.number("momentum", 0.0),
            "nesterov": bool(options.take("nesterov", False)),
            "lr_inside": True,
        },
    )


def keras_adagrad(options: Options) -> Formula:
    return Formula(
        formulas.adagrad,
        {
            **keras_common(options),
            "eps": options.number("epsilon"),
            "initial": options.number("initial_accumulator_value"),
            "inside": True,
        },
    )


def keras_rmsprop(options: Options) -> Formula:
    return Formula(
        formulas.rmsprop,
        {
            **keras_common(options),
            "rho": options.number("rho"),
            "eps": options.number("epsilon"),
            "momentum": options.number("momentum", 0.0),
            "centered": bool(options.take("centered", False)),
            "inside": True,
            "lr_inside": True,
        },
    )


def keras_adam(options: Options) -> Formula:
    return Formula(
        formulas.adam,
        {
            **keras_common(options),
            "betas": options.betas("beta_1", "beta_2"),
            "eps": options.number("epsilon"),
            "amsgrad": bool(options.take("amsgrad", False)),
            "eps_uncorrected": True,
        },
    )


def keras_adamax(options: Options) -> Formula:
    return Formula(
        formulas.adamax,
        {
            **keras_common(options),
            "betas": options.betas("beta_1", "beta_2"),
            "eps": options.number("epsilon"),
            "eps_in_maximum": False,
        },
    )


def keras_nadam(options: Options) -> Formula:
    return Formula(
        formulas.nadam,
        {
            **keras_common(options),
            "betas": options.betas("beta_1", "beta_2"),
            "eps": options.number("epsilon"),
            "momentum_decay": 1.0,
        },
    )


def keras_adadelta(options: Options) -> Formula:
    return Formula(
        formulas.adadelta,
        {
            **keras_common(options),
            "rho": options.number("rho"),
            "eps": options.number("epsilon"),
        },
    )


def keras_lion(options: Options) -> Formula:
    return Formula(
        formulas.lion,
        {**keras_common(options), "betas": options.betas("beta_1", "beta_2")},
    )


KERAS: dict[str, Maker] = {
    "SGD": keras_sgd,
    "Adagrad": keras_adagrad,
    "RMSprop": keras_rmsprop,
    "Adam": keras_adam,
    "AdamW": keras_adam,
    "Adamax": keras_adamax,
    "Nadam": keras_nadam,
    "Adadelta": keras_adadelta,
    "Lion": keras_lion,
}


# ---- optax ----


def optax_sgd(options: Options) -> Formula:
    return Formula(
        formulas.sgd,
        {
            "lr": options.number("learning_rate"),
            "momentum": options.number("momentum", 0.0),
            "nesterov": bool(options.take("nesterov", False)),
        },
    )


def optax_adagrad(options: Options) -> Formula:
    return Formula(
        formulas.adagrad,
        {
            "lr": options.number("learning_rate"),
            "eps": options.number("eps"),
            "initial": options.number("initial_accumulator_value"),
            "inside": True,
        },
    )


def optax_rmsprop(options: Options) -> Formula:
    return Formula(
        formulas.rmsprop,
        {
            "lr": options.number("learning_rate"),
            "rho": options.number("decay"),
            "eps": options.number("eps"),
            "momentum": options.number("momentum", 0.0),
            "centered": bool(options.take("centered", False)),
            "inside": bool(options.take("eps_in_sqrt", True)),
            "lr_inside": True,
        },
    )


def optax_adam(options: Options, nesterov: bool = False) -> Formula:
    found = {
        "lr": options.number("learning_rate"),
        "decoupled": options.number("weight_decay", 0.0),
        "betas": options.betas("b1", "b2"),
        "eps": options.number("eps"),
        "eps_root": options.number("eps_root", 0.0),
    }
    nesterov = bool(options.take("nesterov", nesterov))
    return Formula(formulas.nadam_constant if nesterov else formulas.adam, found)


def optax_nadam(options: Options) -> Formula:
    return optax_adam(options, nesterov=True)


def optax_adamax(options: Options) -> Formula:
    return Formula(
        formulas.adamax,
        {
            "lr": options.number("learning_rate"),
            "decoupled": options.number("weight_decay", 0.0),
            "betas": options.betas("b1", "b2"),
            "eps": options.number("eps"),
        },
    )


def optax_radam(options: Options) -> Formula:
    return Formula(
        formulas.radam,
        {
            "lr": options.number("learning_rate"),
            "betas": options.betas("b1", "b2"),
            "eps": options.number("eps"),
            "eps_root": options.number("eps_root", 0.0),
            "threshold": options.number("threshold", 5.0),
            "eps_uncorrected": False,
        },
    )


def optax_adadelta(options: Options) -> Formula:
    return Formula(
        formulas.adadelta,
        {
            "lr": options.number("learning_rate"),
            "coupled": options.number("weight_decay", 0.0),
            "rho": options.number("rho"),
            "eps": options.number("eps"),
        },
    )


def optax_lion(options: Options) -> Formula:
    return Formula(
        formulas.lion,
        {
            "lr": options.number("learning_rate"),
            "decoupled": options.number("weight_decay", 0.0),
            "betas": options.betas("b1", "b2"),
        },
    )


def optax_yogi(options: Options) -> Formula:
    return Formula(
        formulas.yogi,
        {
            "lr": options.number("learning_rate"),
            "betas": options.betas("b1", "b2"),
            "eps": options.number("eps"),
            "initial_m": 1e-6,
        },
    )


def optax_adan(options: Options) -> Formula:
    """Where the paper's authors have β₂ before the gradients' change, optax has 1 - β₂."""
    betas = (*options.betas("b1", "b2"), options.number("b3"))
    return Formula(
        formulas.adan,
        {
            "lr": options.number("learning_rate"),
            "decoupled": options.number("weight_decay", 0.0),
            "betas": betas,
            "eps": options.number("eps"),
            "eps_root": options.number("eps_root"),
            "ahead": 1 - betas[1],
        },
    )


OPTAX: dict[str, Maker] = {
    "sgd": optax_sgd,
    "adagrad": optax_adagrad,
    "rmsprop": optax_rmsprop,
    "adam": optax_adam,
    "adamw": optax_adam,
    "nadam": optax_nadam,
    "nadamw": optax_nadam,
    "adamax": optax_adamax,
    "adamaxw": optax_adamax,
    "radam": optax_radam,
    "adadelta": optax_adadelta,
    "lion": optax_lion,
    "yogi": optax_yogi,
    "adan": optax_adan,
}

FRAMEWORKS: dict[str, tuple[dict[str, Maker], tuple[str, ...]]] = {
    "torch": (TORCH, TORCH_IGNORED),
    "numpy": (TORCH, TORCH_IGNORED),
    "keras": (KERAS, KERAS_IGNORED),
    "optax": (OPTAX, ()),
}
"""The formulas of each framework by the optimizer's name, and options that are not part of them."""
