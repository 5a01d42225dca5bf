//! The networks of the paper, as exported models with fresh weights.

use fastrand::Rng;
use isaac::model::{Dim, Model, ModelError, TensorType};
use isaac::proto::tensor_proto::DataType;
use isaac::proto::{
    AttributeProto, GraphProto, ModelProto, NodeProto, OperatorSetIdProto, TensorProto, attribute_proto,
};
use prost::Message;

const OPSET: i64 = 17;
const IR_VERSION: i64 = 8;

/// 784 inputs, four hidden layers of `width`, ten classes.
pub(crate) fn classifier(width: usize, seed: u64) -> Result<Model, ModelError> {
    perceptron(&[784, width, width, width, width, 10], seed)
}

/// 784–1000–500–30–500–1000–784.
pub(crate) fn auto_encoder(seed: u64) -> Result<Model, ModelError> {
    perceptron(&[784, 1000, 500, 30, 500, 1000, 784], seed)
}

/// Linear layers of these widths, inputs first, with ReLU between them.
fn perceptron(widths: &[usize], seed: u64) -> Result<Model, ModelError> {
    let mut network = Network::new(seed);
    let last = widths.len() - 2;
    let mut value = "x".to_owned();
    for (at, pair) in widths.windows(2).enumerate() {
        value = network.linear(&value, &format!("fc{}", at + 1), pair[0], pair[1]);
        if at < last {
            value = network.node("Relu", &[&value], &[]);
        }
    }
    network.model(&[widths[0]], &value, &[widths[last + 1]])
}

/// ResNet-18 for images of `channels` × `side` × `side`, as it is built for CIFAR-10: a 3×3 stem without pooling.
pub(crate) fn resnet18(channels: usize, side: usize, seed: u64) -> Result<Model, ModelError> {
    let mut network = Network::new(seed);
    let stem = network.convolution("x", "stem", channels, 64, 3, 1);
    let mut value = network.node("Relu", &[&stem], &[]);
    let mut width = 64;
    for (stage, out) in [64, 128, 256, 512].into_iter().enumerate() {
        for block in 0..2 {
            let stride = if stage > 0 && block == 0 { 2 } else { 1 };
            let name = format!("layer{}.{block}", stage + 1);
            let first = network.convolution(&value, &format!("{name}.conv1"), width, out, 3, stride);
            let first = network.node("Relu", &[&first], &[]);
            let second = network.convolution(&first, &format!("{name}.conv2"), out, out, 3, 1);
            let shortcut = if width == out {
                value
            } else {
                network.convolution(&value, &format!("{name}.shortcut"), width, out, 1, stride)
            };
            let sum = network.node("Add", &[&second, &shortcut], &[]);
            value = network.node("Relu", &[&sum], &[]);
            width = out;
        }
    }
    let pooled = network.node("GlobalAveragePool", &[&value], &[]);
    let features = network.node("Flatten", &[&pooled], &[("axis", &[1])]);
    let logits = network.linear(&features, "fc", width, 10);
    network.model(&[channels, side, side], &logits, &[10])
}

/// A graph in the making.
struct Network {
    graph: GraphProto,
    random: Rng,
}

impl Network {
    fn new(seed: u64) -> Self {
        Self { graph: GraphProto::default(), random: Rng::with_seed(seed) }
    }

    /// A node with one output; returns its name. `ints` are attributes: of one element a number, of more a list.
    fn node(&mut self, op: &str, inputs: &[&str], ints: &[(&str, &[i64])]) -> String {
        let output = format!("{}_{}", op.to_lowercase(), self.graph.node.len());
        let attribute = |&(name, values): &(&str, &[i64])| match values {
            [value] => AttributeProto {
                name: Some(name.to_owned()),
                r#type: Some(attribute_proto::AttributeType::Int as i32),
                i: Some(*value),
                ..AttributeProto::default()
            },
            _ => AttributeProto {
                name: Some(name.to_owned()),
                r#type: Some(attribute_proto::AttributeType::Ints as i32),
                ints: values.to_vec(),
                ..AttributeProto::default()
            },
        };
        self.graph.node.push(NodeProto {
            op_type: Some(op.to_owned()),
            name: Some(output.clone()),
            input: inputs.iter().map(|&input| input.to_owned()).collect(),
            output: vec![output.clone()],
            attribute: ints.iter().map(attribute).collect(),
            ..NodeProto::default()
        });
        output
    }

