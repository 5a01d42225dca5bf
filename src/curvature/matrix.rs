//! Read-only matrix views over plain slices.

use std::ops::Range;

use faer::{ContiguousFwd, MatMut, MatRef};

use super::Scalar;

/// A matrix whose rows lie together in memory.
pub(super) type RowMajor<'a, T> = MatRef<'a, T, usize, usize, isize, ContiguousFwd>;

/// The same, to be written.
pub(super) type RowMajorMut<'a, T> = MatMut<'a, T, usize, usize, isize, ContiguousFwd>;

/// A matrix over a slice, row by row, `stride` elements from one to the next.
pub(super) fn row_major_mut<T>(data: &mut [T], [rows, cols]: [usize; 2], stride: usize) -> RowMajorMut<'_, T> {
    // Of rows with a stride, `faer` 0.24 takes the rows for columns.
    let stored = MatMut::from_column_major_slice_with_stride_mut(data, cols, rows, stride);
    stored.transpose_mut().try_as_row_major_mut().expect("one element from column to column")
}

/// A dense matrix over a row-major slice, or the transpose of one.
#[derive(Clone, Copy, Debug)]
pub struct Matrix<'a, T> {
    data: &'a [T],
    stored_rows: usize,
    stored_cols: usize,
    transposed: bool,
}

impl<'a, T: Copy> Matrix<'a, T> {
    /// A view of `data` as `rows`×`cols`, row-major.
    ///
    /// # Panics
    /// If `data` doesn't hold exactly `rows * cols` elements.
    pub fn new(data: &'a [T], rows: usize, cols: usize) -> Self {
        assert_eq!(data.len(), rows * cols, "a {rows}x{cols} matrix over {} elements", data.len());
        Self { data, stored_rows: rows, stored_cols: cols, transposed: false }
    }

    /// The transpose, over the same elements.
    pub fn t(self) -> Self {
        Self { transposed: !self.transposed, ..self }
    }

    /// Number of rows of the matrix as seen.
    pub fn rows(&self) -> usize {
        if self.transposed { self.stored_cols } else { self.stored_rows }
    }

    /// Number of columns of the matrix as seen.
    pub fn cols(&self) -> usize {
        if self.transposed { self.stored_rows } else { self.stored_cols }
    }

    /// One element.
    pub fn at(&self, row: usize, col: usize) -> T {
        let index = if self.transposed { col * self.stored_cols + row } else { row * self.stored_cols + col };
        self.data[index]
    }

    /// The elements in storage order.
    pub fn data(&self) -> &'a [T] {
        self.data
    }

    /// Rows and columns as stored, row-major.
    pub fn stored_shape(&self) -> [usize; 2] {
        [self.stored_rows, self.stored_cols]
    }

    /// Whether the storage is the transpose of what is seen.
    pub fn is_transposed(&self) -> bool {
        self.transposed
    }
}

impl<'a, T: Scalar> Matrix<'a, T> {
    /// The same matrix, for `faer`.
    pub fn view(self) -> MatRef<'a, T> {
        let [rows, cols] = self.stored_shape();
        let stored = MatRef::from_row_major_slice(self.data, rows, cols);
        if self.transposed { stored.transpose() } else { stored }
    }

    /// Copies some of the columns, in double precision, into `buffer` (`rows * columns.len()` elements).
    pub(super) fn widen_columns<'b>(&self, columns: Range<usize>, buffer: &'b mut [f64]) -> Matrix<'b, f64> {
        let (rows, width) = (self.rows(), columns.len());
        if self.transposed {
            let source = &self.data[columns.start * rows..columns.end * rows];
            widen(source, buffer);
            Matrix::new(buffer, width, rows).t()
        } else {
            for (row, target) in self.data.chunks_exact(self.stored_cols).zip(buffer.chunks_exact_mut(width)) {
                widen(&row[columns.clone()], target);
            }
            Matrix::new(buffer, rows, width)
        }
    }
}

fn widen<T: Scalar>(source: &[T], target: &mut [f64]) {
    for (wide, narrow) in target.iter_mut().zip(source) {
        *wide = narrow.to_f64();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn widens_the_same_columns_of_both_layouts() {
        let (rows, cols) = (3, 5);
        let stored: Vec<f32> = (0..15).map(|i| i as f32).collect();
        let mirrored: Vec<f32> = (0..15).map(|i| stored[(i % rows) * cols + i / rows]).collect();
        let (plain, transposed) = (Matrix::new(&stored, rows, cols), Matrix::new(&mirrored, cols, rows).t());
        let (mut left, mut right) = ([f64::NAN; 6], [f64::NAN; 6]);
        let left = plain.widen_columns(2..4, &mut left);
        let right = transposed.widen_columns(2..4, &mut right);
        assert_eq!(left.data(), [2.0, 3.0, 7.0, 8.0, 12.0, 13.0]);
        assert_eq!(right.data(), [2.0, 7.0, 12.0, 3.0, 8.0, 13.0]);
        assert_eq!([left.rows(), left.cols()], [right.rows(), right.cols()]);
    }
}
