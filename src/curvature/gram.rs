//! Matrices of inner products, x xᵀ, of which only about half is computed.

use super::spd::resized;
use super::{Matrix, ProductError, Products, Scalar};

/// Rows of a block, at least: smaller products are dearer than what they save.
const BLOCK: usize = 64;

/// Blocks in each direction, at most: with this many, 10 of 16 are computed.
const BLOCKS: usize = 4;

/// Buffers, which only grow.
#[derive(Default)]
pub(super) struct Gram<T> {
    panels: Vec<T>,
    block: Vec<T>,
}

impl<T: Scalar> Gram<T> {
    /// Writes x xᵀ, of the order of x's rows, into `out`.
    pub(super) fn multiply<P: Products<T>>(
        &mut self,
        x: Matrix<'_, T>,
        products: &mut P,
        out: &mut [T],
    ) -> Result<(), ProductError> {
        let (order, cols) = (x.rows(), x.cols());
        let blocks = (order / BLOCK).min(BLOCKS);
        if blocks < 2 {
            return products.multiply(x, x.t(), out);
        }
        let height = order.div_ceil(blocks);
        let stored = if x.is_transposed() {
            let panels = resized(&mut self.panels, order * cols);
            pack(x.data(), order, height, panels);
            &*panels
        } else {
            x.data()
        };
        let panel = |start: usize| {
            let rows = height.min(order - start);
            let data = &stored[start * cols..(start + rows) * cols];
            if x.is_transposed() { Matrix::new(data, cols, rows).t() } else { Matrix::new(data, rows, cols) }
        };
        for row in (0..order).step_by(height) {
            for col in (0..=row).step_by(height) {
                let (left, right) = (panel(row), panel(col));
                let block = resized(&mut self.block, left.rows() * right.rows());
                products.multiply(left, right.t(), block)?;
                scatter(block, right.rows(), [row, col], out, order);
            }
        }
        Ok(())
    }
}

/// Copies the columns of a row-major matrix with `cols` columns into panels of `width` columns, one after the other,
/// each of them row-major.
fn pack<T: Copy>(matrix: &[T], cols: usize, width: usize, panels: &mut [T]) {
    let rows = matrix.len() / cols;
    for (index, row) in matrix.chunks_exact(cols).enumerate() {
        for (panel, source) in row.chunks(width).enumerate() {
            let start = panel * width * rows + index * source.len();
            panels[start..start + source.len()].copy_from_slice(source);
        }
    }
}

/// Copies a block to its place in a symmetric matrix, and its transpose to the mirrored one.
fn scatter<T: Copy>(block: &[T], width: usize, [row, col]: [usize; 2], matrix: &mut [T], order: usize) {
    for (index, source) in block.chunks_exact(width).enumerate() {
        let start = (row + index) * order + col;
        matrix[start..start + width].copy_from_slice(source);
    }
    if row != col {
        let height = block.len() / width;
        for index in 0..width {
            let start = (col + index) * order + row;
            for (target, source) in matrix[start..start + height].iter_mut().zip(block[index..].iter().step_by(width)) {
                *target = *source;
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::products::plain::Plain;
    use super::*;

    #[test]
    fn half_the_products_give_the_whole_matrix() {
        let mut gram = Gram::default();
        for (order, cols) in [(1, 3), (127, 2), (128, 3), (129, 1), (200, 5), (256, 2), (301, 3), (64, 7)] {
            let stored: Vec<f64> = (0..order * cols).map(|index| ((index * index) as f64).sin()).collect();
            for x in [Matrix::new(&stored, order, cols), Matrix::new(&stored, cols, order).t()] {
                let (mut got, mut expected) = (vec![f64::NAN; order * order], vec![f64::NAN; order * order]);
                gram.multiply(x, &mut Plain, &mut got).unwrap();
                Plain.multiply(x, x.t(), &mut expected).unwrap();
                assert_eq!(got, expected, "{order}x{cols}");
            }
        }
    }
}
