"""Names that other packages have for what is here, and what there is in the place of each.

They are those of torch, Keras, TensorFlow, optax, scikit-learn, thinc and Lightning, and of loops
written by hand.
"""

from __future__ import annotations

HYPERPARAMETERS: dict[str, tuple[str, ...]] = {
    **dict.fromkeys(
        ("alpha", "eta", "eta0", "learn_rate", "learning_rate", "learning_rate_init", "rate"),
        ("lr",),
    ),
    **dict.fromkeys(("lr_scheduler", "schedule", "scheduler", "step_size", "stepsize"), ("lr",)),
    **dict.fromkeys(("delta", "epsilon"), ("eps",)),
    **dict.fromkeys(
        ("L2", "l2", "l2_reg", "l2_regularization", "lambda_", "reg", "wd", "weight_decay_rate"),
        ("weight_decay",),
    ),
    **dict.fromkeys(("L1", "l1_reg", "l1_regularization"), ("l1",)),
    **dict.fromkeys(("rho", "decay_rate", "smoothing"), ("alpha", "momentum")),
    "decay": ("alpha", "lr_decay", "weight_decay"),
    **dict.fromkeys(("mu", "beta", "gamma", "mom"), ("momentum", "alpha")),
    "nesterovs_momentum": ("nesterov",),
    "eps_root": ("eps_inside_sqrt",),
    "initial_accumulator": ("initial_accumulator_value",),
    **dict.fromkeys(("ema_beta", "ema_decay", "ema_momentum"), ("ema",)),
    **dict.fromkeys(("device", "engine", "implementation"), ("backend",)),
    **dict.fromkeys(
        ("parameters", "model_parameters", "var_list", "variables", "weights", "trainable_weights"),
        ("params",),
    ),
}
"""Arguments, each with the hyperparameters of which it is the first that an optimizer has."""

BACKENDS = {
    **dict.fromkeys(("cpu", "default", "none"), "auto"),
    **dict.fromkeys(("cupy", "gpu", "nvidia"), "cuda"),
    **dict.fromkeys(("c++", "cpp", "native"), "c"),
    **dict.fromkeys(("jit", "llvm"), "numba"),
    **dict.fromkeys(("np", "python", "reference"), "numpy"),
}
"""Other names of backends."""

BETAS = {
    **dict.fromkeys(("beta", "beta1", "beta_1", "betas1", "b1"), 0),
    **dict.fromkeys(("beta2", "beta_2", "betas2", "b2"), 1),
    **dict.fromkeys(("beta3", "beta_3", "betas3", "b3"), 2),
}
"""Arguments that are one of `betas`, and which."""

OF_A_STEP = {
    **dict.fromkeys(
        (
            *("clip_norm", "clipnorm", "global_clipnorm", "grad_clip", "gradient_clip_val"),
            *("clip", "clip_grad", "clip_grad_norm", "max_grad_norm", "max_norm"),
            *("global_clip", "grad_clip_norm", "gradient_clip", "gradient_clipping"),
            "max_gradient_norm",
        ),
        "max_norm",
    ),
    **dict.fromkeys(
        ("clip_by_value", "clip_grad_value", "clip_value", "clipvalue", "max_value"), "max_value"
    ),
    **dict.fromkeys(
        ("grad_scale", "inv_scale", "loss_scale", "loss_scale_factor", "scale"), "scale"
    ),
    **dict.fromkeys(("zero_grad", "zero_grads", "set_to_none"), "zero_grads"),
}
"""Arguments of an optimizer or a step that are here of `step`."""

WAITING = {
    **dict.fromkeys(("block", "blocking", "sync", "synchronous"), True),
    **dict.fromkeys(
        ("async_op", "asynchronous", "background", "no_wait", "non_blocking", "nonblocking"), False
    ),
}
"""Other names of a step's `wait`, and whether True means to wait."""

BEFORE = ("event", "events", "depends_on", "wait_event", "wait_for")
"""Other names of a step's `after`."""

NEEDLESS = {
    **dict.fromkeys(("foreach", "fused", "jit_compile"), "every step is fused"),
    **dict.fromkeys(("capturable", "differentiable"), "no graph is recorded here"),
    **dict.fromkeys(("dtype", "mu_dtype"), "state has the dtype of its parameter"),
    "name": "an optimizer has no name here",
    "use_locking": "a step happens wholly or not at all",
    **dict.fromkeys(("average", "use_averages", "use_ema"), "`ema=0.999` keeps an average"),
    "minimize": "every step descends",
    "L2_is_weight_decay": "`fs.Adam` has coupled L2, and `fs.AdamW` decoupled decay",
    "gradient_accumulation_steps": "add the gradients up, and step once",
}
"""Arguments that are best left out, and why."""

