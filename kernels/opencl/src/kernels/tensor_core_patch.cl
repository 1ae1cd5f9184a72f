// Pixels in local memory, for tensor_core.cl: a patch is the part of the input that all taps of a
// work-group's pixels read, padding included, DEPTH channels at a time. A slice copies it once, and
// its warps read it for every tap.
//
// Images are regarded as one below the other, each with its padding: an image has PATCH_IMAGE rows,
// and a tile of pixels reads up to PATCH_H consecutive rows. The taps of a channel block are
// consecutive, so that STEPS are [block][tap].
//
// PATCH_H, PATCH_W     rows and columns of a patch
// PATCH_CHANNEL        elements from one channel to the next: 8 banks apart, so that lanes reading
//                      4 channels x 8 pixels of a row have no bank conflicts
// PATCH_IMAGE          rows from one image to the next

#if PATCH
#define BUFFERS PATCH
#define SLOTS (DEPTH * PATCH_CHANNEL)
#define COPIES CEIL_DIV(SLOTS, SLICE)
#define ROUNDS (STEPS / (TAPS * SPLIT))
// Whether the channels are a multiple of the blocks of all slices.
#define WHOLE (ROUNDS * SPLIT * DEPTH == CHANNELS)

#if TENSOR_CORE
#define TO_PATCH
#else
#define TO_PATCH , area
#endif

static inline int row_of(int n) { return n / PIXELS * PATCH_IMAGE + n % PIXELS / OUT_W * STRIDE_H; }

// First column of a tile's patch, as a pixel of the output: tiles are parts of rows, or begin with
// whole rows.
static inline int begin_of(int first_n) { return OUT_W % TILE_N == 0 ? first_n % OUT_W : 0; }

// Offset of slot `e` in the first channel block of the input, or a negative number if it is zero.
static inline int source_of(int e, int first_n) {
    const int channel = e / PATCH_CHANNEL, at = e % PATCH_CHANNEL;
    const int row = row_of(first_n) + at / PATCH_W, image = row / PATCH_IMAGE;
    const int y = row % PATCH_IMAGE - PAD_TOP, x = begin_of(first_n) * STRIDE_W + at % PATCH_W - PAD_LEFT;
    const bool inside = e < SLOTS && at < PATCH_H * PATCH_W && image < BATCH && (uint)y < IN_H && (uint)x < IN_W;
    return inside ? (image * CHANNELS + channel) * PLANE + y * IN_W + x : -1;
}

static inline bool is_there(int from, int e, int block) {
#if WHOLE
    return from >= 0;
#else
    return from >= 0 && block * DEPTH + e / PATCH_CHANNEL < CHANNELS;
#endif
}

#if PATCH == 2
static inline void copy(__local float *patch, const __global float *restrict input, const int *from, int block,
                        int copier) {
#pragma unroll
    for (int i = 0; i < COPIES; i++) {
        const int e = copier + i * SLICE;
        if (SLOTS % SLICE != 0 && e >= SLOTS) continue;
        const bool there = is_there(from[i], e, block);
        const __global float *source = input + (there ? from[i] + block * DEPTH * PLANE : 0);
#if TENSOR_CORE
        // Bytes that are not copied are filled with zeros.
        asm volatile("cp.async.ca.shared.global [%0], [%1], 4, %2;"
                     :
                     : "r"((uint)(size_t)(patch + e)), "l"((ulong)(size_t)source), "r"(there ? 4 : 0)
                     : "memory");
#else
        patch[e] = there ? *source : 0.0f;
#endif
    }
#if TENSOR_CORE
    asm volatile("cp.async.commit_group;" : : : "memory");
#endif
}
#else
static inline void load(float *values, const __global float *restrict input, const int *from, int block, int copier) {
#pragma unroll
    for (int i = 0; i < COPIES; i++)
        values[i] = is_there(from[i], copier + i * SLICE, block) ? input[from[i] + block * DEPTH * PLANE] : 0.0f;
}

