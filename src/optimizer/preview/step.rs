use std::collections::HashMap;

use crate::model::{Builder, Dim, Index, NodeExt, TensorType, Types, name_of, needed_for};
use crate::proto::NodeProto;
use crate::proto::attribute_proto::AttributeType;
use crate::proto::tensor_proto::DataType;

/// The element types of tensors and of R.
const REALS: &[DataType] = &[DataType::Float, DataType::Double];

/// Why a node cannot be written out.
pub(super) type Refusal = String;

/// One optimizer node, read from its inputs and attributes, and the nodes that take its place.
pub(super) struct Step<'a> {
    pub(super) b: Builder<'a>,
    node: &'a NodeProto,
    index: &'a Index,
    types: &'a Types,
    /// The attributes that were asked for.
    known: Vec<&'static str>,
    /// By result: the name that it has in the graph.
    given: HashMap<String, String>,
}

/// One of the tensors that a node updates.
pub(super) struct Tensor<'a, const N: usize> {
    /// Its value, its gradient, its state, in the order of the node's groups.
    pub(super) inputs: [&'a str; N],
    /// What they are made of.
    pub(super) elem: i32,
    /// The names of its next value and its next state, some of which may be empty.
    outputs: Vec<&'a str>,
}

/// A scalar that is computed in double, where 1 - 0.999 is not yet rounded away, and used in the types of tensors.
pub(super) struct Scalar {
    double: String,
    float: Option<String>,
}

impl Scalar {
    pub(super) fn new(double: String) -> Self {
        Self { double, float: None }
    }

    /// The scalar times a value of the element type `elem`.
    pub(super) fn times(&mut self, b: &mut Builder<'_>, value: &str, elem: i32) -> String {
        let scalar = if elem == DataType::Double as i32 {
            &self.double
        } else {
            self.float.get_or_insert_with(|| b.cast(&self.double, elem))
        };
        b.op("Mul", &[scalar, value])
    }
}

impl<'a> Step<'a> {
    pub(super) fn new(node: &'a NodeProto, index: &'a Index, types: &'a Types, opset: i64) -> Self {
        let output = node.output.iter().find(|output| !output.is_empty());
        let prefix = format!("{}/", output.map_or(node.op_type(), String::as_str));
        Self { b: Builder::new(index, opset, &prefix), node, index, types, known: Vec::new(), given: HashMap::new() }
    }

