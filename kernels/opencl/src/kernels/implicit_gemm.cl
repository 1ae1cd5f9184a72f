// Convolution as an implicit GEMM: the right-hand matrix (the unrolled input) is never stored.
// Precedes tile.cl.
//
// GEMM: [M = outputs of a group] x [K = channels, taps] times [K] x [N = images, pixels]. Weights
// are [group][K_PAD][M_PAD], padded with zeros.

#define INNER (GROUP_IN * TAPS)
#define LISTS
#define BEGIN weights += (size_t)group * K_PAD * M_PAD + slice * TILE_K * M_PAD + first_m;
#define CHUNKS (K_PAD / CHUNK)
#define ROW M_PAD
#define STEP(chunk, k) step_at(((chunk) * SPLIT + slice) * TILE_K + (k))

static inline int3 step_at(int k) {
    int channel = k / TAPS, tap = k % TAPS;
#if INNER != K_PAD
    // Weights beyond the end are zero, but inputs there may be NaN: read existing channels.
    channel = min(channel, GROUP_IN - 1);
#endif
    const int y = tap / KERNEL_W * DILATION_H, x = tap % KERNEL_W * DILATION_W;
    return (int3)(channel * PLANE + y * IN_W + x, y, x);
}
