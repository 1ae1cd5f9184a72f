// Winograd convolution of 3x3 windows in one kernel (Lavin and Gray, "Fast algorithms for
// convolutional neural networks", 2016). Tiles of the input are transformed into local memory. Each
// work-item multiplies one tile with the transformed weights of several outputs in registers, and
// transforms its sums back.
//
// Weights are transformed on the host to [channel][spot][M_PAD], padded with zeros.
//
// OUTPUT_TILE           2 or 4: pixels of a tile along each axis
// THREADS_M, THREADS_T  work-items of a slice along outputs and along tiles
// THREAD_M              outputs of a work-item
// STAGE                 channels transformed at a time
// SPLIT                 slices of work-items that share the channels

#define SPAN (OUTPUT_TILE + 2)
#define SPOTS (SPAN * SPAN)
#define SLICE (THREADS_M * THREADS_T)
#define THREADS (SLICE * SPLIT)
#define TILE_M (THREADS_M * THREAD_M)
#define TILES_X CEIL_DIV(OUT_W, OUTPUT_TILE)
#define TILES_Y CEIL_DIV(OUT_H, OUTPUT_TILE)
#define TILES (BATCH * TILES_Y * TILES_X)
#define ROUNDS CEIL_DIV(CEIL_DIV(CHANNELS, STAGE), SPLIT)
#define STAGED (STAGE * SPOTS * THREADS_T)
#define BLOCK (OUTPUT_TILE * OUTPUT_TILE)
#if SPLIT > 1
#define REDUCE (SPLIT * TILE_M * THREADS_T * BLOCK)
#else
#define REDUCE 0
#endif
#define SCRATCH (SPLIT * STAGED > REDUCE ? SPLIT * STAGED : REDUCE)

// Transforms one row or column of an input tile in place; elements are STEP apart.
#if OUTPUT_TILE == 2
#define FORWARD(d, STEP)                                                            \
    {                                                                               \
        const float t0 = (d)[0], t1 = (d)[STEP], t2 = (d)[2 * STEP], t3 = (d)[3 * STEP]; \
        (d)[0] = t0 - t2, (d)[STEP] = t1 + t2, (d)[2 * STEP] = t2 - t1, (d)[3 * STEP] = t1 - t3; \
    }
#define BACK(s, STEP)                                                    \
    {                                                                    \
        const float a = (s)[0] + (s)[STEP] + (s)[2 * STEP];              \
        const float b = (s)[STEP] - (s)[2 * STEP] - (s)[3 * STEP];       \
        (s)[0] = a, (s)[STEP] = b;                                       \
    }
#else
#define FORWARD(d, STEP)                                                                              \
    {                                                                                                 \
        const float t0 = (d)[0], t1 = (d)[STEP], t2 = (d)[2 * STEP], t3 = (d)[3 * STEP],              \
                    t4 = (d)[4 * STEP], t5 = (d)[5 * STEP];                                           \
        (d)[0] = 4.0f * t0 - 5.0f * t2 + t4;                                                          \
        (d)[STEP] = (t3 + t4) - 4.0f * (t1 + t2), (d)[2 * STEP] = (t4 - t3) + 4.0f * (t1 - t2);       \
        (d)[3 * STEP] = (t4 - t2) + 2.0f * (t3 - t1), (d)[4 * STEP] = (t4 - t2) - 2.0f * (t3 - t1);   \
        (d)[5 * STEP] = 4.0f * t1 - 5.0f * t3 + t5;                                                   \
    }
#define BACK(s, STEP)                                                                                  \
    {                                                                                                  \
        const float p = (s)[STEP] + (s)[2 * STEP], m = (s)[STEP] - (s)[2 * STEP];                      \
        const float q = (s)[3 * STEP] + (s)[4 * STEP], n = (s)[3 * STEP] - (s)[4 * STEP];              \
        const float last = m + 8.0f * n + (s)[5 * STEP];                                               \
        (s)[0] = (s)[0] + p + q, (s)[STEP] = m + 2.0f * n, (s)[2 * STEP] = p + 4.0f * q;               \
        (s)[3 * STEP] = last;                                                                          \
    }
#endif

static inline void finish(RESULT, const __global float *restrict bias, int m, int tile, int pixel, float sum) {
    const int x = tile % TILES_X * OUTPUT_TILE + pixel % OUTPUT_TILE;
    const int y = tile / TILES_X % TILES_Y * OUTPUT_TILE + pixel / OUTPUT_TILE;
    if (m >= OUTPUTS || tile >= TILES || x >= OUT_W || y >= OUT_H) return;
    finish_at(TO_RESULT, (tile / (TILES_X * TILES_Y) * OUTPUTS + m) * PIXELS + y * OUT_W + x, sum + bias[m]);
}