INSTEAD = {
    "nesterov": "`fs.rules.NAdam(params)` is Adam with Nesterov's momentum",
    **dict.fromkeys(
        ("decoupled", "decoupled_weight_decay"), "`fs.AdamW(params)` is Adam with decoupled decay"
    ),
    "mask": "a group has its own decay, as `[{'params': params, 'weight_decay': 0.0}]`",
    **dict.fromkeys(
        ("num_threads", "n_jobs", "n_threads", "threads"),
        "all optimizers share their threads: `fs.set_num_threads(2)`",
    ),
    **dict.fromkeys(
        ("num_warmup_steps", "warmup", "warmup_steps"),
        "a rate may be a schedule, as `lr=fs.schedules.warmup(0.1, steps=100)`",
    ),
    "no_prox": "`fs.rules.Adan(params, no_prox=True)` has it",
}
"""Arguments of other optimizers, and what does here what they do there."""

STATE = {
    "acc": "s",
    "accumulator": "s",
    "averages": "ema",
    "b": "b",
    "buf": "b",
    "cache": "s",
    "count": "t",
    "exp_avg": "m",
    "exp_avg_diff": "a",
    "exp_avg_sq": "v",
    "exp_inf": "x",
    "grad_avg": "a",
    "iterations": "t",
    "max_exp_avg_sq": "x",
    "mom1": "m",
    "mom2": "v",
    "momentum": "b",
    "momentum_buffer": "b",
    "momentums": "b",
    "mu": "m",
    "nr_update": "t",
    "nu": "v",
    "previous_grad": "o",
    "square_avg": "v",
    "step": "t",
    "steps": "t",
    "sum": "s",
    "sum_of_squares": "s",
    "velocities": "v",
    "velocity": "b",
    "vhat": "x",
}
"""State arrays, and their letters."""

STEPPING = "`opt.step(grads)` updates the parameters in place"
SAVING = "`saved = opt.state_dict()` has all of it, and `opt.load_state_dict(saved)` takes it over"
ON_DISK = (
    "`fs.save('run.safetensors', opt)` writes all of it, and `fs.load('run.safetensors', opt)` "
    "reads it"
)
CLEARING = "gradients are yours; `opt.step(grads, zero_grads=True)` leaves zeros in them"
CLIPPING = "clipping is a part of the step: `opt.step(grads, max_norm=1.0)`"
SCHEDULING = (
    "a schedule is a learning rate: `opt.lr = fs.schedules.cosine(0.1, steps=1000)` goes on by "
    "itself at each step"
)

ATTRIBUTES = {
    **dict.fromkeys(("clear_grad", "clear_gradients", "zero_grad", "zero_grads"), CLEARING),
    **dict.fromkeys(
        ("add_param_group", "add_parameters", "add_params", "build"),
        "an optimizer keeps the parameters that it was made with; make one over all of them, as "
        "`opt = fs.CLASS([{'params': params}])` with a group for each",
    ),
    **dict.fromkeys(
        (
            *("apply", "apply_gradients", "apply_updates", "get_update", "get_updates", "minimize"),
            *("optimize", "update", "update_params", "update_step"),
        ),
        STEPPING,
    ),
    **dict.fromkeys(
        ("backward", "compute_gradients", "get_gradients"),
        f"gradients are computed outside, and {STEPPING}",
    ),
    **dict.fromkeys(
        ("init", "init_state", "reset", "reset_state"),
        "state starts at zero in a new optimizer: `opt = fs.CLASS(params)`",
    ),
    **dict.fromkeys(
        (
            *("from_bytes", "from_config", "get_config", "get_state", "get_weights"),
            *("save_own_variables", "serialize", "set_state", "set_weights"),
            *("to_bytes", "variables"),
        ),
        SAVING,
    ),
    **dict.fromkeys(("load", "restore", "save"), ON_DISK),
    **dict.fromkeys(("clip", "clip_grad_norm", "clip_grad_norm_", "clip_gradients"), CLIPPING),
    **dict.fromkeys(("lr_scheduler", "lr_schedulers", "schedule", "scheduler"), SCHEDULING),
    **dict.fromkeys(
        ("get_last_lr", "get_learning_rate", "get_lr", "learn_rate", "learning_rate"),
        "`opt.lr` is it",
    ),
    **dict.fromkeys(("set_learning_rate", "set_lr"), "set it as `opt.lr = 0.1`"),
    **dict.fromkeys(
        ("params", "parameters", "trainable_variables", "vars", "weights"),
        "`opt.param_groups[0]['params']` has those of the first group",
    ),
    **dict.fromkeys(
        ("cpu", "cuda", "to"),
        "state lies where its parameters do, and has their dtype; make another over those, "
        "`opt = fs.CLASS(params)`",
    ),
    **dict.fromkeys(
        ("fit", "train_on_batch", "train_step"),
        f"the loop is yours, and in it {STEPPING}",
    ),
    "lookahead": "`opt = fs.SGD(params, momentum=0.9)` has it",
    "defaults": "`dict(opt.param_groups[0])` has what the first group has",
    **dict.fromkeys(
        ("grad", "gradients", "grads"), f"gradients are passed at each step: {STEPPING}"
    ),
    **dict.fromkeys(
        ("average", "averages", "ema_params", "swap_params"),
        "an average of the parameters is state: `fs.CLASS(params, ema=0.999).stateFIRST['ema']`",
    ),
    **dict.fromkeys(
        (
            *("iteration", "iterations", "num_steps", "nb_iter", "nr_update", "step_count"),
            *("step_num", "steps", "t"),
        ),
        "each parameter counts its own: `opt.stateFIRST['t']`",
    ),
    **dict.fromkeys(
        ("eval", "train"), "an optimizer has no modes, and steps when it is told: `opt.step(grads)`"
    ),
}
"""Attributes of optimizers that are not here, and the remedy, in which CLASS and FIRST stay open:
an optimizer's class, and the first parameter's place in a structure."""

