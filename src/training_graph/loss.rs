//! Losses, as nodes: the value and its gradient.
//!
//! Each loss is a mean over the batch; the formulas are those of PyTorch's losses of the same names. z is the model's prediction,
//! t the label.

use super::distribution::{Classes, Distribution, Kind, distance_from_class};
use crate::model::{Builder, Dim, NodeExt, TensorType, working_type};
use crate::proto::tensor_proto::DataType;
use crate::proto::{NodeProto, TensorProto, ValueInfoProto};

const INT64: i32 = DataType::Int64 as i32;

/// What no axis has as its size, and no runtime takes for one.
const NO_SIZE: i64 = -2;

/// What is to be made small.
#[derive(Debug, Clone, PartialEq)]
pub enum Loss {
    /// A distance between an output of the model and labels that are fed.
    Labelled(Labelled),
    /// A scalar output that the model has.
    Output(String),
}

/// A distance between a prediction and labels.
#[derive(Debug, Clone, PartialEq)]
pub struct Labelled {
    /// Which.
    pub distance: Distance,
    /// The output of the model that is compared; `None`: its only one.
    pub prediction: Option<String>,
    /// Whether each example of a batch has a weight, which is fed. The loss is then the weighted mean.
    pub example_weights: bool,
}

/// How a prediction is compared with a label.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Distance {
    /// -log softmax(z)ₜ, for the index t of a class.
    CrossEntropy {
        /// The axis of z along which classes lie; `None`: the last one.
        class_axis: Option<i64>,
        /// A label that does not count.
        ignore_index: Option<i64>,
    },
    /// -Σ t · log softmax(z), for probabilities t of the classes.
    SoftCrossEntropy {
        /// The axis of z along which classes lie; `None`: the last one.
        class_axis: Option<i64>,
    },
    /// (z - t)².
    MeanSquaredError,
    /// -t log σ(z) - (1 - t) log (1 - σ(z)).
    BinaryCrossEntropy,
    /// |z - t|.
    L1,
}

/// What a written loss consists of.
pub(super) struct Written {
    /// The scalar.
    pub(super) loss: String,
    /// Its gradient with respect to the prediction.
    pub(super) gradient: String,
    /// Inputs that are fed beside the data.
    pub(super) inputs: Vec<ValueInfoProto>,
    /// The model's distribution of labels; `None` where the loss stands for none.
    pub(super) distribution: Option<Distribution>,
}

/// The prediction while its loss is written.
struct Writer<'a, 'b, 'i> {
    b: &'a mut Builder<'i>,
    name: &'b str,
    tensor: &'b TensorType,
    /// The prediction in the type in which the loss is computed.
    z: String,
    working: i32,
    inputs: Vec<ValueInfoProto>,
    mask: Option<String>,
}

/// What a distance says of each element that it compares.
struct Compared {
    /// The distances.
    each: String,
    /// Their derivatives with respect to the prediction, in its shape.
    slope: String,
    /// The axis of the prediction that `each` does not have.
    reduced: Option<i64>,
    kind: Option<Kind>,
}

impl Labelled {
    /// Writes the loss of the prediction `name`.
    ///
    /// # Errors
    /// What of the prediction does not fit.
    pub(super) fn write(&self, b: &mut Builder<'_>, name: &str, tensor: &TensorType) -> Result<Written, String> {
        let working = working_type(tensor.elem);
        let z = b.converted(name, tensor.elem, working);
        let mut writer = Writer { b, name, tensor, z, working, inputs: Vec::new(), mask: None };
        let compared = writer.compare(self.distance)?;
        let weights = self.example_weights.then(|| writer.example_weights(&compared)).transpose()?;
        Ok(writer.average(compared, weights))
    }
}

