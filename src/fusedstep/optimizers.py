"""The optimizers. Each class states its formula, with the letters of the whole package.

p parameter, g gradient, t step count from 1, α learning rate, b momentum buffer, m and v
first and second moment (RMSprop: v running mean of squares), a running mean of gradients,
s sum of squares, x running maximum of v, ema moving average of p, μ momentum, ρ RMSprop's
smoothing, β₁ β₂, ε, λ weight decay, λ₁ of L1, ηₜ what a schedule has made of α, as a factor.
"""

from contextlib import AbstractContextManager
from functools import partial
from math import isfinite, sqrt
from threading import get_ident
from typing import Annotated, Any, Literal, get_args

from fusedstep._arrays.at_once import Call
from fusedstep._checks.rates import largest
from fusedstep._checks.values import (
    betas,
    flag,
    fraction,
    non_negative,
    non_negative_or_none,
    one_of,
)
from fusedstep._checks.wording import describe
from fusedstep._core.arguments import (
    L1,
    OF_A_RUN,
    Backend,
    Capturable,
    CoupledDecay,
    Ema,
    Lr,
    Master,
    Maximize,
    Nonfinite,
    Out,
    Params,
    Rounding,
    RowSteps,
    Seed,
    StateDtype,
    Untouched,
)
from fusedstep._core.declaration import declare
from fusedstep._core.kept import refuse_low_bits
from fusedstep._core.lookahead import Ahead, Lookahead
from fusedstep._core.optimizer import Optimizer
from fusedstep._numerics.coefficients import (
    NOTHING_ASKED,
    Hyperparameters,
    Rule,
    Values,
    gradient_constants,
    momentum_rates,
)
from fusedstep._numerics.powers import correction
from fusedstep._numerics.rounding import check_rounding

__all__ = ["SGD", "Adagrad", "RMSprop", "Adam", "AdamW"]  # noqa: RUF022  as they build up

# ---- SGD ----

Momentum = Annotated[float, non_negative, 'μ, at least 0. State `"b"` exists if it is above 0.']
Dampening = Annotated[float, non_negative, "1 - d, at least 0."]
Nesterov = Annotated[
    bool,
    flag,
    """
    Take the step from where the momentum leads, as frameworks do; gradients that are
    taken there themselves, as in papers, are `lookahead`'s.
    """,
]
LrInMomentum = Annotated[
    bool,
    flag,
    """
    Let α multiply what enters the buffer and not what leaves it: steps that were taken
    at another learning rate keep theirs. With momentum=0 there is no difference.
    """,
]


def sgd_rule(hyper: Hyperparameters) -> Rule:
    if hyper["momentum"] == 0:
        return Rule("sgd")
    return Rule("nesterov" if hyper["nesterov"] else "momentum", ("b",))


def sgd_constants(hyper: Hyperparameters) -> Values:
    return {**gradient_constants(hyper), "momentum": hyper["momentum"]}


def sgd_scalars(hyper: Hyperparameters, t: int) -> Values:
    gain, lr = momentum_rates(hyper, 1 - hyper["dampening"] if t > 1 else 1.0)
    return {**NOTHING_ASKED, "lr": lr, "gain": gain}


def check_nesterov(hyper: Hyperparameters) -> None:
    if hyper["nesterov"] and (hyper["momentum"] == 0 or hyper["dampening"] != 0):
        raise ValueError(
            f"nesterov=True with momentum={hyper['momentum']!r} and "
            f"dampening={hyper['dampening']!r}; "
            "Nesterov's step needs momentum above 0 and dampening=0"
        )


