//! In-place inverses of small symmetric positive definite matrices, by block Gauss-Jordan elimination.
//!
//! `faer`'s Cholesky factorisation and inverse of order 60 take as long as the products of a layer with 60 rows and
//! 400 features, because each of their steps waits for the one before. Here eight pivots are eliminated at a time, from
//! whole tiles. Without pivoting that is safe for a positive definite matrix: it goes through the same pivots as a
//! Cholesky factorisation, squared.
//!
//! One step replaces the matrix by one that is symmetric again (the statisticians' sweep operator), so that only the
//! tiles on and below the diagonal are kept. With pivots k and all other indices i and j:
//!
//! ```text
//! M_kk → −M_kk⁻¹     M_ik → M_ik M_kk⁻¹     M_ij → M_ij − M_ik M_kk⁻¹ M_kj
//! ```
//!
//! After all of them M has become −M⁻¹.

use super::Scalar;

/// Above this order it is better to split the matrix.
pub(super) const LARGEST: usize = 112;

/// Pivots per step: as many rows as there are registers for.
const BLOCK: usize = 8;

type Block<T> = [[T; BLOCK]; BLOCK];

/// A block in memory, whose rows lie in one line of the cache each.
#[derive(Clone, Copy)]
#[repr(align(64))]
struct Tile<T>(Block<T>);

/// Buffers, which only grow.
#[derive(Default)]
pub(super) struct Sweep<T> {
    /// The tiles on and below the diagonal, row by row; those of the last row are filled up with an identity's.
    tiles: Vec<Tile<T>>,
    pivots: Vec<Pivots<T>>,
}

/// What a step needs of the pivots' rows, for one column of tiles i.
#[derive(Clone, Copy)]
struct Pivots<T> {
    /// M_ki
    row: Tile<T>,
    /// M_kk⁻¹ M_ki
    solved: Tile<T>,
}

impl<T: Scalar> Sweep<T> {
    /// Replaces a symmetric positive definite matrix by its inverse. It is row-major, with `stride` elements from one row to
    /// the next; only what is on and below the diagonal is read.
    ///
    /// On failure the index of the first pivot that is not positive is returned, and the matrix is left as it was.
    pub(super) fn invert(&mut self, matrix: &mut [T], [order, stride]: [usize; 2]) -> Result<(), usize> {
        let rows = order.div_ceil(BLOCK);
        let zero = Tile([[T::default(); BLOCK]; BLOCK]);
        self.tiles.resize(start(rows), zero);
        self.pivots.resize(rows, Pivots { row: zero, solved: zero });
        pulp::Arch::new().dispatch(Elimination {
            matrix,
            order,
            stride,
            tiles: &mut self.tiles,
            pivots: &mut self.pivots,
        })
    }
}

/// Number of tiles in all rows before this one.
fn start(row: usize) -> usize {
    row * (row + 1) / 2
}

/// The work, in the form in which `pulp` compiles it for each kind of processor; all that it calls must be inlined, which
/// `array::map` is not.
struct Elimination<'a, T> {
    matrix: &'a mut [T],
    order: usize,
    stride: usize,
    tiles: &'a mut [Tile<T>],
    pivots: &'a mut [Pivots<T>],
}

impl<T: Scalar> pulp::WithSimd for Elimination<'_, T> {
    type Output = Result<(), usize>;

    #[inline(always)]
    fn with_simd<S: pulp::Simd>(mut self, _: S) -> Self::Output {
        self.load();
        for pivot in 0..self.pivots.len() {
            self.eliminate(pivot).map_err(|index| pivot * BLOCK + index)?;
        }
        self.store();
        Ok(())
    }
}

