// Direct convolution: a work-item computes TILE_O outputs of TILE_X neighboring pixels of one row,
// and reads every input of that row once for all taps. Channels are split over SPLIT slices of a
// work-group, whose sums are added in local memory.
//
// Weights are [group][channel][tap][O_PAD], padded with zeros.
//
// TILE_O, TILE_X      outputs and pixels that a work-item accumulates in registers
// GROUP_O, GROUP_P    work-items of a slice along outputs and along runs of pixels
// SPLIT               slices of work-items that share the channels
// LOCAL               whether weights are staged in local memory, STAGE channels at a time
// UNROLL              channels that are unrolled

#define SLICE (GROUP_O * GROUP_P)
#define THREADS (SLICE * SPLIT)
#define RUNS_X CEIL_DIV(OUT_W, TILE_X)
#define RUNS (BATCH * OUT_H * RUNS_X)
#define REACH ((TILE_X - 1) * STRIDE_W + (KERNEL_W - 1) * DILATION_W + 1)
#define TILE_OUT (GROUP_O * TILE_O)
#define ROUNDS CEIL_DIV(CEIL_DIV(GROUP_IN, SPLIT), STAGE)

#if LOCAL
#define STAGED (SPLIT * STAGE * TAPS * TILE_OUT)
#else
#define STAGED 0
#endif
#if SPLIT > 1
#define REDUCE (SPLIT * SLICE * TILE_O * TILE_X)
#else
#define REDUCE 0
#endif
#define SCRATCH (STAGED > REDUCE ? STAGED : REDUCE)

static inline void finish(RESULT, const __global float *restrict bias, int group, int o, int run, int j, float sum) {
    int x = run % RUNS_X * TILE_X + j, y = run / RUNS_X % OUT_H, image = run / (RUNS_X * OUT_H);
    if (o >= GROUP_OUT || run >= RUNS || x >= OUT_W) return;
    int channel = group * GROUP_OUT + o;
    finish_at(TO_RESULT, (image * OUTPUTS + channel) * PIXELS + y * OUT_W + x, sum + bias[channel]);
}

