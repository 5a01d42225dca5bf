// Whether floats are enough.

namespace {

// A sign that looks random: the lowest bit of a hash of the place.
__device__ float sign(u32 row, u32 col) {
    u32 hash = (row * COLUMNS + col) * 0x9e3779b9u;
    hash = (hash ^ (hash >> 16)) * 0x85ebca6bu;
    hash = (hash ^ (hash >> 13)) * 0xc2b2ae35u;
    return (hash >> 16) & 1u ? 1.0f : -1.0f;
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

// Whether floats are enough for the inverse of a matrix of this order: by the matrix's sum of squares and that of the inverse's products with
// COLUMNS columns of signs, of which its own is 1/COLUMNS on average. What is NaN is not enough.
__device__ bool is_enough(float matrix, float inverse, u32 order) {
    // The largest condition number, in Frobenius norms, at which floats keep five digits. That of the identity is its order.
    float largest = max(256u, 2 * order);
    return matrix * inverse <= largest * largest * COLUMNS;
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

}  // namespace
