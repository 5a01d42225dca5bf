// The small, delicate part of IsaacGemm on a CUDA device: X = (I + s·S Sᵀ)⁻¹ Y, for S of k rows.
//
// The damped Gram matrix is factored as U D⁻¹ Uᵀ, where U = L D keeps the columns of the unit lower triangle L as the elimination
// leaves them, and D its pivots: one barrier a pivot, and no root. Up to TILE rows one launch does all of it (solve): each block makes the
// same factors in shared memory and then solves its own columns. Above, the Gram matrix lies in global memory, in tiles of TILE rows:
//
//   product              the Gram matrix, its lower triangle
//   panel                factors the tile on the diagonal, and brings the rows below it to U
//   product              takes the panel's part off what is right of it; and so on, tile by tile
//   convert_f32_f32      Y, where X will be
//   forward, backward    the tile on the diagonal solved for each column of X; product takes it off the tiles below or above
//
// Everything is floats; half types are converted before and after. A pivot that is not positive becomes NaN, and so does all of X; record says which it was. plan.rs knows the
// launches; strides and sizes count elements.

typedef unsigned int u32;
typedef unsigned long long u64;

namespace {

constexpr u32 THREADS = 256;
constexpr u32 WARP = 32;
// The largest order that is factored within a block.
constexpr u32 TILE = 128;
// Columns that a block solves: two for each warp.
constexpr u32 COLUMNS = 16;
constexpr u32 PER_WARP = COLUMNS / (THREADS / WARP);
// Rows of a column that one lane holds.
constexpr u32 PER_LANE = TILE / WARP;
// A row of a tile of columns in shared memory; odd, so that rows lie in different banks.
constexpr u32 PITCH = COLUMNS + 1;
constexpr u32 TRIANGLE = TILE * (TILE + 1) / 2;

// Half types as the bits that they are stored in.
struct f16 {
    unsigned short bits;
};
struct bf16 {
    unsigned short bits;
};

__device__ float widen(float value) { return value; }

__device__ float widen(f16 value) {
    float wide;
    asm("cvt.f32.f16 %0, %1;" : "=f"(wide) : "h"(value.bits));
    return wide;
}

__device__ float widen(bf16 value) { return __uint_as_float(u32(value.bits) << 16); }

__device__ void narrow(float value, float &out) { out = value; }

__device__ void narrow(float value, f16 &out) { asm("cvt.rn.f16.f32 %0, %1;" : "=h"(out.bits) : "f"(value)); }

__device__ void narrow(float value, bf16 &out) {
    u32 bits = __float_as_uint(value);
    // To the nearest, ties to even; a NaN stays one.
    u32 rounded = (bits + 0x7fffu + ((bits >> 16) & 1u)) >> 16;
    out.bits = (bits & 0x7fffffffu) > 0x7f800000u ? 0x7fffu : rounded;
}

// A matrix of floats in global memory.
struct View {
    float *data;
    u32 rows, cols, row_stride, col_stride;

    __device__ float &at(u32 row, u32 col) const { return data[u64(row) * row_stride + u64(col) * col_stride]; }

