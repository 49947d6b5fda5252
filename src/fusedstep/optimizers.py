"""The optimizers. Each class states its formula, with the letters of the whole package.

p parameter, g gradient, t step count from 1, α learning rate, b momentum buffer, m and v
first and second moment (RMSprop: v running mean of squares), a running mean of gradients,
s sum of squares, x running maximum of v, ema moving average of p, μ momentum, ρ RMSprop's
smoothing, β₁ β₂, ε, λ weight decay, λ₁ of L1, ηₜ what a schedule has made of α, as a factor.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, Literal

from fusedstep._checks.values import Rate
from fusedstep._core.declaration import Declaration
from fusedstep._core.lookahead import Lookahead
from fusedstep._core.optimizer import Optimizer
from fusedstep._numerics import coefficients


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

    Parameters
    ----------
    params
        What to update, see `Optimizer`.
    lr
        α, the learning rate, at least 0: a number, or a function of t such as a schedule of
        `fusedstep.schedules`.
    momentum
        μ, at least 0. State `"b"` exists if it is above 0.
    dampening
        1 - d, at least 0.
    weight_decay
        λ of coupled L2, at least 0.
    nesterov
        Take the step from where the momentum leads, as frameworks do; gradients that are
        taken there themselves, as in papers, are `lookahead`'s.
    lr_in_momentum
        Let α multiply what enters the buffer and not what leaves it: steps that were taken
        at another learning rate keep theirs. With momentum=0 there is no difference.
    maximize
        Ascend: -g in g's place.
    l1
        λ₁ of L1, at least 0.
    ema
        What a moving average of the parameters keeps at each step, in [0, 1); None for no
        average. State `"ema"`, see `Optimizer`.
    nonfinite
        What to do about gradients with NaN or infinity, see `Optimizer`.
    backend
        `"auto"`, or the name of an engine; `fusedstep.info()` lists them.

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

    declaration = Declaration(
        coefficients.sgd_rule, coefficients.sgd_scalars, coefficients.sgd_constants, "b"
    )

    _way: Lookahead | None = None

    def __init__(
        self,
        params: Any,
        lr: Rate = 1e-3,
        momentum: float = 0.0,
        dampening: float = 0.0,
        weight_decay: float = 0.0,
        nesterov: bool = False,
        *,
        lr_in_momentum: bool = False,
        maximize: bool = False,
        l1: float = 0.0,
        ema: float | None = None,
        nonfinite: Literal["propagate", "skip", "raise"] = "propagate",
        backend: str = "auto",
    ) -> None:
        hyperparameters = {
            "lr": lr,
            "momentum": momentum,
            "dampening": dampening,
            "weight_decay": weight_decay,
            "nesterov": nesterov,
            "lr_in_momentum": lr_in_momentum,
            "maximize": maximize,
            "l1": l1,
            "ema": ema,
        }
        super().__init__(params, backend, nonfinite, hyperparameters)

    @contextmanager
    def lookahead(self) -> Iterator[None]:
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
            block, as what they would save stands ahead. In either case nothing has been written.

        Notes
        -----
        The product α·μ is one scalar, taken in float64 and rounded once to the dtype of p;
        the operations p - (α·μ)·b are then the same on every engine. Sutskever, Martens,
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
        if self._ahead:
            self._refuse_ahead("lookahead")
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
        way = self._look_ahead()
        scalars = way.scalars()
        way.keep()
        self._ahead = True
        try:
            way.go(scalars)
            yield
        finally:
            way.back()
            self._ahead = False

    def _look_ahead(self) -> Lookahead:
        """The way ahead, made anew where steps were laid out anew."""
        self._allocate(self._rules())
        if self._way is None or self._layout is None or self._way.layout is not self._layout:
            self._way = Lookahead(self.declaration, self._table, self._tensors, self._layout)
        return self._way


class Adagrad(Optimizer):
    r"""AdaGrad: each element's rate falls with the sum of its squared gradients.

    ::

        g = ±g + λ·p + λ₁·sign(p)          only what is switched on
        s = s + g²
        p = p - αₜ·g / (√s + ε)            αₜ = α / (1 + (t - 1)·lr_decay)
                                           eps_inside_sqrt: √(s + ε)

    Parameters
    ----------
    params
        What to update, see `Optimizer`.
    lr
        α, the learning rate, at least 0: a number, or a function of t such as a schedule of
        `fusedstep.schedules`.
    lr_decay
        How fast αₜ falls, at least 0.
    weight_decay
        λ of coupled L2, at least 0.
    initial_accumulator_value
        What every element of state `"s"` starts from, at least 0.
    eps
        ε, at least 0.
    eps_inside_sqrt
        Put ε under the root.
    maximize
        Ascend: -g in g's place.
    l1
        λ₁ of L1, at least 0.
    ema
        What a moving average of the parameters keeps at each step, in [0, 1); None for no
        average. State `"ema"`, see `Optimizer`.
    nonfinite
        What to do about gradients with NaN or infinity, see `Optimizer`.
    backend
        `"auto"`, or the name of an engine; `fusedstep.info()` lists them.

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

    declaration = Declaration(
        coefficients.adagrad_rule, coefficients.adagrad_scalars, coefficients.adagrad_constants, "s"
    )

    def __init__(
        self,
        params: Any,
        lr: Rate = 1e-2,
        lr_decay: float = 0.0,
        weight_decay: float = 0.0,
        initial_accumulator_value: float = 0.0,
        eps: float = 1e-10,
        *,
        eps_inside_sqrt: bool = False,
        maximize: bool = False,
        l1: float = 0.0,
        ema: float | None = None,
        nonfinite: Literal["propagate", "skip", "raise"] = "propagate",
        backend: str = "auto",
    ) -> None:
        hyperparameters = {
            "lr": lr,
            "lr_decay": lr_decay,
            "weight_decay": weight_decay,
            "initial_accumulator_value": initial_accumulator_value,
            "eps": eps,
            "eps_inside_sqrt": eps_inside_sqrt,
            "maximize": maximize,
            "l1": l1,
            "ema": ema,
        }
        super().__init__(params, backend, nonfinite, hyperparameters)


