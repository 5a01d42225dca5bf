//! Inverses of damped Gram matrices.

use faer::reborrow::{Reborrow, ReborrowMut};
use faer::{Accum, MatRef};

use super::cholesky::Cholesky;
use super::factors::factorise;
use super::matrix::{RowMajorMut, row_major_mut};
use super::parts::{TILE, Target};
use super::products::{Threads, multiply};
use super::sweep::{self, Sweep};
use super::{Matrix, ProductError, Scalar};

/// Why a damped Gram matrix was not inverted.
#[derive(Debug)]
pub(super) enum Breakdown {
    /// It has a NaN or an infinity.
    NotFinite,
    /// The pivot with this zero-based index was not positive.
    Pivot(usize),
    /// A product failed.
    Product(ProductError),
}

impl From<ProductError> for Breakdown {
    fn from(error: ProductError) -> Self {
        Self::Product(error)
    }
}

/// What is known of M = I + S, where S = s·x xᵀ.
#[derive(Clone, Copy, Debug)]
pub(super) struct Damped {
    /// Spectral norm, estimated.
    pub(super) norm: f64,
    /// tr S = s·‖x‖² in the Frobenius norm.
    pub(super) trace: f64,
    /// ‖S‖² in the Frobenius norm, but for rounding errors of ‖M‖².
    pub(super) square: f64,
}

/// A symmetric matrix that is damped and inverted in place; keeps its buffers from call to call.
#[derive(Default)]
pub(super) struct Inverter<T> {
    matrix: Vec<T>,
    solved: Vec<T>,
    sweep: Sweep<T>,
    vectors: Vec<T>,
    cholesky: Cholesky,
}

impl<T: Scalar> Inverter<T> {
    /// The matrix, order×order, of whatever the last call left.
    pub(super) fn matrix_mut(&mut self, order: usize) -> &mut [T] {
        resized(&mut self.matrix, order * order)
    }

    /// The matrix, order×order, of whatever the last call left.
    pub(super) fn matrix(&self, order: usize) -> Matrix<'_, T> {
        Matrix::new(&self.matrix[..order * order], order, order)
    }

    /// Replaces the matrix S by I + S.
    pub(super) fn damp(&mut self, order: usize) -> Result<Damped, Breakdown> {
        let mut trace = 0.0;
        for diagonal in self.matrix_mut(order).iter_mut().step_by(order + 1) {
            trace += diagonal.to_f64();
            *diagonal += T::from_f64(1.0);
        }
        let [norm, square] = norms(&self.matrix[..order * order], order, &mut self.vectors);
        let square = square - 2.0 * trace - order as f64;
        if norm.is_finite() { Ok(Damped { norm, trace, square }) } else { Err(Breakdown::NotFinite) }
    }

    /// Replaces the matrix, which must be finite, by its inverse.
    ///
    /// A product of the inverse may have lost the square of the condition number.
    pub(super) fn invert_quickly(&mut self, order: usize, threads: &impl Threads) -> Result<(), Breakdown> {
        let matrix = resized(&mut self.matrix, order * order);
        let solved = resized(&mut self.solved, solved_len(order));
        invert(matrix, [order, order], solved, &mut self.sweep, threads)
    }

    /// Replaces the matrix, which must be finite, by its factors.
    pub(super) fn factorise(&mut self, order: usize, threads: &impl Threads) -> Result<(), Breakdown> {
        factorise(resized(&mut self.matrix, order * order), order, &mut self.sweep, threads)
    }

    /// Of the matrix, which has become an inverse V = M⁻¹: tr(V − V²) = tr(V (M − I) V) = s·‖V x‖² in the Frobenius norm.
    pub(super) fn remainder(&self, order: usize) -> f64 {
        let rows = || self.matrix[..order * order].chunks_exact(order).enumerate();
        let trace: f64 = rows().map(|(row, elements)| elements[row].to_f64()).sum();
        // By the rows below the diagonal, which are half of what is not on it.
        let squares = |below: f64, (row, elements): (usize, &[T])| {
            below + sum_of_squares(&elements[..row]) + 0.5 * elements[row].to_f64().powi(2)
        };
        trace - 2.0 * pulp::Arch::new().dispatch(|| rows().fold(0.0, squares))
    }

    /// The spectral norm of the matrix, estimated.
    pub(super) fn norm(&mut self, order: usize) -> f64 {
        let [norm, _] = norms(&self.matrix[..order * order], order, &mut self.vectors);
        norm
    }

    /// Multiplies the matrix by `factor`.
    pub(super) fn scale(&mut self, order: usize, factor: f64) {
        if factor != 1.0 {
            let factor = T::from_f64(factor);
            self.matrix[..order * order].iter_mut().for_each(|element| *element *= factor);
        }
    }
}

