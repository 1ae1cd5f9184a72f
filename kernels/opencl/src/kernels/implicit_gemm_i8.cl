// Convolution with 8-bit weights as an implicit GEMM (see implicit_gemm.cl). Inputs are rounded to
// their 8-bit grid when they are fetched, four steps of the inner dimension are packed into a word,
// and products are summed in 32-bit integers.
//
// Weights are [group][K_PAD / 4][M_PAD] words of four signed bytes, padded with zeros. An input is
// (quantized - ZERO_POINT) * INPUT_SCALE. The zero point's contribution to each sum is subtracted
// at the end, computed from the sums of the weights.

#define THREADS_M (TILE_M / THREAD_M)
#define THREADS_N (TILE_N / THREAD_N)
#define SLICE (THREADS_M * THREADS_N)
#define THREADS (SLICE * SPLIT)
#define INNER (GROUP_IN * TAPS)
#define WORDS (TILE_K / 4)
#define CHUNKS CEIL_DIV(CEIL_DIV(INNER, TILE_K), SPLIT)
#define STAGE (WORDS * (TILE_M + TILE_N))
#if SPLIT > 1
#define REDUCE (SPLIT * TILE_M * TILE_N)
#else
#define REDUCE 0
#endif
#define SCRATCH (SPLIT * STAGE > REDUCE ? SPLIT * STAGE : REDUCE)
#define COLUMN_OF(j) (tn + (j) * THREADS_N)

static inline int dot(uint pixels, uint weights, int sum) {
#if DOT == 2
    int result;
    asm("dp4a.u32.s32 %0, %1, %2, %3;" : "=r"(result) : "r"(pixels), "r"(weights), "r"(sum));
    return result;
#elif DOT == 1
    return sum + dot_4x8packed_us_int(pixels, weights);
#else
    const uchar4 p = as_uchar4(pixels);
    const char4 w = as_char4(weights);
    return sum + p.x * w.x + p.y * w.y + p.z * w.z + p.w * w.w;
#endif
}

static inline uint rounded(float x) {
    return convert_uchar_sat_rte(x * (1.0f / INPUT_SCALE) + ZERO_POINT);
}

static inline uint fetch(const __global float *restrict input, int base, int y0, int x0, int k) {
    const int channel = min(k / TAPS, GROUP_IN - 1), tap = k % TAPS;
    const int y = y0 + tap / KERNEL_W * DILATION_H, x = x0 + tap % KERNEL_W * DILATION_W;
    const bool inside = (uint)y < IN_H && (uint)x < IN_W;
    return rounded(inside ? input[base + channel * PLANE + y * IN_W + x] : 0.0f);
}

static inline void finish(RESULT, const __global float *restrict bias, const __global float *restrict scales,
                          const __global int *restrict offsets, int group, int m, int n, int sum) {
    if (m >= GROUP_OUT || n >= COLUMNS) return;
    const int channel = group * GROUP_OUT + m;
    finish_at(TO_RESULT, place_of(channel, n), (sum - offsets[channel]) * scales[channel] + bias[channel]);
}

KERNEL convolve(const __global float *restrict input, const __global uint *restrict weights,
                const __global float *restrict bias, const __global float *restrict scales,
                const __global int *restrict offsets, RESULT) {
    const int thread = get_local_id(0);
    const int slice = thread / SLICE, lane = thread % SLICE;
    const int tn = lane % THREADS_N, tm = lane / THREADS_N;
    const int first_n = get_group_id(0) * TILE_N, first_m = get_group_id(1) * TILE_M;
    const int group = get_group_id(2);
    const __global uint *restrict panel = weights + (size_t)group * (K_PAD / 4) * M_PAD + first_m;
    __local uint scratch[SCRATCH];
    __local uint *restrict a_tile = scratch + slice * STAGE;
    __local uint *restrict b_tile = a_tile + WORDS * TILE_M;

    int sums[THREAD_M][THREAD_N];
#pragma unroll
    for (int i = 0; i < THREAD_M; i++)
#pragma unroll
        for (int j = 0; j < THREAD_N; j++) sums[i][j] = 0;

    for (int chunk = 0; chunk < CHUNKS; chunk++) {
        const int first_k = (chunk * SPLIT + slice) * TILE_K;
        barrier(CLK_LOCAL_MEM_FENCE);
        for (int e = lane; e < WORDS * TILE_M; e += SLICE)
            a_tile[e] = panel[(first_k / 4 + e / TILE_M) * M_PAD + e % TILE_M];
        for (int e = lane; e < WORDS * TILE_N; e += SLICE) {
            const int n = min(first_n + e % TILE_N, COLUMNS - 1), k = first_k + e / TILE_N * 4;
            const int pixel = n % PIXELS, base = (n / PIXELS * CHANNELS + group * GROUP_IN) * PLANE;
            const int y = pixel / OUT_W * STRIDE_H - PAD_TOP, x = pixel % OUT_W * STRIDE_W - PAD_LEFT;
            b_tile[e] = fetch(input, base, y, x, k) | fetch(input, base, y, x, k + 1) << 8 |
                        fetch(input, base, y, x, k + 2) << 16 | fetch(input, base, y, x, k + 3) << 24;
        }
        barrier(CLK_LOCAL_MEM_FENCE);
#pragma unroll UNROLL
        for (int k = 0; k < WORDS; k++) {
            uint a[THREAD_M], b[THREAD_N];
#pragma unroll
            for (int i = 0; i < THREAD_M; i++) a[i] = a_tile[k * TILE_M + tm * THREAD_M + i];
#pragma unroll
            for (int j = 0; j < THREAD_N; j++) b[j] = b_tile[k * TILE_N + COLUMN_OF(j)];
#pragma unroll
            for (int i = 0; i < THREAD_M; i++)
#pragma unroll
                for (int j = 0; j < THREAD_N; j++) sums[i][j] = dot(b[j], a[i], sums[i][j]);
        }
    }

#if SPLIT > 1
    barrier(CLK_LOCAL_MEM_FENCE);
#pragma unroll
    for (int i = 0; i < THREAD_M; i++)
#pragma unroll
        for (int j = 0; j < THREAD_N; j++)
            scratch[slice * TILE_M * TILE_N + (tm * THREAD_M + i) * TILE_N + COLUMN_OF(j)] = as_uint(sums[i][j]);
    barrier(CLK_LOCAL_MEM_FENCE);
    for (int e = thread; e < TILE_M * TILE_N; e += THREADS) {
        int sum = 0;
#pragma unroll
        for (int s = 0; s < SPLIT; s++) sum += as_int(scratch[s * TILE_M * TILE_N + e]);
        finish(TO_RESULT, bias, scales, offsets, group, first_m + e / TILE_N, first_n + e % TILE_N, sum);
    }
#else
#pragma unroll
    for (int i = 0; i < THREAD_M; i++)
#pragma unroll
        for (int j = 0; j < THREAD_N; j++)
            finish(TO_RESULT, bias, scales, offsets, group, first_m + tm * THREAD_M + i,
                   first_n + COLUMN_OF(j), sums[i][j]);
#endif
}
