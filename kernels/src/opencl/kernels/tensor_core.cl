// Convolution as a matrix product on tensor cores: a warp multiplies tiles of 16 outputs x DEPTH inner steps with tiles of
// DEPTH inner steps x 8 pixels (PTX: mma.m16n8k8 with operands in tf32, mma.m16n8k16 in fp16; sums in single precision).
// Nothing is staged: weights lie in the order in which a warp's lanes want them, and pixels are fetched from the input,
// whose rows the cache keeps.
//
// Product: [M = outputs] x [K = taps, channels] times [K] x [N = images, pixels]; the channels of a tap are padded to
// blocks of DEPTH. Weights come as [tile of 16 outputs][STEPS][lane][4 words], padded with zeros.
//
// WARP_M, WARP_N     tiles of 16 outputs and of 8 pixels that a warp accumulates in registers
// WARPS_M, WARPS_N   warps of a slice along outputs and pixels
// SPLIT              slices of a work-group that share the inner dimension, added up at the end
// STAGE              inner steps that are fetched at once
// AHEAD              whether the next steps are fetched before the present ones are multiplied
// HALF               operands in fp16 (10 bits of mantissa, at most 65504), two to a word; else in tf32
// TERMS              1: operands rounded (tf32 has 10 bits of mantissa as well). 3: each split into two parts in tf32, of
//                    whose products the three larger are added up: as good as single precision
// TENSOR_CORE        0 computes the same without tensor cores, through local memory: for tests

#define SLICE (32 * WARPS_M * WARPS_N)
#define THREADS (SLICE * SPLIT)
// Channels of a column that a lane holds, 4 apart.
#define HELD (HALF ? 4 : 2)
#define DEPTH (4 * HELD)
#define BLOCKS CEIL_DIV(CHANNELS, DEPTH)
#define TILE_M (16 * WARP_M * WARPS_M)
#define TILE_N (8 * WARP_N * WARPS_N)
#define ROUNDS (STEPS / (SPLIT * STAGE))

#if TENSOR_CORE
#define EXCHANGE 0
#else
#define EXCHANGE (THREADS / 32 * STAGE * (WARP_M * 16 + WARP_N * 8) * DEPTH)
#endif
#if SPLIT > 1
#define REDUCE (SPLIT * TILE_M * TILE_N)
#else
#define REDUCE 0
#endif
#define SCRATCH (EXCHANGE > REDUCE ? EXCHANGE : REDUCE)

typedef struct {
    uint a[STAGE][WARP_M][4];
    float b[STAGE][WARP_N][HELD];
} Operands;

// Where a lane's columns begin in the input, and the top left corners of their windows.
typedef struct {
    int base[WARP_N], top[WARP_N], left[WARP_N];
} Columns;

// The bits of a number that tf32 keeps, by leaving the others out.
static inline float shortened(float x) { return as_float(as_uint(x) & 0xffffe000u); }

// The largest number of fp16 stands for what is larger.
static inline float bounded(float x) { return clamp(x, -65504.0f, 65504.0f); }

#if TENSOR_CORE
// The nearest number of tf32.
static inline uint rounded(float x) {
    uint y;
    asm("cvt.rna.tf32.f32 %0, %1;" : "=r"(y) : "f"(x));
    return y;
}

// The nearest numbers of fp16, the first in the lower half of a word.
static inline uint halves(float first, float second) {
    uint y;
    asm("cvt.rn.f16x2.f32 %0, %1, %2;" : "=r"(y) : "f"(bounded(second)), "f"(bounded(first)));
    return y;
}

#if HALF
#define INSTRUCTION "mma.sync.aligned.m16n8k16.row.col.f32.f16.f16.f32"
#else
#define INSTRUCTION "mma.sync.aligned.m16n8k8.row.col.f32.tf32.tf32.f32"
#endif
#define MULTIPLY(c, a, b)                                                                                  \
    asm volatile(INSTRUCTION " {%0, %1, %2, %3}, {%4, %5, %6, %7}, {%8, %9}, {%0, %1, %2, %3};"            \
                 : "+f"((c)[0]), "+f"((c)[1]), "+f"((c)[2]), "+f"((c)[3])                                  \
                 : "r"((a)[0]), "r"((a)[1]), "r"((a)[2]), "r"((a)[3]), "r"((b)[0]), "r"((b)[1]))
#else
// What the instructions make of a pair of numbers.
static inline float product(float x, float y) {
#if TERMS == 1
#if HALF
    y = bounded(y);
#endif
    return x * as_float((as_uint(y) + 0x1000u) & 0xffffe000u);
#else
    const float first = shortened(x), second = shortened(y);
    return shortened(x - first) * second + first * shortened(y - second) + first * second;
#endif
}

// A normal number of fp16, in the lower half of a word.
static inline float widened(uint half_word) {
    const float small = as_float((half_word & 0x7fffu) << 13) * as_float(0x77800000u);
    return half_word & 0x8000u ? -small : small;
}
#endif

