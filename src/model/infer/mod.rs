//! Types and shapes of a graph's values, as far as they follow from the graph.
//!
//! What the file declares is kept; for the rest each operator's rule is applied in order of execution (ONNX operator
//! specifications). Symbolic dimensions keep their names. Small integer tensors are followed as well, since exporters compute the targets of Reshape
//! and Expand from shapes. What cannot be told stays unknown: nothing here is ever a guess.

mod axes;
mod content;
mod element;
mod layout;
mod recurrent;
mod selection;
mod size;
mod spatial;

pub use element::Element;

use super::{Dim, Graph, Index, NodeExt, NodeId, Producer, TensorType, ValueId};
use crate::proto::{NodeProto, tensor_proto::DataType};

const INT64: i32 = DataType::Int64 as i32;
const BOOL: i32 = DataType::Bool as i32;

/// Integer tensors with more elements are not followed.
const MAX_CONTENT: usize = 64;

/// The inferred types of a graph's values.
#[derive(Debug)]
pub struct Types {
    elems: Vec<Option<i32>>,
    shapes: Vec<Option<Vec<Dim>>>,
    /// Elements of small integer and boolean tensors, in row-major order.
    contents: Vec<Option<Vec<Element>>>,
}

impl Types {
    /// Infers what can be inferred.
    pub fn infer(graph: &Graph, index: &Index) -> Self {
        let count = index.values().count();
        let mut types = Self { elems: vec![None; count], shapes: vec![None; count], contents: vec![None; count] };
        for (id, value) in index.values() {
            if let Some(tensor) = &value.tensor_type {
                types.elems[id.index()] = Some(tensor.elem).filter(|&elem| elem != 0);
                types.shapes[id.index()] = tensor.shape.clone();
            }
            if let Producer::Initializer(_) = value.producer {
                let content = graph.constant(index, id).and_then(|tensor| content::of_tensor(&tensor));
                types.contents[id.index()] = content.filter(|list| has_place_for(types.shape(id), list.len()));
            }
        }
        for &node in index.order() {
            types.node(graph, index, node);
        }
        types
    }

    /// The element type of a value (`TensorProto.DataType`).
    pub fn elem(&self, value: ValueId) -> Option<i32> {
        self.elems[value.index()]
    }

    /// The shape of a value.
    pub fn shape(&self, value: ValueId) -> Option<&[Dim]> {
        self.shapes[value.index()].as_deref()
    }

    /// The elements of a small integer or boolean tensor, in row-major order.
    pub fn content(&self, value: ValueId) -> Option<&[Element]> {
        self.contents[value.index()].as_deref()
    }

    /// The same, if all are numbers.
    pub fn ints(&self, value: ValueId) -> Option<Vec<i64>> {
        self.content(value)?.iter().map(Element::known).collect()
    }

    fn node(&mut self, graph: &Graph, index: &Index, id: NodeId) {
        let node = &graph.nodes()[id.0];
        let call = Call { types: self, graph, index, node };
        let elem = call.elem();
        let shapes = call.shapes();
        let content = call.content().filter(|content| content.len() <= MAX_CONTENT);
        for slot in 0..node.output.len() {
            let Some(output) = index.output(node, slot) else { continue };
            let at = output.index();
            if let Some(tensor) = of_branches(node, slot) {
                self.elems[at] = self.elems[at].or(Some(tensor.elem));
                self.shapes[at] = self.shapes[at].take().or(tensor.shape);
            }
            let elem = if slot > 0 { further_elem(node, elem) } else { elem };
            self.elems[at] = self.elems[at].or(elem);
            if self.shapes[at].is_none() {
                self.shapes[at] = shapes.get(slot).cloned().flatten();
            }
            if slot == 0 && self.contents[at].is_none() {
                self.contents[at] = content.clone().filter(|content| has_place_for(self.shape(output), content.len()));
            }
        }
    }
}

/// Whether a tensor of that shape may have so many elements.
fn has_place_for(shape: Option<&[Dim]>, count: usize) -> bool {
    match shape {
        Some([]) => count == 1,
        Some([size]) => size.compatible(&Dim::Known(count as u64)),
        Some(sizes) => size::product(sizes) == Dim::Known(count as u64),
        None => false,
    }
}

