// Convolution with weights that are zero in blocks of output channels: the matrix product of implicit_gemm.cl over those
// steps of the inner dimension alone that have weights left; stands before tile.cl. As blocks are as wide as what a
// work-group computes, it walks one list of steps, and inputs are used as often as in the dense product (the idea of
// block-sparse GPU kernels: Gray, Radford and Kingma, "GPU kernels for block-sparse weights", 2017; of lists that are
// walked by whole tiles: Elsen et al., "Fast sparse ConvNets", CVPR 2020).
//
// A list belongs to one tile of outputs. It is cut into chunks of CHUNK steps, the last one filled up with repetitions of
// its last step under zero weights: what is read there is multiplied in anyway. Weights come as
// [chunk][CHUNK][TILE_M], steps as [chunk][CHUNK] pairs: how far what a step reads is from the corner of a pixel's
// window, and the rows (upper 16 bits) and columns of that. `begins` says with which chunk each tile begins.

#define LISTS const __global int2 *restrict steps, const __global int *restrict begins,
#define BEGIN                                                                                              \
    const int tile = group * CEIL_DIV(GROUP_OUT, TILE_M) + get_group_id(1);                                \
    const int begin = begins[tile], chunks = begins[tile + 1] - begin;                                     \
    steps += begin * CHUNK + slice * TILE_K;                                                               \
    weights += ((size_t)begin * CHUNK + slice * TILE_K) * TILE_M;
#define CHUNKS chunks
#define ROW TILE_M
#define STEP(chunk, k) step_of(steps[(chunk) * CHUNK + (k)])

static inline int3 step_of(int2 stored) { return (int3)(stored.x, stored.y >> 16, stored.y & 0xFFFF); }
