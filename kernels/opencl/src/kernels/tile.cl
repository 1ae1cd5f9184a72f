// The tiled GEMM that several convolutions share: tiles of weights times tiles of the unrolled
// input, whose elements are fetched when a tile needs them. The tiling belongs to CLBlast's family
// (Nugteren, "CLBlast: A tuned OpenCL BLAS library", 2018), with the inner dimension also split
// within the work-group, because small layers have too few outputs to fill a device.
//
// The preceding source defines the steps of the inner dimension by these macros:
//
// LISTS                      additional parameters of the kernel, each followed by a comma
// BEGIN                      code at the beginning of the kernel; moves `weights` to the first ones
//                            of its `slice` in the first chunk
// CHUNKS                     chunks of CHUNK steps in the inner dimension, equal in a work-group
// ROW                        weights from one step to the next
// STEP(chunk, k)             input of step k of this slice in a chunk: its offset from the corner
//                            of a pixel's window, and its row and column
//
// The host defines these:
//
// TILE_M, TILE_N, TILE_K     tile of a work-group: outputs, pixels, and steps of a slice
// THREAD_M, THREAD_N         outputs and pixels that a work-item accumulates in registers
// VECTOR                     neighboring pixels that a work-item reads at once
// SPLIT                      slices of work-items that share the inner dimension, added at the end
// LOCAL                      whether weights and inputs are staged in local memory
// UNROLL                     steps of the inner dimension that are unrolled
// HALF_WEIGHTS               whether weights are in half precision
// HALF_MATH                  whether the products of a chunk are also summed in half precision, on
//                            devices with such arithmetic; inputs are then rounded, and clamped to
//                            65504. Chunks are summed in single precision.

#define THREADS_M (TILE_M / THREAD_M)
#define THREADS_N (TILE_N / THREAD_N)
#define SLICE (THREADS_M * THREADS_N)
#define THREADS (SLICE * SPLIT)
#define CHUNK (TILE_K * SPLIT)

// Whether neighboring pixels read neighboring, aligned inputs.
#define WIDE (VECTOR > 1 && TAPS == 1 && STRIDE_H == 1 && STRIDE_W == 1 && !PADDED && PLANE % VECTOR == 0)

// Number type of the multiplications, and conversions of weights and inputs to it.
#if HALF_MATH
#ifndef cl_khr_fp16
#error "this device has no arithmetic in half precision"
#endif
#pragma OPENCL EXTENSION cl_khr_fp16 : enable
#define NUMBERS_PER_FLOAT 2
#define Number half
#define Number2 half2
#define Number4 half4
#define A_NUMBER(at) (*(at))
#define A_NUMBERS_4(at) (*(const __global half4 *)(at))
#define B_NUMBER(x) convert_half(clamp(x, -65504.0f, 65504.0f))
#define B_NUMBERS_2(x) convert_half2(clamp(x, -65504.0f, 65504.0f))
#define B_NUMBERS_4(x) convert_half4(clamp(x, -65504.0f, 65504.0f))
#else
#define NUMBERS_PER_FLOAT 1
#define Number float
#define Number2 float2
#define Number4 float4
#define A_NUMBER(at) WEIGHT(at)
#define A_NUMBERS_4(at) WEIGHTS_4(at)
#define B_NUMBER(x) (x)
#define B_NUMBERS_2(x) (x)
#define B_NUMBERS_4(x) (x)
#endif

// Elements that a slice stages.
#if LOCAL
#define STAGE (TILE_K * (TILE_M + TILE_N))
#else
#define STAGE 0
#endif
#if SPLIT > 1
#define REDUCE (SPLIT * TILE_M * TILE_N)
#else
#define REDUCE 0
#endif
#define STAGED CEIL_DIV(SPLIT * STAGE, NUMBERS_PER_FLOAT)
#define SCRATCH (STAGED > REDUCE ? STAGED : REDUCE)

// Pixel j of a work-item in its tile: runs of VECTOR pixels, so that neighboring work-items read
// neighboring inputs.
#define COLUMN_OF(j) ((tn + (j) / VECTOR * THREADS_N) * VECTOR + (j) % VECTOR)

// Copies a vector of four (or two) numbers into a part of an array.
#define SPREAD_4(to, i, from)                                                                              \
    do {                                                                                                   \
        const Number4 four = from;                                                                          \
        (to)[i] = four.x, (to)[(i) + 1] = four.y, (to)[(i) + 2] = four.z, (to)[(i) + 3] = four.w;          \
    } while (0)
#define SPREAD_2(to, i, from)                                                                              \
    do {                                                                                                   \
        const Number2 two = from;                                                                           \
        (to)[i] = two.x, (to)[(i) + 1] = two.y;                                                            \
    } while (0)

