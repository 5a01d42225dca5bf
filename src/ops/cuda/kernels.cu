// The small, delicate part of IsaacGemm on a CUDA device: X = (I + s·S Sᵀ)⁻¹ Y, for S of k rows.
//
// The damped Gram matrix is factored as U D⁻¹ Uᵀ, where U = L D keeps the columns of the unit lower triangle L as the elimination
// leaves them, and D its pivots: one barrier a pivot, and no root. That is done in floats first. How much of their digits the inverse
// loses is then asked by solving for a few columns of random signs; where it is too much, everything is done again in doubles.
//
// Up to TILE<double> rows one launch does all of it (solve): each block makes the same factors in shared memory, comes to the same
// answer, and solves its own columns. Above, the Gram matrix lies in global memory, in tiles of TILE rows:
//
//   product              the Gram matrix, its lower triangle
//   probe                its norm, and columns of signs
//   panel                factors the tile on the diagonal, and brings the rows below it to U
//   product              takes the panel's part off what is right of it; and so on, tile by tile
//   forward, backward    the tile on the diagonal solved for each column of X, and for the signs; product takes it off the tiles below or above
//   judge                whether that has to be repeated in doubles. The kernels that do it are launched in any case, and end at once if not
//
// Half types are converted before and after. A pivot that is not positive becomes NaN, and so does all of X; in doubles, record says which
// it was. plan.rs knows the launches; strides and sizes count elements.

typedef unsigned int u32;
typedef unsigned long long u64;

