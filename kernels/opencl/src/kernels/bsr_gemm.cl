// Convolution with block-sparse weights: the GEMM of implicit_gemm.cl over only those steps of the
// inner dimension that have nonzero weights. Precedes tile.cl. As blocks are as wide as the outputs
// of a work-group, it walks one list of steps, and uses inputs as often as the dense GEMM does.
// Block-sparse GPU kernels are due to Gray, Radford and Kingma, "GPU kernels for block-sparse
// weights", 2017; lists that are walked by whole tiles to Elsen et al., "Fast sparse ConvNets",
// CVPR 2020.
//
// A list belongs to one tile of outputs. It is cut into chunks of CHUNK steps. The last chunk is
// filled up with repetitions of its last step under zero weights, so that it only reads inputs that
// are multiplied anyway. Weights are [chunk][CHUNK][TILE_M], and steps are [chunk][CHUNK] pairs:
// the offset of a step's input from the corner of a pixel's window, and its row (upper 16 bits) and
// column. `begins` holds the first chunk of each tile.

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