SCHEDULES = {
    **dict.fromkeys(
        ("CosineAnnealingLR", "CosineDecay", "cosine_annealing", "cosine_decay"), "cosine"
    ),
    "cosine_decay_schedule": "cosine",
    **dict.fromkeys(
        ("CosineAnnealingWarmRestarts", "CosineDecayRestarts", "sgdr_schedule", "warm_restarts"),
        "restarts",
    ),
    **dict.fromkeys(
        ("ExponentialDecay", "ExponentialLR", "exponential_decay"),
        "exponential",
    ),
    **dict.fromkeys(("StepLR", "step_decay", "step_lr"), "step"),
    **dict.fromkeys(
        (
            *("MultiStepLR", "PiecewiseConstantDecay", "multistep", "piecewise_constant"),
            "piecewise_constant_schedule",
        ),
        "piecewise",
    ),
    **dict.fromkeys(
        (
            *("PolynomialDecay", "PolynomialLR", "linear", "linear_decay", "linear_schedule"),
            "polynomial_schedule",
        ),
        "polynomial",
    ),
    **dict.fromkeys(("LinearLR", "linear_warmup", "warmup_linear"), "warmup"),
    **dict.fromkeys(
        (
            *("ChainedScheduler", "SequentialLR", "cosine_warmup", "cosine_with_warmup"),
            *("get_cosine_schedule_with_warmup", "join_schedules", "linear_warmup_cosine_decay"),
            *("warmup_cosine", "warmup_cosine_decay", "warmup_cosine_decay_schedule"),
        ),
        "sequence",
    ),
    **dict.fromkeys(("OneCycleLR", "cosine_onecycle", "onecycle", "one_cycle_lr"), "one_cycle"),
    **dict.fromkeys(("ConstantLR", "constant_schedule", "fixed"), "constant"),
}
"""Schedules of learning rates."""

OF_A_SCHEDULE: dict[str, tuple[str, ...]] = {
    **dict.fromkeys(
        (
            *(
                "T_0",
                "T_max",
                "decay_steps",
                "first_decay_steps",
                "max_iter",
                "num_steps",
                "period",
            ),
            *("total_iters", "total_steps", "transition_steps", "warmup_steps"),
        ),
        ("steps",),
    ),
    **dict.fromkeys(("step_size", "transition_begin"), ("every", "steps")),
    **dict.fromkeys(("T_mult", "decay_rate", "drop", "gamma"), ("factor",)),
    **dict.fromkeys(
        (
            *("base_lr", "init_value", "initial_learning_rate", "learning_rate", "max_lr"),
            *("peak_value", "warmup_target"),
        ),
        ("lr",),
    ),
    **dict.fromkeys(("end_learning_rate", "end_value", "eta_min", "min_lr"), ("end",)),
    **dict.fromkeys(("start_lr", "warmup_start_lr"), ("start",)),
    "milestones": ("boundaries", "steps"),
    **dict.fromkeys(("lrs", "values"), ("rates",)),
    "schedulers": ("schedules",),
}
"""Arguments of schedules, as `HYPERPARAMETERS`."""