    // Zero outside.
    __device__ float get(u32 row, u32 col) const { return row < rows && col < cols ? at(row, col) : 0.0f; }
};

// Where row i of a packed lower triangle begins.
__device__ u32 row_start(u32 i) { return i * (i + 1) / 2; }

// The threads of a block go through a rows × cols rectangle, neighbours to what `view` has next to each other.
template <typename Visit> __device__ void visit(const View &view, u32 rows, u32 cols, Visit visit) {
    constexpr u32 WIDTH = 16;
    if (view.col_stride == 1) {
#pragma unroll 1
        for (u32 row = threadIdx.x / WIDTH; row < rows; row += THREADS / WIDTH) {
#pragma unroll 1
            for (u32 col = threadIdx.x % WIDTH; col < cols; col += WIDTH) {
                visit(row, col);
            }
        }
    } else {
#pragma unroll 1
        for (u32 col = threadIdx.x / WIDTH; col < cols; col += THREADS / WIDTH) {
#pragma unroll 1
            for (u32 row = threadIdx.x % WIDTH; row < rows; row += WIDTH) {
                visit(row, col);
            }
        }
    }
}

// Factors the packed lower triangle of order k in place, and writes the pivots' reciprocals. `write` says whether this block
// leaves a record of a breakdown: which pivot of the whole matrix of `order` rows it was, that order, and the damping. The last results
// need a barrier before they are read.
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

__device__ void factor(float *triangle, float *reciprocals, u32 k, bool writes, const Breakdown &breakdown) {
    u32 lane = threadIdx.x % WARP, warp = threadIdx.x / WARP;
#pragma unroll 1
    for (u32 j = 0; j < k; j++) {
        __syncthreads();
        float pivot = triangle[row_start(j) + j];
        bool is_usable = pivot > 0.0f && pivot < __int_as_float(0x7f800000);
        float reciprocal = is_usable ? 1.0f / pivot : __int_as_float(0x7fc00000);
        if (threadIdx.x == 0) {
            reciprocals[j] = reciprocal;
            if (writes && pivot <= 0.0f) {
                breakdown.write(j);
            }
        }
        // A warp takes a row, and its lanes 32 neighbours of that. Row i begins at i (i + 1) / 2: the elements of a column in 32 rows from a
        // multiple of 32 on lie in different banks.
        float column[PER_LANE];
#pragma unroll
        for (u32 part = 0; part < PER_LANE; part++) {
            u32 l = lane + WARP * part;
            column[part] = l > j && l < k ? triangle[row_start(l) + j] * -reciprocal : 0.0f;
        }
#pragma unroll 1
        for (u32 i = j + 1 + warp; i < k; i += THREADS / WARP) {
            float *row = triangle + row_start(i);
            float pivot_part = row[j];
#pragma unroll
            for (u32 part = 0; part < PER_LANE; part++) {
                u32 l = lane + WARP * part;
                if (l > j && l <= i) {
                    row[l] = fmaf(pivot_part, column[part], row[l]);
                }
            }
        }
    }
}

// Each warp solves PER_WARP columns of a tile in shared memory, each lane with every 32nd row of them.
struct Columns {
    float values[PER_WARP][PER_LANE];
    u32 lane, first;

    __device__ Columns() : lane(threadIdx.x % WARP), first(threadIdx.x / WARP * PER_WARP) {}

    __device__ void load(const float *tile, u32 k) {
#pragma unroll
        for (u32 c = 0; c < PER_WARP; c++) {
#pragma unroll
            for (u32 part = 0; part < PER_LANE; part++) {
                u32 row = lane + WARP * part;
                values[c][part] = row < k ? tile[row * PITCH + first + c] : 0.0f;
            }
        }
    }

