// Products of matrices: a Gram matrix within a block, and any product in global memory.

namespace {

// Columns of S, or of a product's factors, that are in shared memory at once.
constexpr u32 DEPTH = 16;

// How far apart columns of so many rows lie in shared memory: then 16 of them lie in different banks, of floats in two rows, which is what a warp
// writes at once, and of doubles, which half a warp writes at once, in one.
template <typename Real> constexpr __device__ u32 pitch(u32 rows) { return sizeof(Real) > sizeof(float) ? rows | 1 : (rows + 1) / 4 * 4 + 2; }

// What a thread sums for a product. Floats are summed a few at a time first, and then all of these sums: that loses fewer digits than one long
// sum. Doubles have digits to spare.
template <typename Real> struct Sums {
    Real few[4][4] = {}, all[4][4] = {};

    __device__ void collect() {
        if (!IS_LONG) {
#pragma unroll
            for (u32 i = 0; i < 4; i++) {
#pragma unroll
                for (u32 j = 0; j < 4; j++) {
                    all[i][j] += few[i][j];
                    few[i][j] = 0;
                }
            }
        }
    }

    __device__ Real result(u32 i, u32 j) const { return IS_LONG ? few[i][j] : all[i][j]; }

  private:
    static constexpr bool IS_LONG = sizeof(Real) > sizeof(float);
};

// The packed lower triangle of I + scale·S Sᵀ. A thread sums for four rows and four columns that lie a quarter of the order apart, so that
// the threads of a warp read neighbouring elements of the part of S that is in shared memory.
template <typename Real> __device__ void gram(const View<float> &s, Real scale, const Room<Real> &room) {
    Real *triangle = room.triangle, *part = room.tile;
    u32 k = s.rows, quarter = (k + 3) / 4, apart = pitch<Real>(k);
    u32 count = quarter * (quarter + 1) / 2;
#pragma unroll 1
    for (u32 base = 0; base < count; base += THREADS) {
        u32 mine = base + threadIdx.x;
        bool works = mine < count;
        u32 y = works ? u32((sqrtf(8.0f * mine + 1.0f) - 1.0f) * 0.5f) : 0;
        // The root is rounded.
        y -= works && row_start(y) > mine;
        y += works && row_start(y + 1) <= mine;
        u32 x = works ? mine - row_start(y) : 0;
        // Every other row is taken from its end on: then the threads of a warp read elements that are next to each other, which lie in different
        // banks, also where one row ends and the next begins.
        x = y % 2 ? y - x : x;
        Sums<Real> sums;
#pragma unroll 1
        for (u32 start = 0; start < s.cols; start += DEPTH) {
            __syncthreads();
            visit(s, k, DEPTH, [&](u32 row, u32 col) { part[col * apart + row] = s.get(row, start + col); });
            __syncthreads();
#pragma unroll 2
            for (u32 depth = 0; works && depth < DEPTH; depth++) {
                Real left[4], right[4];
#pragma unroll
                for (u32 i = 0; i < 4; i++) {
                    u32 row = y + i * quarter, col = x + i * quarter;
                    left[i] = row < k ? part[depth * apart + row] : Real(0);
                    right[i] = col < k ? part[depth * apart + col] : Real(0);
                }
#pragma unroll
                for (u32 i = 0; i < 4; i++) {
#pragma unroll
                    for (u32 l = 0; l < 4; l++) {
                        sums.few[i][l] = fused(left[i], right[l], sums.few[i][l]);
                    }
                }
            }
            sums.collect();
        }
#pragma unroll
        for (u32 i = 0; i < 4; i++) {
#pragma unroll
            for (u32 l = 0; l < 4; l++) {
                u32 row = y + i * quarter, col = x + l * quarter;
                // Where both are from the same quarter of a quarter, two sums are for one element.
                bool is_first = x < y || l <= i;
                if (works && is_first && row < k && col < k) {
                    triangle[row_start(max(row, col)) + min(row, col)] = fused(scale, sums.result(i, l), row == col ? Real(1) : Real(0));
                }
            }
        }
    }
}

constexpr u32 SIDE = 64;

// out = C + factor·A diag(weights) B, of which only what is on and below the diagonal if `is_lower`: a block for each SIDE × SIDE tile. A thread
// sums for four rows and four columns, 16 apart. C may be out, and lies as out does; without it, a lower triangle is added to I.
template <typename Real, typename A, typename B, typename Out>
__device__ void multiply(const View<A> &a, const View<B> &b, const Real *weights, const Out *c, float factor, const View<Out> &out,
                         bool is_lower) {
    __shared__ Real left[DEPTH][pitch<Real>(SIDE)], right[DEPTH][pitch<Real>(SIDE)];
    u32 top = blockIdx.y * SIDE, start = blockIdx.x * SIDE;
    if (is_lower && start > top) {
        return;
    }
    u32 x = threadIdx.x % 16, y = threadIdx.x / 16;
    Sums<Real> sums;
#pragma unroll 1
    for (u32 from = 0; from < a.cols; from += DEPTH) {
        __syncthreads();
        visit(a, SIDE, DEPTH, [&](u32 row, u32 col) {
            Real weight = weights && from + col < a.cols ? weights[from + col] : Real(1);
            left[col][row] = a.get(top + row, from + col) * weight;
        });
        visit(b, DEPTH, SIDE, [&](u32 row, u32 col) { right[row][col] = b.get(from + row, start + col); });
        __syncthreads();
#pragma unroll 2
        for (u32 l = 0; l < DEPTH; l++) {
#pragma unroll
            for (u32 i = 0; i < 4; i++) {
#pragma unroll
                for (u32 j = 0; j < 4; j++) {
                    sums.few[i][j] = fused(left[l][y + 16 * i], right[l][x + 16 * j], sums.few[i][j]);
                }
            }
        }
        sums.collect();
    }
#pragma unroll
    for (u32 i = 0; i < 4; i++) {
#pragma unroll
        for (u32 j = 0; j < 4; j++) {
            u32 row = top + y + 16 * i, col = start + x + 16 * j;
            if (row < out.rows && col < out.cols && !(is_lower && col > row)) {
                u64 place = u64(row) * out.row_stride + u64(col) * out.col_stride;
                Real before = c ? Real(c[place]) : is_lower && row == col ? Real(1) : Real(0);
                out.data[place] = fused(Real(factor), sums.result(i, j), before);
            }
        }
    }
}

}  // namespace
