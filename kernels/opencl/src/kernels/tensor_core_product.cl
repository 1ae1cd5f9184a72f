// Products of a warp's operands for one inner step, in full or reduced precision. Precedes
// tensor_core.cl, which describes the macros.

#define SLICE (32 * WARPS_M * WARPS_N)
#define THREADS (SLICE * SPLIT)
// Channels of a column that a lane holds, 4 apart.
#define HELD (HALF ? 4 : 2)
#define DEPTH (4 * HELD)
#define BLOCKS CEIL_DIV(CHANNELS, DEPTH)
#define TILE_M (16 * WARP_M * WARPS_M)
#define TILE_N (8 * WARP_N * WARPS_N)

// Without tensor cores, lanes exchange their operands through an area of local memory per warp.
#if TENSOR_CORE
#define EXCHANGE 0
#define AREA
#define TO_AREA
#else
#define EXCHANGE ((WARP_M * 16 + WARP_N * 8) * DEPTH)
#define AREA , __local float *restrict area, int g, int t
#define TO_AREA , area, g, t
#endif

// Truncates a number to the bits of tf32.
static inline float shortened(float x) { return as_float(as_uint(x) & 0xffffe000u); }

// Clamps a number to the finite range of fp16.
static inline float bounded(float x) { return clamp(x, -65504.0f, 65504.0f); }

#if TENSOR_CORE
// Rounds to the nearest tf32 number.
static inline uint rounded(float x) {
    uint y;
    asm("cvt.rna.tf32.f32 %0, %1;" : "=r"(y) : "f"(x));
    return y;
}

// Rounds to the nearest fp16 numbers, with the first in the lower half of a word.
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
// Emulates the product of two numbers as computed by the instructions.
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

// Converts a normal fp16 number in the lower half of a word to single precision.
static inline float widened(uint half_word) {
    const float small = as_float((half_word & 0x7fffu) << 13) * as_float(0x77800000u);
    return half_word & 0x8000u ? -small : small;
}
#endif

#if TENSOR_CORE
static inline void multiply(float (*sums)[WARP_N][4], uint (*a)[4], float (*b)[HELD] AREA) {
#if TERMS == 1
#pragma unroll
    for (int j = 0; j < WARP_N; j++) {
        // The host has rounded the weights.
#if HALF
        const uint right[2] = {halves(b[j][0], b[j][1]), halves(b[j][2], b[j][3])};
#else
        const uint right[2] = {rounded(b[j][0]), rounded(b[j][1])};
#endif
#pragma unroll
        for (int i = 0; i < WARP_M; i++) MULTIPLY(sums[i][j], a[i], right);
    }
#else
    uint most[WARP_M][4], rest[WARP_M][4];
#pragma unroll
    for (int i = 0; i < WARP_M * 4; i++) {
        const float whole = as_float(a[i / 4][i % 4]), part = shortened(whole);
        most[i / 4][i % 4] = as_uint(part), rest[i / 4][i % 4] = as_uint(whole - part);
    }
#pragma unroll
    for (int j = 0; j < WARP_N; j++) {
        const float first = shortened(b[j][0]), second = shortened(b[j][1]);
        const uint large[2] = {as_uint(first), as_uint(second)};
        const uint little[2] = {as_uint(b[j][0] - first), as_uint(b[j][1] - second)};
#pragma unroll
        for (int i = 0; i < WARP_M; i++) {
            MULTIPLY(sums[i][j], rest[i], large);
            MULTIPLY(sums[i][j], most[i], little);
            MULTIPLY(sums[i][j], most[i], large);
        }
    }
#endif
}
#else
// Lane 4 g + t holds three fragments. Left operand: rows g and g + 8 of columns t, t + 4 and so on.
// Right operand: rows t, t + 4 and so on of column g. Sums: rows g and g + 8 of columns 2 t and 2 t
// + 1.
static inline void multiply(float (*sums)[WARP_N][4], uint (*a)[4], float (*b)[HELD] AREA) {
    __local float *lefts = area, *rights = area + WARP_M * 16 * DEPTH;
    barrier(CLK_LOCAL_MEM_FENCE);
#pragma unroll 1
    for (int i = 0; i < WARP_M; i++)
        for (int e = 0; e < 2 * HELD; e++) {
            const int row = e % 2, h = e / 2;
#if HALF
            const float x = widened(a[i][h / 2 * 2 + row] >> (h % 2 * 16) & 0xffffu);
#else
            const float x = as_float(a[i][h * 2 + row]);
#endif
            lefts[(i * 16 + g + row * 8) * DEPTH + t + 4 * h] = x;
        }
#pragma unroll 1
    for (int j = 0; j < WARP_N; j++)
        for (int h = 0; h < HELD; h++) rights[(j * DEPTH + t + 4 * h) * 8 + g] = b[j][h];
    barrier(CLK_LOCAL_MEM_FENCE);
#pragma unroll 1
    for (int i = 0; i < WARP_M; i++)
#pragma unroll 1
        for (int j = 0; j < WARP_N; j++)
#pragma unroll 1
            for (int h = 0; h < 4; h++)
#pragma unroll 1
                for (int k = 0; k < DEPTH; k++)
                    sums[i][j][h] += product(lefts[(i * 16 + g + h / 2 * 8) * DEPTH + k],
                                             rights[(j * DEPTH + k) * 8 + 2 * t + h % 2]);
}
#endif

// Fetches the weights of a lane for one step.
static inline void fetch_weights(uint (*a)[4], const __global uint *restrict panel, int step) {
#pragma unroll
    for (int i = 0; i < WARP_M; i++) {
        const uint4 four = *(const __global uint4 *)(panel + (i * STEPS + step) * 128);
        a[i][0] = four.x, a[i][1] = four.y, a[i][2] = four.z, a[i][3] = four.w;
    }
}