    __device__ void store(float *tile, u32 k) const {
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
    __device__ void forward(const float *triangle, const float *reciprocals, u32 k) {
#pragma unroll
        for (u32 part = 0; part < PER_LANE; part++) {
#pragma unroll 1
            for (u32 source = 0; source < WARP && source + WARP * part < k; source++) {
                u32 j = source + WARP * part;
                float factors[PER_WARP];
#pragma unroll
                for (u32 c = 0; c < PER_WARP; c++) {
                    factors[c] = __shfl_sync(0xffffffffu, values[c][part], source) * reciprocals[j];
                }
#pragma unroll
                for (u32 below = part; below < PER_LANE; below++) {
                    u32 row = lane + WARP * below;
                    if (row > j && row < k) {
                        float element = triangle[row_start(row) + j];
#pragma unroll
                        for (u32 c = 0; c < PER_WARP; c++) {
                            values[c][below] = fmaf(-element, factors[c], values[c][below]);
                        }
                    }
                }
            }
        }
    }

    // x of D Lᵀ x = z.
    __device__ void backward(const float *triangle, const float *reciprocals, u32 k) {
        float scales[PER_LANE];
#pragma unroll
        for (u32 part = 0; part < PER_LANE; part++) {
            u32 row = lane + WARP * part;
            scales[part] = row < k ? reciprocals[row] : 0.0f;
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
                float solved[PER_WARP];
#pragma unroll
                for (u32 c = 0; c < PER_WARP; c++) {
                    solved[c] = __shfl_sync(0xffffffffu, values[c][part], source);
                }
#pragma unroll
                for (u32 above = 0; above <= part; above++) {
                    u32 row = lane + WARP * above;
                    if (row < j) {
                        float element = triangle[row_start(j) + row] * scales[above];
#pragma unroll
                        for (u32 c = 0; c < PER_WARP; c++) {
                            values[c][above] = fmaf(-element, solved[c], values[c][above]);
                        }
                    }
                }
            }
        }
    }
};

__device__ void load_tile(const View &matrix, u32 first, u32 k, float *tile) {
    visit(matrix, k, COLUMNS, [&](u32 row, u32 col) { tile[row * PITCH + col] = matrix.get(row, first + col); });
}

__device__ void store_tile(const View &matrix, u32 first, u32 k, const float *tile) {
    visit(matrix, k, COLUMNS, [&](u32 row, u32 col) {
        if (first + col < matrix.cols) {
            matrix.at(row, first + col) = tile[row * PITCH + col];
        }
    });
}

// Solves the block's columns of `from` and puts them to the same place of `to`. Shared memory that was written before may be read behind it.
template <bool FORWARD, bool BACKWARD>
__device__ void solve_columns(const View &from, const View &to, const float *triangle, const float *reciprocals,
                              float *tile) {
    u32 k = from.rows, first = blockIdx.x * COLUMNS;
    load_tile(from, first, k, tile);
    __syncthreads();
    Columns columns;
    columns.load(tile, k);
    if (FORWARD) {
        columns.forward(triangle, reciprocals, k);
    }
    if (BACKWARD) {
        columns.backward(triangle, reciprocals, k);
    }
    columns.store(tile, k);
    __syncthreads();
    store_tile(to, first, k, tile);
}

// Columns of S, or of a product's factors, that are in shared memory at once.
constexpr u32 DEPTH = 16;

// What a thread sums for a product: first a few terms, then all of these sums. That loses fewer digits than one long sum.
using Sums = float[4][4];

__device__ void add(const Sums &some, Sums &sums) {
#pragma unroll
    for (u32 i = 0; i < 4; i++) {
#pragma unroll
        for (u32 j = 0; j < 4; j++) {
            sums[i][j] += some[i][j];
        }
    }
}

// The packed lower triangle of I + scale·S Sᵀ. A thread sums for four rows and four columns that lie a quarter of the order apart, so that
// the threads of a warp read neighbouring elements of the part of S that is in shared memory.
__device__ void gram(const View &s, float scale, float *triangle, float *part) {
    u32 k = s.rows, quarter = (k + 3) / 4, pitch = k | 1;
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
        Sums sums = {};
#pragma unroll 1
        for (u32 start = 0; start < s.cols; start += DEPTH) {
            __syncthreads();
            visit(s, k, DEPTH, [&](u32 row, u32 col) { part[col * pitch + row] = s.get(row, start + col); });
            __syncthreads();
            Sums some = {};
#pragma unroll 2
            for (u32 depth = 0; works && depth < DEPTH; depth++) {
                float left[4], right[4];
#pragma unroll
                for (u32 i = 0; i < 4; i++) {
                    u32 row = y + i * quarter, col = x + i * quarter;
                    left[i] = row < k ? part[depth * pitch + row] : 0.0f;
                    right[i] = col < k ? part[depth * pitch + col] : 0.0f;
                }
#pragma unroll
                for (u32 i = 0; i < 4; i++) {
#pragma unroll
                    for (u32 l = 0; l < 4; l++) {
                        some[i][l] = fmaf(left[i], right[l], some[i][l]);
                    }
                }
            }
            add(some, sums);
        }
#pragma unroll
        for (u32 i = 0; i < 4; i++) {
#pragma unroll
            for (u32 l = 0; l < 4; l++) {
                u32 row = y + i * quarter, col = x + l * quarter;
                // Where both are from the same quarter of a quarter, two sums are for one element.
                bool is_first = x < y || l <= i;
                if (works && is_first && row < k && col < k) {
                    triangle[row_start(max(row, col)) + min(row, col)] = fmaf(scale, sums[i][l], row == col ? 1.0f : 0.0f);
                }
            }
        }
    }
}