@declare(
    rule=sgd_rule,
    letters={"b": "momentum"},
    constants=sgd_constants,
    scalars=sgd_scalars,
    together=check_nesterov,
)
class SGD(Optimizer):
    r"""Stochastic gradient descent, with momentum or Nesterov's momentum.

    ::

        g = ±g + λ·p + λ₁·sign(p)          only what is switched on
        b = μ·b + d·g                      d = 1 at a parameter's first step
        p = p - α·b                        nesterov: p = p - α·(g + μ·b)
                                           momentum = 0: p = p - α·g

    With `lr_in_momentum` the learning rate enters the buffer::

        b = μ·b + α·d·g
        p = p - b                          nesterov: p = p - (α·g + μ·b)

    Notes
    -----
    torch's form: the learning rate multiplies the buffer, b starts as the first gradient.
    Sutskever et al. (2013), "On the importance of initialization and momentum in deep
    learning", have it inside the buffer, v = μ·v - α·g, which is `lr_in_momentum` with
    b = -v. At a constant α both take p the same way; they part once α changes.

    Examples
    --------
    >>> import numpy as np, fusedstep as fs
    >>> p = np.array([1.0, 2.0])
    >>> opt = fs.SGD(p, lr=0.1, momentum=0.9)
    >>> _ = opt.step(np.array([1.0, -1.0]))
    >>> _ = opt.step(np.array([1.0, -1.0]))
    >>> p
    array([0.71, 2.29])
    >>> opt.state
    {'b': array([ 1.9, -1.9]), 't': 2}
    """

    _way: Lookahead | None = None

    def __init__(
        self,
        params: Params,
        lr: Lr = 1e-3,
        momentum: Momentum = 0.0,
        dampening: Dampening = 0.0,
        weight_decay: CoupledDecay = 0.0,
        nesterov: Nesterov = False,
        *,
        lr_in_momentum: LrInMomentum = False,
        maximize: Maximize = False,
        l1: L1 = 0.0,
        ema: Ema = None,
        master: Master = None,
        state_dtype: StateDtype = "float32",
        rounding: Rounding = "auto",
        seed: Seed = 0,
        untouched: Untouched = "frozen",
        row_steps: RowSteps = "own",
        out: Out = None,
        nonfinite: Nonfinite = "propagate",
        capturable: Capturable = False,
        backend: Backend = "auto",
    ) -> None:
        self._start(locals())

    def lookahead(self) -> AbstractContextManager[None]:
        """Have the parameters where the momentum leads, to take the gradient there.

        ::

            with opt.lookahead():              p - (α·μ)·b in p's place
                grads = gradient(params)
            opt.step(grads)                    b = μ·b + g;  p = p - α·b

        This is Nesterov's momentum as papers have it. α, μ and b are those of the step that
        comes; with `lr_in_momentum` p stands at p - μ·b. What `nesterov=True` steps is the
        point ahead instead: φ = p - (α·μ)·b, with gradients taken at φ itself, goes the same
        way as long as α stays what it is, and with `lr_in_momentum` whatever α does.

        On leaving, also by an exception, the parameters are put back to the very bits that
        they had, so what is written to them inside is lost. Coupled `weight_decay` and `l1`
        are the step's and see p, not the point ahead. The optimizer keeps a second copy of
        the parameters from the first use on.

        Raises
        ------
        ValueError
            If a group has momentum=0, so that there is nothing ahead, or nesterov=True.
        RuntimeError
            From `step`, `state_dict`, `load_state_dict`, `lookahead` or a copy inside of the
            block, as what they would save stands ahead, and from a block that is entered a second
            time. In any case nothing has been written, nor is anything left ahead if Ctrl-C or
            another signal interrupts.

        Notes
        -----
        The product α·μ is one scalar, taken in float64 and rounded once to the dtype of p;
        the operations p - (α·μ)·b are then the same on every backend. Sutskever, Martens,
        Dahl, Hinton (2013), "On the importance of initialization and momentum in deep
        learning", equations 3 and 4.

        Examples
        --------
        >>> import numpy as np, fusedstep as fs
        >>> p = np.array([1.0, 2.0])
        >>> opt = fs.SGD(p, lr=0.1, momentum=0.5)
        >>> _ = opt.step(2 * p)
        >>> with opt.lookahead():
        ...     ahead, g = p.copy(), 2 * p
        >>> ahead, p
        (array([0.7, 1.4]), array([0.8, 1.6]))
        >>> _ = opt.step(g)
        >>> p.round(6)
        array([0.56, 1.12])
        """
        return Ahead(self._place, self._go_ahead)

    def _go_ahead(self, back: list[Call]) -> None:
        """Move the parameters ahead, and leave the calls that undo it in `back`."""
        turn, me = self._turn, get_ident()
        while True:
            if not turn.holder and not turn.flights:
                turn.holder = me
                break
            turn.wait(me, "lookahead")
        try:
            if not self._ahead:
                self._catch_up_all()
            way = self._look_ahead()
            scalars = way.scalars()
            pins = way.keep()
            attributes = vars(self)
            leave = [partial(attributes.update, _ahead=False), partial(pins.clear)]
            undo = [*way.going_back(), *leave]
            done = [partial(attributes.update, _ahead=True), partial(back.extend, undo)]
            if self._place.at_once([*way.going(scalars), *done]):
                check_rounding()
        finally:
            turn.holder = turn.next

    def _look_ahead(self) -> Lookahead:
        """The way ahead, made anew where steps were laid out anew."""
        if self._ahead:
            self._refuse_ahead("lookahead")
        if self._capturable:
            raise RuntimeError(
                "lookahead() with capturable=True, whose t and rate the device alone knows; pass "
                "capturable=False, or nesterov=True and take the gradients at the parameters"
            )
        for index, group in enumerate(self._groups):
            if group["momentum"] == 0:
                raise ValueError(
                    f"lookahead() with momentum=0.0 in param_groups[{index}]: nothing leads "
                    "ahead; pass momentum=0.9, or take the gradients without lookahead()"
                )
            if group["nesterov"]:
                raise ValueError(
                    f"lookahead() with nesterov=True in param_groups[{index}], whose parameters "
                    "stand ahead already; pass nesterov=False, or take the gradients without "
                    "lookahead()"
                )
        self._allocate(self._rules())
        if self._way is None or not self._way.serves(self._layout):
            self._way = Lookahead(self._declaration, self._table, self._tensors, self._layout)
        return self._way