impl Inverter<f64> {
    /// Replaces the matrix, which must be finite, by its inverse, as accurately as [`Cholesky`] does.
    pub(super) fn invert_accurately(&mut self, order: usize) -> Result<(), Breakdown> {
        let matrix = resized(&mut self.matrix, order * order);
        self.cholesky.invert(matrix, order).map_err(Breakdown::Pivot)
    }
}

/// The first `len` elements of a buffer that only ever grows.
pub(super) fn resized<T: Scalar>(buffer: &mut Vec<T>, len: usize) -> &mut [T] {
    if buffer.len() < len {
        buffer.resize(len, T::default());
    }
    &mut buffer[..len]
}

/// Orders of the two blocks that a matrix is split into.
fn halves(order: usize) -> [usize; 2] {
    let first = (order / 2).next_multiple_of(TILE);
    [first, order - first]
}

/// Elements that [`invert`] needs for X.
fn solved_len(order: usize) -> usize {
    if order <= sweep::LARGEST {
        return 0;
    }
    let [h, k] = halves(order);
    h * k + solved_len(h).max(solved_len(k))
}

/// Inverts a symmetric positive definite matrix in place, of which only what is on and below the diagonal is read;
/// `stride` elements lie between two rows. Above a certain order by blocks, so that almost all of it is products: with
/// X = B A⁻¹,
///
/// ```text
/// | A  Bᵀ |⁻¹   | A⁻¹ + Xᵀ S⁻¹ X   −Xᵀ S⁻¹ |
/// | B  C  |   = |     −S⁻¹ X           S⁻¹ |    where S = C − X Bᵀ
/// ```
fn invert<T: Scalar>(
    matrix: &mut [T],
    [order, stride]: [usize; 2],
    solved: &mut [T],
    sweep: &mut Sweep<T>,
    threads: &impl Threads,
) -> Result<(), Breakdown> {
    if order <= sweep::LARGEST {
        return sweep.invert(matrix, [order, stride]).map_err(Breakdown::Pivot);
    }
    let [h, k] = halves(order);
    let (x, rest) = solved.split_at_mut(h * k);
    let mut x = row_major_mut(x, [k, h], h);
    let one = T::from_f64(1.0);
    invert(matrix, [h, stride], rest, sweep, threads)?;
    let Blocks { a, b, c, .. } = blocks(matrix, [order, stride], h);
    multiply(Target::Plain(x.rb_mut()), Accum::Replace, [view(&b), view(&a)], one, threads)?;
    multiply(Target::Symmetric(c), Accum::Add, [view(&x), view(&b).transpose()], -one, threads)?;
    invert(&mut matrix[h * stride + h..], [k, stride], rest, sweep, threads).map_err(|error| match error {
        Breakdown::Pivot(index) => Breakdown::Pivot(h + index),
        other => other,
    })?;
    let Blocks { a, mut b, b_transposed, c } = blocks(matrix, [order, stride], h);
    multiply(Target::Reflected(b.rb_mut(), b_transposed), Accum::Replace, [view(&c), view(&x)], -one, threads)?;
    multiply(Target::Symmetric(a), Accum::Add, [view(&x).transpose(), view(&b)], -one, threads)?;
    Ok(())
}

struct Blocks<'a, T> {
    a: RowMajorMut<'a, T>,
    b: RowMajorMut<'a, T>,
    b_transposed: RowMajorMut<'a, T>,
    c: RowMajorMut<'a, T>,
}

/// The blocks of a matrix, where A is of order `h`.
fn blocks<T>(matrix: &mut [T], [order, stride]: [usize; 2], h: usize) -> Blocks<'_, T> {
    let (a, b_transposed, b, c) = row_major_mut(matrix, [order, order], stride).split_at_mut(h, h);
    Blocks { a, b, b_transposed, c }
}

fn view<'a, T>(matrix: &'a RowMajorMut<'_, T>) -> MatRef<'a, T> {
    matrix.rb().as_dyn_stride()
}

/// An estimate of the largest eigenvalue of a symmetric positive semidefinite matrix other than zero, from below, by power
/// iteration: close when one stands out, as that of the mean does, and within a factor of two or so otherwise. Never below
/// 1/√order of it. Infinite or NaN as soon as one element is. And the square of the Frobenius norm.
fn norms<T: Scalar>(matrix: &[T], order: usize, buffer: &mut Vec<T>) -> [f64; 2] {
    let (vector, product) = resized(buffer, 2 * order).split_at_mut(order);
    pulp::Arch::new().dispatch(PowerIteration { matrix, vector, product })
}

