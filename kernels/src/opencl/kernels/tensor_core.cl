// Convolution as a matrix product on tensor cores: a warp multiplies tiles of 16 outputs x 8 inner steps with tiles of
// 8 inner steps x 8 pixels (PTX: mma.m16n8k8, operands in tf32, sums in single precision). Nothing is staged: weights lie
// in the order in which a warp's lanes want them, and pixels are fetched from the input, whose rows the cache keeps.
//
// Product: [M = outputs] x [K = taps, channels] times [K] x [N = images, pixels]; the channels of a tap are padded to
// blocks of 8. Weights come as [tile of 16 outputs][STEPS][lane][4], padded with zeros.
//
// WARP_M, WARP_N     tiles of 16 outputs and of 8 pixels that a warp accumulates in registers
// WARPS_M, WARPS_N   warps of a slice along outputs and pixels
// SPLIT              slices of a work-group that share the inner dimension, added up at the end
// STAGE              inner steps that are fetched at once
// TERMS              1: operands rounded to tf32 (10 bits of mantissa). 3: each split into two such parts, of whose
//                    products the three larger are added up: as good as single precision
// TENSOR_CORE        0 computes the same without tensor cores, through local memory: for tests

#define SLICE (32 * WARPS_M * WARPS_N)
#define THREADS (SLICE * SPLIT)
#define TAPS (KERNEL_H * KERNEL_W)
#define BLOCKS CEIL_DIV(CHANNELS, 8)
#define PLANE (IN_H * IN_W)
#define PIXELS (OUT_H * OUT_W)
#define COLUMNS (BATCH * PIXELS)
#define TILE_M (16 * WARP_M * WARPS_M)
#define TILE_N (8 * WARP_N * WARPS_N)
#define ROUNDS (STEPS / (SPLIT * STAGE))

#if TENSOR_CORE
#define EXCHANGE 0
#else
#define EXCHANGE (THREADS / 32 * STAGE * (WARP_M * 128 + WARP_N * 64))
#endif
#if SPLIT > 1
#define REDUCE (SPLIT * TILE_M * TILE_N)
#else
#define REDUCE 0
#endif
#define SCRATCH (EXCHANGE > REDUCE ? EXCHANGE : REDUCE)

// The bits of a number that tf32 keeps, by leaving the others out.
static inline float shortened(float x) { return as_float(as_uint(x) & 0xffffe000u); }

#if TENSOR_CORE
// The nearest number of tf32.
static inline float rounded(float x) {
    uint y;
    asm("cvt.rna.tf32.f32 %0, %1;" : "=r"(y) : "f"(x));
    return as_float(y);
}

#define MULTIPLY(c, a, b)                                                                                  \
    asm volatile("mma.sync.aligned.m16n8k8.row.col.f32.tf32.tf32.f32 {%0, %1, %2, %3}, {%4, %5, %6, %7}, " \
                 "{%8, %9}, {%0, %1, %2, %3};"                                                             \
                 : "+f"((c)[0]), "+f"((c)[1]), "+f"((c)[2]), "+f"((c)[3])                                  \
                 : "r"(as_uint((a)[0])), "r"(as_uint((a)[1])), "r"(as_uint((a)[2])), "r"(as_uint((a)[3])), \
                   "r"(as_uint((b)[0])), "r"(as_uint((b)[1])))
#else
// What the instructions make of a pair of numbers.
static inline float product(float x, float y) {
#if TERMS == 1
    return shortened(x) * as_float((as_uint(y) + 0x1000u) & 0xffffe000u);
#else
    const float first = shortened(x), second = shortened(y);
    return shortened(x - first) * second + first * shortened(y - second) + first * second;
#endif
}
#endif

static inline void finish(__global float *restrict output, const __global float *restrict residual,
                          const __global float *restrict bias, int m, int n, float sum) {
    if (m >= OUTPUTS || n >= COLUMNS) return;
    const int at = (n / PIXELS * OUTPUTS + m) * PIXELS + n % PIXELS;
    sum += bias[m];
#if RESIDUAL
    sum += residual[at];
#endif
    output[at] = activate(sum);
}

