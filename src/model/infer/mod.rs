//! Types and shapes of a graph's values, as far as they follow from the graph.
//!
//! What the file declares is kept; for the rest each operator's rule is applied in order of execution (ONNX operator
//! specifications). Symbolic dimensions keep their names. Small integer tensors are followed as well, since exporters compute the targets of Reshape
//! and Expand from shapes. What cannot be told stays unknown: nothing here is ever a guess.

mod axes;
mod content;
mod recurrent;
mod selection;

use super::{Dim, Graph, Index, NodeExt, NodeId, Producer, TensorType, ValueId};
use crate::proto::{NodeProto, TensorProto, tensor_proto::DataType};

const INT64: i32 = DataType::Int64 as i32;
const BOOL: i32 = DataType::Bool as i32;

/// Integer tensors with more elements are not followed.
const MAX_CONTENT: usize = 64;

/// The inferred types of a graph's values.
#[derive(Debug)]
pub struct Types {
    elems: Vec<Option<i32>>,
    shapes: Vec<Option<Vec<Dim>>>,
    /// Elements of small integer tensors of at most one axis.
    contents: Vec<Option<Vec<Dim>>>,
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
            if let Producer::Initializer(at) = value.producer {
                types.contents[id.index()] = content_of_initializer(graph, at);
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

    /// The elements of a small integer tensor of at most one axis.
    pub fn content(&self, value: ValueId) -> Option<&[Dim]> {
        self.contents[value.index()].as_deref()
    }

    /// The elements of a small integer tensor, if all are numbers.
    pub fn ints(&self, value: ValueId) -> Option<Vec<i64>> {
        self.content(value)?.iter().map(|dim| dim.known().map(|size| size as i64)).collect()
    }

    fn node(&mut self, graph: &Graph, index: &Index, id: NodeId) {
        let node = &graph.nodes()[id.0];
        let call = Call { types: self, graph, index, node };
        let elem = call.elem();
        let second = if node.is_onnx("TopK") { Some(INT64) } else { elem };
        let shapes = call.shapes();
        let content = call.content().filter(|content| content.len() <= MAX_CONTENT);
        for slot in 0..node.output.len() {
            let Some(output) = index.output(node, slot) else { continue };
            let at = output.index();
            self.elems[at] = self.elems[at].or(if slot == 1 { second } else { elem });
            if self.shapes[at].is_none() {
                self.shapes[at] = shapes.get(slot).cloned().flatten();
            }
            if slot == 0 && self.contents[at].is_none() {
                self.contents[at].clone_from(&content);
            }
        }
    }
}

fn content_of_initializer(graph: &Graph, at: usize) -> Option<Vec<Dim>> {
    let initializer = &graph.initializers()[at];
    let shape = initializer.tensor_type().shape?;
    let count = shape.iter().try_fold(1, |count: u64, dim| count.checked_mul(dim.known()?))?;
    (shape.len() <= 1 && count <= MAX_CONTENT as u64).then(|| content_of_tensor(&initializer.tensor()?)).flatten()
}

/// Negative elements are kept as what Reshape and Expand make of them: nothing is known.
fn content_of_tensor(tensor: &TensorProto) -> Option<Vec<Dim>> {
    tensor
        .int64_elements()
        .map(|elements| elements.into_iter().map(|e| u64::try_from(e).map_or(Dim::Unknown, Dim::Known)).collect())
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

    fn content_at(&self, slot: usize) -> Option<&[Dim]> {
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
            op if matches!(self.node.domain(), "" | "ai.onnx") || lists(MICROSOFT, op) => of(0),
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
            "Flatten" => one(Some(first().map_or(vec![Dim::Unknown; 2], |shape| {
                let axis = normal(self.node.int("axis", 1), shape.len()).unwrap_or(shape.len());
                vec![product(&shape[..axis]), product(&shape[axis..])]
            }))),
            "Squeeze" => one(self.squeeze()),
            "Unsqueeze" => one(self.unsqueeze()),
            "Expand" => one(self.shape(0).and_then(|shape| Some(broadcast(shape, self.content_at(1)?)))),
            "Shape" => one(self.shape(0).map(|shape| vec![Dim::Known(shape.len() as u64)])),
            "Size" => one(Some(Vec::new())),
            "Concat" => one(self.concat()),
            "Gather" => one(self.shape(0).zip(self.shape(1)).and_then(|(data, indices)| {
                let axis = normal(self.node.int("axis", 0), data.len())?;
                Some([&data[..axis], indices, &data[axis + 1..]].concat())
            })),
            "GatherElements" => one(self.shape(1).map(<[Dim]>::to_vec)),
            "ConstantOfShape" => one(self.content_at(0).map(<[Dim]>::to_vec)),
            "Slice" => one(self.slice()),
            "Split" => self.split(),
            "RNN" | "GRU" | "LSTM" => self.recurrent(),
            "Einsum" => one(self.einsum()),
            "NegativeLogLikelihoodLoss" | "SoftmaxCrossEntropyLoss" => self.loss(),
            "TopK" => self.top_k(),
            "Compress" => one(self.compress()),
            op if op.starts_with("Reduce") || op.starts_with("Arg") => one(self.reduce()),
            "LayerNormalization" | "Dropout" => vec![first()],
            "BatchNormalization" | "InstanceNormalization" | "GroupNormalization" | "LRN" => one(first()),
            "GlobalAveragePool" | "GlobalMaxPool" => one(first().map(|mut shape| {
                shape.iter_mut().skip(2).for_each(|dim| *dim = Dim::Known(1));
                shape
            })),
            "Conv" | "MaxPool" | "AveragePool" => one(self.window()),
            op if lists(KEEP_SHAPE, op) || lists(MICROSOFT, op) => one(first()),
            _ => Vec::new(),
        }
    }

