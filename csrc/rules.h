/*
 * THE update rules in C.
 *
 * Numerics contract: a rule is a sequence of IEEE-754 operations, each rounded to nearest even
 * in the compute dtype, in the order that src/fusedstep/_numerics/reference.py writes them. That
 * file, src/fusedstep/_numerics/scalar.py and this one mirror one another line by line, and every
 * bit of their results is the same.
 *
 * This file names no instruction set and no type: the includer supplies `real`, `scalars`,
 * `root` (the square root), FN, which makes a name unique, and RULE:
 *
 *     real rule(real p, real g, real state[], scalars h, int has, int inside)
 *
 * A rule steps one element: it takes the parameter p, the gradient g and the step's scalars h,
 * reads and writes the element's state, and returns the new p. HAS(k) tells whether an optional
 * state[k] is there, `inside` whether eps stands under the root; wherever a rule is compiled,
 * both are constants.
 */

/* Before every rule, and only what is switched on. */

static ALWAYS_INLINE real FN(sign)(real p) { return p != p ? p : (real)((p > 0) - (p < 0)); }

static ALWAYS_INLINE real FN(gradient)(real p, real g, scalars h) {
    g = h.unscale * g;
    g = h.clip * g;
    g = g > h.most ? h.most : g < -h.most ? -h.most : g;
    g = h.sign * g;
    if (h.l2 != 0)
        g = g + h.l2 * p;
    if (h.l1 != 0)
        g = g + h.l1 * FN(sign)(p);
    return g;
}

RULE(sgd) {
    p = p - h.lr * g;
    return p;
}

RULE(momentum) {
    real b = state[0];
    b = h.momentum * b + h.gain * g;
    p = p - h.lr * b;
    state[0] = b;
    return p;
}

RULE(nesterov) {
    real b = state[0];
    g = h.gain * g;
    b = h.momentum * b + g;
    p = p - h.lr * (g + h.momentum * b);
    state[0] = b;
    return p;
}

RULE(adagrad) {
    real s = state[0], d;
    s = s + g * g;
    if (inside)
        d = root(s + h.eps);
    else
        d = root(s) + h.eps;
    p = p - h.lr * (g / d);
    state[0] = s;
    return p;
}

RULE(rmsprop) {
    real v = state[0], a = state[1], b = state[2], w, d;
    v = h.rho * v + h.rest * (g * g);
    w = v;
    if (HAS(1)) {
        a = h.rho * a + h.rest * g;
        w = v - a * a;
    }
    if (inside)
        d = root(w + h.eps);
    else
        d = root(w) + h.eps;
    if (HAS(2)) {
        b = h.momentum * b + h.gain * (g / d);
        p = p - h.lr * b;
    } else {
        p = p - h.lr * (g / d);
    }
    state[0] = v, state[1] = a, state[2] = b;
    return p;
}

RULE(adam) {
    real m = state[0], v = state[1], x = state[2], w, d;
    m = h.beta1 * m + h.rest1 * g;
    v = h.beta2 * v + h.rest2 * (g * g);
    w = v;
    if (HAS(2)) {
        x = v > x || v != v ? v : x;
        w = x;
    }
    if (inside)
        d = root(w * h.r2 + h.eps);
    else
        d = root(w) * h.r + h.eps;
    p = p - h.lr * (m / d);
    state[0] = m, state[1] = v, state[2] = x;
    return p;
}

RULE(adamw) {
    p = p * h.decay;
    return FN(adam)(p, g, state, h, has, inside);
}

RULE(adam_rearranged) {
    real m = state[0], v = state[1];
    m = h.beta1 * m + h.rest1 * g;
    v = h.beta2 * v + h.rest2 * (g * g);
    p = p - (h.lr * m) / (root(v) + h.eps);
    state[0] = m, state[1] = v;
    return p;
}

/* After every rule, if it is switched on. */

static ALWAYS_INLINE real FN(average)(real p, real ema, scalars h) {
    ema = h.ema * ema + h.rest_ema * p;
    return ema;
}

/* Every kernel: its name, its rule, its state arrays (bit k for state[k]), and whether eps stands
 * under the root. Each is made for both dtypes and all instruction sets; a comment spells one of
 * its symbols. */
#define KERNELS(K)                                                                                 \
    K(sgd, sgd, 0, 0)                           /* sgd_f32_avx2 */                                 \
    K(momentum, momentum, 1, 0)                 /* momentum_f32_avx2 */                            \
    K(nesterov, nesterov, 1, 0)                 /* nesterov_f32_avx2 */                            \
    K(adagrad, adagrad, 1, 0)                   /* adagrad_f32_avx2 */                             \
    K(adagrad_inside, adagrad, 1, 1)            /* adagrad_inside_f32_avx2 */                      \
    K(rmsprop, rmsprop, 1, 0)                   /* rmsprop_f32_avx2 */                             \
    K(rmsprop_inside, rmsprop, 1, 1)            /* rmsprop_inside_f32_avx2 */                      \
    K(rmsprop_centered, rmsprop, 3, 0)          /* rmsprop_centered_f32_avx2 */                    \
    K(rmsprop_centered_inside, rmsprop, 3, 1)   /* rmsprop_centered_inside_f32_avx2 */             \
    K(rmsprop_momentum, rmsprop, 5, 0)          /* rmsprop_momentum_f32_avx2 */                    \
    K(rmsprop_momentum_inside, rmsprop, 5, 1)   /* rmsprop_momentum_inside_f32_avx2 */             \
    K(rmsprop_centered_momentum, rmsprop, 7, 0) /* rmsprop_centered_momentum_f32_avx2 */           \
    K(rmsprop_centered_momentum_inside, rmsprop, 7, 1)                                             \
    /* rmsprop_centered_momentum_inside_f32_avx2 */                                                \
    K(adam, adam, 3, 0)                       /* adam_f32_avx2 */                                  \
    K(adam_inside, adam, 3, 1)                /* adam_inside_f32_avx2 */                           \
    K(adam_amsgrad, adam, 7, 0)               /* adam_amsgrad_f32_avx2 */                          \
    K(adam_amsgrad_inside, adam, 7, 1)        /* adam_amsgrad_inside_f32_avx2 */                   \
    K(adamw, adamw, 3, 0)                     /* adamw_f32_avx2 */                                 \
    K(adamw_inside, adamw, 3, 1)              /* adamw_inside_f32_avx2 */                          \
    K(adamw_amsgrad, adamw, 7, 0)             /* adamw_amsgrad_f32_avx2 */                         \
    K(adamw_amsgrad_inside, adamw, 7, 1)      /* adamw_amsgrad_inside_f32_avx2 */                  \
    K(adam_rearranged, adam_rearranged, 3, 0) /* adam_rearranged_f32_avx2 */