// Offset of a column's window in the input, and the window's top left corner.
typedef struct {
    int base, y, x;
} Column;

static inline Column column_at(int n, int group) {
    Column column;
#if COLUMNS % TILE_N != 0
    n = min(n, COLUMNS - 1);
#endif
    const int image = n / PIXELS, pixel = n % PIXELS;
    column.y = pixel / OUT_W * STRIDE_H - PAD_TOP;
    column.x = pixel % OUT_W * STRIDE_W - PAD_LEFT;
    column.base = (image * CHANNELS + group * GROUP_IN) * PLANE + column.y * IN_W + column.x;
    return column;
}

static inline float fetch(const __global float *restrict input, Column column, int3 step) {
#if PADDED
    const int y = column.y + step.y, x = column.x + step.z;
    const bool inside = (uint)y < IN_H && (uint)x < IN_W;
    return inside ? input[column.base + step.x] : 0.0f;
#else
    return input[column.base + step.x];
#endif
}

static inline void multiply(Number (*sums)[THREAD_N], const Number *a, const Number *b) {
#pragma unroll
    for (int i = 0; i < THREAD_M; i++)
#pragma unroll
        for (int j = 0; j < THREAD_N; j++) sums[i][j] = fma(a[i], b[j], sums[i][j]);
}

static inline void finish(RESULT, const __global float *restrict bias, int group, int m, int n, float sum) {
    if (m >= GROUP_OUT || n >= COLUMNS) return;
    const int channel = group * GROUP_OUT + m;
    finish_at(TO_RESULT, place_of(channel, n), sum + bias[channel]);
}

#if HALF_MATH
// Sums of a chunk in half precision, and their addition to the sums in single precision.
#define OPEN_CHUNK                                                                                         \
    half part[THREAD_M][THREAD_N];                                                                         \
    for (int i = 0; i < THREAD_M; i++)                                                                     \
        for (int j = 0; j < THREAD_N; j++) part[i][j] = 0.0h;
#define CLOSE_CHUNK                                                                                        \
    for (int i = 0; i < THREAD_M; i++)                                                                     \
        for (int j = 0; j < THREAD_N; j++) sums[i][j] += convert_float(part[i][j]);
#define PART part
#else
#define OPEN_CHUNK
#define CLOSE_CHUNK
#define PART sums
#endif

