// Operators that reduce a whole line of elements. OUTER(o) is the offset of line o, and INNER(r)
// the distance of its element r from there. LANES work-items share a line, and a work-group has
// LINES lines.

#if defined(MEAN)
// Writes the mean of each line.
__kernel __attribute__((reqd_work_group_size(LANES * LINES, 1, 1)))
void mean(const __global float *restrict input, __global float *restrict output) {
    const int thread = get_local_id(0), lane = thread % LANES;
    const int line = get_group_id(0) * LINES + thread / LANES;
    float sum = 0.0f;
    if (line < COUNT)
        // Not unrolled: a driver's compiler has crashed on means over 2x2 pixels, and such short
        // loops gain nothing from it.
#pragma unroll 1
        for (int r = lane; r < LENGTH; r += LANES) sum += input[OUTER(line) + INNER(r)];
#if LANES > 1
    __local float sums[LANES * LINES];
    sums[thread] = sum;
    for (int reach = LANES / 2; reach > 0; reach /= 2) {
        barrier(CLK_LOCAL_MEM_FENCE);
        if (lane < reach) sums[thread] += sums[thread + reach];
    }
    sum = sums[thread];
#endif
    if (lane == 0 && line < COUNT) output[line] = sum / LENGTH;
}
#elif defined(SOFTMAX)
// Computes the softmax of lines with equal positions in input and output.
__kernel void softmax(const __global float *restrict input, __global float *restrict output) {
    const int line = get_global_id(0);
    if (line >= COUNT) return;
    const int start = OUTER(line);
    float most = -INFINITY, sum = 0.0f;
    for (int r = 0; r < LENGTH; r++) most = fmax(most, input[start + INNER(r)]);
    for (int r = 0; r < LENGTH; r++) sum += exp(input[start + INNER(r)] - most);
    for (int r = 0; r < LENGTH; r++) output[start + INNER(r)] = exp(input[start + INNER(r)] - most) / sum;
}
#elif defined(LRN)
// Local response normalization across the SIZE nearest channels.
__kernel void lrn(const __global float *restrict input, __global float *restrict output) {
    const int i = get_global_id(0);
    if (i >= COUNT) return;
    const int channel = i / PLANE % CHANNELS, first = i - channel * PLANE;
    const int low = max(channel - (SIZE - 1) / 2, 0);
    const int high = min(channel + SIZE - (SIZE - 1) / 2, CHANNELS);
    float squares = 0.0f;
    for (int c = low; c < high; c++) {
        const float value = input[first + c * PLANE];
        squares = fma(value, value, squares);
    }
    output[i] = input[i] / pow(BIAS + LRN / SIZE * squares, EXPONENT);
}
#endif
