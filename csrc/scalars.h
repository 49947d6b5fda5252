/*
 * What a rule needs besides the arrays: the members of a struct, one per scalar.
 *
 * They are computed once per step in float64 (src/fusedstep/_numerics/coefficients.py) and
 * rounded once to the compute dtype. So `real` is double where Python writes them (api.h), and
 * each compute dtype where the rules read them (loops.inc).
 */
real unscale;  /* 1 / scale */
real clip;     /* factor that cuts the norm of the gradients to its maximum; 1 is off */
real most;     /* largest size of an element of the gradient; infinity is off */
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
real ema;      /* share of the moving average that stays */
real rest_ema; /* 1 - ema */
