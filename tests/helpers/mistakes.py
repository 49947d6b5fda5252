"""Mistakes of newcomers: what they type, what the error says, and the remedy, which works.

Each is run by tests/test_mistakes.py, and the table of docs/reference/mistakes.md is made of them.
The programs start from `params`, `grads` and `opt`, as trying.py makes them.
"""

from __future__ import annotations

import re
from typing import NamedTuple


class Mistake(NamedTuple):
    """A mistake: lines that are right, the one that is not, its error, and the remedy."""

    code: str
    """The line that raises."""
    error: str
    """The type of the error."""
    message: str
    """The message; `...` stands for any text."""
    remedy: str
    """The line that works instead; {0}, {1} are the pieces of code that the message proposes."""
    then: str
    """An expression that is true after the remedy."""
    setup: str = ""
    """The lines before it."""
    needs: str = ""
    """A package that these lines import."""


def pieces(message: str) -> list[str]:
    """The code that a message proposes."""
    return re.findall(r"`([^`]+)`", message)


def fitted(remedy: str, message: str) -> str:
    """A remedy with the code of a message in the places that are open."""
    for place, piece in enumerate(pieces(message)):
        remedy = remedy.replace(f"{{{place}}}", piece)
    return remedy


MAKING = [
    Mistake(
        "fs.AdamW(params, learning_rate=0.1)",
        "TypeError",
        "AdamW() got an unexpected keyword argument 'learning_rate'; pass `lr=0.1`",
        "opt = fs.AdamW(params, {0})",
        "opt.lr == 0.1",
    ),
    Mistake(
        "fs.AdamW(params, learing_rate=0.1)",
        "TypeError",
        "AdamW() got an unexpected keyword argument 'learing_rate'; did you mean `lr=0.1`?",
        "opt = fs.AdamW(params, {0})",
        "opt.lr == 0.1",
    ),
    Mistake(
        "fs.SGD(params, eta=0.1)",
        "TypeError",
        "SGD() got an unexpected keyword argument 'eta'; pass `lr=0.1`",
        "opt = fs.SGD(params, {0})",
        "opt.lr == 0.1",
    ),
    Mistake(
        "fs.SGD(params, step_size=0.1)",
        "TypeError",
        "SGD() got an unexpected keyword argument 'step_size'; pass `lr=0.1`",
        "opt = fs.SGD(params, {0})",
        "opt.lr == 0.1",
    ),
    Mistake(
        "fs.AdamW(params, LR=0.1)",
        "TypeError",
        "AdamW() got an unexpected keyword argument 'LR'; did you mean `lr=0.1`?",
        "opt = fs.AdamW(params, {0})",
        "opt.lr == 0.1",
    ),
    Mistake(
        "fs.Adam(params, beta1=0.8, beta2=0.99)",
        "TypeError",
        "Adam() got an unexpected keyword argument 'beta1'; pass `betas=(0.8, 0.99)`",
        "opt = fs.Adam(params, {0})",
        "opt.param_groups[0]['betas'] == (0.8, 0.99)",
    ),
    Mistake(
        "fs.Adam(params, beta_1=0.8)",
        "TypeError",
        "Adam() got an unexpected keyword argument 'beta_1'; pass `betas=(0.8, 0.999)`",
        "opt = fs.Adam(params, {0})",
        "opt.param_groups[0]['betas'] == (0.8, 0.999)",
    ),
    Mistake(
        "fs.Adam(params, b2=0.99)",
        "TypeError",
        "Adam() got an unexpected keyword argument 'b2'; pass `betas=(0.9, 0.99)`",
        "opt = fs.Adam(params, {0})",
        "opt.param_groups[0]['betas'] == (0.9, 0.99)",
    ),
    Mistake(
        "fs.AdamW(params, epsilon=1e-06)",
        "TypeError",
        "AdamW() got an unexpected keyword argument 'epsilon'; pass `eps=1e-06`",
        "opt = fs.AdamW(params, {0})",
        "opt.param_groups[0]['eps'] == 1e-06",
    ),
    Mistake(
        "fs.AdamW(params, weight_decy=0.1)",
        "TypeError",
        (
            "AdamW() got an unexpected keyword argument 'weight_decy'; did you mean "
            "`weight_decay=0.1`?"
        ),
        "opt = fs.AdamW(params, {0})",
        "opt.param_groups[0]['weight_decay'] == 0.1",
    ),
    Mistake(
        "fs.Adam(params, L2=0.1)",
        "TypeError",
        "Adam() got an unexpected keyword argument 'L2'; pass `weight_decay=0.1`",
        "opt = fs.Adam(params, {0})",
        "opt.param_groups[0]['weight_decay'] == 0.1",
    ),
    Mistake(
        "fs.RMSprop(params, rho=0.9)",
        "TypeError",
        "RMSprop() got an unexpected keyword argument 'rho'; pass `alpha=0.9`",
        "opt = fs.RMSprop(params, {0})",
        "opt.param_groups[0]['alpha'] == 0.9",
    ),
    Mistake(
        "fs.SGD(params, alpha=0.1)",
        "TypeError",
        "SGD() got an unexpected keyword argument 'alpha'; pass `lr=0.1`",
        "opt = fs.SGD(params, {0})",
        "opt.lr == 0.1",
    ),
    Mistake(
        "fs.SGD(params, mom=0.9)",
        "TypeError",
        "SGD() got an unexpected keyword argument 'mom'; pass `momentum=0.9`",
        "opt = fs.SGD(params, {0})",
        "opt.param_groups[0]['momentum'] == 0.9",
    ),
    Mistake(
        "fs.Adam(params, momentum=0.9)",
        "TypeError",
        (
            "Adam() got an unexpected keyword argument 'momentum'; of SGD, RMSprop: "
            "`fs.SGD(params, momentum=0.9)`"
        ),
        "opt = {0}",
        "opt.param_groups[0]['momentum'] == 0.9",
    ),
    Mistake(
        "fs.Adam(params, nesterov=True)",
        "TypeError",
        (
            "Adam() got an unexpected keyword argument 'nesterov'; "
            "`fs.rules.NAdam(params)` is Adam with Nesterov's momentum"
        ),
        "opt = {0}",
        "isinstance(opt, fs.rules.NAdam)",
    ),
    Mistake(
        "fs.SGD(params, nesterov=True)",
        "ValueError",
        (
            "nesterov=True with momentum=0.0 and dampening=0.0; Nesterov's step needs "
            "momentum above 0 and dampening=0"
        ),
        "opt = fs.SGD(params, momentum=0.9, nesterov=True)",
        "opt.param_groups[0]['nesterov']",
    ),
    Mistake(
        "fs.SGD(params, amsgrad=True)",
        "TypeError",
        (
            "SGD() got an unexpected keyword argument 'amsgrad'; of Adam, AdamW: "
            "`fs.Adam(params, amsgrad=True)`"
        ),
        "opt = {0}",
        "'x' in opt.state['w']",
    ),
    Mistake(
        "fs.AdamW(params, clip=1.0)",
        "TypeError",
        (
            "AdamW() got an unexpected keyword argument 'clip'; it is an argument of each "
            "step: `opt.step(grads, max_norm=1.0)`"
        ),
        "{0}",
        "opt.step(grads, max_norm=1.0).clip < 1",
    ),
    Mistake(
        "fs.AdamW(params, clipnorm=1.0)",
        "TypeError",
        (
            "AdamW() got an unexpected keyword argument 'clipnorm'; it is an argument of "
            "each step: `opt.step(grads, max_norm=1.0)`"
        ),
        "{0}",
        "opt.step(grads, max_norm=1.0).clip < 1",
    ),
    Mistake(
        "fs.AdamW(params, clipvalue=0.5)",
        "TypeError",
        (
            "AdamW() got an unexpected keyword argument 'clipvalue'; it is an argument of "
            "each step: `opt.step(grads, max_value=0.5)`"
        ),
        "{0}",
        "opt.state['w']['t'] == 1",
    ),
    Mistake(
        "fs.AdamW(params, loss_scale=1024.0)",
        "TypeError",
        (
            "AdamW() got an unexpected keyword argument 'loss_scale'; it is an argument of "
            "each step: `opt.step(grads, scale=1024.0)`"
        ),
        "{0}",
        "opt.state['w']['t'] == 1",
    ),
    Mistake(
        "fs.Adam(params, fused=True)",
        "TypeError",
        "Adam() got an unexpected keyword argument 'fused'; leave it out: every step is fused",
        "opt = fs.Adam(params)",
        "opt.lr == 0.001",
    ),
    Mistake(
        "fs.Adam(params, use_ema=True)",
        "TypeError",
        (
            "Adam() got an unexpected keyword argument 'use_ema'; leave it out: "
            "`ema=0.999` keeps an average"
        ),
        "opt = fs.Adam(params, {0})",
        "'ema' in opt.state['w']",
    ),
    Mistake(
        "fs.AdamW(params, ema_decay=0.99)",
        "TypeError",
        "AdamW() got an unexpected keyword argument 'ema_decay'; pass `ema=0.99`",
        "opt = fs.AdamW(params, {0})",
        "'ema' in opt.state['w']",
    ),
    Mistake(
        "fs.AdamW(params, device='cpu')",
        "TypeError",
        "AdamW() got an unexpected keyword argument 'device'; pass `backend='auto'`",
        "opt = fs.AdamW(params, {0})",
        "opt.lr == 0.001",
    ),
    Mistake(
        "fs.AdamW(params, backend='numby')",
        "ValueError",
        (
            "backend='numby' is unknown; pass one of 'auto', 'c', 'numba', 'cuda', "
            "'numpy'; did you mean `backend='numpy'`?"
        ),
        "opt = fs.AdamW(params, {0})",
        "opt.lr == 0.001",
    ),
    Mistake(
        "fs.AdamW(params, backend='cpu')",
        "ValueError",
        (
            "backend='cpu' is unknown; pass one of 'auto', 'c', 'numba', 'cuda', 'numpy'; "
            "did you mean `backend='auto'`?"
        ),
        "opt = fs.AdamW(params, {0})",
        "opt.lr == 0.001",
    ),
    Mistake(
        "fs.AdamW(params, nonfinite='skp')",
        "ValueError",
        (
            "nonfinite='skp' (str); pass one of 'propagate', 'skip', 'raise'; did you mean "
            "`nonfinite='skip'`?"
        ),
        "opt = fs.AdamW(params, {0})",
        "opt.lr == 0.001",
    ),
    Mistake(
        "fs.AdamW(params, decay_scale='scheduled')",
        "ValueError",
        (
            "decay_scale='scheduled'; pass one of 'lr', 'schedule'; did you mean "
            "`decay_scale='schedule'`?"
        ),
        "opt = fs.AdamW(params, {0})",
        "opt.param_groups[0]['decay_scale'] == 'schedule'",
    ),
    Mistake(
        "fs.AdamW(model_parameters=params)",
        "TypeError",
        (
            "AdamW() got an unexpected keyword argument 'model_parameters'; pass the "
            "arrays first, as `fs.AdamW(params)`"
        ),
        "opt = {0}",
        "opt.lr == 0.001",
    ),
    Mistake(
        "fs.AdamW(lr=0.1)",
        "TypeError",
        (
            "AdamW() lacks 'params', the arrays that it updates; pass them first, as "
            "`fs.AdamW(params)`"
        ),
        "opt = {0}",
        "opt.lr == 0.001",
    ),
    Mistake(
        "fs.SGD(params, 0.1, 0.9, 0.0, 0.0, False, True)",
        "TypeError",
        (
            "SGD(): too many positional arguments, 7 for 6; pass others by name, as "
            "`lr_in_momentum=False`: 'lr_in_momentum', 'maximize', 'l1', 'ema', 'master', "
            "'state_dtype', 'rounding', 'seed' and 6 more"
        ),
        "opt = fs.SGD(params, 0.1, 0.9, {0})",
        "opt.lr == 0.1",
    ),
    Mistake(
        "fs.Optimizer(params)",
        "TypeError",
        (
            "Optimizer has no rule of its own; use one of the optimizers that have, as "
            "`fusedstep.AdamW(params)`"
        ),
        "import fusedstep; opt = {0}",
        "isinstance(opt, fs.AdamW)",
    ),
    Mistake(
        "fs.rules.Lion(params, learning_rate=0.1)",
        "TypeError",
        "Lion() got an unexpected keyword argument 'learning_rate'; pass `lr=0.1`",
        "opt = fs.rules.Lion(params, {0})",
        "opt.lr == 0.1",
    ),
    Mistake(
        "fs.rules.Adan(params, betas=(0.9, 0.999))",
        "TypeError",
        "betas=(0.9, 0.999) (tuple); pass 3 numbers, for instance (0.98, 0.92, 0.99)",
        "opt = fs.rules.Adan(params, betas=(0.98, 0.92, 0.99))",
        "opt.lr == 0.001",
    ),
    Mistake(
        "fs.AdamW(params, device='cuda:0')",
        "TypeError",
        "AdamW() got an unexpected keyword argument 'device'; pass `backend='cuda'`",
        "opt = fs.AdamW(params)",
        "opt.lr == 0.001",
    ),
    Mistake(
        "fs.AdamW(params, backnd='cpu')",
        "TypeError",
        "AdamW() got an unexpected keyword argument 'backnd'; did you mean `backend='auto'`?",
        "opt = fs.AdamW(params, {0})",
        "opt.lr == 0.001",
    ),
    Mistake(
        "fs.AdamW(params, momentun=0.9)",
        "TypeError",
        (
            "AdamW() got an unexpected keyword argument 'momentun'; of SGD, RMSprop: "
            "`fs.SGD(params, momentum=0.9)`"
        ),
        "opt = {0}",
        "opt.param_groups[0]['momentum'] == 0.9",
    ),
    Mistake(
        "fs.AdamW(params, dampning=0.5)",
        "TypeError",
        (
            "AdamW() got an unexpected keyword argument 'dampning'; of SGD: `fs.SGD(params, "
            "dampening=0.5)`"
        ),
        "opt = {0}",
        "opt.param_groups[0]['dampening'] == 0.5",
    ),
    Mistake(
        "fs.AdamW(params, nestrov=True)",
        "TypeError",
        (
            "AdamW() got an unexpected keyword argument 'nestrov'; `fs.rules.NAdam(params)` is "
            "Adam with Nesterov's momentum"
        ),
        "opt = {0}",
        "isinstance(opt, fs.rules.NAdam)",
    ),
    Mistake(
        "fs.AdamW(params, centred=True)",
        "TypeError",
        (
            "AdamW() got an unexpected keyword argument 'centred'; of RMSprop: "
            "`fs.RMSprop(params, centered=True)`"
        ),
        "opt = {0}",
        "'a' in opt.state['w']",
    ),
    Mistake(
        "fs.AdamW(params, lr_dacay=0.1)",
        "TypeError",
        (
            "AdamW() got an unexpected keyword argument 'lr_dacay'; of Adagrad: "
            "`fs.Adagrad(params, lr_decay=0.1)`"
        ),
        "opt = {0}",
        "opt.param_groups[0]['lr_decay'] == 0.1",
    ),
    Mistake(
        "fs.AdamW(params, rho=0.9)",
        "TypeError",
        (
            "AdamW() got an unexpected keyword argument 'rho'; of RMSprop: `fs.RMSprop(params, "
            "alpha=0.9)`"
        ),
        "opt = {0}",
        "opt.param_groups[0]['alpha'] == 0.9",
    ),
    Mistake(
        "fs.AdamW(params, mu=0.9)",
        "TypeError",
        (
            "AdamW() got an unexpected keyword argument 'mu'; of SGD, RMSprop: `fs.SGD(params, "
            "momentum=0.9)`"
        ),
        "opt = {0}",
        "opt.param_groups[0]['momentum'] == 0.9",
    ),
    Mistake(
        "fs.Adam(params, beta=0.8)",
        "TypeError",
        "Adam() got an unexpected keyword argument 'beta'; pass `betas=(0.8, 0.999)`",
        "opt = fs.Adam(params, {0})",
        "opt.param_groups[0]['betas'] == (0.8, 0.999)",
    ),
    Mistake(
        "fs.Adam(params, betas1=0.8)",
        "TypeError",
        "Adam() got an unexpected keyword argument 'betas1'; pass `betas=(0.8, 0.999)`",
        "opt = fs.Adam(params, {0})",
        "opt.param_groups[0]['betas'] == (0.8, 0.999)",
    ),
    Mistake(
        "fs.Adam(params, bettas=0.8)",
        "TypeError",
        ("Adam() got an unexpected keyword argument 'bettas'; did you mean `betas=(0.8, 0.999)`?"),
        "opt = fs.Adam(params, {0})",
        "opt.param_groups[0]['betas'] == (0.8, 0.999)",
    ),
    Mistake(
        "fs.SGD(params, betas=0.8)",
        "TypeError",
        (
            "SGD() got an unexpected keyword argument 'betas'; of Adam, AdamW...: "
            "`fs.Adam(params, betas=(0.8, 0.999))`"
        ),
        "opt = {0}",
        "opt.param_groups[0]['betas'] == (0.8, 0.999)",
    ),
    Mistake(
        "fs.Adam(params, eps_root=1e-8)",
        "TypeError",
        "Adam() got an unexpected keyword argument 'eps_root'; pass `eps_inside_sqrt=True`",
        "opt = fs.Adam(params, {0})",
        "opt.param_groups[0]['eps_inside_sqrt']",
    ),
    Mistake(
        "fs.AdamW(params, scale=1024.0)",
        "TypeError",
        (
            "AdamW() got an unexpected keyword argument 'scale'; it is an argument of each "
            "step: `opt.step(grads, scale=1024.0)`"
        ),
        "{0}",
        "opt.state['w']['t'] == 1",
    ),
    Mistake(
        "fs.AdamW(params, gradient_clip=1.0)",
        "TypeError",
        (
            "AdamW() got an unexpected keyword argument 'gradient_clip'; it is an argument of "
            "each step: `opt.step(grads, max_norm=1.0)`"
        ),
        "{0}",
        "opt.step(grads, max_norm=1.0).clip < 1",
    ),
    Mistake(
        "fs.AdamW(params, gradient_clipping=1.0)",
        "TypeError",
        (
            "AdamW() got an unexpected keyword argument 'gradient_clipping'; it is an argument "
            "of each step: `opt.step(grads, max_norm=1.0)`"
        ),
        "{0}",
        "opt.step(grads, max_norm=1.0).clip < 1",
    ),
    Mistake(
        "fs.AdamW(params, grad_clip_norm=1.0)",
        "TypeError",
        (
            "AdamW() got an unexpected keyword argument 'grad_clip_norm'; it is an argument of "
            "each step: `opt.step(grads, max_norm=1.0)`"
        ),
        "{0}",
        "opt.step(grads, max_norm=1.0).clip < 1",
    ),
    Mistake(
        "fs.AdamW(params, max_gradient_norm=1.0)",
        "TypeError",
        (
            "AdamW() got an unexpected keyword argument 'max_gradient_norm'; it is an argument "
            "of each step: `opt.step(grads, max_norm=1.0)`"
        ),
        "{0}",
        "opt.step(grads, max_norm=1.0).clip < 1",
    ),
    Mistake(
        "fs.AdamW(params, global_clip=1.0)",
        "TypeError",
        (
            "AdamW() got an unexpected keyword argument 'global_clip'; it is an argument of "
            "each step: `opt.step(grads, max_norm=1.0)`"
        ),
        "{0}",
        "opt.step(grads, max_norm=1.0).clip < 1",
    ),
    Mistake(
        "fs.AdamW(params, clip_by_value=0.5)",
        "TypeError",
        (
            "AdamW() got an unexpected keyword argument 'clip_by_value'; it is an argument of "
            "each step: `opt.step(grads, max_value=0.5)`"
        ),
        "{0}",
        "opt.state['w']['t'] == 1",
    ),
    Mistake(
        "fs.AdamW(params, warmup=100)",
        "TypeError",
        (
            "AdamW() got an unexpected keyword argument 'warmup'; a rate may be a schedule, as "
            "`lr=fs.schedules.warmup(0.1, steps=100)`"
        ),
        "opt = fs.AdamW(params, {0})",
        "opt.lr(100) == 0.1",
    ),
    Mistake(
        "fs.AdamW(params, mask={'w': True, 'b': False})",
        "TypeError",
        (
            "AdamW() got an unexpected keyword argument 'mask'; a group has its own decay, as "
            "`[{'params': params, 'weight_decay': 0.0}]`"
        ),
        "opt = fs.AdamW({0})",
        "opt.param_groups[0]['weight_decay'] == 0",
    ),
    Mistake(
        "fs.AdamW(params, num_threads=2)",
        "TypeError",
        (
            "AdamW() got an unexpected keyword argument 'num_threads'; all optimizers share "
            "their threads: `fs.set_num_threads(2)`"
        ),
        "before = fs.get_num_threads(); {0}; fs.set_num_threads(before)",
        "fs.get_num_threads() == before",
    ),
    Mistake(
        "fs.AdamW(params, n_jobs=2)",
        "TypeError",
        (
            "AdamW() got an unexpected keyword argument 'n_jobs'; all optimizers share their "
            "threads: `fs.set_num_threads(2)`"
        ),
        "before = fs.get_num_threads(); {0}; fs.set_num_threads(before)",
        "fs.get_num_threads() == before",
    ),
    Mistake(
        "fs.Adam(params, decoupled=True)",
        "TypeError",
        (
            "Adam() got an unexpected keyword argument 'decoupled'; `fs.AdamW(params)` is Adam "
            "with decoupled decay"
        ),
        "opt = {0}",
        "isinstance(opt, fs.AdamW)",
    ),
    Mistake(
        "fs.AdamW(params, reg=0.1)",
        "TypeError",
        "AdamW() got an unexpected keyword argument 'reg'; pass `weight_decay=0.1`",
        "opt = fs.AdamW(params, {0})",
        "opt.param_groups[0]['weight_decay'] == 0.1",
    ),
    Mistake(
        "fs.SGD(params, average=True)",
        "TypeError",
        (
            "SGD() got an unexpected keyword argument 'average'; leave it out: `ema=0.999` "
            "keeps an average"
        ),
        "opt = fs.SGD(params, {0})",
        "'ema' in opt.state['w']",
    ),
    Mistake(
        "fs.AdamW(params, minimize=True)",
        "TypeError",
        (
            "AdamW() got an unexpected keyword argument 'minimize'; leave it out: every step "
            "descends"
        ),
        "opt = fs.AdamW(params); opt.step(grads)",
        "(params['w'] < 1).all()",
    ),
    Mistake(
        "fs.AdamW(params, clip='tensor')",
        "TypeError",
        (
            "AdamW() got an unexpected keyword argument 'clip'; it is an argument of each step: "
            "`opt.step(grads, max_norm=1.0, clip='tensor')`"
        ),
        "report = {0}",
        "report.clip < 1",
    ),
]

