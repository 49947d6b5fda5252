"""Mistakes of newcomers: each says what was meant, writes nothing, and its remedy works."""

from __future__ import annotations

import importlib.util
import os
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from marks import needs
from mistakes import TABLE, Mistake, fitted, pieces
from trying import namespace, picture, run

import fusedstep as fs
from fusedstep._arrays.checks import check_like
from fusedstep._arrays.cuda_array import shadow
from fusedstep._checks.elsewhere import ATTRIBUTES, HYPERPARAMETERS, NEEDLESS, OF_A_STEP
from fusedstep._core.declaration import declaration_of

EXTRAS = {
    "jax": "others",
    "ml_dtypes": "others",
    "pandas": "others",
    "pyarrow": "others",
    "scipy": "demo",
}
"""The extra that brings a package; torch has one of its own name."""

ROWS = [mistake for part in TABLE.values() for mistake in part]


def text_of(error: BaseException) -> str:
    """An error's message on one line; Python shows the repr of a KeyError's."""
    text = error.args[0] if isinstance(error, KeyError) else str(error)
    return " ".join(text.split())


def says(text: str, message: str) -> bool:
    """Whether a text is a message, in which `...` stands for anything."""
    parts = " ".join(message.split()).split("...")
    return re.fullmatch(".*".join(map(re.escape, parts)), text) is not None


def name_of(mistake: Mistake) -> str:
    return "; ".join(filter(None, (mistake.setup, mistake.code))).replace("\n", "; ")


@pytest.mark.parametrize("mistake", ROWS, ids=name_of)
def test_the_remedy_works(mistake: Mistake, tmp_path: Path) -> None:
    if mistake.needs:
        needs(mistake.needs, EXTRAS.get(mistake.needs, mistake.needs))
    names = namespace(tmp_path, mistake.setup)
    before = picture(names)
    with pytest.raises(Exception) as caught:  # noqa: PT011  its type and text are compared below
        run(mistake.code, names)
    assert caught.type.__name__ == mistake.error
    text = text_of(caught.value)
    assert says(text, mistake.message), text
    assert picture(names) == before
    run(fitted(mistake.remedy, mistake.message), names)
    assert eval(mistake.then, names)


def test_there_are_many() -> None:
    assert len(ROWS) > 150
    assert len({name_of(mistake) for mistake in ROWS}) == len(ROWS)


def test_most_remedies_are_taken_out_of_the_message() -> None:
    taken = [mistake for mistake in ROWS if "{0}" in mistake.remedy]
    assert len(taken) > 120
    assert all(pieces(mistake.message) for mistake in taken)


# ---- what goes on as it is ----

FINE = (
    "opt = fs.SGD(params, 0.1, 0.9)",
    "opt = fs.AdamW(params, lr=np.float32(0.1))",
    "opt = fs.AdamW(params, betas=[0.8, 0.99])",
    "opt = fs.AdamW(params, betas=(0.999, 0.9))",
    "opt = fs.AdamW(params, weight_decay=2)",
    "opt = fs.AdamW(dict(params)); opt.step({'b': grads['b'], 'w': grads['w']})",
    "opt = fs.AdamW([*params.values()]); opt.step((grads['w'], grads['b']))",
    "opt = fs.AdamW(x for x in params.values()); opt.step(grads.values())",
    "opt = fs.AdamW(np.asfortranarray(params['w'])); opt.step(grads['w'])",
    "opt = fs.AdamW(np.array(1.0)); opt.step(np.array(1.0))",
    "opt = fs.AdamW({0: params['w'], ('b', 1): params['b']})",
    "opt = fs.AdamW([{'params': params, 'lr': 0.1}])",
    "np.savez(folder / 'w.npz', **params)\n"
    "with np.load(folder / 'w.npz') as archive: opt = fs.AdamW(fs.Arena(archive))",
)


@pytest.mark.parametrize("code", FINE)
def test_what_is_no_mistake(code: str, tmp_path: Path) -> None:
    names = namespace(tmp_path, "")
    run(code, names)
    assert isinstance(names["opt"], fs.Optimizer)


# ---- attributes ----


def test_missing_attributes_are_not_there() -> None:
    opt = fs.AdamW(np.ones(2))
    names = {*ATTRIBUTES, *HYPERPARAMETERS, "momentum"} - {"lr"}
    for name in names:
        assert not hasattr(opt, name)
        assert not hasattr(fs.AdamW, name)
        assert name not in dir(opt)
        with pytest.raises(AttributeError) as caught:
            getattr(opt, name)
        assert caught.value.name == name
        assert caught.value.obj is opt