CONVOLVE {
    const int thread = get_local_id(0);
    const int slice = thread / SLICE, lane = thread % SLICE;
    const int tp = lane % GROUP_P, to = lane / GROUP_P;
    const int run = get_group_id(0) * GROUP_P + tp, group = get_group_id(2);
    const int first_o = get_group_id(1) * TILE_OUT;
    const int reading = min(run, RUNS - 1);
    const int x0 = reading % RUNS_X * TILE_X * STRIDE_W - PAD_LEFT;
    const int y0 = reading / RUNS_X % OUT_H * STRIDE_H - PAD_TOP;
    const __global float *restrict image =
        input + (size_t)(reading / (RUNS_X * OUT_H) * CHANNELS + group * GROUP_IN) * PLANE;
    const __global Weight *restrict panel = weights + (size_t)group * GROUP_IN * TAPS * O_PAD + first_o;

    float sums[TILE_O][TILE_X];
#pragma unroll
    for (int i = 0; i < TILE_O; i++)
#pragma unroll
        for (int j = 0; j < TILE_X; j++) sums[i][j] = 0.0f;

#if LOCAL || SPLIT > 1
    __local float scratch[SCRATCH] __attribute__((aligned(16)));
#endif

    for (int round = 0; round < ROUNDS; round++) {
        const int first_c = (round * SPLIT + slice) * STAGE;
#if LOCAL
        __local float *restrict staged = scratch + slice * STAGE * TAPS * TILE_OUT;
        barrier(CLK_LOCAL_MEM_FENCE);
        for (int e = lane; e < STAGE * TAPS * TILE_OUT; e += SLICE) {
            const int row = first_c * TAPS + e / TILE_OUT;
            staged[e] = row < GROUP_IN * TAPS ? WEIGHT(panel + row * O_PAD + e % TILE_OUT) : 0.0f;
        }
        barrier(CLK_LOCAL_MEM_FENCE);
#endif
#pragma unroll UNROLL
        for (int s = 0; s < STAGE; s++) {
            const int c = first_c + s;
#if GROUP_IN % (STAGE * SPLIT) != 0
            if (c >= GROUP_IN) break;
#endif
#pragma unroll
            for (int ky = 0; ky < KERNEL_H; ky++) {
                const int y = y0 + ky * DILATION_H;
                float row[REACH];
#pragma unroll
                for (int i = 0; i < REACH; i++) {
                    const int x = x0 + i;
#if PADDED
                    row[i] = (uint)y < IN_H && (uint)x < IN_W ? image[c * PLANE + y * IN_W + x] : 0.0f;
#elif OUT_W % TILE_X != 0
                    row[i] = image[c * PLANE + y * IN_W + min(x, IN_W - 1)];
#else
                    row[i] = image[c * PLANE + y * IN_W + x];
#endif
                }
#pragma unroll
                for (int kx = 0; kx < KERNEL_W; kx++) {
                    const int tap = ky * KERNEL_W + kx;
                    float w[TILE_O];
#if LOCAL
                    const __local float *restrict source = staged + (s * TAPS + tap) * TILE_OUT + to * TILE_O;
#define LOADED(i) source[i]
#define LOADED_2(i) *(const __local float2 *)(source + (i))
#define LOADED_4(i) *(const __local float4 *)(source + (i))
#else
                    const __global Weight *restrict source = panel + (c * TAPS + tap) * O_PAD + to * TILE_O;
#define LOADED(i) WEIGHT(source + (i))
#define LOADED_2(i) WEIGHTS_2(source + (i))
#define LOADED_4(i) WEIGHTS_4(source + (i))
#endif
#if TILE_O % 4 == 0
#pragma unroll
                    for (int i = 0; i < TILE_O; i += 4) {
                        float4 four = LOADED_4(i);
                        w[i] = four.x, w[i + 1] = four.y, w[i + 2] = four.z, w[i + 3] = four.w;
                    }
#elif TILE_O == 2
                    float2 two = LOADED_2(0);
                    w[0] = two.x, w[1] = two.y;
#else
#pragma unroll
                    for (int i = 0; i < TILE_O; i++) w[i] = LOADED(i);
#endif
#pragma unroll
                    for (int i = 0; i < TILE_O; i++)
#pragma unroll
                        for (int j = 0; j < TILE_X; j++)
                            sums[i][j] = fma(w[i], row[j * STRIDE_W + kx * DILATION_W], sums[i][j]);
                }
            }
        }
    }

#if SPLIT > 1
    barrier(CLK_LOCAL_MEM_FENCE);
#pragma unroll
    for (int i = 0; i < TILE_O; i++)
#pragma unroll
        for (int j = 0; j < TILE_X; j++)
            scratch[((slice * GROUP_O + to) * TILE_O + i) * GROUP_P * TILE_X + tp * TILE_X + j] = sums[i][j];
    barrier(CLK_LOCAL_MEM_FENCE);
    for (int e = thread; e < SLICE * TILE_O * TILE_X; e += THREADS) {
        float sum = 0.0f;
#pragma unroll
        for (int s = 0; s < SPLIT; s++) sum += scratch[s * SLICE * TILE_O * TILE_X + e];
        const int o = e / (GROUP_P * TILE_X), p = e % (GROUP_P * TILE_X);
        finish(TO_RESULT, bias, group, first_o + o, get_group_id(0) * GROUP_P + p / TILE_X, p % TILE_X,
               sum);
    }
#else
#pragma unroll
    for (int i = 0; i < TILE_O; i++)
#pragma unroll
        for (int j = 0; j < TILE_X; j++)
            finish(TO_RESULT, bias, group, first_o + to * TILE_O + i, run, j, sums[i][j]);
#endif
}
