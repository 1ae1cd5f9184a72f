// Convolution as a matrix product whose right-hand matrix (the unrolled input) is never stored:
// elements are fetched from the input as a tile needs them. The tiling is CLBlast's family (Nugteren,
// "CLBlast: A tuned OpenCL BLAS library", 2018) with the inner dimension split within the work-group:
// small layers have too few outputs to fill a device.
//
// Product: [M = outputs of a group] x [K = channels, taps] times [K] x [N = images, pixels].
// Weights come as [group][K_PAD][M_PAD], padded with zeros.
//
// TILE_M, TILE_N, TILE_K     what a work-group computes at a time
// THREAD_M, THREAD_N         what a work-item accumulates in registers
// VECTOR                     neighboring pixels that a work-item reads at once from local memory
// SPLIT                      slices of work-items that share the inner dimension, added up at the end
// LOCAL                      whether tiles are staged in local memory
// UNROLL                     steps of the inner dimension that are unrolled

#define THREADS_M (TILE_M / THREAD_M)
#define THREADS_N (TILE_N / THREAD_N)
#define SLICE (THREADS_M * THREADS_N)
#define THREADS (SLICE * SPLIT)
#define INNER (GROUP_IN * TAPS)
#define CHUNKS CEIL_DIV(CEIL_DIV(INNER, TILE_K), SPLIT)

// Where a column begins in the input, and the top left corner of its window.
typedef struct {
    int base, y, x;
} Column;

static inline Column column_at(int n, int group) {
    Column column;
#if COLUMNS % TILE_N != 0
    n = min(n, COLUMNS - 1);
#endif
    int image = n / PIXELS, pixel = n % PIXELS;
    column.y = pixel / OUT_W * STRIDE_H - PAD_TOP;
    column.x = pixel % OUT_W * STRIDE_W - PAD_LEFT;
    column.base = (image * CHANNELS + group * GROUP_IN) * PLANE;
    return column;
}

static inline float fetch(const __global float *restrict input, Column column, int k) {
    int channel = k / TAPS, tap = k % TAPS;
    int y = column.y + tap / KERNEL_W * DILATION_H, x = column.x + tap % KERNEL_W * DILATION_W;
#if INNER % (TILE_K * SPLIT) != 0
    // Weights beyond the end are zero, but what lies there need not be a number.
    channel = min(channel, GROUP_IN - 1);
#endif
#if PADDED
    bool inside = (uint)y < IN_H && (uint)x < IN_W;
    return inside ? input[column.base + channel * PLANE + y * IN_W + x] : 0.0f;
#else
    return input[column.base + channel * PLANE + y * IN_W + x];
#endif
}

static inline void finish(RESULT, const __global float *restrict bias, int group, int m, int n, float sum) {
    if (m >= GROUP_OUT || n >= COLUMNS) return;
    int channel = group * GROUP_OUT + m;
    finish_at(TO_RESULT, place_of(channel, n), sum + bias[channel]);
}

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
#define SCRATCH (SPLIT * STAGE > REDUCE ? SPLIT * STAGE : REDUCE)

// Pixel j of a work-item, in its tile: runs of VECTOR, so that neighbors read neighbors.
#define COLUMN_OF(j) ((tn + (j) / VECTOR * THREADS_N) * VECTOR + (j) % VECTOR)

