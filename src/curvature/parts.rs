//! How the results of products are parted, for threads and for caches. Which parts there are changes nothing about the numbers.

use std::sync::{Mutex, PoisonError};

use faer::reborrow::{Reborrow, ReborrowMut};

use super::matrix::{RowMajor, RowMajorMut};
use super::{ProductError, Scalar, Threads};

/// Flops of a share: fewer take hardly more time than it takes to hand them to a thread.
const SHARE: usize = 500_000;

/// Shares of a product that has flops for so many.
const SHARES: usize = 12;

/// Rows of a part that is not all of a strip, at least: all parts of a strip bring the same columns into the kernels' order.
const HIGH: usize = 96;

/// Rows and columns of a tile that is transposed in registers. The height of a part is a multiple of it.
pub(super) const TILE: usize = 16;

/// Where a product is written.
pub(super) enum Target<'a, T> {
    /// Here.
    Plain(RowMajorMut<'a, T>),
    /// Here, and its transpose there.
    Reflected(RowMajorMut<'a, T>, RowMajorMut<'a, T>),
    /// Here, where it is symmetric: what is below the diagonal is computed and reflected.
    Symmetric(RowMajorMut<'a, T>),
}

impl<'a, T: Scalar> Target<'a, T> {
    /// Computes it with `compute`, part by part, in strips of `width` columns. Each element is a sum of `inner` terms.
    pub(super) fn compute(
        self,
        width: usize,
        inner: usize,
        threads: &impl Threads,
        compute: impl Fn(&mut Part<'a, T>) + Sync,
    ) -> Result<(), ProductError> {
        let [rows, cols] = self.shape();
        let flops = match self {
            Self::Plain(_) | Self::Reflected(..) => 2 * rows * cols * inner,
            Self::Symmetric(_) => rows * cols * inner,
        };
        let (shares, strips) = ((flops / SHARE).clamp(1, SHARES), cols.div_ceil(width));
        let cuts = shares.div_ceil(strips).min(rows / HIGH).max(1);
        let height = rows.div_ceil(cuts).next_multiple_of(TILE);
        let parts = Parts { others: Some(self), strip: None, col: 0, width, height };
        let finish = |mut part: Part<'a, T>| {
            compute(&mut part);
            part.reflect();
        };
        let count = shares.min(strips * cuts);
        if count == 1 {
            parts.for_each(finish);
            return Ok(());
        }
        let parts = Mutex::new(parts);
        threads.for_each(count, &|_| {
            while let Some(part) = { parts.lock().unwrap_or_else(PoisonError::into_inner).next() } {
                finish(part);
            }
        })
    }

    pub(super) fn shape(&self) -> [usize; 2] {
        let (Self::Plain(out) | Self::Reflected(out, _) | Self::Symmetric(out)) = self;
        [out.nrows(), out.ncols()]
    }

    /// Its first columns, of which `col` are gone, from the diagonal down where it is symmetric, and the others.
    fn split(self, width: usize, col: usize) -> (Part<'a, T>, Option<Self>) {
        let width = width.min(self.shape()[1]);
        let cut = |out: RowMajorMut<'a, T>| {
            let (strip, others) = out.split_at_col_mut(width);
            (strip, (others.ncols() > 0).then_some(others))
        };
        match self {
            Self::Plain(out) => {
                let (out, others) = cut(out);
                (Part { out, start: [0, col], on_diagonal: 0, reflection: None }, others.map(Self::Plain))
            }
            Self::Reflected(out, reflection) => {
                let (out, others) = cut(out);
                let (reflection, below) = reflection.split_at_row_mut(width);
                let strip = Part { out, start: [0, col], on_diagonal: 0, reflection: Some(reflection) };
                (strip, others.map(|others| Self::Reflected(others, below)))
            }
            Self::Symmetric(out) => {
                let (out, right) = cut(out);
                let (reflection, others) = right.map(|right| right.split_at_row_mut(width)).unzip();
                (Part { out, start: [col, col], on_diagonal: width, reflection }, others.map(Self::Symmetric))
            }
        }
    }
}

/// Strips of columns, each cut from top to bottom.
struct Parts<'a, T> {
    others: Option<Target<'a, T>>,
    strip: Option<Part<'a, T>>,
    /// Columns that have been cut off.
    col: usize,
    width: usize,
    height: usize,
}

impl<'a, T: Scalar> Iterator for Parts<'a, T> {
    type Item = Part<'a, T>;

    fn next(&mut self) -> Option<Part<'a, T>> {
        let strip = match self.strip.take() {
            Some(strip) => strip,
            None => {
                let (strip, others) = self.others.take()?.split(self.width, self.col);
                self.others = others;
                self.col += self.width;
                strip
            }
        };
        let (part, below) = strip.split(self.height);
        self.strip = below;
        Some(part)
    }
}