    fn parameter(&mut self, name: &str, dims: &[usize], mut element: impl FnMut(&mut Rng) -> f64) -> String {
        let count = dims.iter().product();
        let values: Vec<f64> = (0..count).map(|_| element(&mut self.random)).collect();
        let dims: Vec<i64> = dims.iter().map(|&size| size as i64).collect();
        let tensor = TensorProto::of_floats(&values, &dims, DataType::Float as i32);
        self.graph.initializer.push(TensorProto { name: Some(name.to_owned()), ..tensor });
        name.to_owned()
    }

    /// A linear layer, drawn as PyTorch draws it: U(−1/√n, 1/√n) for n inputs.
    fn linear(&mut self, value: &str, name: &str, inputs: usize, outputs: usize) -> String {
        let bound = 1.0 / (inputs as f64).sqrt();
        let draw = |random: &mut Rng| bound * (2.0 * random.f64() - 1.0);
        let weight = self.parameter(&format!("{name}.weight"), &[outputs, inputs], draw);
        let bias = self.parameter(&format!("{name}.bias"), &[outputs], draw);
        self.node("Gemm", &[value, &weight, &bias], &[("transB", &[1])])
    }

    /// A convolution and a batch normalization. The kernels are drawn as He et al. (2015) draw them: N(0, 2/outputs).
    fn convolution(
        &mut self,
        value: &str,
        name: &str,
        inputs: usize,
        outputs: usize,
        size: usize,
        stride: i64,
    ) -> String {
        let deviation = (2.0 / (outputs * size * size) as f64).sqrt();
        let dims = [outputs, inputs, size, size];
        let kernel = self.parameter(&format!("{name}.weight"), &dims, |random| deviation * normal(random));
        let pad = (size / 2) as i64;
        let ints: [(&str, &[i64]); 2] = [("pads", &[pad; 4]), ("strides", &[stride; 2])];
        let convolved = self.node("Conv", &[value, &kernel], &ints);
        let mut statistic =
            |what, start| self.parameter(&format!("{name}.norm.{what}"), &[outputs], |_: &mut Rng| start);
        let names = [("weight", 1.0), ("bias", 0.0), ("running_mean", 0.0), ("running_var", 1.0)]
            .map(|(what, start)| statistic(what, start));
        self.node("BatchNormalization", &[&convolved, &names[0], &names[1], &names[2], &names[3]], &[])
    }

    /// The model, from `x` of these sizes an example to `output`.
    fn model(mut self, inputs: &[usize], output: &str, outputs: &[usize]) -> Result<Model, ModelError> {
        let batch = |sizes: &[usize]| {
            let sizes = sizes.iter().map(|&size| Dim::Known(size as u64));
            let shape = std::iter::once(Dim::Symbol("batch".into())).chain(sizes).collect();
            TensorType { elem: DataType::Float as i32, shape: Some(shape) }
        };
        self.graph.input.push(batch(inputs).declare("x"));
        self.graph.output.push(batch(outputs).declare(output));
        self.graph.name = Some("network".into());
        let opset = OperatorSetIdProto { version: Some(OPSET), ..OperatorSetIdProto::default() };
        let model = ModelProto {
            ir_version: Some(IR_VERSION),
            opset_import: vec![opset],
            graph: Some(self.graph),
            ..ModelProto::default()
        };
        Model::from_bytes("network", model.encode_to_vec().into())
    }
}

/// A draw from the standard normal distribution (Box and Muller).
fn normal(random: &mut Rng) -> f64 {
    let radius = (-2.0 * (1.0 - random.f64()).ln()).sqrt();
    radius * (std::f64::consts::TAU * random.f64()).cos()
}