KERNEL convolve(const __global float *restrict input, const __global Weight *restrict weights,
                const __global float *restrict bias, LISTS RESULT) {
    const int thread = get_local_id(0);
    const int slice = thread / SLICE, lane = thread % SLICE;
    const int tn = lane % THREADS_N, tm = lane / THREADS_N;
    const int first_n = get_group_id(0) * TILE_N, first_m = get_group_id(1) * TILE_M;
    const int group = get_group_id(2);
    BEGIN

    float sums[THREAD_M][THREAD_N];
#pragma unroll
    for (int i = 0; i < THREAD_M; i++)
#pragma unroll
        for (int j = 0; j < THREAD_N; j++) sums[i][j] = 0.0f;

#if LOCAL || SPLIT > 1
    __local float scratch[SCRATCH] __attribute__((aligned(16)));
#endif

#if LOCAL
    __local Number *restrict a_tile = (__local Number *)scratch + slice * STAGE;
    __local Number *restrict b_tile = a_tile + TILE_K * TILE_M;
#define A_FOURS (TILE_K * TILE_M / 4)
#define A_PER CEIL_DIV(A_FOURS, SLICE)
#define B_PER CEIL_DIV(TILE_K * TILE_N, SLICE)
    // Prefetch: the next tiles wait in registers while the present ones are multiplied.
    Number4 a_next[A_PER];
    Number b_next[B_PER];
    Column columns[B_PER];
#pragma unroll
    for (int i = 0; i < B_PER; i++) columns[i] = column_at(first_n + (lane + i * SLICE) % TILE_N, group);

    for (int chunk = 0; chunk <= CHUNKS; chunk++) {
        if (chunk < CHUNKS) {
#pragma unroll
            for (int i = 0; i < A_PER; i++) {
                const int e = lane + i * SLICE;
                if (A_FOURS % SLICE == 0 || e < A_FOURS)
                    a_next[i] = A_NUMBERS_4(weights + (chunk * CHUNK + e / (TILE_M / 4)) * ROW + e % (TILE_M / 4) * 4);
            }
#pragma unroll
            for (int i = 0; i < B_PER; i++) {
                const int e = lane + i * SLICE;
                if (TILE_K * TILE_N % SLICE == 0 || e < TILE_K * TILE_N)
                    b_next[i] = B_NUMBER(fetch(input, columns[i], STEP(chunk, e / TILE_N)));
            }
        }
        if (chunk > 0) {
            OPEN_CHUNK
#pragma unroll UNROLL
            for (int k = 0; k < TILE_K; k++) {
                Number a[THREAD_M], b[THREAD_N];
#if THREAD_M % 4 == 0
#pragma unroll
                for (int i = 0; i < THREAD_M; i += 4)
                    SPREAD_4(a, i, *(const __local Number4 *)(a_tile + k * TILE_M + tm * THREAD_M + i));
#else
#pragma unroll
                for (int i = 0; i < THREAD_M; i++) a[i] = a_tile[k * TILE_M + tm * THREAD_M + i];
#endif
#pragma unroll
                for (int j = 0; j < THREAD_N; j += VECTOR)
#if VECTOR == 4
                    SPREAD_4(b, j, *(const __local Number4 *)(b_tile + k * TILE_N + COLUMN_OF(j)));
#elif VECTOR == 2
                    SPREAD_2(b, j, *(const __local Number2 *)(b_tile + k * TILE_N + COLUMN_OF(j)));
#else
                    b[j] = b_tile[k * TILE_N + COLUMN_OF(j)];
#endif
                multiply(PART, a, b);
            }
            CLOSE_CHUNK
        }
        if (chunk < CHUNKS) {
            barrier(CLK_LOCAL_MEM_FENCE);
#pragma unroll
            for (int i = 0; i < A_PER; i++) {
                const int e = lane + i * SLICE;
                if (A_FOURS % SLICE == 0 || e < A_FOURS) *(__local Number4 *)(a_tile + e * 4) = a_next[i];
            }
#pragma unroll
            for (int i = 0; i < B_PER; i++) {
                const int e = lane + i * SLICE;
                if (TILE_K * TILE_N % SLICE == 0 || e < TILE_K * TILE_N) b_tile[e] = b_next[i];
            }
            barrier(CLK_LOCAL_MEM_FENCE);
        }
    }
#else
    Column columns[THREAD_N];
#pragma unroll
    for (int j = 0; j < THREAD_N; j++) {
        const int n = first_n + COLUMN_OF(j);
        // Pixels that are read at once belong to one image.
        columns[j] = column_at(WIDE && j % VECTOR == 0 ? min(n, COLUMNS - VECTOR) : n, group);
    }
    for (int chunk = 0; chunk < CHUNKS; chunk++) {
        OPEN_CHUNK
#pragma unroll UNROLL
        for (int k = 0; k < TILE_K; k++) {
            const int3 step = STEP(chunk, k);
            const __global Weight *restrict row = weights + (chunk * CHUNK + k) * ROW + tm * THREAD_M;
            Number a[THREAD_M], b[THREAD_N];
#if THREAD_M % 4 == 0
#pragma unroll
            for (int i = 0; i < THREAD_M; i += 4) SPREAD_4(a, i, A_NUMBERS_4(row + i));
#else
#pragma unroll
            for (int i = 0; i < THREAD_M; i++) a[i] = A_NUMBER(row + i);
#endif
#if WIDE && VECTOR == 4
#pragma unroll
            for (int j = 0; j < THREAD_N; j += 4)
                SPREAD_4(b, j, B_NUMBERS_4(*(const __global float4 *)(input + columns[j].base + step.x)));
#elif WIDE
#pragma unroll
            for (int j = 0; j < THREAD_N; j += 2)
                SPREAD_2(b, j, B_NUMBERS_2(*(const __global float2 *)(input + columns[j].base + step.x)));
#else
#pragma unroll
            for (int j = 0; j < THREAD_N; j++) b[j] = B_NUMBER(fetch(input, columns[j], step));
#endif
            multiply(PART, a, b);
        }
        CLOSE_CHUNK
    }
#endif

#if SPLIT > 1
    barrier(CLK_LOCAL_MEM_FENCE);
#pragma unroll
    for (int i = 0; i < THREAD_M; i++)
#pragma unroll
        for (int j = 0; j < THREAD_N; j++)
            scratch[slice * TILE_M * TILE_N + (tm * THREAD_M + i) * TILE_N + COLUMN_OF(j)] = sums[i][j];
    barrier(CLK_LOCAL_MEM_FENCE);
    for (int e = thread; e < TILE_M * TILE_N; e += THREADS) {
        float sum = 0.0f;
#pragma unroll
        for (int s = 0; s < SPLIT; s++) sum += scratch[s * TILE_M * TILE_N + e];
        finish(TO_RESULT, bias, group, first_m + e / TILE_N, first_n + e % TILE_N, sum);
    }
#else
#pragma unroll
    for (int i = 0; i < THREAD_M; i++)
#pragma unroll
        for (int j = 0; j < THREAD_N; j++)
            finish(TO_RESULT, bias, group, first_m + tm * THREAD_M + i, first_n + COLUMN_OF(j), sums[i][j]);
#endif
}