static inline void store(__local float *patch, const float *values, int copier) {
#pragma unroll
    for (int i = 0; i < COPIES; i++) {
        const int e = copier + i * SLICE;
        if (SLOTS % SLICE == 0 || e < SLOTS) patch[e] = values[i];
    }
}
#endif

// Multiplies all taps of a channel block, whose first step is `first_step`.
static inline void multiply_taps(float (*sums)[WARP_N][4], const __local float *patch, const int *at,
                                 const __global uint *restrict panel, int first_step AREA) {
#if AHEAD
    uint next[WARP_M][4];
    fetch_weights(next, panel, first_step);
#endif
#pragma unroll STAGE
    for (int tap = 0; tap < TAPS; tap++) {
        uint a[WARP_M][4];
        float b[WARP_N][HELD];
#if AHEAD
#pragma unroll
        for (int i = 0; i < WARP_M * 4; i++) a[i / 4][i % 4] = next[i / 4][i % 4];
        fetch_weights(next, panel, first_step + min(tap + 1, TAPS - 1));
#else
        fetch_weights(a, panel, first_step + tap);
#endif
        const int offset = tap / KERNEL_W * DILATION_H * PATCH_W + tap % KERNEL_W * DILATION_W;
#pragma unroll
        for (int j = 0; j < WARP_N; j++)
#pragma unroll
            for (int h = 0; h < HELD; h++) b[j][h] = patch[at[j] + 4 * h * PATCH_CHANNEL + offset];
        multiply(sums, a, b TO_AREA);
    }
}

static inline void convolve_patches(float (*sums)[WARP_N][4], __local float *patches,
                                    const __global float *restrict input, const __global uint *restrict panel,
                                    int slice, int copier, int warp_n, int g, int t
#if !TENSOR_CORE
                                    , __local float *restrict area
#endif
) {
    const int first_n = get_group_id(0) * TILE_N;
    int at[WARP_N], from[COPIES];
#pragma unroll
    for (int j = 0; j < WARP_N; j++) {
        const int n = min(warp_n + j * 8 + g, COLUMNS - 1);
        at[j] = (row_of(n) - row_of(first_n)) * PATCH_W + (n % OUT_W - begin_of(first_n)) * STRIDE_W + t * PATCH_CHANNEL;
    }
#pragma unroll
    for (int i = 0; i < COPIES; i++) from[i] = source_of(copier + i * SLICE, first_n);
#if PATCH == 2
    copy(patches, input, from, slice, copier);
#pragma unroll 1
    for (int round = 0; round < ROUNDS; round++) {
        const int block = round * SPLIT + slice;
        if (round + 1 < ROUNDS) {
            copy(patches + (round + 1) % 2 * SLOTS, input, from, block + SPLIT, copier);
#if TENSOR_CORE
            asm volatile("cp.async.wait_group 1;" : : : "memory");
        } else {
            asm volatile("cp.async.wait_group 0;" : : : "memory");
#endif
        }
        barrier(CLK_LOCAL_MEM_FENCE);
        multiply_taps(sums, patches + round % 2 * SLOTS, at, panel, block * TAPS TO_AREA);
        // The next copy overwrites the patch that this round has read.
        barrier(CLK_LOCAL_MEM_FENCE);
    }
#else
    float next[COPIES];
    load(next, input, from, slice, copier);
#pragma unroll 1
    for (int round = 0; round < ROUNDS; round++) {
        const int block = round * SPLIT + slice;
        barrier(CLK_LOCAL_MEM_FENCE);
        store(patches, next, copier);
        barrier(CLK_LOCAL_MEM_FENCE);
        if (round + 1 < ROUNDS) load(next, input, from, block + SPLIT, copier);
        multiply_taps(sums, patches, at, panel, block * TAPS TO_AREA);
    }
#endif
}
#endif