VALUES = [
    Mistake(
        "fs.AdamW(params, lr='1e-3')",
        "TypeError",
        "lr='1e-3' (str); pass a number: `lr=0.001`",
        "opt = fs.AdamW(params, {0})",
        "opt.lr == 0.001",
    ),
    Mistake(
        "fs.AdamW(params, lr=np.array(0.1))",
        "TypeError",
        "lr=an array of shape () and dtype float64; pass a number: `lr=0.1`",
        "opt = fs.AdamW(params, {0})",
        "opt.lr == 0.1",
    ),
    Mistake(
        "fs.AdamW(params, lr=-0.1)",
        "ValueError",
        "lr=-0.1 is negative; pass 0 or more",
        "opt = fs.AdamW(params, lr=0.0)",
        "opt.lr == 0",
    ),
    Mistake(
        "fs.AdamW(params, grads)",
        "TypeError",
        (
            "lr={'w': array([[1., 1.],        [1., 1.],        [1., 1.]],... (dict); pass "
            "a number; gradients are passed to each step, `opt.step(grads)`"
        ),
        "opt = fs.AdamW(params); {0}",
        "opt.state['w']['t'] == 1",
    ),
    Mistake(
        "fs.Adam(params, betas=0.9)",
        "TypeError",
        "betas=0.9 (float); pass 2 numbers, for instance (0.9, 0.999)",
        "opt = fs.Adam(params, betas=(0.9, 0.999))",
        "opt.lr == 0.001",
    ),
    Mistake(
        "fs.Adam(params, betas=(0.9, 1.0))",
        "ValueError",
        "betas[1]=1.0 is outside [0, 1); pass for instance 0.9",
        "opt = fs.Adam(params, betas=(0.9, 0.9))",
        "opt.lr == 0.001",
    ),
    Mistake(
        "fs.Adam(params, amsgrad=1)",
        "TypeError",
        "amsgrad=1 (int); pass True or False: `amsgrad=True`",
        "opt = fs.Adam(params, {0})",
        "opt.param_groups[0]['amsgrad']",
    ),
    Mistake(
        "fs.AdamW(params, weight_decay=True)",
        "TypeError",
        "weight_decay=True (bool); pass a number: `weight_decay=1.0`",
        "opt = fs.AdamW(params, {0})",
        "opt.param_groups[0]['weight_decay'] == 1",
    ),
    Mistake(
        "fs.SGD(params, lr=1e+39).step(grads)",
        "ValueError",
        (
            "lr=1e+39 is infinite in float32, the dtype of the parameters that it steps; "
            "pass a smaller one, as `lr=0.001`, or parameters of float64"
        ),
        "opt = fs.SGD(params, {0}); opt.step(grads)",
        "np.isfinite(params['w']).all()",
    ),
    Mistake(
        "fs.AdamW(params, eps=1e-50).step(grads)",
        "ValueError",
        (
            "eps=1e-50 is 0 in float32, the dtype of the parameters that it steps; pass a "
            "larger one, as `eps=1e-08`, or parameters of float64"
        ),
        "opt = fs.AdamW(params, {0}); opt.step(grads)",
        "opt.state['w']['t'] == 1",
    ),
    Mistake(
        "opt.step(grads)",
        "ValueError",
        (
            "lr=1e+39 is infinite in float32, the dtype of the parameters that it steps; "
            "pass a smaller one, as `lr=0.001`, or parameters of float64"
        ),
        "opt.lr = 0.001; opt.step(grads)",
        "opt.state['w']['t'] == 1",
        setup="opt.lr = 1e+39",
    ),
    Mistake(
        "fs.AdamW(params, lr=fs.schedules.cosine)",
        "TypeError",
        (
            "lr=... (function) cannot be called with t: missing a required argument: "
            "'steps'; pass what it makes, as `lr=fs.schedules.cosine(0.1, steps=1000)`"
        ),
        "opt = fs.AdamW(params, {0})",
        "opt.lr(1) == 0.1",
    ),
    Mistake(
        "fs.AdamW(params, lr=lambda epoch, step: 0.1)",
        "TypeError",
        (
            "lr=... (function) cannot be called with t: missing a required argument: "
            "'step'; pass a function of the step count alone, as `lambda t: 0.1 / t`"
        ),
        "opt = fs.AdamW(params, lr={0})",
        "opt.lr(1) == 0.1",
    ),
]

