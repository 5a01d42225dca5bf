// The small, delicate part of IsaacGemm on a CUDA device: X = (I + s·S Sᵀ)⁻¹ Y, for S of k rows.
//
// The damped Gram matrix is factored as U D⁻¹ Uᵀ, where U = L D keeps the columns of the unit lower triangle L as the elimination
// leaves them, and D its pivots: one barrier a pivot, and no root. That is done in floats first. How much of their digits the inverse
// loses is then asked by solving for a few columns of random signs; where it is too much, everything is done again in doubles.
//
// Up to LARGEST rows one launch does all of it (solve): each block makes the same factors, of floats in shared memory and of doubles in
// scratch memory of its own, comes to the same answer, and solves its own columns. Above, the Gram matrix lies in global memory, in tiles
// of TILE rows:
//
//   product              the Gram matrix, its lower triangle
//   probe                its norm, and columns of signs
//   panel                factors the tile on the diagonal, and brings the rows below it to U
//   product              takes the panel's part off what is right of it; and so on, tile by tile
//   forward, backward    the tile on the diagonal solved for each column of X, and for the signs; product takes it off the tiles below or above
//   judge                whether that has to be repeated in doubles. The kernels that do it are launched in any case, and end at once if not
//
// Half types are converted before and after. A pivot that is not positive becomes NaN, and so does all of X; in doubles, record says which
// it was. plan.rs and what is below it know the launches; strides and sizes count elements.

// Each of these needs those before it.
#include "kernels/elements.cuh"
#include "kernels/factor.cuh"
#include "kernels/products.cuh"
#include "kernels/precision.cuh"
#include "kernels/columns.cuh"
#include "kernels/tiles.cuh"

namespace {

// X = (I + scale·S Sᵀ)⁻¹ Y, all in doubles; their triangles are in global memory.
template <typename Element>
__device__ void solve_in_doubles(const View<float> &s, float scale, double *triangles, const View<Element> &y, const View<Element> &x,
                                 u32 *record, float lambda) {
    Room<double> room(s.rows, triangles);
    gram<double>(s, scale, room);
    factor(room, {record, 0, s.rows, lambda});
    solve_columns<true, true>(y, x, room);
}

}  // namespace

#define KERNEL extern "C" __global__ void __launch_bounds__(THREADS, 2)

// X = (I + scale·S Sᵀ)⁻¹ Y for up to LARGEST rows: a block for each COLUMNS columns of Y. X lies as Y does. The damped Gram matrix may
// be there already. Each block has a triangle for doubles.
KERNEL solve(float *s_data, u32 k, u32 depth, u32 s_row, u32 s_col, float *matrix, double *triangles, float scale, float *y_data,
             float *x_data, u32 columns, u32 row_stride, u32 col_stride, u32 *record, float lambda) {
    __shared__ float sums[THREADS];
    View<float> s = {s_data, k, depth, s_row, s_col};
    View<float> y = {y_data, k, columns, row_stride, col_stride}, x = {x_data, k, columns, row_stride, col_stride};
    Room<float> room(k);
    if (matrix) {
        load_triangle({matrix, k, k, k, 1}, room);
    } else {
        gram(s, scale, room);
    }
    __syncthreads();
    float norm = total(squares(room), sums);
    factor(room, UNRECORDED);
    __syncthreads();
    Columns<float> probes;
    probes.probe(k);
    probes.forward(room);
    probes.backward(room);
    if (is_enough(norm, total(probes.squares(), sums), k)) {
        solve_columns<true, true>(y, x, room);
    } else {
        solve_in_doubles(s, scale, triangles, y, x, record, lambda);
    }
}

KERNEL solve_f64(float *s_data, u32 k, u32 depth, u32 s_row, u32 s_col, double *triangles, float scale, double *y_data, double *x_data,
                 u32 columns, u32 row_stride, u32 col_stride, u32 *record, float lambda) {
    View<double> y = {y_data, k, columns, row_stride, col_stride}, x = {x_data, k, columns, row_stride, col_stride};
    solve_in_doubles({s_data, k, depth, s_row, s_col}, scale, triangles, y, x, record, lambda);
}

