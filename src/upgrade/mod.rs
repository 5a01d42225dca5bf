//! Models of old operator sets, in operators of a newer one.
//!
//! [`upgraded`] brings a model of opset 6 or later to [`OPSET`]. Most operators only took more types or got further attributes with
//! harmless defaults in between, and stay as they are; each whose definition changed has a `Change`, in the file of its kind. A change
//! sees one node and appends those that do the same in the newer operator set, or returns why it cannot; all nodes
//! that stand in the way are reported at once.

mod broadcast;
mod coercion;
mod error;
mod inputs;
mod modes;
mod resize;
mod step;

use std::collections::BTreeSet;

use crate::model::{Builder, Edit, GraphEdit, GraphId, Initializer, Model, ModelError, NodeExt, ONNX_DOMAIN, Types};
use crate::proto::NodeProto;
pub use error::UpgradeError;
use step::{Change, Refusal, Step};

/// The version of the default domain that models are brought to: the first that has LayerNormalization, and in which a scatter adds, as
/// gradients of what is taken by index do.
pub const OPSET: i64 = 17;

/// The oldest version that is understood: before it, operators broadcast, and kept what they had consumed, in ways of their own.
const OLDEST: i64 = 6;

/// The version of the ONNX IR that came with [`OPSET`].
const IR_VERSION: i64 = 8;

/// The first version of the ONNX IR in which an initializer that is an input too is its default. Before, every initializer had to be
/// an input, and was a constant all the same.
const IR_VERSION_OF_DEFAULTS: i64 = 4;

/// Operators whose definition changed.
const CHANGES: &[&[Change]] =
    &[broadcast::CHANGES, coercion::CHANGES, inputs::CHANGES, modes::CHANGES, resize::CHANGES];

/// Experimental operators of old opsets, which are in no later one.
const REMOVED: &[&str] = &[
    "ATen",
    "Affine",
    "ConstantFill",
    "Crop",
    "DynamicSlice",
    "GRUUnit",
    "GivenTensorFill",
    "ImageScaler",
    "ParametricSoftplus",
    "Scale",
    "ScaledTanh",
];

/// The model in the operators of [`OPSET`]; `None`, if it is there or beyond.
///
/// # Errors
/// An opset before 6, or operators that cannot be brought along: all of them.
pub fn upgraded(model: &Model) -> Result<Option<Model>, UpgradeError> {
    let opset = model.opset(ONNX_DOMAIN).unwrap_or(1);
    if opset >= OPSET {
        return Ok(None);
    }
    let with_constants = with_constants(model)?;
    let model = with_constants.as_ref().unwrap_or(model);
    Ok(Some(model.edited(&edit(model, opset)?)?))
}

/// The changes that bring a model of an older operator set to [`OPSET`].
fn edit(model: &Model, opset: i64) -> Result<Edit, UpgradeError> {
    let path = model.path();
    if opset < OLDEST {
        return Err(UpgradeError::TooOld { path: path.to_owned(), opset });
    }
    let graph = model.graph();
    let index = model.index(GraphId::Main)?;
    let types = Types::infer(graph, &index);
    let mut b = Builder::new(&index, OPSET, "upgrade/");
    let mut edit = GraphEdit::default();
    let mut blocked = Vec::new();
    for (at, node) in graph.nodes().iter().enumerate() {
        let step = Step { graph, index: &index, types: &types, from: opset, node, b: &mut b };
        match replaced(step) {
            Ok(None) => {}
            Ok(Some(nodes)) => {
                edit.nodes.insert(at, nodes);
            }
            Err(why) => blocked.push((node.label(), why)),
        }
    }
    if !blocked.is_empty() {
        return Err(UpgradeError::Unsupported { path: path.to_owned(), opset, blocked });
    }
    Ok(Edit {
        opsets: [(ONNX_DOMAIN.to_owned(), OPSET)].into(),
        ir_version: Some(model.ir_version().max(IR_VERSION)),
        ..edit.into()
    })
}

/// The model without the inputs that its file only lists because they are initializers; `None`, if it would not list those.
fn with_constants(model: &Model) -> Result<Option<Model>, ModelError> {
    if model.ir_version() >= IR_VERSION_OF_DEFAULTS {
        return Ok(None);
    }
    let constants: BTreeSet<&str> = model.graph().initializers().iter().map(Initializer::name).collect();
    let inputs = model.graph().inputs().iter().enumerate();
    let fewer_inputs = inputs.filter(|(_, input)| constants.contains(input.name())).map(|(position, _)| position);
    let edit = GraphEdit { fewer_inputs: fewer_inputs.collect(), ..GraphEdit::default() };
    Ok(Some(model.edited(&edit.into())?))
}

/// The nodes that take the place of the step's node; `None` where it stays.
fn replaced(mut step: Step<'_, '_>) -> Result<Option<Vec<NodeProto>>, Refusal> {
    let (node, opset) = (step.node, step.from);
    if is_removed(node) {
        return Err("it was removed from ONNX".into());
    }
    if let Some(inner) = changed_inside(node, opset) {
        return Err(format!("the definition of {} in its body changed", inner.label()));
    }
    let Some(change) = change(node, opset) else { return Ok(None) };
    (change.apply)(&mut step)?;
    Ok(Some(step.b.take_nodes()))
}

fn is_removed(node: &NodeProto) -> bool {
    node.is_standard() && REMOVED.contains(&node.op_type())
}

/// What has to be done with a node of this opset.
fn change(node: &NodeProto, opset: i64) -> Option<&'static Change> {
    let mut all = CHANGES.iter().copied().flatten();
    all.find(|change| node.is_standard() && change.op_type == node.op_type() && opset < change.since)
}

/// The first node in the bodies of a node that would have to be changed.
fn changed_inside(node: &NodeProto, opset: i64) -> Option<&NodeProto> {
    node.subgraphs().flat_map(|graph| &graph.node).find_map(|inner| {
        let is_changed = is_removed(inner) || change(inner, opset).is_some();
        if is_changed { Some(inner) } else { changed_inside(inner, opset) }
    })
}
