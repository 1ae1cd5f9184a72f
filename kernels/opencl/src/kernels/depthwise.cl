// Depthwise convolution: a work-item computes TILE_Y rows of TILE_X pixels of one channel, and
// reads each input of its patch once. Weights are [channel][tap].
//
// TILE_X, TILE_Y   pixels that a work-item computes
// THREADS          work-items of a work-group

#define RUNS_X CEIL_DIV(OUT_W, TILE_X)
#define RUNS_Y CEIL_DIV(OUT_H, TILE_Y)
#define ITEMS (BATCH * CHANNELS * RUNS_Y * RUNS_X)
#define REACH_X ((TILE_X - 1) * STRIDE_W + (KERNEL_W - 1) * DILATION_W + 1)
#define REACH_Y ((TILE_Y - 1) * STRIDE_H + (KERNEL_H - 1) * DILATION_H + 1)

CONVOLVE {
    const int item = min((int)get_global_id(0), ITEMS - 1);
    const int run_x = item % RUNS_X, run_y = item / RUNS_X % RUNS_Y, plane = item / (RUNS_X * RUNS_Y);
    const int channel = plane % CHANNELS;
    const int x0 = run_x * TILE_X * STRIDE_W - PAD_LEFT, y0 = run_y * TILE_Y * STRIDE_H - PAD_TOP;
    const __global float *restrict source = input + (size_t)plane * IN_H * IN_W;
    float w[TAPS];
    for (int i = 0; i < TAPS; i++) w[i] = weights[channel * TAPS + i];
    float sums[TILE_Y][TILE_X];
    for (int i = 0; i < TILE_Y; i++)
        for (int j = 0; j < TILE_X; j++) sums[i][j] = bias[channel];
    float patch[REACH_Y][REACH_X];
    for (int r = 0; r < REACH_Y; r++)
        for (int i = 0; i < REACH_X; i++) {
            const int y = y0 + r, x = x0 + i;
            patch[r][i] = (uint)y < IN_H && (uint)x < IN_W ? source[y * IN_W + x] : 0.0f;
        }
    for (int ky = 0; ky < KERNEL_H; ky++)
        for (int kx = 0; kx < KERNEL_W; kx++)
            for (int i = 0; i < TILE_Y; i++)
                for (int j = 0; j < TILE_X; j++)
                    sums[i][j] = fma(w[ky * KERNEL_W + kx],
                                     patch[i * STRIDE_H + ky * DILATION_H][j * STRIDE_W + kx * DILATION_W],
                                     sums[i][j]);
    for (int i = 0; i < TILE_Y; i++)
        for (int j = 0; j < TILE_X; j++) {
            const int y = run_y * TILE_Y + i, x = run_x * TILE_X + j;
            if (get_global_id(0) < ITEMS && (OUT_H % TILE_Y == 0 || y < OUT_H) && (OUT_W % TILE_X == 0 || x < OUT_W)) {
                finish_at(TO_RESULT, plane * PIXELS + y * OUT_W + x, sums[i][j]);
            }
        }
}
