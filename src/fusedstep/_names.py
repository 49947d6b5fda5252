"""Names that the package's public modules do not have, and where what was meant by them is."""

from __future__ import annotations

import sys
from collections.abc import Mapping
from importlib import import_module

from fusedstep._checks.elsewhere import CLIPPING, SCHEDULES, SCHEDULING
from fusedstep._checks.hints import nearest, plain

CLASSES = "`fs.SGD`, `fs.Adam` and the others stand in the package itself"
RULES = "`fs.rule` makes an optimizer of any rule that is elementwise, as `fs.rules` shows"
NOT_ELEMENTWISE = "its step is not elementwise, and is not here; `fs.AdamW` is"

OTHERS = {
    **dict.fromkeys(("optim", "optimizer", "optimisers"), CLASSES),
    **dict.fromkeys(
        ("get", "get_optimizer", "create_optimizer", "deserialize"),
        "a class by its name is `getattr(fs, 'AdamW')`",
    ),
    **dict.fromkeys(("lr_scheduler", "learning_rate_schedule", "scheduler"), SCHEDULING),
    **dict.fromkeys(
        ("clip", "clip_by_global_norm", "clip_grad_norm", "clip_grad_norm_", "clip_grads"), CLIPPING
    ),
    **dict.fromkeys(
        ("clip_by_value", "clip_grad_value_"),
        "clipping is a part of the step: `opt.step(grads, max_value=1.0)`",
    ),
    **dict.fromkeys(
        ("apply_updates", "chain", "step", "update"), "`opt.step(grads)` does all of it"
    ),
    **dict.fromkeys(
        ("Parameter", "Tensor", "Variable", "Array", "array", "tensor"),
        "parameters are NumPy arrays, as `np.zeros(3, np.float32)`",
    ),
    **dict.fromkeys(
        ("load_checkpoint", "restore", "save_checkpoint"),
        "`fs.save('run.safetensors', opt)` writes a checkpoint, and `fs.load` reads it",
    ),
    **dict.fromkeys(
        ("no_grad", "enable_grad"), "no graph is recorded: `opt.step(grads)` needs no context"
    ),
    **dict.fromkeys(
        ("num_threads", "set_threads", "set_num_interop_threads"), "`fs.set_num_threads(2)` does it"
    ),
    **dict.fromkeys(("GradScaler", "LossScale", "amp"), "`opt.step(grads, scale=1024.0)` unscales"),
    **dict.fromkeys(
        ("AveragedModel", "EMA", "ExponentialMovingAverage", "SWA", "ema"),
        "`fs.AdamW(params, ema=0.999)` keeps an average in its state",
    ),
    **dict.fromkeys(
        ("Momentum", "MomentumSGD", "SGDM", "momentum"),
        "`fs.SGD(params, momentum=0.9)` is it",
    ),
    **dict.fromkeys(
        ("NAG", "Nesterov", "NesterovSGD", "SGDNesterov"),
        "`fs.SGD(params, momentum=0.9, nesterov=True)` is it",
    ),
    **dict.fromkeys(("AMSGrad", "amsgrad"), "`fs.Adam(params, amsgrad=True)` is it"),
    **dict.fromkeys(("ASGD", "Adadelta", "AdaBelief", "Ftrl", "Rprop"), RULES),
    **dict.fromkeys(
        ("Adafactor", "LAMB", "LARS", "LBFGS", "Lamb", "Lars", "Muon", "SAM", "Shampoo"),
        NOT_ELEMENTWISE,
    ),
    **dict.fromkeys(
        ("InverseSquareRootDecay", "NoamLR", "inverse_sqrt", "inverse_square_root", "noam"),
        "a rate may be any function of the step count, as "
        "`lambda t: 0.1 * min(t / 1000, (1000 / t) ** 0.5)`",
    ),
    **dict.fromkeys(
        ("ReduceLROnPlateau", "plateau", "reduce_on_plateau"),
        "set the rate where the loss stands still: `opt.lr = 0.1 * opt.lr`",
    ),
    "SparseAdam": "`fs.Adam(params, row_steps='shared')` is it, and takes `fs.Rows(index, values)`",
    "version": "`fs.__version__` has it",
    **dict.fromkeys(("backends", "available_backends", "cuda", "device"), "`fs.info()` lists them"),
    **dict.fromkeys(("custom_rule", "Rule", "custom"), "`fs.rule` makes optimizers of functions"),
}
"""Names of other packages, and what there is here."""

PRESETS = {
    **dict.fromkeys(("pytorch", "Torch"), "torch"),
    **dict.fromkeys(("tensorflow", "tf"), "keras"),
    **dict.fromkeys(("jax", "flax"), "optax"),
    **dict.fromkeys(("lectures", "paper", "papers", "textbook"), "lecture"),
}
"""Other names of presets."""

HOMES = ("", "rules", "schedules", "functional", "presets")
"""The modules in which names are looked for, in this order; the package itself is the first."""


def names_of(home: str) -> list[str]:
    """The public names of a module of the package."""
    module = import_module(f"fusedstep.{home}".rstrip("."))
    found = getattr(module, "__all__", None)
    if found is None:
        found = [
            name
            for name, thing in vars(module).items()
            if getattr(thing, "__module__", None) == module.__name__
        ]
    return [name for name in found if not name.startswith("_")]


def written(home: str, name: str) -> str:
    """A public name as programs write it."""
    return ".".join(filter(None, ("fs" if home != "torch" else "fusedstep", home, name)))


def hint(home: str, name: str) -> str | None:
    """Where what was meant by a name is, that a module does not have; None if nothing is near."""
    if home == "presets" and name in PRESETS:
        return f"did you mean `fs.presets.{PRESETS[name]}`?"
    homes = [home, *(each for each in HOMES if each != home)]
    known = {each: names_of(each) for each in homes}
    for each in homes:
        same = [own for own in known[each] if plain(own) == plain(name)]
        if same:
            return f"did you mean `{written(each, same[0])}`?"
    kind, other = without_case(SCHEDULES).get(plain(name)), without_case(OTHERS).get(plain(name))
    if kind is not None:
        example = getattr(import_module("fusedstep.schedules"), kind).example
        return f"`{example}` is of that kind"
    if other is not None:
        return other
    for each in homes:
        near = nearest(name, known[each])
        if near is not None:
            return f"did you mean `{written(each, near)}`?"
    return None


def without_case(texts: Mapping[str, str]) -> dict[str, str]:
    """The texts of a table by names as `plain` has them."""
    return {plain(name): text for name, text in texts.items()}


class Finder:
    """The last of the import system's finders: it says of a module that is not there what is."""

    @staticmethod
    def find_spec(name: str, path: object = None, target: object = None) -> None:
        """Find nothing; an ImportError says where what was meant is, if that is known."""
        package, _, own = name.rpartition(".")
        if package != "fusedstep" or own.startswith("_"):
            return
        found = hint("", own)
        if found is not None:
            # Without `name=`, by which `from fusedstep import` would know it, and say less.
            raise ModuleNotFoundError(f"fusedstep has no {own!r}; {found}")


def missing(module: str, name: str) -> AttributeError:
    """The error for a name that a module of the package does not have."""
    home = module.partition(".")[2]
    text = f"module {module!r} has no attribute {name!r}"
    if not name.startswith("_"):
        found = hint(home, name)
        text += f"; {found}" if found else f"; it has {', '.join(map(repr, names_of(home)))}"
    return AttributeError(text, name=name, obj=sys.modules.get(module))