__kernel __attribute__((reqd_work_group_size(THREADS, 1, 1)))
void convolve(const __global float *restrict input, const __global float *restrict weights,
              const __global float *restrict bias, const __global float *restrict residual,
              __global float *restrict output) {
    const int thread = get_local_id(0), lane = thread % 32, g = lane / 4, t = lane % 4;
    const int warp = thread / 32, slice = warp / (WARPS_M * WARPS_N);
    const int wn = warp % WARPS_N, wm = warp / WARPS_N % WARPS_M;
    const int first_m = get_group_id(1) * TILE_M + wm * WARP_M * 16;
    const int first_n = get_group_id(0) * TILE_N + wn * WARP_N * 8;
    const __global float *restrict panel = weights + (size_t)(first_m / 16) * STEPS * 128 + lane * 4;
#if SCRATCH > 0
    __local float scratch[SCRATCH] __attribute__((aligned(16)));
#endif

    // Where this lane's columns begin in the input, and the top left corners of their windows.
    int base[WARP_N], top[WARP_N], left[WARP_N];
#pragma unroll
    for (int j = 0; j < WARP_N; j++) {
        const int n = min(first_n + j * 8 + g, COLUMNS - 1);
        top[j] = n % PIXELS / OUT_W * STRIDE_H - PAD_TOP, left[j] = n % OUT_W * STRIDE_W - PAD_LEFT;
        base[j] = n / PIXELS * CHANNELS * PLANE + top[j] * IN_W + left[j];
    }
    float sums[WARP_M][WARP_N][4];
#pragma unroll
    for (int i = 0; i < WARP_M * WARP_N * 4; i++) sums[i / (WARP_N * 4)][i / 4 % WARP_N][i % 4] = 0.0f;

#pragma unroll 1
    for (int round = 0; round < ROUNDS; round++) {
        float a[STAGE][WARP_M][4], b[STAGE][WARP_N][2];
#pragma unroll
        for (int s = 0; s < STAGE; s++) {
            const int step = (round * SPLIT + slice) * STAGE + s;
#pragma unroll
            for (int i = 0; i < WARP_M; i++) {
                const float4 four = *(const __global float4 *)(panel + (i * STEPS + step) * 128);
                a[s][i][0] = four.x, a[s][i][1] = four.y, a[s][i][2] = four.z, a[s][i][3] = four.w;
            }
            // Weights beyond the end are zero, but what lies there need not be a number.
            const int tap = min(step / BLOCKS, TAPS - 1), first_c = step % BLOCKS * 8 + t;
            const int dy = tap / KERNEL_W * DILATION_H, dx = tap % KERNEL_W * DILATION_W;
            const int shift = dy * IN_W + dx;
            const int low = min(first_c, CHANNELS - 1) * PLANE + shift;
            const int high = min(first_c + 4, CHANNELS - 1) * PLANE + shift;
#pragma unroll
            for (int j = 0; j < WARP_N; j++) {
#if PADDED
                const bool inside = (uint)(top[j] + dy) < IN_H && (uint)(left[j] + dx) < IN_W;
                b[s][j][0] = inside ? input[base[j] + low] : 0.0f;
                b[s][j][1] = inside ? input[base[j] + high] : 0.0f;
#else
                b[s][j][0] = input[base[j] + low], b[s][j][1] = input[base[j] + high];
#endif
            }
        }
#if TENSOR_CORE
#pragma unroll
        for (int s = 0; s < STAGE; s++) {
#if TERMS == 1
#pragma unroll
            for (int j = 0; j < WARP_N; j++) {
                // Weights were rounded on the host.
                b[s][j][0] = rounded(b[s][j][0]), b[s][j][1] = rounded(b[s][j][1]);
#pragma unroll
                for (int i = 0; i < WARP_M; i++) MULTIPLY(sums[i][j], a[s][i], b[s][j]);
            }
#else
            float rest[WARP_M][4];
#pragma unroll
            for (int i = 0; i < WARP_M * 4; i++) {
                const float whole = a[s][i / 4][i % 4], most = shortened(whole);
                a[s][i / 4][i % 4] = most, rest[i / 4][i % 4] = whole - most;
            }
#pragma unroll
            for (int j = 0; j < WARP_N; j++) {
                const float most[2] = {shortened(b[s][j][0]), shortened(b[s][j][1])};
                const float little[2] = {b[s][j][0] - most[0], b[s][j][1] - most[1]};
#pragma unroll
                for (int i = 0; i < WARP_M; i++) {
                    MULTIPLY(sums[i][j], rest[i], most);
                    MULTIPLY(sums[i][j], a[s][i], little);
                    MULTIPLY(sums[i][j], a[s][i], most);
                }
            }
#endif
        }
#else
        // Lane 4 g + t holds rows g and g + 8 of the left operand in columns t and t + 4, rows t and t + 4 of the right one in
        // column g, and rows g and g + 8 of the sums in columns 2 t and 2 t + 1.
        __local float *lefts = scratch + warp * STAGE * (WARP_M * 128 + WARP_N * 64);
        __local float *rights = lefts + STAGE * WARP_M * 128;
        barrier(CLK_LOCAL_MEM_FENCE);
#pragma unroll 1
        for (int i = 0; i < STAGE * WARP_M; i++)
            for (int r = 0; r < 4; r++)
                lefts[i * 128 + (g + r % 2 * 8) * 8 + t + r / 2 * 4] = a[i / WARP_M][i % WARP_M][r];
#pragma unroll 1
        for (int j = 0; j < STAGE * WARP_N; j++)
            for (int r = 0; r < 2; r++) rights[j * 64 + (t + r * 4) * 8 + g] = b[j / WARP_N][j % WARP_N][r];
        barrier(CLK_LOCAL_MEM_FENCE);
#pragma unroll 1
        for (int s = 0; s < STAGE; s++)
#pragma unroll 1
            for (int i = 0; i < WARP_M; i++)
#pragma unroll 1
                for (int j = 0; j < WARP_N; j++)
#pragma unroll 1
                    for (int h = 0; h < 4; h++)
#pragma unroll 1
                        for (int k = 0; k < 8; k++)
                            sums[i][j][h] += product(lefts[(s * WARP_M + i) * 128 + (g + h / 2 * 8) * 8 + k],
                                                     rights[(s * WARP_N + j) * 64 + k * 8 + 2 * t + h % 2]);
#endif
    }

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
        finish(output, residual, bias, get_group_id(1) * TILE_M + e / TILE_N,
               get_group_id(0) * TILE_N + e % TILE_N, sum);
    }
#else
#pragma unroll
    for (int i = 0; i < WARP_M; i++)
#pragma unroll
        for (int j = 0; j < WARP_N; j++)
#pragma unroll
            for (int h = 0; h < 4; h++)
                finish(output, residual, bias, first_m + i * 16 + h / 2 * 8 + g, first_n + j * 8 + 2 * t + h % 2,
                       sums[i][j][h]);
#endif
}
