// Convolution with weights that are zero in blocks of output channels: the matrix product of implicit_gemm.cl over those
// steps of the inner dimension alone that have weights left. As blocks are as wide as what a work-group computes, it
// walks one list of steps, and inputs are used as often as in the dense product (the idea of block-sparse GPU kernels:
// Gray, Radford and Kingma, "GPU kernels for block-sparse weights", 2017; of lists that are walked by whole tiles:
// Elsen et al., "Fast sparse ConvNets", CVPR 2020).
//
// A list belongs to one tile of outputs. It is cut into chunks of CHUNK steps, the last one filled up with repetitions of
// its last step under zero weights: what is read there is multiplied in anyway. Weights come as
// [chunk][CHUNK][TILE_M], steps as [chunk][CHUNK] pairs: how far what a step reads is from the corner of a pixel's
// window, and the rows (upper 16 bits) and columns of that. `begins` says with which chunk each tile begins.
//
// TILE_M, TILE_N, TILE_K     what a work-group computes at a time
// THREAD_M, THREAD_N         what a work-item accumulates in registers
// VECTOR                     neighboring pixels that a work-item reads at once
// SPLIT                      slices of work-items that share a list, added up at the end
// LOCAL                      whether inputs and weights are staged in local memory
// UNROLL                     steps that are unrolled

#define THREADS_M (TILE_M / THREAD_M)
#define THREADS_N (TILE_N / THREAD_N)
#define SLICE (THREADS_M * THREADS_N)
#define THREADS (SLICE * SPLIT)
#define CHUNK (TILE_K * SPLIT)
#define TILES CEIL_DIV(GROUP_OUT, TILE_M)

// Neighboring pixels read neighboring, aligned inputs.
#define WIDE (VECTOR > 1 && TAPS == 1 && STRIDE_H == 1 && STRIDE_W == 1 && !PADDED && PLANE % VECTOR == 0)

// Where the window of a column begins in the input, and its top left corner.
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
    column.base = (image * CHANNELS + group * GROUP_IN) * PLANE + column.y * IN_W + column.x;
    return column;
}

static inline float fetch(const __global float *restrict input, Column column, int2 step) {
#if PADDED
    int y = column.y + (step.y >> 16), x = column.x + (step.y & 0xFFFF);
    bool inside = (uint)y < IN_H && (uint)x < IN_W;
    return inside ? input[column.base + step.x] : 0.0f;
#else
    return input[column.base + step.x];
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

KERNEL convolve(const __global float *restrict input, const __global float *restrict weights,
                const __global float *restrict bias, const __global int2 *restrict steps,
                const __global int *restrict begins, RESULT) {
    const int thread = get_local_id(0);
    const int slice = thread / SLICE, lane = thread % SLICE;
    const int tn = lane % THREADS_N, tm = lane / THREADS_N;
    const int first_n = get_group_id(0) * TILE_N, first_m = get_group_id(1) * TILE_M;
    const int group = get_group_id(2);
    const int tile = group * TILES + get_group_id(1);
    const int begin = begins[tile], chunks = begins[tile + 1] - begin;
    // What is this slice's of the first chunk.
    steps += begin * CHUNK + slice * TILE_K;
    weights += ((size_t)begin * CHUNK + slice * TILE_K) * TILE_M;

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

    // Chunks are as many for all of a work-group, and so are barriers.
    for (int chunk = 0; chunk <= chunks; chunk++) {
        if (chunk < chunks) {
#pragma unroll
            for (int i = 0; i < A_PER; i++) {
                const int e = lane + i * SLICE;
                if (TILE_K * TILE_M / 4 % SLICE == 0 || e < TILE_K * TILE_M / 4)
                    a_next[i] = *(const __global float4 *)(weights + (size_t)chunk * CHUNK * TILE_M + e * 4);
            }
#pragma unroll
            for (int i = 0; i < B_PER; i++) {
                const int e = lane + i * SLICE;
                if (TILE_K * TILE_N % SLICE == 0 || e < TILE_K * TILE_N)
                    b_next[i] = fetch(input, columns[i], steps[chunk * CHUNK + e / TILE_N]);
            }
        }
        if (chunk > 0) {
#pragma unroll UNROLL
            for (int k = 0; k < TILE_K; k++) {
                float a[THREAD_M], b[THREAD_N];
#if THREAD_M % 4 == 0
#pragma unroll
                for (int i = 0; i < THREAD_M; i += 4) {
                    float4 four = *(const __local float4 *)(a_tile + k * TILE_M + tm * THREAD_M + i);
                    a[i] = four.x, a[i + 1] = four.y, a[i + 2] = four.z, a[i + 3] = four.w;
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
        if (chunk < chunks) {
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
    // Runs of VECTOR columns begin in one image, where they read at once.
    Column columns[THREAD_N];
#pragma unroll
    for (int j = 0; j < THREAD_N; j++) columns[j] = column_at(first_n + COLUMN_OF(j), group);
#if WIDE
#pragma unroll
    for (int j = 0; j < THREAD_N; j += VECTOR)
        columns[j] = column_at(min(first_n + COLUMN_OF(j), COLUMNS - VECTOR), group);
#endif
    for (int chunk = 0; chunk < chunks; chunk++) {
#pragma unroll UNROLL
        for (int k = 0; k < TILE_K; k++) {
            const int2 step = steps[chunk * CHUNK + k];
            const __global float *restrict row =
                weights + ((size_t)chunk * CHUNK + k) * TILE_M + tm * THREAD_M;
            float a[THREAD_M], b[THREAD_N];
#if THREAD_M % 4 == 0
#pragma unroll
            for (int i = 0; i < THREAD_M; i += 4) {
                float4 four = *(const __global float4 *)(row + i);
                a[i] = four.x, a[i + 1] = four.y, a[i + 2] = four.z, a[i + 3] = four.w;
            }
#else
#pragma unroll
            for (int i = 0; i < THREAD_M; i++) a[i] = row[i];
#endif
#if WIDE && VECTOR == 4
#pragma unroll
            for (int j = 0; j < THREAD_N; j += 4) {
                float4 four = *(const __global float4 *)(input + columns[j].base + step.x);
                b[j] = four.x, b[j + 1] = four.y, b[j + 2] = four.z, b[j + 3] = four.w;
            }
#elif WIDE
#pragma unroll
            for (int j = 0; j < THREAD_N; j += 2) {
                float2 two = *(const __global float2 *)(input + columns[j].base + step.x);
                b[j] = two.x, b[j + 1] = two.y;
            }
#else
#pragma unroll
            for (int j = 0; j < THREAD_N; j++) b[j] = fetch(input, columns[j], step);
#endif
#pragma unroll
            for (int i = 0; i < THREAD_M; i++)
#pragma unroll
                for (int j = 0; j < THREAD_N; j++) sums[i][j] = fma(a[i], b[j], sums[i][j]);
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
            finish(TO_RESULT, bias, group, first_m + tm * THREAD_M + i, first_n + COLUMN_OF(j), sums[i][j]);
#endif
}