/// The work, compiled for each kind of processor; all that it calls must be inlined.
struct PowerIteration<'a, T> {
    matrix: &'a [T],
    vector: &'a mut [T],
    product: &'a mut [T],
}

impl<T: Scalar> pulp::WithSimd for PowerIteration<'_, T> {
    type Output = [f64; 2];

    #[inline(always)]
    fn with_simd<S: pulp::Simd>(self, _: S) -> [f64; 2] {
        let Self { matrix, vector, product } = self;
        // Any fixed vector to start from is orthogonal to some matrix's eigenvector. The longest row can't be: it is as
        // long as the eigenvalue times the largest element of the eigenvector at least. Rows are columns, whose sums are
        // made side by side.
        sum_rows(matrix, product, |_, element, sum| element.mul_add(element, sum));
        let square = product.iter().map(|square| square.to_f64()).sum();
        let longest =
            (1..product.len()).fold(0, |longest, row| if product[row] > product[longest] { row } else { longest });
        vector.copy_from_slice(&matrix[longest * vector.len()..][..vector.len()]);
        let mut spectral = sum_of_squares(vector).sqrt();
        // Divided by infinity, nothing would be left of it.
        if !spectral.is_finite() {
            return [spectral, square];
        }
        for _ in 0..3 {
            let scale = T::from_f64(1.0 / spectral);
            vector.iter_mut().for_each(|element| *element *= scale);
            sum_rows(matrix, product, |row, element, sum| vector[row].mul_add(element, sum));
            spectral = sum_of_squares(product).sqrt();
            vector.copy_from_slice(product);
        }
        [spectral, square]
    }
}

/// Sums what `add` makes of each row and its elements, beginning with zeros. As long as there are, four rows at a time: what a row adds has to
/// wait until the sums with the row before are in memory.
#[inline(always)]
fn sum_rows<T: Scalar>(matrix: &[T], sums: &mut [T], add: impl Fn(usize, T, T) -> T) {
    sums.fill(T::default());
    let order = sums.len();
    let mut fours = matrix.chunks_exact(4 * order);
    let mut first = 0;
    for four in &mut fours {
        let (a, rest) = four.split_at(order);
        let (b, rest) = rest.split_at(order);
        let (c, d) = rest.split_at(order);
        for ((((sum, a), b), c), d) in sums.iter_mut().zip(a).zip(b).zip(c).zip(d) {
            *sum = add(first + 3, *d, add(first + 2, *c, add(first + 1, *b, add(first, *a, *sum))));
        }
        first += 4;
    }
    for (row, elements) in fours.remainder().chunks_exact(order).enumerate() {
        for (sum, element) in sums.iter_mut().zip(elements) {
            *sum = add(first + row, *element, *sum);
        }
    }
}

#[inline(always)]
fn sum_of_squares<T: Scalar>(vector: &[T]) -> f64 {
    // Several sums at a time, so that no addition has to wait for the one before.
    let mut sums = [0.0; 16];
    let (chunks, rest) = vector.as_chunks::<16>();
    for chunk in chunks {
        for (sum, element) in sums.iter_mut().zip(chunk) {
            *sum += element.to_f64().powi(2);
        }
    }
    sums.iter().sum::<f64>() + rest.iter().map(|element| element.to_f64().powi(2)).sum::<f64>()
}

#[cfg(test)]
mod tests {
    use super::super::products::{Products, plain::Plain};
    use super::*;

    /// A matrix with entries of mixed size and sign: S = x xᵀ with x[i][k] = sin(i·k + i).
    fn gram(order: usize) -> Vec<f64> {
        let x = |i: usize, k: usize| ((i * k + i) as f64).sin();
        let entry = |i: usize, j: usize| (0..order + 3).map(|k| x(i, k) * x(j, k)).sum();
        (0..order * order).map(|index| entry(index / order, index % order)).collect()
    }

