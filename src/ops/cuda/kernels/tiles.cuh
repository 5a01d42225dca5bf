// Matrices of more rows, in global memory: one tile of rows at a time.

namespace {

// Elements of a packed lower triangle; the reciprocals of the pivots come behind it.
template <typename Real> constexpr u32 TRIANGLE = TILE<Real> * (TILE<Real> + 1) / 2;

// The factors of one tile on the diagonal, as they lie in global memory: the packed triangle, then the reciprocals.
template <typename Real> __device__ void load_factors(const Real *factors, const Room<Real> &room) {
    u32 k = room.k;
#pragma unroll 1
    for (u32 at = threadIdx.x; at < row_start(k); at += THREADS) {
        room.triangle[at] = factors[at];
    }
#pragma unroll 1
    for (u32 at = threadIdx.x; at < k; at += THREADS) {
        room.reciprocals[at] = factors[TRIANGLE<Real> + at];
    }
}

template <typename Real> __device__ void store_factors(Real *factors, const Room<Real> &room) {
    u32 k = room.k;
#pragma unroll 1
    for (u32 at = threadIdx.x; at < row_start(k); at += THREADS) {
        factors[at] = room.triangle[at];
    }
#pragma unroll 1
    for (u32 at = threadIdx.x; at < k; at += THREADS) {
        factors[TRIANGLE<Real> + at] = room.reciprocals[at];
    }
}

// Factors the tile on the diagonal that begins at row `first` of the matrix of `order` rows, keeps the factors, and brings the rows below
// to U: a block for each COLUMNS of these.
template <typename Real>
__device__ void factor_panel(Real *matrix, u32 order, u32 first, Real *factors, u32 *record, float lambda) {
    u32 k = min(order - first, TILE<Real>), below = first + k;
    Room<Real> room(k);
    load_triangle(View<Real>{matrix + u64(first) * order + first, k, k, order, 1}, room);
    factor(room, {record, first, order, lambda});
    // The rows below, as columns.
    View<Real> rest = {matrix + u64(below) * order + first, k, order - below, 1, order};
    solve_columns<true, false>(rest, rest, room);
    if (blockIdx.x == 0) {
        store_factors(factors, room);
    }
}

// Solves the tile on the diagonal, of k rows, for the same rows of X: a block for each COLUMNS columns.
template <bool FORWARD, typename Real> __device__ void substitute(const Real *factors, const View<Real> &x) {
    Room<Real> room(x.rows);
    load_factors(factors, room);
    solve_columns<FORWARD, !FORWARD>(x, x, room);
}

}  // namespace