/// What both branches of an If say of its result `slot`.
fn of_branches(node: &NodeProto, slot: usize) -> Option<TensorType> {
    if !node.is_onnx("If") {
        return None;
    }
    let mut branches = node.subgraphs().map(|graph| TensorType::of(graph.output.get(slot)?).filter(|t| t.elem != 0));
    let (first, second) = (branches.next()??, branches.next()??);
    let common = |(a, b): (&Dim, &Dim)| if a == b { a.clone() } else { Dim::Unknown };
    let shape = first.shape.zip(second.shape).filter(|(a, b)| a.len() == b.len());
    let shape = shape.map(|(a, b)| a.iter().zip(&b).map(common).collect());
    (first.elem == second.elem).then_some(TensorType { elem: first.elem, shape })
}

/// The element type of the results behind the first, which is of type `first`.
fn further_elem(node: &NodeProto, first: Option<i32>) -> Option<i32> {
    match node.op_type() {
        "MaxPool" | "TopK" => Some(INT64),
        "Dropout" => Some(BOOL),
        _ => first,
    }
}

/// The shape that two shapes broadcast to (ONNX, "Multidirectional Broadcasting").
pub fn broadcast(a: &[Dim], b: &[Dim]) -> Vec<Dim> {
    let rank = a.len().max(b.len());
    let at =
        |shape: &[Dim], axis: usize| (axis + shape.len()).checked_sub(rank).map_or(Dim::Known(1), |i| shape[i].clone());
    (0..rank)
        .map(|axis| match (at(a, axis), at(b, axis)) {
            (Dim::Known(1), other) | (other, Dim::Known(1)) => other,
            (Dim::Known(size), _) | (_, Dim::Known(size)) => Dim::Known(size),
            (a, b) if a == b => a,
            _ => Dim::Unknown,
        })
        .collect()
}

struct Call<'a> {
    types: &'a Types,
    graph: &'a Graph,
    index: &'a Index,
    node: &'a NodeProto,
}

type Shape = Option<Vec<Dim>>;

