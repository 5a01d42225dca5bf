//! Types and shapes of a graph's values, as far as they follow from the graph.
//!
//! What the file declares is kept; for the rest each operator's rule is applied in order of execution (ONNX operator
//! specifications). Symbolic dimensions keep their names. Small integer tensors are followed as well, since exporters compute the targets of Reshape
//! and Expand from shapes. What cannot be told stays unknown: nothing here is ever a guess.

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
        let shapes = call.shapes();
        let content = call.content().filter(|content| content.len() <= MAX_CONTENT);
        for slot in 0..node.output.len() {
            let Some(output) = index.output(node, slot) else { continue };
            let at = output.index();
            self.elems[at] = self.elems[at].or(elem);
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
            "Shape" | "Size" | "NonZero" | "ArgMax" | "ArgMin" => Some(INT64),
            "Equal" | "Less" | "Greater" | "LessOrEqual" | "GreaterOrEqual" | "Not" | "And" | "Or" | "Xor"
            | "IsNaN" | "IsInf" => Some(BOOL),
            "Cast" => Some(self.node.int("to", 0) as i32),
            "CastLike" | "Where" => of(1),
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
            op if matches!(self.node.domain(), "" | "ai.onnx") || MICROSOFT.contains(&op) => of(0),
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
            op if op.starts_with("Reduce") || op.starts_with("Arg") => one(self.reduce()),
            "LayerNormalization" | "Dropout" => vec![first()],
            "BatchNormalization" | "InstanceNormalization" | "GroupNormalization" | "LRN" => one(first()),
            "GlobalAveragePool" | "GlobalMaxPool" => one(first().map(|mut shape| {
                shape.iter_mut().skip(2).for_each(|dim| *dim = Dim::Known(1));
                shape
            })),
            "Conv" | "MaxPool" | "AveragePool" => one(self.window()),
            op if KEEP_SHAPE.contains(&op) || MICROSOFT.contains(&op) => one(first()),
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
            [Dim::Known(rank)] => Some(*rank as usize),
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

    fn concat(&self) -> Shape {
        let shapes: Vec<&[Dim]> = (0..self.node.input.len()).map(|slot| self.shape(slot)).collect::<Option<_>>()?;
        let mut shape = shapes.first()?.to_vec();
        let axis = normal(self.node.int("axis", 0), shape.len())?;
        shape[axis] = shapes
            .iter()
            .try_fold(0, |sum, shape| Some(sum + shape.get(axis)?.known()?))
            .map_or(Dim::Unknown, Dim::Known);
        Some(shape)
    }

    fn slice(&self) -> Shape {
        let mut shape = self.shape(0)?.to_vec();
        let starts = self.list("starts", 1);
        let axes = self.list("axes", 3).or_else(|| Some((0..starts.as_ref()?.len() as i64).collect()));
        let Some(axes) = axes else { return Some(vec![Dim::Unknown; shape.len()]) };
        let ends = self.list("ends", 2);
        let steps = self.list("steps", 4);
        for (i, &axis) in axes.iter().enumerate() {
            let axis = normal(axis, shape.len())?;
            let step = steps.as_ref().map_or(1, |steps| steps[i]);
            let size = shape[axis]
                .known()
                .and_then(|size| slice_size(size as i64, starts.as_ref()?[i], ends.as_ref()?[i], step));
            shape[axis] = size.map_or(Dim::Unknown, Dim::Known);
        }
        Some(shape)
    }

    fn split(&self) -> Vec<Shape> {
        let count = self.node.output.len();
        let unknown = vec![None; count];
        let Some(shape) = self.shape(0) else { return unknown };
        let Some(axis) = normal(self.node.int("axis", 0), shape.len()) else { return unknown };
        let sizes = self.list("split", 1);
        (0..count)
            .map(|i| {
                let size = match (&sizes, shape[axis].known()) {
                    (Some(sizes), _) => sizes.get(i).map(|&size| size as u64),
                    (None, Some(total)) if self.node.input.len() < 2 => {
                        let chunk = total.div_ceil(count as u64);
                        Some(chunk.min(total.saturating_sub(chunk * i as u64)))
                    }
                    _ => None,
                };
                let mut shape = shape.to_vec();
                shape[axis] = size.map_or(Dim::Unknown, Dim::Known);
                Some(shape)
            })
            .collect()
    }

    fn reduce(&self) -> Shape {
        let shape = self.shape(0)?;
        let keep = self.node.int("keepdims", 1) != 0;
        let axes = match self.node.op_type() {
            "ArgMax" | "ArgMin" => Some(vec![self.node.int("axis", 0)]),
            _ => self.list("axes", 1),
        };
        let axes: Vec<usize> = match axes {
            Some(axes) if !axes.is_empty() => {
                axes.iter().map(|&axis| normal(axis, shape.len())).collect::<Option<_>>()?
            }
            _ if self.input(1).is_some() && self.list("axes", 1).is_none() => return None,
            _ if self.node.int("noop_with_empty_axes", 0) != 0 => Vec::new(),
            _ => (0..shape.len()).collect(),
        };
        Some(
            (0..shape.len())
                .filter(|axis| keep || !axes.contains(axis))
                .map(|axis| if axes.contains(&axis) { Dim::Known(1) } else { shape[axis].clone() })
                .collect(),
        )
    }

    /// Convolution and pooling: batch and channels are known, the rest where all attributes and sizes are.
    fn window(&self) -> Shape {
        let input = self.shape(0)?;
        let spatial = input.len().checked_sub(2)?;
        let weight = if self.node.op_type() == "Conv" { Some(self.shape(1)?) } else { None };
        let kernel: Vec<Option<i64>> = match (self.node.ints("kernel_shape"), weight) {
            (Some(kernel), _) => kernel.iter().map(|&size| Some(size)).collect(),
            (None, Some(weight)) => weight[2..].iter().map(|dim| dim.known().map(|size| size as i64)).collect(),
            _ => return None,
        };
        let attribute = |name: &str, default: i64| -> Vec<i64> {
            self.node.ints(name).filter(|ints| !ints.is_empty()).map_or(vec![default; spatial], <[i64]>::to_vec)
        };
        let (strides, dilations) = (attribute("strides", 1), attribute("dilations", 1));
        let pads = self.node.ints("pads").map_or(vec![0; 2 * spatial], <[i64]>::to_vec);
        let auto_pad = NodeExt::attribute(self.node, "auto_pad").map(|attribute| attribute.s());
        let ceil = self.node.int("ceil_mode", 0) != 0;
        let size = |i: usize| -> Option<u64> {
            let (size, kernel) = (input[2 + i].known()? as i64, (*kernel.get(i)?)?);
            let extent = (kernel - 1) * dilations[i] + 1;
            match auto_pad {
                Some(b"SAME_UPPER" | b"SAME_LOWER") => u64::try_from((size + strides[i] - 1) / strides[i]).ok(),
                Some(b"VALID") => u64::try_from((size - extent) / strides[i] + 1).ok(),
                _ if ceil => None,
                _ => u64::try_from((size + pads[i] + pads[spatial + i] - extent) / strides[i] + 1).ok(),
            }
        };
        let channels = weight.map_or(input[1].clone(), |weight| weight[0].clone());
        let sizes = (0..spatial).map(|i| size(i).map_or(Dim::Unknown, Dim::Known));
        Some([input[0].clone(), channels].into_iter().chain(sizes).collect())
    }

    /// The elements of the result, where it is a small integer tensor.
    fn content(&self) -> Option<Vec<Dim>> {
        let own = || self.content_at(0).map(<[Dim]>::to_vec);
        match self.node.op_type() {
            "Constant" => {
                let attribute = |name: &str| NodeExt::attribute(self.node, name);
                let dims =
                    |ints: &[i64]| ints.iter().map(|&e| u64::try_from(e).map_or(Dim::Unknown, Dim::Known)).collect();
                if let Some(tensor) = attribute("value").and_then(|attribute| attribute.t.as_ref()) {
                    return if tensor.dims.len() <= 1 { content_of_tensor(tensor) } else { None };
                }
                let ints = attribute("value_ints").map(|attribute| attribute.ints.clone());
                ints.or_else(|| attribute("value_int")?.i.map(|value| vec![value])).map(|ints| dims(&ints))
            }
            "Shape" => {
                let shape = self.shape(0)?;
                let at = |name: &str, default: i64| {
                    let value = self.node.int(name, default);
                    (if value < 0 { value + shape.len() as i64 } else { value }).clamp(0, shape.len() as i64) as usize
                };
                shape.get(at("start", 0)..at("end", shape.len() as i64)).map(<[Dim]>::to_vec)
            }
            "Size" => Some(vec![product(self.shape(0)?)]),
            "Identity" | "Squeeze" | "Unsqueeze" | "Reshape" => own(),
            "Cast" if self.node.int("to", 0) as i32 == INT64 => own(),
            "Concat" => {
                let parts = (0..self.node.input.len()).map(|slot| self.content_at(slot));
                Some(parts.collect::<Option<Vec<_>>>()?.concat())
            }
            "Gather" => {
                let (data, indices) = (self.content_at(0)?, self.graph.constant_ints(self.index, self.input(1)?)?);
                indices.iter().map(|&index| data.get(normal(index, data.len())?).cloned()).collect()
            }
            "Slice" => {
                let data = self.content_at(0)?;
                let (start, end) = (*self.list("starts", 1)?.first()?, *self.list("ends", 2)?.first()?);
                if self.list("steps", 4).is_some_and(|steps| steps != [1]) {
                    return None;
                }
                let clamp =
                    |at: i64| (if at < 0 { at + data.len() as i64 } else { at }).clamp(0, data.len() as i64) as usize;
                data.get(clamp(start)..clamp(end)).map(<[Dim]>::to_vec)
            }
            "Mul" | "Add" | "Sub" | "Div" => {
                let (a, b) = (self.content_at(0)?, self.content_at(1)?);
                let at = |list: &[Dim], i: usize| list[if list.len() == 1 { 0 } else { i }].clone();
                (a.len() == b.len() || a.len() == 1 || b.len() == 1)
                    .then(|| (0..a.len().max(b.len())).map(|i| self.arithmetic(&at(a, i), &at(b, i))).collect())
            }
            _ => None,
        }
    }

    fn arithmetic(&self, a: &Dim, b: &Dim) -> Dim {
        match (self.node.op_type(), a, b) {
            ("Mul" | "Div", other, Dim::Known(1)) | ("Mul", Dim::Known(1), other) => other.clone(),
            (op, Dim::Known(a), Dim::Known(b)) => {
                let result = match op {
                    "Mul" => a.checked_mul(*b),
                    "Add" => a.checked_add(*b),
                    "Sub" => a.checked_sub(*b),
                    _ => a.checked_div(*b),
                };
                result.map_or(Dim::Unknown, Dim::Known)
            }
            _ => Dim::Unknown,
        }
    }
}