# ---- AdaGrad ----

LrDecay = Annotated[float, non_negative, "How fast αₜ falls, at least 0."]
InitialAccumulator = Annotated[
    float,
    non_negative,
    'What every element of state `"s"` starts from, at least 0.',
    OF_A_RUN,
]
Eps = Annotated[float, non_negative, "ε, at least 0."]
EpsInsideSqrt = Annotated[bool, flag, "Put ε under the root."]


def adagrad_constants(hyper: Hyperparameters) -> Values:
    return {**gradient_constants(hyper), "eps": hyper["eps"]}


def adagrad_scalars(hyper: Hyperparameters, t: int) -> Values:
    return {**NOTHING_ASKED, "lr": hyper["lr"] / (1 + (t - 1) * hyper["lr_decay"])}


def check_sum(hyper: Hyperparameters) -> None:
    why = "a sum of squares only grows, and soon by less than half of a step of what is stored"
    if hyper.get("rounding") == "nearest":
        refuse_low_bits(hyper, "s", f"{why}, so to the nearest it would stand still", ["float32"])
    refuse_low_bits(hyper, "s", f"{why}, which is too coarse in 8 bits", ["float32", "bfloat16"])


@declare(
    rule="adagrad",
    letters={"s": None},
    constants=adagrad_constants,
    scalars=adagrad_scalars,
    together=check_sum,
    nonnegative="s",
)
class Adagrad(Optimizer):
    r"""AdaGrad: each element's rate falls with the sum of its squared gradients.

    ::

        g = ±g + λ·p + λ₁·sign(p)          only what is switched on
        s = s + g²
        p = p - αₜ·g / (√s + ε)            αₜ = α / (1 + (t - 1)·lr_decay)
                                           eps_inside_sqrt: √(s + ε)

    Notes
    -----
    Duchi, Hazan, Singer (2011), "Adaptive Subgradient Methods for Online Learning and
    Stochastic Optimization", the diagonal form, with their δ as ε. `lr_decay` is torch's.

    Examples
    --------
    >>> import numpy as np, fusedstep as fs
    >>> p = np.array([1.0, 2.0])
    >>> _ = fs.Adagrad(p, lr=0.5).step(np.array([3.0, -0.01]))
    >>> p
    array([0.5, 2.5])
    """

    def __init__(
        self,
        params: Params,
        lr: Lr = 1e-2,
        lr_decay: LrDecay = 0.0,
        weight_decay: CoupledDecay = 0.0,
        initial_accumulator_value: InitialAccumulator = 0.0,
        eps: Eps = 1e-10,
        *,
        eps_inside_sqrt: EpsInsideSqrt = False,
        maximize: Maximize = False,
        l1: L1 = 0.0,
        ema: Ema = None,
        master: Master = None,
        state_dtype: StateDtype = "float32",
        rounding: Rounding = "auto",
        seed: Seed = 0,
        untouched: Untouched = "frozen",
        row_steps: RowSteps = "own",
        out: Out = None,
        nonfinite: Nonfinite = "propagate",
        capturable: Capturable = False,
        backend: Backend = "auto",
    ) -> None:
        self._start(locals())