impl Call<'_> {
    fn input(&self, slot: usize) -> Option<ValueId> {
        self.index.input(self.node, slot)
    }

    fn shape(&self, slot: usize) -> Option<&[Dim]> {
        self.types.shape(self.input(slot)?)
    }

    fn content_at(&self, slot: usize) -> Option<&[Element]> {
        self.types.content(self.input(slot)?)
    }

    /// Integers that an attribute gives in old operator sets and an input in new ones; negative ones stay negative.
    fn list(&self, attribute: &str, slot: usize) -> Option<Vec<i64>> {
        self.node.ints(attribute).map(<[i64]>::to_vec).or_else(|| {
            let value = self.input(slot)?;
            self.graph.constant_ints(self.index, value).or_else(|| self.types.ints(value))
        })
    }

    fn elem(&self) -> Option<i32> {
        let of = |slot| self.types.elem(self.input(slot)?);
        match self.node.op_type() {
            // What their bodies give, or an attribute says.
            "If" | "Loop" | "Scan" | "SequenceMap" | "EyeLike" | "Bernoulli" | "Multinomial" | "QuantizeLinear"
            | "RandomNormalLike" | "RandomUniformLike" => None,
            "Shape" | "Size" | "NonZero" | "ArgMax" | "ArgMin" | "SequenceLength" => Some(INT64),
            "Equal" | "Less" | "Greater" | "LessOrEqual" | "GreaterOrEqual" | "Not" | "And" | "Or" | "Xor"
            | "IsNaN" | "IsInf" => Some(BOOL),
            "Cast" => Some(self.node.int("to", 0) as i32),
            "CastLike" | "Where" | "DequantizeLinear" => of(1),
            "OneHot" => of(2),
            "Constant" => {
                let has = |name: &str| NodeExt::attribute(self.node, name).is_some();
                let tensor = NodeExt::attribute(self.node, "value").and_then(|attribute| attribute.t.as_ref());
                tensor.map(|tensor| tensor.data_type()).or_else(|| {
                    (has("value_float") || has("value_floats"))
                        .then_some(1)
                        .or_else(|| (has("value_int") || has("value_ints")).then_some(INT64))
                })
            }
            "ConstantOfShape" => {
                let tensor = NodeExt::attribute(self.node, "value").and_then(|attribute| attribute.t.as_ref());
                Some(tensor.map_or(1, |tensor| tensor.data_type()))
            }
            "RandomNormal" | "RandomUniform" => Some(self.node.int("dtype", 1) as i32),
            "Range" => of(0),
            "SoftmaxCrossEntropyLossGrad" => of(1),
            op if self.node.is_standard() || lists(MICROSOFT, op) => of(0),
            _ => None,
        }
    }

    fn shapes(&self) -> Vec<Shape> {
        let first = || self.shape(0).map(<[Dim]>::to_vec);
        let one = |shape: Shape| vec![shape];
        match self.node.op_type() {
            "Constant" => one(self.constant_shape()),
            "Add" | "Sub" | "Mul" | "Div" | "Pow" | "Sum" | "Mean" | "Max" | "Min" | "Where" | "Equal" | "Less"
            | "Greater" | "LessOrEqual" | "GreaterOrEqual" | "And" | "Or" | "Xor" | "PRelu" | "Mod" => {
                one(self.broadcast_all())
            }
            "MatMul" | "FusedMatMul" => one(self.matmul()),
            "Gemm" | "FusedGemm" => one(self.gemm()),
            "SoftmaxCrossEntropyLossGrad" => one(self.shape(1).map(<[Dim]>::to_vec)),
            "Transpose" => one(self.transpose()),
            "Reshape" => one(self.reshape()),
            "Flatten" => one(Some(self.flatten())),
            "Squeeze" => one(self.squeeze()),
            "Unsqueeze" => one(self.unsqueeze()),
            "Expand" => one(self.shape(0).and_then(|shape| Some(broadcast(shape, &self.sizes(1)?)))),
            "Tile" => one(self.tile()),
            "Range" => one(Some(vec![self.range_length()])),
            "Shape" => one(self.content().map(|sizes| vec![Dim::Known(sizes.len() as u64)])),
            "Size" => one(Some(Vec::new())),
            "Concat" => one(self.concat()),
            "Gather" => one(self.shape(0).zip(self.shape(1)).and_then(|(data, indices)| {
                let axis = from_front(self.node.int("axis", 0), data.len())?;
                Some([&data[..axis], indices, &data[axis + 1..]].concat())
            })),
            "GatherElements" => one(self.shape(1).map(<[Dim]>::to_vec)),
            "GatherND" => one(self.gather_nd()),
            "OneHot" => one(self.one_hot()),
            "NonZero" => one(Some(vec![
                self.shape(0).map_or(Dim::Unknown, |shape| Dim::Known(shape.len() as u64)),
                Dim::Unknown,
            ])),
            "ConstantOfShape" => one(self.sizes(0)),
            "Slice" => one(self.slice()),
            "Split" => self.split(),
            "RNN" | "GRU" | "LSTM" => self.recurrent(),
            "Einsum" => one(self.einsum()),
            "NegativeLogLikelihoodLoss" | "SoftmaxCrossEntropyLoss" => self.loss(),
            "TopK" => self.top_k(),
            "Compress" => one(self.compress()),
            op if op.starts_with("Reduce") || op.starts_with("Arg") => one(self.reduce()),
            "LayerNormalization" => vec![first(), self.normalized_away(), self.normalized_away()],
            "Dropout" => vec![first()],
            "BatchNormalization" | "InstanceNormalization" | "GroupNormalization" | "LRN" => one(first()),
            "MeanVarianceNormalization" | "LpNormalization" => one(first()),
            "GlobalAveragePool" | "GlobalMaxPool" | "GlobalLpPool" => one(first().map(|mut shape| {
                shape.iter_mut().skip(2).for_each(|dim| *dim = Dim::Known(1));
                shape
            })),
            "Conv" | "MaxPool" | "AveragePool" | "LpPool" => vec![self.window(); self.node.output.len()],
            "ConvTranspose" => one(self.conv_transpose()),
            "Col2Im" => one(self.col2im()),
            "Pad" => one(self.pad()),
            "Resize" => one(self.resize()),
            "GridSample" => one(self.grid_sample()),
            "Det" => one(self.shape(0).and_then(|shape| Some(shape.get(..shape.len().checked_sub(2)?)?.to_vec()))),
            "DepthToSpace" => one(self.blocks(true)),
            "SpaceToDepth" => one(self.blocks(false)),
            op if lists(KEEP_SHAPE, op) || lists(MICROSOFT, op) => one(first()),
            _ => Vec::new(),
        }
    }

    fn broadcast_all(&self) -> Shape {
        let mut shapes = (0..self.node.input.len()).map(|slot| self.shape(slot));
        let first = shapes.next()??.to_vec();
        shapes.try_fold(first, |all, shape| Some(broadcast(&all, shape?)))
    }

    /// MatMul, and com.microsoft::FusedMatMul, of which either factor may be stored transposed.
    fn matmul(&self) -> Shape {
        if self.node.int("transBatchA", 0) != 0 || self.node.int("transBatchB", 0) != 0 {
            return None;
        }
        let factor = |slot, transposed: &str| {
            let mut shape = self.shape(slot).filter(|shape| !shape.is_empty())?.to_vec();
            let rank = shape.len();
            if self.node.int(transposed, 0) != 0 && rank >= 2 {
                shape.swap(rank - 2, rank - 1);
            }
            Some(shape)
        };
        let (a, b) = (factor(0, "transA")?, factor(1, "transB")?);
        let stacks = |shape: &[Dim]| shape[..shape.len().saturating_sub(2)].to_vec();
        let mut shape = broadcast(&stacks(&a), &stacks(&b));
        if a.len() > 1 {
            shape.push(a[a.len() - 2].clone());
        }
        if b.len() > 1 {
            shape.push(b[b.len() - 1].clone());
        }
        Some(shape)
    }

    fn gemm(&self) -> Shape {
        let side = |slot, transposed: &str, axis: usize| {
            let shape = self.shape(slot).filter(|shape| shape.len() == 2);
            let axis = if self.node.int(transposed, 0) != 0 { 1 - axis } else { axis };
            shape.map_or(Dim::Unknown, |shape| shape[axis].clone())
        };
        Some(vec![side(0, "transA", 0), side(1, "transB", 1)])
    }
}

