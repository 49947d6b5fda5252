/*
 * What a rule needs besides the arrays, one member per scalar. Computed once per
 * step in float64 (src/fusedstep/_numerics/coefficients.py) and rounded once to the
 * compute dtype, so this list is read with `real` as double by Python's side of
 * the boundary and as each compute dtype by the rules.
 */
real unscale;  /* 1 / scale */
real clip;     /* what the gradient's norm is cut by */
real most;     /* of a gradient's size; infinity is off */
real sign;     /* +1, or -1 to maximize */
real l2;       /* lambda of coupled L2; 0 is off */
real l1;       /* lambda_1 of L1; 0 is off */
real lr;       /* alpha, or alpha_t where the rule corrects it; 1 where gain holds it */
real decay;    /* AdamW: 1 - alpha lambda, or 1 - eta_t lambda */
real momentum; /* mu */
real gain;     /* d = 1 - dampening, 1 at a parameter's first step; or alpha d, with lr = 1 */
real rho;      /* RMSprop's smoothing */
real rest;     /* 1 - rho */
real beta1;
real rest1; /* 1 - beta_1 */
real beta2;
real rest2;    /* 1 - beta_2 */
real r;        /* 1 / sqrt(1 - beta_2^t) */
real r2;       /* 1 / (1 - beta_2^t) */
real eps;      /* beside the uncorrected v: eps r, under the root eps r2 */
real ema;      /* the share of the average that is kept */
real rest_ema; /* 1 - ema */
