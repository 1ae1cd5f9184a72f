// Convolution as a GEMM on tensor cores: a warp multiplies tiles of 16 outputs x DEPTH inner steps
// with tiles of DEPTH inner steps x 8 pixels (PTX: mma.m16n8k8 with operands in tf32, mma.m16n8k16
// in fp16; sums in single precision). Weights are stored in the lane order of a warp and are never
// staged. Pixels are fetched from the input, whose rows stay in the cache, or from a patch of it in
// local memory (tensor_core_patch.cl). Follows tensor_core_product.cl.
//
// GEMM: [M = outputs] x [K = taps, channels] times [K] x [N = images, pixels]. The channels of a
// tap are padded to blocks of DEPTH. Weights are [tile of 16 outputs][STEPS][lane][4 words], padded
// with zeros. Steps are the taps of each block with a patch, else the blocks of each tap.
//
// WARP_M, WARP_N     tiles of 16 outputs and of 8 pixels that a warp accumulates in registers
// WARPS_M, WARPS_N   warps of a slice along outputs and pixels
// SPLIT              slices of a work-group that share the inner dimension, added at the end
// STAGE              inner steps that are fetched at once; with a patch, taps that are unrolled
// PATCH              0: pixels are fetched from the input; 1: from a patch, while the next one
//                    waits in registers; 2: from one of two patches, while the other is filled by
//                    asynchronous copies that bypass the registers
// AHEAD              prefetch: whether the next steps (with a patch, their weights) are fetched
//                    before the present ones are multiplied
// HALF               operands in fp16 (10 bits of mantissa, at most 65504), two per word; else tf32
// TERMS              1: operands are rounded (tf32 has 10 bits of mantissa as well); 3: each is
//                    split into two tf32 parts, and the three largest products of parts are added,
//                    which is as accurate as single precision
// TENSOR_CORE        0: emulates the tensor cores through local memory, for tests

#if SPLIT > 1
#define REDUCE (SPLIT * TILE_M * TILE_N)
#else
#define REDUCE 0
#endif
#if PATCH
#define PATCHES (SPLIT * BUFFERS * SLOTS)
#else
#define PATCHES 0
#endif
#define MULTIPLYING (PATCHES + THREADS / 32 * EXCHANGE)
#define SCRATCH (MULTIPLYING > REDUCE ? MULTIPLYING : REDUCE)

#if !PATCH
#define ROUNDS (STEPS / (SPLIT * STAGE))

typedef struct {
    uint a[STAGE][WARP_M][4];
    float b[STAGE][WARP_N][HELD];
} Operands;

// Offsets of a lane's columns in the input, and the top left corners of their windows.
typedef struct {
    int base[WARP_N], top[WARP_N], left[WARP_N];
} Columns;

static inline void fetch(Operands *to, const Columns *columns, const __global float *restrict input,
                         const __global uint *restrict panel, int first_step, int t) {
#pragma unroll
    for (int s = 0; s < STAGE; s++) {
        const int step = first_step + s;
        fetch_weights(to->a[s], panel, step);
        // Weights beyond the end are zero, but inputs there may be NaN: read existing taps.
        const int tap = STEPS > TAPS * BLOCKS ? min(step / BLOCKS, TAPS - 1) : step / BLOCKS;
        const int dy = tap / KERNEL_W * DILATION_H, dx = tap % KERNEL_W * DILATION_W;
        const int first_c = step % BLOCKS * DEPTH + t;
        int at[HELD];
#pragma unroll
        for (int h = 0; h < HELD; h++) {
            const int c = first_c + 4 * h;
            // With whole blocks only, loads are a fixed distance apart.
            at[h] = (CHANNELS % DEPTH == 0 ? c : min(c, CHANNELS - 1)) * PLANE + dy * IN_W + dx;
        }
#pragma unroll
        for (int j = 0; j < WARP_N; j++) {
#if PADDED
            const bool inside = (uint)(columns->top[j] + dy) < IN_H && (uint)(columns->left[j] + dx) < IN_W;
#else
            const bool inside = true;
#endif
#pragma unroll
            for (int h = 0; h < HELD; h++)
                to->b[s][j][h] = inside ? input[columns->base[j] + at[h]] : 0.0f;
        }
    }
}

static inline void multiply_all(float (*sums)[WARP_N][4], Operands *operands AREA) {
#pragma unroll
    for (int s = 0; s < STAGE; s++) multiply(sums, operands->a[s], operands->b[s] TO_AREA);
}
#endif