/// Operators whose (first) result has the shape of the first input.
const KEEP_SHAPE: &str = "Identity Cast CastLike Relu Tanh Sigmoid Exp Log Sqrt Neg Abs Erf Gelu Softmax LogSoftmax Clip \
     Reciprocal Floor Ceil Sign Not Elu Selu LeakyRelu HardSigmoid HardSwish Softplus Softsign Mish Celu \
     ThresholdedRelu Sin Cos Tan Sinh Cosh Asin Acos Atan IsNaN IsInf Round Hardmax Trilu CumSum EyeLike Bernoulli \
     RandomNormalLike RandomUniformLike ScatterND ScatterElements \
     RotaryEmbedding RMSNormalization Shrink Swish SwiGLU CumProd TensorScatter";

/// Operators of ONNX Runtime whose first result has type and shape of the first input.
const MICROSOFT: &str =
    "ReluGrad TanhGrad SigmoidGrad GeluGrad FastGeluGrad QuickGelu QuickGeluGrad FastGelu BiasGelu Scale";

fn lists(operators: &str, op_type: &str) -> bool {
    operators.split(' ').any(|listed| listed == op_type)
}

/// An axis of a tensor of this rank, counted from the front; `None` if there is none.
pub(crate) fn from_front(axis: i64, rank: usize) -> Option<usize> {
    usize::try_from(if axis < 0 { axis + rank as i64 } else { axis }).ok().filter(|&axis| axis < rank)
}
