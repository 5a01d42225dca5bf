//! A graph in tract, and the plans by which it is run.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;

use isaac::model::{Edit, Model};
use isaac::ops::OPERATOR;
use isaac::runtime::RuntimeError;
use prost::Message;
use tract_onnx::Onnx;
use tract_onnx::data_resolver::MmapDataResolver;
use tract_onnx::model::ParseResult;
use tract_onnx::pb::ModelProto;
use tract_onnx::prelude::*;
use tract_onnx::tensor::load_tensor;
use tract_onnx::tract_hir::internal::{DimFact, DimLike, Factoid, format_err};

use super::convert::to_tract;
use super::gemm::isaac_gemm;
use super::normalization::batch_normalization;
use super::{Value, failed};

/// The type and the shape of each input.
type Facts = Vec<InferenceFact>;

/// A graph of which what is fed is not decided yet.
#[derive(Debug)]
pub(super) struct Graph {
    path: String,
    model: InferenceModel,
    inputs: Vec<String>,
    /// What inputs are that are not fed.
    defaults: BTreeMap<String, Value>,
    plans: HashMap<Facts, Arc<TypedRunnableModel>>,
}

impl Graph {
    /// Reads the graph. Inputs with defaults are constants, but for those in `fed`.
    pub(super) fn new(model: &Model, fed: &[&str], outputs: &[&str]) -> Result<Self, RuntimeError> {
        let path = model.path();
        let folder = path.parent().and_then(|folder| folder.to_str());
        let bytes = model.to_bytes(&Edit::default());
        let mut proto = ModelProto::decode(bytes.as_slice()).map_err(|error| failed(error.into()))?;
        let mut defaults = BTreeMap::new();
        if let Some(graph) = &mut proto.graph {
            let inputs: HashSet<&str> = graph.input.iter().map(|input| input.name.as_str()).collect();
            let is_fed = |name: &str| fed.contains(&name) && inputs.contains(name);
            // To tract, an input with a default is a constant.
            for initializer in graph.initializer.extract_if(.., |initializer| is_fed(&initializer.name)) {
                let value = load_tensor(&MmapDataResolver, &initializer, folder).map_err(failed)?;
                defaults.insert(initializer.name, Arc::new(value));
            }
        }
        let parsed = guarded(|| onnx().parse(&proto, folder))?;
        let ParseResult { mut model, unresolved_inputs, outlets_by_name } = parsed;
        let fail = |what: String| RuntimeError::Program(format!("{}: {what}", path.display()));
        if let Some(name) = unresolved_inputs.first() {
            return Err(fail(format!("'{name}' is used, and defined nowhere")));
        }
        let outlet = |name: &&str| {
            outlets_by_name.get(*name).copied().ok_or_else(|| fail(format!("there is no output '{name}'")))
        };
        let outputs = outputs.iter().map(outlet).collect::<Result<Vec<_>, _>>()?;
        model.select_output_outlets(&outputs).map_err(failed)?;
        let inputs =
            model.input_outlets().map_err(failed)?.iter().map(|input| model.node(input.node).name.clone()).collect();
        Ok(Self { path: path.display().to_string(), model, inputs, defaults, plans: HashMap::new() })
    }

    /// Whether it has an input of this name.
    pub(super) fn has_input(&self, name: &str) -> bool {
        self.inputs.iter().any(|input| input == name)
    }

    /// Runs the graph; returns its outputs. Inputs that are neither carried nor fed have their defaults; of what is carried,
    /// the graph takes what it has an input for.
    pub(super) fn run<'a>(
        &mut self,
        carried: impl Iterator<Item = (&'a str, &'a Value)>,
        feeds: &[(&str, isaac::tensors::Tensor)],
    ) -> Result<Vec<Value>, RuntimeError> {
        let carried: BTreeMap<&str, &Value> = carried.collect();
        let mut values = self.defaults.clone();
        for (name, tensor) in feeds {
            if carried.contains_key(name) || !self.has_input(name) {
                return Err(RuntimeError::Program(format!("{}: no input '{name}' is to be fed", self.path)));
            }
            values.insert((*name).to_owned(), to_tract(tensor)?);
        }
        values.extend(carried.into_iter().map(|(name, value)| (name.to_owned(), value.clone())));
        let given = |name: &String| {
            let missing = || RuntimeError::Program(format!("{}: the input '{name}' is not fed", self.path));
            values.get(name).cloned().ok_or_else(missing)
        };
        let values: Vec<Value> = self.inputs.iter().map(given).collect::<Result<_, _>>()?;
        for (at, value) in values.iter().enumerate() {
            let declared = self.model.input_fact(at).map_err(failed)?;
            if !fits(declared, value) {
                let (name, declared) = (&self.inputs[at], declared.format_dt_shape());
                let given = InferenceFact::dt_shape_from_tensor(value).format_dt_shape();
                return Err(RuntimeError::Program(format!(
                    "{}: '{name}' is {given}, and should be {declared}",
                    self.path
                )));
            }
        }
        let plan = self.plan(&values)?;
        let outputs = guarded(|| plan.run(values.into_iter().map(IntoTValue::into_tvalue).collect()))?;
        Ok(outputs.into_iter().map(IntoArcTensor::into_arc_tensor).collect())
    }

    /// The plan for values of these types and shapes.
    fn plan(&mut self, values: &[Value]) -> Result<Arc<TypedRunnableModel>, RuntimeError> {
        let facts: Facts = values.iter().map(|value| InferenceFact::dt_shape_from_tensor(value)).collect();
        if let Some(plan) = self.plans.get(&facts) {
            return Ok(plan.clone());
        }
        let plan = guarded(|| {
            let mut model = self.model.clone();
            for (input, fact) in facts.iter().enumerate() {
                model.set_input_fact(input, fact.clone())?;
            }
            model.into_optimized()?.into_runnable()
        })?;
        self.plans.insert(facts, plan.clone());
        Ok(plan)
    }
}

/// Whether an input can take a value, as far as the file says.
fn fits(declared: &InferenceFact, value: &Value) -> bool {
    let dims = declared.shape.dims().zip(value.shape());
    let fits = |(dim, &size): (&DimFact, &usize)| {
        dim.concretize().and_then(|dim| dim.to_usize().ok()).is_none_or(|dim| dim == size)
    };
    declared.datum_type.concretize().is_none_or(|datum_type| datum_type == value.datum_type())
        && declared.shape.rank().concretize().is_none_or(|rank| rank as usize == value.rank())
        && dims.into_iter().all(fits)
}

/// Calls tract. Where data are not what it expects, as where an index is out of range, some of its operators panic.
fn guarded<T>(call: impl FnOnce() -> TractResult<T>) -> Result<T, RuntimeError> {
    let result = catch_unwind(AssertUnwindSafe(call)).unwrap_or_else(|panic| {
        let text = panic.downcast_ref::<&str>().copied();
        let text = text.or_else(|| panic.downcast_ref::<String>().map(String::as_str));
        Err(format_err!("internal error: {}", text.unwrap_or("panic")))
    });
    result.map_err(failed)
}

/// tract's reader of ONNX, with our operators.
fn onnx() -> Onnx {
    // Shapes that a file declares say nothing more, and types of its integers are not those that tract works with.
    let mut onnx = tract_onnx::onnx().with_ignore_value_info(true).with_ignore_output_types(true);
    onnx.op_register.insert(OPERATOR, isaac_gemm);
    onnx.op_register.insert("BatchNormalization", batch_normalization);
    onnx
}