CONVOLVE {
    const int thread = get_local_id(0);
    const int slice = thread / SLICE, lane = thread % SLICE;
    const int tt = lane % THREADS_T, tm = lane / THREADS_T;
    const int first_t = get_group_id(0) * THREADS_T, first_m = get_group_id(1) * TILE_M;
    __local float scratch[SCRATCH];
    __local float *restrict staged = scratch + slice * STAGED;

    float sums[THREAD_M][SPOTS];
#pragma unroll
    for (int i = 0; i < THREAD_M; i++)
#pragma unroll
        for (int s = 0; s < SPOTS; s++) sums[i][s] = 0.0f;

    for (int round = 0; round < ROUNDS; round++) {
        const int first_c = (round * SPLIT + slice) * STAGE;
        barrier(CLK_LOCAL_MEM_FENCE);
        for (int e = lane; e < STAGE * THREADS_T; e += SLICE) {
            const int c = first_c + e / THREADS_T, tile = min(first_t + e % THREADS_T, TILES - 1);
            const int x0 = tile % TILES_X * OUTPUT_TILE - PAD_LEFT;
            const int y0 = tile / TILES_X % TILES_Y * OUTPUT_TILE - PAD_TOP;
            const __global float *restrict source =
                input + (tile / (TILES_X * TILES_Y) * CHANNELS + min(c, CHANNELS - 1)) * PLANE;
            float d[SPOTS];
#pragma unroll
            for (int s = 0; s < SPOTS; s++) {
                const int y = y0 + s / SPAN, x = x0 + s % SPAN;
                const bool inside = c < CHANNELS && (uint)y < IN_H && (uint)x < IN_W;
                d[s] = inside ? source[y * IN_W + x] : 0.0f;
            }
#pragma unroll
            for (int r = 0; r < SPAN; r++) FORWARD(d + r * SPAN, 1)
#pragma unroll
            for (int r = 0; r < SPAN; r++) FORWARD(d + r, SPAN)
#pragma unroll
            for (int s = 0; s < SPOTS; s++)
                staged[(e / THREADS_T * SPOTS + s) * THREADS_T + e % THREADS_T] = d[s];
        }
        barrier(CLK_LOCAL_MEM_FENCE);
        for (int k = 0; k < STAGE; k++) {
            const int c = first_c + k;
            if (c >= CHANNELS) break;
            const __global float *restrict row = weights + (size_t)c * SPOTS * M_PAD + first_m + tm * THREAD_M;
#pragma unroll
            for (int s = 0; s < SPOTS; s++) {
                const float v = staged[(k * SPOTS + s) * THREADS_T + tt];
#if THREAD_M == 4
                const float4 four = *(const __global float4 *)(row + s * M_PAD);
                sums[0][s] = fma(four.x, v, sums[0][s]), sums[1][s] = fma(four.y, v, sums[1][s]);
                sums[2][s] = fma(four.z, v, sums[2][s]), sums[3][s] = fma(four.w, v, sums[3][s]);
#elif THREAD_M == 2
                const float2 two = *(const __global float2 *)(row + s * M_PAD);
                sums[0][s] = fma(two.x, v, sums[0][s]), sums[1][s] = fma(two.y, v, sums[1][s]);
#else
                sums[0][s] = fma(row[s * M_PAD], v, sums[0][s]);
#endif
            }
        }
    }

#if SPLIT > 1
    barrier(CLK_LOCAL_MEM_FENCE);
#endif
#pragma unroll
    for (int i = 0; i < THREAD_M; i++) {
#pragma unroll
        for (int r = 0; r < SPAN; r++) BACK(sums[i] + r * SPAN, 1)
#pragma unroll
        for (int r = 0; r < OUTPUT_TILE; r++) BACK(sums[i] + r, SPAN)
#pragma unroll
        for (int p = 0; p < BLOCK; p++) {
            const float sum = sums[i][p / OUTPUT_TILE * SPAN + p % OUTPUT_TILE];
            const int m = tm * THREAD_M + i;
#if SPLIT > 1
            scratch[((slice * TILE_M + m) * BLOCK + p) * THREADS_T + tt] = sum;
#else
            finish(TO_RESULT, bias, first_m + m, first_t + tt, p, sum);
#endif
        }
    }
#if SPLIT > 1
    barrier(CLK_LOCAL_MEM_FENCE);
    for (int e = thread; e < TILE_M * BLOCK * THREADS_T; e += THREADS) {
        float sum = 0.0f;
#pragma unroll
        for (int s = 0; s < SPLIT; s++) sum += scratch[s * TILE_M * BLOCK * THREADS_T + e];
        finish(TO_RESULT, bias, first_m + e / (BLOCK * THREADS_T), first_t + e % THREADS_T,
               e / THREADS_T % BLOCK, sum);
    }
#endif
}
