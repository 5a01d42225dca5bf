//! An Einsum of two operands as a product of matrices, so that the gradient of a weight in it is one as well.

use super::scene::Scene;
use crate::autodiff::step::Refusal;
use crate::model::{Builder, Dim, Equation, NodeExt};
use crate::proto::NodeProto;

/// Transpose, MatMul, Transpose, with axes merged in between: [batch…, left…, inner…] · [batch…, inner…, right…]. What is no product of matrices stays an
/// Einsum, which has a gradient rule.
pub(super) fn of_matrices(scene: &Scene<'_>, node: &NodeProto) -> Result<Vec<NodeProto>, Refusal> {
    let product = Product::read(scene, node)?;
    let mut b = scene.builder(node);
    let y = product.write(&mut b, &node.input)?;
    b.name(&y, node.output.first().ok_or("it has no output")?);
    Ok(b.into_nodes())
}

/// A letter of the equation, and the size of its axes.
type Axis = (char, Dim);

struct Product {
    /// Which operand is on the left, and which on the right; their letters.
    operands: [(usize, Vec<char>); 2],
    output: Vec<char>,
    /// What both operands and the result have.
    batch: Vec<Axis>,
    /// What only one operand and the result have.
    left: Vec<Axis>,
    right: Vec<Axis>,
    /// What both operands have, and the result has not.
    inner: Vec<Axis>,
}

impl Product {
    fn read(scene: &Scene<'_>, node: &NodeProto) -> Result<Self, Refusal> {
        let shapes: Option<Vec<&[Dim]>> = (0..node.input.len()).map(|slot| scene.shape(node, slot)).collect();
        let shapes = shapes.filter(|shapes| shapes.len() == 2).ok_or("no product of two operands of known ranks")?;
        let text = String::from_utf8_lossy(node.string("equation", ""));
        let Equation { mut inputs, output, ellipsis } = Equation::parse(&text, &[shapes[0].len(), shapes[1].len()])?;
        let (second, first) = (inputs.remove(1), inputs.remove(0));
        let repeats = |letters: &[char]| (1..letters.len()).any(|at| letters[..at].contains(&letters[at]));
        if !ellipsis.is_empty() || repeats(&first) || repeats(&second) {
            return Err("an ellipsis, or a diagonal".into());
        }
        // A weight has fewer letters of its own than what it is multiplied with, and goes to the right.
        let own = |mine: &[char], other: &[char]| mine.iter().filter(|letter| !other.contains(letter)).count();
        let is_swapped = own(&second, &first) > own(&first, &second);
        let operands = if is_swapped { [(1, second), (0, first)] } else { [(0, first), (1, second)] };
        let [a, b] = &operands;
        let size = |(slot, letters): &(usize, Vec<char>), letter: char| {
            letters.iter().position(|own| *own == letter).map_or(Dim::Unknown, |at| shapes[*slot][at].clone())
        };
        let axes = |of: &(usize, Vec<char>), is_mine: &dyn Fn(char) -> bool| -> Vec<Axis> {
            of.1.iter().filter(|letter| is_mine(**letter)).map(|&letter| (letter, size(of, letter))).collect()
        };
        let (in_a, in_b) = (|c: char| a.1.contains(&c), |c: char| b.1.contains(&c));
        let in_y = |c: char| output.contains(&c);
        let product = Self {
            batch: axes(a, &|c| in_b(c) && in_y(c)),
            left: axes(a, &|c| !in_b(c) && in_y(c)),
            right: axes(b, &|c| !in_a(c) && in_y(c)),
            inner: axes(a, &|c| in_b(c) && !in_y(c)),
            output: output.clone(),
            operands: operands.clone(),
        };
        let used = product.batch.len() + product.inner.len();
        if product.inner.is_empty() || used + product.left.len() != a.1.len() || used + product.right.len() != b.1.len()
        {
            return Err("no axis is summed over, or one that only one operand has".into());
        }
        let is_repeated = |(letter, dim): &Axis| !dim.compatible(&size(b, *letter));
        if product.batch.iter().chain(&product.inner).any(is_repeated) {
            return Err("an operand is repeated along an axis".into());
        }
        Ok(product)
    }

    fn write(&self, b: &mut Builder<'_>, inputs: &[String]) -> Result<String, Refusal> {
        let [(first, first_letters), (second, second_letters)] = &self.operands;
        let (batch, left, right) = (&self.batch[..], &self.left[..], &self.right[..]);
        // With no batch, the left may be a stack of matrices; otherwise both are stacks of the same batch.
        let (kept, rows) =
            if batch.is_empty() && !left.is_empty() { (left.len(), None) } else { (batch.len(), Some(left)) };
        let x = ordered(b, &inputs[*first], first_letters, &[batch, left, &self.inner]);
        let groups: Vec<&[Axis]> = rows.into_iter().chain([&self.inner[..]]).collect();
        let x = merged(b, x, kept, &groups)?;
        let w = ordered(b, &inputs[*second], second_letters, &[batch, &self.inner, right]);
        let w = merged(b, w, batch.len(), &[&self.inner, right])?;
        let mut y = b.op("MatMul", &[&x, &w]);
        let axes = [batch, left, right].concat();
        if rows.into_iter().chain([right]).any(|group| group.len() != 1) {
            y = reshaped(b, &y, kept, &axes[kept..].iter().map(|(_, dim)| size(dim)).collect::<Vec<_>>())?;
        }
        let place = |letter: &char| axes.iter().position(|(own, _)| own == letter).map(|at| at as i64);
        let order: Vec<i64> = self.output.iter().filter_map(place).collect();
        Ok(if order.is_sorted() { y } else { b.transpose(&y, &order) })
    }
}

/// `value` with its axes in the order of these groups.
fn ordered(b: &mut Builder<'_>, value: &str, letters: &[char], groups: &[&[Axis]]) -> String {
    let at = |(letter, _): &Axis| letters.iter().position(|own| own == letter).map(|at| at as i64);
    let order: Vec<i64> = groups.iter().flat_map(|group| group.iter().filter_map(at)).collect();
    if order.is_sorted() { value.to_owned() } else { b.transpose(value, &order) }
}

/// `value` with its first `kept` axes as they are, and one axis for each of these groups of the others.
fn merged(b: &mut Builder<'_>, value: String, kept: usize, groups: &[&[Axis]]) -> Result<String, Refusal> {
    if groups.iter().all(|group| group.len() == 1) {
        return Ok(value);
    }
    let product = |group: &&[Axis]| group.iter().try_fold(1, |all: i64, (_, dim)| all.checked_mul(size(dim)?));
    reshaped(b, &value, kept, &groups.iter().map(product).collect::<Vec<_>>())
}

fn size(dim: &Dim) -> Option<i64> {
    i64::try_from(dim.known()?).ok()
}

/// `value` with its first `kept` axes as they are, and others of these sizes, of which one may be unknown.
fn reshaped(b: &mut Builder<'_>, value: &str, kept: usize, sizes: &[Option<i64>]) -> Result<String, Refusal> {
    if sizes.iter().filter(|size| size.is_none()).count() > 1 || sizes.contains(&Some(0)) {
        return Err("two sizes that are not known, or one that is zero".into());
    }
    let shape: Vec<i64> = std::iter::repeat_n(0, kept).chain(sizes.iter().map(|size| size.unwrap_or(-1))).collect();
    let shape = b.ints(&shape);
    Ok(b.op("Reshape", &[value, &shape]))
}
