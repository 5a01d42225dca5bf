use crate::proto::attribute_proto::AttributeType;
use crate::proto::{AttributeProto, GraphProto, NodeProto, TensorProto};

/// Reading and building `NodeProto`s.
pub trait NodeExt {
    /// A node of `domain::op_type`.
    fn build(domain: &str, op_type: &str, inputs: &[&str], outputs: &[&str]) -> Self;
    /// The same node with an integer attribute.
    fn with_int(self, name: &str, value: i64) -> Self;
    /// The same node with an attribute that is a list of integers.
    fn with_ints(self, name: &str, values: &[i64]) -> Self;
    /// The same node with a float attribute.
    fn with_float(self, name: &str, value: f32) -> Self;
    /// The same node with a string attribute.
    fn with_string(self, name: &str, value: &str) -> Self;
    /// The same node with a tensor attribute.
    fn with_tensor(self, name: &str, value: TensorProto) -> Self;
    /// The same node with a graph attribute.
    fn with_graph(self, name: &str, value: GraphProto) -> Self;
    /// The same node under another name.
    fn named(self, name: &str) -> Self;
    /// Whether its operator is one of the default domain.
    fn is_standard(&self) -> bool;
    /// Whether this is `op_type` of the default domain.
    fn is_onnx(&self, op_type: &str) -> bool;
    /// Whether this is `op_type` of `domain`.
    fn is(&self, domain: &str, op_type: &str) -> bool;
    /// The attribute `name`.
    fn attribute(&self, name: &str) -> Option<&AttributeProto>;
    /// The integer attribute `name`, or `default`.
    fn int(&self, name: &str, default: i64) -> i64;
    /// The float attribute `name`, or `default`.
    fn float(&self, name: &str, default: f32) -> f32;
    /// The attribute `name` that is a list of integers.
    fn ints(&self, name: &str) -> Option<&[i64]>;
    /// The string attribute `name`, or `default`.
    fn string(&self, name: &str, default: &'static str) -> &[u8];
    /// The name of input `slot`; `None` where it is absent or left out.
    fn input_name(&self, slot: usize) -> Option<&str>;
    /// The graphs that the node holds (bodies of If, Loop, Scan).
    fn subgraphs(&self) -> impl Iterator<Item = &GraphProto>;
    /// What a message calls the node: its name, or else its first output, with the operator.
    fn label(&self) -> String;
}

impl NodeExt for NodeProto {
    fn build(domain: &str, op_type: &str, inputs: &[&str], outputs: &[&str]) -> Self {
        let own = |names: &[&str]| names.iter().map(|&name| name.to_owned()).collect();
        Self {
            input: own(inputs),
            output: own(outputs),
            op_type: Some(op_type.to_owned()),
            domain: (!domain.is_empty()).then(|| domain.to_owned()),
            ..Self::default()
        }
    }

    fn with_int(mut self, name: &str, value: i64) -> Self {
        self.attribute.push(AttributeProto { i: Some(value), ..attribute(name, AttributeType::Int) });
        self
    }

    fn with_ints(mut self, name: &str, values: &[i64]) -> Self {
        self.attribute.push(AttributeProto { ints: values.to_vec(), ..attribute(name, AttributeType::Ints) });
        self
    }

    fn with_float(mut self, name: &str, value: f32) -> Self {
        self.attribute.push(AttributeProto { f: Some(value), ..attribute(name, AttributeType::Float) });
        self
    }

    fn with_string(mut self, name: &str, value: &str) -> Self {
        let value = Some(value.as_bytes().to_vec().into());
        self.attribute.push(AttributeProto { s: value, ..attribute(name, AttributeType::String) });
        self
    }

    fn with_tensor(mut self, name: &str, value: TensorProto) -> Self {
        self.attribute.push(AttributeProto { t: Some(value), ..attribute(name, AttributeType::Tensor) });
        self
    }

    fn with_graph(mut self, name: &str, value: GraphProto) -> Self {
        self.attribute.push(AttributeProto { g: Some(value), ..attribute(name, AttributeType::Graph) });
        self
    }

    fn named(mut self, name: &str) -> Self {
        self.name = Some(name.to_owned());
        self
    }

    fn is_standard(&self) -> bool {
        matches!(self.domain(), "" | "ai.onnx")
    }

    fn is_onnx(&self, op_type: &str) -> bool {
        self.is_standard() && self.op_type() == op_type
    }

    fn is(&self, domain: &str, op_type: &str) -> bool {
        self.domain() == domain && self.op_type() == op_type
    }

    fn attribute(&self, name: &str) -> Option<&AttributeProto> {
        self.attribute.iter().find(|attribute| attribute.name() == name)
    }

    fn int(&self, name: &str, default: i64) -> i64 {
        NodeExt::attribute(self, name).and_then(|attribute| attribute.i).unwrap_or(default)
    }

    fn float(&self, name: &str, default: f32) -> f32 {
        NodeExt::attribute(self, name).and_then(|attribute| attribute.f).unwrap_or(default)
    }

    fn ints(&self, name: &str) -> Option<&[i64]> {
        NodeExt::attribute(self, name).map(|attribute| attribute.ints.as_slice())
    }

    fn string(&self, name: &str, default: &'static str) -> &[u8] {
        NodeExt::attribute(self, name).map_or(default.as_bytes(), |attribute| attribute.s())
    }

    fn input_name(&self, slot: usize) -> Option<&str> {
        self.input.get(slot).map(String::as_str).filter(|name| !name.is_empty())
    }

    fn subgraphs(&self) -> impl Iterator<Item = &GraphProto> {
        self.attribute.iter().flat_map(|attribute| attribute.g.iter().chain(&attribute.graphs))
    }

    fn label(&self) -> String {
        let name = match (self.name(), self.output.first()) {
            ("", Some(output)) => output,
            (name, _) => name,
        };
        match self.domain() {
            "" => format!("{} '{name}'", self.op_type()),
            domain => format!("{domain}::{} '{name}'", self.op_type()),
        }
    }
}

fn attribute(name: &str, kind: AttributeType) -> AttributeProto {
    AttributeProto { name: Some(name.to_owned()), r#type: Some(kind as i32), ..AttributeProto::default() }
}
