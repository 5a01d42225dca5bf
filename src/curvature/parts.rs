//! How the results of products are parted, for threads and for caches. Which parts there are changes nothing about the numbers.
//!
//! A part is a band of whole rows, and bands that follow each other go to the same thread if that can be: where two cores write
//! what lies closely together, as strips of the same rows do, each takes the other's lines before they are full.

use std::sync::{Mutex, PoisonError};

use faer::reborrow::{Reborrow, ReborrowMut};

use super::matrix::{RowMajor, RowMajorMut};
use super::{ProductError, Scalar, Threads};

/// Flops of a share: fewer take hardly more time than it takes to hand them to a thread.
const SHARE: usize = 500_000;

/// Elements of the left operand for a band, at most, so that they stay in the caches. Where there are bands for all threads, larger ones
/// are better: each brings all columns of the right operand into the kernels' order.
const LARGE: usize = 100_000;

/// Rows of a band, at least, where there are bands for all threads.
const HIGH: usize = 96;

/// Rows of a band, at least.
const LOW: usize = 30;

/// Rows of a band of a symmetric result, of which what lies below the diagonal is computed for nothing: at least and at most.
const SYMMETRIC: [usize; 2] = [48, 64];

/// Rows and columns of a tile that is transposed in registers. The height of a band is a multiple of it.
pub(super) const TILE: usize = 16;

/// Where a product is written.
pub(super) enum Target<'a, T> {
    /// Here.
    Plain(RowMajorMut<'a, T>),
    /// Here, and its transpose there.
    Reflected(RowMajorMut<'a, T>, RowMajorMut<'a, T>),
    /// Here, where it is symmetric: what is above the diagonal is computed and reflected.
    Symmetric(RowMajorMut<'a, T>),
}

impl<'a, T: Scalar> Target<'a, T> {
    /// Computes it with `compute`, band by band, where each element is a sum of `inner` terms.
    pub(super) fn compute(
        self,
        inner: usize,
        threads: &impl Threads,
        compute: impl Fn(&mut Band<'a, T>) + Sync,
    ) -> Result<(), ProductError> {
        let [rows, _] = self.shape();
        let count = match self {
            Self::Plain(_) | Self::Reflected(..) => {
                let for_caches = rows / (LARGE / inner).max(HIGH);
                let for_threads = threads.most().min(rows / LOW).max(1);
                for_caches.max(1).next_multiple_of(for_threads).min(self.flops(inner) / SHARE)
            }
            Self::Symmetric(_) => {
                let [least, most] = SYMMETRIC;
                rows.div_ceil(rows.div_ceil(4).next_multiple_of(TILE).clamp(least, most))
            }
        };
        self.compute_bands(count, inner, threads, compute)
    }

    /// As [`Self::compute`], in so many bands.
    pub(super) fn compute_bands(
        self,
        count: usize,
        inner: usize,
        threads: &impl Threads,
        compute: impl Fn(&mut Band<'a, T>) + Sync,
    ) -> Result<(), ProductError> {
        let tasks = count.min(self.flops(inner) / SHARE);
        let bands = Mutex::new(Bands { others: Some(self), count, row: 0 });
        let work = |task: usize| {
            let take = || bands.lock().unwrap_or_else(PoisonError::into_inner).take(task % 2 == 1);
            while let Some(mut band) = take() {
                compute(&mut band);
                band.reflect();
            }
        };
        if tasks < 2 {
            work(0);
            return Ok(());
        }
        threads.for_each(tasks, &work)
    }

    fn flops(&self, inner: usize) -> usize {
        let [rows, cols] = self.shape();
        match self {
            Self::Plain(_) | Self::Reflected(..) => 2 * rows * cols * inner,
            Self::Symmetric(_) => rows * cols * inner,
        }
    }

    pub(super) fn shape(&self) -> [usize; 2] {
        let (Self::Plain(out) | Self::Reflected(out, _) | Self::Symmetric(out)) = self;
        [out.nrows(), out.ncols()]
    }
}

/// Writes `out` in strips of so many columns with `write`, which is given the first of them.
pub(super) fn for_each_strip<'a, T: Scalar>(
    out: RowMajorMut<'a, T>,
    width: usize,
    threads: &impl Threads,
    write: impl Fn(usize, RowMajorMut<'a, T>) + Sync,
) -> Result<(), ProductError> {
    let strips = out.ncols().div_ceil(width);
    let others = Mutex::new((0, Some(out)));
    threads.for_each(strips, &|_| {
        let (col, strip) = {
            let mut others = others.lock().unwrap_or_else(PoisonError::into_inner);
            let (col, out) = (others.0, others.1.take().expect("as many strips as calls"));
            let width = width.min(out.ncols());
            let (strip, right) = out.split_at_col_mut(width);
            *others = (col + width, Some(right));
            (col, strip)
        };
        write(col, strip);
    })
}

/// Bands that are left to be computed.
struct Bands<'a, T> {
    others: Option<Target<'a, T>>,
    /// How many there are to be, if there are rows for so many.
    count: usize,
    /// The first row.
    row: usize,
}

impl<'a, T: Scalar> Bands<'a, T> {
    /// The first one, or, if that can be, the last one.
    fn take(&mut self, last: bool) -> Option<Band<'a, T>> {
        let others = self.others.take()?;
        let [rows, _] = others.shape();
        let height = if self.count > 1 { rows.div_ceil(self.count).next_multiple_of(TILE).min(rows) } else { rows };
        self.count -= usize::from(self.count > 1);
        let row = self.row;
        let (band, others) = match others {
            Target::Plain(out) if last => {
                let (others, out) = out.split_at_row_mut(rows - height);
                (Band { out, start: [row + rows - height, 0], on_diagonal: 0, reflection: None }, Target::Plain(others))
            }
            Target::Plain(out) => {
                let (out, others) = out.split_at_row_mut(height);
                self.row += height;
                (Band { out, start: [row, 0], on_diagonal: 0, reflection: None }, Target::Plain(others))
            }
            Target::Reflected(out, reflection) => {
                let (out, others) = out.split_at_row_mut(height);
                let (reflection, right) = reflection.split_at_col_mut(height);
                self.row += height;
                let reflection = Some(reflection);
                (Band { out, start: [row, 0], on_diagonal: 0, reflection }, Target::Reflected(others, right))
            }
            Target::Symmetric(out) => {
                let (out, below) = out.split_at_row_mut(height);
                let (reflection, others) = below.split_at_col_mut(height);
                self.row += height;
                let reflection = Some(reflection);
                (Band { out, start: [row, row], on_diagonal: height, reflection }, Target::Symmetric(others))
            }
        };
        self.others = (height < rows).then_some(others);
        Some(band)
    }
}

/// Rows of a product's result, in a symmetric one from the diagonal on.
pub(super) struct Band<'a, T> {
    pub(super) out: RowMajorMut<'a, T>,
    /// Its first row and column in the whole.
    pub(super) start: [usize; 2],
    /// So many of its columns, the first ones, are a block on the diagonal of a symmetric result, or none.
    on_diagonal: usize,
    /// Where the others are to be found once more, transposed.
    reflection: Option<RowMajorMut<'a, T>>,
}