PARAMETERS = [
    Mistake(
        "fs.AdamW(params)",
        "TypeError",
        (
            "params['w'] is 1.0 (float); pass a NumPy array, or a sequence or mapping of "
            "arrays: a number cannot change in place, `np.asarray(params['w'], "
            "np.float64)` can"
        ),
        "params['w'] = {0}; opt = fs.AdamW(params); opt.step({'w': np.ones(())})",
        "params['w'] < 1",
        setup="params = {'w': 1.0}",
    ),
    Mistake(
        "fs.AdamW(params)",
        "TypeError",
        (
            "params[0] is 0.5 (float); pass a NumPy array, or a sequence or mapping of "
            "arrays: of the numbers in params that is `np.array(params, np.float32)` or of "
            "float64"
        ),
        "params = {0}; opt = fs.AdamW(params); opt.step(np.ones(2, np.float32))",
        "params[0] < 0.5",
        setup="params = [0.5, 2.0]",
    ),
    Mistake(
        "fs.AdamW(params)",
        "TypeError",
        (
            "params['w'][0] is 0.5 (float); pass a NumPy array, or a sequence or mapping "
            "of arrays: of the numbers in params['w'] that is `np.array(params['w'], "
            "np.float32)` or of float64"
        ),
        "params['w'] = {0}; opt = fs.AdamW(params)",
        "opt.state['w']['t'] == 0",
        setup="params = {'w': [0.5, 2.0]}",
    ),
    Mistake(
        "fs.AdamW(params)",
        "TypeError",
        (
            "params is np.float32(1.0) (float32); pass a NumPy array, or a sequence or "
            "mapping of arrays: a number cannot change in place, `np.asarray(params, "
            "np.float32)` can"
        ),
        "params = {0}; opt = fs.AdamW(params); opt.step(np.ones((), np.float32))",
        "params < 1",
        setup="params = np.float32(1)",
    ),
    Mistake(
        "fs.AdamW(params, master=False)",
        "ValueError",
        (
            "master=False and params is float16: small updates are lost in it, and all below "
            "6e-8; pass `master='float32'`, or parameters of bfloat16"
        ),
        "opt = fs.AdamW(params, {0}); opt.step(params.copy())",
        "params[0] < 1",
        setup="params = np.ones(3, np.float16)",
    ),
    Mistake(
        "fs.AdamW(params, master='split16')",
        "ValueError",
        (
            "master='split16' and params is float16: a tail of bits continues bfloat16 alone; pass "
            "`master='float32'`, or parameters of bfloat16"
        ),
        "opt = fs.AdamW(params, {0})",
        "opt.param_groups[0]['master'] == 'float32'",
        setup="params = np.ones(3, np.float16)",
    ),
    Mistake(
        "fs.AdamW(params, master='split8')",
        "ValueError",
        (
            "master='split8' says how 16-bit parameters keep their bits, and there are none; leave "
            "it out, or pass parameters of bfloat16"
        ),
        "opt = fs.AdamW(params)",
        "opt.param_groups[0]['master'] is None",
    ),
    Mistake(
        "fs.AdamW(p, master='split')",
        "ValueError",
        (
            "master='split'; pass None, False or one of 'split16', 'split8', 'float32'; did you "
            "mean `master='split8'`?"
        ),
        "opt = fs.AdamW(p, {0})",
        "opt.param_groups[0]['master'] == 'split8'",
        setup="import ml_dtypes; p = np.ones(3, ml_dtypes.bfloat16)",
        needs="ml_dtypes",
    ),
    Mistake(
        "fs.AdamW(params, state_dtype='bf16')",
        "ValueError",
        "state_dtype='bf16'; pass one of 'float32', 'bfloat16', '8bit'",
        "opt = fs.AdamW(params, state_dtype='bfloat16')",
        "opt.param_groups[0]['state_dtype'] == 'bfloat16'",
    ),
    Mistake(
        "fs.AdamW(params, state_dtype={'exp_avg': 'bfloat16'})",
        "ValueError",
        (
            "state_dtype has 'exp_avg'; the optimizer's state is 'm', 'v', 'x': name some of "
            "these, as `state_dtype={'m': 'bfloat16'}`"
        ),
        "opt = fs.AdamW(params, {0})",
        "opt.param_groups[0]['state_dtype'] == {'m': 'bfloat16'}",
    ),
    Mistake(
        "fs.AdamW(params, ema=0.99, state_dtype={'ema': 'bfloat16'})",
        "ValueError",
        (
            "state_dtype has 'ema', which is float32 always: stored in 16 bits it would stand "
            "still; leave it out"
        ),
        "opt = fs.AdamW(params, ema=0.99)",
        "opt.state['w']['ema'].dtype == np.float32",
    ),
    Mistake(
        "fs.RMSprop(params, centered=True, state_dtype='bfloat16')",
        "ValueError",
        (
            "state_dtype='bfloat16': with centered=True v - a² turns negative where either is "
            "rounded, and its root NaN; pass `state_dtype='float32'`"
        ),
        "opt = fs.RMSprop(params, centered=True, {0})",
        "opt.param_groups[0]['centered']",
    ),
    Mistake(
        "fs.Adagrad(params, state_dtype='8bit')",
        "ValueError",
        (
            "state_dtype='8bit': a sum of squares only grows, and soon by less than half of a "
            "step of what is stored, which is too coarse in 8 bits; pass `state_dtype='bfloat16'`"
        ),
        "opt = fs.Adagrad(params, {0})",
        "opt.param_groups[0]['state_dtype'] == 'bfloat16'",
    ),
    Mistake(
        "fs.Adagrad(params, state_dtype='bfloat16', rounding='nearest')",
        "ValueError",
        (
            "state_dtype='bfloat16': a sum of squares only grows, and soon by less than half of a "
            "step of what is stored, so to the nearest it would stand still; pass "
            "`state_dtype='float32'`"
        ),
        "opt = fs.Adagrad(params, {0}, rounding='nearest')",
        "opt.param_groups[0]['state_dtype'] == 'float32'",
    ),
    Mistake(
        "fs.AdamW(p, state_dtype='8bit')",
        "ValueError",
        (
            "state_dtype='8bit', and params is float64, whose state is float64, too; pass "
            "float32 parameters, or put float64 ones into a group with `state_dtype='float32'`"
        ),
        "opt = fs.AdamW([{'params': p, 'state_dtype': 'float32'}])",
        "opt.state[0]['m'].dtype == np.float64",
        setup="p = np.ones(3)",
    ),
    Mistake(
        "fs.AdamW(params, rounding='up')",
        "ValueError",
        "rounding='up'; pass one of 'auto', 'nearest', 'stochastic'",
        "opt = fs.AdamW(params, rounding='stochastic')",
        "opt.param_groups[0]['rounding'] == 'stochastic'",
    ),
    Mistake(
        "fs.AdamW(params, seed=-1)",
        "ValueError",
        "seed=-1; pass a whole number from 0",
        "opt = fs.AdamW(params, seed=1)",
        "opt.param_groups[0]['seed'] == 1",
    ),
    Mistake(
        "opt.param_groups[0]['state_dtype'] = 'bfloat16'",
        "ValueError",
        (
            "state_dtype='bfloat16' would lay out memory anew, which was done for 'float32'; make "
            "another optimizer with it, and load this one's state_dict()"
        ),
        ("new = fs.AdamW(params, state_dtype='bfloat16'); new.load_state_dict(opt.state_dict())"),
        "new.param_groups[0]['state_dtype'] == 'bfloat16'",
    ),
    Mistake(
        "fs.AdamW(p, out=p.copy())",
        "TypeError",
        "out has dtype float32; pass an array of 16 bits, as `np.zeros((3,), np.float16)`",
        "half = {0}; opt = fs.AdamW(p, lr=0.5, out=half); opt.step(np.ones(3, np.float32))",
        "half[0] == 0.495",
        setup="p = np.ones(3, np.float32)",
    ),
    Mistake(
        "fs.functional.sgd(params, params.copy(), t=1)",
        "TypeError",
        (
            "p is float16, and one step has no place for the bits that it lacks; pass float32 with "
            "the 16-bit array as `out`, or make an optimizer, as `fs.AdamW(p)`, which keeps them"
        ),
        (
            "p = np.ones(3, np.float32); "
            "fs.functional.sgd(p, params.copy(), t=1, lr=0.5, out=params)"
        ),
        "params[0] == 0.5",
        setup="params = np.ones(3, np.float16)",
    ),
    Mistake(
        "fs.AdamW(params)",
        "TypeError",
        (
            "params has dtype '<i8' (int64); pass float32 or float64 in the machine's byte "
            "order, as `params.astype(np.float32)`"
        ),
        "params = {0}; opt = fs.AdamW(params)",
        "params.dtype == np.float32",
        setup="params = np.ones(3, int)",
    ),
    Mistake(
        "fs.AdamW(params)",
        "TypeError",
        (
            "params has dtype '|O' (object); pass float32 or float64 in the machine's byte "
            "order, as `params.astype(np.float64)`"
        ),
        "params = {0}; opt = fs.AdamW(params)",
        "params.dtype == np.float64",
        setup="params = np.ones(3, object)",
    ),
    Mistake(
        "fs.AdamW(params)",
        "TypeError",
        (
            "params has dtype ...; pass float32 or float64 in the machine's byte order, as "
            "`params.astype(np.float64)`"
        ),
        "params = {0}; opt = fs.AdamW(params)",
        "params.dtype == np.float64",
        setup="params = np.ones(3, np.longdouble)",
    ),
    Mistake(
        "fs.AdamW(params)",
        "TypeError",
        (
            "params has dtype '>f4' (float32); pass float32 or float64 in the machine's "
            "byte order, as `params.astype(np.float32)`"
        ),
        "params = {0}; opt = fs.AdamW(params)",
        "params.dtype == np.float32",
        setup="params = np.ones(3, '>f4')",
    ),
    Mistake(
        "fs.AdamW(params)",
        "TypeError",
        (
            "params has dtype '<c8' (complex64); pass float32 or float64 in the machine's "
            "byte order, as the real and imaginary parts side by side, "
            "`params.view(np.float32)`, or the real ones alone, "
            "`params.real.astype(np.float32)`"
        ),
        "opt = fs.AdamW({0}); opt.step(np.ones(6, np.float32))",
        "(params.imag < 0).all()",
        setup="params = np.ones(3, np.complex64)",
    ),
    Mistake(
        "fs.AdamW(params)",
        "TypeError",
        (
            "params has dtype '|V8' (void64); pass float32 or float64 in the machine's "
            "byte order, as one field, `params['x']`"
        ),
        "opt = fs.AdamW({0}); opt.step(np.ones(3, np.float32))",
        "(params['x'] < 1).all() and (params['y'] == 1).all()",
        setup="params = np.ones(3, [('x', 'f4'), ('y', 'f4')])",
    ),
    Mistake(
        "fs.AdamW(params)",
        "TypeError",
        "params is a masked array, whose mask a step would ignore; pass its `.data`",
        "opt = fs.AdamW(params{0}); opt.step(np.ones(3))",
        "(params.data < 1).all()",
        setup="params = np.ma.masked_array(np.ones(3), [True, False, False])",
    ),
    Mistake(
        "fs.AdamW(params)",
        "ValueError",
        "params is read-only, and a step writes to it; pass a copy, `params.copy()`",
        "params = {0}; opt = fs.AdamW(params); opt.step(np.ones(3, np.float32))",
        "(params < 1).all()",
        setup="params = np.broadcast_to(np.float32(1), 3)",
    ),
    Mistake(
        "fs.AdamW(params)",
        "ValueError",
        "params is read-only, and a step writes to it; pass a copy, `params.copy()`",
        "params = {0}; opt = fs.AdamW(params); opt.step(np.ones(3, np.float32))",
        "(params < 0).all()",
        setup="params = np.frombuffer(bytes(12), np.float32)",
    ),
    Mistake(
        "fs.AdamW(params)",
        "TypeError",
        (
            "params is b'\\x00\\x00\\x00\\x00\\x00\\x00\\x00\\x00\\x00\\x00\\x00\\x00\\x00\\x0... "
            "(bytes); pass a NumPy array, or a sequence or mapping of arrays: "
            "`np.frombuffer(params).copy()`"
        ),
        "params = {0}; opt = fs.AdamW(params); opt.step(np.ones(2))",
        "(params < 0).all()",
        setup="params = bytes(16)",
    ),
    Mistake(
        "fs.AdamW(params)",
        "TypeError",
        (
            "params is bytearray(b'\\x00\\x00\\x00\\x00\\x00\\x00\\x00\\x00\\x00\\x00\\x00\\... "
            "(bytearray); pass a NumPy array, or a sequence or mapping of arrays: "
            "`np.frombuffer(params, np.float32)`"
        ),
        "params = {0}; opt = fs.AdamW(params); opt.step(np.ones(3, np.float32))",
        "(params < 0).all()",
        setup="params = bytearray(12)",
    ),
    Mistake(
        "fs.AdamW(params)",
        "TypeError",
        (
            "params is ... (memoryview); pass a NumPy array, or a sequence or mapping of "
            "arrays: `np.asarray(params)`"
        ),
        "opt = fs.AdamW({0}); opt.step(np.ones(3))",
        "params[0] < 1",
        setup="params = memoryview(np.ones(3))",
    ),
    Mistake(
        "fs.AdamW(params)",
        "TypeError",
        (
            "params is {1.5, 2.5} (set); pass a NumPy array, or a sequence or mapping of "
            "arrays, in an order that stays: `list(params)`"
        ),
        "params = np.array({0}); opt = fs.AdamW(params)",
        "params.size == 2",
        setup="params = {1.5, 2.5}",
    ),
    Mistake(
        "fs.AdamW(params.keys())",
        "TypeError",
        (
            "params is dict_keys(['w', 'b']) (dict_keys); pass a NumPy array, or a "
            "sequence or mapping of arrays: the mapping itself, and not its keys"
        ),
        "opt = fs.AdamW(params)",
        "opt.lr == 0.001",
    ),
    Mistake(
        "fs.AdamW(params)",
        "TypeError",
        (
            "params[0][0] is 'w' (str); pass a NumPy array, or a sequence or mapping of "
            "arrays: pairs of names and arrays make one, `dict(params)`, unless they have "
            "been read already"
        ),
        "opt = fs.AdamW({0}); opt.step(grads)",
        "(pairs['w'] < 1).all()",
        setup="pairs = params; params = pairs.items()",
    ),
    Mistake(
        "fs.AdamW(params)",
        "ValueError",
        "params is empty; pass at least one array",
        "opt = fs.AdamW([np.ones(3)])",
        "opt.lr == 0.001",
        setup="params = (x for x in ())",
    ),
    Mistake(
        "fs.AdamW([params['w'], params['w'][:2]])",
        "ValueError",
        (
            "params[0] and params[1] share memory, and both would be written; pass each "
            "array once, or copies"
        ),
        "opt = fs.AdamW([params['w'], params['w'][:2].copy()])",
        "opt.lr == 0.001",
    ),
    Mistake(
        "fs.AdamW(params)",
        "TypeError",
        (
            "params (NpzFile) returns another array at each look at 'w', so that what is "
            "stepped would be nobody's; read it once, `params = dict(params)`, and pass "
            "that"
        ),
        "{0}; opt = fs.AdamW(params); opt.step(grads)",
        "archive.close() is None and (params['w'] < 1).all()",
        setup="np.savez(folder / 'w.npz', **params); params = archive = np.load(folder / 'w.npz')",
    ),
    Mistake(
        "fs.AdamW(params)",
        "ValueError",
        (
            "params is read-only, and a step writes to it; map it with `mode='r+'`, or "
            "pass a copy in memory, `np.array(params)`"
        ),
        "params = {1}; opt = fs.AdamW(params); opt.step(grads['w'])",
        "(params < 1).all()",
        setup=(
            "np.save(folder / 'w.npy', params['w']); params = np.load(folder / 'w.npy', "
            "mmap_mode='r')"
        ),
    ),
    Mistake(
        "fs.AdamW(params)",
        "TypeError",
        (
            "params is ... (Model); pass a NumPy array, or a sequence or mapping of "
            "arrays: those among its attributes are `vars(params)`"
        ),
        "opt = fs.AdamW({0}); opt.step(grads)",
        "(model.w < 1).all()",
        setup="class Model: pass\nmodel = Model(); model.w, model.b = params.values(); "
        "params = model",
    ),
    Mistake(
        "fs.AdamW(params)",
        "TypeError",
        (
            "params is <Compressed Sparse Row sparse matrix of dtype 'float64' \t... "
            "(csr_matrix); pass a NumPy array, or a sequence or mapping of arrays; a dense "
            "one is `params.toarray()`"
        ),
        "params = {0}; opt = fs.AdamW(params); opt.step(np.ones((3, 3)))",
        "(params < 1).all()",
        setup="import scipy.sparse; params = scipy.sparse.eye(3, format='csr')",
        needs="scipy",
    ),
    Mistake(
        "fs.AdamW(params)",
        "TypeError",
        ("params is      x    y 0  1.0  2.0 (DataFrame); pass a NumPy array, `np.array(params)`"),
        "params = {0}; opt = fs.AdamW(params); opt.step(np.ones((1, 2)))",
        "params[0, 0] < 1",
        setup="import pandas; params = pandas.DataFrame({'x': [1.0], 'y': [2.0]})",
        needs="pandas",
    ),
    Mistake(
        "fs.AdamW(params)",
        "ValueError",
        "params is read-only, and a step writes to it; pass a copy, `params.copy()`",
        "params = {0}; opt = fs.AdamW(params); opt.step(np.ones(1))",
        "params[0] < 1 and frame['x'][0] == 1",
        setup=(
            "import pandas; frame = pandas.DataFrame({'x': [1.0], 'y': [2.0]}); params = "
            "frame['x'].values"
        ),
        needs="pandas",
    ),
    Mistake(
        "fs.AdamW(params)",
        "ValueError",
        (
            "params['w'] is read-only, and a step writes to it; JAX's arrays never change. "
            "Inside of `jax.jit` step them by `fusedstep.jax.adamw(1e-3)` or its siblings; "
            "with an optimizer of this kind pass a copy, `np.array(params['w'])`, or keep "
            "the parameters in `arena = fs.Arena(params, align=64)`, which JAX reads without "
            "a copy, as `arena.jax_params()`"
        ),
        "params['w'] = {2}; opt = fs.AdamW(params); opt.step({'w': np.ones(3, np.float32)})",
        "(params['w'] < 1).all()",
        setup="import jax.numpy; params = {'w': jax.numpy.ones(3)}",
        needs="jax",
    ),
    Mistake(
        "fs.AdamW(params)",
        "ValueError",
        (
            "params['w'] is read-only, and a step writes to it; JAX's arrays never change. "
            "Inside of `jax.jit` step them by `fusedstep.jax.adamw(1e-3)` or its siblings; "
            "with an optimizer of this kind pass a copy, `np.array(params['w'])`, or keep "
            "the parameters in `arena = fs.Arena(params, align=64)`, which JAX reads without "
            "a copy, as `arena.jax_params()`"
        ),
        "{3}; live = {4}; opt = fs.AdamW(arena)\n"
        "for g in arena.grads.values(): g[...] = 1\n"
        "opt.step()",
        "all(bool((leaf < 1).all()) for leaf in live.values())",
        setup="import jax; params = {'w': jax.numpy.ones(3), 'b': jax.numpy.ones(64)}",
        needs="jax",
    ),
    Mistake(
        "fs.AdamW(params)",
        "ValueError",
        "params is read-only, and a step writes to it; pass a copy, `np.array(params)`",
        "params = {0}; opt = fs.AdamW(params); opt.step(np.ones(2))",
        "params[0] < 1",
        setup="import pyarrow; params = pyarrow.array([1.0, 2.0])",
        needs="pyarrow",
    ),
    Mistake(
        "fs.AdamW(params)",
        "TypeError",
        (
            "params is Linear(in_features=2, out_features=3, bias=True) (Linear); a module "
            "of torch is trained by `fusedstep.torch.AdamW(params.parameters())`"
        ),
        "import fusedstep.torch; opt = {0}",
        "opt.param_groups[0]['lr'] == 0.001",
        setup="import torch; params = torch.nn.Linear(2, 3)",
        needs="torch",
    ),
    Mistake(
        "fs.AdamW(params)",
        "TypeError",
        (
            "params[0][0] is 'weight' (str); pass a NumPy array, or a sequence or mapping "
            "of arrays: pairs of names and arrays make one, "
            "`dict(model.named_parameters())` of a model of torch"
        ),
        "opt = fs.AdamW({0}); opt.step({'weight': torch.ones(3, 2), 'bias': torch.ones(3)})",
        "opt.state['weight']['t'] == 1",
        setup="import torch; model = torch.nn.Linear(2, 3); params = model.named_parameters()",
        needs="torch",
    ),
    Mistake(
        "fs.functional.sgd(p, np.ones(3, np.float32), t=1, lr=0.5)",
        "ValueError",
        (
            "p is read-only, and a step writes to it; JAX's arrays never change. Inside of "
            "`jax.jit` step them by `fusedstep.jax.adamw(1e-3)` or its siblings; with an "
            "optimizer of this kind pass a copy, `np.array(p)`, or keep the parameters in "
            "`arena = fs.Arena(params, align=64)`, which JAX reads without a copy, as "
            "`arena.jax_params()`"
        ),
        "p = {2}; fs.functional.sgd(p, np.ones(3, np.float32), t=1, lr=0.5)",
        "(p == 0.5).all()",
        setup="import jax.numpy; p = jax.numpy.ones(3)",
        needs="jax",
    ),
    Mistake(
        "fs.AdamW(params)",
        "TypeError",
        (
            "params is array('i', [1, 2]) (array); pass a NumPy array, or a sequence or "
            "mapping of arrays: `np.array(params, np.float32)`"
        ),
        "params = {0}; opt = fs.AdamW(params)",
        "params.tolist() == [1, 2]",
        setup="import array; params = array.array('i', [1, 2])",
    ),
    Mistake(
        "fs.AdamW(params)",
        "TypeError",
        (
            "params is array('q', [1, 2]) (array); pass a NumPy array, or a sequence or "
            "mapping of arrays: `np.array(params, np.float32)`"
        ),
        "params = {0}; opt = fs.AdamW(params)",
        "params.tolist() == [1, 2]",
        setup="import array; params = array.array('q', [1, 2])",
    ),
    Mistake(
        "fs.AdamW(params)",
        "TypeError",
        (
            "params is array('b', [1, 2, 3]) (array); pass a NumPy array, or a sequence or "
            "mapping of arrays: `np.array(params, np.float32)`"
        ),
        "params = {0}; opt = fs.AdamW(params)",
        "params.tolist() == [1, 2, 3]",
        setup="import array; params = array.array('b', [1, 2, 3])",
    ),
    Mistake(
        "fs.AdamW(params)",
        "TypeError",
        (
            "params is ... (memoryview); pass a NumPy array, or a sequence or mapping of "
            "arrays: `np.array(params, np.float32)`"
        ),
        "params = {0}; opt = fs.AdamW(params)",
        "params.tolist() == [0, 1]",
        setup="params = memoryview(np.arange(2, dtype=np.int8))",
    ),
    Mistake(
        "fs.AdamW(params)",
        "TypeError",
        (
            "params is ... (memoryview); pass a NumPy array, or a sequence or mapping of "
            "arrays: `np.array(params, np.float32)`"
        ),
        "params = {0}; opt = fs.AdamW(params)",
        "params.tolist() == [0, 1]",
        setup="params = memoryview(np.arange(2, dtype=np.int32))",
    ),
    Mistake(
        "fs.AdamW(params)",
        "TypeError",
        (
            "params is ... (memoryview); pass a NumPy array, or a sequence or mapping of "
            "arrays: `np.array(params, np.float32)`"
        ),
        "params = {0}; opt = fs.AdamW(params)",
        "params.tolist() == [0, 1]",
        setup="params = memoryview(np.arange(2, dtype=np.int64))",
    ),
    Mistake(
        "fs.AdamW(params)",
        "TypeError",
        (
            "params is b'\\x00\\x00\\x00\\x00\\x00\\x00\\x00' (bytes); pass a NumPy array, or "
            "a sequence or mapping of arrays: `np.frombuffer(params, "
            "np.uint8).astype(np.float32)` has its 7 bytes as numbers, as they make no whole "
            "floats"
        ),
        "params = {0}; opt = fs.AdamW(params)",
        "params.tolist() == [0] * 7",
        setup="params = bytes(7)",
    ),
    Mistake(
        "fs.AdamW(params)",
        "TypeError",
        (
            "params is bytearray(b'\\x00\\x00\\x00\\x00\\x00\\x00\\x00') (bytearray); pass a "
            "NumPy array, or a sequence or mapping of arrays: `np.frombuffer(params, "
            "np.uint8).astype(np.float32)` has its 7 bytes as numbers, as they make no whole "
            "floats"
        ),
        "params = {0}; opt = fs.AdamW(params)",
        "params.tolist() == [0] * 7",
        setup="params = bytearray(7)",
    ),
    Mistake(
        "fs.AdamW(params)",
        "TypeError",
        (
            "params is ... (c_double_Array_3); pass a NumPy array, or a sequence or mapping of "
            "arrays: `np.ctypeslib.as_array(params)`"
        ),
        "opt = fs.AdamW({0}); opt.step(np.ones(3))",
        "params[0] < 1",
        setup="import ctypes; params = (ctypes.c_double * 3)(1, 2, 3)",
    ),
    Mistake(
        "fs.AdamW(params)",
        "TypeError",
        (
            "params is ... (c_int_Array_3); pass a NumPy array, or a sequence or mapping of "
            "arrays: `np.array(params, np.float32)`"
        ),
        "params = {0}; opt = fs.AdamW(params)",
        "params.tolist() == [1, 2, 3]",
        setup="import ctypes; params = (ctypes.c_int * 3)(1, 2, 3)",
    ),
    Mistake(
        "fs.AdamW(params)",
        "TypeError",
        (
            "params has dtype '<U3' (str96); pass float32 or float64 in the machine's byte "
            "order, as `params.astype(np.float64)`"
        ),
        "params = {0}; opt = fs.AdamW(params)",
        "params.tolist() == [1.5, 2]",
        setup="params = np.array(['1.5', '2'])",
    ),
    Mistake(
        "fs.AdamW(params)",
        "TypeError",
        "params has dtype '<U1' (str32); pass float32 or float64 in the machine's byte order",
        "params = np.ones(2); opt = fs.AdamW(params)",
        "opt.lr == 0.001",
        setup="params = np.array(['a', 'b'])",
    ),
    Mistake(
        "fs.AdamW(params)",
        "TypeError",
        (
            "params has dtype '<M8[D]' (datetime64[D]); pass float32 or float64 in the "
            "machine's byte order"
        ),
        "params = np.ones(2); opt = fs.AdamW(params)",
        "opt.lr == 0.001",
        setup="params = np.zeros(2, 'M8[D]')",
    ),
    Mistake(
        "fs.AdamW(params)",
        "TypeError",
        "params has dtype '|O' (object); pass float32 or float64 in the machine's byte order",
        "params = np.ones(2); opt = fs.AdamW(params)",
        "opt.lr == 0.001",
        setup="params = np.array([None, None])",
    ),
    Mistake(
        "fs.AdamW(params)",
        "TypeError",
        (
            "params has dtype '|O' (object); pass float32 or float64 in the machine's byte "
            "order: it holds arrays, which are parameters as `list(params)`"
        ),
        "opt = fs.AdamW({0})",
        "len(opt.state) == 2",
        setup="params = np.array([np.ones(2), np.ones(3)], object)",
    ),
    Mistake(
        "fs.AdamW(params)",
        "TypeError",
        (
            "params is ... (Model); pass a NumPy array, or a sequence or mapping of arrays, as "
            "`params.get_weights()`, copies that `params.set_weights` takes back after the "
            "steps"
        ),
        "weights = {0}; opt = fs.AdamW(weights); opt.step([np.ones(2)]); {1}(weights)",
        "(params.weights[0] < 1).all()",
        setup=(
            "class Model:\n    weights = [np.ones(2)]\n    def get_weights(self): return "
            "[w.copy() for w in self.weights]\n    def set_weights(self, weights): "
            "self.weights = weights\nparams = Model()"
        ),
    ),
    Mistake(
        "fs.AdamW(params)",
        "TypeError",
        (
            "params is ... (Model); pass a NumPy array, or a sequence or mapping of arrays: "
            "its own may be `params.parameters()`"
        ),
        "opt = fs.AdamW({0}); opt.step([np.ones(2)])",
        "(params.layers[0] < 1).all()",
        setup=(
            "class Model:\n    layers = [np.ones(2)]\n    def parameters(self): return "
            "self.layers\nparams = Model()"
        ),
    ),
    Mistake(
        "fs.AdamW(params)",
        "TypeError",
        (
            "params is ... (ParameterDict); a module of torch is trained by "
            "`fusedstep.torch.AdamW(params.parameters())`"
        ),
        "import fusedstep.torch; opt = {0}",
        "opt.param_groups[0]['lr'] == 0.001",
        setup="import torch; params = torch.nn.ParameterDict({'w': torch.ones(3)})",
        needs="torch",
    ),
    Mistake(
        "fs.AdamW(params)",
        "TypeError",
        (
            "params is ... (Sequential); a module of torch is trained by "
            "`fusedstep.torch.AdamW(params.parameters())`"
        ),
        "import fusedstep.torch; opt = {0}",
        "opt.param_groups[0]['lr'] == 0.001",
        setup="import torch; params = torch.nn.Sequential(torch.nn.Linear(2, 3))",
        needs="torch",
    ),
]