def test_derived_classes_have_attributes_of_their_own() -> None:
    class Mine(fs.AdamW):
        momentum = 0.5
        rate: float

        def __init__(self, params: Any, note: str) -> None:
            super().__init__(params, lr=0.1)
            self.note = note
            self.params = params
            self.rate = 3.0
            self._own = 1

        def update(self, grads: Any) -> fs.Report:
            return self.step(grads)

        @property
        def beta1(self) -> float:
            return float(self.param_groups[0]["betas"][0])

    p = np.ones(2)
    opt = Mine(p, "mine")
    opt.momentum = 0.25
    assert (opt.note, opt.momentum, opt.rate, opt.beta1) == ("mine", 0.25, 3.0, 0.9)
    assert opt.params is p
    assert opt.update(np.ones(2)).t == 1
    assert "params" in dir(opt)
    with pytest.raises(AttributeError, match=r"no 'learning_rate' to set; set `opt.lr = 0.5`"):
        opt.learning_rate = 0.5
    with pytest.raises(AttributeError, match=r"no 'eps' to set; set `opt.param_groups"):
        opt.eps = 0.5
    with pytest.raises(TypeError, match=r"AdamW\(\) got an unexpected keyword argument 'clip'"):
        fs.AdamW.__init__(opt, p, clip=1)  # type: ignore[call-arg]


def test_a_step_needs_an_optimizer_that_was_made() -> None:
    class Unmade(fs.AdamW):
        def __init__(self) -> None:
            pass

    with pytest.raises(TypeError, match=r"Unmade has not been made; call `super\(\).__init__"):
        Unmade().step(np.ones(2))


def test_groups_are_a_tuple() -> None:
    opt = fs.AdamW([{"params": np.ones(2)}, {"params": np.ones(3), "lr": 0.1}])
    first, second = opt.param_groups
    assert isinstance(opt.param_groups, tuple)
    assert (len(opt.param_groups), first["lr"], second["lr"]) == (2, 0.001, 0.1)
    assert not hasattr(opt.param_groups, "append")


def test_elements_on_a_device_are_not_read_for_a_remedy() -> None:
    """An array of objects says of itself that it has no numbers, and nothing at its address."""
    nowhere = shadow(None, 8, (2,), None, "|O", readonly=True)
    with pytest.raises(TypeError, match=r"its elements are no numbers; pass an array of numbers$"):
        check_like(nowhere, np.ones(2), "grads")


def test_an_error_from_inside_is_left_alone() -> None:
    """A TypeError of the constructor's own body is not taken for one about arguments."""
    with pytest.raises(TypeError, match=r"^lr=None; pass a number$"):
        fs.AdamW(np.ones(2), lr=None)  # type: ignore[arg-type]


def test_several_groups_are_all_named() -> None:
    opt = fs.SGD([{"params": np.ones(2)}, {"params": np.ones(3)}])
    with pytest.raises(AttributeError, match=r"momentum'\] = 0.5`, and so for each group$"):
        opt.momentum = 0.5


# ---- every name in the tables ----


def optimizers() -> list[type[fs.Optimizer]]:
    classes = [getattr(fs, name) for name in fs.optimizers.__all__]
    return [*classes, *(getattr(fs.rules, name) for name in fs.rules.__all__)]


@pytest.mark.parametrize("optimizer", optimizers(), ids=lambda each: each.__name__)
def test_every_argument_of_others_has_a_hint(optimizer: type[fs.Optimizer]) -> None:
    """Proposed is an argument of the class, of a step, or to leave it out."""
    own = declaration_of(optimizer).signature.parameters
    for name in {*HYPERPARAMETERS, *OF_A_STEP, *NEEDLESS} - {*own}:
        with pytest.raises(TypeError) as caught:
            optimizer(np.ones(2), **{name: 0.5})
        hint = str(caught.value).partition("; ")[2]
        assert hint, name
        for proposed in re.findall(r"^pass `(\w+)=", hint):
            assert proposed in own


# ---- containers ----


class Lazy(dict[str, Any]):
    """A mapping that makes its arrays at each look, in containers of their own."""

    def __getitem__(self, key: str) -> Any:
        return {"w": np.ones(2)}


