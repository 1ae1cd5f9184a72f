// Operators that compute each number of their result from few others. One kernel is chosen by its macro;
// COUNT numbers are written, or read in the case of `place`. AT_A(i), AT_B(i) and TO(i) say where number
// i comes from or goes to; the host writes them as arithmetic on constants.

#if defined(BINARY)
__kernel void binary(const __global float *restrict a, const __global float *restrict b,
                     __global float *restrict output) {
    const int i = get_global_id(0);
    if (i < COUNT) output[i] = activate(a[AT_A(i)] BINARY b[AT_B(i)]);
}
#elif defined(UNARY)
__kernel void unary(const __global float *restrict a, __global float *restrict output) {
    const int i = get_global_id(0);
    if (i < COUNT) output[i] = activate(a[i]);
}
#elif defined(SCALE_SHIFT)
__kernel void scale_shift(const __global float *restrict a, const __global float *restrict scale,
                          const __global float *restrict shift, __global float *restrict output) {
    const int i = get_global_id(0);
    if (i < COUNT) output[i] = activate(a[i] * scale[AT_A(i)] + shift[AT_A(i)]);
}
#elif defined(GATHER)
// INSIDE(i) says whether there is such a number; elsewhere VALUE.
__kernel void gather(const __global float *restrict a, __global float *restrict output) {
    const int i = get_global_id(0);
    if (i < COUNT) output[i] = INSIDE(i) ? a[AT_A(i)] : VALUE;
}
#elif defined(PLACE)
__kernel void place(const __global float *restrict a, __global float *restrict output) {
    const int i = get_global_id(0);
    if (i < COUNT) output[TO(i)] = a[i];
}
#endif
