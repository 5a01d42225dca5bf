// Types, matrices in global memory, and how the threads of a block go through them.

namespace {

typedef unsigned int u32;
typedef unsigned long long u64;

constexpr u32 THREADS = 256;
constexpr u32 WARP = 32;

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

template <typename From, typename To> __device__ void convert(const From *from, To *to, u64 count) {
#pragma unroll 1
    for (u64 at = u64(blockIdx.x) * THREADS + threadIdx.x; at < count; at += u64(gridDim.x) * THREADS) {
        narrow(widen(from[at]), to[at]);
    }
}

}  // namespace