/// Operators whose (first) result has the shape of the first input.
const KEEP_SHAPE: [&str; 41] = [
    "Identity",
    "Cast",
    "CastLike",
    "Relu",
    "Tanh",
    "Sigmoid",
    "Exp",
    "Log",
    "Sqrt",
    "Neg",
    "Abs",
    "Erf",
    "Gelu",
    "Softmax",
    "LogSoftmax",
    "Clip",
    "Reciprocal",
    "Floor",
    "Ceil",
    "Sign",
    "Not",
    "Elu",
    "Selu",
    "LeakyRelu",
    "HardSigmoid",
    "HardSwish",
    "Softplus",
    "Softsign",
    "Mish",
    "Celu",
    "ThresholdedRelu",
    "Sin",
    "Cos",
    "Tan",
    "Sinh",
    "Cosh",
    "Asin",
    "Acos",
    "Atan",
    "ScatterND",
    "ScatterElements",
];

/// Operators of ONNX Runtime whose first result has type and shape of the first input.
const MICROSOFT: [&str; 10] = [
    "ReluGrad",
    "TanhGrad",
    "SigmoidGrad",
    "GeluGrad",
    "FastGeluGrad",
    "QuickGelu",
    "QuickGeluGrad",
    "FastGelu",
    "BiasGelu",
    "Scale",
];

fn normal(axis: i64, rank: usize) -> Option<usize> {
    usize::try_from(if axis < 0 { axis + rank as i64 } else { axis }).ok().filter(|&axis| axis < rank.max(1))
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

fn slice_size(size: i64, start: i64, end: i64, step: i64) -> Option<u64> {
    let wrap = |at: i64| if at < 0 { at.saturating_add(size) } else { at };
    let count = if step > 0 {
        (wrap(end).clamp(0, size) - wrap(start).clamp(0, size) + step - 1) / step
    } else if step < 0 {
        (wrap(start).clamp(0, size - 1) - wrap(end).clamp(-1, size - 1) - step - 1) / -step
    } else {
        return None;
    };
    u64::try_from(count.max(0)).ok()
}