GROUPS = [
    Mistake(
        "fs.AdamW(params)",
        "TypeError",
        "params is one group, 'params', 'lr'; pass a list of groups, `[params]`",
        "opt = fs.AdamW({0})",
        "opt.lr == 0.1",
        setup="params = {'params': [np.ones(3)], 'lr': 0.1}",
    ),
    Mistake(
        "fs.AdamW([{'params': params, 'learning_rate': 0.1}])",
        "KeyError",
        (
            "params[0]: the unknown hyperparameter 'learning_rate'; AdamW has 'lr', "
            "'betas', 'eps', 'weight_decay', 'amsgrad', 'eps_inside_sqrt', "
            "'eps_uncorrected', 'bias_correction' and 11 more; did you mean 'lr'?"
        ),
        "opt = fs.AdamW([{'params': params, 'lr': 0.1}])",
        "opt.lr == 0.1",
    ),
    Mistake(
        "fs.AdamW([{'param': params, 'lr': 0.1}])",
        "TypeError",
        "params[0] is a group without 'params'; did you mean it by 'param'?",
        "opt = fs.AdamW([{'params': params, 'lr': 0.1}])",
        "opt.lr == 0.1",
    ),
    Mistake(
        "fs.AdamW(params)",
        "TypeError",
        (
            "params[1] is an array of shape (2,) and dtype float64 among groups; make it "
            "one, `{'params': params[1]}`"
        ),
        "params[1] = {0}; opt = fs.AdamW(params)",
        "len(opt.param_groups) == 2",
        setup="params = [{'params': [np.ones(3)], 'lr': 0.1}, np.ones(2)]",
    ),
    Mistake(
        "opt.param_groups[0]['learning_rate']",
        "KeyError",
        (
            "a group has no 'learning_rate'; it has 'params', 'lr', 'betas', 'eps', "
            "'weight_decay', 'amsgrad', 'eps_inside_sqrt', 'eps_uncorrected' and 12 more; "
            "did you mean 'lr'?"
        ),
        "lr = opt.param_groups[0]['lr']",
        "lr == 0.001",
    ),
    Mistake(
        "opt.param_groups[0]['learning_rate'] = 0.1",
        "KeyError",
        (
            "a group has no hyperparameter 'learning_rate' to set; it has 'lr', 'betas', "
            "'eps', 'weight_decay', 'amsgrad', 'eps_inside_sqrt', 'eps_uncorrected', "
            "'bias_correction' and 11 more; did you mean 'lr'?"
        ),
        "opt.param_groups[0]['lr'] = 0.1",
        "opt.lr == 0.1",
    ),
    Mistake(
        "opt.param_groups[0]['weight_dacay'] = 0.1",
        "KeyError",
        (
            "a group has no hyperparameter 'weight_dacay' to set; it has 'lr', 'betas', "
            "'eps', 'weight_decay', 'amsgrad', 'eps_inside_sqrt', 'eps_uncorrected', "
            "'bias_correction' and 11 more; did you mean 'weight_decay'?"
        ),
        "opt.param_groups[0]['weight_decay'] = 0.1",
        "opt.param_groups[0]['weight_decay'] == 0.1",
    ),
    Mistake(
        "opt.param_groups[0]['beta1'] = 0.8",
        "KeyError",
        (
            "a group has no hyperparameter 'beta1' to set; it has 'lr', 'betas', 'eps', "
            "'weight_decay', 'amsgrad', 'eps_inside_sqrt', 'eps_uncorrected', "
            "'bias_correction' and 11 more; did you mean 'betas', at index 0?"
        ),
        "opt.param_groups[0]['betas'] = (0.8, 0.999)",
        "opt.param_groups[0]['betas'][0] == 0.8",
    ),
    Mistake(
        "fs.SGD({'first': {'params': params, 'lr': 0.2}, 'second': {'params': [np.ones(2)]}})",
        "TypeError",
        "params is a dict of groups; pass a list of groups, `list(params.values())`",
        "groups = {'first': {'params': params, 'lr': 0.2}, 'second': {'params': [np.ones(2)]}}; "
        "opt = fs.SGD(list(groups.values()))",
        "[group['lr'] for group in opt.param_groups] == [0.2, 0.001]",
    ),
    Mistake(
        "fs.SGD({'params': [params]}, {'params': [np.ones(2)], 'lr': 0.2})",
        "TypeError",
        "lr=...; pass a number; pass all groups in one list",
        "opt = fs.SGD([{'params': [params]}, {'params': [np.ones(2)], 'lr': 0.2}])",
        "[group['lr'] for group in opt.param_groups] == [0.001, 0.2]",
    ),
    Mistake(
        "opt.param_groups[0].lr = 0.2",
        "AttributeError",
        "a group has no attribute 'lr' to set, but keys; set `opt.param_groups[0]['lr'] = 0.2`",
        "{0}",
        "opt.lr == 0.2",
    ),
]