    /// Float attributes, each with its default; those without one have to be there.
    pub(super) fn numbers<const N: usize>(
        &mut self,
        wanted: [(&'static str, Option<f32>); N],
    ) -> Result<[f64; N], Refusal> {
        let mut numbers = [0.0; N];
        for (number, (name, default)) in numbers.iter_mut().zip(wanted) {
            self.known.push(name);
            *number = match (NodeExt::attribute(self.node, name), default) {
                (None, Some(default)) => default,
                (None, None) => return Err(format!("its attribute {name} is missing")),
                (Some(given), _) if given.f.is_some() || given.r#type() == AttributeType::Float => given.f(),
                (Some(_), _) => return Err(format!("its attribute {name} is no float")),
            }
            .into();
        }
        Ok(numbers)
    }

    /// A string attribute that has to be there, as its position in `choices`.
    pub(super) fn choice(&mut self, name: &'static str, choices: &[&str]) -> Result<usize, Refusal> {
        self.known.push(name);
        let given = NodeExt::attribute(self.node, name).ok_or_else(|| format!("its attribute {name} is missing"))?;
        let given = String::from_utf8_lossy(given.s());
        let position = choices.iter().position(|choice| *choice == given);
        position.ok_or_else(|| format!("its {name} is '{given}', which is none of {}", choices.join(", ")))
    }

    /// The learning rate R and the update count T, scalars in double.
    pub(super) fn rate_and_count(&mut self) -> Result<[String; 2], Refusal> {
        Ok([self.scalar(0, "R", REALS)?, self.scalar(1, "T", &[DataType::Int64])?])
    }

    fn scalar(&mut self, slot: usize, what: &str, allowed: &[DataType]) -> Result<String, Refusal> {
        let name = self.input(slot, what)?;
        let (elem, shape) = self.type_of(name);
        if elem.is_some_and(|elem| !is_among(elem, allowed)) {
            return Err(format!("its {what} is {}, which is not {}", described(name, elem, shape), listed(allowed)));
        }
        if shape.is_some_and(|shape| shape.iter().any(|size| !size.compatible(&Dim::Known(1)))) {
            return Err(format!("its {what} is {}, which is no scalar", described(name, elem, shape)));
        }
        let is_scalar = shape.is_some_and(<[Dim]>::is_empty);
        let double = self.b.converted(name, elem.unwrap_or_default(), DataType::Double as i32);
        if is_scalar {
            return Ok(double);
        }
        let no_axes = self.b.ints(&[]);
        Ok(self.b.op("Reshape", &[&double, &no_axes]))
    }

    /// The tensors that the node updates. Behind R and T, its inputs are one group of as many values for each name in `groups`; its
    /// outputs are the same groups without that of the gradients, the second.
    pub(super) fn tensors<const N: usize>(&self, groups: [&str; N]) -> Result<Vec<Tensor<'a, N>>, Refusal> {
        let (inputs, outputs) = (self.node.input.len().saturating_sub(2), &self.node.output);
        let count = inputs / N;
        if count == 0 || inputs % N != 0 {
            let groups = groups.join(", ");
            return Err(format!("behind R and T it has {inputs} inputs, and not as many of each of {groups}"));
        }
        if outputs.len() != count * (N - 1) {
            let expected = count * (N - 1);
            return Err(format!("it updates {count} tensors in {} outputs, {expected} are expected", outputs.len()));
        }
        (0..count)
            .map(|at| {
                let mut inputs = [""; N];
                for (kind, (input, what)) in inputs.iter_mut().zip(groups).enumerate() {
                    *input = self.input(2 + kind * count + at, &format!("{what}_{}", at + 1))?;
                }
                let outputs = (0..N - 1).map(|kind| outputs[kind * count + at].as_str()).collect();
                Ok(Tensor { inputs, elem: self.common_type(&inputs)?, outputs })
            })
            .collect()
    }

    /// The element type of values that are added up.
    fn common_type(&self, names: &[&str]) -> Result<i32, Refusal> {
        let known: Vec<(&str, i32)> = names.iter().filter_map(|&name| Some((name, self.type_of(name).0?))).collect();
        let &(first, elem) = known.first().ok_or_else(|| format!("the element type of '{}' is not known", names[0]))?;
        let describe = |name: &str| {
            let (elem, shape) = self.type_of(name);
            described(name, elem, shape)
        };
        if !is_among(elem, REALS) {
            return Err(format!("{} is not of {}", describe(first), listed(REALS)));
        }
        if let Some((other, _)) = known.iter().find(|(_, other)| *other != elem) {
            return Err(format!("{} and {} are not of one element type", describe(first), describe(other)));
        }
        let value = names[0];
        match names.iter().find(|other| !fits(self.type_of(value).1, self.type_of(other).1)) {
            Some(other) => Err(format!("the shapes of {} and {} do not fit", describe(value), describe(other))),
            None => Ok(elem),
        }
    }

    /// Gives the results for a tensor, its next value and its next state, the names that they have in the graph.
    pub(super) fn give<const N: usize>(&mut self, tensor: &Tensor<'_, N>, results: &[String]) {
        let named = results.iter().zip(&tensor.outputs).filter(|(_, output)| !output.is_empty());
        self.given.extend(named.map(|(result, &output)| (result.clone(), output.to_owned())));
    }

    /// The nodes that the results with names need.
    ///
    /// # Errors
    /// An attribute that nobody asked for.
    pub(super) fn into_nodes(mut self) -> Result<Vec<NodeProto>, Refusal> {
        match self.node.attribute.iter().find(|attribute| !self.known.contains(&attribute.name())) {
            Some(unknown) => Err(format!("it has no attribute {}", unknown.name())),
            None => {
                self.b.rename(&self.given);
                Ok(needed_for(self.b.into_nodes(), self.given.into_values().collect()))
            }
        }
    }

    fn input(&self, slot: usize, what: &str) -> Result<&'a str, Refusal> {
        self.node.input_name(slot).ok_or_else(|| format!("its {what} (input {slot}) is missing"))
    }

    fn type_of(&self, name: &str) -> (Option<i32>, Option<&'a [Dim]>) {
        match self.index.find(name) {
            Some(value) => (self.types.elem(value), self.types.shape(value)),
            None => (None, None),
        }
    }
}

fn is_among(elem: i32, allowed: &[DataType]) -> bool {
    allowed.iter().any(|&data_type| data_type as i32 == elem)
}

fn listed(allowed: &[DataType]) -> String {
    let names: Vec<String> = allowed.iter().map(|&elem| name_of(elem)).collect();
    names.join(" or ")
}

/// `'w' (float[3, 4])`.
fn described(name: &str, elem: Option<i32>, shape: Option<&[Dim]>) -> String {
    let tensor = TensorType { elem: elem.unwrap_or_default(), shape: shape.map(<[Dim]>::to_vec) };
    format!("'{name}' ({tensor})")
}

/// Whether values of these shapes can be added.
fn fits(a: Option<&[Dim]>, b: Option<&[Dim]>) -> bool {
    let (a, b) = (a.unwrap_or_default(), b.unwrap_or_default());
    let one = Dim::Known(1);
    a.iter().rev().zip(b.iter().rev()).all(|(a, b)| a.compatible(b) || *a == one || *b == one)
}