# ---- RMSprop ----

Alpha = Annotated[float, fraction, "ρ, the smoothing, in [0, 1). The name is torch's."]
Centered = Annotated[
    bool,
    flag,
    """
    Divide by the deviation from the running mean; state `"a"` holds the mean. Where a²
    comes out above v by rounding, the root is NaN, as in torch.
    """,
]


def rmsprop_constants(hyper: Hyperparameters) -> Values:
    return {
        **gradient_constants(hyper),
        "momentum": hyper["momentum"],
        "rho": hyper["alpha"],
        "rest": 1 - hyper["alpha"],
        "eps": hyper["eps"],
    }


def rmsprop_scalars(hyper: Hyperparameters, t: int) -> Values:
    gain, lr = momentum_rates(hyper)
    return {**NOTHING_ASKED, "lr": lr, "gain": gain}


def check_centered(hyper: Hyperparameters) -> None:
    if hyper["centered"]:
        why = "with centered=True v - a² turns negative where either is rounded, and its root NaN"
        for letter in ("v", "a"):
            refuse_low_bits(hyper, letter, why, ["float32"])


@declare(
    rule="rmsprop",
    letters={"v": None, "a": "centered", "b": "momentum"},
    constants=rmsprop_constants,
    scalars=rmsprop_scalars,
    together=check_centered,
    nonnegative="v",
)
class RMSprop(Optimizer):
    r"""RMSprop: gradients over a running mean of their size.

    ::

        g = ±g + λ·p + λ₁·sign(p)          only what is switched on
        v = ρ·v + (1 - ρ)·g²
        a = ρ·a + (1 - ρ)·g                centered: v - a² in v's place below
        d = √v + ε                         eps_inside_sqrt: √(v + ε)
        b = μ·b + g/d;  p = p - α·b        momentum = 0: p = p - α·g/d
                                           lr_in_momentum: b = μ·b + α·g/d;  p = p - b

    Notes
    -----
    Tieleman, Hinton (2012), "Neural Networks for Machine Learning", lecture 6.5; centered
    as in Graves (2013), "Generating Sequences With Recurrent Neural Networks", whose ε is
    inside the root. The learning rate stands outside the momentum buffer, as in torch, or
    inside of it with `lr_in_momentum`, as in Graves and in Keras and optax.

    Examples
    --------
    >>> import numpy as np, fusedstep as fs
    >>> p = np.array([1.0, 2.0])
    >>> _ = fs.RMSprop(p, lr=0.1, alpha=0.75).step(np.array([3.0, -0.01]))
    >>> p.round(6)
    array([0.8, 2.2])
    """

    def __init__(
        self,
        params: Params,
        lr: Lr = 1e-2,
        alpha: Alpha = 0.99,
        eps: Eps = 1e-8,
        weight_decay: CoupledDecay = 0.0,
        momentum: Momentum = 0.0,
        centered: Centered = False,
        *,
        eps_inside_sqrt: EpsInsideSqrt = False,
        lr_in_momentum: LrInMomentum = False,
        maximize: Maximize = False,
        l1: L1 = 0.0,
        ema: Ema = None,
        master: Master = None,
        state_dtype: StateDtype = "float32",
        rounding: Rounding = "auto",
        seed: Seed = 0,
        untouched: Untouched = "frozen",
        row_steps: RowSteps = "own",
        out: Out = None,
        nonfinite: Nonfinite = "propagate",
        capturable: Capturable = False,
        backend: Backend = "auto",
    ) -> None:
        self._start(locals())


# ---- Adam ----

Betas = Annotated[tuple[float, float], betas, "(β₁, β₂), each in [0, 1)."]
DecayThroughMoments = Annotated[
    float, non_negative, "λ of coupled L2, at least 0: it goes through the moments. See `AdamW`."
]
Amsgrad = Annotated[bool, flag, 'Divide by the largest v so far, state `"x"`.']
EpsUncorrected = Annotated[
    bool,
    flag,
    """
    Add ε to the v that is not yet corrected for bias: it counts r times as much, so
    that the first steps are shorter where gradients are about as small as ε.
    """,
]
BiasCorrection = Annotated[bool, flag, "False: r = 1 and αₜ = α."]