ATTRIBUTES = [
    Mistake(
        "opt.zero_grad()",
        "AttributeError",
        (
            "'AdamW' object has no attribute 'zero_grad'; gradients are yours; "
            "`opt.step(grads, zero_grads=True)` leaves zeros in them"
        ),
        "{0}",
        "(grads['w'] == 0).all()",
    ),
    Mistake(
        "opt.add_param_group({'params': params})",
        "AttributeError",
        (
            "'AdamW' object has no attribute 'add_param_group'; an optimizer keeps the "
            "parameters that it was made with; make one over all of them, as `opt = "
            "fs.AdamW([{'params': params}])` with a group for each"
        ),
        "{0}",
        "len(opt.param_groups) == 1",
    ),
    Mistake(
        "opt.update(grads)",
        "AttributeError",
        (
            "'AdamW' object has no attribute 'update'; `opt.step(grads)` updates the "
            "parameters in place"
        ),
        "{0}",
        "opt.state['w']['t'] == 1",
    ),
    Mistake(
        "opt(params, grads)",
        "TypeError",
        "'AdamW' object is not callable; `opt.step(grads)` updates the parameters in place",
        "{0}",
        "opt.state['w']['t'] == 1",
    ),
    Mistake(
        "opt.apply_gradients(zip(grads.values(), params.values()))",
        "AttributeError",
        (
            "'AdamW' object has no attribute 'apply_gradients'; `opt.step(grads)` updates "
            "the parameters in place"
        ),
        "{0}",
        "opt.state['w']['t'] == 1",
    ),
    Mistake(
        "opt.minimize(lambda: 0.5, params)",
        "AttributeError",
        (
            "'AdamW' object has no attribute 'minimize'; `opt.step(grads)` updates the "
            "parameters in place"
        ),
        "{0}",
        "opt.state['w']['t'] == 1",
    ),
    Mistake(
        "opt.init(params)",
        "AttributeError",
        (
            "'AdamW' object has no attribute 'init'; state starts at zero in a new "
            "optimizer: `opt = fs.AdamW(params)`"
        ),
        "{0}",
        "opt.state['w']['t'] == 0",
    ),
    Mistake(
        "opt.learning_rate",
        "AttributeError",
        "'AdamW' object has no attribute 'learning_rate'; `opt.lr` is it",
        "lr = {0}",
        "lr == 0.001",
    ),
    Mistake(
        "opt.learning_rate = 0.1",
        "AttributeError",
        "an optimizer has no 'learning_rate' to set; set `opt.lr = 0.1`",
        "{0}",
        "opt.lr == 0.1",
    ),
    Mistake(
        "opt.learing_rate = 0.1",
        "AttributeError",
        "an optimizer has no 'learing_rate' to set; did you mean `opt.lr = 0.1`?",
        "{0}",
        "opt.lr == 0.1",
    ),
    Mistake(
        "opt.betas = (0.8, 0.99)",
        "AttributeError",
        "an optimizer has no 'betas' to set; set `opt.param_groups[0]['betas'] = (0.8, 0.99)`",
        "{0}",
        "opt.param_groups[0]['betas'] == (0.8, 0.99)",
    ),
    Mistake(
        "opt.beta1 = 0.8",
        "AttributeError",
        ("an optimizer has no 'beta1' to set; set `opt.param_groups[0]['betas'] = (0.8, 0.999)`"),
        "{0}",
        "opt.param_groups[0]['betas'] == (0.8, 0.999)",
    ),
    Mistake(
        "opt.weight_decay",
        "AttributeError",
        (
            "'AdamW' object has no attribute 'weight_decay'; "
            "`opt.param_groups[0]['weight_decay']` has the first group's"
        ),
        "decay = {0}",
        "decay == 0.01",
    ),
    Mistake(
        "opt.backend = 'numpy'",
        "AttributeError",
        (
            "an optimizer has no 'backend' to set; it is chosen when it is made: `opt = "
            "fs.AdamW(params, backend='numpy')`"
        ),
        "{0}",
        "opt.lr == 0.001",
    ),
    Mistake(
        "opt.params = params",
        "AttributeError",
        (
            "an optimizer has no 'params' to set; it keeps the arrays that it was made "
            "with; make another: `opt = fs.AdamW(params)`"
        ),
        "{0}",
        "opt.lr == 0.001",
    ),
    Mistake(
        "opt.parameters()",
        "AttributeError",
        (
            "'AdamW' object has no attribute 'parameters'; `opt.param_groups[0]['params']` "
            "has those of the first group"
        ),
        "arrays = {0}",
        "arrays[0] is params['w']",
    ),
    Mistake(
        "opt.epoch = 3",
        "AttributeError",
        (
            "an optimizer has no 'epoch' to set; what is yours may stand in a class of "
            "your own: `class Mine(fs.AdamW): epoch = None`"
        ),
        "{0}\nopt = Mine(params)\nopt.epoch = 3",
        "opt.epoch == 3",
    ),
    Mistake(
        "opt.iterations",
        "AttributeError",
        (
            "'AdamW' object has no attribute 'iterations'; each parameter counts its own: "
            "`opt.state['w']['t']`"
        ),
        "t = {0}",
        "t == 0",
    ),
    Mistake(
        "opt.get_lr()",
        "AttributeError",
        "'AdamW' object has no attribute 'get_lr'; `opt.lr` is it",
        "lr = {0}",
        "lr == 0.001",
    ),
    Mistake(
        "opt.lr_scheduler",
        "AttributeError",
        (
            "'AdamW' object has no attribute 'lr_scheduler'; a schedule is a learning "
            "rate: `opt.lr = fs.schedules.cosine(0.1, steps=1000)` goes on by itself at "
            "each step"
        ),
        "{0}",
        "opt.lr(1) == 0.1",
    ),
    Mistake(
        "opt.exp_avg",
        "AttributeError",
        "'AdamW' object has no attribute 'exp_avg'; it is state: `opt.state['w']['m']`",
        "m = {0}",
        "(m == 0).all()",
    ),
    Mistake(
        "opt.save('opt.npz')",
        "AttributeError",
        (
            "'AdamW' object has no attribute 'save'; `fs.save('run.safetensors', opt)` "
            "writes all of it, and `fs.load('run.safetensors', opt)` reads it"
        ),
        "{0}; {1}; __import__('os').unlink('run.safetensors')",
        "opt.state['w']['t'] == 0",
    ),
    Mistake(
        "opt.get_weights()",
        "AttributeError",
        (
            "'AdamW' object has no attribute 'get_weights'; `saved = opt.state_dict()` has "
            "all of it, and `opt.load_state_dict(saved)` takes it over"
        ),
        "{0}; {1}",
        "opt.state['w']['t'] == 0",
    ),
    Mistake(
        "opt.clip_grad_norm_(1.0)",
        "AttributeError",
        (
            "'AdamW' object has no attribute 'clip_grad_norm_'; clipping is a part of the "
            "step: `opt.step(grads, max_norm=1.0)`"
        ),
        "{0}",
        "opt.state['w']['t'] == 1",
    ),
    Mistake(
        "opt.averages",
        "AttributeError",
        (
            "'AdamW' object has no attribute 'averages'; an average of the parameters is "
            "state: `fs.AdamW(params, ema=0.999).state['w']['ema']`"
        ),
        "ema = {0}",
        "(ema == 1).all()",
    ),
    Mistake(
        "opt.state['exp_avg']",
        "KeyError",
        "state has no parameter 'exp_avg'; each parameter has its own: `opt.state['w']['m']`",
        "m = {0}",
        "(m == 0).all()",
    ),
    Mistake(
        "opt.state['w']['exp_avg_sq']",
        "KeyError",
        "state has no 'exp_avg_sq'; did you mean 'v'?",
        "v = opt.state['w']['v']",
        "(v == 0).all()",
    ),
    Mistake(
        "import copy; copy.copy(opt)",
        "TypeError",
        (
            "a shallow copy would step the same state; take copy.deepcopy of the optimizer "
            "and its parameters together, or load its state_dict() into another"
        ),
        "import copy; other, arrays = copy.deepcopy((opt, params)); other.step(grads)",
        "(arrays['w'] < 1).all() and (params['w'] == 1).all()",
    ),
    Mistake(
        "opt.max_norm = 1.0",
        "AttributeError",
        (
            "an optimizer has no 'max_norm' to set; it is an argument of each step: "
            "`opt.step(grads, max_norm=1.0)`"
        ),
        "report = {0}",
        "report.clip < 1",
    ),
    Mistake(
        "opt.param_groups = []",
        "AttributeError",
        (
            "an optimizer has no 'param_groups' to set; it is the optimizer's own; make "
            "another, `opt = fs.AdamW(params)`"
        ),
        "{0}",
        "opt.lr == 0.001",
    ),
    Mistake(
        "opt.param_groups.append({'params': params})",
        "AttributeError",
        (
            "param_groups is a tuple, and has no 'append'; an optimizer keeps the parameters "
            "that it was made with; make one over all of them, as `opt = fs.AdamW([{'params': "
            "params}])` with a group for each"
        ),
        "{0}",
        "len(opt.param_groups) == 1",
    ),
    Mistake(
        "fs.AdamW.step(grads)",
        "TypeError",
        (
            "step() is a method of an optimizer, and was called on the class; make one, `opt = "
            "fs.AdamW(params)`, and call `opt.step(grads)`"
        ),
        "{0}; {1}",
        "opt.state['w']['t'] == 1",
    ),
    Mistake(
        "opt.to('cpu')",
        "AttributeError",
        (
            "'AdamW' object has no attribute 'to'; state lies where its parameters do, and has "
            "their dtype; make another over those, `opt = fs.AdamW(params)`"
        ),
        "{0}",
        "opt.state['w']['t'] == 0",
    ),
    Mistake(
        "opt.cuda()",
        "AttributeError",
        (
            "'AdamW' object has no attribute 'cuda'; state lies where its parameters do, and "
            "has their dtype; make another over those, `opt = fs.AdamW(params)`"
        ),
        "{0}",
        "opt.state['w']['t'] == 0",
    ),
    Mistake(
        "opt.fit(params, grads)",
        "AttributeError",
        (
            "'AdamW' object has no attribute 'fit'; the loop is yours, and in it "
            "`opt.step(grads)` updates the parameters in place"
        ),
        "{0}",
        "opt.state['w']['t'] == 1",
    ),
    Mistake(
        "opt.lookahead()",
        "AttributeError",
        (
            "'AdamW' object has no attribute 'lookahead'; `opt = fs.SGD(params, momentum=0.9)` "
            "has it"
        ),
        "{0}\nwith opt.lookahead(): pass",
        "opt.param_groups[0]['momentum'] == 0.9",
    ),
]

