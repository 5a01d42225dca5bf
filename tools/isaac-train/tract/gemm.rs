//! `ai.isaac::IsaacGemm` as an operator of tract.

use std::fmt;
use std::sync::Arc;

use half::f16;
use isaac::ops::OPERATOR;
use isaac::ops::portable::{
    self, Attributes, Call, Element, Error, INPUTS, Inputs, Pool, Source, Workspace, input, output_shape,
};
use tract_onnx::model::{ParsingContext, optional_inputs};
use tract_onnx::pb::NodeProto;
use tract_onnx::pb_helpers::AttrScalarType;
use tract_onnx::tract_hir::internal::*;

use super::products::Sequential;

/// A node of the operator.
#[derive(Clone)]
pub(super) struct IsaacGemm {
    /// The node, for messages.
    description: String,
    attributes: Attributes,
    /// By input of the operator: its position among those that the node has.
    inputs: [Option<usize>; INPUTS],
    pools: Arc<Pools>,
}

/// Memory of calls, for each element type.
#[derive(Default)]
struct Pools {
    single: Pool<Workspace<f32>>,
    double: Pool<Workspace<f64>>,
    half: Pool<Workspace<f16>>,
}

/// Builds the operator of a node.
pub(super) fn isaac_gemm(_: &ParsingContext<'_>, node: &NodeProto) -> TractResult<(Box<dyn InferenceOp>, Vec<String>)> {
    let description = format!("{OPERATOR} node {:?}", node.name);
    let attributes = Attributes::read(&Node(node)).with_context(|| description.clone())?;
    let mut positions = optional_inputs(node);
    let inputs = std::array::from_fn(|_| positions.next().flatten());
    Ok((Box::new(IsaacGemm { description, attributes, inputs, pools: Arc::default() }), vec![]))
}

/// The attributes of a node in tract.
struct Node<'a>(&'a NodeProto);

impl<'a> Node<'a> {
    fn get<T: AttrScalarType<'a>>(&self, name: &'static str) -> Result<Option<T>, Error> {
        self.0.get_attr_opt(name).map_err(|error| Error::Attribute { name, problem: error.to_string() })
    }
}

impl Source for Node<'_> {
    fn float(&self, name: &'static str) -> Result<Option<f32>, Error> {
        self.get(name)
    }

    fn int(&self, name: &'static str) -> Result<Option<i64>, Error> {
        self.get(name)
    }

    fn text(&self, name: &'static str) -> Result<Option<String>, Error> {
        self.get(name)
    }
}

impl IsaacGemm {
    fn compute<E>(&self, tensors: &[TValue], pool: &Pool<Workspace<E>>) -> TractResult<Tensor>
    where
        E: Element + Datum + Default,
    {
        let find = |index: usize| self.inputs[index].and_then(|position| tensors.get(position));
        let matrix = |index, name| find(index).map(|tensor| matrix::<E>(tensor, name)).transpose();
        let damping = |index, name| find(index).map(|tensor| damping(tensor, name)).transpose();
        let inputs = Inputs {
            g: matrix(input::G, "G")?,
            a: matrix(input::A, "A")?,
            lambda_a: damping(input::LAMBDA_A, "lambda_a")?,
            g_bar: matrix(input::G_BAR, "GBar")?,
            lambda_g: damping(input::LAMBDA_G, "lambda_g")?,
            c: matrix(input::C, "C")?,
        };
        let call = Call::new(&self.attributes, inputs)?;
        let mut output = vec![E::default(); call.output_shape().iter().product()];
        pool.lend(|workspace| call.write(&mut output, workspace, &mut Sequential))?;
        Tensor::from_shape(call.output_shape(), &output)
    }

    /// The output's shape for those of G and A, if they have enough dimensions.
    fn output_shape<D: Clone>(&self, g: &[D], a: &[D]) -> TractResult<TVec<D>> {
        let shape = output_shape(&self.attributes.layout, g, a);
        Ok(shape.with_context(|| format!("{}: G or A has too few dimensions", self.description))?.into())
    }
}

fn matrix<'a, E: Datum>(tensor: &'a Tensor, name: &'static str) -> Result<portable::Tensor<&'a [E]>, Error> {
    let data = tensor.try_as_plain_ram().and_then(|view| view.as_slice::<E>());
    let data = data.map_err(|_| Error::Input {
        name,
        problem: format!("has elements of type {:?}, and G of type {:?}", tensor.datum_type(), E::datum_type()),
    })?;
    Ok(portable::Tensor { shape: tensor.shape().to_vec(), data })
}

fn damping(tensor: &Tensor, name: &'static str) -> Result<f64, Error> {
    let fail = |problem| Error::Input { name, problem };
    if tensor.len() != 1 {
        return Err(fail(format!("must be one number, but has the shape {:?}", tensor.shape())));
    }
    if !tensor.datum_type().is_float() {
        return Err(fail(format!("must be a floating-point number, but has the type {:?}", tensor.datum_type())));
    }
    tensor.cast_to_scalar::<f64>().map_err(|error| fail(error.to_string()))
}

impl Op for IsaacGemm {
    fn name(&self) -> StaticName {
        OPERATOR.into()
    }

    op_as_typed_op!();
}

impl EvalOp for IsaacGemm {
    op_out_of_plan!();

    fn eval(&self, _: &EvalContext<'_>, inputs: TVec<TValue>) -> TractResult<TVec<TValue>> {
        let output = match self.inputs[input::G].and_then(|g| inputs.get(g)).map(|g| g.datum_type()) {
            Some(DatumType::F32) => self.compute(&inputs, &self.pools.single),
            Some(DatumType::F64) => self.compute(&inputs, &self.pools.double),
            Some(DatumType::F16) => self.compute(&inputs, &self.pools.half),
            other => Err(format_err!("input G: has elements of type {other:?}")),
        };
        Ok(tvec!(output.with_context(|| self.description.clone())?.into_tvalue()))
    }
}

impl InferenceRulesOp for IsaacGemm {
    fn rules<'r, 'p: 'r, 's: 'r>(
        &'s self,
        s: &mut Solver<'r>,
        inputs: &'p [TensorProxy],
        outputs: &'p [TensorProxy],
    ) -> InferenceResult {
        check_output_arity(outputs, 1)?;
        let [Some(g), Some(a), ..] = self.inputs else {
            bail!("{}: G or A is missing", self.description);
        };
        s.equals(&outputs[0].datum_type, &inputs[g].datum_type)?;
        s.given_2(&inputs[g].shape, &inputs[a].shape, move |s, g, a| {
            s.equals(&outputs[0].shape, self.output_shape(&g, &a)?)
        })
    }

    as_op!();
    to_typed!();
}

impl TypedOp for IsaacGemm {
    fn output_facts(&self, inputs: &[&TypedFact]) -> TractResult<TVec<TypedFact>> {
        let [Some(g), Some(a), ..] = self.inputs.map(|position| inputs.get(position?)) else {
            bail!("{}: G or A is missing", self.description);
        };
        Ok(tvec!(g.datum_type.fact(self.output_shape(&g.shape, &a.shape)?)))
    }

    as_op!();
}

impl fmt::Debug for IsaacGemm {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.description)
    }
}

impl PartialEq for IsaacGemm {
    fn eq(&self, other: &Self) -> bool {
        self.attributes == other.attributes && self.inputs == other.inputs
    }
}

// No attribute of a node is NaN but `alpha`, and a node with that has nothing to be merged with.
impl Eq for IsaacGemm {}