/// A part of a product's result.
pub(super) struct Part<'a, T> {
    pub(super) out: RowMajorMut<'a, T>,
    /// Its first row and column in the whole.
    pub(super) start: [usize; 2],
    /// So many of its rows, the first ones, are a block on the diagonal of a symmetric result that is to be reflected, or none.
    on_diagonal: usize,
    /// Where the others are to be found once more, transposed.
    reflection: Option<RowMajorMut<'a, T>>,
}

impl<T: Scalar> Part<'_, T> {
    /// Its first rows, among them those on the diagonal, and the others.
    fn split(self, height: usize) -> (Self, Option<Self>) {
        let Self { out, start: [row, col], on_diagonal, reflection } = self;
        let height = height.max(on_diagonal);
        if height >= out.nrows() {
            return (Self { out, start: [row, col], on_diagonal, reflection }, None);
        }
        let (out, below) = out.split_at_row_mut(height);
        let (reflection, right) =
            reflection.map(|reflection| reflection.split_at_col_mut(height - on_diagonal)).unzip();
        let first = Self { out, start: [row, col], on_diagonal, reflection };
        (first, Some(Self { out: below, start: [row + height, col], on_diagonal: 0, reflection: right }))
    }

    fn reflect(self) {
        let (mut diagonal, below) = self.out.split_at_row_mut(self.on_diagonal);
        let order = diagonal.nrows();
        if order > TILE {
            let others = Some(Target::Symmetric(diagonal));
            Parts { others, strip: None, col: 0, width: TILE, height: order }.for_each(Part::reflect);
        } else {
            for row in 1..order {
                let (mut above, row_and_below) = diagonal.rb_mut().split_at_row_mut(row);
                for (col, element) in row_and_below.rb().row(0).as_slice()[..row].iter().enumerate() {
                    above[(col, row)] = *element;
                }
            }
        }
        if let Some(reflection) = self.reflection {
            write_transpose(below.rb(), reflection);
        }
    }
}

/// Writes the transpose of a matrix. Tile by tile, because what is written next lies a row away.
fn write_transpose<T: Scalar>(source: RowMajor<'_, T>, mut target: RowMajorMut<'_, T>) {
    let (rows, cols) = (source.nrows(), source.ncols());
    for (row, col) in (0..rows).step_by(TILE).flat_map(|row| (0..cols).step_by(TILE).map(move |col| (row, col))) {
        if row + TILE <= rows && col + TILE <= cols {
            let tile: [[T; TILE]; TILE] = std::array::from_fn(|index| {
                let source = &source.row(row + index).as_slice()[col..][..TILE];
                std::array::from_fn(|col| source[col])
            });
            for index in 0..TILE {
                let target = &mut target.rb_mut().row_mut(col + index).as_slice_mut()[row..][..TILE];
                for (target, source) in target.iter_mut().zip(&tile) {
                    *target = source[index];
                }
            }
        } else {
            for row in row..rows.min(row + TILE) {
                for (col, element) in source.row(row).as_slice().iter().enumerate().skip(col).take(TILE) {
                    target[(col, row)] = *element;
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::matrix::row_major_mut;
    use super::super::products::plain::Plain;
    use super::*;

    /// First row and column, rows and columns of each.
    fn parts(target: Target<'_, f64>, width: usize, inner: usize) -> Vec<[usize; 4]> {
        let parts = Mutex::new(Vec::new());
        let note = |part: &mut Part<'_, f64>| {
            let [row, col] = part.start;
            parts.lock().unwrap().push([row, col, part.out.nrows(), part.out.ncols()]);
        };
        target.compute(width, inner, &Plain, note).unwrap();
        parts.into_inner().unwrap()
    }

    #[test]
    fn strips_are_cut_where_there_are_few_for_much_work() {
        let mut out = vec![0.0; 230 * 170];
        let mut plain = |inner| parts(Target::Plain(row_major_mut(&mut out, [230, 170], 170)), 96, inner);
        assert_eq!(plain(1), [[0, 0, 230, 96], [0, 96, 230, 74]]);
        assert_eq!(plain(15), [[0, 0, 230, 96], [0, 96, 230, 74]], "two shares");
        assert_eq!(plain(30), [[0, 0, 128, 96], [128, 0, 102, 96], [0, 96, 128, 74], [128, 96, 102, 74]], "four");
        assert_eq!(plain(1000).len(), 4, "none lower than half of the rows");
    }

    #[test]
    fn symmetric_parts_begin_at_the_diagonal() {
        let mut out = vec![0.0; 200 * 200];
        let mut symmetric = |inner| parts(Target::Symmetric(row_major_mut(&mut out, [200, 200], 200)), 96, inner);
        assert_eq!(symmetric(1), [[0, 0, 200, 96], [96, 96, 104, 96], [192, 192, 8, 8]]);
        assert_eq!(symmetric(100), [[0, 0, 112, 96], [112, 0, 88, 96], [96, 96, 104, 96], [192, 192, 8, 8]]);
    }
}
