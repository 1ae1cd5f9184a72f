// Operators that compute each element of their result from few others. One kernel is chosen by its
// macro. COUNT elements are written, or read in the case of `place`. AT_A(i), AT_B(i) and TO(i) are
// the offset from which element i comes, or to which it goes; the host writes them as arithmetic on
// constants.

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
// INSIDE(i) tells whether the source element exists; otherwise the result is VALUE.
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