impl<T: Scalar> Elimination<'_, T> {
    #[inline(always)]
    fn load(&mut self) {
        for row in 0..self.pivots.len() {
            for col in 0..=row {
                let Tile(tile) = &mut self.tiles[start(row) + col];
                *tile = [[T::default(); BLOCK]; BLOCK];
                for (index, target) in (row * BLOCK..self.order).zip(&mut *tile) {
                    let source = &self.matrix[index * self.stride..index * self.stride + self.order][col * BLOCK..];
                    match source.first_chunk() {
                        Some(source) => *target = *source,
                        None => target[..source.len()].copy_from_slice(source),
                    }
                }
            }
            let Tile(diagonal) = &mut self.tiles[start(row) + row];
            let lower = *diagonal;
            for (row, target) in diagonal.iter_mut().enumerate() {
                for (col, value) in target.iter_mut().enumerate().skip(row + 1) {
                    *value = lower[col][row];
                }
            }
            for (index, target) in diagonal.iter_mut().enumerate().skip(self.order - row * BLOCK) {
                target[index] = T::from_f64(1.0);
            }
        }
    }

    /// One step, with the pivots of this row of tiles.
    #[inline(always)]
    fn eliminate(&mut self, pivot: usize) -> Result<(), usize> {
        let inverse = invert_block(self.tiles[start(pivot) + pivot].0)?;
        for (index, Pivots { row: Tile(row), solved: Tile(solved) }) in
            self.pivots.iter_mut().enumerate().filter(|(index, _)| *index != pivot)
        {
            if index < pivot {
                let Tile(tile) = &mut self.tiles[start(pivot) + index];
                *row = *tile;
                *solved = product(&inverse, row);
                *tile = *solved;
            } else {
                let Tile(tile) = &mut self.tiles[start(index) + pivot];
                *row = transposed(tile);
                *solved = product(&inverse, row);
                *tile = transposed(solved);
            }
        }
        let mut tiles = &mut *self.tiles;
        for (index, Pivots { solved: Tile(solved), .. }) in self.pivots.iter().enumerate() {
            let (of_row, rest) = tiles.split_at_mut(index + 1);
            tiles = rest;
            if index != pivot {
                let factors = negated(solved);
                for (col, (Tile(tile), Pivots { row: Tile(row), .. })) in
                    of_row.iter_mut().zip(&*self.pivots).enumerate()
                {
                    if col != pivot {
                        *tile = add_product(tile, &factors, row);
                    }
                }
            }
        }
        self.tiles[start(pivot) + pivot] = Tile(negated(&inverse));
        Ok(())
    }

    #[inline(always)]
    fn store(&mut self) {
        for row in 0..self.pivots.len() {
            for col in 0..=row {
                let tile = negated(&self.tiles[start(row) + col].0);
                self.store_tile(&tile, row, col);
                if row != col {
                    self.store_tile(&transposed(&tile), col, row);
                }
            }
        }
    }

    #[inline(always)]
    fn store_tile(&mut self, tile: &Block<T>, row: usize, col: usize) {
        for (row, source) in (row * BLOCK..self.order).zip(tile) {
            let start = row * self.stride;
            let target = &mut self.matrix[start + col * BLOCK..start + self.order];
            match target.first_chunk_mut() {
                Some(target) => *target = *source,
                None => target.copy_from_slice(&source[..target.len()]),
            }
        }
    }
}

/// The transpose: halves of rows change places, then quarters, then elements.
#[inline(always)]
fn transposed<T: Scalar>(block: &Block<T>) -> Block<T> {
    let [a, b, c, d, e, f, g, h] = *block;
    let ([a, e], [b, f], [c, g], [d, h]) = (by_halves(a, e), by_halves(b, f), by_halves(c, g), by_halves(d, h));
    let ([a, c], [b, d], [e, g], [f, h]) = (by_quarters(a, c), by_quarters(b, d), by_quarters(e, g), by_quarters(f, h));
    let ([a, b], [c, d], [e, f], [g, h]) = (by_elements(a, b), by_elements(c, d), by_elements(e, f), by_elements(g, h));
    [a, b, c, d, e, f, g, h]
}

// What of one row changes places with what of the other, said of each element: so it becomes a shuffle of registers, and
// a loop would not.

#[inline(always)]
fn by_halves<T>([a0, a1, a2, a3, a4, a5, a6, a7]: [T; 8], [b0, b1, b2, b3, b4, b5, b6, b7]: [T; 8]) -> [[T; 8]; 2] {
    [[a0, a1, a2, a3, b0, b1, b2, b3], [a4, a5, a6, a7, b4, b5, b6, b7]]
}

#[inline(always)]
fn by_quarters<T>([a0, a1, a2, a3, a4, a5, a6, a7]: [T; 8], [b0, b1, b2, b3, b4, b5, b6, b7]: [T; 8]) -> [[T; 8]; 2] {
    [[a0, a1, b0, b1, a4, a5, b4, b5], [a2, a3, b2, b3, a6, a7, b6, b7]]
}