impl<T: Scalar> Band<'_, T> {
    fn reflect(self) {
        let Some(reflection) = self.reflection else { return };
        let (diagonal, others) = self.out.split_at_col_mut(self.on_diagonal);
        reflect_block(diagonal);
        write_transpose(others.rb(), reflection);
    }
}

/// Writes what is above the diagonal below it.
fn reflect_block<T: Scalar>(block: RowMajorMut<'_, T>) {
    let order = block.ncols();
    if order == 0 {
        return;
    }
    let tile = TILE.min(order);
    let (band, below) = block.split_at_row_mut(tile);
    let (mut diagonal, right) = band.split_at_col_mut(tile);
    for row in 0..tile {
        for col in row + 1..tile {
            diagonal[(col, row)] = diagonal[(row, col)];
        }
    }
    let (reflection, others) = below.split_at_col_mut(tile);
    write_transpose(right.rb(), reflection);
    reflect_block(others);
}

/// Writes the transpose of a matrix. Tile by tile, because what is written next lies a row away.
pub(super) fn write_transpose<T: Scalar>(source: RowMajor<'_, T>, mut target: RowMajorMut<'_, T>) {
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

    /// First row and column, rows and columns of each, as one thread takes them.
    fn bands(target: Target<'_, f64>, inner: usize) -> Vec<[usize; 4]> {
        let bands = Mutex::new(Vec::new());
        let note = |band: &mut Band<'_, f64>| {
            let [row, col] = band.start;
            bands.lock().unwrap().push([row, col, band.out.nrows(), band.out.ncols()]);
        };
        target.compute(inner, &Plain, note).unwrap();
        bands.into_inner().unwrap()
    }

    #[test]
    fn rows_are_shared_evenly_where_that_is_worth_it() {
        let mut out = vec![0.0; 410 * 50];
        let mut plain = |rows: usize, inner: usize| {
            bands(Target::Plain(row_major_mut(&mut out[..rows * 50], [rows, 50], 50)), inner)
        };
        assert_eq!(plain(410, 10), [[0, 0, 410, 50]], "no two shares");
        assert_eq!(plain(410, 100), [[0, 0, 208, 50], [208, 0, 202, 50]], "one for each of two threads");
        assert_eq!(
            plain(410, 1000),
            [[0, 0, 112, 50], [112, 0, 112, 50], [224, 0, 96, 50], [320, 0, 90, 50]],
            "as many for each"
        );
        assert_eq!(plain(60, 1000), [[0, 0, 32, 50], [32, 0, 28, 50]]);
        assert_eq!(plain(59, 1000), [[0, 0, 59, 50]], "too low");
    }

    #[test]
    fn symmetric_bands_begin_at_the_diagonal() {
        let mut out = vec![0.0; 410 * 410];
        let mut symmetric =
            |order: usize| bands(Target::Symmetric(row_major_mut(&mut out[..order * order], [order, order], order)), 1);
        assert_eq!(symmetric(60), [[0, 0, 32, 60], [32, 32, 28, 28]]);
        let heights: Vec<usize> = symmetric(410).into_iter().map(|[.., height, _]| height).collect();
        assert_eq!(heights, [64, 64, 64, 64, 64, 48, 42]);
    }

    #[test]
    fn threads_begin_at_both_ends() {
        let mut out = vec![0.0; 400 * 50];
        let target = Target::Plain(row_major_mut(&mut out, [400, 50], 50));
        let mut bands = Bands { others: Some(target), count: 4, row: 0 };
        let taken: Vec<[usize; 2]> = [true, false, true, true]
            .into_iter()
            .map(|last| bands.take(last).map(|band| [band.start[0], band.out.nrows()]).unwrap())
            .collect();
        assert_eq!(taken, [[288, 112], [0, 96], [192, 96], [96, 96]]);
        assert!(bands.take(true).is_none());
    }
}
