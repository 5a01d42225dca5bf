//! Batch normalization. tract's own has no training mode, and takes parameters that are constants only.

use tract_onnx::model::ParsingContext;
use tract_onnx::pb::NodeProto;
use tract_onnx::tract_hir::internal::*;
use tract_onnx::tract_hir::ops::math::{add, mul, rsqrt, square, sub};
use tract_onnx::tract_hir::ops::nn::{Reduce, Reducer};
use tract_onnx::tract_hir::tract_core::ops::cast::cast;

/// `BatchNormalization` from opset 14 on: y = (x - mean) / √(var + ε) · scale + bias, per channel, which is axis 1.
#[derive(Debug, Clone)]
struct BatchNormalization {
    epsilon: f32,
    /// How much of the running statistics is kept, where the statistics are those of the batch.
    training: Option<f32>,
}

/// Builds the operator of a node.
pub(super) fn batch_normalization(
    _: &ParsingContext<'_>,
    node: &NodeProto,
) -> TractResult<(Box<dyn InferenceOp>, Vec<String>)> {
    let epsilon = node.get_attr_opt("epsilon")?.unwrap_or(1e-5);
    let momentum = node.get_attr_opt("momentum")?.unwrap_or(0.9);
    let is_training = node.get_attr_opt::<bool>("training_mode")?.unwrap_or(false);
    Ok((expand(BatchNormalization { epsilon, training: is_training.then_some(momentum) }), vec![]))
}

impl Expansion for BatchNormalization {
    fn name(&self) -> StaticName {
        "BatchNormalization".into()
    }

    fn nboutputs(&self) -> TractResult<usize> {
        Ok(if self.training.is_some() { 3 } else { 1 })
    }

    fn rules<'r, 'p: 'r, 's: 'r>(
        &'s self,
        s: &mut Solver<'r>,
        inputs: &'p [TensorProxy],
        outputs: &'p [TensorProxy],
    ) -> InferenceResult {
        check_input_arity(inputs, 5)?;
        check_output_arity(outputs, self.nboutputs()?)?;
        // What a batch updates has the type and the shape that it had; so has y.
        for (output, input) in [(0, 0), (1, 3), (2, 4)].into_iter().take(outputs.len()) {
            s.equals(&outputs[output].datum_type, &inputs[input].datum_type)?;
            s.equals(&outputs[output].shape, &inputs[input].shape)?;
        }
        Ok(())
    }

    fn wire(&self, prefix: &str, model: &mut TypedModel, inputs: &[OutletId]) -> TractResult<TVec<OutletId>> {
        let x = inputs[0];
        let mut wires =
            Wires { prefix, datum_type: model.outlet_fact(x)?.datum_type, rank: model.outlet_fact(x)?.rank(), model };
        let [scale, bias] = [wires.per_channel("scale", inputs[1])?, wires.per_channel("bias", inputs[2])?];
        let running = [wires.per_channel("running_mean", inputs[3])?, wires.per_channel("running_var", inputs[4])?];
        let (difference, var, updated) = match self.training {
            None => (wires.op("difference", sub(), &[x, running[0]])?, running[1], None),
            Some(momentum) => {
                let mean = wires.mean("mean", x)?;
                let difference = wires.op("difference", sub(), &[x, mean])?;
                let squares = wires.op("squares", square(), &[difference])?;
                let var = wires.mean("var", squares)?;
                (difference, var, Some((momentum, [mean, var])))
            }
        };
        let epsilon = wires.constant("epsilon", self.epsilon)?;
        let positive = wires.op("positive", add(), &[var, epsilon])?;
        let factor = wires.op("rsqrt", rsqrt(), &[positive])?;
        let factor = wires.op("factor", mul(), &[factor, scale])?;
        let scaled = wires.op("scaled", mul(), &[difference, factor])?;
        let mut outputs = tvec![wires.op("y", add(), &[scaled, bias])?];
        if let Some((momentum, batch)) = updated {
            let [kept, new] = [wires.constant("kept", momentum)?, wires.constant("new", 1.0 - momentum)?];
            for (at, name) in ["running_mean", "running_var"].into_iter().enumerate() {
                let old = wires.op(&format!("{name}.old"), mul(), &[running[at], kept])?;
                let share = wires.op(&format!("{name}.share"), mul(), &[batch[at], new])?;
                let sum = wires.op(&format!("{name}.sum"), add(), &[old, share])?;
                outputs.push(wires.statistic(&format!("{name}.updated"), sum, inputs[3 + at])?);
            }
        }
        Ok(outputs)
    }
}

/// Writes operators on tensors of one type and rank.
struct Wires<'a> {
    model: &'a mut TypedModel,
    prefix: &'a str,
    datum_type: DatumType,
    rank: usize,
}

impl Wires<'_> {
    fn op(&mut self, name: &str, op: impl Into<Box<dyn TypedOp>>, inputs: &[OutletId]) -> TractResult<OutletId> {
        Ok(self.model.wire_node(format!("{}.{name}", self.prefix), op, inputs)?[0])
    }

    fn constant(&mut self, name: &str, value: f32) -> TractResult<OutletId> {
        let value = tensor0(value).cast_to_dt(self.datum_type)?.into_owned().broadcast_into_rank(self.rank)?;
        self.model.add_const(format!("{}.{name}", self.prefix), value)
    }

    /// A vector over the channels, so that it broadcasts against x.
    fn per_channel(&mut self, name: &str, vector: OutletId) -> TractResult<OutletId> {
        let mut wire = self.op(&format!("{name}.cast"), cast(self.datum_type), &[vector])?;
        for axis in (0..self.rank).filter(|&axis| axis != 1) {
            wire = self.op(&format!("{name}.axis{axis}"), AxisOp::Add(axis), &[wire])?;
        }
        Ok(wire)
    }

    /// The mean over all axes but that of the channels.
    fn mean(&mut self, name: &str, wire: OutletId) -> TractResult<OutletId> {
        let axes = (0..self.rank as i64).filter(|&axis| axis != 1).collect();
        let mean = Reduce::new(Some(axes), true, Reducer::Mean);
        Ok(mean.wire(&format!("{}.{name}", self.prefix), self.model, &[wire])?[0])
    }

    /// The other way than [`Self::per_channel`]: a vector of the type of `like`.
    fn statistic(&mut self, name: &str, wire: OutletId, like: OutletId) -> TractResult<OutletId> {
        let datum_type = self.model.outlet_fact(like)?.datum_type;
        let mut wire = self.op(&format!("{name}.cast"), cast(datum_type), &[wire])?;
        for axis in (0..self.rank).rev().filter(|&axis| axis != 1) {
            wire = self.op(&format!("{name}.axis{axis}"), AxisOp::Rm(axis), &[wire])?;
        }
        Ok(wire)
    }
}