STEPS = [
    Mistake(
        "opt.step()",
        "TypeError",
        (
            "step() without `grads` is for optimizers over a fusedstep.Arena; pass the "
            "gradients, in the structure of the parameters, as `opt.step(grads)`"
        ),
        "{1}",
        "opt.state['w']['t'] == 1",
    ),
    Mistake(
        "opt.step(0.5)",
        "TypeError",
        (
            "grads is 0.5 (float); pass a mapping with the keys 'w', 'b'; a step takes the "
            "gradients, and not the loss: `opt.step(grads)`"
        ),
        "{0}",
        "opt.state['w']['t'] == 1",
    ),
    Mistake(
        "opt.step(lambda: 0.5)",
        "TypeError",
        (
            "grads is ... (function); pass a mapping with the keys 'w', 'b'; a step takes "
            "the gradients, and calls no closure: `opt.step(grads)`"
        ),
        "{0}",
        "opt.state['w']['t'] == 1",
    ),
    Mistake(
        "opt.step(params, grads)",
        "TypeError",
        (
            "step() takes the gradients alone, and 2 arguments were given without their "
            "names; parameters are the optimizer's already: `opt.step(grads)`"
        ),
        "{0}",
        "opt.state['w']['t'] == 1",
    ),
    Mistake(
        "opt.step(closure=lambda: 0.5)",
        "TypeError",
        (
            "step() got an unexpected keyword argument 'closure'; a step takes the "
            "gradients: `opt.step(grads)`"
        ),
        "{0}",
        "opt.state['w']['t'] == 1",
    ),
    Mistake(
        "opt.step(grads, lr=0.1)",
        "TypeError",
        "step() got an unexpected keyword argument 'lr'; set it before, `opt.lr = 0.1`",
        "{0}; opt.step(grads)",
        "opt.lr == 0.1",
    ),
    Mistake(
        "opt.step(grads, max_grad_norm=1.0)",
        "TypeError",
        "step() got an unexpected keyword argument 'max_grad_norm'; pass `max_norm=1.0`",
        "opt.step(grads, {0})",
        "opt.state['w']['t'] == 1",
    ),
    Mistake(
        "opt.step(grads, zero_grad=True)",
        "TypeError",
        "step() got an unexpected keyword argument 'zero_grad'; pass `zero_grads=True`",
        "opt.step(grads, {0})",
        "(grads['w'] == 0).all()",
    ),
    Mistake(
        "opt.step(grads, wait=0)",
        "TypeError",
        "wait=0 (int); pass True or False: `wait=False`",
        "handle = opt.step(grads, {0})",
        "handle.result().t == 1",
    ),
    Mistake(
        "opt.step(grads, non_blocking=True)",
        "TypeError",
        "step() got an unexpected keyword argument 'non_blocking'; pass `wait=False`",
        "handle = opt.step(grads, {0})",
        "handle.result().t == 1",
    ),
    Mistake(
        "opt.step(grads, blocking=True)",
        "TypeError",
        "step() got an unexpected keyword argument 'blocking'; pass `wait=True`",
        "opt.step(grads, {0})",
        "opt.state['w']['t'] == 1",
    ),
    Mistake(
        "opt.step(grads, wiat=False)",
        "TypeError",
        "step() got an unexpected keyword argument 'wiat'; did you mean `wait=False`?",
        "handle = opt.step(grads, {0})",
        "handle.result().t == 1",
    ),
    Mistake(
        "opt.step(grads, event=event)",
        "TypeError",
        (
            "step() got an unexpected keyword argument 'event'; a step in flight may come after "
            "it: pass `wait=False, after=event`"
        ),
        "handle = opt.step(grads, {0})",
        "handle.result().t == 1",
        setup="class Event:\n    def synchronize(self): pass\nevent = Event()",
    ),
    Mistake(
        "opt.step(grads, after=event)",
        "TypeError",
        (
            "after=... (Event) is what a step in flight comes after; pass `wait=False` with it, "
            "or call `after.synchronize()` before the step"
        ),
        "handle = opt.step(grads, after=event, {0})",
        "handle.result().t == 1",
        setup="class Event:\n    def synchronize(self): pass\nevent = Event()",
    ),
    Mistake(
        "handle.grad_norm",
        "AttributeError",
        (
            "'Handle' object has no attribute 'grad_norm'; the report has it: "
            "`handle.result().grad_norm`"
        ),
        "norm = {0}",
        "norm > 0",
        setup="handle = opt.step(grads, max_norm=1.0, wait=False); handle.result()",
    ),
    Mistake(
        "opt.step(wait=False)",
        "TypeError",
        (
            "step() got an unexpected keyword argument 'wait'; hooks, GradScaler and schedulers "
            "of torch find a step done when it returns. Steps in flight are those of "
            "`fusedstep.AdamW([p.detach() for p in parameters])`, or its siblings"
        ),
        "opt = {0}; handle = opt.step([p.grad for p in parameters], wait=False)",
        "handle.result().t == 1",
        setup=(
            "import torch, fusedstep.torch; model = torch.nn.Linear(2, 3)\n"
            "parameters = [*model.parameters()]; opt = fusedstep.torch.AdamW(parameters)\n"
            "model(torch.ones(2)).sum().backward()"
        ),
        needs="torch",
    ),
    Mistake(
        "opt.step(grads, max_nrom=1.0)",
        "TypeError",
        "step() got an unexpected keyword argument 'max_nrom'; did you mean `max_norm=1.0`?",
        "opt.step(grads, {0})",
        "opt.state['w']['t'] == 1",
    ),
    Mistake(
        "opt.step(grads, scale=0)",
        "ValueError",
        ("scale=0; gradients are divided by it, so pass what the loss was multiplied by, above 0"),
        "opt.step(grads, scale=1.0)",
        "opt.state['w']['t'] == 1",
    ),
    Mistake(
        "opt.step({'W': grads['w'], 'b': grads['b']})",
        "KeyError",
        (
            "grads lacks 'w' and has the surplus 'W'; pass one item for each parameter, "
            "None for one to skip. Did you mean 'w' for 'W'?"
        ),
        "opt.step({'w': grads['w'], 'b': grads['b']})",
        "opt.state['w']['t'] == 1",
    ),
    Mistake(
        "opt.step({'weight': grads['w'], 'bias': grads['b']})",
        "KeyError",
        (
            "grads lacks 'w', 'b' and has the surplus 'weight', 'bias'; pass one item for "
            "each parameter, None for one to skip. Did you mean 'w' for 'weight', 'b' for "
            "'bias'?"
        ),
        "opt.step({'w': grads['w'], 'b': grads['b']})",
        "opt.state['w']['t'] == 1",
    ),
    Mistake(
        "opt.step(grads)",
        "KeyError",
        (
            "grads lacks 'b'; pass one item for each parameter, None for one to skip, as "
            "`{**grads, 'b': None}`"
        ),
        "opt.step({0})",
        "opt.state['w']['t'] == 1 and opt.state['b']['t'] == 0",
        setup="grads = {'w': grads['w']}",
    ),
    Mistake(
        "opt.step(grads)",
        "KeyError",
        (
            "grads has the surplus 'loss'; pass one item for each parameter, None for one "
            "to skip, as `{key: grads[key] for key in params}`"
        ),
        "opt.step({0})",
        "opt.state['w']['t'] == 1",
        setup="grads = {**grads, 'loss': 0.5}",
    ),
    Mistake(
        "opt.step(grads)",
        "TypeError",
        (
            "grads is [array([[1., 1.],        [1., 1.],        [1., 1.]], dtyp... (list); "
            "pass a mapping with the keys 'w', 'b', `dict(zip(params, grads))` if they are "
            "in that order"
        ),
        "opt.step({0})",
        "opt.state['w']['t'] == 1",
        setup="grads = [*grads.values()]",
    ),
    Mistake(
        "opt.step(grads)",
        "TypeError",
        (
            "grads is dict_items([('w', array([[1., 1.],        [1., 1.],      ... "
            "(dict_items); pass a mapping with the keys 'w', 'b', `dict(grads)`"
        ),
        "opt.step({0})",
        "opt.state['w']['t'] == 1",
        setup="grads = grads.items()",
    ),
    Mistake(
        "opt.step(grads)",
        "TypeError",
        (
            "grads is ... (zip); pass a mapping with the keys 'w', 'b', `dict(zip(params, "
            "[g for g, _ in grads]))` of pairs of gradients and parameters"
        ),
        "opt.step({0})",
        "opt.state['w']['t'] == 1",
        setup="grads = zip(grads.values(), params.values())",
    ),
    Mistake(
        "opt.step(grads)",
        "TypeError",
        (
            "grads is {'w': array([[1., 1.],        [1., 1.],        [1., 1.]],... (dict); "
            "pass a sequence of 2, in the order of the parameters, `[*grads.values()]`"
        ),
        "opt.step({0})",
        "opt.state[0]['t'] == 1",
        setup="opt = fs.AdamW([*params.values()])",
    ),
    Mistake(
        "opt.step(grads)",
        "ValueError",
        (
            "grads has 1 items for 2 parameters; pass one for each, None for a parameter "
            "to skip, as `[*grads, None]`"
        ),
        "opt.step({0})",
        "opt.state[0]['t'] == 1 and opt.state[1]['t'] == 0",
        setup="opt = fs.AdamW([*params.values()]); grads = [grads['w']]",
    ),
    Mistake(
        "opt.step(grads)",
        "TypeError",
        (
            "grads is an array of shape (3, 2) and dtype float32; pass a sequence of 1, in "
            "the order of the parameters, `[grads]`"
        ),
        "opt.step({0})",
        "opt.state[0]['t'] == 1",
        setup="opt = fs.AdamW([params['w']]); grads = grads['w']",
    ),
]

