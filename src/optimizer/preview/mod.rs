//! The optimizers of `ai.onnx.preview.training`, written out.
//!
//! Each is one node that updates any number of tensors: behind the learning rate R and the update count T it takes the values X,
//! their gradients G and their state, and gives the next values and the next state. The formulas are those of the ONNX operator specification,
//! which differ from PyTorch's; ONNX Runtime has no kernels for these operators.

mod step;

use self::step::{Refusal, Scalar, Step};
use super::error::OptimizerError;
use super::rules::scaled;
use crate::model::{Builder, Edit, GraphEdit, Model, NodeExt, ONNX_DOMAIN, PREVIEW_TRAINING_DOMAIN, Types};
use crate::proto::NodeProto;
use crate::proto::tensor_proto::DataType;

/// The version of the operators' domain that is understood, the only one that there is.
const VERSION: i64 = 1;

/// The oldest version of the default domain whose operators are written here: that which came with Where. A model of nothing but
/// optimizers imports none, and gets this one.
const OLDEST_OPSET: i64 = 9;

const DOUBLE: i32 = DataType::Double as i32;

/// Writes the operators that do the same as a node.
type Rule = fn(&mut Step<'_>) -> Result<(), Refusal>;

/// The changes that put standard operators in the place of Adam, Adagrad and Momentum of `ai.onnx.preview.training`, in the main graph
/// and the algorithms of training infos.
///
/// # Errors
/// An operator that is not as its specification says, or a default domain of before opset 9.
pub fn lower_optimizers(model: &Model) -> Result<Edit, OptimizerError> {
    let mut edit = Edit::default();
    for (id, graph) in model.graphs() {
        let optimizers = || graph.nodes().iter().enumerate().filter_map(|(at, node)| Some((at, node, rule(node)?)));
        if optimizers().next().is_none() {
            continue;
        }
        let index = model.index(id)?;
        let types = Types::infer(graph, &index);
        let mut changes = GraphEdit::default();
        for (at, node, rule) in optimizers() {
            let fail = |what| OptimizerError::Operator { path: model.path().to_owned(), node: node.label(), what };
            let opset = opset(model).map_err(fail)?;
            let mut step = Step::new(node, &index, &types, opset);
            let nodes = rule(&mut step).and_then(|()| step.into_nodes()).map_err(fail)?;
            changes.nodes.insert(at, nodes);
        }
        edit.graphs.insert(id, changes);
    }
    if !edit.graphs.is_empty() && model.opset(ONNX_DOMAIN).is_none() {
        edit.opsets.insert(ONNX_DOMAIN.to_owned(), OLDEST_OPSET);
    }
    Ok(edit)
}

fn rule(node: &NodeProto) -> Option<Rule> {
    match node.op_type() {
        _ if node.domain() != PREVIEW_TRAINING_DOMAIN => None,
        "Adam" => Some(adam),
        "Adagrad" => Some(adagrad),
        "Momentum" => Some(momentum),
        _ => None,
    }
}

/// The version of the default domain to write operators of.
fn opset(model: &Model) -> Result<i64, Refusal> {
    let version = model.opset(PREVIEW_TRAINING_DOMAIN).unwrap_or(VERSION);
    if version != VERSION {
        return Err(format!("the model imports version {version} of its domain, and there is only version {VERSION}"));
    }
    match model.opset(ONNX_DOMAIN) {
        Some(opset) if opset < OLDEST_OPSET => {
            Err(format!("it is written in operators of opset {OLDEST_OPSET} or later, and the model imports {opset}"))
        }
        opset => Ok(opset.unwrap_or(OLDEST_OPSET)),
    }
}

/// V' = αV + (1 - α)G, H' = βH + (1 - β)G², X' = (1 - post) (X - r V' / (√H' + ε)), with G + norm·X in the place of G. r is R at T = 0, and
/// from then on R √(1 - βᵀ) / (1 - αᵀ).
fn adam(s: &mut Step<'_>) -> Result<(), Refusal> {
    let [alpha, beta, epsilon, norm, post] = s.numbers([
        ("alpha", Some(0.9)),
        ("beta", Some(0.999)),
        ("epsilon", Some(1e-6)),
        ("norm_coefficient", Some(0.0)),
        ("norm_coefficient_post", Some(0.0)),
    ])?;
    let tensors = s.tensors(["X", "G", "V", "H"])?;
    let [rate, count] = s.rate_and_count()?;
    let b = &mut s.b;
    let [mean_correction, square_correction] = [alpha, beta].map(|decay| one_minus_power(b, decay, &count));
    let root_correction = b.op("Sqrt", &[&square_correction]);
    let corrected = b.op("Mul", &[&rate, &root_correction]);
    let corrected = b.op("Div", &[&corrected, &mean_correction]);
    let mut rate = Scalar::new(after_first(b, &count, &corrected, &rate));
    for tensor in &tensors {
        let ([x, gradient, mean, mean_square], elem, b) = (tensor.inputs, tensor.elem, &mut s.b);
        let gradient = regularized(b, norm, x, gradient, elem);
        let mean = mixed(b, alpha, mean, &gradient, elem);
        let square = b.op("Mul", &[&gradient, &gradient]);
        let mean_square = mixed(b, beta, mean_square, &square, elem);
        let root = root(b, &mean_square, epsilon, elem);
        let change = rate.times(b, &mean, elem);
        let change = b.op("Div", &[&change, &root]);
        let mut updated = b.op("Sub", &[x, &change]);
        if post != 0.0 {
            updated = scaled(b, &updated, 1.0 - post, elem);
        }
        s.give(tensor, &[updated, mean, mean_square]);
    }
    Ok(())
}

/// H' = H + G², X' = X - r G / (√H' + ε), with G + norm·X in the place of G and r = R / (1 + T·decay).
fn adagrad(s: &mut Step<'_>) -> Result<(), Refusal> {
    let [epsilon, decay, norm] =
        s.numbers([("epsilon", Some(1e-6)), ("decay_factor", Some(0.0)), ("norm_coefficient", Some(0.0))])?;
    let tensors = s.tensors(["X", "G", "H"])?;
    let [rate, count] = s.rate_and_count()?;
    let b = &mut s.b;
    let decay = scaled(b, &count, decay, DOUBLE);
    let one = b.scalar(1.0, DOUBLE);
    let divisor = b.op("Add", &[&one, &decay]);
    let mut rate = Scalar::new(b.op("Div", &[&rate, &divisor]));
    for tensor in &tensors {
        let ([x, gradient, squares], elem, b) = (tensor.inputs, tensor.elem, &mut s.b);
        let gradient = regularized(b, norm, x, gradient, elem);
        let square = b.op("Mul", &[&gradient, &gradient]);
        let squares = b.op("Add", &[squares, &square]);
        let root = root(b, &squares, epsilon, elem);
        let change = rate.times(b, &gradient, elem);
        let change = b.op("Div", &[&change, &root]);
        let updated = b.op("Sub", &[x, &change]);
        s.give(tensor, &[updated, squares]);
    }
    Ok(())
}

/// V' = αV + bG, X' = X - R V', or with Nesterov's X - R (G + αV'), with G + norm·X in the place of G. b is 1 at T = 0, and β from then on.
fn momentum(s: &mut Step<'_>) -> Result<(), Refusal> {
    let [alpha, beta, norm] = s.numbers([("alpha", None), ("beta", None), ("norm_coefficient", None)])?;
    let is_nesterov = s.choice("mode", &["standard", "nesterov"])? == 1;
    let tensors = s.tensors(["X", "G", "V"])?;
    let [rate, count] = s.rate_and_count()?;
    let b = &mut s.b;
    let [beta, one] = [beta, 1.0].map(|number| b.scalar(number, DOUBLE));
    let mut beta = Scalar::new(after_first(b, &count, &beta, &one));
    let mut rate = Scalar::new(rate);
    for tensor in &tensors {
        let ([x, gradient, velocity], elem, b) = (tensor.inputs, tensor.elem, &mut s.b);
        let gradient = regularized(b, norm, x, gradient, elem);
        let kept = scaled(b, velocity, alpha, elem);
        let share = beta.times(b, &gradient, elem);
        let velocity = b.op("Add", &[&kept, &share]);
        let direction = if is_nesterov {
            let ahead = scaled(b, &velocity, alpha, elem);
            b.op("Add", &[&gradient, &ahead])
        } else {
            velocity.clone()
        };
        let change = rate.times(b, &direction, elem);
        let updated = b.op("Sub", &[x, &change]);
        s.give(tensor, &[updated, velocity]);
    }
    Ok(())
}

/// The gradient with that of norm/2 · ‖x‖².
fn regularized(b: &mut Builder<'_>, norm: f64, x: &str, gradient: &str, elem: i32) -> String {
    if norm == 0.0 {
        return gradient.to_owned();
    }
    let pull = scaled(b, x, norm, elem);
    b.op("Add", &[&pull, gradient])
}

/// decay · old + (1 - decay) · new.
fn mixed(b: &mut Builder<'_>, decay: f64, old: &str, new: &str, elem: i32) -> String {
    let old = scaled(b, old, decay, elem);
    let new = scaled(b, new, 1.0 - decay, elem);
    b.op("Add", &[&old, &new])
}

/// √value + ε.
fn root(b: &mut Builder<'_>, value: &str, epsilon: f64, elem: i32) -> String {
    let root = b.op("Sqrt", &[value]);
    let epsilon = b.scalar(epsilon, elem);
    b.op("Add", &[&root, &epsilon])
}

/// 1 - decayᵀ, in double.
fn one_minus_power(b: &mut Builder<'_>, decay: f64, count: &str) -> String {
    let [one, decay] = [1.0, decay].map(|number| b.scalar(number, DOUBLE));
    let power = b.op("Pow", &[&decay, count]);
    b.op("Sub", &[&one, &power])
}

/// `later` if T > 0, and else `first`.
fn after_first(b: &mut Builder<'_>, count: &str, later: &str, first: &str) -> String {
    let zero = b.scalar(0.0, DOUBLE);
    let is_later = b.op("Greater", &[count, &zero]);
    b.op("Where", &[&is_later, later, first])
}
