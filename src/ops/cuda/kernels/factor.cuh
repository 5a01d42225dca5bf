// A damped Gram matrix within a block, and its factors.

namespace {

// The largest order that is factored within a block.
constexpr u32 LARGEST = 128;
// The same where all of it lies in shared memory, of which a block has 48 KB.
template <typename Real> constexpr u32 TILE = LARGEST;
template <> constexpr u32 TILE<double> = 88;
// Columns that a block solves.
constexpr u32 COLUMNS = 16;
// Rows of a column that one lane holds.
constexpr u32 PER_LANE = LARGEST / WARP;

// Where row i of a packed lower triangle begins.
__device__ u32 row_start(u32 i) { return i * (i + 1) / 2; }

// Where the first block leaves a record of a breakdown, if anywhere: which pivot of the whole matrix of `order` rows it was, that order, and the damping.
struct Breakdown {
    u32 *record;
    u32 first, order;
    float lambda;

    __device__ void write(u32 pivot) const {
        volatile u32 *words = record;
        words[1] = order;
        words[2] = __float_as_uint(lambda);
        __threadfence_system();
        words[0] = first + pivot + 1;
    }
};

constexpr Breakdown UNRECORDED = {};

extern __shared__ double shared[];

// What a block has for k rows: a packed lower triangle, the reciprocals of its pivots, and a tile of S or of columns.
template <typename Real> struct Room {
    u32 k;
    Real *triangle, *reciprocals, *tile;

    // All in shared memory.
    __device__ explicit Room(u32 k)
        : k(k), triangle(reinterpret_cast<Real *>(shared)), reciprocals(triangle + row_start(k)), tile(reciprocals + k) {}

    // The triangle in the block's own part of global memory.
    __device__ Room(u32 k, Real *triangles)
        : k(k), triangle(triangles + u64(blockIdx.x) * row_start(k)), reciprocals(reinterpret_cast<Real *>(shared)),
          tile(reciprocals + k) {}
};

// Factors the triangle in place, and writes the pivots' reciprocals. The last results need a barrier before they are read.
template <typename Real> __device__ void factor(const Room<Real> &room, const Breakdown &breakdown) {
    u32 lane = threadIdx.x % WARP, warp = threadIdx.x / WARP, k = room.k;
    Real *triangle = room.triangle;
#pragma unroll 1
    for (u32 j = 0; j < k; j++) {
        __syncthreads();
        Real pivot = triangle[row_start(j) + j];
        bool is_usable = pivot > Real(0) && pivot < Real(__int_as_float(0x7f800000));
        Real reciprocal = is_usable ? Real(1) / pivot : Real(__int_as_float(0x7fc00000));
        if (threadIdx.x == 0) {
            room.reciprocals[j] = reciprocal;
            if (blockIdx.x == 0 && breakdown.record && pivot <= Real(0)) {
                breakdown.write(j);
            }
        }
        // A warp takes a row, and its lanes 32 neighbours of that. Row i begins at i (i + 1) / 2: the elements of a column in 32 rows from a
        // multiple of 32 on lie in different banks.
        Real column[PER_LANE];
#pragma unroll
        for (u32 part = 0; part < PER_LANE; part++) {
            u32 l = lane + WARP * part;
            column[part] = l > j && l < k ? triangle[row_start(l) + j] * -reciprocal : Real(0);
        }
#pragma unroll 1
        for (u32 i = j + 1 + warp; i < k; i += THREADS / WARP) {
            Real *row = triangle + row_start(i);
            Real pivot_part = row[j];
#pragma unroll
            for (u32 part = 0; part < PER_LANE; part++) {
                u32 l = lane + WARP * part;
                if (l > j && l <= i) {
                    row[l] = fused(pivot_part, column[part], row[l]);
                }
            }
        }
    }
}

// The lower triangle of a matrix in global memory.
template <typename Real> __device__ void load_triangle(const View<Real> &square, const Room<Real> &room) {
    visit(square, room.k, room.k, [&](u32 row, u32 col) {
        if (col <= row) {
            room.triangle[row_start(row) + col] = square.at(row, col);
        }
    });
}

}  // namespace