static inline void fetch(Operands *to, const Columns *columns, const __global float *restrict input,
                         const __global uint *restrict panel, int first_step, int t) {
#pragma unroll
    for (int s = 0; s < STAGE; s++) {
        const int step = first_step + s;
#pragma unroll
        for (int i = 0; i < WARP_M; i++) {
            const uint4 four = *(const __global uint4 *)(panel + (i * STEPS + step) * 128);
            to->a[s][i][0] = four.x, to->a[s][i][1] = four.y, to->a[s][i][2] = four.z, to->a[s][i][3] = four.w;
        }
        // Weights beyond the end are zero, but what lies there need not be a number.
        const int tap = STEPS > TAPS * BLOCKS ? min(step / BLOCKS, TAPS - 1) : step / BLOCKS;
        const int dy = tap / KERNEL_W * DILATION_H, dx = tap % KERNEL_W * DILATION_W;
        const int first_c = step % BLOCKS * DEPTH + t;
        int at[HELD];
#pragma unroll
        for (int h = 0; h < HELD; h++) {
            const int c = first_c + 4 * h;
            // Where there is no rest, loads are a fixed distance apart.
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

#if TENSOR_CORE
static inline void multiply(float (*sums)[WARP_N][4], const Operands *operands) {
#pragma unroll
    for (int s = 0; s < STAGE; s++) {
#if TERMS == 1
#pragma unroll
        for (int j = 0; j < WARP_N; j++) {
            // Weights were rounded on the host.
            const float *b = operands->b[s][j];
#if HALF
            const uint right[2] = {halves(b[0], b[1]), halves(b[2], b[3])};
#else
            const uint right[2] = {rounded(b[0]), rounded(b[1])};
#endif
#pragma unroll
            for (int i = 0; i < WARP_M; i++) MULTIPLY(sums[i][j], operands->a[s][i], right);
        }
#else
        uint most[WARP_M][4], rest[WARP_M][4];
#pragma unroll
        for (int i = 0; i < WARP_M * 4; i++) {
            const float whole = as_float(operands->a[s][i / 4][i % 4]), part = shortened(whole);
            most[i / 4][i % 4] = as_uint(part), rest[i / 4][i % 4] = as_uint(whole - part);
        }
#pragma unroll
        for (int j = 0; j < WARP_N; j++) {
            const float *b = operands->b[s][j];
            const float first = shortened(b[0]), second = shortened(b[1]);
            const uint large[2] = {as_uint(first), as_uint(second)};
            const uint little[2] = {as_uint(b[0] - first), as_uint(b[1] - second)};
#pragma unroll
            for (int i = 0; i < WARP_M; i++) {
                MULTIPLY(sums[i][j], rest[i], large);
                MULTIPLY(sums[i][j], most[i], little);
                MULTIPLY(sums[i][j], most[i], large);
            }
        }
#endif
    }
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

    Columns columns;
#pragma unroll
    for (int j = 0; j < WARP_N; j++) {
        const int n = min(first_n + j * 8 + g, COLUMNS - 1);
        columns.top[j] = n % PIXELS / OUT_W * STRIDE_H - PAD_TOP;
        columns.left[j] = n % OUT_W * STRIDE_W - PAD_LEFT;
        columns.base[j] = n / PIXELS * CHANNELS * PLANE + columns.top[j] * IN_W + columns.left[j];
    }
    float sums[WARP_M][WARP_N][4];
#pragma unroll
    for (int i = 0; i < WARP_M * WARP_N * 4; i++) sums[i / (WARP_N * 4)][i / 4 % WARP_N][i % 4] = 0.0f;

#if TENSOR_CORE && AHEAD
    Operands present, next;
    fetch(&present, &columns, input, panel, slice * STAGE, t);
#pragma unroll 1
    for (int round = 1; round < ROUNDS; round++) {
        fetch(&next, &columns, input, panel, (round * SPLIT + slice) * STAGE, t);
        multiply(sums, &present);
        present = next;
    }
    multiply(sums, &present);
#elif TENSOR_CORE
#pragma unroll 1
    for (int round = 0; round < ROUNDS; round++) {
        Operands present;
        fetch(&present, &columns, input, panel, (round * SPLIT + slice) * STAGE, t);
        multiply(sums, &present);
    }
#else
    // Lane 4 g + t holds rows g and g + 8 of the left operand in the columns t, t + 4 and so on, these rows of the right one
    // in column g, and rows g and g + 8 of the sums in columns 2 t and 2 t + 1.
    __local float *lefts = scratch + warp * STAGE * (WARP_M * 16 + WARP_N * 8) * DEPTH;
    __local float *rights = lefts + STAGE * WARP_M * 16 * DEPTH;
#pragma unroll 1
    for (int round = 0; round < ROUNDS; round++) {
        Operands present;
        fetch(&present, &columns, input, panel, (round * SPLIT + slice) * STAGE, t);
        barrier(CLK_LOCAL_MEM_FENCE);
#pragma unroll 1
        for (int i = 0; i < STAGE * WARP_M; i++)
            for (int e = 0; e < 2 * HELD; e++) {
                const int row = e % 2, h = e / 2;
#if HALF
                const float x = widened(present.a[i / WARP_M][i % WARP_M][h / 2 * 2 + row] >> (h % 2 * 16) & 0xffffu);
#else
                const float x = as_float(present.a[i / WARP_M][i % WARP_M][h * 2 + row]);
#endif
                lefts[(i * 16 + g + row * 8) * DEPTH + t + 4 * h] = x;
            }
#pragma unroll 1
        for (int j = 0; j < STAGE * WARP_N; j++)
            for (int h = 0; h < HELD; h++)
                rights[(j * DEPTH + t + 4 * h) * 8 + g] = present.b[j / WARP_N][j % WARP_N][h];
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
                        for (int k = 0; k < DEPTH; k++)
                            sums[i][j][h] += product(lefts[((s * WARP_M + i) * 16 + g + h / 2 * 8) * DEPTH + k],
                                                     rights[((s * WARP_N + j) * DEPTH + k) * 8 + 2 * t + h % 2]);
    }
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