extern __shared__ float shared[];

// The factors of one tile on the diagonal, as they lie in global memory: the packed triangle, then the reciprocals.
__device__ void load_factors(const float *factors, u32 k, float *triangle) {
#pragma unroll 1
    for (u32 at = threadIdx.x; at < row_start(k); at += THREADS) {
        triangle[at] = factors[at];
    }
#pragma unroll 1
    for (u32 at = threadIdx.x; at < k; at += THREADS) {
        triangle[row_start(k) + at] = factors[TRIANGLE + at];
    }
}

// Solves the tile on the diagonal, of k rows, for the same rows of X: a block for each COLUMNS columns.
template <bool FORWARD> __device__ void substitute(const float *factors, const View &x) {
    u32 k = x.rows;
    float *triangle = shared, *reciprocals = triangle + row_start(k), *tile = reciprocals + k;
    load_factors(factors, k, triangle);
    solve_columns<FORWARD, !FORWARD>(x, x, triangle, reciprocals, tile);
}

constexpr u32 SIDE = 64;

template <typename From, typename To> __device__ void convert(const From *from, To *to, u64 count) {
#pragma unroll 1
    for (u64 at = u64(blockIdx.x) * THREADS + threadIdx.x; at < count; at += u64(gridDim.x) * THREADS) {
        narrow(widen(from[at]), to[at]);
    }
}

}  // namespace

#define KERNEL extern "C" __global__ void __launch_bounds__(THREADS)

// X = (I + scale·S Sᵀ)⁻¹ Y for up to TILE rows: a block for each COLUMNS columns of Y. X lies as Y does.
KERNEL solve(float *s_data, u32 k, u32 depth, u32 s_row, u32 s_col, float scale, float *y_data, float *x_data, u32 columns,
             u32 row_stride, u32 col_stride, u32 *record, float lambda) {
    View s = {s_data, k, depth, s_row, s_col};
    View y = {y_data, k, columns, row_stride, col_stride}, x = {x_data, k, columns, row_stride, col_stride};
    float *triangle = shared, *reciprocals = triangle + row_start(k), *tile = reciprocals + k;
    gram(s, scale, triangle, tile);
    factor(triangle, reciprocals, k, blockIdx.x == 0, {record, 0, k, lambda});
    solve_columns<true, true>(y, x, triangle, reciprocals, tile);
}

