// Solving for columns of X, with the factors in the block.

namespace {

// Columns that a warp solves.
constexpr u32 PER_WARP = COLUMNS / (THREADS / WARP);
// A row of a tile of columns in shared memory; odd, so that rows lie in different banks.
constexpr u32 PITCH = COLUMNS + 1;

// Each warp solves PER_WARP columns of a tile in shared memory, each lane with every 32nd row of them.
template <typename Real> struct Columns {
    Real values[PER_WARP][PER_LANE];
    u32 lane, first;

    __device__ Columns() : lane(threadIdx.x % WARP), first(threadIdx.x / WARP * PER_WARP) {}

    // Random signs.
    __device__ void probe(u32 k) {
#pragma unroll
        for (u32 c = 0; c < PER_WARP; c++) {
#pragma unroll
            for (u32 part = 0; part < PER_LANE; part++) {
                u32 row = lane + WARP * part;
                values[c][part] = row < k ? sign(row, first + c) : Real(0);
            }
        }
    }

    __device__ Real squares() const {
        Real sum = 0;
#pragma unroll
        for (u32 c = 0; c < PER_WARP; c++) {
#pragma unroll
            for (u32 part = 0; part < PER_LANE; part++) {
                sum = fused(values[c][part], values[c][part], sum);
            }
        }
        return sum;
    }

    __device__ void load(const Real *tile, u32 k) {
#pragma unroll
        for (u32 c = 0; c < PER_WARP; c++) {
#pragma unroll
            for (u32 part = 0; part < PER_LANE; part++) {
                u32 row = lane + WARP * part;
                values[c][part] = row < k ? tile[row * PITCH + first + c] : Real(0);
            }
        }
    }

    __device__ void store(Real *tile, u32 k) const {
#pragma unroll
        for (u32 c = 0; c < PER_WARP; c++) {
#pragma unroll
            for (u32 part = 0; part < PER_LANE; part++) {
                u32 row = lane + WARP * part;
                if (row < k) {
                    tile[row * PITCH + first + c] = values[c][part];
                }
            }
        }
    }

    // z of L z = y.
    __device__ void forward(const Room<Real> &room) {
        u32 k = room.k;
#pragma unroll
        for (u32 part = 0; part < PER_LANE; part++) {
#pragma unroll 1
            for (u32 source = 0; source < WARP && source + WARP * part < k; source++) {
                u32 j = source + WARP * part;
                Real factors[PER_WARP];
#pragma unroll
                for (u32 c = 0; c < PER_WARP; c++) {
                    factors[c] = __shfl_sync(0xffffffffu, values[c][part], source) * room.reciprocals[j];
                }
#pragma unroll
                for (u32 below = part; below < PER_LANE; below++) {
                    u32 row = lane + WARP * below;
                    if (row > j && row < k) {
                        Real element = room.triangle[row_start(row) + j];
#pragma unroll
                        for (u32 c = 0; c < PER_WARP; c++) {
                            values[c][below] = fused(-element, factors[c], values[c][below]);
                        }
                    }
                }
            }
        }
    }

    // x of D Lᵀ x = z.
    __device__ void backward(const Room<Real> &room) {
        u32 k = room.k;
        Real scales[PER_LANE];
#pragma unroll
        for (u32 part = 0; part < PER_LANE; part++) {
            u32 row = lane + WARP * part;
            scales[part] = row < k ? room.reciprocals[row] : Real(0);
#pragma unroll
            for (u32 c = 0; c < PER_WARP; c++) {
                values[c][part] *= scales[part];
            }
        }
#pragma unroll
        for (u32 back = 0; back < PER_LANE; back++) {
            constexpr u32 LAST = PER_LANE - 1;
            u32 part = LAST - back;
            u32 end = k > WARP * part ? min(k - WARP * part, WARP) : 0;
#pragma unroll 1
            for (u32 source = end; source-- > 0;) {
                u32 j = source + WARP * part;
                Real solved[PER_WARP];
#pragma unroll
                for (u32 c = 0; c < PER_WARP; c++) {
                    solved[c] = __shfl_sync(0xffffffffu, values[c][part], source);
                }
#pragma unroll
                for (u32 above = 0; above <= part; above++) {
                    u32 row = lane + WARP * above;
                    if (row < j) {
                        Real element = room.triangle[row_start(j) + row] * scales[above];
#pragma unroll
                        for (u32 c = 0; c < PER_WARP; c++) {
                            values[c][above] = fused(-element, solved[c], values[c][above]);
                        }
                    }
                }
            }
        }
    }
};

template <typename Element, typename Real>
__device__ void load_tile(const View<Element> &matrix, u32 first, u32 k, Real *tile) {
    visit(matrix, k, COLUMNS, [&](u32 row, u32 col) { tile[row * PITCH + col] = matrix.get(row, first + col); });
}

template <typename Element, typename Real>
__device__ void store_tile(const View<Element> &matrix, u32 first, u32 k, const Real *tile) {
    visit(matrix, k, COLUMNS, [&](u32 row, u32 col) {
        if (first + col < matrix.cols) {
            matrix.at(row, first + col) = tile[row * PITCH + col];
        }
    });
}

// Solves the block's columns of `from` and puts them to the same place of `to`. Shared memory that was written before may be read behind it.
template <bool FORWARD, bool BACKWARD, typename Element, typename Real>
__device__ void solve_columns(const View<Element> &from, const View<Element> &to, const Room<Real> &room) {
    u32 k = room.k, first = blockIdx.x * COLUMNS;
    load_tile(from, first, k, room.tile);
    __syncthreads();
    Columns<Real> columns;
    columns.load(room.tile, k);
    if (FORWARD) {
        columns.forward(room);
    }
    if (BACKWARD) {
        columns.backward(room);
    }
    columns.store(room.tile, k);
    __syncthreads();
    store_tile(to, first, k, room.tile);
}

}  // namespace