namespace {

constexpr u32 THREADS = 256;
constexpr u32 WARP = 32;
// The largest order that is factored within a block: what fits into 48 KB of shared memory.
template <typename Real> constexpr u32 TILE = 128;
template <> constexpr u32 TILE<double> = 88;
// Columns that a block solves: two for each warp.
constexpr u32 COLUMNS = 16;
constexpr u32 PER_WARP = COLUMNS / (THREADS / WARP);
// Rows of a column that one lane holds.
template <typename Real> constexpr u32 PER_LANE = (TILE<Real> + WARP - 1) / WARP;
// A row of a tile of columns in shared memory; odd, so that rows lie in different banks.
constexpr u32 PITCH = COLUMNS + 1;
// Elements of a packed lower triangle; the reciprocals of the pivots come behind it.
template <typename Real> constexpr u32 TRIANGLE = TILE<Real> * (TILE<Real> + 1) / 2;
// The largest condition number, in Frobenius norms, at which floats keep five digits.
constexpr float LARGEST_CONDITION = 256;

// Half types as the bits that they are stored in.
struct f16 {
    unsigned short bits;
};
struct bf16 {
    unsigned short bits;
};

__device__ float widen(float value) { return value; }

__device__ double widen(double value) { return value; }

__device__ float widen(f16 value) {
    float wide;
    asm("cvt.f32.f16 %0, %1;" : "=f"(wide) : "h"(value.bits));
    return wide;
}

__device__ float widen(bf16 value) { return __uint_as_float(u32(value.bits) << 16); }

template <typename Real> __device__ void narrow(Real value, float &out) { out = value; }

__device__ void narrow(float value, double &out) { out = value; }

__device__ void narrow(float value, f16 &out) { asm("cvt.rn.f16.f32 %0, %1;" : "=h"(out.bits) : "f"(value)); }

__device__ void narrow(float value, bf16 &out) {
    u32 bits = __float_as_uint(value);
    // To the nearest, ties to even; a NaN stays one.
    u32 rounded = (bits + 0x7fffu + ((bits >> 16) & 1u)) >> 16;
    out.bits = (bits & 0x7fffffffu) > 0x7f800000u ? 0x7fffu : rounded;
}

// A matrix in global memory.
template <typename Element> struct View {
    Element *data;
    u32 rows, cols, row_stride, col_stride;

    __device__ Element &at(u32 row, u32 col) const { return data[u64(row) * row_stride + u64(col) * col_stride]; }

    // Zero outside.
    __device__ Element get(u32 row, u32 col) const { return row < rows && col < cols ? at(row, col) : Element(0); }
};

__device__ float fused(float a, float b, float c) { return fmaf(a, b, c); }

__device__ double fused(double a, double b, double c) { return fma(a, b, c); }

// Where row i of a packed lower triangle begins.
__device__ u32 row_start(u32 i) { return i * (i + 1) / 2; }

// The threads of a block go through a rows × cols rectangle, neighbours to what `view` has next to each other.
template <typename Element, typename Visit>
__device__ void visit(const View<Element> &view, u32 rows, u32 cols, Visit visit) {
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

// What a block has in shared memory for k rows: a packed lower triangle, the reciprocals of its pivots, and a tile of S or of columns.
extern __shared__ double shared[];

template <typename Real> struct Room {
    u32 k;
    Real *triangle, *reciprocals, *tile;

    __device__ explicit Room(u32 k)
        : k(k), triangle(reinterpret_cast<Real *>(shared)), reciprocals(triangle + row_start(k)), tile(reciprocals + k) {}
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
        Real column[PER_LANE<Real>];
#pragma unroll
        for (u32 part = 0; part < PER_LANE<Real>; part++) {
            u32 l = lane + WARP * part;
            column[part] = l > j && l < k ? triangle[row_start(l) + j] * -reciprocal : Real(0);
        }
#pragma unroll 1
        for (u32 i = j + 1 + warp; i < k; i += THREADS / WARP) {
            Real *row = triangle + row_start(i);
            Real pivot_part = row[j];
#pragma unroll
            for (u32 part = 0; part < PER_LANE<Real>; part++) {
                u32 l = lane + WARP * part;
                if (l > j && l <= i) {
                    row[l] = fused(pivot_part, column[part], row[l]);
                }
            }
        }
    }
}

// A sign that looks random: the lowest bit of a hash of the place.
__device__ float sign(u32 row, u32 col) {
    u32 hash = (row * COLUMNS + col) * 0x9e3779b9u;
    hash = (hash ^ (hash >> 16)) * 0x85ebca6bu;
    hash = (hash ^ (hash >> 13)) * 0xc2b2ae35u;
    return (hash >> 16) & 1u ? 1.0f : -1.0f;
}

// Each warp solves PER_WARP columns of a tile in shared memory, each lane with every 32nd row of them.
template <typename Real> struct Columns {
    static constexpr u32 PARTS = PER_LANE<Real>;

    Real values[PER_WARP][PARTS];
    u32 lane, first;

    __device__ Columns() : lane(threadIdx.x % WARP), first(threadIdx.x / WARP * PER_WARP) {}

    // Random signs.
    __device__ void probe(u32 k) {
#pragma unroll
        for (u32 c = 0; c < PER_WARP; c++) {
#pragma unroll
            for (u32 part = 0; part < PARTS; part++) {
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
            for (u32 part = 0; part < PARTS; part++) {
                sum = fused(values[c][part], values[c][part], sum);
            }
        }
        return sum;
    }

    __device__ void load(const Real *tile, u32 k) {
#pragma unroll
        for (u32 c = 0; c < PER_WARP; c++) {
#pragma unroll
            for (u32 part = 0; part < PARTS; part++) {
                u32 row = lane + WARP * part;
                values[c][part] = row < k ? tile[row * PITCH + first + c] : Real(0);
            }
        }
    }

    __device__ void store(Real *tile, u32 k) const {
#pragma unroll
        for (u32 c = 0; c < PER_WARP; c++) {
#pragma unroll
            for (u32 part = 0; part < PARTS; part++) {
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
        for (u32 part = 0; part < PARTS; part++) {
#pragma unroll 1
            for (u32 source = 0; source < WARP && source + WARP * part < k; source++) {
                u32 j = source + WARP * part;
                Real factors[PER_WARP];
#pragma unroll
                for (u32 c = 0; c < PER_WARP; c++) {
                    factors[c] = __shfl_sync(0xffffffffu, values[c][part], source) * room.reciprocals[j];
                }
#pragma unroll
                for (u32 below = part; below < PARTS; below++) {
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
        Real scales[PARTS];
#pragma unroll
        for (u32 part = 0; part < PARTS; part++) {
            u32 row = lane + WARP * part;
            scales[part] = row < k ? room.reciprocals[row] : Real(0);
#pragma unroll
            for (u32 c = 0; c < PER_WARP; c++) {
                values[c][part] *= scales[part];
            }
        }
#pragma unroll
        for (u32 back = 0; back < PARTS; back++) {
            constexpr u32 LAST = PARTS - 1;
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

// Columns of S, or of a product's factors, that are in shared memory at once.
constexpr u32 DEPTH = 16;

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
        Sums<Real> sums;
#pragma unroll 1
        for (u32 start = 0; start < s.cols; start += DEPTH) {
            __syncthreads();
            visit(s, k, DEPTH, [&](u32 row, u32 col) { part[col * pitch + row] = s.get(row, start + col); });
            __syncthreads();
#pragma unroll 2
            for (u32 depth = 0; works && depth < DEPTH; depth++) {
                Real left[4], right[4];
#pragma unroll
                for (u32 i = 0; i < 4; i++) {
                    u32 row = y + i * quarter, col = x + i * quarter;
                    left[i] = row < k ? part[depth * pitch + row] : Real(0);
                    right[i] = col < k ? part[depth * pitch + col] : Real(0);
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

// The sum of all threads' values, for each of them; `sums` is shared memory, which is read behind the last barrier.
__device__ float total(float value, float (&sums)[THREADS]) {
    sums[threadIdx.x] = value;
    __syncthreads();
    if (threadIdx.x < WARP) {
        float sum = 0;
#pragma unroll
        for (u32 at = 0; at < THREADS; at += WARP) {
            sum += sums[threadIdx.x + at];
        }
        sums[threadIdx.x] = sum;
    }
    __syncthreads();
    float sum = 0;
#pragma unroll
    for (u32 at = 0; at < WARP; at++) {
        sum += sums[at];
    }
    return sum;
}

// Whether floats are enough for an inverse, by its matrix's sum of squares and that of its products with COLUMNS columns of signs, of which
// its own is 1/COLUMNS on average. What is NaN is not enough.
__device__ bool is_enough(float matrix, float inverse) {
    return matrix * inverse <= LARGEST_CONDITION * LARGEST_CONDITION * COLUMNS;
}

// A thread's part of the sum of squares of a symmetric matrix, of which the lower triangle is packed.
__device__ float squares(const Room<float> &room) {
    float sum = 0;
#pragma unroll 1
    for (u32 at = threadIdx.x; at < row_start(room.k); at += THREADS) {
        sum = fmaf(2.0f * room.triangle[at], room.triangle[at], sum);
    }
#pragma unroll 1
    for (u32 row = threadIdx.x; row < room.k; row += THREADS) {
        float diagonal = room.triangle[row_start(row) + row];
        sum = fmaf(-diagonal, diagonal, sum);
    }
    return sum;
}

// The lower triangle of a matrix in global memory.
template <typename Real> __device__ void load_triangle(const View<Real> &square, const Room<Real> &room) {
    visit(square, room.k, room.k, [&](u32 row, u32 col) {
        if (col <= row) {
            room.triangle[row_start(row) + col] = square.at(row, col);
        }
    });
}

// X = (I + scale·S Sᵀ)⁻¹ Y, all in doubles.
template <typename Element>
__device__ void solve_in_doubles(const View<float> &s, float scale, const View<Element> &y, const View<Element> &x,
                                 u32 *record, float lambda) {
    Room<double> room(s.rows);
    gram<double>(s, scale, room);
    factor(room, {record, 0, s.rows, lambda});
    solve_columns<true, true>(y, x, room);
}

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

constexpr u32 SIDE = 64;

// out = C + factor·A diag(weights) B, of which only what is on and below the diagonal if `is_lower`: a block for each SIDE × SIDE tile. A thread
// sums for four rows and four columns, 16 apart. C may be out, and lies as out does; without it, a lower triangle is added to I.
template <typename Real, typename A, typename B, typename Out>
__device__ void multiply(const View<A> &a, const View<B> &b, const Real *weights, const Out *c, float factor, const View<Out> &out,
                         bool is_lower) {
    __shared__ Real left[DEPTH][SIDE + 1], right[DEPTH][SIDE + 1];
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

template <typename From, typename To> __device__ void convert(const From *from, To *to, u64 count) {
#pragma unroll 1
    for (u64 at = u64(blockIdx.x) * THREADS + threadIdx.x; at < count; at += u64(gridDim.x) * THREADS) {
        narrow(widen(from[at]), to[at]);
    }
}

}  // namespace

#define KERNEL extern "C" __global__ void __launch_bounds__(THREADS, 2)

// X = (I + scale·S Sᵀ)⁻¹ Y for up to TILE<double> rows: a block for each COLUMNS columns of Y. X lies as Y does. The damped Gram matrix may
// be there already.
KERNEL solve(float *s_data, u32 k, u32 depth, u32 s_row, u32 s_col, float *matrix, float scale, float *y_data, float *x_data, u32 columns,
             u32 row_stride, u32 col_stride, u32 *record, float lambda) {
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
    if (is_enough(norm, total(probes.squares(), sums))) {
        solve_columns<true, true>(y, x, room);
    } else {
        solve_in_doubles(s, scale, y, x, record, lambda);
    }
}

KERNEL solve_f64(float *s_data, u32 k, u32 depth, u32 s_row, u32 s_col, float scale, double *y_data, double *x_data, u32 columns,
                 u32 row_stride, u32 col_stride, u32 *record, float lambda) {
    View<double> y = {y_data, k, columns, row_stride, col_stride}, x = {x_data, k, columns, row_stride, col_stride};
    solve_in_doubles({s_data, k, depth, s_row, s_col}, scale, y, x, record, lambda);
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
        *flag = !is_enough(*norm, sum);
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
