// What every kernel begins with: the fused end of a step, and small helpers.
//
// ACTIVATION chooses the function; ALPHA and BETA are its parameters (see `Activation` in the host
// code, whose definitions these are).

#ifndef ACTIVATION
#define ACTIVATION 0
#define ALPHA 0.0f
#define BETA 0.0f
#endif

static inline float activate(float x) {
#if ACTIVATION == 1
    return fmax(x, 0.0f);
#elif ACTIVATION == 2
    return fmin(fmax(x, ALPHA), BETA);
#elif ACTIVATION == 3
    return x > 0.0f ? x : ALPHA * x;
#elif ACTIVATION == 4
    return 1.0f / (1.0f + exp(-x));
#elif ACTIVATION == 5
    return fmin(fmax(ALPHA * x + BETA, 0.0f), 1.0f);
#elif ACTIVATION == 6
    return x * fmin(fmax(x / 6.0f + 0.5f, 0.0f), 1.0f);
#else
    return x;
#endif
}

#define CEIL_DIV(a, b) (((a) + (b) - 1) / (b))
