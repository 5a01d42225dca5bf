//! Products and conversions.

use super::{Argument, Element, Launch, NO_FLAG, Real, Strided, THREADS, sizes};

/// The sides of a block's part of a product.
const SIDE: usize = 64;
/// Rows of a product, at most: a grid has no more blocks along its second axis.
pub(super) const MOST_ROWS: usize = 65_535 * SIDE;
/// Blocks that together convert an array; each of its threads takes many elements.
pub(super) const CONVERTERS: usize = 1 << 10;

/// out = C + factor·A diag(weights) B; see `kernels.cu`. An address of zero is none.
pub(super) struct Product {
    pub(super) flag: u64,
    pub(super) a: Strided,
    pub(super) b: Strided,
    pub(super) weights: u64,
    pub(super) c: u64,
    pub(super) factor: f32,
    pub(super) out: Strided,
    pub(super) is_lower: bool,
}

impl Product {
    /// A plain one; both factors are still to come.
    pub(super) fn into(out: Strided, flag: u64) -> Self {
        Self { flag, a: out, b: out, weights: 0, c: 0, factor: 1.0, out, is_lower: false }
    }

    /// By what the factors and the result are.
    fn kernel(&self) -> &'static str {
        match (self.a.real, self.b.real, self.out.real) {
            (Real::Float, Real::Float, Real::Float) => "product",
            (Real::Float, Real::Float, Real::Double) => "product_f32_f64",
            (Real::Float, Real::Double, Real::Float) => "product_f64_f32",
            _ => "product_f64",
        }
    }

    pub(super) fn launch(&self) -> Launch {
        let Self { flag, a, b, weights, c, factor, out, is_lower } = self;
        let arguments = [
            vec![(*flag).into(), a.address.into()],
            sizes(*a),
            vec![b.address.into(), b.cols.into(), b.strides[0].into(), b.strides[1].into()],
            vec![(*weights).into(), (*c).into(), (*factor).into(), out.address.into()],
            vec![out.strides[0].into(), out.strides[1].into(), usize::from(*is_lower).into()],
        ];
        Launch::new(self.kernel(), [out.cols.div_ceil(SIDE), out.rows.div_ceil(SIDE)], 0, arguments.concat())
    }

    pub(super) fn launch_unless_empty(&self) -> Option<Launch> {
        (self.out.rows > 0 && self.a.cols > 0).then(|| self.launch())
    }
}

/// Elements into floats, or floats into elements.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Convert {
    pub(crate) from: (u64, Element),
    pub(crate) to: (u64, Element),
    pub(crate) count: usize,
}

impl Convert {
    pub(crate) fn launches(&self) -> Vec<Launch> {
        let kernel = match (self.from.1, self.to.1) {
            (Element::Half, _) => "convert_f16_f32",
            (Element::BFloat16, _) => "convert_bf16_f32",
            (Element::Float, Element::Half) => "convert_f32_f16",
            (Element::Float, Element::BFloat16) => "convert_f32_bf16",
            (Element::Float, Element::Float) => "convert_f32_f32",
        };
        vec![convert(kernel, NO_FLAG, [self.from.0, self.to.0], self.count)]
    }
}

pub(super) fn convert(kernel: &'static str, flag: u64, [from, to]: [u64; 2], count: usize) -> Launch {
    let halves = [count as u32, (count as u64 >> 32) as u32].map(Argument::Int);
    let arguments = [vec![flag.into(), from.into(), to.into()], halves.into()].concat();
    Launch::new(kernel, [count.div_ceil(THREADS as usize).min(CONVERTERS), 1], 0, arguments)
}