CONVOLVE {
    const int thread = get_local_id(0);
    const int slice = thread / SLICE, lane = thread % SLICE;
    const int tn = lane % THREADS_N, tm = lane / THREADS_N;
    const int first_n = get_group_id(0) * TILE_N, first_m = get_group_id(1) * TILE_M;
    const int group = get_group_id(2);
    const __global float *restrict panel = weights + (size_t)group * K_PAD * M_PAD + first_m;

    float sums[THREAD_M][THREAD_N];
#pragma unroll
    for (int i = 0; i < THREAD_M; i++)
#pragma unroll
        for (int j = 0; j < THREAD_N; j++) sums[i][j] = 0.0f;

#if LOCAL || SPLIT > 1
    __local float scratch[SCRATCH] __attribute__((aligned(16)));
#endif

#if LOCAL
    __local float *restrict a_tile = scratch + slice * STAGE;
    __local float *restrict b_tile = a_tile + TILE_K * TILE_M;
#define A_PER CEIL_DIV(TILE_K * TILE_M / 4, SLICE)
#define B_PER CEIL_DIV(TILE_K * TILE_N, SLICE)
    // The next tiles wait in registers while the present ones are worked on.
    float4 a_next[A_PER];
    float b_next[B_PER];
    Column columns[B_PER];
#pragma unroll
    for (int i = 0; i < B_PER; i++) columns[i] = column_at(first_n + (lane + i * SLICE) % TILE_N, group);

    for (int chunk = 0; chunk <= CHUNKS; chunk++) {
        if (chunk < CHUNKS) {
            const int first_k = (chunk * SPLIT + slice) * TILE_K;
#pragma unroll
            for (int i = 0; i < A_PER; i++) {
                const int e = lane + i * SLICE;
                if (TILE_K * TILE_M / 4 % SLICE == 0 || e < TILE_K * TILE_M / 4)
                    a_next[i] = *(const __global float4 *)(panel + (first_k + e / (TILE_M / 4)) * M_PAD
                                                           + e % (TILE_M / 4) * 4);
            }
#pragma unroll
            for (int i = 0; i < B_PER; i++) {
                const int e = lane + i * SLICE;
                if (TILE_K * TILE_N % SLICE == 0 || e < TILE_K * TILE_N)
                    b_next[i] = fetch(input, columns[i], first_k + e / TILE_N);
            }
        }
        if (chunk > 0) {
#pragma unroll UNROLL
        for (int k = 0; k < TILE_K; k++) {
            float a[THREAD_M], b[THREAD_N];
#if THREAD_M % 4 == 0
#pragma unroll
            for (int i = 0; i < THREAD_M / 4; i++) {
                float4 four = *(const __local float4 *)(a_tile + k * TILE_M + tm * THREAD_M + 4 * i);
                a[4 * i] = four.x, a[4 * i + 1] = four.y, a[4 * i + 2] = four.z, a[4 * i + 3] = four.w;
            }
#else
#pragma unroll
            for (int i = 0; i < THREAD_M; i++) a[i] = a_tile[k * TILE_M + tm * THREAD_M + i];
#endif
#if VECTOR == 4
#pragma unroll
            for (int j = 0; j < THREAD_N; j += 4) {
                float4 four = *(const __local float4 *)(b_tile + k * TILE_N + COLUMN_OF(j));
                b[j] = four.x, b[j + 1] = four.y, b[j + 2] = four.z, b[j + 3] = four.w;
            }
#elif VECTOR == 2
#pragma unroll
            for (int j = 0; j < THREAD_N; j += 2) {
                float2 two = *(const __local float2 *)(b_tile + k * TILE_N + COLUMN_OF(j));
                b[j] = two.x, b[j + 1] = two.y;
            }
#else
#pragma unroll
            for (int j = 0; j < THREAD_N; j++) b[j] = b_tile[k * TILE_N + COLUMN_OF(j)];
#endif
#pragma unroll
            for (int i = 0; i < THREAD_M; i++)
#pragma unroll
                for (int j = 0; j < THREAD_N; j++) sums[i][j] = fma(a[i], b[j], sums[i][j]);
        }
        }
        if (chunk < CHUNKS) {
            barrier(CLK_LOCAL_MEM_FENCE);
#pragma unroll
            for (int i = 0; i < A_PER; i++) {
                const int e = lane + i * SLICE;
                if (TILE_K * TILE_M / 4 % SLICE == 0 || e < TILE_K * TILE_M / 4)
                    *(__local float4 *)(a_tile + e * 4) = a_next[i];
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
    for (int j = 0; j < THREAD_N; j++) columns[j] = column_at(first_n + COLUMN_OF(j), group);
    for (int chunk = 0; chunk < CHUNKS; chunk++) {
        const int first_k = (chunk * SPLIT + slice) * TILE_K;
#pragma unroll UNROLL
        for (int k = 0; k < TILE_K; k++) {
            float a[THREAD_M];
            const __global float *restrict row = panel + (first_k + k) * M_PAD + tm * THREAD_M;
#if THREAD_M % 4 == 0
#pragma unroll
            for (int i = 0; i < THREAD_M / 4; i++) {
                float4 four = *(const __global float4 *)(row + 4 * i);
                a[4 * i] = four.x, a[4 * i + 1] = four.y, a[4 * i + 2] = four.z, a[4 * i + 3] = four.w;
            }
#else
#pragma unroll
            for (int i = 0; i < THREAD_M; i++) a[i] = row[i];
#endif
#pragma unroll
            for (int j = 0; j < THREAD_N; j++) {
                float b = fetch(input, columns[j], first_k + k);
#pragma unroll
                for (int i = 0; i < THREAD_M; i++) sums[i][j] = fma(a[i], b, sums[i][j]);
            }
        }
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
            finish(TO_RESULT, bias, group, first_m + tm * THREAD_M + i, first_n + COLUMN_OF(j),
                   sums[i][j]);
#endif
}