def adam_constants(hyper: Hyperparameters) -> Values:
    beta1, beta2 = hyper["betas"]
    values = gradient_constants(hyper)
    values["beta1"], values["rest1"] = beta1, 1 - beta1
    values["beta2"], values["rest2"] = beta2, 1 - beta2
    return values


def adam_scalars(hyper: Hyperparameters, t: int) -> Values:
    return scalars_at_rate(hyper["lr"], hyper, t)


def scalars_at_rate(lr: float, hyper: Hyperparameters, t: int) -> Values:
    beta1, beta2 = hyper["betas"]
    correction1 = correction2 = 1.0
    if hyper["bias_correction"]:
        correction1 = correction(beta1, t)
        correction2 = correction(beta2, t)
    r, r2 = 1 / sqrt(correction2), 1 / correction2
    eps = hyper["eps"]
    if hyper["eps_uncorrected"]:
        eps *= r2 if hyper["eps_inside_sqrt"] else r
    return {**NOTHING_ASKED, "lr": lr / correction1, "r": r, "r2": r2, "eps": eps}


@declare(
    rule="adam",
    letters={"m": None, "v": None, "x": "amsgrad"},
    constants=adam_constants,
    scalars=adam_scalars,
    nonnegative="vx",
)
class Adam(Optimizer):
    r"""Adam, with weight decay as coupled L2.

    ::

        g = ±g + λ·p + λ₁·sign(p)          only what is switched on
        m = β₁·m + (1 - β₁)·g
        v = β₂·v + (1 - β₂)·g²
        x = max(x, v)                      amsgrad: x in v's place below
        d = √v·r + ε                       r = 1/√(1 - β₂ᵗ)
                                           eps_inside_sqrt: √(v·r² + ε)
                                           eps_uncorrected: (√v + ε)·r, or √(v + ε)·r
        p = p - αₜ·m/d                     αₜ = α/(1 - β₁ᵗ)

    Notes
    -----
    Kingma, Ba (2015), "Adam: A Method for Stochastic Optimization", Algorithm 1, with the
    corrections moved into αₜ and r, and with `eps_uncorrected` the rearranged form at the
    end of their section 2, whose ε̂ is that ε; amsgrad as Reddi, Kale, Kumar (2018), "On the
    Convergence of Adam and Beyond", but corrected for bias, as in torch.

    Examples
    --------
    >>> import numpy as np, fusedstep as fs
    >>> p = np.array([1.0, 2.0])
    >>> _ = fs.Adam(p, lr=0.1).step(np.array([3.0, -0.01]))
    >>> p.round(6)
    array([0.9, 2.1])
    """

    def __init__(
        self,
        params: Params,
        lr: Lr = 1e-3,
        betas: Betas = (0.9, 0.999),
        eps: Eps = 1e-8,
        weight_decay: DecayThroughMoments = 0.0,
        amsgrad: Amsgrad = False,
        *,
        eps_inside_sqrt: EpsInsideSqrt = False,
        eps_uncorrected: EpsUncorrected = False,
        bias_correction: BiasCorrection = True,
        maximize: Maximize = False,
        l1: L1 = 0.0,
        ema: Ema = None,
        master: Master = None,
        state_dtype: StateDtype = "float32",
        rounding: Rounding = "auto",
        seed: Seed = 0,
        untouched: Untouched = "frozen",
        row_steps: RowSteps = "own",
        out: Out = None,
        nonfinite: Nonfinite = "propagate",
        capturable: Capturable = False,
        backend: Backend = "auto",
    ) -> None:
        self._start(locals())


# ---- AdamW ----

DecoupledDecay = Annotated[
    float, non_negative, "λ, at least 0: it acts on p alone and never enters the moments."
]
Scales = Literal["lr", "schedule"]
DecayScale = Annotated[
    Scales,
    partial(one_of, choices=get_args(Scales)),
    """
    `"lr"`: decay by α·λ, so that it follows the learning rate in full. `"schedule"`:
    decay by ηₜ·λ, where ηₜ is what a schedule has made of the learning rate: the `lr`
    of now over the `initial_lr` of the group.
    """,
]
InitialLr = Annotated[
    float | None,
    non_negative_or_none,
    """
    Where ηₜ is 1, above 0; for `decay_scale="schedule"` alone. None: the `lr` given here,
    of a schedule its base rate, `schedule.lr`. With a function of your own it must be
    given. An `lr` that is assigned later leaves it as it is.
    """,
]