// The sum of squares of a symmetric matrix of which the lower triangle is there, and COLUMNS columns of signs: one block.
KERNEL probe(const float *matrix, u32 order, float *signs, float *norm) {
    __shared__ float sums[THREADS];
    float sum = 0;
#pragma unroll 1
    for (u32 row = threadIdx.x / WARP; row < order; row += THREADS / WARP) {
#pragma unroll 1
        for (u32 col = threadIdx.x % WARP; col <= row; col += WARP) {
            float element = matrix[u64(row) * order + col];
            sum = fmaf(col < row ? 2.0f * element : element, element, sum);
        }
    }
#pragma unroll 1
    for (u32 at = threadIdx.x; at < order * COLUMNS; at += THREADS) {
        signs[at] = sign(at / COLUMNS, at % COLUMNS);
    }
    sum = total(sum, sums);
    if (threadIdx.x == 0) {
        *norm = sum;
    }
}

// Whether what was solved for columns of signs says that all has to be done in doubles: one block.
KERNEL judge(const float *solved, u32 order, const float *norm, u32 *flag) {
    __shared__ float sums[THREADS];
    float sum = 0;
#pragma unroll 1
    for (u32 at = threadIdx.x; at < order * COLUMNS; at += THREADS) {
        sum = fmaf(solved[at], solved[at], sum);
    }
    sum = total(sum, sums);
    if (threadIdx.x == 0) {
        *flag = !is_enough(*norm, sum, order);
    }
}

// Kernels that are launched in any case do nothing if there is a flag, and it isn't set.
#define UNLESS_SPARED(FLAG)                                                                                             \
    if (FLAG && *FLAG == 0) {                                                                                           \
        return;                                                                                                         \
    }

#define PRODUCT(NAME, REAL, A, B, OUT)                                                                                  \
    KERNEL NAME(const u32 *flag, A *a, u32 rows, u32 depth, u32 a_row, u32 a_col, B *b, u32 columns, u32 b_row,         \
                u32 b_col, const REAL *weights, const OUT *c, float factor, OUT *out, u32 out_row, u32 out_col,         \
                u32 is_lower) {                                                                                         \
        UNLESS_SPARED(flag)                                                                                             \
        multiply<REAL, A, B, OUT>({a, rows, depth, a_row, a_col}, {b, depth, columns, b_row, b_col}, weights, c,        \
                                  factor, {out, rows, columns, out_row, out_col}, is_lower);                            \
    }

PRODUCT(product, float, float, float, float)
PRODUCT(product_f64, double, double, double, double)
PRODUCT(product_f32_f64, double, float, float, double)
PRODUCT(product_f64_f32, double, float, double, float)

#define TILED(PANEL, FORWARD, BACKWARD, REAL)                                                                           \
    KERNEL PANEL(const u32 *flag, REAL *matrix, u32 order, u32 first, REAL *factors, u32 *record, float lambda) {       \
        UNLESS_SPARED(flag)                                                                                             \
        factor_panel(matrix, order, first, factors, record, lambda);                                                    \
    }                                                                                                                   \
    KERNEL FORWARD(const u32 *flag, const REAL *factors, REAL *x, u32 rows, u32 columns, u32 x_row, u32 x_col) {        \
        UNLESS_SPARED(flag)                                                                                             \
        substitute<true>(factors, View<REAL>{x, rows, columns, x_row, x_col});                                          \
    }                                                                                                                   \
    KERNEL BACKWARD(const u32 *flag, const REAL *factors, REAL *x, u32 rows, u32 columns, u32 x_row, u32 x_col) {       \
        UNLESS_SPARED(flag)                                                                                             \
        substitute<false>(factors, View<REAL>{x, rows, columns, x_row, x_col});                                         \
    }

TILED(panel, forward, backward, float)
TILED(panel_f64, forward_f64, backward_f64, double)

#define CONVERT(NAME, FROM, TO)                                                                                         \
    KERNEL NAME(const u32 *flag, const FROM *from, TO *to, u32 count_low, u32 count_high) {                             \
        UNLESS_SPARED(flag)                                                                                             \
        convert(from, to, u64(count_high) << 32 | count_low);                                                           \
    }

CONVERT(convert_f32_f32, float, float)
CONVERT(convert_f16_f32, f16, float)
CONVERT(convert_bf16_f32, bf16, float)
CONVERT(convert_f32_f16, float, f16)
CONVERT(convert_f32_bf16, float, bf16)
CONVERT(convert_f32_f64, float, double)
CONVERT(convert_f64_f32, double, float)
