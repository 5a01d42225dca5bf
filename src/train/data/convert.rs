//! From what the data has to what an input takes.

use crate::model::{Dim, TensorType, name_of};
use crate::proto::tensor_proto::DataType;
use crate::tensors::{Element, Tensor, width, with_element};

/// How many elements are numbers at a time.
const BLOCK: usize = 4096;

/// `tensor` in the element type and the shape of an input.
pub(super) fn convert(tensor: &Tensor, input: &TensorType) -> Result<Tensor, String> {
    let elem = DataType::try_from(input.elem).map_err(|_| "the input's element type is unknown")?;
    with_type(with_rows(tensor, input)?, elem)
}

/// The same numbers in another type: floats are rounded, and integers have to be what they are.
fn with_type(tensor: Tensor, elem: DataType) -> Result<Tensor, String> {
    if tensor.elem() == elem {
        return Ok(tensor);
    }
    let (Some(old_width), Some(new_width)) = (width(tensor.elem()), width(elem)) else {
        return Err(format!("the data is {}, and inputs of type {} are not fed", tensor.describe(), name_of(elem)));
    };
    let mut data = Vec::with_capacity(tensor.data().len() / old_width * new_width);
    let mut numbers = Vec::with_capacity(BLOCK);
    for block in tensor.data().chunks(BLOCK * old_width) {
        numbers.clear();
        with_element!(tensor.elem(), T => numbers.extend(block.chunks_exact(old_width).map(|bytes| T::read(bytes).number())), ());
        let misfit = with_element!(elem, T => append::<T>(&numbers, elem, &mut data), None);
        if let Some(number) = misfit {
            return Err(format!(
                "the data is {} and holds {number}, which {} does not have",
                tensor.describe(),
                name_of(elem)
            ));
        }
    }
    Tensor::new(elem, tensor.shape().to_vec(), data.into())
}

/// Appends numbers as elements; returns the first that the type does not have, if one is.
fn append<E: Element>(numbers: &[f64], elem: DataType, data: &mut Vec<u8>) -> Option<f64> {
    for &number in numbers {
        let is_boolean = elem != DataType::Bool || number == 0.0 || number == 1.0;
        match E::from_number(number).filter(|_| is_boolean) {
            Some(element) if element.number().is_finite() || !number.is_finite() => element.append(data),
            _ => return Some(number),
        }
    }
    None
}

/// The same rows in the shape that the input has for each: axes of size one come and go, and a row is flattened or unflattened.
/// Axes are not reordered, so other shapes are refused even if they have as many elements.
fn with_rows(tensor: &Tensor, input: &TensorType) -> Result<Tensor, String> {
    let unfit = || format!("the input is {input}, and the data {}", tensor.describe());
    let Some((count, row)) = tensor.shape().split_first() else {
        return Err(format!("{}: there is no axis of examples", unfit()));
    };
    let Some(wanted) = &input.shape else { return Ok(tensor.clone()) };
    let Some((_, wanted)) = wanted.split_first() else {
        return Err(format!("{}: there is no axis of examples", unfit()));
    };
    let is_fit = |(size, dim): (&usize, &Dim)| dim.known().is_none_or(|known| known == *size as u64);
    if row.len() == wanted.len() && row.iter().zip(wanted).all(is_fit) {
        return Ok(tensor.clone());
    }
    let sizes: Option<Vec<usize>> = wanted.iter().map(|dim| usize::try_from(dim.known()?).ok()).collect();
    let sizes = sizes.ok_or_else(unfit)?;
    let long = |sizes: &[usize]| sizes.iter().copied().filter(|&size| size != 1).collect::<Vec<usize>>();
    let (old, new) = (long(row), long(&sizes));
    let is_row = old == new || (old.len() <= 1 || new.len() <= 1) && product(&old) == product(&new);
    if !is_row {
        return Err(unfit());
    }
    let shape = std::iter::once(*count).chain(sizes).collect();
    tensor.clone().reshaped(shape)
}

