//! The formulas by the book, in double precision: what tests compare with.

pub(super) type Matrix = Vec<Vec<f64>>;

pub(super) fn transposed(a: &Matrix) -> Matrix {
    (0..a[0].len()).map(|col| a.iter().map(|row| row[col]).collect()).collect()
}

pub(super) fn product(a: &Matrix, b: &Matrix) -> Matrix {
    let b = transposed(b);
    a.iter().map(|row| b.iter().map(|col| row.iter().zip(col).map(|(x, y)| x * y).sum()).collect()).collect()
}

/// I + scale·S Sᵀ
pub(super) fn damped(s: &Matrix, scale: f64) -> Matrix {
    let mut gram = product(s, &transposed(s));
    for (row, values) in gram.iter_mut().enumerate() {
        values.iter_mut().for_each(|value| *value *= scale);
        values[row] += 1.0;
    }
    gram
}

/// By elimination: the matrices are positive definite.
pub(super) fn solve(mut matrix: Matrix, mut right: Matrix) -> Matrix {
    for pivot in 0..matrix.len() {
        let (pivot_row, pivot_right) = (matrix[pivot].clone(), right[pivot].clone());
        for row in (0..matrix.len()).filter(|row| *row != pivot) {
            let factor = matrix[row][pivot] / pivot_row[pivot];
            matrix[row].iter_mut().zip(&pivot_row).for_each(|(value, above)| *value -= factor * above);
            right[row].iter_mut().zip(&pivot_right).for_each(|(value, above)| *value -= factor * above);
        }
    }
    right
        .iter()
        .enumerate()
        .map(|(row, values)| values.iter().map(|value| value / matrix[row][row]).collect())
        .collect()
}