    #[test]
    fn inverse_times_matrix_is_the_identity_at_every_size() {
        for order in (1..=70).chain([96, 111, 112, 113, 127, 128, 129, 200, 257]) {
            let (mut quick, mut accurate) = (Inverter::<f64>::default(), Inverter::<f64>::default());
            for inverter in [&mut quick, &mut accurate] {
                inverter.matrix_mut(order).copy_from_slice(&gram(order));
                inverter.scale(order, 0.3);
                inverter.damp(order).unwrap();
            }
            let damped = accurate.matrix(order).data().to_vec();
            quick.invert_quickly(order, &Plain).unwrap();
            accurate.invert_accurately(order).unwrap();
            for inverter in [&quick, &accurate] {
                let mut identity = vec![0.0; order * order];
                Plain
                    .multiply(Matrix::new(&damped, order, order), inverter.matrix(order), None, &mut identity)
                    .unwrap();
                identity.iter_mut().step_by(order + 1).for_each(|diagonal| *diagonal -= 1.0);
                let error = identity.iter().fold(0.0f64, |largest, element| largest.max(element.abs()));
                assert!(error < 1e-11, "order {order}: {error:e}");
            }
        }
    }

    #[test]
    fn norms_are_estimated() {
        let order = 20;
        let mut inverter = Inverter::<f32>::default();
        inverter.matrix_mut(order).fill(3.0);
        inverter.scale(order, 0.5);
        let Damped { norm, trace, square } = inverter.damp(order).unwrap();
        assert!((norm - 31.0).abs() < 0.1, "1 + 0.5·3·20, not {norm}");
        assert_eq!(trace, 30.0);
        assert!((square - 900.0).abs() < 1e-3, "1.5²·20², not {square}");
        inverter.invert_quickly(order, &Plain).unwrap();
        let (norm, remainder) = (inverter.norm(order), inverter.remainder(order));
        assert!((0.5..=1.0 + 1e-6).contains(&norm), "1 in 19 of 20 directions, not {norm}");
        let exact = 30.0 / (31.0 * 31.0);
        assert!((remainder / exact - 1.0).abs() < 1e-3, "{exact}, not {remainder}");
    }

    #[test]
    fn no_eigenvector_hides_from_the_estimate() {
        // I + 9·q qᵀ with unit vectors q in all directions, among them some that are orthogonal to any given one.
        for seed in 1..20_000u32 {
            let order = 2 + seed as usize % 7;
            let q: Vec<f64> = (0..order).map(|i| f64::from(seed * (i as u32 * 7 + 3)).sin()).collect();
            let square = sum_of_squares(&q);
            let mut inverter = Inverter::<f32>::default();
            let matrix = inverter.matrix_mut(order).iter_mut().enumerate();
            matrix.for_each(|(e, out)| *out = (q[e / order] * q[e % order] / square) as f32);
            inverter.scale(order, 9.0);
            let Damped { norm, .. } = inverter.damp(order).unwrap();
            assert!((9.9..=10.0 + 1e-5).contains(&norm), "order {order}, seed {seed}: {norm}");
        }
    }

    #[test]
    fn buffers_of_a_larger_matrix_serve_a_smaller_one() {
        let mut inverter = Inverter::<f32>::default();
        for order in [150, 3, 20] {
            inverter.matrix_mut(order).fill(0.0);
            inverter.damp(order).unwrap();
            inverter.invert_quickly(order, &Plain).unwrap();
            let identity: Vec<f32> = (0..order * order).map(|e| f32::from(e / order == e % order)).collect();
            assert_eq!(inverter.matrix(order).data(), identity);
        }
    }

    #[test]
    fn breakdowns_are_told_apart() {
        let mut inverter = Inverter::<f32>::default();
        for bad in [f32::NAN, f32::INFINITY, f32::NEG_INFINITY] {
            inverter.matrix_mut(3).copy_from_slice(&[1.0, 0.0, 0.0, 0.0, 1.0, bad, 0.0, bad, 1.0]);
            assert!(matches!(inverter.damp(3), Err(Breakdown::NotFinite)));
        }
        for (order, pivot) in [(3, 2), (100, 57), (150, 149), (230, 120)] {
            inverter.matrix_mut(order).fill(0.0);
            inverter.matrix_mut(order)[pivot * (order + 1)] = -3.0;
            inverter.damp(order).unwrap();
            let broken = inverter.invert_quickly(order, &Plain);
            assert!(matches!(broken, Err(Breakdown::Pivot(index)) if index == pivot), "{broken:?}");
            let mut accurate = Inverter::<f64>::default();
            accurate.matrix_mut(order).fill(0.0);
            accurate.matrix_mut(order)[pivot * (order + 1)] = -3.0;
            accurate.damp(order).unwrap();
            let broken = accurate.invert_accurately(order);
            assert!(matches!(broken, Err(Breakdown::Pivot(index)) if index == pivot), "{broken:?}");
        }
    }
}