    fn constant_shape(&self) -> Shape {
        let attribute = |name: &str| NodeExt::attribute(self.node, name);
        if let Some(tensor) = attribute("value").and_then(|attribute| attribute.t.as_ref()) {
            return TensorType::known(&tensor.dims);
        }
        if ["value_float", "value_int", "value_string"].iter().any(|name| attribute(name).is_some()) {
            return Some(Vec::new());
        }
        let ints = attribute("value_ints").map(|attribute| attribute.ints.len());
        let count = ints.or_else(|| attribute("value_floats").map(|attribute| attribute.floats.len()))?;
        Some(vec![Dim::Known(count as u64)])
    }

    fn broadcast_all(&self) -> Shape {
        let mut shapes = (0..self.node.input.len()).map(|slot| self.shape(slot));
        let first = shapes.next()??.to_vec();
        shapes.try_fold(first, |all, shape| Some(broadcast(&all, shape?)))
    }

    fn transpose(&self) -> Shape {
        let shape = self.shape(0);
        match self.node.ints("perm") {
            Some(perm) => {
                let at = |&axis: &i64| shape.and_then(|shape| shape.get(usize::try_from(axis).ok()?).cloned());
                Some(perm.iter().map(|axis| at(axis).unwrap_or(Dim::Unknown)).collect())
            }
            None => shape.map(|shape| shape.iter().rev().cloned().collect()),
        }
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

    fn reshape(&self) -> Shape {
        let target = self.list("shape", 1);
        let content = self.content_at(1);
        let count = target.as_ref().map(Vec::len).or(content.map(<[Dim]>::len));
        let count = count.or_else(|| match self.types.shape(self.input(1)?)? {
            [Dim::Known(rank)] => usize::try_from(*rank).ok().filter(|&rank| rank <= MAX_CONTENT),
            _ => None,
        })?;
        let input = self.shape(0);
        let allow_zero = self.node.int("allowzero", 0) != 0;
        let mut shape: Vec<Dim> = (0..count)
            .map(|axis| match target.as_ref().map(|target| target[axis]) {
                Some(0) if !allow_zero => input.and_then(|input| input.get(axis).cloned()).unwrap_or(Dim::Unknown),
                Some(size) => u64::try_from(size).map_or(Dim::Unknown, Dim::Known),
                None => content.map_or(Dim::Unknown, |content| content[axis].clone()),
            })
            .collect();
        // One size may follow from the number of elements.
        let open: Vec<usize> = (0..count).filter(|&axis| shape[axis] == Dim::Unknown).collect();
        if let ([axis], Some(input)) = (open.as_slice(), input)
            && let Some(size) = quotient(input, &shape, *axis)
        {
            shape[*axis] = size;
        }
        Some(shape)
    }

    fn squeeze(&self) -> Shape {
        let shape = self.shape(0)?;
        let gone: Vec<usize> = match self.list("axes", 1) {
            Some(axes) => axes.iter().map(|&axis| normal(axis, shape.len())).collect::<Option<_>>()?,
            None if self.node.input.len() < 2 && shape.iter().all(|dim| dim.known().is_some()) => {
                (0..shape.len()).filter(|&axis| shape[axis] == Dim::Known(1)).collect()
            }
            None => return None,
        };
        Some((0..shape.len()).filter(|axis| !gone.contains(axis)).map(|axis| shape[axis].clone()).collect())
    }

    fn unsqueeze(&self) -> Shape {
        let mut rest = self.shape(0)?.iter().cloned();
        let axes = self.list("axes", 1)?;
        let rank = rest.len() + axes.len();
        let new: Vec<usize> = axes.iter().map(|&axis| normal(axis, rank)).collect::<Option<_>>()?;
        (0..rank).map(|axis| if new.contains(&axis) { Some(Dim::Known(1)) } else { rest.next() }).collect()
    }
}

/// Operators whose (first) result has the shape of the first input.
const KEEP_SHAPE: &str = "Identity Cast CastLike Relu Tanh Sigmoid Exp Log Sqrt Neg Abs Erf Gelu Softmax LogSoftmax Clip \
     Reciprocal Floor Ceil Sign Not Elu Selu LeakyRelu HardSigmoid HardSwish Softplus Softsign Mish Celu \
     ThresholdedRelu Sin Cos Tan Sinh Cosh Asin Acos Atan ScatterND ScatterElements CumSum Trilu \
     RotaryEmbedding";

/// Operators of ONNX Runtime whose first result has type and shape of the first input.
const MICROSOFT: &str =
    "ReluGrad TanhGrad SigmoidGrad GeluGrad FastGeluGrad QuickGelu QuickGeluGrad FastGelu BiasGelu Scale";

fn lists(operators: &str, op_type: &str) -> bool {
    operators.split(' ').any(|listed| listed == op_type)
}

fn normal(axis: i64, rank: usize) -> Option<usize> {
    usize::try_from(if axis < 0 { axis + rank as i64 } else { axis }).ok().filter(|&axis| axis < rank)
}

fn product(dims: &[Dim]) -> Dim {
    match dims {
        [single] => single.clone(),
        _ => dims.iter().try_fold(1, |all: u64, dim| all.checked_mul(dim.known()?)).map_or(Dim::Unknown, Dim::Known),
    }
}

/// The size of `axis` of `shape`, if the elements of `input` are as many; equal symbols on both sides cancel.
fn quotient(input: &[Dim], shape: &[Dim], axis: usize) -> Option<Dim> {
    let mut over: Vec<&Dim> = input.iter().collect();
    let mut divisor = 1;
    for dim in shape.iter().enumerate().filter(|(i, _)| *i != axis).map(|(_, dim)| dim) {
        match dim {
            Dim::Known(size) => divisor *= size,
            symbol => {
                let at = over.iter().position(|dim| *dim == symbol && **dim != Dim::Unknown)?;
                over.remove(at);
            }
        }
    }
    let symbols: Vec<&&Dim> = over.iter().filter(|dim| dim.known().is_none()).collect();
    let known = over.iter().filter_map(|dim| dim.known()).try_fold(1, u64::checked_mul)?;
    match symbols.as_slice() {
        [] if divisor > 0 && known % divisor == 0 => Some(Dim::Known(known / divisor)),
        [symbol] if divisor == known && **symbol != &Dim::Unknown => Some((**symbol).clone()),
        _ => None,
    }
}