def adamw_constants(hyper: Hyperparameters) -> Values:
    values = adam_constants(hyper)
    values["l2"] = 0.0
    return values


def adamw_scalars(hyper: Hyperparameters, t: int) -> Values:
    lr = hyper["lr"]  # read once: another thread may assign it on the way
    rate = lr if hyper["decay_scale"] == "lr" else lr / hyper["initial_lr"]
    values = scalars_at_rate(lr, hyper, t)
    values["decay"] = 1 - rate * hyper["weight_decay"]
    return values


def decays_by_schedule(hyper: Hyperparameters) -> bool:
    return bool(hyper["decay_scale"] == "schedule")


def check_decay_scale(hyper: Hyperparameters) -> None:
    if not decays_by_schedule(hyper):
        return
    lr, initial_lr = largest(hyper["lr"]), hyper["initial_lr"]
    if initial_lr is None:
        raise ValueError(
            f"decay_scale='schedule' with lr={describe(lr)} and initial_lr=None; the schedule's "
            "multiplier is lr / initial_lr, so pass as initial_lr the rate where it is 1"
        )
    if initial_lr == 0 or not (callable(lr) or isfinite(lr / initial_lr)):
        raise ValueError(
            f"decay_scale='schedule' with lr={lr!r} and initial_lr={initial_lr!r}; the schedule's "
            "multiplier is lr / initial_lr, so start from an lr above 0"
        )


@declare(
    rule="adamw",
    letters={"m": None, "v": None, "x": "amsgrad"},
    constants=adamw_constants,
    scalars=adamw_scalars,
    together=check_decay_scale,
    rate_bound=decays_by_schedule,
    nonnegative="vx",
)
class AdamW(Optimizer):
    r"""Adam with decoupled weight decay.

    ::

        g = ±g + λ₁·sign(p)                only what is switched on
        p = p·(1 - α·λ)                    decay_scale="schedule": p·(1 - ηₜ·λ)
        m = β₁·m + (1 - β₁)·g
        v = β₂·v + (1 - β₂)·g²
        x = max(x, v)                      amsgrad: x in v's place below
        d = √v·r + ε                       r = 1/√(1 - β₂ᵗ)
                                           eps_inside_sqrt: √(v·r² + ε)
                                           eps_uncorrected: (√v + ε)·r, or √(v + ε)·r
        p = p - αₜ·m/d                     αₜ = α/(1 - β₁ᵗ)

    Notes
    -----
    Loshchilov, Hutter (2019), "Decoupled Weight Decay Regularization". Their Algorithm 2
    decays by ηₜ·λ, which is `decay_scale="schedule"`; the default is torch's, where the
    same strength takes a λ that is 1/α times theirs.

    Examples
    --------
    >>> import numpy as np, fusedstep as fs
    >>> p = np.array([1.0, 2.0])
    >>> _ = fs.AdamW(p, lr=0.1, weight_decay=0.5).step(np.array([3.0, -0.01]))
    >>> p.round(6)
    array([0.85, 2.  ])
    """

    def __init__(
        self,
        params: Params,
        lr: Lr = 1e-3,
        betas: Betas = (0.9, 0.999),
        eps: Eps = 1e-8,
        weight_decay: DecoupledDecay = 1e-2,
        amsgrad: Amsgrad = False,
        *,
        eps_inside_sqrt: EpsInsideSqrt = False,
        eps_uncorrected: EpsUncorrected = False,
        bias_correction: BiasCorrection = True,
        decay_scale: DecayScale = "lr",
        initial_lr: InitialLr = None,
        maximize: Maximize = False,
        l1: L1 = 0.0,
        ema: Ema = None,
        master: Master = None,
        state_dtype: StateDtype = "float32",
        rounding: Rounding = "auto",
        seed: Seed = 0,
        untouched: Untouched = "frozen",
        row_steps: RowSteps = "own",
        out: Out = None,
        nonfinite: Nonfinite = "propagate",
        capturable: Capturable = False,
        backend: Backend = "auto",
    ) -> None:
        self._start(locals())


def __getattr__(name: str) -> Any:
    from fusedstep._names import missing

    raise missing(__name__, name)