GRADIENTS = [
    Mistake(
        "opt.step(grads)",
        "ValueError",
        (
            "grads['w'] has shape (2, 3), its parameter (3, 2); they must be equal; if it "
            "was taken of the transpose, pass `grads['w'].T`"
        ),
        "grads['w'] = {0}; opt.step(grads)",
        "opt.state['w']['t'] == 1",
        setup="grads['w'] = grads['w'].T",
    ),
    Mistake(
        "opt.step(grads)",
        "ValueError",
        (
            "grads['b'] has shape (1, 2), its parameter (2,); they must be equal; if its "
            "elements are in order, pass `grads['b'].reshape((2,))`"
        ),
        "grads['b'] = {0}; opt.step(grads)",
        "opt.state['w']['t'] == 1",
        setup="grads['b'] = np.ones((1, 2), np.float32)",
    ),
    Mistake(
        "opt.step(grads)",
        "ValueError",
        (
            "grads['b'] has shape (5, 2), its parameter (2,); they must be equal; if the "
            "parameter was broadcast, its gradient is the sum, `grads['b'].sum(0)`"
        ),
        "grads['b'] = {0}; opt.step(grads)",
        "(grads['b'] == 5).all()",
        setup="grads['b'] = np.ones((5, 2), np.float32)",
    ),
    Mistake(
        "opt.step(grads)",
        "ValueError",
        (
            "grads['w'] has shape (7, 3, 2), its parameter (3, 2); they must be equal; if "
            "the parameter was broadcast, its gradient is the sum, `grads['w'].sum(0)`"
        ),
        "grads['w'] = {0}; opt.step(grads)",
        "(grads['w'] == 7).all()",
        setup="grads['w'] = np.ones((7, 3, 2), np.float32)",
    ),
    Mistake(
        "opt.step(grads)",
        "ValueError",
        (
            "grads has shape (3, 5), its parameter (3, 1); they must be equal; if the "
            "parameter was broadcast, its gradient is the sum, `grads.sum(1, "
            "keepdims=True)`"
        ),
        "grads = {0}; opt.step(grads)",
        "(grads == 5).all()",
        setup="opt = fs.SGD(np.ones((3, 1))); grads = np.ones((3, 5))",
    ),
    Mistake(
        "opt.step(grads)",
        "ValueError",
        (
            "grads['w'] has shape (6,), its parameter (3, 2); they must be equal; if its "
            "elements are in order, pass `grads['w'].reshape((3, 2))`"
        ),
        "grads['w'] = {0}; opt.step(grads)",
        "opt.state['w']['t'] == 1",
        setup="grads['w'] = grads['w'].ravel()",
    ),
    Mistake(
        "opt.step(grads)",
        "ValueError",
        (
            "grads has shape (3, 4, 2), its parameter (2, 3, 4); they must be equal; if "
            "its axes stand in another order, pass `grads.transpose((2, 0, 1))`"
        ),
        "grads = {0}; opt.step(grads)",
        "opt.state['t'] == 1",
        setup="opt = fs.SGD(np.ones((2, 3, 4))); grads = np.ones((3, 4, 2))",
    ),
    Mistake(
        "opt.step(grads)",
        "ValueError",
        (
            "grads['b'] has shape (1,), its parameter (2,); they must be equal, so "
            "broadcast it yourself: `np.broadcast_to(grads['b'], (2,))`"
        ),
        "grads['b'] = {0}; opt.step(grads)",
        "opt.state['w']['t'] == 1",
        setup="grads['b'] = np.ones(1, np.float32)",
    ),
    Mistake(
        "opt.step(grads)",
        "ValueError",
        (
            "grads['w'] has shape (3, 3), its parameter (3, 2); they must be equal: is it "
            "another parameter's?"
        ),
        "grads['w'] = np.ones((3, 2), np.float32); opt.step(grads)",
        "opt.state['w']['t'] == 1",
        setup="grads['w'] = np.ones((3, 3), np.float32)",
    ),
    Mistake(
        "opt.step(grads)",
        "TypeError",
        (
            "grads['w'] has dtype '<f8' (float64), its parameter float32; convert it: "
            "`grads['w'].astype(np.float32)`"
        ),
        "grads['w'] = {0}; opt.step(grads)",
        "opt.state['w']['t'] == 1",
        setup="grads['w'] = grads['w'].astype(np.float64)",
    ),
    Mistake(
        "opt.step(grads)",
        "TypeError",
        (
            "grads['w'] has dtype '<c8' (complex64), its parameter float32; convert it: "
            "`grads['w'].real.astype(np.float32)`"
        ),
        "grads['w'] = {0}; opt.step(grads)",
        "opt.state['w']['t'] == 1",
        setup="grads['w'] = grads['w'].astype(np.complex64)",
    ),
    Mistake(
        "opt.step(grads)",
        "TypeError",
        (
            "grads['b'] is [1.0, 2.0] (list); pass a NumPy array, `np.asarray(grads['b'], "
            "np.float32)`"
        ),
        "grads['b'] = {0}; opt.step(grads)",
        "opt.state['w']['t'] == 1",
        setup="grads['b'] = [1.0, 2.0]",
    ),
    Mistake(
        "opt.step(grads)",
        "TypeError",
        ("grads is np.float32(1.0) (float32); pass a NumPy array, `np.asarray(grads, np.float32)`"),
        "grads = {0}; opt.step(grads)",
        "opt.state['t'] == 1",
        setup="opt = fs.SGD(np.ones((), np.float32)); grads = np.float32(1)",
    ),
    Mistake(
        "opt.step(grads)",
        "ValueError",
        "grads['b'] shares memory with params['b'], which the step writes; pass a copy",
        "grads['b'] = params['b'].copy(); opt.step(grads)",
        "opt.state['w']['t'] == 1",
        setup="grads['b'] = params['b']",
    ),
    Mistake(
        "opt.step(grads)",
        "TypeError",
        (
            "grads has dtype '<f4' (float32), its parameter float64; convert it: "
            "`grads.astype(np.float64)`"
        ),
        "opt.step({0})",
        "opt.state['t'] == 1",
        setup=(
            "import scipy.sparse; opt = fs.SGD(np.eye(3)); grads = scipy.sparse.eye(3, "
            "format='csr', dtype=np.float32)"
        ),
        needs="scipy",
    ),
    Mistake(
        "opt.step(fs.Rows([0, -1], np.ones((2, 3))))",
        "IndexError",
        (
            "grads.index[1] is -1, and the parameter has 3 rows; numbers do not count from the "
            "end here: pass `grads.index % 3`"
        ),
        "opt.step(fs.Rows(np.array([0, -1]) % 3, np.ones((2, 3))))",
        "opt.state['row_t'].tolist() == [1, 0, 1]",
        setup="opt = fs.SGD(np.eye(3))",
    ),
    Mistake(
        "opt.step(fs.Rows([True, False, True], np.ones((3, 3))))",
        "TypeError",
        "grads.index has dtype bool; `fs.Rows.where(mask, g)` takes a mask and a whole gradient",
        "opt.step(fs.Rows.where([True, False, True], np.ones((3, 3))))",
        "opt.state['row_t'].tolist() == [1, 0, 1]",
        setup="opt = fs.SGD(np.eye(3))",
    ),
    Mistake(
        "opt.step(fs.Rows([0, 1], np.ones(3)))",
        "ValueError",
        (
            "grads.values has shape (3,), and grads.index 2 rows; pass one gradient for each, of "
            "shape (2, 3)"
        ),
        "opt.step(fs.Rows([0, 1], np.ones((2, 3))))",
        "opt.state['row_t'].tolist() == [1, 1, 0]",
        setup="opt = fs.SGD(np.eye(3))",
    ),
    Mistake(
        "fs.SparseAdam(params)",
        "AttributeError",
        (
            "module 'fusedstep' has no attribute 'SparseAdam'; `fs.Adam(params, "
            "row_steps='shared')` is it, and takes `fs.Rows(index, values)`"
        ),
        "opt = {0}",
        "opt.param_groups[0]['row_steps'] == 'shared'",
    ),
    Mistake(
        "opt.step(grads)",
        "ValueError",
        (
            "grads['w'] is an array of shape (3, 2) and dtype float32 and not the arena's "
            "view; its optimizer steps all of `arena.grads`, so write into that: "
            "`arena.grads['w'][...] = value`"
        ),
        "arena.grads['w'][...] = grads['w']; arena.grads['b'][...] = grads['b']; opt.step()",
        "(arena.params['w'] < 1).all()",
        setup="arena = fs.Arena(params); opt = fs.AdamW(arena)",
    ),
    Mistake(
        "arena.grads['w'] = grads['w']",
        "TypeError",
        (
            "grads['w'] = ... would replace the arena's view, and the optimizer would step "
            "the old memory, without what is assigned; write into it: `grads['w'][...] = "
            "value`"
        ),
        "arena.grads['w'][...] = grads['w']; opt.step()",
        "(arena.params['w'] < 1).all()",
        setup="arena = fs.Arena(params); opt = fs.AdamW(arena)",
    ),
    Mistake(
        "jax.jit(lambda g: opt.step(g))(grads)",
        "TypeError",
        (
            "grads is ... (DynamicJaxprTracer); it has no values while JAX traces; inside of "
            "`jax.jit` step by `fusedstep.jax.adamw(1e-3)` or its siblings, or take the step "
            "outside of it"
        ),
        "opt.step(grads)",
        "opt.state['t'] == 1",
        setup="import jax, jax.numpy; grads = jax.numpy.ones(3); opt = fs.AdamW(np.ones(3, 'f4'))",
        needs="jax",
    ),
    Mistake(
        "opt.step(grads)",
        "TypeError",
        (
            "grads is "
            "b'\\x00\\x00\\x00\\x00\\x00\\x00\\x00\\x00\\x00\\x00\\x00\\x00\\x00\\x0... "
            "(bytes); pass a NumPy array, `np.frombuffer(grads, np.float64)`"
        ),
        "opt.step({0})",
        "opt.state['t'] == 1",
        setup="opt = fs.SGD(np.ones(2)); grads = bytes(16)",
    ),
    Mistake(
        "opt.step(grads)",
        "TypeError",
        (
            "grads is bytearray(b'\\x00\\x00\\x00\\x00\\x00\\x00\\x00\\x00\\x00\\x00\\x00\\... "
            "(bytearray); pass a NumPy array, `np.frombuffer(grads, np.float32).reshape((3, "
            "2))`"
        ),
        "opt.step({0})",
        "opt.state['t'] == 1",
        setup="opt = fs.SGD(params['w']); grads = bytearray(24)",
    ),
    Mistake(
        "opt.step(grads)",
        "TypeError",
        (
            "grads is b'\\x00\\x00\\x00\\x00\\x00\\x00\\x00' (bytes); pass a NumPy array; its "
            "parameter has 16 bytes, and these are 7"
        ),
        "opt.step(np.ones(2))",
        "opt.state['t'] == 1",
        setup="opt = fs.SGD(np.ones(2)); grads = bytes(7)",
    ),
    Mistake(
        "opt.step(grads)",
        "TypeError",
        (
            "grads is array('d', [1.0, 2.0]) (array); pass a NumPy array, `np.asarray(grads, "
            "np.float32)`"
        ),
        "opt.step({0})",
        "opt.state['t'] == 1",
        setup="import array; opt = fs.SGD(params['b']); grads = array.array('d', [1, 2])",
    ),
    Mistake(
        "opt.step(grads)",
        "TypeError",
        "grads is ... (memoryview); pass a NumPy array, `np.asarray(grads, np.float32)`",
        "opt.step({0})",
        "opt.state['t'] == 1",
        setup="opt = fs.SGD(params['b']); grads = memoryview(np.ones(2))",
    ),
    Mistake(
        "opt.step(grads)",
        "TypeError",
        "grads is [array([1., 1.], dtype=float32)] (list); pass the array in it, `grads[0]`",
        "opt.step({0})",
        "opt.state['t'] == 1",
        setup="opt = fs.SGD(params['b']); grads = [grads['b']]",
    ),
    Mistake(
        "opt.step(grads)",
        "TypeError",
        (
            "grads is {'b': array([1., 1.], dtype=float32)} (dict); pass the array in it, "
            "`grads['b']`"
        ),
        "opt.step({0})",
        "opt.state['t'] == 1",
        setup="opt = fs.SGD(params['b']); grads = {'b': grads['b']}",
    ),
    Mistake(
        "opt.step(grads)",
        "TypeError",
        (
            "grads is (array([1., 1.], dtype=float32), array([1., 1.], dtype=fl... (tuple); "
            "pass one array at a time, `grads[0]`"
        ),
        "opt.step({0})",
        "opt.state['t'] == 1",
        setup="opt = fs.SGD(params['b']); grads = (grads['b'], params['b'])",
    ),
    Mistake(
        "opt.step(grads)",
        "TypeError",
        "grads is [1.0, 2.0] (list); pass a NumPy array, `np.asarray(grads, np.float64)`",
        "opt.step({0})",
        "opt.state['t'] == 1",
        setup="opt = fs.SGD(np.ones(2)); grads = [1.0, 2.0]",
    ),
    Mistake(
        "opt.step(grads)",
        "TypeError",
        "grads is (1.0, 2.0) (tuple); pass a NumPy array, `np.asarray(grads, np.float64)`",
        "opt.step({0})",
        "opt.state['t'] == 1",
        setup="opt = fs.SGD(np.ones(2)); grads = (1.0, 2.0)",
    ),
    Mistake(
        "opt.step(grads)",
        "TypeError",
        "grads is 0.5 (float); pass a NumPy array, `np.asarray(grads, np.float64)`",
        "opt.step({0})",
        "opt.state['t'] == 1",
        setup="opt = fs.SGD(np.ones(())); grads = 0.5",
    ),
    Mistake(
        "opt.step(grads)",
        "TypeError",
        (
            "grads['w'] is [[1.0, 2.0], [3.0, 4.0]] (list); pass a NumPy array, "
            "`np.asarray(grads['w'], np.float64)`"
        ),
        "grads['w'] = {0}; opt.step(grads)",
        "opt.state['w']['t'] == 1",
        setup="opt = fs.SGD({'w': np.ones((2, 2))}); grads = {'w': [[1.0, 2.0], [3.0, 4.0]]}",
    ),
    Mistake(
        "opt.step(grads)",
        "TypeError",
        "grads is [1.0, 2.0, 3.0] (list); pass a NumPy array of shape (2,) and dtype float64",
        "opt.step(np.ones(2))",
        "opt.state['t'] == 1",
        setup="opt = fs.SGD(np.ones(2)); grads = [1.0, 2.0, 3.0]",
    ),
    Mistake(
        "opt.step(grads)",
        "TypeError",
        (
            "grads has dtype '|O' (object), its parameter float64; its elements are no "
            "numbers; pass an array of numbers"
        ),
        "opt.step(np.ones(2))",
        "opt.state['t'] == 1",
        setup="opt = fs.SGD(np.ones(2)); grads = np.array([None, None])",
    ),
    Mistake(
        "opt.step(grads)",
        "TypeError",
        (
            "grads has dtype '|O' (object), its parameter float64; convert it: "
            "`grads.astype(np.float64)`"
        ),
        "opt.step({0})",
        "opt.state['t'] == 1",
        setup="opt = fs.SGD(np.ones(2)); grads = np.array([1, 2], object)",
    ),
    Mistake(
        "opt.step(grads)",
        "TypeError",
        (
            "grads has dtype '|O' (object), its parameter float64; pass one array at a time, "
            "`grads[0]`"
        ),
        "opt.step({0})",
        "opt.state['t'] == 1",
        setup="opt = fs.SGD(np.ones(2)); grads = np.array([np.ones(2), np.ones(3)], object)",
    ),
    Mistake(
        "opt.step(grads)",
        "TypeError",
        (
            "grads is an array of shape (2,) and dtype object; pass a sequence of 2, in the "
            "order of the parameters, `[*grads]`"
        ),
        "opt.step({0})",
        "opt.state[1]['t'] == 1",
        setup=(
            "opt = fs.SGD([np.ones(2), np.ones(3)]); grads = np.array([np.ones(2), "
            "np.ones(3)], object)"
        ),
    ),
    Mistake(
        "opt.step(grads)",
        "TypeError",
        (
            "grads has dtype '<U3' (str96), its parameter float64; convert it: "
            "`grads.astype(np.float64)`"
        ),
        "opt.step({0})",
        "opt.state['t'] == 1",
        setup="opt = fs.SGD(np.ones(2)); grads = np.array(['1.5', '2'])",
    ),
    Mistake(
        "opt.step(grads)",
        "TypeError",
        (
            "grads has dtype '<U1' (str32), its parameter float64; its elements are no "
            "numbers; pass an array of numbers"
        ),
        "opt.step(np.ones(2))",
        "opt.state['t'] == 1",
        setup="opt = fs.SGD(np.ones(2)); grads = np.array(['a', 'b'])",
    ),
    Mistake(
        "opt.step(grads)",
        "ValueError",
        (
            "grads has shape (2, 64), its parameter (2,); they must be equal; if the parameter "
            "was broadcast, its gradient is the sum, `grads.sum(1)`"
        ),
        "grads = {0}; opt.step(grads)",
        "(grads == 64).all()",
        setup="opt = fs.SGD(np.ones(2)); grads = np.ones((2, 64))",
    ),
    Mistake(
        "opt.step(grads)",
        "ValueError",
        (
            "grads has shape (5, 2, 3), its parameter (2,); they must be equal; if the "
            "parameter was broadcast, its gradient is the sum, `grads.sum((0, 2))`"
        ),
        "grads = {0}; opt.step(grads)",
        "(grads == 15).all()",
        setup="opt = fs.SGD(np.ones(2)); grads = np.ones((5, 2, 3))",
    ),
    Mistake(
        "opt.step(grads)",
        "ValueError",
        (
            "grads has shape (2, 5, 7), its parameter (2, 1); they must be equal; if the "
            "parameter was broadcast, its gradient is the sum, `grads.sum((1, 2), "
            "keepdims=True).reshape((2, 1))`"
        ),
        "grads = {0}; opt.step(grads)",
        "(grads == 35).all()",
        setup="opt = fs.SGD(np.ones((2, 1))); grads = np.ones((2, 5, 7))",
    ),
    Mistake(
        "opt.step(grads)",
        "ValueError",
        (
            "grads has shape (5,), its parameter (); they must be equal; if the parameter was "
            "broadcast, its gradient is the sum, `grads.sum(0, keepdims=True).reshape(())`"
        ),
        "grads = {0}; opt.step(grads)",
        "grads == 5",
        setup="opt = fs.SGD(np.ones(())); grads = np.ones(5)",
    ),
]

