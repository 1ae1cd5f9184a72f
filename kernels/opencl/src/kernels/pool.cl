// Pooling over planes: a work-item computes one element of the result, a maximum if MAXIMUM, else a
// mean. Padding never wins a maximum, and counts in a mean only if INCLUDE_PADDING. Positions
// beyond the padding never count.

__kernel void pool(const __global float *restrict input, __global float *restrict output) {
    const int i = get_global_id(0);
    if (i >= PLANES * OUT_H * OUT_W) return;
    const int x0 = i % OUT_W * STRIDE_W, y0 = i / OUT_W % OUT_H * STRIDE_H;
    const __global float *restrict source = input + (size_t)(i / (OUT_W * OUT_H)) * IN_H * IN_W;
    float most = -INFINITY, sum = 0.0f;
    int inside = 0, all = 0;
    for (int ky = 0; ky < KERNEL_H; ky++)
        for (int kx = 0; kx < KERNEL_W; kx++) {
            const int y = y0 + ky * DILATION_H, x = x0 + kx * DILATION_W;
            if (y >= END_H || x >= END_W) continue;
            all++;
            if ((uint)(y - PAD_TOP) >= IN_H || (uint)(x - PAD_LEFT) >= IN_W) continue;
            const float value = source[(y - PAD_TOP) * IN_W + x - PAD_LEFT];
            most = fmax(most, value);
            sum += value;
            inside++;
        }
#if MAXIMUM
    output[i] = most;
#elif INCLUDE_PADDING
    output[i] = sum / all;
#else
    output[i] = sum / inside;
#endif
}