// out = C + factor·A diag(weights) B, of which only what is on and below the diagonal if `is_lower`: a block for each SIDE × SIDE tile. A thread
// sums for four rows and four columns, 16 apart. C may be out, and lies as out does; without it, a lower triangle is added to I.
KERNEL product(float *a_data, u32 rows, u32 depth, u32 a_row, u32 a_col, float *b_data, u32 columns, u32 b_row, u32 b_col,
               const float *weights, const float *c, float factor, float *out_data, u32 out_row, u32 out_col, u32 is_lower) {
    View a = {a_data, rows, depth, a_row, a_col}, b = {b_data, depth, columns, b_row, b_col};
    View out = {out_data, rows, columns, out_row, out_col};
    __shared__ float left[DEPTH][SIDE + 1], right[DEPTH][SIDE + 1];
    u32 top = blockIdx.y * SIDE, start = blockIdx.x * SIDE;
    if (is_lower && start > top) {
        return;
    }
    u32 x = threadIdx.x % 16, y = threadIdx.x / 16;
    Sums sums = {};
#pragma unroll 1
    for (u32 from = 0; from < depth; from += DEPTH) {
        __syncthreads();
        visit(a, SIDE, DEPTH, [&](u32 row, u32 col) {
            float weight = weights && from + col < depth ? weights[from + col] : 1.0f;
            left[col][row] = a.get(top + row, from + col) * weight;
        });
        visit(b, DEPTH, SIDE, [&](u32 row, u32 col) { right[row][col] = b.get(from + row, start + col); });
        __syncthreads();
        Sums some = {};
#pragma unroll 2
        for (u32 l = 0; l < DEPTH; l++) {
#pragma unroll
            for (u32 i = 0; i < 4; i++) {
#pragma unroll
                for (u32 j = 0; j < 4; j++) {
                    some[i][j] = fmaf(left[l][y + 16 * i], right[l][x + 16 * j], some[i][j]);
                }
            }
        }
        add(some, sums);
    }
#pragma unroll
    for (u32 i = 0; i < 4; i++) {
#pragma unroll
        for (u32 j = 0; j < 4; j++) {
            u32 row = top + y + 16 * i, col = start + x + 16 * j;
            if (row < out.rows && col < out.cols && !(is_lower && col > row)) {
                u64 place = u64(row) * out.row_stride + u64(col) * out.col_stride;
                float before = c ? c[place] : is_lower && row == col ? 1.0f : 0.0f;
                out.data[place] = fmaf(factor, sums[i][j], before);
            }
        }
    }
}

// Factors the tile on the diagonal that begins at row `first` of the matrix of `order` rows, keeps the factors, and brings the rows below
// to U: a block for each COLUMNS of these.
KERNEL panel(float *matrix, u32 order, u32 first, float *factors, u32 *record, float lambda) {
    u32 k = min(order - first, TILE), below = first + k;
    float *triangle = shared, *reciprocals = triangle + row_start(k), *tile = reciprocals + k;
    View square = {matrix + u64(first) * order + first, k, k, order, 1};
    visit(square, k, k, [&](u32 row, u32 col) {
        if (col <= row) {
            triangle[row_start(row) + col] = square.at(row, col);
        }
    });
    factor(triangle, reciprocals, k, blockIdx.x == 0, {record, first, order, lambda});
    // The rows below, as columns.
    View rest = {matrix + u64(below) * order + first, k, order - below, 1, order};
    solve_columns<true, false>(rest, rest, triangle, reciprocals, tile);
    if (blockIdx.x == 0) {
#pragma unroll 1
        for (u32 at = threadIdx.x; at < row_start(k); at += THREADS) {
            factors[at] = triangle[at];
        }
#pragma unroll 1
        for (u32 at = threadIdx.x; at < k; at += THREADS) {
            factors[TRIANGLE + at] = reciprocals[at];
        }
    }
}

KERNEL forward(const float *factors, float *x, u32 rows, u32 columns, u32 x_row, u32 x_col) {
    substitute<true>(factors, {x, rows, columns, x_row, x_col});
}

KERNEL backward(const float *factors, float *x, u32 rows, u32 columns, u32 x_row, u32 x_col) {
    substitute<false>(factors, {x, rows, columns, x_row, x_col});
}

#define CONVERT(NAME, FROM, TO)                                                                                         \
    KERNEL NAME(const FROM *from, TO *to, u32 count_low, u32 count_high) {                                              \
        convert(from, to, u64(count_high) << 32 | count_low);                                                           \
    }

CONVERT(convert_f32_f32, float, float)
CONVERT(convert_f16_f32, f16, float)
CONVERT(convert_bf16_f32, bf16, float)
CONVERT(convert_f32_f16, float, f16)
CONVERT(convert_f32_bf16, float, bf16)