fn product(sizes: &[usize]) -> Option<usize> {
    sizes.iter().try_fold(1_usize, |product, &size| product.checked_mul(size))
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;
    use half::{bf16, f16};

    use super::*;

    fn input(elem: DataType, sizes: &[i64]) -> TensorType {
        let dim = |&size: &i64| u64::try_from(size).map_or(Dim::Unknown, Dim::Known);
        TensorType { elem: elem as i32, shape: Some(sizes.iter().map(dim).collect()) }
    }

    #[test]
    fn numbers_stay_what_they_are() {
        let numbers = [0.0, 1.0, 3.0, 100.0];
        let all = [
            Tensor::of(&[4], &numbers),
            Tensor::of(&[4], &numbers.map(|x| x as f32)),
            Tensor::of(&[4], &numbers.map(f16::from_f64)),
            Tensor::of(&[4], &numbers.map(bf16::from_f64)),
            Tensor::of(&[4], &numbers.map(|x| x as i64)),
            Tensor::of(&[4], &numbers.map(|x| x as i32)),
            Tensor::of(&[4], &numbers.map(|x| x as i16)),
            Tensor::of(&[4], &numbers.map(|x| x as i8)),
            Tensor::of(&[4], &numbers.map(|x| x as u64)),
            Tensor::of(&[4], &numbers.map(|x| x as u32)),
            Tensor::of(&[4], &numbers.map(|x| x as u16)),
            Tensor::of(&[4], &numbers.map(|x| x as u8)),
        ];
        for from in &all {
            for to in &all {
                assert_eq!(convert(from, &input(to.elem(), &[-1])).as_ref(), Ok(to), "{}", from.describe());
            }
        }
    }

    #[test]
    fn many_elements_keep_their_places() {
        let bytes: Vec<u8> = (0..2 * BLOCK + 7).map(|at| (at % 251) as u8).collect();
        let floats: Vec<f32> = bytes.iter().map(|&byte| f32::from(byte)).collect();
        let found = convert(&Tensor::of(&[bytes.len()], &bytes), &input(DataType::Float, &[-1]));
        assert_eq!(found, Ok(Tensor::of(&[floats.len()], &floats)));
    }

    #[test]
    fn floats_are_rounded_and_keep_what_is_no_number() {
        let found = convert(&Tensor::of(&[3], &[0.1, f64::NAN, f64::INFINITY]), &input(DataType::Float, &[3]));
        let found = found.expect("floats").elements::<f32>().expect("floats");
        assert!(found[0] == 0.1_f32 && found[1].is_nan() && found[2] == f32::INFINITY);
        let booleans = Tensor::new(DataType::Bool, vec![2], Bytes::from_static(&[0, 1])).expect("booleans");
        assert_eq!(convert(&booleans, &input(DataType::Float, &[2])), Ok(Tensor::of(&[2], &[0.0_f32, 1.0])));
        assert_eq!(convert(&Tensor::of(&[2], &[0.0_f32, 1.0]), &input(DataType::Bool, &[2])), Ok(booleans));
    }

    #[test]
    fn what_a_type_does_not_have_is_refused() {
        let two_to_53 = 1_i64 << 53;
        for (tensor, elem, number) in [
            (Tensor::of(&[2], &[1.0, 2.5]), DataType::Int64, "2.5"),
            (Tensor::of(&[1], &[f64::NAN]), DataType::Int32, "NaN"),
            (Tensor::of(&[1], &[-1_i64]), DataType::Uint8, "-1"),
            (Tensor::of(&[1], &[3_000_000_000_u32]), DataType::Int32, "3000000000"),
            (Tensor::of(&[1], &[two_to_53 + 2]), DataType::Uint64, "9007199254740994"),
            (Tensor::of(&[1], &[1e39]), DataType::Float, "1000000000000000000000000000000000000000"),
            (Tensor::of(&[1], &[70000.0_f32]), DataType::Float16, "70000"),
            (Tensor::of(&[1], &[2_u8]), DataType::Bool, "2"),
        ] {
            let error = convert(&tensor, &input(elem, &[-1])).expect_err(number);
            assert!(error.contains(&format!("holds {number}, which")), "{error}");
        }
        assert!(convert(&Tensor::of(&[1], &[1_i64]), &input(DataType::String, &[-1])).is_err());
    }

    #[test]
    fn rows_take_the_input_s_shape() {
        let shape = |from: &[usize], to: &[i64]| {
            let tensor = Tensor::of(from, &vec![0.0_f32; from.iter().product()]);
            convert(&tensor, &input(DataType::Float, to)).map(|tensor| tensor.shape().to_vec())
        };
        for (from, to, expected) in [
            (&[2, 784][..], &[-1, 1, 28, 28][..], &[2, 1, 28, 28][..]),
            (&[2, 28, 28], &[-1, 784], &[2, 784]),
            (&[2, 28, 28], &[60, 1, 28, 28], &[2, 1, 28, 28]),
            (&[2, 28, 28, 1], &[-1, 1, 28, 28], &[2, 1, 28, 28]),
            (&[2, 1], &[-1], &[2]),
            (&[2], &[-1, 1], &[2, 1]),
            (&[2, 7], &[-1, -1], &[2, 7]),
            (&[0, 784], &[-1, 1, 28, 28], &[0, 1, 28, 28]),
        ] {
            assert_eq!(shape(from, to).as_deref(), Ok(expected));
        }
        // Channels that come last stay last; unknown sizes are not guessed; there must be an axis of examples.
        for (from, to) in [
            (&[2, 32, 32, 3][..], &[-1, 3, 32, 32][..]),
            (&[2, 4, 3], &[-1, 3, 4]),
            (&[2, 3, 4], &[-1, -1]),
            (&[2, 783], &[-1, 784]),
            (&[2, 0], &[-1, 1]),
            (&[], &[-1]),
            (&[2], &[]),
        ] {
            let error = shape(from, to).expect_err("another shape");
            assert!(error.contains(&format!("float{from:?}")), "{error}");
        }
        let any = TensorType { elem: DataType::Float as i32, shape: None };
        assert_eq!(convert(&Tensor::of(&[1], &[1.0]), &any), Ok(Tensor::of(&[1], &[1.0_f32])));
    }
}