def test_containers_of_fleeting_arrays_are_refused() -> None:
    class Copies:
        def __iter__(self) -> Any:
            return iter([np.ones(2), np.ones(3)])

    class Views(Copies):
        def __init__(self) -> None:
            self.memory = np.ones(5)

        def __iter__(self) -> Any:
            return iter([self.memory[:2], self.memory[2:]])

    for fleeting in (Copies(), Lazy(a={"w": np.ones(2)}), [{"params": Copies()}], {"a": Copies()}):
        with pytest.raises(TypeError, match="returns another array at each look"):
            fs.SGD(fleeting)
    views = Views()
    fs.SGD(views, lr=1.0).step([np.ones(2), np.ones(3)])
    assert (views.memory == 0).all()


# ---- ranges ----

UNFIT = (
    (fs.SGD, {"lr": 1e39}, "lr"),
    (fs.SGD, {"lr": 1e-60}, "lr"),
    (fs.SGD, {"weight_decay": 1e39}, "weight_decay"),
    (fs.SGD, {"l1": 1e-60}, "l1"),
    (fs.SGD, {"momentum": 1e39}, "momentum"),
    (fs.AdamW, {"lr": 1e38}, "lr"),
    (fs.AdamW, {"lr": 1e30, "weight_decay": 1e30}, "weight_decay"),
    (fs.AdamW, {"eps": 1e39}, "eps"),
    (fs.Adagrad, {"eps": 1e-60}, "eps"),
    (fs.rules.NAdam, {"lr": 1e39}, "lr"),
    (fs.rules.Lion, {"lr": 1e39}, "lr"),
    # What the rule makes of these is held at t = 1, and they themselves are not.
    (fs.SGD, {"dampening": 1e39, "momentum": 0.9}, "dampening"),
    (fs.AdamW, {"weight_decay": 1e39}, "weight_decay"),
    (fs.rules.Lion, {"weight_decay": 1e39}, "weight_decay"),
    (fs.rules.Adan, {"weight_decay": 1e39}, "weight_decay"),
)


@pytest.mark.parametrize(("optimizer", "options", "name"), UNFIT)
def test_scalars_outside_of_the_dtype_are_refused(
    optimizer: type[fs.Optimizer], options: dict[str, Any], name: str
) -> None:
    p = np.ones(3, np.float32)
    opt = optimizer(p, **options)
    value = re.escape(repr(options[name]))
    for _ in range(2):
        with pytest.raises(ValueError, match=rf"^{name}={value}.* float32, the dtype") as caught:
            opt.step(np.ones(3, np.float32))
    assert (p == 1).all()
    (remedy,) = pieces(str(caught.value))[-1:]
    assignment, _, number = remedy.partition("=")
    opt.param_groups[0][assignment] = float(number)
    if len(options) == 1:
        opt.step(np.ones(3, np.float32))
        assert np.isfinite(p).all()
    wide = np.ones(3)
    optimizer(wide, **options).step(np.ones(3))
    assert opt.state["t"] == (len(options) == 1)


def test_a_rate_that_is_assigned_on_the_way_is_looked_at() -> None:
    """RAdam's first steps make a scalar of it that float32 holds."""
    p, g = np.ones(3, np.float32), np.ones(3, np.float32)
    opt = fs.rules.RAdam(p)
    for _ in range(4):
        opt.step(g)
    before = p.copy()
    opt.lr = 1e39
    with pytest.raises(ValueError, match=r"^lr=1e\+39 is infinite in float32"):
        opt.step(g)
    assert (p == before).all()


def test_what_is_to_blame_is_named() -> None:
    """The scalar is that of the decay, which may stay what it is."""
    p = np.ones(3, np.float32)
    opt = fs.AdamW(p, decay_scale="schedule", initial_lr=1e-300)
    wanted = r"^initial_lr=1e-300 makes the scalar 'decay' .* infinite in float32.* a larger one"
    with pytest.raises(ValueError, match=wanted):
        opt.step(np.ones(3, np.float32))
    assert (p == 1).all()


def test_a_way_ahead_is_looked_at() -> None:
    p = np.ones(3, np.float32)
    opt = fs.SGD(p, lr=1e39, momentum=0.9)
    with pytest.raises(ValueError, match=r"^lr=1e\+39 is infinite in float32"), opt.lookahead():
        raise AssertionError
    assert (p == 1).all()


def test_a_schedule_is_refused_at_the_step_where_it_leaves_the_dtype() -> None:
    p, g = np.ones(2, np.float32), np.ones(2, np.float32)
    opt = fs.SGD(p, lr=lambda t: 10.0 ** (13 * t))
    opt.step(g)
    opt.step(g)
    before = p.copy()
    with pytest.raises(ValueError, match=r"^lr=1e\+39 is infinite in float32"):
        opt.step(g)
    assert (p == before).all()
    assert opt.state["t"] == 2