class RMSprop(Optimizer):
    r"""RMSprop: gradients over a running mean of their size.

    ::

        g = ±g + λ·p + λ₁·sign(p)          only what is switched on
        v = ρ·v + (1 - ρ)·g²
        a = ρ·a + (1 - ρ)·g                centered: v - a² in v's place below
        d = √v + ε                         eps_inside_sqrt: √(v + ε)
        b = μ·b + g/d;  p = p - α·b        momentum = 0: p = p - α·g/d
                                           lr_in_momentum: b = μ·b + α·g/d;  p = p - b

    Parameters
    ----------
    params
        What to update, see `Optimizer`.
    lr
        α, the learning rate, at least 0: a number, or a function of t such as a schedule of
        `fusedstep.schedules`.
    alpha
        ρ, the smoothing, in [0, 1). The name is torch's.
    eps
        ε, at least 0.
    weight_decay
        λ of coupled L2, at least 0.
    momentum
        μ, at least 0. State `"b"` exists if it is above 0.
    centered
        Divide by the deviation from the running mean; state `"a"` holds the mean. Where a²
        comes out above v by rounding, the root is NaN, as in torch.
    eps_inside_sqrt
        Put ε under the root.
    lr_in_momentum
        Let α multiply what enters the buffer and not what leaves it: steps that were taken
        at another learning rate keep theirs. With momentum=0 there is no difference.
    maximize
        Ascend: -g in g's place.
    l1
        λ₁ of L1, at least 0.
    ema
        What a moving average of the parameters keeps at each step, in [0, 1); None for no
        average. State `"ema"`, see `Optimizer`.
    nonfinite
        What to do about gradients with NaN or infinity, see `Optimizer`.
    backend
        `"auto"`, or the name of an engine; `fusedstep.info()` lists them.

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

    declaration = Declaration(
        coefficients.rmsprop_rule,
        coefficients.rmsprop_scalars,
        coefficients.rmsprop_constants,
        "vab",
    )

    def __init__(
        self,
        params: Any,
        lr: Rate = 1e-2,
        alpha: float = 0.99,
        eps: float = 1e-8,
        weight_decay: float = 0.0,
        momentum: float = 0.0,
        centered: bool = False,
        *,
        eps_inside_sqrt: bool = False,
        lr_in_momentum: bool = False,
        maximize: bool = False,
        l1: float = 0.0,
        ema: float | None = None,
        nonfinite: Literal["propagate", "skip", "raise"] = "propagate",
        backend: str = "auto",
    ) -> None:
        hyperparameters = {
            "lr": lr,
            "alpha": alpha,
            "eps": eps,
            "weight_decay": weight_decay,
            "momentum": momentum,
            "centered": centered,
            "eps_inside_sqrt": eps_inside_sqrt,
            "lr_in_momentum": lr_in_momentum,
            "maximize": maximize,
            "l1": l1,
            "ema": ema,
        }
        super().__init__(params, backend, nonfinite, hyperparameters)


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

    Parameters
    ----------
    params
        What to update, see `Optimizer`.
    lr
        α, the learning rate, at least 0: a number, or a function of t such as a schedule of
        `fusedstep.schedules`.
    betas
        (β₁, β₂), each in [0, 1).
    eps
        ε, at least 0.
    weight_decay
        λ of coupled L2, at least 0: it goes through the moments. See `AdamW`.
    amsgrad
        Divide by the largest v so far, state `"x"`.
    eps_inside_sqrt
        Put ε under the root.
    eps_uncorrected
        Add ε to the v that is not yet corrected for bias: it counts r times as much, so
        that the first steps are shorter where gradients are about as small as ε.
    bias_correction
        False: r = 1 and αₜ = α.
    maximize
        Ascend: -g in g's place.
    l1
        λ₁ of L1, at least 0.
    ema
        What a moving average of the parameters keeps at each step, in [0, 1); None for no
        average. State `"ema"`, see `Optimizer`.
    nonfinite
        What to do about gradients with NaN or infinity, see `Optimizer`.
    backend
        `"auto"`, or the name of an engine; `fusedstep.info()` lists them.

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

    declaration = Declaration(
        coefficients.adam_rule, coefficients.adam_scalars, coefficients.adam_constants, "mvx"
    )

    def __init__(
        self,
        params: Any,
        lr: Rate = 1e-3,
        betas: tuple[float, float] = (0.9, 0.999),
        eps: float = 1e-8,
        weight_decay: float = 0.0,
        amsgrad: bool = False,
        *,
        eps_inside_sqrt: bool = False,
        eps_uncorrected: bool = False,
        bias_correction: bool = True,
        maximize: bool = False,
        l1: float = 0.0,
        ema: float | None = None,
        nonfinite: Literal["propagate", "skip", "raise"] = "propagate",
        backend: str = "auto",
    ) -> None:
        hyperparameters = {
            "lr": lr,
            "betas": betas,
            "eps": eps,
            "weight_decay": weight_decay,
            "amsgrad": amsgrad,
            "eps_inside_sqrt": eps_inside_sqrt,
            "eps_uncorrected": eps_uncorrected,
            "bias_correction": bias_correction,
            "maximize": maximize,
            "l1": l1,
            "ema": ema,
        }
        super().__init__(params, backend, nonfinite, hyperparameters)


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

    Parameters
    ----------
    params
        What to update, see `Optimizer`.
    lr
        α, the learning rate, at least 0: a number, or a function of t such as a schedule of
        `fusedstep.schedules`.
    betas
        (β₁, β₂), each in [0, 1).
    eps
        ε, at least 0.
    weight_decay
        λ, at least 0: it acts on p alone and never enters the moments.
    amsgrad
        Divide by the largest v so far, state `"x"`.
    eps_inside_sqrt
        Put ε under the root.
    eps_uncorrected
        Add ε to the v that is not yet corrected for bias: it counts r times as much, so
        that the first steps are shorter where gradients are about as small as ε.
    bias_correction
        False: r = 1 and αₜ = α.
    decay_scale
        `"lr"`: decay by α·λ, so that it follows the learning rate in full. `"schedule"`:
        decay by ηₜ·λ, where ηₜ is what a schedule has made of the learning rate: the `lr`
        of now over the `initial_lr` of the group.
    initial_lr
        Where ηₜ is 1, above 0; for `decay_scale="schedule"` alone. None: the `lr` given here,
        of a schedule its base rate, `schedule.lr`. With a function of your own it must be
        given. An `lr` that is assigned later leaves it as it is.
    maximize
        Ascend: -g in g's place.
    l1
        λ₁ of L1, at least 0.
    ema
        What a moving average of the parameters keeps at each step, in [0, 1); None for no
        average. State `"ema"`, see `Optimizer`.
    nonfinite
        What to do about gradients with NaN or infinity, see `Optimizer`.
    backend
        `"auto"`, or the name of an engine; `fusedstep.info()` lists them.

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

    declaration = Declaration(
        coefficients.adamw_rule, coefficients.adamw_scalars, coefficients.adamw_constants, "mvx"
    )

    def __init__(
        self,
        params: Any,
        lr: Rate = 1e-3,
        betas: tuple[float, float] = (0.9, 0.999),
        eps: float = 1e-8,
        weight_decay: float = 1e-2,
        amsgrad: bool = False,
        *,
        eps_inside_sqrt: bool = False,
        eps_uncorrected: bool = False,
        bias_correction: bool = True,
        decay_scale: Literal["lr", "schedule"] = "lr",
        initial_lr: float | None = None,
        maximize: bool = False,
        l1: float = 0.0,
        ema: float | None = None,
        nonfinite: Literal["propagate", "skip", "raise"] = "propagate",
        backend: str = "auto",
    ) -> None:
        hyperparameters = {
            "lr": lr,
            "betas": betas,
            "eps": eps,
            "weight_decay": weight_decay,
            "amsgrad": amsgrad,
            "eps_inside_sqrt": eps_inside_sqrt,
            "eps_uncorrected": eps_uncorrected,
            "bias_correction": bias_correction,
            "decay_scale": decay_scale,
            "initial_lr": initial_lr,
            "maximize": maximize,
            "l1": l1,
            "ema": ema,
        }
        super().__init__(params, backend, nonfinite, hyperparameters)
