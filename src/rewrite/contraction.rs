//! Matrix products, whatever operator they are written with, as one record.

use super::flow::Flow;
use crate::model::{Dim, NodeExt, NodeId, ValueId};

/// How the axes of a stored tensor lie, seen as a stack of matrices in which one of the last two axes is summed over.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Axes {
    /// `[…, summed, kept]`.
    SummedFirst,
    /// `[…, kept, summed]`.
    KeptFirst,
    /// This permutation brings the tensor to `[…, summed, kept]`.
    Permuted(Vec<usize>),
}

impl Axes {
    fn from_permutation(permutation: Vec<usize>) -> Self {
        let rank = permutation.len();
        if permutation.iter().copied().eq(0..rank) {
            Self::SummedFirst
        } else if permutation == swapped(rank) {
            Self::KeptFirst
        } else {
            Self::Permuted(permutation)
        }
    }

    /// The permutation that brings a tensor of this rank to `[…, summed, kept]`.
    pub(super) fn permutation(&self, rank: usize) -> Vec<usize> {
        match self {
            Self::SummedFirst => (0..rank).collect(),
            Self::KeptFirst => swapped(rank),
            Self::Permuted(permutation) => permutation.clone(),
        }
    }

    /// How far from `[…, summed, kept]`.
    fn distance(&self) -> usize {
        match self {
            Self::SummedFirst => 0,
            Self::KeptFirst => 1,
            Self::Permuted(_) => 2,
        }
    }
}

/// The last two axes change places; a vector has nothing to swap.
fn swapped(rank: usize) -> Vec<usize> {
    let mut permutation: Vec<usize> = (0..rank).collect();
    if rank >= 2 {
        permutation.swap(rank - 2, rank - 1);
    }
    permutation
}

/// One of the two factors of a product.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Operand {
    pub(super) value: ValueId,
    pub(super) axes: Axes,
}

impl Operand {
    /// The same operand, read in front of a Transpose where that is closer to `[…, summed, kept]`.
    pub(super) fn straightened(mut self, flow: &Flow<'_>) -> Self {
        while let Some(before) = self.before_transpose(flow).filter(|o| o.axes.distance() < self.axes.distance()) {
            self = before;
        }
        self
    }

    /// The size of the axis that is not summed over.
    pub(super) fn kept<'f>(&self, flow: &'f Flow<'_>) -> Option<&'f Dim> {
        let shape = flow.shape(self.value).filter(|shape| shape.len() >= 2)?;
        shape.get(*self.axes.permutation(shape.len()).last()?)
    }

    /// The size of the axis that is summed over.
    pub(super) fn summed<'f>(&self, flow: &'f Flow<'_>) -> Option<&'f Dim> {
        let shape = flow.shape(self.value).filter(|shape| shape.len() >= 2)?;
        shape.get(self.axes.permutation(shape.len())[shape.len() - 2])
    }

    fn before_transpose(&self, flow: &Flow<'_>) -> Option<Self> {
        let node = flow.node(flow.maker(self.value)?.0);
        let value = node.is_onnx("Transpose").then(|| flow.index.input(node, 0)).flatten()?;
        let inner = transpose_permutation(flow, self.value)?;
        let outer = self.axes.permutation(inner.len());
        (outer.len() == inner.len())
            .then(|| Self { value, axes: Axes::from_permutation(outer.iter().map(|&axis| inner[axis]).collect()) })
    }
}

/// The permutation of the Transpose that makes `output`; reversed axes where the attribute is left out.
pub(super) fn transpose_permutation(flow: &Flow<'_>, output: ValueId) -> Option<Vec<usize>> {
    let node = flow.node(flow.maker(output)?.0);
    match node.ints("perm") {
        Some(perm) => perm.iter().map(|&axis| usize::try_from(axis).ok()).collect(),
        None => {
            let rank = rank(flow, output).or_else(|| rank(flow, flow.index.input(node, 0)?))?;
            Some((0..rank).rev().collect())
        }
    }
}

/// The number of dimensions of a value.
pub(super) fn rank(flow: &Flow<'_>, value: ValueId) -> Option<usize> {
    flow.shape(value).map(<[Dim]>::len)
}

/// A matrix product `alpha · left · right + beta · addend`: a Gemm, MatMul, or one of ONNX Runtime's fused forms.
#[derive(Debug, Clone)]
pub(super) struct Contraction {
    pub(super) node: NodeId,
    pub(super) operands: [Operand; 2],
    /// Where the operands' layout chains begin.
    pub(super) roots: [ValueId; 2],
    pub(super) alpha: f32,
    /// What a Gemm adds, with beta.
    pub(super) addend: Option<(ValueId, f32)>,
    pub(super) output: ValueId,
}

impl Contraction {
    /// Whether no factor is known to be a vector.
    pub(super) fn is_of_matrices(&self, flow: &Flow<'_>) -> bool {
        self.operands.iter().all(|operand| rank(flow, operand.value).is_none_or(|rank| rank >= 2))
    }

    /// Reads a node; `None` if it is no product. A factor may be a vector: a layer can be fed a single row.
    pub(super) fn parse(flow: &Flow<'_>, id: NodeId) -> Option<Self> {
        let node = flow.node(id);
        let microsoft = node.domain() == "com.microsoft";
        let gemm = node.is_onnx("Gemm") || microsoft && node.op_type() == "FusedGemm";
        let matmul = node.is_onnx("MatMul")
            || microsoft && matches!(node.op_type(), "FusedMatMul" | "TransposeMatMul" | "FusedMatMulActivation");
        if !gemm && !matmul {
            return None;
        }
        let [left, right] = [flow.index.input(node, 0)?, flow.index.input(node, 1)?];
        let operand = |value, transposed: bool, batch: &str| {
            let axes = if transposed { Axes::SummedFirst } else { Axes::KeptFirst };
            if node.int(batch, 0) == 0 {
                return Some(Operand { value, axes });
            }
            // The first axis changes places with the batch axes: [first, batch…, last] is read as [batch…, first, last].
            let rank = rank(flow, value)?;
            let moved: Vec<usize> = (1..rank - 1).chain([0, rank - 1]).collect();
            let permutation = axes.permutation(rank).iter().map(|&axis| moved[axis]).collect();
            Some(Operand { value, axes: Axes::from_permutation(permutation) })
        };
        let beta = node.float("beta", 1.0);
        Some(Self {
            node: id,
            roots: [flow.root(left), flow.root(right)],
            // The left factor is summed over its last axis unless transposed, the right one over the axis before.
            operands: [
                operand(left, node.int("transA", 0) != 0, "transBatchA")?,
                operand(right, node.int("transB", 0) == 0, "transBatchB")?,
            ],
            alpha: node.float("alpha", 1.0),
            addend: if gemm { flow.index.input(node, 2).map(|value| (value, beta)) } else { None },
            output: flow.index.output(node, 0)?,
        })
    }
}