NAMES = [
    Mistake(
        "fs.NAdam(params)",
        "AttributeError",
        "module 'fusedstep' has no attribute 'NAdam'; did you mean `fs.rules.NAdam`?",
        "opt = {0}(params)",
        "opt.lr == 0.002",
    ),
    Mistake(
        "fs.Lion(params)",
        "AttributeError",
        "module 'fusedstep' has no attribute 'Lion'; did you mean `fs.rules.Lion`?",
        "opt = {0}(params)",
        "opt.lr == 0.0001",
    ),
    Mistake(
        "fs.adam(params)",
        "AttributeError",
        "module 'fusedstep' has no attribute 'adam'; did you mean `fs.Adam`?",
        "opt = {0}(params)",
        "isinstance(opt, fs.Adam)",
    ),
    Mistake(
        "fs.AdaGrad(params)",
        "AttributeError",
        "module 'fusedstep' has no attribute 'AdaGrad'; did you mean `fs.Adagrad`?",
        "opt = {0}(params)",
        "isinstance(opt, fs.Adagrad)",
    ),
    Mistake(
        "fs.Adagard(params)",
        "AttributeError",
        "module 'fusedstep' has no attribute 'Adagard'; did you mean `fs.Adagrad`?",
        "opt = {0}(params)",
        "isinstance(opt, fs.Adagrad)",
    ),
    Mistake(
        "fs.RMSProp(params)",
        "AttributeError",
        "module 'fusedstep' has no attribute 'RMSProp'; did you mean `fs.RMSprop`?",
        "opt = {0}(params)",
        "isinstance(opt, fs.RMSprop)",
    ),
    Mistake(
        "fs.optim.Adam(params)",
        "AttributeError",
        (
            "module 'fusedstep' has no attribute 'optim'; `fs.SGD`, `fs.Adam` and the "
            "others stand in the package itself"
        ),
        "opt = {1}(params)",
        "isinstance(opt, fs.Adam)",
    ),
    Mistake(
        "from fusedstep.optim import Adam",
        "ModuleNotFoundError",
        (
            "fusedstep has no 'optim'; `fs.SGD`, `fs.Adam` and the others stand in the "
            "package itself"
        ),
        "opt = {1}(params)",
        "isinstance(opt, fs.Adam)",
    ),
    Mistake(
        "from fusedstep import NAdam",
        "ModuleNotFoundError",
        "fusedstep has no 'NAdam'; did you mean `fs.rules.NAdam`?",
        "opt = {0}(params)",
        "opt.lr == 0.002",
    ),
    Mistake(
        "fs.get_optimizer('AdamW')",
        "AttributeError",
        (
            "module 'fusedstep' has no attribute 'get_optimizer'; a class by its name is "
            "`getattr(fs, 'AdamW')`"
        ),
        "opt = {0}(params)",
        "isinstance(opt, fs.AdamW)",
    ),
    Mistake(
        "fs.Momentum(params)",
        "AttributeError",
        "module 'fusedstep' has no attribute 'Momentum'; `fs.SGD(params, momentum=0.9)` is it",
        "opt = {0}",
        "'b' in opt.state['w']",
    ),
    Mistake(
        "fs.AMSGrad(params)",
        "AttributeError",
        "module 'fusedstep' has no attribute 'AMSGrad'; `fs.Adam(params, amsgrad=True)` is it",
        "opt = {0}",
        "'x' in opt.state['w']",
    ),
    Mistake(
        "fs.LAMB(params)",
        "AttributeError",
        (
            "module 'fusedstep' has no attribute 'LAMB'; its step is not elementwise, and "
            "is not here; `fs.AdamW` is"
        ),
        "opt = {0}(params)",
        "isinstance(opt, fs.AdamW)",
    ),
    Mistake(
        "fs.StepLR(opt, 10)",
        "AttributeError",
        (
            "module 'fusedstep' has no attribute 'StepLR'; `fs.schedules.step(0.1, "
            "every=100, factor=0.5)` is of that kind"
        ),
        "opt.lr = {0}",
        "opt.lr(1) == 0.1",
    ),
    Mistake(
        "fs.lr_scheduler.CosineAnnealingLR(opt, 100)",
        "AttributeError",
        (
            "module 'fusedstep' has no attribute 'lr_scheduler'; a schedule is a learning "
            "rate: `opt.lr = fs.schedules.cosine(0.1, steps=1000)` goes on by itself at "
            "each step"
        ),
        "{0}",
        "opt.lr(1) == 0.1",
    ),
    Mistake(
        "fs.clip_grad_norm_(params, 1.0)",
        "AttributeError",
        (
            "module 'fusedstep' has no attribute 'clip_grad_norm_'; clipping is a part of "
            "the step: `opt.step(grads, max_norm=1.0)`"
        ),
        "{0}",
        "opt.state['w']['t'] == 1",
    ),
    Mistake(
        "fs.Parameter(np.zeros(3))",
        "AttributeError",
        (
            "module 'fusedstep' has no attribute 'Parameter'; parameters are NumPy arrays, "
            "as `np.zeros(3, np.float32)`"
        ),
        "opt = fs.AdamW({0})",
        "opt.lr == 0.001",
    ),
    Mistake(
        "fs.GradScaler()",
        "AttributeError",
        (
            "module 'fusedstep' has no attribute 'GradScaler'; `opt.step(grads, "
            "scale=1024.0)` unscales"
        ),
        "{0}",
        "opt.state['w']['t'] == 1",
    ),
    Mistake(
        "fs.EMA(params)",
        "AttributeError",
        (
            "module 'fusedstep' has no attribute 'EMA'; `fs.AdamW(params, ema=0.999)` "
            "keeps an average in its state"
        ),
        "opt = {0}",
        "'ema' in opt.state['w']",
    ),
    Mistake(
        "fs.set_threads(2)",
        "AttributeError",
        "module 'fusedstep' has no attribute 'set_threads'; `fs.set_num_threads(2)` does it",
        "before = fs.get_num_threads(); {0}; fs.set_num_threads(before)",
        "fs.get_num_threads() == before",
    ),
    Mistake(
        "fs.set_num_threads('2')",
        "ValueError",
        "n='2' is no number of threads; pass a whole number from 1 to 1024",
        "fs.set_num_threads(fs.get_num_threads())",
        "fs.get_num_threads() > 0",
    ),
    Mistake(
        "fs.rules.LION(params)",
        "AttributeError",
        "module 'fusedstep.rules' has no attribute 'LION'; did you mean `fs.rules.Lion`?",
        "opt = {0}(params)",
        "opt.lr == 0.0001",
    ),
    Mistake(
        "fs.schedules.CosineAnnealingLR(0.1, 100)",
        "AttributeError",
        (
            "module 'fusedstep.schedules' has no attribute 'CosineAnnealingLR'; "
            "`fs.schedules.cosine(0.1, steps=1000)` is of that kind"
        ),
        "opt.lr = {0}",
        "opt.lr(1) == 0.1",
    ),
    Mistake(
        "fs.schedules.cosine(0.1, T_max=100)",
        "TypeError",
        "cosine: got an unexpected keyword argument 'T_max'; pass `steps=100`",
        "opt.lr = fs.schedules.cosine(0.1, {0})",
        "opt.lr(1) == 0.1",
    ),
    Mistake(
        "fs.schedules.step(0.1, step_size=10, gamma=0.5)",
        "TypeError",
        "step: got an unexpected keyword argument 'step_size'; pass `every=10`",
        "opt.lr = fs.schedules.step(0.1, {0}, factor=0.5)",
        "opt.lr(11) == 0.05",
    ),
    Mistake(
        "fs.schedules.cosine(0.1)",
        "TypeError",
        (
            "cosine: missing a required argument: 'steps'; call it as "
            "`fs.schedules.cosine(0.1, steps=1000)`"
        ),
        "opt.lr = {0}",
        "opt.lr(1) == 0.1",
    ),
    Mistake(
        "fs.presets.pytorch",
        "AttributeError",
        ("module 'fusedstep.presets' has no attribute 'pytorch'; did you mean `fs.presets.torch`?"),
        "opt = fs.AdamW(params, **{0}.AdamW)",
        "opt.lr == 0.001",
    ),
    Mistake(
        "fs.presets.keras['Adam']",
        "TypeError",
        "fs.presets.keras has its presets as attributes: `fs.presets.keras.Adam`",
        "opt = fs.Adam(params, **{0})",
        "opt.lr == 0.001",
    ),
    Mistake(
        "fs.presets.torch.adamw",
        "AttributeError",
        "fs.presets.torch has no 'adamw'; did you mean 'AdamW'?",
        "opt = fs.AdamW(params, **fs.presets.torch.AdamW)",
        "opt.lr == 0.001",
    ),
    Mistake(
        "fs.functional.AdamW",
        "AttributeError",
        (
            "module 'fusedstep.functional' has no attribute 'AdamW'; did you mean "
            "`fs.functional.adamw`?"
        ),
        "step = {0}",
        "step is fs.functional.adamw",
    ),
    Mistake(
        "fs.functional.adamw(p, g, t=1)",
        "TypeError",
        (
            "adamw(): missing 2 required positional arguments: 'm' and 'v'; call it as "
            "`fs.functional.adamw(p, g, m, v, t=1)`, and x if they are wanted; m, v start "
            "as `np.zeros_like(p)`"
        ),
        "m, v = {1}, {1}; {0}",
        "(p < 1).all()",
        setup="p, g = params['w'], grads['w']",
    ),
    Mistake(
        "fs.functional.sgd(p, g, t=1, learning_rate=0.1)",
        "TypeError",
        "sgd() got an unexpected keyword argument 'learning_rate'; pass `lr=0.1`",
        "fs.functional.sgd(p, g, t=1, {0})",
        "(p < 1).all()",
        setup="p, g = params['w'], grads['w']",
    ),
    Mistake(
        "@fs.rule\ndef Mine(p, g, h): return p",
        "TypeError",
        (
            "rule() takes its arguments by name, and 1 came without; it makes a decorator, "
            "`@fs.rule(lr=1e-3)`, in which the state arrays and hyperparameters stand"
        ),
        "{0}\ndef Mine(p, g, h):\n    p = p - h.lr * g\n    return p\nopt = Mine(params)",
        "opt.lr == 0.001",
    ),
    Mistake(
        "fusedstep.torch.AdamW(tensors, learning_rate=0.1)",
        "TypeError",
        "AdamW() got an unexpected keyword argument 'learning_rate'; pass `lr=0.1`",
        "opt = fusedstep.torch.AdamW(tensors, {0})",
        "opt.param_groups[0]['lr'] == 0.1",
        setup="import fusedstep.torch, torch; tensors = [torch.ones(3)]",
        needs="torch",
    ),
    Mistake(
        "fusedstep.torch.adamw(tensors)",
        "AttributeError",
        (
            "module 'fusedstep.torch' has no attribute 'adamw'; did you mean "
            "`fusedstep.torch.AdamW`?"
        ),
        "opt = {0}(tensors)",
        "opt.param_groups[0]['lr'] == 0.001",
        setup="import fusedstep.torch, torch; tensors = [torch.ones(3)]",
        needs="torch",
    ),
    Mistake(
        "fs.FTRL(params)",
        "AttributeError",
        (
            "module 'fusedstep' has no attribute 'FTRL'; `fs.rule` makes an optimizer of any "
            "rule that is elementwise, as `fs.rules` shows"
        ),
        (
            "@{0}(lr=1e-3)\ndef Mine(p, g, h):\n    p = p - h.lr * g\n    return p\nopt = "
            "Mine(params)"
        ),
        "opt.lr == 0.001",
    ),
    Mistake(
        "fs.NesterovSGD(params)",
        "AttributeError",
        (
            "module 'fusedstep' has no attribute 'NesterovSGD'; `fs.SGD(params, momentum=0.9, "
            "nesterov=True)` is it"
        ),
        "opt = {0}",
        "opt.param_groups[0]['nesterov']",
    ),
    Mistake(
        "fs.schedules.warmup_cosine(0.1, 100, 1000)",
        "AttributeError",
        (
            "module 'fusedstep.schedules' has no attribute 'warmup_cosine'; "
            "`fs.schedules.sequence([fs.schedules.warmup(0.1, steps=100), "
            "fs.schedules.cosine(0.1, steps=900)], steps=[100])` is of that kind"
        ),
        "opt.lr = {0}",
        "opt.lr(100) == 0.1",
    ),
    Mistake(
        "fs.schedules.noam(0.1, 1000)",
        "AttributeError",
        (
            "module 'fusedstep.schedules' has no attribute 'noam'; a rate may be any function "
            "of the step count, as `lambda t: 0.1 * min(t / 1000, (1000 / t) ** 0.5)`"
        ),
        "opt.lr = {0}",
        "opt.lr(1000) == 0.1",
    ),
    Mistake(
        "fs.schedules.inverse_sqrt(0.1, 1000)",
        "AttributeError",
        (
            "module 'fusedstep.schedules' has no attribute 'inverse_sqrt'; a rate may be any "
            "function of the step count, as `lambda t: 0.1 * min(t / 1000, (1000 / t) ** 0.5)`"
        ),
        "opt.lr = {0}",
        "opt.lr(4000) == 0.05",
    ),
    Mistake(
        "fs.schedules.ReduceLROnPlateau(opt)",
        "AttributeError",
        (
            "module 'fusedstep.schedules' has no attribute 'ReduceLROnPlateau'; set the rate "
            "where the loss stands still: `opt.lr = 0.1 * opt.lr`"
        ),
        "{0}",
        "opt.lr == 0.0001",
    ),
    Mistake(
        "fs.functional.sgd(p, g, 0.1, t=1)",
        "TypeError",
        (
            "b is 0.1 (float), and an array is due there; hyperparameters are passed by name, "
            "as `lr=0.1`"
        ),
        "fs.functional.sgd(p, g, {0}, t=1)",
        "(p < 1).all()",
        setup="p, g = params['w'], grads['w']",
    ),
    Mistake(
        "fs.functional.adagrad(p, g, 0.1, t=1)",
        "TypeError",
        (
            "s is 0.1 (float), and an array is due there; hyperparameters are passed by name, "
            "as `lr=0.1`"
        ),
        "s = np.zeros_like(p); fs.functional.adagrad(p, g, s, {0}, t=1)",
        "(p < 1).all()",
        setup="p, g = params['w'], grads['w']",
    ),
    Mistake(
        "fs.functional.sgd(p, g, t=1)",
        "TypeError",
        (
            "p is [array([[1., 1.], [1., 1.], [1., 1.]], dtyp... (list); pass the array in it, "
            "`p[0]`"
        ),
        "fs.functional.sgd({0}, g[0], t=1)",
        "(p[0] < 1).all()",
        setup="p, g = [params['w']], [grads['w']]",
    ),
    Mistake(
        "fs.functional.sgd(p, g, t=1)",
        "TypeError",
        (
            "p is {'w': array([[1., 1.], [1., 1.], [1., 1.]],... (dict); pass the array in it, "
            "`p['w']`"
        ),
        "fs.functional.sgd({0}, g, t=1)",
        "(p['w'] < 1).all()",
        setup="p, g = {'w': params['w']}, grads['w']",
    ),
    Mistake(
        "fs.functional.sgd(p, g, t=1)",
        "TypeError",
        (
            "p is {'w': array([[1., 1.], [1., 1.], [1., 1.]],... (dict); pass one array at a "
            "time, `p['w']`"
        ),
        "fs.functional.sgd({0}, g['w'], t=1)",
        "(p['w'] < 1).all()",
        setup="p, g = params, grads",
    ),
    Mistake(
        "fs.functional.sgd(p, g, t=1)",
        "TypeError",
        (
            "g is [array([[1., 1.], [1., 1.], [1., 1.]], dtyp... (list); pass the array in it, "
            "`g[0]`"
        ),
        "fs.functional.sgd(p, {0}, t=1)",
        "(p < 1).all()",
        setup="p, g = params['w'], [grads['w']]",
    ),
    Mistake(
        "fs.functional.sgd(p, g, t=1)",
        "TypeError",
        "g is None; pass the array's gradient, or leave the call out",
        "fs.functional.sgd(p, np.ones_like(p), t=1)",
        "(p < 1).all()",
        setup="p, g = params['w'], None",
    ),
    Mistake(
        "fs.functional.sgd(p, g, t=1)",
        "TypeError",
        "g is [1.0, 2.0] (list); pass a NumPy array, `np.asarray(g, np.float32)`",
        "fs.functional.sgd(p, {0}, t=1)",
        "p[0] < 1",
        setup="p, g = params['b'], [1.0, 2.0]",
    ),
    Mistake(
        "fs.functional.sgd(p, g, t=1)",
        "TypeError",
        (
            "p is [1.0, 2.0] (list); a step writes to it, so pass a NumPy array that stays, `p "
            "= np.array(p, np.float32)` or of float64"
        ),
        "{0}; fs.functional.sgd(p, g, t=1)",
        "p[0] < 1",
        setup="p, g = [1.0, 2.0], grads['b']",
    ),
    Mistake(
        "fs.functional.sgd(p, g, t=1)",
        "TypeError",
        (
            "p is bytearray(b'\\x00\\x00\\x00\\x00\\x00\\x00\\x00\\x00') (bytearray); a step "
            "writes to it, so pass a NumPy array that stays, `p = np.frombuffer(p)`"
        ),
        "{0}; fs.functional.sgd(p, g, t=1)",
        "p[0] < 0",
        setup="p, g = bytearray(8), np.ones(1)",
    ),
    Mistake(
        "fs.functional.adagrad(p, g, s, t=1)",
        "TypeError",
        (
            "s is [0.0, 0.0] (list); a step writes to it, so pass a NumPy array that stays, `s "
            "= np.array(s, np.float32)`"
        ),
        "{0}; fs.functional.adagrad(p, g, s, t=1)",
        "(s == 1).all()",
        setup="p, g, s = params['b'], grads['b'], [0.0, 0.0]",
    ),
    Mistake(
        "fs.functional.adagrad(p, g, None, t=1)",
        "TypeError",
        "s is None; at t = 1 it is `s = np.zeros_like(p)`",
        "{0}; fs.functional.adagrad(p, g, s, t=1)",
        "(s == 1).all()",
        setup="p, g = params['w'], grads['w']",
    ),
]

STATE_DICTS = [
    Mistake(
        "opt.load_state_dict(saved)",
        "ValueError",
        (
            "state_dict['optimizer'] is 'SGD'; this optimizer reads 'AdamW'; load it into "
            "`opt = fs.SGD(params)`"
        ),
        "{0}; opt.load_state_dict(saved)",
        "isinstance(opt, fs.SGD)",
        setup="saved = fs.SGD(params).state_dict()",
    ),
    Mistake(
        "opt.load_state_dict(saved)",
        "KeyError",
        (
            "state_dict lacks 'format'; pass what state_dict() returned; one of torch's is "
            "loaded by `fusedstep.torch.AdamW`"
        ),
        "import fusedstep.torch; opt = {0}(tensors); opt.load_state_dict(saved)",
        "opt.param_groups[0]['lr'] == 0.001",
        setup=(
            "import torch; tensors = [torch.ones(3)]; saved = "
            "torch.optim.AdamW(tensors).state_dict()"
        ),
        needs="torch",
    ),
]

TABLE = {
    "Making an optimizer": MAKING,
    "Values of arguments": VALUES,
    "Parameters": PARAMETERS,
    "Groups": GROUPS,
    "Attributes and methods": ATTRIBUTES,
    "Steps": STEPS,
    "Gradients": GRADIENTS,
    "Names of the package": NAMES,
    "State dicts": STATE_DICTS,
}
"""All of them, by what they are about."""