#[inline(always)]
fn by_elements<T>([a0, a1, a2, a3, a4, a5, a6, a7]: [T; 8], [b0, b1, b2, b3, b4, b5, b6, b7]: [T; 8]) -> [[T; 8]; 2] {
    [[a0, b0, a2, b2, a4, b4, a6, b6], [a1, b1, a3, b3, a5, b5, a7, b7]]
}

/// leftᵀ·right
#[inline(always)]
fn product<T: Scalar>(left: &Block<T>, right: &Block<T>) -> Block<T> {
    add_product(&[[T::default(); BLOCK]; BLOCK], left, right)
}

#[inline(always)]
fn negated<T: Scalar>(block: &Block<T>) -> Block<T> {
    let mut negated = *block;
    negated.as_flattened_mut().iter_mut().for_each(|value| *value = -*value);
    negated
}

/// sum + leftᵀ·right
#[inline(always)]
fn add_product<T: Scalar>(sum: &Block<T>, left: &Block<T>, right: &Block<T>) -> Block<T> {
    // One by one, so that the rows stay in registers.
    let [mut a, mut b, mut c, mut d, mut e, mut f, mut g, mut h] = *sum;
    for (factors, values) in left.iter().zip(right) {
        a = add_multiple(a, factors[0], values);
        b = add_multiple(b, factors[1], values);
        c = add_multiple(c, factors[2], values);
        d = add_multiple(d, factors[3], values);
        e = add_multiple(e, factors[4], values);
        f = add_multiple(f, factors[5], values);
        g = add_multiple(g, factors[6], values);
        h = add_multiple(h, factors[7], values);
    }
    [a, b, c, d, e, f, g, h]
}

/// row + factor·values
#[inline(always)]
fn add_multiple<T: Scalar>(mut row: [T; BLOCK], factor: T, values: &[T; BLOCK]) -> [T; BLOCK] {
    for (sum, value) in row.iter_mut().zip(values) {
        *sum = factor.mul_add(*value, *sum);
    }
    row
}

/// The inverse of a symmetric positive definite block, or the index within it of the first pivot that is not positive.
#[inline(always)]
fn invert_block<T: Scalar>(block: Block<T>) -> Result<Block<T>, usize> {
    // Indices that the compiler knows: so the block stays in registers.
    let block = eliminate_one::<T, 0>(block)?;
    let block = eliminate_one::<T, 1>(block)?;
    let block = eliminate_one::<T, 2>(block)?;
    let block = eliminate_one::<T, 3>(block)?;
    let block = eliminate_one::<T, 4>(block)?;
    let block = eliminate_one::<T, 5>(block)?;
    let block = eliminate_one::<T, 6>(block)?;
    eliminate_one::<T, 7>(block)
}

/// One step of Gauss-Jordan elimination, or the pivot's index if it is not positive.
#[inline(always)]
fn eliminate_one<T: Scalar, const INDEX: usize>(block: Block<T>) -> Result<Block<T>, usize> {
    let pivot = block[INDEX][INDEX];
    let is_positive = pivot > T::default(); // and not NaN
    if !is_positive {
        return Err(INDEX);
    }
    let reciprocal = T::from_f64(1.0) / pivot;
    let mut pivot_row = block[INDEX];
    pivot_row.iter_mut().for_each(|value| *value *= reciprocal);
    pivot_row[INDEX] = reciprocal;
    // Not in a loop, which would be compiled to gather the rows' factors from memory.
    let [a, b, c, d, e, f, g, h] = block;
    Ok([
        without_pivot::<T, INDEX, 0>(a, &pivot_row),
        without_pivot::<T, INDEX, 1>(b, &pivot_row),
        without_pivot::<T, INDEX, 2>(c, &pivot_row),
        without_pivot::<T, INDEX, 3>(d, &pivot_row),
        without_pivot::<T, INDEX, 4>(e, &pivot_row),
        without_pivot::<T, INDEX, 5>(f, &pivot_row),
        without_pivot::<T, INDEX, 6>(g, &pivot_row),
        without_pivot::<T, INDEX, 7>(h, &pivot_row),
    ])
}

/// What the elimination of pivot `INDEX` makes of row `ROW`.
#[inline(always)]
fn without_pivot<T: Scalar, const INDEX: usize, const ROW: usize>(
    mut row: [T; BLOCK],
    pivot_row: &[T; BLOCK],
) -> [T; BLOCK] {
    if ROW == INDEX {
        return *pivot_row;
    }
    let factor = -row[INDEX];
    row[INDEX] = T::default();
    add_multiple(row, factor, pivot_row)
}