def test_a_schedule_may_come_to_nothing() -> None:
    p, g = np.ones(2, np.float32), np.ones(2, np.float32)
    opt = fs.SGD(p, lr=fs.schedules.exponential(0.1, rate=30.0))
    for _ in range(20):
        opt.step(g)
    assert opt.state["t"] == 20


def test_a_group_that_does_not_fit_stops_all() -> None:
    p, q = np.ones(2, np.float32), np.ones(2)
    opt = fs.SGD([{"params": p}, {"params": q, "lr": 1e39}], lr=0.1)
    opt.step([np.ones(2, np.float32), np.ones(2)])  # it is of float64
    opt = fs.SGD([{"params": q}, {"params": p, "lr": 1e39}], lr=0.1)
    before = p.copy(), q.copy()
    with pytest.raises(ValueError, match=r"^params\[1\]: lr=1e\+39 is infinite"):
        opt.step([np.ones(2), np.ones(2, np.float32)])
    assert (p == before[0]).all()
    assert (q == before[1]).all()


def test_a_rate_that_is_too_large_for_another_hyperparameter() -> None:
    """Each is held by float32, and the product is not: also of a rate that is assigned later."""
    p, g = np.zeros(3, np.float32), np.ones(3, np.float32)
    opt = fs.AdamW(p, lr=1e-3, weight_decay=1e30)
    opt.step(g)
    before = p.copy()
    opt.lr = 1e9
    with pytest.raises(ValueError, match="infinite in float32"):
        opt.step(g)
    assert p.tobytes() == before.tobytes()
    assert opt.state["t"] == 1
    opt.lr = 1e-4
    opt.step(g)


def test_a_function_looks_at_each_rate() -> None:
    """One that fits was there before, with the same hyperparameters and dtype."""
    p, g, m, v = (np.ones(2, np.float32) for _ in range(4))
    options: Any = {"t": 1, "weight_decay": 1e30}
    fs.functional.adamw(p, g, m, v, lr=1e-3, **options)
    fs.functional.sgd(p, g, t=1, lr=1e-3)
    before = p.copy()
    with pytest.raises(ValueError, match="infinite in float32"):
        fs.functional.adamw(p, g, m, v, lr=1e9, **options)
    with pytest.raises(ValueError, match="lr=1e-60 is 0 in float32"):
        fs.functional.sgd(p, g, t=1, lr=1e-60)
    assert p.tobytes() == before.tobytes()
    fs.functional.sgd(p, g, t=1, lr=0.0)


def test_functions_and_bounds_are_held_to_the_dtype_too() -> None:
    p, g = np.ones(2, np.float32), np.ones(2, np.float32)
    with pytest.raises(ValueError, match=r"^lr=1e\+39 is infinite in float32"):
        fs.functional.sgd(p, g, t=1, lr=1e39)
    with pytest.raises(ValueError, match=r"^max_value=1e-60 is 0 in float32"):
        fs.SGD(p).step(g, max_value=1e-60)
    with pytest.raises(ValueError, match=r"^initial_accumulator_value=1e\+39 is infinite"):
        fs.Adagrad(p, initial_accumulator_value=1e39)
    assert (p == 1).all()


# ---- imports and the command ----


def test_other_modules_are_looked_for_as_before() -> None:
    assert importlib.util.find_spec("fusedstep.nothing_of_the_kind") is None
    with pytest.raises(ImportError, match="cannot import name 'nothing_of_the_kind'"):
        exec("from fusedstep import nothing_of_the_kind")


COMMANDS = (
    (["benchmark"], "did you mean `fusedstep bench`?"),
    (["inspct"], "did you mean `fusedstep inspect`?"),
    (["--verison"], "did you mean `--version`?"),
    (["demo", "--epoch-s", "3"], "did you mean `--epochs`?"),
    (["inspect", "adam", "--dtype", "float31"], "did you mean `float32`?"),
    (["inspect", "admaw"], "did you mean 'adamw'?"),
    (["plot-schedule", "cosin(0.1, 10)"], "did you mean `fs.schedules.cosine(0.1, steps=1000)`?"),
)


@pytest.mark.parametrize(("words", "hint"), COMMANDS, ids=lambda value: " ".join(value))
def test_the_command_says_what_was_meant(words: list[str], hint: str) -> None:
    ran = subprocess.run(
        [sys.executable, "-m", "fusedstep", *words],
        capture_output=True,
        text=True,
        env={**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, sys.path))},
        check=False,
    )
    assert ran.returncode in (1, 2)
    assert ran.stderr.rstrip().endswith(hint)