impl Writer<'_, '_, '_> {
    fn compare(&mut self, distance: Distance) -> Result<Compared, String> {
        Ok(match distance {
            Distance::CrossEntropy { class_axis, ignore_index } => self.cross_entropy(class_axis, ignore_index)?,
            Distance::SoftCrossEntropy { class_axis } => self.soft_cross_entropy(class_axis)?,
            Distance::MeanSquaredError => {
                let t = self.labels_like_prediction();
                let error = self.b.op("Sub", &[&self.z, &t]);
                let each = self.b.op("Mul", &[&error, &error]);
                let two = self.b.scalar(2.0, self.working);
                let slope = self.b.op("Mul", &[&error, &two]);
                Compared { each, slope, reduced: None, kind: Some(Kind::Normal) }
            }
            Distance::BinaryCrossEntropy => {
                let t = self.labels_like_prediction();
                let softplus = self.softplus();
                let product = self.b.op("Mul", &[&self.z, &t]);
                let each = self.b.op("Sub", &[&softplus, &product]);
                let probabilities = self.b.op("Sigmoid", &[&self.z]);
                let slope = self.b.op("Sub", &[&probabilities, &t]);
                Compared { each, slope, reduced: None, kind: Some(Kind::Bernoulli { probabilities }) }
            }
            Distance::L1 => {
                let t = self.labels_like_prediction();
                let error = self.b.op("Sub", &[&self.z, &t]);
                let [each, slope] = ["Abs", "Sign"].map(|op| self.b.op(op, &[&error]));
                Compared { each, slope, reduced: None, kind: None }
            }
        })
    }

    fn cross_entropy(&mut self, class_axis: Option<i64>, ignore_index: Option<i64>) -> Result<Compared, String> {
        let classes = self.classes(class_axis)?;
        let mut shape = self.tensor.shape.clone().unwrap_or_default();
        shape.remove(classes.axis as usize);
        let axes: Vec<i64> = (0..=shape.len() as i64).filter(|&axis| axis != classes.axis).collect();
        let labels = self.fed("labels", &TensorType { elem: INT64, shape: Some(shape) }, Some(&axes));
        let mut index = labels.clone();
        if let Some(ignored) = ignore_index {
            let [ignored, zero] = [ignored, 0].map(|label| self.b.int(label));
            let is_ignored = self.b.op("Equal", &[&labels, &ignored]);
            index = self.b.op("Where", &[&is_ignored, &zero, &labels]);
            let counts = self.b.op("Not", &[&is_ignored]);
            self.mask = Some(self.b.cast(&counts, self.working));
        }
        let index = self.b.unsqueeze(&index, &[classes.axis]);
        let [logarithms, probabilities] = self.softmax(&classes);
        // A label that is no class is an error of this operator, to which negative ones would count from the last class.
        let [zero, beyond] = [0, 1 << 32].map(|label| self.b.int(label));
        let is_negative = self.b.op("Less", &[&index, &zero]);
        let place = self.b.op("Where", &[&is_negative, &beyond, &index]);
        let of_label = self.b.with("GatherElements", &[&logarithms, &place], |node| {
            node.named("loss/labels_are_from_0_to_below_the_number_of_classes").with_int("axis", classes.axis)
        });
        let of_label = self.b.squeeze(&of_label, &[classes.axis]);
        let each = self.b.op("Neg", &[&of_label]);
        let slope = distance_from_class(self.b, &probabilities, &index, &classes, self.working);
        let reduced = Some(classes.axis);
        Ok(Compared { each, slope, reduced, kind: Some(Kind::Categorical { probabilities, classes }) })
    }

    fn soft_cross_entropy(&mut self, class_axis: Option<i64>) -> Result<Compared, String> {
        let classes = self.classes(class_axis)?;
        let t = self.labels_like_prediction();
        let [logarithms, probabilities] = self.softmax(&classes);
        let product = self.b.op("Mul", &[&t, &logarithms]);
        let sum = self.b.sum(&product, &[classes.axis], false);
        let each = self.b.op("Neg", &[&sum]);
        let total = self.b.sum(&t, &[classes.axis], true);
        let expected = self.b.op("Mul", &[&probabilities, &total]);
        let slope = self.b.op("Sub", &[&expected, &t]);
        let reduced = Some(classes.axis);
        Ok(Compared { each, slope, reduced, kind: Some(Kind::Categorical { probabilities, classes }) })
    }

    /// log softmax(z) and softmax(z).
    fn softmax(&mut self, classes: &Classes) -> [String; 2] {
        let logarithms = self.b.with("LogSoftmax", &[&self.z], |node| node.with_int("axis", classes.axis));
        let probabilities = self.b.op("Exp", &[&logarithms]);
        [logarithms, probabilities]
    }

    /// ln(1 + exp z) as max(z, 0) + ln(1 + exp(-|z|)): ONNX Runtime has no Softplus in double.
    fn softplus(&mut self) -> String {
        let size = self.b.op("Abs", &[&self.z]);
        let negative = self.b.op("Neg", &[&size]);
        let power = self.b.op("Exp", &[&negative]);
        let one = self.b.scalar(1.0, self.working);
        let sum = self.b.op("Add", &[&power, &one]);
        let rest = self.b.op("Log", &[&sum]);
        let positive = self.b.op("Relu", &[&self.z]);
        self.b.op("Add", &[&positive, &rest])
    }

    fn classes(&mut self, axis: Option<i64>) -> Result<Classes, String> {
        let shape = self.shape()?;
        let rank = shape.len();
        if rank < 2 {
            return Err(format!("cross-entropy compares [examples, classes, …], and '{}' has {rank} axes", self.name));
        }
        if axis.is_none() && rank > 3 {
            return Err(format!(
                "'{}' has {rank} axes: --class-axis says along which of them the classes lie (1 in PyTorch's convention)",
                self.name
            ));
        }
        let given = axis.unwrap_or(-1);
        let from_front = if given < 0 { given + rank as i64 } else { given };
        let axis = from_front.clamp(1, rank as i64 - 1);
        if axis != from_front {
            return Err(format!(
                "--class-axis {given} for '{}', which has {rank} axes, the first for examples",
                self.name
            ));
        }
        let mut broadcast = vec![1; rank - axis as usize];
        let count = shape[axis as usize].known();
        let numbers = match count {
            Some(count) => {
                broadcast[0] = count as i64;
                let numbers: Vec<i64> = (0..count as i64).collect();
                self.b.constant(TensorProto { dims: broadcast, ..TensorProto::of_ints(&numbers) })
            }
            None => {
                broadcast[0] = -1;
                let count = self.b.size(&self.z, axis as usize);
                let numbers = self.b.count_up(&count);
                let broadcast = self.b.ints(&broadcast);
                self.b.op("Reshape", &[&numbers, &broadcast])
            }
        };
        Ok(Classes { axis, count, numbers })
    }

    fn shape(&self) -> Result<Vec<Dim>, String> {
        self.tensor.shape.clone().ok_or_else(|| format!("the number of axes of '{}' is not known", self.name))
    }

    /// An input that has the prediction's sizes along `axes`, or along all of them. A size that is known is declared, and who runs the graph
    /// refuses others. Others are looked at when it runs, or a batch of one label would be compared with every example.
    fn fed(&mut self, role: &str, tensor: &TensorType, axes: Option<&[i64]>) -> String {
        let name = self.b.named(role);
        self.inputs.push(tensor.declare(&name));
        let open = tensor.shape.as_ref().map(|shape| shape.iter().filter(|dim| dim.known().is_none()).count());
        if open == Some(0) {
            return name;
        }
        let mut sizes = self.b.op("Shape", &[&self.z]);
        if let Some(axes) = axes {
            let axes = self.b.ints(axes);
            sizes = self.b.op("Gather", &[&sizes, &axes]);
        }
        // Where another number of elements is another shape, this operator says so already.
        let what = format!("loss/{role}_have_the_sizes_of_the_prediction");
        if open == Some(1) {
            return self.b.with("Reshape", &[&name, &sizes], |node| node.named(&what));
        }
        let own = self.b.op("Shape", &[&name]);
        let is_same = self.b.op("Equal", &[&own, &sizes]);
        let none = self.b.int(NO_SIZE);
        let checked = self.b.op("Where", &[&is_same, &sizes, &none]);
        let fed = self.b.with("Reshape", &[&name, &checked], |node| node.named(&what));
        // For what is known of the sizes.
        self.b.op("Reshape", &[&fed, &sizes])
    }

    /// Labels of the prediction's shape and type.
    fn labels_like_prediction(&mut self) -> String {
        let tensor = self.tensor.clone();
        let labels = self.fed("labels", &tensor, None);
        self.b.converted(&labels, tensor.elem, self.working)
    }

    /// The fed weights, in a shape that broadcasts against the distances.
    fn example_weights(&mut self, compared: &Compared) -> Result<String, String> {
        let shape = self.shape()?;
        let examples = shape.first().cloned().ok_or("a prediction without axes has no examples")?;
        let weights = TensorType { elem: self.working, shape: Some(vec![examples]) };
        let weights = self.fed("example_weights", &weights, Some(&[0]));
        let rank = shape.len() as i64 - i64::from(compared.reduced.is_some());
        let axes: Vec<i64> = (1..rank).collect();
        Ok(if axes.is_empty() { weights } else { self.b.unsqueeze(&weights, &axes) })
    }

    /// The mean of the distances, weighted where there are weights or labels that do not count; zero where nothing counts.
    fn average(mut self, compared: Compared, weights: Option<String>) -> Written {
        let b = &mut *self.b;
        let weights = match (weights, &self.mask) {
            (Some(weights), Some(mask)) => Some(b.op("Mul", &[&weights, mask])),
            (Some(weights), None) => {
                // Each example's weight counts for each of its distances.
                Some(b.expand_like(&weights, &compared.each))
            }
            (None, mask) => mask.clone(),
        };
        let count = match &weights {
            Some(weights) => {
                let total = b.total(weights);
                let [zero, one] = [0.0, 1.0].map(|value| b.scalar(value, self.working));
                let is_nothing = b.op("Equal", &[&total, &zero]);
                b.op("Where", &[&is_nothing, &one, &total])
            }
            None => {
                let size = b.op("Size", &[&compared.each]);
                b.cast(&size, self.working)
            }
        };
        let (mut each, mut slope) = (compared.each, compared.slope);
        if let Some(weights) = weights {
            each = b.op("Mul", &[&each, &weights]);
            let weights = compared.reduced.map(|axis| b.unsqueeze(&weights, &[axis])).unwrap_or(weights);
            slope = b.op("Mul", &[&slope, &weights]);
        }
        let sum = b.total(&each);
        let loss = b.named("loss");
        b.push(NodeProto::build("", "Div", &[&sum, &count], &[&loss]));
        let gradient = b.op("Div", &[&slope, &count]);
        let gradient = b.converted(&gradient, self.working, self.tensor.elem);
        let distribution = compared.kind.map(|kind| Distribution {
            kind,
            prediction: self.z,
            tensor: self.tensor.clone(),
            working: self.working,
            mask: self.mask.take(),
        });
        Written { loss, gradient, inputs: self.inputs, distribution }
    }
}