static inline void finish(RESULT, const __global float *restrict bias, int m, int n, float sum) {
    if (m < OUTPUTS && n < COLUMNS) finish_at(TO_RESULT, place_of(m, n), sum + bias[m]);
}

CONVOLVE {
    const int thread = get_local_id(0), lane = thread % 32, g = lane / 4, t = lane % 4;
    const int warp = thread / 32, slice = warp / (WARPS_M * WARPS_N);
    const int wn = warp % WARPS_N, wm = warp / WARPS_N % WARPS_M;
    const int first_m = get_group_id(1) * TILE_M + wm * WARP_M * 16;
    const int first_n = get_group_id(0) * TILE_N + wn * WARP_N * 8;
    const __global uint *restrict panel =
        (const __global uint *)weights + (size_t)(first_m / 16) * STEPS * 128 + lane * 4;
#if SCRATCH > 0
    __local float scratch[SCRATCH] __attribute__((aligned(16)));
#endif

    float sums[WARP_M][WARP_N][4];
#pragma unroll
    for (int i = 0; i < WARP_M * WARP_N * 4; i++) sums[i / (WARP_N * 4)][i / 4 % WARP_N][i % 4] = 0.0f;

#if !TENSOR_CORE
    __local float *area = scratch + PATCHES + warp * EXCHANGE;
#endif
#if PATCH
    convolve_patches(sums, scratch + slice * BUFFERS * SLOTS, input, panel, slice, thread % SLICE, first_n, g,
                     t TO_PATCH);
#else
    Columns columns;
#pragma unroll
    for (int j = 0; j < WARP_N; j++) {
        const int n = min(first_n + j * 8 + g, COLUMNS - 1);
        columns.top[j] = n % PIXELS / OUT_W * STRIDE_H - PAD_TOP;
        columns.left[j] = n % OUT_W * STRIDE_W - PAD_LEFT;
        columns.base[j] = n / PIXELS * CHANNELS * PLANE + columns.top[j] * IN_W + columns.left[j];
    }
#if AHEAD
    Operands present, next;
    fetch(&present, &columns, input, panel, slice * STAGE, t);
#pragma unroll 1
    for (int round = 1; round < ROUNDS; round++) {
        fetch(&next, &columns, input, panel, (round * SPLIT + slice) * STAGE, t);
        multiply_all(sums, &present TO_AREA);
        present = next;
    }
    multiply_all(sums, &present TO_AREA);
#else
#pragma unroll 1
    for (int round = 0; round < ROUNDS; round++) {
        Operands present;
        fetch(&present, &columns, input, panel, (round * SPLIT + slice) * STAGE, t);
        multiply_all(sums, &present TO_AREA);
    }
#endif
#endif

#if SPLIT > 1
    barrier(CLK_LOCAL_MEM_FENCE);
#pragma unroll
    for (int i = 0; i < WARP_M; i++)
#pragma unroll
        for (int j = 0; j < WARP_N; j++)
#pragma unroll
            for (int h = 0; h < 2; h++) {
                const int m = (wm * WARP_M + i) * 16 + h * 8 + g, n = (wn * WARP_N + j) * 8 + 2 * t;
                *(__local float2 *)(scratch + (slice * TILE_M + m) * TILE_N + n) =
                    (float2)(sums[i][j][2 * h], sums[i][j][2 * h + 1]);
            }
    barrier(CLK_LOCAL_MEM_FENCE);
    for (int e = thread; e < TILE_M * TILE_N; e += THREADS) {
        float sum = 0.0f;
#pragma unroll 8
        for (int s = 0; s < SPLIT; s++) sum += scratch[s * TILE_M * TILE_N + e];
        finish(TO_RESULT, bias, get_group_id(1) * TILE_M + e / TILE_N, get_group_id(0) * TILE_N + e % TILE_N, sum);
    }
#else
#pragma unroll
    for (int i = 0; i < WARP_M; i++)
#pragma unroll
        for (int j = 0; j < WARP_N; j++)
#pragma unroll
            for (int h = 0; h < 4; h++)
                finish(TO_RESULT, bias, first_m + i * 16 + h / 2 * 8 + g, first_n + j * 8 + 2 * t + h % 2,
                       sums[i][j][h]);
#endif
}
