// Common part of all kernels: the fused epilogue of a step, and small helpers.
//
// ACTIVATION chooses the activation function; ALPHA and BETA are its parameters. The definitions
// are those of `Activation` in the host code.

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

// Common part of all convolutions: sizes, the last parameters of each kernel, and the fused
// epilogue.
#ifdef GROUP_OUT
#define TAPS (KERNEL_H * KERNEL_W)
#define PLANE (IN_H * IN_W)
#define PIXELS (OUT_H * OUT_W)
#define COLUMNS (BATCH * PIXELS)

#if RESIDUAL
#define RESULT __global float *restrict output, const __global float *restrict residual
#define TO_RESULT output, residual
#else
#define RESULT __global float *restrict output
#define TO_RESULT output
#endif

// Weights of kernels that support half precision (HALF_WEIGHTS). They are widened when they are
// loaded, which every device supports. Vectors of 2 and 4 are aligned.
#if HALF_WEIGHTS
#define Weight half
#define WEIGHT(at) vload_half(0, at)
#define WEIGHTS_2(at) vloada_half2(0, at)
#define WEIGHTS_4(at) vloada_half4(0, at)
#else
#define Weight float
#define WEIGHT(at) (*(at))
#define WEIGHTS_2(at) (*(const __global float2 *)(at))
#define WEIGHTS_4(at) (*(const __global float4 *)(at))
#endif

#define KERNEL __kernel __attribute__((reqd_work_group_size(THREADS, 1, 1))) void
#define CONVOLVE                                                                                          \
    KERNEL convolve(const __global float *restrict input, const __global Weight *restrict weights,        \
                    const __global float *restrict bias, RESULT)

static inline void finish_at(RESULT, int at, float sum) {
#if RESIDUAL
    sum += residual[at];
#endif
    output[at] = activate(sum);
}

// Offset of pixel `n` of a channel in the output, with pixels counted through the images.
static inline int place_of(int channel, int n) { return (n / PIXELS * OUTPUTS + channel) * PIXELS + n % PIXELS; }
#endif
